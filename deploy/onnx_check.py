"""What a model may reach for: nothing outside itself. Read from the ONNX bytes, before any engine sees them.

An ONNX file may point at other files (external data: weights read from any path the engine may open) and may call
operators of a vendor's library. A bundle's models do neither. The check walks the Protocol Buffers wire format by the
field numbers of onnx.proto3, so that devices need no ONNX package; weights are stepped over, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

DOMAINS = frozenset((b"", b"ai.onnx"))
MAX_DEPTH = 32
MAX_FIELDS = 1_000_000

# message -> field number -> message in that field (onnx.proto3)
_SCHEMA: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
    "opset": {},
}
_DOMAIN = {"node": 7, "opset": 1, "function": 10}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def check_self_contained(model: bytes) -> None:
    """Refuse a model that is no ONNX file, names other files, or uses operators outside the ONNX standard.

    Raises:
        ValueError: saying which.
    """
    budget = [MAX_FIELDS]
    if not any(number == 7 for number, _ in _fields(memoryview(model), budget)):
        raise ValueError("holds no graph")
    _check(memoryview(model), "model", 0, budget)


def _check(message: memoryview, kind: str, depth: int, budget: list[int]) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("is nested without end")
    for number, value in _fields(message, budget):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise ValueError("keeps weights in another file (external data)")
        if number == _DOMAIN.get(kind) and (isinstance(value, int) or bytes(value) not in DOMAINS):
            name = value if isinstance(value, int) else bytes(value[:40]).decode(errors="replace")
            raise ValueError(f"uses operators of the domain {name!r}; only those of the ONNX standard are allowed")
        inner = _SCHEMA[kind].get(number)
        if inner is not None:
            if isinstance(value, int):
                raise ValueError("is no ONNX file")
            _check(value, inner, depth + 1, budget)


def _fields(message: memoryview, budget: list[int]) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of one message: numbers as int, anything of a length as a view."""
    at, end = 0, len(message)
    while at < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError("has fields without end")
        tag = message[at]  # most tags and lengths are one byte: a model has tens of thousands
        at += 1
        if tag > 0x7F:
            tag, at = _varint(message, at - 1)
        wire = tag & 7
        if wire == 2 and at < end and message[at] <= 0x7F:
            length = message[at]
            at += 1
        elif wire in (0, 2):
            length, at = _varint(message, at)
            if wire == 0:
                yield tag >> 3, length
                continue
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("is no ONNX file")
        if length > end - at:
            raise ValueError("is cut short")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("is no ONNX file")
