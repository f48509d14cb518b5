"""A model for tests: answers any chat with a canned post, by OpenAI's protocol."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOUNS = "sun soil water wind rain roots leaves seeds stones birds bees ants".split()
VERBS = "helps needs feeds moves cools warms hides shows keeps makes".split()


def post(prompt: str) -> str:
    """A whole post, in the same words for the same prompt, and in others for another."""
    digest = hashlib.sha256(prompt.encode()).digest()
    pick = lambda words, i: words[digest[i % 32] % len(words)]
    sentence = lambda i: (
        f"The {pick(NOUNS, i)} of garden {digest[i % 32]}{i} {pick(VERBS, i + 1)} the"
        f" {pick(NOUNS, i + 2)} in the <b>{pick(NOUNS, i + 3)}</b>, and that is what you see there."
    )
    paragraph = lambda i: " ".join(sentence(i + k) for k in range(4))
    sections = [
        f"## About {noun} number {digest[i]}\n\n{paragraph(i * 4)}" for i, noun in enumerate(NOUNS[:4])
    ]
    return "\n\n".join(["# A Garden of <script>alert(1)</script> Sorts", paragraph(20), *sections])


class StubModel(ThreadingHTTPServer):
    """Serves on a free port; `requests` are the bodies of all that was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "StubModel":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: StubModel

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        text = post(body["messages"][-1]["content"])
        usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
        if body.get("stream"):
            delta = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
            events = [json.dumps(delta), json.dumps({"choices": [], "usage": usage}), "[DONE]"]
            self._answer("text/event-stream", "".join(f"data: {event}\n\n" for event in events))
        else:
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            self._answer("application/json", json.dumps({"choices": [choice], "usage": usage}))

    def _answer(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
