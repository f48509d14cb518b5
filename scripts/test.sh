#!/usr/bin/env bash
# Runs all tests, with cargo-nextest where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prometheus' checker, for the test of our metrics.
if promtool=$(scripts/setup-promtool.sh); then export PATH="$PATH:$promtool"; fi

if command -v cargo-nextest >/dev/null; then
    exec cargo nextest run --workspace --locked
fi
exec cargo test --workspace --locked
