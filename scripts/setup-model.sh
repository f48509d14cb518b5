#!/usr/bin/env bash
# Puts the local model's server and its weights into .venv, once. Says in one line why
# when it can't; nothing else in the project needs it.
set -euo pipefail
cd "$(dirname "$0")/.."

exec scripts/setup-venv.sh .venv worker/agents/requirements.txt \
    "the local model and its server (126 MB)" --require-hashes
