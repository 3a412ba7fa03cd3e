# What users and developers type. Each target makes what it needs, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
MODEL ?= models/camvid-lite/1
DATA ?= data/camvid
RUN ?= runs/train

.PHONY: help serve test test-environment test-long test-container test-nets test-cluster tools lint train openapi bench bench-kernel bench-export bench-soak bench-overload bench-cluster bench-swap test-soak clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

serve: $(VENV)/.serve ## Install the service and serve ./models on port 8000
	$(BIN)/segserve serve

test: $(VENV)/.dev ## Install everything and run the test suite
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-environment: $(VENV)/.dev ## Install the service alone into a fresh environment and serve from it
	$(BIN)/pytest -m environment

test-long: $(VENV)/.dev ## What the suite leaves out since it takes long: shipped models on every validation picture, large nets, Ray, short benchmarks, the README
	$(BIN)/pytest -m long

test-container: $(VENV)/.dev ## Build the image and run it, without a container engine (Linux, root, debootstrap, buildah)
	$(BIN)/pytest tests/container

test-nets: $(VENV)/.dev ## Export nets of other libraries, which it installs beside the project, and compare them
	$(BIN)/pytest tests/nets

test-cluster: $(VENV)/.dev ## Ray on two nodes, of which some die, for longer; the Helm chart against KServe's package, which it installs
	$(BIN)/pytest -rP tests/cluster

tools: $(VENV)/.dev ## Install the training and export tools as well (PyTorch: gigabytes on some systems)

lint: $(VENV)/.dev ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

train: $(VENV)/.dev ## Train a shipped model again, or go on with it: make train MODEL=<bundle> DATA=<data folder> RUN=<run folder>
	$(BIN)/segserve-train train $(DATA) -o $(RUN) --recipe $(MODEL) --resume

openapi: $(VENV)/.dev ## Write docs/openapi.json again, after a change of the interface
	$(BIN)/python -c 'import json; from service.app import create_app; from service.settings import Settings; print(json.dumps(create_app(Settings()).openapi(), indent=1))' > docs/openapi.json

bench: $(VENV)/.dev ## Measure segserve beside bare loops and other servers (needs wrk; half an hour and more)
	$(BIN)/python -m benchmarks

bench-kernel: $(VENV)/.dev ## Measure how a mask and an overlay of the picture's size are made
	$(BIN)/python -m benchmarks.kernel

bench-export: $(VENV)/.dev ## Measure agreement and speed of the exported nets
	$(BIN)/python -m benchmarks.export --compile

bench-soak: $(VENV)/.dev ## Send 10,000 mixed and hostile requests; statuses and memory over time (10 minutes and more)
	$(BIN)/python -m benchmarks.soak

test-soak: bench-soak ## The same as a test: fails where an answer is not as documented, or memory grows by 5 %

bench-overload: $(VENV)/.dev ## Offer ten times the requests that the server can answer
	$(BIN)/python -m benchmarks.overload

bench-cluster: $(VENV)/.dev ## Measure two Ray nodes beside one, for requests and for batches (20 minutes)
	$(BIN)/python -m benchmarks.cluster

bench-swap: $(VENV)/.dev ## Change the versions of ENet and SegNet under load
	$(BIN)/python -m benchmarks.swap

clean: ## Remove the virtual environment
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "segserve needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) lacks venv. Install it (Debian, Ubuntu: apt install python3-venv), then try again."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# torch comes first and alone: pinned, so that nothing else chooses another build of it.
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.serve
