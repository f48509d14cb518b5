#!/usr/bin/env bash
# Builds and starts everything: the local model's server, the API and one worker.
# Needs only bash 3.2 (macOS has no newer one) and no curl.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

model_address=127.0.0.1:8012
build='' setup='' model='' api='' worker='' # process ids, each a process group too
interrupts=0 stopping=''

say() { printf '\n==> %s\n' "$*"; }

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# Waits a moment; a signal ends it early.
pause() { sleep 0.2 || true; }

# A setting as the binaries read it: from the environment, else from .env.
setting() {
    local value=${!1-}
    if [ -z "${!1+set}" ] && [ -f .env ]; then
        value=$(sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" .env | head -n 1)
        case $value in
            \"*) value=${value#\"} value=${value%%\"*} ;;
            \'*) value=${value#\'} value=${value%%\'*} ;;
            *) value=${value%%#*} value=${value%"${value##*[![:space:]]}"} ;;
        esac
    fi
    printf '%s' "${value:-$2}"
}

# Gives the binaries a setting that nobody has made.
default() { [ -n "$(setting "$1" '')" ] || export "$1=$2"; }

# Prefixes each line with a name, until the process whose lines these are has ended.
prefix() {
    trap '' INT TERM HUP
    local line
    while IFS= read -r line || [ -n "$line" ]; do printf '%-8s %s\n' "[$1]" "$line"; done
}

# Starts a command in a process group of its own, so that Ctrl-C reaches only this script, which
# stops the parts in order. The command's process id is then in $!.
spawn() {
    set -m
    "$@" </dev/null &
    set +m
}

spawn_prefixed() {
    local name=$1
    shift
    spawn "$@" > >(prefix "$name") 2>&1
}

# A part that runs until it is stopped. Disowned, or bash would report how it ended.
serve() {
    spawn_prefixed "$@"
    disown
}

# host:port as bash's /dev/tcp, which needs an IPv6 address without brackets.
device() {
    local host=${1%:*}
    host=${host#[}
    printf '/dev/tcp/%s/%s' "${host%]}" "${1##*:}"
}

# Succeeds if someone listens on host:port.
taken() { (exec 3<>"$(device "$1")") 2>/dev/null; }

# Succeeds if GET http://host:port/path answers 200, and prints the answer.
get() {
    local status=''
    {
        exec 3<>"$(device "$1")" || return 1
        printf 'GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
        IFS= read -r -t 3 status <&3
        cat <&3
        exec 3>&-
    } 2>/dev/null
    case $status in 'HTTP/1.'?' 200'*) ;; *) return 1 ;; esac
}

answers() { get "$@" >/dev/null; }

# Waits until a part that was just started responds.
wait_for() { # name, process, host:port, path, seconds
    local deadline=$((SECONDS + $5))
    until answers "$3" "$4"; do
        [ -z "$stopping" ] || finish 0
        alive "$2" || fail "The $1 ended as it started; its lines above say why."
        [ $SECONDS -lt $deadline ] || fail "The $1 did not answer within $5 s."
        pause
    done
}

# Stops a part and waits for it; kills it after a timeout or at a second Ctrl-C.
stop() { # name, process, seconds
    alive "$2" || return 0
    echo "Stopping the $1"
    kill -TERM -- "-$2" 2>/dev/null
    local deadline=$((SECONDS + $3))
    while alive "$2"; do
        if [ $interrupts -gt 1 ] || [ $SECONDS -ge $deadline ]; then
            kill -KILL -- "-$2" 2>/dev/null
        fi
        pause
    done
}

# Stops all parts, the worker first, so that it can release its jobs.
finish() { # exit status
    [ -n "$build" ] || exit "$1" # nothing was started
    local grace
    grace=$(setting SHUTDOWN_GRACE_SECS 30)
    alive "$worker" &&
        say "Stopping; a post that is being written gets up to ${grace} s. Ctrl-C again stops at once."
    stop build "$build" 5
    stop set-up "$setup" 5
    stop worker "$worker" $((grace + 10))
    stop API "$api" $((grace + 10))
    stop model "$model" 10
    pause # for their last lines
    say Stopped
    exit "$1"
}

fail() {
    say "$*"
    finish 1
}

trap 'interrupts=$((interrupts + 1)) stopping=yes' INT
trap 'stopping=yes' TERM HUP

# --- What is needed

command -v cargo >/dev/null || fail "Rust is missing: see https://rustup.rs"
command -v cc >/dev/null || fail "A C compiler is missing (Debian: apt-get install gcc libc6-dev)."

address=$(setting LISTEN_ADDR 127.0.0.1:8000)
case $address in
    0.0.0.0:*) address=127.0.0.1:${address##*:} ;;
    '[::]:'*) address=localhost:${address##*:} ;;
esac
# Who sets either has an agent of their own, and needs no local model.
agent=$(setting AGENT '')$(setting AGENT_URL '')

taken "$address" && fail "Something already listens on $address. Stop it, or set LISTEN_ADDR to another address."
if [ -z "$agent" ]; then
    taken $model_address &&
        fail "Something already listens on $model_address, the local model's address. Is another \`make run\` at work?"
    LOCAL_MODEL=$(setting LOCAL_MODEL '') LOCAL_MODEL_SHA256=$(setting LOCAL_MODEL_SHA256 '')
    export LOCAL_MODEL LOCAL_MODEL_SHA256
    # Without Python the set-up says so later, and all else goes on.
    ! command -v python3 >/dev/null || python3 worker/local_model/setup_model.py .models --check ||
        fail "See .env.example."
fi

# --- Build and set up, side by side

say "Building (the first time takes a few minutes)"
spawn cargo build --locked --bins
build=$!
if [ -z "$agent" ]; then
    spawn scripts/setup-model.sh --build $build
    setup=$!
fi

# Waits for a process started above and returns its status; a signal ends the wait.
status_of() {
    wait "$1"
    local status=$?
    [ -z "$stopping" ] || finish 0
    return $status
}

status_of $build || fail "The build failed."
if [ -n "$setup" ] && ! status_of $setup; then
    say "Going on without the local model: jobs will fail until AGENT is set (see .env.example)."
    agent=none
fi

# --- Start

if [ -z "$agent" ]; then
    { read -r model_id && read -r model_file && read -r why_small; } <.models/chosen
    say "Starting the local model, $model_id"
    serve model .venv/bin/python worker/local_model/local_model.py "$model_file" \
        --name "$model_id" --port ${model_address##*:}
    model=$!
    wait_for model $model $model_address /health 300

    default AGENT_MODEL "$model_id"
    # The server takes two calls at once; a third would wait there, and might for too long.
    default WORKER_CONCURRENCY 2
    # A post of 2,000 words takes a slow machine its time.
    default AGENT_TIMEOUT_SECS 1800
fi

programs=${CARGO_TARGET_DIR:-target}/debug
say "Starting the API and one worker"
serve api "$programs/api"
api=$!
wait_for API $api "$address" /ready 60
serve worker "$programs/worker"
worker=$!
pause

base=''
[ "$address" = 127.0.0.1:8000 ] || base=" BASE_URL=http://$address"
say "Ready. Ctrl-C stops everything."
cat <<END

    Open in a browser  http://$address/
    Write a post       make demo TOPIC="Growing tomatoes on a balcony"$base
    Try every call     http://$address/docs
    See metrics        http://$address/metrics
    Add a worker       $programs/worker

END
if [ -n "$model" ]; then
    echo "    The posts come from a model on this machine, $model_id. Check their facts;"
    echo "    .env.example shows how to use a larger model."
    [ -z "$why_small" ] || echo "    It is the small one, since $why_small."
    ollama=127.0.0.1:11434
    if tags=$(get $ollama /api/tags); then
        name=$(sed -nE 's/.*"models":\[\{"name":"([^"]+)".*/\1/p' <<<"$tags")
        echo "    Ollama is running, too: AGENT=openai AGENT_URL=http://$ollama/v1 AGENT_MODEL=${name:-NAME} make run"
    fi
    echo
fi

while [ -z "$stopping" ]; do
    alive "$api" || fail "The API has ended unexpectedly."
    alive "$worker" || fail "The worker has ended unexpectedly."
    [ -z "$model" ] || alive "$model" || fail "The local model has ended unexpectedly."
    pause
done
finish 0
