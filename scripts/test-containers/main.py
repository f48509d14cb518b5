#!/usr/bin/env python3
"""Tests docker-compose.yml with an engine: docker and its plugin compose, or podman and
podman-compose. A part of no other check, for it needs one.

Builds the images, starts the stack without any setting of the developer's, and has posts written:
at first, while one of three workers is killed, after a restart of Postgres, and after a backup was
restored as docs/operations.md says. Then it stops all, looks at the exit codes, and at what is left.

MODEL=smollm2-135m (or any LOCAL_MODEL) has that model write, otherwise a stub does. BUILD=0 takes the
images that are there.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yml"
STUB_FILE = ROOT / "scripts/test-containers/stub-agent.yml"
PROJECT = "blog-test-containers"
MODEL = os.environ.get("MODEL", "")
POST_SECONDS = 1200 if MODEL else 60
START_SECONDS = 1800 if MODEL else 120  # it downloads the model
FINAL = {"succeeded", "failed", "canceled"}


class Failed(Exception):
    """What is wrong, in a sentence."""


def main():
    engine = find_engine()
    if engine is None:
        print("NOT RUN: the containers are not tested, for no engine runs here. It takes docker with")
        print("its plugin compose, or podman with podman-compose.")
        sys.exit(1 if os.environ.get("CI") else 0)
    stack = Stack(engine)
    stack.down()  # what an interrupted run has left
    try:
        test(stack)
    except BaseException as error:
        stack.compose("logs", check=False)
        stack.down()
        if isinstance(error, Failed):
            sys.exit(f"FAILED: {error}")
        raise
    print("The containers work.")


def test(stack):
    if os.environ.get("BUILD") != "0":
        say("Building the images")
        stack.compose("build")
    say("Starting the stack")
    stack.up()
    client = Client(stack.port)
    client.wait_until_ready(START_SECONDS)
    client.sign_up()
    client.finish(client.post("Growing tomatoes on a balcony"), START_SECONDS)

    say("Killing one of three workers while it writes")
    stack.up("--scale", "worker=3")
    wait(60, "three workers run", lambda: len(stack.running("worker")) == 3)
    job = client.post("Growing slowly")
    # A worker's name begins with its host's, which is the beginning of the container's id.
    host = wait(60, "the job runs", lambda: client.worker(job)).split("-")[0]
    killed = next(id for id in stack.running("worker") if id.startswith(host))
    stack.engine("kill", "--signal", "KILL", killed)
    attempts = client.finish(job, POST_SECONDS)["attempts"]
    if len(attempts) < 2:
        raise Failed("the job was finished by the worker that was killed")

    say("Restarting Postgres")
    stack.engine("restart", *stack.running("postgres"))
    client.finish(client.post("Growing tomatoes again"), POST_SECONDS)

    say("Restoring a backup")
    postgres = ("exec", "-T", "postgres")
    backup = stack.compose(*postgres, "pg_dump", "--username=blog", "--format=custom", "blog")
    kept = client.post("Growing tomatoes")
    client.finish(kept, POST_SECONDS)
    # podman-compose stops only the first of several workers.
    for id in (*stack.running("api"), *stack.running("worker")):
        stack.engine("stop", id)
    for command in ("dropdb", "createdb"):
        stack.compose(*postgres, command, "--username=blog", "blog")
    restore = ("pg_restore", "--username=blog", "--exit-on-error", "--no-owner", "--dbname=blog")
    stack.compose(*postgres, *restore, input=backup)
    stack.compose("run", "--rm", "api", "api", "after-restore")
    stack.up()
    client.sign_in()
    if kept in client.jobs():
        raise Failed("a job that is later than the backup is there after its restore")
    client.finish(client.post("Growing tomatoes after all"), POST_SECONDS)

    say("Stopping")
    for service in ("worker", "api", *(["model"] if MODEL else []), "postgres"):
        for id in stack.running(service):
            stack.engine("stop", id)
            code = stack.engine("inspect", "--format", "{{.State.ExitCode}}", id)
            if code != "0":
                raise Failed(f"{service} ended with {code} on its stop signal, and not with 0")
    stack.down()
    if left := stack.left():
        raise Failed(f"`down` has left {', '.join(left)}")


class Stack:
    def __init__(self, engine):
        self.program, self.compose_command = engine
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # Only what is set here, and nothing of .env.
        settings = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text()))
        self.env = {name: value for name, value in os.environ.items() if name not in settings}
        self.env |= {"API_PORT": str(self.port), "JOB_LEASE_SECS": "3"}
        self.env |= {"ACCESS_TOKEN_TTL_SECS": "86400"}  # a model may write for longer than 15 minutes
        files = ["--file", COMPOSE_FILE]
        if MODEL:
            self.env["LOCAL_MODEL"] = MODEL
        else:
            self.env |= {"AGENT": "openai", "AGENT_URL": "http://stub:8012/v1", "AGENT_MODEL": "one"}
            files += ["--file", STUB_FILE]
        self.options = [*files, "--project-name", PROJECT, "--env-file", os.devnull]

    def compose(self, *arguments, check=True, quiet=False, input=b""):
        """Returns what it says on standard output, if that is not for the user."""
        command = [*self.compose_command, *self.options, *arguments]
        is_data = arguments[0] == "exec"
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.env,
            input=input,
            stdout=subprocess.PIPE if is_data else subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
        )
        if check and done.returncode != 0:
            raise Failed(f"compose {arguments[0]} has failed")
        return done.stdout

    def up(self, *options):
        self.compose("up", "--detach", "--no-build", *options)

    def down(self):
        # podman-compose removes the workers that `--scale` has added in any order, and may fail with
        # what they need. It complains of all that is not there, too.
        for _ in range(2):
            if self.left():
                self.compose("down", "--volumes", "--remove-orphans", check=False, quiet=True)

    def engine(self, *arguments):
        command = [self.program, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        if done.returncode != 0:
            raise Failed(f"{self.program} {arguments[0]} has failed")
        return done.stdout.strip()

    def running(self, service):
        """The ids of a service's containers."""
        labels = {"project": PROJECT, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        return self.engine("ps", "--quiet", "--no-trunc", *filters).split()

    def left(self):
        """The names of containers, volumes and networks."""
        names = []
        for kind, field in (("container", "Names"), ("volume", "Name"), ("network", "Name")):
            options = ["--all"] if kind == "container" else []
            names += self.engine(kind, "ls", *options, "--format", f"{{{{.{field}}}}}").split()
        return [name for name in names if name.startswith(PROJECT)]


class Client:
    """A user of the API."""

    def __init__(self, port):
        self.base, self.token = f"http://127.0.0.1:{port}", ""

    def request(self, path, body=None):
        """Repeats it while the service has no database, as a good client does."""
        return wait(60, f"{path} is answered", lambda: self.try_request(path, body))

    def try_request(self, path, body=None):
        request = urllib.request.Request(self.base + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503:
                raise Failed(f"{path} is refused: {refusal.read().decode()}") from None
        except OSError:
            pass
        return None

    def wait_until_ready(self, seconds):
        wait(seconds, "the API is ready", lambda: self.try_request("/ready"))

    def sign_up(self):
        name, password = f"test-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        self.account = {"username": name, "password": password}
        self.token = self.request("/api/v1/users/register", self.account)["access_token"]

    def sign_in(self):
        self.token = ""
        self.token = self.request("/api/v1/users/login", self.account)["access_token"]

    def post(self, topic):
        """Asks for a post, and returns its job's id."""
        return self.request("/api/v1/blogs", {"topic": topic})["job"]["id"]

    def job(self, id):
        return self.request(f"/api/v1/jobs/{id}")

    def jobs(self):
        """The ids of the user's latest jobs."""
        return [job["id"] for job in self.request("/api/v1/jobs")["items"]]

    def worker(self, id):
        """The name of the worker that runs the job."""
        job = self.job(id)
        return job["status"] == "running" and job["attempts"] and job["attempts"][-1]["worker"]

    def finish(self, id, seconds):
        """Waits until the job has succeeded, and returns it."""

        def final():
            job = self.job(id)
            return job["status"] in FINAL and job

        job = wait(seconds, "the job is finished", final)
        if job["status"] != "succeeded":
            raise Failed(f"the job is {job['status']}: {job['error']}")
        return job


def find_engine():
    """The program and its compose command; None if no engine runs."""
    for program, compose in (("docker", ["docker", "compose"]), ("podman", ["podman-compose"])):
        if shutil.which(compose[0]) and succeeds(program, "info") and succeeds(*compose, "version"):
            return program, compose
    return None


def succeeds(*command):
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return bool(shutil.which(command[0])) and subprocess.run(command, **quiet).returncode == 0


def wait(seconds, what, condition):
    """Returns what the condition does as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"it takes longer than {seconds} s until {what}")
        time.sleep(0.2)
    return value


def say(text):
    print(f"\n==> {text}", flush=True)


if __name__ == "__main__":
    main()
