"""Measures the writing: has posts written by the real programs, and one plain answer of the
same model beside each. `make eval`; the settings are in settings.py."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import blind
import page
import report
from baseline import Baseline
from citations import measure_citations, without_list
from local_model import local_model
from metrics import measure
from processes import Refused
from service import Service
from settings import ROOT, Settings, find_programs, from_environment
from topics import Topic, choose, load


class Evaluation:
    """A run over topics, and the folder that it fills."""

    def __init__(self, model: str, topics: list[Topic], out: Path, seed: int):
        self.model, self.topics, self.out, self.seed = model, topics, out, seed
        self.sides: dict[str, dict[str, dict]] = {"ours": {}}

    def add(self, side: str, topic: Topic, run: dict) -> None:
        run["measures"] = measure(topic, run["title"], without_list(run["content"]))
        if topic.facts:
            found = run.get("citations", []), run.get("grounding")
            run["facts"] = measure_citations(topic, run["content"], *found)
        self.sides.setdefault(side, {})[topic.id] = run
        cached = " (cached)" if run.pop("cached", False) else ""
        words, seconds = run["measures"]["words"], run["seconds"]
        say(f"  {side:8}  {words:5} words  {seconds:4.0f} s{cached}  {report.remarks(run)}")

    @property
    def has_posts(self) -> bool:
        return any(run["status"] == "succeeded" for run in self.sides["ours"].values())

    def finish(self) -> None:
        """Prints the tables, and writes all files; a run without a post replaces none."""
        done = [topic for topic in self.topics if topic.id in self.sides["ours"]]
        summaries = {name: report.summary(list(runs.values())) for name, runs in self.sides.items()}
        if before := self._before(done):
            summaries[f"before ({len(before)})"] = report.summary(before)
        compared = report.compared(summaries)
        for name, runs in self.sides.items():
            print(f"\n{report.table(name, runs)}")
        print(f"\n{report.LEGEND}\n\n{compared}\n")
        if self.has_posts:
            self._write_files(done, summaries, compared)
            print(f"The posts' SHA-256 is {self._digest()[:16]}.\nReport: {self.out}/report.html")

    def _write_files(self, done: list[Topic], summaries: dict, compared: str) -> None:
        last = self.out / "report.json"
        if last.exists():
            last.replace(self.out / "report.before.json")
        self._save("report.json", {
            "model": self.model,
            "posts_sha256": self._digest(),
            "summaries": summaries,
            "topics": [dataclasses.asdict(topic) for topic in done],
            **self.sides,
        })
        self._write("report.html", page.report_page(self.model, done, self.sides, compared))
        if baseline := self.sides.get("baseline"):
            pairs, key, numbered = blind.make_pairs(done, self.sides["ours"], baseline, self.seed)
            self._save("blind.json", pairs)
            self._save("blind-key.json", key)
            self._write("blind.html", page.blind_page(pairs, numbered))

    def _before(self, topics: list[Topic]) -> list[dict]:
        """Our posts on these topics in the last run, measured anew: metrics may have changed."""
        last = self.out / "report.json"
        if not last.exists():
            return []
        ours = json.loads(last.read_text(encoding="utf-8"))["ours"]
        runs = [(topic, ours[topic.id]) for topic in topics if topic.id in ours]
        text = lambda run: without_list(run["content"])
        return [run | {"measures": measure(topic, run["title"], text(run))} for topic, run in runs]

    def _digest(self) -> str:
        """What tells whether two runs gave the same posts."""
        texts = [[id, run["title"], run["content"]] for id, run in sorted(self.sides["ours"].items())]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

    def _save(self, name: str, value: object) -> None:
        self._write(name, json.dumps(value, ensure_ascii=False, indent=1))

    def _write(self, name: str, text: str) -> None:
        (self.out / name).write_text(text, encoding="utf-8")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = from_environment(dict(os.environ))
    try:
        topics = choose(load(), settings.only)
    except ValueError as error:
        sys.exit(str(error))
    programs = find_programs(settings)
    logs = (Path(settings.out).resolve() if settings.out else ROOT / "target/eval") / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        if not settings.kind and "AGENT_URL" not in settings.agent:
            model = parts.enter_context(local_model(logs / "model.log"))
            settings = dataclasses.replace(settings, agent=model | settings.agent)
        service = parts.enter_context(Service(programs, settings, logs))
        return evaluate(service, settings, topics)


def evaluate(service: Service, settings: Settings, topics: list[Topic]) -> int:
    model = service.model()
    folder = re.sub(r"[^\w.-]+", "_", model)
    out = Path(settings.out).resolve() if settings.out else ROOT / "target/eval" / folder
    out.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(model, topics, out, settings.seed)
    baseline = None
    if settings.with_baseline and settings.chat_url:
        baseline = Baseline(settings, settings.chat_url, model, out / "baseline")
    status = 0
    try:
        for number, topic in enumerate(topics, start=1):
            say(f"{number}/{len(topics)} {topic.id}")
            evaluation.add("ours", topic, service.write(topic))
            if baseline:
                evaluation.add("baseline", topic, baseline.write(topic))
    except KeyboardInterrupt:
        say("Interrupted: this is what there is so far.")
        status = 130
    except (RuntimeError, OSError, Refused) as error:
        say(f"Broken off: {error}")
        status = 1
    evaluation.finish()
    return status or int(not evaluation.has_posts)


if __name__ == "__main__":
    sys.exit(main())
