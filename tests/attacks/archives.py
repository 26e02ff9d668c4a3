"""Archives that a malicious signer would sign: every trick of the trade, each in a whole, sealed bundle file."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping

import onnx
from onnx import helper

from deploy.bundle import EPOCH, _sealed
from deploy.manifest import Manifest
from tests.support.tiny import tiny_contents, tiny_model

Members = list[tuple[zipfile.ZipInfo, bytes]]


def tricks() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each. The first is sound, and must be accepted: the others differ by the trick alone."""
    manifest, members = tiny_contents(name="tricks")
    sound = _listed(manifest, members)
    yield "sound", _packed(sound)
    for name in ("/etc/passwd", "../../evil", "golden/../../evil", "C:\\evil", "..\\evil", "golden/000.png/../../../e"):
        yield f"path {name}", _packed([*sound, (zipfile.ZipInfo(name, EPOCH), b"x")])
    for kind, mode in (("symbolic link", stat.S_IFLNK), ("device", stat.S_IFCHR), ("pipe", stat.S_IFIFO)):
        yield kind, _packed([_mode(item, mode) if item[0].filename == "report.html" else item for item in sound])
    yield "directory", _packed([*sound, (zipfile.ZipInfo("golden/", EPOCH), b"")])
    yield "hard link as of tar", _packed([*sound, (zipfile.ZipInfo("golden/hardlink", EPOCH), b"model.cpu.onnx")])
    yield "duplicate", _packed([*sound, (zipfile.ZipInfo("model.cpu.onnx", EPOCH), tiny_model(1.0))])
    yield "case twin", _packed([*sound, (zipfile.ZipInfo("MODEL.CPU.ONNX", EPOCH), tiny_model(1.0))])
    yield "unicode twin", _packed([*sound, (zipfile.ZipInfo("mode\uff4c.cpu.onnx", EPOCH), tiny_model(1.0))])
    yield "name with a zero byte", _packed(sound).replace(b"report.html", b"report\0html")
    yield "bomb", _packed([*sound, (zipfile.ZipInfo("golden/900.png", EPOCH), bytes(2**26))], zipfile.ZIP_DEFLATED)
    yield "claims of 4 GiB", _claiming(_packed(sound))
    yield "overlapping members", _overlapping(sound)
    yield "a million entries", _million()
    yield (
        "tar in place of zip",
        _sealed(b"report.html".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0") + bytes(1024)),
    )
    for name, model in (("external data", _external()), ("external data in a subgraph", _external_in_subgraph())):
        yield f"ONNX with {name}", _with_model(model)
    yield "ONNX with a custom operator", _with_model(_custom("evil.corp"))
    yield "ONNX with a contrib operator", _with_model(_custom("com.microsoft"))
    yield "ONNX that is none", _with_model(b"\x80\x04\x95cbuiltins\nexec\n.")
    yield "ONNX nested without end", _with_model(_nested())


def _listed(manifest: Manifest, members: Mapping[str, bytes]) -> Members:
    files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())}
    text = manifest.model_copy(update={"files": files}).model_dump_json().encode()
    return [(zipfile.ZipInfo(name, EPOCH), data) for name, data in {"manifest.json": text, **members}.items()]


def _packed(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    payload = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(payload, "w") as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for info, data in members:
            archive.writestr(info, data, compression if info.filename.endswith("900.png") else zipfile.ZIP_STORED)
    return _sealed(payload.getvalue())


def _mode(item: tuple[zipfile.ZipInfo, bytes], mode: int) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(item[0].filename, EPOCH)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info, b"/etc/passwd" if mode == stat.S_IFLNK else item[1]


def _claiming(bundle: bytes) -> bytes:
    """The first central record claims 4 GiB - 2 bytes, stored."""
    payload = bytearray(bundle[52:])
    at = payload.index(b"PK\x01\x02")
    payload[at + 20 : at + 28] = (0xFFFFFFFE).to_bytes(4, "little") * 2
    return _sealed(bytes(payload))


def _overlapping(members: Members) -> bytes:
    """Every record of the directory points at the largest member."""
    payload = bytearray(_packed(members)[52:])
    at, offsets = payload.index(b"PK\x01\x02"), []
    while payload[at : at + 4] == b"PK\x01\x02":
        size = int.from_bytes(payload[at + 20 : at + 24], "little")
        offsets.append((size, at))
        at += 46 + sum(int.from_bytes(payload[at + k : at + k + 2], "little") for k in (28, 30, 32))
    largest = max(offsets)[1]
    for _, at in offsets:
        payload[at + 16 : at + 28] = payload[largest + 16 : largest + 28]
        payload[at + 42 : at + 46] = payload[largest + 42 : largest + 46]
    return _sealed(bytes(payload))


def _million() -> bytes:
    """A million empty members, all of one local header: 55 MB of directory."""
    name = b"report.html"
    local = b"PK\x03\x04\x14" + bytes(25)
    local = local[:26] + len(name).to_bytes(2, "little") + b"\0\0" + name
    record = b"PK\x01\x02\x14\0\x14" + bytes(39)
    record = record[:28] + len(name).to_bytes(2, "little") + record[30:46] + name
    directory = record * 1_000_000
    count = (0xFFFF).to_bytes(2, "little")
    end = b"PK\x05\x06" + bytes(4) + count + count
    end += len(directory).to_bytes(4, "little") + len(local).to_bytes(4, "little") + bytes(2)
    return _sealed(local + directory + end)


def _with_model(model: bytes) -> bytes:
    """A bundle whose manifest and rule honestly belong to this model."""
    manifest, members = tiny_contents(name="tricks")
    raw = json.loads(manifest.model_dump_json())
    raw["variants"]["cpu"]["rule"]["model_sha256"] = hashlib.sha256(model).hexdigest()
    changed = Manifest.model_validate_json(json.dumps(raw))
    return _packed(_listed(changed, {**members, "model.cpu.onnx": model}))


def _changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(tiny_model())
    change(model)
    return bytes(model.SerializeToString())


def _outside(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def _external() -> bytes:
    return _changed(lambda model: _outside(model.graph.initializer[2]))


def _external_in_subgraph() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        weights = onnx.TensorProto()
        weights.CopyFrom(model.graph.initializer[2])
        weights.name = "w"
        _outside(weights)
        branch = helper.make_graph([], "branch", [], [], [weights])
        model.graph.node.append(helper.make_node("If", ["logits"], ["y"], then_branch=branch, else_branch=branch))

    return _changed(change)


def _custom(domain: str) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Exec", ["logits"], ["y"], domain=domain))

    return _changed(change)


def _nested() -> bytes:
    """Graphs within attributes within nodes within graphs, 200 deep."""
    graph = b""
    for _ in range(200):
        attribute = _field(6, graph)
        node = _field(5, attribute)
        graph = _field(1, node)
    return b"\x08\x0a" + _field(7, graph)


def _field(number: int, data: bytes) -> bytes:
    size, length = len(data), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data
