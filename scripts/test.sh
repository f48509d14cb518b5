#!/usr/bin/env bash
# Runs all tests, with cargo-nextest where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v cargo-nextest >/dev/null; then
    exec cargo nextest run --workspace --locked
fi
exec cargo test --workspace --locked
