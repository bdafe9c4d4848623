# Two commands are all a newcomer needs:  make demo   and   make test.
#
# TORCH_PIP_ARGS  extra arguments of the `pip install torch==...` step, to choose where torch comes from, e.g.
#                 make demo TORCH_PIP_ARGS="--index-url <URL of PyTorch's CPU wheel index>"
#                 A machine without a GPU need not take the CUDA build. Empty: pip's own configuration decides.
# PYTHON          the interpreter that makes the environment (3.11 or newer).
# ONCE=1          with `make demo`: exit after the answer instead of serving until Ctrl-C.

PYTHON ?= python3
VENV ?= .venv
TORCH_PIP_ARGS ?=
ONCE ?=
BENCH_SEEDS ?= 3

BIN := $(VENV)/bin
READY := $(VENV)/.ready
AUDIT := $(BIN)/pip-audit --progress-spinner off --disable-pip --require-hashes
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

.PHONY: demo test lint lock e2e-compose openapi settings bench clean

demo: $(READY)
	$(BIN)/mts4mm demo $(if $(ONCE),--once)

test: $(READY)
	tests/install_programs.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --severity-level medium --configfile pyproject.toml shared service trainer deploy
	$(AUDIT) -r deploy/requirements-service.lock -r deploy/requirements-trainer.lock
	$(AUDIT) -r deploy/requirements-build.lock

# Pins, with hashes, everything the images install, and what builds them, but torch, whose CPU and CUDA builds differ.
lock: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	$(COMPILE) --output-file deploy/requirements-build.lock deploy/requirements-build.in
	for side in service trainer; do \
		$(COMPILE) --unsafe-package torch \
			$$([ $$side = trainer ] && echo "--extra trainer --extra image --extra text --extra object-store" || echo "--extra service --extra otel --extra object-store") \
			--output-file deploy/requirements-$$side.lock pyproject.toml || exit 1; \
		sed -i '/^torch==/,/^    #/d' deploy/requirements-$$side.lock; \
	done

# On a machine with a container engine; takes a quarter of an hour.
e2e-compose:
	$(PYTHON) tests/e2e/compose.py

openapi: $(READY)
	$(BIN)/python -c "import json, service.app; print(json.dumps(service.app.openapi(), indent=2))" > docs/openapi.json

settings: $(READY)
	$(BIN)/python -c "from service.settings import reference; print(reference(), end='')" > docs/settings.md

bench: $(READY)
	$(BIN)/mts4mm bench demo-shop --seeds $(BENCH_SEEDS)

clean:
	rm -rf $(VENV) .demo build *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_PIP_ARGS) $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[trainer,service,otel,image,text,experiments,object-store,dev]'
	touch $@
