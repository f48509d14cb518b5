#!/usr/bin/env bash
# Prints the folder of promtool, Prometheus' linter, and extracts it from Debian's package if it is
# missing. Prints the reason in one line if it can't.
set -euo pipefail
cd "$(dirname "$0")/.."

if found=$(command -v promtool); then
    dirname "$found"
    exit
fi
folder=$PWD/target/promtool
if [ ! -x "$folder/promtool" ]; then
    give_up() {
        echo "promtool is missing, so the metrics are not linted: $*" >&2
        exit 1
    }
    command -v apt-get >/dev/null || give_up "it comes with Prometheus."
    mkdir -p "$folder"
    cd "$folder"
    # Not installed: that would start a server on our worker's port.
    download() { apt-get download -qq prometheus; }
    { download || { apt-get update -qq && download; }; } >/dev/null 2>&1 ||
        give_up "Debian's package prometheus can't be downloaded."
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool ||
        give_up "Debian's package prometheus has none."
    rm prometheus_*.deb
fi
echo "$folder"
