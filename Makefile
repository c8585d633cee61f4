PYTHON ?= python3
BUILDER ?= buildah
JOBS ?= 2
MINUTES ?= 4
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := build/lock
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
UV_COMPILE := $(LOCK)/bin/uv pip compile pyproject.toml --no-config --quiet --universal --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test chaos soak unit lint bench venv lock assets crds image clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv ## Rotate secrets at three providers on a real control plane, and watch
	@$(BIN)/python -m sandbox.demo

test: venv ## Run all tests, JOBS=2 files at a time; writes build/junit.xml
	@mkdir -p build
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --junitxml=build/junit.xml

chaos: venv ## Strike the operator at every request of a rotation (half an hour to an hour); writes build/chaos-report.json
	@$(BIN)/python -m tests.chaos

soak: venv ## Rotate for MINUTES=4 under random faults and kills; writes build/soak-report.json
	@$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

unit: venv ## Run the tests that need nothing but Python
	@$(BIN)/python -m pytest tests/unit tests/api tests/controller

lint: venv ## Style, types, import rules, file lengths
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@find $(wildcard operator sandbox tests benchmarks) -name '*.py' -exec awk \
		'FNR == 401 {print FILENAME ": longer than 400 lines"; bad = 1} END {exit bad}' {} +

bench: venv ## Measure against plain scripts; writes build/bench.json
	@$(BIN)/python -m benchmarks

venv: $(STAMP) ## Make .venv with the locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Keyturn needs Python 3.11 or newer, this is " + sys.version.split()[0] \
		+ ": try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Python cannot make virtual environments here: install python3-venv (apt-get install python3-venv)" >&2; \
		exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## Resolve the requirements anew
	@$(PYTHON) -m venv $(LOCK)
	@$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV_COMPILE) --upgrade --all-extras --group build --output-file requirements/dev.txt
	@$(UV_COMPILE) --upgrade --constraint requirements/dev.txt --output-file requirements/runtime.txt
	@$(UV_COMPILE:pyproject.toml=) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	@$(UV_COMPILE:pyproject.toml=) --upgrade --group oracle --output-file requirements/oracle.txt

assets: venv ## Provide the control plane's binaries (cached)
	@$(BIN)/python -c 'from sandbox.assets import provide; print(provide().directory)'

crds: venv ## Write crds/ from the models
	@$(BIN)/python -m keyturn.api.crd crds/

image: ## Build the container image: make image BUILDER=docker
	@$(BUILDER) build --tag keyturn:$(VERSION) .

clean: ## Remove the virtual environment, build/ and caches of this checkout
	@rm -rf build dist $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache operator/*.egg-info
	@find $(wildcard operator sandbox tests benchmarks) -name __pycache__ -prune -exec rm -rf {} +
