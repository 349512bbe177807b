# `make book` and `make test` set everything up by themselves; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin

# The interpreter of the environment, with the kernel of the same environment for every notebook.
RUN := PYTHONPATH='$(CURDIR)' JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1 $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help book pdf test notebooks lint lock clean distclean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo
	@echo "  PYTHON=python3.12     the interpreter to make .venv with (3.11 or newer; else python3, or the one it has)"
	@echo "  TORCH_INDEX=address   another package index for torch, such as that of its CPU-only builds (see README.md)"
	@echo "  SAM_DATA_ROOT=folder  where the image data are (default: data/)"

book: installed  ## run the chapters whose inputs changed and build the pages
	@$(RUN) -m book.make.pages

pdf: installed  ## the book in print, _build/book.pdf (needs an installed Chromium)
	@$(RUN) -m book.make.pdf

test: installed  ## run the tests and compare the notebooks' key numbers (AGAIN=1: even if nothing changed)
	@$(RUN) -m book.make.regression $(if $(AGAIN),--again)

notebooks: installed  ## for authors: run every notebook with its default parameters and store its outputs
	@$(RUN) -m book.make.chapters --in-place

lint: installed  ## check the style of the code and the library's types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy lib

lock: installed  ## for authors: write the installed versions to requirements-lock.txt
	@$(BIN)/python -m pip list --format=freeze --exclude-editable > $(VENV)/list
	@{ grep '^#' requirements-lock.txt; grep -v '^pip==' $(VENV)/list | sed 's/+.*//'; } > $(VENV)/lock
	@mv $(VENV)/lock requirements-lock.txt

clean:  ## remove what was built, but not the environment
	rm -rf _build book/chapters .pytest_cache .ruff_cache .mypy_cache .hypothesis

distclean: clean  ## remove the environment too
	rm -rf $(VENV) $(VENV).* *.egg-info

installed:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' TORCH_INDEX='$(TORCH_INDEX)' sh book/make/install.sh
