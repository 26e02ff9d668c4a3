"""The smallest student: its shapes, its size, its batch norms, and that all of it becomes integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibration.errors import InputError
from trainer.models.backbones import create
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.models.mobilenet_v3 import NAME, STAGES, MobileNetV3Small
from trainer.onnx_graph import export_core


@pytest.fixture(scope="module")
def net() -> MobileNetV3Small:
    """Random weights, one channel, statistics of one batch."""
    torch.manual_seed(0)
    built = MobileNetV3Small(1)
    with torch.no_grad():
        for _ in range(3):
            built.train()(torch.randn(4, 1, 96, 96))
    return built.eval()


def test_it_is_a_backbone_by_name() -> None:
    """The registry builds it, and says what channels its two maps have."""
    built = create(NAME, 3)
    assert isinstance(built, MobileNetV3Small)
    mid, last = built(torch.zeros(1, 3, 64, 96))
    assert mid.shape == (1, built.mid_channels, 4, 6)
    assert last.shape == (1, built.last_channels, 2, 3)


@settings(max_examples=6, deadline=None)
@given(height=st.integers(17, 130), width=st.integers(17, 130))
def test_any_height_and_width_works(height: int, width: int) -> None:
    """Maps of ceil(size / 16) and ceil(size / 32), whatever the size."""
    with torch.no_grad():
        mid, last = MobileNetV3Small(1).eval()(torch.zeros(1, 1, height, width))
    assert mid.shape[2:] == (-(-height // 16), -(-width // 16))
    assert last.shape[2:] == (-(-height // 32), -(-width // 32))


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_two_pieces_equal_the_whole(net: MobileNetV3Small, stages: int) -> None:
    """The network cut after any stage gives what it gives whole."""
    frames = torch.randn(2, 1, 72, 56)
    with torch.no_grad():
        whole, pieces = net(frames), net.upper(net.lower(frames, stages), stages)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])


def test_its_cost_is_what_its_documentation_says() -> None:
    """0.43 million weights, 47 million multiplications for a grey picture of 224x224."""
    built = MobileNetV3Small(1).eval()
    costs = []
    for layer in built.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda conv, _, out: costs.append(out.shape[2] * out.shape[3] * conv.weight.numel())
            )
    with torch.no_grad():
        built(torch.zeros(1, 1, 224, 224))
    assert sum(p.numel() for p in built.parameters()) == pytest.approx(0.43e6, rel=0.02)
    assert sum(costs) == pytest.approx(47e6, rel=0.02)


def test_its_batch_norms_learn_their_statistics_and_count_nothing(net: MobileNetV3Small) -> None:
    """Training mode moves mean and variance towards the batch's; the count, which nobody reads, stays."""
    built = MobileNetV3Small(1).train()
    with torch.no_grad():
        built(torch.randn(4, 1, 64, 64) + 2)
    norm = built.stem.norm
    assert norm.running_mean is not None
    assert float(norm.running_mean.abs().max()) > 0
    assert int(norm.num_batches_tracked or 0) == 0
    with torch.no_grad():
        x = torch.randn(2, 1, 64, 64)
        assert torch.equal(net(x)[1], net(x)[1])


def test_frozen_stages_take_no_gradient(net: MobileNetV3Small) -> None:
    """The stem and the first stages stay as they are; everything above learns."""
    built = MobileNetV3Small(1)
    built.freeze_lower(2)
    learning = {name.split(".")[0] + name.split(".")[1] for name, p in built.named_parameters() if p.requires_grad}
    assert learning == {"stages2", "stages3", "headconv", "headnorm"}


def test_it_exports_to_convolutions_clips_and_additions_alone() -> None:
    """Nothing that stays in float between two integer convolutions."""
    model = Classifier(ClassifierConfig(classes=2, channels=1, backbone=NAME)).eval()
    nodes = [node.op_type for node in export_core(model, (1, 64, 64)).graph.node]
    pooled = nodes.index("ReduceMean")
    assert set(nodes[:pooled]) <= {"Conv", "Clip", "Add", "Pad"}
    assert nodes.count("Conv") == 2 + sum(2 + (stage != STAGES[0]) for stage in STAGES for _ in stage)


def test_there_are_no_imagenet_weights_to_load() -> None:
    """The error says how it is trained instead."""
    with pytest.raises(InputError, match="trainer distill"):
        Classifier(ClassifierConfig(classes=2, channels=1, backbone=NAME)).load_imagenet()
