#!/usr/bin/env bash
# Lints the OpenAPI document with Redocly and, for OWASP's rules, Spectral. The document is taken
# from the snapshot, which a test compares with the server's.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    @redocly/cli@2.77.0
    @stoplight/spectral-cli@6.16.3
    @stoplight/spectral-owasp-ruleset@2.0.1
)
folder=target/lint-api

leave_out() {
    echo "The OpenAPI document is NOT linted: $*"
    [ -z "${CI-}" ] || exit 1
    exit 0
}

if [ "$(cat $folder/installed 2>/dev/null)" != "${packages[*]}" ]; then
    command -v npm >/dev/null || leave_out "npm is missing; it comes with Node.js, 20 or newer."
    echo "Downloading Redocly and Spectral (once)"
    rm -rf $folder
    mkdir -p $folder
    npm install --prefix $folder --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
        --loglevel error "${packages[@]}" || leave_out "npm could not install Redocly and Spectral."
    echo "${packages[*]}" >$folder/installed
fi

cp scripts/lint-api/*.yaml $folder
# Without insta's header.
awk 'document { print } /^---$/ { document = ++lines == 2 }' \
    api/tests/it/snapshots/it__openapi__the_document_is_the_one_that_was_agreed_on.snap >$folder/openapi.json

cd $folder
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
node_modules/.bin/redocly lint --config redocly.yaml openapi.json
node_modules/.bin/spectral lint --ruleset spectral.yaml --fail-severity hint openapi.json
