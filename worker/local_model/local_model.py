"""Serves the model that the worker uses when no agent is configured.

It speaks the OpenAI protocol, on loopback unless --host says otherwise, and needs no network:
llama.cpp comes with the package xllamacpp. `make run` downloads the model's file and starts this
program; in a container start.sh does.
It stops on SIGTERM, on SIGINT and when the process that started it is gone.
"""

import argparse
import os
import signal
import sys
import threading

# Jobs at once. More of them write no faster together on a few cores, and each slot takes
# memory: with Qwen2.5-1.5B 28 KB a token.
SLOTS = 2
# Room for a prompt and a post of 2,000 words, which is about 3,000 tokens.
TOKENS_PER_SLOT = 8192
# How much of a prompt is read in one go. A canceled call ends only between two of them, and
# the other slot waits meanwhile; larger ones are no faster on a processor.
BATCH_TOKENS = 128


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start(path: str, name: str, host: str, port: int) -> object:
    """Loads the model and returns the server, which answers in threads of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * TOKENS_PER_SLOT
    params.n_batch = BATCH_TOKENS
    params.cpuparams.n_threads = cores()
    params.cpuparams_batch.n_threads = cores()
    params.n_gpu_layers = 0
    # A slot keeps its last prompt all the same, and reads only what is new in the next one.
    params.cache_ram_mib = 0  # by default it would keep up to 8 GB of older prompts
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
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--name", required=True, help="the model's id in the API")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8012)
    args = parser.parse_args()

    parent = os.getppid()  # before loading: it may be gone by the time that is done
    server = start(args.model, args.name, args.host, args.port)
    print(f"{args.name} answers on {server.listening_address}/v1", flush=True)
    wait_for_end(parent)


if __name__ == "__main__":
    main()
