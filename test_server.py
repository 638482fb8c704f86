"""Tests of server.py and server_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_server              all of them
    python -m unittest -v test_server           the same, with their names: what the server does

A test states one fact and is named for it. A class says first which functions it is about. None of the
tests sleeps or leaves a file behind.
"""

from __future__ import annotations

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
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import server
import server_log_config
from server import LOG, Client, ProtocolError, Server

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1700000000.5  # seconds since 1970, for a clock that stands still
PATIENCE = 10.0  # seconds that a test waits before it fails, and only then
PRESENCE = {"action": "presence", "time": 1.5, "user": {"account_name": "Guest"}}
ADDRESS = ("127.0.0.1", 5000)
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) server (.*)")
needs_sockets = unittest.skipIf(
    sys.platform == "emscripten", "WebAssembly has no sockets, threads, processes"
)


def presence(**changes):
    """Return a presence with some fields changed; those set to None are left out."""
    message = {**PRESENCE, **changes}
    return {name: value for name, value in message.items() if value is not None}


def of_user(**fields):
    """Return a presence of a user with these fields."""
    return presence(user=fields)


def in_bytes(message):
    """Return a message as it is sent."""
    return json.dumps(message, ensure_ascii=False).encode("utf-8")


def in_objects(data):
    """Return the messages that follow one another in `data`."""
    text, messages = data.decode("utf-8"), []
    while text:
        message, end = json.JSONDecoder().raw_decode(text)
        messages.append(message)
        text = text[end:]
    return messages


def codes(data):
    """Return the codes of the responses in `data`."""
    return [message["response"] for message in in_objects(data)]


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class ProcessClientMessage(unittest.TestCase):
    """process_client_message, check_presence, check_user, check_time, check_text, check_string and
    wrong_type_error: the response to a message.
    """

    def process(self, message):
        with mock.patch("server.time", return_value=NOW):
            return server.process_client_message(message)

    def assert_refused(self, message, error):
        self.assertEqual(self.process(message), {"response": 400, "time": NOW, "error": error})

    def test_presence_is_answered_with_200(self):
        self.assertEqual(self.process(PRESENCE), {"response": 200, "time": NOW, "alert": "OK"})

    def test_valid_presences(self):
        for message in (
            presence(type="status", user={"account_name": "Guest", "status": "Yep, I am here!"}),
            presence(type="", user={"account_name": "Guest", "status": ""}),
            presence(time=0),
            presence(time=-1),
            presence(time=1732267890),
            presence(time=sys.float_info.max),
            presence(time=-sys.float_info.max),
            presence(time=int(sys.float_info.max)),
            of_user(account_name="x"),
            of_user(account_name="Ж" * 25),
            of_user(account_name="\n\x1b[2J\x00\u2028\ud800"),
            presence(room="a field that JIM does not have"),
            of_user(account_name="Guest", password=None),
        ):
            with self.subTest(message=message):
                self.assertEqual(self.process(message)["response"], 200)

    def test_missing_fields(self):
        for message, name in (
            ({}, "action"),
            (presence(action=None), "action"),
            (presence(time=None), "time"),
            (presence(user=None), "user"),
            (of_user(), "account_name"),
            (of_user(status="here"), "account_name"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, f"'{name}' is missing")

    def test_fields_of_another_type(self):
        values = {
            "null": None,
            "a boolean": False,
            "a number": 1.5,
            "a string": "5",
            "an array": [5],
            "an object": {"a": 5},
        }
        for name, wanted in (
            ("action", "a string"),
            ("type", "a string"),
            ("account_name", "a string"),
            ("status", "a string"),
            ("time", "a number"),
            ("user", "an object"),
        ):
            for found, value in values.items():
                message = {**PRESENCE, "user": {"account_name": "Guest"}}
                fields = message["user"] if name in ("account_name", "status") else message
                fields[name] = value
                with self.subTest(name=name, value=value):
                    if found != wanted:
                        self.assert_refused(message, f"'{name}' must be {wanted}, not {found}")

    def test_true_is_not_a_time(self):
        self.assert_refused(presence(time=True), "'time' must be a number, not a boolean")

    def test_strings_of_another_length(self):
        for message, error in (
            (presence(action=""), "'action' must be 1 to 15 characters long, not 0"),
            (presence(action="a" * 16), "'action' must be 1 to 15 characters long, not 16"),
            (of_user(account_name=""), "'account_name' must be 1 to 25 characters long, not 0"),
            (of_user(account_name="a" * 26), "'account_name' must be 1 to 25 characters long, not 26"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, error)

    def test_times_that_are_not_finite(self):
        for value in (float("inf"), float("-inf"), float("nan"), 10**400, -(10**400)):
            with self.subTest(value=value):
                self.assert_refused(presence(time=value), "'time' is too large a number")

    def test_other_actions_are_named(self):
        for action in ("msg", "authenticate", "probe", "Presence", "presence ", "QUIT", "п" * 15):
            with self.subTest(action=action):
                error = f"the action '{action}' is not supported, only 'presence' is"
                self.assert_refused(presence(action=action), error)

    def test_action_is_named_in_printable_characters(self):
        error = self.process({"action": "\n\x1b\u202e\ud800"})["error"]
        self.assertEqual(error, r"the action '\n\x1b\u202e\ud800' is not supported, only 'presence' is")

    def test_quit_has_no_response(self):
        for message in ({"action": "quit"}, presence(action="quit"), {"action": "quit", "time": "?"}):
            with self.subTest(message=message):
                self.assertIsNone(self.process(message))

    def test_not_an_object(self):
        for message, found in (
            ([], "an array"),
            (None, "null"),
            ("presence", "a string"),
            ("quit", "a string"),
            (b"", "something else"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, f"'message' must be an object, not {found}")

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            for message in (PRESENCE, {}, {"action": "quit"}):
                server.process_client_message(message)
        self.assertEqual(
            logs.output,
            [
                "DEBUG:server:processed a message, response 200",
                "DEBUG:server:processed a message, response 400",
                "DEBUG:server:processed a quit",
            ],
        )


class CreateError(unittest.TestCase):
    """create_error: an error response."""

    def test_has_code_time_and_text(self):
        with mock.patch("server.time", return_value=NOW):
            self.assertEqual(server.create_error(500, "why"), {"response": 500, "time": NOW, "error": "why"})


# How input is fed to the functions that take messages. What they return must not depend on it.

BEHIND = (b"", b"\n", b'{"b": 2}', b"]", b"hello", b"\xff", b"\xd0", b"\xed\xa0", b"]" * 1000)


def splits(data):
    """Yield lists of pieces that make `data`: whole, cut in two anywhere, byte by byte."""
    yield [data]
    for end in range(1, len(data)):
        yield [data[:end], data[end:]]
    yield [data[i : i + 1] for i in range(len(data))]


class Pieces:
    """Stands for a socket that does not wait: `recv` returns one piece a call; b"" is the end."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def setblocking(self, flag):
        assert not flag

    def recv(self, size):
        if not self.pieces:
            raise BlockingIOError
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
            server.take_message(data)
        self.assertEqual(str(caught.exception), error)

    def test_message_and_its_length_in_bytes(self):
        for text, message in VALID:
            length = len(text.rstrip().encode())
            for behind in BEHIND:
                with self.subTest(text=text, behind=behind):
                    self.assertEqual(server.take_message(text.encode() + behind), (message, length))

    def test_every_beginning_is_waited_for(self):
        for text, _ in VALID:
            data = text.rstrip().encode()
            for end in range(len(data)):
                with self.subTest(data=data[:end]):
                    self.assertEqual(server.take_message(data[:end]), (None, 0))

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
                    server.take_message(text.encode())

    def test_fault_is_named_before_the_length(self):
        self.assert_refused(b'{"a" 1 ' + b"x" * 999, "not JSON: Expecting ':' delimiter at character 6")

    def test_fault_is_named_before_bytes_that_are_not_utf8(self):
        self.assert_refused(b'{"a" 1 \xff', "not JSON: Expecting ':' delimiter at character 6")

    def test_639_characters_are_waited_for(self):
        self.assertEqual(server.take_message(b'{"a": "' + "я".encode() * 632), (None, 0))

    def test_641_characters_are_refused_though_they_are_an_object(self):
        data = b'{"a": "' + "я".encode() * 632 + b'"}'
        self.assert_refused(data, "the message is longer than 640 characters")


class ClientTest(unittest.TestCase):
    """Client, client_name: one connection."""

    def test_is_named_by_address_and_port(self):
        for address, name in (
            (("127.0.0.1", 5000), "127.0.0.1 port 5000"),
            (("::1", 5000, 0, 0), "::1 port 5000"),
            (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7 port 5000"),
            (None, "unknown address"),
            ("", "unknown address"),
            ((), "unknown address"),
        ):
            with self.subTest(address=address):
                self.assertEqual(Client(Pieces(), address).name, name)

    def test_never_waits(self):
        sock = mock.Mock()
        Client(sock, ADDRESS)
        sock.setblocking.assert_called_once_with(False)

    def test_has_60_seconds_for_its_first_message(self):
        with mock.patch("server.monotonic", Clock(1000.0)):
            self.assertEqual(Client(Pieces(), ADDRESS).deadline, 1060.0)


class ReceiveMessage(unittest.TestCase):
    """receive_message, receive_bytes: one message in, in however many pieces."""

    def client(self, *pieces):
        client = Client(Pieces(*pieces), ADDRESS)
        self.messages = []
        return client

    def receive_all(self, client):
        """Collect in `self.messages` all messages that have arrived."""
        while True:
            message = server.receive_message(client)
            if message is not None:
                self.messages.append(message)
            elif not client.sock.pieces:
                return

    def test_message_in_any_pieces(self):
        for text, message in VALID:
            for pieces in splits(text.encode()):
                with self.subTest(pieces=pieces):
                    self.receive_all(self.client(*pieces))
                    self.assertEqual(self.messages, [message])

    def test_several_messages_in_any_pieces(self):
        for pieces in splits(' {"a": 1}{"Ж": 2}\r\n\t{"a": 3}\n'.encode()):
            with self.subTest(pieces=pieces):
                self.receive_all(self.client(*pieces))
                self.assertEqual(self.messages, [{"a": 1}, {"Ж": 2}, {"a": 3}])

    def test_one_message_is_taken_at_a_time(self):
        client = self.client()
        client.data = b'{"a": 1}{"a": 2}'
        self.assertEqual(server.receive_message(client), {"a": 1})
        self.assertEqual(client.data, b'{"a": 2}')

    def test_nothing_there_is_no_message(self):
        self.assertIsNone(server.receive_message(self.client()))

    def test_receives_once(self):
        client = self.client(b"{", b"}")
        self.assertIsNone(server.receive_message(client))
        self.assertEqual(client.sock.pieces[-1], b"}")

    def test_asks_for_receive_bytes(self):
        sock = mock.Mock(recv=mock.Mock(return_value=b"{}"))
        server.receive_message(Client(sock, ADDRESS))
        sock.recv.assert_called_once_with(server.RECEIVE_BYTES)

    def test_whitespace_does_not_count(self):
        client = self.client(b" " * 5000, b"\n" * 1000)
        self.receive_all(client)
        self.assertEqual(client.data, b"")

    def test_messages_before_an_invalid_one_are_received(self):
        for data, error in INVALID:
            client = self.client(b'{"a": 1}{"a": 2}' + data)
            with self.subTest(data=data), self.assertRaises(ProtocolError) as caught:
                self.receive_all(client)
            self.assertEqual((self.messages, str(caught.exception)), ([{"a": 1}, {"a": 2}], error))

    def test_end_after_a_message(self):
        for spaces in (b"", b"\r\n"):
            client = self.client(b'{"a": 1}' + spaces, b"")
            with self.subTest(spaces=spaces), self.assertRaises(EOFError):
                self.receive_all(client)
            self.assertEqual(self.messages, [{"a": 1}])

    def test_end_inside_a_message(self):
        for data in (b"{", b'{"a": 1', b'{"a": "\xd0', b"\xd0"):
            with self.subTest(data=data), self.assertRaises(ProtocolError) as caught:
                self.receive_all(self.client(data, b""))
            self.assertEqual(str(caught.exception), "the message is cut short")

    def test_each_message_gives_60_seconds_more(self):
        client = self.client(b'{"a": 1}')
        with mock.patch("server.monotonic", Clock(2000.0)):
            self.receive_all(client)
        self.assertEqual(client.deadline, 2060.0)

    def test_half_a_message_gives_no_time(self):
        client = self.client(b'{"a": ')
        before = client.deadline
        with mock.patch("server.monotonic", Clock(before)):
            self.receive_all(client)
        self.assertEqual(client.deadline, before)

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            self.receive_all(self.client('{"a": "Ж"}{"b'.encode()))
        self.assertEqual(logs.output, ['DEBUG:server:received from 127.0.0.1 port 5000: {"a": "Ж"}'])


@needs_sockets
class SendMessage(unittest.TestCase):
    """send_message: one message out."""

    def setUp(self):
        sock, self.peer = socket.socketpair()
        self.client = Client(sock, ADDRESS)
        self.addCleanup(self.peer.close)
        self.addCleanup(sock.close)
        self.peer.settimeout(PATIENCE)

    def sent(self, message):
        server.send_message(self.client, message)
        return self.peer.recv(10_000)

    def test_sends_json(self):
        self.assertEqual(self.sent({"response": 200, "time": 1.5}), b'{"response": 200, "time": 1.5}')

    def test_characters_are_sent_as_they_are(self):
        self.assertEqual(self.sent({"error": "Жанна"}), '{"error": "Жанна"}'.encode())

    def test_lone_surrogate_is_sent_as_an_escape(self):
        self.assertEqual(self.sent({"error": "\ud800"}), b'{"error": "\\ud800"}')

    def test_client_that_does_not_read_is_not_waited_for(self):
        with self.assertRaises(BlockingIOError):
            while True:
                server.send_message(self.client, {"error": "x" * 100_000})

    def test_is_logged(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            server.send_message(self.client, {"a": "Ж"})
        self.assertEqual(logs.output, ['DEBUG:server:sent to 127.0.0.1 port 5000: {"a": "Ж"}'])


def reset(sock):
    """Close a connection with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
    sock.close()


@needs_sockets
class ServerCase(unittest.TestCase):
    """What the tests of the server share: a server that goes on when the test says so."""

    def setUp(self):
        self.clock = Clock()
        for name, value in (("CHECK_INTERVAL", 0.01), ("CLOSING_TIMEOUT", 2 * PATIENCE)):
            self.patch(name, value)  # short waits, and no help from the deadlines
        self.listener = server.open_listener("127.0.0.1", 0)
        self.addCleanup(self.listener.close)
        self.start()

    def patch(self, name, value):
        patch = mock.patch.object(server, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def start(self):
        self.server = Server(self.listener)
        self.addCleanup(self.server.close)

    def connect(self, *data):
        """Return the socket of a client that has sent `data`."""
        sock = socket.create_connection(self.listener.getsockname(), PATIENCE)
        self.addCleanup(sock.close)
        for piece in data:
            sock.sendall(piece)
        sock.setblocking(False)
        return sock

    def serve_until(self, done):
        """Let the server go on until `done()`; fail if that does not come."""
        end = time.monotonic() + PATIENCE
        while not done():
            self.assertLess(time.monotonic(), end, "the server did not do what it was waited for")
            self.server.serve_once()

    def accepted(self, number=1):
        """Let the server accept that many clients in all; return them."""
        self.serve_until(lambda: len(self.server.clients) == number)
        return list(self.server.clients)

    def serve_until_all_have_left(self):
        self.serve_until(lambda: not self.server.clients)

    def received(self, sock, number=1):
        """Return the codes of that many responses."""
        data = b""

        def done():
            nonlocal data
            with contextlib.suppress(BlockingIOError):
                data += sock.recv(10_000)
            return data.count(b"}") >= number

        self.serve_until(done)
        return codes(data)

    def received_to_the_end(self, sock):
        """Return all messages until the server closes the connection."""
        pieces = []

        def done():
            with contextlib.suppress(BlockingIOError):
                while pieces[-1:] != [b""]:
                    pieces.append(sock.recv(10_000))
            return pieces[-1:] == [b""]

        self.serve_until(done)
        return in_objects(b"".join(pieces))

    def logged(self, level, *data):
        """Return what the server logs, from `level` up, about a client that sends `data` and leaves."""
        with self.assertLogs(LOG, level) as logs:
            LOG.error("something, or assertLogs would complain")
            sock = self.connect(*data)
            port = sock.getsockname()[1]
            sock.shutdown(socket.SHUT_WR)
            self.received_to_the_end(sock)
            sock.close()
            self.serve_until_all_have_left()
        return [line.replace(f" port {port}", "") for line in logs.output[1:]]


class Conversation(ServerCase):
    """Server.serve_forever, serve_once, serve_client, answer_message, drop, close: valid clients."""

    def test_presence_is_answered(self):
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_connection_carries_many_messages(self):
        sock = self.connect()
        for message, code in ((PRESENCE, 200), ({"action": "msg"}, 400), (PRESENCE, 200)):
            sock.sendall(in_bytes(message))
            self.assertEqual(self.received(sock), [code])

    def test_messages_sent_at_once_are_answered_in_order(self):
        sock = self.connect((in_bytes(PRESENCE) + b"{}") * 50)
        self.assertEqual(self.received(sock, 100), [200, 400] * 50)

    def test_responses_do_not_wait_for_each_other(self):
        self.connect()
        (client,) = self.accepted()
        self.assertTrue(client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_turn_is_one_message(self):
        sock, other = self.connect(b"{}" * 9), self.connect()
        self.serve_until(lambda: len(self.server.clients) == 2 and self.server.ready)
        other.sendall(in_bytes(PRESENCE))
        self.assertEqual(self.received(other), [200])
        self.assertLess(len(codes(sock.recv(10_000))), 9)

    def test_rest_of_a_client_does_not_wait_for_an_event(self):
        self.patch("CHECK_INTERVAL", PATIENCE)
        sock = self.connect(b"{}" * 9)
        before = time.monotonic()
        self.assertEqual(self.received(sock, 9), [400] * 9)
        self.assertLess(time.monotonic() - before, PATIENCE)

    def test_new_client_is_answered_in_the_iteration_that_accepts_it(self):
        self.patch("RECEIVE_BYTES", 4096)
        sock = self.connect(in_bytes(PRESENCE))
        self.server.serve_once()
        self.assertEqual(codes(sock.recv(10_000)), [200])

    def test_half_closed_client_gets_every_response(self):
        sock = self.connect(in_bytes(PRESENCE) * 5)
        sock.shutdown(socket.SHUT_WR)
        responses = self.received_to_the_end(sock)
        self.assertEqual([response["response"] for response in responses], [200] * 5)

    def test_many_clients_at_once(self):
        socks = [self.connect(in_bytes(PRESENCE)) for _ in range(50)]
        self.assertEqual([self.received(sock) for sock in socks], [[200]] * 50)

    def test_silent_clients_delay_nobody(self):
        for _ in range(50):
            self.connect(b'{"action": "pres')
        self.accepted(50)
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_client_that_leaves_is_forgotten(self):
        sock = self.connect(in_bytes(PRESENCE))
        self.received(sock)
        sock.close()
        self.serve_until_all_have_left()
        self.assertEqual(list(self.server.selector.get_map()), [self.listener.fileno()])

    def test_client_that_leaves_with_messages_unread_is_forgotten(self):
        sock = self.connect(b"{}" * 100)
        self.serve_until(lambda: self.server.ready)
        sock.close()
        self.serve_until_all_have_left()
        self.assertEqual(self.server.ready, set())

    def test_client_that_is_dropped_gets_no_further_turn(self):
        self.connect(b"{}" * 9)
        self.serve_until(lambda: self.server.ready)
        self.server.drop(*self.server.ready)
        self.assertEqual(self.server.ready, set())

    def test_who_connected_and_who_left_is_logged(self):
        records = ["DEBUG:server:connected: 127.0.0.1", "DEBUG:server:disconnected: 127.0.0.1"]
        self.assertEqual(self.logged("DEBUG"), records)
        self.assertEqual(self.logged("INFO"), [])

    def test_client_that_resets_has_left_as_well(self):
        sock = self.connect()
        self.accepted()
        with self.assertLogs(LOG, "DEBUG") as logs:
            reset(sock)
            self.serve_until_all_have_left()
        self.assertEqual([line.split(":")[0] for line in logs.output], ["DEBUG"])

    def test_log_is_flushed_before_the_server_waits(self):
        calls = mock.Mock()
        calls.select.return_value = []
        select = mock.patch.object(self.server.selector, "select", calls.select)
        with select, mock.patch("server.flush_log", calls.flush_log):
            self.server.serve_once()
        self.assertEqual([call[0] for call in calls.method_calls], ["flush_log", "select"])

    def test_serves_until_an_exception(self):
        flush_log = mock.Mock(side_effect=[None, None, KeyboardInterrupt])
        with mock.patch("server.flush_log", flush_log), self.assertRaises(KeyboardInterrupt):
            self.server.serve_forever()
        self.assertEqual(flush_log.call_count, 3)

    def test_close_closes_all_connections(self):
        sock = self.connect()
        self.accepted()
        self.server.close()
        sock.settimeout(PATIENCE)
        self.assertEqual(sock.recv(1), b"")


class Refusal(ServerCase):
    """Server.serve_client, close_gracefully, discard_input: invalid clients, and clients that quit."""

    def test_not_jim_gets_400_with_the_reason_and_the_end(self):
        for data, error in INVALID:
            with self.subTest(data=data):
                (response,) = self.received_to_the_end(self.connect(data))
                self.assertEqual((response["response"], response["error"]), (400, error))

    def test_not_jim_is_logged_as_a_warning(self):
        warning = "WARNING:server:refused 127.0.0.1: a message is a JSON object and cannot start with 'h'"
        self.assertEqual(self.logged("WARNING", b"hello"), [warning])

    def test_not_jim_is_logged_with_what_was_sent(self):
        self.patch("RECEIVE_BYTES", 4096)
        records = self.logged("DEBUG", b'{"a": "\xff')
        self.assertIn(r'DEBUG:server:received from 127.0.0.1: {"a": "\xff', records)

    def test_invalid_presence_is_logged_as_a_warning(self):
        warning = "WARNING:server:invalid message from 127.0.0.1: 'action' is missing"
        self.assertEqual(self.logged("WARNING", in_bytes(PRESENCE) + b"{}"), [warning])

    def test_400_comes_after_the_responses_to_earlier_messages(self):
        responses = self.received_to_the_end(self.connect(in_bytes(PRESENCE) + b"{}" + b"hello"))
        self.assertEqual([response["response"] for response in responses], [200, 400, 400])

    def test_message_that_is_cut_short(self):
        sock = self.connect(b'{"action": "presence"')
        sock.shutdown(socket.SHUT_WR)
        (response,) = self.received_to_the_end(sock)
        self.assertEqual(response["error"], "the message is cut short")

    def test_400_is_not_lost_to_what_the_client_is_still_sending(self):
        (response,) = self.received_to_the_end(self.connect(b"hello" * 10_000))
        self.assertEqual(response["response"], 400)

    def test_after_400_nothing_is_answered(self):
        sock = self.connect(b"hello")
        self.accepted()
        sock.sendall(in_bytes(PRESENCE))
        self.assertEqual(len(self.received_to_the_end(sock)), 1)

    def test_quit_ends_the_connection_without_a_response(self):
        sock = self.connect(in_bytes(PRESENCE) + b'{"action": "quit"}' + in_bytes(PRESENCE))
        responses = self.received_to_the_end(sock)
        self.assertEqual([response["response"] for response in responses], [200])

    def test_quit_is_not_a_warning(self):
        self.assertEqual(self.logged("INFO", b'{"action": "quit"}hello'), [])

    def test_client_that_sends_more_than_a_mebibyte_after_its_last_response_is_dropped(self):
        sock = self.connect(b"hello")
        self.received_to_the_end(sock)
        (client,) = self.server.clients
        self.assertEqual(client.bytes_to_discard, 1024 * 1024)
        client.bytes_to_discard = 8
        sock.sendall(b"12345678")
        self.serve_until(lambda: client.bytes_to_discard == 0)
        self.assertEqual(self.server.clients, {client})
        sock.sendall(b"9")
        self.serve_until_all_have_left()

    def test_client_that_resets_after_its_last_response_is_dropped(self):
        sock = self.connect(b"hello")
        self.received_to_the_end(sock)
        reset(sock)
        self.serve_until_all_have_left()

    def test_client_that_is_gone_before_its_last_response_is_dropped(self):
        self.connect()
        (client,) = self.accepted()
        client.sock.shutdown(socket.SHUT_RDWR)
        self.server.close_gracefully(client, {"response": 400})
        self.assertEqual(self.server.clients, set())


class Trouble(ServerCase):
    """Server.serve_client, answer_message, ServerError: what goes wrong with one client affects no other."""

    def fail(self, failure):
        """Return a patch under which processing a message fails."""
        return mock.patch("server.check_presence", side_effect=failure)

    def test_failure_of_the_server_gets_500_and_the_end(self):
        with self.assertLogs(LOG, "ERROR"), self.fail(ZeroDivisionError):
            (response,) = self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        self.assertEqual((response["response"], response["error"]), (500, "internal server error"))

    def test_failure_of_the_server_is_logged_with_its_place(self):
        with self.assertLogs(LOG, "ERROR") as logs, self.fail(ZeroDivisionError):
            self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        (line,) = logs.output
        self.assertRegex(
            line, r"(?s)failed to serve 127.0.0.1 port \d+.*in process_client_message.*ZeroDivision"
        )

    def test_failure_of_the_server_affects_no_other_client(self):
        other = self.connect()
        self.accepted()
        with self.assertLogs(LOG, "ERROR"), self.fail(ZeroDivisionError):
            self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        other.sendall(in_bytes(PRESENCE))
        self.assertEqual(self.received(other), [200])

    def test_failure_of_the_server_is_never_blamed_on_the_client_or_the_network(self):
        for failure in (OSError, EOFError, BlockingIOError, ConnectionResetError, ValueError, KeyError):
            with self.subTest(failure=failure), self.assertLogs(LOG, "ERROR"), self.fail(failure):
                (response,) = self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
                self.assertEqual(response["response"], 500)

    def test_failing_network_is_a_warning(self):
        self.connect()
        (client,) = self.accepted()
        with self.assertLogs(LOG, "WARNING") as logs:
            with mock.patch("server.receive_message", side_effect=OSError("no way")):
                self.server.serve_client(client)
        self.assertEqual(self.server.clients, set())
        self.assertEqual(logs.output, [f"WARNING:server:lost {client.name}: no way"])

    def test_client_that_does_not_read_is_dropped_with_a_warning(self):
        self.patch("RECEIVE_BYTES", 4096)
        sock = self.connect()
        (client,) = self.accepted()
        with self.assertLogs(LOG, "WARNING") as logs, mock.patch("server.send_message") as send_message:
            send_message.side_effect = BlockingIOError
            sock.sendall(in_bytes(PRESENCE))
            self.serve_until_all_have_left()
        self.assertEqual(
            logs.output, [f"WARNING:server:dropped {client.name}: it does not read its responses"]
        )


class Deadlines(ServerCase):
    """Server.check_deadlines: how long a client may take for a message."""

    def setUp(self):
        super().setUp()
        self.patch("monotonic", self.clock)
        self.patch("CHECK_INTERVAL", 1.0)
        self.start()

    def at(self, now):
        """Let the clock go on to `now`, second by second, as it does for a server that is running."""
        select = mock.patch.object(self.server.selector, "select", return_value=[])
        while self.clock.now < now:
            self.clock.now = min(self.clock.now + 1.0, now)
            with select:
                self.server.serve_once()
        return len(self.server.clients)

    def test_silent_client_is_dropped_after_60_seconds(self):
        self.connect()
        (client,) = self.accepted()
        self.assertEqual(self.at(1059.0), 1)
        with self.assertLogs(LOG, "WARNING") as logs:
            self.assertEqual(self.at(1060.0), 0)
        self.assertEqual(logs.output, [f"WARNING:server:dropped {client.name}: no complete message in 60 s"])

    def test_dripping_does_not_help(self):
        sock = self.connect(b"{")
        self.accepted()
        for now in (1020.0, 1040.0, 1059.0):
            self.at(now)
            sock.sendall(b" ")
            self.server.serve_once()
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.at(1060.0), 0)

    def test_message_gives_60_seconds_more(self):
        sock = self.connect()
        self.accepted()
        self.at(1050.0)
        sock.sendall(in_bytes(PRESENCE) + b"{")
        self.received(sock)
        self.assertEqual(self.at(1109.0), 1)
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.at(1110.0), 0)

    def test_time_in_which_the_server_stood_still_does_not_count(self):
        sock = self.connect()
        self.accepted()
        self.at(1030.0)
        sock.sendall(in_bytes(presence(room="x" * 480)))  # more than one `recv` takes
        self.clock.now = 5000.0
        self.server.serve_once()
        self.assertEqual(self.received(sock), [200])
        self.assertEqual(self.at(5059.0), 1)
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.at(5060.0), 0)

    def test_client_that_does_not_close_has_two_seconds_after_its_last_response(self):
        self.patch("CLOSING_TIMEOUT", 2.0)
        for data, warnings in ((b"hello", 1), (b'{"action": "quit"}', 0)):
            with self.subTest(data=data), self.assertLogs(LOG, "WARNING") as logs:
                LOG.warning("something, or assertLogs would complain")
                self.received_to_the_end(self.connect(data))
                self.assertEqual(self.at(self.clock.now + 1.0), 1)
                self.assertEqual(self.at(self.clock.now + 1.0), 0)
            self.assertEqual(len(logs.output), 1 + warnings)

    def test_are_checked_once_a_second(self):
        for now, checks in ((1000.9, 0), (1001.0, 1), (1001.9, 0), (1002.0, 1)):
            self.connect().close()  # something to do, so that the server does not wait
            self.clock.now = now
            with mock.patch.object(
                self.server, "check_deadlines", wraps=self.server.check_deadlines
            ) as check:
                self.server.serve_once()
            with self.subTest(now=now):
                self.assertEqual(check.call_count, checks)


class Room(ServerCase):
    """Server.accept_clients, add_client, stop_accepting, start_accepting: who is let in."""

    def fail_to_accept(self, error):
        """Let the server try to accept one client, which fails with `error`; return the log."""
        listener = mock.Mock(accept=mock.Mock(side_effect=[error, BlockingIOError]))
        with self.assertLogs(LOG, "DEBUG") as logs, mock.patch.object(self.server, "listener", listener):
            LOG.debug("something, or assertLogs would complain")
            with mock.patch.object(self.server.selector, "unregister"), mock.patch("server.sleep"):
                self.server.accept_clients(9)
        return logs.output[1:]

    def test_client_that_resets_before_it_is_accepted_is_no_trouble(self):
        reset(self.connect())
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_error_that_is_about_one_client_is_logged_and_the_server_goes_on(self):
        for error in (
            ConnectionAbortedError("gone"),
            ConnectionResetError("gone"),
            OSError(errno.EPERM, "gone"),
        ):
            with self.subTest(error=error):
                records = self.fail_to_accept(error)
                self.assertEqual(records, [f"DEBUG:server:could not accept a client: {error}"])
                self.assertTrue(self.server.accepting)

    def test_error_that_is_about_room_stops_accepting(self):
        self.connect()
        self.accepted()
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, 10024):
            with self.subTest(code=code):
                self.start()
                self.connect()
                self.accepted()
                (record,) = self.fail_to_accept(OSError(code, "no more"))
                full = f"ERROR:server:full with 1 clients, others have to wait: [Errno {code}] no more"
                self.assertEqual(record, full)
                self.assertFalse(self.server.accepting)

    def test_client_without_an_address_is_served(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        theirs.sendall(in_bytes(PRESENCE))
        with self.assertLogs(LOG, "DEBUG") as logs:
            self.server.add_client(ours, None)
            self.serve_until(lambda: "sent to unknown address" in logs.output[-1])
        self.assertEqual(logs.output[0], "DEBUG:server:connected: unknown address")

    def test_waiting_clients_are_accepted_as_many_as_there_are_events(self):
        busy = [self.connect() for _ in range(3)]
        self.accepted(3)
        for sock in busy:
            sock.sendall(b"{}")
        for _ in range(10):
            self.connect()
        self.server.serve_once()
        self.assertEqual(len(self.server.clients), 3 + 4)

    @unittest.skipIf(os.name == "nt", "Windows sets no such limit")
    def test_without_descriptors_it_serves_those_it_has_and_accepts_again(self):
        import resource

        first, second = self.connect(in_bytes(PRESENCE)), self.connect(in_bytes(PRESENCE))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with self.assertLogs(LOG, "ERROR"):
                self.assertEqual(self.received(first), [200])
                self.serve_until(lambda: not self.server.accepting)
                first.sendall(in_bytes(PRESENCE))
                self.assertEqual(self.received(first), [200])
                first.close()
                self.assertEqual(self.received(second), [200])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_windows_select_has_room_for_511_clients_and_other_systems_set_the_limit_themselves(self):
        self.assertEqual(server.MAX_CLIENTS, 511 if os.name == "nt" else sys.maxsize)

    def test_full_server_serves_those_it_has_and_accepts_when_one_leaves(self):
        self.patch("MAX_CLIENTS", 2)
        first, second = (self.connect() for _ in range(2))
        self.accepted(2)
        third = self.connect(in_bytes(PRESENCE))
        with self.assertLogs(LOG, "ERROR") as logs:
            self.serve_until(lambda: not self.server.accepting)
        self.assertIn("full with 2 clients", logs.output[0])
        second.sendall(in_bytes(PRESENCE))
        self.assertEqual(self.received(second), [200])
        self.server.next_check = float("inf")
        first.close()
        self.assertEqual(self.received(third), [200])

    def test_full_server_does_not_spin(self):
        self.patch("MAX_CLIENTS", 1)
        for _ in range(2):
            self.connect()
        with self.assertLogs(LOG, "ERROR"):
            self.serve_until(lambda: not self.server.accepting)
        self.assertEqual(self.server.selector.select(0), [])

    def test_full_server_without_clients_waits_and_keeps_its_listener(self):
        with self.assertLogs(LOG, "ERROR"), mock.patch("server.sleep") as sleep:
            self.server.stop_accepting("no more")
        sleep.assert_called_once_with(server.CHECK_INTERVAL)
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_full_server_tries_again_with_every_check(self):
        self.connect()
        self.accepted()
        with self.assertLogs(LOG, "ERROR"):
            self.server.stop_accepting("no more")
        self.assertFalse(self.server.accepting)
        self.server.check_deadlines()
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_selector_without_room_costs_the_new_client_or_waits_for_the_next_check(self):
        self.connect()
        self.accepted()
        register = mock.patch.object(
            self.server.selector, "register", side_effect=OSError(errno.ENOMEM, "full")
        )
        sock = self.connect()
        with register, self.assertLogs(LOG, "ERROR"):
            self.serve_until(lambda: not self.server.accepting)
            self.server.check_deadlines()
        self.assertEqual((self.received_to_the_end(sock), self.server.accepting), ([], False))
        self.server.check_deadlines()
        self.assertTrue(self.server.accepting)

    def test_full_is_said_once_an_hour(self):
        self.patch("monotonic", self.clock)
        self.start()
        self.connect()
        self.accepted()
        for now, records in ((1000.0, 1), (1001.0, 0), (4599.9, 0), (4600.0, 1), (4601.0, 0)):
            self.clock.now = now
            with self.subTest(now=now), self.assertLogs(LOG, "ERROR") as logs:
                LOG.error("something, or assertLogs would complain")
                self.server.stop_accepting("no more")
                self.server.start_accepting()
                self.assertEqual(len(logs.output) - 1, records)


@needs_sockets
class OpenListener(unittest.TestCase):
    """open_listener: where the server listens."""

    def listener(self, address, port=0):
        listener = server.open_listener(address, port)
        self.addCleanup(listener.close)
        return listener

    def reach(self, listener, address):
        socket.create_connection((address, listener.getsockname()[1]), PATIENCE).close()

    def has_ipv6(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
            return True
        return False

    def test_on_one_address(self):
        listener = self.listener("127.0.0.1")
        self.assertEqual(listener.getsockname()[0], "127.0.0.1")
        self.reach(listener, "127.0.0.1")

    def test_on_a_name(self):
        self.reach(self.listener("localhost"), "127.0.0.1")

    def test_on_an_ipv6_address(self):
        if not self.has_ipv6():
            self.skipTest("this machine has no IPv6")
        self.reach(self.listener("::1"), "::1")

    def test_on_all_addresses(self):
        listener = self.listener("")
        self.reach(listener, "127.0.0.1")
        if socket.has_dualstack_ipv6() and self.has_ipv6():
            self.reach(listener, "::1")

    def test_on_all_addresses_of_a_machine_without_ipv6(self):
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            self.assertEqual(self.listener("").getsockname()[0], "0.0.0.0")

    def test_1024_connections_may_wait_to_be_accepted(self):
        for address in ("", "127.0.0.1"):
            with mock.patch("socket.create_server") as create_server, self.subTest(address=address):
                server.open_listener(address, 0)
                self.assertEqual(create_server.call_args[1]["backlog"], 1024)

    def test_port_that_is_taken(self):
        port = self.listener("127.0.0.1").getsockname()[1]
        with self.assertRaises(OSError) as caught:
            server.open_listener("127.0.0.1", port)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)


class DescribeError(unittest.TestCase):
    """describe_error: what the user is told if the server cannot listen."""

    def test_each_error_has_its_advice(self):
        kept = "the system keeps port 7777 for itself or for another program: try -p 8888"
        rights = "port 1023 needs special rights: choose one above 1023 with -p"
        taken = "port 7777 is taken: stop the program that uses it, or choose another with -p"
        foreign = "::5 is not an address of this machine: omit -a to listen on all of them"
        unknown = "unknown address ::5: give an IP address of this machine"
        for system, error, port, text in (
            ("posix", OSError(errno.EADDRINUSE, ""), 7777, taken),
            ("posix", OSError(errno.EADDRNOTAVAIL, ""), 7777, foreign),
            ("posix", OSError(errno.EACCES, ""), 1023, rights),
            ("posix", OSError(errno.EACCES, ""), 1024, kept.replace("7777", "1024")),
            ("nt", OSError(errno.EACCES, ""), 1023, kept.replace("7777", "1023")),
            ("nt", OSError(10013, ""), 7777, kept),
            ("posix", socket.gaierror(-2, ""), 7777, unknown),
            ("posix", UnicodeError(), 7777, unknown),
            ("posix", OSError("what else"), 7777, "cannot listen on ::5 port 7777: what else"),
        ):
            with self.subTest(error=error, port=port), mock.patch("os.name", system):
                self.assertEqual(server.describe_error(error, "::5", port), text)


class ParseArgs(unittest.TestCase):
    """parse_args: the command line."""

    def assert_usage_error(self, *argv):
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as stderr:
            server.parse_args(list(argv))
        self.assertEqual(caught.exception.code, 2)
        return stderr.getvalue()

    def test_defaults(self):
        self.assertEqual(vars(server.parse_args([])), {"port": 7777, "addr": "", "log_level": "DEBUG"})

    def test_everything(self):
        arguments = server.parse_args(["-p", "8888", "-a", "::1", "--log-level", "ERROR"])
        self.assertEqual(vars(arguments), {"port": 8888, "addr": "::1", "log_level": "ERROR"})

    def test_lowest_and_highest_port(self):
        for port in (0, 65535):
            with self.subTest(port=port):
                self.assertEqual(server.parse_args(["-p", str(port)]).port, port)

    def test_levels(self):
        for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
            with self.subTest(level=level):
                self.assertEqual(server.parse_args(["--log-level", level]).log_level, level)

    def test_usage_errors_are_explained(self):
        for argv, explanation in (
            (["-p", "-1"], "a port is a number from 0 to 65535, not -1"),
            (["-p", "65536"], "a port is a number from 0 to 65535, not 65536"),
            (["-p", "http"], "http"),
            (["-p", ""], "-p"),
            (["-p", "77.7"], "77.7"),
            (["7777"], "7777"),
            (["-x"], "-x"),
            (["--log-level", "LOUD"], "LOUD"),
        ):
            with self.subTest(argv=argv):
                self.assertIn(explanation, self.assert_usage_error(*argv))


class LogFilePath(unittest.TestCase):
    """LOG_FOLDER: where the log is, whatever the current folder."""

    def test_is_the_folder_log_beside_the_scripts(self):
        self.assertEqual(server_log_config.LOG_FOLDER, os.path.join(HERE, "log"))


class LogCase(unittest.TestCase):
    """What the tests of the log share: a folder of its own for the files, and what the console shows."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "log")
        self.patch("LOG_FOLDER", self.folder)
        self.console = io.StringIO()
        redirection = contextlib.redirect_stderr(self.console)
        redirection.__enter__()
        self.addCleanup(redirection.__exit__, None, None, None)
        self.addCleanup(server_log_config.close_log)

    def patch(self, name, value):
        patch = mock.patch.object(server_log_config, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def configure(self):
        """Configure the log, without the record that says where it is: that one is of today."""
        server_log_config.configure_log()
        LOG.handlers[-1].announced = True

    def log_on(self, day, *texts, time_of_day="12:00:00"):
        """Log at a moment such as "2026-11-22", and write the file."""
        created = time.mktime(time.strptime(f"{day} {time_of_day}", "%Y-%m-%d %H:%M:%S"))
        for text in texts:
            fields = {"created": created, "msecs": 0.0, "levelname": "DEBUG", "levelno": 10, "name": "server"}
            LOG.handle(logging.makeLogRecord({**fields, "msg": text}))
        server_log_config.flush_log()

    def path(self, day):
        return os.path.join(self.folder, f"server.{day}.log")

    def today(self):
        return time.strftime("%Y-%m-%d")

    def make_files(self, *days):
        """Make empty log files of other days."""
        os.makedirs(self.folder, exist_ok=True)
        for day in days:
            open(self.path(day), "w", encoding="utf-8").close()

    def days(self):
        """Return the days of the files in the folder."""
        return [name[len("server.") : -len(".log")] for name in sorted(os.listdir(self.folder))]

    def logged_bytes(self, day=None):
        with open(self.path(day or self.days()[-1]), "rb") as log:
            return log.read()

    def logged(self, day=None):
        """Return the messages of the lines in a log file; by default the newest."""
        server_log_config.flush_log()
        lines = self.logged_bytes(day).decode().splitlines()
        messages = [LINE.fullmatch(line).group(2) for line in lines]
        return [message for message in messages if not message.startswith("log in ")]

    def shown(self):
        """Return level and message of the lines on the console."""
        lines = [" ".join(LINE.fullmatch(line).groups()) for line in self.console.getvalue().splitlines()]
        return [line for line in lines if not line.startswith("INFO log in ")]

    def full_disk(self):
        """Return a patch under which half of what is written to the log file fits on the disk."""

        class FullFile(io.FileIO):
            def write(self, data):
                super().write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "no space")

        def open_full_file(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return FullFile(path, "ab+")

        return mock.patch.object(server_log_config, "open_log_file", open_full_file)


class Escape(unittest.TestCase):
    """escape, escape_character: only printable characters get through."""

    def test_printable_text_stays_as_it_is(self):
        for text in ("", "200 : OK", "Жанна и 😀", r"a \n that somebody typed"):
            with self.subTest(text=text):
                self.assertEqual(server_log_config.escape(text), text)

    def test_other_characters_are_escaped(self):
        for text, escaped in (
            ("a\nb\r", r"a\nb\r"),
            ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
            ("\x85\u2028\u202e\ud800", r"\x85\u2028\u202e\ud800"),
            ("Ж\t\U000e0001", r"Ж\t\U000e0001"),
        ):
            with self.subTest(text=text):
                self.assertEqual(server_log_config.escape(text), escaped)


class OneLineFormatterTest(unittest.TestCase):
    """OneLineFormatter.format: one record, one line."""

    def format(self, text, **fields):
        formatter = server_log_config.OneLineFormatter(server_log_config.LINE_FORMAT)
        formatter.converter = time.gmtime  # UTC, wherever the test runs
        fields = {
            "created": NOW,
            "msecs": 500.0,
            "levelname": "INFO",
            "name": "server",
            "msg": text,
            **fields,
        }
        return formatter.format(logging.makeLogRecord(fields))

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.format("text"), "2023-11-14 22:13:20,500 INFO server text")

    def test_line_breaks_of_a_peer_are_escaped(self):
        line = self.format("a\n2023-11-14 22:13:20,500 INFO server forged\u2028")
        self.assertEqual(line[24:], r"INFO server a\n2023-11-14 22:13:20,500 INFO server forged\u2028")

    def test_traceback_is_part_of_the_line(self):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            line = self.format("text", exc_info=sys.exc_info())
        self.assertRegex(line, r"server text\\nTraceback .*\\nZeroDivisionError: by zero$")


class DailyFile(LogCase):
    """DailyFileHandler.emit, flush and write, delete_old_files: each line in the file of its day."""

    def test_file_is_named_for_the_day(self):
        self.configure()
        self.log_on("2026-11-22", "text")
        self.assertEqual((self.days(), self.logged()), (["2026-11-22"], ["text"]))

    def test_each_line_is_in_the_file_that_its_first_ten_characters_say(self):
        self.configure()
        for day in ("2026-03-28", "2026-03-29", "2026-10-25", "2026-10-26", "2026-12-31", "2027-01-01"):
            self.log_on(day, "late", time_of_day="23:59:59")
            self.log_on(day, "early", time_of_day="00:00:00")
            for line in self.logged_bytes(day).decode().splitlines():
                if " log in " not in line:
                    self.assertTrue(line.startswith(day), line)

    def test_lines_collected_before_midnight_are_in_the_file_of_their_day(self):
        self.configure()
        with mock.patch("server_log_config.DailyFileHandler.flush"):
            self.log_on("2026-11-22", "old", time_of_day="23:59:59")
        self.log_on("2026-11-23", "new", time_of_day="00:00:00")
        self.assertEqual((self.logged("2026-11-22"), self.logged("2026-11-23")), (["old"], ["new"]))

    def test_clock_that_runs_back_and_forward_overwrites_nothing(self):
        self.configure()
        for day, text in (("2026-11-22", "a"), ("2026-11-23", "b"), ("2026-11-22", "c"), ("2026-11-23", "d")):
            self.log_on(day, text)
        self.assertEqual((self.logged("2026-11-22"), self.logged("2026-11-23")), (["a", "c"], ["b", "d"]))

    def test_file_of_a_second_server_is_continued(self):
        self.make_files("2026-11-22")
        with open(self.path("2026-11-22"), "wb") as log:
            log.write(b"2026-11-22 00:00:00,000 INFO server of another\n")
        self.configure()
        self.log_on("2026-11-22", "ours")
        self.assertEqual(self.logged(), ["of another", "ours"])

    def test_thirty_files_are_kept_besides_the_new_one(self):
        days = [f"2020-01-{day:02}" for day in range(1, 32)]
        self.make_files(*days)
        self.configure()
        self.log_on("2026-11-22", "text")
        self.assertEqual(self.days(), [*days[1:], "2026-11-22"])

    def test_files_are_kept_by_their_names_not_by_their_age(self):
        days = [f"2020-01-{day:02}" for day in range(1, 32)]
        self.make_files(*reversed(days))
        os.utime(self.path(days[0]))
        os.utime(self.path(days[-1]), (0, 0))
        self.configure()
        self.log_on("2019-12-31", "the clock runs back: the new file is the oldest")
        self.assertEqual(self.days(), ["2019-12-31", *days[1:]])

    def test_nothing_is_deleted_while_the_file_of_the_day_is_there(self):
        days = [f"2020-01-{day:02}" for day in range(1, 32)]
        self.configure()
        self.log_on("2026-11-22", "text")
        self.make_files(*days)
        self.log_on("2026-11-22", "text")
        self.assertEqual(self.days(), [*days, "2026-11-22"])

    def test_file_that_cannot_be_deleted_stays_and_no_other_goes_in_its_place(self):
        days = [f"2020-01-{day:02}" for day in range(3, 32)]
        self.make_files("2020-01-02", *days)
        os.mkdir(self.path("2020-01-01"))  # a folder, which `os.remove` refuses
        self.configure()
        self.log_on("2026-11-22", "text")
        self.log_on("2026-11-23", "text")
        kept = ["2020-01-01", *days, "2026-11-22", "2026-11-23"]
        self.assertEqual((self.days(), self.shown()), (kept, []))

    def test_other_files_are_never_deleted(self):
        others = [
            "client.log",
            "server.log",
            "server.log.2020-01-01",
            "server.copy-of-it.log",
            "server.2020.log",
        ]
        self.make_files(*(f"2020-01-{day:02}" for day in range(1, 32)))
        for name in others:
            open(os.path.join(self.folder, name), "w", encoding="utf-8").close()
        self.configure()
        self.log_on("2026-11-22", "text")
        self.assertEqual([name for name in others if name not in os.listdir(self.folder)], [])

    def test_full_day_is_said_once_and_the_rest_of_it_is_dropped(self):
        self.patch("MAX_FILE_BYTES", 1000)
        self.configure()
        self.log_on("2026-11-22", "x" * 1000)
        for _ in range(3):
            self.log_on("2026-11-22", "dropped")
            LOG.handlers[-1].next_report = 0.0
        self.assertEqual(self.logged("2026-11-22"), ["x" * 1000])
        full = f"ERROR the log {self.path('2026-11-22')} is full, the rest of the day is not logged"
        self.assertEqual(self.shown(), [full])

    def test_full_day_is_said_again_after_a_restart_instead_of_where_the_log_is(self):
        self.make_files("2026-11-22")
        with open(self.path("2026-11-22"), "wb") as log:
            log.write(b"x" * 999 + b"\n")
        self.patch("MAX_FILE_BYTES", 1000)
        server_log_config.configure_log()
        self.log_on("2026-11-22", "dropped")
        self.assertRegex(self.console.getvalue(), r"^[^\n]* ERROR server the log .* is full, [^\n]*\n$")

    def test_day_after_a_full_one_begins_anew(self):
        self.patch("MAX_FILE_BYTES", 1000)
        self.configure()
        self.log_on("2026-11-22", "x" * 1000)
        self.log_on("2026-11-22", "dropped")
        self.log_on("2026-11-23", "text")
        self.assertEqual(self.logged("2026-11-23")[-1], "text")

    def test_bound_of_a_day_is_a_hundred_megabytes(self):
        self.assertEqual(server_log_config.MAX_FILE_BYTES, 100 * 1024 * 1024)


class LogFile(LogCase):
    """DailyFileHandler.report, report_full and announce, open_log_file, ends_inside_a_line, flush_log."""

    def test_lines_wait_for_flush_log(self):
        self.configure()
        LOG.info("text")
        self.assertFalse(os.path.exists(self.folder))
        server_log_config.flush_log()
        self.assertEqual(self.logged(), ["text"])

    def test_close_writes_what_is_left(self):
        self.configure()
        LOG.info("text")
        server_log_config.close_log()
        self.assertEqual(self.logged(), ["text"])

    def test_file_is_continued(self):
        for text in ("first", "second"):
            self.configure()
            LOG.info(text)
            server_log_config.close_log()
        self.assertEqual(self.logged(), ["first", "second"])

    def test_file_is_utf8(self):
        self.configure()
        LOG.info("Жанна")
        server_log_config.flush_log()
        self.assertIn("Жанна\n".encode(), self.logged_bytes())

    def test_is_announced_once_when_something_has_been_written(self):
        server_log_config.configure_log("ERROR")
        LOG.info("not for the file")
        server_log_config.flush_log()
        self.assertNotIn("log in", self.console.getvalue())
        for _ in range(3):
            LOG.error("text")
            server_log_config.flush_log()
        line = f"INFO server log in {self.path(self.days()[0])}\n"
        self.assertEqual(self.console.getvalue().count(line), 1)

    def test_file_and_folder_that_are_deleted_or_renamed_are_made_again(self):
        self.configure()
        for spoil in (
            lambda: os.remove(self.path("2026-11-22")),
            lambda: os.replace(self.path("2026-11-22"), self.path("2026-11-22") + ".old"),
            lambda: shutil.rmtree(self.folder),
        ):
            self.log_on("2026-11-22", "before")
            spoil()
            self.log_on("2026-11-22", "after")
            self.assertEqual(self.logged("2026-11-22"), ["after"])
        self.assertEqual(self.shown(), [])

    def test_cannot_be_written_is_said_and_not_where_the_log_is(self):
        with open(self.folder, "w", encoding="utf-8"):  # a file where the folder should be
            self.configure()
            LOG.info("the program goes on")
            server_log_config.flush_log()
        self.assertNotIn("log in", self.console.getvalue())
        info, error = self.shown()
        self.assertEqual(info, "INFO the program goes on")
        self.assertTrue(error.startswith(f"ERROR cannot write the log {self.folder}"), error)

    def test_full_disk_is_said_once_an_hour(self):
        self.configure()
        clock = Clock()
        LOG.handlers[-1].next_report = clock.now
        errors = 0
        with self.full_disk(), mock.patch("server_log_config.monotonic", clock):
            for now, said in ((1000.0, 1), (1001.0, 0), (4599.9, 0), (4600.0, 1), (4601.0, 0)):
                clock.now = now
                errors += said
                self.log_on("2026-11-22", "text")
                with self.subTest(now=now):
                    error = "going on without it: [Errno 28] no space"
                    self.assertEqual(self.console.getvalue().count(error), errors)

    def test_full_disk_is_said_at_the_end(self):
        self.configure()
        LOG.debug("text")
        with self.full_disk():
            server_log_config.close_log()
        self.assertEqual(self.console.getvalue().count("ERROR server cannot write the log"), 1)

    def test_what_could_not_be_written_is_gone(self):
        self.configure()
        with self.full_disk():
            self.log_on("2026-11-22", "lost")
        self.assertEqual(LOG.handlers[-1].lines, [])

    def test_after_a_full_disk_no_record_continues_a_line_that_was_cut_off(self):
        self.configure()
        self.log_on("2026-11-22", "whole")
        with self.full_disk():
            self.log_on("2026-11-22", "cut off")
        self.log_on("2026-11-22", "next")
        self.log_on("2026-11-22", "last")
        lines = self.logged_bytes("2026-11-22").decode().split("\n")
        self.assertEqual([line[24:] for line in lines[-3:]], ["DEBUG server next", "DEBUG server last", ""])
        self.assertNotIn("", lines[:-1])

    def test_after_a_restart_no_record_continues_a_line_that_was_cut_off(self):
        self.make_files("2026-11-22")
        with open(self.path("2026-11-22"), "wb") as log:
            log.write(b"2026-11-22 00:00:00,000 INFO server cut o")
        self.configure()
        self.log_on("2026-11-22", "next")
        self.assertEqual(self.logged(), ["cut o", "next"])

    def test_full_disk_at_midnight_ends_nothing(self):
        self.configure()
        self.log_on("2026-11-22", "text")
        with self.full_disk():
            self.log_on("2026-11-23", "exactly one record")
            server_log_config.close_log()
        self.assertEqual(self.logged("2026-11-22"), ["text"])

    def test_wrong_call_of_the_logger_is_no_error_of_the_file(self):
        self.configure()
        LOG.debug("%d", "not a number")
        server_log_config.flush_log()
        self.assertIn("TypeError", self.console.getvalue())
        self.assertNotIn("cannot write", self.console.getvalue())


class ConfigureLog(LogCase):
    """configure_log, add_handler, is_for_console, skip_what_no_line_shows, close_log: what goes where."""

    def test_until_then_records_go_nowhere(self):
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), [])

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(logging.getLogger(), "DEBUG") as logs:
            logging.getLogger("another").warning("a record of another")
            LOG.warning("our record")
        self.assertEqual(logs.output, ["WARNING:another:a record of another"])

    def test_line_is_the_same_in_the_file_and_on_the_console(self):
        server_log_config.configure_log()
        LOG.info("from %s\n", "Жанна")
        line = self.console.getvalue()
        server_log_config.flush_log()
        self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO server from Жанна\\n\n$")
        self.assertEqual(self.logged_bytes().decode(), line)

    def test_file_takes_the_level_and_above_and_the_console_info_and_error(self):
        levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                server_log_config.configure_log(level)
                for each in levels:
                    LOG.log(getattr(logging, each), each)
                self.assertEqual(self.logged(), levels[number:])
                shutil.rmtree(self.folder)
        self.assertEqual(self.shown(), ["INFO INFO", "ERROR ERROR"] * 4)

    def test_everything_is_logged_by_default(self):
        server_log_config.configure_log()
        LOG.debug("a trace")
        self.assertEqual(self.logged(), ["a trace"])

    def test_second_call_replaces_the_first(self):
        server_log_config.configure_log()
        server_log_config.configure_log()
        LOG.info("once")
        self.assertEqual((self.logged(), self.shown()), (["once"], ["INFO once"]))

    def test_without_a_console_the_file_is_written(self):
        with contextlib.redirect_stderr(None):
            server_log_config.configure_log()
            LOG.info("text")
        self.assertEqual(self.logged(), ["text"])

    def test_calling_function_is_unknown_and_known_again_after_close(self):
        names = []
        with mock.patch.object(LOG, "handle", lambda record: names.append((record.funcName, record.thread))):
            server_log_config.configure_log()
            LOG.error("text")
            server_log_config.close_log()
            LOG.error("text")
        self.assertEqual(names[0], ("(unknown function)", None))
        self.assertEqual(names[1][0], self._testMethodName)
        self.assertIsNotNone(names[1][1])

    def test_after_close_records_go_nowhere(self):
        server_log_config.configure_log()
        server_log_config.close_log()
        LOG.error("nobody sees this")
        self.assertEqual((os.path.exists(self.folder), self.shown()), (False, []))


@needs_sockets
class Main(LogCase):
    """main, run, serve: from the command line to the exit code."""

    def run_main(self, *argv, end=KeyboardInterrupt):
        """Run the server on the loopback address until `end` is raised; return the exit code."""
        with mock.patch("server.Server.serve_forever", side_effect=end):
            return server.main(["-a", "127.0.0.1", "-p", "0", *argv])

    def test_says_where_it_listens_and_that_it_stopped(self):
        self.assertEqual(self.run_main(), 0)
        listening, stopped = self.shown()
        self.assertRegex(listening, r"^INFO listening on 127\.0\.0\.1 port [1-9]\d*, stop with Ctrl\+C$")
        self.assertEqual(stopped, "INFO stopped")

    def test_listens_on_all_addresses_by_default(self):
        listener = socket.create_server(("127.0.0.1", 0))
        with mock.patch("server.open_listener", return_value=listener) as open_listener:
            self.run_main("-a", "")
        open_listener.assert_called_once_with("", 0)
        self.assertRegex(self.shown()[0], r"^INFO listening on all addresses port \d+, stop with Ctrl\+C$")

    def test_closes_its_sockets_at_the_end(self):
        listener = socket.create_server(("127.0.0.1", 0))
        with mock.patch("server.open_listener", return_value=listener):
            with mock.patch("server.Server.close") as close:
                self.run_main()
        self.assertEqual((listener.fileno(), close.call_count), (-1, 1))

    def test_port_that_is_taken_is_one_line_and_exit_code_1(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.assertEqual(server.main(["-a", "127.0.0.1", "-p", str(port)]), 1)
        line = f"port {port} is taken: stop the program that uses it, or choose another with -p"
        self.assertEqual(self.console.getvalue()[24:], f"ERROR server {line}\n")
        self.assertEqual(self.logged()[0], line)
        self.assertRegex(self.logged()[1], r"^the cause: OSError\(\d+, ")

    def test_unknown_address_is_one_line_and_exit_code_1(self):
        for address in ("no such name", "a" * 64, "é" * 64, "a..b"):
            with self.subTest(address=address):
                self.assertEqual(server.main(["-a", address]), 1)
                line = f"ERROR unknown address {address}: give an IP address of this machine"
                self.assertEqual(self.shown()[-1], line)

    def test_machine_that_cannot_serve_is_one_line_and_exit_code_1(self):
        self.assertEqual(self.run_main(end=OSError("no more")), 1)
        self.assertEqual(self.shown()[1:], ["ERROR cannot go on serving: no more"])

    def test_usage_error_is_exit_code_2(self):
        with self.assertRaises(SystemExit) as caught:
            server.main(["-p", "x"])
        self.assertEqual(caught.exception.code, 2)

    def test_log_is_closed_at_the_end(self):
        self.run_main()
        LOG.error("nobody sees this")
        self.assertEqual(len(self.shown()), 2)

    def test_log_level_is_that_of_the_log_file(self):
        self.run_main("--log-level", "ERROR")
        self.assertFalse(os.path.exists(self.folder))


class Stop(unittest.TestCase):
    """stop, handle_stop_signals: Ctrl+C and the other ways to stop the server."""

    def setUp(self):
        patch = mock.patch("server.next_stop", 0.0)
        patch.start()
        self.addCleanup(patch.stop)

    def test_first_signal_raises_and_others_are_ignored_for_a_second(self):
        clock = Clock()
        with mock.patch("server.monotonic", clock):
            for now, raises in (
                (1000.0, True),
                (1000.0, False),
                (1000.9, False),
                (1001.0, True),
                (1001.5, False),
            ):
                clock.now = now
                expected = self.assertRaises(KeyboardInterrupt) if raises else contextlib.nullcontext()
                with self.subTest(now=now), expected:
                    server.stop(signal.SIGINT, None)

    def test_all_ways_to_stop_are_handled(self):
        names = ["SIGINT", "SIGTERM", "SIGBREAK" if os.name == "nt" else "SIGHUP"]
        numbers = [getattr(signal, name) for name in names]
        for number in numbers:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        server.handle_stop_signals(server.stop)
        for number in numbers:
            with self.subTest(number=number), mock.patch("server.next_stop", 0.0):
                with self.assertRaises(KeyboardInterrupt):
                    signal.raise_signal(number)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGHUP")
    def test_closed_terminal_is_ignored_if_it_was_at_the_start(self):
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        server.handle_stop_signals(server.stop)
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)


@needs_sockets
class Script(unittest.TestCase):
    """server.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "alone")
        for module in (server, server_log_config):
            copy = os.path.join(self.folder, os.path.relpath(module.__file__, HERE))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self, *arguments):
        """Start the script in another current folder; return the process."""
        script = os.path.join(self.folder, "server.py")
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", script, *arguments],
            cwd=tempfile.gettempdir(),
            stderr=subprocess.PIPE,
            universal_newlines=True,
            encoding="utf-8",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # or we would stop as well
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def send_signal(self, process, number):
        try:
            process.send_signal(number)
        except (OSError, SystemError):
            self.skipTest("there is no console through which Ctrl+Break could be sent")

    def assert_serves_until(self, number):
        """Let the server answer two messages, send it the signal twice, and see it end."""
        process = self.start("-a", "127.0.0.1", "-p", "0")
        port = int(re.search(r"listening on 127\.0\.0\.1 port (\d+)", process.stderr.readline()).group(1))
        self.assertRegex(process.stderr.readline(), r" INFO server log in .*server\.\d{4}-\d\d-\d\d\.log$")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            for _ in range(2):
                sock.sendall(in_bytes(PRESENCE))
                self.assertEqual(codes(sock.recv(10_000)), [200])
            for _ in range(2):
                self.send_signal(process, number)
            self.assertEqual(process.wait(PATIENCE), 0)
        rest = process.stderr.read().splitlines()
        self.assertEqual(len(rest), 1, rest)
        self.assertRegex(rest[0], " INFO server stopped$")

    @unittest.skipIf(
        os.name == "nt", "Windows sends Ctrl+C to all programs of a console, to the tests as well"
    )
    def test_ctrl_c_stops_it(self):
        self.assert_serves_until(signal.SIGINT)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM that another program could send")
    def test_sigterm_stops_it(self):
        self.assert_serves_until(signal.SIGTERM)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGHUP")
    def test_closed_terminal_stops_it(self):
        self.assert_serves_until(signal.SIGHUP)

    @unittest.skipUnless(os.name == "nt", "only Windows has Ctrl+Break")
    def test_ctrl_break_stops_it(self):
        self.assert_serves_until(signal.CTRL_BREAK_EVENT)

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import server"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)

    def test_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = self.start("-a", "127.0.0.1", "-p", str(listener.getsockname()[1]))
            _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (1, 1), shown)

    def test_log_tells_the_story(self):
        process = self.start("-a", "127.0.0.1", "-p", "0")
        port = int(re.search(r"port (\d+)", process.stderr.readline()).group(1))
        process.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(in_bytes(PRESENCE))
            sock.recv(10_000)
            sock.sendall(b'{"action": "quit"}')
            self.assertEqual(sock.recv(10_000), b"")  # the server has closed: its lines are in the file
            path = os.path.join(self.folder, "log", f"server.{time.strftime('%Y-%m-%d')}.log")
            with open(path, encoding="utf-8") as log:
                verbs = [LINE.fullmatch(line.rstrip("\n")).group(2).split()[0] for line in log]
        self.assertEqual(verbs[:6], ["listening", "log", "connected:", "received", "processed", "sent"])


if __name__ == "__main__":
    unittest.main()
