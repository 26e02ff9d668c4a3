"""What a step of learning costs in bfloat16 and in float32, and what the shortcuts in bfloat16 are worth.

`python -m benchmarks.precision`: CPU time of forward and backward through what learns of EfficientNet-Lite0, one
thread, the ways interleaved. Time does not depend on what is in the frames: they are noise.
"""

from __future__ import annotations

import argparse
import json
import time
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.compare.recipes import WHOLE
from trainer.device import CPU
from trainer.features import keep_freed_memory
from trainer.models.backbones import Backbone, create, kind_of
from trainer.models.depthwise import depthwise
from trainer.precision import precision_of

NAME = "efficientnet-lite0"
FROZEN = (0, 3, 5)
"""Stages that do not learn: those of `whole`, `deep` and `fine-tuned`."""


def plain(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Depthwise convolution as PyTorch has it."""
    return functional.conv2d(x, weight, bias, stride, padding, groups=len(weight))


WAYS = {
    "float32": (torch.float32, plain),
    "bfloat16": (torch.bfloat16, depthwise),
    "bfloat16, PyTorch's own gradients": (torch.bfloat16, plain),
}
"""The numbers, and how a depthwise convolution of bfloat16 is computed."""


def network(frozen: int) -> Backbone:
    """With ImageNet's weights, ready to learn."""
    net = create(NAME, 1)
    kind_of(NAME).load(net)
    net.freeze_lower(frozen)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.train()


def step(net: Backbone, lower: Tensor, frozen: int) -> float:
    """CPU seconds of forward and backward, as trainer.fine_tune does them but for head and optimiser."""
    net.zero_grad()
    started = time.process_time()
    mid, last = net.upper(lower, frozen)
    (mid.float().mean() + last.float().square().mean()).backward()
    return time.process_time() - started


def seconds(frozen: int, batch: int, size: int, turns: int) -> dict[str, list[float]]:
    """CPU seconds of a step in each way, one a turn; the first turn warms up and is left out."""
    net = network(frozen)
    frames = torch.rand(batch, 1, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        lower = net.lower(frames, frozen)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(turns + 1):
        for way, (precision, convolution) in WAYS.items():
            with patch("trainer.models.efficientnet_lite.depthwise", convolution):
                taken[way].append(step(net, lower.to(precision), frozen))
    return {way: times[1:] for way, times in taken.items()}


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median of the ratios of turns, with their quartiles."""
    low, middle, high = np.percentile(np.array(slow) / np.array(fast), [25, 50, 75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=256, help="height and width of the frames, pixels")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    found = {frozen: seconds(frozen, options.batch, options.size, options.turns) for frozen in FROZEN}
    if options.json:
        print(json.dumps(found))
        return
    used = precision_of([WHOLE], CPU)
    print(f"batch {options.batch}, {options.size}x{options.size}; this CPU learns in {used}")
    print("| frozen stages | float32, CPU s a step | bfloat16, times as fast | with PyTorch's own gradients |")
    print("|---|---|---|---|")
    for frozen, taken in found.items():
        base, own, theirs = taken.values()
        print(f"| {frozen} | {np.median(base):.2f} | {ratio(base, own)} | {ratio(base, theirs)} |")


if __name__ == "__main__":
    main()
