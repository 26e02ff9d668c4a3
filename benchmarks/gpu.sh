#!/bin/sh
# Everything that an NVIDIA GPU can show, in one call: the plan's build and its cache, goldens at every batch position,
# images per second against the limits of copying and computing, and the scores' distance from the CPU's.
#
#   benchmarks/gpu.sh build/demo/demo.lgb            as a table
#   benchmarks/gpu.sh build/demo/demo.lgb --json     as JSON
#
# Exit code 1 when a golden fails, 2 when this machine cannot run it (the message says what is missing).
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >&2
exec "$python" -m benchmarks.gpu "$@"
