"""A committee: networks of one kind that were trained apart, whose logits are averaged.

Chance in training moves each member by itself and their mean less (deep ensembles, Lakshminarayanan et al., NeurIPS
2017). Everything is one graph; a part costs as many times more as there are members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import cast

import torch
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.classifier import Classifier, ClassifierConfig


@dataclass(frozen=True)
class CommitteeConfig(ClassifierConfig):
    """What a Committee is built from: that of each member, and members: >= 2, how many there are."""

    members: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members < 2:
            raise InputError(f"committee: members is {self.members}; it needs at least two")


def with_members(config: ClassifierConfig, members: int) -> ClassifierConfig:
    """The configuration of a committee of ``members`` >= 1 such networks; of one it is the network's own."""
    return config if members == 1 else CommitteeConfig(**asdict(config), members=members)


def of_a_member(config: ClassifierConfig) -> ClassifierConfig:
    """The configuration of each member of a committee; that of any other network as it is."""
    if not isinstance(config, CommitteeConfig):
        return config
    return ClassifierConfig(**{field.name: getattr(config, field.name) for field in fields(ClassifierConfig)})


class Committee(nn.Module):
    """Frames (N, C, H, W) of raw pixel values 0..255, uint8 or float -> logits (N, classes) float32: the mean over the
    members, each averaging over its mirrored views.

    Attributes:
        members: classifiers of the same configuration. features: of all of them together.
    """

    def __init__(self, config: CommitteeConfig, members: Sequence[Classifier] = ()) -> None:
        """``members``: trained ones; by default new ones, with random weights in their backbones."""
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(members or [Classifier(of_a_member(config)) for _ in range(config.members)])
        self.features = sum(member.features for member in self)

    def __iter__(self) -> Iterator[Classifier]:
        yield from cast("Iterable[Classifier]", self.members)

    def seen(self, frames: Tensor) -> Tensor:
        """Frames (N, C, H, W) -> what every member sees in them, (N, ``self.features``)."""
        return torch.cat([member.seen(frames) for member in self], 1)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> logits (N, classes) of one view."""
        return torch.stack([member.from_pixels(pixels) for member in self]).mean(0)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return torch.stack([member(frames) for member in self]).mean(0)
