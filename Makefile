# The doors of this project; `make help` lists them. Each makes what it needs: a virtual environment in .venv, filled
# again only when pyproject.toml or constraints.txt changed. Nothing outside the checkout is touched, nothing needs root.

PYTHON ?= python3
# More arguments for pip, for example PIP_ARGS="--extra-index-url <index of PyTorch's CPU builds>" (README, "PyTorch").
PIP_ARGS ?=
# More arguments for pytest, for example ARGS="-k session".
ARGS ?=
# Of `make faults`: how many, drawn from which seed, and the number of a single one of them (all when it is empty).
N ?= 500
SEED ?= 1
ONLY ?=
# Of `make fuzz`: how long.
SECONDS ?= 60

VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev

# Two processes: on two cores the suite takes little more than half the time. loadscope keeps a module's tests together,
# so that what a module sets up once is set up once. Not reordered: modules of few and long tests would come last, and one
# process would idle; in the order of their folders the quick ones of tests/unit do.
PYTEST := $(BIN)/python -m pytest -v --numprocesses 2 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-containers faults churn fuzz check packages documents format protos docs tutorial bench wheelhouse clean

help: ## Show this list
	@echo "Consilo: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

demo: $(DEMO_STAMP) ## Train one model over four hospitals on this machine
	@$(BIN)/consilo demo $(ARGS)

test: $(DEV_STAMP) ## Run the tests
	@$(PYTEST) $(ARGS)

test-long: $(DEV_STAMP) ## Run the tests, the long ones too
	@$(PYTEST) --long $(ARGS)

test-containers: $(DEV_STAMP) ## Build the images and run a federation of containers (needs an engine: DOCKER_HOST)
	@$(BIN)/python -m pytest -v --containers tests/containers $(ARGS)

faults: $(DEV_STAMP) ## Draw N faults by SEED on real processes (ONLY=k: the k-th alone), and look after each
	@$(BIN)/python -m tests.faults --faults $(N) --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(ARGS)

churn: $(DEV_STAMP) ## Run one job of 200 rounds while silos come and go, and look for growth (20 minutes)
	@$(BIN)/python -m tests.faults.churn --rounds 200 --mode masked --seed $(SEED) $(ARGS)

fuzz: $(DEV_STAMP) ## Try damaged inputs on every decoder for SECONDS
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) $(ARGS)

check: $(DEV_STAMP) ## Format, lint, types, architecture, generated code, samples, documentation
	@$(BIN)/python tools/check.py

packages: $(DEV_STAMP) ## Build wheel and source archive, install them into empty environments, use them
	@PIP_ARGS="$(PIP_ARGS)" $(BIN)/python tools/check_packages.py $(ARGS)

documents: $(DEV_STAMP) ## Run the commands that the documents show
	@$(BIN)/python -m tests.documents $(ARGS)

format: $(DEV_STAMP) ## Put the code in form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

protos: $(DEV_STAMP) ## Write shared/pb from protos/
	@$(BIN)/python tools/generate_protos.py

docs: $(DEV_STAMP) ## Write what the code says: pages of commands, configuration, metrics and messages, schemas for editors
	@$(BIN)/python tools/render_cli_docs.py
	@$(BIN)/python tools/configuration_schemas.py
	@$(BIN)/python tools/render_configuration_docs.py
	@$(BIN)/python tools/render_metrics_docs.py
	@$(BIN)/python -m tests.inputs

tutorial: $(DEV_STAMP) ## Run docs/tutorial.md as it stands, and draw its pictures
	@$(BIN)/python -m tests.documents.tutorial $(ARGS)

bench: $(DEV_STAMP) ## Measure a round's overhead, the coordinator's memory and what durability costs
	@$(BIN)/python benchmarks/storage.py
	@$(BIN)/python benchmarks/round.py
	@$(BIN)/python benchmarks/masking.py

wheelhouse: $(DEV_STAMP) ## Gather wheels for ROLE (coordinator) into ./wheelhouse, for machines without a network
	@PIP_ARGS="$(PIP_ARGS)" $(BIN)/python tools/wheelhouse.py $(or $(ROLE),coordinator) wheelhouse

clean: ## Remove what these targets made: the environment, caches, demo folders
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf consilo-demo*/
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------------------------------------

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there: install Python 3.11 or later, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Consilo needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu it is the package python3-venv"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the demo needs into $(VENV) (first run: a few minutes, most of it PyTorch)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[demo]'
	@touch $@
	@echo "installed"

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what tests and checks need into $(VENV) (first run: a few minutes, most of it PyTorch)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(DEMO_STAMP) $@
	@echo "installed"
