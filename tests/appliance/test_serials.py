"""Serial and lot: on every row, from whatever names the part."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli import main
from appliance.sources import open_source
from appliance.sources.serials import checked_code
from appliance.wire import FrameNote, MissNote
from appliance.words import Reason
from calibration.errors import InputError
from tests.appliance.stations import make_station, rows, run_json
from tests.support.tiny import write_parts


def source(path: Path, **settings: object) -> list[tuple[str, str]]:
    """Serial and lot of every shot of a folder."""
    values = {"source": "folder", "path": str(path), "fps": 0.0, "loop": False, "count": None, **settings}
    opened, found = open_source(values, 1), []
    while (shot := opened.shoot()) is not None:
        found.append((shot.serial, shot.lot))
    return found


def test_file_names_become_serials(tmp_path: Path) -> None:
    """Without folder and suffix; left alone where nobody asks for it."""
    write_parts(tmp_path / "frames", 2)
    (tmp_path / "frames" / "part-00001-ok.png").rename(tmp_path / "frames" / "S 17.b.PNG")
    assert source(tmp_path / "frames", serial="name") == [("S 17.b", ""), ("part-00000-ok", "")]
    assert source(tmp_path / "frames") == [("", ""), ("", "")]
    (tmp_path / "frames" / "x\n.png").write_bytes(b"")
    with pytest.raises(InputError, match="rename it"):
        source(tmp_path / "frames", serial="name")


def test_a_csv_file_names_serials_and_lots(tmp_path: Path) -> None:
    """By the frame's name; a frame that is given twice or not at all is refused, and so is an unusable serial."""
    write_parts(tmp_path / "frames", 2)
    table = tmp_path / "serials.csv"
    table.write_text("frame,serial,lot\npart-00001-ok.png,B2,L9\npart-00000-ok.png,A1,\n")
    assert source(tmp_path / "frames", serials=str(table)) == [("A1", ""), ("B2", "L9")]
    for text, message in (
        ("frame,serial\npart-00000-ok.png,A1\n", "no line for frame part-00001"),
        ("frame,serial\na,A1\na,A2\n", "line 3: frame a a second time"),
        ("frame,serial\na,\n", "line 2: '' is no serial"),
        ("frame,serial,lot\na,b,\x07\n", "line 2"),
        ("name,serial\n", "the first line"),
        ("", "the first line"),
        ("frame,serial\n\xff", "UTF-8"),
    ):
        table.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=message):
            source(tmp_path / "frames", serials=str(table))
    with pytest.raises(InputError, match="No such file"):
        source(tmp_path / "frames", serials=str(tmp_path / "none.csv"))


def test_rows_carry_serial_and_lot(tmp_path: Path) -> None:
    """From the CSV file, the station's lot where it names none; misses too; the commands show them."""
    config = make_station(tmp_path, 5, 'serials = "serials.csv"')
    (tmp_path / "frames" / "part-00002-ok.png").write_bytes(b"no image")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    lines = [f"{name},S-{i}{',L7' if i == 2 else ','}" for i, name in enumerate(names)]
    (tmp_path / "serials.csv").write_text("\n".join(["frame,serial,lot", *lines]))
    run_json(config)
    found = rows(config, "SELECT serial, lot, reason FROM verdict ORDER BY serial")
    assert found == [("S-0", "L1", ""), ("S-1", "L1", ""), ("S-2", "L7", "DECODE"), ("S-3", "L1", ""),
                     ("S-4", "L1", "DEFECT")]  # fmt: skip
    assert "S-2 L7" in CliRunner().invoke(main, ["verdicts", "--config", str(config)]).stdout
    assert "serial S-4, lot L1" in CliRunner().invoke(main, ["status", "--config", str(config)]).stdout
    batches = rows(config, "SELECT batch, position FROM verdict WHERE reason <> 'DECODE'")
    assert all(0 <= position < batch <= 8 for batch, position in batches)
    assert rows(config, "SELECT batch, position FROM verdict WHERE reason = 'DECODE'") == [(None, None)]


@given(st.text(max_size=70), st.text(max_size=70), st.text(max_size=20))
def test_serial_and_lot_travel_unchanged(serial: str, lot: str, name: str) -> None:
    """Whatever text they are, beside whatever name."""
    note = FrameNote(3, 1, 2, 10, 20, name, serial, lot)
    assert FrameNote.unpack(note.pack()) == note
    miss = MissNote(3, 10, Reason.STALE, name, "why", serial, lot)
    assert MissNote.unpack(miss.pack()) == miss


@given(st.text(max_size=70))
def test_a_code_is_short_and_printable(text: str) -> None:
    """What passes can be typed, shown and searched for."""
    try:
        assert checked_code(text) == text
    except ValueError:
        assert not text or len(text) > 64 or text != text.strip() or not text.isprintable()
    else:
        assert 0 < len(text) <= 64
        assert text.isprintable()
