#!/usr/bin/env bash
# Creates a Python environment with the packages of a requirements file, once. Prints the reason in
# one line if it can't.
#
#   scripts/setup-venv.sh FOLDER REQUIREMENTS WHAT-IT-IS [PIP-OPTION]...
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1 requirements=$2 what=$3
shift 3
stamp=$folder/requirements.txt

give_up() {
    echo "Can't set up $what: $*"
    exit 1
}

cmp -s "$requirements" "$stamp" && "$folder/bin/python" -c '' 2>/dev/null && exit 0

command -v python3 >/dev/null || give_up "python3 is missing."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    give_up "it needs Python 3.10 or newer."

# On Debian the part of venv that installs pip is in a separate package.
if ! python3 -c 'import ensurepip' 2>/dev/null && ! python3 -m pip --version >/dev/null 2>&1; then
    hint="Debian's package python3-venv is missing: apt-get install python3-venv"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then give_up "$hint"; fi
    echo "Installing Debian's package python3-venv"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } \
        >/dev/null 2>&1 || give_up "$hint"
fi

echo "Downloading $what (once)"
rm -rf "$folder"
if python3 -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv "$folder" || give_up "python3 -m venv failed."
    pip=("$folder/bin/python" -m pip install)
else
    # The system's pip can install into an environment without one.
    python3 -m venv --without-pip "$folder" || give_up "python3 -m venv failed."
    packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pip=(python3 -m pip install --target "$packages")
fi
"${pip[@]}" --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
    --no-deps --only-binary=:all: "$@" -r "$requirements" ||
    give_up "its packages could not be installed."
cp "$requirements" "$stamp"
