"""Many devices on one machine, for benchmarks.push: each answers in a process of its own, as `deploy serve` does.

A hundred devices start a hundred interpreters on a hundred processors of their own. Here all would share the two cores
of the workstation that is measured, so one process imports the device's code beforehand and forks for each push: what a
device does with a bundle is done in full, what it takes to start Python is left out. `--cold` in benchmarks.push
measures with it.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

RELAY = """\
#!{python} -ISE
import array, socket, sys
host = socket.socket(socket.AF_UNIX)
host.connect({path!r})
descriptors = array.array("i", [0, 1, 2])
host.sendmsg([sys.argv[2].encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
host.recv(1)
"""
"""What sshd starts for `deploy serve ROOT`: hands its streams to the host, and lives as long as the answer takes."""


class DeviceHost:
    """The process that forks devices. `program` is what an inventory names.

    Args:
        folder: of the socket and the program; it exists.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "devices.sock"
        self.program = folder / "deploy"
        self.program.write_text(RELAY.format(python=sys.executable, path=str(path)))
        self.program.chmod(0o755)
        command = [sys.executable, "-m", "benchmarks.simulated_devices", str(path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the devices do not start; see the message above"

    def stop(self) -> None:
        """End it; devices that still answer end with their connections."""
        self._process.terminate()
        self._process.communicate(timeout=10)


def host(path: Path) -> None:
    """Fork a device for each program that hands over its streams."""
    from deploy import trust  # noqa: F401  imported before the forks, as the device would import it
    from deploy.serve import serve

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        print("ready", flush=True)
        gc.freeze()
        while True:
            relay, _ = listener.accept()
            root, ancillary, _, _ = relay.recvmsg(4096, socket.CMSG_SPACE(12))
            descriptors = array.array("i", ancillary[0][2])
            if os.fork() == 0:
                listener.close()
                for standard, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, standard)
                serve(Path(root.decode()))
                os._exit(0)
            relay.close()
            for descriptor in descriptors:
                os.close(descriptor)


if __name__ == "__main__":
    host(Path(sys.argv[1]))
