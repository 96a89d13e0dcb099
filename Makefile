# The only entry point to a task. `make help` lists them.

# One target folder outside the checkout, so that a fresh clone on a warm machine is quick.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/inferq/target

CARGO ?= cargo
# The environment of tests/sdk.
SDKS = $(CARGO_TARGET_DIR)/sdks

WITH_SERVERS = $(CARGO) run --quiet -p inferq-common --features testing --example with_servers --

.PHONY: help dev test test-sdks check bench bench-adapters servers sdks tools fmt

help: ## list the tasks
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

dev: ## start the platform in one process
	$(CARGO) run --release -- dev

test: servers ## install what the tests need and run all of them, on both stores and both brokers
	$(CARGO) build --quiet --bin inferq
	$(WITH_SERVERS) $(CARGO) test --workspace --features servers --no-fail-fast
	$(MAKE) test-sdks

test-sdks: servers sdks ## drive inferq through the SDKs of its users, and hold it to its OpenAPI document
	$(CARGO) build --quiet --bin inferq
	$(WITH_SERVERS) scripts/test-sdks $(SDKS) $(CARGO_TARGET_DIR)/debug/inferq

check: tools ## formatting, lints, docs, licences, unused dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features servers -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	scripts/deny
	$(CARGO) machete

bench: ## measure inferq against the floor, interleaved, and print a table with ratios
	scripts/bench
	scripts/bench streams
	$(MAKE) bench-adapters

bench-adapters: ## measure what each vendor's adapter costs, and print a table with ratios to openai's
	$(CARGO) bench --quiet -p inferq-vendors --features testing --bench adapters

servers: ## install Postgres and RabbitMQ where there is neither them nor Docker (Debian, Ubuntu)
	scripts/install-servers

sdks: ## install those SDKs, from PyPI, into an environment of their own
	scripts/install-sdks $(SDKS)

tools: ## install the programs that `make check` needs
	scripts/install-tools

fmt: ## format the code
	$(CARGO) fmt --all
