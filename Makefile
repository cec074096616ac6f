# Everything a developer runs. `make demo` and `make test` do all of their own set-up on a
# fresh Debian or Ubuntu machine with a Rust toolchain and a C compiler.

CARGO ?= cargo
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BINARY := $(TARGET_DIR)/$(TRIPLE)/debug/swarmlet

# A file each; what they run is run on their seeds by `make test-fast`, too.
FUZZ_TARGETS = $(basename $(notdir $(wildcard lb/fuzz/targets/*.rs)))

.PHONY: help build deb cargo-deb demo check advisories fuzz test test-fast test-hosts faults-doc static deny \
	bench bench-core bench-lb bench-mesh bench-node bench-cluster bench-binaries

help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: ## Builds the static binary, optimised.
	$(CARGO) build --release --locked

deb: build cargo-deb ## Builds the Debian package, in target/debian.
	cd cli && $(CARGO) deb --no-build --no-dbgsym --locked --target $(TRIPLE) --output $(TARGET_DIR)/debian/

cargo-deb:
	@command -v cargo-deb >/dev/null || $(CARGO) install cargo-deb --locked

demo: ## Three nodes on this machine, ten containers, requests through each; Ctrl-C ends it.
	$(CARGO) run --locked -- demo $(ARGS)

check: ## Formatting, lints, licences.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(MAKE) --no-print-directory deny

fuzz: ## Each fuzz target of the balancer for 60 s (FOR=N for others); wants cargo-fuzz and a nightly compiler.
	@command -v cargo-fuzz >/dev/null || { echo "no cargo-fuzz: cargo install cargo-fuzz --locked"; exit 1; }
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { echo "no nightly compiler: rustup toolchain install nightly"; exit 1; }
	cd lb && for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target && \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(or $(FOR),60) || exit 1; \
	done

deny:
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) fetch --locked
	$(CARGO) deny --offline check licenses bans sources

advisories: ## Known flaws of what is built in (fetches RustSec's list, so it is not a part of check).
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check advisories

test: test-fast static test-hosts ## Every test, those on hosts with real engines included (as root).

test-fast: ## Units, properties, scenarios, and clusters of daemons on loopback.
	$(CARGO) test --workspace --locked --exclude swarmlet-integration-tests

static:
	$(CARGO) build --locked
	@if ldd $(BINARY) 2>&1 | grep -Eq 'statically linked|not a dynamic executable'; \
	then echo "swarmlet is statically linked"; \
	else echo "swarmlet must be statically linked, but ldd says:"; ldd $(BINARY); exit 1; fi

test-hosts: cargo-deb ## Clusters on hosts of their own: network namespaces with an engine each (as root).
	integration-tests/install-prerequisites
	$(CARGO) build --locked
	$(CARGO) test --locked -p swarmlet-integration-tests -- --test-threads=1 --nocapture
	$(CARGO) run --locked -q -p swarmlet-integration-tests --bin hosts -- 1 \
		env -C $(CURDIR) $(CARGO) test --locked -p swarmlet-agent --test docker -- --nocapture

faults-doc: ## Writes docs/faults.md from what the last test-hosts measured.
	{ $(CARGO) test --locked -q -p swarmlet-integration-tests --test faults --test package -- --list \
		&& $(CARGO) test --locked -q -p swarmlet-integration-tests --test cluster -- --list leader_is_killed who_leaves; } \
		| $(CARGO) run --locked -q -p swarmlet-integration-tests --bin faults-doc >$(TARGET_DIR)/faults.md
	cp $(TARGET_DIR)/faults.md docs/faults.md

# Benchmarks write their results to docs/bench. ROUNDS=N chooses how often each thing is measured.
BENCH = $(TARGET_DIR)/$(TRIPLE)/release

bench: bench-core bench-lb bench-mesh bench-node bench-cluster ## Every benchmark (as root).

bench-core: ## Decisions over large clusters, and how their time grows.
	SWARMLET_BENCH_OUT=$(CURDIR)/docs/bench $(CARGO) bench --locked -p swarmlet-core --bench passes --bench placement

bench-lb: bench-binaries ## The balancer beside HAProxy, nginx and nft (as root; 20 minutes).
	$(BENCH)/bench-lb $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bench-mesh: bench-binaries ## Short connections into a container, beside HAProxy and nft (as root; 2 minutes).
	$(BENCH)/bench-mesh $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bench-node: bench-binaries ## A node's balancer: 1,000 ports published, 20 upgrades under load (as root; 5 minutes).
	$(BENCH)/bench-node $(ARGS)

bench-cluster: bench-binaries ## A cluster beside Docker Swarm on the same engines (as root; 15 minutes).
	$(BENCH)/bench-cluster $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bench-binaries:
	integration-tests/install-bench-prerequisites
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked -p swarmlet-integration-tests --bins
