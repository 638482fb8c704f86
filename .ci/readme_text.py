"""Takes README.md apart: blocks, headings, tables, what stands in backquotes, anchors, links."""

# ruff: noqa: INP001

from __future__ import annotations

import json
import re
from typing import Iterator, NamedTuple


class Block(NamedTuple):
    """A fenced block: its language, its lines and the number of the first, and the text above it."""

    language: str
    first_line: int
    lines: list[str]
    above: str


class Row(NamedTuple):
    """A row of a table: the number of its line, and its cells."""

    line: int
    cells: list[str]


class Readme:
    """The text of README.md and its parts."""

    def __init__(self, text: str) -> None:
        """Take the text apart."""
        self.prose: list[str] = []  # all lines; those of blocks are empty
        self.parts: list[Block | str] = []  # blocks and the headings of level 2, in their order
        block, above = None, ""
        for number, line in enumerate(text.split("\n"), 1):
            fence = re.match(r"\s*```(.*)", line)
            self.prose.append("" if block or fence else line)
            if fence and block:
                block, above = None, ""
            elif fence:
                block = Block(fence[1].strip(), number + 1, [], above)
                self.parts.append(block)
            elif block:
                block.lines.append(line)
            elif line.startswith("#"):
                above = ""
                if line.startswith("## "):
                    self.parts.append(line)
            else:
                above += line + "\n"
        self.blocks = [part for part in self.parts if isinstance(part, Block)]

    def first_screen(self) -> str:
        """Return the prose above the first heading of level 2."""
        return "\n".join(self.prose).split("\n## ")[0]

    def tables(self) -> Iterator[tuple[str, list[Row]]]:
        """Yield each table: its header in lower case, such as "in | replace | by", and its rows."""
        rows: list[Row] = []
        for number, line in enumerate([*self.prose, ""], 1):
            if line.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line.strip())[1:-1]
                rows.append(Row(number, [cell.strip().replace(r"\|", "|") for cell in cells]))
            elif rows:
                yield " | ".join(rows[0].cells).lower(), rows[2:]
                rows = []

    def code_of_lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield what stands in backquotes in each line, with the line's number."""
        yield from ((number, code_in(line)) for number, line in enumerate(self.prose, 1) if code_in(line))

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield where the links lead to, with the number of their line; a bare address is one, too."""
        for number, line in enumerate(self.prose, 1):
            text = re.sub("`[^`]*`", "code", line)
            for target in re.findall(r"\]\(([^)]*)\)|(https?://[^\s)>]+)", text):
                yield number, "".join(target)

    def anchors(self) -> list[str]:
        """Return the anchors of all headings, as GitHub makes them."""
        found: list[str] = []
        for line in self.prose:
            if re.match("#+ ", line):
                title = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
                same = [anchor for anchor in found if re.fullmatch(re.escape(title) + r"(-\d+)?", anchor)]
                found.append(f"{title}-{len(same)}" if same else title)
        return found


def code_in(text: str) -> list[str]:
    """Return what stands in backquotes in a text."""
    return re.findall(r"`([^`]+)`", text)


def find_bad_json(lines: list[str]) -> str:
    """Return what is wrong with JSON texts, one a line or all lines one text; "" if nothing is."""
    for text in lines if lines[0].endswith("}") else ["\n".join(lines)]:
        try:
            json.loads(text)
        except ValueError as error:
            return f"{text}\n{error}"
    return ""


def find_quotations(text: str) -> tuple[list[str], str]:
    """Return what stands between the outer « and » of a text, and "" or why they are no pairs."""
    found, depth = [""], 0
    for char in text:
        depth -= char == "»"
        if depth > 0:
            found[-1] += char
        elif char == "»":
            found.append("")
        depth += char == "«"
    return found[:-1], f"{depth} « too many, the last: {found[-1]}" if depth else ""


def fold(text: str) -> str:
    """Return a text without backquotes, asterisks, line breaks and the markers of lists (1. or a.)."""
    return " ".join(re.sub(r"(?<!\S)(\d|[a-z])\.(?!\S)|[`*]", "", text).split())
