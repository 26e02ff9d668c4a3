"""A real Triton server on loopback: the one that PyTriton's wheel carries, with its Python backend and no other.

The backend's stub is linked against one Python, and must load that one's library: with another build of the same
version the library and the standard library do not fit (`RLock._recursion_count` is missing then).
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build" / "peers" / "requirements-pytriton" / "bin" / "python"
"""Made by `python -m benchmarks.triton` or `make peers`."""
START_S = 60.0
_ASK = """
import json, sys, sysconfig
from importlib.util import find_spec
print(json.dumps([find_spec("pytriton").submodule_search_locations[0], "%d.%d" % sys.version_info[:2],
                  sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("Py_ENABLE_SHARED")]))
"""


class ServerError(Exception):
    """The server does not run here; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What a server said of a part."""

    decision: str
    defect_probability: float
    logits: NDArray[np.float32]


class Server:
    """A running server's HTTP side."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ready(self, model: str) -> bool:
        """Whether a model may be asked."""
        try:
            self._connection.request("GET", f"/v2/models/{model}/ready")
            answer = self._connection.getresponse()
            answer.read()
            return answer.status == 200
        except (OSError, http.client.HTTPException):
            self.close()
            return False

    def close(self) -> None:
        """Hang up; the next question dials again."""
        self._connection.close()

    def judge(self, model: str, frames: NDArray[np.uint8]) -> list[Answer]:
        """Frames of one size, (n, H, W) or (n, H, W, 3). Raises ServerError with what the server says."""
        data = frames.tobytes()
        given = {"name": "frame", "shape": frames.shape, "datatype": "UINT8"}
        wanted = [{"name": name} for name in ("decision", "defect_probability", "logits")]
        wanted[1]["parameters"] = wanted[2]["parameters"] = {"binary_data": True}  # type: ignore[assignment]
        head = json.dumps(
            {"inputs": [{**given, "parameters": {"binary_data_size": len(data)}}], "outputs": wanted}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        self._connection.request("POST", f"/v2/models/{model}/infer", head + data, headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ServerError(body.decode(errors="replace"))
        return _answers(body, int(answer.headers["Inference-Header-Content-Length"]))


def _answers(body: bytes, header: int) -> list[Answer]:
    tensors: dict[str, Any] = {}
    at = header
    for output in json.loads(body[:header])["outputs"]:
        if "data" in output:
            tensors[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        kind = {"FP64": np.float64, "FP32": np.float32}[output["datatype"]]
        tensors[output["name"]] = np.frombuffer(body[at : at + size], kind).reshape(output["shape"])
        at += size
    probabilities = tensors["defect_probability"][:, 0].tolist()
    return [Answer(*each) for each in zip(tensors["decision"], probabilities, tensors["logits"], strict=True)]


@contextmanager
def serving(python: Path, repository: Path, model: str, folder: Path) -> Iterator[Server]:
    """A server with a repository, its model ready. It is ended afterwards, whatever happened.

    Args:
        python: of an environment with nvidia-pytriton and what the repository's parts import.
        folder: an existing directory for the server's files and its log, FOLDER/log.

    Raises:
        ServerError: it does not start.
    """
    asked = subprocess.run([str(python), "-c", _ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ServerError(f"{python}: no nvidia-pytriton: {asked.stderr.strip()[-200:]}")
    package, version, library, shared = json.loads(asked.stdout)
    carried = Path(package, "tritonserver")
    stub = carried / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not shared or not stub.exists():
        raise ServerError(f"{python}: Triton's Python backend needs a Python 3.8 to 3.13 with a shared library")
    shutil.copytree(carried / "backends", folder / "backends")
    shutil.copy(stub, folder / "backends" / "python")
    libraries = ":".join(
        filter(
            None, [library, str(Path(package).parent / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
        )
    )
    path = f"{python.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    port = free_port()
    words = [str(carried / "bin" / "tritonserver"), "--model-repository", str(repository), "--http-port", str(port)]
    words += ["--http-address", "127.0.0.1", "--allow-grpc", "false", "--allow-metrics", "false"]
    words += ["--backend-directory", str(folder / "backends"), "--exit-timeout-secs", "5"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    server = Server(port)
    try:
        until = time.monotonic() + START_S
        while not server.ready(model):
            if process.poll() is not None or time.monotonic() > until:
                raise ServerError((folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.1)
        yield server
    finally:
        server.close()  # it would wait for open connections
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
