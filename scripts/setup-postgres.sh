#!/usr/bin/env bash
# Installs Debian's Postgres server if none is installed, 15 or newer. Prints the reason in one line
# if it can't.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/find-postgres.sh >/dev/null && exit 0

give_up() {
    echo "Postgres 15 or newer is missing: $*"
    exit 1
}

command -v apt-get >/dev/null || give_up "install one with its contrib modules."
[ "$(id -u)" = 0 ] || give_up "apt-get install postgresql"

# Only the programs are needed, not a server that starts with the machine.
no_cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
trap 'rm -f "$no_cluster"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() {
    apt-get update -qq
    apt-get install -y -qq postgresql-common
    mkdir -p "$(dirname "$no_cluster")"
    echo "create_main_cluster = false" >"$no_cluster"
    apt-get install -y -qq postgresql
}

echo "Installing Debian's package postgresql"
install >/dev/null 2>&1 || give_up "apt-get install postgresql failed."
scripts/find-postgres.sh >/dev/null || give_up "Debian's is too old."
