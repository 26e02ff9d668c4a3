"""Any network of this package, from its configuration."""

from __future__ import annotations

from typing import Any

from trainer.models.attention_crop import AttentionCrop, AttentionCropConfig
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.models.tiles import TiledFrame, TilesConfig


def config_from_json(values: dict[str, Any]) -> ClassifierConfig:
    """The configuration of any kind of network. InputError for unknown or missing fields."""
    kind = AttentionCropConfig if "crops" in values else TilesConfig if "tile_height" in values else ClassifierConfig
    return kind.from_json(values)


def build(config: ClassifierConfig) -> Classifier:
    """The network of a configuration, with random weights in its backbone."""
    if isinstance(config, AttentionCropConfig):
        return AttentionCrop(config)
    return TiledFrame(config) if isinstance(config, TilesConfig) else Classifier(config)
