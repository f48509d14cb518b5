#!/usr/bin/env bash
# Checks the form and the types of the page's modules, and uses the page in Chromium as people do,
# against the real programs. Pictures of it are in target/test-web/pictures.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/test-web
packages=(playwright-core@1.56.1 axe-core@4.11.0 typescript@5.9.3 @biomejs/biome@2.6.8
    streaming-markdown@0.2.15)

leave_out() {
    echo "The page is NOT tested: $*"
    [ -z "${CI-}" ] || exit 1
    exit 0
}

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium (once)"
    (apt-get update && apt-get install -y --no-install-recommends chromium) >/dev/null 2>&1 || true
    chromium=$(command -v chromium || true)
fi
[ -n "$chromium" ] || leave_out "Chromium is missing."
if [ "$(cat $folder/installed 2>/dev/null)" != "${packages[*]}" ]; then
    command -v npm >/dev/null || leave_out "npm is missing; it comes with Node.js, 20 or newer."
    mkdir -p $folder
    npm install --prefix $folder --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
        --loglevel error "${packages[@]}" || leave_out "npm could not install playwright-core."
    echo "${packages[*]}" >$folder/installed
fi

tools=$PWD/$folder/node_modules
(cd api/web && "$tools/.bin/biome" ci --error-on-warnings . ../../scripts/test-web)
"$tools/.bin/tsc" --project api/web/jsconfig.json
cmp "$tools/streaming-markdown/smd.min.js" api/web/vendor/streaming-markdown.js
rm -rf $folder/pictures
mkdir -p $folder/pictures
rm -f $folder/*.mjs
cp scripts/test-web/*.mjs $folder
CHROMIUM=$chromium PICTURES=$PWD/$folder/pictures \
    scripts/with-service.sh node --test --test-concurrency=1 --test-reporter=spec $folder/*.test.mjs
