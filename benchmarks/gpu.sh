#!/bin/sh
# Everything that an NVIDIA GPU can show, in one call, for every engine that runs on it (native TensorRT, ONNX Runtime's CUDA
# and TensorRT providers): the first start and the next one from the cache, goldens at every batch position, images per
# second against the limits of copying and computing, and the scores' distance from the CPU's.
#
#   benchmarks/gpu.sh build/demo/demo.lgb                               as tables
#   benchmarks/gpu.sh build/demo/demo.lgb --frames build/demo/frames    compared on real frames
#   benchmarks/gpu.sh build/demo/demo.lgb --json                        as JSON
#
# Exit code 1 when a golden fails, 2 when this machine runs no such engine (the messages say what is missing).
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >&2
exec "$python" -m benchmarks.gpu "$@"
