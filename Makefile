# haled: everything that is done with this tree. `make` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
# What Cargo.toml says under rust-version.
RUST_LEAST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# dev is built sooner, and is larger and slower.
PROFILE ?= release
BUILT := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# To run pods, and to make an image without a registry.
DEMO_PACKAGES := runc containernetworking-plugins iptables iproute2 busybox-static util-linux
# The tests' registry, and what they look at the network with.
TEST_PACKAGES := $(DEMO_PACKAGES) docker-registry jq conntrack curl procps zsh fish

# haled-monitor, haled-pause and haled-agent, static: the target `helpers`.
-include helpers.mk
HALED_HELPER_DIR ?= target/helper
export HALED_HELPER_DIR := $(abspath $(HALED_HELPER_DIR))
include packaging/install.mk

.PHONY: help
help: ## list the targets
	@echo 'haled: a container runtime that heals the pods it runs'
	@echo
	@grep -hE '^[a-z-]+:.*## ' Makefile $(wildcard helpers.mk) packaging/install.mk \
	  | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' \
	  | while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: toolchain
toolchain: # cargo, new enough, and a C compiler for SQLite and zstd
	@if ! command -v $(CARGO) >/dev/null; then \
	  echo 'haled needs Rust $(RUST_LEAST) or later and there is no $(CARGO) in PATH.' >&2; \
	  echo 'Get it with rustup (your distribution may package it: rustup toolchain install stable).' >&2; \
	  [ "$$(id -u)" -ne 0 ] || [ -z "$${SUDO_USER:-}" ] \
	    || echo "Under sudo, PATH is root's: run make as $$SUDO_USER, it asks for root where it must." >&2; \
	  exit 1; \
	fi
	@have=$$($(CARGO) --version | cut -d' ' -f2); \
	if [ "$$(printf '%s\n' $(RUST_LEAST) "$$have" | sort -V | head -n1)" != $(RUST_LEAST) ]; then \
	  echo "haled needs Rust $(RUST_LEAST) or later, this is $$have: rustup update stable" >&2; \
	  exit 1; \
	fi
	@command -v cc >/dev/null || integration/packages build-essential pkg-config

.PHONY: setup-demo
setup-demo: toolchain ## install what the demo needs
	@integration/packages $(DEMO_PACKAGES)

.PHONY: setup
setup: toolchain ## install what the demo and the tests need, and say what is installed
	@integration/packages $(TEST_PACKAGES)
	@integration/criu || echo 'note: there is no CRIU: the tests of checkpoints will say that they were left out'

.PHONY: build
build: toolchain ## build haled and halectl for use, into target/release (PROFILE=dev: faster, target/debug)
	$(CARGO) build --profile $(PROFILE) --bin haled --bin halectl

.PHONY: check
check: toolchain ## formatting, lints, docs, arrows between rooms, unit tests
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --bin haled-monitor -- -D warnings
	for bare in pause agent; do \
	  $(CARGO) clippy --quiet --target-dir target/helper-build --profile helper --no-default-features \
	    --features $$bare --bin haled-$$bare -- -D warnings; \
	done
	RUSTDOCFLAGS='-D rustdoc::broken_intra_doc_links' $(CARGO) doc --no-deps --lib --quiet
	$(CARGO) test --quiet --lib
	$(CARGO) test --quiet --test integration architecture::
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo 'note: cargo-deny is not installed: licences and advisories were not checked'; fi

.PHONY: test
test: setup helpers ## unit and integration tests with the real kernel, runc, CNI and registry (root)
	@CARGO='$(CARGO)' integration/test

# With the build that is there soonest, and that the tests have, too.
.PHONY: demo
demo: setup-demo helpers ## run a pod, see its liveness probe fail and the pod heal (FAST=1: shorter)
	$(CARGO) build --bin haled --bin halectl
	@FAST='$(FAST)' BIN=target/debug integration/demo

.PHONY: conformance
conformance: setup build helpers ## crictl, a kubelet and critest (needs the go command)
	HALED=$(abspath $(BUILT)/haled) HALED_HELPERS=$(HALED_HELPER_DIR) integration/conformance/run

.PHONY: vm-test
vm-test: setup helpers ## in a virtual machine: tests of cgroup v2, AppArmor, OOM, user namespaces (root)
	@CARGO='$(CARGO)' integration/vm/test

.PHONY: vm-systemd
vm-systemd: setup helpers ## in a virtual machine that systemd runs: its cgroup driver, and haled's unit (root)
	@CARGO='$(CARGO)' integration/vm/test --systemd

.PHONY: conformance-vm
conformance-vm: setup build helpers ## in a virtual machine: critest's specs of the same (root, the go command)
	HALED=$(abspath $(BUILT)/haled) HALED_HELPERS=$(HALED_HELPER_DIR) integration/vm/conformance

.PHONY: fuzz-smoke
fuzz-smoke: toolchain ## each fuzz target for a few seconds (fuzz/run: longer)
	@command -v c++ >/dev/null || integration/packages g++
	@CARGO='$(CARGO)' fuzz/run 5

.PHONY: bench
bench: setup helpers ## what a pod and a probe cost, beside bare runc, CNI and connections (root)
	$(CARGO) bench --bench pods --bench probes

.PHONY: bench-peers
bench-peers: setup helpers ## the same calls of the CRI to haled and to containerd, in one run (root, the go command)
	integration/peers/install
	$(CARGO) bench --bench peers

.PHONY: clean
clean: ## remove everything that was built
	$(CARGO) clean
