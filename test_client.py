"""Tests of client.py and client_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_client              all of them
    python -m unittest -v test_client           the same, with their names: what the client does

A test states one fact and is named for it; cases of one kind are the lines of a table. A class says first
which functions it is about. No test sleeps or leaves a file behind.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import client
import client_log_config
from client import LOG, ProtocolError

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 10.0  # seconds that a test waits before it fails, and only then
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) client (.*)$")
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets, no threads")


def without_times(text):
    """Return the lines of a log as "<level> <message>"; what is not such a line stays as it is."""
    return [LINE.sub(r"\1 \2", line) for line in text.splitlines()]


class Case(unittest.TestCase):
    """What all tests share."""

    def enter(self, context):
        """Enter a `with` context that lasts until the test ends; return what it gives."""
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def assert_results(self, function, table):
        """Call a function with each line of a table, whose last item is what it has to return."""
        for *arguments, result in table:
            with self.subTest(arguments=arguments):
                self.assertEqual(function(*arguments), result)

    def assert_errors(self, function, table):
        """Call a function with each line of a table, whose last item is the ProtocolError's text."""
        for *arguments, error in table:
            with self.subTest(arguments=arguments):
                with self.assertRaises(ProtocolError) as caught:
                    function(*arguments)
                self.assertEqual(str(caught.exception), error)

    @contextlib.contextmanager
    def assert_logged(self, *lines):
        """Fail unless exactly these lines, "<level> <message>", are logged within the block."""
        with self.assertLogs(LOG, "DEBUG") as logs:
            yield
        self.assertEqual([f"{each.levelname} {each.getMessage()}" for each in logs.records], [*lines])


class CreatePresence(Case):
    """create_presence, check_string: the message that a user is present."""

    def test_without_a_status(self):
        for arguments, name in ((["C0deMaver1ck"], "C0deMaver1ck"), ([], "Guest")):
            with self.subTest(arguments=arguments):
                presence = {"action": "presence", "time": mock.ANY, "user": {"account_name": name}}
                self.assertEqual(client.create_presence(*arguments), presence)

    def test_with_a_status_it_is_jims_full_form(self):
        for status in ("here", ""):
            user = {"account_name": "Жанна", "status": status}
            presence = {"action": "presence", "time": mock.ANY, "type": "status", "user": user}
            with self.subTest(status=status):
                self.assertEqual(client.create_presence("Жанна", status), presence)

    def test_time_is_now_as_a_float(self):
        before = time.time()
        now = client.create_presence()["time"]
        self.assertIsInstance(now, float)
        self.assertTrue(before <= now <= time.time(), now)

    def test_valid_names(self):
        for name in ("x", "Ж" * 25, "\n\ud800"):
            with self.subTest(name=name):
                self.assertEqual(client.create_presence(name)["user"]["account_name"], name)

    def test_invalid_names_and_statuses(self):
        table = (
            ("", "'account_name' must be 1 to 25 characters long, not 0"),
            ("x" * 26, "'account_name' must be 1 to 25 characters long, not 26"),
            (None, "'account_name' must be a string, not null"),
            (5, "'account_name' must be a string, not a number"),
            (1.5, "'account_name' must be a string, not a number"),
            (b"Guest", "'account_name' must be a string, not something else"),
            ("Guest", False, "'status' must be a string, not a boolean"),
            ("Guest", ["here"], "'status' must be a string, not an array"),
        )
        self.assert_errors(client.create_presence, table)

    def test_is_logged(self):
        with self.assert_logged("DEBUG created a presence of Guest"):
            client.create_presence("Guest")


class ProcessResponse(Case):
    """process_response, response_code, wrong_type_error: the server's answer as text."""

    def test_code_and_text(self):
        table = (
            ({"response": 200, "alert": "OK"}, "200 : OK"),
            ({"response": 202, "time": 1.5, "alert": "Принято"}, "202 : Принято"),
            ({"response": 400, "error": "Bad Request"}, "400 : Bad Request"),
            ({"response": 404, "error": "gone", "alert": ""}, "404 : gone"),
            ({"response": 410, "error": "", "alert": None}, "410 : offline"),
            ({"response": 500, "alert": "sorry", "error": "unseen"}, "500 : sorry"),
            ({"response": 200, "alert": 5}, "200 : 5"),
        )
        self.assert_results(client.process_response, table)

    def test_code_without_a_text(self):
        refusals = {
            400: "wrong request or JSON",
            401: "not authorised",
            402: "wrong login or password",
            403: "blocked",
            404: "no such user or chat",
            409: "already connected",
            410: "offline",
            500: "server error",
        }
        for code, text in {**dict.fromkeys((100, 101, 200, 201, 202), "OK"), **refusals}.items():
            with self.subTest(code=code):
                self.assertEqual(client.process_response({"response": code}), f"{code} : {text}")

    def test_response_without_a_number(self):
        table = (
            ({}, "'response' is missing"),
            ({"code": 200, "RESPONSE": 200}, "'response' is missing"),
            ({"response": "200"}, "'response' must be a number, not a string"),
            ({"response": None}, "'response' must be a number, not null"),
            ({"response": True}, "'response' must be a number, not a boolean"),
            ({"response": [200]}, "'response' must be a number, not an array"),
            ({"response": {}}, "'response' must be a number, not an object"),
            ([], "'message' must be an object, not an array"),
            ("200", "'message' must be an object, not a string"),
        )
        self.assert_errors(client.process_response, table)

    def test_number_that_is_not_a_code_of_jim(self):
        codes = (0, 1, -200, 99, 203, 299, 300, 405, 501, 200.0, 200.5, int("1" * 20))
        for code in (*codes, int("1" * 600)):  # a very long one is shown in part
            error = f"'response' is not one of JIM's codes: {str(code)[:20]}"
            self.assert_errors(client.process_response, [({"response": code}, error)])

    def test_is_logged(self):
        with self.assert_logged("DEBUG processed a response, code 200"):
            client.process_response({"response": 200})


# How input is fed to the functions that take messages. What they return must not depend on it.

BEHIND = (b"", b"\n", b'{"b": 2}', b"]", b"hello", b"\xff", b"\xd0", b"\xed\xa0", b"]" * 1000)


def splits(data):
    """Yield lists of pieces that make `data`: whole, cut in two anywhere, byte by byte."""
    yield [data]
    for end in range(1, len(data)):
        yield [data[:end], data[end:]]
    yield [data[i : i + 1] for i in range(len(data))]


class Pieces:
    """Stands for a socket: `recv` returns one piece a call, and then the end of the stream."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def recv(self, size):
        assert size == client.RECEIVE_BYTES, "every read is bounded"
        piece = self.pieces.pop(0) if self.pieces else b""
        if piece[size:]:
            self.pieces.insert(0, piece[size:])
        return piece[:size]


VALID = (  # text, message
    ("{}", {}),
    ('{"a": 1}', {"a": 1}),
    ('{"response": 200, "alert": "OK"}', {"response": 200, "alert": "OK"}),
    ('{"a": "Ж\\u0416😀\\ud83d\\ude00"}', {"a": "ЖЖ😀😀"}),
    ('{"a": "\\ud800"}', {"a": "\ud800"}),
    ('{"a": "q\\"\\\\\\/\\b\\f\\n\\r\\t}{"}', {"a": 'q"\\/\b\f\n\r\t}{'}),
    ('{"n": [-0.5e-7, 0, -12, 1E+2, 12.25], "": {}}', {"n": [-0.5e-7, 0, -12, 100.0, 12.25], "": {}}),
    ('{ "w" :\r\n\t[true , false, null], "o": {"x": [ ]}} ', {"w": [True, False, None], "o": {"x": []}}),
    ('{"a": 1, "a": 2}', {"a": 2}),
    ('{"a": "' + "я" * 631 + '"}', {"a": "я" * 631}),  # 640 characters
)
INVALID = (  # bytes, error: it is known at the last of these bytes at the latest
    (b"hello", "a message is a JSON object and cannot start with 'h'"),
    (b"[1, 2]", "a message is a JSON object and cannot start with '['"),
    (b"42", "a message is a JSON object and cannot start with '4'"),
    (b"}", "a message is a JSON object and cannot start with '}'"),
    (b"\x16\x03\x01", r"a message is a JSON object and cannot start with '\x16'"),
    (b"\xef\xbb\xbf{}", r"a message is a JSON object and cannot start with '\ufeff'"),
    (b'{"a": NaN', "not JSON: NaN is not a number"),
    (b'{"a": {"b": -Infinity', "not JSON: -Infinity is not a number"),
    (b"\xff", "the message is not UTF-8"),
    (b'{"a": "\xff', "the message is not UTF-8"),
    (b'{"a": "\xc0\xaf', "the message is not UTF-8"),
    (b'{"a": "\xf0\x9f\x98"', "the message is not UTF-8"),
    (b'{"a": "\xed\xa0', "the message is not UTF-8"),
    (b'{"a": "' + b"x" * 633, "the message is longer than 640 characters"),
    (b'{"a": "' + "я".encode() * 632 + b'"}', "the message is longer than 640 characters"),
    (b'{"a": ' * 107, "the message is longer than 640 characters"),
    (b'{"a": ' + b"[" * 634, "the message is longer than 640 characters"),
    (b'{"a": ' + b"1" * 634, "the message is longer than 640 characters"),
    (b"{" + b" " * 639, "the message is longer than 640 characters"),
)
FAULTS_IN_AN_OBJECT = (  # the parser words the error
    "{]", "{,", "{1 ", "{1}", "{'a", '{"a"}', '{"a" 1 ', '{"a",', '{t"', '{"a" t ', "{a: 1",
    '{"a": }', '{"a": ,', '{"a": 1,}', '{"a": [1,]', '{"a": [1}', '{"a": {]', '{"a": [1 2 ',
    '{"a": 01}', '{"a": +1}', '{"a": .5,', '{"a": 1.x ', '{"a": 1. ', '{"a": 1.5.}', '{"a": 1e5e ',
    '{"a": 1e+-,', '{"a": -x}', '{"a": - ', '{"a": --}', '{"a": 0x1}', '{"a": 1t ', '{"a": "b" "',
    '{"a": tr ', '{"a": trux}', '{"a": True,', '{"a": Na ', '{"a": I"', '{"a": "x"t ', '{"a": "x".}',
    '{"a": "\n"', '{"a": "\t"', '{"a": "\x00"', '{"a": "\\x"', '{"a": "\\u12x4"', '{"a": "\\u12 ',
)  # fmt: skip


class TakeMessage(Case):
    """take_message, decode_utf8, is_incomplete, refuse_constant: where a message ends, and what is none."""

    def test_message_and_its_length_in_bytes(self):
        for text, message in VALID:
            length = len(text.rstrip().encode())
            table = [(text.encode() + behind, (message, length)) for behind in BEHIND]
            self.assert_results(client.take_message, table)

    def test_every_beginning_is_waited_for(self):
        for text, _ in VALID:
            data = text.rstrip().encode()
            table = [(data[:end], (None, 0)) for end in range(len(data))]
            self.assert_results(client.take_message, table)

    def test_invalid_messages_whatever_follows_them(self):
        table = [(data + behind, error) for data, error in INVALID for behind in (b"", b"x" * 1000)]
        self.assert_errors(client.take_message, table)

    def test_fault_in_an_object_is_seen_at_once(self):
        for text in FAULTS_IN_AN_OBJECT:
            with self.subTest(text=text):
                with self.assertRaisesRegex(ProtocolError, r"^not JSON at character \d+: .+$"):
                    client.take_message(text.encode())

    def test_fault_is_named_with_its_place_before_anything_else(self):
        error = "not JSON at character 6: Expecting ':' delimiter"
        table = [(b'{"a" 1 ' + behind, error) for behind in (b"", b"\xff", b"x" * 999)]
        self.assert_errors(client.take_message, table)


class ReceiveMessage(Case):
    """receive_message: one message in, in however many pieces."""

    def receive(self, *pieces):
        return client.receive_message(Pieces(*pieces))

    def test_message_in_any_pieces(self):
        for text, message in VALID:
            table = [(*pieces, message) for pieces in splits(text.encode())]
            self.assert_results(self.receive, table)

    def test_whitespace_before_a_message_does_not_count(self):
        table = [(spaces, spaces + b"{", b"}", {}) for spaces in (b" ", b"\r\n\t ", b" " * 1000)]
        self.assert_results(self.receive, table)

    def test_what_follows_is_ignored(self):
        self.assert_results(self.receive, [(b'{"a": 1}' + behind, {"a": 1}) for behind in BEHIND])

    def test_invalid_message_is_refused_while_the_connection_lasts(self):
        self.assert_errors(self.receive, [(data, b"never read", error) for data, error in INVALID])

    def test_end_without_an_answer(self):
        for pieces in ((), (b" \r\n",)):
            with self.subTest(pieces=pieces):
                with self.assertRaisesRegex(ConnectionError, "^the server closed the .* without an answer$"):
                    self.receive(*pieces)

    def test_end_inside_a_message(self):
        beginnings = (b"{", b'{"response": 200', b'{"a": "\xd0', b"\xd0")
        self.assert_errors(self.receive, [(data, "the message is cut short") for data in beginnings])

    def test_is_logged_also_if_it_is_invalid(self):
        self.enter(mock.patch.object(client, "RECEIVE_BYTES", 4096))
        for data, shown in (
            (b'{"a": "\xd0\x96"}', '{"a": "Ж"}'),
            (b"hello", "hello"),
            (b" {]", "{]"),
            (b'{"a": "\xff', r'{"a": "\xff'),
            (b"", "nothing"),
        ):
            with self.subTest(data=data), self.assert_logged(f"DEBUG received {shown}"):
                with contextlib.suppress(OSError, ValueError):
                    self.receive(data)


@needs_sockets
class SendMessage(Case):
    """send_message: one message out."""

    def setUp(self):
        self.sock, self.server = map(self.enter, socket.socketpair())
        self.server.settimeout(PATIENCE)

    def test_sends_json(self):
        for message, data in (
            ({"action": "x", "time": 1.5}, '{"action": "x", "time": 1.5}'),
            ({"account_name": "Жанна"}, '{"account_name": "Жанна"}'),  # characters stay as they are
            ({"account_name": "\ud800"}, '{"account_name": "\\ud800"}'),  # but UTF-8 does not have this one
        ):
            with self.subTest(message=message):
                client.send_message(self.sock, message)
                self.assertEqual(self.server.recv(10_000), data.encode())

    def test_sends_all_of_a_long_message(self):
        message = {"a": "x" * 10_000_000}
        sender = threading.Thread(target=client.send_message, args=(self.sock, message))
        sender.start()
        received = 0
        while received < 10_000_009:
            received += len(self.server.recv(65536))
        sender.join(PATIENCE)

    def test_goes_over_a_plain_socket_pair_and_back(self):
        client.send_message(self.server, {"response": 200})
        self.assertEqual(client.receive_message(self.sock), {"response": 200})

    def test_is_logged(self):
        with self.assert_logged('DEBUG sent {"a": "Ж"}'):
            client.send_message(self.sock, {"a": "Ж"})


@needs_sockets
class NetCase(Case):
    """What the tests of a connection share: a listening socket, and the server that a test plays."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.join_threads)
        self.listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]

    def join_threads(self):
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive(), "a thread is left behind")

    def play_server(self, *actions):
        """Accept one client in a thread, receive its message, then do the actions with its socket.

        An action that is bytes is sent. Returns the list into which the message will be put.
        """
        received = []

        def play():
            sock, _ = self.listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                received.append(json.loads(sock.recv(10_000)))
                for action in actions:
                    if isinstance(action, bytes):
                        sock.sendall(action)
                    else:
                        action(sock)

        threading.Thread(target=play).start()
        return received


class Connect(NetCase):
    """connect: the first address of a server that accepts."""

    def test_next_address_of_a_name_is_tried(self):
        addresses = [("127.0.0.1", 0), ("127.0.0.1", self.port)]  # nobody can listen on port 0
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        with mock.patch("socket.getaddrinfo", return_value=found):
            with client.connect("a.name", self.port) as sock:
                self.assertEqual(sock.getpeername(), ("127.0.0.1", self.port))

    def test_one_address_has_half_of_the_time_and_the_connection_all_of_it(self):
        with mock.patch("socket.create_connection", wraps=socket.create_connection) as create_connection:
            with client.connect("127.0.0.1", self.port) as sock:
                self.assertEqual(sock.gettimeout(), 10.0)
        self.assertEqual(create_connection.call_args[1], {"timeout": 5.0})


class Exchange(NetCase):
    """exchange: one message out, one message in."""

    def exchange(self):
        return client.exchange("127.0.0.1", self.port, {"action": "x"})

    def test_sends_the_message_and_returns_the_response(self):
        received = self.play_server(b'{"response": 200}')
        self.assertEqual(self.exchange(), {"response": 200})
        self.assertEqual(received, [{"action": "x"}])

    def test_closes_the_connection(self):
        left = []
        self.play_server(b'{"response": 200}', lambda sock: left.append(sock.recv(10_000)))
        self.exchange()
        self.join_threads()
        self.assertEqual(left, [b""])

    def test_response_counts_though_the_server_did_not_read(self):
        def send_and_fail(sock, message):
            sock.sendall(b"{}")
            raise BrokenPipeError

        lines = (
            f"DEBUG connected to 127.0.0.1 port {self.port}",
            "DEBUG could not send, but the server may have answered: BrokenPipeError()",
            'DEBUG received {"response": 200}',
        )
        self.play_server(b'{"response": 200}')
        with mock.patch.object(client, "send_message", send_and_fail), self.assert_logged(*lines):
            self.assertEqual(self.exchange(), {"response": 200})


class ExchangeInTime(NetCase):
    """exchange_in_time: the whole exchange, within ten seconds."""

    def setUp(self):
        super().setUp()
        self.done = threading.Event()
        self.addCleanup(self.done.set)  # runs before the threads are joined

    def exchange(self):
        return client.exchange_in_time("127.0.0.1", self.port, {"action": "x"})

    def assert_times_out(self):
        with mock.patch.object(client, "EXCHANGE_TIMEOUT", 0.05), self.assertRaises(socket.timeout):
            self.exchange()

    def test_silent_server_is_given_up(self):
        self.assert_times_out()

    def test_dripping_server_is_given_up(self):
        def drip(sock):
            while not self.done.is_set():
                sock.sendall(b" ")

        self.play_server(drip)
        self.assert_times_out()

    def test_slow_look_up_of_a_name_is_given_up(self):
        def look_up(*_, **__):
            self.done.wait(PATIENCE)
            raise socket.gaierror

        with mock.patch("socket.getaddrinfo", look_up):
            self.assert_times_out()

    def test_ctrl_c_is_noticed_while_it_waits(self):
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.play_server(lambda sock: _thread.interrupt_main(), lambda sock: self.done.wait(PATIENCE))
        before = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            self.exchange()
        self.assertLess(time.monotonic() - before, 2.0)


class DescribeError(Case):
    """describe_error: what the user is told if the exchange fails."""

    def test_each_error_has_its_advice(self):
        table = (
            (socket.gaierror(-2, "?"), "unknown server ::5: check the name, or give an IP address"),
            (UnicodeError("?"), "unknown server ::5: check the name, or give an IP address"),
            (ProtocolError("not UTF-8"), "::5 port 80 does not speak JIM: not UTF-8"),
            (socket.timeout("?"), "no answer from ::5 port 80 in 10 s: does a JIM server run there?"),
            (ConnectionRefusedError(), "nothing is listening on ::5 port 80: is the server running?"),
            (ConnectionResetError(), "::5 port 80 closed the connection without an answer"),
            (BrokenPipeError(), "::5 port 80 closed the connection without an answer"),
            (OSError("no way"), "cannot reach ::5 port 80: no way"),
        )
        self.assert_results(lambda error: client.describe_error(error, "::5", 80, 9.96), table)


class ParseArgs(Case):
    """parse_args: the command line."""

    def test_defaults(self):
        expected = {"addr": "localhost", "port": 7777, "name": "Guest", "log_level": "DEBUG"}
        self.assertEqual(vars(client.parse_args(["localhost"])), expected)

    def test_everything(self):
        options = (("-n", 1, "DEBUG"), ("-n", 80, "INFO"), ("--name", 80, "WARNING"), ("-n", 65535, "ERROR"))
        for name, port, level in options:
            arguments = client.parse_args(["::1", str(port), name, "Ж" * 25, "--log-level", level])
            expected = {"addr": "::1", "port": port, "name": "Ж" * 25, "log_level": level}
            self.assertEqual(vars(arguments), expected)

    def test_help_names_the_defaults(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as stdout:
            client.parse_args(["--help"])
        defaults = re.findall(r"default:\s+(\w+)", stdout.getvalue())
        self.assertEqual(defaults, ["7777", "Guest", "DEBUG"])

    def test_usage_errors_are_explained(self):
        for argv, explanation in (
            (["::1", "0"], "a port is a number from 1 to 65535, not 0"),
            (["::1", "65536"], "a port is a number from 1 to 65535, not 65536"),
            (["::1", "-n", ""], "argument -n/--name: 'account_name' must be 1 to 25 characters long, not 0"),
            (["::1", "-n", "x" * 26], "must be 1 to 25 characters long, not 26"),
            (["::1", "http"], "http"),
            (["::1", ""], "port"),
            (["::1", "77.7"], "77.7"),
            (["::1", "7777", "8888"], "8888"),
            (["::1", "--log-level", "LOUD"], "LOUD"),
            ([], "addr"),
        ):
            with self.subTest(argv=argv), contextlib.redirect_stderr(io.StringIO()) as stderr:
                with self.assertRaises(SystemExit) as caught:
                    client.parse_args(argv)
                self.assertEqual(caught.exception.code, 2)
                self.assertIn(explanation, stderr.getvalue())


class FullFile(io.FileIO):
    """A file on a full disk: half of what is written still fits."""

    def write(self, data):
        super().write(data[: len(data) // 2])
        raise OSError("no space")


class LogCase(Case):
    """What the tests of the log share: a log file in a folder of its own, and what the console shows."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "log")
        self.file = self.folder / "client.log"
        self.enter(mock.patch.object(client_log_config, "LOG_FILE", str(self.file)))
        self.console = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.addCleanup(client_log_config.close_log)

    def logged(self):
        """Return level and message of the lines in the log file."""
        return without_times(self.file.read_text("utf-8"))

    def shown(self):
        """Return level and message of the lines on the console."""
        return without_times(self.console.getvalue())

    def full_disk(self):
        """Return a patch under which the log file is on a full disk."""
        self.folder.mkdir(exist_ok=True)
        return mock.patch.object(client_log_config, "open_log_file", lambda path: FullFile(path, "ab+"))


class OneLineFormatterTest(Case):
    """escape, OneLineFormatter.format: one record, one line."""

    def format(self, text, **fields):
        """Return the line of a record, without its date and time."""
        record = logging.makeLogRecord({"levelname": "INFO", "name": "client", "msg": text, **fields})
        line = client_log_config.OneLineFormatter(client_log_config.LINE_FORMAT).format(record)
        self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
        return line[len("2026-11-22 12:00:00,000 ") :]

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.format("text"), "INFO client text")

    def test_only_printable_characters_stay_as_they_are(self):
        table = (
            ("", ""),
            ("Жанна и 😀", "Жанна и 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO forged\r", r"a\n2026-11-22 12:00:00,000 INFO forged\r"),
            ("\x1b[2J\x00\x7f\t", r"\x1b[2J\x00\x7f\t"),
            ("\x85\u2028\u202e\ud800\U000e0001", r"\x85\u2028\u202e\ud800\U000e0001"),
        )
        self.assert_results(lambda text: self.format(text)[len("INFO client ") :], table)

    def test_traceback_is_part_of_the_line(self):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            line = self.format("text", exc_info=sys.exc_info())
        self.assertRegex(line, r"client text\\nTraceback .*\\nZeroDivisionError: by zero$")


class LogFile(LogCase):
    """LOG_FILE, LogFileHandler.emit, open_log_file, ends_inside_a_line: the file."""

    def setUp(self):
        self.assertEqual(client_log_config.LOG_FILE, os.path.join(HERE, "log", "client.log"))
        super().setUp()
        client_log_config.configure_log()

    def test_file_is_continued(self):
        LOG.info("ours")
        with open(self.file, "ab") as other:
            other.write(b"of another client\ncut o")
        client_log_config.configure_log()  # as a new client does
        LOG.info("ours again")
        self.assertEqual(self.logged(), ["INFO ours", "of another client", "cut o", "INFO ours again"])

    def test_folder_that_is_deleted_is_made_again(self):
        LOG.info("first")
        shutil.rmtree(self.folder)
        LOG.info("second")
        self.assertEqual(self.logged(), ["INFO second"])

    def test_cannot_be_written_is_said_once(self):
        self.folder.write_bytes(b"")  # a file where the folder should be
        LOG.debug("the program goes on")
        LOG.info("here, too")
        error, info = self.shown()
        self.assertIn(f"ERROR cannot write the log {self.file}, records are lost: ", error)
        self.assertEqual(info, "INFO here, too")

    def test_full_disk_is_said_once_and_no_record_continues_a_line_that_was_cut_off(self):
        LOG.debug("whole")
        with self.full_disk():
            for _ in range(3):
                LOG.debug("cut off")
        LOG.debug("next")
        error = f"ERROR cannot write the log {self.file}, records are lost: no space"
        self.assertEqual(self.shown(), [error])
        lines = self.logged()
        self.assertEqual((lines[0], lines[-1]), ("DEBUG whole", "DEBUG next"))

    def test_wrong_call_of_the_logger_is_no_error_of_the_file(self):
        LOG.debug("%d", "not a number")
        self.assertIn("TypeError", self.console.getvalue())
        self.assertNotIn("cannot write", self.console.getvalue())


class ConfigureLog(LogCase):
    """configure_log, is_for_console, close_log: what goes where."""

    def test_before_it_and_after_close_records_go_nowhere(self):
        LOG.error("nobody sees this")
        client_log_config.configure_log()
        client_log_config.close_log()
        LOG.error("nobody sees this")
        self.assertEqual((self.folder.exists(), self.shown()), (False, []))

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(logging.getLogger(), "DEBUG") as logs:
            logging.getLogger("another").warning("a record of another")
            LOG.warning("our record")
        self.assertEqual(logs.output, ["WARNING:another:a record of another"])

    def test_line_is_the_same_in_the_file_and_on_the_console(self):
        client_log_config.configure_log()
        LOG.info("from %s\n", "Жанна")
        self.assertEqual(self.shown(), [r"INFO from Жанна\n"])
        self.assertEqual(self.file.read_bytes().decode(), self.console.getvalue())

    def test_file_takes_the_level_and_above_and_the_console_info_and_error(self):
        levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                client_log_config.configure_log(level)
                for each in levels:
                    LOG.log(getattr(logging, each), "text")
                self.assertEqual(self.logged(), [f"{each} text" for each in levels[number:]])
                self.file.unlink()
        self.assertEqual(self.shown(), ["INFO text", "ERROR text"] * 4)

    def test_second_call_replaces_the_first(self):
        client_log_config.configure_log()
        client_log_config.configure_log()
        LOG.info("once")
        self.assertEqual((self.logged(), self.shown()), (["INFO once"], ["INFO once"]))

    def test_without_a_console_the_file_is_written(self):
        with contextlib.redirect_stderr(None):
            client_log_config.configure_log()
            LOG.info("text")
        self.assertEqual(self.logged(), ["INFO text"])


class Main(LogCase, NetCase):
    """main, run: from the command line to the exit code."""

    def run_main(self, *argv):
        """Run the client; return its exit code and what the console shows."""
        self.console.truncate(self.console.seek(0))
        code = client.main([*argv])
        return code, [line.replace(f"127.0.0.1 port {self.port}", "SERVER") for line in self.shown()]

    def answer(self, data, *options):
        """Run the client against a server that answers with `data`."""
        self.received = self.play_server(data)
        result = self.run_main("127.0.0.1", str(self.port), *options)
        self.join_threads()
        return result

    def test_answer_is_one_line_and_an_exit_code(self):
        table = (
            (b'{"response": 200, "alert": "fine"}', (0, ["INFO 200 : fine"])),
            (b'{"response": 100}', (0, ["INFO 100 : OK"])),
            (b'{"response": 202}', (0, ["INFO 202 : OK"])),
            (b'{"response": 400, "error": "no"}', (1, ["ERROR 400 : no"])),
            (b'{"response": 500}', (1, ["ERROR 500 : server error"])),
            (b'{"code": 200}', (1, ["ERROR SERVER does not speak JIM: 'response' is missing"])),
            (b'{"response": 2', (1, ["ERROR SERVER does not speak JIM: the message is cut short"])),
            (b"", (1, ["ERROR SERVER closed the connection without an answer"])),
        )
        self.assert_results(self.answer, table)

    def test_nobody_there(self):
        self.listener.close()
        line = "ERROR nothing is listening on SERVER: is the server running?"
        self.assertEqual(self.run_main("127.0.0.1", str(self.port)), (1, [line]))
        self.assertRegex(self.logged()[-1], r"^DEBUG the cause: ConnectionRefusedError\(\d+, ")

    def test_silent_server(self):
        line = "ERROR no answer from SERVER in 0 s: does a JIM server run there?"
        with mock.patch.object(client, "EXCHANGE_TIMEOUT", 0.02):
            self.assertEqual(self.run_main("127.0.0.1", str(self.port)), (1, [line]))

    def test_impossible_name_is_an_unknown_server(self):
        for name in ("a..b", "a" * 64, "é" * 64):
            line = f"ERROR unknown server {name}: check the name, or give an IP address"
            with self.subTest(name=name):
                self.assertEqual(self.run_main(name), (1, [line]))

    def test_ctrl_c_is_one_line_and_exit_code_130(self):
        with mock.patch.object(client, "exchange_in_time", side_effect=KeyboardInterrupt):
            self.assertEqual(self.run_main("127.0.0.1"), (130, ["ERROR stopped by Ctrl+C"]))

    def test_sends_jims_full_form_with_the_name_of_the_command_line(self):
        for name, options in (("Guest", ()), ("Жанна", ("-n", "Жанна"))):
            self.answer(b'{"response": 200}', *options)
            user = {"account_name": name, "status": "Yep, I am here!"}
            presence = {"action": "presence", "time": mock.ANY, "type": "status", "user": user}
            self.assertEqual(self.received, [presence])

    def test_log_tells_the_story(self):
        self.answer(b'{"response": 200}')
        verbs = [line.split()[1] for line in self.logged()]
        self.assertEqual(verbs, ["created", "connected", "sent", "received", "processed", "200"])

    def test_log_level_is_that_of_the_log_file(self):
        self.answer(b'{"response": 200}', "--log-level", "INFO")
        self.assertEqual(self.logged(), ["INFO 200 : OK"])

    def test_log_is_closed_at_the_end(self):
        self.answer(b'{"response": 200}')
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), ["INFO 200 : OK"])


RUN = []  # how a script is run: by Python itself ...
if (
    os.name == "nt"
):  # ... but on Windows by this program: it presses Ctrl+C in its console, at a line on stdin
    RUN = [
        "-c",
        """if True:
        import os, runpy, signal, sys, threading

        def press_ctrl_c():
            if sys.stdin.readline():
                os.kill(0, signal.CTRL_C_EVENT)

        threading.Thread(target=press_ctrl_c, daemon=True).start()
        sys.argv = sys.argv[1:]
        sys.path.insert(0, os.path.dirname(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
        """,
    ]


def press_ctrl_c(process):
    """Press Ctrl+C in the console of a process."""
    if os.name == "nt":
        process.stdin.write("\n")
        process.stdin.flush()
    else:
        process.send_signal(signal.SIGINT)


class Script(NetCase):
    """client.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (client, client_log_config):
            copy = self.folder / os.path.relpath(module.__file__, HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def run_script(self, act):
        """Run the script in another folder; call `act` with its process and the server's socket.

        Returns the exit code and what the script shows, on a console that has only ASCII.
        """
        process = subprocess.Popen(
            [sys.executable, *RUN, str(self.folder / "client.py"), "127.0.0.1", str(self.port)],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: a console of its own
        )
        self.enter(process)
        self.addCleanup(process.kill)
        sock = self.enter(self.listener.accept()[0])
        sock.settimeout(PATIENCE)
        sock.recv(10_000)
        act(process, sock)
        _, shown = process.communicate(timeout=PATIENCE)
        return process.returncode, without_times(shown)

    def test_accepted(self):
        result = self.run_script(lambda process, sock: sock.sendall(b'{"response": 200}'))
        self.assertEqual(result, (0, ["INFO 200 : OK"]))
        self.assertTrue((self.folder / "log" / "client.log").exists())

    def test_characters_that_the_console_does_not_have(self):
        answer = '{"response": 400, "error": "Ж"}'.encode()
        result = self.run_script(lambda process, sock: sock.sendall(answer))
        self.assertEqual(result, (1, ["ERROR 400 : \\u0416"]))

    def test_ctrl_c(self):
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        result = self.run_script(lambda process, sock: press_ctrl_c(process))
        self.assertEqual(result, (130, ["ERROR stopped by Ctrl+C"]))

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import client"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)


if __name__ == "__main__":
    unittest.main()
