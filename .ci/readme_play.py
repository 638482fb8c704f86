"""Plays the console blocks of README.md: types their commands and compares what is printed.

A command whose printed output has a line that begins with ^C is ended by Ctrl+C. A server of that kind has
the first terminal to itself and runs on while the second terminal plays what follows; Ctrl+C is pressed
before the next command of its own block, before the next server of that kind, before a command that needs
it stopped (STOP_BEFORE), at the next heading of level 2 and at the end.
"""
# ruff: noqa: INP001, S603, S607

from __future__ import annotations

import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, NamedTuple

FOLDER = "/home/student/messenger"  # what README.md calls the project's folder
COMMAND_LIMIT = 90  # seconds; the server gives a message up after 60
LINE_LIMIT = 10  # seconds to wait for a line, or for the end after Ctrl+C
LONGEST_DIFFERENCE = 40  # lines
SERVER = re.compile(r"python3? .*\bserver\.py\b")
STOP_BEFORE = re.compile(r"python3? -m unittest|cat .*\blog/(server|\*)")

VARIABLE = (  # what differs from run to run, and what it is replaced by before comparing
    (re.compile(r"(?<!\d)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\b"), "<date-time>"),
    (re.compile(r'("time": )\d+(\.\d+)?'), r"\1<time>"),
    (re.compile(r"\bport [1-6]\d{4}\b"), "port <chosen by the system>"),
    (re.compile(r"\bserver\.\d{4}-\d\d-\d\d\b"), "server.<date>"),
    (re.compile(r"\b(Ran \d+ tests? in) \d+\.\d+s"), r"\1 <seconds>"),
    (re.compile(r" \(skipped=\d+\)|, skipped=\d+"), ""),
)


class Terminal:
    """A terminal in which a command runs; what it prints is collected line by line."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        """Start `command` in `folder`."""
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,  # so that Ctrl+C reaches all that the command has started, and only that
        )
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def wait_for_lines(self, count: int) -> None:
        """Wait until `count` lines are printed, but not beyond the command's end or LINE_LIMIT."""
        deadline = time.monotonic() + LINE_LIMIT
        while len(self.lines) < count and self.reader.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def press_ctrl_c(self) -> None:
        """Press Ctrl+C unless the command has ended, and wait for its end; the terminal shows ^C."""
        if self.process.poll() is not None:
            return
        printed = len(self.lines)
        os.killpg(self.process.pid, signal.SIGINT)
        self.wait_for_end(LINE_LIMIT)
        self.lines[printed : printed + 1] = ["^C" + "".join(self.lines[printed : printed + 1])]

    def wait_for_end(self, limit: float) -> None:
        """Wait until the command and all that holds its output has ended; after `limit` seconds kill it."""
        self.reader.join(limit)
        if self.reader.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.reader.join(LINE_LIMIT)
            self.lines.append(f"(it did not end within {limit} s)\n")
        self.process.wait()


class Command(NamedTuple):
    """A command of a console block, and the lines that README.md prints below it."""

    block: int  # the line of README.md where its block begins
    line: int
    text: str
    output: list[str]

    @property
    def lines_before_ctrl_c(self) -> int | None:
        """How many lines are printed before Ctrl+C; None if it is not pressed."""
        return next((number for number, line in enumerate(self.output) if line.startswith("^C")), None)

    @property
    def stays(self) -> bool:
        """Whether this is a server that runs on while the second terminal plays what follows."""
        return bool(SERVER.match(self.text)) and self.lines_before_ctrl_c is not None


class Player:
    """Plays commands in a copy of the project and reports on each."""

    def __init__(self, files: Path, work: Path, report: Callable[[str, str], None]) -> None:
        """Prepare to play in the empty folder `work`, with copies of the folder `files`."""
        self.files, self.report = files, report
        self.folder = work / "messenger"
        self.environment = make_environment(work / "bin")
        self.first: tuple[Command, Terminal] | None = None  # the server in the first terminal

    def start_section(self) -> None:
        """Begin anew in a fresh copy of the project."""
        self.stop_server()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.files, self.folder)

    def play(self, command: Command) -> None:
        """Type a command and compare what it prints; with a server that stays, do so when it is stopped."""
        if self.first and (
            command.stays or command.block == self.first[0].block or STOP_BEFORE.match(command.text)
        ):
            self.stop_server()
        scripts = self.scripts()
        terminal = Terminal(command.text, self.folder, self.environment)
        if command.stays:
            self.first = command, terminal
            terminal.wait_for_lines(1)
            return
        if command.lines_before_ctrl_c is not None:
            terminal.wait_for_lines(command.lines_before_ctrl_c or 1)
            terminal.press_ctrl_c()
        terminal.wait_for_end(COMMAND_LIMIT)
        if command.text.startswith("sed ") and self.scripts() == scripts:
            terminal.lines.append("(it has changed nothing)\n")
        self.compare(command, terminal)

    def scripts(self) -> list[bytes]:
        """Return what the scripts are now."""
        return [path.read_bytes() for path in sorted(self.folder.glob("*.py"))]

    def stop_server(self) -> None:
        """Press Ctrl+C in the first terminal, if a server runs there, and compare what it has printed."""
        if not self.first:
            return
        command, terminal = self.first
        self.first = None
        terminal.wait_for_lines(command.lines_before_ctrl_c or 0)
        terminal.press_ctrl_c()
        terminal.wait_for_end(LINE_LIMIT)
        self.compare(command, terminal)

    def compare(self, command: Command, terminal: Terminal) -> None:
        """Report whether the terminal shows what README.md prints."""
        shown = "".join(terminal.lines).replace(str(self.folder), FOLDER)
        if shown and not shown.endswith(("\n", "^C")):
            shown += "(the prompt follows in the same line: put `; echo` after the command)\n"
        first_line = command.text.split("\n")[0]
        self.report(f"line {command.line}: $ {first_line}", compare_lines(command.output, lines_of(shown)))


def make_environment(shims: Path) -> dict[str, str]:
    """Return the environment of a student for whom `python` is the interpreter that runs this check."""
    shims.mkdir()
    for name in ("python", "python3"):
        (shims / name).symlink_to(sys.executable)
    unset = ("PYTHON", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    environment.update(PATH=f"{shims}:{environment['PATH']}", LC_ALL="C.UTF-8", COLUMNS="110")
    return environment


def split_block(first_line: int, lines: list[str]) -> list[Command]:
    """Return the commands of the console block whose first line has that number; [] if it has none.

    Lines after a command that begin with the shell's second prompt, "> ", are part of the command.
    """
    commands: list[Command] = []
    for number, line in enumerate(lines, first_line):
        if line.startswith("$ "):
            commands.append(Command(first_line, number, line[2:], []))
        elif not commands:
            return []
        elif line.startswith("> ") and not commands[-1].output:
            commands[-1] = commands[-1]._replace(text=f"{commands[-1].text}\n{line[2:]}")
        else:
            commands[-1].output.append(line)
    return commands


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; unlike `splitlines`, break it at line breaks alone."""
    return text[: -1 if text.endswith("\n") else None].split("\n") if text else []


def compare_lines(expected: list[str], printed: list[str]) -> str:
    """Return how the printed lines differ from those expected, where "..." stands for any; "" if not."""
    wanted, got = ([normalise(line) for line in lines] for lines in (expected, printed))
    pattern = "".join("(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        return ""
    difference = list(difflib.unified_diff(wanted, got, "README.md", "printed", lineterm="", n=1))
    return "\n".join(difference[:LONGEST_DIFFERENCE])


def normalise(line: str) -> str:
    """Replace what differs from run to run."""
    for pattern, replacement in VARIABLE:
        line = pattern.sub(replacement, line)
    return line
