"""Watches a job, and prints its text once it is written: watch.py JOB_URL TOKEN. A connection that
breaks is made again, and goes on where it was."""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request


def events(url, token):
    last = "0"
    while True:
        headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": last}
        event = {}
        try:
            request = urllib.request.Request(f"{url}/events", headers=headers)
            for line in urllib.request.urlopen(request, timeout=45):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    event[name] = value
                elif "data" in event:
                    last, data = event["id"], json.loads(event["data"])
                    yield event["event"], data
                    event = {}
        except urllib.error.HTTPError as refusal:
            if refusal.code < 500:
                raise
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(1)


sections = []
for event, data in events(*sys.argv[1:]):
    if event == "snapshot":
        sections = data["sections"]
    elif event == "outline":
        sections += [{"text": ""} for _ in data["sections"][len(sections) :]]
        sections = [{**old, **new} for old, new in zip(sections, data["sections"])]
    elif event == "section.reset":
        sections[data["section"]]["text"] = ""
    elif event == "delta":
        sections[data["section"]]["text"] += data["text"]
        print(data["text"], end="", file=sys.stderr, flush=True)
    elif event == "end":
        headings = [f"## {s['heading']}\n\n" if s["heading"] else "" for s in sections]
        print("\n".join(h + s["text"] + "\n" for h, s in zip(headings, sections)), end="")
        break
