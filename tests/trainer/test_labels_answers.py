"""Answers in and out: CSV and Label Studio's JSON, and every way they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InputError
from trainer.labels.answers import Answer, collect, read_answers_csv, read_gold_csv, write_answers_csv
from trainer.labels.label_studio import Task, read_export, write_answers, write_tasks

NAMES = st.text("abcäß 7_-./;,\"'", min_size=1, max_size=8).map(str.strip).filter(bool)
CLASSES = st.sampled_from(["good", "fine scratch", "Loch"])


def annotation(*choices: str, by: object = 7, **more: object) -> dict[str, Any]:
    """One annotation as Label Studio 1.x exports it."""
    result = {
        "id": "x1",
        "type": "choices",
        "value": {"choices": list(choices)},
        "origin": "manual",
        "to_name": "image",
        "from_name": "label",
    }
    head = {"id": 11, "completed_by": by, "was_cancelled": False, "ground_truth": False, "lead_time": 3.2}
    return {**head, "result": [result] if choices else [], **more}


def task(number: int, image: str, *annotations: dict[str, Any], **data: str) -> dict[str, Any]:
    """One task of an export."""
    return {
        "id": number,
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [],
        "data": {"image": image, **data},
        "meta": {},
        "project": 3,
    }


def export(path: Path, *tasks: object) -> Path:
    """An export file."""
    path.write_text(json.dumps(list(tasks)), encoding="utf-8")
    return path


@given(st.lists(st.builds(Answer, NAMES, NAMES, CLASSES), min_size=1, max_size=12))
def test_csv_and_json_give_the_same_answers_back(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Answer]
) -> None:
    """Whatever the names: spaces, quotes, separators, other alphabets."""
    folder = tmp_path_factory.mktemp("answers")
    write_answers_csv(folder / "a.csv", answers)
    assert read_answers_csv(folder / "a.csv") == answers
    write_answers(folder / "a.json", answers)
    assert list(read_export(folder / "a.json").answers) == sorted(answers, key=lambda answer: answer.item)


def test_answers_are_numbered_by_name() -> None:
    """Items, annotators and classes in order of their names; the rows are what Dawid-Skene takes."""
    found = collect(Path("a.csv"), [Answer("b", "y", "good"), Answer("a", "x", "bad"), Answer("b", "x", "good")])
    assert (found.items, found.annotators, found.classes) == (("a", "b"), ("x", "y"), ("bad", "good"))
    assert found.rows.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert found.alone() == ()
    assert collect(Path("a.csv"), [Answer("b", "y", "good"), Answer("a", "x", "bad")]).alone() == ("x", "y")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "the file is empty"),
        ("item,label\na,b\n", "column 'annotator' is missing"),
        ("item,annotator,label,when\n", "unknown column 'when'"),
        ("item,annotator,label\na,b\n", "line 2: 2 fields"),
        ("item,annotator,label\na,,good\n", "line 2, annotator"),
        ("item,annotator,label\na,b,\n", "line 2, label"),
        ("item,annotator,label\na,b\x1b,good\n", "line 2, annotator"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, text: str, word: str) -> None:
    """File, line, column and remedy."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=word) as error:
        collect(path, read_answers_csv(path))
    assert str(path) in str(error.value)


def test_unreadable_tables_are_named(tmp_path: Path) -> None:
    """Missing, and no text."""
    with pytest.raises(InputError, match="give a CSV"):
        read_answers_csv(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not such a table"):
        read_gold_csv(tmp_path / "a.csv")


def test_labels_outside_the_classes_gold_in_two_and_nothing_at_all_are_refused() -> None:
    """Each with its place."""
    path, answer = Path("a.csv"), Answer("a", "x", "good", "a.csv, line 2")
    with pytest.raises(InputError, match="no answers"):
        collect(path, [])
    with pytest.raises(InputError, match="line 2: the label 'good' is none of the classes"):
        collect(path, [answer], ["ok", "bad"])
    with pytest.raises(InputError, match="every answer is 'good'"):
        collect(path, [answer])
    two = [Answer("a", "", "good", "g.csv, line 2"), Answer("a", "", "bad", "g.csv, line 3")]
    with pytest.raises(InputError, match=r"g.csv, line 3: 'a' has two gold labels"):
        collect(path, [answer], ["good", "bad"], two)


def test_an_export_of_several_annotators_is_read(tmp_path: Path) -> None:
    """By number or e-mail; skipped and empty annotations are counted; ground truth is gold; drafts take no part."""
    path = export(
        tmp_path / "e.json",
        task(
            1,
            "/data/local-files/?d=tiles/a%20b.png",
            annotation("good"),
            annotation("bad", by={"id": 2, "email": "m@x"}),
        ),
        task(2, "/data/upload/3/1f2e-c.png", annotation(), annotation("bad", was_cancelled=True), annotation("good")),
        task(3, "s3://bucket/d.png", annotation("bad", by=9, ground_truth=True), path="d.png"),
    )
    found = read_export(path)
    assert [(a.item, a.annotator, a.label) for a in found.answers] == [
        ("tiles/a b.png", "7", "good"),
        ("tiles/a b.png", "m@x", "bad"),
        ("/data/upload/3/1f2e-c.png", "7", "good"),
        ("d.png", "9", "bad"),
    ]
    assert [a.item for a in found.gold] == ["d.png"]
    assert found.passed_over == 2


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (task(5, "a.png", annotation("good", "bad")), "task 5: one annotation chooses"),
        (task(5, "a.png", annotation("good", by=None)), "task 5, completed_by"),
        (task(5, "", annotation("good")), "task 5, data: has neither path nor image"),
        (task(5, "a.png", {**annotation("good"), "result": "good"}), "task 5, result"),
        (task(5, "a.png", {**annotation(), "result": [{"type": "choices", "value": {"choices": "good"}}]}), "no list"),
        ({"id": 5, "image": "a.png", "label": "good"}, "JSON-MIN"),
        ("good", "not a list of tasks"),
    ],
)
def test_a_task_that_is_no_classification_is_named(tmp_path: Path, entry: object, word: str) -> None:
    """File, task and remedy."""
    with pytest.raises(InputError, match=word) as error:
        read_export(export(tmp_path / "e.json", entry))
    assert "e.json" in str(error.value)


def test_an_unknown_choice_names_task_file_and_remedy(tmp_path: Path) -> None:
    """It is never taken for a new class where the classes are given."""
    path = export(tmp_path / "e.json", task(41, "a.png", annotation("scrath")))
    with pytest.raises(InputError, match=r"e.json, task 41: the label 'scrath' is none of .* correct it, or add it"):
        collect(path, read_export(path).answers, ["good", "scratch"])


def test_two_tasks_for_one_image_and_no_json_are_refused(tmp_path: Path) -> None:
    """One person's two opinions would count as two."""
    with pytest.raises(InputError, match=r"task 2: shows 'a.png', as task 1 does"):
        read_export(export(tmp_path / "e.json", task(1, "a.png", annotation("x")), task(2, "a.png", annotation("x"))))
    (tmp_path / "f.json").write_text("item,annotator")
    with pytest.raises(InputError, match="not JSON"):
        read_export(tmp_path / "f.json")


def test_tasks_to_label_carry_path_image_and_suggestion(tmp_path: Path) -> None:
    """As Label Studio's import takes them; the image's address is quoted, the path is not."""
    write_tasks(tmp_path / "t.json", [Task("b ad/1.png", ("crack", 0.75), {"given": "good"}), Task("c.png")])
    first, second = json.loads((tmp_path / "t.json").read_text())
    assert first["data"] == {"image": "/data/local-files/?d=b%20ad/1.png", "path": "b ad/1.png", "given": "good"}
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("lineguard", 0.75)
    (result,) = prediction["result"]
    assert (result["type"], result["from_name"], result["to_name"]) == ("choices", "label", "image")
    assert result["value"] == {"choices": ["crack"]}
    assert "predictions" not in second
    write_tasks(tmp_path / "t.json", [Task("c d.png")], "https://images.example/")
    assert json.loads((tmp_path / "t.json").read_text())[0]["data"]["image"] == "https://images.example/c d.png"
