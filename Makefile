# make study   results from nothing: environment, assets, every notebook in the tiny profile
# make test    the tests, and every notebook in the smoke profile
# make lab     JupyterLab on the notebooks
#
# `make test JOBS=4` tests in four processes, each on one core; two by default.

PYTHON ?= python3
PROFILE ?= tiny
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: study test lab install fetch notebooks clean

study: install fetch
	@$(BIN)/dragstudy study --profile $(PROFILE)

test: install fetch
	DRAGSTUDY_HEADLESS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile \
	    --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout=300 --nbval-sanitize-with tests/nbval_sanitize.cfg

lab: install
	$(BIN)/jupyter lab notebooks

# Run every notebook with its own parameters (the smoke profile) and keep the outputs in it.
notebooks: install fetch
	$(BIN)/dragstudy study --refresh

install: .venv/installed

# A missing asset is no reason to stop: each command says itself what it cannot do without it.
fetch: install
	@$(BIN)/dragstudy fetch || echo "Going on without the assets that could not be fetched."

# torch goes first and alone, so that a CPU build offered by your pip configuration is taken and then stays.
.venv/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dragstudy needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing torch ..."
	@$(PIP) install -qq --constraint constraints.txt torch
	@touch $@

.venv/installed: .venv/torch pyproject.toml
	@echo "Installing dragstudy and what it needs ..."
	@$(PIP) install -qq --constraint constraints.txt --editable '.[lab,test]'
	@touch $@

clean:
	rm -rf .venv results/runs
