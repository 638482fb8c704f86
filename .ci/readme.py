"""Checks that README.md is true: `python .ci/readme.py FILES WORK`.

FILES is a copy of the project's files, WORK an empty folder to try things in. What is checked:

- each console block is played (readme_play.py); <!-- not played: REASON --> in the line above skips it;
- each message in backquotes in the first column of a table headed "message", "what you see" or "symptom"
  is a message of the programs or a raw error (readme_quotes.py);
- each python block with "Save this as `NAME`" above it runs under that name in an empty folder;
- the table "in | replace | by" moves the log modules into log/, and all tests pass there;
- names in backquotes that have a dot or an underscore, or are in capitals, exist, the tests among them pass,
  and each usage line is what -h prints;
- the quotations in the table headed "the assignment" stand in assignment.txt;
- links lead somewhere, and the text above the first section names the six files.
"""
# ruff: noqa: INP001, RUF001, S603, T201

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Iterator

from readme_play import Player, split_block
from readme_quotes import Messages, find_fault
from readme_text import Block, Readme, Row, code_in, find_bad_json, find_quotations, fold

SIDES = ("client", "server")
LOG_MODULES = [f"{side}_log_config.py" for side in SIDES]
PROGRAMS = ["client.py", "server.py", *LOG_MODULES]
SCRIPTS = [*PROGRAMS, "test_client.py", "test_server.py"]
ALLOWED_LINKS: tuple[str, ...] = ()  # addresses on the web that README.md may lead to
OTHER_NAMES: tuple[str, ...] = ()  # names that it may use though neither a script nor Python has them
LANGUAGES = ("console", "bat", "python", "json", "mermaid", "text")  # of blocks
ASSIGNMENT = Path(__file__).with_name("assignment.txt")

# How README.md says what is to be checked; of a table, the header says it.
NOT_PLAYED = re.compile(r"<!-- not played: (.+) -->\s*\Z")
SAVE_AS = re.compile(r"(?:[Ss]ave (?:this|it) as|[Сс]охраните (?:это |его )?(?:как|под именем)) `([\w.]+)`")
MESSAGE_TABLE = re.compile(r"(message|сообщение) \||[^|]*(what you see|что вы видите|symptom|симптом)")
ASSIGNMENT_TABLE = re.compile(r"[^|]*(assignment|задани)")
MOVE_TABLE = re.compile(r"in\b[^|]*\| replace\b[^|]*\| by\b")
NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?")
NAME_IN_COMMAND = re.compile(
    r"""(?<![\w./"'-])(?:client|server|test_client|test_server|(?:client|server)_log_config)"""
    r"(?!\.(?:log|YYYY)\b)(?:\.[A-Za-z_]\w*)+"  # an attribute of one of the six modules
    r"|\b\w+\.py\b|(?<= -m )\w+"  # a file, or a module that is run
)
OTHER_NAME = re.compile(r"([A-Za-z]\w*_\w*[A-Za-z0-9]|[A-Z]{4,})(?:\(\))?")
USAGE = re.compile(r"(client|server)\.py \[-h\]")

FIND_NAMES = """
import functools, importlib, sys
def is_there(name):
    module, *rest = name.split(".")
    try:
        functools.reduce(getattr, rest, importlib.import_module(module))
    except (ImportError, AttributeError):
        return False
    return True
for name in sys.argv[1:]:  # with the module, or one of the programs', or Python's own
    if not any(map(is_there, (name, "client." + name, "server." + name, "builtins." + name))):
        print("there is no", name)
"""
COUNT_TESTS = "import unittest; print(unittest.defaultTestLoader.discover('.').countTestCases(), 'tests')"


class Report:
    """Prints and counts what was checked."""

    def __init__(self) -> None:
        """Begin to count."""
        self.passed = self.failed = self.skipped = 0

    def check(self, what: str, fault: str) -> None:
        """Report a check, which has passed if its fault is ""."""
        self.failed += bool(fault)
        self.passed += not fault
        print(f"FAILED: {what}" if fault else f"passed: {what}")
        for line in fault.splitlines():
            print(f"    {line}")

    def skip(self, what: str, reason: str) -> None:
        """Report a check that is not made."""
        self.skipped += 1
        print(f"skipped: {what} ({reason})")

    def summary(self) -> str:
        """Return the counts in a line."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Checker:
    """The checks; each reports what it finds."""

    def __init__(self, files: Path, work: Path) -> None:
        """Read README.md and the scripts in the folder `files`."""
        self.files, self.work = files, work
        self.readme = Readme((files / "README.md").read_text("utf-8"))
        self.sources = {name: (files / name).read_text("utf-8") for name in SCRIPTS}
        self.messages = Messages(self.sources[name] for name in PROGRAMS)
        self.report = Report()
        self.check = self.report.check
        self.player = Player(files, work, self.check)

    def check_all(self) -> bool:
        """Make all checks and print the counts; return whether all have passed."""
        for make_checks in (
            self.check_first_screen,
            self.check_form,
            self.play,
            self.check_messages,
            self.check_other_tables,
            self.check_examples,
            self.check_move,
            self.check_names,
            self.check_other_names,
            self.check_usage,
            self.check_quotations,
            self.check_links,
        ):
            try:
                make_checks()
            except Exception:
                self.check(str(make_checks.__doc__), traceback.format_exc())
        print(self.report.summary())
        return not self.report.failed

    # What stands in README.md.

    def check_first_screen(self) -> None:
        """Check that the text above the first section names the six files, and none that is missing."""
        names = re.findall(r"`(\w+(?:\.py|\.md|/))`", self.readme.first_screen())
        faults = [f"not named: {name}" for name in SCRIPTS if name not in names]
        faults += [f"not there: {name}" for name in names if not (self.files / name).exists()]
        self.check("the files named above the first section", "\n".join(faults))

    def check_form(self) -> None:
        """Check that nothing escapes the checks by its form."""
        odd = [f"line {number}" for number, line in enumerate(self.readme.prose, 1) if line.count("`") % 2]
        self.check("backquotes come in pairs in each line", "\n".join(odd))
        for block in self.readme.blocks:
            what = f"line {block.first_line}: block of {block.language or 'no language'}"
            if block.language not in LANGUAGES:
                self.check(what, f"its language has to be one of {', '.join(LANGUAGES)}")
            elif block.language == "json":
                self.check(what, find_bad_json(block.lines))
            elif block.language not in ("console", "bat") and any(line[:2] == "$ " for line in block.lines):
                self.check(what, "a session has to be a console block")

    def check_messages(self) -> None:
        """Check the messages that tables quote, and the errors in blocks of JSON and diagrams."""
        rows = [row for rows in self.tables(MESSAGE_TABLE) for row in rows]
        quoted = [(row.line, code_in(row.cells[0])) for row in rows]
        for block in self.readme.blocks:
            if block.language in ("json", "mermaid"):
                for number, line in enumerate(block.lines, block.first_line):
                    quoted.append((number, re.findall(r'"error": "((?:[^"\\]|\\.)*)"', line)))
        for line, quotations in quoted:
            if quotations:
                faults = [find_fault(quotation, self.messages, self.files) for quotation in quotations]
                self.check(f"line {line}: quoted: {', '.join(quotations)}", "\n".join(filter(None, faults)))

    def check_other_tables(self) -> None:
        """Check that no table quotes messages under a header that does not say so."""
        for header, rows in self.readme.tables():
            if not any(kind.match(header) for kind in (MESSAGE_TABLE, ASSIGNMENT_TABLE, MOVE_TABLE)):
                quoted = [text for row in rows for text in code_in(row.cells[0]) if text.count(" ") > 1]
                found = [text for text in quoted if not find_fault(text, self.messages, self.files)]
                self.check(f"line {rows[0].line}: a table of no messages, {header}", "\n".join(found))

    def check_quotations(self) -> None:
        """Check that the table's quotations stand in the assignment; one may run over several rows."""
        assignment = fold(ASSIGNMENT.read_text("utf-8"))
        for rows in self.tables(ASSIGNMENT_TABLE):
            quotations, fault = find_quotations(" ".join(row.cells[0] for row in rows))
            self.check(f"line {rows[0].line}: every « has its »", fault)
            for quotation in quotations:
                pieces = [re.escape(fold(piece)) for piece in re.split(r"\.\.\.|…", quotation)]
                fault = "" if re.search(".*".join(pieces), assignment) else f"not there: {quotation}"
                self.check(f"in the assignment: «{quotation[:60]}", fault)

    def check_links(self) -> None:
        """Check that each link leads to a file, to a heading or to an allowed address."""
        places = {*(f"#{anchor}" for anchor in self.readme.anchors()), *ALLOWED_LINKS}
        for line, target in self.readme.links():
            is_file = not re.search("[#:]", target) and (self.files / target).exists()
            fault = "" if is_file or target in places else "leads nowhere"
            self.check(f"line {line}: link to {target}", fault)

    def tables(self, kind: re.Pattern[str]) -> Iterator[list[Row]]:
        """Yield the rows of each table whose header is of that kind; there has to be one."""
        found = [rows for header, rows in self.readme.tables() if kind.match(header)]
        if not found:
            self.check(f"a table headed {kind.pattern}", "there is none")
        yield from found

    # What README.md says of the programs.

    def play(self) -> None:
        """Play the console blocks; each section begins with a fresh copy of the project."""
        self.player.start_section()
        for part in self.readme.parts:
            if isinstance(part, str):
                self.player.start_section()
            elif part.language == "console":
                self.play_block(part)
        self.player.stop_server()

    def play_block(self, block: Block) -> None:
        """Play a console block, unless the line above it says not to."""
        what = f"line {block.first_line}: console block"
        reason = NOT_PLAYED.search(block.above)
        if reason:
            self.report.skip(what, reason[1])
            return
        commands = split_block(block.first_line, block.lines)
        if not commands:
            self.check(what, "it has to begin with a command: $ ...")
        for command in commands:
            self.player.play(command)

    def check_examples(self) -> None:
        """Check that the Python examples run, or at least compile."""
        for block in self.readme.blocks:
            if block.language == "python":
                name = SAVE_AS.search(" ".join(block.above.split()))
                folder = self.work / f"example at line {block.first_line}"
                folder.mkdir()
                path = folder / (name[1] if name else "part.py")
                path.write_text("\n".join(block.lines) + "\n", "utf-8")
                fault = self.fault(folder, *([] if name else ["-m", "py_compile"]), path.name)
                self.check(f"line {block.first_line}: python {path.name}", fault)

    def check_move(self) -> None:
        """Check that the log modules can be moved into log/ as the table says."""
        before, after = self.work / "before the move", self.work / "after the move"
        for folder in (before, after):
            shutil.copytree(self.files, folder)
        for name in LOG_MODULES:
            (after / name).rename(after / "log" / name)
        for rows in self.tables(MOVE_TABLE):
            for row in rows:
                self.check(f"line {row.line}: in {row.cells[0]} replace {row.cells[1]}", replace(row, after))
        self.check("all tests pass with the log modules in log/", self.fault(after, "-m", "unittest"))
        old, new = (self.output(folder, "-c", COUNT_TESTS) for folder in (before, after))
        self.check(f"they are as many as before: {old.strip()}", "" if new == old else new)
        old, new = self.logs(before), self.logs(after)
        self.check(f"the logs are where they were: {old}", "" if new == old else f"they are now {new}")

    def logs(self, folder: Path) -> str:
        """Return the names of the log files that are made in `folder` when both programs fail."""
        self.output(folder, "client.py", "127.0.0.1", "1")  # nobody listens there
        self.output(folder, "server.py", "-a", "192.0.2.1")  # an address of nobody's
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.log"))
        return ", ".join(sorted(re.sub(r"\d{4}-\d\d-\d\d", "DATE", name) for name in names))

    def check_names(self) -> None:
        """Check that names with a dot in backquotes exist, and that the tests named pass."""
        names = {line: self.dotted_names(codes) for line, codes in self.names_of_lines()}
        every = sorted({name for found in names.values() for name in found})
        missing = self.output(self.files, "-c", FIND_NAMES, *every).splitlines()
        for line, found in names.items():
            faults = [fault for fault in missing if fault.split()[-1] in found]
            if found:
                self.check(f"line {line}: names {', '.join(found)}", "\n".join(faults))
        tests = [name for name in every if name.startswith("test_")]
        self.check(f"the {len(tests)} tests named pass", self.fault(self.files, "-m", "unittest", *tests))

    def dotted_names(self, codes: list[str]) -> list[str]:
        """Return names with a dot, but not those of files that are there or that are made."""
        whole = [match[1] for match in map(NAME.fullmatch, codes) if match]
        part = NAME_IN_COMMAND.findall(" ".join(codes))
        known = {*OTHER_NAMES, *SAVE_AS.findall(" ".join("\n".join(self.readme.prose).split()))}
        found = [name for name in (*whole, *part) if name not in known and not name.endswith(".log")]
        return [name for name in dict.fromkeys(found) if not (self.files / name).exists()]

    def check_other_names(self) -> None:
        """Check that other names, with an underscore or in capitals, are in a script or in a block."""
        texts = [*self.sources.values(), *(line for block in self.readme.blocks for line in block.lines)]
        known = {*re.findall(r"\w+", "\n".join(texts)), *OTHER_NAMES}
        for line, codes in self.names_of_lines():
            found = [match[1] for match in map(OTHER_NAME.fullmatch, codes) if match]
            if found:
                unknown = [f"in no script: {name}" for name in found if name not in known]
                self.check(f"line {line}: names {', '.join(found)}", "\n".join(unknown))

    def names_of_lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield what stands in backquotes in each line that is not about messages."""
        messages = {row.line: code_in(row.cells[0]) for rows in self.tables(MESSAGE_TABLE) for row in rows}
        for line, codes in self.readme.code_of_lines():
            yield line, [text for text in codes if text not in messages.get(line, ())]

    def check_usage(self) -> None:
        """Check that each usage line in backquotes is what -h prints."""
        for line, codes in self.readme.code_of_lines():
            for text in filter(USAGE.match, codes):
                shown = " ".join(self.output(self.files, text.split()[0], "-h").split("\n\n")[0].split())
                self.check(f"line {line}: {text}", "" if shown == f"usage: {text}" else shown)

    def fault(self, folder: Path, *arguments: str) -> str:
        """Run Python in `folder`; return what it printed if it failed or found no test, "" if all is well."""
        done = self.run(folder, *arguments)
        if done.returncode == 0 and "\nRan 0 " not in done.stdout:
            return ""
        return f"{done.stdout}exit code {done.returncode}"

    def output(self, folder: Path, *arguments: str) -> str:
        """Run Python in `folder`; return what it printed."""
        return self.run(folder, *arguments).stdout

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in `folder`."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**self.player.environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )


def replace(row: Row, folder: Path) -> str:
    """Make the replacement of a row in the files that it names; return what is wrong with it.

    Its first cell names files (if it names none, it means the moved log modules) and perhaps a word of
    the line in which to replace. The other cells hold as many texts as each other, to be taken in pairs.
    """
    places, olds, news = (code_in(cell) for cell in row.cells)
    names = [name for name in places if name.endswith(".py")] or LOG_MODULES
    words = [word for word in places if not word.endswith(".py")]
    if not olds or len(olds) != len(news):
        return "there have to be as many new texts as old ones"
    unused = {*olds, *names}
    for name in names:
        path = folder / name if (folder / name).exists() else folder / "log" / name
        lines = path.read_text("utf-8").split("\n")
        for number, line in enumerate(lines):
            for old, new in zip(olds, news):
                if old in line and all(word in line for word in words):
                    lines[number] = line.replace(old, new)
                    unused -= {old, name}
        path.write_text("\n".join(lines), "utf-8")
    return "".join(f"nothing to replace: {name}\n" for name in sorted(unused))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or what is started here may ignore Ctrl+C, too
    sys.exit(not Checker(*(Path(name).resolve() for name in sys.argv[1:])).check_all())
