"""Load for one peer: `client.py PEER PORT DIRECTORY START SECONDS`, 8 frames in flight, each answer checked.

Prints JSON: the images answered within SECONDS after the monotonic time START. Its own CPU time is not the peer's.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

IN_FLIGHT = 8
BOUNDARY = "frame-boundary-7d1c"


def plain(connection: http.client.HTTPConnection, frame: bytes) -> int:
    """The frame as body; the number of logits."""
    connection.request("POST", "/predict", frame, {"Content-Type": "application/octet-stream"})
    return len(json.loads(connection.getresponse().read()))


def form(connection: http.client.HTTPConnection, frame: bytes) -> int:
    """The frame as a file of a form; the number of logits."""
    disposition = 'Content-Disposition: form-data; name="frame"; filename="frame"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = head.encode() + frame + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection.request("POST", "/predict", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    return len(json.loads(connection.getresponse().read()))


def triton(connection: http.client.HTTPConnection, frame: bytes) -> int:
    """The frame as a binary tensor of Triton's HTTP protocol; the number of logits."""
    inputs = [
        {"name": "frame", "shape": [1, *SHAPE], "datatype": "UINT8", "parameters": {"binary_data_size": len(frame)}}
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "logits"}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    connection.request("POST", "/v2/models/parts/infer", head + frame, headers)
    return len(json.loads(connection.getresponse().read())["outputs"][0]["data"])


CALLS: dict[str, Callable[[http.client.HTTPConnection, bytes], int]] = {
    "fastapi": plain,
    "litserve": form,
    "pytriton": triton,
}
peer, port, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
start, seconds = float(sys.argv[4]), float(sys.argv[5])
stored = np.load(directory / "frames.npy", mmap_mode="r")
SHAPE = stored.shape[1:]
frames = [frame.tobytes() for frame in stored]
counts = [0] * IN_FLIGHT
ended = [False] * IN_FLIGHT


def run(index: int) -> None:
    """One frame after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    turn = index
    while (now := time.monotonic()) < start + seconds:
        if CALLS[peer](connection, frames[turn % len(frames)]) < 2:
            return
        turn += 1
        counts[index] += now >= start
    ended[index] = True


threads = [threading.Thread(target=run, args=(index,)) for index in range(IN_FLIGHT)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if not all(ended):
    sys.exit("an answer without logits")
print(json.dumps(sum(counts)))
