# `make figures` and `make test` do all set-up on a machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: figures test test-slow lint format docs text reference leaderboard rates related ablations scaling bench gpu-check wheels clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / - /' | sort

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.13")'
	@echo "installing the pinned packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[slurm,test]"
	@touch $@

text: $(VENV)/installed ## install what text tasks need as well, with a C compiler
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[text]"

figures: $(VENV)/installed ## run the default sweep to figures and report
	snakemake --cores all

test: $(VENV)/installed ## run every test this machine can run
	python -m pytest

test-slow: $(VENV)/installed ## run the slow tests too
	python -m pytest --run-slow

lint: $(VENV)/installed ## check formatting, lint and types
	ruff format --check .
	ruff check .
	snakefmt --check Snakefile workflow
	python tests/lint_workflow.py
	mypy

format: $(VENV)/installed ## format everything
	ruff format .
	ruff check --fix .
	snakefmt Snakefile workflow

docs: $(VENV)/installed ## write docs/configuration.md from the settings
	grpo-origin docs > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

# What a reader of reference/ wants of the tables of results/reference: no row a seed or prompt, so that they stay small.
REFERENCE_TABLES := claims summary task_summary gains mass_gains signal_summary takeoff transfer exploration warnings

reference: $(VENV)/installed ## run the reference run (hours) and keep in reference/ what reports compare with
	snakemake --cores all --configfile config/reference.yaml
	mkdir -p reference
	cp results/reference/settings.json $(REFERENCE_TABLES:%=results/reference/tables/%.parquet) reference/

leaderboard: $(VENV)/installed ## run every method and control, and write docs/leaderboard.md (hours)
	snakemake --cores all --configfile config/leaderboard.yaml
	grpo-origin leaderboard results/leaderboard > docs/leaderboard.md.new
	mv docs/leaderboard.md.new docs/leaderboard.md
	cp results/leaderboard/tables/leaderboard.parquet reference/

# The page's head, down to the marked line, is written by hand; what follows is made of the run's tables and figures.
ablations scaling: $(VENV)/installed ## run the variants of config/ablations.yaml or scaling.yaml, and write their page in docs/
	snakemake --cores all --configfile config/$@.yaml
	{ sed '/^<!-- made by/q' docs/$@.md; echo; } > docs/$@.md.new
	grpo-origin contrasts results/$@ >> docs/$@.md.new
	for file in results/$@/figures/contrasts-*.png; do \
		name=$@-$${file##*/contrasts-}; \
		cp "$$file" "docs/$$name" && echo "![Differences by variant]($$name)" >> docs/$@.md.new || exit 1; \
	done
	mv docs/$@.md.new docs/$@.md

rates: $(VENV)/installed ## try every method at three learning rates on pilot seeds, and print the one that each gets
	snakemake --cores all --configfile config/rates.yaml
	grpo-origin rates results/rates

related: $(VENV)/installed ## run the related systems: faithful traces, representations, calibration (docs/related.md)
	for run in related representation calibration; do snakemake --cores all --configfile config/$$run.yaml || exit 1; done

bench: $(VENV)/installed ## run the benchmarks (docs/performance.md)
	for file in $(filter-out benchmarks/stock_cell.py benchmarks/rates.py benchmarks/outcome.py $(wildcard benchmarks/gpu*.py),$(wildcard benchmarks/*.py)); do echo "$$file"; python "$$file" || exit 1; done

# With whatever python is there, since the pinned torch may be without CUDA: make gpu-check PYTHON=...
gpu-check: ## try and time everything on a GPU, in 9 minutes (docs/paper-scale.md)
	$(PYTHON) benchmarks/gpu.py --minutes 9 --out gpu-check

wheels: ## collect all packages in wheels/, to install where there is no internet (docs/slurm.md)
	$(PYTHON) -m pip wheel --constraint constraints.txt --wheel-dir wheels ".[slurm,test]" "setuptools>=77" wheel
	cd wheels && sha256sum *.whl > SHA256SUMS

# Of Snakemake's folder its own records stay: they know which files a result was made from, and what was unfinished.
# Those of settings and code lie beside the results (results/README.md).
clean: ## remove the environment and caches, keep results and all records of them
	rm -rf $(filter-out .snakemake/metadata .snakemake/incomplete,$(wildcard .snakemake/*)) $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
