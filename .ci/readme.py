"""Checks that README.md is true: `readme.py PROJECT WORK SPELLER`.

- A console block is played: its commands must print what is below them. If a line there begins with ^C, the
  command stays in the first terminal, and the blocks that follow are typed in a second one. Ctrl+C is pressed
  at the next such command or section ("## ..."). In other sections, a server runs unseen.
- A python block runs as the file named last above it. In a json or mermaid block, a response answers the line
  above it. Each line of another block is checked as `code` is.
- `Code` is a file, a name in the scripts or in Python, a part of a script or a block, a part of a message
  ("..." is any text), a Python command that works, or a text of words.txt. `NAME = number` also sets this
  constant in the scripts for the rest of the section's sessions.
- A table "file | old line | new line" moves the log modules into log/, where all tests must pass. After a
  table "old line | new line", the scripts must still start. A table "limit | ..." names constants.
- A number of two or more digits is in one of the four modules or in words.txt, or stands in the text twice.
- A link leads to a heading, a file, or an address in words.txt. A word is in a dictionary or in words.txt.
"""
# ruff: noqa: INP001

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Callable
from urllib.parse import unquote

import pexpect
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node
from mdit_py_plugins.anchors import anchors_plugin

PYTHON = str(Path(sys.executable).resolve())  # without the tools of the virtual environment
LIMIT = 60  # seconds for a command
MODULES = ("client", "server", "client_log_config", "server_log_config")
PLACES = ("", "builtins.", "socket.socket.", "logging.handlers.", *(f"{name}." for name in MODULES))
TEXTS = re.split(", |\n", Path(__file__).with_name("words.txt").read_text("utf-8"))
COMMAND = re.compile(r"\$ ((?:python|cat) .*)\n((?:(?!\$ ).*\n)*)")  # other programs may not be there
NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,:]\d+)*")
WORD = re.compile(r"[^\W\d_]+")
HOLE = re.compile(r"\{[^{}]*\}|%[-\d.]*[a-z]")  # in a message of the programs
VALUE = r"(?:\.\.\.|\b\d[\d.]*)(?: port \d+)?|b?'[^ ]*?'"  # what fills it in README.md
VARIABLE = {  # what differs from run to run
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}": "<date-time>",
    r'"time": ([\d.]+|\.\.\.)': '"time": <time>',
    r"\bport [1-6]\d{4}\b": "port <from the system>",
    r"server\.\d{4}-\d\d-\d\d": "server.<date>",
    r" in [\d.]+s\n": " in <seconds>\n",
    r"OK \(skipped=\d+\)": "OK",
}
RESPOND = """import json, sys; from server import *
try: print(json.dumps(process_client_message(take_message(sys.argv[1].encode())[0])))
except ProtocolError as error: print(json.dumps(create_error(400, str(error))))"""


def normalise(text: str) -> str:
    """Replace what differs from run to run."""
    for pattern, replacement in VARIABLE.items():
        text = re.sub(pattern, replacement, text)
    return text


def report(what: str, faults: list[str]) -> None:
    """Print a check, which has passed if there is no fault."""
    print("\n    ".join([f"{'FAILED' if faults else 'passed'}: {what}", *faults]), flush=True)  # noqa: T201


def compare(what: str, expected: str, shown: str) -> None:
    """Check that a terminal shows what README.md does; a line "..." stands for any lines."""
    pattern = re.escape(normalise(expected)).replace("\\.\\.\\.\\\n", "(?:.*\n)*")
    report(what, [] if re.fullmatch(pattern, normalise(shown)) else ["it prints:", *shown.splitlines()])


def run(folder: Path, *words: str, program: str = PYTHON, text: str = "") -> tuple[list[str], str]:
    """Run Python in a folder; return the end of what it prints if it fails, and all that it prints."""
    command = [*program.split(), *words]
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    printed = done.stdout + done.stderr
    return printed.splitlines()[-9:] if done.returncode or "\nRan 0 tests" in printed else [], printed


def find(name: str) -> object:
    """Return the object with a name such as "Server.finish" or "print()"; None if there is none."""
    if re.fullmatch(r"[A-Za-z_][\w.]*(\(.*\))?", name):
        for place in PLACES:
            with contextlib.suppress(ImportError, AttributeError, ValueError):
                return pkgutil.resolve_name(place + name.partition("(")[0])
    return None


class Player:
    """Plays the console blocks, those of each section in a fresh copy of the project."""

    def __init__(self, project: Path, folder: Path) -> None:
        """Prepare to play in a folder, where the project is copied to."""
        self.project, self.folder = project, folder
        self.first: tuple[pexpect.spawn[str], str, str] | None = None  # what runs in the first terminal

    def begin_section(self) -> None:
        """Stop what is running, and make a fresh copy."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.project, self.folder)

    def set_constant(self, line: str) -> None:
        """Change the line that sets a constant, in each script that has one."""
        self.stop()
        old_line = re.compile(rf"^{line.partition(' ')[0]} = .*", re.MULTILINE)
        for path in self.folder.glob("*.py"):
            path.write_text(old_line.sub(line, path.read_text("utf-8")), "utf-8")

    def play(self, where: str, block: str) -> None:
        """Play a block."""
        report(f"{where}: console block", COMMAND.sub("", block).splitlines())  # what is no command
        for command, output in COMMAND.findall(block):
            if "^C" in output:
                self.start(f"{where}: $ {command}", command, output)
                continue
            if not self.first:
                self.start(f"{where}: a server runs unseen", "python server.py", "...\n")
            compare(f"{where}: $ {command}", output, self.end(self.spawn(command)))

    def spawn(self, command: str) -> pexpect.spawn[str]:
        """Type a command in a new terminal, where `python` is the Python that runs this check."""
        text = f'python() {{ "{PYTHON}" "$@"; }}\n{command}'
        terminal = pexpect.spawn("bash", ["-c", text], LIMIT, cwd=self.folder, encoding="utf-8")
        terminal.setwinsize(25, 1000)
        terminal.logfile_read = io.StringIO()
        return terminal

    def end(self, terminal: pexpect.spawn[str]) -> str:
        """Wait for the command's end, and return what the terminal shows."""
        ended = terminal.expect([pexpect.TIMEOUT, pexpect.EOF])
        terminal.close(force=True)
        shown = str(terminal.logfile_read.getvalue()).replace("\r\n", "\n")  # type: ignore[union-attr]
        return shown if ended else f"{shown}(it did not end in {LIMIT} s)\n"

    def start(self, what: str, command: str, output: str) -> None:
        """Start a command in the first terminal, and wait for the lines that it prints before Ctrl+C."""
        self.stop()
        self.first = self.spawn(command), what, output
        lines = output.partition("^C")[0].count("\n")
        self.first[0].expect([pexpect.TIMEOUT, pexpect.EOF, f"(?:[^\n]*\n){{{lines}}}"])

    def stop(self) -> None:
        """Press Ctrl+C in the first terminal, if it is in use."""
        if self.first:
            (terminal, what, output), self.first = self.first, None
            terminal.sendintr()
            compare(what, output, self.end(terminal))


def parts(node: Node, kind: str) -> list[Node]:
    """Return the parts of a kind, such as "table" or "code_inline" (which stands between backquotes)."""
    return [part for part in node.walk() if part.type == kind]


def line_of(node: Node) -> str:
    """Return where a part of README.md stands."""
    while not node.map and node.parent:
        node = node.parent
    return f"line {node.map[0] + 1 if node.map else 1}"


class Readme:
    """README.md, and a copy of the project in a folder to compare it with."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Read README.md and the scripts."""
        self.folder, self.work = folder, work
        parser = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)
        self.root = Node(parser.parse((folder / "README.md").read_text("utf-8")))
        self.blocks = parts(self.root, "fence")
        self.known = set(TEXTS)
        self.modules = "\n".join((folder / f"{name}.py").read_text("utf-8") for name in MODULES)
        literals = re.findall(r'"((?:[^"\\\n]|\\.)+)"', self.modules + inspect.getsource(json.decoder))
        self.messages = [HOLE.sub("\0", text) for text in literals]
        code = [path.read_text("utf-8") for path in folder.glob("*.py")]
        code += [block.content for block in self.blocks]
        code += [run(folder, *words.split())[1] for words in ("client.py", "client.py -h", "server.py -h")]
        self.text = normalise(" ".join(" ".join(code).split()))

    @functools.lru_cache(None)  # noqa: B019 - there is one README.md
    def is_true(self, code: str) -> bool:
        """Return whether what stands between backquotes is known, there, or works."""
        return (
            code in self.known
            or find(re.sub(r" = [\d.]+$", "", code)) is not None
            or re.search(rf"(?<!\w){re.escape(normalise(code))}(?!\w)", self.text) is not None
            or (self.folder / code.strip("/")[:99]).exists()
            or self.is_message(code)
            or self.works(code)
        )

    def is_message(self, code: str) -> bool:
        """Return whether it is a part of a message, with values, texts or known words in its holes."""
        texts = sorted((text for text in [*self.messages, *TEXTS] if " " in text), key=len, reverse=True)
        values = "|".join([VALUE, *map(re.escape, texts)])
        pattern = ".*".join(re.escape(piece) for piece in re.split(values, code) if piece.strip())
        unknown = set(WORD.findall(code)).difference(WORD.findall(" ".join([self.text, *texts])))
        return pattern != "" and not unknown and any(re.search(pattern, text) for text in self.messages)

    def works(self, command: str) -> bool:
        """Return whether a command that calls Python, or an option of one of the two scripts, works."""
        first, *words = re.sub(r"^(python3|py) ", "python ", command).split()
        if first == "python" and words[0] in ("client.py", "server.py"):
            code = f"import {words[0][:-3]} as script; script.parse_args(None)"
            return not run(self.folder, "-c", code, *words[1:])[0]
        if first[0] == "-":
            return self.works(f"python server.py {command}") or self.works(f"python client.py addr {command}")
        return first == "python" and not run(self.folder, *words)[0]

    def check_blocks(self) -> None:
        """Play the sessions, run the examples, and check the responses."""
        player, name = Player(self.folder, self.work / "messenger"), ""
        player.begin_section()
        for node in self.root.walk():
            kind = node.info if node.type == "fence" else node.type
            if kind == "heading" and node.tag == "h2":
                player.begin_section()
            elif kind == "code_inline":
                name = (re.findall(r"\w+\.py$", node.content) or [name])[0]
                if re.fullmatch(r"[A-Z_]{3,} = [\d.]+", node.content):
                    player.set_constant(node.content)
            elif kind == "console":
                player.play(line_of(node), node.content)
            elif kind == "python":
                (self.folder / name).write_text(node.content, "utf-8")
                report(f"{line_of(node)}: python {name}", run(self.folder, name)[0])
            elif kind in ("json", "mermaid"):
                report(f"{line_of(node)}: responses", self.wrong_responses(node.content.splitlines()))
        player.stop()

    def wrong_responses(self, lines: list[str]) -> list[str]:
        """Return the responses that are not what the server responds to the message above."""
        expected, faults = "", []
        for line in lines:
            text = re.sub(r"^.*->>\w+: ", "", line)
            if '"response"' not in text:
                expected = run(self.folder, "-c", RESPOND, text.replace("...", "0"))[1].strip()
            elif normalise(text) != normalise(expected):
                faults.append(f"not {text} but {expected}")
        return faults

    def check_tables(self) -> None:
        """Check the tables of limits and of lines to replace."""
        for table in parts(self.root, "table"):
            titles, *rows = parts(table, "tr")
            header = " | ".join(text.content for text in parts(titles, "text"))
            if re.search(r"(?i)(old|было).*(new|стало)", header):
                lines = [[code.content for code in parts(row, "code_inline")] for row in rows]
                faults = self.replace(self.work / line_of(table), lines)
                report(f"{line_of(table)}: table {header}", faults)
            elif re.match("(?i)limit", header):
                faults = [fault for row in rows for fault in self.wrong_limits(row)]
                report(f"{line_of(table)}: table {header}", faults)

    def wrong_limits(self, row: Node) -> list[str]:
        """Return the numbers in a row that are not in the lines that set the constants which it names."""
        names = "|".join(code.content.rpartition(".")[2] for code in parts(row, "code_inline"))
        values = re.findall(rf"^ *(?:{names}) = ([^#\n]*)", self.modules, re.MULTILINE)
        numbers = NUMBER.findall(" ".join(text.content for text in parts(row, "text")))
        return [f"{line_of(row)}: {wrong}" for wrong in numbers if wrong not in NUMBER.findall(f"{values}")]

    def replace(self, folder: Path, rows: list[list[str]]) -> list[str]:
        """Replace lines as a table says, in a copy of the project; return what goes wrong."""
        shutil.copytree(self.folder, folder)
        test, faults = "import client, server", []
        if len(rows[0]) > 2:  # noqa: PLR2004 - columns
            test = "import unittest; unittest.main(None)"
            for path in [*folder.glob("*_log_config.py")]:
                (folder / "log").mkdir(exist_ok=True)
                path.rename(folder / "log" / path.name)
        for *names, old, new in rows:
            texts = {path: path.read_text("utf-8") for path in folder.rglob("".join(names) or "*.py")}
            for path, text in texts.items():
                path.write_text(text.replace(f"\n{old}", f"\n{new}"), "utf-8")
            faults += [] if any(f"\n{old}" in text for text in texts.values()) else [f"no such line: {old}"]
            self.known.update((old, new))
        return faults + run(folder, "-c", test)[0]

    def check_text(self, speller: str) -> None:
        """Check quotations, numbers, links and words."""

        def check(what: str, places: list[tuple[str, str]], is_right: Callable[[str], bool]) -> None:
            report(what, [f"{place}: {text}" for place, text in places if not is_right(text)])

        others = [part for part in self.blocks if part.info not in ("console", "python", "json", "mermaid")]
        codes = [(line_of(block), line) for block in others for line in block.content.splitlines()]
        codes += [(line_of(code), code.content) for code in parts(self.root, "code_inline")]
        check("code", codes, self.is_true)
        texts = [(line_of(text), text.content) for text in parts(self.root, "text")]
        numbers = [(line, found) for line, text in texts + codes for found in NUMBER.findall(normalise(text))]
        known = NUMBER.findall(self.modules + " ".join(TEXTS))
        counts = Counter([*known, *known, *(number for _, number in numbers)])
        check("numbers", numbers, lambda number: len(number) == 1 or counts[number] > 1)
        targets = {f"#{heading.attrs['id']}" for heading in parts(self.root, "heading")}.union(TEXTS)
        links = [(line_of(link), unquote(str(link.attrs["href"]))) for link in parts(self.root, "link")]
        check("links", links, lambda target: target in targets or (self.folder / target).exists())
        if speller:
            texts += [(line_of(block), block.content) for block in self.blocks if block.info != "console"]
            words = [(line, word) for line, text in texts for word in WORD.findall(text)]
            _, printed = run(self.folder, program=speller, text="\n".join(word for _, word in words))
            unknown = set(printed.split()).difference(WORD.findall(" ".join(TEXTS)))
            check("words", words, lambda word: word not in unknown)


if __name__ == "__main__":
    project, work, speller = sys.argv[1:]
    sys.path.insert(0, project)
    readme = Readme(Path(project), Path(work))
    readme.check_tables()
    readme.check_blocks()
    readme.check_text(speller)
