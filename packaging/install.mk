# Installing what `make build helpers` has built: by itself it builds nothing, so that root
# needs no Rust.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
# Where haled looks by itself, seen from BINDIR: ../libexec/haled.
LIBEXECDIR ?= $(PREFIX)/libexec/haled
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
BASH_COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
# What is installed.
BIN ?= target/release
HELPERS := haled-monitor haled-pause haled-agent
INSTALL ?= install

.PHONY: install
install: ## install haled, halectl, helpers, unit, default settings, completions, man pages (root; PREFIX, DESTDIR)
	@for file in $(BIN)/haled $(BIN)/halectl $(HELPERS:%=$(HALED_HELPER_DIR)/%); do \
	  [ -x "$$file" ] || { echo "there is no $$file yet: make build helpers" >&2; exit 1; }; \
	done
	$(INSTALL) -D -m 0755 -t $(DESTDIR)$(BINDIR) $(BIN)/haled $(BIN)/halectl
	$(INSTALL) -D -m 0755 -t $(DESTDIR)$(LIBEXECDIR) $(HELPERS:%=$(HALED_HELPER_DIR)/%)
	$(INSTALL) -d -m 0755 $(DESTDIR)$(UNITDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(BASH_COMPLETIONS) \
	  $(DESTDIR)$(ZSH_COMPLETIONS) $(DESTDIR)$(FISH_COMPLETIONS) \
	  $(DESTDIR)$(SYSCONFDIR)/haled $(DESTDIR)$(SYSCONFDIR)/haled/certs.d $(DESTDIR)$(SYSCONFDIR)/haled/config.d
# Manifests may hold Secrets.
	$(INSTALL) -d -m 0700 $(DESTDIR)$(SYSCONFDIR)/haled/manifests
	sed 's|@BINDIR@|$(BINDIR)|' packaging/haled.service >$(DESTDIR)$(UNITDIR)/haled.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/haled.service
	$(BIN)/halectl man $(DESTDIR)$(MANDIR)/man1
	chmod 0644 $(DESTDIR)$(MANDIR)/man1/halectl*.1
	$(BIN)/halectl completion bash >$(DESTDIR)$(BASH_COMPLETIONS)/halectl
	$(BIN)/halectl completion zsh >$(DESTDIR)$(ZSH_COMPLETIONS)/_halectl
	$(BIN)/halectl completion fish >$(DESTDIR)$(FISH_COMPLETIONS)/halectl.fish
	chmod 0644 $(DESTDIR)$(BASH_COMPLETIONS)/halectl $(DESTDIR)$(ZSH_COMPLETIONS)/_halectl \
	  $(DESTDIR)$(FISH_COMPLETIONS)/halectl.fish
# Settings that are there stay; the new release's are shown beside them.
	$(BIN)/haled config default >$(DESTDIR)$(SYSCONFDIR)/haled/config.toml.example
	chmod 0644 $(DESTDIR)$(SYSCONFDIR)/haled/config.toml.example
	@settings=$(DESTDIR)$(SYSCONFDIR)/haled/config.toml; \
	if [ -e "$$settings" ]; then echo "$$settings stays as it is"; \
	else $(INSTALL) -m 0644 "$$settings.example" "$$settings"; fi

.PHONY: uninstall
uninstall: ## remove what install has put there; settings that were changed, and pods' state, stay (root)
# A daemon that runs goes on, and so do its pods: end them first.
	rm -f $(DESTDIR)$(BINDIR)/haled $(DESTDIR)$(BINDIR)/halectl \
	  $(HELPERS:%=$(DESTDIR)$(LIBEXECDIR)/%) \
	  $(DESTDIR)$(UNITDIR)/haled.service \
	  $(DESTDIR)$(MANDIR)/man1/halectl.1 $(DESTDIR)$(MANDIR)/man1/halectl-*.1 \
	  $(DESTDIR)$(BASH_COMPLETIONS)/halectl $(DESTDIR)$(ZSH_COMPLETIONS)/_halectl \
	  $(DESTDIR)$(FISH_COMPLETIONS)/halectl.fish
	@settings=$(DESTDIR)$(SYSCONFDIR)/haled/config.toml; \
	if cmp -s "$$settings" "$$settings.example"; then rm -f "$$settings"; \
	elif [ -e "$$settings" ]; then echo "$$settings was changed: it stays"; fi; \
	rm -f "$$settings.example"
	@for dir in $(LIBEXECDIR) $(SYSCONFDIR)/haled/certs.d $(SYSCONFDIR)/haled/config.d \
	  $(SYSCONFDIR)/haled/manifests $(SYSCONFDIR)/haled; do \
	  [ ! -d "$(DESTDIR)$$dir" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$$dir"; \
	done

.PHONY: deb
deb: build helpers ## make a Debian package, into target/package
	@BIN=$(abspath $(BIN)) packaging/deb

.PHONY: package-test
package-test: build helpers ## install, upgrade, remove and purge it in a Debian made for that (root; the network)
	@BIN=$(abspath $(BIN)) integration/package/test
