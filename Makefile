# make test   everything CI runs: lint, types, import rules, tests with doctests and coverage
# make demo   the main job on the embedded model, offline; leaves demo/ to look at
# make constraints   refresh constraints.txt from the newest versions that setup.cfg admits

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip

.PHONY: test lint tests demo constraints clean

test: lint tests

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadscope --cov --cov-report=term-missing:skip-covered

demo: $(VENV)/.installed
	rm -rf demo
	$(BIN)/halo-probe demo --out demo

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(UV) install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints:
	$(UV) install --quiet --python $(BIN)/python --upgrade --editable '.[dev]'
	$(UV) freeze --python $(BIN)/python --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) demo build dist *.egg-info
