#!/usr/bin/env bash
# Runs all tests on SQLite, then on Postgres, with cargo-nextest if it is installed. Arguments are
# passed to both runs.
set -euo pipefail
cd "$(dirname "$0")/.."

# promtool is for the test that lints our metrics.
if promtool=$(scripts/setup-promtool.sh); then export PATH="$PATH:$promtool"; fi

say() { printf '\n==> %s\n' "$*"; }

# The last release's programs are for the tests that run them beside this version's.
if LAST_RELEASE=$(scripts/setup-last-release.sh); then
    export LAST_RELEASE
else
    [ -z "${CI-}" ] || exit 1
    unset LAST_RELEASE
    say "The tests that run the last release beside this version are SKIPPED."
fi

# The npm package is for the test of the client in JavaScript.
if EVENTSOURCE=$(scripts/setup-eventsource.sh); then
    export EVENTSOURCE
else
    [ -z "${CI-}" ] || exit 1
    unset EVENTSOURCE
    say "The test of the client in JavaScript is SKIPPED."
fi

runner=(cargo test --workspace --locked)
if command -v cargo-nextest >/dev/null; then
    # Half of the time tests wait for something.
    at_once=$((2 * $(getconf _NPROCESSORS_ONLN)))
    runner=(cargo nextest run --workspace --locked --test-threads "$at_once")
fi
on_sqlite() { env -u TEST_POSTGRES_URL "${runner[@]}" "$@"; }

if [ -z "${TEST_POSTGRES_URL-}" ] && ! scripts/setup-postgres.sh; then
    [ -z "${CI-}" ] || exit 1
    say "The tests run on SQLite ONLY, not on Postgres."
    on_sqlite "$@"
    exit
fi
say "The tests on SQLite"
on_sqlite "$@"
say "The tests on Postgres"
scripts/find-postgres.sh >/dev/null ||
    echo "No server is installed here: the tests that start and stop one are SKIPPED."
exec scripts/with-postgres.sh "${runner[@]}" "$@"
