"""Runs the real API and worker on a database of their own, and has posts written."""

import json
import os
import re
import secrets
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from processes import call, free_port, stop, tail, wait_for
from settings import Settings
from topics import Topic

OVER = ("succeeded", "failed", "canceled")
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "RUST_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Service:
    """The API and one worker, which writes one post at a time."""

    def __init__(self, programs: Path, settings: Settings, logs: Path):
        self._programs, self._settings, self._logs = programs, settings, logs
        self._parts = ExitStack()
        self._running: dict[str, subprocess.Popen] = {}
        self._token = ""

    def __enter__(self) -> "Service":
        with self._parts:
            self._folder = self._parts.enter_context(tempfile.TemporaryDirectory(prefix="blog-eval."))
            api, metrics = free_port(), free_port()
            self._api, self._metrics = f"http://127.0.0.1:{api}", f"http://127.0.0.1:{metrics}/metrics"
            self._start("api", {"LISTEN_ADDR": f"127.0.0.1:{api}"}, f"{self._api}/ready")
            self._start("worker", {"METRICS_ADDR": f"127.0.0.1:{metrics}"}, self._metrics)
            self._sign_up()
            self._parts = self._parts.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._parts.close()

    def _start(self, name: str, settings: dict[str, str], url: str) -> None:
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self._programs / name],
                cwd=self._folder,  # where there is no .env
                env=self._environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        self._parts.callback(stop, process)
        self._running[name] = process
        wait_for(process, url, log)

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT_VARIABLES or name.lower().endswith("_proxy")
        }
        agent = dict(self._settings.agent)
        if script := agent.get("AGENT_SCRIPT"):
            agent["AGENT_SCRIPT"] = " ".join(map(_absolute, script.split()))
        if self._settings.extra_body:
            agent["AGENT_EXTRA_BODY"] = json.dumps(self._settings.extra_body)
        return {
            # A slow machine may take its time.
            "AGENT_TIMEOUT_SECS": f"{self._settings.timeout:.0f}",
            **kept,
            **agent,
            "NO_COLOR": "1",
            "DATA_DIR": self._folder,
            "DATABASE_URL": f"sqlite://{self._folder}/blog.db",
            "WORKER_CONCURRENCY": "1",
            "SHUTDOWN_GRACE_SECS": "1",
            "RATE_LIMIT_PER_MINUTE": "0",
            "ACCESS_TOKEN_TTL_SECS": "2592000",
        }

    def _sign_up(self) -> None:
        user = {"username": "eval", "password": secrets.token_urlsafe(16)}
        self._token = self._call("POST", "/users/register", user)["access_token"]

    def _call(self, method: str, path: str, body: dict | None = None):
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"The {name} has ended:\n{tail(self._logs / f'{name}.log')}")
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return call(method, f"{self._api}/api/v1{path}", body, headers, timeout=90)

    def model(self) -> str:
        """The model that writes when a post names none."""
        models = self._call("GET", "/models")["items"]
        return next(model["id"] for model in models if model["default"])

    def write(self, topic: Topic) -> dict:
        """Has one post written; tells what came of it and what it took."""
        before = self._counters()
        started = time.monotonic()
        body = {"topic": topic.topic, "options": topic.options}
        if topic.sources:
            body["sources"] = topic.sources
        post = self._call("POST", "/blogs", body)
        job = self._wait(post["job"], started + self._settings.timeout)
        seconds = time.monotonic() - started
        post = self._call("GET", f"/blogs/{post['id']}")
        spent = {name: value - before.get(name, 0) for name, value in self._counters().items()}
        calling = spent.get("blog_agent_call_duration_seconds_sum", 0)
        written = spent.get("blog_agent_tokens_total out", 0)
        return {
            "status": job["status"],
            "error": job["error"] and f"{job['error']['code']}: {job['error']['message']}",
            "title": post["title"] or "",
            "content": post["content"] or "",
            "api_words": post["word_count"],
            "warnings": job.get("warnings") or [],
            "citations": post.get("citations") or [],
            "grounding": post.get("grounding"),
            "attempts": job["attempt"],
            "calls": round(spent.get("blog_agent_calls_total", 0)),
            "input_tokens": round(spent.get("blog_agent_tokens_total in", 0)),
            "output_tokens": round(written),
            "seconds": seconds,
            "tokens_per_second": written / calling if calling else 0.0,
        }

    def _wait(self, job: dict, deadline: float) -> dict:
        """The job once it is over; one that takes too long is canceled."""
        canceled = False
        while job["status"] not in OVER:
            if time.monotonic() > deadline and not canceled:
                self._call("POST", f"/jobs/{job['id']}/cancel")
                canceled = True
            job = self._call("GET", f"/jobs/{job['id']}?wait=10")
        return job

    def _counters(self) -> dict[str, float]:
        """The worker's counters of calls and tokens, each summed up over its labels but for
        the direction of tokens."""
        with urllib.request.urlopen(self._metrics, timeout=30) as response:
            text = response.read().decode()
        return sum_counters(text)


def sum_counters(text: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(blog_agent_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        direction = re.search(r'direction="(\w+)"', labels)
        key = f"{name} {direction[1]}" if direction else name
        sums[key] = sums.get(key, 0.0) + float(value)
    return sums


def _absolute(word: str) -> str:
    return str(Path(word).resolve()) if Path(word).exists() else word
