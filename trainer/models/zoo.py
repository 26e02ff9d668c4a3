"""timm's models as an optional zoo of backbones: ``timm:NAME``, where timm and its weights are installed."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from calibration.errors import InputError

TIMM_PREFIX = "timm:"


class TimmBackbone(nn.Module):
    """A timm network seen as :class:`trainer.models.efficientnet_lite.EfficientNetLite` is seen.

    timm's networks cannot be cut at a stage in one way for all, so ``lower`` does no more than adapt the
    normalisation, and everything else is in ``upper``. Batch norm keeps its statistics, as everywhere here.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.name, self.channels = name.removeprefix(TIMM_PREFIX), channels
        self.net: nn.Module = self._create(pretrained=False)
        info = list(getattr(self.net, "feature_info").get_dicts(["num_chs", "reduction"]))  # noqa: B009
        self.mid = max((i for i, level in enumerate(info) if level["reduction"] <= 16), default=0)
        self.mid_channels = int(info[self.mid]["num_chs"])
        self.last_channels = int(info[-1]["num_chs"])
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels))

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def load_pretrained(self) -> None:
        """Weights as timm finds them on this machine; InputError when it would need a network that is not
        there.
        """
        try:
            self.net = self._create(pretrained=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"backbone timm:{self.name}: its weights are not in timm's cache on this machine ({error}); "
                "put them there, or use efficientnet-lite0"
            ) from error
        config: dict[str, Any] = getattr(self.net, "pretrained_cfg", None) or {}
        mean = torch.tensor(config.get("mean", (0.5, 0.5, 0.5)))
        std = torch.tensor(config.get("std", (0.5, 0.5, 0.5)))
        if self.channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        # Incoming pixels are (p - 127) / 128; timm's networks want (p / 255 - mean) / std.
        self.scale = (128 / 255) / std
        self.shift = (127 / 255 - mean) / std

    def freeze_lower(self, stages: int) -> None:
        """Nothing: ``lower`` has no weights here."""

    def lower(self, x: Tensor, stages: int) -> Tensor:
        """(N, C, H, W) pixels normalised to about -1..1 -> the same in timm's normalisation. ``stages`` is
        moot.
        """
        return x * self.scale[:, None, None] + self.shift[:, None, None]

    def upper(self, x: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """Output of :meth:`lower` -> (the deepest map of stride 16 or less, the last map)."""
        maps = self.net(x)
        return maps[self.mid], maps[-1]

    def middle(self, x: Tensor, stages: int) -> Tensor:
        """The first map of :meth:`upper` alone; the whole network is computed for it."""
        return self.upper(x, stages)[0]

    def _create(self, pretrained: bool) -> nn.Module:
        try:
            timm = importlib.import_module("timm")
        except ImportError as error:
            raise InputError(
                f"backbone timm:{self.name}: timm is not installed; "
                "install it with: pip install --no-deps timm (beside CPU torch and torchvision)"
            ) from error
        if self.name not in timm.list_models(self.name):
            raise InputError(f"backbone timm:{self.name}: timm has no model of this name; see timm.list_models()")
        net: nn.Module = timm.create_model(self.name, pretrained=pretrained, features_only=True, in_chans=self.channels)
        return net
