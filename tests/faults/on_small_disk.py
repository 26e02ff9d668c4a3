"""A station on a disk of a few MiB that somebody fills and clears; run in a mount namespace of its own.

`python -m tests.faults.on_small_disk DIRECTORY full|low`, where DIRECTORY is an empty tmpfs; prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from appliance.messages import State
from tests.appliance.stations import Daemon, make_station, rows


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(4096))
        except OSError:
            return


def rows_within(config: Path, wanted: int, seconds: float) -> int:
    """Rows in the database, as soon as there are as many as wanted or the time is over."""
    until = time.monotonic() + seconds
    while (found := len(rows(config))) < wanted and time.monotonic() < until:
        time.sleep(0.05)
    return found


def main(directory: Path, case: str) -> dict[str, object]:
    """RUN, then a full disk, then a disk with room again."""
    limits = {"full": "warn_mib = 0\nhold_mib = 0", "low": "warn_mib = 16\nhold_mib = 10"}[case]
    config = make_station(directory, 20, "loop = true\nfps = 100.0", f"[disk]\n{limits}")
    ballast = directory / "ballast"
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > 20)
        if case == "full":
            fill(ballast)
        else:
            stat = os.statvfs(directory)
            ballast.write_bytes(bytes(stat.f_bavail * stat.f_frsize - 13 * 2**20))
            degraded = daemon.until(lambda s: s.state is State.DEGRADED)
            daemon.until(lambda s: s.counts.ok > degraded.counts.ok + 20)
            # held, and still room for a write-ahead log of 4 MiB: rows go on
            ballast.write_bytes(bytes(stat.f_bavail * stat.f_frsize - 8 * 2**20))
        held = daemon.until(lambda s: s.state is State.HOLD and s.rejects_by_reason.get("HOLD", 0) > 20)
        more = daemon.until(lambda s: s.rejects_by_reason["HOLD"] > held.rejects_by_reason["HOLD"] + 50)
        written_held = rows_within(config, held.counts.triggers if case == "low" else 0, seconds=20)
        ballast.unlink()
        after = daemon.until(lambda s: s.state is State.RUN and s.counts.ok > more.counts.ok + 20)
        summary = daemon.stop(signal.SIGTERM)
    return {
        "held": held.state_reason,
        "passed_while_held": more.counts.ok - held.counts.ok,
        "rows_written_while_held": written_held,
        "triggers_at_hold": held.counts.triggers,
        "ok_after": after.counts.ok,
        "triggers": summary["counts"]["triggers"],
        "ok": summary["counts"]["ok"],
        "passed": summary["passed"],
        "rows": len(rows(config)),
        "passes_in_rows": rows(config, "SELECT count(*) FROM verdict WHERE verdict = 'PASS'")[0][0],
        "each_trigger_once": rows(config, "SELECT trigger FROM verdict ORDER BY trigger")
        == [(i,) for i in range(summary["counts"]["triggers"])],
        "integrity": rows(config, "PRAGMA integrity_check")[0][0],
        "alerts": sorted({kind for (kind,) in rows(config, "SELECT kind FROM alert")}),
        "rejects": summary["rejects_by_reason"],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
