# DSGP Lab. `make lab` opens the course, `make test` runs every test; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
FIRST := notebooks/00_start_here.ipynb

.PHONY: help lab test quick demo bench notebooks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt tools/make_venv.sh
	@bash tools/make_venv.sh "$(VENV)"
	@touch "$(READY)"

lab: $(READY) ## open the course in JupyterLab (without a display: print its address)
	@bash tools/open_lab.sh "$(BIN)" "$(FIRST)" $(LAB_ARGS)

test: $(READY) ## run every test: format, lint, types, units, notebooks
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	$(OFFLINE) $(BIN)/python -m pytest tests dsgp_lab
	$(OFFLINE) $(BIN)/python -m pytest -p no:cacheprovider -o addopts="" --nbval --nbval-current-env notebooks

quick: $(READY) ## run the fast tests only
	$(OFFLINE) $(BIN)/python -m pytest tests dsgp_lab -m "not slow"

demo: $(READY) ## analyse one sentence in the terminal
	@$(BIN)/dsgp-lab analyze "a warm, funny film" --keep 0.6

bench: $(READY) ## time the cut model against the dense one (leave the machine alone meanwhile)
	@$(BIN)/dsgp-lab bench

notebooks: $(READY) ## run all notebooks and store their outputs
	$(OFFLINE) $(BIN)/python tools/run_notebooks.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dsgp_lab.egg-info build
