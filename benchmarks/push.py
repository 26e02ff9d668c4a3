"""Pushing over SSH: what verification costs, a push to many devices against plain copies, cut connections.

`python -m benchmarks.push` needs sshd (apt-get install openssh-server openssh-client); everything is on loopback. The
devices are so many enrolled device roots behind a few servers, all on this one machine, which so does the devices' work
as well, but for starting Python on each (see benchmarks.simulated_devices; `--cold` counts that too). Writes
build/push.json.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import asyncssh
import click
import numpy as np

from benchmarks.simulated_devices import DeviceHost
from calibration.cli_support import emit, key_values
from calibration.errors import InputError
from deploy.bundle import write_bundle
from deploy.install import Device
from deploy.inventory import Ways
from deploy.keys import KeyStore
from deploy.rollout import Rollout, push
from deploy.ssh import CIPHERS
from deploy.trust import enrolled, open_verified, read_signature, verify
from tests.support.cuts import campaign
from tests.support.sshd import KEYGEN, SSHD, Sshd
from tests.support.tiny import tiny_contents

SERVERS = 4


def big_bundle(path: Path, size: int) -> Path:
    """A valid bundle of about `size` bytes that no compression makes smaller (its report is noise)."""
    manifest, members = tiny_contents(name="big")
    members["report.html"] = np.random.default_rng(1).bytes(size - 45_000)
    write_bundle(path, manifest, members)
    return path


def signed(folder: Path, bundle: Path) -> bytes:
    """Sign a bundle with new keys; the root metadata that devices are enrolled with."""
    store = KeyStore(folder / "keys")
    store.init()
    store.sign(bundle, ("*",), 30)
    return (folder / "keys/root.json").read_bytes()


def verification(root: bytes, bundle: Path, times: int) -> dict[str, float]:
    """CPU ms of a whole verification on a device: signature, hash, archive, models. Median and the extremes."""
    record = enrolled(root, "press-1")
    taken = []
    for _ in range(times):
        began = time.process_time()
        open_verified(bundle, verify(record, read_signature(bundle)))
        taken.append(1000 * (time.process_time() - began))
    return spread(taken)


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def copies(bundle: Path, folder: Path, servers: list[Sshd], identity: Path, devices: int, jobs: int) -> float:
    """Seconds for so many plain copies by SFTP: the same library, cipher, connections and number at once."""

    async def one(number: int, gate: asyncio.Semaphore) -> None:
        server = servers[number % len(servers)]
        key = asyncssh.import_public_key(server.host_key)
        async with (
            gate,
            asyncssh.connect(
                "127.0.0.1", server.port, known_hosts=([key], [], []), client_keys=[str(identity)], config=None,
                agent_path=None, encryption_algs=CIPHERS, compression_algs=["none"],
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):  # fmt: skip
            await sftp.put(str(bundle), str(folder / f"copy-{number}"))

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(jobs)
        await asyncio.gather(*(one(number, gate) for number in range(devices)))

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return timed(lambda: asyncio.run(all_of_them()))


def pushes(
    bundle: Path, trusted: bytes, folder: Path, servers: list[Sshd], login: tuple[Path, Path], devices: int, jobs: int
) -> float:
    """Seconds for `deploy push` to so many fresh device roots, enrolled beforehand with the root metadata `trusted`.

    `login`: the private key, and the program that answers on a device.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = ["[ssh]", f'identity = "{login[0]}"', f'program = "{login[1]}"']
    for number in range(devices):
        server = servers[number % len(servers)]
        lines += [f"[devices.d{number}]", 'host = "127.0.0.1"', f"port = {server.port}"]
        lines += [f'host_key = "{server.host_key}"', f'root = "{folder / f"d{number}"}"']
        Device(folder / f"d{number}").enrol(trusted, f"d{number}")
    listed = folder / "devices.toml"
    listed.write_text("\n".join(lines) + "\n")
    names = [f"d{number}" for number in range(devices)]

    def all_of_them() -> None:
        report = push(bundle, names, rollout=Rollout(jobs), ways=Ways(listed))
        if report.failed:
            raise InputError(f"{report.failed[0].address}: {report.failed[0].error}")
        if not all(outcome.enrolled for outcome in report.devices):
            raise InputError(f"{folder}: a device did not ask for the signature")

    return timed(all_of_them)


def timed(work: Callable[[], None]) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fleet(work: Path, bundle: Path, trusted: bytes, devices: int, jobs: int, rounds: int, cold: bool) -> dict[str, Any]:
    """Pushes against copies, in turns, so that both see the same machine."""
    identity, host = work / "identity", None if cold else DeviceHost(work)
    program = host.program if host else Path(sys.executable).with_name("deploy")
    servers = [Sshd(work / f"server{number}", identity) for number in range(SERVERS)]
    try:
        found = [
            (
                copies(bundle, work / "copies", servers, identity, devices, jobs),
                pushes(bundle, trusted, work / "roots", servers, (identity, program), devices, jobs),
            )
            for _ in range(rounds)
        ]
    finally:
        for server in servers:
            server.stop()
        if host:
            host.stop()
    return {
        "devices": devices,
        "jobs": jobs,
        "cold": cold,
        "copies_s": spread([copied for copied, _ in found]),
        "push_s": spread([pushed for _, pushed in found]),
        "ratio": spread([pushed / copied for copied, pushed in found]),
    }


def cut(work: Path, number: int, seed: int) -> dict[str, Any]:
    """So many cut connections, each followed by a push that must work."""
    server = Sshd(work / "cut", work / "cut-identity")
    bundle = big_bundle(work / "cut.lgb", 400_000)
    try:
        drawn = Random(seed)
        found = campaign(
            work, server, work / "cut-identity", bundle, lambda total: [drawn.randrange(total) for _ in range(number)]
        )
    finally:
        server.stop()
    return {**asdict(found), "seed": seed}


@click.command(epilog="Example: python -m benchmarks.push --devices 100 --rounds 3")
@click.option("--cuts", default=0, help="Cut so many connections instead of measuring.")
@click.option("--seed", default=0, show_default=True, help="Of the cuts.")
@click.option("--devices", default=100, show_default=True, help="Simulated devices.")
@click.option("--jobs", default=8, show_default=True, help="Devices at once.")
@click.option("--rounds", default=3, show_default=True, help="How often pushes and copies take turns.")
@click.option("--mb", default=20, show_default=True, help="Size of the bundle in MB.")
@click.option("--cold", is_flag=True, help="Start Python on this machine for each device, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(cuts: int, seed: int, devices: int, jobs: int, rounds: int, mb: int, cold: bool, as_json: bool) -> None:
    """Measure pushes, or cut them."""
    if SSHD is None or KEYGEN is None:
        click.echo("error: no sshd here: apt-get install openssh-server openssh-client", err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="lineguard-push-") as folder:
        work = Path(folder)
        if cuts:
            result: dict[str, Any] = {"cuts": cut(work, cuts, seed)}
        else:
            bundle = big_bundle(work / "big.lgb", mb * 1_000_000)
            trusted = signed(work, bundle)
            result = {
                "bytes": bundle.stat().st_size,
                "verification_cpu_ms": verification(trusted, bundle, 15),
                "fleet": fleet(work, bundle, trusted, devices, jobs, rounds, cold),
            }
    out = Path("build") / ("push-cuts.json" if cuts else "push.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    emit(result, as_json, key_values(str(out), {name: json.dumps(value) for name, value in result.items()}))


if __name__ == "__main__":
    main()
