"""The model is judged on exactly the pixels it was trained on: trainer and appliance give equal tensors, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from appliance.ring import Ring
from appliance.sources import open_source
from calibration.preprocess import PreprocessSpec
from tests.support.folders import FolderSpec, write_folder
from trainer.data.loader import load_split, spec_for
from trainer.data.manifest import Dataset, Item

CASES = {
    "grey, smaller": (FolderSpec(64, 96, (4, 4)), (32, 48)),
    "grey, much smaller and odd": (FolderSpec(211, 333, (4, 4)), (23, 37)),
    "grey, larger": (FolderSpec(24, 40, (4, 4)), (48, 80)),
    "colour": (FolderSpec(64, 96, (4, 4), colour=True), (30, 50)),
    "colour JPEG": (FolderSpec(64, 96, (4, 4), colour=True, suffix=".jpg"), (32, 32)),
    "frames of many shapes, padded": (FolderSpec(60, 90, (4, 4), colour=True, vary_size=0.4), (32, 48)),
}


def dataset_of(folder: Path, spec: FolderSpec) -> Dataset:
    """All images of a folder as the training split."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob(f"*{spec.suffix}"))
    low, high = (0.5, 1.6) if spec.vary_size else (1.0, 1.0)
    return Dataset(
        name="parity",
        root=folder,
        classes=spec.classes,
        ok_class="good",
        ok_source="its name",
        channels=3 if spec.colour else 1,
        frame_heights=(round(spec.height * low), round(spec.height * high)),
        frame_widths=(round(spec.width * low), round(spec.width * high)),
        frame_aspects=(1.0, 2.0) if spec.vary_size else (1.5, 1.5),
        seed=0,
        licence="none",
        items=tuple(Item(path.as_posix(), path.parent.name, path.stem, "train") for path in paths),
    )


@pytest.mark.parametrize(("folder", "size"), CASES.values(), ids=CASES.keys())
def test_the_appliance_sees_what_the_trainer_saw(folder: FolderSpec, size: tuple[int, int], tmp_path: Path) -> None:
    """The same files: through the trainer's loader, and through the camera source into a shared-memory slot.

    The appliance's specification is the one that went through the manifest's JSON.
    """
    images = write_folder(tmp_path / "images", folder)
    dataset = dataset_of(images, folder)
    spec = spec_for(dataset, *size)
    assert spec.fit == ("pad" if folder.vary_size else "stretch")
    trained = load_split(dataset, spec, "train")

    adapter = TypeAdapter(PreprocessSpec)
    received = adapter.validate_json(adapter.dump_json(spec))
    settings = {"source": "folder", "path": str(images), "fps": 0.0, "loop": False, "count": None}
    source = open_source(settings, received.channels)
    ring = Ring.create(2, received.shape)
    try:
        slot = ring.slot(1)
        for path, expected in zip(trained.paths, trained.images, strict=True):
            shot = source.shoot()
            assert shot is not None
            assert shot.name == path
            slot.fill(0xA5)
            received.apply(shot.read(), out=slot)
            assert np.array_equal(slot, expected), path
        assert source.shoot() is None
    finally:
        ring.close()
