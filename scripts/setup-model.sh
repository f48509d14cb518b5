#!/usr/bin/env bash
# Installs the local model's server into .venv and a model into .models, once. Prints the reason in
# one line if it can't; nothing else in the project needs them. Arguments go to setup_model.py.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -f .models/chosen
scripts/setup-venv.sh .venv worker/local_model/requirements.txt \
    "the local model's server (34 MB)" --require-hashes
exec .venv/bin/python worker/local_model/setup_model.py .models "$@"
