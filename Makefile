# The two commands for a new user: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SOURCES := core trimtab exporter models passes runtime_bench tests typing_tests benchmarks examples website

.PHONY: api changelog coverage demo gate-self test test-fast first-hour property fuzz check providers format docs setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train a small network, optimise it, print the proof (under 3 minutes)"
	@echo "make test       all tests        make test-fast  a case of each quick one, under a minute"
	@echo "make coverage   all tests, with the share of lines and branches that they reach"
	@echo "make first-hour every command of the tutorials and of the README"
	@echo "make fuzz       2,000 broken models through the commands, for hours"
	@echo "make property N=2000   each pass on that many random graphs, a failing one made small"
	@echo "make check      format, lint, types, who imports whom        make format  write the format"
	@echo "make api        what breaks for users since the last release, by the names that are public"
	@echo "make changelog  the part of a release in CHANGELOG.md, from the files in changes/"
	@echo "make gate-self  this checkout against the last release, by trimtab's own gate"
	@echo "make providers  what devices take, held against packages of QNN and OpenVINO"
	@echo "make docs       the site of the documents, into out/site"

setup: $(STAMP)

# Pinned versions come from constraints.txt; a CPU build of torch is enough for everything here.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m trimtab.demo --out out/demo

# One thread in each of the processes that share the cores; and the many that tests start read
# compiled modules, also where the environment says that none be written.
test test-fast coverage: export OMP_NUM_THREADS ?= 1
test test-fast coverage: export PYTHONDONTWRITEBYTECODE =

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --durations=25

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n auto -m "not slow" --first-cases --durations=5

# At least 90% of the lines and branches of passes, and 85% of the bench, whose devices and browsers
# not every machine has; or it fails.
coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage: $(STAMP)
	rm -rf .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n auto --durations=25
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet --directory out/coverage
	$(BIN)/coverage report --skip-covered --sort cover
	$(BIN)/coverage report --format total --include "passes/*" --fail-under 90
	$(BIN)/coverage report --format total --include "runtime_bench/*" --fail-under 85

# Every command of the tutorials and of the README, as it is written.
first-hour: export OMP_NUM_THREADS ?= 1
first-hour: $(STAMP)
	TRIMTAB_FIRST_HOUR=1 $(BIN)/python -m pytest -n auto tests/first_hour

property: export OMP_NUM_THREADS ?= 1
property: N ?= 2000

property: $(STAMP)
	TRIMTAB_EXAMPLES=$(N) $(BIN)/python -m pytest -n auto --timeout 0 tests/property

# 2,000 broken models through eight commands each: takes hours.
fuzz: export OMP_NUM_THREADS ?= 1
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --mutants 2000

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy typing_tests/public_api.py
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/project/architecture.py --brief
	$(BIN)/python website/api_changes.py
	$(BIN)/towncrier build --draft >/dev/null

# The part of the changelog for the version of pyproject.toml, from the files in changes/.
changelog: $(STAMP)
	$(BIN)/towncrier build --yes

# What breaks since the last release, or since REF.
api: $(STAMP)
	$(BIN)/python website/api_changes.py $(REF)

# An environment of its own: the site needs no torch, and the tests none of its packages.
.venv-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade "pip>=24"
	.venv-docs/bin/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

# Builds without a network, and fails at a warning, a broken link or a file from the internet.
docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict --quiet
	@echo "out/site/index.html; to read it with its search: python -m http.server -d out/site"

# Packages of providers in an environment of their own: beside them, the tables of support are held
# against what the providers answer, which needs no device.
.venv-providers/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-providers
	.venv-providers/bin/python -m pip install --quiet --upgrade "pip>=24"
	.venv-providers/bin/python -m pip install --quiet -c constraints.txt -e ".[qnn,openvino,optimize]" \
		pytest pytest-timeout hypothesis
	@touch $@

providers: export OMP_NUM_THREADS ?= 1
providers: .venv-providers/.installed
	.venv-providers/bin/python -m pytest tests/runtime_bench/support tests/search/test_engines.py

# Beside the last release on PyPI, or beside what BASE names for pip: a checkout, a wheel.
gate-self: export OMP_NUM_THREADS ?= 1
gate-self: BASE ?= trimtab
gate-self: QUANTIZE = bin/trimtab quantize float.onnx --data calibration.npz --force -o
gate-self: $(STAMP)
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet -c constraints.txt "$(BASE)[cpu,optimize]"
	$(BIN)/python benchmarks/project/own_gate.py out/gate-self
	cp benchmarks/project/own_gate.yaml out/gate-self/budgets.yaml
	cd out/gate-self && ../../$(VENV)/$(QUANTIZE) int8.onnx
	cd out/gate-self && ../../.venv-release/$(QUANTIZE) int8-release.onnx
	$(BIN)/trimtab gate out/gate-self/budgets.yaml --max-time 3m --on-inconclusive pass \
		--markdown out/gate-self/gate.md

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) .venv-docs .venv-providers .venv-release out build *.egg-info .mypy_cache .ruff_cache .pytest_cache
