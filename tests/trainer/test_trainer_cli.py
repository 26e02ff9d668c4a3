"""The trainer's command line, from folders of images to figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from calibration.decision import Decision
from calibration.images import read_image
from deploy.bundle import open_bundle
from tests.support.folders import FolderSpec, write_folder
from tests.support.tiny import CLASSES, logits_of, parts, tiny_bundle
from trainer.cli import main


def call(*words: object) -> Result:
    """Run one command; standard output and error apart."""
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def answer(*words: object) -> Any:
    """The JSON a command prints; it must succeed."""
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refusal(*words: object) -> str:
    """What a command says on stderr when it refuses its input: exit code 2, one line, nothing on stdout."""
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, and data/ imported from them: 24 good parts and 16 scratched ones."""
    root = tmp_path_factory.mktemp("trainer-cli")
    write_folder(root / "images", FolderSpec(48, 48, (24, 16)))
    answer("import", "folder", root / "images", "--out", root / "data")
    return root


@pytest.fixture(scope="module")
def trained(place: Path) -> dict[str, Any]:
    """What `trainer train` answers; the run is in place/run."""
    answered: dict[str, Any] = answer("train", place / "data", "--out", place / "run", "--size", "48")
    return answered


def test_import_folder_answers_with_all_it_found(place: Path, tmp_path: Path) -> None:
    """Counts, the OK class, warnings and what was skipped: as JSON, and as a table with warnings on stderr."""
    (place / "images" / "good" / "broken.png").write_bytes(b"")
    result = answer("import", "folder", place / "images", "--out", tmp_path / "data", "--seed", 3)
    (place / "images" / "good" / "broken.png").unlink()
    assert result["images"] == 40
    assert result["classes"] == ["good", "scratch"]
    assert result["skipped"] == {"good/broken.png": "the file is empty"}
    assert sum(result["counts"]["train"].values()) == 22
    assert any("1 of 41 images cannot be read" in warning for warning in result["warnings"])
    shown = call("import", "folder", place / "images", "--out", tmp_path / "data", "--force")
    assert shown.exit_code == 0
    assert "scratch" in shown.stdout
    assert "warning" not in shown.stdout


def test_import_options_reach_the_importer(place: Path, tmp_path: Path) -> None:
    """Shares, name, licence, OK class and groups."""
    groups = tmp_path / "parts.csv"
    groups.write_text("path,group\ngood/good-0000.png,a\ngood/good-0001.png,a\n")
    options = ("--fractions", 0.5, 0.25, 0.25, "--ok", "scratch", "--groups", groups, "--name", "n", "--licence", "l")
    result = answer("import", "folder", place / "images", "--out", tmp_path / "data", *options, "--group-twins")
    assert (result["ok_class"], result["name"]) == ("scratch", "n")
    assert sum(result["counts"]["train"].values()) == pytest.approx(20, abs=2)
    settings = json.loads((tmp_path / "data/dataset.json").read_text())
    assert settings["licence"] == "l"


def test_import_elpv_replaces_nothing_unasked(place: Path) -> None:
    """Before it looks at 2,624 images."""
    assert "holds a dataset already" in refusal("import", "elpv", "--out", place / "data")


def test_bad_folders_end_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """Missing, empty, one class only."""
    out = tmp_path / "data"
    assert "no such folder" in refusal("import", "folder", tmp_path / "nowhere", "--out", out)
    (tmp_path / "images").mkdir()
    assert "no images in it" in refusal("import", "folder", tmp_path / "images", "--out", out)
    (tmp_path / "images/good").mkdir()
    cv2.imwrite(str(tmp_path / "images/good/1.png"), np.eye(20, dtype=np.uint8))
    assert "only one class" in refusal("import", "folder", tmp_path / "images", "--out", out)
    assert not out.exists()


def test_a_dataset_edited_wrongly_ends_in_one_line(place: Path, tmp_path: Path) -> None:
    """Unknown column, unknown version: file and line, no traceback."""
    answer("import", "folder", place / "images", "--out", tmp_path / "data")
    table, settings = tmp_path / "data/manifest.csv", tmp_path / "data/dataset.json"
    text = table.read_text()
    table.write_text(text.replace("soft", "soft,quality", 1))
    assert "unknown column 'quality'" in refusal("train", tmp_path / "data", "--out", tmp_path / "run")
    table.write_text(text)
    settings.write_text(settings.read_text().replace('"version": 1', '"version": 9'))
    assert "version: 9" in refusal("train", tmp_path / "data", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_help_and_import_start_without_torch(place: Path, tmp_path: Path) -> None:
    """They answer at once on a machine where torch takes seconds to load, or is missing."""
    words = ["import", "folder", str(place / "images"), "--out", str(tmp_path / "data")]
    script = (
        "import sys\n"
        "from trainer.cli import main\n"
        f"main({words!r}, standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_help_says_how_to_switch_on_completion() -> None:
    """The shell completes commands and options once told to."""
    assert "_TRAINER_COMPLETE=bash_source" in call("--help").output


@pytest.mark.parametrize("size", ["0", "48x", "8x8", "12x34x56", "x", "-48", "99999"])
def test_a_size_that_is_none_is_refused(place: Path, size: str) -> None:
    """HEIGHTxWIDTH in pixels, 16 to 4096."""
    result = call("train", place / "data", "--out", place / "never", f"--size={size}")
    assert result.exit_code == 2
    assert "--size" in result.stderr
    assert not (place / "never").exists()


def test_train_answers_with_its_input_size_and_figures(place: Path, trained: dict[str, Any]) -> None:
    """Why this size, how good on val and test; the run folder is whole."""
    assert trained["input"] == {"height": 48, "width": 48, "channels": 1}
    assert trained["size_reason"].startswith("set by hand")
    assert trained["test"]["samples"] == 10
    assert trained["temperature"] > 0
    assert {"run.json", "model.safetensors", "scores.val.csv", "scores.test.csv"} <= {
        path.name for path in (place / "run").iterdir()
    }


def test_what_compare_found_best_can_be_trained_by_its_name(place: Path, tmp_path: Path) -> None:
    """At its own input size, unless one is given; an unknown name is refused with those that there are."""
    larger = answer("train", place / "data", "--out", tmp_path / "larger", "--recipe", "larger-adjusted")
    usual = answer("train", place / "data", "--out", tmp_path / "usual", "--recipe", "logit-adjusted")
    assert (larger["recipe"], usual["recipe"]) == ("larger-adjusted", "logit-adjusted")
    for side in ("height", "width"):
        assert larger["input"][side] == round(1.5 * usual["input"][side])
    assert json.loads((tmp_path / "larger" / "run.json").read_text())["recipe"]["tau"] == 1
    refused = call("train", place / "data", "--out", tmp_path / "none", "--recipe", "best")
    assert refused.exit_code == 2
    assert "'best' is unknown; choose among quick, full," in " ".join(refused.stderr.split())
    assert not (tmp_path / "none").exists()


def test_a_run_is_not_overwritten_unless_told(place: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    """--resume or --force, not both; other files are never touched."""
    assert "--resume goes on with it, --force starts anew" in refusal("train", place / "data", "--out", place / "run")
    assert "give one of them" in refusal("train", place / "data", "--out", place / "run", "--resume", "--force")
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files" in refusal("train", place / "data", "--out", tmp_path, "--force")
    assert "is a file" in refusal("train", place / "data", "--out", tmp_path / "notes.txt")
    seed = ("--seed", "5", "--resume")
    assert "another" in refusal("train", place / "data", "--out", place / "run", "--size", "48", *seed)
    assert trained["run"] == str(place / "run")


def test_evaluate_gives_a_run_the_figures_of_its_training(place: Path, trained: dict[str, Any]) -> None:
    """The same network on the same images: the same accuracy, escape and ECE."""
    result = answer("evaluate", place / "run", place / "data")
    assert result["same_dataset"] is True
    assert result["temperature"] == pytest.approx(trained["temperature"])
    for name in ("accuracy", "escape", "ece", "samples"):
        assert result["figures"][name] == pytest.approx(trained["test"][name], abs=1e-6)


def test_evaluate_warns_of_figures_that_flatter(place: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    """Another split than the test, or another dataset, which may share parts with the one trained on."""
    shown = call("evaluate", place / "run", place / "data", "--split", "train")
    assert "these figures flatter" in shown.stderr
    answer("import", "folder", place / "images", "--out", tmp_path / "again", "--seed", 9)
    assert "trained on another dataset" in call("evaluate", place / "run", tmp_path / "again").stderr
    assert trained["seed"] == 0


def test_evaluate_refuses_data_the_model_was_not_made_for(place: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    """Other classes, another OK class, colour for grey, other frame sizes, and no model at all."""
    run = place / "run"

    def imported(name: str, spec: FolderSpec, *options: object) -> Path:
        root = write_folder(tmp_path / f"{name}-images", spec)
        answer("import", "folder", root, "--out", tmp_path / name, *options)
        return tmp_path / name

    two = FolderSpec(48, 48, (8, 6))
    assert "also has pit" in refusal("evaluate", run, imported("three", FolderSpec(48, 48, (8, 6, 6))))
    assert "takes 'good' as OK" in refusal("evaluate", run, imported("turned", two, "--ok", "scratch"))
    colour = imported("colour", FolderSpec(48, 48, (8, 6), colour=True))
    assert "made for grey frames" in refusal("evaluate", run, colour)
    assert "frame is 64x48" in refusal("evaluate", run, imported("wide", FolderSpec(48, 64, (8, 6))))
    assert "no such run folder or bundle" in refusal("evaluate", tmp_path / "nothing", place / "data")
    assert "run.json" in refusal("evaluate", tmp_path / "three", place / "data")
    (tmp_path / "no.lgb").write_bytes(b"no bundle")
    assert "no.lgb" in refusal("evaluate", tmp_path / "no.lgb", place / "data")
    assert trained["seed"] == 0


def test_export_release_and_evaluate_follow_each_other(place: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    """The run becomes two INT8 models and a bundle, whose figures are those that evaluating it gives."""
    assert "not exported" in refusal("release", place / "run", "--out", tmp_path / "early.lgb")
    exported = answer("export", place / "run")
    assert set(exported["sizes"]) == {"fp32", "cpu", "trt"}
    assert exported["convolutions"]["cpu"] == exported["convolutions"]["trt"] > 40
    file = tmp_path / "parts.lgb"
    released = answer("release", place / "run", "--out", file, "--name", "Line 3", "--cost-escape", 50)
    assert (released["name"], released["costs"]["escape"]) == ("Line 3", 50.0)
    assert open_bundle(file).manifest.name == "Line 3"
    judged = answer("evaluate", file, place / "data")
    assert judged["same_dataset"] is True
    for name in ("escape", "overkill", "unsure"):
        assert judged["at_thresholds"][name] == released["measured"]["cpu"]["figures"][name]
    assert judged["figures"]["accuracy"] == released["measured"]["cpu"]["figures"]["accuracy"]["value"]
    assert trained["seed"] == 0
    shown = call("release", place / "run", "--out", file)
    assert "thresholds" in shown.stdout
    assert "defects" in shown.stderr  # so few of them that it has to be said


def test_release_overwrites_nothing_but_a_bundle(place: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    """A slip of the hand does not cost a file."""
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for out in (notes, tmp_path):
        assert "is no bundle, so it is not overwritten" in refusal("release", place / "run", "--out", out)
    assert notes.read_text() == "mine"
    assert trained["seed"] == 0


def test_export_refuses_what_is_no_run(place: Path) -> None:
    """A dataset is none; unknown GPU generations are named by the export itself."""
    assert "run.json" in refusal("export", place / "data")


@pytest.fixture(scope="module")
def scratched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle (parts.lgb) and a dataset of the parts it was made for."""
    root = tmp_path_factory.mktemp("bundle")
    tiny_bundle(root / "parts.lgb")
    for i, (frame, is_scratched) in enumerate(parts(120, every=4, seed=3)):
        path = root / "images" / CLASSES[int(is_scratched)] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame)
    answer("import", "folder", root / "images", "--out", root / "data", "--fractions", 0, 0, 1)
    return root


def test_evaluate_judges_with_a_bundles_own_thresholds(scratched: Path) -> None:
    """Escape, overkill and unsure as the device would have them, counted here frame by frame."""
    result = answer("evaluate", scratched / "parts.lgb", scratched / "data")
    bundle = open_bundle(scratched / "parts.lgb")
    rule, spec = bundle.variant("cpu").rule, bundle.manifest.preprocess
    frames = [(path.parent.name, read_image(path, 1)) for path in sorted((scratched / "images").glob("*/*.png"))]
    logits = logits_of(bundle.model("cpu"), np.stack([spec.apply(frame) for _, frame in frames]))
    decisions = [(label, decision) for (label, _), decision in zip(frames, rule.decide(logits), strict=True)]
    defects = [decision for label, decision in decisions if label == "scratch"]
    good = [decision for label, decision in decisions if label == "ok"]
    point = result["at_thresholds"]
    assert result["figures"]["samples"] == 120
    assert point["escape"]["value"] == pytest.approx(defects.count(Decision.OK) / len(defects))
    assert point["overkill"]["value"] == pytest.approx(1 - good.count(Decision.OK) / len(good))
    unsure = [decision for _, decision in decisions].count(Decision.UNSURE)
    assert point["unsure"]["value"] == pytest.approx(unsure / 120)
    shown = call("evaluate", scratched / "parts.lgb", scratched / "data")
    assert "escape at its thresholds" in shown.stdout
    assert "trained on another dataset" in shown.stderr


def test_evaluate_names_a_variant_the_bundle_lacks(scratched: Path) -> None:
    """Not every bundle serves TensorRT."""
    message = refusal("evaluate", scratched / "parts.lgb", scratched / "data", "--variant", "trt")
    assert "no variant 'trt'" in message


def test_evaluate_refuses_a_bundle_with_a_flipped_byte(scratched: Path, tmp_path: Path) -> None:
    """One bit is enough."""
    data = bytearray((scratched / "parts.lgb").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.lgb").write_bytes(bytes(data))
    assert "damaged.lgb" in refusal("evaluate", tmp_path / "damaged.lgb", scratched / "data")
