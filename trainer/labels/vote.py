"""One consensus of named answers with all that is told about it: who is how reliable, and in what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.labels.answers import Answers
from trainer.labels.consensus import Consensus, DawidSkene, dawid_skene, majority_vote
from trainer.labels.reliability import Reliability, reliability

SMOOTHING = 10.0
"""Of the commands (see `dawid_skene`): lines have rare classes, which an annotator meets less than ten times."""


@dataclass(frozen=True)
class AnnotatorRow:
    """One annotator in words, shares with their 95 % intervals.

    Attributes:
        name, answers: who, and how many. right: share of right answers.
        escape, overkill: of the defects called OK, and of the good parts not; empty without an OK class.
        weakest: the class missed most often. called: what it was called then. Both empty for a majority vote.
    """

    name: str
    answers: int
    right: str
    escape: str
    overkill: str
    weakest: str
    called: str


@dataclass(frozen=True)
class Vote:
    """A consensus. `reliability` is None for a majority vote, which judges nobody."""

    method: str
    consensus: Consensus | DawidSkene
    majority: Consensus
    reliability: Reliability | None

    def summary(self, given: Answers) -> dict[str, Any]:
        """The figures a command prints, as plain values."""
        facts: dict[str, Any] = {
            "method": self.method,
            "items": len(given.items),
            "answers": len(given.rows),
            "gold": len(given.gold),
            "classes": list(given.classes),
            "labels": dict(
                zip(
                    given.classes,
                    np.bincount(self.consensus.labels, minlength=len(given.classes)).tolist(),
                    strict=True,
                )
            ),
            "ties": int(self.consensus.ties.sum()),
            "unlike_majority": int((self.consensus.labels != self.majority.labels).sum()),
            "annotators": [],
        }
        if isinstance(self.consensus, DawidSkene) and self.reliability is not None:
            found, limits = self.consensus, self.reliability
            facts |= {"log_likelihood": found.log_likelihood, "steps": len(found.trace), "prior": found.prior.tolist()}
            facts["annotators"] = [
                {
                    "name": name,
                    "answers": int((given.rows[:, 1] == a).sum()),
                    "accuracy": limits.accuracy[a].tolist(),
                    "escape": None if limits.escape is None else _finite(limits.escape[a]),
                    "overkill": None if limits.overkill is None else _finite(limits.overkill[a]),
                    "confusion": found.confusion[a].tolist(),
                    "confusion_low": limits.low[a].tolist(),
                    "confusion_high": limits.high[a].tolist(),
                    "answers_by_true_class": limits.answers[a].tolist(),
                }
                for a, name in enumerate(given.annotators)
            ]
        return facts

    def write(self, path: Path, given: Answers) -> None:
        """Write the summary as JSON: what a report or another program reads."""
        path.write_text(json.dumps(self.summary(given), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def annotators(self, given: Answers) -> list[AnnotatorRow]:
        """A row for each annotator."""
        rows = []
        for a, name in enumerate(given.annotators):
            right = escape = overkill = weakest = called = ""
            if isinstance(self.consensus, DawidSkene) and self.reliability is not None:
                limits, confusion = self.reliability, self.consensus.confusion[a]
                right = _share(limits.accuracy[a])
                escape = "" if limits.escape is None else _share(limits.escape[a])
                overkill = "" if limits.overkill is None else _share(limits.overkill[a])
                met = np.where(limits.answers[a] >= 1, confusion.diagonal(), np.inf)
                k = int(met.argmin())
                other = int(np.where(np.arange(len(confusion)) == k, -1, confusion[k]).argmax())
                miss = (1 - confusion[k, k], 1 - limits.high[a, k, k], 1 - limits.low[a, k, k])
                weakest = f"{given.classes[k]}: {miss[0]:.0%} [{miss[1]:.0%}, {miss[2]:.0%}]"
                called = f"{given.classes[other]}: {confusion[k, other]:.0%}"
            rows.append(
                AnnotatorRow(name, int((given.rows[:, 1] == a).sum()), right, escape, overkill, weakest, called)
            )
        return rows


def _share(limits: NDArray[np.float64]) -> str:
    value, low, high = limits.tolist()
    return "-" if np.isnan(value) else f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _finite(limits: NDArray[np.float64]) -> list[float] | None:
    return limits.tolist() if np.isfinite(limits).all() else None


def vote(
    given: Answers,
    method: str = "dawid-skene",
    smoothing: float = SMOOTHING,
    starts: int = 1,
    seed: int = 0,
    ok: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Vote:
    """Agree on one label per item by "dawid-skene" or "majority"; gold labels win in both.

    `ok` names the class of the good parts, to tell each annotator's escape and overkill.

    Raises:
        InputError: all answers of one class, no such OK class, or, for Dawid-Skene, no item answered by two annotators
            and no gold.
    """
    classes = len(given.classes)
    if (given.rows[:, 2] == given.rows[0, 2]).all():
        only = given.classes[int(given.rows[0, 2])]
        raise InputError(f"every answer is {only!r}: nothing to estimate; add items of other classes")
    if ok is not None and ok not in given.classes:
        raise InputError(f"--ok {ok!r}: no such class; the classes are {', '.join(given.classes)}")
    majority = majority_vote(given.rows, classes)
    if method == "majority":
        labels, posterior, ties = majority.labels.copy(), majority.posterior.copy(), majority.ties.copy()
        for item, label in given.gold.items():
            labels[item], posterior[item], ties[item] = label, np.eye(classes)[label], False
        return Vote(method, Consensus(labels, posterior, ties), majority, None)
    try:
        found = dawid_skene(given.rows, classes, starts=starts, seed=seed, gold=given.gold, smoothing=smoothing)
    except ValueError as error:
        raise InputError(f"{error}; or count heads with --method majority") from None
    good = None if ok is None else given.classes.index(ok)
    limits = reliability(given.rows, found, gold=given.gold, smoothing=smoothing, ok=good, seed=seed, progress=progress)
    return Vote(method, found, majority, limits)
