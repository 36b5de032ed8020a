# DSGP Lab. `make lab` opens the course, `make test` runs every test; `make` alone lists the rest.
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
OFFLINE := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
BOTH_CORES := -n 2 --dist loadfile
QUICK := mask plan cost gates subnetwork copies together pruner statistics tasks checks worker contributing \
	docstrings layers public
SEED_TASKS := cola
SEED_REGIME := adaptive
SEEDS := 1 2
SEED_METHODS := twin,router,mismatched,cascade,cascade_by_lot
JOINT_TASKS := cola
FIRST := notebooks/00_start_here.ipynb

.PHONY: help lab lab-llm app test quick docs demo bench results notebooks browser-test clean
.PHONY: soak coverage mutation checksums seeds joint

# The stamp names the folder: an environment that was moved or copied is made anew.
ifneq "$(shell test -x $(PY) && cat $(READY) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(READY)
endif

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22
	@echo "  PYTHON=python3.12 chooses the Python; LAB_ARGS='--port 9000' goes to JupyterLab."

$(READY): pyproject.toml constraints.txt tools/make_venv.sh
	@bash tools/make_venv.sh $(VENV) "$(PYTHON)"

lab: $(READY) ## open the course in JupyterLab (without a display: print its address)
	@bash tools/open_lab.sh $(PY) $(FIRST) $(LAB_ARGS)

lab-llm: $(READY) ## the same with a language model (about 100 MB more): notebook 08
	@bash tools/add_language_model.sh $(PY)
	@bash tools/open_lab.sh $(PY) notebooks/08_language_models.ipynb $(LAB_ARGS)

app: $(READY) ## open the explorer as a page of its own (Voila, this machine only)
	@bash tools/open_app.sh $(PY) $(APP_ARGS)

test: $(READY) ## run every test: format, lint, types, units, doctests, notebooks
	@bash tools/add_language_model.sh $(PY) || echo "Without the language model: its tests are skipped."
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(OFFLINE) $(PY) -m pytest $(BOTH_CORES) --nbval --nbval-current-env tests dsgp_lab notebooks

quick: $(READY) ## run the tests of the core: under a minute
	$(OFFLINE) $(PY) -m pytest $(BOTH_CORES) -m "not slow" $(QUICK:%=tests/test_%.py)

docs: $(READY) ## write the API reference from the docstrings to build/docs
	@$(PY) -c "import pdoc" 2>/dev/null || $(PY) -m pip install --quiet -c constraints.txt pdoc
	@$(OFFLINE) $(PY) -W ignore tools/make_docs.py

demo: $(READY) ## analyse one sentence in the terminal
	@$(VENV)/bin/dsgp-lab analyze "a warm, funny film" --keep 0.6

bench: $(READY) ## time the cut model against the dense one (leave the machine alone meanwhile)
	@$(VENV)/bin/dsgp-lab bench

results: $(READY) ## recompute data/results from the checkpoints (hours; needs GLUE; resumes)
	$(VENV)/bin/dsgp-lab sweep --out runs/results --workers 2
	$(VENV)/bin/dsgp-lab results --from runs/results --write
	@$(MAKE) --no-print-directory checksums

seeds: $(READY) ## train routers and twins under more seeds, sweep them (SEED_TASKS=cola,rte; needs GLUE)
	$(PY) tools/train_seeds.py --tasks $(SEED_TASKS) --runs $(SEED_REGIME),$(SEED_REGIME)_twin \
		--seeds $$(echo $(SEEDS) | tr ' ' ,)
	for seed in $(SEEDS); do $(VENV)/bin/dsgp-lab sweep --root runs/seed$$seed --seeds $$seed \
		$(if $(filter glue,$(SEED_TASKS)),,--tasks $(SEED_TASKS)) --regimes $(SEED_REGIME) \
		--methods $(SEED_METHODS) --out runs/results --workers 2 || exit 1; done

joint: $(READY) ## train regime joint and sweep it (JOINT_TASKS=cola,rte; needs GLUE)
	$(PY) tools/train_seeds.py --tasks $(JOINT_TASKS) --runs joint,joint_twin --seeds 0
	$(VENV)/bin/dsgp-lab sweep --root runs/seed0 --tasks $(JOINT_TASKS) --regimes joint \
		--methods dense,twin,router,mismatched --out runs/results --workers 2

notebooks: $(READY) ## run all notebooks and store their outputs
	$(PY) tools/run_notebooks.py

browser-test: $(READY) ## run the course and the explorer in a real Chromium; pictures in build/browser
	@$(PY) -c "import playwright" 2>/dev/null || $(PY) -m pip install --quiet -c constraints.txt playwright
	$(OFFLINE) $(PY) tools/browser_test.py $(BROWSER_ARGS)

soak: $(READY) ## try what the lab stands (minutes) and write docs/soak.md
	@$(PY) -c "import playwright" 2>/dev/null || $(PY) -m pip install --quiet -c constraints.txt playwright
	$(OFFLINE) $(PY) tools/soak $(SOAK_ARGS)

coverage: $(READY) ## run the tests and list lines and branches that none of them reaches
	$(OFFLINE) $(PY) -m coverage run -m pytest $(BOTH_CORES) tests dsgp_lab
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

mutation: $(READY) ## change mask, cost, plan, gates and subnetwork a little, and list what no test notices
	$(OFFLINE) $(PY) tools/mutation.py $(MUTATION_ARGS)

checksums: $(READY) ## write data/SHA256SUMS anew, after a change of data/ that was meant
	$(PY) -c "from dsgp_lab import checksums, tasks; print(checksums.write_sums(tasks.data_folder()))"

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist dsgp_lab.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
