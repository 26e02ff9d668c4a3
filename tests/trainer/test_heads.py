"""Bilinear and part pooling, and the distance to good parts: what they compute, and that they reach the appliance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from appliance.engines.onnx_cpu import OnnxCpuEngine
from calibration.errors import InputError
from calibration.metrics import auroc, softmax
from deploy.bundle import open_bundle
from tests.support.folders import FolderSpec, write_folder
from tests.trainer.test_quantise import frames, small_core
from trainer.data.importers import import_folder
from trainer.equalise import equalised
from trainer.export import ExportResult, export_run
from trainer.models import bilinear_pool
from trainer.models.anomaly import Anomaly, ledoit_wolf, whitening
from trainer.models.classifier import Classifier, ClassifierConfig, load_run_model
from trainer.models.pooling import PARTS, POOLS, PROJECTED, PartPool, Projection, kmeans
from trainer.observe import observe_spans
from trainer.onnx_graph import constant, run_logits, session, with_normalisation
from trainer.prepare import fit_anomaly
from trainer.recipes import FROZEN, QUICK
from trainer.release import release_run
from trainer.train import train

MID, LAST = 112, 1280
SIZES = {
    "mean": (LAST,),
    "mean+max": (LAST, LAST, MID, MID),
    "bilinear": (LAST, LAST, MID, MID, PROJECTED**2),
    "parts": (LAST, LAST, MID, MID, PARTS * PROJECTED),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_bilinear_pooling_equals_the_explicit_outer_product(n: int, c: int, h: int, w: int, seed: int) -> None:
    """Outer products added place by place, signed square root, length 1."""
    x = drawn(n, c, h, w, seed=seed).double()
    products = np.zeros((n, c, c))
    for row in range(n):
        for y in range(h):
            for z in range(w):
                products[row] += np.outer(x[row, :, y, z], x[row, :, y, z])
    expected = (np.sign(products) * np.sqrt(abs(products))).reshape(n, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(bilinear_pool(x).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-7, 1.0, 1e4])
def test_the_slope_of_bilinear_pooling_is_finite(scale: float) -> None:
    """At a map of zeros, in one with dead channels, and however small or large the values are."""
    x = drawn(2, 4, 3, 3) * scale
    x[:, 1] = 0
    x.requires_grad_(True)
    pooled = bilinear_pool(x)
    (pooled * drawn(2, 16, seed=1)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(pooled).all()
    if scale == 0:
        assert not pooled.any()
        assert not x.grad.any()


def test_bilinear_pooling_needs_a_map() -> None:
    """Pooled features, and a map of no places, are mistakes of the caller."""
    for shape in ((2, 3), (2, 3, 0, 4), (1, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match="bilinear pooling needs"):
            bilinear_pool(torch.zeros(shape))


@pytest.mark.parametrize("name", POOLS)
def test_every_pooling_has_the_features_it_says(name: str) -> None:
    """Sizes by kind; every parameter takes a gradient."""
    pool = POOLS[name](MID, LAST)  # type: ignore[index]
    pooled = pool(drawn(2, MID, 4, 6).relu(), drawn(2, LAST, 2, 3).relu())
    assert pool.sizes == SIZES[name]
    assert pooled.shape == (2, sum(pool.sizes))
    weights = list(pool.parameters())
    assert bool(weights) == (name in ("bilinear", "parts"))
    if weights:
        (pooled * drawn(*pooled.shape)).sum().backward()
    for weight in weights:
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0


def test_a_projection_starts_from_whitened_principal_components() -> None:
    """Mean 0, variance 1, uncorrelated; the first component lies along the direction of most variance."""
    places = drawn(4000, 6) @ torch.diag(torch.tensor([5.0, 0.2, 3.0, 0.1, 0.1, 1.0])) + 7
    projection = Projection(6, 3)
    projection.start(places)
    with torch.no_grad():
        found = projection(places.T[None])[0]
    torch.testing.assert_close(torch.cov(found, correction=0), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    assert projection.weight[0].abs().argmax() == 0


def test_centres_of_clear_clusters_are_found() -> None:
    """k-means++ and Lloyd's rounds put one centre into each of eight far clusters; too few points are refused."""
    middles = torch.eye(8) * 20
    points = (middles[:, None] + 0.1 * drawn(8, 30, 8)).flatten(0, 1)
    centres = kmeans(points, 8, torch.Generator().manual_seed(0))
    assert torch.cdist(middles, centres).amin(1).max() < 0.2
    with pytest.raises(ValueError, match="7 points"):
        kmeans(points[:7], 8, torch.Generator().manual_seed(0))


def test_a_part_is_found_wherever_it_lies() -> None:
    """Some part shows most of one unusual place, in whichever corner it is; the mean of the frame a sliver of it."""
    torch.manual_seed(0)
    pool = PartPool(MID, LAST)
    mark = 3 * drawn(MID, seed=3)
    pool.start(torch.cat((0.3 * drawn(900, MID, seed=4), mark + 0.3 * drawn(100, MID, seed=5))), torch.Generator())
    frames = 0.3 * drawn(2, MID, 6, 6, seed=6)
    frames[0, :, 0, 0], frames[1, :, 5, 4] = mark, mark
    with torch.no_grad():
        parts = pool(frames, torch.zeros(2, LAST, 3, 3))[:, -PARTS * PROJECTED :].reshape(2, PARTS, PROJECTED)
        places = pool.projection(frames)[:, 0]  # the mark lies along the first component
        alone = pool.projection(mark[None, :, None, None])[0, 0, 0]
    texture = places.median()
    shares = [(value - texture) / (alone - texture) for value in (parts[:, :, 0].amax(1), places.mean(1))]
    assert shares[0].min() > 0.4
    assert shares[1].max() < 0.04


@pytest.mark.parametrize(("n", "features"), [(200, 12), (15, 40)])
def test_the_covariance_is_shrunk_as_by_scikit_learn(n: int, features: int) -> None:
    """Ledoit and Wolf's share, and with it the Mahalanobis distance, with more frames than features and with fewer."""
    x = (drawn(n, features) @ drawn(features, features, seed=1)).double()
    x = x - x.mean(0)
    reference = LedoitWolf(assume_centered=True).fit(x.numpy())
    gram = x @ x.T / n if n < features else x.T @ x / n
    assert ledoit_wolf(x, gram) == pytest.approx(reference.shrinkage_, rel=1e-9)
    inside = x[:5]  # directions that no frame has are left out of the distance, so look where frames are
    squares = (inside.float() @ whitening(x.float(), features).T).square().sum(1)
    np.testing.assert_allclose(squares.numpy(), reference.mahalanobis(inside.numpy()), rtol=1e-3)


def test_frames_that_never_differ_make_no_distance_infinite() -> None:
    """Good parts all equal: no direction, and finite evidence for any part."""
    anomaly = Anomaly(6, 2)
    same, other = torch.ones(5, 6), torch.ones(3, 6) + drawn(3, 6)
    anomaly.fit(torch.cat((same, other)), torch.tensor([0] * 5 + [1] * 3), same, torch.zeros(5), 0)
    assert torch.isfinite(anomaly(torch.cat((same, 1e6 * other)))).all()


def test_the_farther_from_good_parts_the_more_a_defect() -> None:
    """Evidence rises with the distance in any direction, against the good class alone; unfitted there is none."""
    anomaly = Anomaly(20, 3)
    good, bad = drawn(300, 20), drawn(60, 20, seed=1) + 2
    x, labels = torch.cat((good, bad)), torch.tensor([1] * 300 + [0] * 60)
    assert not anomaly(x).any()
    anomaly.fit(x, labels, drawn(100, 20, seed=2), torch.ones(100), 1)
    unseen = torch.zeros(1, 20)
    unseen[0, 7] = -1  # no training defect lies there
    evidence = anomaly(unseen * torch.arange(2.0, 40.0)[:, None])
    assert (evidence[1:, 1] > evidence[:-1, 1]).all()
    assert not evidence[:, [0, 2]].any()
    assert evidence[-1, 1] > 0 > anomaly(drawn(50, 20, seed=3))[:, 1].mean()


def test_good_parts_and_defects_are_needed() -> None:
    """One good image, or no defect, is refused with the remedy."""
    anomaly = Anomaly(4, 2)
    for labels in ([0, 1, 1], [0, 0, 0]):
        with pytest.raises(InputError, match="add images, or train without it"):
            anomaly.fit(drawn(3, 4), torch.tensor(labels), drawn(2, 4), torch.zeros(2), 0)


def test_a_defect_of_a_class_never_seen_is_caught_oftener_with_the_distance() -> None:
    """Trained on shifts along one axis, a shift along another ranks above good parts only with the distance."""
    rng = np.random.default_rng(0)
    config = ClassifierConfig(classes=2, channels=1, anomaly=True)
    model, plain = Classifier(config).eval(), Classifier(replace(config, anomaly=False)).eval()
    shift, strange = np.zeros((2, model.features), np.float32)
    shift[0], strange[1] = 6, 6
    x = rng.standard_normal((400, model.features)).astype(np.float32) * np.r_[2, np.full(model.features - 1, 0.3)]
    x[:, 1] *= 4
    x = x.astype(np.float32)
    labels = (np.arange(400) % 4 == 0).astype(np.int64)
    x[labels == 1] += shift
    for net in (model, plain):
        nn.init.zeros_(net.linear.bias)
        with torch.no_grad():
            net.linear.weight[1] = torch.from_numpy(shift / 36)
    fit_anomaly(model, x[:300], labels[:300], x[300:], labels[300:], 0)
    fit_anomaly(plain, x[:300], labels[:300], x[300:], labels[300:], 0)
    good = x[300:][labels[300:] == 0]
    both = torch.from_numpy(np.concatenate((good, good + strange)))
    unseen = np.arange(len(both)) >= len(good)
    with torch.no_grad():
        with_distance, without = (
            auroc(1 - softmax(net.classify(both).numpy())[:, 0], unseen) for net in (model, plain)
        )
    assert without == pytest.approx(0.5, abs=0.02)
    assert with_distance > 0.9


def test_equalising_channels_leaves_flattened_maps_alone() -> None:
    """A map that learned pooling reads flattened is scaled back before it, so the network stays the same function."""
    core = small_core()
    pool = next(node for node in core.graph.node if node.op_type == "ReduceMax")
    pool.input[:] = ["flat", "places"]
    flatten = helper.make_node("Reshape", ["f", "shape"], ["flat"], name="flatten")
    core.graph.node.insert(list(core.graph.node).index(pool), flatten)
    core.graph.initializer.extend([constant(np.array([0, 8, -1]), "shape"), constant(np.array([2]), "places")])
    shown = frames(16)
    changed, _ = equalised(core, observe_spans(core, shown))
    assert any(node.name == "unscale before flat" for node in changed.graph.node)
    before, after = (run_logits(session(with_normalisation(model)), shown) for model in (core, changed))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


class Made:
    """A run of one pooling, with or without the distance to good parts and votes of places, exported and released."""

    def __init__(self, root: Path, pooling: str, more: bool) -> None:
        self.anomaly = more
        write_folder(root / "images", FolderSpec(48, 64, (30, 12, 12)))
        self.data = import_folder(root / "images", root / "data", licence="none").dataset
        self.run, self.bundle = root / "run", root / "parts.lgb"
        recipe = replace(QUICK if more else FROZEN, pooling=pooling, anomaly=more, places=more)  # type: ignore[arg-type]
        train(self.data, self.run, recipe, seed=1, size=(48, 64))
        self.exported: ExportResult = export_run(self.run)
        release_run(self.run, self.bundle, name="parts")


@pytest.fixture(scope="module", params=[("bilinear", False), ("parts", True)])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One for each pooling that learns."""
    return Made(tmp_path_factory.mktemp("head"), *request.param)


def test_heads_are_exported_with_every_convolution_in_int8(made: Made) -> None:
    """All 49 of the backbone and none besides; both variants judge as FP32 does."""
    assert made.exported.convolutions == {"cpu": 49, "trt": 49}
    assert all(figures.paired_escapes <= 2 for figures in made.exported.parity.values())


def test_the_bundle_says_how_many_views_its_models_look_at(made: Made) -> None:
    """Two with the quick recipe's default, whatever its head is."""
    assert open_bundle(made.bundle).manifest.views == (2 if made.anomaly else 1)


def test_the_appliance_judges_with_such_a_bundle_as_with_any_other(made: Made) -> None:
    """Its engine gives the recorded scores of the goldens, alone and in a full batch."""
    bundle = open_bundle(made.bundle)
    goldens = bundle.goldens()
    frames = np.stack([bundle.manifest.preprocess.apply(golden.frame) for golden in goldens])
    expected = np.stack([golden.logits["cpu"] for golden in goldens])
    engine = OnnxCpuEngine(bundle.model("cpu"))
    np.testing.assert_allclose(engine.infer(frames), expected, atol=1e-4)
    np.testing.assert_array_equal(engine.infer(frames[:1]), engine.infer(frames)[:1])


def test_the_distance_is_in_the_trained_model_where_it_was_asked_for(made: Made) -> None:
    """The stored network holds it: a part thrice as far from the good ones in the same direction scores as worse."""
    model, classes = load_run_model(made.run / "model.safetensors")
    assert (model.anomaly is not None) == made.anomaly
    if model.anomaly is None:
        return
    assert model.anomaly.good.argmax() == classes.index("good")
    shown = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 1, 48, 64)).astype(np.uint8))
    with torch.no_grad():
        step = model.standardise(model.embed(model.lower(shown, 0), 0)) - model.anomaly.centre
        near, far = (model.anomaly(model.anomaly.centre + times * step)[:, classes.index("good")] for times in (1, 3))
    assert (far > near).all()
