#!/usr/bin/env bash
# Has openapi-python-client and openapi-typescript make clients from the OpenAPI document, and runs
# the main flow with each: sign up, ask for a post, watch its job, read it.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/clients
packages=(openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@20.19.0)

leave_out() {
    echo "No clients are generated: $*"
    [ -z "${CI-}" ] || exit 1
    exit 0
}

mkdir -p $folder
scripts/setup-venv.sh $folder/venv scripts/check-clients/requirements.txt openapi-python-client ||
    leave_out "openapi-python-client is missing."
if [ "$(cat $folder/installed 2>/dev/null)" != "${packages[*]}" ]; then
    command -v npm >/dev/null || leave_out "npm is missing; it comes with Node.js, 20 or newer."
    npm install --prefix $folder --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
        --loglevel error "${packages[@]}" || leave_out "npm could not install openapi-typescript."
    echo "${packages[*]}" >$folder/installed
fi

# Without insta's header.
awk 'document { print } /^---$/ { document = ++lines == 2 }' \
    api/tests/it/snapshots/it__openapi__the_document_is_the_one_that_was_agreed_on.snap >$folder/openapi.json
cp scripts/check-clients/flow.* $folder
cd $folder
echo '{"type": "module"}' >package.json
rm -rf blog_client
# What it can't make it warns of; its formatter is not needed.
venv/bin/openapi-python-client generate --path openapi.json --meta none --output-path blog_client \
    --config <(echo 'post_hooks: []') --fail-on-warning
node_modules/.bin/openapi-typescript openapi.json -o api.ts
node_modules/.bin/tsc --strict --target es2022 --module nodenext --skipLibCheck flow.ts

flows() {
    venv/bin/python flow.py "$API"
    node flow.js "$API"
}
export -f flows
exec ../../scripts/with-service.sh bash -c "cd $PWD; set -e; flows"
