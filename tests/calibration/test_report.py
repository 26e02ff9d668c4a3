"""The report: honest cross-fitting, intervals by groups, and a command line that says what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from calibration.calibration_error import classwise_ece, debiased_ece, equal_mass_ece
from calibration.cli import cli
from calibration.crossfit import cross_fitted, group_index, grouped_folds
from calibration.metrics import brier, ece, nll, softmax
from calibration.report import OVERKILLS, make_report
from calibration.report_html import diagrams, render
from calibration.risk import Costs
from calibration.scores import Scores
from calibration.temperature import fit_temperature

HERE = Path("scores.csv")


def scores(n: int = 400, shots: int = 1, sharpness: float = 3.0, seed: int = 0, classes: int = 2) -> Scores:
    """Parts with `shots` equal images each; logits `sharpness` times too confident."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (n // shots, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(honest)])
    names = ("ok", "crack", "dent", "stain")[:classes]
    parts = [f"part-{i}" for i in range(n // shots) for _ in range(shots)]
    logits = np.repeat(honest * sharpness, shots, axis=0).astype(np.float32)
    paths = tuple(f"{i}.png" for i in range(n // shots * shots))
    return Scores(names, "ok", paths, tuple(parts), np.repeat(labels, shots), logits)


def test_a_temperature_makes_overconfident_scores_honest() -> None:
    """ECE falls to what a calibrated model shows at this size; accuracy is unchanged to the last part."""
    report = make_report(HERE, scores(2000), draws=60)
    assert report.after is not None
    assert report.temperature == pytest.approx(3, rel=0.15)
    assert report.after.ece.value < 0.5 * report.before.ece.value
    assert report.after.ece.value < 2 * report.after.ece_if_calibrated.high
    assert report.after.accuracy.value == report.before.accuracy.value
    assert report.after.nll.high < report.before.nll.low
    assert (report.parts, report.groups, report.classes) == (2000, 2000, ("ok", "crack"))


def test_the_figures_are_those_of_the_functions() -> None:
    """Nothing is computed differently here."""
    made = scores(300, classes=3)
    report = make_report(HERE, made, bins=10, draws=10)
    p, y = softmax(made.logits), made.labels
    for name, metric in (
        ("ece", ece), ("ece_equal_mass", equal_mass_ece), ("ece_debiased", debiased_ece),
        ("ece_classwise", classwise_ece),
    ):  # fmt: skip
        assert getattr(report.before, name).value == metric(p, y, 10)
    assert (report.before.nll.value, report.before.brier.value) == (nll(p, y), brier(p, y))
    assert report.temperature == fit_temperature(made.logits, made.labels)
    assert report.defects == int((made.labels != 0).sum())


def test_no_part_is_judged_by_a_temperature_that_has_seen_it() -> None:
    """Changing one part's scores changes the temperatures of the other folds, never its own."""
    made = scores(100)
    folds = grouped_folds(group_index(made), made.labels, 5, 0)
    before, _ = cross_fitted(made)
    changed = made.logits.copy()
    changed[7] *= -1
    after, _ = cross_fitted(Scores(made.classes, made.ok_class, made.paths, made.groups, made.labels, changed))
    same = [a == b for a, b in zip(before, after, strict=True)]
    assert same == [fold == folds[7] for fold in range(5)]


@given(groups=st.lists(st.integers(0, 12), min_size=1, max_size=60), seed=st.integers(0, 99), folds=st.integers(1, 7))
def test_folds_never_cut_a_group(groups: list[int], seed: int, folds: int) -> None:
    """Every row has a fold, every fold has a group, and they differ by one group at most."""
    index = np.unique(groups, return_inverse=True)[1]
    labels = np.array(groups) % 3
    fold = grouped_folds(index, labels, folds, seed)
    for g in range(index.max() + 1):
        assert len(set(fold[index == g].tolist())) == 1
    sizes = [len(set(index[fold == f].tolist())) for f in range(min(folds, index.max() + 1))]
    assert sum(sizes) == index.max() + 1
    assert max(sizes) - min(sizes) <= 1


def test_folds_spread_the_labels() -> None:
    """Twenty defects among two hundred parts: four in each of five folds."""
    labels = np.repeat([0, 1], [180, 20])
    fold = grouped_folds(np.arange(200), labels, 5, 3)
    assert np.bincount(fold[labels == 1]).tolist() == [4] * 5


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    """Beside rows that have one."""
    made = scores(4)
    some = Scores(made.classes, "ok", made.paths, ("", "", "a", "a"), made.labels, made.logits)
    assert len(set(group_index(some).tolist())) == 3


def test_copies_of_a_part_do_not_narrow_the_intervals() -> None:
    """Nine images of each of 60 parts: as wide as the 60 parts alone."""
    one, nine = make_report(HERE, scores(60), draws=200), make_report(HERE, scores(540, shots=9), draws=200)
    assert nine.groups == one.groups == 60
    width = [r.before.accuracy.high - r.before.accuracy.low for r in (one, nine)]
    assert width[1] == pytest.approx(width[0], rel=0.25)


def test_a_single_group_cannot_be_cross_fitted() -> None:
    """Then there are no figures after: fitting on the part that is judged would flatter."""
    made = scores(20, shots=20)
    report = make_report(HERE, made, draws=10)
    assert report.after is report.vector is None
    assert report.fold_temperatures == ()


def test_escape_falls_as_overkill_is_allowed() -> None:
    """Along the table; the 10 % line is the one told apart."""
    report = make_report(HERE, scores(1000), draws=40)
    escapes = [point.escape.value for point in report.operating]
    assert escapes == sorted(escapes, reverse=True)
    assert [point.overkill for point in report.operating] == list(OVERKILLS)
    assert report.escape_at_10 == report.operating[3].escape
    assert report.escape_at_10.low <= report.escape_at_10.value <= report.escape_at_10.high


def test_vector_scaling_mends_what_a_temperature_cannot() -> None:
    """A class that is always stated too low; judged by folds that have not seen the part."""
    made = scores(1500, classes=3, sharpness=1)
    shifted = made.logits + np.float32([0, -1.5, 0])
    report = make_report(HERE, Scores(made.classes, "ok", made.paths, made.groups, made.labels, shifted), draws=40)
    assert report.after is not None
    assert report.vector is not None
    assert report.vector.nll.value < report.after.nll.value - 0.05
    assert report.vector.ece_classwise.value < 0.5 * report.after.ece_classwise.value


def test_the_least_cost_is_that_of_the_stated_costs_and_prevalence() -> None:
    """Counted again at its threshold; dearer escapes pass fewer parts."""
    made = scores(600)
    report = make_report(HERE, made, draws=30, costs=Costs(escape=20, overkill=2), prevalence=0.01)
    least = report.least_cost
    assert least is not None
    passed = softmax(made.logits)[:, 1] <= least.threshold
    escape, overkill = passed[made.is_defect].mean(), (~passed[~made.is_defect]).mean()
    assert least.cost.value == pytest.approx(0.01 * 20 * escape + 0.99 * 2 * overkill)
    assert least.cost.value <= min(least.cost_of_rejecting_all, 0.01 * 20)
    dearer = make_report(HERE, made, draws=2, costs=Costs(escape=2000, overkill=2), prevalence=0.01).least_cost
    assert dearer is not None
    assert dearer.threshold < least.threshold


def run(*arguments: object) -> Result:
    """Run `calibration`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A scores file."""
    path = tmp_path / "scores.test.csv"
    scores(120, shots=2).write(path)
    return path


def test_the_command_prints_json(recorded: Path) -> None:
    """All fields of the report, standard output alone."""
    result = run("report", recorded, "--json", "--bins", 10)
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    assert (told["parts"], told["groups"], told["bins"]) == (120, 60, 10)
    figures = {"accuracy", "auroc", "nll", "brier", "ece", "ece_equal_mass", "ece_debiased", "ece_classwise"}
    for column in ("before", "after", "vector"):
        assert set(told[column]) == figures | {"ece_if_calibrated"}
        assert all({"value", "low", "high"} < set(value) for value in told[column].values())
    assert told["escape_at_10"]["level"] == 0.95
    assert len(told["fold_temperatures"]) == 5
    assert result.stderr == ""


def test_the_command_prints_tables(recorded: Path) -> None:
    """All three of them."""
    text = run("report", recorded).stdout
    for word in (
        "120 parts in 60 groups",
        "AUROC",
        "if calibrated",
        "class-wise",
        "Escape against",
        "10%",
        "Cost with",
    ):
        assert word in text.replace("\n", " ")


def test_scores_of_good_parts_only_have_no_escapes(tmp_path: Path) -> None:
    """Shown as n/a, in JSON as null."""
    made = scores(40)
    good = Scores(made.classes, "ok", made.paths, made.groups, np.zeros(40, np.int64), made.logits)
    good.write(tmp_path / "s.csv")
    assert "n/a" in run("report", tmp_path / "s.csv").stdout
    told = json.loads(run("report", tmp_path / "s.csv", "--json").stdout)
    assert told["escape_at_10"]["value"] is None
    assert told["before"]["auroc"]["value"] is None
    assert told["least_cost"] is None


def test_a_nan_in_the_scores_is_named_by_file_line_and_column(recorded: Path) -> None:
    """Exit code 2, one line."""
    lines = recorded.read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:-1], "nan"])
    recorded.write_text("\n".join(lines))
    result = run("report", recorded)
    assert result.exit_code == 2
    assert f"{recorded}, line 5, column logit:crack: the value is nan" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--ok", "fine"), "the OK class 'fine' is none of"), (("--bins", "0"), "--bins")],
)
def test_unusable_options_are_named(recorded: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2."""
    result = run("report", recorded, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_the_other_class_can_be_the_good_one(recorded: Path) -> None:
    """--ok turns defects and good parts around."""
    both = [json.loads(run("report", recorded, "--json", *more).stdout)["defects"] for more in ((), ("--ok", "crack"))]
    assert sum(both) == 120


def test_help_has_an_example() -> None:
    """And says how the figures are made."""
    assert "completion" in run("--help").stdout
    text = run("report", "--help").stdout
    assert "calibration report runs/" in text
    assert "cross-fitted" in text


def test_the_html_report_stands_alone(recorded: Path, tmp_path: Path) -> None:
    """One file with every figure, no script and no link; told on stderr."""
    path = tmp_path / "new" / "report.html"
    result = run("report", recorded, "--html", path, "--json")
    assert result.exit_code == 0, result.stderr
    assert f"written: {path}" in result.stderr
    text = path.read_text(encoding="utf-8")
    told = json.loads(result.stdout)
    assert f"{told['before']['ece']['value']:.4f}" in text
    assert f"{told['temperature']:.4f}" in text
    assert "120 parts in 60 groups" in text
    assert text.count("<svg") == 5
    assert f"{told['vector']['ece_classwise']['value']:.4f}" in text
    assert f"costs {told['least_cost']['cost']['value']:.4g} [" in text
    for forbidden in ("<script", "http-equiv", 'src="', 'href="http'):
        assert forbidden not in text


def test_names_in_the_html_are_text() -> None:
    """A class called like a tag is no tag."""
    made = scores(40)
    hostile = Scores(("ok", "<script>x</script>"), "ok", made.paths, made.groups, made.labels, made.logits)
    text = render(make_report(Path("<b>.csv"), hostile, draws=5))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text


def test_diagrams_of_what_there_is() -> None:
    """Of good parts only there is no trade-off; of one group no temperature to show. Equal scores, equal pages."""
    made = scores(40, shots=40)
    good = Scores(made.classes, "ok", made.paths, made.groups, np.zeros(40, np.int64), made.logits)
    titles = [title for title, _ in diagrams(good)]
    assert titles == ["Reliability", "Defect probability as recorded", "Confusion matrix"]
    assert "cross-fitted" not in diagrams(good)[0][1]
    assert "cross-fitted" in diagrams(scores(40))[0][1]
    assert diagrams(scores(40)) == diagrams(scores(40))


def test_one_group_is_told_in_the_html() -> None:
    """And not filled with flattering figures."""
    assert "one group only" in render(make_report(HERE, scores(20, shots=20), draws=5))


def test_an_html_file_that_cannot_be_written_is_a_clear_error(recorded: Path) -> None:
    """Exit code 2, the file is named."""
    result = run("report", recorded, "--html", "/sys/lineguard/report.html")
    assert result.exit_code == 2
    assert "/sys/lineguard" in result.stderr
