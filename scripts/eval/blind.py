"""Pairs of posts for a reader who must not know which one is whose."""

import random

from form import unfenced
from topics import Topic


def make_pairs(
    topics: list[Topic], ours: dict[str, dict], baseline: dict[str, dict], seed: int
) -> tuple[list[dict], list[dict], dict[int, Topic]]:
    """The pairs, their key, and the topic of each pair's number. The same seed gives the
    same order."""
    order = random.Random(seed)
    both = [topic for topic in topics if _has_text(ours, topic) and _has_text(baseline, topic)]
    order.shuffle(both)
    pairs, key, numbered = [], [], {}
    for number, topic in enumerate(both, start=1):
        sides = [("ours", ours[topic.id]), ("baseline", baseline[topic.id])]
        order.shuffle(sides)
        (a_name, a), (b_name, b) = sides
        numbered[number] = topic
        pairs.append(
            {"pair": number, "topic": topic.topic, "options": topic.options, "a": _text(a), "b": _text(b)}
        )
        key.append({"pair": number, "id": topic.id, "a": a_name, "b": b_name})
    return pairs, key, numbered


def _has_text(runs: dict[str, dict], topic: Topic) -> bool:
    return bool(runs.get(topic.id, {}).get("content"))


def _text(run: dict) -> dict:
    return {"title": run["title"], "content": unfenced(run["content"])}
