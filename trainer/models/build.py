"""Any network of this package, from its configuration."""

from __future__ import annotations

from typing import Any

from trainer.models.attention_crop import AttentionCrop, AttentionCropConfig
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.models.committee import Committee, CommitteeConfig, of_a_member
from trainer.models.tiles import TiledFrame, TilesConfig

KINDS: dict[str, type[ClassifierConfig]] = {
    "crops": AttentionCropConfig,
    "tile_height": TilesConfig,
    "members": CommitteeConfig,
}
"""Configurations by a field that they alone have."""

Network = Classifier | Committee
"""Frames to logits, whatever is inside."""


def config_from_json(values: dict[str, Any]) -> ClassifierConfig:
    """The configuration of any kind of network. InputError for unknown or missing fields."""
    return next((kind for mark, kind in KINDS.items() if mark in values), ClassifierConfig).from_json(values)


def build_one(config: ClassifierConfig) -> Classifier:
    """The network of a configuration, or one member of its committee, with random weights in its backbone."""
    if isinstance(config, AttentionCropConfig):
        return AttentionCrop(config)
    return TiledFrame(config) if isinstance(config, TilesConfig) else Classifier(of_a_member(config))


def build(config: ClassifierConfig) -> Network:
    """The network of a configuration, with random weights in its backbone."""
    return Committee(config) if isinstance(config, CommitteeConfig) else build_one(config)
