"""A dataset's two text files: written and read back equal, every mistake in them named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from trainer.data.fields import parse_soft, soft_text
from trainer.data.manifest import Dataset, Item, read_dataset, summary, write_dataset
from trainer.data.names import class_name, listed, printable


def dataset(root: Path) -> Dataset:
    """Three images on disk, one with doubt."""
    for i, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((8, 12), 40 * i, np.uint8))
    return Dataset(
        name="three",
        root=root,
        classes=("ok", "crack, long"),
        ok_class="ok",
        ok_source="the test says so",
        channels=1,
        frame_heights=(8, 8),
        frame_widths=(12, 12),
        frame_aspects=(1.5, 1.5),
        seed=7,
        licence="none",
        items=(
            Item("a/1.png", "ok", "part 1", "train"),
            Item("a/2.png", "ok", "part 2", "val", (2 / 3, 1 / 3)),
            Item("b/1.png", "crack, long", "b/1.png", "test"),
        ),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """DATA of the three images."""
    write_dataset(dataset(tmp_path / "images"), tmp_path / "data")
    return tmp_path / "data"


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    """Names with commas, soft labels and ranges survive, and the hash is the same."""
    original = dataset(tmp_path / "images")
    back = write_dataset(original, tmp_path / "data")
    assert back == original
    assert back.sha256 == original.sha256
    assert back.folder == tmp_path / "data"


def test_counts_labels_and_parts(written: Path) -> None:
    """What the trainer asks of a dataset."""
    data = read_dataset(written)
    assert data.labels().tolist() == [0, 0, 1]
    assert data.labels("test").tolist() == [1]
    assert [item.path for item in data.of("val")] == ["a/2.png"]
    assert data.counts()["train"] == {"ok": 1, "crack, long": 0}
    assert summary(data)["groups"] == 3
    assert data.ok_index == 0


def test_a_relative_root_is_taken_from_the_data_folder(written: Path) -> None:
    """Images and dataset can be moved together."""
    edit_settings(written, root="../images")
    assert read_dataset(written).root.resolve() == (written.parent / "images").resolve()


def test_the_hash_covers_labels_splits_and_pixels_but_not_the_place(tmp_path: Path) -> None:
    """A copy elsewhere is the same dataset; another label, split, soft label or pixel makes another."""
    here = dataset(tmp_path / "here")
    moved = replace(dataset(tmp_path / "there"), name="moved", licence="another")
    assert here.sha256 == moved.sha256
    first = here.items[0]
    hashes = {here.sha256}
    for change in (replace(first, split="test"), replace(first, label="crack, long"), replace(first, soft=(0.9, 0.1))):
        hashes.add(replace(here, items=(change, *here.items[1:])).sha256)
    cv2.imwrite(str(tmp_path / "here/a/1.png"), np.full((8, 12), 1, np.uint8))
    hashes.add(dataset_again(here).sha256)
    assert len(hashes) == 5


def dataset_again(data: Dataset) -> Dataset:
    """An equal dataset without the hash it remembers."""
    return replace(data)


def test_a_missing_image_is_named_when_hashing(written: Path) -> None:
    """Provenance of images that are gone would be a lie."""
    (written.parent / "images/a/2.png").unlink()
    with pytest.raises(InputError, match=r"manifest\.csv, path a/2\.png: .*import again"):
        _ = read_dataset(written).sha256


def edit_settings(folder: Path, **changes: Any) -> None:
    """Change fields of dataset.json; None deletes one."""
    values = json.loads((folder / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"dataset\.json, version: 2; this program reads version 1"),
        ({"colour": "red"}, r"dataset\.json: unknown field 'colour'"),
        ({"licence": None}, r"dataset\.json: field 'licence' is missing"),
        ({"root": "/no/such/folder"}, r"dataset\.json, root: the image folder /no/such/folder is missing"),
        ({"classes": ["ok"]}, r"classes: \['ok'\]; at least two"),
        ({"classes": ["ok", "ok"]}, r"at least two different"),
        ({"classes": "ok"}, r"classes: expected a list"),
        ({"classes": ["ok", "a\x1b[2J"]}, r"a\\x1b\[2J.*control characters"),
        ({"classes": ["ok", "a:b"]}, r"'a:b' holds"),
        ({"ok_class": "good"}, r"ok_class: 'good' is none of"),
        ({"channels": 2}, r"channels: 2; it must be 1 \(grey\) or 3"),
        ({"seed": "x"}, r"seed: 'x'"),
        ({"name": 3}, r"name: 3 is no plain text"),
        ({"frame_heights": [9, 8]}, r"frame_heights: \[9, 8\]; expected \[least, most\]"),
        ({"frame_widths": [True, 8]}, r"frame_widths"),
        ({"frame_aspects": [float("nan"), 1.0]}, r"frame_aspects"),
    ],
)
def test_settings_that_cannot_be_right_are_named(written: Path, changes: dict[str, Any], message: str) -> None:
    """File, field and remedy."""
    edit_settings(written, **changes)
    with pytest.raises(InputError, match=message):
        read_dataset(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "", r"manifest\.csv: the file is empty"),
        (lambda t: t.split("\n")[0], r"no rows below the header"),
        (lambda t: t.replace("soft", "soft,quality", 1), r"line 1: unknown column 'quality'"),
        (lambda t: t.replace("path,label,group", "path,label", 1), r"line 1: column 'group' is missing"),
        (lambda t: t.replace("path,label", "label,path", 1), r"line 1: the columns are label,path"),
        (lambda t: t.replace("a/1.png,ok", "a/1.png,fine"), r"line 2, label: 'fine' is none of the classes"),
        (lambda t: t.replace("part 1,train", "part 1,training"), r"line 2, split: 'training'; it must be one of"),
        (lambda t: t.replace("part 1,train", ",train"), r"line 2, group"),
        (lambda t: t.replace("a/1.png", "../1.png"), r"line 2, path: '\.\./1\.png' does not lie below"),
        (lambda t: t.replace("a/1.png", "/etc/1.png"), r"line 2, path"),
        (lambda t: t.replace("a/1.png", "a/\x1b1.png"), r"line 2, path: .a/\\x1b1\.png"),
        (lambda t: t.replace("a/2.png", "a/1.png"), r"line 3, path: 'a/1\.png' was given in line 2 already"),
        (lambda t: t.replace("part 2", "part 1"), r"line 3, split: group 'part 1' is in 'val' here and in 'train'"),
        (lambda t: t.replace("part 1,train,", "part 1,train"), r"line 2: 4 fields; expected 5"),
        (lambda t: t.replace("part 1,train,", "part 1,train,ok:nan"), r"line 2, soft: the probability of 'ok' is nan"),
        (lambda t: t.replace("part 1,train,", "part 1,train,ok:inf"), r"soft: the probability of 'ok' is inf"),
        (lambda t: t.replace("part 1,train,", "part 1,train,ok:0.5"), r"line 2, soft: the probabilities sum to 0\.5"),
        (lambda t: t.replace("part 1,train,", "part 1,train,ok:x"), r"soft: 'x' is not a number"),
        (lambda t: t.replace("part 1,train,", "part 1,train,bad:1"), r"soft: 'bad:1' is not CLASS:PROBABILITY"),
        (lambda t: t.replace("part 1,train,", "part 1,train,ok:0.5;ok:0.5"), r"soft: 'ok:0\.5'"),
        (lambda t: t + '"unclosed', r"not a CSV"),
    ],
)
def test_rows_that_cannot_be_right_are_named(written: Path, change: Callable[[str], str], message: str) -> None:
    """File, line, field and remedy."""
    table = written / "manifest.csv"
    text = table.read_text().replace("\r\n", "\n")
    assert change(text) != text
    table.write_text(change(text))
    with pytest.raises(InputError, match=message):
        read_dataset(written)


def test_missing_files_are_named(written: Path) -> None:
    """Of a folder that is none, or was cut short."""
    with pytest.raises(InputError, match="no dataset in it"):
        read_dataset(written.parent)
    (written / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"manifest\.csv: No such file"):
        read_dataset(written)


@pytest.mark.parametrize("text", ["", "[]", "{", "\ufeff{}"])
def test_settings_that_are_no_json_object_are_refused(written: Path, text: str) -> None:
    """Not a traceback."""
    (written / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_dataset(written)


def test_a_file_that_is_no_text_is_refused(written: Path) -> None:
    """Bytes that are not UTF-8."""
    (written / "manifest.csv").write_bytes(b"path,label,group,split,soft\n\xff\xfe,ok,1,train,\n")
    with pytest.raises(InputError, match="not a CSV in UTF-8"):
        read_dataset(written)


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=6))
@settings(max_examples=100, deadline=None)
def test_soft_labels_survive_their_text_form(weights: list[float]) -> None:
    """Bit for bit, once they sum to one."""
    total = sum(weights)
    soft = tuple(weight / total for weight in weights)
    classes = tuple(f"class {i}" for i in range(len(weights)))
    assert parse_soft("here", soft_text(soft, classes), classes) == soft


def test_soft_labels_written_by_hand_may_miss_one_a_little() -> None:
    """0.33 three times is a third each; a class left out has probability 0."""
    assert parse_soft("here", "a:0.33;b:0.33;c:0.33", ("a", "b", "c")) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert parse_soft("here", "b:1", ("a", "b")) == (0.0, 1.0)
    assert parse_soft("here", "", ("a", "b")) is None


def test_class_names_are_made_safe_or_refused() -> None:
    """Blanks and reserved characters go; escape sequences, overlong and empty names are refused, printably."""
    assert class_name("  a:b;c*/d ", "here") == "a_b_c__d"
    assert class_name("Kratzer \u00fc", "here") == class_name("Kratzer u\u0308", "here")
    for bad in ("", "   ", "x" * 65, "a\x1b[31m", "a\u202eb", "a\nb", "a\udcff"):
        with pytest.raises(InputError, match="here") as caught:
            class_name(bad, "here")
        assert printable(str(caught.value)) == str(caught.value)


def test_long_lists_are_shortened() -> None:
    """Ten names and how many more."""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(12)]).endswith("9 and 2 more")
