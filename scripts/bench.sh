#!/usr/bin/env bash
# Measures the release programs, on SQLite and on Postgres. Settings, from the environment:
#
#   ONLY=reads      a part: idle, pickup, drain, queue, enqueue, reads. One more runs only if named, and
#                   takes no other setting: build, the time of builds from fresh clones
#   AGAINST=main    a commit or branch, whose programs are built, too, and measured in turn with ours
#   SHORT=1         a second each and no large database, for ratios
#   KEEP=1          keep the results in api/benches/results.json, which later runs compare with; not
#                   with AGAINST or SHORT
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${ONLY-}" != build ] || exec scripts/bench-build.sh
arguments=(${ONLY-})
[ -z "${SHORT-}" ] || arguments+=(--short)
[ -z "${KEEP-}" ] || arguments+=(--keep)

if [ -n "${AGAINST-}" ]; then
    checkout=$PWD/target/bench/checkout
    commit=$(git rev-parse --verify "$AGAINST^{commit}")
    git worktree remove --force "$checkout" 2>/dev/null || true
    git worktree prune
    git worktree add --quiet --detach "$checkout" "$commit"
    CARGO_TARGET_DIR=$PWD/target/bench/target \
        cargo build --release --bins --locked --manifest-path "$checkout/Cargo.toml"
    arguments+=(--against "$PWD/target/bench/target/release")
fi
cargo build --release --bins --locked
exec scripts/with-postgres.sh --durable \
    cargo bench --package api --bench service --locked -- "${arguments[@]+"${arguments[@]}"}"
