"""Training end to end on small generated parts: repeatable, resumable, and it learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from calibration.errors import InputError
from calibration.scores import Scores
from tests.support.folders import FolderSpec, write_folder
from trainer.checkpoint import Progressed, State
from trainer.data.manifest import Dataset, Item
from trainer.data.sampling import draw_batches
from trainer.evaluate import evaluate_run
from trainer.features import Activations, predict
from trainer.models.classifier import Classifier, ClassifierConfig, load_run_model
from trainer.recipes import FROZEN, FULL, PIXEL_BUDGET, SHORT_SIDE, Recipe, choose_input_size
from trainer.run import read_settings
from trainer.train import train

SMALL = replace(FULL, name="small", epochs=2, batch=4, frozen_stages=5, flips="horizontal")
LIT = replace(SMALL, epochs=3, jitter=0.2)
SIZE = (48, 64)
"""Of the parts, where their input need not be enlarged as by default."""


def parts(root: Path, counts: tuple[int, ...] = (24, 16), colour: bool = False, soft: bool = False) -> Dataset:
    """Generated 48x64 parts; every fourth image validates, every fourth tests."""
    spec = FolderSpec(48, 64, counts, colour=colour)
    if not root.exists():
        write_folder(root, spec)
    items = []
    for c, name in enumerate(spec.classes):
        doubt = tuple(0.75 if i == c else 0.25 / (len(counts) - 1) for i in range(len(counts))) if soft else None
        for i, path in enumerate(sorted((root / name).iterdir())):
            split = ("train", "val", "train", "test")[i % 4]
            items.append(Item(f"{name}/{path.name}", name, f"{name}-{i}", split, doubt))
    return Dataset(
        name="parts",
        root=root,
        classes=spec.classes,
        ok_class="good",
        ok_source="the test says so",
        channels=3 if colour else 1,
        frame_heights=(48, 48),
        frame_widths=(64, 64),
        frame_aspects=(64 / 48, 64 / 48),
        seed=0,
        licence="none",
        items=tuple(items),
    )


def files(run: Path) -> dict[str, bytes]:
    """What must be the same whenever the same training is done again."""
    names = ("model.safetensors", "scores.val.csv", "scores.test.csv", "log.jsonl")
    return {name: (run / name).read_bytes() for name in names}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    """Two runs of one seed are equal byte for byte; the seed is not ignored."""
    dataset = parts(tmp_path / "images")
    runs = [train(dataset, tmp_path / name, SMALL, seed, SIZE) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    a, b, c = (files(result.run) for result in runs)
    assert a == b
    assert a["log.jsonl"] != c["log.jsonl"]


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(tmp_path: Path) -> None:
    """kill -9 after the first epoch, start again: the same bytes as without the kill."""
    dataset = parts(tmp_path / "images")
    train(dataset, tmp_path / "whole", LIT, 3, SIZE)
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.trainer.test_train import LIT, SIZE, parts
        from trainer.train import train
        train(parts(Path(sys.argv[1])), Path(sys.argv[2]), LIT, 3, SIZE)
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path / "images"), str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    checkpoint = tmp_path / "killed" / "checkpoint" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train(dataset, tmp_path / "killed", LIT, 3, SIZE)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_run_folder_is_not_mixed_with_another_training(tmp_path: Path) -> None:
    """Training another seed into the same folder is refused, and the run there is untouched."""
    dataset = parts(tmp_path / "images")
    train(dataset, tmp_path / "run", FROZEN, 1)
    before = files(tmp_path / "run")
    with pytest.raises(InputError, match="another folder"):
        train(dataset, tmp_path / "run", FROZEN, 2)
    assert files(tmp_path / "run") == before


def log_lines(run: Path) -> list[dict[str, float]]:
    """log.jsonl, parsed."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_of_epochs_that_validation_cannot_tell_apart_the_latest_is_kept() -> None:
    """Within one standard error of the best score a later average replaces an earlier one; beyond it does not."""
    layer = torch.nn.Linear(2, 2)
    weights = dict(layer.named_parameters())
    state = State(weights, {}, torch.optim.AdamW(list(weights.values())), Progressed())
    for score in (0.30, 0.25, 0.27, 0.40):
        state.finish_epoch(score, 0.03, {})
    assert (state.at.best_epoch, state.at.kept_epoch, state.at.best_score) == (2, 3, 0.25)


def test_the_last_epoch_is_kept_where_the_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where validation thinks nothing of any epoch the head alone is kept, and patience ends it; with `keep_last` the
    end is, which alone is validated.
    """
    monkeypatch.setattr("trainer.fine_tune.validation_score", lambda *_: (9.0, 0.01))
    dataset = parts(tmp_path / "images")
    kept = {}
    for keep_last in (False, True):
        recipe = replace(SMALL, patience=1, keep_last=keep_last)
        run = train(dataset, tmp_path / str(keep_last), recipe, 0, SIZE)
        kept[keep_last] = (run.epochs, run.kept_epoch)
    assert kept == {False: (1, 0), True: (2, 2)}
    assert ["val_score" in line for line in log_lines(tmp_path / "True")] == [False, True]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    """A checkpoint that cannot be read ends in a message with the remedy."""
    dataset = parts(tmp_path / "images")
    train(dataset, tmp_path / "run", replace(SMALL, epochs=1), 1, SIZE)
    checkpoint = tmp_path / "run" / "checkpoint" / "last.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="is damaged"):
        train(dataset, tmp_path / "run", replace(SMALL, epochs=1), 1, SIZE)


@pytest.mark.parametrize(("counts", "colour"), [((40, 40), False), ((36, 24, 24, 12), True)])
def test_the_quick_recipe_separates_marked_parts(tmp_path: Path, counts: tuple[int, ...], colour: bool) -> None:
    """Frozen features and a linear head find the marks, in grey and colour, two classes or four."""
    dataset = parts(tmp_path / "images", counts, colour)
    result = train(dataset, tmp_path / "run", FROZEN, 0)
    report = evaluate_run(tmp_path / "run")
    assert result.epochs == 0
    assert report.test.auroc > 0.9
    assert report.test.samples == sum(count // 4 for count in counts)


def test_fine_tuning_stops_early_and_never_loses_the_best_score(tmp_path: Path) -> None:
    """The head on frozen features is epoch 0; training stops `patience` epochs after the best one."""
    dataset = parts(tmp_path / "images")
    head = train(dataset, tmp_path / "head", replace(SMALL, epochs=0), 0, SIZE)
    tuned = train(dataset, tmp_path / "tuned", replace(SMALL, epochs=3, patience=1), 0, SIZE)
    assert tuned.val_score <= head.val_score
    scores = [line["val_score"] for line in log_lines(tuned.run)]
    assert tuned.epochs <= int(np.argmin([head.val_score, *scores])) + 1


def test_doubt_is_learned_as_doubt(tmp_path: Path) -> None:
    """Targets of 0.75 give less certain answers than the same labels without doubt."""
    sure = train(parts(tmp_path / "images"), tmp_path / "sure", FROZEN, 0)
    unsure = train(parts(tmp_path / "images", soft=True), tmp_path / "unsure", FROZEN, 0)
    spans = [np.abs(np.diff(Scores.read(r.run / "scores.val.csv").logits)).mean() for r in (sure, unsure)]
    assert spans[1] < spans[0]


def test_scores_are_those_of_the_saved_model(tmp_path: Path) -> None:
    """The CSV holds exactly what the model file answers; the settings come back from run.json."""
    dataset = parts(tmp_path / "images")
    result = train(dataset, tmp_path / "run", FROZEN, 0)
    model, classes = load_run_model(tmp_path / "run" / "model.safetensors")
    scores = Scores.read(tmp_path / "run" / "scores.test.csv")
    frames = [cv2.imread(str(dataset.root / path), cv2.IMREAD_GRAYSCALE) for path in scores.paths]
    pixels = np.stack([result.settings.spec.apply(frame) for frame in frames])  # type: ignore[arg-type]
    np.testing.assert_allclose(predict(model, pixels), scores.logits, rtol=1e-4, atol=1e-4)
    assert tuple(classes) == scores.classes == dataset.classes
    assert read_settings(tmp_path / "run") == result.settings
    assert json.loads((tmp_path / "run" / "run.json").read_text())["kept_epoch"] == 0


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    """Without a second class there is nothing to learn; the message says so."""
    dataset = parts(tmp_path / "images")
    lonely = replace(dataset, items=tuple(i for i in dataset.items if i.label == "good"))
    with pytest.raises(InputError, match="one class only"):
        train(lonely, tmp_path / "run", FROZEN)


def test_a_damaged_run_json_is_named(tmp_path: Path) -> None:
    """Settings that are missing, not JSON, or of another version end in a message with the path."""
    with pytest.raises(InputError, match="trainer train"):
        read_settings(tmp_path)
    for text in ("{", "[]", '{"version": 1}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json"):
            read_settings(tmp_path)


def test_without_room_for_a_cache_the_activations_are_the_same() -> None:
    """Cached or computed on demand: equal, so the size of the disk does not change a result."""
    model = Classifier(ClassifierConfig(classes=2, channels=1)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (5, 1, 48, 64), dtype=np.uint8)
    cached = Activations(model, frames, 3, "both", jitter=0.2)
    fresh = Activations(model, frames, 3, "both", jitter=0.2, cache_bytes=0)
    cached.fill(lambda what, done, total: None, "")
    rows, copies = np.array([4, 0, 2, 2]), np.array([0, 1, 2, 3])
    np.testing.assert_allclose(cached.get(rows, copies), fresh.get(rows, copies), rtol=2e-3, atol=1e-3)


def test_the_backbone_learns_the_same_whether_places_are_to_vote_afterwards(tmp_path: Path) -> None:
    """Recipes that differ in what joins the logits at the end share a backbone, whichever is trained first."""
    dataset, found = parts(tmp_path / "images"), []
    for places in (False, True):
        run = tmp_path / f"places-{places}"
        train(dataset, run, replace(SMALL, epochs=1, places=places), 3, SIZE)
        found.append(load_file(run / "checkpoint" / "last.safetensors"))
    assert found[0].keys() <= found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_the_light_of_copies_stays_within_the_jitter_and_is_each_frames_own() -> None:
    """The same seed gives the same light, and another seed another."""
    model = Classifier(ClassifierConfig(classes=2, channels=1)).eval()
    model.backbone.stem.conv.weight.data.abs_()  # type: ignore[union-attr]  # brighter frames: larger sums
    frames = np.full((6, 1, 48, 64), 200, np.uint8)
    shown = []
    for seed in (0, 0, 1):
        lit = Activations(model, frames, 0, "both", jitter=0.2, seed=seed, cache_bytes=0)
        shown.append(lit.get(np.arange(6), np.zeros(6, np.int64)))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert len({float(frame.double().sum()) for frame in shown[0]}) == 6
    darkest, brightest = (np.full((1, 1, 48, 64), value, np.uint8) for value in (200 - 41, 200 + 41))
    one = np.array([0])
    least, most = (Activations(model, edge, 0, cache_bytes=0).get(one, one).mean() for edge in (darkest, brightest))
    assert all(least <= frame.mean() <= most for frame in shown[0])


def test_copies_are_mirrored_frames() -> None:
    """Copy 1 of a frame is what its mirror image gives."""
    model = Classifier(ClassifierConfig(classes=2, channels=1)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (1, 1, 48, 64), dtype=np.uint8)
    mirrored = Activations(model, frames[..., ::-1].copy(), 0).get(np.array([0]), np.array([0]))
    copy = Activations(model, frames, 0, "horizontal").get(np.array([0]), np.array([1]))
    assert np.array_equal(copy, mirrored)


@given(frames=st.integers(1, 50), steps=st.integers(1, 20), batch=st.integers(1, 16))
def test_every_frame_is_drawn_before_any_comes_again(frames: int, steps: int, batch: int) -> None:
    """Batches are whole, and counts of the frames differ by at most one."""
    drawn = list(draw_batches(frames, 4, steps, batch, (0, 0)))
    assert [len(rows) for rows, _ in drawn] == [batch] * steps
    counts = np.bincount(np.concatenate([rows for rows, _ in drawn]), minlength=frames)
    assert counts.max() - counts.min() <= 1


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_input_size_keeps_frames_or_says_why_not(height: int, width: int) -> None:
    """Native within the budget, never above it, aspect ratio kept, small frames enlarged, a reason always."""
    h, w, reason = choose_input_size((height, height), (width, width))
    assert h * w <= PIXEL_BUDGET
    assert reason.startswith("frames are")
    if min(height, width) >= SHORT_SIDE and height * width <= PIXEL_BUDGET:
        assert (h, w) == (height, width)
    if max(height, width) <= 8 * min(height, width):
        assert h / w == pytest.approx(height / width, rel=0.05)
        assert min(h, w) >= min(SHORT_SIDE, min(height, width))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(24, 40, (96, 160)), (300, 300, (300, 300)), (224, 640, (224, 640)), (1080, 1920, (480, 853))],
)
def test_input_sizes_of_usual_cameras(height: int, width: int, expected: tuple[int, int]) -> None:
    """Tiny frames are enlarged, cell images kept, full HD reduced; never silently 224."""
    assert choose_input_size((height, height), (width, width))[:2] == expected


def test_frames_of_many_sizes_get_the_largest() -> None:
    """No frame is made smaller because others are small."""
    h, w, reason = choose_input_size((100, 256), (120, 250))
    assert (h, w) == (256, 250)
    assert "100 to 256 px" in reason


@pytest.mark.parametrize(
    ("field", "value"), [("flips", "diagonal"), ("ema", 1.0), ("epochs", -1), ("head_penalties", ())]
)
def test_a_recipe_out_of_range_names_its_field(field: str, value: object) -> None:
    """Each field of a recipe is checked."""
    with pytest.raises(InputError, match=field):
        replace(FULL, **{field: value})  # type: ignore[arg-type]


def test_recipes_survive_json() -> None:
    """What run.json holds is the recipe itself; a field of a later version is refused."""
    assert Recipe.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    with pytest.raises(InputError, match="cutmix"):
        Recipe.from_json({**FULL.to_json(), "cutmix": 1})
