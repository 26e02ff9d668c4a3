"""The comparison itself: every declared recipe on every split, each cell computed once and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.errors import InputError
from calibration.values import Interval
from trainer.compare.cells import Cell, cell_file, read_cell
from trainer.compare.choice import chosen_by_validation
from trainer.compare.folds import INNER, Protocol, Split, make_splits
from trainer.compare.recipes import BASELINE, Candidate
from trainer.compare.statistics import (
    Difference,
    Outcome,
    Pooled,
    Truth,
    differences,
    levels,
    pool,
    recalls,
)
from trainer.compare.store import CACHE, Store, whole
from trainer.compare.workers import Task, compute
from trainer.data.manifest import Dataset
from trainer.device import CPU
from trainer.features import Progress
from trainer.precision import precision_of
from trainer.run import write_json

VERSION = 1
PLAN = "plan.json"
CHOSEN, HIGHEST = "chosen by validation", "highest on validation"
NESTED = {
    HIGHEST: ("in each cell the recipe that was best on its inner validation fold", 0.0),
    CHOSEN: ("in each cell the last recipe that its inner validation fold cannot tell from that one: one SE", 1.0),
}
"""The lines of nested choices: what they are, and the standard errors that a recipe may lie below the best."""

DRAWS = 200
"""Bootstrap resamples behind each interval."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name, about: of the recipe. input: height and width in pixels, None for the lines of nested choices.
        figures: see `statistics.statistics`, pooled out of fold, mean over seeds, 95 % bootstrap over groups.
        recall: of each class, likewise.
        differences: to the recipe that the table is against, paired by cell; empty for that recipe itself.
        seconds: CPU seconds of a cell on shared features, mean. images_per_second: one CPU second judges, median.
        chosen: how many cells each recipe was chosen in; empty but for the lines of nested choices.
        changed: images whose likeliest class is another after temperature, all seeds together: 0, or temperature is
            not what it should be.
    """

    name: str
    about: str
    input: tuple[int, int] | None
    figures: dict[str, Interval]
    recall: dict[str, Interval]
    differences: dict[str, Difference]
    seconds: float
    images_per_second: float
    chosen: dict[str, int]
    changed: int


@dataclass(frozen=True)
class Table:
    """All lines of one protocol.

    Attributes:
        against: the recipe that differences are to. pooled: predictions by line, what the diagrams are drawn from.
    """

    protocol: Protocol
    against: str
    rows: tuple[Row, ...]
    pooled: dict[str, Pooled]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        out: its folder. data: name of the dataset. truth: labels, groups and classes of the images.
        folds, seeds, overkill: as asked for. cells: in all. computed: in this call.
        learned_in: "bfloat16" or "float32", the numbers that networks learned in.
        tables: of the grouped folds and, where asked for, of random ones.
    """

    out: Path
    data: str
    truth: Truth
    folds: int
    seeds: int
    overkill: float
    cells: int
    computed: int
    learned_in: str
    tables: tuple[Table, ...]


def compare(
    dataset: Dataset,
    out: Path,
    candidates: Sequence[Candidate],
    folds: int,
    seeds: int,
    overkill: float,
    protocols: Sequence[Protocol],
    progress: Progress,
    draws: int = DRAWS,
    jobs: int = 1,
    device: torch.device = CPU,
    against: str = BASELINE,
) -> Comparison:
    """Train and judge every candidate on every split; what ``out`` holds already is not computed again.

    Args:
        dataset: its own split is ignored. out: folder of the cells.
        candidates: the baseline among them.
        folds: at least folds.LEAST_FOLDS. seeds: >= 1, repetitions with other folds. overkill: 0..1.
        progress: called with (what is being done, how many are done, of how many).
        jobs: >= 1, worker processes; the figures are the same with any number.
        device: where upper stages learn; everything else is done on the CPU.
        against: the candidate that differences are to.

    Raises:
        InputError: ``against`` is no candidate, the dataset does not allow the folds, ``out`` holds something else or a
            damaged cell, or a worker was ended from outside.
    """
    if against not in (names := [candidate.name for candidate in candidates]):
        raise InputError(f"--against: {against!r} is not among the recipes compared; choose among {', '.join(names)}")
    splits = {protocol: make_splits(dataset, protocol, folds, seeds) for protocol in protocols}
    claim(out, dataset, folds)
    truth = Truth(dataset.labels(), tuple(item.group for item in dataset.items), dataset.classes, dataset.ok_index)
    store = Store(dataset, out / CACHE, progress, device)
    every = [split for protocol in protocols for split in splits[protocol]]
    computed = compute(_missing(out, candidates, every, store), dataset, out, jobs, device, progress)
    tables = []
    for protocol in protocols:
        cells = {c.name: _cells(out, store.fingerprint(c), splits[protocol]) for c in candidates}
        tables.append(_table(protocol, candidates, cells, splits[protocol], store, truth, overkill, draws, against))
    total = len(candidates) * len(every)
    learned_in = precision_of([candidate.recipe for candidate in candidates], device)
    return Comparison(out, dataset.name, truth, folds, seeds, overkill, total, computed, learned_in, tuple(tables))


def _missing(out: Path, candidates: Sequence[Candidate], splits: Sequence[Split], store: Store) -> list[Task]:
    """What there is to compute, the cheap recipes first. Candidates that differ in logit adjustment alone share a cell;
    those that share a backbone come one after another, as declared.

    Raises:
        InputError: a cell that is there is damaged.
    """
    by_backbone: dict[str, dict[str, Candidate]] = {}
    for candidate in candidates:
        fingerprint = store.fingerprint(candidate)
        backbone = store.backbone_fingerprint(candidate) if candidate.recipe.epochs else fingerprint
        by_backbone.setdefault(backbone, {}).setdefault(fingerprint, candidate)

    def lacks(fingerprint: str, split: Split) -> bool:
        return read_cell(cell_file(out, fingerprint, split), split) is None

    tasks = (
        Task(tuple(candidate for fingerprint, candidate in rivals.items() if lacks(fingerprint, split)), split)
        for rivals in by_backbone.values()
        for split in splits
    )
    return [task for task in tasks if task.candidates]


def _cells(out: Path, fingerprint: str, splits: Sequence[Split]) -> list[Cell]:
    """The cells of one recipe, all of them computed."""
    found = [read_cell(cell_file(out, fingerprint, split), split) for split in splits]
    return [cell for cell in found if cell is not None]


def claim(out: Path, dataset: Dataset, folds: int) -> None:
    """Write plan.json. Raises InputError where the folder holds other files, other data or other folds."""
    path = out / PLAN
    remedy = "give another folder with --out, or delete this one"
    plan = {"version": VERSION, "dataset_sha256": whole(dataset).sha256, "folds": folds, "inner": INNER}
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with --out")
    if not path.exists() and out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds other files than a comparison; give an empty or new folder with --out")
    if path.exists():
        held = _read_plan(path)
        for field, what in (
            ("version", "program version"),
            ("dataset_sha256", "dataset"),
            ("folds", "number of folds"),
        ):
            if held.get(field) != plan[field]:
                raise InputError(f"{out}: holds the comparison of another {what}; {remedy}")
    write_json(path, plan)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not the plan of a comparison ({error}); delete its folder") from None
    if not isinstance(held, dict):
        raise InputError(f"{path}: not the plan of a comparison; delete its folder")
    return held


def _table(
    protocol: Protocol,
    candidates: Sequence[Candidate],
    cells: dict[str, list[Cell]],
    splits: Sequence[Split],
    store: Store,
    truth: Truth,
    overkill: float,
    draws: int,
    against: str,
) -> Table:
    outcomes: dict[str, Sequence[Outcome]] = {
        candidate.name: [
            cell.outcome(split, candidate.recipe.tau, truth.labels)
            for cell, split in zip(cells[candidate.name], splits, strict=True)
        ]
        for candidate in candidates
    }
    rows, pooled = [], {}

    def add(name: str, about: str, size: tuple[int, int] | None, judged: Sequence[Outcome], by: list[str]) -> None:
        pooled[name] = pool(judged, truth)
        used = [cells[recipe][i] for i, recipe in enumerate(by)]
        rows.append(
            Row(
                name=name,
                about=about,
                input=size,
                figures=levels(pooled[name], truth, overkill, draws),
                recall=recalls(pooled[name], truth, draws),
                differences={} if name == against else differences(judged, outcomes[against], truth, overkill),
                seconds=float(np.mean([cell.seconds for cell in used])),
                images_per_second=float(np.median([cell.images_per_second for cell in used])),
                chosen=dict(Counter(by).most_common()) if name in NESTED else {},
                changed=pooled[name].changed,
            )
        )

    for candidate in candidates:
        spec = store.settings(candidate).spec
        by = [candidate.name] * len(splits)
        add(candidate.name, candidate.about, (spec.height, spec.width), outcomes[candidate.name], by)
    for name, (about, standard_errors) in NESTED.items():
        judged, by = chosen_by_validation(outcomes, truth, overkill, standard_errors)
        add(name, about, None, judged, by)
    return Table(protocol, against, tuple(rows), pooled)
