"""From a bare Debian to verdicts and back: `deploy bootstrap`, `push`, `rollback` on a machine that has nothing yet.

    make bootstrap-trial

Makes a minimal Debian (once, kept in build/bootstrap), boots it with its own systemd in a container whose only wire
leads to this machine, installs the appliance over SSH, pushes two signed bundles, waits until the appliance there has
confirmed each on its own goldens and judged parts, rolls back, and counts the verdict rows of the device. A folder of
pictures stands in for the camera. Needs root and some Debian packages. Writes build/bootstrap/summary.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from calibration.cli_support import emit, key_values
from calibration.errors import InputError
from calibration.text import one_line
from deploy.bundle import open_bundle
from tests.support import nspawn
from tests.support.sshd import keygen
from tests.support.tiny import tiny_bundle, write_parts

BUILD = Path("build/bootstrap")
DEVICE_ID = "press-1"
ROOT, PUSH = f"ssh://root@{nspawn.FAR}", f"ssh://lineguard@{nspawn.FAR}/var/lib/lineguard"
PARTS, ENOUGH, PATIENCE_S = 40, 100, 120.0
"""Pictures in the folder, which goes round; rows that each bundle has to write; how long that may take."""
STATION = """\
[station]
name = "press-1"
data = "/var/lib/lineguard-station"
bundle = "/var/lib/lineguard"

[camera.top]
source = "folder"
path = "/srv/parts"
fps = 25.0
loop = true

[trial]
frames = 50
seconds = 3.0
"""


class Trial:
    """One device, from bare to rolled back. Each step is a command that a user types; all of them are timed."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.seconds: dict[str, float] = {}
        self.known_hosts = work / "known_hosts"

    def prepared(self, archive: Path) -> Path:
        """Keys, bundles and station.toml on this machine, and the tree of a bare device."""
        for name in ("admin", "pusher", "host"):
            keygen(self.work / name)
        host = " ".join((self.work / "host.pub").read_text().split()[:2])
        self.known_hosts.write_text(f"{nspawn.FAR} {host}\n")
        (self.work / "station.toml").write_text(STATION)
        self._run("deploy", "keys", "init", self.work / "keys")
        for name, gain in (("one", 120.0), ("two", 110.0)):
            bundle = tiny_bundle(self.work / f"{name}.lgb", name=name, gain=gain)
            self._run("deploy", "sign", bundle, "--keys", self.work / "keys", "--devices", DEVICE_ID)
        tree = self.work / "tree"
        nspawn.lay_out(archive, tree, (self.work / "admin.pub").read_text(), self.work / "host")
        write_parts(tree / "srv/parts", PARTS)
        return tree

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Timed, and shown."""
        click.echo(f"{name} ...", err=True)
        began = time.monotonic()
        done = work()
        self.seconds[name] = round(time.monotonic() - began, 1)
        return done

    def deploy(self, command: str, *words: str | Path, identity: str = "pusher") -> Any:
        """A command of `deploy` that reaches the device; what it says as JSON."""
        reach = ("--known-hosts", self.known_hosts, "--identity", self.work / identity)
        return json.loads(self._run("deploy", command, *words, *reach, "--json"))

    def bootstrap(self) -> Any:
        """The appliance onto the device, enrolled, with one key that may push."""
        more = ("--station", self.work / "station.toml", "--push-key", self.work / "pusher.pub")
        trust = ("--root", self.work / "keys/root.json", "--id", DEVICE_ID)
        return self.deploy("bootstrap", ROOT, *more, *trust, identity="admin")

    def on_device(self, script: str) -> str:
        """Root's shell on the device."""
        reach = ["-F", "/dev/null", "-i", str(self.work / "admin"), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        return self._run("ssh", *reach, "-o", "BatchMode=yes", f"root@{nspawn.FAR}", script)

    def rows(self) -> dict[str, dict[str, int]]:
        """Verdict rows in the device's database: {bundle: {verdict with its reason: rows}}."""
        said = self.on_device(
            "runuser -u lineguard -- /opt/lineguard/bin/appliance verdicts --config /etc/lineguard/station.toml --json"
        )
        found: dict[str, dict[str, int]] = {}
        for row in json.loads(said):
            verdicts = found.setdefault(row["bundle"], {})
            told = f"{row['verdict']} {row['reason']}".strip()
            verdicts[told] = verdicts.get(told, 0) + 1
        return found

    def judging(self, sha256: str, more_than: int) -> int:
        """Wait until a bundle has written more rows than that, of passed parts and of defects; how many there are."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            rows = self.rows().get(sha256, {})
            if sum(rows.values()) > more_than and rows.get("PASS") and rows.get("REJECT DEFECT"):
                return sum(rows.values())
            time.sleep(1.0)
        raise InputError(f"bundle {sha256[:12]} wrote {rows} in {PATIENCE_S:g} s; see {self.work}")

    def pushed(self, name: str) -> str:
        """A bundle pushed and confirmed by the appliance there; its hash."""
        file = self.work / f"{name}.lgb"
        device = self.deploy("push", file, PUSH, "--wait", f"{PATIENCE_S:g}")["devices"][0]
        if device["trial"] != "confirmed":
            raise InputError(f"{name}: {device}")
        return open_bundle(file).sha256

    def _run(self, *words: str | Path) -> str:
        program = str(words[0])
        path = Path(sys.executable).with_name(program) if program == "deploy" else shutil.which(program)
        done = subprocess.run([str(path), *map(str, words[1:])], capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise InputError(f"{' '.join(map(str, words[:2]))}: {one_line(said[-1])[:400]}")
        return done.stdout


def lived(trial: Trial) -> dict[str, Any]:
    """The life of a device that is switched on; what became of it."""
    before = trial.on_device("ls /opt; ip -o route show | wc -l; ip -o route show default | wc -l").split()
    steps = trial.step("bootstrap", trial.bootstrap)["steps"]
    one = trial.step("push one", lambda: trial.pushed("one"))
    trial.step("one judges", lambda: trial.judging(one, ENOUGH))
    two = trial.step("push two", lambda: trial.pushed("two"))
    trial.step("two judges", lambda: trial.judging(two, ENOUGH))
    held = sum(trial.rows()[one].values())
    trial.step("roll back", lambda: trial.deploy("rollback", PUSH, "--reason", "trial of the way back"))
    trial.step("one judges again", lambda: trial.judging(one, held + ENOUGH))
    status = trial.deploy("status", PUSH)["devices"][0]
    names = {one: "one", two: "two"}
    return {
        "before": {"opt": before[:-2], "routes": int(before[-2]), "default_routes": int(before[-1])},
        "bootstrap_steps": steps,
        "rows": {names[sha256]: verdicts for sha256, verdicts in trial.rows().items()},
        "status": status,
        "failed_units": trial.on_device("systemctl list-units --state=failed --plain --no-legend").split("\n")[:-1],
        "service": trial.on_device("systemctl show -P ActiveState appliance.service").strip(),
        "seconds": trial.seconds,
    }


def tried(build: Path) -> dict[str, Any]:
    """All of it. The device is switched off and its tree removed afterwards, also where a step failed."""
    nspawn.check_tools()
    work = build / "device"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    trial = Trial(work.resolve())
    archive = trial.step("debian", lambda: nspawn.debian(build / "debian.tar"))
    try:
        tree = trial.step("tree", lambda: trial.prepared(archive))
        with nspawn.booted(tree, work / "boot.log"):
            return lived(trial)
    finally:
        shutil.rmtree(work / "tree", ignore_errors=True)


@click.command(epilog="\b\nExample:\n  python -m benchmarks.bare_device --json")
@click.option("--build", type=click.Path(path_type=Path), default=BUILD, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(build: Path, as_json: bool) -> None:
    """Bootstrap, push to, and roll back a bare Debian; exit code 2 where that is not possible here, or a step fails."""
    try:
        result = tried(build)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    out = build / "summary.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    emit(result, as_json, key_values(str(out), {name: json.dumps(value) for name, value in result.items()}))


if __name__ == "__main__":
    main()
