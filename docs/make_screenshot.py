"""docs/pictures/tui.svg: the operator's screen on a real daemon that judges real parts. Run `make demo` first.

python docs/make_screenshot.py --bundle build/demo/demo.lgb --frames build/demo/frames
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from textual.pilot import Pilot

from appliance.config import load_station
from appliance.tui.app import LineguardApp
from appliance.tui.station import StationSource

STATION = """
[station]
name = "cell-line-1"
data = "data"
bundle = "{bundle}"

[camera.el]
source = "folder"
path = "{frames}"
fps = {fps}
loop = true
count = 1000000
"""


def picture(config: Path, parts: int, size: tuple[int, int]) -> str:
    """SVG of the screen as soon as the daemon has judged so many parts.

    Raises:
        TimeoutError: it has not after ten minutes.
    """
    app = LineguardApp(StationSource(load_station(config)))
    pictures: list[str] = []

    async def look(pilot: Pilot[object]) -> None:
        end = time.monotonic() + 600
        while not (app.view.live and app.view.live.counts.triggers >= parts):
            if time.monotonic() > end:
                raise TimeoutError(f"not {parts} parts after ten minutes: {app.view.feed.trouble or app.view.live}")
            await asyncio.sleep(0.2)
        await pilot.pause(1.0)
        pictures.append(app.export_screenshot(title="appliance tui"))
        app.exit()

    app.run(headless=True, size=size, auto_pilot=look)
    return pictures[0]


def without_network(svg: str) -> str:
    """The picture with fonts of the reader's machine: as exported it would fetch one from the internet."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    fonts = "ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace"
    svg = re.sub(r"font-family: ?Fira Code[^;]*;", f"font-family: {fonts};", svg)
    return re.sub(r"terminal-\d+-", "terminal-", svg)


def main() -> None:
    """Start a daemon on a station of its own, look at it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("build/demo/demo.lgb"))
    parser.add_argument("--frames", type=Path, default=Path("build/demo/frames"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/tui.svg"))
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--parts", type=int, default=1200)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=30)
    options = parser.parse_args()
    for needed in (options.bundle, options.frames):
        if not needed.exists():
            sys.exit(f"error: {needed} is missing; run `make demo` first")
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="lineguard-") as folder:
        config = Path(folder) / "station.toml"
        config.write_text(
            STATION.format(bundle=options.bundle.resolve(), frames=options.frames.resolve(), fps=options.fps)
        )
        command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config)]
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            svg = picture(config, options.parts, (options.columns, options.rows))
        finally:
            daemon.terminate()
            daemon.wait(20)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(without_network(svg), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
