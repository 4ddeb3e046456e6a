# What people and CI run. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Outside the repository, so that a fresh clone finds the compiled dependencies and the cluster's programs again.
export SELEXTRACT_CACHE ?= $(HOME)/.cache/selextract
export CARGO_TARGET_DIR ?= $(SELEXTRACT_CACHE)/target
# Which cluster `make demo` uses: local, or current for the kubeconfig's current context; REGISTRY says where to push images for it.
export CLUSTER ?= local
export REGISTRY ?=

tool := $(CARGO_TARGET_DIR)/debug/selextract-local
bench := $(CARGO_TARGET_DIR)/debug/selextract-bench
bin := $(SELEXTRACT_CACHE)/kubernetes-1.34.4/bin
# Every build names the whole workspace: a part of it would compile the dependencies again with other features.
integration := $(sort $(basename $(notdir $(wildcard */tests/*.rs e2e/services/tests/*.rs))) \
	$(filter-out journeys,$(notdir $(patsubst %/main.rs,%,$(wildcard */tests/*/main.rs)))))

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check
check: ## The fast tier: format, lints, unit tests
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace --lib --bins

.PHONY: test
test: tool ## Everything that CI runs: unit, integration, charts, journeys on a real cluster
	$(tool) tools
	@echo '== unit tests'
	cargo test --locked --workspace --lib --bins
	@echo '== integration tests, against PostgreSQL, PgBouncer, Valkey and Chromium'
	command -v chromium-headless-shell >/dev/null || apt-get install --yes --quiet --no-install-recommends chromium-headless-shell
	images/build --root data
	SELEXTRACT_TEST_CHROMIUM=$$(command -v chromium-headless-shell) \
	SELEXTRACT_TEST_DOCS=$$(images/build --root sites)/usr/share/doc/postgresql-doc-17/html \
	cargo test --locked --workspace $(addprefix --test ,$(integration))
	@echo '== charts'
	HELM=$(bin)/helm charts/test
	@echo '== journeys on a real cluster'
	cargo test --locked --workspace --test journeys -- --test-threads=1
	@echo '== bench and soak for seconds: what must be true on any machine'
	$(bench) bench --smoke
	$(bench) soak --smoke

.PHONY: demo
demo: ## From a clone to scraped rows on a real Kubernetes (CLUSTER=current: on yours)
	@echo 'First the programs are compiled: about 8 minutes on 2 cores the first time, seconds when nothing changed.'
	@$(MAKE) --no-print-directory tool
	@$(tool) demo

.PHONY: demo-down
demo-down: tool ## Takes the demo away
	@$(tool) demo-down

.PHONY: bench
bench: tool ## What the operator costs, on release images; 30 minutes by hand (ARGS='--only start'); docs/benchmarks.md
	@$(bench) bench $(ARGS)

.PHONY: soak
soak: tool ## Load while parts are killed in turn, on release images; by hand (MINUTES=10); docs/benchmarks.md
	@$(bench) soak --minutes $(or $(MINUTES),10) $(ARGS)

.PHONY: compare
compare: ## Our programs beside their peers, by CPU for a unit of work; by hand (ARGS='queue --rounds 5'); docs/benchmarks.md
	@images/build --root data >/dev/null
	@cargo build --locked --release --workspace --bins
	@$(CARGO_TARGET_DIR)/release/selextract-bench compare --programs $(CARGO_TARGET_DIR)/release $(ARGS)

.PHONY: soak-browser
soak-browser: ## A thousand pages in Chromium of which fifty crash or hang; five minutes, by hand
	command -v chromium-headless-shell >/dev/null || apt-get install --yes --quiet --no-install-recommends chromium-headless-shell
	SELEXTRACT_TEST_CHROMIUM=$$(command -v chromium-headless-shell) \
	cargo test --locked --workspace --test browser -- --ignored --nocapture

.PHONY: images
images: tool ## Builds the programs and the images, and prints their tag
	@$(tool) tools >/dev/null
	@$(tool) images

.PHONY: cluster-up
cluster-up: tool ## Starts the local cluster (NODES=2 for two nodes)
	@$(tool) up --nodes $(or $(NODES),1)

.PHONY: cluster-down
cluster-down: tool ## Takes the local cluster away
	@$(tool) down

# The whole workspace, and one test with it: dependencies are then compiled once, with the same features for tests, tool and images.
.PHONY: tool
tool:
	@cargo build --locked --workspace --bins --test start
