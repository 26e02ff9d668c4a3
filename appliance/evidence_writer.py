"""Writing evidence, in a thread of the camera process: no verdict ever waits for it, and what it cannot take is dropped
and counted."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.evidence import (
    CLASSES,
    EvidenceClass,
    EvidenceError,
    EvidenceRecord,
    camera_folder,
    encode_evidence,
    write_durably,
)
from appliance.evidence_shelf import Shelf
from calibration.preprocess import Frame

WAITING = 4
"""Frames that may wait to be written."""

STEP = 8
"""Files freed at a time."""

PAUSE_S = 5.0
"""After a failure nothing is tried for so long."""


class EvidenceWriter:
    """Evidence of one camera.

    Attributes:
        written, dropped: frames since the start.
        trouble: why the last one could not be written; empty when it was.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start the thread.

        `settings`: root, camera, database, quotas (bytes by class), per_second, and free_bytes, below which the disk is
        left to the database.
        """
        self._root = Path(settings["root"])
        self._folder = camera_folder(self._root, settings["camera"])
        self._camera, self._database = settings["camera"], Path(settings["database"])
        self._free_bytes, self._interval = int(settings["free_bytes"]), 1 / float(settings["per_second"])
        self._shelf = Shelf({EvidenceClass(kind): int(size) for kind, size in settings["quotas"].items()})
        self._queue: queue.Queue[tuple[EvidenceClass, EvidenceRecord, Frame] | None] = queue.Queue(WAITING)
        self._next = 0.0
        self._refused = self._failed = 0  # each counted by one thread alone
        self._reader: sqlite3.Connection | None = None
        self.written = 0
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were wanted and are not stored."""
        return self._refused + self._failed

    def offer(
        self, kind: EvidenceClass, seq: int, frame: Frame, trigger: int, mono_ns: int, crc: int, bundle: str
    ) -> None:
        """Store a frame if there is time for it; never waits. `bundle`: SHA-256 of the one that judges it."""
        now = time.monotonic()
        try:
            if now < self._next:
                raise queue.Full
            self._queue.put_nowait((kind, EvidenceRecord(seq, self._camera, trigger, mono_ns, crc, bundle), frame))
        except queue.Full:
            self._refused += 1
            return
        self._next = max(self._next, now - 1.0) + self._interval  # a second without any may be made up for

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most so long."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._scan()
        resume = 0.0
        while (item := self._take()) is not None:
            if not item:
                with suppress(OSError):
                    self._tidy()
                continue
            if time.monotonic() < resume:
                self._failed += 1
                continue
            try:
                self._store(*item)
                self.written += 1
                self.trouble = ""
            except (OSError, EvidenceError) as error:
                self._failed += 1
                self.trouble = str(error)
                resume = time.monotonic() + PAUSE_S

    def _take(self) -> tuple[EvidenceClass, EvidenceRecord, Frame] | tuple[()] | None:
        """What was offered; an empty tuple when nothing was for a second, None at the end."""
        try:
            return self._queue.get(timeout=1.0)
        except queue.Empty:
            return ()

    def _scan(self) -> None:
        """What is stored already, oldest first; halves of files are removed."""
        for kind in CLASSES:
            folder = self._folder / kind.value
            sizes = {}
            for path in folder.glob("*") if folder.is_dir() else ():
                with suppress(OSError, ValueError):
                    if path.suffix == ".tmp":
                        path.unlink()
                    else:
                        sizes[int(path.stem)] = path.stat().st_size
            for seq in sorted(sizes):
                self._shelf.add(kind, seq, sizes[seq])

    def _store(self, kind: EvidenceClass, record: EvidenceRecord, frame: Frame) -> None:
        """Make room and write. Raises OSError, EvidenceError."""
        data = encode_evidence(frame, record)
        folder = self._folder / kind.value
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < self._free_bytes + len(data):
            raise OSError("the disk is almost full; the database needs the rest")
        self._tidy(kind, len(data))
        if self._shelf.excess(kind, len(data)) > 0:
            raise EvidenceError(f"no room in the quota of class {kind.value}")
        write_durably(folder / f"{record.seq}.png", data)
        self._shelf.add(kind, record.seq, len(data))

    def _tidy(self, wanted: EvidenceClass | None = None, size: int = 0) -> None:
        """Free a few files, where a class is over its quota."""
        for _ in range(STEP):
            victim = self._shelf.next_to_free(self._is_open, wanted, size)
            if victim is None:
                return
            kind, seq = victim
            (self._folder / kind.value / f"{seq}.png").unlink(missing_ok=True)
            self._shelf.remove(kind, seq)

    def _is_open(self, seq: int) -> bool:
        """Whether a row waits for a person's verdict; while the database cannot be asked, it does."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM verdict WHERE seq = ?1) AND NOT EXISTS (SELECT 1 FROM review WHERE seq = ?1)"
        )
        try:
            if self._reader is None:
                self._reader = sqlite3.connect(f"{self._database.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
            return bool(self._reader.execute(query, (seq,)).fetchone()[0])
        except sqlite3.Error:
            return True
