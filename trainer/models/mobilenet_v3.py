"""A small MobileNetV3 of our own, for the smallest devices: a student, trained from nothing by distillation.

Howard et al., "Searching for MobileNetV3" (ICCV 2019), the small network, in the "minimalistic" form: no squeeze-
and-excitation, ReLU6 instead of hard-swish, 3x3 filters only. Those three are cheap in float and dear in INT8: a
hard-swish and the gate of a squeeze-and-excitation are not fused into an integer convolution, so every one of them
costs a way to float and back. Conv, ReLU6 and Add are all that is left, as in EfficientNet-Lite.

Its ImageNet weights are not to be had from a package index, so it starts from random numbers, and its batch norms
learn their statistics, unlike those of a pretrained network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.efficientnet_lite import BN_EPS, same_padding

NAME = "mobilenet-v3-small"

MOMENTUM = 0.1
"""Share of the newest batch in the running mean and variance of a batch norm."""

STEM_CHANNELS = 16
HEAD_CHANNELS = 576
# Per stage its blocks: (channels inside, channels out, stride).
STAGES = (
    ((16, 16, 2),),
    ((72, 24, 2), (88, 24, 1)),
    ((96, 40, 2), (240, 40, 1), (240, 40, 1), (120, 48, 1), (144, 48, 1)),
    ((288, 96, 2), (576, 96, 1), (576, 96, 1)),
)
MID_STAGE = 2  # the last stage with stride 16: see EfficientNetLite


class ConvNorm(nn.Module):
    """Convolution with "SAME" padding, then batch norm that learns its statistics while training."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        padding = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        self.norm = nn.BatchNorm2d(outputs, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)), float32."""
        if self.stride > 1:
            top, bottom = same_padding(x.shape[2], self.kernel, self.stride)
            left, right = same_padding(x.shape[3], self.kernel, self.stride)
            x = F.pad(x, (left, right, top, bottom))
        if not self.training:
            normed: Tensor = self.norm(self.conv(x))
            return normed
        values = (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        # The layer's own forward would also count batches, which nobody reads and a resumed training would not repeat.
        return F.batch_norm(self.conv(x), *values, True, MOMENTUM, self.norm.eps)


class Block(nn.Module):
    """Inverted residual: widen to ``wide`` channels (where that is wider), filter each channel, narrow, add."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, wide, 1) if wide > inputs else None
        self.depthwise = ConvNorm(wide, wide, 3, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + narrow if self.residual else narrow


class MobileNetV3Small(nn.Module):
    """The convolutional part: stem, four stages, 1x1 head convolution. About 0.43 million weights, and 47 million
    multiplications for a grey picture of 224x224.

    Offers what :class:`trainer.models.backbones.Backbone` says.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = ConvNorm(channels, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for stage in STAGES:
            blocks = []
            for wide, outputs, stride in stage:
                blocks.append(Block(inputs, wide, outputs, stride))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.head = ConvNorm(inputs, HEAD_CHANNELS, 1)
        self.mid_channels = STAGES[MID_STAGE][-1][1]
        self.last_channels = HEAD_CHANNELS

    def lower(self, x: Tensor, stages: int) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> output of the stem and the first ``stages`` (0..3)."""
        x = F.relu6(self.stem(x))
        for stage in self.stages[:stages]:
            x = stage(x)
        return x

    def upper(self, x: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """Output of :meth:`lower` -> (stride-16 map (N, 48, ., .), last map (N, 576, ., .), stride 32)."""
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

    def freeze_lower(self, stages: int) -> None:
        """Keep the weights that :meth:`lower` uses as they are: they take no gradient."""
        for part in (self.stem, *self.stages[:stages]):
            part.requires_grad_(False)


def refuse_imagenet(net: nn.Module) -> None:
    """Raise InputError: there are no weights to start from."""
    raise InputError(
        f"backbone {NAME}: has no ImageNet weights to start from; train it with `trainer distill`, from a finished run"
    )
