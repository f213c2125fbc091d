# make test   everything CI runs: lint, types, import rules, tests with doctests and coverage
# make demo   the main job on the embedded model, offline; leaves demo/ to look at
# make figure   the demonstration, and from it the picture that the README shows
# make corner WHICH=oldest|pinned|newest [PYTHON=python3.13]   everything in an environment of its own
# make constraints   refresh constraints.txt from the newest versions that setup.cfg admits

PYTHON ?= python3
# Bytecode is kept, or each of the many processes of the tests compiles torch and lmms-eval anew.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip

.PHONY: test lint tests browser smoke corner demo figure constraints clean

test: lint tests smoke

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread for each of the two workers: threads that wait for each other cost more than they bring.
tests: export OMP_NUM_THREADS := 1
tests: $(VENV)/.installed browser
	$(BIN)/python -m pytest -n 2 --dist loadscope --cov --cov-report=term-missing:skip-covered

# What pip installs today, without the constraints: a bare run, a probed one, a family of each kind of cache.
smoke: $(VENV)/.installed
	$(BIN)/python tests/corner.py newest --smoke

corner: $(VENV)/.installed
	$(BIN)/python tests/corner.py $(WHICH) $(if $(findstring command line,$(origin PYTHON)),--python $(PYTHON))

# The page is tested in Chromium. Where it is missing and Debian's packages cannot be installed, those tests skip.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
		>/dev/null 2>&1 || echo "no chromium, and no right to install it: the tests of the page are skipped" >&2

demo: $(VENV)/.installed
	rm -rf demo
	$(BIN)/halo-probe demo --out demo

figure: demo
	$(BIN)/halo-probe figures demo --out demo/figures
	mkdir -p docs/images
	cp demo/figures/1-layers-and-tokens.png docs/images/demo.png

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(UV) install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints:
	$(UV) install --quiet --python $(BIN)/python --upgrade --editable '.[dev]'
	$(UV) freeze --python $(BIN)/python --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) .corners demo build dist *.egg-info
