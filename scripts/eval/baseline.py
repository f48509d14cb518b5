"""The baseline: the same model, asked once, in one plain request."""

import hashlib
import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import cues
from language import count_words, primary
from markdown import is_label, parse, plain
from processes import Refused, call
from settings import Settings
from topics import Topic

LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian",
    "pt": "Portuguese", "zh": "Chinese", "ja": "Japanese", "ar": "Arabic", "th": "Thai",
    "ru": "Russian", "ko": "Korean", "hi": "Hindi",
}
# Tokens for a word, at most: they are made for English.
TOKENS_PER_WORD = {"en": 2, "de": 3, "fr": 3, "es": 3, "it": 3, "pt": 3}
OTHER_TOKENS_PER_WORD = 5
SPARE_TOKENS = 1000
THINKING_TOKENS = 4096  # OpenAI's own models count their thoughts
TRIES = 5  # as many as a job gets


def prompt(topic: Topic) -> str:
    options = topic.options
    lines = [f'Write a blog post of about {topic.words} words about "{topic.topic}".']
    if tag := options.get("language"):
        lines.append(f"Write it in {LANGUAGES.get(primary(tag), tag)} ({tag}).")
    if tone := options.get("tone"):
        lines.append(f"Its tone is {tone}.")
    if audience := options.get("audience"):
        lines.append(f"Its readers are {audience}.")
    if keywords := options.get("keywords"):
        lines.append(f"Use these keywords: {', '.join(keywords)}.")
    if instructions := options.get("instructions"):
        lines.append(instructions)
    if topic.sources:
        lines.append("Cite these sources as [1], [2] and so on:")
        texts = enumerate(topic.sources, start=1)
        lines += [f"[{number}] {source['title']}: {source['text']}" for number, source in texts]
    lines.append("Write in Markdown and begin with a title as a heading.")
    return "\n".join(lines)


class Baseline:
    """Asks, and keeps the answers, so that none is paid for twice."""

    def __init__(self, settings: Settings, url: str, model: str, cache: Path):
        self._settings, self._url, self._model, self._cache = settings, url, model, cache
        cache.mkdir(parents=True, exist_ok=True)

    def write(self, topic: Topic) -> dict:
        body = self._body(topic)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        file = self._cache / f"{topic.id}-{digest}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8")) | {"cached": True}
        try:
            found = self._ask(body, topic)
        except (OSError, Refused, ValueError, KeyError, IndexError) as error:
            return _nothing(f"{type(error).__name__}: {error}")
        file.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
        return found

    def _body(self, topic: Topic) -> dict:
        per_word = TOKENS_PER_WORD.get(topic.language, OTHER_TOKENS_PER_WORD)
        tokens = topic.words * per_word + SPARE_TOKENS
        is_openai = urlsplit(self._url).hostname == "api.openai.com"
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt(topic)}],
            **({"max_completion_tokens": tokens + THINKING_TOKENS} if is_openai else {"max_tokens": tokens}),
            **self._settings.extra_body,
        }
        # As for the worker, a null takes an argument out.
        return {name: value for name, value in body.items() if value is not None}

    def _ask(self, body: dict, topic: Topic) -> dict:
        started = time.monotonic()
        answer = self._call(body)
        seconds = time.monotonic() - started
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = re.sub(r"^\s*<think>.*?</think>", "", choice["message"]["content"] or "", flags=re.DOTALL)
        title, content = split_title(text)
        written = usage.get("completion_tokens", 0)
        was_cut = choice.get("finish_reason") == "length"
        return {
            "status": "cut" if was_cut else "succeeded",
            "error": None,
            "title": title,
            "content": content,
            "api_words": count_words(content, "en"),
            "warnings": [],
            "attempts": 1,
            "calls": 1,
            "input_tokens": usage.get("prompt_tokens", 0),
            "output_tokens": written,
            "seconds": seconds,
            "tokens_per_second": written / seconds,
        }

    def _call(self, body: dict) -> dict:
        url, timeout = f"{self._url}/chat/completions", self._settings.timeout
        for attempt in range(1, TRIES):
            try:
                return call("POST", url, body, self._headers(), timeout)
            except Refused as refusal:
                if refusal.status not in (429, 500, 502, 503, 529):
                    raise
                pause = refusal.retry_after or 2**attempt
            except OSError:
                pause = 2**attempt
            time.sleep(min(pause, 60))
        return call("POST", url, body, self._headers(), timeout)

    def _headers(self) -> dict[str, str]:
        agent = self._settings.agent
        headers = {}
        if key := agent.get("AGENT_API_KEY"):
            headers["Authorization"] = f"Bearer {key.strip()}"
        for header in filter(str.strip, agent.get("AGENT_HEADERS", "").split(";")):
            name, _, value = header.partition(":")
            headers[name.strip()] = value.strip()
        return headers


def _nothing(error: str) -> dict:
    counts = ("api_words", "calls", "attempts", "input_tokens", "output_tokens")
    counts += ("seconds", "tokens_per_second")
    texts = {"status": "failed", "error": error, "title": "", "content": "", "warnings": []}
    return texts | dict.fromkeys(counts, 0)


def split_title(answer: str) -> tuple[str, str]:
    """The title of an answer, and all the rest of it as it stands: talk before the title, too.

    The title is the line that the text begins with, if it is a heading, all bold, or called
    a title; or else the first heading of the first level."""
    lines = answer.strip().split("\n")
    first = next((i for i, line in enumerate(lines) if not _stands_before_title(line)), 0)
    title = _named_title(lines[first]) or _marked_title(lines[first])
    if not title:
        first = next((i for i, line in enumerate(lines[:8]) if line.startswith("# ")), -1)
        title = _marked_title(lines[first]) if first >= 0 else None
    if not title:
        return "", answer.strip()
    return title, "\n".join(lines[:first] + lines[first + 1 :]).strip()


def _stands_before_title(line: str) -> bool:
    is_talk = cues.is_greeting(line) and not _named_title(line)
    return not line.strip() or line.strip().startswith("```") or is_talk


def _named_title(line: str) -> str | None:
    names = r"[#*\s]*(?:blog )?(?:post )?(?:title|titel|titre|título|标题|タイトル)"
    named = re.fullmatch(rf"{names}[*\s]*[:：][*\s\"“]*(.+?)[\"”*\s]*", line, re.IGNORECASE)
    return named[1] if named else None


def _marked_title(line: str) -> str | None:
    block = next(iter(parse(line)), None)
    if block and (block.kind == "heading" or is_label(block)):
        return plain(block.text).strip()
    return None
