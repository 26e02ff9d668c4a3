"""Which drift monitor sees which fault of a camera within one window, and how often one alarms for nothing?

The good test parts of a dataset are cut at random into two halves, again and again. The first half is the line when a
person accepts it, the second one window of the line later, with a fault put into the camera's frames: less light, a
lens out of focus, a shift, a noisier sensor. Each monitor compares that window with the accepted line, and with what
the bundle was made on, where the share of defects is another one. The faults are simulated on recorded frames.

    python -m benchmarks.drift build/demo/demo.lgb build/demo/data --write
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.messages import Quantity
from appliance.monitor.drift import DriftMonitor
from appliance.wire import LOOKED_AT
from benchmarks.page import PAGE, write_section
from calibration.appearance import appearance
from calibration.cli_support import emit, example, json_option, progress
from calibration.histogram import bin_index
from deploy.bundle import Bundle, open_bundle
from trainer.data.manifest import Dataset, read_dataset
from trainer.goldens import frame_of
from trainer.onnx_graph import run_logits, session

BEGIN, END = "<!-- drift:begin -->", "<!-- drift:end -->"
FALSE_ALARM = 0.001
QUANTITIES: tuple[Quantity, ...] = ("predictions", "brightness", "sharpness")
REFERENCES = ("accepted line", "bundle")

Frame = NDArray[np.uint8]
Fault = Callable[[Frame], Frame]
Bins = NDArray[np.int64]


def lamp(share: float) -> Fault:
    """So much of the light is left."""
    return lambda frame: np.round(frame * share).astype(np.uint8)


def defocus(sigma: float) -> Fault:
    """A Gaussian blur, in pixels of the frame."""
    return lambda frame: np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), np.uint8)


def shift(pixels: int) -> Fault:
    """The camera has moved to the right; the edge is repeated."""
    return lambda frame: np.concatenate([frame[:, pixels:], np.repeat(frame[:, -1:], pixels, axis=1)], axis=1)


def noise(grey: float) -> Fault:
    """So many grey levels more, standard deviation."""
    rng = np.random.default_rng(0)
    return lambda frame: np.clip(np.round(frame + rng.normal(0, grey, frame.shape)), 0, 255).astype(np.uint8)


FAULTS: dict[str, Fault] = {
    "none": lambda frame: frame,
    "lamp at 95 %": lamp(0.95),
    "lamp at 90 %": lamp(0.9),
    "lamp at 80 %": lamp(0.8),
    "defocus, 1 px": defocus(1.0),
    "defocus, 2 px": defocus(2.0),
    "shift of 2 px": shift(2),
    "noise, 5 grey levels": noise(5.0),
}


@dataclass(frozen=True)
class Found:
    """Share of windows with an alarm, 0..1, by quantity.

    reference: what the window was compared with, one of REFERENCES.
    """

    fault: str
    reference: str
    alarms: dict[Quantity, float]


def binned(bundle: Bundle, dataset: Dataset, fault: Fault) -> dict[Quantity, Bins]:
    """Bins of the three quantities of each good test part whose frame a fault has changed."""
    spec, rule = bundle.manifest.preprocess, bundle.variant("cpu").rule
    paths = [item.path for item in dataset.of("test") if item.label == dataset.ok_class]
    tensors = np.stack([spec.apply(fault(frame_of(dataset, path))) for path in paths])
    looks = np.array([appearance(tensor) for tensor in tensors])
    scores = rule.defect_probability(run_logits(session(bundle.model("cpu"), threads=1), tensors))
    return dict(zip(QUANTITIES, map(bin_index, (scores, looks[:, 0], looks[:, 1])), strict=True))


def measure(
    bundle: Bundle, parts: dict[str, dict[Quantity, Bins]], lines: int, report: Callable[[], None], seed: int = 0
) -> list[Found]:
    """Alarms over so many cuts of the parts."""
    rng = np.random.default_rng(seed)
    half = len(parts["none"]["predictions"]) // 2
    looks = bundle.manifest.appearance
    counts = (bundle.variant("cpu").baseline.counts, looks.brightness.counts, looks.sharpness.counts)
    of_the_bundle = {
        quantity: DriftMonitor(row, len(_seen(quantity, np.arange(half))), FALSE_ALARM)
        for quantity, row in zip(QUANTITIES, counts, strict=True)
    }
    alarms = {(fault, reference): dict.fromkeys(QUANTITIES, 0) for fault in parts for reference in REFERENCES}
    for _ in range(lines):
        order = rng.permutation(2 * half)
        for quantity, known in of_the_bundle.items():
            before, later = (_seen(quantity, rows) for rows in (order[:half], order[half:]))
            accepted = np.bincount(parts["none"][quantity][before], minlength=known.bins).tolist()
            monitors = (DriftMonitor(accepted, len(later), FALSE_ALARM), known)
            for reference, monitor in zip(REFERENCES, monitors, strict=True):
                for fault, bins in parts.items():
                    alarms[fault, reference][quantity] += _alarms(monitor, bins[quantity][later])
        report()
    return [
        Found(fault, reference, {quantity: n / lines for quantity, n in counted.items()})
        for (fault, reference), counted in alarms.items()
    ]


def _seen(quantity: Quantity, rows: Bins) -> Bins:
    """Parts that count for a quantity: of light and focus one in LOOKED_AT is measured."""
    return rows if quantity == "predictions" else rows[::LOOKED_AT]


def _alarms(monitor: DriftMonitor, bins: Bins) -> bool:
    """Whether one window of parts in these bins alarms."""
    for number, bin_ in enumerate(bins.tolist()):
        found = monitor.add(bin_, number)
    return found is not None and found.drifting


def section(results: list[Found], half: int, lines: int) -> str:
    """The table of docs/results.md."""
    head = ("fault", *(f"{quantity}, {reference}" for reference in REFERENCES for quantity in QUANTITIES))
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for fault in FAULTS:
        of = {found.reference: found.alarms for found in results if found.fault == fault}
        shares = (of[reference][quantity] for reference in REFERENCES for quantity in QUANTITIES)
        table.append(f"| {fault} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    told = f"{lines:,} cuts of {2 * half} good test parts; windows of {half} parts, one in {LOOKED_AT} measured."
    return "\n".join([f"Windows with an alarm; {told}", "", *table])


@click.command(epilog=example("python -m benchmarks.drift build/demo/demo.lgb build/demo/data --write"))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--lines", type=click.IntRange(min=10), default=1000, show_default=True, help="Cuts of the parts.")
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE}.")
@json_option
def main(bundle: Path, data: Path, lines: int, write: bool, as_json: bool) -> None:
    """How often each drift monitor alarms within one window, with and without a fault of the camera.

    BUNDLE: a .lgb file. DATA: the dataset it was made from, of which the good test parts are used.
    """
    opened, dataset = open_bundle(bundle), read_dataset(data)
    parts = {}
    with progress("frames with faults") as report:
        for done, (name, fault) in enumerate(FAULTS.items(), 1):
            parts[name] = binned(opened, dataset, fault)
            report(done, len(FAULTS))
    with progress("windows") as report:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            report(done, lines)

        results = measure(opened, parts, lines, step)
    text = section(results, len(parts["none"]["predictions"]) // 2, lines)
    if write:
        write_section(BEGIN, text, END)
    emit([asdict(found) for found in results], as_json, text)


if __name__ == "__main__":
    main()
