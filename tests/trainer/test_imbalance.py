"""What a recipe does about rare classes, in both parts of training: the fitted head and the learning backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from calibration.errors import InputError
from calibration.metrics import softmax
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from tests.trainer.test_train import SIZE, parts
from trainer.data.loader import LoadedSplit, soft_labels
from trainer.data.manifest import Dataset, Item
from trainer.data.sampling import Sampling, draw_batches, sample_rows, smote
from trainer.features import Activations, silent
from trainer.fine_tune import Fold, fine_tune, start
from trainer.head import adjust_bias, fit_head, learning_set
from trainer.losses import logit_adjusted_loss
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.recipes import FROZEN, FULL, Recipe
from trainer.train import TrainResult, train

COUNTS = (40, 8, 4)
"""Images per class; half of each are for training."""

PLAIN = replace(FROZEN, name="plain", balance=0.0, flips="none", head_penalties=(1e5,))
"""So strong a penalty that only the bias can say anything: thousands of features tell any few parts apart."""

TUNED = replace(PLAIN, name="tuned", epochs=1, batch=8, frozen_stages=5, patience=1)


def hopeless(root: Path) -> Dataset:
    """A long tail of parts without any mark: nothing can be told but how frequent a class is."""
    dataset = parts(root, (sum(COUNTS),))
    classes = ("good", "scratch", "pit")
    labels = np.repeat(classes, COUNTS)
    items = tuple(replace(item, label=str(label)) for item, label in zip(dataset.items, labels, strict=True))
    return replace(dataset, classes=classes, items=items)


Train = Callable[[Recipe], TrainResult]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trainings on the hopeless long tail, each done once."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def once(recipe: Recipe) -> TrainResult:
        return train(hopeless(folder / "images"), folder / str(len(list(folder.iterdir()))), recipe, 0, SIZE)

    return once


def logits(result: TrainResult) -> NDArray[np.float64]:
    """float64 (n, classes) of the test split."""
    return Scores.read(result.run / "scores.test.csv").logits.astype(np.float64)


def rare_probability(result: TrainResult) -> float:
    """What the rarest class gets on average."""
    return float(softmax(logits(result))[:, 2].mean())


@pytest.mark.parametrize(
    "change",
    [
        {"balance": 1.0},
        {"sampling": "class-aware"},
        {"sampling": "over"},
        {"sampling": "under"},
        {"smote": 3},
        {"tau": 1.0},
    ],
    ids=str,
)
def test_each_technique_raises_the_rare_class_of_the_fitted_head(trained: Train, change: dict[str, object]) -> None:
    """On frozen features the rarest class gets at least twice the probability it has without."""
    plain = trained(PLAIN)
    assert rare_probability(trained(replace(PLAIN, **change))) > 2 * rare_probability(plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"balance": 1.0}, {"smote": 3}, {"sampling": "over"}], ids=str)
def test_a_head_fitted_anew_raises_the_rare_class_after_the_backbone_learned(
    trained: Train, change: dict[str, object]
) -> None:
    """Decoupled training balances in its second stage what the first one saw as it came."""
    plain = trained(TUNED)
    assert rare_probability(trained(replace(TUNED, retrain_head=True, **change))) > 1.5 * rare_probability(plain)  # type: ignore[arg-type]


class Watched(Activations):
    """Activations that note which frames were asked for."""

    asked: list[NDArray[np.int64]]

    def get(self, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> torch.Tensor:
        self.asked.append(rows)
        return super().get(rows, copies)


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [("instance", np.array(COUNTS) / 52), ("class-aware", [1 / 3] * 3), ("over", [1 / 3] * 3), ("under", [1 / 3] * 3)],
)
def test_the_learning_backbone_sees_the_classes_as_often_as_the_sampling_says(
    sampling: Sampling, shares: list[float]
) -> None:
    """The frames of every step, counted."""
    labels = np.repeat([0, 1, 2], COUNTS)
    frames = np.random.default_rng(0).integers(0, 256, (52, 1, 32, 32), dtype=np.uint8)
    names = tuple(map(str, range(52)))
    split = LoadedSplit(frames, labels, np.eye(3, dtype=np.float32)[labels], names, names)
    recipe = replace(TUNED, batch=13, sampling=sampling)
    model = Classifier(ClassifierConfig(3, 1))
    model.backbone.freeze_lower(recipe.frozen_stages)
    lower = Watched(model, frames, recipe.frozen_stages)
    lower.asked = []
    fold = Fold(split, split, recipe, 0)
    list(fine_tune(model, fold, lower, Activations(model, frames, recipe.frozen_stages), start(model, recipe), silent))
    rows = np.concatenate(lower.asked)
    assert len(rows) == 16 * 13
    np.testing.assert_allclose(np.bincount(labels[rows]) / len(rows), shares, atol=0.1)


@pytest.mark.parametrize("recipe", [PLAIN, TUNED, replace(PLAIN, flip_average="both")], ids=["head", "tuned", "flips"])
def test_adjusted_logits_are_the_plain_ones_less_the_log_shares(trained: Train, recipe: Recipe) -> None:
    """tau * T * log(prior) is taken off, T the validated temperature, and the exported model, whose scores these are,
    has it in its bias."""
    plain, adjusted = trained(recipe), trained(replace(recipe, tau=1.5))
    val = Scores.read(plain.run / "scores.val.csv")
    offset = 1.5 * np.log(np.array(COUNTS) / sum(COUNTS))
    taken = logits(plain) - logits(adjusted)
    temperature = taken.mean() / offset.mean()
    np.testing.assert_allclose(taken, np.broadcast_to(temperature * offset, taken.shape), atol=1e-4)
    assert temperature == pytest.approx(fit_temperature(val.logits, val.labels), rel=0.05)


def test_adjustment_counts_as_much_in_a_network_that_is_too_sure() -> None:
    """Logits ten times as large at ten times the temperature: ten times as much is taken off, the same verdicts."""
    model = Classifier(ClassifierConfig(3, 1, pooling="mean"))
    taken = []
    for scale in (1.0, 10.0):
        with torch.no_grad():
            model.linear.bias.copy_(scale * torch.tensor([2.0, 0.0, -1.0]))
        adjust_bias(model, COUNTS, 1.0, scale)
        taken.append(model.linear.bias.detach().clone() / scale)
    torch.testing.assert_close(taken[0], taken[1])


def test_adjustment_corrects_only_what_weights_and_sampling_left(trained: Train) -> None:
    """With inverse frequencies or level classes there is no prior to take off: the same for all classes."""
    for change in ({"balance": 1.0}, {"sampling": "over"}, {"smote": 3}):
        plain, adjusted = (
            trained(replace(PLAIN, tau=tau, **change))  # type: ignore[arg-type]
            for tau in (0.0, 1.0)
        )
        assert float(np.ptp(logits(adjusted) - logits(plain), axis=1).max()) < 1e-4


def test_learning_with_the_adjusted_loss_would_give_the_same_head() -> None:
    """The head that was fitted plainly and adjusted afterwards is where the adjusted loss has no slope left."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], COUNTS)
    model = Classifier(ClassifierConfig(3, 1, pooling="mean"))
    features = rng.normal(size=(len(labels), model.features)).astype(np.float32)
    recipe = replace(PLAIN, head_penalties=(0.3,))
    fit_head(model, features, np.eye(3, dtype=np.float32)[labels], features, labels, recipe, torch.ones(3))
    adjust_bias(model, COUNTS, 1.0, temperature=1.0)
    model.eval()
    weight, bias = model.linear.weight, model.linear.bias
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    loss = logit_adjusted_loss(model.classify(x), y, COUNTS, 1.0) + 0.3 / 2 * weight.square().sum()
    slopes = torch.autograd.grad(loss, [weight, bias])
    assert all(float(slope.detach().norm()) < 1e-3 for slope in slopes)
    plain = logit_adjusted_loss(model.classify(x), y, COUNTS, 0.0) + 0.3 / 2 * weight.square().sum()
    assert float(torch.autograd.grad(plain, bias)[0].norm()) > 0.05


def test_decoupled_training_keeps_the_backbone_and_changes_the_head(trained: Train) -> None:
    """The backbone is bit by bit that of plain training, whatever the second stage does."""
    decoupled = replace(TUNED, retrain_head=True, balance=1.0, tau=0.5)
    plain, retrained = (load_file(trained(r).run / "model.safetensors") for r in (TUNED, decoupled))
    assert all(torch.equal(plain[name], retrained[name]) for name in plain if name.startswith("backbone."))
    assert not torch.equal(plain["linear.weight"], retrained["linear.weight"])


def test_the_head_learns_from_copies_drawn_together() -> None:
    """Resampling draws frames: every copy of a drawn frame is there, with its own target."""
    features = np.arange(2 * 6, dtype=np.float32).reshape(2, 6, 1)
    labels, targets = np.array([0, 0, 0, 0, 1, 1]), np.eye(6, dtype=np.float32)[:, :6]
    x, y = learning_set(features, labels, targets, replace(PLAIN, sampling="under"), 0)
    rows = sample_rows(labels, "under", np.random.default_rng([6, 0]))
    assert x[:, 0].tolist() == [*rows, *(rows + 6)]
    assert y.argmax(1).tolist() == [*rows, *rows]


def test_smote_works_within_each_copy_and_is_sure_of_its_class() -> None:
    """Doubtful targets of real frames stay; synthetic ones are one-hot; no line runs from one copy to another."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 0, 1, 1])
    targets = np.where(np.eye(2)[labels] == 1, 0.8, 0.2).astype(np.float32)
    features = rng.normal(size=(2, 6, 3)).astype(np.float32) + np.array([0, 100])[:, None, None].astype(np.float32)
    x, y = learning_set(features, labels, targets, replace(PLAIN, smote=5), 0)
    first, of = smote(features[0], labels, 5, np.random.default_rng([7, 0, 0]))
    assert np.array_equal(x[:8], first)
    assert np.array_equal(y[:6], targets)
    assert np.array_equal(y[6:8], np.eye(2)[of[6:]])
    assert x[8:].min() > 50


def test_batches_go_round_after_round() -> None:
    """Rounds shorter than a batch are drawn until all steps are full."""
    drawn = list(draw_batches(10, 1, 4, 6, (0, 0), lambda rng: rng.permutation(5)))
    rows = np.concatenate([rows for rows, _ in drawn])
    assert [len(rows) for rows, _ in drawn] == [6] * 4
    assert sorted(np.bincount(rows).tolist()) == [4, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sampling": "sideways"}, "sampling is 'sideways'"),
        ({"smote": -1}, "smote is -1"),
        ({"smote": 2.5}, r"smote is 2\.5; it must be a \(finite\) int"),
        ({"tau": -0.5}, "tau is -0.5"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"balance": 1.5}, "balance is 1.5"),
        ({"retrain_head": 1, "epochs": 2}, "retrain_head is 1"),
        ({"smote": 5, "sampling": "over"}, "sampling to 'instance'"),
        ({"smote": 5, "epochs": 2}, "epochs to 0, or retrain_head"),
        ({"retrain_head": True}, "epochs above 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_names_the_field(change: dict[str, object], match: str) -> None:
    """Values out of range, of the wrong type, or that would have no effect."""
    with pytest.raises(InputError, match=match):
        replace(FROZEN, **change)  # type: ignore[arg-type]


def test_recipes_of_a_file_may_leave_defaults_out_but_not_the_name() -> None:
    """JSON gives back the recipe; 1 is as good as 1.0."""
    recipe = replace(FULL, sampling="class-aware", tau=0.5, balance=0.0)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert Recipe.from_json({"name": "mine", "tau": 1}) == Recipe("mine", tau=1.0)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"tau": 1}, "'name' is missing"),
        ({"name": "x", "head_penalties": 3}, "head_penalties"),
        ({"name": "x", "head_penalties": ["a"]}, "head_penalties"),
        ({"name": "x", "gamma": "2"}, "gamma is '2'"),
        ({"name": "x", "beta": 1}, "unknown field 'beta'"),
    ],
)
def test_a_recipe_file_with_a_mistake_names_the_field(values: dict[str, object], match: str) -> None:
    """Never a traceback."""
    with pytest.raises(InputError, match=match):
        Recipe.from_json(values)


def test_a_class_of_one_image_is_refused(tmp_path: Path) -> None:
    """It can be learned from or measured on, not both; the message names it and what to do."""
    dataset = parts(tmp_path / "images", (8, 8, 1))
    with pytest.raises(InputError, match=r"class 'pit' has one image.*merge"):
        train(dataset, tmp_path / "run", FROZEN)
    assert not (tmp_path / "run").exists()


def test_adjustment_of_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    """No share, no prior; without tau the rest can be learned."""
    dataset = parts(tmp_path / "images", (12, 12, 4))
    kept = tuple(i for i in dataset.items if not (i.label == "pit" and i.split == "train"))
    with pytest.raises(InputError, match=r"class 'pit' has no training image.*tau"):
        train(replace(dataset, items=kept), tmp_path / "run", replace(FROZEN, tau=1.0))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("soft", [(float("nan"), 1.0), (1.0, float("nan")), (0.6, 0.6), (1.5, -0.5), (1.0,)])
def test_soft_labels_that_are_no_probabilities_are_refused(soft: tuple[float, ...]) -> None:
    """NaN, a sum other than one, a negative or a missing probability: the image is named."""
    with pytest.raises(InputError, match=r"a/b\.png, soft"):
        soft_labels((Item("a/b.png", "ok", "g", "train", soft),), ("ok", "bad"))
