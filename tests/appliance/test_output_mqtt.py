"""PASS by MQTT through a real broker on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from appliance.judge import PassToken
from appliance.key_files import read_secret, write_secret
from appliance.outputs.mqtt import MqttDevice
from appliance.outputs.protocol import LinkLostError, OutputError
from appliance.outputs.settings import MqttOutput
from calibration.errors import InputError

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
paho = pytest.importorskip("paho.mqtt.client", reason="needs the extra io")
GOOD = "secret"
needs_broker = pytest.mark.skipif(BROKER is None, reason="needs mosquitto: apt-get install mosquitto")


class Broker:
    """mosquitto, and the line's side of it: acknowledges what it understands, as `trouble` lets it."""

    def __init__(self, directory: Path) -> None:
        self.trouble = ""
        self.heard: list[tuple[str, dict[str, Any]]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        users = directory / "users"
        passwd = shutil.which("mosquitto_passwd")
        assert passwd is not None
        users.touch(0o600)
        subprocess.run([passwd, "-b", str(users), "line", "secret"], check=True, capture_output=True)
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nuser root\n"
            "persistence false\nset_tcp_nodelay true\n"
        )
        assert BROKER is not None
        self.process = subprocess.Popen([BROKER, "-c", str(config)], stderr=subprocess.DEVNULL)
        self._ready = threading.Event()
        self._plc = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._plc.username_pw_set("line", "secret")
        self._plc.on_connect = lambda client, *_: client.subscribe("cell/#", qos=1)
        self._plc.on_subscribe = lambda *_: self._ready.set()
        self._plc.on_message = self._message
        deadline = time.monotonic() + 30
        while True:
            try:
                self._plc.connect("127.0.0.1", self.port)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self._plc.loop_start()
        assert self._ready.wait(5)

    def _message(self, client: Any, _data: Any, message: Any) -> None:
        topic = message.topic.removeprefix("cell/")
        if topic == "ack":
            return
        value = json.loads(message.payload)
        self.heard.append((topic, value))
        answer = {key: value[key] for key in ("epoch", "count", "camera", "tag") if key in value}
        if topic == "pass" and self.trouble == "silent":
            return
        if topic == "pass" and self.trouble == "wrong part":
            answer["tag"] += 1
        if topic in ("beat", "pass") and self.trouble != "gone":
            client.publish("cell/ack", b"garbage" if self.trouble == "garbage" else json.dumps(answer))

    def close(self) -> None:
        """Switch both off."""
        self._plc.disconnect()
        self._plc.loop_stop()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker with a line that answers."""
    made = Broker(tmp_path)
    yield made
    made.close()


def device(broker: Broker, tmp_path: Path, password: str = GOOD, timeout_ms: float = 2000.0) -> MqttDevice:
    """A device that has not connected yet."""
    file = tmp_path / "password"
    if not file.exists():
        write_secret(file, password + "\n")
    return MqttDevice(
        MqttOutput(
            kind="mqtt",
            host="127.0.0.1",
            port=broker.port,
            prefix="cell",
            user="line",
            password_file=file,
            timeout_ms=timeout_ms,
        )
    )


def token(seconds: float = 5.0) -> PassToken:
    """A PASS for part 77."""
    return PassToken(1, "top", 3, 0, "b", time.monotonic_ns() + int(seconds * 1e9), 77)


@needs_broker
def test_a_pass_is_acknowledged_by_the_lines_side(broker: Broker, tmp_path: Path) -> None:
    """Topics and fields as documented; the will is published when the appliance dies without a word."""
    made = device(broker, tmp_path)
    made.open()
    made.beat(1, True)
    assert made.let_pass(token())
    assert not made.let_pass(token(0.0))
    topics = dict(broker.heard)
    epoch = topics["online"]["epoch"]
    assert topics["beat"] == {"epoch": epoch, "count": 1, "ready": True}
    left_ms = topics["pass"].pop("left_ms")
    assert topics["pass"] == {"epoch": epoch, "camera": "top", "tag": 77}
    assert 0 < left_ms <= 5000
    made.close()
    made.open()
    assert dict(broker.heard)["online"]["epoch"] != epoch
    assert made._client is not None
    made._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    deadline = time.monotonic() + 30
    while dict(broker.heard)["online"]["epoch"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(LinkLostError):
        made.let_pass(token())
    made.close()


@needs_broker
@pytest.mark.parametrize(
    ("trouble", "text"), [("silent", "no acknowledgement"), ("wrong part", "read-back"), ("garbage", "no ack")]
)
def test_without_the_right_acknowledgement_no_pass_counts(
    broker: Broker, tmp_path: Path, trouble: str, text: str
) -> None:
    """Silence, another part's, or no message of ours: OutputError, which is a FAULT, though the broker took it."""
    made = device(broker, tmp_path, timeout_ms=600.0)
    made.open()
    broker.trouble = trouble
    with pytest.raises(OutputError, match=text):
        made.let_pass(token())
    made.close()


@needs_broker
def test_nobody_on_the_lines_side_is_a_lost_link(broker: Broker, tmp_path: Path) -> None:
    """A broker alone is no line: the heartbeat is not answered, and nothing is connected."""
    broker.trouble = "gone"
    made = device(broker, tmp_path, timeout_ms=600.0)
    with pytest.raises(LinkLostError, match="cell/ack"):
        made.open()
    made.close()


@needs_broker
def test_a_wrong_password_lets_nobody_in(broker: Broker, tmp_path: Path) -> None:
    """The broker refuses; said as such."""
    made = device(broker, tmp_path, "wrong", timeout_ms=1000.0)
    with pytest.raises(LinkLostError, match="lets nobody in"):
        made.open()
    made.close()


def test_another_machine_needs_tls() -> None:
    """Without ca only loopback is allowed; user and password come together."""
    with pytest.raises(ValidationError, match="give ca"):
        MqttOutput(kind="mqtt", host="10.0.0.5")
    with pytest.raises(ValidationError, match="together"):
        MqttOutput(kind="mqtt", host="localhost", user="me")
    assert MqttOutput(kind="mqtt", host="10.0.0.5", ca=Path("ca.pem")).port == 8883


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Mode 0644, empty, missing, or no text: refused, with the remedy; written ones are 0600 and never replaced."""
    path = tmp_path / "secret"
    write_secret(path, "s3cret\n")
    assert read_secret(path) == "s3cret"
    with pytest.raises(FileExistsError):
        write_secret(path, "other")
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_secret(path)
    for content in (b"", b"\xff\xfe", b"x" * 5000):
        path.chmod(0o600)
        path.write_bytes(content)
        with pytest.raises(InputError, match="must hold a secret"):
            read_secret(path)
    with pytest.raises(InputError, match="No such file"):
        read_secret(tmp_path / "none")
