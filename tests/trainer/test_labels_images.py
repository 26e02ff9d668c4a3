"""`trainer labels issues` and `queries` on small image folders, with the real network."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from tests.support.folders import FolderSpec, write_folder
from tests.trainer.test_labels_cli import answer, call, refusal
from trainer.crossval import checked_folds
from trainer.data.importers import Options, import_folder
from trainer.data.manifest import Dataset, Item
from trainer.recipes import FROZEN
from trainer.train import train

FLIPS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ with 60 good and 40 stained parts, of which five good ones were labelled stain; run/ trained on it."""
    root = tmp_path_factory.mktemp("doubtful")
    write_folder(root / "images", FolderSpec(48, 48, (60, 5, 5, 40)))
    for name in ("scratch", "pit"):
        shutil.rmtree(root / "images" / name)
    for i in range(FLIPS):
        (root / f"images/good/good-{i:04d}.png").rename(root / f"images/stain/flipped-{i}.png")
    dataset = import_folder(root / "images", root / "data", Options(fractions=(0.7, 0.2, 0.1))).dataset
    train(dataset, root / "run", FROZEN, seed=1, size=(48, 48))
    return root


def test_issues_finds_the_flipped_labels(place: Path, tmp_path: Path) -> None:
    """Most flips, few others, worst first; table, page with pictures, and tasks that name the suggestion."""
    result = answer("issues", place / "data", "--out", tmp_path / "out", "--size", "48")
    found = [issue["item"] for issue in result["issues"]]
    flips = [item for item in found if "flipped" in item]
    assert len(flips) >= FLIPS - 1
    assert len(found) - len(flips) <= 3
    confidences = [issue["self_confidence"] for issue in result["issues"]]
    assert confidences == sorted(confidences)
    assert result["flagged_by_rule"]["both"] <= result["flagged_by_rule"]["prune_by_noise_rate"] == len(found)
    with (tmp_path / "out/issues.csv").open() as file:
        assert [row["item"] for row in csv.DictReader(file)] == found
    page = (tmp_path / "out/issues.html").read_text()
    assert page.count("<img") == len(found)
    assert flips[0] in page
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["data"]["path"] for task in tasks] == found
    assert tasks[0]["data"]["given"] != tasks[0]["predictions"][0]["result"][0]["value"]["choices"][0]


def test_queries_ranks_a_folder_and_always_draws_some_by_lot(place: Path, tmp_path: Path) -> None:
    """As many as asked, with their reasons; unreadable images are left out and named; tasks suggest nothing."""
    unlabelled = tmp_path / "unlabelled"
    write_folder(unlabelled, FolderSpec(48, 48, (10, 2, 2, 8), seed=9))
    (unlabelled / "broken.png").write_bytes(b"no image")
    words = ("queries", place / "run", unlabelled, "--count", 8)
    result = answer(*words, "--out", tmp_path / "a", "--rare", "stain", "--audit-share", 0.2)
    assert result["counts"] == {"margin": 4, "rare": 2, "audit": 2}
    assert len({query["item"] for query in result["queries"]}) == 8
    assert list(result["skipped"]) == ["broken.png"]
    rare = [query for query in result["queries"] if query["reason"] == "rare"]
    assert all(query["predicted"] == "stain" for query in rare)
    tasks = json.loads((tmp_path / "a/tasks.json").read_text())
    assert len(tasks) == 8
    assert not any("predictions" in task for task in tasks)
    far = answer(*words, "--out", tmp_path / "b", "--strategy", "k_centre")
    assert far["counts"] == {"k_centre": 7, "rare": 0, "audit": 1}
    assert len((tmp_path / "b/queries.csv").read_text().splitlines()) == 9


def test_queries_refuses_what_it_cannot_do(place: Path, tmp_path: Path) -> None:
    """No folder, no images, too many wanted, an unknown class, shares above one, other frames, no run."""
    images, out = tmp_path / "u", ("--out", tmp_path / "out")
    images.mkdir()
    run = place / "run"
    assert "no such folder" in refusal("queries", run, tmp_path / "nowhere", "--count", 1, *out)
    assert "no images in it" in refusal("queries", run, images, "--count", 1, *out)
    cv2.imwrite(str(images / "a.png"), np.eye(30, dtype=np.uint8) * 255)
    assert "can judge none of 1 images" in refusal("queries", run, images, "--count", 1, *out)
    cv2.imwrite(str(images / "b.png"), np.full((48, 48), 90, np.uint8))
    assert "holds 1 images that can be judged" in refusal("queries", run, images, "--count", 2, *out)
    assert "none of the run's classes" in refusal("queries", run, images, "--count", 1, "--rare", "hole", *out)
    shares = ("--audit-share", 0.9, "--rare", "stain", "--rare-share", 0.5)
    assert "their sum" in refusal("queries", run, images, "--count", 1, *shares, *out)
    assert "run.json" in refusal("queries", place / "data", images, "--count", 1, *out)
    assert not (tmp_path / "out").exists()


def made(groups: dict[str, list[str]]) -> Dataset:
    """A dataset in memory: groups of each class."""
    items = tuple(
        Item(f"{label}/{i}.png", label, group, "train")
        for label, names in groups.items()
        for i, group in enumerate(names)
    )
    return Dataset("d", Path("d"), tuple(groups), "good", "", 1, (8, 8), (8, 8), (1.0, 1.0), 0, "", items)


def test_folds_never_cut_a_group() -> None:
    """Every fold has its share, and each class can be learned without any one of them."""
    dataset = made({"good": [f"g{i // 3}" for i in range(30)], "bad": ["b0", "b0", "b1", "b2"]})
    fold = checked_folds(dataset, 3, 0)
    homes = {item.group: set(fold[[other.group == item.group for other in dataset.items]]) for item in dataset.items}
    assert all(len(home) == 1 for home in homes.values())
    assert set(fold) == {0, 1, 2}


@pytest.mark.parametrize(
    ("groups", "folds", "word"),
    [
        ({"good": ["a", "b", "c"], "bad": ["d"]}, 2, "class 'bad' has 1 image"),
        ({"good": ["a", "b", "c"], "bad": ["d", "d"]}, 2, "2 image.s. in 1 group"),
        ({"good": ["a", "b"], "bad": ["c", "d"]}, 5, "--folds 5, but there are 4 groups"),
    ],
)
def test_classes_too_small_and_too_many_folds_are_refused(groups: dict[str, list[str]], folds: int, word: str) -> None:
    """By name, with the remedy."""
    with pytest.raises(InputError, match=word):
        checked_folds(made(groups), folds, 0)


def test_the_label_tools_need_no_torch(tmp_path: Path) -> None:
    """`trainer labels consensus --help` shows what there is, and the package is numpy only."""
    import subprocess
    import sys

    script = "import sys, trainer.labels, trainer.labels.vote, trainer.cli_labels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert "trainer labels consensus answers.csv" in call("consensus", "--help").output
