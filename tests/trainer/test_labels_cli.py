"""`trainer labels consensus`, `apply` and `convert`: from answers to a dataset with soft labels, and back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.label_trials import Scene, answers, even, swapping
from tests.support.folders import FolderSpec, write_folder
from trainer.cli import main
from trainer.data.importers import import_folder
from trainer.data.manifest import Dataset, read_dataset

CLASSES = ("good", "scratch", "pit")


def call(*words: object) -> Result:
    """Run one command below `trainer labels`."""
    return CliRunner().invoke(main, ["labels", *(str(word) for word in words)], catch_exceptions=False)


def answer(*words: object) -> Any:
    """The JSON a command prints; it must succeed."""
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refusal(*words: object) -> str:
    """What a command says when it refuses: exit code 2, one error line, nothing on stdout."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("item", "annotator", "label")) -> Path:
    """A CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 good parts, 40 scratched, 40 pitted."""
    root = tmp_path_factory.mktemp("labels")
    write_folder(root / "images", FolderSpec(24, 24, (120, 40, 40)))
    return import_folder(root / "images", root / "data").dataset


@pytest.fixture
def swapped(dataset: Dataset, tmp_path: Path) -> Path:
    """Answers of three: anna and bert at 5 % error; carl takes scratches for pits and the other way round."""
    scene = Scene("", [0.6, 0.2, 0.2], [even(3, 0.05), even(3, 0.05), swapping(even(3, 0.05), 1, 2)], 1)
    rng = np.random.default_rng(5)
    truth = [CLASSES.index(item.label) for item in dataset.items]
    rows = [
        (item.path, name, CLASSES[rng.choice(3, p=confusion[true])])
        for name, confusion in zip(("anna", "bert", "carl"), scene.confusions, strict=True)
        for item, true in zip(dataset.items, truth, strict=True)
    ]
    return table(tmp_path / "answers.csv", rows)


def test_consensus_tells_who_confuses_what(dataset: Dataset, swapped: Path, tmp_path: Path) -> None:
    """Fewer wrong labels than the vote; carl is found out, with an interval; the table names his weakness."""
    result = answer("consensus", swapped, "--out", tmp_path / "ds", "--classes", ",".join(CLASSES))
    answer("consensus", swapped, "--out", tmp_path / "mv", "--method", "majority")

    def wrong(folder: str) -> int:
        with (tmp_path / folder / "labels.csv").open() as file:
            given = {row["item"]: row["label"] for row in csv.DictReader(file)}
        return sum(given[item.path] != item.label for item in dataset.items)

    assert wrong("ds") < wrong("mv") / 3
    carl = result["annotators"][2]
    assert (carl["name"], carl["answers"]) == ("carl", 200)
    assert carl["confusion"][1][2] > 0.7
    _, low, high = carl["accuracy"]
    assert low < 0.6 * 0.95 + 0.4 * 0.025 < high
    assert carl["confusion_low"][1][2] < carl["confusion"][1][2] < carl["confusion_high"][1][2]
    assert json.loads((tmp_path / "ds/consensus.json").read_text())["annotators"][2] == carl
    assert carl["escape"] is None
    shown = call("consensus", swapped, "--out", tmp_path / "again", "--ok", "good").stdout
    assert "carl" in shown
    assert "overkill" in shown
    gauge = json.loads((tmp_path / "again/consensus.json").read_text())["annotators"][0]
    assert gauge["escape"][1] <= gauge["escape"][0] <= gauge["escape"][2] < 0.2
    assert "no such class" in refusal("consensus", swapped, "--out", tmp_path / "more", "--ok", "fine")
    assert "labels unlike the majority's" in " ".join(shown.split())


def test_a_consensus_becomes_training_labels(dataset: Dataset, swapped: Path, tmp_path: Path) -> None:
    """`apply` writes a dataset with the agreed labels and what doubt is left; groups and splits stay."""
    answer("consensus", swapped, "--out", tmp_path / "agreed")
    assert dataset.folder is not None
    result = answer("apply", dataset.folder, tmp_path / "agreed/labels.csv", "--out", tmp_path / "data2")
    written = read_dataset(tmp_path / "data2")
    assert len(result["changed"]) + result["confirmed"] == 200
    assert [(i.path, i.group, i.split) for i in written.items] == [(i.path, i.group, i.split) for i in dataset.items]
    assert {i.path for i, j in zip(written.items, dataset.items, strict=True) if i.label != j.label} == set(
        result["changed"]
    )
    doubtful = [item for item in written.items if item.soft is not None]
    assert 0 < len(doubtful) < 200
    assert all(sum(item.soft or ()) == pytest.approx(1) for item in doubtful)
    assert read_dataset(dataset.folder) == dataset  # untouched


def test_labels_written_by_hand_can_be_applied(dataset: Dataset, tmp_path: Path) -> None:
    """Columns item,label; items of other datasets are warned of, unless there are only such."""
    assert dataset.folder is not None
    path = dataset.items[0].path
    other = next(name for name in CLASSES if name != dataset.items[0].label)
    labels = table(tmp_path / "l.csv", [(path, other), ("strange.png", "good")], ("item", "label"))
    result = call("apply", dataset.folder, labels, "--out", tmp_path / "new", "--json")
    assert json.loads(result.stdout)["changed"] == [path]
    assert "1 item(s)" in result.stderr
    assert "exists and is not empty" in refusal("apply", dataset.folder, labels, "--out", tmp_path / "new")
    strange = table(tmp_path / "s.csv", [("strange.png", "good")], ("item", "label"))
    assert "none of its 1 items is an image" in refusal("apply", dataset.folder, strange, "--out", tmp_path / "x")
    wrong = table(tmp_path / "w.csv", [(path, "hole")], ("item", "label"))
    assert "line 2, label: 'hole' is none" in refusal("apply", dataset.folder, wrong, "--out", tmp_path / "x")
    twice = table(tmp_path / "t.csv", [(path, "good"), (path, "pit")], ("item", "label"))
    assert "was given before" in refusal("apply", dataset.folder, twice, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_answers_travel_between_csv_and_label_studio(swapped: Path, tmp_path: Path) -> None:
    """There and back, nothing is lost; nothing is overwritten; other endings are refused."""
    counts = answer("convert", swapped, "--out", tmp_path / "a.json")
    assert (counts["items"], counts["annotators"], counts["answers"]) == (200, 3, 600)
    answer("convert", tmp_path / "a.json", "--out", tmp_path / "b.csv")
    assert sorted((tmp_path / "b.csv").read_text().splitlines()) == sorted(swapped.read_text().splitlines())
    assert "exists already" in refusal("convert", swapped, "--out", tmp_path / "b.csv")
    assert "ends in .csv or .json" in refusal("convert", swapped, "--out", tmp_path / "c.txt")


def test_gold_labels_win_by_either_method(tmp_path: Path) -> None:
    """Also against everybody."""
    path = table(
        tmp_path / "a.csv", [(f"{i}.png", who, "good" if i % 3 else "bad") for i in range(12) for who in "xyz"]
    )
    gold = table(tmp_path / "g.csv", [("1.png", "bad")], ("item", "label"))
    for method in ("majority", "dawid-skene"):
        answer("consensus", path, "--out", tmp_path / method, "--gold", gold, "--method", method)
        with (tmp_path / method / "labels.csv").open() as file:
            assert {row["item"]: row["label"] for row in csv.DictReader(file)}["1.png"] == "bad"


def test_answers_that_say_nothing_are_refused(tmp_path: Path) -> None:
    """No overlap, one class only, unknown labels, a single class named: one line, and no output folder."""
    out = ("--out", tmp_path / "out")
    apart = table(tmp_path / "a.csv", [("1", "x", "good"), ("2", "y", "bad"), ("3", "x", "bad")])
    assert "no two annotators answered the same item" in refusal("consensus", apart, *out)
    same = table(tmp_path / "s.csv", [("1", "x", "good"), ("1", "y", "good"), ("2", "x", "good")])
    assert "every answer is 'good'" in refusal("consensus", same, *out)
    for method in ("majority", "dawid-skene"):
        known = ("--classes", "good,bad", "--method", method)
        assert "every answer is 'good': nothing to estimate" in refusal("consensus", same, *out, *known)
    assert "line 3: the label 'bad' is none" in refusal("consensus", apart, *out, "--classes", "good,fine")
    assert "two or more different" in refusal("consensus", apart, *out, "--classes", "good")
    assert not (tmp_path / "out").exists()


def test_who_shares_no_item_is_warned_of(tmp_path: Path) -> None:
    """The others are judged; of him nothing is known."""
    rows = [(str(i), who, "good" if i % 2 else "bad") for i in range(10) for who in "xy"]
    path = table(tmp_path / "a.csv", [*rows, ("77", "lone", "bad")])
    result = call("consensus", path, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "annotator 'lone' shares no item with anybody" in result.stderr


def test_simulated_answers_are_what_they_claim() -> None:
    """The share of errors of the simulated annotators, and everybody answers everything."""
    truth, rows = answers(Scene("", [0.5, 0.5], [even(2, 0.1), even(2, 0.3)], 0), 4000, 0)
    errors = [(rows[rows[:, 1] == who, 2] != truth).mean() for who in (0, 1)]
    assert errors == pytest.approx([0.1, 0.3], abs=0.025)
