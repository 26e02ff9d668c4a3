"""Distillation: a finished run teaches a smaller network (Hinton et al. 2015), and the same network learns alone.

Both students see the same altered copies of the training frames for as many epochs; the one has the teacher's answer to
every copy beside the labels, the other the labels alone. What the teacher is worth is the difference of the two.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from trainer.checkpoint import Progressed, State
from trainer.copies import Copies, draw_copies
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset
from trainer.data.sampling import draw_batches
from trainer.distill_report import Comparison, compare_runs
from trainer.features import Progress, keep_freed_memory, predict, silent
from trainer.fine_tune import LEAST_STEPS, Fold, set_rate, start
from trainer.head import validation_score
from trainer.losses import distillation_loss
from trainer.models import mobilenet_v3
from trainer.models.classifier import Classifier, save_run_model
from trainer.models.committee import views_of
from trainer.run import CHECKPOINT, LOG, MODEL, SETTINGS, RunSettings, read_settings, scores_of, write_json
from trainer.student import begin, student_recipe, student_settings
from trainer.teacher import Teacher, answers, open_teacher

ALONE = "alone"
"""Folder inside the student's run: the run of the same student without its teacher."""

PASSES = 8
"""Passes of the teacher's network for one frame: with flip averaging, a copy takes two or four of them."""


@dataclass(frozen=True)
class Teaching:
    """How a student is taught.

    Attributes:
        teacher: the run that teaches. teacher_sha256: of its weights.
        temperature: > 0, of both softmaxes. alpha: 0 < alpha <= 1, the teacher's share of the loss.
        copies: altered copies of each frame that the teacher was asked about, the frame itself among them.
    """

    teacher: str
    teacher_sha256: str
    temperature: float
    alpha: float
    copies: int

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature: {self.temperature} is not above 0; 2 to 8 are usual")
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha: {self.alpha} is outside 0 < alpha <= 1; at 0 there would be no teacher")


@dataclass(frozen=True)
class Lesson:
    """What the students learn from.

    Attributes:
        splits: "train", "val" and "test", at the student's input size.
        copies: of the training frames. views: further mirrored views of each copy, to which the teacher gives the same
            answer, since it averages over them.
        answers: float32 (copies, n, classes), the teacher's logits.
    """

    splits: dict[str, LoadedSplit]
    copies: Copies
    views: tuple[tuple[int, ...], ...]
    answers: Tensor


@dataclass(frozen=True)
class Wish:
    """What a user may say of a distillation.

    Attributes:
        backbone: of the student. epochs: None for as many as its recipe has. seed: of everything random.
        size: (height, width) of its input, None for half its teacher's.
        temperature, alpha: see Teaching.
        alone: whether the same student is trained without its teacher too.
    """

    backbone: str = "efficientnet-lite0"
    temperature: float = 4.0
    alpha: float = 0.7
    epochs: int | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    alone: bool = True


def distill(dataset: Dataset, teacher_run: Path, run: Path, wish: Wish, progress: Progress = silent) -> Comparison:
    """Train a student into ``run``, and without its teacher into ``run``/alone; compare all three on the test split.

    Both folders are as `trainer train` leaves them; distill.json has the comparison. Started again after a kill it
    goes on from the last whole epoch.

    Args:
        teacher_run: a finished run on this dataset.
        progress: called with (what is being done, how many are done, of how many).

    Raises:
        InputError: there is no such teacher, a wish is out of range, or the run folder holds another training.
    """
    keep_freed_memory()
    teacher = open_teacher(teacher_run, dataset)
    recipe = student_recipe(wish.backbone, teacher, wish.epochs)
    settings = student_settings(dataset, teacher, recipe, wish.seed, wish.size)
    copies = PASSES // len(views_of(teacher.settings.model))
    teaching = Teaching(str(teacher_run), teacher.sha256, wish.temperature, wish.alpha, copies)
    claim(run, settings, teaching)
    lesson = prepare(dataset, teacher, settings, teaching, run, progress)
    learn(lesson, settings, run, teaching, teacher, progress)
    if wish.alone:
        learn(lesson, settings, run / ALONE, None, teacher, progress)
    return compare_runs(teacher, run, run / ALONE if wish.alone else None, progress)


def prepare(
    dataset: Dataset, teacher: Teacher, settings: RunSettings, teaching: Teaching, run: Path, progress: Progress
) -> Lesson:
    """Load the frames, draw the copies, and ask the teacher about each of them, once for all epochs."""
    splits = {name: _load(dataset, settings.spec, name, progress) for name in ("train", "val", "test")}
    shown = _load(dataset, teacher.settings.spec, "train", progress).images
    copies = draw_copies(len(shown), teaching.copies, settings.recipe.flips, settings.seed)
    decides = [teaching.teacher_sha256, teaching.copies, settings.recipe.flips, settings.seed, dataset.sha256]
    known = run / Path(CHECKPOINT).with_name("teacher.safetensors")
    given = answers(teacher, shown, copies, known, json.dumps(decides), progress)
    return Lesson(splits, copies, views_of(teacher.settings.model), given)


def learn(
    lesson: Lesson,
    settings: RunSettings,
    run: Path,
    teaching: Teaching | None,
    teacher: Teacher,
    progress: Progress = silent,
) -> None:
    """Train a student into the run folder ``run``, as `trainer train` leaves one; ``teaching`` None: alone.

    Started again after a kill it goes on from the last whole epoch. Seeds torch's global generator.

    Raises:
        InputError: the folder holds another training.
    """
    started = time.monotonic()
    fingerprint = claim(run, settings, teaching)
    fold = Fold(lesson.splits["train"], lesson.splits["val"], settings.recipe, settings.seed)
    torch.manual_seed(settings.seed)  # of the weights that start from nothing
    model = Classifier(settings.model)
    begin(model, fold, None if teaching is None else teacher, progress)
    model.backbone.freeze_lower(settings.recipe.frozen_stages)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = start(model, settings.recipe)
    state.weights |= running_statistics(model)
    state.keep_best()
    state.restore(run / CHECKPOINT, fingerprint)
    who = "alone" if teaching is None else "taught"
    for _ in study(model, fold, lesson, state, teaching, lambda what, i, n: progress(f"{who}: {what}", i, n)):
        state.save(run / CHECKPOINT, fingerprint)

    state.load(state.best)
    save_run_model(model, settings.classes, run / MODEL)
    for name in ("val", "test"):
        logits = predict(model, lesson.splits[name].images, progress, f"{who}: scoring {name}")
        scores_of(settings, lesson.splits[name], logits).write(run / f"scores.{name}.csv")
    (run / LOG).write_text("".join(json.dumps(line) + "\n" for line in state.at.history), encoding="utf-8")
    outcome = {
        "epochs": state.at.epoch,
        "kept_epoch": state.at.kept_epoch,
        "val_score": state.at.best_score,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(run / SETTINGS, {**described(settings, teaching), **outcome})


def described(settings: RunSettings, teaching: Teaching | None) -> dict[str, object]:
    """What run.json says of a student; `read_settings` reads its part of it."""
    return {**settings.to_json(), "distillation": None if teaching is None else asdict(teaching)}


def claim(run: Path, settings: RunSettings, teaching: Teaching | None) -> str:
    """Write run.json before training starts; returns the hash of all that decides the weights.

    Raises InputError where the folder holds another run.
    """
    decides = None if teaching is None else {k: v for k, v in asdict(teaching).items() if k != "teacher"}
    fingerprint = hashlib.sha256(json.dumps([settings.fingerprint, decides]).encode()).hexdigest()
    path = run / SETTINGS
    if path.exists():
        same = read_settings(run).fingerprint == settings.fingerprint
        known = json.loads(path.read_text(encoding="utf-8")).get("distillation", {})
        if not same or (known and {k: v for k, v in known.items() if k != "teacher"}) != decides:
            raise InputError(
                f"{run}: holds a run of another teacher, temperature, alpha, recipe, seed, input size, dataset or "
                "version; distil into another folder, or delete this one"
            )
    write_json(path, described(settings, teaching))
    return fingerprint


def study(
    model: Classifier, fold: Fold, lesson: Lesson, state: State, teaching: Teaching | None, progress: Progress
) -> Iterator[Progressed]:
    """Train on the copies, yielding after each epoch; the best weights are ``state.best``. AdamW, warm-up and cosine,
    averaged weights, as in `trainer.train`.
    """
    recipe, frames, views = fold.recipe, fold.train.images, len(lesson.views)
    steps = max(len(frames) // recipe.batch, LEAST_STEPS)
    while state.at.epoch < recipe.epochs:
        epoch, losses = state.at.epoch, []
        torch.manual_seed(fold.seed * 10_007 + epoch)  # of dropout
        model.train()
        choices = len(lesson.copies) * views
        for rows, choice in draw_batches(len(frames), choices, steps, recipe.batch, (fold.seed, epoch)):
            set_rate(state.optimiser, recipe, state.at.step / (recipe.epochs * steps))
            copies = choice // views
            pictures = lesson.copies.render(frames, rows, copies)
            shown = torch.stack(
                [turned(one, lesson.views[view]) for one, view in zip(pictures, choice % views, strict=True)]
            ).contiguous(memory_format=torch.channels_last)
            logits = model.classify(model.embed(model.lower(shown, recipe.frozen_stages), recipe.frozen_stages))
            wanted = lesson.copies.targets(fold.targets, rows, copies)
            given = lesson.answers[torch.from_numpy(copies), torch.from_numpy(rows)]
            temperature, alpha = (1.0, 0.0) if teaching is None else (teaching.temperature, teaching.alpha)
            loss = distillation_loss(logits, given, wanted, temperature, alpha)
            losses.append(state.descend(loss, recipe.ema))
            progress(f"epoch {epoch + 1} of {recipe.epochs}", len(losses), steps)
        with state.averaged_weights():
            val_logits = predict(model, fold.val.images)
            score, error = validation_score(val_logits, fold.val.labels)
            accuracy = float((val_logits.argmax(1) == fold.val.labels).mean())
            state.finish_epoch(score, error, {"loss": float(np.mean(losses)), "val_accuracy": accuracy})
        yield state.at


def turned(picture: Tensor, axes: tuple[int, ...]) -> Tensor:
    """One picture (C, H, W), reversed along ``axes`` of (N, C, H, W)."""
    return picture.flip([axis - 1 for axis in axes])


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Mean and variance of the batch norms that learn them, by name; they are averaged and kept with the weights."""
    return {
        f"{name}.norm.{part}": value
        for name, module in model.named_modules()
        if isinstance(module, mobilenet_v3.ConvNorm)
        for part, value in module.norm.named_buffers()
        if value.is_floating_point()
    }


def _load(dataset: Dataset, spec: PreprocessSpec, name: str, progress: Progress) -> LoadedSplit:
    return load_split(dataset, spec, name, lambda done, total: progress(f"reading {name}", done, total))
