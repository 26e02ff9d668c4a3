"""Recipes on a natural long tail, as docs/results.md reports it: `python -m benchmarks.magnetic_tile DATA_DIR`.

DATA_DIR holds the magnetic tile photographs (Huang et al., "Saliency of magnetic tile surface defects") in one folder
a class, with groups.csv. They are imported, and `trainer compare` runs the declared recipes over grouped folds, a few
of them over random folds too, for what leakage is worth. Stopped and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.page import PAGE, write_section
from trainer.compare.recipes import BASELINE, BY_NAME
from trainer.compare.run import CHOSEN

BIN = Path(sys.executable).parent
BEGIN, END = "<!-- magnetic-tile:begin -->", "<!-- magnetic-tile:end -->"

LEAKY = "logit-adjusted,mean"
"""Recipes that are run over random folds too, beside the baseline: cheap ones, leakage flatters each of them."""

GOALS = {"balanced_accuracy": (0.65, 0.70), "escape": (0.18, 0.12)}
"""Goal and aim, set beforehand, for the recipe chosen inside the training folds."""

COLUMNS = {
    "macro_f1": ("macro-F1", True),
    "balanced_accuracy": ("balanced accuracy", True),
    "balanced_likeliest": ("of the likeliest class", True),
    "escape": ("escape at 10 % overkill", True),
    "auroc": ("AUROC", False),
    "ece_before": ("ECE before", False),
    "ece": ("ECE", False),
    "nll_before": ("NLL before", False),
    "nll": ("NLL", False),
}


def run(*words: str | Path) -> str:
    """Standard output of one of Lineguard's commands; its progress and warnings pass through."""
    command = [str(BIN / words[0]), *map(str, words[1:])]
    print("$", " ".join(map(str, words)), file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compared(images: Path, build: Path, recipes: str | None, leaky: str, seeds: int) -> Any:
    """The answer of `trainer compare` on the photographs, the lines of random folds added to it."""
    data = build / "data"
    if not (data / "dataset.json").exists():
        run("trainer", "import", "folder", images, "--out", data, "--ok", "free", "--name", "magnetic tile")
    command: list[str | Path] = [
        "trainer",
        "compare",
        data,
        "--out",
        build / "comparison",
        "--folds",
        "5",
        "--seeds",
        str(seeds),
        "--json",
    ]
    random = json.loads(run(*command, "--random-split", "--recipes", leaky))["random"] if leaky else None
    found = json.loads(run(*command, *(["--recipes", recipes] if recipes else [])))
    return {**found, "random": random} if random else found


def section(found: Any) -> str:
    """The section of docs/results.md."""
    lines = [
        f"{found['images']} photographs, {found['groups']} groups, {found['folds']} folds x {found['seeds']} seeds; "
        "out-of-fold figures,",
        "mean over seeds, 95 % bootstrap over groups in brackets; + better, - worse than the baseline, ~ not",
        "distinguishable (corrected resampled t-test over the cells). Macro-F1, balanced accuracy and recall are of",
        "the class called (docs/adr/0038); beside them balanced accuracy of the likeliest class. Networks learned in",
        f"{found['learned_in']} (docs/adr/0040).",
    ]
    titles = {"grouped": "Grouped folds", "random": "Random folds: near-twins on both sides"}
    for protocol, title in titles.items():
        if protocol in found:
            lines += ["", f"**{title}**", "", *table(found[protocol])]
    rows = found["grouped"]
    return "\n".join([*lines, "", *verdicts(rows), *left_out(rows), *recalls(found), *calibrated(rows)])


def table(rows: list[Any]) -> list[str]:
    """One line a recipe."""
    titles = [title for title, _ in COLUMNS.values()]
    lines = ["| recipe | " + " | ".join([*titles, "CPU s a training", "images/s"]) + " |"]
    lines.append("|---|" + "---|" * (len(titles) + 2))
    for row in rows:
        cells = [cell(row, name, share) for name, (_, share) in COLUMNS.items()]
        speed = [f"{row['seconds']:.1f}", f"{row['images_per_second']:.0f}"]
        lines.append(f"| {row['name']} | " + " | ".join([*cells, *speed]) + " |")
    return lines


def cell(row: Any, name: str, share: bool) -> str:
    """Value, interval and whether it differs from the baseline."""
    figure = row["figures"][name]
    factor, digits = (100, 1) if share else (1, 3)
    value, low, high = (f"{factor * figure[part]:.{digits}f}" for part in ("value", "low", "high"))
    mark = ""
    if name in GOALS and row["differences"]:
        mark = {True: " +", False: " -", None: " ~"}[row["differences"][name]["better"]]
    return f"{value} [{low}, {high}]{mark}"


def verdicts(rows: list[Any]) -> list[str]:
    """Goals met or missed by the recipe chosen inside the training folds, and by which recipes it was."""
    chosen = next(row for row in rows if row["name"] == CHOSEN)
    picked = ", ".join(f"{name} {count}" for name, count in chosen["chosen"].items())
    lines = [f"Chosen inside the training folds (cells): {picked}."]
    for name, (goal, aim) in GOALS.items():
        value, higher = chosen["figures"][name]["value"], name == "balanced_accuracy"
        met = [(value >= bound) if higher else (value <= bound) for bound in (goal, aim)]
        said = "reaches the aim" if met[1] else "reaches the goal, misses the aim" if met[0] else "misses the goal"
        lines.append(f"{COLUMNS[name][0]}: {value:.1%}, goal {goal:.0%}, aim {aim:.0%}: **{said}**.")
    return lines


def left_out(rows: list[Any]) -> list[str]:
    """The declared recipes that the table lacks."""
    missing = [name for name in BY_NAME if name not in {row["name"] for row in rows}]
    return [f"Declared, but not run here: {', '.join(missing)}."] if missing else []


def calibrated(rows: list[Any]) -> list[str]:
    """What temperature does on grouped folds: baseline and nested choice."""
    head = ("temperature", "ECE before", "ECE", "NLL before", "NLL", "verdicts changed")
    lines = ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        if row["name"] in (BASELINE, CHOSEN):
            cells = (cell(row, name, False) for name in ("ece_before", "ece", "nll_before", "nll"))
            lines.append(f"| {row['name']} | " + " | ".join([*cells, str(row["changed"])]) + " |")
    return lines


def recalls(found: Any) -> list[str]:
    """Recall of each class on grouped folds: baseline and nested choice."""
    rows = [row for row in found["grouped"] if row["name"] in (BASELINE, CHOSEN)]
    lines = ["", "| recall | " + " | ".join(found["classes"]) + " |", "|---|" + "---|" * len(found["classes"])]
    for row in rows:
        shares = (row["recall"][name] for name in found["classes"])
        cells = (f"{s['value']:.0%} [{s['low']:.0%}, {s['high']:.0%}]" for s in shares)
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="DATA_DIR")
    parser.add_argument("--build", type=Path, default=Path("build/magnetic-tile"))
    parser.add_argument("--recipes", help="only these, comma-separated; all by default")
    parser.add_argument("--leaky", default=LEAKY, help="the ones for random folds; empty for none")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE}")
    options = parser.parse_args()
    found = compared(options.images, options.build, options.recipes, options.leaky, options.seeds)
    text = section(found)
    if options.write:
        write_section(BEGIN, text, END)
    print(text)


if __name__ == "__main__":
    main()
