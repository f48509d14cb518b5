"""What the citations of a post are worth, for topics whose sources have known facts."""

import re

from topics import Topic

MARK = re.compile(r"\[(\d+)\]")


def without_list(content: str) -> str:
    """A post without the list of its sources, which ends it."""
    text, _, last = content.rpartition("\n## ")
    lines = [line for line in last.split("\n")[1:] if line]
    return text if lines and all(line.startswith("- \\[") for line in lines) else content


def measure_citations(topic: Topic, content: str, citations: list[dict], grounding: dict | None) -> dict:
    """Precision: of the sentences that cite a source, how many tell a fact that it has. Recall: of
    the sentences that tell a known fact, how many cite the source that has it."""
    text = without_list(content)
    cited = told = right = correct = 0
    for sentence in sentences(text):
        sources = {fact["source"] for fact in topic.facts if tells(sentence, fact)}
        numbers = {int(number) for number in MARK.findall(sentence)}
        cited += bool(numbers)
        right += bool(numbers & sources)
        told += bool(sources)
        correct += bool(sources & numbers)
    return {
        "facts": len([fact for fact in topic.facts if tells(text, fact)]),
        "known_facts": len(topic.facts),
        "cited": cited,
        "cited_facts": right,
        "fact_sentences": told,
        "fact_sentences_cited": correct,
        "grounding": grounding,
        "verdicts": [citation["verdict"] for citation in citations],
    }


def tells(text: str, fact: dict) -> bool:
    return all(re.search(rf"(?<![\w.,]){re.escape(word)}(?![\w])", text) for word in fact["words"])


def sentences(text: str) -> list[str]:
    """Sentences with the citations behind them."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    parts = [re.split(r"(?<=[.!?\]])\s+(?=[A-ZÄÖÜ\"„“])", line) for line in lines]
    return [sentence for line in parts for sentence in line]
