#!/usr/bin/env bash
# Checks that docker-compose.yml passes on each setting, and the systemd units, where systemd is.
# A part of `make rules`.
set -euo pipefail
cd "$(dirname "$0")/.."

# The compose file decides these.
fixed=' DATABASE_URL DATA_DIR LISTEN_ADDR METRICS_ADDR '
faults=0
for name in $(sed -n '/^# === Settings: begin/,/^# === Settings: end/s/^#\([A-Z_]*\)=.*/\1/p' .env.example); do
    if [[ $fixed != *" $name "* ]] && ! grep -q "^ *$name: \${$name:-" docker-compose.yml; then
        echo "docker-compose.yml does not pass on $name: add \`$name: \${$name:-}\`"
        faults=1
    fi
done
[ $faults = 0 ] || exit 1

if ! command -v systemd-analyze >/dev/null; then
    echo "Deployment holds; the units are not checked, for systemd-analyze is missing."
    exit
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/release"
cp "$(type -P true)" "$folder/release/multicall"
make --silent --no-print-directory install \
    DESTDIR= PREFIX="$folder" SYSCONFDIR="$folder/etc" CARGO_TARGET_DIR="$folder"
# It warns of the machine's own units, too, and fails for no warning.
said=$(systemd-analyze verify "$folder"/lib/systemd/system/*.service 2>&1 || true)
! grep -F blog-post <<<"$said" || exit 1
echo "Deployment holds: docker-compose.yml passes on all settings, and systemd takes the units."
