# `make demo` and `make test` are all a fresh machine needs: Python 3.11 or newer and a package index.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 -c constraints.txt

.PHONY: demo test test-all test-slow lint docs bench clean

demo: .venv/core
	@$(BIN)/captioner demo demo

test: .venv/dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# What needs more than Python (a browser; Ray and Spark as they come), skipped with a message where it is missing;
# and what takes long, above all several processes at once.
test-all: test test-slow

test-slow: .venv/slow
	$(BIN)/python -m pytest -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages that are made of the code: the store's schema and the commands.
docs: .venv/dev
	$(BIN)/python docs/generate.py

bench: .venv/dev
	$(BIN)/python benchmarks/worker.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/aggregate.py boards --saves 1000000 --rounds 1
	$(BIN)/python benchmarks/eval.py --items 1000 --rounds 1
	$(BIN)/python benchmarks/export.py export --pins 200000 --rounds 1

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "captioner needs Python 3.11 or newer; name one with: make demo PYTHON=python3.11")'
	@echo "installing into .venv (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) -e .
	@touch $@

.venv/dev: .venv/core
	@$(INSTALL) -e '.[dev]'
	@touch $@

# Java comes from the system: without one of version 17 or newer, the tests that need Spark say so and are skipped.
.venv/slow: .venv/dev
	@$(INSTALL) -e '.[dev,spark,browser,browse]'
	@touch $@

clean:
	rm -rf .venv demo build *.egg-info
