"""All that is measured of one post."""

import re
import unicodedata
from functools import cache
from pathlib import Path

import cues
import form
import repetition
from form import Post
from language import count_words, is_in
from markdown import Block, heading_key, is_label, plain, rows
from topics import Topic

# Whose headings are given out when the model's outline was of no use.
FALLBACK_SOURCES = list((Path(__file__).parents[2] / "worker/src").rglob("fallback_outline.rs"))
LENGTH_TOLERANCE = 0.25
LOOP = 0.3  # of the runs of words come again: a reader sees that
MIN_LANGUAGE_SHARE = 0.9


def measure(topic: Topic, title: str, content: str) -> dict:
    post = Post(title, content)
    words = count_words(content, topic.language)
    prose = post.prose()
    repeated = repetition.repeated_runs(prose, topic.language)
    flaws = form.flaws(post, topic.language, topic.is_poem) + ["loop"] * (repeated > LOOP)
    fallback = [h.text for h in post.headings if heading_key(h.text) in fallback_headings()]
    keywords = topic.options.get("keywords", [])
    kept = expectations(topic, post)
    share = language_share(post, topic.language)
    return {
        "well_formed": not flaws,
        "flaws": flaws,
        "words": words,
        "wished_words": topic.words,
        "length_ratio": words / topic.words,
        "length_kept": abs(words / topic.words - 1) <= LENGTH_TOLERANCE,
        "sections": sum(1 for heading, _ in post.sections() if heading),
        "headings": len(post.headings),
        "fallback_headings": fallback,
        "own_headings": 1 - len(fallback) / len(post.headings) if post.headings else None,
        "repeated_runs": repeated,
        "same_openings": repetition.same_openings(prose, topic.language),
        "near_duplicates": repetition.near_duplicates(prose, topic.language),
        "keywords_missing": [word for word in keywords if not holds(f"{title}\n{content}", word)],
        "keywords": len(keywords),
        "language_share": share,
        "language_kept": share >= MIN_LANGUAGE_SHARE,
        "reintroductions": form.reintroductions(post, topic.topic, topic.language),
        "introduction": form.has_introduction(post),
        "conclusion": form.has_conclusion(post),
        "expectations": len(kept),
        "expectations_missed": [name for name, is_kept in kept.items() if not is_kept],
        "stock_phrases": per_thousand(len(cues.STOCK_PHRASES.findall("\n".join(prose))), words),
        "figures": per_thousand(len(re.findall(r"\d[\d.,]*", "\n".join(prose))), words),
    }


@cache
def fallback_headings() -> frozenset[str]:
    """The texts in the worker's source, folded; none if there is no such file any more."""
    sources = [file.read_text(encoding="utf-8") for file in FALLBACK_SOURCES]
    texts = re.findall(r'^\s*"([^"\\]+)",?$', "\n".join(sources), re.MULTILINE)
    return frozenset(heading_key(text) for text in texts)


def per_thousand(count: int, words: int) -> float:
    return 1000 * count / words if words else 0.0


def holds(text: str, word: str) -> bool:
    fold = lambda s: unicodedata.normalize("NFKC", s).casefold()
    return fold(word) in fold(text)


def language_share(post: Post, language: str) -> float:
    """Of the headings and paragraphs whose language can be told, those of the wanted one."""
    pieces = [post.title, *(heading.text for heading in post.headings), *post.prose()]
    told = [verdict for piece in pieces if (verdict := is_in(plain(piece), language)) is not None]
    return sum(told) / len(told) if told else 0.0


def expectations(topic: Topic, post: Post) -> dict[str, bool]:
    """What this topic's post has to have beside what every post has to."""
    expects = topic.expects
    lists = [block for block in post.blocks if block.kind == "list"]
    code = [block for block in post.blocks if block.kind == "code"]
    kept = {}
    if items := expects.get("items"):
        kept[f"{items} items"] = items in item_counts(post)
    if blocks := expects.get("code_blocks"):
        kept[f"{blocks} code blocks"] = len(code) >= blocks
    if wanted := expects.get("lists"):
        kept[f"{wanted} lists"] = len(lists) >= wanted
    if expects.get("form") == "poem":
        kept["no headings"] = not post.headings
    for phrase in expects.get("phrases", []):
        kept[phrase] = any(holds(post.content, choice) for choice in phrase.split("|"))
    return kept


def item_counts(post: Post) -> set[int]:
    """How many things the post lists, by each of the ways to list them."""
    things = [heading for heading in post.headings if not _frames(heading.text)]
    numbered = [h for h in things if re.match(r"\d+[.):]|\w+ \d+:|#\d", plain(h.text))]
    by_level = [sum(1 for h in things if h.level == level) for level in range(1, 7)]
    labels = sum(1 for block in post.blocks if is_label(block) or _has_bold_start(block))
    lists = [_top_items(block) for block in post.blocks if block.kind == "list"]
    tables = [len(rows(block)) - 1 for block in post.blocks if block.kind == "table"]
    return {len(numbered), labels, *by_level, *lists, sum(lists), *tables}


def _frames(heading: str) -> bool:
    """Whether it is the heading of an introduction or a conclusion."""
    return cues.is_introduction_heading(heading) or cues.is_conclusion_heading(heading)


def _has_bold_start(block: Block) -> bool:
    return block.kind == "paragraph" and bool(re.match(r"(\d+[.)] )?\*\*[^*]+\*\*", block.text))


def _top_items(block: Block) -> int:
    least = min(item.indent for item in block.items)
    return sum(1 for item in block.items if item.indent == least)
