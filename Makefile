# Every target is a line or two; what is longer is a script in local/ and explained in local/README.md.
.DEFAULT_GOAL := help
.PHONY: help run build test lint bench sim mutants chaos stack stack-down status secrets

# Arguments for the program behind a target: make test ARGS="-p schemas"
ARGS ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
	  printf '  make %-11s %s\n' "$$name" "$$what"; done

run: ## build, and start everything in one process on http://127.0.0.1:8000, data in ./data
	@local/toolchain
	cargo build --locked --release -p allocator
	@exec target/release/allocator run $(ARGS)

build: ## the four binaries, optimised, in target/release
	@local/toolchain
	cargo build --locked --release --workspace --bins

test: ## every test, on real servers of their own, which are fetched and started
	@local/test $(ARGS)

lint: ## format, clippy, docs, shell scripts, dependencies
	@local/lint

bench: ## each figure beside its limit, on real servers of its own
	@local/bench $(ARGS)

sim: ## the processor in a world where everything goes wrong: make sim SEEDS=10000 FIRST_SEED=1
	@SEEDS=$(SEEDS) FIRST_SEED=$(FIRST_SEED) local/sim

mutants: ## bugs put in one by one, each of which a test must find: make mutants ARGS="float-in-the-fold"
	@local/mutants $(ARGS)

chaos: ## faults on real servers, a verdict for each seed: make chaos SEEDS=20 FIRST_SEED=1
	@FIRST_SEED=$(or $(FIRST_SEED),1) SEEDS=$(or $(SEEDS),1) local/chaos

stack: build ## Kafka, Cassandra, Redis, Prometheus, 2 ingest, 3 processor, 2 api and a gateway, without Docker
	@local/up

stack-down: ## end what `make stack` started; its data stays
	@local/down

status: ## what of the stack runs
	@local/status

secrets: ## make what docker-compose.yml needs: ./secrets and ./.env
	@local/secrets
