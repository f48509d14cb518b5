"""Reads Markdown into blocks: as much of it as models write."""

import re
from dataclasses import dataclass, field

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^`]*)$")
HEADING = re.compile(r"^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$")
ITEM = re.compile(r"^(\s*)([-*+•]|\d{1,3}[.)])\s+(.*)$")
RULE = re.compile(r"^ {0,3}([-*_])(?:\s*\1){2,}\s*$")
TABLE_LINE = re.compile(r"^\s*\|.*\|\s*$")
UNDERLINE = re.compile(r"^ {0,3}(=+|-{2,})\s*$")


@dataclass
class Item:
    text: str
    indent: int = 0
    number: int | None = None


@dataclass
class Block:
    """`kind` is heading, paragraph, list, code, quote, table or rule."""

    kind: str
    text: str = ""
    level: int = 0  # of a heading
    items: list[Item] = field(default_factory=list)  # of a list
    closed: bool = True  # of code: whether its fence is

    def texts(self) -> list[str]:
        """The prose in it, in pieces that stand alone."""
        if self.kind == "list":
            return [item.text for item in self.items]
        if self.kind == "table":
            return [cell for row in rows(self) for cell in row if cell]
        return [self.text] if self.kind in ("paragraph", "quote") else []


def parse(text: str) -> list[Block]:
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    blocks: list[Block] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if fence := FENCE.match(line):
            block, index = _code(lines, index, fence)
            blocks.append(block)
            continue
        index += 1
        _add_line(blocks, line, after_blank=index > 1 and not lines[index - 2].strip())
    return [block for block in blocks if block.kind != "blank"]


def _code(lines: list[str], start: int, fence: re.Match) -> tuple[Block, int]:
    indent, mark, language = fence.groups()
    code: list[str] = []
    for index in range(start + 1, len(lines)):
        line = lines[index].strip()
        if line.startswith(mark) and not line.strip(mark[0]):
            return Block("code", "\n".join(code)), index + 1
        code.append(lines[index].removeprefix(indent))
    return Block("code", "\n".join(code), closed=False), len(lines)


def _add_line(blocks: list[Block], line: str, after_blank: bool) -> None:
    last = blocks[-1] if blocks else Block("blank")
    if not line.strip():
        # Items may have blank lines between them; all else ends with one.
        if last.kind not in ("list", "blank"):
            blocks.append(Block("blank"))
    elif heading := HEADING.match(line):
        blocks.append(Block("heading", (heading[2] or "").strip(), level=len(heading[1])))
    elif last.kind == "paragraph" and "\n" not in last.text and UNDERLINE.match(line):
        last.kind, last.level = "heading", 1 if "=" in line else 2
    elif RULE.match(line):
        blocks.append(Block("rule"))
    elif item := ITEM.match(line):
        _add_item(blocks, item)
    elif line.lstrip().startswith(">"):
        _extend(blocks, "quote", line.lstrip()[1:].strip())
    elif TABLE_LINE.match(line):
        _extend(blocks, "table", line.strip())
    elif last.kind == "list" and (line.startswith(" ") or not after_blank):
        last.items[-1].text += f"\n{line.strip()}"
    else:
        _extend(blocks, "paragraph", line.strip())


def _add_item(blocks: list[Block], item: re.Match) -> None:
    indent, mark, text = item.groups()
    number = int(mark[:-1]) if mark[:-1].isdigit() else None
    if not blocks or blocks[-1].kind != "list":
        blocks.append(Block("list"))
    blocks[-1].items.append(Item(text.strip(), len(indent), number))


def _extend(blocks: list[Block], kind: str, line: str) -> None:
    if blocks and blocks[-1].kind == kind:
        blocks[-1].text += f"\n{line}"
    else:
        blocks.append(Block(kind, line))


def rows(table: Block) -> list[list[str]]:
    """The cells of a table, without the line under its head."""
    lines = [line.strip().strip("|") for line in table.text.split("\n")]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def plain(text: str) -> str:
    """Inline text without its marks."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<(https?://[^>]+)>", r"\1", text)
    text = re.sub(r"`([^`]*)`", r"\1", text)
    text = re.sub(r"(\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    return re.sub(r"(?<!\w)([*_])(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", text, flags=re.DOTALL)


def is_label(block: Block) -> bool:
    """Whether a paragraph is one bold line, as models write in place of a heading."""
    return block.kind == "paragraph" and bool(
        re.fullmatch(r"(\*\*|__)[^*_\n]{1,120}\1:?", block.text)
    )


def heading_key(heading: str) -> str:
    """What two headings have in common that are the same to a reader."""
    words = re.findall(r"\w+", re.sub(r"^\s*\d+[.):]\s*", "", plain(heading)).casefold())
    return " ".join(words)
