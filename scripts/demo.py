"""Demonstrates the API: registers a user, creates a post, shows the job's progress and prints the
post. `make demo TOPIC="..."`; BASE_URL is the service's address."""

import http.client
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
FINISHED = ("succeeded", "failed", "canceled")
PHASES = {"outline": "planning", "writing": "writing", "assembling": "assembling"}
LIVE = sys.stdout.isatty()


def call(method: str, path: str, body: dict | None = None, token: str = "") -> dict:
    """Sends a request; an error response ends the program with the server's message."""
    request = urllib.request.Request(f"{BASE_URL}/api/v1{path}", method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as refusal:
        sys.exit(f"{method} {path} was refused: {reasons(refusal)}")
    except (OSError, http.client.HTTPException):
        sys.exit(f"Nothing answers at {BASE_URL}. Start the service with: make run")


def reasons(refusal: urllib.error.HTTPError) -> str:
    try:
        problem = json.load(refusal)
        fields = "; ".join(f"{e['field']}: {e['message']}" for e in problem.get("errors") or [])
        return fields or problem["detail"]
    except (ValueError, KeyError, TypeError):
        return f"{refusal.code} {refusal.reason}"


def stage(job: dict) -> str:
    if job["status"] == "queued" and job["attempt"] > 0:
        return f"waiting to try again ({job['attempt']} of {job['max_attempts']} attempts made)"
    if job["status"] == "queued":
        return "waiting for a worker"
    return PHASES.get(job["phase"] or "", "running" if job["status"] == "running" else job["status"])


def show(job: dict, seconds: float, shown: str) -> str:
    """Draws the progress bar, or without a terminal one line per stage. Returns the stage."""
    progress = job["progress"]
    done = int(progress["percent"] / 100 * 30)
    bar = "█" * done + "░" * (30 - done)
    line = f"{bar} {progress['percent']:3.0f}%  {progress['words']} words  {seconds:3.0f} s  {stage(job)}"
    if LIVE:
        print(f"\r\033[K{line}", end="", flush=True)
    elif stage(job) != shown:
        print(line, flush=True)
    return stage(job)


def watch(job_id: str, token: str) -> dict:
    """Polls until the job is finished. Not by long polling, so that the bar moves within a phase."""
    started, shown, hinted = time.monotonic(), "", False
    while True:
        job = call("GET", f"/jobs/{job_id}", token=token)
        seconds = time.monotonic() - started
        shown = show(job, seconds, shown)
        if job["status"] in FINISHED:
            print()
            return job
        if seconds > 15 and not hinted and job["status"] == "queued" and job["attempt"] == 0:
            print("\nNo worker has taken the job yet. Is one running? `make run` starts one.")
            hinted = True
        time.sleep(0.3)


def main() -> None:
    topic = os.environ.get("TOPIC", "").strip()
    if not topic:
        sys.exit('Say what to write about: make demo TOPIC="Growing tomatoes on a balcony"')

    username, password = f"demo-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    token = call("POST", "/users/register", {"username": username, "password": password})["access_token"]
    print(f"Signed up as {username} with the password {password}")

    started = time.monotonic()
    post = call("POST", "/blogs", {"topic": topic}, token)
    print(f"Asked for a post about: {topic}\n")
    job_id = post["job"]["id"]
    try:
        job = watch(job_id, token)
    except KeyboardInterrupt:
        call("POST", f"/jobs/{job_id}/cancel", token=token)
        sys.exit("\nCanceled.")

    if job["status"] != "succeeded":
        error = job["error"] or {"message": f"The job was {job['status']}.", "code": job["status"]}
        sys.exit(f"\nNo post: {error['message']} ({error['code']})")

    seconds = time.monotonic() - started
    post = call("GET", f"/blogs/{post['id']}", token=token)
    content = post["content"].strip()
    heading = "" if content.startswith("# ") else f"# {post['title']}\n\n"
    print(f"\n{heading}{content}\n")
    print(f"--- {post['word_count']} words in {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
