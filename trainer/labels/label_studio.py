"""Label Studio's task JSON for image classification (https://labelstud.io/guide/task_format).

A project for such tasks has one `Choices` control over one `Image`:

    <View><Image name="image" value="$image"/><Choices name="label" toName="image">...</Choices></View>
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from calibration.errors import InputError
from trainer.data.names import class_name, is_safe
from trainer.labels.answers import Answer

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio names an image of a local storage: this, then its path below the storage's root."""

FROM_NAME, TO_NAME = "label", "image"


@dataclass(frozen=True)
class Export:
    """What an export holds: answers in its order, which of them are gold (marked as ground truth), and how many
    annotations were passed over because the annotator skipped the task or chose nothing."""

    answers: tuple[Answer, ...]
    gold: tuple[Answer, ...]
    passed_over: int


@dataclass(frozen=True)
class Task:
    """An image to label. `suggestion`: a class with its probability that the annotator is shown, if any."""

    path: str
    suggestion: tuple[str, float] | None = None
    notes: Mapping[str, str] | None = None


def read_export(path: Path) -> Export:
    """Read a project exported as "JSON".

    An item is named by its task's data.path where there is one (`write_tasks` puts it there), else by the image's path
    or URL. An annotator is named by e-mail address, or else by number.

    Raises:
        InputError: no such export, or a task that is not a classification of one image, with file, task and remedy.
    """
    answers: list[Answer] = []
    gold: list[Answer] = []
    passed_over = 0
    seen: dict[str, Any] = {}
    for number, task in enumerate(_tasks(path), start=1):
        where = f"{path}, task {task.get('id', f'number {number}')}"
        item = _item(task, where)
        if item in seen:
            raise InputError(f"{where}: shows {item!r}, as task {seen[item]} does; delete one of the two")
        seen[item] = task.get("id", f"number {number}")
        for annotation in _list(task, "annotations", where):
            choices = _choices(annotation, where)
            if annotation.get("was_cancelled") or not choices:
                passed_over += 1
                continue
            if len(choices) > 1:
                raise InputError(f"{where}: one annotation chooses {choices}; a part has one class: correct it there")
            answer = Answer(item, _annotator(annotation, where), class_name(choices[0], f"{where}, choice"), where)
            answers.append(answer)
            if annotation.get("ground_truth"):
                gold.append(answer)
    return Export(tuple(answers), tuple(gold), passed_over)


def write_tasks(path: Path, tasks: Iterable[Task], prefix: str = LOCAL_FILES) -> None:
    """Write tasks to import into a project; what is suggested becomes a prediction of the model "lineguard".

    Args:
        prefix: put before each image's path: where Label Studio finds the images.
    """
    written = []
    for task in tasks:
        entry: dict[str, Any] = {"data": {**_data(task.path, prefix), **(task.notes or {})}}
        if task.suggestion is not None:
            label, probability = task.suggestion
            entry["predictions"] = [{"model_version": "lineguard", "score": probability, "result": [_result(label)]}]
        written.append(entry)
    _write(path, written)


def write_answers(path: Path, answers: Sequence[Answer], prefix: str = LOCAL_FILES) -> None:
    """Write answers as annotated tasks; `read_export` gives equal answers back, sorted by item.

    Label Studio takes an annotation only from a user it knows: by number, or by e-mail address.
    """
    by_item: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        who: Any = int(answer.annotator) if _is_number(answer.annotator) else {"email": answer.annotator}
        annotation = {"completed_by": who, "was_cancelled": False, "ground_truth": False}
        by_item.setdefault(answer.item, []).append({**annotation, "result": [_result(answer.label)]})
    tasks = [
        {"id": number, "data": _data(item, prefix), "annotations": annotations}
        for number, (item, annotations) in enumerate(sorted(by_item.items()), start=1)
    ]
    _write(path, tasks)


def _write(path: Path, tasks: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text


def _data(item: str, prefix: str) -> dict[str, str]:
    return {"image": prefix + (quote(item) if "?" in prefix else item), "path": item}


def _result(label: str) -> dict[str, Any]:
    return {"from_name": FROM_NAME, "to_name": TO_NAME, "type": "choices", "value": {"choices": [label]}}


def _tasks(path: Path) -> list[dict[str, Any]]:
    wanted = 'export the project as "JSON"'
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; {wanted}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON in UTF-8 ({error}); {wanted}") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{path}: not a list of tasks; {wanted}")
    for number, task in enumerate(tasks, start=1):
        if "annotations" not in task or not isinstance(task.get("data"), dict):
            place = f"task {task.get('id', f'number {number}')}"
            raise InputError(f'{path}, {place}: has no data and annotations; {wanted}, not as "JSON-MIN"')
    return tasks


def _list(holder: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = holder.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{where}, {key}: not a list of objects; export the project again")
    return value


def _item(task: dict[str, Any], where: str) -> str:
    data = task["data"]
    name = data.get("path", data.get("image"))
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}, data: has neither path nor image; name the image's field `image` in the project")
    if "path" not in data:
        parts = urlsplit(name)
        name = parse_qs(parts.query)["d"][0] if parts.path.endswith("/local-files/") and "d=" in parts.query else name
        name = unquote(name) if name.startswith("/data/") else name
    if not is_safe(name):
        raise InputError(f"{where}, data: the image's name {name!r} holds control characters; rename it")
    return name.strip()


def _choices(annotation: dict[str, Any], where: str) -> list[str]:
    """The classes chosen in one annotation."""
    found: list[str] = []
    for result in _list(annotation, "result", where):
        if result.get("type") != "choices":
            continue
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise InputError(f"{where}, result: its choices are no list of names; export the project again")
        found += choices
    return found


def _annotator(annotation: dict[str, Any], where: str) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    name = str(by).strip() if isinstance(by, (int, str)) and not isinstance(by, bool) else ""
    if not name or not is_safe(name):
        raise InputError(f"{where}, completed_by: nobody is named; export the project with its annotators")
    return name
