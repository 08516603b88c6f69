# Every target sets up what it needs; the first run installs packages and builds Kubernetes (see `make help`).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python -P
PYTEST := .venv/bin/pytest
SOURCES := operator agent crds e2e
BPF := agent/handover_agent/bpf

NAME ?= dev
MODE ?= iptables
NODES ?= 3
DEMO_ARGS ?=
KERNELS_ARGS ?=
BENCH_ARGS ?=
SHORT ?=
PYTEST_ARGS ?=

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: NAME=$(NAME) MODE=$(MODE) (iptables|nftables) NODES=$(NODES) for the lab, DEMO_ARGS=..., PYTEST_ARGS=..., SHORT=1 and BENCH_ARGS=... for bench"

.venv/.up-to-date: pyproject.toml requirements/dev.lock e2e/setup.sh
	@e2e/setup.sh

.PHONY: demo
demo: .venv/.up-to-date ## A real cluster migrates to eBPF and back under live traffic
	$(PYTHON) -m e2e.demo --mode $(MODE) --nodes $(NODES) $(DEMO_ARGS)

.PHONY: test
test: unit datapath node e2e ## All tests: unit, datapath, node, e2e

.PHONY: unit
unit: .venv/.up-to-date ## Pure tests: planner, models, compile, diff, parsers (root only for the first set-up)
	$(PYTEST) -m unit $(PYTEST_ARGS)

.PHONY: datapath
datapath: .venv/.up-to-date ## BPF programs with real packets in network namespaces
	$(PYTEST) -m datapath $(PYTEST_ARGS)

.PHONY: node
node: .venv/.up-to-date ## kube-proxy's real rules: inspected, snapshot, flushed, restored
	export KUBE_PROXY=$$($(PYTHON) -m e2e.lab binaries)/kube-proxy; $(PYTEST) -m node $(PYTEST_ARGS)

.PHONY: e2e
e2e: .venv/.up-to-date ## Migrations of a real cluster under traffic, with faults; every behaviour beside kube-proxy
	@$(MAKE) --no-print-directory e2e-control e2e-traffic behaviours

# One after the other: each takes most of two cores by itself, and what is starved looks like what is lost. A label before
# each line; who labels outlives an interruption, so that the tests can say how they clean up.
.PHONY: e2e-control e2e-traffic
e2e-control: .venv/.up-to-date
	$(PYTEST) -v -m e2e --ignore=e2e/tests/migration --ignore=e2e/tests/behaviours $(PYTEST_ARGS) | (trap '' INT TERM; sed -u 's/^/[control] /')

e2e-traffic: .venv/.up-to-date
	$(PYTEST) -v -m e2e e2e/tests/migration $(PYTEST_ARGS) | (trap '' INT TERM; sed -u 's/^/[traffic] /')

.PHONY: behaviours
behaviours: .venv/.up-to-date ## Every behaviour in a cluster with both modes of kube-proxy and ours, the same questions to all
	$(PYTEST) -v -m e2e e2e/tests/behaviours $(PYTEST_ARGS) | (trap '' INT TERM; sed -u 's/^/[behaviours] /')

.PHONY: storms
storms: .venv/.up-to-date ## Migrations while pods roll, endpoints flap, agents die and devices come and go; not part of test
	$(PYTEST) -v -s -m storms e2e/tests/migration $(PYTEST_ARGS)

.PHONY: bench
bench: .venv/.up-to-date ## Ratios against kube-proxy and against no proxy, measured in one run
	$(PYTHON) -m e2e.bench $(if $(SHORT),--short) $(BENCH_ARGS)

.PHONY: kernels
kernels: .venv/.up-to-date ## The agent's image on Debian's stock kernels 6.1 and 6.12, in QEMU: loads, translates, counts
	$(PYTHON) -m e2e.kernels $(KERNELS_ARGS)

.PHONY: check
check: .venv/.up-to-date ## Linters and types: ruff, mypy, import-linter, clang, clang-format, shellcheck
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy $(SOURCES)
	.venv/bin/lint-imports
	clang -target bpf -O2 -Wall -Werror -fsyntax-only \
	  -I /usr/include/$$(clang -print-target-triple | sed s/-pc-/-/) $(BPF)/socket.c $(BPF)/packet.c
	.venv/bin/clang-format --dry-run -Werror $(BPF)/*.c $(BPF)/*.h
	.venv/bin/shellcheck .ci/run $$(git ls-files '*.sh')

.PHONY: generate
generate: .venv/.up-to-date ## Write crds/*.yaml from the models
	$(PYTHON) -m handover_api.generate

.PHONY: verify
verify: .venv/.up-to-date ## Fail when generated files and their sources differ
	$(PYTHON) -m handover_api.generate --check

.PHONY: lock
lock: .venv/.up-to-date ## Resolve the locked requirements anew
	for extras in operator agent "operator agent dev"; do \
	  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    $$(printf -- '--extra %s ' $$extras) pyproject.toml --output-file requirements/$${extras##* }.lock; done

.PHONY: images
images: .venv/.up-to-date ## Build the operator's and the agent's image, without a registry
	$(PYTHON) -m e2e.lab images

.PHONY: lab-up
lab-up: .venv/.up-to-date ## A real cluster on this machine: NAME, MODE, NODES
	$(PYTHON) -m e2e.lab up --name $(NAME) --mode $(MODE) --nodes $(NODES)

.PHONY: lab-down
lab-down: .venv/.up-to-date ## Take it away, completely
	$(PYTHON) -m e2e.lab down --name $(NAME)
