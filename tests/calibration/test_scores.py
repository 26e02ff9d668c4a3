"""Scores files: exact round trips, and errors that name file, line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from calibration.metrics import softmax
from calibration.scores import Scores

GOOD = "path,group,label,logit:ok*,logit:bad\na.png,g1,ok,1.5,-2\nb.png,g2,bad,0,3\n"


def example() -> Scores:
    """Two rows."""
    return Scores(("ok", "bad"), "ok", ("a", "b"), ("g", "h"), np.array([0, 1]), np.float32([[1, 2], [3, 4]]))


def same(left: Scores, right: Scores) -> bool:
    """Equal in every field, logits bit by bit."""
    plain = ("classes", "ok_class", "paths", "groups")
    return (
        all(getattr(left, name) == getattr(right, name) for name in plain)
        and np.array_equal(left.labels, right.labels)
        and left.logits.tobytes() == right.logits.tobytes()
    )


# no surrogates (not text) and no NUL (no CSV); a class name may hold anything but the mark at its end
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 6),
    classes=st.lists(text.filter(lambda s: not s.endswith("*")), min_size=2, max_size=4, unique=True),
)
def test_what_was_written_is_read_back(
    data: st.DataObject, n: int, classes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names with commas, quotes, line breaks; every float32 bit by bit."""
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    logits = data.draw(st.lists(st.lists(floats, min_size=len(classes), max_size=len(classes)), min_size=n, max_size=n))
    scores = Scores(
        tuple(classes),
        data.draw(st.sampled_from(classes)),
        tuple(data.draw(st.lists(text, min_size=n, max_size=n))),
        tuple(data.draw(st.lists(text, min_size=n, max_size=n))),
        np.array(data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n))),
        np.array(logits, np.float32),
    )
    path = tmp_path_factory.getbasetemp() / "round" / "scores.csv"
    scores.write(path)
    assert same(Scores.read(path), scores)


def test_what_is_derived() -> None:
    """Which rows are defects."""
    assert example().ok_index == 0
    assert example().is_defect.tolist() == [False, True]


def test_the_ok_class_can_be_named_instead_of_marked(tmp_path: Path) -> None:
    """And the name wins over the mark."""
    path = tmp_path / "s.csv"
    path.write_text(GOOD)
    assert Scores.read(path).ok_class == "ok"
    assert Scores.read(path, "bad").ok_class == "bad"
    path.write_text(GOOD.replace("*", ""))
    assert Scores.read(path, "bad").ok_class == "bad"


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    """Editors leave them at the end."""
    path = tmp_path / "s.csv"
    path.write_text(GOOD + "\n\n")
    assert len(Scores.read(path).paths) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no scores in it"),
        ("path,group,label,logit:ok*,logit:bad\n", "no scores in it"),
        (GOOD.replace("-2", "nan"), "s.csv, line 2, column logit:bad: the value is nan; scores must be finite"),
        (GOOD.replace(",3", ",inf"), "s.csv, line 3, column logit:bad: the value is inf"),
        (GOOD.replace(",3", ",1e39"), "line 3, column logit:bad: the value is 1e39"),
        (GOOD.replace("1.5", "1,5"), "line 2: 6 fields; expected 5"),
        (GOOD.replace("1.5", ""), "line 2, column logit:ok: '' is not a number"),
        (GOOD.replace("1.5", "high"), "'high' is not a number"),
        (GOOD.replace("g2,bad", "g2,dent"), "line 3, column label: 'dent' is none of the classes ['ok', 'bad']"),
        (GOOD.replace("a.png", '"two\nlines"').replace(",3", ",nan"), "line 4, column logit:bad"),
        (GOOD.replace("*", ""), "name it with --ok CLASS"),
        (GOOD.replace("bad\n", "bad*\n", 1), "name it with --ok CLASS"),
        (GOOD.replace("logit:bad", "score"), "unknown column 'score'"),
        (GOOD.replace("logit:bad", "logit:ok"), "at least two different ones"),
        ("path,group,label,logit:ok*\na,b,ok,1\n", "at least two different ones"),
        (GOOD.replace("group,", ""), "expected path,group,label"),
        ("x" * 200_000, "not a scores CSV"),
    ],
)
def test_what_is_no_scores_file_is_told_by_place(tmp_path: Path, content: str, told: str) -> None:
    """File, line, column, and what to do."""
    path = tmp_path / "s.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Scores.read(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


GIVEN = "path,group,label,probability:ok*,probability:bad\na.png,g1,ok,0.9,0.1\nb.png,g2,bad,1,0\n"


def test_probabilities_are_read_as_their_logarithms(tmp_path: Path) -> None:
    """The softmax gives them back; none is exactly zero, or a temperature could not be fitted."""
    path = tmp_path / "s.csv"
    path.write_text(GIVEN)
    scores = Scores.read(path)
    assert (scores.classes, scores.ok_class) == (("ok", "bad"), "ok")
    np.testing.assert_allclose(softmax(scores.logits), [[0.9, 0.1], [1, 1e-12]], rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GIVEN.replace("0.9", "0.8"), "s.csv, line 2: the probabilities sum to 0.9, not to one"),
        (GIVEN.replace("0.9,0.1", "2,-1"), "line 2, column probability:ok: 2 is no probability; expected 0 to 1"),
        (GIVEN.replace("0.9,0.1", "-0.5,1.5"), "line 2, column probability:ok: -0.5 is no probability"),
        (GIVEN.replace("1,0", "1,nan"), "line 3, column probability:bad: the value is nan"),
        (GIVEN.replace("probability:bad", "logit:bad"), "unknown column 'logit:bad'; expected probability:CLASS"),
        (GIVEN.replace("probability:ok*", "logit:ok*"), "unknown column 'probability:bad'; expected logit:CLASS"),
    ],
)
def test_what_are_no_probabilities_is_told_by_place(tmp_path: Path, content: str, told: str) -> None:
    """File, line, column."""
    path = tmp_path / "s.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Scores.read(path)
    assert told in str(caught.value)


def test_an_unknown_ok_class_is_a_clear_error(tmp_path: Path) -> None:
    """It says which there are."""
    path = tmp_path / "s.csv"
    path.write_text(GOOD)
    with pytest.raises(InputError, match=r"the OK class 'fine' is none of \['ok', 'bad'\]"):
        Scores.read(path, "fine")


def test_files_that_cannot_be_read_are_clear_errors(tmp_path: Path) -> None:
    """Missing, a directory, no text."""
    with pytest.raises(InputError, match="No such file"):
        Scores.read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="Is a directory"):
        Scores.read(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a scores CSV"):
        Scores.read(tmp_path / "binary.csv")


def test_a_class_name_that_looks_marked_is_refused(tmp_path: Path) -> None:
    """It could not be read back."""
    scores = Scores(("ok", "bad*"), "ok", ("a",), ("g",), np.array([0]), np.float32([[1, 2]]))
    with pytest.raises(ValueError, match="mark of the OK class"):
        scores.write(tmp_path / "s.csv")
