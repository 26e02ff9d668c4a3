"""Why a bundle is not trusted: one error per attack, named as the TUF specification names them (section 1.5.2)."""

from __future__ import annotations

from calibration.errors import InputError


class TrustError(InputError):
    """The bundle is not trusted; nothing was written and what judges goes on judging."""


class UnsignedBundle(TrustError):  # noqa: N818  the names say what happened, here and below
    """There is no signature beside the bundle."""


class MalformedSignature(TrustError):  # noqa: N818
    """The signature file is no such file."""


class UntrustedKey(TrustError):  # noqa: N818
    """Too few signatures by keys this device trusts."""


class RotatedKey(UntrustedKey):
    """Signed by a key that was trusted once and has been replaced since."""


class RevokedKey(UntrustedKey):
    """Signed by a key that has been revoked."""


class ReplayedSignature(TrustError):  # noqa: N818
    """An older signature than the last one accepted here."""


class RolledBack(TrustError):  # noqa: N818
    """A fresh signature over an older state than the one accepted here."""


class FastForward(TrustError):  # noqa: N818
    """A version so high that no later signature could ever pass it."""


class FrozenSignature(TrustError):  # noqa: N818
    """Expired: somebody may be holding newer ones back."""


class MixedMetadata(TrustError):  # noqa: N818
    """Parts of several signatures put together."""


class ArbitraryBundle(TrustError):  # noqa: N818
    """The bundle is not the one that was signed."""


class EndlessData(TrustError):  # noqa: N818
    """More bytes than the signature states, or than any signature needs."""


class WrongDevice(TrustError):  # noqa: N818
    """Signed for other devices."""
