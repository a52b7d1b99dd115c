# Everything runs in .venv, which each target sets up by itself. Needs Python 3.11 or 3.12 and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test lint bench clean
help:  ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY)  ## train, fit, serve, explain and check; writes demo/report.html
	$(BIN)/explainer-runtime demo

test: lint  ## run every check and every test
	$(BIN)/pytest

lint: $(READY)  ## check style, types and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## measure against the recorded reference; writes benchmarks/results/latest.json
	$(BIN)/python -m benchmarks

clean:  ## remove what the targets above have made
	rm -rf .venv demo

# uv resolves and installs several times faster than pip, and is itself one wheel.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[all]' --group dev
	@touch $@
