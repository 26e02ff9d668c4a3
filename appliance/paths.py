"""Where a station's files and sockets lie."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InputError

SOCKET_PATH_MAX = 100
"""Bytes. Linux allows 107 in a Unix socket's address; the rest is room for the socket's name."""


@dataclass(frozen=True)
class StationPaths:
    """All paths of one station, derived from its data directory alone, so that daemon and clients agree on them.

    Attributes:
        data: the station's directory.
        run: 0700 directory of the sockets: `data/run`, or a short one below the temporary directory where that
            would be too long for a Unix socket.
    """

    data: Path
    run: Path

    @classmethod
    def of(cls, data: Path) -> StationPaths:
        """Paths for a data directory; touches no file."""
        data = Path(os.path.abspath(data))
        run = data / "run"
        if len(os.fsencode(run / "control")) > SOCKET_PATH_MAX:
            digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
            run = Path(tempfile.gettempdir()) / f"lineguard-{os.getuid()}-{digest}"
        return cls(data, run)

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.data / "station.db"

    @property
    def evidence(self) -> Path:
        """Directory of the frames kept as evidence."""
        return self.data / "evidence"

    @property
    def quarantine(self) -> Path:
        """Directory of databases that were damaged."""
        return self.data / "quarantine"

    @property
    def lock(self) -> Path:
        """Held by flock as long as a daemon owns the station; contains its pid."""
        return self.data / "station.lock"

    @property
    def control(self) -> Path:
        """Unix socket on which clients ask."""
        return self.run / "control"

    @property
    def relay(self) -> Path:
        """Unix socket of the simulated relay."""
        return self.run / "relay"

    @property
    def cameras(self) -> Path:
        """Unix socket to which the camera processes connect."""
        return self.run / "cameras"

    @property
    def engines(self) -> Path:
        """Unix socket to which the engine processes connect."""
        return self.run / "engines"


def make_directories(paths: StationPaths) -> None:
    """Make data and run directory; the latter belongs to this user alone.

    Raises:
        InputError: a path that cannot be made, or a run directory that another user could have planted.
    """
    try:
        paths.data.mkdir(parents=True, exist_ok=True)
        paths.run.mkdir(mode=0o700, exist_ok=True)
        found = paths.run.lstat()
    except OSError as error:
        raise InputError(
            f"{error.filename}: {error.strerror}; set station.data to a directory that user {os.getuid()} may write"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InputError(f"{paths.run}: not a directory of user {os.getuid()}; remove it and start again")
    if stat.S_IMODE(found.st_mode) != 0o700:
        paths.run.chmod(0o700)
