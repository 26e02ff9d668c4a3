"""Parts that wait for a person's judgement, with their pictures."""

from __future__ import annotations

from itertools import islice

from appliance import history
from appliance.config import Station
from appliance.evidence import find_evidence
from appliance.messages import Case
from appliance.paths import StationPaths


def open_cases(station: Station, last: int) -> tuple[Case, ...]:
    """At most `last` of them, newest first; whether a daemon runs or not.

    A part drawn at random is no case any more once its picture is gone: nobody could judge it as if it were there.

    Raises:
        InputError: there is no readable database.
    """
    paths = StationPaths.of(station.station.data)
    with history.open_readonly(paths.database) as connection:
        found = (
            Case(**row, evidence=str(find_evidence(paths.evidence, row["camera"], row["seq"]) or ""))
            for row in history.open_cases(connection)
        )
        return tuple(islice((case for case in found if case.evidence or case.kind == "unsure"), last))
