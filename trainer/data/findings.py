"""What an importer found that the user should know, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.errors import InputError
from trainer.data.manifest import SPLITS, Item, class_groups
from trainer.data.names import listed, printable
from trainer.data.scan import Look
from trainer.data.twins import Twins

TWINS = "twins.csv"


def pixel_warnings(look: Look, images: int) -> list[str]:
    """What of `images` files could not be used, and what looks odd in the others, one sentence each."""
    warnings = []
    if look.reasons:
        named = [f"{path} ({reason})" for path, reason in look.reasons.items()]
        warnings.append(f"{len(look.reasons)} of {images} images cannot be read and are left out: {listed(named)}")
    readable = len(look.thumbnails)
    if 0 < look.coloured < readable:
        warnings.append(f"{look.coloured} of {readable} images show colour, the rest are grey: all are taken as colour")
    if look.heights[1] >= 3 * look.heights[0] or look.widths[1] >= 3 * look.widths[0]:
        sizes = f"{look.widths[0]} to {look.widths[1]} px wide, {look.heights[0]} to {look.heights[1]} px high"
        warnings.append(f"frames are {sizes}: the model's input follows the largest; leave odd ones out or set --size")
    if look.blank:
        warnings.append(f"{look.blank} image(s) are of one single value: a capped lens, or a dark 16-bit picture?")
    return warnings


def split_warnings(
    items: Sequence[Item], classes: Sequence[str], ok_class: str, fractions: tuple[float, float, float]
) -> list[str]:
    """What the groups made impossible, one sentence each. Raises InputError where a split wanted got nothing at all."""
    warnings = []
    used = [split for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    for split in used:
        labels = {item.label for item in items if item.split == split}
        if not labels:
            raise InputError(
                f"no image is left for {split}: too few groups (parts) in the classes; add parts or correct groups.csv"
            )
        if ok_class not in labels or labels == {ok_class}:
            lacks = "good part" if ok_class not in labels else "defect"
            warnings.append(f"no {lacks} is in {split}: escape rate and overkill cannot be told from it; add parts")
    groups = class_groups(tuple(items))
    for name in classes:
        missing = [s for s in used if not any(item.split == s and item.label == name for item in items)]
        if missing:
            warnings.append(
                f"class {name!r} is in {len(groups.get(name, ()))} group(s) only and is missing from "
                f"{' and '.join(missing)}; three groups or more are needed to learn and to measure it"
            )
    return warnings


def twin_warnings(twins: Twins, items: Sequence[Item], test_twins: int) -> list[str]:
    """What near-twins across splits mean, the ten most alike by name. `test_twins`: test images among them."""
    if len(twins.pairs) == 0:
        return []
    strongest = np.argsort(-twins.similarity, kind="stable")[:10]
    named = [f"{items[i].path} ~ {items[j].path}" for i, j in twins.pairs[strongest].tolist()]
    tests = sum(item.split == "test" for item in items)
    more = f" and {len(twins.pairs) - len(named)} more in {TWINS}" if len(twins.pairs) > len(named) else ""
    return [
        f"{test_twins} of {tests} test images have a near-twin in train or val, so that scores will flatter the model "
        f"({len(twins.pairs)} pairs across splits: {', '.join(map(printable, named))}{more}). Say which images show "
        "the same part in a groups.csv, or let --group-twins keep twins together"
    ]
