"""Demonstrates the API: registers a user, creates a post, and prints it as it is written.
`make demo TOPIC="..."`; BASE_URL is the service's address."""

import http.client
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
WAITING_HINT_SECONDS = 15


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


def events(job_id: str, token: str):
    """The events of a job. A connection that breaks is made again, and goes on where it was."""
    last = None
    while True:
        request = urllib.request.Request(f"{BASE_URL}/api/v1/jobs/{job_id}/events")
        request.add_header("Authorization", f"Bearer {token}")
        if last is not None:
            request.add_header("Last-Event-ID", last)
        try:
            # The server sends a comment every 15 seconds.
            with urllib.request.urlopen(request, timeout=45) as stream:
                event = {}
                for line in stream:
                    name, _, value = line.decode().rstrip("\r\n").partition(": ")
                    if name:
                        event[name] = value
                    elif "data" in event:
                        yield event["event"], json.loads(event["data"])
                        last, event = event["id"], {}
                    else:
                        event = {}
                        yield "waiting", {}
        except urllib.error.HTTPError as refusal:
            if refusal.code < 500:
                sys.exit(f"Watching the job was refused: {reasons(refusal)}")
        except (OSError, http.client.HTTPException):
            print("\n(The connection is lost; trying again.)", flush=True)
        time.sleep(1)


class Printer:
    """Prints a post as it is written. What is printed can't be taken back."""

    def __init__(self) -> None:
        self.title, self.sections, self.printed = None, [], ""
        self.is_sound = True

    def take(self, event: str, data: dict) -> None:
        if event == "snapshot":
            self.title, self.sections = data["title"], data["sections"]
        elif event == "outline":
            self.title = data["title"]
            texts = [section["text"] for section in self.sections]
            texts += [""] * (len(data["sections"]) - len(texts))
            headings = [section["heading"] for section in data["sections"]]
            self.sections = [{"heading": h, "text": t} for h, t in zip(headings, texts)]
        elif event == "section.reset":
            self.sections[data["section"]]["text"] = ""
        elif event == "delta":
            self.sections[data["section"]]["text"] += data["text"]
        self.print_new()

    def print_new(self) -> None:
        written = [section for section in self.sections if section["text"]]
        if not written:
            return
        text = f"# {self.title}\n" if self.title else ""
        for section in written:
            text += f"\n## {section['heading']}\n\n" if section["heading"] else "\n"
            text += section["text"] + "\n"
        text = text.rstrip("\n")
        if text.startswith(self.printed):
            print(text[len(self.printed) :], end="", flush=True)
            self.printed = text
        else:
            self.is_sound = False


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
    job_id, printer = post["job"]["id"], Printer()
    try:
        end = watch(job_id, token, printer)
    except KeyboardInterrupt:
        call("POST", f"/jobs/{job_id}/cancel", token=token)
        sys.exit("\nCanceled.")

    if end["status"] != "succeeded":
        error = end["error"] or {"message": f"The job was {end['status']}.", "code": end["status"]}
        sys.exit(f"\nNo post: {error['message']} ({error['code']})")

    seconds = time.monotonic() - started
    post = call("GET", f"/blogs/{post['id']}", token=token)
    if not printer.is_sound:
        print(f"\n\n--- Parts were written again. The post is:\n\n# {post['title']}\n\n{post['content']}")
    print(f"\n--- {post['word_count']} words in {seconds:.0f} seconds")


def watch(job_id: str, token: str, printer: Printer) -> dict:
    """Prints what happens until the job is finished, and returns its end."""
    started, is_hinted = time.monotonic(), False
    for event, data in events(job_id, token):
        printer.take(event, data)
        if event == "end":
            print()
            return data
        if event == "status" and data["status"] == "queued" and data["attempt"] > 0:
            print(f"\n(Attempt {data['attempt']} failed; the next one will go on.)", flush=True)
        is_waiting = event == "waiting" and time.monotonic() - started >= WAITING_HINT_SECONDS
        if is_waiting and not printer.printed and not is_hinted:
            is_hinted = True
            print("No text yet. Is a worker running? `make run` starts one.", flush=True)
    raise AssertionError("the events have no end")


if __name__ == "__main__":
    main()
