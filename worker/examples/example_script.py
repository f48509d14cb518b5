#!/usr/bin/env python3
"""An example of a script agent: it has a model write the whole post at once.

    AGENT_SCRIPT="python3 worker/examples/example_script.py http://127.0.0.1:8012/v1"

The worker gives it one line of JSON and reads JSON back, one object a line:
what the model writes as it comes ("delta"), how far it is ("progress"), and in
the end the finished post ("post"). Any program that does the same will do.

The model is asked over the chat completions of OpenAI, which most servers of
models speak. Its name and a key, if they are needed, come from MODEL and API_KEY,
which are AGENT_SCRIPT_ENV_MODEL and AGENT_SCRIPT_ENV_API_KEY in the worker's
environment. Nothing but the standard library is needed.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request

TRY_AGAIN = 75  # EX_TEMPFAIL: the worker starts us again later
TRY_AGAIN_STATUSES = {408, 429, 500, 502, 503, 504, 529}


def tell(kind, **fields):
    # Unless it is flushed, it stays here until we end.
    print(json.dumps({"type": kind, **fields}), flush=True)


def ask(base_url, job):
    """Yield the text piece by piece."""
    options = job["options"]
    wishes = "".join(f"\n{name}: {value}" for name, value in options.items() if name != "model")
    prompt = f"Write a blog post about: {job['topic']}{wishes}\nBegin with its title as a heading."
    request = urllib.request.Request(
        base_url.rstrip("/") + "/chat/completions",
        headers={"Content-Type": "application/json"},
        data=json.dumps(
            {
                "model": os.environ.get("MODEL") or options.get("model") or "default",
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": 2 * words(options) + 200,
                "stream": True,
            }
        ).encode(),
    )
    if "API_KEY" in os.environ:
        request.add_header("Authorization", "Bearer " + os.environ["API_KEY"])
    finished = False
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            data = line.decode().removeprefix("data:").strip()
            if not line.startswith(b"data:") or data == "[DONE]":
                continue
            for choice in json.loads(data).get("choices", []):
                finished = finished or choice.get("finish_reason") is not None
                yield choice.get("delta", {}).get("content") or ""
    if not finished:
        raise ConnectionError("the stream ended before the post did")


def words(options):
    return options.get("words") or 400


def main():
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8012/v1"
    job = json.loads(sys.stdin.readline())
    text = ""
    try:
        for piece in ask(base_url, job):
            text += piece
            tell("delta", text=piece)
            tell("progress", percent=min(99, 100 * len(text.split()) // words(job["options"])))
    except urllib.error.HTTPError as error:  # it answers, but with a refusal
        tell("error", message=f"{base_url}: {error}", retry=error.code in TRY_AGAIN_STATUSES)
        return
    except (OSError, http.client.HTTPException) as error:  # it can't be reached, or was lost on the way
        print(f"{base_url}: {error}", file=sys.stderr)
        sys.exit(TRY_AGAIN)

    title, _, content = text.strip().partition("\n")
    if title.startswith("#"):
        tell("post", title=title.strip("# *"), content=content.strip())
    else:  # without a title the worker finds one
        tell("post", title=None, content=text)


if __name__ == "__main__":
    main()
