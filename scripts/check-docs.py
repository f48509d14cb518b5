#!/usr/bin/env python3
"""Checks that the Markdown pages name only what exists: links and anchors, paths, `make` targets,
programs in `sh` blocks, and names in the code. Also limits the README and the glossary. A part of
`make rules`.

In a code span, `name()` is a function, `CamelCase` a type and `UPPER_CASE` a setting or a constant.
A ```text block may be a tree of folders and files.
"""

import os
import re
import sys
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {".git", ".models", ".venv", "data", "node_modules", "target", "__pycache__"}
SOURCES = {".rs", ".py", ".sh", ".toml", ".yml", ".yaml", ".html", ".js", ".example", ""}

MAX_README_LINES = 150
MAX_GLOSSARY_ENTRIES = 25

# Old entries may name what is gone; only the links are checked.
HISTORY = {"CHANGELOG.md"}
# Examples of files that the reader of a guide creates.
EXAMPLES = {"api/src/routes/stats.rs", "api/tests/it/stats.rs"}
# Names that are declared in libraries.
FOREIGN = {"IntoParams", "OTEL_SERVICE_NAME"}

PROGRAMS = {
    *("cargo", "cat", "cd", "curl", "docker", "git", "make", "python3", "sudo", "sudoedit", "umask"),
    *("createdb", "pg_dump", "pg_restore"),
}
SHELL_WORDS = {"", "do", "done", "else", "fi", "for", "if", "print", "then", "while"}
BUILT = re.compile(r"target/(debug|release)/(api|worker|multicall)$")

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def ours(suffixes):
    """Our files of these kinds, by their paths from the root."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(set(folders) - NOT_OURS)
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix in suffixes:
                yield path.relative_to(ROOT)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


class Code:
    """What the sources declare."""

    def __init__(self):
        texts = {path: read(path) for path in ours(SOURCES)}
        whole = "\n".join(texts.values())
        rust = "\n".join(text for path, text in texts.items() if path.suffix == ".rs")
        self.functions = set(re.findall(r"\b(?:fn|def|macro_rules!) (\w+)", whole))
        self.types = set(re.findall(r"\b(?:struct|enum|trait|type) (\w+)", rust))
        self.constants = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", whole))
        self.targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
        self.folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - NOT_OURS


class Page:
    def __init__(self, path):
        self.path = path
        self.text = read(path)
        self.faults = []

    @cached_property
    def prose(self):
        """The text with its code blocks blanked, so that positions stay the same."""
        return FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), self.text)

    @cached_property
    def anchors(self):
        """The anchors of the headings, as GitHub makes them."""
        found = {}
        for heading in re.findall(r"^#+ +(.+?) *$", self.prose, re.M):
            words = re.sub(r"[^\w\- ]", "", LINK.sub("", heading) or heading).lower().replace(" ", "-")
            found[words] = found.get(words, -1) + 1
        return {name if n == 0 else f"{name}-{n}" for name, last in found.items() for n in range(last + 1)}

    def fault(self, position, text):
        line = self.text.count("\n", 0, position) + 1
        self.faults.append(f"{self.path}:{line}: {text}")

    def check(self, code, pages):
        self.check_links(pages)
        self.check_glossary()
        if self.path.name in HISTORY:
            return
        for block in FENCE.finditer(self.text):
            kind, body, start = block[2], block[3], block.start(3)
            if kind == "sh":
                self.check_commands(body, start, code)
            if kind == "text":
                self.check_tree(body, start)
            elif kind != "rust":
                self.check_paths(body, start, code)
        for span in re.finditer(r"`([^`\n]+)`", self.prose):
            self.check_paths(span[1], span.start(), code)
            self.check_targets(span[1], span.start(), code)
            self.check_name(span[1], span.start(), code)

    def check_links(self, pages):
        for link in LINK.finditer(self.prose):
            address, _, anchor = link[1].partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            target = Path(os.path.normpath(self.path.parent / address)) if address else self.path
            if not (ROOT / target).exists():
                self.fault(link.start(), f"the link to {address} is broken")
            elif anchor and anchor not in (pages[target].anchors if target in pages else {anchor}):
                self.fault(link.start(), f"{target} has no heading #{anchor}")

    def check_glossary(self):
        for section in re.finditer(r"^(#+) Glossary\n(.*?)(?=^#|\Z)", self.prose, re.M | re.S):
            entries = len(re.findall(r"^\|", section[2], re.M)) - 2
            if entries > MAX_GLOSSARY_ENTRIES:
                self.fault(section.start(), f"the glossary has {entries} entries, more than {MAX_GLOSSARY_ENTRIES}")

    def check_paths(self, text, position, code):
        names = "|".join(map(re.escape, code.folders))
        for path in re.finditer(rf"(?<![\w/.:-])(?:{names})/[\w./-]*\w/?", text):
            after = text[path.end() :]
            if after[:1] and after[0] in "*…<{$" or "YYYY" in path[0] or path[0] in EXAMPLES:
                continue
            if not (ROOT / path[0]).exists():
                self.fault(position + path.start(), f"{path[0]} does not exist")

    def check_tree(self, text, position):
        """Names are separated by two spaces; an indented line is inside the last folder above it."""
        if not re.search(r"^\w[\w/]*/( |$)", text, re.M):
            return
        above = []
        for line in text.splitlines(keepends=True):
            indent = len(line) - len(line.lstrip())
            above = [(depth, folder) for depth, folder in above if depth < indent]
            base = above[-1][1] if above else ""
            for name in re.split(r"  +", line.strip()):
                if not re.fullmatch(r"[\w./-]+(\.\w+|/)", name):
                    continue
                if not (ROOT / base / name).exists():
                    self.fault(position, f"{base}{name} in the tree does not exist")
                if name.endswith("/"):
                    above = [entry for entry in above if entry[0] < indent] + [(indent, base + name)]
            position += len(line)

    def check_targets(self, text, position, code):
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", text):
            if target not in code.targets:
                self.fault(position, f"make has no target {target}")

    def check_name(self, text, position, code):
        known = True
        if call := re.fullmatch(r"(?:\w+::)*(\w+)\(\)", text):
            known = call[1] in code.functions
        elif re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z0-9]+)+", text):
            known = text in code.types
        elif re.fullmatch(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+", text):
            known = text in code.constants
        if not known and text not in FOREIGN:
            self.fault(position, f"{text} is not declared anywhere")

    def check_commands(self, text, position, code):
        self.check_targets(text, position, code)
        functions = set(re.findall(r"^(\w+)\(\)", self.text, re.M))
        for command in commands(text):
            program = command.split(" ")[0]
            if program in PROGRAMS | SHELL_WORDS | functions or BUILT.match(program):
                continue
            if "/" not in program or not (ROOT / program).exists():
                self.fault(position, f"the program {program} is not known")


def commands(text):
    """The commands of a shell script, each from its program on, without the contents of strings."""
    text = re.sub(r"<<-?'?(\w+)'?([^\n]*)\n.*?^\1$", r"\2", text, flags=re.M | re.S)
    text = re.sub(r"'[^']*'", "S", text.replace("\\\n", " "))
    text = re.sub(r"(^|\s)#.*", r"\1", text)
    inner = re.compile(r"\$\(([^()]*)\)")
    while found := inner.search(text):
        text = f"{text[: found.start()]}S{text[found.end() :]}\n{found[1]}"
    text = re.sub(r'"(\\.|[^"\\])*"', "S", text)
    for command in re.split(r"[\n;|&(){}]+", text):
        yield re.sub(r"^\s*(\w+=\S*\s*)*", "", command).strip()


def main():
    code = Code()
    pages = {path: Page(path) for path in ours({".md"})}
    for page in pages.values():
        page.check(code, pages)
    faults = [fault for page in pages.values() for fault in page.faults]
    lines = pages[Path("README.md")].text.count("\n")
    if lines > MAX_README_LINES:
        faults.append(f"README.md has {lines} lines, more than {MAX_README_LINES}")
    if faults:
        sys.exit("\n".join(faults))
    print(f"Docs hold: {len(pages)} pages name only what exists.")


if __name__ == "__main__":
    main()
