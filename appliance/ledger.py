"""Verdict rows on their way to disk, and the PASS that leaves only after them."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path

from appliance import history
from appliance.batcher import Part
from appliance.judge import Judgement, PassToken
from appliance.messages import Counts, Reason, RejectRow, Verdict
from appliance.monitor.statistics import Statistics
from appliance.outputs import Output
from appliance.store import DatabaseLostError, Store, StoreError, VerdictRow, utc_text
from appliance.wire import MissNote

GROUP_NS = 25_000_000
"""From one commit to the next at least: the first row after a pause is committed at once, the next ones share one."""

PATIENCE_NS = 10_000_000
"""A commit that is due waits at most so long for something else to wake the loop: waking it for the commit alone costs
more than the commit."""

GROUP_ROWS = 64
RETRY_NS = 500_000_000
SHOWN = 50


class Ledger:
    """One row for each part, committed in groups; afterwards, and only then, its PASS.

    Attributes:
        bundle: SHA-256 of the bundle that judges now.
        statistics: rate and latency, counted when rows are durable.
        failure: why the last commit failed; empty when it did not.
        lost: it failed because the database can never be used again.
        rows: made durable in this run.
    """

    def __init__(self, store: Store, lot: str, bundle: str, output: Output) -> None:
        """`bundle` is the SHA-256 of the bundle that judges; `lot` is written on the row of a part that has none."""
        self._store, self._lot, self.bundle, self._output = store, lot, bundle, output
        self._boot_id = boot_id()
        self._before = Counter(store.tally)
        self._next_seq = store.next_seq
        self._tokens: dict[int, PassToken] = {}
        self._given: dict[int, VerdictRow] = {}
        self._unpassed: dict[Reason, list[VerdictRow]] = {Reason.LATE: [], Reason.OUTPUT: []}
        self._due_ns: int | None = None
        self._committed_ns = 0
        self._utc_offset_ns = time.time_ns() - time.monotonic_ns()
        self._rejects = deque(store.recent_rejects(SHOWN), maxlen=SHOWN)
        self._new_rejects: deque[VerdictRow] = deque(maxlen=SHOWN)
        self._second, self._second_text = 0, ""
        self.statistics = Statistics()
        self.failure, self.lost = "", False
        self.rows = 0

    def judged(
        self,
        part: Part,
        judgement: Judgement,
        engine_ns: tuple[int, int],
        now_ns: int,
        place: tuple[int, int] | None = None,
        bundle: str = "",
    ) -> int:
        """Queue the row of a part that had a frame; returns its number.

        `engine_ns`: start and end of its batch, 0 where there was none. `place`: size of that batch, and where in it.
        `bundle`: SHA-256 of the one that the part was preprocessed for; the one that judges now where that is empty.
        """
        started, ended = engine_ns if engine_ns[0] else (now_ns, now_ns)
        latency = (part.ready_ns - part.triggered_ns, started - part.ready_ns, ended - started)
        row = self._row(part, judgement, latency, now_ns, part.crc, place or (None, None), bundle)
        if judgement.verdict is Verdict.PASS:
            self._tokens[row.seq] = PassToken(
                row.seq, part.camera, part.trigger, part.crc, row.bundle, part.deadline_ns, part.tag
            )
        self._queue(row, judgement.bin, now_ns)
        return row.seq

    def draw(self, seq: int) -> None:
        """A person shall judge the part of this row, which is queued still."""
        self._store.draw(seq)

    def missed(self, camera: str, note: MissNote, judgement: Judgement, now_ns: int) -> None:
        """Queue the row of a trigger without a usable frame."""
        at = note.triggered_ns
        part = Part(camera, note.trigger, note.name, -1, 0, at, at, at, note.serial, note.lot)
        self._queue(self._row(part, judgement, (0, 0, 0), now_ns, None, (None, None)), None, now_ns)

    def due_ns(self) -> int | None:
        """When the queued rows may be committed; None where none are queued."""
        return self._due_ns

    def wake_ns(self) -> int | None:
        """When the loop has to wake for them if nothing else wakes it."""
        return None if self._due_ns is None else self._due_ns + PATIENCE_NS

    def commit(self, now_ns: int) -> bool:
        """Make the queued rows durable, then let their parts pass; returns whether that worked.

        When it did not, no queued part will ever pass (its row becomes REJECT(LOG)), and the rows are tried again.
        """
        self._due_ns, self._committed_ns = None, now_ns
        try:
            rows = self._store.commit()
            self._release(rows)
            for reason, unpassed in self._unpassed.items():
                if unpassed:
                    self._store.revoke(unpassed, reason)
                    unpassed.clear()
        except StoreError as error:
            self._tokens.clear()
            self._store.withhold(Reason.LOG)
            self._due_ns = now_ns + RETRY_NS
            self.failure, self.lost = str(error), isinstance(error, DatabaseLostError)
            return False
        self.failure = ""
        return True

    def follow_output(self, now_ns: int) -> bool:
        """Learn what became of PASSes that were given: a part whose PASS did not arrive becomes REJECT(OUTPUT).

        Returns whether nothing is open any more."""
        for seq, passed in self._output.settled():
            row = self._given.pop(seq, None)
            if row is not None and not passed:
                self._withdraw(row, Reason.OUTPUT)
        if self._unpassed[Reason.OUTPUT] and self._due_ns is None:
            self._due_ns = now_ns
        return not self._given and not self._unpassed[Reason.OUTPUT]

    def _withdraw(self, row: VerdictRow, reason: Reason) -> None:
        self._unpassed[reason].append(row)
        self._new_rejects.append(row._replace(reason=reason.value))

    def _release(self, rows: list[VerdictRow]) -> None:
        """Rows that have just become durable: their parts pass, unless the disk took until after the deadline."""
        now_ns = time.monotonic_ns()
        tokens = [(row, self._tokens[row.seq]) for row in rows if row.seq in self._tokens]
        self._tokens.clear()
        for row, token in tokens:
            if now_ns < token.deadline_ns:
                self._given[row.seq] = row
            else:
                self._withdraw(row, Reason.LATE)
        self._output.release([token for _, token in tokens if now_ns < token.deadline_ns], now_ns)
        self.follow_output(now_ns)
        self.rows += len(rows)
        self.statistics.add([now_ns - row.mono_ns for row in rows], now_ns)

    @property
    def queued(self) -> int:
        """Rows that are not durable yet."""
        return len(self._store.pending)

    def counts(self) -> Counts:
        """Since the database was made."""
        return history.counts(self._store.counted())

    def run_counts(self) -> tuple[Counts, dict[str, int]]:
        """Since the daemon started: counts, and rejects by reason."""
        run = self._store.counted()
        run.subtract(self._before)
        return history.counts(run), history.rejects_by_reason(run)

    def rejects_by_reason(self) -> dict[str, int]:
        """Since the database was made."""
        return history.rejects_by_reason(self._store.counted())

    def rejects(self) -> tuple[RejectRow, ...]:
        """The last rejected parts, newest first."""
        while self._new_rejects:
            row = self._new_rejects.popleft()
            self._rejects.appendleft(
                RejectRow(
                    seq=row.seq,
                    utc=row.utc,
                    serial=row.serial,
                    lot=row.lot,
                    camera=row.camera,
                    reason=Reason(row.reason),
                    top_class=row.top_class,
                    defect_probability=row.defect_probability,
                )
            )
        return tuple(self._rejects)

    def follow_clock(self) -> None:
        """Take over a wall clock that was set; rows in the queue keep their times."""
        self._utc_offset_ns = time.time_ns() - time.monotonic_ns()

    def _row(
        self,
        part: Part,
        judgement: Judgement,
        latency_ns: tuple[int, int, int],
        now_ns: int,
        crc: int | None,
        place: tuple[int | None, int | None],
        bundle: str = "",
    ) -> VerdictRow:
        seq = self._next_seq
        self._next_seq += 1
        return VerdictRow(
            seq=seq,
            camera=part.camera,
            trigger=part.trigger,
            frame=part.frame,
            serial=part.serial or str(seq),
            lot=part.lot or self._lot,
            utc=self._utc(part.triggered_ns),
            mono_ns=part.triggered_ns,
            boot_id=self._boot_id,
            decision=judgement.decision.value if judgement.decision else None,
            verdict=judgement.verdict.value,
            reason=judgement.reason.value,
            detail=judgement.detail,
            top_class=judgement.top_class,
            defect_probability=judgement.defect_probability,
            logits=judgement.logits,
            crc=crc,
            bundle=bundle or self.bundle,
            read_us=latency_ns[0] // 1000,
            wait_us=latency_ns[1] // 1000,
            engine_us=latency_ns[2] // 1000,
            total_us=(now_ns - part.triggered_ns) // 1000,
            batch=place[0],
            position=place[1],
        )

    def _utc(self, mono_ns: int) -> str:
        """Wall clock of a monotonic time. Its seconds are put into words once for all rows that share them."""
        second, rest = divmod(mono_ns + self._utc_offset_ns, 10**9)
        if second != self._second:
            self._second, self._second_text = second, utc_text(second)[:20]
        return f"{self._second_text}{rest // 1000:06d}Z"

    def _queue(self, row: VerdictRow, bin_: int | None, now_ns: int) -> None:
        self._store.add(row, bin_)
        if row.verdict != Verdict.PASS.value:
            self._new_rejects.append(row)
        if self._due_ns is None:
            self._due_ns = max(now_ns, self._committed_ns + GROUP_NS)
        elif len(self._store.pending) >= GROUP_ROWS and not self.failure:
            self._due_ns = now_ns


def boot_id() -> str:
    """Names this boot of the machine: monotonic times of different boots do not compare."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
