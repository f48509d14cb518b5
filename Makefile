.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run demo release install uninstall test test-web test-containers eval chaos fuzz-api lint-api clients bench docs check fmt lint rules deny fuzz

# The topic as typed: make must not expand it.
override TOPIC := $(value TOPIC)
export TOPIC
export ONLY AGAINST SHORT KEEP

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: ## Build and start the local model, the API and one worker; Ctrl-C stops them
	@scripts/run.sh

demo: ## Write a post against the running service: make demo TOPIC="..."
	@command -v python3 >/dev/null || { echo "make demo needs Python 3."; exit 1; }
	@python3 scripts/demo.py

PREFIX = /usr/local
SYSCONFDIR = /etc
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
programs = $(DESTDIR)$(PREFIX)/libexec/blog-post
commands = $(DESTDIR)$(PREFIX)/sbin
units = $(DESTDIR)$(PREFIX)/lib/systemd/system
settings = $(DESTDIR)$(SYSCONFDIR)/blog-post

release: ## Build the release: target/release/api and worker, both in one file
	cargo build --release --locked --package multicall
	ln -sf multicall $(RELEASE)/api
	ln -sf multicall $(RELEASE)/worker

install: ## Install the release and its systemd units, to PREFIX (/usr/local)
	@test -x $(RELEASE)/multicall || { echo "Build it first: make release"; exit 1; }
	install -d $(programs) $(commands) $(units) $(settings)
	install $(RELEASE)/multicall $(programs)
	ln -sf multicall $(programs)/api
	ln -sf multicall $(programs)/worker
	install -m 644 .env.example $(settings)/env.example
	install deploy/systemd/blog-post $(commands)
	install -m 644 deploy/systemd/*.service $(units)
	sed -i 's|/usr/local/|$(PREFIX)/|; s|/etc/|$(SYSCONFDIR)/|' \
		$(commands)/blog-post $(units)/blog-post-api.service $(units)/blog-post-worker.service

uninstall: ## Remove what `make install` has installed; data and settings stay
	rm -f $(commands)/blog-post $(units)/blog-post-api.service $(units)/blog-post-worker.service
	rm -f $(settings)/env.example
	rm -rf $(programs)

test: ## Run all tests, on SQLite and on Postgres
	@scripts/test.sh

test-web: ## Use the page in Chromium, and take pictures of it
	@scripts/test-web.sh

test-containers: ## Build the images and test docker-compose.yml, with a stub or MODEL=smollm2-135m
	@MODEL=$(MODEL) BUILD=$(BUILD) python3 scripts/test-containers/main.py

eval: ## Measure the writing, beside the same model asked once: settings in scripts/eval/settings.py
	@python3 scripts/eval/main.py

chaos: ## Run only the chaos tests, for CHAOS_SECONDS (60) on each database
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-60} scripts/test.sh chaos::

fuzz-api: ## Fuzz the programs with schemathesis, for FUZZ_SECONDS (300)
	@scripts/fuzz-api.sh --max-time $${FUZZ_SECONDS:-300}

lint-api: ## Lint the OpenAPI document with OWASP's and Redocly's rules
	@scripts/lint-api.sh

clients: ## Generate clients from the OpenAPI document, and run them
	@scripts/check-clients.sh

bench: ## Benchmark the release programs, on both databases: settings in scripts/bench.sh
	@scripts/bench.sh

docs: ## Generate the table of settings and .env.example
	@UPDATE_DOCS=1 cargo test --quiet --locked --package api --test processes settings_docs

check: fmt lint rules deny lint-api clients test-web fuzz test ## Run what CI runs: all checks, a minute of fuzzing, all tests

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

rules:
	@scripts/check-layers.sh
	@scripts/check-security-doc.sh
	@python3 scripts/check-docs.py
	@scripts/check-deploy.sh
	@cd scripts/eval && python3 -m unittest --quiet test_metrics test_report
	@cd worker/local_model && python3 -m unittest --quiet --buffer

deny:
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: only the GitHub workflow checks licences and sources."; \
	fi

# One minute with a fixed seed, so that CI is deterministic; fuzz-api finds what is new.
fuzz:
	@scripts/fuzz-api.sh --max-time 60 --seed 1
