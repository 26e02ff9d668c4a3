"""A pseudo terminal with a program on it, as its controlling terminal: what an ssh session is to the program."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a login shell ignores none, whatever started the tests does
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A pseudo terminal with a program on it."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.resize(80, 24)
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *arguments], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT
        )
        os.close(slave)
        self.seen = b""
        self.open = True

    def hang_up(self) -> None:
        """Take the terminal away, as a broken ssh connection does."""
        if self.open:
            os.close(self.master)
            self.open = False

    def resize(self, width: int, height: int) -> None:
        """Change the size, as a window manager would."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self.master, keys.encode())

    def read(self, seconds: float) -> None:
        """Take what the program writes for so long, or until it ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.master], [], [], left)[0]:
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:  # Linux: the other side is closed
                break

    def read_until(self, text: str, seconds: float = 20.0) -> None:
        """Take what the program writes until it has written a text. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            if time.monotonic() > end:
                raise TimeoutError(f"no {text!r} in {self.seen[-2000:]!r}")
            self.read(0.1)

    def wait(self, seconds: float = 10.0) -> int:
        """Exit status of the program; its last words are read."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.05)
        return self.process.wait(0.1)


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    """Python with these arguments on a pseudo terminal, killed at the end if it still runs."""
    it = Terminal(arguments, environment)
    try:
        yield it
    finally:
        if it.process.poll() is None:
            it.process.kill()
            it.process.wait()
        it.hang_up()
