"""Starts the local model, as `make run` does. All that knows how is in `start`."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from processes import free_port, stop, wait_for
from settings import ROOT


@contextmanager
def local_model(log: Path):
    """Runs the local model's server; gives the base address of its OpenAI protocol."""
    port = free_port()
    with log.open("wb") as output:
        process = start(port, output)
        try:
            wait_for(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            stop(process)


def start(port: int, output) -> subprocess.Popen:
    if subprocess.run([ROOT / "scripts/setup-model.sh"]).returncode:
        sys.exit("There is no local model; name another one with AGENT, AGENT_URL and AGENT_MODEL.")
    command = [ROOT / ".venv/bin/python", ROOT / "worker/agents/local_model.py", "--port", str(port)]
    return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
