#!/usr/bin/env bash
# Downloads the local model into /models, once, and serves it: the command of this folder's image.
set -euo pipefail

# As process 1, Python would take no notice of signals for which it has no handler.
trap 'kill -TERM $! 2>/dev/null; wait; exit 0' TERM INT
run() {
    "$@" &
    wait $!
}

if [[ -n ${AGENT-}${AGENT_URL-} ]]; then
    echo "AGENT or AGENT_URL is set, so the local model is not needed."
    run sleep infinity # Ending, it would be restarted.
fi

run python3 setup_model.py /models
{ read -r model && read -r file && read -r why_small; } </models/chosen
if [[ -n $why_small ]]; then
    # API and worker don't know it: they go by the settings.
    echo "The default model can't be used here: $why_small."
    echo "Put LOCAL_MODEL=smollm2-135m into .env for a smaller one, or set AGENT."
    exit 1
fi
echo "Starting $model"
run python3 local_model.py "$file" --name "$model" --host 0.0.0.0
