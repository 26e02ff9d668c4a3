"""Which of the classes means a good part, and the groups a person wrote down."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from calibration.errors import InputError
from trainer.data.fields import check_header
from trainer.data.names import is_safe, listed

# fmt: off
OK_NAMES = frozenset((
    "ok", "okay", "good", "normal", "free", "pass", "passed", "functional", "clean", "perfect", "intact", "accept",
    "accepted", "healthy", "nominal", "flawless", "undamaged", "faultless", "sound", "io", "gut", "no_defect",
    "no_defects", "defect_free", "non_defective", "nondefective", "not_defective", "without_defect", "undefective",
    "no_crack", "non_crack", "no_damage", "no_fault", "fault_free", "no_anomaly",
))
NEGATIONS = frozenset(("not", "no", "non", "nok", "ng", "un", "bad", "never", "without"))
# fmt: on


def choose_ok(counts: Mapping[str, int], wanted: str | None) -> tuple[str, str, str | None]:
    """The OK class, how it was chosen (a sentence), and a warning or None.

    `wanted` decides; else the one class whose name says so (ok, good, defect_free, 01-OK ...); else the largest class,
    with a warning, since most parts of a line are good.

    Args:
        counts: images per class.

    Raises:
        InputError: no such class, or several names say so.
    """
    if wanted is not None:
        if wanted not in counts:
            raise InputError(f"--ok {wanted!r}: no such class; the classes are {', '.join(sorted(counts))}")
        return wanted, "named by the user", None
    for says_ok in (_is_ok_name, _holds_ok_word):
        found = sorted(name for name in counts if says_ok(name))
        if len(found) == 1:
            return found[0], f"by its name {found[0]!r}", None
        if found:
            raise InputError(
                f"classes {', '.join(found)} all sound like good parts; name the one that is with --ok NAME"
            )
    largest = max(sorted(counts), key=lambda name: counts[name])
    warning = (
        f"no class name says that its parts are good: taking the largest, {largest!r} ({counts[largest]} of "
        f"{sum(counts.values())} images), as OK. If that is wrong every verdict will be: name it with --ok NAME"
    )
    return largest, f"guessed: {largest!r} is the largest class", warning


def _words(name: str) -> list[str]:
    """Lower-case words of a class name, numbers left out: '01-Defect Free' -> ['defect', 'free']."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return [word for word in re.split(r"[\W_]+", spaced.casefold()) if word and not word.isdigit()]


def _is_ok_name(name: str) -> bool:
    return "_".join(_words(name)) in OK_NAMES or "".join(_words(name)) in OK_NAMES


def _holds_ok_word(name: str) -> bool:
    words = set(_words(name))
    return bool(words & OK_NAMES) and not words & NEGATIONS


def read_groups(path: Path, images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Group of each image named in a groups.csv (columns path,group), and warnings about what does not match.

    Args:
        images: the paths found on disk, to compare with.

    Raises:
        InputError: not such a table, an empty field, a path in two groups, or no path at all that exists.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a CSV with the columns path,group") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error}); give a CSV with the columns path,group") from None
    if len(rows) < 2:
        raise InputError(f"{path}: no rows in it; list path,group of each image, or delete the file")
    check_header(path, rows[0], ("path", "group"))
    found: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != 2 or not row[0].strip() or not row[1].strip() or not is_safe(row[0] + row[1]):
            raise InputError(f"{path}, line {line}: {row} is not one path and one group name")
        name, group = PurePosixPath(row[0].strip().replace("\\", "/")).as_posix(), row[1].strip()
        if found.setdefault(name, group) != group:
            raise InputError(f"{path}, line {line}: {name!r} is in group {found[name]!r} and in {group!r}; keep one")
    present = set(images)
    missing = sorted(name for name in found if name not in present)
    if len(missing) == len(found):
        raise InputError(
            f"{path}, path: none of its {len(found)} images exists (first: {missing[0]!r}); "
            "write paths relative to the image folder, e.g. scratch/part1.png"
        )
    unlisted = sorted(present - found.keys())
    warnings = []
    if missing:
        warnings.append(f"{path} lists {len(missing)} image(s) that do not exist: {listed(missing)}")
    if unlisted:
        warnings.append(
            f"{path} leaves out {len(unlisted)} image(s), each taken as a part of its own: {listed(unlisted)}"
        )
    return {name: group for name, group in found.items() if name in present}, warnings
