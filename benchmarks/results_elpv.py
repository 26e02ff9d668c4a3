"""Quality on ELPV solar cells, as docs/results.md reports it: `make results-elpv`.

For each seed: a stratified 75/25 split (a validation fold is cut out of the 75), the full recipe (or `--recipe quick`),
export to INT8, and the figures of the *exported* models on the test quarter. Temperature and thresholds come from the
validation fold; the test fold is scored once. A finished seed is not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import write_section
from calibration.decision import DecisionRule
from calibration.metrics import accuracy, auroc, ece, ece_of_a_calibrated_model, softmax
from calibration.risk import escape_at_overkill
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from deploy.bundle import open_bundle

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Figures:
    """One model on one test fold. Shares in 0..1; as_fp32 is that of parts with the same verdict as FP32's, and
    paired_escapes are defects that FP32 alone rejects.
    """

    seed: int
    model: str
    accuracy: float
    auroc: float
    escape_at_10_overkill: float
    ece: float
    ece_before: float
    ece_floor: float
    escape: float
    overkill: float
    unsure: float
    as_fp32: float
    paired_escapes: int


def run(*words: str | Path) -> None:
    """Run one of Lineguard's commands."""
    command = [str(BIN / words[0]), *map(str, words[1:])]
    print("$", " ".join(map(str, words)), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def one_seed(build: Path, seed: int, recipe: str) -> list[Figures]:
    """Train, export, release and measure one seed; read back where that was done before."""
    done = build / f"seed-{seed}.json"
    if done.exists():
        return [Figures(**item) for item in json.loads(done.read_text())]
    data, folder, bundle = build / f"data-{seed}", build / f"run-{seed}", build / f"seed-{seed}.lgb"
    run("trainer", "import", "elpv", "--out", data, "--seed", str(seed), "--force")
    resume = ["--resume"] if folder.exists() else []
    run("trainer", "train", data, "--out", folder, "--recipe", recipe, "--seed", str(seed), *resume)
    run("trainer", "export", folder)
    run("trainer", "release", folder, "--out", bundle)
    rule = open_bundle(bundle).variant("cpu").rule
    figures = [figures_of(folder, seed, model, rule) for model in ("fp32", "cpu", "trt")]
    done.write_text(json.dumps([asdict(item) for item in figures]))
    return figures


def figures_of(folder: Path, seed: int, model: str, rule: DecisionRule) -> Figures:
    """Figures of one exported model; `rule` gives the thresholds, which all models of a bundle share."""
    test, after = calibrated(folder, model)
    before = softmax(test.logits)
    if accuracy(before, test.labels) != accuracy(after, test.labels):
        raise RuntimeError("temperature scaling changed an argmax")
    defect = 1 - after[:, test.ok_index]
    passed = defect <= rule.ok_below
    passed_by_fp32 = 1 - calibrated(folder, "fp32")[1][:, test.ok_index] <= rule.ok_below
    unsure = (defect > rule.ok_below) & (defect < rule.defect_above)
    return Figures(
        seed=seed,
        model=model,
        accuracy=accuracy(after, test.labels),
        auroc=auroc(defect, test.is_defect),
        escape_at_10_overkill=escape_at_overkill(defect, test.is_defect, 0.10),
        ece=ece(after, test.labels),
        ece_before=ece(before, test.labels),
        ece_floor=ece_of_a_calibrated_model(after).value,
        escape=float(passed[test.is_defect].mean()),
        overkill=float((~passed)[~test.is_defect].mean()),
        unsure=float(unsure.mean()),
        as_fp32=float((passed == passed_by_fp32).mean()),
        paired_escapes=int((test.is_defect & passed & ~passed_by_fp32).sum()),
    )


def calibrated(folder: Path, model: str) -> tuple[Scores, NDArray[np.float64]]:
    """Test scores of one exported model, and its probabilities (n, classes) at the temperature of its val scores."""
    val, test = (Scores.read(folder / "export" / f"scores.{model}.{fold}.csv") for fold in ("val", "test"))
    return test, softmax(test.logits.astype(float) / fit_temperature(val.logits, val.labels))


COLUMNS = {
    "accuracy": ("accuracy", 100, "%"),
    "auroc": ("AUROC", 1, ""),
    "escape_at_10_overkill": ("escape at 10 % overkill", 100, "%"),
    "ece": ("ECE", 1, ""),
    "ece_before": ("ECE before temperature", 1, ""),
    "ece_floor": ("ECE a calibrated model would show", 1, ""),
}


def section(figures: list[Figures], recipe: str) -> str:
    """The section of docs/results.md."""
    lines = [
        f"Recipe `{recipe}`, stratified 75/25 split, defect = probability >= 0.5; exported models, the test quarter",
        "scored once. Mean over seeds, standard deviation in brackets.",
        "",
        "| model | " + " | ".join(title for title, _, _ in COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    names = {"fp32": "FP32", "cpu": "INT8 `cpu`", "trt": "INT8 `trt` (run by ONNX Runtime)"}
    for model, name in names.items():
        rows = [item for item in figures if item.model == model]
        lines.append(f"| {name} | " + " | ".join(_cell(rows, column) for column in COLUMNS) + " |")
    lines += ["", "Each seed, INT8 `cpu`, with the bundle's own thresholds (default costs):", ""]
    lines += [
        "| seed | accuracy | AUROC | escape at 10 % overkill | ECE | escape | overkill | unsure | same verdict as FP32 "
        "| defects that FP32 alone rejects |",
        "|---" * 10 + "|",
    ]
    for item in (item for item in figures if item.model == "cpu"):
        lines.append(
            f"| {item.seed} | {item.accuracy:.1%} | {item.auroc:.3f} | {item.escape_at_10_overkill:.1%} "
            f"| {item.ece:.3f} | {item.escape:.1%} | {item.overkill:.1%} | {item.unsure:.1%} "
            f"| {item.as_fp32:.1%} | {item.paired_escapes} |"
        )
    return "\n".join(lines)


def _cell(rows: list[Figures], column: str) -> str:
    _, factor, unit = COLUMNS[column]
    values = [getattr(row, column) * factor for row in rows]
    digits = 1 if factor == 100 else 3
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f}{' ' + unit if unit else ''} ({spread:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, help="Default: build/results-elpv-RECIPE.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="compute this seed and stop: several can run side by side")
    parser.add_argument("--recipe", choices=("full", "quick"), default="full")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recipe = options.recipe
    build = options.build or Path("build") / f"results-elpv-{recipe}"
    build.mkdir(parents=True, exist_ok=True)
    if options.only is not None:
        one_seed(build, options.only, recipe)
        return
    figures: list[Figures] = []
    for seed in range(options.seeds):
        figures += one_seed(build, seed, recipe)
    text = section(figures, recipe)
    write_section(f"<!-- elpv-{recipe}:begin -->", text, f"<!-- elpv-{recipe}:end -->")
    result: Any = [asdict(item) for item in figures]
    print(json.dumps(result, indent=1) if options.json else text)


if __name__ == "__main__":
    main()
