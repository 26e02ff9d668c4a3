"""PASS by MQTT: JSON on topics below a prefix, and an acknowledgement from the line's side for each.

::

    PREFIX/online  {"epoch"}, retained; {"epoch": null} is the last will
    PREFIX/beat    {"epoch", "count", "ready"}
    PREFIX/pass    {"epoch", "camera", "tag", "left_ms"}
    PREFIX/ack     the line's side repeats what it has understood: {"epoch", "count"} or {"epoch", "camera", "tag"}

The broker's own acknowledgement proves nothing about the line: without one on PREFIX/ack a PASS counts as not given.
A broker should not hold small messages back (mosquitto: `set_tcp_nodelay true`), which costs 45 ms for each PASS.
The line's side owns the time-out; it forgets everything of an epoch when another one comes online or a heartbeat fails.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from appliance.judge import PassToken
from appliance.key_files import read_secret
from appliance.outputs.protocol import LinkLostError, OutputError
from calibration.errors import InputError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

    from appliance.outputs.settings import MqttOutput

ACK_MAX = 1024
"""Bytes; a longer message is none of ours."""


class MqttDevice:
    """See Device."""

    def __init__(self, section: MqttOutput) -> None:
        """Raises InputError where paho-mqtt is not installed or the password cannot be read."""
        try:
            import paho.mqtt.client as paho
        except ImportError:
            raise InputError("output.kind: mqtt needs paho-mqtt; pip install 'lineguard[io]'") from None
        self._section, self._timeout_s = section, section.timeout_ms / 1000 / 2
        self._password = read_secret(section.password_file) if section.password_file else ""
        self._paho = paho
        self._client: Client | None = None
        self._epoch = 0
        self._lock = threading.Condition()
        self._up = False
        self._acks: deque[dict[str, Any]] = deque(maxlen=64)

    def open(self) -> None:
        """See Device.open. Open means that the line's side has answered a first heartbeat."""
        self._epoch, self._up = secrets.randbits(48), False
        self._acks.clear()
        client = self._client = self._make()
        try:
            client.connect(self._section.host, self._section.port, keepalive=2)
        except (OSError, ValueError) as error:
            raise LinkLostError(f"{self._section.host}:{self._section.port}: {error}") from None
        client.loop_start()
        with self._lock:
            if not self._lock.wait_for(lambda: self._up, self._timeout_s):
                raise LinkLostError(f"{self._section.host}:{self._section.port}: the broker lets nobody in")
        self._publish("online", {"epoch": self._epoch}, retain=True)
        self.beat(0, False)

    def beat(self, count: int, ready: bool) -> None:
        """See Device.beat."""
        self._publish("beat", {"epoch": self._epoch, "count": count, "ready": ready})
        if not self._acknowledged({"epoch": self._epoch, "count": count}):
            raise LinkLostError(f"nobody on the line's side answers on {self._section.prefix}/ack")

    def let_pass(self, token: PassToken) -> bool:
        """See Device.let_pass."""
        left_ms = (token.deadline_ns - time.monotonic_ns()) // 1_000_000
        if left_ms <= 0:
            return False
        part = {"epoch": self._epoch, "camera": token.camera, "tag": token.tag}
        self._publish("pass", {**part, "left_ms": left_ms})
        if not self._acknowledged(part):
            raise OutputError(f"no acknowledgement of {part} within {self._timeout_s * 1000:.0f} ms")
        return True

    def close(self) -> None:
        """See Device.close."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _make(self) -> Client:
        paho, section = self._paho, self._section
        client: Client = paho.Client(paho.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = self._timeout_s
        client.will_set(f"{section.prefix}/online", json.dumps({"epoch": None}), qos=1, retain=True)
        if section.user:
            client.username_pw_set(section.user, self._password)
        if section.ca is not None:
            client.tls_set(str(section.ca))
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _publish(self, topic: str, value: dict[str, Any], retain: bool = False) -> None:
        if self._client is None or not self._up:
            raise LinkLostError("connection lost")
        # QoS 0: a broker that repeats a PASS helps nobody, and what counts is the line's acknowledgement.
        self._client.publish(f"{self._section.prefix}/{topic}", json.dumps(value), qos=int(retain), retain=retain)

    def _acknowledged(self, wanted: dict[str, Any]) -> bool:
        """Wait for this acknowledgement; others of this epoch that come before it are wrong read-backs."""
        until = time.monotonic() + self._timeout_s
        with self._lock:
            while True:
                while self._acks:
                    found = self._acks.popleft()
                    if found == wanted:
                        return True
                    if found.get("epoch") == self._epoch:
                        raise OutputError(f"read-back: told {wanted}, the line's side has understood {found}")
                if not self._up:
                    raise LinkLostError("connection lost")
                if not self._lock.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    return False

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe(f"{self._section.prefix}/ack", qos=1)

    def _on_subscribe(self, _client: Client, _data: Any, _id: int, reasons: Any, _properties: Any) -> None:
        with self._lock:
            self._up = not any(reason.is_failure for reason in reasons)
            self._lock.notify_all()

    def _on_disconnect(self, client: Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if client is self._client:
            with self._lock:
                self._up = False
                self._lock.notify_all()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.retain or len(message.payload) > ACK_MAX:
            return
        try:
            value = json.loads(message.payload)
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            with self._lock:
                self._acks.append(value)
                self._lock.notify_all()


def _without_delay(_client: Client, _data: Any, connection: Any) -> None:
    """Small messages leave at once, and are not kept back for more to join them."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
