"""Private keys as files: PKCS#8 in PEM, Ed25519, readable by their owner alone or refused."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from calibration.errors import InputError

PASSPHRASE = "LINEGUARD_PASSPHRASE"  # noqa: S105  the name of the variable, not its content


class KeyDirectoryError(InputError):
    """The key directory is not usable, or not for this."""


def new_signer() -> CryptoSigner:
    """A fresh Ed25519 key."""
    return CryptoSigner.generate_ed25519()


def encoded(signer: CryptoSigner) -> bytes:
    """PKCS#8, encrypted where the environment gives a passphrase."""
    passphrase = os.environ.get(PASSPHRASE)
    if not passphrase:
        return signer.private_bytes
    key = serialization.load_pem_private_key(signer.private_bytes, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )


def load_signer(path: Path) -> CryptoSigner:
    """A private key. Refused where others than its owner may read it."""
    if path.stat().st_mode & 0o077:
        raise KeyDirectoryError(f"{path}: others may read this private key; chmod 600 it, and revoke it if they did")
    data = path.read_bytes()
    passphrase = os.environ.get(PASSPHRASE, "").encode() if b"ENCRYPTED" in data else None
    if passphrase == b"":
        raise KeyDirectoryError(f"{path}: encrypted; set {PASSPHRASE}")
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError):
        raise KeyDirectoryError(f"{path}: not a private key, or {PASSPHRASE} is not its passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyDirectoryError(f"{path}: not an Ed25519 key; use those of `deploy keys init`")
    return CryptoSigner(key)
