#!/usr/bin/env bash
# Runs all tests on SQLite, then all of them on Postgres, with cargo-nextest where it is
# installed. Arguments go to the runner, both times.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prometheus' checker, for the test of our metrics.
if promtool=$(scripts/setup-promtool.sh); then export PATH="$PATH:$promtool"; fi

say() { printf '\n==> %s\n' "$*"; }

# The last release's programs, for the tests that run them beside the present ones.
if LAST_RELEASE=$(scripts/setup-last-release.sh); then
    export LAST_RELEASE
else
    [ -z "${CI-}" ] || exit 1
    unset LAST_RELEASE
    say "The tests that run the last release beside this one are LEFT OUT."
fi

runner=(cargo test --workspace --locked)
if command -v cargo-nextest >/dev/null; then
    runner=(cargo nextest run --workspace --locked)
fi
on_sqlite() { env -u TEST_POSTGRES_URL "$@"; }

if [ -z "${TEST_POSTGRES_URL-}" ] && ! scripts/setup-postgres.sh; then
    [ -z "${CI-}" ] || exit 1
    say "The tests run on SQLite ONLY: what they say of Postgres is nothing."
    on_sqlite "${runner[@]}" "$@"
    exit
fi
say "The tests on SQLite"
on_sqlite "${runner[@]}" "$@"
say "The tests on Postgres"
scripts/find-postgres.sh >/dev/null ||
    echo "No server is installed here: the tests that start and stop one are LEFT OUT."
exec scripts/with-postgres.sh "${runner[@]}" "$@"
