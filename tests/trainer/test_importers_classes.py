"""What the importer makes of groups.csv and of class names."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from tests.support.folders import FolderSpec, write_folder
from trainer.data.classes import choose_ok
from trainer.data.importers import import_folder

GREY = FolderSpec(24, 40, (20, 12))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty good parts and twelve scratched ones, grey, 24x40."""
    return write_folder(tmp_path / "images", GREY)


def put(path: Path, value: int = 90, size: tuple[int, ...] = (24, 40)) -> None:
    """One plain image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, value, np.uint8))


def groups_csv(root: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("path", "group")) -> None:
    """Write groups.csv."""
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_groups_keep_images_together(images: Path, tmp_path: Path) -> None:
    """Rows of a groups.csv found in the folder, backslashes and ./ forgiven; what it leaves out stands alone."""
    rows = [(f"good\\good-{i:04d}.png", f"part{i // 4}") for i in range(16)]
    groups_csv(images, [*rows, ("./good/good-0016.png", "part0")])
    result = import_folder(images, tmp_path / "data")
    split = {item.path: item.split for item in result.dataset.items}
    for start in range(0, 16, 4):
        assert len({split[f"good/good-{i:04d}.png"] for i in range(start, start + 4)}) == 1
    assert split["good/good-0016.png"] == split["good/good-0000.png"]
    assert any("leaves out 15 image(s)" in w for w in result.warnings)


def test_a_group_named_like_an_image_takes_only_its_own(images: Path, tmp_path: Path) -> None:
    """An image that is not listed does not slip into the group of its name."""
    groups_csv(images, [("good/good-0000.png", "good/good-0001.png")])
    group = {item.path: item.group for item in import_folder(images, tmp_path / "data").dataset.items}
    assert group["good/good-0000.png"] != group["good/good-0001.png"]


def test_the_table_itself_is_not_passed_over(images: Path, tmp_path: Path) -> None:
    """Other tables beside it are."""
    groups_csv(images, [("good/good-0000.png", "part0")])
    (images / "notes.csv").write_text("x")
    assert import_folder(images, tmp_path / "data").ignored == {".csv": 1}


def test_listed_images_that_do_not_exist_are_named(images: Path, tmp_path: Path) -> None:
    """The rest of the table still counts."""
    groups_csv(images, [("good/good-0000.png", "a"), ("good/ghost.png", "a")])
    assert any(
        "1 image(s) that do not exist: good/ghost.png" in w for w in import_folder(images, tmp_path / "d").warnings
    )


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("x.png", "a")], ("path", "group"), "none of its 1 images exists"),
        ([("good/good-0000.png", "a", "b")], ("path", "group"), "line 2"),
        ([("good/good-0000.png", "")], ("path", "group"), "line 2"),
        ([("good/good-0000.png", "a"), ("good/good-0000.png", "b")], ("path", "group"), "line 3: .* keep one"),
        ([("good/good-0000.png", "a")], ("file", "group"), "unknown column 'file'"),
        ([("good/good-0000.png",)], ("path",), "column 'group' is missing"),
        ([], ("path", "group"), "no rows in it"),
    ],
)
def test_unusable_groups_are_refused(
    images: Path, tmp_path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...], message: str
) -> None:
    """With file, line and remedy; nothing is written."""
    groups_csv(images, rows, header)
    with pytest.raises(InputError, match=message):
        import_folder(images, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_another_groups_file_can_be_named(images: Path, tmp_path: Path) -> None:
    """A missing one is an error, not ignored."""
    with pytest.raises(InputError, match=r"nowhere\.csv: No such file"):
        import_folder(images, tmp_path / "data", groups=tmp_path / "nowhere.csv")


def test_class_names_with_reserved_characters_are_changed_and_said(images: Path, tmp_path: Path) -> None:
    """They would break soft labels and score files."""
    (images / "scratch").rename(images / "scratch: deep*")
    result = import_folder(images, tmp_path / "data")
    assert result.dataset.classes == ("good", "scratch_ deep_")
    assert any("became class" in w for w in result.warnings)


def test_a_class_name_that_would_reach_a_terminal_is_refused(images: Path, tmp_path: Path) -> None:
    """Escape sequences stay in the file system, and out of the message about them."""
    (images / "scratch").rename(images / "a\x1b[2Jb")
    with pytest.raises(InputError, match="control characters") as caught:
        import_folder(images, tmp_path / "data")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "ok"),
    [
        (["OK", "NG"], "OK"),
        (["Good", "Defect"], "Good"),
        (["01_good", "02_crack"], "01_good"),
        (["defect-free", "defect"], "defect-free"),
        (["no_defect", "defect"], "no_defect"),
        (["DefectFree", "Crack"], "DefectFree"),
        (["ok_front", "def_front"], "ok_front"),
        (["not ok", "ok"], "ok"),
        (["no_good", "good_part", "scratch"], "good_part"),
        (["free", "break", "crack"], "free"),
        (["passed", "failed"], "passed"),
    ],
)
def test_the_ok_class_is_found_by_its_name(names: list[str], ok: str) -> None:
    """Case, numbers, separators and denials are understood; the size does not matter then."""
    found, source, warning = choose_ok({name: 10 + i for i, name in enumerate(names)}, None)
    assert (found, warning) == (ok, None)
    assert "by its name" in source


def test_without_such_a_name_the_largest_class_is_ok_with_a_warning(images: Path, tmp_path: Path) -> None:
    """A guess is recorded as one."""
    (images / "good").rename(images / "A")
    (images / "scratch").rename(images / "B")
    result = import_folder(images, tmp_path / "data")
    assert result.dataset.ok_class == "A"
    assert result.dataset.ok_source.startswith("guessed")
    assert any("--ok" in w and "'A'" in w for w in result.warnings)


def test_the_user_names_the_ok_class(images: Path, tmp_path: Path) -> None:
    """Against the name, when need be; a name that is no class is refused."""
    result = import_folder(images, tmp_path / "data", ok="scratch")
    assert (result.dataset.ok_class, result.dataset.ok_source) == ("scratch", "named by the user")
    with pytest.raises(InputError, match="--ok 'fine': no such class; the classes are good, scratch"):
        import_folder(images, tmp_path / "other", ok="fine")


def test_two_classes_that_sound_good_must_be_decided_by_the_user() -> None:
    """A wrong guess would turn every verdict round."""
    with pytest.raises(InputError, match="good, ok all sound like good parts"):
        choose_ok({"ok": 1, "good": 2, "crack": 3}, None)


def test_classes_of_few_parts_are_pointed_out(images: Path, tmp_path: Path) -> None:
    """Two parts of a class cannot be learned, chosen by and measured."""
    for i in range(2):
        cv2.imwrite(str(images / "good" / "x.png"), np.zeros((24, 40), np.uint8))
        put(images / "dent" / f"{i}.png", 60 * i)
    result = import_folder(images, tmp_path / "data")
    assert any("class 'dent' is in 2 group(s) only and is missing from val" in w for w in result.warnings)


def test_a_split_without_defects_is_pointed_out(images: Path, tmp_path: Path) -> None:
    """All scratches on one part: nothing is left to measure escapes with."""
    groups_csv(images, [(f"scratch/scratch-{i:04d}.png", "one") for i in range(12)])
    warnings = import_folder(images, tmp_path / "data").warnings
    assert any(w.startswith("no defect is in test") for w in warnings)


def test_too_few_parts_for_three_splits_are_refused(images: Path, tmp_path: Path) -> None:
    """A part is never cut."""
    rows = [(str(p.relative_to(images)), p.parent.name) for p in images.glob("*/*.png")]
    groups_csv(images, rows)
    with pytest.raises(InputError, match=r"2 group\(s\) cannot fill 3 splits"):
        import_folder(images, tmp_path / "data")
