"""Where training stands, in one safetensors file replaced atomically: a kill -9 costs at most one epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from calibration.errors import InputError

Tensors = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progressed:
    """How far training has come: epochs and steps done, the epoch of the best validation score, the epoch whose
    weights are kept, one log line an epoch.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float = float("inf")
    kept_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class State:
    """Everything the next epoch depends on; random numbers are drawn anew from (seed, epoch).

    Attributes:
        weights: the trained parameters themselves, and running statistics that move with them.
        averaged: their running average, which is what may be kept. best: the average that is kept so far.
        optimiser: AdamW over the parameters. at: how far it has come.
        fixed: what was set once before the first epoch and is not trained.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        fixed: Mapping[str, Tensor],
        optimiser: torch.optim.AdamW,
        at: Progressed,
    ) -> None:
        self.fixed = dict(fixed)
        self.weights = dict(weights)
        self.optimiser = optimiser
        self.at = at
        self.averaged: Tensors = {}
        self.best: Tensors = {}
        self.keep_best()

    def keep_best(self) -> None:
        """Start over from the weights as they are: they are the average and the best so far."""
        self.averaged = {name: p.detach().clone() for name, p in self.weights.items()}
        self.best = {name: p.detach().clone() for name, p in self.weights.items()}

    def load(self, tensors: Tensors) -> None:
        """Set the parameters."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(tensors[name])

    def to(self, device: torch.device) -> None:
        """Move everything but the parameters, which move with their model."""
        for kept in (self.averaged, self.best):
            kept.update({name: tensor.to(device) for name, tensor in kept.items()})
        for moments in self.optimiser.state.values():
            moments.update({name: moments[name].to(device) for name in MOMENTS if name in moments})

    def descend(self, loss: Tensor, memory: float) -> float:
        """One step down the gradient of ``loss``, which moves the average as well; returns the loss."""
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step(memory)
        return loss.item()

    def step(self, memory: float) -> None:
        """Count a step and move the average; its memory (0..1) grows from nothing, so that it forgets the
        start.
        """
        self.at.step += 1
        share = 1 - min(memory, self.at.step / (self.at.step + 10))
        with torch.no_grad():
            for name, parameter in self.weights.items():
                self.averaged[name].lerp_(parameter, share)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The averaged weights in the place of the trained ones."""
        trained = {name: p.detach().clone() for name, p in self.weights.items()}
        self.load(self.averaged)
        try:
            yield
        finally:
            self.load(trained)

    def finish_epoch(self, score: float, error: float, notes: dict[str, float]) -> None:
        """Record an epoch's validation score (lower is better) and its standard error.

        The latest average within one standard error of the best score is kept (the one-standard-error rule of
        Breiman et al. 1984): a small fold cannot tell such epochs apart, and the later one has averaged more. With an
        infinite ``error`` that is always this one.
        """
        self.count_epoch({"val_score": score, **notes})
        if score < self.at.best_score:
            self.at.best_score, self.at.best_epoch = score, self.at.epoch
        if score <= self.at.best_score + error:
            self.at.kept_epoch = self.at.epoch
            self.best = {name: tensor.clone() for name, tensor in self.averaged.items()}

    def count_epoch(self, notes: dict[str, float]) -> None:
        """Record an epoch that nothing is chosen by."""
        self.at.epoch += 1
        self.at.history.append({"epoch": self.at.epoch, **notes})

    def save(self, path: Path, fingerprint: str) -> None:
        """Write atomically. ``fingerprint`` says what is being trained (see :meth:`restore`)."""
        tensors = {f"fixed/{name}": tensor for name, tensor in self.fixed.items()}
        for name, parameter in self.weights.items():
            parts = {"weight": parameter.detach(), "averaged": self.averaged[name], "best": self.best[name]}
            moments = self.optimiser.state[parameter]
            parts |= {moment: moments[moment] for moment in MOMENTS if moment in moments}
            tensors |= {f"{part}/{name}": tensor.contiguous() for part, tensor in parts.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(tensors, part, {"fingerprint": fingerprint, "at": json.dumps(asdict(self.at))})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)

    def restore(self, path: Path, fingerprint: str) -> bool:
        """Take up what :meth:`save` wrote; False where there is nothing.

        Raises InputError where the file is damaged, or belongs to another recipe, seed or dataset.
        """
        if not path.is_file():
            return False
        remedy = f"delete {path.parent} to start anew, or train into another folder"
        try:
            with safe_open(path, "pt") as opened:
                metadata = opened.metadata() or {}
            if metadata["fingerprint"] != fingerprint:
                raise InputError(f"{path}: is of another recipe, seed, dataset or version; {remedy}")
            tensors = load_file(path)
            self.at = Progressed(**json.loads(metadata["at"]))
            self._take(tensors)
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: is damaged ({error}); {remedy}") from error
        return True

    def _take(self, tensors: Tensors) -> None:
        for name, tensor in self.fixed.items():
            tensor.copy_(tensors[f"fixed/{name}"])
        for mine, part in ((self.averaged, "averaged"), (self.best, "best")):
            for name in mine:
                mine[name].copy_(tensors[f"{part}/{name}"])
        self.load({name: tensors[f"weight/{name}"] for name in self.weights})
        for name, parameter in self.weights.items():
            if not parameter.requires_grad:  # a running statistic
                continue
            moments: dict[str, Any] = {"step": torch.tensor(float(self.at.step))}
            for moment in MOMENTS:
                moments[moment] = torch.empty_like(parameter).detach().copy_(tensors[f"{moment}/{name}"])
            self.optimiser.state[parameter] = moments


@dataclass(frozen=True)
class Checkpoints:
    """Where the trainings of a committee stand: the first in ``path``, the others beside it, with their number.

    Attributes:
        fingerprint: of all that decides the first training.
    """

    path: Path
    fingerprint: str

    def restore(self, state: State, number: int) -> bool:
        """As `State.restore`, for the training ``number`` >= 0."""
        return state.restore(*self._of(number))

    def save(self, state: State, number: int) -> None:
        """As `State.save`."""
        state.save(*self._of(number))

    def _of(self, number: int) -> tuple[Path, str]:
        if not number:
            return self.path, self.fingerprint
        return self.path.with_stem(f"{self.path.stem}-{number}"), f"{self.fingerprint}-{number}"
