"""Networks trained apart, whose logits are averaged: one model from the training to the INT8 export."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calibration.errors import InputError
from tests.trainer.test_train import SMALL, files, parts
from trainer.data.manifest import Dataset
from trainer.features import predict
from trainer.models import mobilenet_v3
from trainer.models.build import build, config_from_json
from trainer.models.classifier import FLIPS, ClassifierConfig, Flips, load_run_model
from trainer.models.committee import Committee, CommitteeConfig, of_a_member, views_of, with_members
from trainer.onnx_graph import export_core, run_logits, session, with_normalisation, with_views
from trainer.quantise import quantise
from trainer.train import train

PAIR = replace(SMALL, name="pair", epochs=2, flip_average="horizontal", tau=1.0, anomaly=True, committee=2)
SEED = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Generated parts."""
    return parts(tmp_path_factory.mktemp("committee") / "images")


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two networks."""
    return train(dataset, tmp_path_factory.mktemp("committee") / "run", PAIR, SEED).run


def test_the_logits_are_the_mean_of_the_members(run: Path) -> None:
    """Of two networks that learned apart, each from its own view; k-centre sees the features of both."""
    model, _ = load_run_model(run / "model.safetensors")
    assert isinstance(model, Committee)
    frames = np.random.default_rng(0).integers(0, 256, (5, 1, 96, 128), dtype=np.uint8)
    other = np.ascontiguousarray(frames[..., ::-1])
    first, second = (predict(member, shown) for member, shown in zip(model, (frames, other), strict=True))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(predict(model, frames), (first + second) / 2, atol=1e-5)
    assert model.seen(torch.from_numpy(frames)).shape == (5, model.features)


def test_the_first_member_learns_what_a_network_alone_learns(dataset: Dataset, run: Path, tmp_path: Path) -> None:
    """To the last bit: what has learned once need not learn again to be in a committee."""
    alone = train(dataset, tmp_path / "run", replace(PAIR, committee=1), SEED).run
    kept = [load_file(folder / "checkpoint" / "last.safetensors") for folder in (alone, run)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_a_committee_killed_in_its_second_training_ends_as_if_never_killed(
    dataset: Dataset, run: Path, tmp_path: Path
) -> None:
    """The first member is taken up as it was, the second starts anew: the same bytes."""
    killed = tmp_path / "run"
    shutil.copytree(run, killed)
    for lost in ("model.safetensors", "log.jsonl", "checkpoint/last-1.safetensors"):
        (killed / lost).unlink()
    train(dataset, killed, PAIR, SEED)
    assert files(killed) == files(run)


def test_the_log_says_which_network_an_epoch_was_of(run: Path) -> None:
    """A line an epoch; run.json counts those of all members."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(line["network"], line["epoch"]) for line in lines] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert json.loads((run / "run.json").read_text())["epochs"] == 4


def test_a_committee_is_exported_as_one_int8_model() -> None:
    """One graph says what the networks say together, and every convolution of both is in INT8."""
    torch.manual_seed(0)
    config = ClassifierConfig(classes=3, channels=1, backbone=mobilenet_v3.NAME, flip_average="both")
    model = build(with_members(config, 2)).eval()
    assert isinstance(model, Committee)
    for member in model:
        torch.nn.init.normal_(member.linear.weight)
    frames = np.random.default_rng(0).integers(0, 256, (12, 1, 64, 96), dtype=np.uint8)
    core, views = export_core(model, (1, 64, 96)), views_of(model.config)
    exported = run_logits(session(with_views(with_normalisation(core), views)), frames)
    np.testing.assert_allclose(exported, predict(model, frames), atol=1e-3)
    int8 = quantise(core, frames, np.arange(12) % 3, views=views)["cpu"]
    one = export_core(next(iter(model)), (1, 64, 96))
    assert int8.convolutions == 2 * sum(node.op_type == "Conv" for node in one.graph.node)


def test_a_configuration_comes_back_from_json_and_builds_what_it_says() -> None:
    """One member is no committee."""
    plain = ClassifierConfig(classes=3, channels=1, flip_average="both")  # four views: no even share for three
    assert with_members(plain, 1) == plain
    config = with_members(plain, 3)
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config
    model = build(config)
    assert isinstance(model, Committee)
    assert [member.config for member in model] == [of_a_member(config)] * 3 == [plain] * 3


@pytest.mark.parametrize(
    ("flips", "members", "each"),
    [("both", 2, "vertical"), ("both", 4, "none"), ("horizontal", 2, "none"), ("none", 2, "none"), ("both", 3, "both")],
)
def test_members_deal_out_the_views_that_one_network_would_average(flips: Flips, members: int, each: str) -> None:
    """Each view is one member's where they can be shared evenly; what a member sees is the first one's, mirrored."""
    config = with_members(ClassifierConfig(classes=2, channels=1, flip_average=flips), members)
    seen = [views_of(config, number) for number in range(members)]
    assert of_a_member(config).flip_average == each
    if len(FLIPS[flips]) % members == 0:
        assert sorted(view for views in seen for view in views) == sorted(FLIPS[flips])
    for views in seen:
        assert [set(view) ^ set(views[0]) for view in views] == [set(view) for view in FLIPS[each]]


def test_a_frame_mirrored_by_a_dealt_view_gets_the_same_answer() -> None:
    """What a student may rely on: it is shown mirrored frames that its teacher has not been asked about."""
    torch.manual_seed(0)
    config = with_members(ClassifierConfig(classes=3, channels=1, flip_average="both"), 2)
    model = build(config).eval()
    assert isinstance(model, Committee)
    for member in model:
        torch.nn.init.normal_(member.linear.weight)
    frames = torch.randint(0, 256, (2, 1, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        plain, upside_down, sideways = (model(frames.flip(axes)) for axes in ((), (2,), (3,)))
    assert views_of(config) == ((), (2,))
    torch.testing.assert_close(upside_down, plain)
    assert not torch.allclose(sideways, plain)


@pytest.mark.parametrize("members", [0, 1])
def test_a_committee_of_fewer_than_two_is_refused(members: int) -> None:
    """The configuration of a model file is input too."""
    with pytest.raises(InputError, match="at least two"):
        CommitteeConfig(classes=2, channels=1, members=members)


def test_frozen_backbones_are_no_committee() -> None:
    """Their heads are fitted to the minimum; there is but one."""
    with pytest.raises(InputError, match="a committee is of backbones that learn"):
        replace(PAIR, epochs=0)
