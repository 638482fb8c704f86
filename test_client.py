"""Tests of client.py and client_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest -v test_client           -v shows their names: what the client does

Each class says first which functions it tests. A test states one fact, never sleeps, leaves no file behind.
"""

from __future__ import annotations

import contextlib
import io
import itertools
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import client
import client_log_config
from client import LOG, ProtocolError

PATIENCE = 20  # seconds that a test waits before it fails, and only then
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets, no processes")


class CreatePresence(unittest.TestCase):
    """create_presence: the message that a user is here."""

    def test_without_arguments_it_is_a_guest(self):
        user = {"account_name": "Guest"}
        self.assertEqual(client.create_presence(), {"action": "presence", "time": mock.ANY, "user": user})

    def test_with_a_status_it_has_jims_full_form(self):
        presence = client.create_presence("Жанна", "")  # an empty status is a status
        self.assertEqual(presence["user"], {"account_name": "Жанна", "status": ""})
        self.assertEqual(presence["type"], "status")

    def test_time_is_now(self):
        self.assertIsInstance(client.create_presence()["time"], float)  # some servers insist on it
        self.assertAlmostEqual(client.create_presence()["time"], time.time(), delta=PATIENCE)


class ProcessResponse(unittest.TestCase):
    """process_response: a response as text."""

    def test_code_and_alert_or_error(self):
        for message, text in (
            ({"response": 202, "time": 1.5, "alert": "Принято"}, "202 : Принято"),
            ({"response": 400, "error": "Bad Request"}, "400 : Bad Request"),
            ({"response": 500, "alert": "sorry", "error": "unseen"}, "500 : sorry"),
            ({"response": 404, "alert": "", "error": "gone"}, "404 : gone"),
        ):
            self.assertEqual(client.process_response(message), text)

    def test_only_jims_codes_are_valid_and_have_a_meaning(self):
        texts = {}
        for code in range(1000):
            with contextlib.suppress(ProtocolError):
                texts[code] = client.process_response({"response": code, "error": ""})
        meanings = {
            **dict.fromkeys((100, 101, 200, 201, 202), "OK"), 400: "wrong request or JSON", 403: "blocked",
            401: "not authorised", 402: "wrong login or password", 404: "no such user or chat",
            409: "already connected", 410: "offline", 500: "server error",
        }  # fmt: skip
        self.assertEqual(texts, {code: f"{code} : {meaning}" for code, meaning in meanings.items()})

    def test_code_of_another_type_is_refused_and_its_beginning_shown(self):
        for code in ("200", 200.0, True, None, [200], int("12345" * 20)):
            error = re.escape(f"'response' must be a number, one of JIM's codes, not {repr(code)[:20]}")
            with self.subTest(code=code), self.assertRaisesRegex(ProtocolError, f"^{error}$"):
                client.process_response({"response": code})

    def test_missing_response_is_an_error_with_the_keys_that_are_there(self):
        for message, keys in (
            ({"responce": 200, "time": 1}, "['responce', 'time']"),
            ({"x" * 600: 1}, f"['{'x' * 58}"),  # at most 60 characters
        ):
            error = re.escape(f"'response' is missing, the keys are {keys}")
            with self.subTest(message=message), self.assertRaisesRegex(ProtocolError, f"^{error}$"):
                client.process_response(message)


@needs_sockets
class ConnectionCase(unittest.TestCase):
    """What the next two have in common: two sockets that are connected with each other."""

    def setUp(self):
        self.ours, self.server = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.server.close)


class SendMessage(ConnectionCase):
    """send_message: one message out."""

    def test_sends_json_with_its_characters_as_they_are_but_for_half_a_character(self):
        client.send_message(self.ours, {"account_name": "Жанна \udcff", "time": 1.5})
        self.assertEqual(self.server.recv(999).decode(), '{"account_name": "Жанна ?", "time": 1.5}')


class ReceiveResponse(ConnectionCase):
    """receive_response, receive_piece: one response in."""

    def receive(self, data):
        """Return the response if the server sends `data`, and then nothing more."""
        self.server.sendall(data)
        self.server.shutdown(socket.SHUT_WR)
        return client.receive_response(self.ours)

    def test_response_in_any_pieces(self):
        data = '{"response": 200, "alert": "Жанна"}'.encode()
        for size in range(1, len(data)):
            self.server.sendall(data)
            with mock.patch.object(client, "RECEIVE_BYTES", size):
                self.assertEqual(client.receive_response(self.ours), {"response": 200, "alert": "Жанна"})

    def test_longest_response_byte_by_byte(self):
        alert = "😀" * 608  # 640 characters with the rest; each is four bytes
        with mock.patch.object(client, "RECEIVE_BYTES", 1):
            response = self.receive(f'{{"response": 200, "alert": "{alert}"}}'.encode())
        self.assertEqual(response["alert"], alert)

    def test_what_follows_is_ignored(self):
        self.assertEqual(self.receive(b'{"response": 200}hello\xff'), {"response": 200})

    def test_messages_with_an_action_are_skipped_and_shown(self):
        with self.assertLogs(LOG, "INFO") as logs:
            response = self.receive(b'{"action": "probe"}{"action": "msg"}{"response": 200}')
        self.assertEqual(response, {"response": 200})
        self.assertIn("{'action': 'probe'}", logs.output[0])
        self.assertIn("{'action': 'msg'}", logs.output[1])

    def test_message_with_an_action_and_a_response_is_the_response(self):
        data = b'{"action": "presence", "response": 200}'
        self.assertEqual(self.receive(data), {"action": "presence", "response": 200})

    def test_message_without_an_action_is_the_response(self):
        self.assertEqual(self.receive(b'{"code": 200}'), {"code": 200})

    def test_server_closes_between_messages(self):
        with self.assertRaises(ConnectionError):
            self.receive(b'{"action": "probe"} \r\n')

    def test_server_closes_inside_a_message(self):
        with self.assertRaisesRegex(ProtocolError, "^the message is cut short$"):
            self.receive(b'{"response": 200')

    def test_server_that_sends_without_end_is_given_up(self):
        with mock.patch.multiple(client, RECEIVE_BYTES=1, MAX_STEPS=3):
            with self.assertRaisesRegex(ProtocolError, "^there is no response in 3 steps$"):
                self.receive(b" " * 99)

    def test_silent_server_is_given_up(self):
        with mock.patch.multiple(client, TIMEOUT=0.05, WAIT=0.01), self.assertRaises(socket.timeout):
            client.receive_response(self.ours)

    def test_server_that_drips_has_no_more_time(self):
        clock = mock.Mock(side_effect=itertools.count())  # each look at it takes a second
        with mock.patch.multiple(client, RECEIVE_BYTES=1, monotonic=clock), self.assertRaises(socket.timeout):
            self.receive(b" " * 99)
        self.assertEqual(clock.call_count, 11)

    def test_what_has_arrived_is_logged_also_invalid_bytes(self):
        with self.assertLogs(LOG, "DEBUG") as logs, contextlib.suppress(ProtocolError):
            self.receive("Ж".encode() + b"\xff")
        self.assertEqual(logs.records[0].getMessage(), r"received Ж\xff")


VALID = (  # text, message
    ('{"a": "Ж\\u0416😀\\ud83d\\ude00\\n"}', {"a": "ЖЖ😀😀\n"}),
    ('{"a": "q\\"}\\\\"}', {"a": 'q"}\\'}),  # an escaped quote; an escaped backslash, then a quote
    ('{ "}{" :\r\n\t[true , [-1.5e-7], null], "": {"": [ ]}}', {"}{": [True, [-1.5e-7], None], "": {"": []}}),
    ('{"a": "' + "😀" * 631 + '"}', {"a": "😀" * 631}),  # 640 characters, 2533 bytes
)
START = "a message is a JSON object and cannot start with "
TOO_LONG = "the message is longer than 640 characters"
INVALID = (  # bytes, the beginning of the error: it is known with the last of these bytes
    (b"h", START + "b'h'"),
    (b"\xff", START + r"b'\xff'"),
    (b"{'a': 1}", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b'{\\"a\\": 1}', "not JSON: Expecting property name enclosed in double quotes"),
    (b'{"a": [1}', "not JSON: Expecting ',' delimiter"),
    (b'{"a": [-Infinity]}', "not JSON: -Infinity is not allowed"),
    (b'{"a": "\xff"}', "not UTF-8: 'utf-8' codec can't decode byte 0xff in position 7"),
    (b'{"a": "' + b"x" * 632 + b'"}', TOO_LONG),  # 641 characters
    (b'{"a": "' + b"\xff" * 2551 + b'"}', "not UTF-8: "),  # 2560 bytes
    (b'{"a": "' + b"\xff" * 2554, TOO_LONG),  # 2561 bytes
)


class TakeMessage(unittest.TestCase):
    """take_message, find_end, parse_message, refuse_nan: where a message ends, and what is not a message."""

    def test_message_and_the_bytes_after_it(self):
        for text, message in VALID:
            for rest in (b"", b'{"b": 2}', b"]", b"hello", b"\xd0", b"}" * 3000):
                with self.subTest(text=text, rest=rest):
                    self.assertEqual(client.take_message(text.encode() + rest), (message, rest))

    def test_beginning_of_a_message_is_incomplete(self):
        for text, _ in VALID:
            data = text.encode()
            for end in range(0, len(data), len(data) // 99 + 1):
                self.assertEqual(client.take_message(data[:end]), (None, data[:end]))

    def test_whitespace_and_byte_order_mark_around_a_message_are_ignored(self):
        for space in (b" \t\r\n", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf ", b" " * 999):
            with self.subTest(space=space):
                self.assertEqual(client.take_message(space + b"{}" + space), ({}, b""))
                self.assertEqual(client.take_message(b"{}" + space + b'{"b'), ({}, b'{"b'))
        self.assertEqual(client.take_message(b" \xef\xbb"), (None, b""))

    def test_invalid_message_is_refused_with_its_last_byte_and_not_before_whatever_follows(self):
        for data, error in INVALID:
            self.assertIsNone(client.take_message(data[:-1])[0])
            for rest in (b"", b"}", b'"}' * 2000):
                with self.subTest(data=data), self.assertRaisesRegex(ProtocolError, "^" + re.escape(error)):
                    client.take_message(data + rest)


class Case(unittest.TestCase):
    """What the tests below share."""

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.enter = stack.enter_context  # enters a `with` context that lasts until the test ends


@needs_sockets
class NetCase(Case):
    """What the tests of a connection share: a socket that listens on a free port."""

    def setUp(self):
        super().setUp()
        self.listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        """Accept a client; return its socket and its message."""
        sock = self.enter(self.listener.accept()[0])
        sock.settimeout(PATIENCE)
        return sock, client.take_message(sock.recv(10_000))[0]


class Exchange(NetCase):
    """exchange: one message out, one response in. It runs in a thread; the test plays the server."""

    def test_sends_the_message_returns_the_response_and_closes(self):
        pool = self.enter(ThreadPoolExecutor(1))
        future = pool.submit(client.exchange, "127.0.0.1", self.port, {"action": "x"})
        sock, message = self.accept()
        self.assertEqual(message, {"action": "x"})
        sock.sendall(b'{"response": 200}')
        self.assertEqual(future.result(), {"response": 200})
        self.assertEqual(sock.recv(1), b"")


class DescribeError(unittest.TestCase):
    """describe_error: what the user is told if the exchange fails."""

    def test_each_error_has_its_advice(self):
        colon = "unknown server ::5: check it; write the port after a space, not after a colon"
        for error, text in (
            (socket.gaierror(-2, "no such name"), colon),
            (UnicodeError("malformed"), colon),
            (ProtocolError("not UTF-8"), "::5 port 80 does not speak JIM: not UTF-8"),
            (socket.timeout("?"), "no answer from ::5 port 80 in 10 s: does a JIM server run there?"),
            (ConnectionRefusedError(), "nothing is listening on ::5 port 80: is the server running?"),
            (ConnectionResetError(), "::5 port 80 closed the connection without an answer"),
            (OSError("no way"), "cannot reach ::5 port 80: no way"),
        ):
            self.assertEqual(client.describe_error(error, "::5", 80), text)


class ParseArgs(unittest.TestCase):
    """parse_args: the command line."""

    def test_arguments(self):
        defaults = {"addr": "::1", "port": 7777, "name": "Guest", "verbose": False, "log_level": "DEBUG"}
        self.assertEqual(vars(client.parse_args(["::1"])), defaults)
        for port in (1, 65535):
            everything = {
                "addr": "x",
                "port": port,
                "name": "two words",
                "verbose": True,
                "log_level": "INFO",
            }
            argv = ["x", str(port), "--name", "two words", "-v", "--log-level", "INFO"]
            self.assertEqual(vars(client.parse_args(argv)), everything)

    def test_name_is_1_to_25_characters_of_any_kind(self):
        for name in ("x", "Ж" * 25, "می\u200cخواهم", "no\xa0break", "👨\u200d👩\u200d👧", "a\udcff"):
            self.assertEqual(client.parse_args(["::1", "-n", name]).name, name)

    def test_usage_errors_are_explained(self):
        for argv, explanation in (
            (["::1", "0"], "a port is a number from 1 to 65535, not 0"),
            (["::1", "65536"], "a port is a number from 1 to 65535, not 65536"),
            (["::1", "-n", ""], "a name has 1 to 25 characters, not 0"),
            (["::1", "-n", "x" * 26], "a name has 1 to 25 characters, not 26"),
            (["7777"], "7777 is not an address: give the address first, then the port"),
        ):
            with self.subTest(argv=argv), contextlib.redirect_stderr(io.StringIO()) as stderr:
                with self.assertRaisesRegex(SystemExit, "^2$"):
                    client.parse_args(argv)
                self.assertIn(f"error: {explanation}\n", stderr.getvalue())


def without_times(text):
    """Return the lines of a log as "<level> <message>"; a line of another form stays as it is."""
    line = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) client (.*)$")
    return [line.sub(r"\1 \2", each) for each in text.splitlines()]


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


class Main(LogCase):
    """main, run: from the command line to a line on the console and an exit code."""

    def run_main(self, response, *options):
        """Run the client. Its exchange returns this response, or raises it if it is an error."""
        self.exchange = self.enter(mock.patch.object(client, "exchange", side_effect=[response]))
        return client.main(["127.0.0.1", *options])

    def test_result_is_one_line_and_an_exit_code(self):
        server = "127.0.0.1 port 7777"
        for response, code, line in (
            ({"response": 202, "alert": "fine"}, 0, "INFO 202 : fine"),
            ({"response": 400, "error": "%d"}, 1, "ERROR 400 : %d"),
            ({}, 1, f"ERROR {server} does not speak JIM: 'response' is missing, the keys are []"),
            (ConnectionResetError(), 1, f"ERROR {server} closed the connection without an answer"),
            (KeyboardInterrupt(), 130, "ERROR stopped by Ctrl+C"),
        ):
            with self.subTest(response=response):
                self.assertEqual(self.run_main(response), code)
                self.assertEqual(self.shown()[-1], line)
        self.assertEqual(len(self.shown()), 5)

    @needs_sockets  # WebAssembly believes that each name has an address
    def test_address_that_cannot_be_one(self):
        for address in ("a..b", "Ж" * 70, "127.0.0.1:7777"):
            self.assertEqual(client.main([address]), 1)
            self.assertIn("write the port after a space, not after a colon", self.shown()[-1])

    def test_sends_jims_full_form_with_the_name_of_the_command_line_to_its_port(self):
        self.run_main({"response": 200}, "8888", "-n", "Жанна")
        user = {"account_name": "Жанна", "status": "Yep, I am here!"}
        presence = {"action": "presence", "time": mock.ANY, "type": "status", "user": user}
        self.exchange.assert_called_once_with("127.0.0.1", 8888, presence)

    def test_verbose_console_shows_what_the_file_has(self):
        self.run_main({"response": 200}, "-v")
        self.assertEqual(self.shown()[0], "DEBUG created a presence of Guest")
        self.assertEqual(self.shown(), self.logged())

    def test_log_level_is_the_lowest_level_anywhere(self):
        self.run_main({"response": 200}, "-v", "--log-level", "ERROR")
        self.assertEqual(self.shown(), [])
        self.assertFalse(self.folder.exists())


class OneLineFormatter(unittest.TestCase):
    """OneLineFormatter, escape: one record, one line; a traceback follows, indented."""

    def test_only_printable_characters_of_the_message_stay_as_they_are(self):
        formatter = client_log_config.OneLineFormatter("[%(levelname)-8s]\t%(message)s")
        for text, line in (
            ("Жанна's 😀", "Жанна's 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO client b", r"a\n2026-11-22 12:00:00,000 INFO client b"),
            ("\x1b[2J\r\x00\t\x85\u2028\u202e\ud800", r"\x1b[2J\r\x00\t\x85\u2028\u202e\ud800"),
        ):
            record = logging.makeLogRecord({"levelname": "INFO", "msg": text})
            self.assertEqual(formatter.format(record), f"[INFO    ]\t{line}")

    def test_traceback_is_indented_and_escaped(self):
        try:
            raise ZeroDivisionError("by\n2026-11-22 INFO forged\x1b\ud800")
        except ZeroDivisionError:
            record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
        lines = client_log_config.OneLineFormatter("%(message)s").format(record).split("\n")
        self.assertEqual(lines[:2], ["failed", "    Traceback (most recent call last):"])
        self.assertEqual(lines[-2:], ["    ZeroDivisionError: by", r"    2026-11-22 INFO forged\x1b\ud800"])


class LogFileHandler(LogCase):
    """LogFileHandler.emit: a record to the file."""

    def setUp(self):
        super().setUp()
        client_log_config.configure_log()

    def test_record_is_one_line_with_time_level_module_and_message(self):
        LOG.info("Ж\n")
        self.assertEqual(self.logged(), [r"INFO Ж\n"])

    def test_folder_that_is_deleted_is_made_again(self):
        LOG.info("first")
        shutil.rmtree(self.folder)
        LOG.info("second")
        self.assertEqual(self.logged(), ["INFO second"])

    def test_log_that_cannot_be_written_is_reported_once_and_stops_nothing(self):
        self.file.mkdir(parents=True)  # a folder in the place of the file
        LOG.debug("lost")
        LOG.info("only on the console")
        error, line = self.shown()
        self.assertIn(f"ERROR cannot write the log {self.file}: ", error)
        self.assertEqual(line, "INFO only on the console")

    def test_slip_in_a_call_of_log_is_shown_and_stops_nothing(self):
        LOG.debug("connected: %d", "x")
        LOG.info("next")
        self.assertIn(f'File "{__file__}"', self.console.getvalue())
        self.assertEqual(self.logged(), ["INFO next"])


class ConfigureLog(LogCase):
    """configure_log, close_log: which records go where."""

    def test_before_it_and_after_close_log_records_go_nowhere(self):
        LOG.error("nobody sees this")
        client_log_config.configure_log()
        client_log_config.close_log()
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), [])
        self.assertFalse(self.folder.exists())

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(level="DEBUG") as logs:
            logging.getLogger("another").warning("not ours")
            LOG.warning("ours")
        self.assertEqual(logs.output, ["WARNING:another:not ours"])

    def test_file_takes_all_levels_and_the_console_info_and_above(self):
        client_log_config.configure_log()
        client_log_config.configure_log()  # replaces the first
        for level in client_log_config.LEVELS:
            LOG.log(getattr(logging, level), "text")
        self.assertEqual(self.logged(), ["DEBUG text", "INFO text", "WARNING text", "ERROR text"])
        self.assertEqual(self.shown(), ["INFO text", "WARNING text", "ERROR text"])


# On Windows, only a process itself can press Ctrl+C: this one runs the script, and does so when a line comes.
RUN_ON_WINDOWS = """
import os, runpy, signal, sys, threading
press_ctrl_c = lambda: sys.stdin.readline() and os.kill(0, signal.CTRL_C_EVENT)
threading.Thread(target=press_ctrl_c, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PYTHON = [sys.executable, "-c", RUN_ON_WINDOWS] if os.name == "nt" else [sys.executable]


class Script(NetCase):
    """client.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (client, client_log_config):
            copy = self.folder / os.path.relpath(module.__file__, os.path.dirname(client.__file__))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self, *options):
        """Start the script in another current folder; return its process."""
        process = subprocess.Popen(
            [*PYTHON, str(self.folder / "client.py"), "127.0.0.1", str(self.port), *options],
            cwd=tempfile.gettempdir(), env={**os.environ, "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: a console of its own
        )  # fmt: skip
        self.enter(process)
        self.addCleanup(process.kill)
        return process

    def test_exchange_and_the_log_of_it(self):
        process = self.start("-v")
        sock, message = self.accept()
        self.assertEqual(message["user"]["account_name"], "Guest")
        sock.sendall(b'{"response": 200}')
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)
        verbs = [line.split()[1] for line in without_times(shown) if "DEBUG received" not in line]
        self.assertEqual(verbs, ["created", "connected", "sent", "processed", "200"])
        self.assertEqual((self.folder / "log" / "client.log").read_text("utf-8"), shown)

    def test_ctrl_c_while_it_waits(self):
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        process = self.start()
        self.accept()
        if os.name != "nt":
            process.send_signal(signal.SIGINT)
        _, shown = process.communicate("press Ctrl+C\n", timeout=PATIENCE)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(without_times(shown), ["ERROR stopped by Ctrl+C"])

    def test_usage_error_touches_no_file(self):
        _, shown = self.start("--name", "").communicate(timeout=PATIENCE)
        self.assertIn("a name has 1 to 25 characters, not 0", shown)
        self.assertEqual(list(self.folder.rglob("*.log")), [])


if __name__ == "__main__":
    unittest.main()
