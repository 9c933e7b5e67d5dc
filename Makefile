# Every target is a line or two; what is longer is a script in local/ and explained in local/README.md.
.DEFAULT_GOAL := help
.PHONY: help run demo check test build lint stack status stack-down bench sim chaos roll mutants secrets

# Arguments for the program behind a target: make test ARGS="-p schemas"
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
	  printf '  make %-11s %s\n' "$$name" "$$what"; done

# librdkafka compiles itself with -O2 in every profile, which is a third of this build; the embedded log is SQLite.
run: ## build quickly and start everything in one process on http://127.0.0.1:8000, data in ./data
	@local/toolchain
	CFLAGS=-O0 cargo build --locked --profile tryout -p allocator
	@exec target/tryout/allocator run $(ARGS)

demo: ## the same with made-up people who submit, so that numbers move on the page
	@local/toolchain
	CFLAGS=-O0 cargo build --locked --profile tryout -p allocator
	@local/demo $(ARGS)

check: ## format, clippy, and every test that needs no server
	@local/check

test: ## every test, on real servers that are installed, started and stopped
	@local/test $(ARGS)

lint: ## format, clippy, docs, shell scripts, dependencies
	@local/lint

build: ## build the four optimised binaries into target/release
	@local/toolchain
	cargo build --locked --release --workspace --bins

stack: build ## start Kafka, Cassandra, Redis, Prometheus, all services and a gateway: make stack BROKERS=3
	@STACK_BROKERS=$(BROKERS) local/up

status: ## show which parts of the stack are running
	@local/status

stack-down: ## stop the stack; its data stays
	@local/down

bench: ## measure each figure next to its limit, on real servers
	@local/bench $(ARGS)

sim: ## run the fault simulation: make sim SEEDS=10000 FIRST_SEED=1
	@SEEDS=$(SEEDS) FIRST_SEED=$(FIRST_SEED) local/sim

chaos: ## inject faults into real servers: make chaos SEEDS=20 FIRST_SEED=1, or one drill: make chaos DRILL=restore
	@FIRST_SEED=$(FIRST_SEED) SEEDS=$(SEEDS) DRILL="$(DRILL)" FAULT_SECONDS=$(or $(FAULT_SECONDS),120) local/chaos

roll: ## roll a loaded stack from the previous release to this one, back, and forward: make roll PREVIOUS=COMMIT
	@PREVIOUS=$(PREVIOUS) local/roll

mutants: ## plant known bugs, each of which a test must find: make mutants ARGS="float-in-the-fold"
	@local/mutants $(ARGS)

secrets: ## create ./secrets and ./.env for docker-compose.yml
	@local/secrets
