# Every target sets up everything that it needs on a machine that has only Python; see scripts/bootstrap.

SHELL := /bin/bash
BIN := .venv/bin
# One more than a small machine has processors: a third of their time the tests wait, for queues and processes.
TEST_WORKERS ?= 3
TEST_SECONDS ?= 2700
ARGS ?=
EXAMPLES ?= 60
KILLS ?= 200
FUZZ ?= 150
SEED ?= 1
QUICK := tests/model tests/plan tests/desired tests/actual

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test quick campaign faults fuzz audit oracle science check figures services docs bench clean bootstrap

help: ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

bootstrap: ## create .venv with all dependencies (the other targets do this automatically)
	@bash scripts/bootstrap

demo: bootstrap ## run the example campaign on this machine
	@bash scripts/demo

# INT first, so that pytest still prints its report when the time is up. Bytecode is written whatever the
# environment says: otherwise hundreds of processes would compile all modules again.
test: services ## run all tests (ARGS='-k name' selects)
	@PYTHONDONTWRITEBYTECODE= timeout --foreground -s INT -k 30 $(TEST_SECONDS) $(BIN)/python -m pytest -n $(TEST_WORKERS) $(ARGS)

quick: bootstrap ## run the fast tests of model, plan, desired and actual (less than a minute)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 -m "not slow" $(QUICK) $(ARGS)

campaign: bootstrap ## compare random histories with a model, and short plans with full ones (EXAMPLES=60: 10 minutes)
	@RECONCILER_TEST_EDITS=$(EXAMPLES) RECONCILER_TEST_HISTORIES=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/conformance/test_edits_state_machine.py tests/loop/test_scope.py

faults: services ## kill the daemon at random and at every step, stop sshd (KILLS=200 SEED=1: 12 minutes)
	@RECONCILER_TEST_KILLS=$(KILLS) RECONCILER_TEST_SEED=$(SEED) $(BIN)/python -m pytest --timeout 0 tests/faults/test_campaign.py tests/faults/test_outage_in_real_time.py tests/clusters/test_outages.py::test_d2_two_minutes_in_real_time $(ARGS)

fuzz: bootstrap ## give random manifests, results, requests and backups to their readers (FUZZ=150 s each: 10 minutes)
	@RECONCILER_TEST_FUZZ=$(FUZZ) $(BIN)/python -m pytest --timeout 0 tests/hostile/test_fuzz.py $(ARGS)

audit: bootstrap ## look up known vulnerabilities of the dependencies, and write sbom.json (asks the package registry)
	@bash scripts/audit

oracle: bootstrap ## compare random dynamic flows with jobflow's run_locally (EXAMPLES=60: 3 minutes)
	@RECONCILER_TEST_FLOWS=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/jobs/test_random_flows.py

science: bootstrap ## compare flows of atomate2 and quacc with jobflow's run_locally, in a separate environment (10 minutes)
	@bash scripts/science

check: bootstrap ## check format, lint, types, import contracts, dependencies, spelling, schemas
	@bash scripts/check

figures: bootstrap ## count lines, modules and functions of the package
	@$(BIN)/python scripts/figures.py reconciler

services: bootstrap ## install the services that the tests start: sshd, Slurm, Grid Engine
	@bash scripts/services
	@echo "The services are installed. The tests start them when they need them."

docs: bootstrap ## build the documentation as a site in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean
	@echo "open site/index.html"

bench: services ## run all benchmarks, one after the other
	@bash scripts/bench

clean: ## remove .venv, caches, builds and the state of the demo
	rm -rf .venv .venv-science .audit sbom.json .demo build dist site .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
