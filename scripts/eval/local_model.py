"""Starts the local model, as `make run` does. All that knows how is in `start`."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from processes import free_port, stop, wait_for
from settings import ROOT

SERVER = ROOT / "worker/local_model/local_model.py"


@contextmanager
def local_model(log: Path):
    """Runs the local model's server; gives what the worker has to know of it."""
    port = free_port()
    with log.open("wb") as output:
        process, name = start(port, output)
        try:
            wait_for(process, f"http://127.0.0.1:{port}/health", log)
            yield {"AGENT_URL": f"http://127.0.0.1:{port}/v1", "AGENT_MODEL": name}
        finally:
            stop(process)


def start(port: int, output) -> tuple[subprocess.Popen, str]:
    """The server's process, and the model's id."""
    if subprocess.run([ROOT / "scripts/setup-model.sh"]).returncode:
        sys.exit("There is no local model; name another one with AGENT, AGENT_URL and AGENT_MODEL.")
    name, file = (ROOT / ".models/chosen").read_text().splitlines()[:2]
    process = subprocess.Popen(
        [ROOT / ".venv/bin/python", SERVER, file, "--name", name, "--port", str(port)],
        cwd=ROOT,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    return process, name
