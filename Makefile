# Every target sets up what it needs by itself, on a machine that has only Python; see scripts/bootstrap.

SHELL := /bin/bash
BIN := .venv/bin
TEST_WORKERS ?= 2
TEST_SECONDS ?= 2700
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check services bench clean bootstrap

help: ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

bootstrap: ## make .venv with everything (the targets below do it by themselves)
	@bash scripts/bootstrap

demo: bootstrap ## run the example campaign of this repository on this machine
	@bash scripts/demo

# INT first, so that pytest still prints what it knows when the time is up.
test: bootstrap ## run all tests (ARGS='-k name' selects)
	@timeout --foreground -s INT -k 30 $(TEST_SECONDS) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup $(ARGS)

check: bootstrap ## format, lint, types, import contracts, dependencies, schemas
	@bash scripts/check

services: bootstrap ## start the services that the tests need
	@echo "The tests of this version need no services."

bench: bootstrap ## run the benchmarks one after the other
	@bash scripts/bench

clean: ## remove .venv, caches, builds and the state of the demo
	rm -rf .venv .demo build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
