"""Looks up messages that README.md quotes: in the programs, or among the raw errors of Python and systems.

A message of the programs is a string constant or an f-string of their code, in which each placeholder
({name}, %s, ...) is a HOLE. A quotation is the same with each "..." as a GAP. They fit if a GAP can be
any part of the message, and each HOLE is a value: a number, an address, a path, something in quotes, a
system's or the JSON parser's error, or a message again; other words are no values.
"""
# ruff: noqa: INP001, S603, S607

from __future__ import annotations

import ast
import difflib
import errno
import functools
import json
import json.scanner
import os
import re
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Callable, Iterable

HOLE, GAP = "\0", "\1"
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[a-z]|\{[^{}]*\}")
SYSTEM_ERRORS = "|".join(re.escape(os.strerror(number)) for number in errno.errorcode)
VALUE = re.compile(
    r"-?\d[\d.,]*"  # a number, an IPv4 address
    r"|[0-9a-f:.]*:[0-9a-f:.]*"  # an IPv6 address
    r"|(?:/|[A-Z]:\\)\S+"  # a path
    r"|[\w-]+(?:\.[\w-]+)+"  # a host's name
    r"|'[^']{1,30}'"  # a text in quotes
    rf"|\[Errno -?\d+\] (?:{SYSTEM_ERRORS})(?:: '[^']+')?"
)
DEEPEST = 2  # a message in a message in a message
FEWEST_LETTERS = 8  # of a quotation with a gap, or it would fit anything


# The programs' messages.


def messages_in(source: str) -> set[str]:
    """Return all texts in a Python source but docstrings, with a HOLE for each placeholder."""
    messages: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        text = text_of(node)
        if text and re.search(r"[^\s\0]", text):
            messages.add(text)
        if isinstance(node, ast.JoinedStr):  # its parts are no messages of their own, its values may be
            waiting.extend(part.value for part in node.values if isinstance(part, ast.FormattedValue))
        else:
            waiting.extend(child for child in ast.iter_child_nodes(node) if not is_docstring(child))
    return messages


def is_docstring(node: ast.AST) -> bool:
    """Return whether a node is a text that stands for itself."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def text_of(node: ast.AST) -> str | None:
    """Return the text that an expression is, with its holes; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return PLACEHOLDER.sub(HOLE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else HOLE for p in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return (left or HOLE) + (right or HOLE) if left or right else None
    return None


def system_messages() -> set[str]:
    """Return what may stand in a hole and comes from the system or from Python's JSON parser."""
    sources = [Path(module.__file__).read_text("utf-8") for module in (json.decoder, json.scanner)]
    return {os.strerror(number) for number in errno.errorcode}.union(*map(messages_in, sources))


class Messages:
    """The messages of some programs."""

    def __init__(self, sources: Iterable[str]) -> None:
        """Collect the messages from the sources of the programs."""
        self.messages = sorted(set().union(*map(messages_in, sources)))
        self.parts = sorted({*self.messages, *system_messages()})
        self.fits = functools.lru_cache(None)(self.compare)  # remembers what it has found out
        self.is_value = functools.lru_cache(None)(self.find_value)

    def find(self, quotation: str) -> bool:
        """Return whether one of the messages reads like the quotation."""
        quote = quotation.replace("...", GAP)
        return any(self.fits(quote, message, 0) for message in self.messages)

    def nearest(self, quotation: str) -> str:
        """Return the message that is most like the quotation, for a report."""
        readable = [message.replace(HOLE, "...") for message in self.messages]
        return "".join(difflib.get_close_matches(quotation, readable, 1, 0))

    def compare(self, quote: str, message: str, depth: int) -> bool:
        """Return whether the quote can be the message, which stands in `depth` others."""
        while quote and quote[0] == message[:1]:
            quote, message = quote[1:], message[1:]
        if not message or not quote:
            return not message and not quote.strip(GAP)
        if quote[0] != GAP:
            return self.fills(quote, message, depth)
        return any(
            (self.may_begin(quote[1:], message[start:]) and self.fits(quote[1:], message[start:], depth))
            or self.fills(quote, message[start:], depth)
            for start in range(len(message) + 1)
        )

    def fills(self, quote: str, message: str, depth: int) -> bool:
        """Return whether the message begins with a hole that a value at the start of the quote fills."""
        return message[:1] == HOLE and any(
            self.may_begin(quote[end:], message[1:])
            and self.is_value(quote[:end], depth)
            and self.fits(quote[end:], message[1:], depth)
            for end in range(1, len(quote) + 1)
        )

    @staticmethod
    def may_begin(quote: str, message: str) -> bool:
        """Return whether it is worth while to compare what begins like this."""
        return quote[:1] == GAP or (message[:1] in (HOLE, quote[0]) if quote else not message)

    def find_value(self, text: str, depth: int) -> bool:
        """Return whether a text can be what stands in a hole."""
        if not text.strip(GAP):
            return False  # a gap alone is no value, it covers the hole
        if VALUE.fullmatch(text):
            return True
        return depth < DEEPEST and any(self.fits(text, part, depth + 1) for part in self.parts)


# Raw errors, which are no messages of the programs.


def describe(error: BaseException) -> str:
    """Return the last line of the traceback of an error."""
    return f"{type(error).__name__}: {error}"


def error_of(function: Callable[..., object], *arguments: object) -> str:
    """Return what Python says of the error that a call raises."""
    try:
        function(*arguments)
    except Exception as error:
        return describe(error)
    return ""


def output_of(command: str, *copied: str) -> Callable[[Path], str]:
    """Return a function that returns what a command prints in a folder with those files of the project."""

    def run(files: Path) -> str:
        with tempfile.TemporaryDirectory() as folder:
            for name in copied:
                (Path(folder) / name).write_bytes((files / name).read_bytes())
            text = command.replace("python", f"'{sys.executable}'", 1)
            done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, check=False)
            return (done.stdout + done.stderr).decode()

    return run


def listen_twice() -> None:
    """Listen on a port in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_server(server.getsockname())


def connect_to_nobody() -> None:
    """Connect to a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    socket.create_connection(where)


RAW_ERRORS = (  # calls that produce them, given the project's folder
    lambda _: error_of(json.loads, "{}{}"),  # JSONDecodeError: Extra data
    lambda _: error_of(json.loads, ""),  # JSONDecodeError: Expecting value
    lambda _: error_of(json.loads, "{'a': 1}"),  # ... Expecting property name enclosed in double quotes
    lambda _: error_of(json.loads, '{"a'),  # ... Unterminated string
    lambda _: error_of(json.dumps, b""),  # TypeError: Object of type bytes is not JSON serializable
    lambda _: error_of(socket.socket().send, "text"),  # a bytes-like object is required
    lambda _: error_of("Привет".encode()[:1].decode),  # UnicodeDecodeError: ... unexpected end of data
    lambda _: error_of("Привет".encode("cp1251").decode),  # ... invalid continuation byte
    lambda _: error_of(getattr, "text", "decode"),  # AttributeError: 'str' object has no attribute 'decode'
    lambda _: error_of(getattr, types.ModuleType("socket"), "has_dualstack_ipv6"),  # before Python 3.8
    lambda _: error_of(compile, "a b", "client.py", "exec"),  # SyntaxError: invalid syntax
    lambda _: error_of(listen_twice),  # Address already in use
    lambda _: error_of(connect_to_nobody),  # Connection refused
    lambda _: describe(OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))),
    lambda _: describe(OSError(errno.EPIPE, os.strerror(errno.EPIPE))),
    lambda _: describe(socket.timeout("timed out")),
    lambda _: error_of({}.__getitem__, "response"),  # KeyError: 'response'
    output_of("python client.py 127.0.0.1", "client.py"),  # No module named 'client_log_config'
    output_of("python server.py", "server.py"),  # No module named 'server_log_config'
    output_of("python test_client.py", "test_client.py"),  # No module named 'client...'
    output_of("python test_server.py", "test_server.py"),
    output_of("python -c 'import client'"),
    output_of("python -c 'import server'"),
    output_of("python -m unittest"),  # Ran 0 tests
    output_of("python client.py 127.0.0.1"),  # can't open file
    output_of("python client.py", "client.py", "client_log_config.py"),  # ... arguments are required: addr
)
OTHER_RAW_ERRORS = """
ConnectionRefusedError: [WinError 10061] No connection could be made because the target machine actively
refused it

ConnectionRefusedError: [WinError 10061] Подключение не установлено, т.к. конечный компьютер отверг запрос
на подключение

ConnectionResetError: [WinError 10054] An existing connection was forcibly closed by the remote host

ConnectionResetError: [WinError 10054] Удаленный хост принудительно разорвал существующее подключение

OSError: [WinError 10048] Only one usage of each socket address (protocol/network address/port) is normally
permitted

OSError: [WinError 10048] Обычно разрешается только одно использование адреса сокета (протокол/сетевой
адрес/порт)

PermissionError: [WinError 10013] An attempt was made to access a socket in a way forbidden by its access
permissions

PermissionError: [WinError 10013] Сделана попытка доступа к сокету методом, запрещенным правами доступа

socket.gaierror: [Errno 11001] getaddrinfo failed

socket.gaierror: [Errno -2] Name or service not known

Python was not found; run without arguments to install from the Microsoft Store, or disable this shortcut
from Settings > Apps > Advanced app settings > App execution aliases.

bash: python: command not found

bash: nc: command not found

OSError: [Errno 48] Address already in use

ConnectionRefusedError: [Errno 61] Connection refused
"""  # of other systems (the last two of macOS), not to be had here


@functools.lru_cache(None)
def raw_errors(files: Path) -> list[str]:
    """Return the texts of all raw errors, produced from the project in `files`."""
    produced = [produce(files) for produce in RAW_ERRORS]
    return [" ".join(text.split()) for text in (*produced, *OTHER_RAW_ERRORS.split("\n\n"))]


def is_raw_error(quotation: str, files: Path) -> bool:
    """Return whether whole words of a raw error read like the quotation."""
    pieces = [re.escape(piece.strip()) for piece in quotation.strip(". ").split("...")]
    pattern = re.compile(r"(?<!\w)" + r"(?!\w).*(?<!\w)".join(pieces) + r"(?!\w)")
    return any(pattern.search(text) for text in raw_errors(files))


def find_fault(quotation: str, messages: Messages, files: Path) -> str:
    """Return what is wrong with a quoted message, "" if nothing is."""
    quotation = quotation.replace("…", "...")
    letters = sum(char.isalpha() for char in quotation)
    if letters < (FEWEST_LETTERS if "..." in quotation else 2):
        return f"too short to look up: {quotation}"
    if messages.find(quotation) or is_raw_error(quotation, files):
        return ""
    return f"nobody says: {quotation}\nmost like it: {messages.nearest(quotation)}"
