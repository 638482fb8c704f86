"""Tests of client.py and client_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_client              all of them
    python -m unittest -v test_client           the same, with their names: what the client does

Each class says first which functions it tests. A test states one fact and is named for it; cases of one kind
are the lines of a table. No test sleeps or leaves a file behind.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from unittest import mock

import client
import client_log_config
from client import LOG, ProtocolError

PATIENCE = 20.0  # seconds that a test waits before it fails
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) client (.*)$")
# WebAssembly has no sockets, threads or processes: tests that need them are skipped there.
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets")


def without_times(text):
    """Return the lines of a log as "<level> <message>"; a line of another form stays as it is."""
    return [LINE.sub(r"\1 \2", line) for line in text.splitlines()]


class Case(unittest.TestCase):
    """What all tests share."""

    def enter(self, context):
        """Enter a `with` context that lasts until the test ends; return its value."""
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def assert_results(self, function, table):
        """Call a function with each line of a table. The last item of the line is the expected result."""
        for *arguments, result in table:
            with self.subTest(arguments=arguments):
                self.assertEqual(function(*arguments), result)

    def assert_errors(self, function, table):
        """Call a function with each line of a table. The last item is the text of the ProtocolError."""
        for *arguments, error in table:
            with self.subTest(arguments=arguments):
                with self.assertRaises(ProtocolError) as caught:
                    function(*arguments)
                self.assertEqual(str(caught.exception), error)


class CreatePresence(Case):
    """create_presence: the message that a user is here."""

    def test_without_arguments_it_is_of_a_guest(self):
        presence = {"action": "presence", "time": mock.ANY, "user": {"account_name": "Guest"}}
        self.assertEqual(client.create_presence(), presence)

    def test_with_a_status_it_is_jims_full_form(self):
        user = {"account_name": "Жанна", "status": ""}
        presence = {"action": "presence", "time": mock.ANY, "type": "status", "user": user}
        self.assertEqual(client.create_presence("Жанна", ""), presence)

    def test_time_is_now_as_a_float(self):
        before = time.time()
        now = client.create_presence()["time"]
        self.assertTrue(isinstance(now, float) and before <= now <= time.time(), now)


class ProcessResponse(Case):
    """process_response: the server's response as text."""

    def test_code_and_alert_or_error_or_the_meaning_of_the_code(self):
        table = (
            ({"response": 202, "time": 1.5, "alert": "Принято"}, "202 : Принято"),
            ({"response": 400, "error": "Bad Request"}, "400 : Bad Request"),
            ({"response": 404, "error": "gone", "alert": ""}, "404 : gone"),
            ({"response": 500, "alert": "sorry", "error": "unseen"}, "500 : sorry"),
            ({"response": 410, "error": "", "alert": None}, "410 : offline"),
            *[({"response": code}, f"{code} : OK") for code in (100, 101, 200, 201, 202)],
        )
        self.assert_results(client.process_response, table)

    def test_only_jims_codes_are_valid(self):
        valid = []
        for code in range(1000):
            with contextlib.suppress(ProtocolError):
                client.process_response({"response": code})
                valid.append(code)
        self.assertEqual(valid, [100, 101, 200, 201, 202, 400, 401, 402, 403, 404, 409, 410, 500])

    def test_response_is_missing(self):
        self.assert_errors(client.process_response, [({"RESPONSE": 200}, "'response' is missing")])

    def test_code_of_another_type_is_refused_and_its_beginning_shown(self):
        digits = "12345678901234567890"
        table = (
            ("200", "'200'"),
            (None, "None"),
            (True, "True"),
            (200.0, "200.0"),
            (int(digits * 2), digits),
        )
        for code, shown in table:
            error = f"'response' must be a number, one of JIM's codes, not {shown}"
            self.assert_errors(client.process_response, [({"response": code}, error)])


# How bytes are fed to the functions that take messages. Their result must not depend on it.

BEHIND = (b"", b"\n", b'{"b": 2}', b"]", b"hello", b"\xff", b"\xd0", b"]" * 1000)
PROBE = b'{"action": "probe", "time": 1}'
RESPONSE = b'{"response": 200}'


def splits(data):
    """Yield lists of pieces that make `data`: whole, cut in two anywhere, byte by byte."""
    yield [data]
    for end in range(1, len(data)):
        yield [data[:end], data[end:]]
    yield [data[i : i + 1] for i in range(len(data))]


class Pieces:
    """Stands for a socket: each `recv` returns the next piece, or raises it; b"" is the end of the stream."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.timeout = None

    def settimeout(self, timeout):
        self.timeout = timeout

    def recv(self, size):
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        if piece[size:]:
            self.pieces.insert(0, piece[size:])
        return piece[:size]


VALID = (  # text, message
    ("{}", {}),
    ('{"a": "Ж\\u0416😀\\ud83d\\ude00\ufffd\\ud800"}', {"a": "ЖЖ😀😀\ufffd\ud800"}),
    ('{"a": "q\\"\\\\\\/\\b\\f\\n\\r\\t}{]"}', {"a": 'q"\\/\b\f\n\r\t}{]'}),
    ('{"}\\\\": "\\\\\\"}", "": "\\\\"}', {"}\\": '\\"}', "": "\\"}),
    ('{"n": [-0.5e-7, 0, -12, 1E+2, 12.25], "": {}}', {"n": [-0.5e-7, 0, -12, 100.0, 12.25], "": {}}),
    ('{ "w" :\r\n\t[true , false, null], "o": {"x": [ ]}}', {"w": [True, False, None], "o": {"x": []}}),
)
INVALID = (  # bytes, error: it is known at the last of these bytes
    (b"hello", "a message is a JSON object and cannot start with b'h'"),
    (b"[1, 2]", "a message is a JSON object and cannot start with b'['"),
    (b'{"a": NaN', "not JSON: NaN is not allowed"),
    (b'{"a": Infinity', "not JSON: Infinity is not allowed"),
    (b'{"a": {"b": -Infinity', "not JSON: -Infinity is not allowed"),
    (b'{"a" 1}', "not JSON at character 6: Expecting ':' delimiter"),
    (b'{"a": "\xff"}', "the message is not UTF-8"),
    (b'{"a": "\xf0\x9f\x98"}', "the message is not UTF-8"),
    (b'{"a": "\xed\xa0\x80"}', "the message is not UTF-8"),
    (b'{"a": "' + b"x" * 633, "the message is longer than 640 characters"),
    (b'{"a": ' + b"[" * 634, "the message is longer than 640 characters"),
    (b"{" + b" " * 639, "the message is longer than 640 characters"),
)
FAULTS = (  # Python's parser words these errors
    "{\\", '{"a":\\', '{"a":[1}', "{]", '{"a": {]', "{1}", "{X: [X]}", "{a: 1}", "{'a': 1}", '{"a"}',
    '{"a" 1}', '{"a": }', '{"a": 1,}', '{"a": [1,]}', '{"a": 01}', '{"a": 1.}', '{"a": 0x1}', '{"a": True}',
    '{"a": "\n"}', '{"a": "\\x"}', '{"a": "\\u12x4"}', '{"a": "b" "c"}',
)  # fmt: skip


class TakeMessage(Case):
    """take_message, is_incomplete, refuse_nan: where a message ends, and what is not a message."""

    def test_message_and_the_bytes_after_it(self):
        for text, message in VALID:
            table = [(text.encode() + behind, (message, behind)) for behind in BEHIND]
            self.assert_results(client.take_message, table)

    def test_every_beginning_of_a_message_is_incomplete(self):
        for text, _ in VALID:
            data = text.encode()
            table = [(data[:end], (None, data[:end])) for end in range(len(data))]
            self.assert_results(client.take_message, table)

    def test_white_space_before_a_message_is_removed(self):
        self.assertEqual(client.take_message(b"\r\n\t {} \n"), ({}, b" \n"))
        self.assertEqual(client.take_message(b"\t\r\n "), (None, b""))

    def test_640_characters_are_accepted_but_not_641_however_many_bytes_they_are(self):
        for char in "xЖ😀":
            longest, too_long = (f'{{"a": "{char * n}"}}'.encode() for n in (631, 632))
            self.assertEqual(client.take_message(longest), ({"a": char * 631}, b""))
            self.assert_errors(client.take_message, [(too_long, "the message is longer than 640 characters")])

    def test_invalid_messages(self):
        self.assert_errors(client.take_message, INVALID)

    def test_fault_is_refused_at_its_last_character_and_not_earlier(self):
        for text in FAULTS:
            with self.subTest(text=text):
                data = text.encode()
                self.assertEqual(client.take_message(data[:-1]), (None, data[:-1]))
                with self.assertRaisesRegex(ProtocolError, r"^not JSON at character \d+: .+$"):
                    client.take_message(data)


class SendMessage(Case):
    """send_message: one message out."""

    def test_sends_json_with_all_characters_as_they_are(self):
        sock = mock.Mock()
        client.send_message(sock, {"account_name": "Жанна", "time": 1.5})
        sock.sendall.assert_called_once_with('{"account_name": "Жанна", "time": 1.5}'.encode())


class ReceiveResponse(Case):
    """receive_response, receive_piece: one response in, in however many pieces."""

    def receive(self, *pieces):
        return client.receive_response(Pieces(*pieces), time.monotonic() + PATIENCE)

    def test_response_in_any_pieces(self):
        for text, message in VALID:
            table = [(*pieces, message) for pieces in splits(text.encode())]
            self.assert_results(self.receive, table)

    def test_messages_with_an_action_are_skipped(self):
        for data in (PROBE + RESPONSE, b" %b\r\n%b " % (PROBE, RESPONSE), PROBE * 3 + RESPONSE):
            table = [(*pieces, {"response": 200}) for pieces in splits(data)]
            self.assert_results(self.receive, table)

    def test_what_follows_the_response_is_ignored(self):
        self.assert_results(self.receive, [(RESPONSE + behind, {"response": 200}) for behind in BEHIND])

    def test_end_without_a_response(self):
        for pieces in ((), (b" \r\n",), (PROBE,)):
            with self.subTest(pieces=pieces):
                with self.assertRaisesRegex(ConnectionError, "^the server has closed the connection$"):
                    self.receive(*pieces)

    def test_end_inside_a_message(self):
        beginnings = (b"{", b'{"response": 200', b'{"a": "\xd0', PROBE + b" {")
        self.assert_errors(self.receive, [(data, "the message is cut short") for data in beginnings])

    def test_white_space_or_requests_without_end_are_given_up(self):
        self.enter(mock.patch.multiple(client, RECEIVE_BYTES=100, MAX_STEPS=3))
        for piece in (b" ", PROBE):
            self.assert_errors(self.receive, [(*[piece] * 9, "there is no response in 3 steps")])

    def test_call_that_times_out_is_repeated(self):
        self.assertEqual(self.receive(socket.timeout(), RESPONSE), {"response": 200})

    def test_waits_in_short_steps_so_that_windows_notices_ctrl_c(self):
        sock = Pieces(RESPONSE)
        client.receive_response(sock, time.monotonic() + PATIENCE)
        self.assertEqual(sock.timeout, client.STEP)

    def test_skipped_requests_and_all_bytes_also_invalid_ones_are_logged(self):
        with mock.patch.object(client, "RECEIVE_BYTES", 100), self.assertLogs(LOG, "DEBUG") as logs:
            with self.assertRaises(ProtocolError):
                self.receive(PROBE, "Ж".encode() + b"\xff")
        messages = [record.getMessage() for record in logs.records]
        self.assertEqual(messages[1:], ["skipped a request", r"received Ж\xff"])


@needs_sockets
class NetCase(Case):
    """What the tests of a connection share: a socket that listens on a free port."""

    def setUp(self):
        super().setUp()
        self.listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        """Accept a client; return its socket and its message, in however many pieces that arrives."""
        sock = self.enter(self.listener.accept()[0])
        sock.settimeout(PATIENCE)
        data, message = b"", None
        while message is None:
            piece = sock.recv(10_000)
            self.assertTrue(piece, "the client closed before its message was complete")
            message, data = client.take_message(data + piece)
        return sock, message


class Exchange(NetCase):
    """exchange: one message out, one response in. It runs in a thread; the test plays the server."""

    def start_exchange(self):
        """Start the exchange; return its future, an object whose `result` waits for what it returns."""
        pool = self.enter(ThreadPoolExecutor(1))
        return pool.submit(client.exchange, "127.0.0.1", self.port, {"action": "x"})

    def test_sends_the_message_returns_the_response_and_closes(self):
        future = self.start_exchange()
        sock, message = self.accept()
        self.assertEqual(message, {"action": "x"})
        sock.sendall(RESPONSE)
        self.assertEqual(future.result(), {"response": 200})
        self.assertEqual(sock.recv(1), b"")

    def test_silent_server_is_given_up(self):
        with mock.patch.multiple(client, EXCHANGE_TIMEOUT=0.05, STEP=0.01):
            with self.assertRaises(socket.timeout):
                self.start_exchange().result()

    def test_dripping_server_is_given_up(self):
        with mock.patch.object(client, "EXCHANGE_TIMEOUT", 0.05):
            future = self.start_exchange()
            sock, _ = self.accept()
            while not wait([future], 0.005).done:
                with contextlib.suppress(OSError):  # it may have closed by now
                    sock.sendall(b" ")
        self.assertIsInstance(future.exception(), socket.timeout)


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
            (OSError("no way"), "cannot reach ::5 port 80: no way"),
        )
        self.assert_results(lambda error: client.describe_error(error, "::5", 80), table)


class ParseArgs(Case):
    """parse_args: the command line."""

    def test_defaults(self):
        expected = {"addr": "localhost", "port": 7777, "name": "Guest", "log_level": "DEBUG"}
        self.assertEqual(vars(client.parse_args(["localhost"])), expected)

    def test_everything(self):
        for option, name, port, level in (
            ("-n", "x", 1, "DEBUG"),
            ("-n", "two words", 80, "INFO"),
            ("--name", "Ж" * 25, 65535, "WARNING"),
        ):
            arguments = client.parse_args(["::1", str(port), option, name, "--log-level", level])
            expected = {"addr": "::1", "port": port, "name": name, "log_level": level}
            self.assertEqual(vars(arguments), expected)

    def test_usage_errors_are_explained(self):
        for argv, explanation in (
            (["0"], "a port is a number from 1 to 65535, not 0"),
            (["65536"], "a port is a number from 1 to 65535, not 65536"),
            (["-n", ""], "a name is 1 to 25 printable characters, not ''"),
            (["-n", "x" * 26], f"a name is 1 to 25 printable characters, not '{'x' * 26}'"),
            (["-n", "two\nlines"], r"a name is 1 to 25 printable characters, not 'two\nlines'"),
            (["--log-level", "LOUD"], "argument --log-level: invalid choice: 'LOUD'"),
        ):
            with self.subTest(argv=argv), contextlib.redirect_stderr(io.StringIO()) as stderr:
                with self.assertRaisesRegex(SystemExit, "^2$"):
                    client.parse_args(["::1", *argv])
                self.assertIn(f"error: {explanation}", stderr.getvalue())


class LogCase(Case):
    """What the tests of the log share: a log file in a folder of its own, and the lines on the console."""

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
        """Return level and message of the lines that the console has shown since the last call."""
        text = self.console.getvalue()
        self.console.truncate(self.console.seek(0))
        return without_times(text)


class OneLineFormatter(Case):
    """OneLineFormatter.format: one record, one line."""

    def format(self, text, **fields):
        """Return the line of a record."""
        record = logging.makeLogRecord({"levelname": "INFO", "name": "client", "msg": text, **fields})
        return client_log_config.OneLineFormatter(client_log_config.LINE_FORMAT).format(record)

    def test_line_is_time_level_module_message(self):
        self.assertRegex(self.format("text"), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO client text$")

    def test_only_printable_characters_stay_as_they_are(self):
        table = (
            ("Жанна и 😀", "Жанна и 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO forged\r", r"a\n2026-11-22 12:00:00,000 INFO forged\r"),
            ("\x1b[2J\x00\x7f\t", r"\x1b[2J\x00\x7f\t"),
            ("\x85\u2028\u202e\ud800", r"\x85\u2028\u202e\ud800"),
        )
        self.assert_results(lambda text: LINE.sub(r"\2", self.format(text)), table)

    def test_traceback_is_part_of_the_line(self):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            line = self.format("text", exc_info=sys.exc_info())
        self.assertRegex(line, r"client text\\nTraceback .*\\nZeroDivisionError: by zero$")


class Append(LogCase):
    """append: a line at the end of a file."""

    def append(self, text):
        """Append to the log file; return its text."""
        client_log_config.append(str(self.file), text)
        return self.file.read_bytes().decode()

    def test_makes_the_folder_and_the_file_and_then_continues_it(self):
        self.assert_results(self.append, (("Ж\n", "Ж\n"), ("x\n", "Ж\nx\n"), ("y\n", "Ж\nx\ny\n")))

    def test_line_that_was_cut_off_is_not_continued(self):
        self.append("c")
        self.assertEqual(self.append("next\n"), "c\nnext\n")


class LogFileHandler(LogCase):
    """LogFileHandler.emit: a record to the file."""

    def setUp(self):
        super().setUp()
        client_log_config.configure_log()

    def test_folder_that_is_deleted_is_made_again(self):
        LOG.info("first")
        shutil.rmtree(self.folder)
        LOG.info("second")
        self.assertEqual(self.logged(), ["INFO second"])

    def test_full_disk_is_reported_once(self):
        with mock.patch.object(client_log_config, "append", side_effect=OSError("no space")):
            LOG.debug("lost")
            LOG.info("only on the console")
        error = f"ERROR cannot write the log {self.file}: no space"
        self.assertEqual(self.shown(), [error, "INFO only on the console"])

    def test_file_in_the_place_of_the_folder_is_reported_once(self):
        self.folder.write_bytes(b"")
        LOG.debug("lost")
        LOG.debug("lost, too")
        [error] = self.shown()
        self.assertRegex(error, "^ERROR cannot write the log ")


class ConfigureLog(LogCase):
    """configure_log, close_log: which records go where."""

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

    def log_each_level(self):
        LOG.debug("text")
        LOG.info("text")
        LOG.error("text")
        return self.logged(), self.shown()

    def test_file_takes_all_levels_and_the_console_info_and_error(self):
        client_log_config.configure_log()
        console = ["INFO text", "ERROR text"]
        self.assertEqual(self.log_each_level(), (["DEBUG text", *console], console))

    def test_level_is_that_of_the_file_only(self):
        client_log_config.configure_log("ERROR")
        self.assertEqual(self.log_each_level(), (["ERROR text"], ["INFO text", "ERROR text"]))

    def test_second_call_replaces_the_first(self):
        client_log_config.configure_log()
        client_log_config.configure_log()
        LOG.info("once")
        self.assertEqual((self.logged(), self.shown()), (["INFO once"], ["INFO once"]))


class Main(LogCase):
    """main, run: from the command line to a line on the console and an exit code."""

    def run_main(self, response, *options):
        """Run the client. Its exchange returns this response, or raises it if it is an error."""
        with mock.patch.object(client, "exchange", side_effect=[response]) as self.exchange:
            code = client.main(["127.0.0.1", *options])
        return code, self.shown()

    def test_result_is_one_line_and_an_exit_code(self):
        server = "127.0.0.1 port 7777"
        table = (
            ({"response": 202, "alert": "fine"}, (0, ["INFO 202 : fine"])),
            ({"response": 400, "error": "no"}, (1, ["ERROR 400 : no"])),
            ({"response": 500, "error": "%d"}, (1, ["ERROR 500 : %d"])),
            ({"code": 200}, (1, [f"ERROR {server} does not speak JIM: 'response' is missing"])),
            (ConnectionResetError(), (1, [f"ERROR {server} closed the connection without an answer"])),
            (UnicodeError(), (1, ["ERROR unknown server 127.0.0.1: check the name, or give an IP address"])),
        )
        self.assert_results(self.run_main, table)

    def test_sends_jims_full_form_with_the_name_of_the_command_line_to_its_port(self):
        self.run_main({"response": 200}, "8888", "-n", "Жанна")
        user = {"account_name": "Жанна", "status": "Yep, I am here!"}
        presence = {"action": "presence", "time": mock.ANY, "type": "status", "user": user}
        self.exchange.assert_called_once_with("127.0.0.1", 8888, presence)

    def test_log_level_of_the_command_line_is_that_of_the_file(self):
        self.run_main({"response": 400}, "--log-level", "ERROR")
        self.assertEqual(self.logged(), ["ERROR 400 : wrong request or JSON"])

    def test_log_is_closed_at_the_end(self):
        self.run_main({"response": 200})
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), [])


PROGRAM = """
import os, runpy, signal, sys, threading
press_ctrl_c = lambda: sys.stdin.readline() and os.kill(0, signal.CTRL_C_EVENT)
threading.Thread(target=press_ctrl_c, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RUN = ["-c", PROGRAM] if os.name == "nt" else []  # Windows: it presses Ctrl+C when a line arrives on stdin


class Script(NetCase):
    """client.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (client, client_log_config):
            copy = self.folder / os.path.relpath(module.__file__, os.path.dirname(__file__))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start_script(self):
        """Start the script from another folder; return its process and, once that is accepted, its socket."""
        process = subprocess.Popen(
            [sys.executable, *RUN, str(self.folder / "client.py"), "127.0.0.1", str(self.port)],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: a console of its own
        )
        self.enter(process)
        self.addCleanup(process.kill)
        return process, self.accept()[0]

    def assert_ends(self, process, code, line, stdin=None):
        """Fail unless the process, given this text on stdin, shows this line and ends with this exit code."""
        _, shown = process.communicate(stdin, timeout=PATIENCE)
        self.assertEqual((process.returncode, without_times(shown)), (code, [line]))

    def test_accepted_and_the_log_beside_it_tells_the_story(self):
        process, sock = self.start_script()
        sock.sendall(RESPONSE)
        self.assert_ends(process, 0, "INFO 200 : OK")
        lines = without_times((self.folder / "log" / "client.log").read_text("utf-8"))
        verbs = dict.fromkeys(line.split()[1] for line in lines)  # each once, in their order
        self.assertEqual([*verbs], ["created", "connected", "sent", "received", "processed", "200"])

    def test_ctrl_c_while_it_waits(self):
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        process, _ = self.start_script()
        if os.name != "nt":
            process.send_signal(signal.SIGINT)
        self.assert_ends(process, 130, "ERROR stopped by Ctrl+C", stdin="\n")

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import client"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)


if __name__ == "__main__":
    unittest.main()
