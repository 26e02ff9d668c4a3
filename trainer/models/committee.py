"""A committee: networks of one kind that were trained apart, whose logits are averaged.

Chance in training moves each member by itself and their mean less (deep ensembles, Lakshminarayanan et al., NeurIPS
2017). Where one network would average over mirrored views of a frame, the members deal them out among themselves, so
that a part costs what it costs one network. Everything is one graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import cast

import torch
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.classifier import FLIPS, Classifier, ClassifierConfig, Views


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


def views_of(config: ClassifierConfig, number: int = 0) -> Views:
    """The mirrored views of a frame (see FLIPS) that the member ``number`` >= 0 averages over: every so-manyth one, in
    turn, where there is one for each member; otherwise, and for a network that is alone, all of them.

    Those of other members are the first one's, mirrored once more: by the first view of their own.
    """
    views = FLIPS[config.flip_average]
    if not isinstance(config, CommitteeConfig) or len(views) % config.members:
        return views
    return views[number :: config.members]


def of_a_member(config: ClassifierConfig) -> ClassifierConfig:
    """The configuration of each member of a committee; that of any other network as it is."""
    if not isinstance(config, CommitteeConfig):
        return config
    plain = {field.name: getattr(config, field.name) for field in fields(ClassifierConfig)}
    flips = next(name for name, views in FLIPS.items() if views == views_of(config))
    return ClassifierConfig(**{**plain, "flip_average": flips})


class Committee(nn.Module):
    """Frames (N, C, H, W) of raw pixel values 0..255, uint8 or float -> logits (N, classes) float32: the mean over the
    members, each averaging over its mirrored views, see `views_of`.

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
        """Normalised pixels (N, C, H, W) float32 -> logits (N, classes), of one view of each member."""
        return torch.stack([member.from_pixels(shown) for member, shown in self._mirrored(pixels)]).mean(0)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return torch.stack([member(shown) for member, shown in self._mirrored(frames)]).mean(0)

    def _mirrored(self, frames: Tensor) -> Iterator[tuple[Classifier, Tensor]]:
        """Each member, and the frames as its own first view shows them."""
        for number, member in enumerate(self):
            axes = views_of(self.config, number)[0]
            yield member, torch.flip(frames, axes) if axes else frames
