# Every target sets up what it needs by itself, on a machine that has only Python; see scripts/bootstrap.

SHELL := /bin/bash
BIN := .venv/bin
TEST_WORKERS ?= 2
TEST_SECONDS ?= 2700
ARGS ?=
EXAMPLES ?= 60
KILLS ?= 200
SEED ?= 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test campaign faults oracle check figures services bench clean bootstrap

help: ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

bootstrap: ## make .venv with everything (the targets below do it by themselves)
	@bash scripts/bootstrap

demo: bootstrap ## run the example campaign of this repository on this machine
	@bash scripts/demo

# INT first, so that pytest still prints what it knows when the time is up. Bytecode is kept, whatever the
# shell says: hundreds of processes would compile all modules anew.
test: services ## run all tests (ARGS='-k name' selects)
	@PYTHONDONTWRITEBYTECODE= timeout --foreground -s INT -k 30 $(TEST_SECONDS) $(BIN)/python -m pytest -n $(TEST_WORKERS) $(ARGS)

campaign: bootstrap ## random commits against the reference of the levels (EXAMPLES=60: five minutes)
	@RECONCILER_TEST_EDITS=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/conformance/test_edits_state_machine.py

faults: services ## kill the daemon at random and at each of its steps, take sshd away (KILLS=200 SEED=1: 12 minutes)
	@RECONCILER_TEST_KILLS=$(KILLS) RECONCILER_TEST_SEED=$(SEED) $(BIN)/python -m pytest --timeout 0 tests/faults/test_campaign.py tests/faults/test_outage_in_real_time.py $(ARGS)

oracle: bootstrap ## random dynamic flows against jobflow's run_locally (EXAMPLES=60: three minutes)
	@RECONCILER_TEST_FLOWS=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/execution/test_random_flows.py

check: bootstrap ## format, lint, types, import contracts, dependencies, schemas
	@bash scripts/check

figures: bootstrap ## count lines, modules and functions of the package
	@$(BIN)/python scripts/figures.py reconciler

services: bootstrap ## install what the tests start: sshd, Slurm, Grid Engine
	@bash scripts/services
	@echo "The tests find their services; they start them by themselves."

bench: services ## run the benchmarks one after the other
	@bash scripts/bench

clean: ## remove .venv, caches, builds and the state of the demo
	rm -rf .venv .demo build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
