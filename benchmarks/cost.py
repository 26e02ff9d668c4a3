"""What looking at one frame costs: CPU time of the INT8 model of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from trainer.data.loader import load_split
from trainer.data.manifest import read_dataset
from trainer.features import silent
from trainer.models.classifier import load_run_model
from trainer.onnx_graph import export_core, run_logits, session
from trainer.quantise import quantise
from trainer.run import MODEL, read_settings, write_json

CALIBRATION_FRAMES, TIMED_FRAMES, TURNS = 16, 8, 5
COST = "cost.json"
"""In the run's folder: what was measured."""


def images_per_cpu_second(run: Path) -> float:
    """Images judged in one second of CPU time by the `cpu` INT8 model, one thread, one batch of TIMED_FRAMES; the best
    of TURNS. What was measured before is read back.

    Calibrated on so few frames its scores are worth little; its speed is that of any calibration.
    """
    done = run / COST
    if not done.exists():
        settings = read_settings(run)
        model, _ = load_run_model(run / MODEL)
        split = load_split(read_dataset(Path(settings.data)), settings.spec, "train")
        frames, labels = np.array(split.images[:CALIBRATION_FRAMES]), split.labels[:CALIBRATION_FRAMES]
        core = export_core(model, settings.spec.shape)
        running = session(quantise(core, frames, labels, settings.seed, silent)["cpu"].model, threads=1)
        times = []
        for _ in range(1 + TURNS):
            started = time.process_time()
            run_logits(running, frames[:TIMED_FRAMES])
            times.append(time.process_time() - started)
        write_json(done, {"images_per_cpu_second": TIMED_FRAMES / min(times[1:])})
    return float(json.loads(done.read_text(encoding="utf-8"))["images_per_cpu_second"])
