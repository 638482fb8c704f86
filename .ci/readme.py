"""Checks that README.md is true: `readme.py PROJECT WORK`. Each section is played in a copy of the project.

- A console block's command must print what is below it. If a line there begins with ^C, the command goes on
  until the others have ended; then Ctrl+C is pressed. In the mermaid block, a response answers its request.
- A python block is the file named above it. It must pass its tests; as an exercise, it must fail.
- The table "... | response | command" has the ends of a command that begins in the text, and codes it shows.
  In a table "file | old | new", texts are replaced; then all tests must pass; in English, the log must work.
- `Code` is in KNOWN, the scripts, their help or a block, is a file, or a command that works.
"""
# ruff: noqa: INP001, S603, T201

from __future__ import annotations

import json.decoder
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PROJECT, COPY = Path(sys.argv[1]), Path(sys.argv[2]) / "messenger"
TEXT = (PROJECT / "README.md").read_text("utf-8")
KNOWN = r"""git clone|ipconfig|netstat -ano|lsof -i :7777|cd|py|python|python3|-P|-I|pickle|sleep|send|input()
skipped|WinError 10054|WinError 10061|WinError 10048|Connection refused|Address already in use|b'7'|b'\x80'
JSONDecodeError: Expecting value|JSONDecodeError: Extra data|b'\xff'|b'\x00'
No module named 'client_log_config'|module 'socket' has no attribute 'has_dualstack_ipv6'|'create_server'
cannot start with b'"'|str(message)|json.dumps(message)|Жанна is here|log/__init__.py
Ran 0 tests|SO_REUSEADDR|timed out|*.log|print()|b''"""
RESPOND = """import json, sys; from server import *
try: print(json.dumps(process_client_message(take_message(sys.argv[1].encode())[0])))
except ProtocolError as error: print(json.dumps(create_error(400, str(error))))"""
LOG_WORKS = "import server_log_config as log; log.configure_log(); log.LOG.error('it works'); log.close_log()"
FENCE = r"(?ms)^```(\w+)\n(.*?)^```"
true = set(KNOWN.replace("\n", "|").split("|"))  # codes that need no further check


def normalise(text: str) -> str:
    """Replace what differs from run to run: dates, times, ports."""
    return re.sub(r'[\d-]{10} [\d:,]{12}|(?<="time": )[\d.]+|(?<=\bport )[1-6]\d{4}\b', "...", text)


def check(what: str, right: object, shown: str = "") -> None:
    """Print a check, and what was shown if it has failed."""
    print(f"passed: README.md, {what}" if right else f"FAILED: README.md, {what}\n{shown}", flush=True)


def compare(what: str, expected: str, shown: str) -> None:
    """Check that a command prints what README.md shows."""
    check(what, normalise(expected) == normalise(shown), shown)


def start(*words: str) -> subprocess.Popen[str]:
    """Start Python in the copy, with pipes as its standard streams."""
    streams = {"stdin": -1, "stdout": -1, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, *words], cwd=COPY, encoding="utf-8", **streams)


def run(*words: str) -> tuple[bool, str]:
    """Run Python in the copy and press Enter; return whether it succeeds, and what it prints."""
    process = start(*words)
    shown = process.communicate("\n", timeout=60)[0]
    return process.returncode == 0, shown


def play(title: str, text: str) -> None:
    """Play a section."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(PROJECT, COPY)
    running = []
    for request, response in re.findall(r"C->>S: (.*)\n.*S-->>C: (.*\n)", text):
        compare(request, response, run("-c", RESPOND, request)[1])
    for command, output in re.findall(r"(?m)^\$ python (.*)\n((?:(?!```).*\n)*)", text):
        if "\n^C" in output:
            process = start(*command.split())
            running.append((process, command, output.replace("\n^C", "\n"), process.stdout.readline()))
        else:
            compare(command, output, run(*command.split())[1])
    for process, command, output, first in running:
        process.send_signal(signal.SIGINT)
        compare(command, output, first + process.communicate(timeout=60)[0])
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        header, _, *rows = [re.findall(r" `?(.*?)`? \|", line) for line in table.splitlines()]
        if header[-1] == "command":
            play_commands(rows)
        elif header[-1] in ("стало", "new"):
            replace_texts(rows)
            check(title, *run(*(["-m", "unittest"] if header[-1] == "стало" else ["-c", LOG_WORKS])))
    for name, block in re.findall(r"(?s)`(test_\w+\.py)`(?:(?!`test_).)*?```python\n(.*?)```", text):
        (COPY / name).write_text(block, "utf-8")
        passes, shown = run("-m", "unittest", name[:-3])
        fails = re.search(r"AssertionError|no attribute|ProtocolError", shown)
        check(f"{title}: {name}", fails if title == "Exercises" else passes, shown)
        true.add(name)


def play_commands(rows: list[list[str]]) -> None:
    """Run each command while a server is running, and compare the codes of the responses."""
    beginnings = re.findall(r'`((?:py|python) -c "(.*?5\);))`', TEXT)
    true.update((code for code, _ in beginnings), (row[-1] for row in rows))
    server = start("server.py", "-a", "127.0.0.1")
    server.stdout.readline()
    for *_, codes, command in rows:
        works, shown = run("-c", beginnings[0][1] + command)
        check(command, works and re.findall(r'"response": (\d+)', shown) == re.findall(r"\d+", codes), shown)
    server.kill()
    server.communicate()


def replace_texts(rows: list[list[str]]) -> None:
    """Replace texts in files."""
    for name, old, new in rows:
        path = COPY / name
        if path.parent != COPY and not path.exists():
            (COPY / path.name).rename(path)
            (path.parent / "__init__.py").touch()
        text = path.read_text("utf-8")
        check(f"{name}: {old}", text.count(old) == 1)
        path.write_text(text.replace(old, new), "utf-8")
        true.update((name, old, new))


def is_true(code: str) -> bool:
    """Return whether what stands between backquotes exists, or works."""
    first, *words = code.split()
    if first in ("py", "python", "python3") and words:
        parse = f"import sys; from {words[0][:-3]} import *; parse_args(sys.argv[1:])"
        return run(*(["-c", parse, *words[1:]] if words[0].endswith(".py") else words))[0]
    if (PROJECT / first.strip("/")).exists() or (PROJECT / ".ci" / first).exists():
        return not words or first == ".ci/run" or is_true(f"py {code}") or code in corpus
    pattern = ".+".join(map(re.escape, normalise(code).split("...")))
    names = code.split(".") if re.fullmatch(r"[A-Za-z_.]+", code) else [pattern]
    if all(re.search(rf"(?<!\w){name}(?!\w)", corpus) for name in names):
        return True
    return first[0] == "-" and (is_true(f"py server.py {code}") or is_true(f"py client.py addr {code}"))


titles, texts = re.findall(r"(?m)^##* (.*)$", TEXT), re.split(r"(?m)^##* .*$", TEXT)[1:]
for title, text in zip(titles, texts):
    play(title, text)
sources = [path.read_text("utf-8") for path in (*PROJECT.glob("*.py"), Path(json.decoder.__file__))]
sources += [run(name, "-h")[1] for name in ("client.py", "server.py")]
sources += [block for _, block in re.findall(FENCE, TEXT)]
corpus = normalise(" ".join(" ".join(sources).split()))
wrong = [code for code in {*re.findall("`(.+?)`", re.sub(FENCE, "", TEXT))} - true if not is_true(code)]
check("code", not wrong, "\n".join(wrong))
anchors = ["#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
links = re.findall(r"\]\(([^)]*)\)", TEXT)
wrong = [link for link in links if link not in anchors and not (PROJECT / link).exists()]
check("links", not wrong, "\n".join(wrong))
