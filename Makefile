# On a fresh machine with Python 3.11 or newer and nothing else: `make demo`, `make test`. All set-up is in $(STAMP).

PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MAKING := $(VENV)/.installing

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# The stamp counts only where it was made: not in a copied or moved folder, nor when the Python beneath it has gone.
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
SOUND := [ "$$(cat $(STAMP))" = "$(CURDIR)" ] && $(BIN)/python -c "$(RECENT)"
ifneq ($(shell { $(SOUND); } >/dev/null 2>&1 && echo yes),yes)
  $(shell rm -f $(STAMP))
endif

# A PYTHON that was asked for is used or refused; otherwise the first that will do.
ifeq ($(origin PYTHON),file)
  CANDIDATES := $(PYTHON) python3.13 python3.12 python3.11
else
  CANDIDATES := $(PYTHON)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest format docs bench clean

help:
	@echo "make demo     compress a small network and show what came of it (runs/demo)"
	@echo "make test     lint, types and tests"
	@echo "make format   put the code in the house's form"
	@echo "make docs     a page for every method (docs/site/index.html)"
	@echo "make bench    what there is to measure"
	@echo "make clean    remove the virtual environment and what tools left; runs/ stays"

$(STAMP): pyproject.toml constraints.txt
	@if [ -e $(MAKING) ] || ! $(BIN)/python -c "import pip; $(RECENT)" 2>/dev/null; then $(NEW_VENV); fi
	@echo "make: installing shoal and what it needs into $(VENV); the first time takes a few minutes" >&2
	@rm -f $(STAMP) && touch $(MAKING)
	@$(BIN)/python -m pip install -qq --editable ".[dev]" --constraint constraints.txt \
	  || { echo "make: the installation failed (see above); mend that and run make again" >&2; exit 1; }
	@echo "$(CURDIR)" >$(MAKING) && mv $(MAKING) $(STAMP)

define NEW_VENV
  found=""; bare=""; \
  for python in $(CANDIDATES); do \
    $$python -c "$(RECENT)" 2>/dev/null || continue; \
    if $$python -c "import ensurepip, venv" 2>/dev/null; then found=$$python; break; fi; \
    bare=$${bare:-$$python}; \
  done; \
  if [ -z "$$found$$bare" ]; then \
    echo "make: no Python 3.11 or newer (looked for $(CANDIDATES)); install one, or give its path: make PYTHON=..." >&2; \
    exit 1; \
  elif [ -z "$$found" ]; then \
    version=$$($$bare -c "import sys; print('%d.%d' % sys.version_info[:2])"); \
    echo "make: $$bare lacks the venv module; install it, as in: apt-get install python$$version-venv" >&2; exit 1; \
  fi; \
  rm -rf $(VENV); \
  $$found -m venv $(VENV) || { rm -rf $(VENV); echo "make: $$found could not make $(VENV) (see above)" >&2; exit 1; }
endef

demo: $(STAMP)
	@$(BIN)/shoal demo

test: lint types pytest

lint: $(STAMP)
	@$(BIN)/python -m ruff check --quiet
	@$(BIN)/python -m ruff format --check --quiet || { echo "make: not in the house's form; run make format" >&2; exit 1; }

types: $(STAMP)
	@$(BIN)/python -m mypy

pytest: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

format: $(STAMP)
	@$(BIN)/python -m ruff check --fix --quiet
	@$(BIN)/python -m ruff format

docs: $(STAMP)
	@$(BIN)/python docs/build.py

bench: $(STAMP)
	@for file in bench/[a-z]*.py; do \
	  printf '%-36s %s\n' "$(BIN)/python $$file" "$$(sed -n '1s/^"""//p' $$file | sed 's/"""$$//')"; done

clean:
	@rm -rf $(VENV) docs/site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find src tests docs bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
