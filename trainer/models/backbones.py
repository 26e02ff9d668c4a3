"""The backbones by name. A new one is one more entry in BACKBONES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models import mobilenet_v3
from trainer.models.efficientnet_lite import SIZES, EfficientNetLite, load_imagenet
from trainer.models.zoo import TIMM_PREFIX, TimmBackbone


class Backbone(nn.Module):
    """What every backbone offers; it need not inherit from this (see :func:`create`).

    ``upper(lower(x, k), k)`` is the whole network for every k, so that frozen lower stages are cached.

    Attributes:
        mid_channels, last_channels: of the two maps.
    """

    mid_channels: int
    last_channels: int

    def lower(self, x: Tensor, stages: int) -> Tensor:
        """Pixels (N, C, H, W) float32, normalised to about -1..1 -> output of the first ``stages`` stages."""
        raise NotImplementedError

    def upper(self, x: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """Output of :meth:`lower` -> (stride-16 map (N, mid_channels, ., .), last map (N, last_channels, ., .))."""
        raise NotImplementedError

    def middle(self, x: Tensor, stages: int) -> Tensor:
        """The first map of :meth:`upper` alone: nothing above it is computed where that can be told apart."""
        raise NotImplementedError

    def freeze_lower(self, stages: int) -> None:
        """The weights that :meth:`lower` uses take no gradient from here on."""
        raise NotImplementedError


@dataclass(frozen=True)
class BackboneKind:
    """How to make a backbone for 1 or 3 channels, and how to fill it with ImageNet weights.

    ``load`` raises InputError naming the package of the weights where it is missing.
    """

    build: Callable[[int], nn.Module]
    load: Callable[..., None]


BACKBONES: dict[str, BackboneKind] = {
    name: BackboneKind(partial(EfficientNetLite, width, depth), partial(load_imagenet, name=name))
    for name, (width, depth) in SIZES.items()
} | {mobilenet_v3.NAME: BackboneKind(mobilenet_v3.MobileNetV3Small, mobilenet_v3.refuse_imagenet)}
"""Name -> how to make it; beside them there is ``timm:NAME``."""


def kind_of(name: str) -> BackboneKind:
    """The kind of that name. Raises InputError with the names there are."""
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(TIMM_PREFIX):
        return BackboneKind(partial(TimmBackbone, name), TimmBackbone.load_pretrained)
    raise InputError(f"backbone: {name!r} is unknown; use {', '.join(BACKBONES)} or timm:NAME")


def create(name: str, channels: int) -> Backbone:
    """A backbone with random weights. channels: 1 or 3. Raises InputError for an unknown name."""
    return cast(Backbone, kind_of(name).build(channels))
