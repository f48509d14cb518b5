#!/usr/bin/env bash
# Puts the local model's server and its weights into .venv, once. Says in one line why
# when it can't; nothing else in the project needs it.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=worker/agents/requirements.txt
stamp=.venv/requirements.txt

give_up() {
    echo "The local model can't be set up: $*"
    exit 1
}

cmp -s "$requirements" "$stamp" && .venv/bin/python -c '' 2>/dev/null && exit 0

command -v python3 >/dev/null || give_up "python3 is missing."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    give_up "it needs Python 3.10 or newer."

# Debian keeps the part of venv that brings pip in a package of its own.
if ! python3 -c 'import ensurepip' 2>/dev/null && ! python3 -m pip --version >/dev/null 2>&1; then
    hint="Debian's package python3-venv is missing: apt-get install python3-venv"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then give_up "$hint"; fi
    echo "Installing Debian's package python3-venv"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } \
        >/dev/null 2>&1 || give_up "$hint"
fi

echo "Downloading the local model and its server (126 MB, only this once)"
rm -rf .venv
if python3 -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv .venv || give_up "python3 -m venv failed."
    pip=(.venv/bin/python -m pip install)
else
    # The system's pip can fill an environment that has none.
    python3 -m venv --without-pip .venv || give_up "python3 -m venv failed."
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pip=(python3 -m pip install --target "$packages")
fi
"${pip[@]}" --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
    --require-hashes --no-deps --only-binary=:all: -r "$requirements" ||
    give_up "its packages could not be installed."
cp "$requirements" "$stamp"
echo "The local model is set up"
