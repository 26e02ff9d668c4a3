"""Depthwise convolution that learns in bfloat16 at the speed the CPU has for it.

oneDNN has no fast bfloat16 kernel for two of its gradients, in PyTorch 2.13 at least, and falls back to a general one:
that of weights of more than three columns, and that of an input that was strided over. The first is computed here in
strips of three columns, the second as a convolution of the gradient with zeros between its places (Dumoulin & Visin,
"A guide to convolution arithmetic for deep learning", 2016, section 4.5).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDEST = 3
"""Columns of a kernel that the fast weight gradient takes."""


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """``F.conv2d(x, weight, bias, stride, padding, groups=channels)`` with a backward pass of its own.

    Args:
        x: (N, C, H, W); weight: (C, 1, k, k); bias: (C,); of one type, meant to be bfloat16.
        stride: >= 1, in both directions. padding: zeros on all four sides, 0..k-1.

    Returns:
        (N, C, oh, ow) of the same type.
    """
    y: Tensor = _Depthwise.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        of_x = input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, gradient.sum((0, 2, 3)), None, None


def input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the input from ``gradient`` (N, C, oh, ow) of the output: as ``x`` (N, C, H, W)."""
    if stride == 1:
        return _backward(gradient, x, weight, 1, padding, of_input=True)
    (n, channels, height, width), kernel = x.shape, weight.shape[2]
    shape = (n, channels, height + kernel - 1, width + kernel - 1)
    spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    first = kernel - 1 - padding
    rows, columns = ((first, first + stride * count) for count in gradient.shape[2:])
    spread[:, :, slice(*rows, stride), slice(*columns, stride)] = gradient
    return F.conv2d(spread, weight.flip(2, 3), groups=channels)


def weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weights from ``gradient`` (N, C, oh, ow) of the output: (C, 1, k, k)."""
    kernel, strips = weight.shape[3], []
    if kernel <= WIDEST:
        return _backward(gradient, x, weight, stride, padding, of_input=False)
    for begin in range(0, kernel, WIDEST):
        end = min(begin + WIDEST, kernel)
        # The columns of x that these columns of the kernel pass over, padding made explicit.
        left = begin - padding
        right = left + (gradient.shape[3] - 1) * stride + end - begin
        passed = F.pad(x, (-left, right - x.shape[3], padding, padding))
        strips.append(_backward(gradient, passed, weight[:, :, :, begin:end].contiguous(), stride, 0, of_input=False))
    return torch.cat(strips, 3)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, of_input: bool) -> Tensor:
    """One of the two gradients as PyTorch computes it."""
    steps, sides, groups, wanted = [stride] * 2, [padding] * 2, len(weight), [of_input, not of_input, False]
    both = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, steps, sides, [1, 1], False, [0, 0], groups, wanted
    )
    chosen: Tensor = both[0 if of_input else 1]
    return chosen
