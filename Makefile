# The few commands of this repository. `make help` lists them.
#
# Everything runs in .venv, which is made on first use with the first Python 3.11 or newer that is
# found; choose another one with `make PYTHON=python3.13 …`. Packages are installed again only when
# pyproject.toml has changed since (the stamp files say when that was).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint format types imports units bench applications campaign mutants failures escapes openapi clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
REPORT := $(VENV)/report.xml
CHECKED := sdk queue gateway invoker deploy tests examples

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(RUNTIME) ## a tour: start the platform, deploy two chess engines, watch them play
	@$(BIN)/python examples/tour.py

test: lint types imports units ## everything that CI checks

lint: $(DEV) ## style and formatting
	@echo '── ruff'
	@$(BIN)/ruff check $(CHECKED)
	@$(BIN)/ruff format --check $(CHECKED)

types: $(DEV) ## both type checkers, strict
	@echo '── mypy'
	@$(BIN)/mypy
	@echo '── pyright'
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

imports: $(DEV) ## who may import whom
	@echo '── import-linter'
	@$(BIN)/lint-imports

units: $(DEV) ## the tests alone; and that those exist which the feature matrix names
	@echo '── pytest'
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --junitxml=$(REPORT)
	@echo '── feature matrix'
	@$(BIN)/python -m tests.feature_matrix $(REPORT)

bench: $(DEV) ## measure against other systems, e.g. ARGS='--only T1'; prints ratios
	@$(BIN)/python -m tests.benchmarks.run $(ARGS)

applications: $(DEV) ## whole applications from PyPI beside a plain server (installs them: minutes)
	@$(BIN)/python -m pytest tests/e2e/applications.py $(ARGS)

campaign: $(DEV) ## 100,000 random schedules with faults, or SCALE times as many
	@$(BIN)/python -m tests.campaign --scale $(or $(SCALE),1)

mutants: $(DEV) ## plant small bugs one by one and see that tests notice, e.g. ARGS='--only fork'
	@$(BIN)/python -m tests.mutants $(ARGS)

failures: $(DEV) ## make code fail in every way, and write docs/failures.md anew
	@$(BIN)/python -m tests.failures

escapes: $(DEV) ## try to get out of every isolation tier (as root), and write the table of docs/security.md
	@$(BIN)/python -m tests.escapes

openapi: $(DEV) ## write docs/openapi.json anew, from the routes
	@$(BIN)/python -m tests.openapi

format: $(DEV) ## rewrite the code the way `make lint` wants it
	@$(BIN)/ruff check --fix $(CHECKED)
	@$(BIN)/ruff format $(CHECKED)

clean: ## remove .venv, caches and local data of `fluvial up`
	rm -rf $(VENV) .fluvial .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf build dist
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml | $(BIN)/python
	@echo '· installing Fluvial into $(VENV) …'
	@$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	@echo '· installing Fluvial and its development tools into $(VENV) …'
	@$(PIP) -e '.[dev,bench]'
	@touch $@ $(RUNTIME)

$(BIN)/python:
	@found=; \
	for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'Fluvial needs Python 3.11 or newer; tried: $(CANDIDATES).' >&2; \
	  echo 'Install one, or name it: make PYTHON=/path/to/python3.13 …' >&2; \
	  exit 1; \
	fi; \
	echo "· making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$$found cannot make virtual environments; on Debian: apt install python3-venv" >&2; \
	  exit 1; \
	}
