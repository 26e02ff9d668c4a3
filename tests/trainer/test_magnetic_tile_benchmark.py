"""The benchmark on magnetic tile, run on a few generated parts: what it writes is what was found."""

from __future__ import annotations

import sys

import pytest

from benchmarks import magnetic_tile as benchmark
from tests.support.folders import FolderSpec, write_folder
from trainer.compare.recipes import BASELINE, CANDIDATES
from trainer.compare.run import CHOSEN


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of results after one run with one recipe beside the baseline, two seeds and no random folds."""
    root = tmp_path_factory.mktemp("tiles")
    write_folder(root / "images", FolderSpec(48, 48, (60, 12, 10), shots=2))
    (root / "images" / "good").rename(root / "images" / "free")
    groups = root / "images" / "groups.csv"
    groups.write_text(groups.read_text().replace("good/", "free/"))
    (root / "docs").mkdir()
    text = f"before\n{benchmark.BEGIN}\nof last year\n{benchmark.END}\nafter\n"
    (root / "docs" / "results.md").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["x", "images", "--write", "--recipes", "logit-adjusted", "--leaky", ""])
        benchmark.main()
    return (root / "docs" / "results.md").read_text()


def test_the_section_between_the_marks_is_replaced_and_nothing_else(page: str) -> None:
    """The old text is gone, what stands around it is not."""
    assert page.startswith(f"before\n{benchmark.BEGIN}\n82 photographs, 41 groups, 5 folds x 2 seeds")
    assert page.endswith(f"{benchmark.END}\nafter\n")
    assert "of last year" not in page


def test_recipes_that_did_not_run_are_named(page: str) -> None:
    """Every declared recipe is in the table or among those left out, none in both."""
    left_out = next(line for line in page.splitlines() if line.startswith("Declared, but not run here: "))
    missing = set(left_out.removeprefix("Declared, but not run here: ").rstrip(".").split(", "))
    assert missing == {c.name for c in CANDIDATES} - {BASELINE, "logit-adjusted"}
    assert all(f"| {name} |" not in page for name in missing)


def test_goals_and_temperature_are_told_of_the_nested_choice(page: str) -> None:
    """A verdict for each goal, and a line of calibration in which no verdict changed."""
    for title in ("balanced accuracy", "escape at 10 % overkill"):
        verdict = next(line for line in page.splitlines() if line.startswith(f"{title}: "))
        assert any(said in verdict for said in ("reaches the aim", "reaches the goal", "misses the goal"))
    temperature = page.split("| temperature |")[1].splitlines()
    lines = [line for line in temperature if line.startswith((f"| {BASELINE} |", f"| {CHOSEN} |"))]
    assert len(lines) == 2
    assert all(line.endswith("| 0 |") for line in lines)
