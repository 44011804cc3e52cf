# One command for each thing a developer does.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STATE ?= .recmesh
# make run ONCE=1: do everything once and exit.
ONCE ?=
# Much of the tests' time is waiting for processes. Files stay whole: their tests share servers.
TESTERS ?= 2
# Many processes import the same modules, most of which setup has not compiled: the first one does it for all.
unexport PYTHONDONTWRITEBYTECODE
# In their own order: xdist would keep the files of few tests for the end, and those are the ones that take a minute.
# A crashed process ends the run: after a restart `loadfile` would wait for ever.
SIDE_BY_SIDE := $(if $(filter-out 1,$(TESTERS)),-n $(TESTERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0)
# A test that not even pytest-timeout can end, which may give a test 380 s, says where it hangs, and its process ends.
NO_HANGING := -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true
PROTOS := $(shell find protos -name '*.proto')

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all chart images proto lint format observability prometheus bench evaluate sequential lock clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed .venv-triton/.installed .nats/.tried .prometheus/.tried .helm/.tried ## Make both environments: .venv for everything, .venv-triton for the inference server; nats-server, Prometheus and helm for tests.

$(VENV)/.installed: pyproject.toml constraints.txt tools/setup-venv.sh
	bash tools/setup-venv.sh $(VENV)
	touch $@

.venv-triton/.installed: deploy/triton/install.sh deploy/triton/requirements.txt
	bash deploy/triton/install.sh .venv-triton
	touch $@

# Tried once: without a nats-server the tests of the JetStream engine are skipped, and say so.
.nats/.tried: deploy/nats/install.sh
	bash deploy/nats/install.sh .nats || echo "no nats-server here: the tests that need one will be skipped"
	mkdir -p .nats && touch $@

# Tried once, like nats-server.
.prometheus/.tried: deploy/prometheus/install.sh
	bash deploy/prometheus/install.sh .prometheus || echo "no Prometheus here: the tests that need one will be skipped"
	mkdir -p .prometheus && touch $@

# Without helm the tests of the chart are skipped.
.helm/.tried: deploy/helm/install.sh $(VENV)/.installed
	bash deploy/helm/install.sh .helm $(BIN)/python || echo "no helm here: the tests of the chart will be skipped"
	mkdir -p .helm && touch $@

sequential: .venv-sequential/.installed ## Make the environment of the sequential baselines, for `recmesh evaluate --sequential`.

.venv-sequential/.installed: services/training/sequential/install.sh services/training/sequential/requirements.txt
	bash services/training/sequential/install.sh .venv-sequential
	touch $@

run: setup ## Real data, an adapted model, all services up, a recommendation, a click, the next recommendation. ONCE=1 exits.
	$(BIN)/recmesh run --state $(STATE) $(if $(ONCE),--once)

test: setup lint ## Lint and the tests that take less than 15 minutes on two cores. TESTERS=1: one after the other.
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(NO_HANGING)

test-all: setup lint ## All tests, slow ones included.
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m ''

chart: setup ## Check the chart: lint, wrong values, rendered objects, and the real helm against a double of the API.
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/chart

images: ## Build the image of the online services with buildah, where it can; prints the reason where it cannot.
	bash deploy/docker/build.sh services

proto: setup ## Generate the stubs beside their protos.
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --pyi_out=protos --grpc_python_out=protos $(PROTOS)

lint: setup ## Format, style, types, import contracts, protos: lint, breaking changes, stubs current.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	bash tools/check-protos.sh $(BIN)

format: setup ## Format the code and mend what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

observability: setup ## Write the dashboards, and the chart's copies of rules and dashboards.
	$(BIN)/python -m deploy.grafana
	$(BIN)/python -m deploy.chart_files

prometheus: setup ## A Prometheus that watches the mesh on the state folder, at http://127.0.0.1:9090.
	$(BIN)/python -m deploy.prometheus --state $(STATE)

bench: setup ## Measure the running mesh against the same model in process.
	$(BIN)/recmesh bench --state $(STATE) --scenario video --candidates 500 --seconds 20

evaluate: setup ## Print the evaluation of the current video model and its baselines.
	$(BIN)/recmesh evaluate video --state $(STATE)

lock: setup ## Write constraints.txt from what is installed.
	bash tools/lock.sh $(BIN) > constraints.tmp && mv constraints.tmp constraints.txt

clean: ## Remove environments and caches. The state folder stays.
	rm -rf $(VENV) .venv-triton .venv-sequential .nats .prometheus .helm .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
