#!/usr/bin/env bash
# Prints the folder with the programs of an installed Postgres server, 15 or newer. Fails without a
# message if there is none.
set -uo pipefail

is_server() { # folder
    [ -x "$1/initdb" ] && [ -x "$1/pg_ctl" ] || return
    local version
    version=$("$1/postgres" --version 2>/dev/null) || return
    version=${version#*) } # as in "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    version=${version%%[!0-9]*}
    [ "${version:-0}" -ge 15 ]
}

for folder in \
    "$(pg_config --bindir 2>/dev/null)" \
    "$(dirname "$(command -v postgres)")" \
    /usr/lib/postgresql/*/bin \
    /usr/pgsql-*/bin \
    /opt/homebrew/opt/postgresql@*/bin \
    /usr/local/opt/postgresql@*/bin; do
    if is_server "$folder"; then
        echo "$folder"
        exit 0
    fi
done
exit 1
