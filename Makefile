# On a fresh machine `make demo`, `make page` and `make test` do everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo page test lint mutants audit clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/taxadiffusion demo --out demo-out

# The shipped fish in the browser; Ctrl-C ends it.
page: $(STAMP)
	$(BIN)/taxadiffusion serve --open

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process a core, each of one thread: several threads in each would wait for one another.
test: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# Which deliberate changes of the source do the tests not notice? About 20 minutes of one processor; resumable.
$(VENV)/.mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,mutants]'
	touch $(VENV)/.mutants

mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants

audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) $(VENV)-audit demo-out build/mutants
