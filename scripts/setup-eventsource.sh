#!/usr/bin/env bash
# Installs the npm package eventsource for the test of docs/examples/watch.mjs, once, and prints the
# folder that it is in. Without Node.js or npm it prints the reason to stderr, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

package=eventsource@4.1.0
folder=target/eventsource
if [ "$(cat $folder/installed 2>/dev/null)" != $package ]; then
    command -v node >/dev/null && command -v npm >/dev/null || {
        echo "Node.js or npm is missing." >&2
        exit 1
    }
    rm -rf $folder
    mkdir -p $folder
    npm install --prefix $folder --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
        --loglevel error $package >&2
    echo $package >$folder/installed
fi
echo "$PWD/$folder"
