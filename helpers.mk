# The programs that stay beside every pod, and in containers, small and static. Cargo can't make
# one binary of a package static, so each is built by itself: without the daemon's crates, in a target
# folder of its own.
HALED_HELPER_DIR ?= target/helper
CARGO ?= cargo

HELPER_FLAGS := --profile helper --no-default-features
HELPER_TARGET := target/helper-build

BARE_LINK := -C relocation-model=static -C panic=abort \
	-C link-arg=-Wl,--build-id=none -C link-arg=-Wl,-n -C link-arg=-Wl,-z,norelro \
	-C link-arg=-Wl,-z,noseparate-code -C link-arg=-Wl,--no-eh-frame-hdr \
	-C link-arg=-Wl,--gc-sections

.PHONY: helpers
helpers: ## build haled-monitor, haled-pause and haled-agent, small and static, into target/helper
	$(CARGO) rustc --target-dir $(HELPER_TARGET) $(HELPER_FLAGS) --bin haled-monitor -- \
		-C target-feature=+crt-static -C relocation-model=static
	$(CARGO) rustc --target-dir $(HELPER_TARGET) $(HELPER_FLAGS) --features pause --bin haled-pause -- \
		$(BARE_LINK)
	$(CARGO) rustc --target-dir $(HELPER_TARGET) $(HELPER_FLAGS) --features agent --bin haled-agent -- \
		$(BARE_LINK)
	install -D -m 0755 $(HELPER_TARGET)/helper/haled-monitor $(HALED_HELPER_DIR)/haled-monitor
	install -D -m 0755 $(HELPER_TARGET)/helper/haled-pause $(HALED_HELPER_DIR)/haled-pause
	install -D -m 0755 $(HELPER_TARGET)/helper/haled-agent $(HALED_HELPER_DIR)/haled-agent
