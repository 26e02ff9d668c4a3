"""The release report and its diagrams: whole in one file, safe, and true to the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np

from calibration.charts import (
    confidence_histogram_chart,
    confusion_chart,
    escape_overkill_chart,
    reliability_diagram,
)
from calibration.metrics import reliability_bins
from calibration.risk import Costs, escape_overkill_curve, wilson
from calibration.scores import Scores
from deploy.bundle import open_bundle
from tests.trainer.conftest import Released
from trainer.report import Content, render, thumbnail


class Reader(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    """Parse a page."""
    reader = Reader()
    reader.feed(html)
    return reader


def content_of(released: Released) -> Content:
    """What the fixture's report was made from."""
    result = released.released
    test = Scores.read(released.run / "export" / "scores.cpu.test.csv")
    manifest = open_bundle(released.bundle).manifest
    return Content(manifest, Costs(), result.fitted, result.measured, result.parity, test, result.warnings, "none")


def frame_of(_path: str) -> np.ndarray:
    """Any picture."""
    return np.full((40, 400), 90, np.uint8)


def test_the_report_needs_nothing_beside_it(released: Released) -> None:
    """No scripts; everything fetched is inside the file."""
    page = read(open_bundle(released.bundle).members["report.html"].decode())
    assert "script" not in page.tags
    assert all(address.startswith(("data:image/", "#")) for address in page.fetched)


def test_the_report_tells_the_figures(released: Released) -> None:
    """Accuracy with its interval, the temperature and the thresholds stand there as measured."""
    page = read(open_bundle(released.bundle).members["report.html"].decode())
    result = released.released
    assert f"{result.measured['cpu'].figures['accuracy']:.1%}" in page.text
    assert f"{result.fitted['cpu'].rule.temperature:.4f}" in page.text
    assert f"{result.fitted['trt'].rule.ok_below:.4f}" in page.text
    assert result.fitted["cpu"].rule.model_sha256 in page.text
    assert page.tags.count("svg") == 4
    for warning in result.warnings:
        assert warning in page.text


def test_worst_mistakes_are_pictured(released: Released) -> None:
    """A defect made to pass and a good part made to fail appear with picture, name and probability."""
    content = content_of(released)
    logits = content.test.logits.copy()
    defect, good = np.flatnonzero(content.test.is_defect)[0], np.flatnonzero(~content.test.is_defect)[0]
    logits[defect], logits[good] = [50, 0, 0], [0, 50, 0]
    page = read(render(replace(content, test=replace(content.test, logits=logits)), frame_of))
    assert page.tags.count("img") >= 2
    assert (
        f"{content.test.paths[defect]}is {content.test.classes[int(content.test.labels[defect])]}; defect" in page.text
    )
    assert "defect probability 1.000" in page.text


def test_hostile_names_are_text(released: Released) -> None:
    """A file name with markup in it is shown, not obeyed."""
    content = content_of(released)
    evil = "<script>alert(1)</script>.png"
    logits = np.where(content.test.is_defect[:, None], np.float32([9, 0, 0]), np.float32([0, 9, 0]))
    paths = tuple(evil for _ in content.test.paths)
    page = read(render(replace(content, test=replace(content.test, logits=logits, paths=paths)), frame_of))
    assert "script" not in page.tags
    assert evil in page.text


def test_thumbnails_keep_the_shape() -> None:
    """The longer side is 160 pixels at most; small frames are not enlarged."""
    assert thumbnail(frame_of("")).startswith("data:image/jpeg;base64,")
    assert len(thumbnail(np.zeros((4, 4, 3), np.uint8))) < 2000


def test_diagrams_are_valid_svg_and_repeatable() -> None:
    """Each parses as XML, holds no date, and is the same when drawn again."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 50)
    labels = rng.integers(0, 3, 50)
    curve = escape_overkill_curve(p[:, 1], labels == 1)

    def draw() -> list[str]:
        return [
            reliability_diagram([("a", reliability_bins(p, labels)), ("b & <c>", reliability_bins(p, labels))]),
            confidence_histogram_chart([5, 1, 0], [0, 2, 3], 0.2, 0.7),
            confusion_chart([[3, 1], [0, 4]], ["ok", "<b> $x$"]),
            escape_overkill_chart(curve, (wilson(1, 10), wilson(2, 20))),
        ]

    drawn = draw()
    assert drawn == draw()
    for svg in drawn:
        assert ElementTree.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own text)
        assert not re.search(r"<dc:date>", svg)


def test_diagrams_survive_thin_data() -> None:
    """One part, empty bins, a class without parts: still a picture."""
    one = np.array([[0.9, 0.1]])
    assert "svg" in reliability_diagram([("one", reliability_bins(one, [0]))])
    assert "svg" in confidence_histogram_chart([1], [0])
    assert "svg" in confusion_chart(np.zeros((12, 12), int), [f"class {i}" for i in range(12)])
    assert "svg" in escape_overkill_chart(escape_overkill_curve([0.1, 0.9], [False, True]))
