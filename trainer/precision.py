"""In which numbers a backbone learns: float32, or bfloat16 on CPUs that compute with it.

bfloat16 has float32's range and eight bits of precision (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning
Training", 2019). Weights and their steps stay float32; what is rounded are the maps between the layers and the
gradients that flow back. What is fitted before and after, and every score, is float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from trainer.recipes import Recipe


def learns_in(recipe: Recipe, device: torch.device) -> torch.dtype:
    """torch.bfloat16 where the recipe says so and ``device`` is a CPU with avx512_bf16; elsewhere torch.float32.

    Without the instructions bfloat16 is slower than float32; how fast it is on GPUs, or with other instructions, was
    not measured.
    """
    able = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.bfloat16 if recipe.bfloat16 and able else torch.float32


def as_computed(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe that says what is done on this machine: without bfloat16 where `learns_in` says float32."""
    return replace(recipe, bfloat16=learns_in(recipe, device) == torch.bfloat16)


def precision_of(recipes: Iterable[Recipe], device: torch.device) -> str:
    """What `learns_in` says by name: "bfloat16" where it does for one of the recipes on ``device``, else "float32"."""
    return "bfloat16" if any(as_computed(recipe, device).bfloat16 for recipe in recipes) else "float32"
