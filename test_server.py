"""Tests of server.py and server_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_server              all of them
    python -m unittest -v test_server           the same, with their names: what the server does

A test states one fact and is named for it; cases of one kind are the lines of a table. A class says first
which functions it is about. No test sleeps or leaves a file behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
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
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import server
import server_log_config
from server import LOG, Client, ProtocolError, Server

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 10.0  # seconds that a test waits before it fails, and only then
PRESENCE = {"action": "presence", "time": 1.5, "user": {"account_name": "Guest"}}
PRESENCE_BYTES = json.dumps(PRESENCE).encode()
QUIT_BYTES = b'{"action": "quit"}'
ADDRESS = ("127.0.0.1", 5000)
FLOAT_MAX = sys.float_info.max
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) server (.*)$")
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets, no threads")


def without_times(text):
    """Return the lines of a log as "<level> <message>"; what is not such a line stays as it is."""
    return [LINE.sub(r"\1 \2", line) for line in text.splitlines()]


def in_objects(data):
    """Return the messages that follow one another in `data`, none of which holds an object."""
    return [json.loads(line) for line in data.replace(b"}{", b"}\n{").splitlines()]


class Clock:
    """A clock that moves only when it is told to."""

    now = 1000.0

    def __call__(self):
        return self.now


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
    def assert_logged(self, *lines, level="DEBUG"):
        """Fail unless exactly these lines, "<level> <message>", are logged within the block.

        Only `level` and above count. The ports of clients are left out.
        """
        with self.assertLogs(LOG, level) as logs:
            yield
            LOG.critical("the end")  # assertLogs wants at least one record
        logged = [f"{each.levelname} {each.getMessage()}" for each in logs.records]
        self.assertEqual([re.sub(r" port \d+", "", line) for line in logged], [*lines, "CRITICAL the end"])


class ProcessClientMessage(Case):
    """process_client_message, create_error, check_presence, check_user, check_time, check_text, check_string
    and wrong_type_error: the response to a message.
    """

    def assert_refused(self, error, *messages):
        """Fail unless the response to each message is 400 with this error."""
        response = {"response": 400, "time": mock.ANY, "error": error}
        self.assert_results(server.process_client_message, [(each, response) for each in messages])

    def test_presence_is_answered_with_200(self):
        response = {"response": 200, "time": mock.ANY, "alert": "OK"}
        self.assertEqual(server.process_client_message(PRESENCE), response)

    def test_valid_presences(self):
        for changes in (
            {"type": "status", "user": {"account_name": "Guest", "status": "Yep, I am here!"}},
            {"type": "", "user": {"account_name": "Guest", "status": ""}},
            *({"time": seconds} for seconds in (0, -1, 1732267890, FLOAT_MAX, -FLOAT_MAX, int(FLOAT_MAX))),
            *({"user": {"account_name": name}} for name in ("x", "Ж" * 25, "\n\x1b[2J\x00\u2028\ud800")),
            {"room": "a field that JIM does not have", "user": {"account_name": "Guest", "password": None}},
        ):
            with self.subTest(changes=changes):
                response = server.process_client_message({**PRESENCE, **changes})
                self.assertEqual(response["response"], 200)

    def test_times_of_responses_are_now(self):
        for message in (PRESENCE, {}):
            before = time.time()
            now = server.process_client_message(message)["time"]
            self.assertTrue(before <= now <= time.time(), now)

    def test_missing_fields(self):
        self.assert_refused("'action' is missing", {}, {"time": 1.5, "user": {"account_name": "Guest"}})
        self.assert_refused("'time' is missing", {"action": "presence", "user": {"account_name": "Guest"}})
        self.assert_refused("'user' is missing", {"action": "presence", "time": 1.5})
        for user in ({}, {"status": "here"}):
            self.assert_refused("'account_name' is missing", {**PRESENCE, "user": user})

    def test_fields_of_another_type(self):
        values = {"null": None, "a boolean": True, "a number": 1.5, "a string": "5", "an array": [5]}
        for name, wanted in (
            ("action", "a string"),
            ("type", "a string"),
            ("account_name", "a string"),
            ("status", "a string"),
            ("time", "a number"),
            ("user", "an object"),
        ):
            for found in values.keys() - {wanted}:
                field = {name: values[found]}
                if name in ("account_name", "status"):
                    field = {"user": {"account_name": "Guest", **field}}
                self.assert_refused(f"'{name}' must be {wanted}, not {found}", {**PRESENCE, **field})
        self.assert_refused("'type' must be a string, not an object", {**PRESENCE, "type": {}})
        self.assert_refused("'type' must be a string, not a number", {**PRESENCE, "type": 5})

    def test_strings_of_another_length(self):
        for length in (0, 16):
            error = f"'action' must be 1 to 15 characters long, not {length}"
            self.assert_refused(error, {"action": "a" * length})
        for length in (0, 26):
            error = f"'account_name' must be 1 to 25 characters long, not {length}"
            self.assert_refused(error, {**PRESENCE, "user": {"account_name": "a" * length}})

    def test_times_that_are_not_finite(self):
        for value in (float("inf"), float("-inf"), float("nan"), 10**400, -(10**400)):
            self.assert_refused("'time' is too large a number", {**PRESENCE, "time": value})

    def test_other_actions_are_named_in_printable_characters(self):
        for action in ("msg", "Presence", "presence ", "QUIT", "п" * 15, "\n\x1b\u202e\ud800"):
            shown = r"\n\x1b\u202e\ud800" if "\n" in action else action
            error = f"the action '{shown}' is not supported, only 'presence' is"
            self.assert_refused(error, {**PRESENCE, "action": action})

    def test_quit_has_no_response(self):
        for message in ({"action": "quit"}, {**PRESENCE, "action": "quit"}, {"action": "quit", "time": "?"}):
            with self.subTest(message=message):
                self.assertIsNone(server.process_client_message(message))

    def test_not_an_object(self):
        for message, found in (([], "an array"), ("quit", "a string"), (b"", "something else")):
            self.assert_refused(f"'message' must be an object, not {found}", message)

    def test_is_logged(self):
        for message, line in (
            (PRESENCE, "DEBUG processed a message, response 200"),
            ({}, "DEBUG processed a message, response 400"),
            ({"action": "quit"}, "DEBUG processed a quit"),
        ):
            with self.assert_logged(line):
                server.process_client_message(message)


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
        """Accept what a real socket is told: this one never waits."""

    def recv(self, size):
        assert size == server.RECEIVE_BYTES, "every read is bounded"
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
            self.assert_results(server.take_message, table)

    def test_every_beginning_is_waited_for(self):
        for text, _ in VALID:
            data = text.rstrip().encode()
            table = [(data[:end], (None, 0)) for end in range(len(data))]
            self.assert_results(server.take_message, table)

    def test_invalid_messages_whatever_follows_them(self):
        table = [(data + behind, error) for data, error in INVALID for behind in (b"", b"x" * 1000)]
        self.assert_errors(server.take_message, table)

    def test_fault_in_an_object_is_seen_at_once(self):
        for text in FAULTS_IN_AN_OBJECT:
            with self.subTest(text=text):
                with self.assertRaisesRegex(ProtocolError, r"^not JSON at character \d+: .+$"):
                    server.take_message(text.encode())

    def test_fault_is_named_with_its_place_before_anything_else(self):
        error = "not JSON at character 6: Expecting ':' delimiter"
        table = [(b'{"a" 1 ' + behind, error) for behind in (b"", b"\xff", b"x" * 999)]
        self.assert_errors(server.take_message, table)


class ClientTest(Case):
    """Client, client_name: one connection."""

    def test_is_named_by_address_and_port(self):
        table = (
            (("127.0.0.1", 5000), "127.0.0.1 port 5000"),
            (("::1", 5000, 0, 0), "::1 port 5000"),
            (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7 port 5000"),
            (None, "unknown address"),
            ("", "unknown address"),
        )
        self.assert_results(lambda address: Client(Pieces(), address).name, table)

    def test_never_waits(self):
        sock = mock.Mock()
        Client(sock, ADDRESS)
        sock.setblocking.assert_called_with(False)


class ReceiveMessage(Case):
    """receive_message, receive_bytes: one message in, in however many pieces."""

    def receive_all(self, *pieces):
        """Return all messages that arrive in these pieces; `self.client` is their sender."""
        self.client = Client(Pieces(*pieces), ADDRESS)
        self.messages = []
        while True:
            message = server.receive_message(self.client)
            if message is not None:
                self.messages.append(message)
            elif not self.client.sock.pieces:
                return self.messages

    def test_message_in_any_pieces(self):
        for text, message in VALID:
            table = [(*pieces, [message]) for pieces in splits(text.encode())]
            self.assert_results(self.receive_all, table)

    def test_several_messages_in_any_pieces(self):
        messages = [{"a": 1}, {"Ж": 2}, {"a": 3}]
        pieces = splits(' {"a": 1}{"Ж": 2}\r\n\t{"a": 3}\n'.encode())
        self.assert_results(self.receive_all, [(*each, messages) for each in pieces])

    def test_messages_before_an_invalid_one_are_received(self):
        for data, error in INVALID:
            self.assert_errors(self.receive_all, [(b'{"a": 1}{"a": 2}' + data, error)])
            self.assertEqual(self.messages, [{"a": 1}, {"a": 2}])

    def test_receives_at_most_once(self):
        client = Client(Pieces(b"{", b"}"), ADDRESS)
        self.assertIsNone(server.receive_message(client))
        self.assertEqual(client.sock.pieces, [b"}"])

    def test_whitespace_does_not_count(self):
        self.assertEqual(self.receive_all(b" " * 5000, b"\n" * 1000), [])
        self.assertEqual(self.client.data, b"")

    def test_end_after_a_message(self):
        for spaces in (b"", b"\r\n"):
            with self.subTest(spaces=spaces), self.assertRaises(EOFError):
                self.receive_all(b"{}" + spaces, b"")
            self.assertEqual(self.messages, [{}])

    def test_end_inside_a_message(self):
        beginnings = (b"{", b'{"a": 1', b'{"a": "\xd0', b"\xd0")
        self.assert_errors(self.receive_all, [(data, b"", "the message is cut short") for data in beginnings])

    def test_is_logged(self):
        with self.assert_logged('DEBUG received from 127.0.0.1: {"a": "Ж"}'):
            self.receive_all('{"a": "Ж"}{"b'.encode())


@needs_sockets
class SendMessage(Case):
    """send_message: one message out."""

    def setUp(self):
        sock, self.peer = map(self.enter, socket.socketpair())
        self.peer.settimeout(PATIENCE)
        self.client = Client(sock, ADDRESS)

    def test_sends_json(self):
        for message, data in (
            ({"response": 200, "time": 1.5}, '{"response": 200, "time": 1.5}'),
            ({"error": "Жанна"}, '{"error": "Жанна"}'),  # characters stay as they are
        ):
            with self.subTest(message=message):
                server.send_message(self.client, message)
                self.assertEqual(self.peer.recv(10_000), data.encode())

    def test_client_that_does_not_read_is_not_waited_for(self):
        with self.assertRaises(BlockingIOError):
            while True:
                server.send_message(self.client, {"error": "x" * 100_000})

    def test_is_logged(self):
        with self.assert_logged('DEBUG sent to 127.0.0.1: {"a": "Ж"}'):
            server.send_message(self.client, {"a": "Ж"})


def reset(sock):
    """Close a connection with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
    sock.close()


@needs_sockets
class ServerCase(Case):
    """What the tests of the server share: a server that goes on when the test says so."""

    def setUp(self):
        self.clock = self.patch("monotonic", Clock())
        self.patch("CHECK_INTERVAL", 0.01)  # or each iteration might wait for a second
        self.listener = self.enter(server.open_listener("127.0.0.1", 0))
        self.start()

    def patch(self, name, value):
        return self.enter(mock.patch.object(server, name, value))

    def start(self):
        self.server = Server(self.listener)
        self.addCleanup(self.server.close)

    def connect(self, data=b""):
        """Return the socket of a client that has sent `data`."""
        sock = self.enter(socket.create_connection(self.listener.getsockname(), PATIENCE))
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    def serve_until(self, done):
        """Let the server go on until `done()`; fail if that does not come."""
        end = time.monotonic() + PATIENCE
        while not done():
            self.assertLess(time.monotonic(), end, "the server did not do what it was waited for")
            self.server.serve_once()

    def accepted(self, number=1):
        """Let the server accept clients until it has that many; return them."""
        self.serve_until(lambda: len(self.server.clients) == number)
        return list(self.server.clients)

    def serve_until_all_have_left(self):
        self.serve_until(lambda: not self.server.clients)

    def responses(self, sock, number=sys.maxsize):
        """Return that many responses, or all until the server ends the connection."""
        pieces = []

        def done():
            with contextlib.suppress(BlockingIOError):
                while pieces[-1:] != [b""]:
                    pieces.append(sock.recv(10_000))
            return pieces[-1:] == [b""] or b"".join(pieces).count(b"}") >= number

        self.serve_until(done)
        return in_objects(b"".join(pieces))

    def codes(self, sock, number=1):
        """Return the codes of that many responses."""
        return [response["response"] for response in self.responses(sock, number)]

    def visit(self, data):
        """Let a client send `data`, read all responses and leave; return the codes."""
        sock = self.connect(data)
        sock.shutdown(socket.SHUT_WR)
        codes = self.codes(sock, sys.maxsize)
        sock.close()
        self.serve_until_all_have_left()
        return codes


class Conversation(ServerCase):
    """Server.serve_once, serve_client, answer_message, drop and close, serve: valid clients."""

    def test_presence_is_answered(self):
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_messages_sent_at_once_are_answered_in_order_also_before_the_end_of_the_stream(self):
        self.assertEqual(self.visit((PRESENCE_BYTES + b"{}") * 50), [200, 400] * 50)

    def test_responses_do_not_wait_for_each_other(self):
        self.connect()
        (client,) = self.accepted()
        self.assertTrue(client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_turn_is_one_message(self):
        self.patch("RECEIVE_BYTES", 4096)
        sock = self.connect(b"{}" * 9)
        self.accepted()
        self.server.serve_once()
        sock.settimeout(PATIENCE)
        self.assertLessEqual(len(in_objects(sock.recv(10_000))), 2)

    def test_rest_of_a_client_does_not_wait_for_an_event(self):
        self.patch("CHECK_INTERVAL", PATIENCE)
        before = time.monotonic()
        self.assertEqual(self.codes(self.connect(b"{}" * 9), 9), [400] * 9)
        self.assertLess(time.monotonic() - before, PATIENCE / 2)

    def test_never_waits_for_somebody_to_accept(self):
        self.assertFalse(self.listener.getblocking())

    def test_new_client_is_answered_in_the_iteration_that_accepts_it(self):
        self.patch("RECEIVE_BYTES", 4096)
        sock = self.connect(PRESENCE_BYTES)
        self.server.serve_once()
        sock.settimeout(PATIENCE)
        self.assertIn(b"200", sock.recv(10_000))

    def test_silent_clients_delay_nobody(self):
        for _ in range(50):
            self.connect(b'{"action": "pres')
        self.accepted(50)
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_client_that_leaves_is_forgotten(self):
        self.visit(PRESENCE_BYTES)
        self.assertEqual(list(self.server.selector.get_map()), [self.listener.fileno()])

    def test_client_that_is_dropped_gets_no_further_turn(self):
        self.patch("RECEIVE_BYTES", 4096)
        self.connect(b"{}" * 9)
        self.serve_until(lambda: self.server.ready)
        (client,) = self.server.ready
        self.server.drop(client)
        self.assertEqual((self.server.ready, client.sock.fileno()), (set(), -1))

    def test_who_connected_and_who_left_is_logged(self):
        with self.assert_logged("DEBUG connected: 127.0.0.1", "DEBUG disconnected: 127.0.0.1"):
            self.visit(b"")

    def test_client_that_resets_has_left_as_well(self):
        sock = self.connect()
        self.accepted()
        with self.assert_logged("DEBUG disconnected: 127.0.0.1"):
            reset(sock)
            self.serve_until_all_have_left()

    def test_log_is_flushed_before_the_server_waits_and_now_and_then_while_it_is_busy(self):
        for events, calls in (([], ["select", "flush_log", "select"]), ([()], ["select", "flush_log"])):
            recorder = mock.Mock()
            recorder.select.return_value = events
            select = mock.patch.object(self.server.selector, "select", recorder.select)
            with self.subTest(events=events), select, mock.patch("server.flush_log", recorder.flush_log):
                with contextlib.suppress(ValueError):  # an event that is none
                    self.server.serve_once()
                self.assertEqual([call[0] for call in recorder.method_calls], calls)
                self.assertEqual(recorder.flush_log.call_args[0], (not events,))

    def test_serves_until_an_exception_and_then_closes_all_connections(self):
        self.connect()
        (client,) = self.accepted()
        self.patch("Server", lambda listener: self.server)
        self.patch("flush_log", mock.Mock(side_effect=[None, None, KeyboardInterrupt]))
        with self.assertRaises(KeyboardInterrupt):
            server.serve(self.listener)
        self.assertEqual(client.sock.fileno(), -1)


class Refusal(ServerCase):
    """Server.serve_client, close_gracefully, discard_input: invalid clients, and clients that quit."""

    def test_not_jim_gets_400_with_the_reason_and_the_end(self):
        for data, error in INVALID:
            with self.subTest(data=data):
                response = {"response": 400, "time": mock.ANY, "error": error}
                self.assertEqual(self.responses(self.connect(data)), [response])

    def test_not_jim_is_logged_as_a_warning_with_what_was_sent(self):
        self.patch("RECEIVE_BYTES", 4096)
        lines = (
            "DEBUG connected: 127.0.0.1",
            r'DEBUG received from 127.0.0.1: {"a": "\xff',
            "WARNING refused 127.0.0.1: the message is not UTF-8",
            mock.ANY,
            "DEBUG disconnected: 127.0.0.1",
        )
        with self.assert_logged(*lines):
            self.visit(b'{"a": "\xff')

    def test_invalid_presence_is_logged_as_a_warning(self):
        line = "WARNING invalid message from 127.0.0.1: 'action' is missing"
        with self.assert_logged(line, level="WARNING"):
            self.visit(PRESENCE_BYTES + b"{}")

    def test_400_comes_after_earlier_responses_though_the_client_is_still_sending(self):
        self.assertEqual(self.visit(PRESENCE_BYTES + b"{}" + b"hello" * 1000), [200, 400, 400])

    def test_quit_ends_the_connection_without_a_response_and_without_a_warning(self):
        with self.assert_logged(level="WARNING"):
            self.assertEqual(self.visit(PRESENCE_BYTES + QUIT_BYTES + b"hello"), [200])

    def test_client_that_sends_more_than_a_mebibyte_after_its_last_response_is_dropped(self):
        sock = self.connect(b"hello")
        self.codes(sock, 2)
        (client,) = self.accepted()
        self.assertEqual(client.bytes_to_discard, 1024 * 1024)
        client.bytes_to_discard = 8
        sock.sendall(b"12345678")
        self.serve_until(lambda: client.bytes_to_discard == 0)
        self.assertEqual(self.server.clients, {client})
        sock.sendall(b"9")
        self.serve_until_all_have_left()

    def test_client_that_resets_after_its_last_response_is_dropped(self):
        sock = self.connect(b"hello")
        self.codes(sock, 2)
        reset(sock)
        self.serve_until_all_have_left()

    def test_client_that_is_gone_before_its_last_response_is_dropped(self):
        self.connect()
        (client,) = self.accepted()
        client.sock.shutdown(socket.SHUT_RDWR)
        self.server.close_gracefully(client, {"response": 400})
        self.assertEqual(self.server.clients, set())


class Trouble(ServerCase):
    """Server.serve_client, answer_message: what goes wrong with one client affects no other."""

    def failing(self, failure):
        """Return a patch under which processing a message fails."""
        return mock.patch.object(server, "check_presence", side_effect=failure)

    def test_failure_of_the_server_is_logged_with_its_place(self):
        with self.assertLogs(LOG, "ERROR") as logs, self.failing(ZeroDivisionError):
            self.visit(PRESENCE_BYTES)
        (line,) = logs.output
        self.assertRegex(
            line, r"(?s)^ERROR:server:failed to serve 127.0.0.1 .*in process_client_message.*Zero"
        )

    def test_failure_of_the_server_gets_500_and_affects_no_other_client(self):
        other = self.connect()
        self.accepted()
        response = {"response": 500, "time": mock.ANY, "error": "internal server error"}
        with self.assertLogs(LOG, "ERROR"), self.failing(ZeroDivisionError):
            self.assertEqual(self.responses(self.connect(PRESENCE_BYTES)), [response])
        other.sendall(PRESENCE_BYTES)
        self.assertEqual(self.codes(other), [200])

    def test_failure_of_the_server_is_never_blamed_on_the_client_or_the_network(self):
        for failure in (OSError, EOFError, BlockingIOError, ConnectionResetError, ValueError, KeyError):
            with self.subTest(failure=failure), self.assertLogs(LOG, "ERROR"), self.failing(failure):
                self.assertEqual(self.visit(PRESENCE_BYTES), [500])

    def test_failing_network_and_client_that_does_not_read_are_warnings(self):
        for name, error, line in (
            ("receive_message", OSError("no way"), "WARNING lost 127.0.0.1: no way"),
            ("send_message", BlockingIOError, "WARNING dropped 127.0.0.1: it does not read its responses"),
        ):
            sock = self.connect()
            self.accepted()
            with self.subTest(name=name), mock.patch.object(server, name, side_effect=error):
                with self.assert_logged(line, level="WARNING"):
                    sock.sendall(PRESENCE_BYTES)
                    self.serve_until_all_have_left()


class Deadlines(ServerCase):
    """Server.check_deadlines: how long a client may take for a message."""

    def setUp(self):
        super().setUp()
        self.patch("CHECK_INTERVAL", 1.0)
        self.start()

    def clients_at(self, now):
        """Let the clock go on to `now`, second by second; return how many clients are left."""
        with mock.patch.object(self.server.selector, "select", return_value=[]):
            while self.clock.now < now:
                self.clock.now = min(self.clock.now + 1.0, now)
                self.server.serve_once()
        return len(self.server.clients)

    def assert_dropped_at(self, now):
        """Fail unless the one client is dropped at `now`, with a warning, and not a second before."""
        self.assertEqual(self.clients_at(now - 1.0), 1)
        line = "WARNING dropped 127.0.0.1: no complete message in 60 s"
        with self.assert_logged(line, level="WARNING"):
            self.assertEqual(self.clients_at(now), 0)

    def test_silent_client_is_dropped_after_60_seconds(self):
        self.connect()
        self.accepted()
        self.assert_dropped_at(1060.0)

    def test_dripping_does_not_help(self):
        sock = self.connect(b"{")
        self.accepted()
        for now in (1020.0, 1040.0, 1059.0):
            self.clients_at(now)
            sock.sendall(b" ")
            self.server.serve_once()
        self.assert_dropped_at(1060.0)

    def test_message_gives_60_seconds_more(self):
        sock = self.connect()
        self.accepted()
        self.clients_at(1050.0)
        sock.sendall(PRESENCE_BYTES + b"{")
        self.codes(sock)
        self.assert_dropped_at(1110.0)

    def test_time_in_which_the_server_stood_still_does_not_count(self):
        sock = self.connect()
        self.accepted()
        self.clients_at(1030.0)
        sock.sendall(PRESENCE_BYTES[:-1] + b" " * 480 + b"}")  # more than one `recv` takes
        self.clock.now = 5000.0
        self.server.serve_once()
        self.assertEqual(self.codes(sock), [200])
        self.assert_dropped_at(5060.0)

    def test_client_that_does_not_close_has_two_seconds_after_its_last_response(self):
        for data, warnings in ((b"hello", ["WARNING refused 127.0.0.1: " + INVALID[0][1]]), (QUIT_BYTES, [])):
            with self.subTest(data=data), self.assert_logged(*warnings, level="WARNING"):
                self.responses(self.connect(data))
                self.assertEqual(self.clients_at(self.clock.now + 1.0), 1)
                self.assertEqual(self.clients_at(self.clock.now + 1.0), 0)

    def test_are_checked_once_a_second(self):
        self.connect()
        (client,) = self.accepted()
        for now, clients in ((1000.9, 1), (1001.0, 1), (1001.9, 1), (1002.0, 0)):
            with self.subTest(now=now):
                self.assertEqual(self.clients_at(now), clients)
            client.deadline = 1001.1


class Room(ServerCase):
    """max_clients, Server.accept_clients, add_client, stop_accepting, start_accepting: who is let in."""

    def fail_to_accept(self, error):
        """Let the server try to accept one client, which fails with `error`."""
        listener = mock.Mock(wraps=self.listener)
        listener.accept.side_effect = [error, BlockingIOError]
        with mock.patch.object(self.server, "listener", listener):
            self.server.accept_clients(9)

    def assert_full(self, number=1, reason=""):
        """Let the server go on until it stops accepting, and says that it is full."""
        with self.assertLogs(LOG, "ERROR") as logs:
            self.serve_until(lambda: not self.server.accepting)
        self.assertIn(f"full with {number} clients, others have to wait: {reason}", logs.output[0])
        self.assertEqual(len(self.server.clients), number)

    def test_client_that_resets_before_it_is_accepted_is_no_trouble(self):
        reset(self.connect())
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_error_that_is_about_one_client_is_logged_and_the_server_goes_on(self):
        for error in (ConnectionAbortedError("gone"), OSError(errno.EPERM, "gone")):
            with self.subTest(error=error), self.assert_logged(f"DEBUG could not accept a client: {error}"):
                self.fail_to_accept(error)
            self.assertTrue(self.server.accepting)

    def test_error_that_is_about_room_stops_accepting_and_is_said_once_an_hour(self):
        self.connect()
        self.accepted()
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, 10024):
            for seconds, lines in (
                (0.0, [f"ERROR full with 1 clients, others have to wait: [Errno {code}] no more"]),
                (1.0, []),
                (3598.75, []),
            ):
                self.clock.now += seconds
                with self.subTest(code=code, seconds=seconds), self.assert_logged(*lines):
                    self.fail_to_accept(OSError(code, "no more"))
                self.assertFalse(self.server.accepting)
                self.server.start_accepting()
            self.clock.now += 0.25

    def test_client_without_an_address_is_served(self):
        ours, theirs = map(self.enter, socket.socketpair())
        theirs.setblocking(False)
        theirs.sendall(PRESENCE_BYTES)
        with self.assertLogs(LOG, "DEBUG") as logs:
            self.server.add_client(ours, None)
            self.assertEqual(self.codes(theirs), [200])
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

        first, second = self.connect(PRESENCE_BYTES), self.connect(PRESENCE_BYTES)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            self.assert_full()
            self.assertEqual(self.codes(first), [200])
            first.close()
            self.assertEqual(self.codes(second), [200])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_windows_select_has_room_for_511_clients(self):
        with mock.patch("os.name", "nt"):
            self.assertEqual(server.max_clients(), 511)

    @unittest.skipIf(os.name == "nt", "Windows sets no such limit")
    def test_other_systems_limit_open_files_ten_of_which_are_kept_for_other_things(self):
        for limit, clients in ((1024, 1014), (12, 2), (11, 1), (5, 1)):
            with self.subTest(limit=limit), mock.patch("resource.getrlimit", return_value=(limit, 4096)):
                self.assertEqual(server.max_clients(), clients)

    def test_full_server_serves_those_it_has_without_spinning_and_accepts_when_one_leaves(self):
        self.server.max_clients = 2
        first, second = self.connect(), self.connect()
        self.accepted(2)
        third = self.connect(PRESENCE_BYTES)
        self.assert_full(2, "the system allows no more")
        self.assertEqual(self.server.selector.select(0), [])
        second.sendall(PRESENCE_BYTES)
        self.assertEqual(self.codes(second), [200])
        first.close()
        self.assertEqual(self.codes(third), [200])
        self.assertTrue(self.server.accepting)

    def test_full_server_without_clients_waits_and_keeps_its_listener(self):
        sleep = self.patch("sleep", mock.Mock())
        with self.assertLogs(LOG, "ERROR"):
            self.server.stop_accepting("no more")
        sleep.assert_called_with(server.CHECK_INTERVAL)
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_selector_without_room_costs_the_new_client_and_each_check_tries_again(self):
        self.connect()
        self.accepted()
        no_room = OSError(errno.ENOMEM, "full")
        sock = self.connect()
        with mock.patch.object(self.server.selector, "register", side_effect=no_room):
            self.assert_full()
            self.server.check_deadlines()
        self.assertEqual((self.responses(sock), self.server.accepting), ([], False))
        self.server.check_deadlines()
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])


@needs_sockets
class OpenListener(Case):
    """open_listener: where the server listens."""

    def listener(self, address, port=0):
        return self.enter(server.open_listener(address, port))

    def assert_reached(self, listener, address):
        socket.create_connection((address, listener.getsockname()[1]), PATIENCE).close()

    def has_ipv6(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
            return True
        return False

    def test_on_one_address_which_may_be_a_name(self):
        for address in ("127.0.0.1", "localhost"):
            listener = self.listener(address)
            self.assertEqual(listener.getsockname()[0], "127.0.0.1")
            self.assert_reached(listener, "127.0.0.1")

    def test_on_an_ipv6_address(self):
        if not self.has_ipv6():
            self.skipTest("this machine has no IPv6")
        self.assert_reached(self.listener("::1"), "::1")

    def test_on_all_addresses(self):
        listener = self.listener("")
        self.assert_reached(listener, "127.0.0.1")
        if socket.has_dualstack_ipv6() and self.has_ipv6():
            self.assert_reached(listener, "::1")

    def test_on_all_addresses_of_a_machine_without_ipv6(self):
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            self.assertEqual(self.listener("").getsockname()[0], "0.0.0.0")

    def test_1024_connections_may_wait_to_be_accepted(self):
        for address in ("", "127.0.0.1"):
            with mock.patch("socket.create_server") as create_server, self.subTest(address=address):
                server.open_listener(address, 0)
                self.assertEqual(create_server.call_args[1]["backlog"], 1024)


class DescribeError(Case):
    """describe_error: what the user is told if the server cannot listen."""

    def test_each_error_has_its_advice(self):
        taken = "port 7777 is taken: stop the program that uses it, or choose another with -p"
        foreign = "::5 is not an address of this machine: omit -a to listen on all of them"
        rights = "port 1023 needs special rights: choose one above 1023 with -p"
        kept = "the system keeps port {} for itself or for another program: try -p 8888"
        unknown = "unknown address ::5: give an IP address of this machine"
        for system, error, port, text in (
            ("posix", OSError(errno.EADDRINUSE, ""), 7777, taken),
            ("posix", OSError(errno.EADDRNOTAVAIL, ""), 7777, foreign),
            ("posix", OSError(errno.EACCES, ""), 1023, rights),
            ("posix", OSError(errno.EACCES, ""), 1024, kept.format(1024)),
            ("nt", OSError(errno.EACCES, ""), 1023, kept.format(1023)),
            ("nt", OSError(10013, ""), 7777, kept.format(7777)),
            ("posix", socket.gaierror(-2, ""), 7777, unknown),
            ("posix", UnicodeError(), 7777, unknown),
            ("posix", OSError("what else"), 7777, "cannot listen on ::5 port 7777: what else"),
        ):
            with self.subTest(error=error, port=port), mock.patch("os.name", system):
                self.assertEqual(server.describe_error(error, "::5", port), text)


class ParseArgs(Case):
    """parse_args: the command line."""

    def test_defaults(self):
        self.assertEqual(vars(server.parse_args([])), {"port": 7777, "addr": "", "log_level": "DEBUG"})

    def test_everything(self):
        for port, level in ((0, "DEBUG"), (80, "INFO"), (80, "WARNING"), (65535, "ERROR")):
            arguments = server.parse_args(["-p", str(port), "-a", "::1", "--log-level", level])
            self.assertEqual(vars(arguments), {"port": port, "addr": "::1", "log_level": level})

    def test_help_names_the_defaults(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as stdout:
            server.parse_args(["--help"])
        defaults = re.findall(r"default:\s+(\w+)", stdout.getvalue())
        self.assertEqual(defaults, ["7777", "all", "DEBUG"])

    def test_usage_errors_are_explained(self):
        for argv, explanation in (
            (["-p", "-1"], "error: a port is a number from 0 to 65535, not -1"),
            (["-p", "65536"], "error: a port is a number from 0 to 65535, not 65536"),
            (["-p", "http"], "http"),
            (["-p", ""], "-p"),
            (["-p", "77.7"], "77.7"),
            (["7777"], "7777"),
            (["-x"], "-x"),
            (["--log-level", "LOUD"], "LOUD"),
        ):
            with self.subTest(argv=argv), contextlib.redirect_stderr(io.StringIO()) as stderr:
                with self.assertRaises(SystemExit) as caught:
                    server.parse_args(argv)
                self.assertEqual(caught.exception.code, 2)
                self.assertIn(explanation, stderr.getvalue())


def full_disk():
    """Return a patch under which the disk is full: half of what is written still fits, and then nothing."""
    write = os.write
    fits = itertools.cycle([True, False])

    def write_half(file, data):
        if next(fits):
            return write(file, data[: len(data) // 2])
        raise OSError("no space")

    return mock.patch("os.write", write_half)


def interrupted_write():
    """Return a patch under which Ctrl+C is pressed just after something has been written."""
    write = os.write

    def write_and_interrupt(file, data):
        write(file, data)
        raise KeyboardInterrupt

    return mock.patch("os.write", write_and_interrupt)


class LogCase(Case):
    """What the tests of the log share: a folder of its own for the files, and what the console shows."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "log")
        self.patch("LOG_FOLDER", str(self.folder))
        self.console = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.addCleanup(server_log_config.close_log)

    def patch(self, name, value):
        return self.enter(mock.patch.object(server_log_config, name, value))

    def log_at(self, moment, text="text"):
        """Log at a moment such as "2026-11-22 12:00:00", and write the file."""
        now = int(time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")))
        with mock.patch("time.time", return_value=now), mock.patch("time.time_ns", return_value=now * 10**9):
            LOG.debug(text)
            server_log_config.flush_log()

    def log_on(self, *days, text="text"):
        """Log at noon of some days."""
        for day in days:
            self.log_at(f"{day} 12:00:00", text)

    def file(self, day):
        return self.folder / f"server.{day}.log"

    def make_files(self, *days, content=b""):
        """Make log files of other days."""
        self.folder.mkdir(exist_ok=True)
        for day in days:
            self.file(day).write_bytes(content)

    def days(self):
        """Return the days of the files in the folder."""
        return [path.name[len("server.") : -len(".log")] for path in sorted(self.folder.iterdir())]

    def logged(self, day=None):
        """Return level and message of the lines in a log file; by default the newest."""
        server_log_config.flush_log()
        lines = without_times(self.file(day or self.days()[-1]).read_text("utf-8"))
        return [line for line in lines if not line.startswith("INFO log in ")]

    def shown(self):
        """Return level and message of the lines on the console, but for where the log is."""
        lines = without_times(self.console.getvalue())
        return [line for line in lines if not line.startswith("INFO log in ")]


class OneLineFormatterTest(Case):
    """escape, OneLineFormatter.format and formatTime, second_as_text: one record, one line."""

    def format(self, text, **fields):
        """Return the line of a record, without its date and time."""
        record = logging.makeLogRecord({"levelname": "INFO", "name": "server", "msg": text, **fields})
        line = server_log_config.OneLineFormatter(server_log_config.LINE_FORMAT).format(record)
        self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
        return line[len("2026-11-22 12:00:00,000 ") :]

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.format("text"), "INFO server text")

    def test_only_printable_characters_stay_as_they_are(self):
        table = (
            ("", ""),
            ("Жанна и 😀", "Жанна и 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO forged\r", r"a\n2026-11-22 12:00:00,000 INFO forged\r"),
            ("\x1b[2J\x00\x7f\t", r"\x1b[2J\x00\x7f\t"),
            ("\x85\u2028\u202e\ud800\U000e0001", r"\x85\u2028\u202e\ud800\U000e0001"),
        )
        self.assert_results(lambda text: self.format(text)[len("INFO server ") :], table)

    def test_traceback_is_part_of_the_line(self):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            line = self.format("text", exc_info=sys.exc_info())
        self.assertRegex(line, r"server text\\nTraceback .*\\nZeroDivisionError: by zero$")


DAYS = [f"2020-01-{day:02}" for day in range(1, 32)]  # one more than are kept


class DailyFile(LogCase):
    """LOG_FOLDER, DailyFileHandler.emit, flush and write, delete_old_files: a file for each day."""

    def setUp(self):
        self.assertEqual(server_log_config.LOG_FOLDER, os.path.join(HERE, "log"))
        super().setUp()
        server_log_config.configure_log()

    def test_file_is_named_for_the_day(self):
        days = ["2026-03-28", "2026-03-29", "2026-10-25", "2026-10-26", "2026-12-31", "2027-01-01"]
        for day in days:
            self.log_at(f"{day} 23:59:59")
            self.log_at(f"{day} 00:00:00")
        self.assertEqual(self.days(), days)
        for day in days:
            for line in self.file(day).read_text("utf-8").splitlines():
                self.assertTrue(line.startswith(day), line)

    def test_lines_collected_before_midnight_are_in_the_file_of_their_day(self):
        with mock.patch.object(server_log_config, "flush_log"):
            self.log_at("2026-11-22 23:59:59", "old")
        self.log_at("2026-11-23 00:00:00", "new")
        self.assertEqual(self.logged("2026-11-22"), ["DEBUG old"])
        self.assertEqual(self.logged("2026-11-23"), ["DEBUG new"])

    def test_clock_that_runs_back_and_forward_overwrites_nothing(self):
        for day, text in (("2026-11-22", "a"), ("2026-11-23", "b"), ("2026-11-22", "c"), ("2026-11-23", "d")):
            self.log_on(day, text=text)
        self.assertEqual(self.logged("2026-11-22"), ["DEBUG a", "DEBUG c"])
        self.assertEqual(self.logged("2026-11-23"), ["DEBUG b", "DEBUG d"])

    def test_thirty_files_are_kept_besides_the_new_one_by_their_names_not_by_their_age(self):
        self.make_files(*reversed(DAYS))
        os.utime(self.file(DAYS[-1]), (0, 0))
        self.log_on("2026-11-22")
        self.assertEqual(self.days(), [*DAYS[1:], "2026-11-22"])
        self.log_on("2019-12-31")  # the clock runs back: the new file is the oldest
        self.assertEqual(self.days(), ["2019-12-31", *DAYS[2:], "2026-11-22"])

    def test_nothing_is_deleted_while_the_file_of_the_day_is_there(self):
        self.log_on("2026-11-22")
        self.make_files(*DAYS)
        self.log_on("2026-11-22")
        self.assertEqual(self.days(), [*DAYS, "2026-11-22"])

    def test_file_that_cannot_be_deleted_stays_and_no_other_goes_in_its_place(self):
        self.make_files(*DAYS[1:])
        self.file(DAYS[0]).mkdir()  # a folder, which cannot be deleted like a file
        self.log_on("2026-11-22", "2026-11-23")
        self.assertEqual(self.days(), [DAYS[0], *DAYS[2:], "2026-11-22", "2026-11-23"])
        self.assertEqual(self.shown(), [])

    def test_other_files_are_never_deleted(self):
        self.make_files(*DAYS)
        for name in ("client.log", "server.log", "server.log.2020-01-01", "server.copy.log"):
            (self.folder / name).write_bytes(b"")
        self.log_on("2026-11-22")
        self.assertEqual(len(self.days()), len(DAYS) + 4)

    def test_full_day_is_said_once_and_the_rest_of_it_is_dropped(self):
        self.patch("MAX_FILE_BYTES", 1000)
        self.log_on("2026-11-22", text="x" * 1000)
        self.log_on("2026-11-22", "2026-11-22", "2026-11-22", text="dropped")
        full = f"ERROR the log {self.file('2026-11-22')} is full, the rest of the day is not logged"
        self.assertEqual(self.shown(), [full])
        self.assertEqual(self.logged("2026-11-22"), ["DEBUG " + "x" * 1000])
        self.log_on("2026-11-23", text="the next day begins anew")
        self.assertEqual(self.logged("2026-11-23"), ["DEBUG the next day begins anew"])

    def test_full_day_is_said_again_after_a_restart_instead_of_where_the_log_is(self):
        self.make_files("2026-11-22", content=b"x" * 999 + b"\n")
        self.patch("MAX_FILE_BYTES", 1000)
        self.log_on("2026-11-22")
        self.assertRegex(self.console.getvalue(), r"^[^\n]* ERROR server the log .* is full, [^\n]*\n$")

    def test_bound_of_a_day_is_a_hundred_megabytes(self):
        self.assertEqual(server_log_config.MAX_FILE_BYTES, 100 * 1024 * 1024)


class LogFile(LogCase):
    """DailyFileHandler.flush, write and announce, open_day_file, last_line_is_cut_off, flush_log."""

    def setUp(self):
        super().setUp()
        self.clock = self.patch("monotonic", Clock())
        server_log_config.configure_log()

    def test_busy_server_writes_its_lines_every_hundredth_of_a_second(self):
        clock = Clock()
        with mock.patch.object(server_log_config, "monotonic", clock):
            server_log_config.configure_log()
            for now, idle, lines in (
                (1000.0, False, 1),
                (1000.009, False, 1),
                (1000.01, False, 3),
                (1000.01, True, 4),
            ):
                clock.now = now
                LOG.debug("text")
                server_log_config.flush_log(idle)
                with self.subTest(now=now, idle=idle):
                    path = self.file(self.days()[0])
                    self.assertEqual(path.read_text("utf-8").count("DEBUG"), lines)

    def test_lines_wait_for_flush_log_or_close_log(self):
        for write in (server_log_config.flush_log, server_log_config.close_log):
            server_log_config.configure_log()
            LOG.debug("text")
            self.assertFalse(self.folder.exists())
            write()
            self.assertEqual(self.logged(), ["DEBUG text"])
            shutil.rmtree(self.folder)

    def test_file_is_continued(self):
        self.make_files("2026-11-22", content=b"of another server\n")
        self.log_on("2026-11-22")
        self.assertEqual(self.logged("2026-11-22"), ["of another server", "DEBUG text"])

    def test_is_announced_once_when_something_has_been_written(self):
        server_log_config.configure_log("ERROR")
        LOG.info("not for the file")
        server_log_config.flush_log()
        self.assertNotIn("log in", self.console.getvalue())
        for _ in range(3):
            LOG.error("text")
            server_log_config.flush_log()
        line = f"INFO server log in {self.file(self.days()[0])}\n"
        self.assertEqual(self.console.getvalue().count(line), 1)

    def test_file_and_folder_that_are_deleted_or_renamed_are_made_again(self):
        file = self.file("2026-11-22")
        for spoil in (file.unlink, lambda: file.rename(f"{file}.old"), lambda: shutil.rmtree(self.folder)):
            self.log_on("2026-11-22", text="before")
            spoil()
            self.log_on("2026-11-22", text="after")
            self.assertEqual(self.logged("2026-11-22"), ["DEBUG after"])
        self.assertEqual(self.shown(), [])

    def test_cannot_be_written_is_said_and_not_where_the_log_is(self):
        self.folder.write_bytes(b"")  # a file where the folder should be
        LOG.info("the program goes on")
        server_log_config.flush_log()
        info, error = without_times(self.console.getvalue())
        self.assertEqual(info, "INFO the program goes on")
        self.assertIn(f"ERROR cannot write the log {self.folder}", error)

    def test_full_disk_is_said_once_an_hour(self):
        error = f"ERROR cannot write the log {self.file('2026-11-22')}, records are lost: no space"
        with full_disk():
            for now, errors in ((1000.0, 1), (1001.0, 1), (4599.9, 1), (4600.0, 2), (4601.0, 2)):
                self.clock.now = now
                self.log_on("2026-11-22")
                with self.subTest(now=now):
                    self.assertEqual(self.shown(), [error] * errors)

    def test_after_a_full_disk_nothing_is_lost_but_what_could_not_be_written(self):
        self.log_on("2026-11-22", text="whole")
        with full_disk():
            self.log_on("2026-11-22", text="cut off")
        self.log_on("2026-11-22", text="next")
        self.log_on("2026-11-22", text="last")
        lines = self.logged("2026-11-22")
        self.assertEqual([lines[0], *lines[-2:]], ["DEBUG whole", "DEBUG next", "DEBUG last"])
        self.assertEqual([line for line in lines if "cut off" in line or not line], [])

    def test_after_a_restart_no_record_continues_a_line_that_was_cut_off(self):
        self.make_files("2026-11-22", content=b"cut o")
        self.log_on("2026-11-22")
        self.assertEqual(self.logged("2026-11-22"), ["cut o", "DEBUG text"])

    def test_full_disk_at_midnight_and_at_the_end_ends_nothing(self):
        self.log_on("2026-11-22")
        with full_disk():
            self.log_on("2026-11-23", text="exactly one record")
            LOG.debug("another")
            server_log_config.close_log()
        self.assertEqual(self.logged("2026-11-22"), ["DEBUG text"])

    def test_ctrl_c_while_lines_are_written_does_not_double_them(self):
        with interrupted_write(), self.assertRaises(KeyboardInterrupt):
            self.log_on("2026-11-22")
        server_log_config.close_log()
        self.assertEqual(self.logged("2026-11-22"), ["DEBUG text"])

    def test_wrong_call_of_the_logger_is_no_error_of_the_file(self):
        LOG.debug("%d", "not a number")
        server_log_config.flush_log()
        self.assertIn("TypeError", self.console.getvalue())
        self.assertNotIn("cannot write", self.console.getvalue())


class ConfigureLog(LogCase):
    """configure_log, is_for_console, close_log: what goes where."""

    def test_before_it_and_after_close_records_go_nowhere(self):
        LOG.error("nobody sees this")
        server_log_config.configure_log()
        server_log_config.close_log()
        LOG.error("nobody sees this")
        self.assertEqual((self.folder.exists(), self.shown()), (False, []))

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(logging.getLogger(), "DEBUG") as logs:
            logging.getLogger("another").warning("a record of another")
            LOG.warning("our record")
        self.assertEqual(logs.output, ["WARNING:another:a record of another"])

    def test_line_is_the_same_in_the_file_and_on_the_console(self):
        server_log_config.configure_log()
        LOG.info("from %s\n", "Жанна")
        line = self.console.getvalue()
        self.assertEqual(without_times(line), [r"INFO from Жанна\n"])
        server_log_config.flush_log()
        self.assertEqual(self.file(self.days()[0]).read_bytes().decode(), line)

    def test_file_takes_the_level_and_above_and_the_console_info_and_error(self):
        levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                server_log_config.configure_log(level)
                for each in levels:
                    LOG.log(getattr(logging, each), "text")
                self.assertEqual(self.logged(), [f"{each} text" for each in levels[number:]])
                shutil.rmtree(self.folder)
        self.assertEqual(self.shown(), ["INFO text", "ERROR text"] * 4)

    def test_second_call_replaces_the_first(self):
        server_log_config.configure_log()
        server_log_config.configure_log()
        LOG.info("once")
        self.assertEqual((self.logged(), self.shown()), (["INFO once"], ["INFO once"]))

    def test_without_a_console_the_file_is_written(self):
        with contextlib.redirect_stderr(None):
            server_log_config.configure_log()
            LOG.info("text")
        self.assertEqual(self.logged(), ["INFO text"])

    def test_calling_function_is_unknown_and_known_again_after_close(self):
        names = []
        with mock.patch.object(LOG, "handle", lambda record: names.append(record.funcName)):
            server_log_config.configure_log()
            LOG.error("text")
            server_log_config.close_log()
            LOG.error("text")
        self.assertEqual(names, ["(unknown function)", self._testMethodName])


@needs_sockets
class Main(LogCase):
    """main, run, serve: from the command line to the exit code."""

    def run_main(self, *argv, end=KeyboardInterrupt):
        """Run the server on the loopback address until `end` is raised; return exit code and console."""
        with mock.patch.object(Server, "serve_once", side_effect=end):
            code = server.main(["-a", "127.0.0.1", "-p", "0", *argv])
        return code, [re.sub(r"port [1-9]\d*", "PORT", line) for line in self.shown()]

    def test_says_where_it_listens_and_that_it_stopped(self):
        lines = ["INFO listening on 127.0.0.1 PORT, stop with Ctrl+C", "INFO stopped"]
        self.assertEqual(self.run_main(), (0, lines))

    def test_listens_on_all_addresses_by_default_and_closes_at_the_end(self):
        listener = socket.create_server(("127.0.0.1", 0))
        with mock.patch.object(server, "open_listener", return_value=listener) as open_listener:
            _, lines = self.run_main("-a", "")
        open_listener.assert_called_with("", 0)
        self.assertEqual(lines[0], "INFO listening on all addresses PORT, stop with Ctrl+C")
        self.assertEqual(listener.fileno(), -1)

    def test_port_that_is_taken_is_one_line_and_exit_code_1(self):
        listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        line = f"ERROR port {port} is taken: stop the program that uses it, or choose another with -p"
        self.assertEqual(server.main(["-a", "127.0.0.1", "-p", str(port)]), 1)
        self.assertEqual(self.shown(), [line])
        self.assertEqual(self.logged()[0], line)
        self.assertRegex(self.logged()[1], r"^DEBUG the cause: OSError\(\d+, ")

    def test_unknown_address_is_one_line_and_exit_code_1(self):
        for address in ("no such name", "a" * 64, "é" * 64, "a..b"):
            with self.subTest(address=address):
                self.assertEqual(server.main(["-a", address]), 1)
                line = f"ERROR unknown address {address}: give an IP address of this machine"
                self.assertEqual(self.shown()[-1], line)

    def test_machine_that_cannot_serve_is_one_line_and_exit_code_1(self):
        code, lines = self.run_main(end=OSError("no more"))
        self.assertEqual((code, lines[1:]), (1, ["ERROR cannot go on serving: no more"]))

    def test_log_is_closed_and_signals_are_handled_as_before(self):
        handler = signal.getsignal(signal.SIGINT)
        _, lines = self.run_main()
        LOG.error("nobody sees this")
        self.assertEqual((len(self.shown()), signal.getsignal(signal.SIGINT)), (len(lines), handler))

    def test_log_level_is_that_of_the_log_file(self):
        self.run_main("--log-level", "ERROR")
        self.assertFalse(self.folder.exists())


class Stop(Case):
    """stop, handle_stop_signals: Ctrl+C and the other ways to stop the server."""

    def setUp(self):
        self.clock = self.enter(mock.patch.object(server, "monotonic", Clock()))
        self.enter(mock.patch.object(server, "next_stop", 0.0))
        names = ("SIGINT", "SIGTERM", "SIGBREAK" if os.name == "nt" else "SIGHUP")
        self.numbers = [getattr(signal, name) for name in names]
        for number in self.numbers:
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def test_first_signal_raises_and_others_are_ignored_for_a_second(self):
        for now, raises in (
            (1000.0, True),
            (1000.0, False),
            (1000.9, False),
            (1001.0, True),
            (1001.5, False),
        ):
            self.clock.now = now
            expected = self.assertRaises(KeyboardInterrupt) if raises else contextlib.nullcontext()
            with self.subTest(now=now), expected:
                server.stop(signal.SIGINT, None)

    def test_all_ways_to_stop_are_handled(self):
        for number in self.numbers:
            signal.signal(number, signal.SIG_DFL)
        server.handle_stop_signals(server.stop)
        self.assertEqual([signal.getsignal(number) for number in self.numbers], [server.stop] * 3)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGHUP")
    def test_closed_terminal_is_ignored_if_it_was_at_the_start(self):
        for number in self.numbers:
            signal.signal(number, signal.SIG_IGN)
        server.handle_stop_signals(server.stop)
        handlers = [signal.getsignal(number) for number in self.numbers]
        self.assertEqual(handlers, [server.stop, server.stop, signal.SIG_IGN])


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


@needs_sockets
class Script(Case):
    """server.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (server, server_log_config):
            copy = self.folder / os.path.relpath(module.__file__, HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self, port="0"):
        """Start the script in another current folder; return the process."""
        process = subprocess.Popen(
            [sys.executable, *RUN, str(self.folder / "server.py"), "-a", "127.0.0.1", "-p", port],
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            encoding="utf-8",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: a console of its own
        )
        self.enter(process)
        self.addCleanup(process.kill)
        timer = threading.Timer(PATIENCE, process.kill)  # a line that does not come is a failure
        timer.start()
        self.addCleanup(timer.cancel)
        return process

    def connect(self, process):
        """Return a socket that is connected to the server."""
        port = re.search(r"listening on 127\.0\.0\.1 port (\d+), ", process.stderr.readline()).group(1)
        self.assertRegex(process.stderr.readline(), r" INFO server log in .*server\.\d{4}-\d\d-\d\d\.log$")
        return self.enter(socket.create_connection(("127.0.0.1", int(port)), PATIENCE))

    def assert_stops(self, stop):
        """Let the server answer a message, call `stop` with it twice, and see it end."""
        process = self.start()
        sock = self.connect(process)
        sock.sendall(PRESENCE_BYTES)
        self.assertIn(b"200", sock.recv(10_000))
        for _ in range(2):
            stop(process)
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, without_times(shown)), (0, ["INFO stopped"]))

    def test_ctrl_c_stops_it(self):
        self.assert_stops(press_ctrl_c)

    @unittest.skipIf(os.name == "nt", "Windows has no such signals")
    def test_sigterm_and_a_closed_terminal_stop_it(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number=number):
                self.assert_stops(lambda process, number=number: process.send_signal(number))

    def test_port_that_is_taken(self):
        listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        process = self.start(str(listener.getsockname()[1]))
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (1, 1), shown)

    def test_log_tells_the_story(self):
        sock = self.connect(self.start())
        sock.sendall(PRESENCE_BYTES)
        sock.recv(10_000)
        sock.sendall(QUIT_BYTES)
        self.assertEqual(sock.recv(10_000), b"")  # the server has closed: its lines are in the file
        (file,) = (self.folder / "log").glob("server.*.log")
        verbs = [line.split()[1] for line in without_times(file.read_text("utf-8"))]
        self.assertEqual(verbs[:6], ["listening", "log", "connected:", "received", "processed", "sent"])

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import server"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)


if __name__ == "__main__":
    unittest.main()
