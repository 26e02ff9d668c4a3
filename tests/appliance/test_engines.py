"""Engines: the model's logits at every place in a batch and from several threads, or a word on what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq

from appliance.config import EngineSection
from appliance.engines.protocol import (
    NEEDS,
    WHOLE_BATCHES,
    Engine,
    EngineError,
    load_engine,
    missing,
    most_parts,
    variant_of,
)
from appliance.judging import run_engine
from appliance.memory import give_back
from appliance.ring import Ring
from appliance.selftest import golden_batches, golden_problem
from appliance.wire import LOAD, pack_batch
from deploy.bundle import open_bundle
from tests.appliance.stations import appliance, make_station, rows, run_json
from tests.support.fixtures import Context
from tests.support.tiny import logits_of, part, tiny_bundle, tiny_model, tiny_spec

OPENVINO = pytest.param(
    "openvino",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None, reason="openvino is not installed (extra 'openvino')"
    ),
)
CPU_KINDS = ["onnxruntime", OPENVINO]


def frames(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Tensors of n parts."""
    return np.stack([tiny_spec().apply(part(i, i % 2 == 1)) for i in range(n)])


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_goldens_pass_at_every_position(kind: str, tmp_path: Path) -> None:
    """What the self-test asks of an engine, for every batch size up to 8."""
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny.lgb"))
    engine = load_engine({"kind": kind}, bundle.model(variant_of(kind)))
    goldens = bundle.goldens()
    tensors = np.stack([bundle.manifest.preprocess.apply(golden.frame) for golden in goldens])
    rule = bundle.variant("cpu").rule
    for size in range(1, 9):
        for batch in golden_batches(len(goldens), size):
            assert golden_problem(rule, goldens, "cpu", batch, engine.infer(tensors[batch])) == ""


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_part_scores_the_same_wherever_it_lies(kind: str) -> None:
    """The scores of a part depend neither on its place nor on its neighbours; they are ONNX Runtime's to 1e-4."""
    engine, tensors = load_engine({"kind": kind}, tiny_model()), frames(8)
    alone = np.concatenate([engine.infer(tensors[i : i + 1]) for i in range(8)])
    assert (engine.infer(tensors) == alone).all()
    assert (engine.infer(tensors[::-1].copy())[::-1] == alone).all()
    assert np.abs(alone - logits_of(tiny_model(), tensors)).max() < 1e-4


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_lanes_do_not_disturb_each_other(kind: str) -> None:
    """Four threads judge different batches at once, many times: each gets the scores of its own."""
    engine, tensors = load_engine({"kind": kind}, tiny_model(), 4, size=4, alone=True), frames(16)
    expected = engine.infer(tensors)
    wrong: list[int] = []

    def judge(lane: int) -> None:
        mine = tensors[4 * lane : 4 * lane + 4]
        for _ in range(50):
            if not (engine.infer(mine, lane) == expected[4 * lane : 4 * lane + 4]).all():
                wrong.append(lane)

    threads = [threading.Thread(target=judge, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_trimming_gives_back_what_a_large_batch_took(kind: str) -> None:
    """Most of the memory that a batch of thousands needed is the system's again, and a part scores as before."""
    engine, tensors = load_engine({"kind": kind}, tiny_model()), frames(8)
    process = psutil.Process()
    expected = engine.infer(tensors)
    small = process.memory_info().rss
    engine.infer(np.repeat(tensors, 300, axis=0))
    large = process.memory_info().rss
    engine.trim(tensors[:1], 8)
    give_back()
    assert large > small + 20 * 2**20
    assert process.memory_info().rss < (small + large) / 2
    assert (engine.infer(tensors) == expected).all()


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_refusals_are_engine_errors(kind: str) -> None:
    """A file that is no model and a batch of another shape: EngineError, in one line."""
    with pytest.raises(EngineError, match="refuses the model") as error:
        load_engine({"kind": kind}, b"no model")
    assert "\n" not in str(error.value)
    engine: Engine = load_engine({"kind": kind}, tiny_model())
    with pytest.raises(EngineError, match="failed"):
        engine.infer(np.zeros((1, 3, 5, 5), np.uint8))


def test_an_unknown_engine_is_refused() -> None:
    """By the loader, and long before by the configuration."""
    with pytest.raises(EngineError, match="'abacus' is unknown"):
        load_engine({"kind": "abacus"}, b"")
    with pytest.raises(ValueError, match="kind"):
        EngineSection.model_validate({"kind": "abacus"})


@pytest.mark.parametrize("kind", sorted(NEEDS))
def test_what_is_missing_comes_with_its_remedy(kind: str) -> None:
    """Each engine either has all its libraries here, or names them and the extra that installs them."""
    groups, extra = NEEDS[kind]
    absent = [group[0] for group in groups if not any(map(importlib.util.find_spec, group))]
    if kind.startswith("onnxruntime-"):
        found = [each.name for each in importlib.metadata.distributions()]
        absent = [] if "onnxruntime-gpu" in found else ["onnxruntime-gpu"]
    said = missing(kind)
    assert bool(said) == bool(absent)
    assert all(name in said for name in absent)
    assert not said or f"lineguard[{extra}]" in said


def test_the_daemon_judges_with_openvino(tmp_path: Path) -> None:
    """The same parts get the same verdicts as with ONNX Runtime, and replaying one gives the very bits."""
    pytest.importorskip("openvino", reason="openvino is not installed (extra 'openvino')")
    verdicts = {}
    for kind in ("onnxruntime", "openvino"):
        (tmp_path / kind).mkdir()
        config = make_station(
            tmp_path / kind, 20, sections=f'[engine]\nkind = "{kind}"\n[evidence]\ndefect_mib = 4\nper_second = 1000'
        )
        summary = run_json(config)
        assert ("OpenVINO" in summary["engine"]) == (kind == "openvino")
        verdicts[kind] = rows(config, "SELECT frame, verdict, reason FROM verdict ORDER BY frame")
        serial = rows(config, "SELECT serial FROM verdict WHERE reason = 'DEFECT' LIMIT 1")[0][0]
        replayed = json.loads(appliance("replay", serial, "--config", config, "--json").stdout)
        assert [row["result"] for row in replayed["rows"]] == ["equal"]
    assert verdicts["onnxruntime"] == verdicts["openvino"]
    assert len(verdicts["openvino"]) == 20
    sizes = {size for (size,) in rows(config, "SELECT DISTINCT batch FROM verdict")}
    assert len(sizes - {1}) <= 1, "it is compiled for single parts and one size of full batches"
    assert max(sizes) <= WHOLE_BATCHES["openvino"]


@pytest.mark.parametrize(("views", "parts"), [(1, 4), (2, 2), (4, 1), (16, 1)])
def test_every_view_of_a_part_counts_in_a_full_batch(views: int, parts: int) -> None:
    """OpenVINO is compiled for so many frames at once, which is what its memory goes by; others take what is asked."""
    assert most_parts("openvino", views, 8) == parts
    assert most_parts("openvino", views, 1) == 1
    assert most_parts("onnxruntime", views, 8) == 8


def test_openvino_does_not_report_home() -> None:
    """Importing it would tell its maker; here its reporting package is never loaded."""
    pytest.importorskip("openvino", reason="openvino is not installed (extra 'openvino')")
    program = (
        "import sys, appliance.engines.openvino_cpu\n"
        "sys.exit(any(name.startswith('openvino_telemetry.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_a_lane_that_fails_ends_the_process(context: Context) -> None:
    """What a lane raises is raised by the engine process, which the supervisor then replaces."""
    ring = Ring.create(2, tiny_spec().shape)
    here, there = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    here.bind("inproc://engine")
    there.connect("inproc://engine")
    here.send(LOAD + tiny_model())
    here.send(pack_batch(1, [7], [0]))
    shape = list(ring.shape)
    settings = {"ring": ring.descriptor, "slots": 2, "first": 0, "shape": shape, "batch": 2, "lanes": 2, "alone": True}
    with pytest.raises(IndexError):
        run_engine({**settings, "engine": {"kind": "onnxruntime"}}, there)
    assert "lane-0" not in {thread.name for thread in threading.enumerate()}


def test_another_engine_than_there_is(tmp_path: Path) -> None:
    """An engine whose library is absent stops the start with one line that names the remedy."""
    absent = next((kind for kind in sorted(NEEDS) if missing(kind)), None)
    if absent is None:
        pytest.skip("every engine is installed here")
    config = make_station(tmp_path, 2, sections=f'[engine]\nkind = "{absent}"')
    done = appliance("run", "--config", config)
    assert done.returncode == 2
    assert "engine.kind" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
