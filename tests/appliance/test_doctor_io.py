"""What doctor says of cameras, triggers and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import load_station
from appliance.doctor_io import cameras, outputs, station_io
from appliance.findings import Mark, package
from appliance.sources.keys import make_client_keys, make_station_keys
from tests.appliance.stations import make_station
from tests.appliance.test_source_station import live_station


def test_each_lack_has_its_remedy() -> None:
    """Whatever this machine has, nothing is missing without a word on what to do."""
    findings = [*cameras(), *outputs(), package("nowhere", "nowhere", "pip install nowhere")]
    assert {"v4l2 devices", "video and rtsp", "aravis", "pymodbus", "paho-mqtt"} <= {one.name for one in findings}
    assert all(one.remedy for one in findings if one.mark is not Mark.OK)
    assert not any(one.mark is Mark.MISSING for one in findings)
    assert findings[-1].mark is Mark.ABSENT


def test_a_stations_keys_are_looked_at(tmp_path: Path) -> None:
    """Missing, nobody on the list, and as they should be."""
    station = load_station(live_station(tmp_path, 'trigger = "message"'))
    for text, make in (
        ("appliance keys", lambda: make_station_keys(tmp_path / "keys")),
        ("nobody may trigger", lambda: make_client_keys(tmp_path / "keys", "plc")),
    ):
        found = next(one for one in station_io(station) if one.name == "keys of top")
        assert found.mark is Mark.MISSING
        assert text in found.found
        make()
    found = next(one for one in station_io(station) if one.name == "keys of top")
    assert found.mark is Mark.OK
    assert "1 may trigger" in found.found


@pytest.mark.parametrize(
    ("section", "mark", "text"),
    [
        ("", Mark.ABSENT, "only counted"),
        ('[output]\nkind = "relay"', Mark.ABSENT, "simulated relay"),
        ('[output]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = 1883', Mark.OK, "no TLS"),
        ('[output]\nkind = "modbus"\nhost = "10.0.0.9"', Mark.OK, "10.0.0.9:502"),
        ('[output]\nkind = "mqtt"\nhost = "localhost"\nuser = "x"\npassword_file = "none"', Mark.MISSING, "none"),
    ],
)
def test_a_stations_output_is_looked_at(tmp_path: Path, section: str, mark: Mark, text: str) -> None:
    """None, a relay that does not run, devices, and a secret that is not there."""
    pytest.importorskip("pymodbus", reason="needs the extra io")
    station = load_station(make_station(tmp_path, 1, sections=section))
    found = next(one for one in station_io(station) if one.name == "output")
    assert (found.mark, text in found.found) == (mark, True)


def test_a_v4l2_device_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """With its path."""
    config = live_station(tmp_path, "")
    text = config.read_text().replace(
        'source = "rtsp"\nurl = "rtsp://127.0.0.1:1/none"', 'source = "v4l2"\npath = "no"'
    )
    config.write_text(text)
    found = next(one for one in station_io(load_station(config)) if one.name == "camera top")
    assert (found.mark, found.found) == (Mark.MISSING, str(tmp_path / "no"))
