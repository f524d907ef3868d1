# What a person runs by hand; `make` alone lists it. Everything lives in .venv, pinned by constraints.txt.

PYTHON ?= python3
FRESH ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.embinv-setup
DEMO  := runs/demo
TORCH := $(shell grep -E '^torch==' constraints.txt)
# What an image holds beside the dependencies: storage, encoders, stores of vectors, the audit; no tracker, no test tool.
LOCK_EXTRAS := s3,gs,jina,demo,audit,faiss,langid,lancedb,pgvector

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test slow nightly benchmarks browser check serve clean demo-checkpoint lock audit-dependencies

# Ray's own ports listen on every network interface, and whoever reaches them without a token can run code
# here. So what a person leaves running uses token authentication (Ray keeps the token in ~/.ray/auth_token);
# the HTTP port of `make serve` is not covered by it, and listens on 127.0.0.1 only.
demo serve: export RAY_AUTH_MODE ?= token
# Tests start clusters of their own that live for seconds, and must leave nothing in the home directory.
test slow nightly benchmarks browser: export RAY_AUTH_MODE := disabled
# Ray and DeepSpeed start programs by name (ray, ninja): these must be the ones in .venv.
demo serve test slow nightly benchmarks browser: export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## list the targets
	@echo "embinv: recover the text behind an embedding vector"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install the pinned set into it (about 3 minutes, once)

$(STAMP): pyproject.toml constraints.txt
	@python=$$(test -x $(BIN)/pip && echo $(BIN)/python || echo $(PYTHON)); \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "embinv needs Python 3.11 or newer, but '$$python' is: $$($$python --version 2>&1)." >&2; \
	  echo "Remove $(VENV) if it is there, and name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -n "$(TORCH)" || { echo "constraints.txt has no line 'torch==...'; restore it from git." >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "==> making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; }
	@echo "==> installing $(TORCH), before what depends on it, so that pip takes the pinned build"
	@$(BIN)/python -m pip install --quiet "$(TORCH)"
	@echo "==> installing embinv and its pinned dependencies (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,dev]"
	@touch $@
	@echo "==> ready: $$($(BIN)/python --version), $(TORCH), all in $(VENV)"

demo: setup ## run the whole path on one machine into runs/demo (FRESH=1 starts over)
	@$(BIN)/embinv demo --out $(DEMO) $(if $(filter 1,$(FRESH)),--fresh)

test: setup ## run the default tests: offline, on the CPU
	@echo "==> default tests"
	@$(BIN)/python -m pytest

slow: setup ## run the tests that start clusters, train, or kill processes
	@echo "==> slow and cluster tests"
	@$(BIN)/python -m pytest -m "(slow or cluster) and not (gpu or browser or benchmark or nightly)"

benchmarks: setup ## run each benchmark once at small sizes (no figure worth keeping)
	@echo "==> benchmarks at small sizes"
	@$(BIN)/python -m pytest -m "benchmark and not gpu"

nightly: setup ## run the slow tests that CI leaves out, since others are near them
	@echo "==> nightly tests"
	@$(BIN)/python -m pytest -m "nightly and not gpu"

browser: setup ## run the tests of the page in Debian's chromium
	@echo "==> browser tests"
	@$(BIN)/python -m pytest -m "browser and not gpu"

check: setup ## ruff, formatting, pyright, typos, then the default tests
	@echo "==> ruff check"
	@$(BIN)/ruff check .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "==> pyright"
	@$(BIN)/pyright
	@echo "==> typos"
	@$(BIN)/typos
	@$(MAKE) --no-print-directory test

serve: demo-checkpoint setup ## serve the demo's checkpoint and a page on 127.0.0.1:8000
	@echo "==> serving $(DEMO)/checkpoint; it takes half a minute to start, and Ctrl-C stops it"
	@set -a; . cluster/serve.env; \
	  if command -v haproxy >/dev/null; then . cluster/haproxy.env; \
	  else echo "    requests are several times quicker once haproxy is installed"; fi; \
	  $(BIN)/python -m serve_app.ready http://127.0.0.1:8000 & exec $(BIN)/serve run serve_app/config.yaml

demo-checkpoint:
	@test -d $(DEMO)/checkpoint || { \
	  echo "There is no checkpoint in $(DEMO)/checkpoint yet. 'make demo' trains one in about ten minutes." >&2; exit 1; }

lock: setup ## write cluster/locks/*.txt anew: versions and hashes of what an image holds
	@echo "==> locking the packages of an image"
	@$(BIN)/python cluster/locks/write.py --extras $(LOCK_EXTRAS)

audit-dependencies: setup ## look the pinned packages up among known advisories
	@echo "==> pinned packages against known advisories"
	@$(BIN)/python .ci/audit_dependencies.py constraints.txt cluster/locks/cpu.txt cluster/locks/cuda.txt

clean: ## remove caches and build products (.venv and runs/ stay)
	@echo "==> removing caches and build products; $(VENV) and runs/ stay"
	@rm -rf build dist .pytest_cache .ruff_cache *.egg-info
	@find . \( -path ./$(VENV) -o -path ./runs -o -path ./.git \) -prune -o -type d -name __pycache__ -exec rm -rf {} +
