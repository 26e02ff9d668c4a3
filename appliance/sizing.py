"""How many parts may be under way at once, given how fast this machine judges. Pure."""

from __future__ import annotations


def window(fps: float, batch: int) -> int:
    """Slots of one camera.

    As fast as they are judged (fps 0): one batch with the engine, one behind it, one frame in work; more would only
    wait longer. At a set rate: room for the stalls of a disk or a restart, before parts overflow.
    """
    return 2 * batch + 1 if fps <= 0 else max(4 * batch, 16)


def fitting_batch(size: int, part_ns: float, deadline_ns: int, unpaced: int) -> int:
    """The largest batch, at most `size` and at least 1, with which no part waits for more than half its deadline.

    Args:
        size: what the configuration asks for.
        part_ns: time the engine needs for one part of a full batch, measured on the goldens.
        deadline_ns: of a part.
        unpaced: cameras with fps 0: each has a batch under way beside the engine's own.
    """
    under_way = 2 * max(1, unpaced) + 1
    return max(1, min(size, int(deadline_ns / 2 / (max(part_ns, 1.0) * under_way))))
