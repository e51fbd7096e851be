# Every target is a thin call of pip, pytest or convnext-steps; `make` shows them.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup study test test-slow lint lab slides site

help:
	@echo "make study      train every step of the roadmap on Fashion-MNIST and plot the trajectory"
	@echo "make test       run the tests"
	@echo "make test-slow  run the long tests: whole studies, kills and browsers"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make site       the course to read in a browser, offline: build/site/index.html"
	@echo "make slides     the course as slides, one file per notebook: build/slides"
	@echo "make lint       ruff, mypy and the floors of the library"

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@echo 'setting up .venv, once; torch alone may be a download of up to 3 GB'
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

study: setup
	$(BIN)/convnext-steps study

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n 2 --dist loadfile --durations=40

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lab: setup
	$(BIN)/jupyter lab --notebook-dir=notebooks

site: setup
	$(BIN)/convnext-steps site

slides: setup
	$(BIN)/convnext-steps slides
