#!/usr/bin/env bash
# Runs a command with TEST_POSTGRES_URL set: to its present value, or else to a Postgres server that
# is started for the command and removed after it, however it ends.
#
#   scripts/with-postgres.sh [--durable] COMMAND...
#
# For speed the server stores its data in memory if there is room, and never waits for the disk. With
# --durable it does, as in production.
set -euo pipefail

durable=''
if [ "${1-}" = --durable ]; then
    durable=yes
    shift
fi
[ -z "${TEST_POSTGRES_URL-}" ] || exec "$@"

here=$(cd "$(dirname "$0")" && pwd)
"$here/setup-postgres.sh" >&2
programs=$("$here/find-postgres.sh")

# The folder has the server's socket, whose path has to be short.
place=/tmp
options=(-c listen_addresses= -c max_connections=500)
if [ -z "$durable" ]; then
    options+=(-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_wal_size=256MB)
    room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${room:-0}" -lt $((2 * 1024 * 1024)) ] || place=/dev/shm
fi
folder=$(mktemp -d $place/blog-postgres.XXXXXX)

# The server refuses to run as root.
as_nobody=()
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id -u $user >/dev/null 2>&1 || user=nobody
    as_nobody=(runuser -u $user --)
    chown $user "$folder"
fi

server() { # program, arguments
    local program=$1
    shift
    (cd "$folder" && exec ${as_nobody[@]+"${as_nobody[@]}"} "$programs/$program" -D "$folder/data" "$@")
}

stop() {
    server pg_ctl stop --silent --mode immediate || true
    rm -rf "$folder"
} >/dev/null 2>&1

# `cat` returns when the last writer has closed the pipe: when this script has ended in any way.
mkfifo "$folder/alive"
(
    trap '' INT TERM HUP
    cat "$folder/alive"
    stop
) >/dev/null 2>&1 &
keeper=$!
exec 9>"$folder/alive"

start() {
    server initdb --username postgres --auth trust --encoding UTF8 --locale C --no-sync &&
        server pg_ctl start --silent --log "$folder/log" --options "-k $folder ${options[*]}"
} >"$folder/start" 2>&1 9>&-

status=0
if start; then
    TEST_POSTGRES_URL=postgres://postgres@${folder//\//%2F}/postgres "$@" 9>&- || status=$?
else
    status=$?
    echo "Postgres has not started:" >&2
    cat "$folder/start" "$folder/log" >&2 || true
fi
exec 9>&-
wait $keeper
exit $status
