"""`appliance replay`: stored verdicts come out again bit for bit, and whatever is not the same is said."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.evidence import decode_evidence, encode_evidence, find_evidence
from deploy.install import Device
from tests.appliance.stations import make_station, rows, run_json
from tests.support.tiny import tiny_bundle

EVIDENCE = "[evidence]\ndefect_mib = 10\nunsure_mib = 10\nsample_mib = 10\nper_second = 1000.0\n"
EVIDENCE += "[reevaluation]\npassed_share = 1.0\n"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A station that has judged 12 parts and one unreadable picture, with evidence; its station.toml."""
    directory = tmp_path_factory.mktemp("judged")
    slow = 'fps = 10.0\nserial = "name"'  # evidence that finds no room is dropped, by design
    config = make_station(directory, 12, slow, EVIDENCE)
    (directory / "frames" / "z-broken.png").write_bytes(b"no image")
    run_json(config)
    return config


@pytest.fixture
def config(judged: Path, tmp_path: Path) -> Path:
    """A copy of it to tamper with."""
    shutil.copytree(judged.parent, tmp_path / "station", ignore=shutil.ignore_patterns("run"))
    return tmp_path / "station" / "station.toml"


def replay(config: Path, serial: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the row of the JSON answer, and the text."""
    words = ["replay", serial, "--config", str(config)]
    shown = CliRunner().invoke(main, [*words, "--json"])
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    row = json.loads(shown.stdout)["rows"][0] if shown.stdout else {}
    return shown.exit_code, row, CliRunner().invoke(main, words).output


def change(config: Path, statement: str, *values: object) -> None:
    """Change the database."""
    with closing(sqlite3.connect(config.parent / "data" / "station.db", isolation_level=None)) as db:
        db.execute(statement, values)


def test_every_judged_part_replays_bit_for_bit(judged: Path) -> None:
    """PASS, DEFECT and UNSURE alike: equal, and exit code 0."""
    found = rows(judged, "SELECT serial, reason FROM verdict WHERE logits IS NOT NULL")
    assert len(found) == 12
    for serial, _ in found[:3] + [pair for pair in found if pair[1]]:
        code, row, text = replay(judged, serial)
        assert (code, row["result"]) == (0, "equal"), row
        assert row["again"]["logits"] == row["stored"]["logits"]
        assert "equal" in text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("defect_probability", 0.123),
        ("decision", "UNKNOWN"),
        ("top_class", "dent"),
        ("logits", struct.pack("<2f", 1.0, 2.0)),
    ],
)
def test_a_row_that_was_changed_differs(config: Path, column: str, value: object) -> None:
    """Exit code 1, and the value is named."""
    change(config, f"UPDATE verdict SET {column} = ? WHERE serial = 'part-00001-ok'", value)  # noqa: S608
    code, row, text = replay(config, "part-00001-ok")
    assert (code, row["result"]) == (1, "differs")
    assert column in text


def test_one_bit_of_a_probability_is_enough(config: Path) -> None:
    """The last bit of a double."""
    ((value,),) = rows(config, "SELECT defect_probability FROM verdict WHERE serial = 'part-00002-ok'")
    change(config, "UPDATE verdict SET defect_probability = ? WHERE serial = 'part-00002-ok'", np.nextafter(value, 1))
    assert replay(config, "part-00002-ok")[0] == 1


def test_another_frame_in_the_files_place_differs(config: Path) -> None:
    """Well-formed evidence with other pixels: its tensor has another checksum."""
    ((seq,),) = rows(config, "SELECT seq FROM verdict WHERE serial = 'part-00003-ok'")
    path = find_evidence(config.parent / "data" / "evidence", "top", seq)
    assert path is not None
    record, frame = decode_evidence(path.read_bytes())
    path.write_bytes(encode_evidence(cv2.flip(frame, 1), record))
    code, _, text = replay(config, "part-00003-ok")
    assert code == 1
    assert "crc" in text


@pytest.mark.parametrize("case", ["freed", "damaged", "other part", "bundle gone", "not judged"])
def test_what_is_not_stored_is_exit_code_2_with_the_reason(config: Path, case: str) -> None:
    """No frame, a damaged one, one of another part, no such bundle, no judgement."""
    serial = "z-broken" if case == "not judged" else "part-00001-ok"
    ((seq,),) = rows(config, f"SELECT seq FROM verdict WHERE serial = '{serial}'")  # noqa: S608
    path = find_evidence(config.parent / "data" / "evidence", "top", seq)
    reason = {"freed": "no frame was kept", "damaged": "damaged", "other part": "belongs to another part",
              "bundle gone": "is not on this device", "not judged": "was not judged: DECODE"}[case]  # fmt: skip
    if case == "freed" and path is not None:
        path.unlink()
    elif case == "damaged" and path is not None:
        path.write_bytes(path.read_bytes()[:-20])
    elif case == "other part":
        change(config, "UPDATE verdict SET mono_ns = mono_ns + 1 WHERE seq = ?", seq)
    elif case == "bundle gone":
        change(config, "UPDATE verdict SET bundle = ? WHERE seq = ?", "c" * 64, seq)
        record, frame = decode_evidence(path.read_bytes())  # type: ignore[union-attr]
        path.write_bytes(encode_evidence(frame, type(record)(**{**record.__dict__, "bundle": "c" * 64})))  # type: ignore[union-attr]
    code, row, text = replay(config, serial)
    assert (code, row["result"]) == (2, "not stored")
    assert reason in row["why"]
    assert reason in text.replace("\n", " ")


def test_an_unknown_serial_is_exit_code_2(judged: Path) -> None:
    """With the remedy."""
    shown = CliRunner().invoke(main, ["replay", "nobody", "--config", str(judged)])
    assert shown.exit_code == 2
    assert "serial nobody: no such part" in shown.stderr


def test_the_bundle_is_found_in_the_other_slot(tmp_path: Path) -> None:
    """After a push the part is still judged with the bundle that judged it, and each of several judgements is shown."""
    root = tmp_path / "root"
    device = Device(root)
    for gain in (120.0, 90.0):
        device.stage(tiny_bundle(tmp_path / f"{gain}.lgb", gain=gain, name=f"gain {gain:.0f}"))
        device.activate()
        config = make_station(tmp_path, 3, 'fps = 100.0\nserial = "name"', EVIDENCE, bundle=root)
        run_json(config)
    assert len(rows(config, "SELECT DISTINCT bundle FROM verdict")) == 2
    shown = CliRunner().invoke(main, ["replay", "part-00000-ok", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert [line.rpartition(" ")[2] for line in shown.stdout.splitlines()] == ["equal", "equal"]


def test_scores_are_those_of_the_place_in_the_batch(tmp_path: Path) -> None:
    """A full batch: each part is replayed at the size and position it was judged at."""
    config = make_station(tmp_path, 16, 'serial = "name"', EVIDENCE + "[batch]\nsize = 4\nwait_ms = 500\n")
    run_json(config)
    places = rows(config, "SELECT serial, batch, position FROM verdict ORDER BY seq")
    assert {(batch, position) for _, batch, position in places} >= {(4, i) for i in range(4)}
    for serial, _, _ in places[:4]:
        assert replay(config, serial)[0] == 0
