.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run demo test eval chaos fuzz-api lint-api bench docs check fmt lint rules deny fuzz

# The topic as it was typed, whatever characters it has.
override TOPIC := $(value TOPIC)
export TOPIC

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: ## Build and start everything: local model, API, one worker; Ctrl-C stops it
	@scripts/run.sh

demo: ## Write a post against the running service: make demo TOPIC="..."
	@command -v python3 >/dev/null || { echo "make demo needs Python 3."; exit 1; }
	@python3 scripts/demo.py

test: ## Run all tests, on SQLite and on Postgres
	@scripts/test.sh

eval: ## Measure the writing, beside the same model asked once: settings in scripts/eval/settings.py
	@python3 scripts/eval/main.py

chaos: ## Kill, freeze and cut everything under load, for CHAOS_SECONDS (60) each
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-60} scripts/test.sh chaos::

fuzz-api: ## Attack the running programs with schemathesis, for FUZZ_SECONDS (300)
	@scripts/fuzz-api.sh --max-time $${FUZZ_SECONDS:-300}

lint-api: ## Hold the OpenAPI document to OWASP's rules and to Redocly's
	@scripts/lint-api.sh

bench: ## Measure the release binaries, on both databases
	cargo build --release --workspace --locked
	@scripts/with-postgres.sh --durable cargo bench --package api --bench service --locked -- $(ONLY)

docs: ## Write the table of settings and .env.example from the programs
	@UPDATE_DOCS=1 cargo test --quiet --locked --package api --test processes settings_docs

check: fmt lint rules deny lint-api fuzz test ## What CI holds: format, clippy, crates, docs, cargo-deny, the document, a short attack, tests

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

rules:
	@scripts/crate-rules.sh
	@scripts/security-rules.sh
	@python3 scripts/check-docs.py
	@cd scripts/eval && python3 -m unittest --quiet test_metrics test_report
	@cd worker/local_model && python3 -m unittest --quiet --buffer

deny:
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: licences and sources are left to the GitHub workflow."; \
	fi

# A minute, and always the same attack: what is new is for fuzz-api to find.
fuzz:
	@scripts/fuzz-api.sh --max-time 60 --seed 1
