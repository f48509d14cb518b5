#!/usr/bin/env bash
# Runs a command against the API and a worker, which are started for it, with a stub as the agent, and
# removed after it. Fails if the command does, or if a program has ended or logged an error.
#
#   scripts/with-service.sh COMMAND...
#
# The command gets API, the address of the API; FOLDER, where its data is; and PROGRAM, the API's
# program.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --bins

folder=$(mktemp -d "${TMPDIR:-/tmp}/blog-service.XXXXXX")
api='' worker='' agent=''
stop() {
    kill $worker $api $agent 2>/dev/null || true
    for _ in {1..150}; do
        kill -0 $worker $api 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL $worker $api 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP

# Starts a program with these settings only.
start() { # program
    (cd "$folder" && exec env -i PATH="$PATH" NO_COLOR=1 DATA_DIR=. \
        SHUTDOWN_GRACE_SECS=5 ACCESS_TOKEN_TTL_SECS=86400 \
        AGENT=openai AGENT_MODEL=one AGENT_URL="$(cat agent.url)" \
        SEARCH_URL="$(cat agent.url)" SOURCE_PRIVATE_HOSTS=127.0.0.1 \
        LISTEN_ADDR=127.0.0.1:0 METRICS_ADDR=off \
        RATE_LIMIT_PER_MINUTE=1000000 USER_MAX_ACTIVE_JOBS=1000000 \
        "$programs/$1" >"$1.log" 2>&1) &
}

fail() {
    echo "$*"
    grep -hE ' ERROR |panicked' "$folder"/*.log | tail -n 50
    exit 1
}

python3 scripts/stub_agent.py >"$folder/agent.url" &
agent=$!
until [ -s "$folder/agent.url" ]; do
    kill -0 $agent 2>/dev/null || fail "The agent has not started."
    sleep 0.1
done
programs=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)
start api
api=$!
address=''
until [ -n "$address" ]; do
    kill -0 $api 2>/dev/null || fail "The API has not started: $(cat "$folder/api.log")"
    sleep 0.1
    address=$(sed -n 's/.*the API is ready address=//p' "$folder/api.log")
done
start worker
worker=$!

API=http://$address FOLDER=$folder PROGRAM=$programs/api "$@" || fail "It has failed: see above."

for process in $api $worker; do
    kill -0 "$process" 2>/dev/null || fail "The API or the worker has ended."
done
! grep -qE ' ERROR |panicked' "$folder"/*.log || fail "There are errors in the logs."
