"""Where the backbone learns: on the CPU, or on a GPU for as long as the epochs take.

What is fitted before and after them (heads, distances, places) and every score that is written stay on the CPU: that is
the arithmetic which is exported, calibrated and held against the exported model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from calibration.errors import InputError

if TYPE_CHECKING:
    from trainer.checkpoint import State

CPU = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The CPU ("cpu") or the first GPU ("cuda"), where this machine has one. Raises InputError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"--device cuda: PyTorch {torch.__version__} finds no GPU here; install its CUDA build and a driver, "
            "or leave --device out"
        )
    return torch.device(name)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


@contextmanager
def learning_on(device: torch.device, model: nn.Module, state: State) -> Iterator[None]:
    """The model and the state of its training on ``device``, and back on the CPU afterwards, whatever happens."""
    model.to(device)
    state.to(device)
    try:
        yield
    finally:
        model.to(CPU)
        state.to(CPU)
