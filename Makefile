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
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

.PHONY: demo test chromium lint openapi settings bench clean

demo: $(READY)
	$(BIN)/mts4mm demo $(if $(ONCE),--once)

test: $(READY) chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  echo "the console's tests need Chromium: installing it"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || { \
	    echo "cannot install Chromium: install it yourself (Debian: apt-get install chromium), then run this again"; \
	    exit 1; }; }

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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
	$(BIN)/python -m pip install --quiet --editable '.[trainer,service,text,experiments,dev]'
	touch $@
