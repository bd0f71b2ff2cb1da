# Every command that a person needs. `make` alone explains them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help testnet chaos demo test sim fuzz bench check clean libtorch clients python programs docs host tools build image compose-test

# Options of `make testnet`, for example ARGS="--nodes 4 --devices 2 --json".
ARGS ?=
# nextest profile of `make test`: default, ci, sim, chaos (.config/nextest.toml).
PROFILE ?= default
# Seeds of `make sim`; one seed alone, which is told event by event; which scenario (part of a test's name).
SEEDS ?= 1000
SEED ?=
TEST ?=
# What `make bench` runs; names narrow it down (gpu/bench/bench.sh).
BENCH ?=
# Targets of `make fuzz`; all of them, if none is named.
FUZZ ?=

PSYCHE_CACHE ?= $(HOME)/.cache/psyche
export PSYCHE_CACHE
export PATH := $(PSYCHE_CACHE)/tools/bin:$(PATH)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
NODE := $(TARGET_DIR)/debug/psyche-solana-client

# --workspace with --examples makes cargo resolve the same features for the program as for the tests, so that whoever
# runs both compiles every dependency once (docs/decisions/0002-one-profile.md).
BUILD := cargo build --locked --workspace --bin psyche-solana-client --examples

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

testnet: build ## several nodes train a model on a chain of their own, here (ARGS="--nodes 3 --devices 2 …", --help)
	@exec $(NODE) testnet $(ARGS)

chaos: build ## real nodes on a bad network, killed every 15 s, with failing providers; needs root (ARGS="--seed 7", "--utilisation")
	@exec $(TARGET_DIR)/debug/examples/chaos $(ARGS)

demo: build ## nodes that come late, are killed, altered, and lie: a transcript of what the others do (ARGS="liar")
	@exec $(TARGET_DIR)/debug/examples/demo $(ARGS)

test: build ## all tests of the workspace (PROFILE=default|ci|sim|chaos)
	@scripts/test.sh $(PROFILE)

fuzz: host libtorch ## mutated input for every decoder, guided by coverage (FUZZ_SECONDS=60 for each; FUZZ="announcement payload")
	@RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/rustc.sh cargo run --locked --package psyche-fuzz -- $(FUZZ)
sim: host libtorch ## whole runs in simulation: SEEDS=10000 of them, or SEED=7 TEST=sim_whatever that one again, event by event
	@scripts/sim.sh "$(SEEDS)" "$(SEED)" "$(TEST)"

check: host libtorch tools ## formatting, lints, licences, banned crates, architecture
	@scripts/check.sh

bench: host libtorch ## benchmarks, ours against peers (BENCH=step, layouts, all-reduce, codec, net …); figures stand in docs/BENCHMARKS.md
	@gpu/bench/bench.sh $(BENCH)

image: build ## the node's container image, from what was built here (docker/build.sh builds it from the sources)
	docker/build.sh --prebuilt

compose-test: build ## build the image and run the compose testnet to its end, also with a node and an endpoint that fail
	docker/test.sh

programs: host ## build the on-chain programs to programs/elf/
	programs/build.sh

docs: build ## write docs/CLI.md anew, from the program
	$(NODE) print-all-help >docs/CLI.md

libtorch: ## fetch libtorch into .libtorch/, unless there is one
	@scripts/setup-libtorch.sh >&2

clients: ## fetch the foreign Solana clients that tests run (web3.js, kit, solana-py, solders) into ~/.cache/psyche
	@scripts/setup-clients.sh >&2

python: ## fetch PyTorch, transformers and a small real model, for tests and benchmarks only, into ~/.cache/psyche
	@scripts/setup-python.sh >&2

clean: ## remove what was built and what runs left behind (not the downloads in ~/.cache/psyche)
	rm -rf target testnet-out programs/target .libtorch

build: host libtorch
	@$(BUILD)

host:
	@scripts/check-host.sh

tools:
	@scripts/setup-tools.sh >&2
