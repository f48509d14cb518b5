"""Makes HTML of Markdown. Nothing of the text gets through but its words: no tags, no
images, and links only to the web."""

import re
from html import escape

from markdown import Block, Item, parse, rows

SAFE_LINK = re.compile(r"(https?://|mailto:)[^\s\"'<>]+$", re.IGNORECASE)


def render(text: str) -> str:
    return "\n".join(_block(block) for block in parse(text))


def _block(block: Block) -> str:
    match block.kind:
        case "heading":
            # The post's own title is the first level.
            level = min(max(block.level, 2), 6)
            return f"<h{level}>{inline(block.text)}</h{level}>"
        case "code":
            return f"<pre><code>{escape(block.text)}</code></pre>"
        case "quote":
            return f"<blockquote><p>{inline(block.text)}</p></blockquote>"
        case "list":
            return _list(block.items)
        case "table":
            return _table(block)
        case "rule":
            return "<hr>"
    return f"<p>{inline(block.text)}</p>"


def _list(items: list[Item]) -> str:
    """Items with a larger indent are a list within the item before them."""
    indent, parts, index = items[0].indent, [], 0
    while index < len(items):
        end = index + 1
        while end < len(items) and items[end].indent > indent:
            end += 1
        nested = _list(items[index + 1 : end]) if end > index + 1 else ""
        parts.append(f"<li>{inline(items[index].text)}{nested}</li>")
        index = end
    number = items[0].number
    tag, start = ("ul", "") if number is None else ("ol", f' start="{number}"')
    return f"<{tag}{start}>{''.join(parts)}</{tag}>"


def _table(block: Block) -> str:
    head, *body = rows(block) or [[]]
    cells = lambda row, tag: "".join(f"<{tag}>{inline(cell)}</{tag}>" for cell in row)
    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in body)
    return f"<table><tr>{cells(head, 'th')}</tr>{lines}</table>"


def inline(text: str) -> str:
    """Code and links are put aside, so that marks in them are left alone."""
    aside: list[str] = []

    def put_aside(html: str) -> str:
        aside.append(html)
        return f"\0{len(aside) - 1}\0"

    def link(found: re.Match) -> str:
        words, address = found[1], found[2].strip()
        if not SAFE_LINK.match(address):
            return found[0]
        return put_aside(f'<a href="{escape(address)}" rel="noreferrer">{escape(words)}</a>')

    def code(found: re.Match) -> str:
        return put_aside(f"<code>{escape(found[2].strip())}</code>")

    text = text.replace("\0", "")
    text = re.sub(r"(`+)(.+?)\1", code, text, flags=re.S)
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"[image: \1]", text)
    text = re.sub(r"\[([^\[\]]+)\]\(([^()]*)\)", link, text)
    text = escape(text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"<strong>\2</strong>", text, flags=re.S)
    text = re.sub(r"(?<!\w)([*_])(?=\S)(.+?)(?<=\S)\1(?!\w)", r"<em>\2</em>", text, flags=re.S)
    text = re.sub(r"( {2,}|\\)\n", "<br>", text)
    # What was put aside may have been put aside within something else.
    while "\0" in text:
        text = re.sub("\0(\\d+)\0", lambda m: aside[int(m[1])], text)
    return text
