"""Reading a station's database. Used by the daemon, and by screens when no daemon answers."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.counting import UNSEEN_MAX, CountNote, unfinished
from appliance.messages import AlertRow, Counts, Reason, RejectRow
from appliance.schema import VERDICT_COLUMNS, check_current
from calibration.errors import InputError
from calibration.values import BINS

_REJECTS = (
    "SELECT seq, utc, serial, lot, camera, reason, top_class, defect_probability FROM verdict "
    "WHERE verdict = 'REJECT' ORDER BY seq DESC LIMIT ?"
)
_ALERTS = (
    "SELECT id, utc, kind, message, acknowledged_by FROM alert WHERE acknowledged_by = '' ORDER BY id DESC LIMIT ?"
)


def open_readonly(path: Path) -> closing[sqlite3.Connection]:
    """A connection that cannot write, closed by the `with` statement.

    Raises:
        InputError: there is no readable database.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0, isolation_level=None)
        check_current(connection)
    except (sqlite3.Error, InputError) as error:
        raise InputError(f"{path}: {error}; start the station with `appliance run`") from None
    return closing(connection)


def tally(connection: sqlite3.Connection) -> Counter[tuple[str, str]]:
    """Parts by (camera, reason value) since the database was made. A PASS has the reason ""."""
    return Counter({(camera, reason): n for camera, reason, n in connection.execute("SELECT * FROM tally")})


def line_count(connection: sqlite3.Connection, camera: str) -> tuple[CountNote | None, tuple[int, ...]]:
    """Where the line's own count stood when the station went down (None: it never told one), and the triggers before
    it that have no row: their parts were under way when the supervisor died."""
    query = "SELECT new FROM audit WHERE action = ? ORDER BY id DESC LIMIT 1"
    told = connection.execute(query, (f"count {camera}",)).fetchone()
    if told is None:
        return None, ()
    begun, offset = map(int, told[0].split())
    limit = 2 * UNSEEN_MAX
    query = "SELECT trigger FROM verdict WHERE camera = ? ORDER BY seq DESC LIMIT ?"
    triggers = [trigger for (trigger,) in connection.execute(query, (camera, limit))]
    oldest = connection.execute("SELECT min(seq) FROM verdict").fetchone()[0]
    until = max(begun, *(trigger + 1 for trigger in triggers)) if triggers else begun
    whole = len(triggers) < limit and oldest == 1
    return CountNote(until, offset), unfinished(triggers, begun, whole, until)


def last_checksums(connection: sqlite3.Connection, camera: str, limit: int) -> list[int]:
    """Of a camera's last frames, oldest first."""
    query = "SELECT crc FROM verdict WHERE camera = ? AND crc IS NOT NULL ORDER BY seq DESC LIMIT ?"
    return [crc for (crc,) in connection.execute(query, (camera, limit))][::-1]


def counts(parts: Mapping[tuple[str, str], int]) -> Counts:
    """The operator's counts of a tally."""
    by_reason = rejects_by_reason(parts)
    total, ok = sum(parts.values()), sum(n for (_, reason), n in parts.items() if reason == Reason.NONE.value)
    defect, unsure = by_reason.get(Reason.DEFECT.value, 0), by_reason.get(Reason.UNSURE.value, 0)
    return Counts(triggers=total, ok=ok, defect=defect, unsure=unsure, not_inspected=total - ok - defect - unsure)


def rejects_by_reason(parts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Rejected parts of a tally by reason value; reasons that never occurred are left out."""
    total: Counter[str] = Counter()
    for (_, reason), n in parts.items():
        if reason != Reason.NONE.value and n:
            total[reason] += n
    return dict(total)


def recent_rejects(connection: sqlite3.Connection, limit: int = 50) -> tuple[RejectRow, ...]:
    """The last rejected parts, newest first."""
    fields = ("seq", "utc", "serial", "lot", "camera", "reason", "top_class", "defect_probability")
    return tuple(
        RejectRow.model_validate(dict(zip(fields, row, strict=True))) for row in connection.execute(_REJECTS, (limit,))
    )


def verdicts(connection: sqlite3.Connection, last: int) -> list[dict[str, Any]]:
    """The last `last` rows of table verdict, oldest first, without the raw logits."""
    shown = [name for name in VERDICT_COLUMNS if name != "logits"]
    query = f"SELECT {', '.join(shown)} FROM verdict ORDER BY seq DESC LIMIT ?"  # noqa: S608  names of our own columns
    rows = connection.execute(query, (last,)).fetchall()
    return [dict(zip(shown, row, strict=True)) for row in reversed(rows)]


def verdicts_of(connection: sqlite3.Connection, serial: str) -> list[dict[str, Any]]:
    """All rows of a part, oldest first, with their raw logits."""
    query = f"SELECT {', '.join(VERDICT_COLUMNS)} FROM verdict WHERE serial = ? ORDER BY seq"  # noqa: S608  as above
    return [dict(zip(VERDICT_COLUMNS, row, strict=True)) for row in connection.execute(query, (serial,))]


def open_cases(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Rows that wait for a person, newest first: UNSURE ones, and those drawn at random. What the model said of the
    latter is kept back (None), so that it does not sway whoever judges."""
    fields = ("seq", "utc", "serial", "lot", "camera", "frame", "top_class", "defect_probability", "kind")
    query = (
        "SELECT seq, utc, serial, lot, camera, frame, top_class, defect_probability, 'unsure' FROM verdict "
        "WHERE verdict = 'REJECT' AND reason = 'UNSURE' AND seq NOT IN (SELECT seq FROM review) "
        "UNION ALL SELECT seq, utc, serial, lot, camera, frame, NULL, NULL, 'sample' "
        "FROM verdict JOIN sample USING (seq) WHERE seq NOT IN (SELECT seq FROM review) ORDER BY seq DESC"
    )
    for row in connection.execute(query):
        yield dict(zip(fields, row, strict=True))


def judged_by_people(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Rows that a person has judged, oldest first, with the last judgement of each and who gave it."""
    shown = [name for name in VERDICT_COLUMNS if name != "logits"]
    query = (
        f"SELECT {', '.join(f'verdict.{name}' for name in shown)}, review.decision, review.operator, review.utc "  # noqa: S608  as above
        "FROM review JOIN verdict USING (seq) WHERE review.id IN (SELECT max(id) FROM review GROUP BY seq) ORDER BY seq"
    )
    fields = (*shown, "person", "operator", "judged_utc")
    return [dict(zip(fields, row, strict=True)) for row in connection.execute(query)]


def open_alerts(connection: sqlite3.Connection, limit: int = 100) -> tuple[AlertRow, ...]:
    """Alerts that nobody has acknowledged, newest first."""
    fields = ("id", "utc", "kind", "message", "acknowledged_by")
    return tuple(
        AlertRow.model_validate(dict(zip(fields, row, strict=True))) for row in connection.execute(_ALERTS, (limit,))
    )


def audit_entries(connection: sqlite3.Connection, last: int) -> list[dict[str, Any]]:
    """The last `last` entries of the audit, oldest first, with their hashes."""
    fields = ("id", "utc", "actor", "action", "old", "new", "hash")
    query = f"SELECT {', '.join(fields)} FROM audit ORDER BY id DESC LIMIT ?"  # noqa: S608  names of our own columns
    return [dict(zip(fields, row, strict=True)) for row in reversed(connection.execute(query, (last,)).fetchall())]


def histogram(connection: sqlite3.Connection, since_utc: str = "") -> tuple[int, ...]:
    """Parts per bin of defect probability, over all cameras, classes and bundles, from minute `since_utc` on."""
    bins = [0] * BINS
    rows = connection.execute("SELECT bin, sum(parts) FROM histogram WHERE minute >= ? GROUP BY bin", (since_utc[:16],))
    for index, parts in rows:
        bins[index] = parts
    return tuple(bins)


def last_bundle(connection: sqlite3.Connection) -> str:
    """SHA-256 of the bundle that judged the last part; empty where none was judged."""
    row = connection.execute("SELECT bundle FROM verdict ORDER BY seq DESC LIMIT 1").fetchone()
    return row[0] if row else ""
