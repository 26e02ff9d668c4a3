"""Every byte of a small bundle flipped, every prefix of it, every archive trick, on an enrolled device: `make attacks`.

A flip must be found twice: against what the signature pins, and, where no signature is asked for, by the bundle's own
digest. Flips in FILE.sig may change nothing that is used (a root the device knows already); they must never make
the device accept anything but what was signed. Some go all the way through a device root, with its record.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibration.cli_support import emit, key_values, progress
from calibration.errors import InputError
from deploy import trust
from deploy.bundle import parse_bundle
from deploy.record import read_history, read_trust
from deploy.refusals import TrustError
from deploy.trust_record import signature_path
from tests.attacks.archives import tricks
from tests.attacks.forge import Forgery, put, taken
from tests.attacks.line import Line
from tests.support.tiny import tiny_bundle

NOWHERE = Path("attacked.lgb")
THROUGH_DEVICE = 300


def refuses(attempt: Callable[[], object]) -> bool:
    """Whether it ends in a refusal; any other error than a refusal ends the campaign."""
    try:
        attempt()
    except InputError:
        return True
    return False


def campaign(folder: Path, seed: int) -> dict[str, Any]:
    """All attacks on a fresh line in `folder`; returns the summary."""
    start = time.monotonic()
    rng = random.Random(seed)
    line = Line.made(folder)
    good = line.signed(tiny_bundle(folder / "tiny.lgb"), "good")
    record = read_trust(line.device.root)
    assert record is not None
    whole = good.read_bytes()
    verified = trust.verify(record, trust.read_signature(good))
    trust.parse_verified(whole, verified, NOWHERE)  # the good one is accepted, before and after
    accepted = {
        "flips": _flips(whole, verified, rng),
        "truncations": sum(
            not refuses(lambda n=n: trust.parse_verified(whole[:n], verified, NOWHERE))  # type: ignore[misc]
            + (not refuses(lambda n=n: parse_bundle(whole[:n], NOWHERE)))  # type: ignore[misc]
            for n in range(len(whole))
        ),
        "signature_flips": _signature_flips(record, good, whole, verified, rng),
        "through_device": _through_device(line, good, rng),
    }
    archives = {name: data for name, data in tricks() if name != "sound"}
    accepted["archives"] = sum(_archive(line, data) for data in archives.values())
    rows = [row for row in read_history(line.device.root) if row.what == "refuse"]
    line.accepts(good)
    return {
        "bundle_bytes": len(whole),
        "flips": len(whole),
        "truncations": len(whole),
        "signature_flips": len(signature_path(good).read_bytes()),
        "through_device": THROUGH_DEVICE,
        "archives": len(archives),
        "refusals_on_record": len(rows),
        "accepted": sum(accepted.values()),
        "accepted_by_kind": accepted,
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
    }


def _flips(whole: bytes, verified: trust.Verified, rng: random.Random) -> int:
    """Each byte changed to another value; counts acceptances by signature and by digest."""
    accepted = 0
    data = bytearray(whole)
    with progress("bytes flipped") as report:
        for at in range(len(data)):
            data[at] ^= rng.randrange(1, 256)
            flipped = bytes(data)
            accepted += not refuses(lambda b=flipped: trust.parse_verified(b, verified, NOWHERE))  # type: ignore[misc]
            accepted += not refuses(lambda b=flipped: parse_bundle(b, NOWHERE))  # type: ignore[misc]
            data[at] = whole[at]
            report(at + 1, len(whole))
    return accepted


def _signature_flips(
    record: trust.TrustRecord, good: Path, whole: bytes, honest: trust.Verified, rng: random.Random
) -> int:
    """Each byte of FILE.sig changed; counts those that made the device accept what was not signed."""
    data = signature_path(good).read_bytes()
    wrong = 0
    with progress("bytes of the signature flipped") as report:
        for at in range(len(data)):
            flipped = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
            try:
                found = trust.verify(record, flipped)
            except TrustError:
                continue
            same = (found.sha256, found.length, found.terms) == (honest.sha256, honest.length, honest.terms)
            wrong += not same or found.record != honest.record
            report(at + 1, len(data))
    return wrong


def _through_device(line: Line, good: Path, rng: random.Random) -> int:
    """Random flips and cuts pushed to the device root; counts those staged or not put on record."""
    whole, path, accepted = good.read_bytes(), line.folder / "attacked.lgb", 0
    for i in range(THROUGH_DEVICE):
        at = rng.randrange(len(whole))
        bad = whole[:at] if i % 2 else whole[:at] + bytes([whole[at] ^ rng.randrange(1, 256)]) + whole[at + 1 :]
        path.write_bytes(bad)
        put(path, taken(good))
        accepted += _staged(line, path)
    return accepted


def _archive(line: Line, data: bytes) -> int:
    path = line.folder / "trick.lgb"
    path.write_bytes(data)
    return _staged(line, Forgery(2).beside(path, line.keys))


def _staged(line: Line, path: Path) -> int:
    """1 where the device took it, changed anything, or kept no row; 0 where it refused as it should."""
    before, rows = line.tree(), len(read_history(line.device.root))
    refused = refuses(lambda: line.device.stage(path))
    return int(not refused or line.tree() != before or len(read_history(line.device.root)) != rows + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/attacks"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = campaign(Path(folder), options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    emit(summary, options.json, key_values("Attacks on a signed bundle", summary))
    if summary["accepted"]:
        raise SystemExit(f"{summary['accepted']} attacks were accepted: {summary['accepted_by_kind']}")


if __name__ == "__main__":
    main()
