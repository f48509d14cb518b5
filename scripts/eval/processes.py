"""Starting, awaiting and stopping programs that serve HTTP."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_TIMEOUT = 120.0
STOP_TIMEOUT = 15.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(process: subprocess.Popen, url: str, log: Path) -> None:
    """Returns when the address answers 200; fails with the log's end if the program ends."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Nothing answers at {url}. The end of {log}:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def stop(process: subprocess.Popen) -> None:
    """Ends a program, and its whole process group if it takes too long."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Refused(Exception):
    """An answer with an error's status."""

    def __init__(self, status: int, body: str, retry_after: float | None = None):
        super().__init__(f"HTTP {status}: {body[:500]}")
        self.status, self.retry_after = status, retry_after


def call(method: str, url: str, body: dict | None, headers: dict[str, str], timeout: float):
    """One request with JSON, either way; None if the answer is empty."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            text = response.read()
    except urllib.error.HTTPError as refusal:
        after = refusal.headers.get("Retry-After", "")
        seconds = float(after) if after.isdigit() else None
        raise Refused(refusal.code, refusal.read().decode(errors="replace"), seconds) from None
    return json.loads(text) if text else None
