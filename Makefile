# Everything a newcomer or CI does starts here: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

# pip's settings that uv does not read by itself.
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# Where the CPU build of torch comes from: a wheel folder if one is configured, else PyTorch's own index.
TORCH_INDEX ?= $(if $(UV_FIND_LINKS),,--extra-index-url https://download.pytorch.org/whl/cpu)

# A test file a core, at most four: each may start servers of its own.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help:  ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}'

.PHONY: setup
setup: $(READY)  ## Make .venv with everything the demo and the tests need

$(READY): pyproject.toml requirements/lock.txt requirements/torch.txt
	$(call say,Making .venv with $(PYTHON))
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11-3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(call say,Installing torch for CPU)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(TORCH_INDEX) -r requirements/torch.txt
	$(call say,Installing the locked dependencies (about 3.5 GB on disk))
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements/lock.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo "torch does not import: its CPU build was not found; make TORCH_INDEX='--extra-index-url URL' names where it is"; exit 1; }
	@touch $@

.PHONY: demo
demo: setup  ## Run the whole loop on the embedded museum benchmark; says where its report is
	$(call say,Running the demo: index - models - benchmark - MLflow - report)
	@$(BIN)/m4rag demo

.PHONY: test
test: lint test-fast test-real  ## Everything that CI runs

.PHONY: lint
lint: setup  ## Style, types and import contracts
	$(call say,Checking style (ruff), types (mypy) and import contracts)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: test-fast
test-fast: setup  ## Unit tests: no service, seconds
	$(call say,Unit tests)
	@$(BIN)/pytest -q $(PARALLEL) tests/unit

.PHONY: test-real
test-real: setup  ## Integration and end-to-end tests on real Milvus, MLflow, vLLM and Chromium: minutes
	$(call say,Integration and end-to-end tests on real services)
	@$(BIN)/pytest -q $(PARALLEL) --durations 25 -m "not milvus_server" tests/integration tests/e2e
	$(call say,Tests that share one Milvus server: two can not run on a machine)
	@$(BIN)/pytest -q -m milvus_server tests/integration

.PHONY: format
format: setup  ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: milvus-server
milvus-server:  ## Install the Milvus 2.3.5 server that the contract tests use, in an environment of its own
	@PYTHON=$(PYTHON) hack/milvus-server install

.PHONY: lock
lock: setup  ## Resolve requirements/lock.txt again from pyproject.toml
	@env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra dev \
		--overrides requirements/overrides.txt --no-emit-package torch --no-emit-package torchvision \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--output-file requirements/lock.txt
	@env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 images/tools.in \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--output-file images/tools.txt

.PHONY: images
images:  ## Build the container images with Docker or Podman; says what their base images must be
	@$(PYTHON) hack/build_images.py

.PHONY: models
models: setup  ## Train the reference models again, measure them, write their cards (about two hours on two cores)
	$(call say,Training)
	@$(BIN)/m4rag train vlm --recipe nano --out m4rag/models
	@$(BIN)/m4rag train retriever --recipe nano --out m4rag/models
	$(call say,Measuring on held-out questions through vLLM)
	@$(BIN)/python hack/measure_models.py

.PHONY: golden
golden: setup  ## Regenerate the golden files; look at the diff
	@M4RAG_REGENERATE=1 $(BIN)/pytest -q tests -k golden || true
	@git diff --stat -- tests/golden charts components manifests

.PHONY: clean
clean:  ## Remove what demo and tests wrote (not .venv)
	@rm -rf .m4rag .pytest_cache .mypy_cache .ruff_cache .hypothesis
