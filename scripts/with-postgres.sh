#!/usr/bin/env bash
# Runs a command with TEST_POSTGRES_URL naming a Postgres server: the one it names already,
# or else one that is made for the command and gone after it, however it ends.
#
#   scripts/with-postgres.sh [--durable] COMMAND...
#
# For speed the server keeps what it has in memory where there is room, and never waits for
# a disk. With --durable it does, as one in earnest.
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

# Its socket is in its folder, and paths of sockets have to be short.
place=/tmp
options=(-c listen_addresses= -c max_connections=500)
if [ -z "$durable" ]; then
    options+=(-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_wal_size=256MB)
    room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${room:-0}" -lt $((2 * 1024 * 1024)) ] || place=/dev/shm
fi
folder=$(mktemp -d $place/blog-postgres.XXXXXX)

# The server refuses to be root.
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

# Reads until nobody can write any more: until this script has ended, whatever ends it.
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
    echo "Postgres does not start:" >&2
    cat "$folder/start" "$folder/log" >&2 || true
fi
exec 9>&-
wait $keeper
exit $status
