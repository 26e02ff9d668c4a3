"""`trainer compare` end to end on small generated parts."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from calibration.errors import InputError
from calibration.scores import Scores
from tests.support.folders import FolderSpec, write_folder
from trainer.cli import main
from trainer.compare.cells import read_cell, run_cell
from trainer.compare.folds import make_splits
from trainer.compare.recipes import BASELINE, CANDIDATES, Candidate, affordable, pick
from trainer.compare.run import CHOSEN, HIGHEST, compare
from trainer.compare.store import Store
from trainer.data.importers import import_folder
from trainer.data.manifest import Dataset, read_dataset
from trainer.features import silent
from trainer.train import train

FEW = "logit-adjusted,mean"


def call(*words: object) -> Result:
    """Run one command; standard output and error apart."""
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def answer(*words: object) -> Any:
    """The JSON that `trainer compare` prints; it must succeed."""
    result = call("compare", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 good parts, 6 scratched and 5 pitted ones, two images each, 48x48."""
    root = tmp_path_factory.mktemp("compare")
    write_folder(root / "images", FolderSpec(48, 48, (60, 12, 10), shots=2))
    import_folder(root / "images", root / "data", licence="none")
    return root / "data"


@pytest.fixture(scope="module")
def compared(data: Path) -> dict[str, Any]:
    """The answer to a comparison of three recipes with random folds beside; it lies in data/../comparison."""
    out = data.parent / "comparison"
    found: dict[str, Any] = answer(data, "--out", out, "--recipes", FEW, "--folds", 3, "--seeds", 1, "--random-split")
    return found


def test_the_answer_has_every_recipe_with_figures_intervals_and_differences(compared: dict[str, Any]) -> None:
    """The baseline without differences, the others with them, and last the nested choices."""
    for protocol in ("grouped", "random"):
        rows = {row["name"]: row for row in compared[protocol]}
        assert list(rows) == [BASELINE, "logit-adjusted", "mean", HIGHEST, CHOSEN]
        assert rows[BASELINE]["differences"] == {}
        for row in rows.values():
            assert set(row["recall"]) == {"good", "pit", "scratch"}
            for name in ("macro_f1", "balanced_accuracy", "escape", "auroc", "ece_before", "ece", "nll"):
                assert row["figures"][name]["low"] <= row["figures"][name]["value"] <= row["figures"][name]["high"]
            assert row["changed"] == 0
            assert row["seconds"] > 0
            assert row["images_per_second"] > 0
        assert [sum(rows[name]["chosen"].values()) for name in (HIGHEST, CHOSEN)] == [3, 3]
        assert rows["mean"]["differences"]["escape"]["low"] <= rows["mean"]["differences"]["escape"]["value"]
    assert (compared["cells"], compared["groups"]) == (18, 41)


def test_the_report_is_one_file_that_says_what_cannot_be_told_apart(compared: dict[str, Any]) -> None:
    """Nothing is loaded from elsewhere; recipes, diagrams and the sentence are in it."""
    page = Path(compared["report"]).read_text(encoding="utf-8")
    assert page.count("<svg") == 2 * 4
    assert "Chosen by validation alone" in page
    assert "the baseline: " in page
    for foreign in ("<script", "<link", "src=", 'href="http'):
        assert foreign not in page


def test_a_second_run_computes_nothing_and_answers_the_same(data: Path, compared: dict[str, Any]) -> None:
    """Finished cells are kept: seconds, not minutes."""
    begun = time.process_time()
    again = answer(data, "--out", compared["out"], "--recipes", FEW, "--folds", 3, "--seeds", 1, "--random-split")
    assert again.pop("computed") == 0
    assert again == {key: value for key, value in compared.items() if key != "computed"}
    assert time.process_time() - begun < 20


def test_any_recipe_may_be_the_one_that_others_are_told_apart_from(data: Path, compared: dict[str, Any]) -> None:
    """Nothing is trained for it; its difference to the baseline is the baseline's to it with the other sign."""
    words = (data, "--out", compared["out"], "--recipes", "logit-adjusted", "--folds", 3, "--seeds", 1)
    found = answer(*words, "--against", "mean")
    assert (found["computed"], found["against"], compared["against"]) == (0, "mean", BASELINE)
    rows, before = ({row["name"]: row for row in facts["grouped"]} for facts in (found, compared))
    assert rows["mean"]["differences"] == {}
    for name, figure in before["mean"]["differences"].items():
        turned = rows[BASELINE]["differences"][name]
        assert (turned["value"], turned["low"], turned["high"]) == pytest.approx(
            (-figure["value"], -figure["high"], -figure["low"])
        )
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert "Less mean" in page
    assert "the baseline" not in page
    shown = " ".join(call("compare", *words, "--against", "mean").stdout.split())
    assert "- worse than mean, ~" in shown


def test_a_recipe_to_tell_others_apart_from_must_be_declared(data: Path, tmp_path: Path) -> None:
    """Exit code 2, the option and the names there are, and no folder."""
    refused = call("compare", data, "--out", tmp_path / "out", "--against", "focall")
    assert refused.exit_code == 2
    assert "--against: 'focall' is unknown; choose among baseline, " in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_how_to_train_what_was_chosen(data: Path, compared: dict[str, Any]) -> None:
    """By name, the recipe that most cells chose."""
    chosen = next(row for row in compared["grouped"] if row["name"] == CHOSEN)["chosen"]
    shown = call("compare", data, "--out", compared["out"], "--recipes", FEW, "--folds", 3, "--seeds", 1)
    said = " ".join(shown.stderr.split())
    assert f"trainer train {data} --out run --recipe {next(iter(chosen))}" in said


def test_what_was_interrupted_goes_on_and_more_recipes_and_seeds_add_only_their_cells(
    data: Path, compared: dict[str, Any], tmp_path: Path
) -> None:
    """A lost cell is computed again to the same logits; a further recipe costs its own cells."""
    out = tmp_path / "copy"
    shutil.copytree(compared["out"], out)
    lost = next(iter(sorted((out / "cells").rglob("grouped-*.json"))))
    before = json.loads(lost.read_text())
    lost.unlink()
    found = answer(data, "--out", out, "--recipes", FEW + ",mirrored", "--folds", 3, "--seeds", 1)
    assert found["computed"] == 1 + 3
    after = json.loads(lost.read_text())
    assert after["test"] == before["test"]
    assert after["val"] == before["val"]


def test_logit_adjustment_shares_its_training_with_the_recipe_it_adjusts(compared: dict[str, Any]) -> None:
    """It is one subtraction afterwards: two trained recipes for three lines."""
    assert len(list((Path(compared["out"]) / "cells").iterdir())) == 2


def as_split(dataset: Dataset, split: Any) -> Dataset:
    """The dataset with this split as its own."""
    named = dict.fromkeys(split.train, "train") | dict.fromkeys(split.val, "val") | dict.fromkeys(split.test, "test")
    items = tuple(replace(item, split=named[row]) for row, item in enumerate(dataset.items))
    return replace(dataset, items=items, folder=None)


@pytest.mark.parametrize("name", ["logit-adjusted", "tiny-tuned", "bilinear", "anomaly"])
def test_a_cell_is_what_trainer_train_gives_on_that_split(data: Path, tmp_path: Path, name: str) -> None:
    """Cached features change nothing: the logits of a cell are those of a run on the same split and seed."""
    dataset = read_dataset(data)
    tuned = replace(
        pick(["fine-tuned-anomaly"])[1].recipe,
        name="tiny-tuned",
        epochs=1,
        batch=4,
        frozen_stages=5,
        flip_average="horizontal",
        committee=2,
    )
    candidate = Candidate("few steps", tuned) if name == "tiny-tuned" else pick([name])[1]
    split = make_splits(dataset, "grouped", 3, 1)[1]
    store = Store(dataset, tmp_path / "cache", silent)
    cell = run_cell(candidate, split, store, silent).outcome(split, candidate.recipe.tau, dataset.labels())
    own = as_split(dataset, split)
    train(own, tmp_path / "run", candidate.recipe, seed=split.seed * 1000 + split.fold)
    for which, rows, logits in (("val", split.val, cell.val_logits), ("test", split.test, cell.test_logits)):
        scores = Scores.read(tmp_path / "run" / f"scores.{which}.csv")
        assert scores.paths == tuple(own.items[row].path for row in rows)
        assert np.abs(scores.logits - logits).max() < 0.02
        assert np.array_equal(scores.logits.argmax(1), logits.argmax(1))


def test_a_cell_killed_between_two_epochs_goes_on_from_the_first(data: Path, tmp_path: Path) -> None:
    """The same logits as without the kill, and no second first epoch; what has learned serves other recipes too."""
    dataset = read_dataset(data)
    split = make_splits(dataset, "grouped", 3, 1)[0]
    tuned = pick(["fine-tuned"])[1].recipe
    recipe = replace(tuned, epochs=2, batch=4, frozen_stages=5, flips="none", flip_average="none")
    candidate, epochs = Candidate("two epochs", recipe), []

    def kill_after_one(what: str, done: int, total: int) -> None:
        if what == "epochs of this cell":
            epochs.append(done)
            if len(epochs) == 1:
                raise KeyboardInterrupt

    store = Store(dataset, tmp_path / "cache", silent)
    with pytest.raises(KeyboardInterrupt):
        run_cell(candidate, split, store, kill_after_one)
    resumed = run_cell(candidate, split, store, kill_after_one)
    assert epochs == [1, 2]
    whole = run_cell(candidate, split, Store(dataset, tmp_path / "other", silent), silent)
    assert np.array_equal(resumed.test, whole.test)
    assert resumed.epochs == whole.epochs == 2
    assert resumed.seconds > whole.seconds / 2
    adjusted = replace(recipe, name="head alone differs", retrain_head=True, balance=0.99)
    again = run_cell(Candidate("the stages learned already", adjusted), split, store, kill_after_one)
    assert epochs == [1, 2]
    assert again.seconds > whole.seconds / 2
    assert not np.array_equal(again.test, whole.test)
    pair = run_cell(Candidate("a second member", replace(recipe, committee=2)), split, store, kill_after_one)
    assert epochs == [1, 2, 3, 4]
    assert pair.epochs == 4
    assert pair.seconds > 1.5 * whole.seconds


@pytest.mark.parametrize("text", ['{"version": 1}', "half a fi", '{"version": 0}', "[]"])
def test_a_damaged_cell_is_named(data: Path, tmp_path: Path, text: str) -> None:
    """It is neither guessed at nor silently replaced."""
    split = make_splits(read_dataset(data), "grouped", 3, 1)[0]
    path = tmp_path / "cell.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"cell\.json: not a finished cell .*delete it"):
        read_cell(path, split)


def refusal(*words: object) -> str:
    """What `trainer compare` says on stderr when it refuses: exit code 2, one line, nothing on stdout."""
    result = call("compare", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_an_unknown_recipe_lists_the_known_ones(data: Path, tmp_path: Path) -> None:
    """Before anything is computed or written."""
    said = refusal(data, "--out", tmp_path / "out", "--recipes", "focall")
    assert "'focall' is unknown" in said
    assert all(candidate.name in said for candidate in CANDIDATES)
    assert not (tmp_path / "out").exists()


def test_more_folds_than_groups_is_refused_with_a_number_that_works(data: Path, tmp_path: Path) -> None:
    """The class, its groups, the remedy; nothing is written."""
    said = refusal(data, "--out", tmp_path / "out", "--folds", 6)
    assert "the 10 images of class 'pit' lie in 5 groups" in said
    assert "use --folds 5 or fewer" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_data_or_folds_or_files_is_left_alone(
    data: Path, compared: dict[str, Any], tmp_path: Path
) -> None:
    """A comparison is never mixed with another's cells."""
    assert "another number of folds" in refusal(data, "--out", compared["out"], "--folds", 4)
    write_folder(tmp_path / "images", FolderSpec(48, 48, (12, 12), seed=1))
    import_folder(tmp_path / "images", tmp_path / "data", licence="none")
    assert "another dataset" in refusal(tmp_path / "data", "--out", compared["out"], "--folds", 3)
    assert "holds other files" in refusal(data, "--out", tmp_path, "--folds", 3)
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(data, "--out", tmp_path / "file", "--folds", 3)


def test_the_datasets_own_split_plays_no_part(data: Path, compared: dict[str, Any]) -> None:
    """Imported again with another split, the same comparison goes on."""
    dataset = read_dataset(data)
    other = replace(dataset, items=tuple(replace(item, split="test") for item in dataset.items))
    found = compare(other, Path(compared["out"]), pick(FEW.split(",")), 3, 1, 0.1, ["grouped"], silent, draws=5)
    assert found.computed == 0


def test_declared_names_are_unique_and_the_baseline_is_the_plain_one() -> None:
    """Each candidate has a name of its own, and nothing but the baseline has its recipe."""
    assert len({candidate.name for candidate in CANDIDATES}) == len(CANDIDATES)
    plain = [(replace(c.recipe, name=""), c.scale) for c in CANDIDATES]
    assert len(set(plain)) == len(plain)
    assert [c.name for c in pick(["smote", BASELINE])] == [BASELINE, "smote"]


def test_by_default_no_input_is_enlarged_beyond_what_training_would_choose() -> None:
    """Small frames may be doubled; frames of a megapixel are not looked at in more pixels than they have."""
    small, large = (affordable(CANDIDATES, (side, side), (side, side)) for side in (256, 1024))
    assert small == CANDIDATES
    assert {c.name for c in CANDIDATES} - {c.name for c in large} == {c.name for c in CANDIDATES if c.scale > 1}
