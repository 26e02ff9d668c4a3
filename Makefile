# Two commands from nothing: `make demo` and `make test`. Both make .venv first; a second run only checks it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# the longest first
TRAINING := tests/test_readme.py tests/appliance/test_two_pass.py tests/appliance/test_tiled_bundle.py tests/trainer
# one thread a test process: OpenMP threads that wait for one another cost more than they gain
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
export OMP_NUM_THREADS ?= 2
# bytecode is kept: tests start hundreds of programs, which would be compiled at each start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types imports attacks faults soak powercut-db powercut-deploy bootstrap-trial push-cuts results-elpv bench peers screenshot clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Lineguard needs Python 3.10 or later; name one: make PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python lacks venv: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[cpu,io,trainer,demo,dev]'
	@touch $@

# OpenVINO is the faster engine on many CPUs, and TensorRT-RTX builds plans without a GPU; where their wheels do not
# exist the tests that need them skip.
$(VENV)/.rtx: $(STAMP)
	-$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings
	-$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[openvino]'
	@touch $@

demo: $(STAMP) ## the whole product on real solar cells: train, calibrate, INT8, bundle, push, judge (4 to 5 minutes)
	$(BIN)/python -m benchmarks.demo

test: $(STAMP) $(VENV)/.rtx ## lint, types, import layers, all tests
	@$(MAKE) --no-print-directory check
	@# what trains without coverage: PyTorch's exporter is Python, and tracing slows it by much; tests of one file stay
	@# together, so that what they share is made once
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder $(TRAINING)
	@# of the rest many wait for what a station does
	$(PYTEST) -n 3 --dist worksteal $(TRAINING:%=--ignore=%) --cov --cov-report=term
	@rm -f .coverage.*  # halves of processes that tests killed; the rest is combined already
	$(BIN)/coverage report --include='calibration/*,deploy/*,appliance/*' --fail-under=90 >/dev/null

check: lint types imports ## lint, types and import layers only

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

attacks: $(STAMP) ## every byte of a signed bundle flipped, every prefix, every archive trick (about 20 seconds)
	$(BIN)/python -m tests.attacks.campaign

powercut-deploy: $(STAMP) ## a device through thousands of power cuts of push, trial, rollback and enrolment (about 3 minutes)
	$(BIN)/python -m tests.powercut.campaign

faults: $(STAMP) ## 20,000 parts through lines where everything fails at random, and mutants (4 to 7 minutes)
	$(BIN)/python -m tests.faults.campaign

soak: $(STAMP) ## ten minutes at 60 frames/s: exact counts, flat memory, no slower at the end
	$(BIN)/python -m benchmarks.soak

powercut-db: $(STAMP) ## 10,000 simulated power cuts of the database (about 2 minutes)
	$(BIN)/python -m tests.faults.powercut_db

bootstrap-trial: $(STAMP) ## a bare Debian in a container: bootstrap, push, judge, roll back (about 5 minutes; root)
	$(BIN)/python -m benchmarks.bare_device

push-cuts: $(STAMP) ## 300 pushes over a real SSH server cut at random, each pushed again (about 6 minutes; needs sshd)
	$(BIN)/python -m benchmarks.push --cuts 300

results-elpv: $(STAMP) ## docs/results.md: full recipe on ELPV, three seeds (about an hour of computing)
	$(BIN)/python -m benchmarks.results_elpv

bench: $(STAMP) $(VENV)/.rtx ## engine and daemon throughput, on the bundle that `make demo` left
	$(BIN)/python -m benchmarks.engine build/demo/run
	$(BIN)/python -m benchmarks.throughput --bundle build/demo/demo.lgb

peers: $(STAMP) ## LitServe, FastAPI and PyTriton beside the daemon, on the bundle that `make demo` left (downloads them)
	$(BIN)/python -m benchmarks.peers --bundle build/demo/demo.lgb

screenshot: $(STAMP) ## docs/pictures/tui.svg from a real run
	$(BIN)/python docs/make_screenshot.py

clean: ## remove what the commands above made, the virtual environment excepted
	rm -rf build
