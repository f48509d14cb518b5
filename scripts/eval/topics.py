"""The topics that are written about, and how they are chosen."""

import json
from dataclasses import dataclass, field
from pathlib import Path

FILES = [Path(__file__).with_name(name) for name in ("topics.json", "sources.json")]
DEFAULT_WORDS = 500  # what the service writes when nothing is asked for


@dataclass(frozen=True)
class Topic:
    """A request, as POST /blogs takes it, and what its post has to keep to."""

    id: str
    kind: str
    language: str  # of the post; `options` may leave it to the topic's own language
    topic: str
    options: dict
    expects: dict = field(default_factory=dict)
    quick: bool = False
    sources: list = field(default_factory=list)  # as POST /blogs takes them
    facts: list = field(default_factory=list)  # words that a sentence has, and the source that has them

    @property
    def words(self) -> int:
        return self.options.get("words", DEFAULT_WORDS)

    @property
    def is_poem(self) -> bool:
        return self.expects.get("form") == "poem"


def load() -> list[Topic]:
    entries = [entry for file in FILES for entry in json.loads(file.read_text(encoding="utf-8"))]
    return [Topic(**entry) for entry in entries]


def choose(topics: list[Topic], only: str) -> list[Topic]:
    """Those named, separated by commas: by id, kind, language, or `quick`. All if none is."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    if not names:
        return topics
    unknown = [name for name in names if not any(_is_called(topic, name) for topic in topics)]
    if unknown:
        raise ValueError(f"EVAL_ONLY names no topic: {', '.join(unknown)}")
    return [topic for topic in topics if any(_is_called(topic, name) for name in names)]


def _is_called(topic: Topic, name: str) -> bool:
    return name in (topic.id, topic.kind, topic.language) or (name == "quick" and topic.quick)
