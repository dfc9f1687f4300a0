# `make help` lists what can be made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDY ?=
WORKERS ?= 2
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro compare seeds study study-check test faults oracles peers e2e screenshots bench bench-gpu robustness zoo lint format dashboard readme publish reanalyse twice clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

# Without a git repository DVC must be told so; with one, the setting would break `dvc exp`.
setup: $(STAMP) ## make .venv with the locked dependencies
	@if [ ! -e .git ]; then $(BIN)/dvc config --local core.no_scm true; \
	elif [ -e .dvc/config.local ]; then $(BIN)/dvc config --local -u core.no_scm 2>/dev/null || true; fi

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("wanted Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dashboard,dask,dev]"
	@touch $@

# Each study's report prints its results as soon as they are there, the first study's first.
repro: setup ## rebuild what params.yaml names (STUDY=layers: one study), and show the results
	@stages=$$($(BIN)/python -m camdrift.ops.stages $(STUDY)) || exit 1; \
		$(BIN)/dvc repro $(if $(STUDY),$$stages) && $(BIN)/python -m camdrift.ops.summary show $(STUDY)

compare: setup ## compare this machine's results with the published ones (STUDY=)
	@$(BIN)/python -m camdrift.ops.compare $(STUDY)

# Each seed is a DVC experiment in a temporary copy; commit or `git add` new files first.
seeds: setup ## after make repro: run the whole study with each of the other `seeds` in params.yaml, and write the spread
	@for seed in $$($(BIN)/python -m camdrift.ops.summary seeds); do \
		$(BIN)/dvc exp remove --quiet seed-$$seed 2>/dev/null; \
		$(BIN)/dvc exp run --temp --name seed-$$seed -S seed=$$seed || exit 1; \
	done
	$(BIN)/python -m camdrift.ops.seeds

study: setup ## build a preset, NAME=nips17, or your own file; DATA= and WEIGHTS= name folders
	@CAMDRIFT_DATA="$${CAMDRIFT_DATA:-$(DATA)}" CAMDRIFT_WEIGHTS="$${CAMDRIFT_WEIGHTS:-$(WEIGHTS)}" \
		$(BIN)/python -m camdrift.ops.build "$(NAME)" $(STUDY) $(foreach change,$(SET),-S '$(change)')

study-check: setup ## check what a study (or preset NAME=) needs, and estimate what it takes
	@. stages/processor; \
		CAMDRIFT_DATA="$${CAMDRIFT_DATA:-$(DATA)}" CAMDRIFT_WEIGHTS="$${CAMDRIFT_WEIGHTS:-$(WEIGHTS)}" \
		$(BIN)/python -m camdrift.ops.estimate "$(NAME)" $(STUDY) $(foreach change,$(SET),-S '$(change)')

# Much of the work is on one thread, so that workers of a thread each end sooner than one of all;
# training has two threads all the same, which must not spin where others work. A file's tests share
# what they build and stay with one worker; tests/conftest.py says in which order.
test: setup ## run the tests, on as many cores as WORKERS= says (2)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

faults: setup ## kill, starve and disturb the tiny study, and see that it ends the same
	$(BIN)/python -m pytest tests/faults tests/test_artifacts.py tests/test_shards.py -m "faults or not faults"

# torchattacks asks for requests 2.25, for downloads that no test makes; DVC wants a newer one.
oracles: setup ## install the libraries that results and times are compared with
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[peers]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchattacks

peers: oracles ## compare with foolbox, torchattacks, ART, pytorch-grad-cam, torchcam and captum
	$(BIN)/python -m pytest tests/peers

# Chromium is the system's own: Playwright's download is not needed.
e2e: setup ## use the dashboard in a real Chromium, and take screenshots
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[e2e]"
	@command -v chromium chromium-browser >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get install --yes --quiet chromium >/dev/null 2>&1; } \
		|| echo "no Chromium here and it could not be installed: e2e is not run"
	$(BIN)/python -m pytest tests/e2e -rs

screenshots: e2e ## after make publish: take the README's pictures of the dashboard anew
	mkdir -p data/results/screenshots
	for page in answer overview layers image; do \
		cp data/run/screenshots/$${page}_light.png data/results/screenshots/$$page.png; done

bench: oracles ## after make repro: time what is done here against other ways to the same numbers
	$(BIN)/python tests/benchmarks/bench.py
	$(BIN)/python tests/benchmarks/browsing.py
	$(BIN)/python tests/benchmarks/scaling.py

bench-gpu: setup ## compare the engine on a GPU with the CPU, and time it
	$(BIN)/python tests/benchmarks/gpu.py

zoo: oracles ## explain networks of torchvision and timm at random weights, some also by peers
	$(BIN)/python tests/benchmarks/zoo.py
	$(BIN)/python tests/benchmarks/zoo.py --peers

robustness: oracles ## robust accuracies on CIFAR-10, here and by torchattacks; DATA= and WEIGHTS=
	CAMDRIFT_DATA="$${CAMDRIFT_DATA:-$(DATA)}" CAMDRIFT_WEIGHTS="$${CAMDRIFT_WEIGHTS:-$(WEIGHTS)}" \
		$(BIN)/python tests/benchmarks/robustness.py

lint: setup ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboard: setup ## open the dashboard on the results (NAME=nips17: in the copy of a preset)
	@cd $(if $(NAME),"data/copies/$(NAME)",.) && "$(CURDIR)/$(BIN)/streamlit" run dashboard/app.py

readme: setup ## write the generated parts of the READMEs
	$(BIN)/python -m camdrift.ops.summary readme

reanalyse: setup ## make tables, figures and verdicts anew from published records, no images needed (STUDY=)
	@$(BIN)/python -m camdrift.ops.summary reanalyse $(STUDY)

publish: setup ## bring this machine's results into data/results (STUDY=), and write the READMEs
	$(BIN)/python -m camdrift.ops.summary publish $(STUDY)

twice: setup ## rebuild everything from nothing and compare dvc.lock, byte by byte
	cp dvc.lock $(VENV)/dvc.lock.before
	$(BIN)/dvc repro --force --no-run-cache
	cmp dvc.lock $(VENV)/dvc.lock.before
	@echo "dvc.lock is the same, byte for byte"

clean: ## remove the environment and what stages built (not data/results)
	rm -rf $(VENV) data/sets data/models data/studies data/reports data/run data/shards data/copies data/checked data/modules
