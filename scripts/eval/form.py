"""Whether a post is well-formed: the flaws that a reader sees at a glance."""

from dataclasses import dataclass

import cues
from language import is_complete, sentences
from markdown import Block, heading_key, is_label, parse, plain

MAX_TITLE = 120


@dataclass
class Post:
    title: str
    content: str

    def __post_init__(self) -> None:
        self.blocks = parse(unfenced(self.content))
        self.headings = [block for block in self.blocks if block.kind == "heading"]

    @property
    def top_level(self) -> int:
        return min((heading.level for heading in self.headings), default=2)

    def sections(self) -> list[tuple[str, list[Block]]]:
        """Headings of the top level with all below them; what stands before has none."""
        sections: list[tuple[str, list[Block]]] = [("", [])]
        for block in self.blocks:
            if block.kind == "heading" and block.level == self.top_level:
                sections.append((block.text, []))
            else:
                sections[-1][1].append(block)
        return sections[1:] if not sections[0][1] else sections

    def prose(self) -> list[str]:
        return [plain(text) for block in self.blocks for text in block.texts()]


def unfenced(content: str) -> str:
    """The text without a fence around the whole."""
    first, _, rest = content.strip().partition("\n")
    if first.strip().lower() not in ("```markdown", "```md"):
        return content
    return rest.rstrip().removesuffix("```").rstrip()


def flaws(post: Post, language: str, is_poem: bool = False) -> list[str]:
    """The names of all flaws; none if the post is well-formed."""
    if not any(map(str.isalnum, post.content)):
        return ["empty"]
    found = [
        *_title_flaws(post.title),
        *_text_flaws(post),
        *_heading_flaws(post),
        *_conclusion_flaws(post),
    ]
    if not is_poem:
        found += _ending_flaws(post, language)
    return found


def _title_flaws(title: str) -> list[str]:
    title = title.strip()
    if not title:
        return ["no title"]
    marked = title[0] in "#*_\"“`" or title[-1] in "*_:`" or "\n" in title
    return ["title marked"] * marked + ["title too long"] * (len(title) > MAX_TITLE)


def _text_flaws(post: Post) -> list[str]:
    outside = "\n".join([post.title, *(b.text for b in post.headings), *post.prose()])
    checks = {
        "fence open": any(not block.closed for block in post.blocks if block.kind == "code"),
        "fenced whole": unfenced(post.content) != post.content,
        "greeting": cues.is_greeting(_first_prose(post)),
        "farewell": any(cues.is_farewell(text) for text in post.prose()[-2:]),
        "about itself": any(cues.is_about_itself(text) for text in post.prose()),
        "template token": cues.has_template_token(outside),
    }
    return [name for name, is_there in checks.items() if is_there]


def _first_prose(post: Post) -> str:
    return next(iter(post.prose()), "")


def _heading_flaws(post: Post) -> list[str]:
    keys = [heading_key(heading.text) for heading in post.headings]
    checks = {
        "# in content": any(heading.level == 1 for heading in post.headings),
        "heading without body": _has_bare_heading(post.blocks),
        "heading twice": len(set(keys)) < len(keys),
        "title as heading": heading_key(post.title) in keys,
    }
    return [name for name, is_there in checks.items() if is_there]


def _has_bare_heading(blocks: list[Block]) -> bool:
    blocks = [block for block in blocks if block.kind != "rule"]
    for block, following in zip(blocks, [*blocks[1:], None]):
        if block.kind != "heading":
            continue
        if following is None or (following.kind == "heading" and following.level <= block.level):
            return True
    return False


def _ending_flaws(post: Post, language: str) -> list[str]:
    last = [block for block in post.blocks if block.kind != "rule"][-1]
    checks = {
        "unfinished": any(_is_cut(section[-1], language) for section in _runs(post.blocks)),
        "no ending": last.kind not in ("paragraph", "quote"),
    }
    return [name for name, is_there in checks.items() if is_there]


def _runs(blocks: list[Block]) -> list[list[Block]]:
    """The blocks between headings."""
    runs: list[list[Block]] = [[]]
    for block in blocks:
        if block.kind == "heading":
            runs.append([])
        elif block.kind != "rule":
            runs[-1].append(block)
    return [run for run in runs if run]


def _is_cut(block: Block, language: str) -> bool:
    """Whether the last block before a heading, or of the post, stops within a sentence."""
    if block.kind == "list":
        *others, last = [item.text for item in block.items]
        return (
            len(others) > 1
            and all(is_complete(text, language) for text in others)
            and not is_complete(last, language)
        ) or last.endswith(("**", ":")) and last.count("**") % 2 == 1
    if block.kind not in ("paragraph", "quote") or is_label(block):
        return False
    return not is_complete(block.text, language)


def _conclusion_flaws(post: Post) -> list[str]:
    """A conclusion in the middle: another section follows on it."""
    for heading, body in post.sections()[:-1]:
        paragraphs = (plain(block.text) for block in body if block.kind == "paragraph")
        if cues.is_conclusion_heading(heading) or any(map(cues.opens_conclusion, paragraphs)):
            return ["early conclusion"]
    return []


def has_introduction(post: Post) -> bool:
    """Whether prose stands before all else, or a section that is called so."""
    if not post.blocks:
        return False
    first = post.blocks[0]
    if first.kind == "heading":
        return cues.is_introduction_heading(first.text)
    return first.kind == "paragraph" and not is_label(first) and len(post.blocks) > 2


def has_conclusion(post: Post) -> bool:
    """A last section that is called so, or a last paragraph that says so, or one that comes
    back to what the title is about after something else."""
    sections = post.sections()
    if not sections:
        return False
    heading, body = sections[-1]
    last = plain(body[-1].text) if body and body[-1].kind in ("paragraph", "quote") else ""
    if cues.is_conclusion_heading(heading) or cues.may_open_conclusion(last):
        return True
    return len(body) > 1 and len(last) > 80 and cues.names_topic(post.title, last)


def reintroductions(post: Post, topic: str, language: str) -> float | None:
    """Of the sections after the first, those whose first sentence names the topic again, as
    if nothing stood before it. None if there is but one."""
    later = [body for heading, body in post.sections()[1:] if not cues.is_conclusion_heading(heading)]
    openings = [next((plain(text) for block in body for text in block.texts()), "") for body in later]
    firsts = [next(iter(sentences(opening, language)), "") for opening in openings]
    return sum(cues.names_topic(topic, first) for first in firsts) / len(firsts) if firsts else None
