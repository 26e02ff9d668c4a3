"""Learning in bfloat16: the gradients are those of float32 within rounding, and it is used where the CPU has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks.precision import WAYS, ratio, seconds
from calibration.errors import InputError
from tests.trainer.test_train import SMALL, parts
from trainer.compare.recipes import BY_NAME, CANDIDATES, Candidate
from trainer.compare.store import Store
from trainer.features import silent
from trainer.models import mobilenet_v3
from trainer.models.depthwise import depthwise
from trainer.models.efficientnet_lite import EfficientNetLite, load_imagenet
from trainer.precision import as_computed, learns_in, precision_of
from trainer.train import train

CPU, GPU = torch.device("cpu"), torch.device("cuda")
HALF = replace(SMALL, name="half", bfloat16=True)
SHAPES = [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0), (7, 2, 3)]
"""Kernel, stride and padding: those of the backbones, and one beyond them."""


def operands(kernel: int, dtype: torch.dtype) -> list[Tensor]:
    """Input (2, 4, 9, 12), weights and bias, all of which take a gradient."""
    torch.manual_seed(0)
    shapes = [(2, 4, 9, 12), (4, 1, kernel, kernel), (4,)]
    made = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]
    made[0] = made[0].contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_gradients_are_the_convolutions_own(kernel: int, stride: int, padding: int) -> None:
    """In double precision they are equal to plain PyTorch's but for the order of sums."""
    ours, theirs = operands(kernel, torch.float64), operands(kernel, torch.float64)
    y = depthwise(*ours, stride, padding)
    expected = functional.conv2d(*theirs, stride, padding, groups=4)
    torch.testing.assert_close(y, expected)
    gradient = torch.randn_like(y)
    for got, reference in zip(
        torch.autograd.grad(y, ours, gradient), torch.autograd.grad(expected, theirs, gradient), strict=True
    ):
        torch.testing.assert_close(got, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_in_bfloat16_gradients_are_off_by_rounding_alone(kernel: int, stride: int, padding: int) -> None:
    """Half a unit in the last of eight bits is 0.2 %; sums of rounded terms stay within a few times that."""
    ours = operands(kernel, torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    y = depthwise(*ours, stride, padding)
    gradient = torch.randn_like(y)
    expected = torch.autograd.grad(functional.conv2d(*exact, stride, padding, groups=4), exact, gradient.double())
    for got, reference in zip(torch.autograd.grad(y, ours, gradient), expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert float((got.double() - reference).norm() / reference.norm()) < 0.006


def test_an_input_that_takes_no_gradient_gets_none() -> None:
    """As above frozen stages."""
    x, weight, bias = operands(3, torch.bfloat16)
    x.requires_grad_(False)
    depthwise(x, weight, bias, 1, 1).float().sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_a_networks_gradient_points_where_float32s_does() -> None:
    """Weights and their gradients stay float32, and no layer goes without. Rounding adds up on the way down, so it is
    the gradient of all weights together that is held.
    """
    net = EfficientNetLite(channels=1)
    load_imagenet(net, "efficientnet-lite0")
    net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    torch.manual_seed(0)
    frames = torch.randn(4, 1, 64, 96)
    gradients = []
    for precision in (torch.float32, torch.bfloat16):
        net.zero_grad()
        mid, last = net.upper(net.lower(frames.to(precision), 0), 0)
        assert mid.dtype == last.dtype == precision
        (mid.float().mean() + last.float().square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    assert exact.keys() == rounded.keys()
    assert {gradient.dtype for gradient in rounded.values()} == {torch.float32}
    whole = [torch.cat([part[name].flatten() for name in exact]) for part in gradients]
    assert float(functional.cosine_similarity(*whole, dim=0)) > 0.99


def test_bfloat16_is_for_cpus_that_compute_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the instructions, on a GPU, and where no recipe asks for it, networks learn in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert learns_in(HALF, CPU) == torch.bfloat16
    assert as_computed(HALF, CPU) == HALF
    assert learns_in(HALF, GPU) == learns_in(SMALL, CPU) == torch.float32
    assert precision_of([SMALL, HALF], CPU) == "bfloat16"
    for older in ({"avx512_bf16": False}, {"neon": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda held=older: held)
        assert learns_in(HALF, CPU) == torch.float32
        assert as_computed(HALF, CPU) == replace(HALF, bfloat16=False)
        assert precision_of([SMALL, HALF], CPU) == "float32"


def test_cells_are_kept_by_what_they_were_computed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without bfloat16 they are those of the same recipe in float32, and no others."""
    store = Store(parts(tmp_path / "images"), tmp_path / "cache", silent)
    candidate = BY_NAME["whole"]
    plain = Candidate("in float32", replace(candidate.recipe, bfloat16=False))
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda held=able: {"avx512_bf16": held})
        assert (store.fingerprint(candidate) == store.fingerprint(plain)) is not able
        assert (store.backbone_fingerprint(candidate) == store.backbone_fingerprint(plain)) is not able


def test_a_run_says_what_it_was_computed_in(tmp_path: Path) -> None:
    """run.json holds what was done, not what was asked for; the weights that are kept are float32."""
    run = train(parts(tmp_path / "images"), tmp_path / "run", replace(HALF, epochs=1), 0).run
    asked = json.loads((run / "run.json").read_text())["recipe"]
    assert asked["bfloat16"] == (learns_in(HALF, CPU) == torch.bfloat16)
    kept = load_file(run / "model.safetensors").values()
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}


def test_the_benchmark_times_every_way_in_every_turn() -> None:
    """Ratios are of turns, so that a machine that slows down slows both."""
    taken = seconds(frozen=5, batch=2, size=64, turns=2)
    assert list(taken) == list(WAYS)
    assert all(len(times) == 2 and min(times) > 0 for times in taken.values())
    assert ratio([4.0, 8.0], [2.0, 4.0]) == "2.00 [2.00, 2.00]"


def test_a_backbone_that_cannot_is_refused() -> None:
    """With the field, and those that can."""
    with pytest.raises(InputError, match=r"bfloat16 is for efficientnet-lite0.*set it to false"):
        replace(HALF, backbone=mobilenet_v3.NAME)


def test_every_network_of_a_comparison_learns_in_the_same_numbers() -> None:
    """Else a difference between two of them could be that of their numbers."""
    assert {c.recipe.bfloat16 for c in CANDIDATES if c.recipe.epochs} == {True}
