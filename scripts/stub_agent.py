"""An OpenAI-compatible endpoint for checks. It mostly writes at once, sometimes after a delay, and
sometimes refuses, so that jobs end in every way; about growing tomatoes it always writes; "Growing
slowly" it streams slowly, and "Growing at length" a long post fast. It is a search of the web as well, which finds
pages of its own. Prints its address, and serves until it is killed. HOST and PORT are arguments, or it
is a free port of this machine's own address."""

import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POST = "# A title\n\nA first paragraph.\n\n## Sun\n\nSix hours of it.\n\n## Water\n\nEach morning.\n"
PLAN = "# A title\n## Sun: How much of it.\n## Water: When to give it.\n"
SECTION = "A paragraph about that."
SLOW = ["# A title\n\n", "It is **not hard**.\n\n", *(f"word-{n} " for n in range(40))]
LONG = ["# A title\n\n"] + [
    (f"\n\n## Part {n // 250}\n\n" if n % 250 == 0 else "")
    + ("\n\n- **point**: " if n % 50 == 0 else "")
    + f"word-{n} "
    for n in range(5000)
]


# What its search finds: one page that can be read, and one that can't.
PAGE = """<!doctype html><html><head><title>The sun of tomatoes</title></head><body><article>
<h1>The sun of tomatoes</h1><p>Growing tomatoes takes sun. Six hours of it. They want rich soil and a
large pot, and they are fed each second week with compost.</p></article></body></html>"""
FOUND = ["garden", "gone"]


def answer(prompt: str) -> str:
    if "Plan a blog post" in prompt:
        return PLAN
    is_part = "Write section" in prompt or " anew" in prompt
    return SECTION if is_part else POST


def chance(prompt: str) -> int:
    """The same for the same prompt."""
    if any(topic in prompt for topic in ("Growing tomatoes", "Growing slowly", "Growing at length")):
        return 0
    return hashlib.sha256(prompt.encode()).digest()[0] % 10


def delta(text: str, finish: str | None = "stop") -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/v1/search":
            base = f"http://127.0.0.1:{self.server.server_port}"
            results = [{"url": f"{base}/{name}", "title": f"A page: {name}"} for name in FOUND]
            time.sleep(0.5)
            return self.respond(200, "application/json", json.dumps({"results": results}))
        if path == "/garden":
            time.sleep(0.5)
            return self.respond(200, "text/html", PAGE)
        self.respond(404, "text/plain", "not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if chance(prompt) == 3:
            error = {"message": "not today", "type": "invalid_request_error", "code": None}
            return self.respond(401, "application/json", json.dumps({"error": error}))
        if chance(prompt) in (1, 2):
            time.sleep(0.3)
        if "Growing slowly" in prompt:
            return self.stream(SLOW, 0.1)
        if "Growing at length" in prompt:
            return self.stream(LONG, 0.002)
        events = [delta(answer(prompt)), "[DONE]"]
        self.respond(200, "text/event-stream", "".join(f"data: {event}\n\n" for event in events))

    def stream(self, pieces: list[str], pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for piece in pieces:
                time.sleep(pause)
                self.wfile.write(f"data: {delta(piece, None)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        except BrokenPipeError:
            pass  # The job was canceled.

    def respond(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


if __name__ == "__main__":
    host, port = sys.argv[1:] or ("127.0.0.1", 0)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    print(f"http://{host}:{server.server_port}/v1", flush=True)
    server.serve_forever()
