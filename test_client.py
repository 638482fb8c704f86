"""Tests of client.py and client_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_client              all of them
    python -m unittest -v test_client           the same, with their names: what the client does

A test states one fact and is named for it. A class says first which functions it is about. None of the
tests sleeps or leaves a file behind.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
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
from unittest import mock

import client
import client_log_config
from client import LOG, ProtocolError

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1700000000.5  # seconds since 1970, for a clock that stands still
PATIENCE = 10.0  # seconds that a test waits before it fails, and only then
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) client (.*)")
needs_sockets = unittest.skipIf(
    sys.platform == "emscripten", "WebAssembly has no sockets, threads, processes"
)


class CreatePresence(unittest.TestCase):
    """create_presence, check_string: the message that a user is present."""

    def create(self, *arguments):
        with mock.patch("client.time", return_value=NOW):
            return client.create_presence(*arguments)

    def assert_invalid(self, error, *arguments):
        with self.assertRaises(ProtocolError) as caught:
            client.create_presence(*arguments)
        self.assertEqual(str(caught.exception), error)

    def test_without_a_status(self):
        expected = {"action": "presence", "time": NOW, "user": {"account_name": "C0deMaver1ck"}}
        self.assertEqual(self.create("C0deMaver1ck"), expected)

    def test_with_a_status_it_is_jims_full_form(self):
        user = {"account_name": "Жанна", "status": "here"}
        expected = {"action": "presence", "time": NOW, "type": "status", "user": user}
        self.assertEqual(self.create("Жанна", "here"), expected)

    def test_name_is_guest_by_default(self):
        self.assertEqual(self.create()["user"], {"account_name": "Guest"})

    def test_empty_status_is_a_status(self):
        self.assertEqual(self.create("x", "")["user"], {"account_name": "x", "status": ""})

    def test_time_is_now_as_a_float(self):
        before = time.time()
        now = client.create_presence()["time"]
        self.assertIsInstance(now, float)
        self.assertTrue(before <= now <= time.time(), now)

    def test_valid_names(self):
        for name in ("x", "Ж" * 25, "\n\ud800"):
            with self.subTest(name=name):
                self.assertEqual(self.create(name)["user"]["account_name"], name)

    def test_invalid_names(self):
        for name, error in (
            ("", "'account_name' must be 1 to 25 characters long, not 0"),
            ("x" * 26, "'account_name' must be 1 to 25 characters long, not 26"),
            (None, "'account_name' must be a string, not null"),
            (5, "'account_name' must be a string, not a number"),
            (b"Guest", "'account_name' must be a string, not something else"),
        ):
            with self.subTest(name=name):
                self.assert_invalid(error, name)

    def test_status_that_is_not_a_string(self):
        for status, found in ((5, "a number"), (False, "a boolean"), (["here"], "an array")):
            with self.subTest(status=status):
                self.assert_invalid(f"'status' must be a string, not {found}", "Guest", status)

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.create_presence("Guest")
        self.assertEqual(logs.output, ["DEBUG:client:created a presence of Guest"])


class ProcessResponse(unittest.TestCase):
    """process_response, response_code, wrong_type_error: the server's answer as text."""

    def assert_invalid(self, message, error):
        with self.assertRaises(ProtocolError) as caught:
            client.process_response(message)
        self.assertEqual(str(caught.exception), error)

    def test_code_and_text(self):
        for message, text in (
            ({"response": 200, "alert": "OK"}, "200 : OK"),
            ({"response": 202, "time": 1.5, "alert": "Принято"}, "202 : Принято"),
            ({"response": 400, "error": "Bad Request"}, "400 : Bad Request"),
            ({"response": 404, "error": "gone", "alert": ""}, "404 : gone"),
            ({"response": 500, "alert": "sorry", "error": "unseen"}, "500 : sorry"),
            ({"response": 200, "alert": 5}, "200 : 5"),
        ):
            with self.subTest(message=message):
                self.assertEqual(client.process_response(message), text)

    def test_code_without_a_text(self):
        for text in (
            "100 : OK",
            "101 : OK",
            "200 : OK",
            "201 : OK",
            "202 : OK",
            "400 : wrong request or JSON",
            "401 : not authorised",
            "402 : wrong login or password",
            "403 : blocked",
            "404 : no such user or chat",
            "409 : already connected",
            "410 : offline",
            "500 : server error",
        ):
            for texts in ({}, {"alert": None, "error": ""}):
                message = {"response": int(text[:3]), **texts}
                with self.subTest(message=message):
                    self.assertEqual(client.process_response(message), text)

    def test_code_is_missing(self):
        for message in ({}, {"alert": "OK"}, {"code": 200}, {"RESPONSE": 200}):
            with self.subTest(message=message):
                self.assert_invalid(message, "'response' is missing")

    def test_code_that_is_not_a_number(self):
        for code, found in (
            ("200", "a string"),
            ("200 OK", "a string"),
            (None, "null"),
            (True, "a boolean"),
            ([200], "an array"),
            ({}, "an object"),
        ):
            with self.subTest(code=code):
                self.assert_invalid({"response": code}, f"'response' must be a number, not {found}")

    def test_code_that_jim_does_not_have(self):
        for code in (0, 1, -200, 99, 199, 203, 299, 300, 405, 501, 999, 200.0, 200.5):
            with self.subTest(code=code):
                self.assert_invalid({"response": code}, f"'response' is not one of JIM's codes: {code}")

    def test_very_long_code_is_shown_in_part(self):
        error = "'response' is not one of JIM's codes: " + "1" * 20
        self.assert_invalid({"response": int("1" * 600)}, error)

    def test_not_an_object(self):
        for message, found in (([], "an array"), ("200", "a string"), (200, "a number"), (None, "null")):
            with self.subTest(message=message):
                self.assert_invalid(message, f"'message' must be an object, not {found}")

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.process_response({"response": 200})
        self.assertEqual(logs.output, ["DEBUG:client:processed a response, code 200"])


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

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def recv(self, size):
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
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
    (b"GET / HTTP/1.1\r\n", "a message is a JSON object and cannot start with 'G'"),
    (b"[1, 2]", "a message is a JSON object and cannot start with '['"),
    (b"42", "a message is a JSON object and cannot start with '4'"),
    (b'"a"', "a message is a JSON object and cannot start with '\"'"),
    (b"null", "a message is a JSON object and cannot start with 'n'"),
    (b"}", "a message is a JSON object and cannot start with '}'"),
    (b"\x16\x03\x01", r"a message is a JSON object and cannot start with '\x16'"),
    (b"\xef\xbb\xbf{}", r"a message is a JSON object and cannot start with '\ufeff'"),
    (b'{"a": NaN', "not JSON: NaN is not a number"),
    (b'{"a": [Infinity', "not JSON: Infinity is not a number"),
    (b'{"a": {"b": -Infinity', "not JSON: -Infinity is not a number"),
    (b"\xff", "the message is not UTF-8"),
    (b'{"a": "\xff', "the message is not UTF-8"),
    (b'{"a": "\xc0\xaf', "the message is not UTF-8"),
    (b'{"a": "\xd0(', "the message is not UTF-8"),
    (b'{"a": "\xf0\x9f\x98"', "the message is not UTF-8"),
    (b'{"a": "\xed\xa0', "the message is not UTF-8"),
    (b'{"a": "' + b"x" * 633, "the message is longer than 640 characters"),
    (b'{"a": "' + "я".encode() * 633, "the message is longer than 640 characters"),
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


class TakeMessage(unittest.TestCase):
    """take_message, decode_utf8, is_incomplete, refuse_constant: where a message ends, and what is none."""

    def assert_refused(self, data, error):
        with self.assertRaises(ProtocolError) as caught:
            client.take_message(data)
        self.assertEqual(str(caught.exception), error)

    def test_message_and_its_length_in_bytes(self):
        for text, message in VALID:
            length = len(text.rstrip().encode())
            for behind in BEHIND:
                with self.subTest(text=text, behind=behind):
                    self.assertEqual(client.take_message(text.encode() + behind), (message, length))

    def test_every_beginning_is_waited_for(self):
        for text, _ in VALID:
            data = text.rstrip().encode()
            for end in range(len(data)):
                with self.subTest(data=data[:end]):
                    self.assertEqual(client.take_message(data[:end]), (None, 0))

    def test_invalid_messages(self):
        for data, error in INVALID:
            with self.subTest(data=data):
                self.assert_refused(data, error)

    def test_invalid_messages_with_more_behind(self):
        for data, error in INVALID:
            with self.subTest(data=data):
                self.assert_refused(data + b"x" * 1000, error)

    def test_fault_in_an_object_is_named_with_its_place(self):
        self.assert_refused(b'{"a" 1 ', "not JSON: Expecting ':' delimiter at character 6")

    def test_fault_in_an_object_is_seen_at_once(self):
        for text in FAULTS_IN_AN_OBJECT:
            with self.subTest(text=text):
                with self.assertRaisesRegex(ProtocolError, r"^not JSON: .+ at character \d+$"):
                    client.take_message(text.encode())

    def test_fault_is_named_before_the_length(self):
        self.assert_refused(b'{"a" 1 ' + b"x" * 999, "not JSON: Expecting ':' delimiter at character 6")

    def test_fault_is_named_before_bytes_that_are_not_utf8(self):
        self.assert_refused(b'{"a" 1 \xff', "not JSON: Expecting ':' delimiter at character 6")

    def test_639_characters_are_waited_for(self):
        self.assertEqual(client.take_message(b'{"a": "' + "я".encode() * 632), (None, 0))

    def test_641_characters_are_refused_though_they_are_an_object(self):
        data = b'{"a": "' + "я".encode() * 632 + b'"}'
        self.assert_refused(data, "the message is longer than 640 characters")


class ReceiveMessage(unittest.TestCase):
    """receive_message: one message in, in however many pieces."""

    def assert_receives(self, message, *pieces):
        with self.subTest(pieces=pieces):
            self.assertEqual(client.receive_message(Pieces(pieces)), message)

    def assert_raises(self, kind, error, *pieces):
        with self.subTest(pieces=pieces), self.assertRaises(kind) as caught:
            client.receive_message(Pieces(pieces))
        self.assertEqual(str(caught.exception), error)

    def test_message_in_any_pieces(self):
        for text, message in VALID:
            for pieces in splits(text.encode()):
                self.assert_receives(message, *pieces)

    def test_whitespace_before_a_message_does_not_count(self):
        for spaces in (b" ", b"\r\n\t ", b" " * 1000):
            self.assert_receives({"a": 1}, spaces, spaces + b'{"a"', b": 1}")

    def test_what_follows_is_ignored(self):
        for behind in BEHIND:
            self.assert_receives({"a": 1}, b'{"a": 1}' + behind)

    def test_invalid_message_is_refused_while_the_connection_lasts(self):
        for data, error in INVALID:
            self.assert_raises(ProtocolError, error, data, b"never read")

    def test_end_without_an_answer(self):
        for pieces in ((), (b" \r\n",)):
            self.assert_raises(ConnectionError, "the server closed the connection without an answer", *pieces)

    def test_end_inside_a_message(self):
        for data in (b"{", b'{"response": 200', b'{"a": "\xd0', b"\xd0"):
            self.assert_raises(ProtocolError, "the message is cut short", data)

    def test_asks_for_receive_bytes(self):
        sock = mock.Mock(recv=mock.Mock(return_value=b'{"a": 1}'))
        client.receive_message(sock)
        sock.recv.assert_called_with(client.RECEIVE_BYTES)

    def test_is_logged_also_if_it_is_invalid(self):
        for data, record in (
            (b'{"a": "\xd0\x96"}', 'received {"a": "Ж"}'),
            (b"hello", "received hello"),
            (b" {]", "received {]"),
            (b'{"a": "\xff', r'received {"a": "\xff'),
            (b"", "received nothing"),
        ):
            pieces = [data[i : i + 1] for i in range(len(data))]
            with self.subTest(data=data), self.assertLogs(LOG, "DEBUG") as logs:
                with contextlib.suppress(OSError, ValueError):
                    client.receive_message(Pieces(pieces))
                shown = logs.output[0][len("DEBUG:client:") :]
                self.assertTrue(record.startswith(shown), shown)


@needs_sockets
class SendMessage(unittest.TestCase):
    """send_message: one message out."""

    def setUp(self):
        self.sock, self.server = socket.socketpair()
        self.addCleanup(self.server.close)
        self.addCleanup(self.sock.close)
        self.server.settimeout(PATIENCE)

    def sent(self, message):
        client.send_message(self.sock, message)
        return self.server.recv(10_000)

    def test_sends_json(self):
        self.assertEqual(self.sent({"action": "x", "time": 1.5}), b'{"action": "x", "time": 1.5}')

    def test_characters_are_sent_as_they_are(self):
        self.assertEqual(self.sent({"account_name": "Жанна"}), '{"account_name": "Жанна"}'.encode())

    def test_lone_surrogate_is_sent_as_an_escape(self):
        self.assertEqual(self.sent({"account_name": "\ud800"}), b'{"account_name": "\\ud800"}')

    def test_sends_all_of_a_long_message(self):
        received = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: self.server.recv(65536), b"")))
        reader.start()
        client.send_message(self.sock, {"a": "x" * 10_000_000})
        self.sock.close()
        reader.join(PATIENCE)
        self.assertEqual(sum(map(len, received)), 10_000_009)

    def test_goes_over_a_plain_socket_pair_and_back(self):
        client.send_message(self.server, {"response": 200})
        self.assertEqual(client.receive_message(self.sock), {"response": 200})

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.send_message(self.sock, {"a": "Ж"})
        self.assertEqual(logs.output, ['DEBUG:client:sent {"a": "Ж"}'])


@needs_sockets
class NetCase(unittest.TestCase):
    """What the tests of a connection share: a listening socket, and the server that a test plays."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.join_threads)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.addCleanup(self.listener.close)
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

    def test_to_an_address(self):
        with client.connect("127.0.0.1", self.port) as sock:
            self.assertEqual(sock.getpeername(), ("127.0.0.1", self.port))

    def test_nobody_listens(self):
        self.listener.close()
        with self.assertRaises(OSError):
            client.connect("127.0.0.1", self.port)

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

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.connect("127.0.0.1", self.port).close()
        self.assertEqual(logs.output, [f"DEBUG:client:connected to 127.0.0.1 port {self.port}"])


class Exchange(NetCase):
    """exchange: one message out, one message in."""

    def test_sends_the_message_and_returns_the_response(self):
        received = self.play_server(b'{"response": 200}')
        self.assertEqual(client.exchange("127.0.0.1", self.port, {"action": "x"}), {"response": 200})
        self.assertEqual(received, [{"action": "x"}])

    def test_closes_the_connection(self):
        left = []
        self.play_server(b'{"response": 200}', lambda sock: left.append(sock.recv(10_000)))
        client.exchange("127.0.0.1", self.port, {"action": "x"})
        self.join_threads()
        self.assertEqual(left, [b""])

    def test_response_counts_though_the_server_did_not_read(self):
        def send_and_fail(sock, message):
            sock.sendall(b"{}")
            raise BrokenPipeError

        self.play_server(b'{"response": 200}')
        with mock.patch("client.send_message", send_and_fail), self.assertLogs(LOG, "DEBUG") as logs:
            self.assertEqual(client.exchange("127.0.0.1", self.port, {}), {"response": 200})
        self.assertIn("DEBUG:client:not sent, but perhaps answered: BrokenPipeError()", logs.output)


class ExchangeInTime(NetCase):
    """exchange_in_time: the whole exchange, within ten seconds."""

    def exchange(self):
        return client.exchange_in_time("127.0.0.1", self.port, {"action": "x"})

    def test_returns_the_response(self):
        self.play_server(b'{"response": 200}')
        self.assertEqual(self.exchange(), {"response": 200})

    def test_raises_what_the_exchange_raises(self):
        self.play_server(b"hello")
        with self.assertRaisesRegex(ProtocolError, "cannot start with 'h'"):
            self.exchange()

    def test_silent_server_is_given_up(self):
        with mock.patch("client.EXCHANGE_TIMEOUT", 0.02), self.assertRaises(socket.timeout):
            self.exchange()

    def test_dripping_server_is_given_up(self):
        def drip(sock):
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(b" ")

        self.play_server(drip)
        with mock.patch("client.EXCHANGE_TIMEOUT", 0.05), self.assertRaises(socket.timeout):
            self.exchange()
        with mock.patch("client.take_message", side_effect=OSError):  # or the thread would go on for ever
            self.join_threads()

    def test_slow_look_up_of_a_name_is_given_up(self):
        answer = threading.Event()
        self.addCleanup(answer.set)  # runs before the threads are joined

        def look_up(*_, **__):
            answer.wait(PATIENCE)
            raise socket.gaierror

        with mock.patch("socket.getaddrinfo", look_up), mock.patch("client.EXCHANGE_TIMEOUT", 0.02):
            with self.assertRaises(socket.timeout):
                client.exchange_in_time("a.slow.name", self.port, {})

    def test_ctrl_c_is_noticed_while_it_waits(self):
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, handler)
        done = threading.Event()
        self.play_server(lambda sock: _thread.interrupt_main(), lambda sock: done.wait(PATIENCE))
        self.addCleanup(done.set)
        before = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            self.exchange()
        self.assertLess(time.monotonic() - before, 2.0)


class DescribeError(unittest.TestCase):
    """describe_error: what the user is told if the exchange fails."""

    def test_each_error_has_its_advice(self):
        for error, text in (
            (socket.gaierror(-2, "?"), "unknown server ::5: check the name, or give an IP address"),
            (UnicodeError("?"), "unknown server ::5: check the name, or give an IP address"),
            (ProtocolError("not UTF-8"), "::5 port 80 does not speak JIM: not UTF-8"),
            (socket.timeout("?"), "no answer from ::5 port 80 in 10 s: does a JIM server run there?"),
            (ConnectionRefusedError(), "nothing is listening on ::5 port 80: is the server running?"),
            (ConnectionResetError(), "::5 port 80 closed the connection without an answer"),
            (BrokenPipeError(), "::5 port 80 closed the connection without an answer"),
            (OSError("no way"), "cannot reach ::5 port 80: no way"),
        ):
            with self.subTest(error=error):
                self.assertEqual(client.describe_error(error, "::5", 80, 9.96), text)

    def test_time_that_was_really_waited(self):
        self.assertIn(" in 5 s: ", client.describe_error(socket.timeout(), "::5", 80, 5.02))


class ParseArgs(unittest.TestCase):
    """parse_args: the command line."""

    def assert_usage_error(self, *argv):
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as stderr:
            client.parse_args(list(argv))
        self.assertEqual(caught.exception.code, 2)
        return stderr.getvalue()

    def test_defaults(self):
        expected = {"addr": "localhost", "port": 7777, "name": "Guest", "log_level": "DEBUG"}
        self.assertEqual(vars(client.parse_args(["localhost"])), expected)

    def test_everything(self):
        expected = {"addr": "::1", "port": 8888, "name": "Жанна", "log_level": "ERROR"}
        for name in ("-n", "--name"):
            arguments = client.parse_args(["::1", "8888", name, "Жанна", "--log-level", "ERROR"])
            self.assertEqual(vars(arguments), expected)

    def test_lowest_and_highest_port(self):
        for port in (1, 65535):
            with self.subTest(port=port):
                self.assertEqual(client.parse_args(["::1", str(port)]).port, port)

    def test_levels(self):
        for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
            with self.subTest(level=level):
                self.assertEqual(client.parse_args(["::1", "--log-level", level]).log_level, level)

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
            with self.subTest(argv=argv):
                self.assertIn(explanation, self.assert_usage_error(*argv))


class LogFilePath(unittest.TestCase):
    """LOG_FILE: where the log is, whatever the current folder."""

    def test_is_in_the_folder_log_beside_the_scripts(self):
        self.assertEqual(client_log_config.LOG_FILE, os.path.join(HERE, "log", "client.log"))


class LogCase(unittest.TestCase):
    """What the tests of the log share: a log file in a folder of its own, and what the console shows."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "log")
        self.log_file = os.path.join(self.folder, "client.log")
        patch = mock.patch.object(client_log_config, "LOG_FILE", self.log_file)
        patch.start()
        self.addCleanup(patch.stop)
        self.console = io.StringIO()
        redirection = contextlib.redirect_stderr(self.console)
        redirection.__enter__()
        self.addCleanup(redirection.__exit__, None, None, None)
        self.addCleanup(client_log_config.close_log)

    def logged_bytes(self):
        with open(self.log_file, "rb") as log:
            return log.read()

    def logged(self):
        """Return the messages of the lines in the log file."""
        return [LINE.fullmatch(line).group(2) for line in self.logged_bytes().decode().splitlines()]

    def shown(self):
        """Return level and message of the lines on the console."""
        return [" ".join(LINE.fullmatch(line).groups()) for line in self.console.getvalue().splitlines()]

    def full_disk(self):
        """Return a patch under which half of what is written to the log file fits on the disk."""

        class FullFile(io.FileIO):
            def write(self, data):
                super().write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "no space")

        def open_full_file(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return FullFile(path, "ab+")

        return mock.patch.object(client_log_config, "open_log_file", open_full_file)


class Escape(unittest.TestCase):
    """escape, escape_character: only printable characters get through."""

    def test_printable_text_stays_as_it_is(self):
        for text in ("", "200 : OK", "Жанна и 😀", r"a \n that somebody typed"):
            with self.subTest(text=text):
                self.assertEqual(client_log_config.escape(text), text)

    def test_other_characters_are_escaped(self):
        for text, escaped in (
            ("a\nb\r", r"a\nb\r"),
            ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
            ("\x85\u2028\u202e\ud800", r"\x85\u2028\u202e\ud800"),
            ("Ж\t\U000e0001", r"Ж\t\U000e0001"),
        ):
            with self.subTest(text=text):
                self.assertEqual(client_log_config.escape(text), escaped)


class OneLineFormatterTest(unittest.TestCase):
    """OneLineFormatter.format: one record, one line."""

    def format(self, text, **fields):
        formatter = client_log_config.OneLineFormatter(client_log_config.LINE_FORMAT)
        formatter.converter = time.gmtime  # UTC, wherever the test runs
        fields = {
            "created": NOW,
            "msecs": 500.0,
            "levelname": "INFO",
            "name": "client",
            "msg": text,
            **fields,
        }
        return formatter.format(logging.makeLogRecord(fields))

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.format("text"), "2023-11-14 22:13:20,500 INFO client text")

    def test_line_breaks_of_a_peer_are_escaped(self):
        line = self.format("a\n2023-11-14 22:13:20,500 INFO client forged\u2028")
        self.assertEqual(line[24:], r"INFO client a\n2023-11-14 22:13:20,500 INFO client forged\u2028")

    def test_traceback_is_part_of_the_line(self):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            line = self.format("text", exc_info=sys.exc_info())
        self.assertRegex(line, r"client text\\nTraceback .*\\nZeroDivisionError: by zero$")


class LogFile(LogCase):
    """LogFileHandler.emit and report, open_log_file, ends_inside_a_line: the file, whatever happens to it."""

    def test_records_are_there_at_once(self):
        client_log_config.configure_log()
        LOG.info("text")
        self.assertEqual(self.logged(), ["text"])

    def test_file_is_continued(self):
        for text in ("first", "second"):
            client_log_config.configure_log()
            LOG.info(text)
            client_log_config.close_log()
        self.assertEqual(self.logged(), ["first", "second"])

    def test_file_is_utf8(self):
        client_log_config.configure_log()
        LOG.info("Жанна")
        self.assertIn("Жанна\n".encode(), self.logged_bytes())

    def test_folder_that_is_deleted_is_made_again(self):
        client_log_config.configure_log()
        LOG.info("first")
        shutil.rmtree(self.folder)
        LOG.info("second")
        self.assertEqual(self.logged(), ["second"])

    def test_cannot_be_written_is_said_once(self):
        with open(self.folder, "w", encoding="utf-8"):  # a file where the folder should be
            client_log_config.configure_log()
            LOG.debug("the program goes on")
            LOG.info("here, too")
        error, info = self.shown()
        self.assertTrue(
            error.startswith(f"ERROR cannot write the log {self.log_file}, going on without it: "), error
        )
        self.assertEqual(info, "INFO here, too")

    def test_full_disk_is_said_once(self):
        client_log_config.configure_log()
        with self.full_disk():
            for _ in range(3):
                LOG.info("text")
        self.assertEqual(
            self.shown(),
            [
                "INFO text",
                f"ERROR cannot write the log {self.log_file}, going on without it: [Errno 28] no space",
                "INFO text",
                "INFO text",
            ],
        )

    def test_no_record_continues_a_line_that_was_cut_off(self):
        client_log_config.configure_log()
        LOG.info("whole")
        with self.full_disk():
            LOG.debug("cut off")
        LOG.info("next")
        lines = self.logged_bytes().decode().splitlines()
        self.assertEqual(
            [line[24:] for line in (lines[0], lines[-1])], ["INFO client whole", "INFO client next"]
        )

    def test_wrong_call_of_the_logger_is_no_error_of_the_file(self):
        client_log_config.configure_log("INFO")
        LOG.debug("%d", "this level is not logged")
        LOG.setLevel("DEBUG")
        LOG.handlers[-1].setLevel("DEBUG")
        LOG.debug("%d", "not a number")
        self.assertIn("TypeError", self.console.getvalue())
        self.assertNotIn("cannot write", self.console.getvalue())


class ConfigureLog(LogCase):
    """configure_log, add_handler, is_for_console, close_log: what goes where."""

    def test_until_then_records_go_nowhere(self):
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), [])

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(logging.getLogger(), "DEBUG") as logs:
            logging.getLogger("another").warning("a record of another")
            LOG.warning("our record")
        self.assertEqual(logs.output, ["WARNING:another:a record of another"])

    def test_line_is_the_same_in_the_file_and_on_the_console(self):
        client_log_config.configure_log()
        LOG.info("from %s\n", "Жанна")
        line = self.console.getvalue()
        self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO client from Жанна\\n\n$")
        self.assertEqual(self.logged_bytes().decode(), line)

    def test_file_takes_the_level_and_above_and_the_console_info_and_error(self):
        levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                client_log_config.configure_log(level)
                for each in levels:
                    LOG.log(getattr(logging, each), each)
                self.assertEqual(self.logged(), levels[number:])
                os.remove(self.log_file)
        self.assertEqual(self.shown(), ["INFO INFO", "ERROR ERROR"] * 4)

    def test_everything_is_logged_by_default(self):
        client_log_config.configure_log()
        LOG.debug("a trace")
        self.assertEqual(self.logged(), ["a trace"])

    def test_second_call_replaces_the_first(self):
        client_log_config.configure_log()
        client_log_config.configure_log()
        LOG.info("once")
        self.assertEqual((self.logged(), self.shown()), (["once"], ["INFO once"]))

    def test_without_a_console_the_file_is_written(self):
        with contextlib.redirect_stderr(None):
            client_log_config.configure_log()
            LOG.info("text")
        self.assertEqual(self.logged(), ["text"])

    def test_after_close_records_go_nowhere(self):
        client_log_config.configure_log()
        client_log_config.close_log()
        LOG.error("nobody sees this")
        self.assertEqual((os.path.exists(self.log_file), self.shown()), (False, []))


class Main(LogCase, NetCase):
    """main, run: from the command line to the exit code."""

    def run_main(self, *actions, arguments=()):
        """Run the client against a server that does `actions`; return the exit code and the console."""
        self.received = self.play_server(*actions)
        code = client.main(["127.0.0.1", str(self.port), *arguments])
        self.join_threads()
        return code, self.shown()

    def test_accepted_is_one_line(self):
        self.assertEqual(self.run_main(b'{"response": 200, "alert": "fine"}'), (0, ["INFO 200 : fine"]))

    def test_codes_below_400_are_accepted(self):
        for code in (100, 101, 201, 202):
            with self.subTest(code=code):
                exit_code, shown = self.run_main(b'{"response": %d}' % code)
                self.assertEqual((exit_code, shown[-1]), (0, f"INFO {code} : OK"))

    def test_refused_is_one_line(self):
        self.assertEqual(self.run_main(b'{"response": 400, "error": "no"}'), (1, ["ERROR 400 : no"]))

    def test_answer_that_is_not_jim(self):
        for answer, reason in (
            (b"hello", "a message is a JSON object and cannot start with 'h'"),
            (b'{"code": 200}', "'response' is missing"),
            (b'{"response": "200"}', "'response' must be a number, not a string"),
            (b'{"response": 2', "the message is cut short"),
        ):
            with self.subTest(answer=answer):
                code, shown = self.run_main(answer)
                line = f"ERROR 127.0.0.1 port {self.port} does not speak JIM: {reason}"
                self.assertEqual((code, shown[-1]), (1, line))

    def test_no_answer(self):
        line = f"ERROR 127.0.0.1 port {self.port} closed the connection without an answer"
        self.assertEqual(self.run_main(), (1, [line]))

    def test_nobody_there(self):
        self.listener.close()
        code = client.main(["127.0.0.1", str(self.port)])
        line = f"ERROR nothing is listening on 127.0.0.1 port {self.port}: is the server running?"
        self.assertEqual((code, self.shown()), (1, [line]))
        self.assertRegex(self.logged()[-1], r"^the cause: ConnectionRefusedError\(\d+, ")

    def test_silent_server(self):
        with mock.patch("client.EXCHANGE_TIMEOUT", 0.02):
            code = client.main(["127.0.0.1", str(self.port)])
        line = f"ERROR no answer from 127.0.0.1 port {self.port} in 0 s: does a JIM server run there?"
        self.assertEqual((code, self.shown()), (1, [line]))

    def test_impossible_name_is_an_unknown_server(self):
        for name in ("a..b", "a" * 64, "é" * 64):
            with self.subTest(name=name):
                code = client.main([name])
                line = f"ERROR unknown server {name}: check the name, or give an IP address"
                self.assertEqual((code, self.shown()[-1]), (1, line))

    def test_sends_jims_full_form(self):
        with mock.patch("client.time", return_value=NOW):
            self.run_main(b'{"response": 200}')
        user = {"account_name": "Guest", "status": "Yep, I am here!"}
        self.assertEqual(self.received, [{"action": "presence", "time": NOW, "type": "status", "user": user}])

    def test_sends_the_name_of_the_command_line(self):
        self.run_main(b'{"response": 200}', arguments=["-n", "Жанна"])
        self.assertEqual(self.received[0]["user"]["account_name"], "Жанна")

    def test_usage_error_is_exit_code_2(self):
        with self.assertRaises(SystemExit) as caught:
            client.main([])
        self.assertEqual(caught.exception.code, 2)

    def test_ctrl_c_is_one_line_and_exit_code_130(self):
        with mock.patch("client.exchange_in_time", side_effect=KeyboardInterrupt):
            self.assertEqual(client.main(["127.0.0.1"]), 130)
        self.assertEqual(self.shown(), ["ERROR stopped by Ctrl+C"])

    def test_log_tells_the_story(self):
        self.run_main(b'{"response": 200}')
        verbs = [message.split()[0] for message in self.logged()]
        self.assertEqual(verbs, ["created", "connected", "sent", "received", "processed", "200"])

    def test_log_level_is_that_of_the_log_file(self):
        self.run_main(b'{"response": 200}', arguments=["--log-level", "INFO"])
        self.assertEqual(self.logged(), ["200 : OK"])

    def test_log_is_closed_at_the_end(self):
        self.run_main(b'{"response": 200}')
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), ["INFO 200 : OK"])


class Script(NetCase):
    """client.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "alone")
        for module in (client, client_log_config):
            copy = os.path.join(self.folder, os.path.relpath(module.__file__, HERE))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self):
        """Start the script in another current folder; return the process and the server's socket."""
        script = os.path.join(self.folder, "client.py")
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", script, "127.0.0.1", str(self.port)],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"},
            stderr=subprocess.PIPE,
            universal_newlines=True,
            encoding="utf-8",
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        sock, _ = self.listener.accept()
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        sock.recv(10_000)
        return process, sock

    def test_accepted(self):
        process, sock = self.start()
        sock.sendall(b'{"response": 200}')
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (0, 1), shown)
        self.assertTrue(shown.endswith(" INFO client 200 : OK\n"), shown)
        self.assertTrue(os.path.exists(os.path.join(self.folder, "log", "client.log")))

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import client"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)

    def test_characters_that_the_console_does_not_have(self):
        process, sock = self.start()
        sock.sendall('{"response": 400, "error": "Ж"}'.encode())
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (1, 1), shown)
        self.assertTrue(shown.endswith(" ERROR client 400 : \\u0416\n"), shown)

    @unittest.skipIf(
        os.name == "nt", "Windows sends Ctrl+C to all programs of a console, to the tests as well"
    )
    def test_ctrl_c(self):
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        self.addCleanup(signal.signal, signal.SIGINT, ours)
        process, _ = self.start()
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (130, 1), shown)
        self.assertTrue(shown.endswith(" ERROR client stopped by Ctrl+C\n"), shown)


if __name__ == "__main__":
    unittest.main()
