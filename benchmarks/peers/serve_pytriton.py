"""PyTriton: the Triton server with a Python model, dynamic batches of up to 8, two instances.

The stub that runs the model must load the library of this very Python: where the system has another of that version,
its library and this one's standard library do not fit, and the model ends with `RLock` lacking `_recursion_count`.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.judge import Judge
from benchmarks.peers.ports import free_port

os.environ["LD_LIBRARY_PATH"] = ":".join(
    filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
)
judge = Judge(Path(sys.argv[1]))


@batch
def infer(frame: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Logits of a batch of frames."""
    return [judge.logits([one.tobytes() for one in frame])]


config = TritonConfig(
    http_port=int(sys.argv[2]),
    grpc_port=free_port(),
    metrics_port=free_port(),
    http_address="127.0.0.1",
    grpc_address="127.0.0.1",
)
with Triton(config=config) as triton:
    triton.bind(
        "parts",
        [infer, infer],
        [Tensor(name="frame", dtype=np.uint8, shape=judge.frame_shape)],
        [Tensor(name="logits", dtype=np.float32, shape=(-1,))],
        config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=10_000)),
    )
    triton.serve()
