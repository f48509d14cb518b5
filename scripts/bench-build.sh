#!/usr/bin/env bash
# Measures what a newcomer and a release wait for, in fresh clones with nothing built: `make run` until
# the service is ready, with the local model's download, and the release build with its size. A part
# of `make bench`, as ONLY=build. It takes a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d "${TMPDIR:-/tmp}/blog-build.XXXXXX")
run=''
stop() {
    [ -z "$run" ] || kill -INT -- "-$run" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP
unset CARGO_TARGET_DIR

clone() { git clone --quiet --no-hardlinks . "$folder/$1"; }
row() { printf '  %-45s %14s\n' "$1" "$2"; }

clone run
begun=$SECONDS
set -m
LISTEN_ADDR=127.0.0.1:8070 METRICS_ADDR=off make --silent --directory "$folder/run" run \
    </dev/null >"$folder/run.log" 2>&1 &
run=$!
set +m
until grep -q 'Ready. Ctrl-C' "$folder/run.log"; do
    kill -0 $run 2>/dev/null || { cat "$folder/run.log"; exit 1; }
    sleep 1
done
row 'make run until ready, fresh clone' "$((SECONDS - begun)) s"
kill -INT -- "-$run" && wait $run || true
run=''

clone release
begun=$SECONDS
make --silent --directory "$folder/release" release
row 'release build, fresh clone' "$((SECONDS - begun)) s"
row 'size of both programs' "$(($(wc -c <"$folder/release/target/release/multicall") / 1024 / 1024)) MiB"
