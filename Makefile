# Two commands do everything on a machine that has only Python 3.11+ with venv, git and make:
#   make run    a broker on the memory engine with development settings
#   make test   every check: style, types, import directions, unit tests, the official SDKs
# Overridable: PYTHON=/path/to/python3 (which interpreter .venv is made of), ARGS='--http_server.port 9000',
# AT_ONCE=1 (how many files of tests run beside each other).

SHELL := /bin/sh
BIN := .venv/bin
E2E_JS := tests/e2e/js
AT_ONCE := 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Not checked: names of task_status functions (114); waiting in an `except`, where what is cancelled is cleaned up after
# by its connection (120); scopes made before they are entered, right since Trio 0.27 (122); handlers that need not wait
# here, but may elsewhere (124, 9xx).
OFF := ASYNC114,ASYNC120,ASYNC122,ASYNC124,ASYNC9

.PHONY: run test test-long lint bench bench-table bench-micro format clean

run: .venv/.run-ready
	@exec $(BIN)/python -m broker --dev $(ARGS)

test: lint $(E2E_JS)/node_modules/.ready .venv/.system-ready
	$(BIN)/pytest -m "not long" -n $(AT_ONCE) --dist loadfile $(ARGS)

test-long: .venv/.test-ready $(E2E_JS)/node_modules/.ready .venv/.system-ready
	$(BIN)/pytest -m long $(ARGS)

lint: .venv/.test-ready
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/flake8-async --disable=$(OFF) $$(find broker -name '*.py' ! -name '*_pb2.py')
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/.test-ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.test-ready
	$(BIN)/python -m benchmarks $(ARGS)

bench-table: .venv/.test-ready
	$(BIN)/python -m benchmarks.table $(ARGS)

bench-micro: .venv/.test-ready
	$(BIN)/pytest benchmarks/micro -p no:cacheprovider --benchmark-sort=name $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf $(E2E_JS)/node_modules

# Stamps: a second run installs nothing.

.venv/.made: .ci/make-venv
	@.ci/make-venv .venv $(PYTHON)
	@touch $@

.venv/.run-ready: .venv/.made pyproject.toml
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/.test-ready: .venv/.made pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ .venv/.run-ready

.venv/.system-ready: .ci/debian .venv/.made
	@.ci/debian
	@touch $@

$(E2E_JS)/node_modules/.ready: $(E2E_JS)/package-lock.json .ci/npm .venv/.made
	@.ci/npm ci --prefix $(E2E_JS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
