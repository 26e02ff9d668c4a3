"""A worker process: `python -m appliance.worker camera|engine`, started by the supervisor and by nobody else.

Its settings come as JSON on standard input. It dies with its parent, ignores Ctrl-C (the supervisor decides when to
stop), and says in one message on its way out what went wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any

import zmq

from appliance.wire import END, pack_json

_PR_SET_PDEATHSIG = 1
Channel = zmq.Socket[bytes]


def main() -> int:
    """Run the worker named by the first argument; the exit code is 0 when it was told to stop."""
    settings = json.load(sys.stdin)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(settings["parent"])
    context: zmq.Context[Channel] = zmq.Context()
    try:
        channel = context.socket(zmq.DEALER)
        channel.setsockopt(zmq.IDENTITY, settings["identity"].encode("ascii"))
        channel.setsockopt(zmq.LINGER, 1000)
        channel.connect(settings["endpoint"])
        try:
            run(sys.argv[1], settings, channel)
        except Exception as error:  # the top of a worker: the supervisor is told, and decides
            traceback.print_exc()
            channel.send(pack_json(END, f"{type(error).__name__}: {error}"))
            return 1
    finally:
        context.destroy(linger=1000)
    return 0


def run(kind: str, settings: dict[str, Any], channel: Channel) -> None:
    """The worker's loop. Imports only what this kind of worker needs: restarts must be fast."""
    if kind == "camera":
        from appliance.camera import run_camera

        run_camera(settings, channel)
    else:
        from appliance.judging import run_engine

        run_engine(settings, channel)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request took effect
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
