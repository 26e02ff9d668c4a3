"""Distillation end to end on small generated parts: repeatable, resumable, and what the two networks are shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from calibration.scores import Scores
from tests.support.folders import FolderSpec, write_folder
from trainer import distill as distilling
from trainer.checkpoint import Progressed
from trainer.cli import main
from trainer.copies import MIXED, draw_copies
from trainer.data.importers import Options, import_folder
from trainer.data.loader import load_split
from trainer.data.manifest import Dataset
from trainer.distill import ALONE, Lesson, Teaching, learn, prepare
from trainer.export import export_run
from trainer.features import predict
from trainer.recipes import FROZEN
from trainer.run import RunSettings, read_settings
from trainer.student import student_recipe, student_settings, student_size
from trainer.teacher import Teacher, answers, open_teacher
from trainer.train import train

SMALLEST = "mobilenet-v3-small"


@dataclass(frozen=True)
class Taught:
    """A dataset, its teacher's run, and a student's with its comparison."""

    dataset: Dataset
    data: Path
    teacher: Path
    student: Path
    said: dict[str, Any]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Two classes of 64x96 grey parts, a flip-averaging teacher at native size, a student by the command."""
    root = tmp_path_factory.mktemp("distill")
    write_folder(root / "images", FolderSpec(64, 96, (40, 24)))
    dataset = import_folder(root / "images", root / "data", licence="none").dataset
    train(dataset, root / "teacher", replace(FROZEN, flip_average="horizontal"), seed=1, size=(64, 96))
    said = call(root, "--backbone", SMALLEST, "--epochs", 2, "--size", "48x64", "--seed", 5, "--json")
    return Taught(dataset, root / "data", root / "teacher", root / "student", json.loads(said))


def call(root: Path, *words: object) -> str:
    """Standard output of `trainer distill` on root/teacher and root/data; it must succeed."""
    command = ["distill", root / "teacher", root / "data", "--out", root / "student", *words]
    result = CliRunner().invoke(main, [str(word) for word in command], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusal(*words: object) -> str:
    """What `trainer distill` says when it refuses its input with exit code 2."""
    result = CliRunner().invoke(main, ["distill", *(str(word) for word in words)], catch_exceptions=False)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    return result.stderr


def files(run: Path) -> dict[str, bytes]:
    """What must be the same whenever the same training is done again."""
    names = ("model.safetensors", "scores.val.csv", "scores.test.csv", "log.jsonl")
    return {name: (run / name).read_bytes() for name in names}


def test_the_comparison_holds_teacher_student_and_student_alone(taught: Taught) -> None:
    """distill.json and the printed JSON are one, and its figures are those of the recorded scores."""
    assert json.loads((taught.student / "distill.json").read_text()) == taught.said
    for name, run in (("teacher", taught.teacher), ("taught", taught.student), ("alone", taught.student / ALONE)):
        scores = Scores.read(run / "scores.test.csv")
        right = float((scores.logits.argmax(1) == scores.labels).mean())
        assert taught.said[name]["figures"]["accuracy"] == pytest.approx(right)
    accuracy = {name: taught.said[name]["figures"]["accuracy"] for name in ("teacher", "taught", "alone")}
    assert taught.said["below_teacher"]["value"] == pytest.approx(accuracy["teacher"] - accuracy["taught"])
    assert taught.said["above_alone"]["value"] == pytest.approx(accuracy["taught"] - accuracy["alone"])
    assert taught.said["speedup"] > 2


def test_a_student_is_a_run_like_any_other(taught: Taught, tmp_path: Path) -> None:
    """`trainer export` takes the student's folder as it is, with all of its convolutions in INT8."""
    run = tmp_path / "student"
    shutil.copytree(taught.student, run)
    exported = export_run(run, max_paired_escapes=100)
    assert exported.convolutions["cpu"] == 34
    assert read_settings(run).spec.shape == (1, 48, 64)


def lesson_of(taught: Taught) -> tuple[Lesson, RunSettings, Teaching, Teacher]:
    """The lesson that the command gave, with the answers that the student's folder holds."""
    teacher = open_teacher(taught.teacher, taught.dataset)
    settings = student_settings(taught.dataset, teacher, student_recipe(SMALLEST, teacher, 2), 5, (48, 64))
    teaching = Teaching(str(taught.teacher), teacher.sha256, 4.0, 0.7, 4)
    lesson = prepare(taught.dataset, teacher, settings, teaching, taught.student, lambda *_: None)
    return lesson, settings, teaching, teacher


def test_teaching_again_gives_the_same_bits(taught: Taught, tmp_path: Path) -> None:
    """One seed, one student, whose teacher is asked once; and the two students of a run differ."""
    known = taught.student / "checkpoint" / "teacher.safetensors"
    asked = known.stat().st_mtime_ns
    lesson, settings, teaching, teacher = lesson_of(taught)
    learn(lesson, settings, tmp_path / "again", teaching, teacher)
    assert files(tmp_path / "again") == files(taught.student)
    assert files(taught.student) != files(taught.student / ALONE)
    assert known.stat().st_mtime_ns == asked


def test_an_interrupted_teaching_goes_on_where_it_was(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its first epoch and started again, it ends as if never stopped."""
    kept = distilling.study

    def stopped(*words: Any) -> Iterator[Progressed]:
        yield next(kept(*words))
        raise KeyboardInterrupt

    lesson, settings, teaching, teacher = lesson_of(taught)
    for folder, how, expected in (("taught", teaching, taught.student), ("alone", None, taught.student / ALONE)):
        monkeypatch.setattr(distilling, "study", stopped)
        with pytest.raises(KeyboardInterrupt):
            learn(lesson, settings, tmp_path / folder, how, teacher)
        assert not (tmp_path / folder / "model.safetensors").exists()
        monkeypatch.setattr(distilling, "study", kept)
        learn(lesson, settings, tmp_path / folder, how, teacher)
        assert files(tmp_path / folder) == files(expected)


def test_a_students_folder_is_not_mixed_with_another_teaching(taught: Taught) -> None:
    """Another temperature, or none, into the same folder is refused, and the run there is untouched."""
    before = files(taught.student)
    lesson, settings, teaching, teacher = lesson_of(taught)
    for other in (replace(teaching, temperature=2.0), None):
        with pytest.raises(InputError, match="another folder"):
            learn(lesson, settings, taught.student, other, teacher)
    assert files(taught.student) == before


def test_the_teacher_answers_what_it_would_answer_on_a_device(taught: Taught) -> None:
    """On the unaltered copy its answers are the run's own logits, with its mirrored views averaged."""
    lesson, _, _, teacher = lesson_of(taught)
    frames = load_split(taught.dataset, teacher.settings.spec, "train").images
    np.testing.assert_allclose(lesson.answers[0].numpy(), predict(teacher.model, frames), atol=1e-3)
    assert float((lesson.answers[1] - lesson.answers[0]).abs().max()) > 0.01


def test_the_students_view_is_one_to_which_the_answer_belongs(taught: Taught) -> None:
    """The teacher's answer to a mirrored copy is its answer to the copy: it averages over these very views."""
    lesson, _, _, teacher = lesson_of(taught)
    assert lesson.views == ((), (3,))
    shown = load_split(taught.dataset, teacher.settings.spec, "train").images
    pictures = lesson.copies.render(shown, np.arange(8), np.full(8, 1))
    with torch.no_grad():
        mirrored = teacher.model(pictures.flip(3))
    torch.testing.assert_close(mirrored, lesson.answers[1, :8], atol=1e-3, rtol=0)


def test_a_student_of_the_teachers_kind_starts_from_its_weights(taught: Taught, tmp_path: Path) -> None:
    """Without an epoch it is the teacher at another size; alone it starts from ImageNet with a fitted head."""
    lesson, settings, teaching, teacher = lesson_of(taught)
    recipe = student_recipe("efficientnet-lite0", teacher, 0)
    settings = student_settings(taught.dataset, teacher, recipe, 5, (48, 64))
    learn(lesson, settings, tmp_path / "taught", teaching, teacher)
    learn(lesson, settings, tmp_path / "alone", None, teacher)
    taught_model, alone = (open_teacher(tmp_path / name, taught.dataset).model for name in ("taught", "alone"))
    assert torch.equal(taught_model.linear.weight, teacher.model.linear.weight)
    assert not torch.equal(alone.linear.weight, teacher.model.linear.weight)
    assert bool((alone.linear.weight != 0).any())


def test_copies_are_the_same_picture_at_every_size() -> None:
    """Drawn in units of the frame: a copy at half the size is the copy, made half the size."""
    y, x = np.mgrid[0:64, 0:96]
    smooth = (127 + 60 * np.sin(x / 12) * np.cos(y / 9)).astype(np.uint8)
    large = np.stack([smooth, 255 - smooth, smooth.T.copy().reshape(64, 96)])[:, None]
    half = large.reshape(3, 1, 32, 2, 48, 2).mean((3, 5)).astype(np.uint8)
    copies = draw_copies(3, 5, "both", 3)
    rows, which = np.array([0, 1, 0, 1]), np.array([1, 2, 3, 4])
    big = copies.render(large, rows, which).float().reshape(4, 1, 32, 2, 48, 2).mean((3, 5))
    small = copies.render(half, rows, which).float()
    inner = (big - small)[..., 3:-3, 3:-3].abs()
    assert float(inner.mean()) < 2.5
    assert float((small - torch.from_numpy(half[rows]).float()).abs().mean()) > 5


def test_copy_nought_is_the_frame_itself() -> None:
    """Pixel for pixel, with its own target."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 17, 23), dtype=np.uint8)
    copies = draw_copies(4, 3, "both", 1)
    rows, nought = np.arange(4), np.zeros(4, np.int64)
    assert np.array_equal(copies.render(frames, rows, nought).numpy(), frames)
    targets = np.eye(4, dtype=np.float32)
    assert np.array_equal(copies.targets(targets, rows, nought).numpy(), targets)


def test_blended_copies_have_blended_targets() -> None:
    """A copy that shows another frame by a share has that share of its target; targets still sum to one."""
    copies = draw_copies(6, 4, "none", 2)
    rows, which = np.arange(6), np.full(6, 3)
    got = copies.targets(np.eye(6, dtype=np.float32), rows, which).numpy()
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    own = got[rows, rows]
    others = copies.partner[3] != rows
    np.testing.assert_allclose(own[others], 1 - copies.share[3][others], atol=1e-6)
    assert copies.share[1:].max() > 0.1
    assert copies.share.max() <= MIXED


def test_a_student_sees_half_of_its_teachers_frame() -> None:
    """But no short side below 96 pixels for it, and never more than the teacher."""
    spec = PreprocessSpec(300, 300, 1, (300, 300), (300, 300))
    assert student_size(spec) == (150, 150)
    assert student_size(replace(spec, height=128, width=640)) == (96, 480)
    assert student_size(replace(spec, height=64, width=96)) == (64, 96)


def test_padded_frames_need_an_input_of_the_teachers_proportion(taught: Taught) -> None:
    """Else a copy would lie at another place in the student's input."""
    teacher = open_teacher(taught.teacher, taught.dataset)
    padded = replace(teacher, settings=replace(teacher.settings, spec=replace(teacher.settings.spec, fit="pad")))
    dataset = replace(taught.dataset, frame_aspects=(1.0, 1.5))
    with pytest.raises(InputError, match="aspect ratio"):
        student_settings(dataset, padded, student_recipe(SMALLEST, teacher), 0, (64, 64))


def test_a_teacher_of_other_images_is_refused(taught: Taught) -> None:
    """It could have seen the test parts: exit code 2, and nothing is written."""
    root = taught.data.parent
    import_folder(root / "images", root / "other", Options(seed=9), licence="none")
    said = refusal(taught.teacher, root / "other", "--out", root / "no")
    assert "another dataset" in said
    assert not (root / "no").exists()


def test_the_teachers_own_folder_is_refused(taught: Taught) -> None:
    """Even with --force the teacher is not deleted for its student."""
    said = refusal(taught.teacher, taught.data, "--out", taught.teacher, "--force")
    assert "teacher itself" in said
    assert (taught.teacher / "model.safetensors").exists()


def test_a_student_backbone_that_does_not_exist_is_refused(taught: Taught, tmp_path: Path) -> None:
    """With the names there are."""
    said = refusal(taught.teacher, taught.data, "--out", tmp_path / "x", "--backbone", "mobilenet")
    assert "mobilenet-v3-small" in said


def test_damaged_answers_of_the_teacher_are_an_error(taught: Taught, tmp_path: Path) -> None:
    """The file is named, with the remedy."""
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"not tensors")
    teacher = open_teacher(taught.teacher, taught.dataset)
    with pytest.raises(InputError, match="delete it"):
        answers(teacher, np.zeros((1, 1, 64, 96), np.uint8), draw_copies(1, 1, "none", 0), path, "", lambda *_: None)


def test_a_teacher_that_does_not_answer_teaches_nothing(taught: Taught, tmp_path: Path) -> None:
    """Logits that are not finite are refused before a student learns from them."""
    teacher = open_teacher(taught.teacher, taught.dataset)
    with torch.no_grad():
        teacher.model.linear.bias.fill_(torch.nan)
    frames, path = np.zeros((1, 1, 64, 96), np.uint8), tmp_path / "teacher.safetensors"
    with pytest.raises(InputError, match="not finite"):
        answers(teacher, frames, draw_copies(1, 1, "none", 0), path, "", lambda *_: None)
    assert not path.exists()
