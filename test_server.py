"""Tests of server.py and server_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_server              all of them
    python -m unittest -v test_server           the same, with their names: what the server does

Each class says first which functions it tests. A test states one fact and is named for it; cases of one kind
are the lines of a table. No test sleeps or leaves a file behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import runpy
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

PATIENCE = 20  # seconds that a test waits before it fails, and only then
PRESENCE = {"action": "presence", "time": 1.5, "user": {"account_name": "Guest"}}
PRESENCE_BYTES = json.dumps(PRESENCE).encode()
QUIT_BYTES = b'{"action": "quit"}'
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) server (.*)$")
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets, no processes")


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

    def patch(self, module, name, value):
        return self.enter(mock.patch.object(module, name, value))

    def assert_results(self, function, table):
        """Call a function with each line of a table. The last item of the line is the expected result."""
        for *arguments, result in table:
            with self.subTest(arguments=arguments):
                self.assertEqual(function(*arguments), result)

    @contextlib.contextmanager
    def assert_logged(self, *lines, level="DEBUG"):
        """Fail unless a block logs these lines, "<level> <message>" without ports, of `level` and above."""
        with self.assertLogs(LOG, level) as logs:
            yield
            LOG.critical("the end")  # assertLogs wants at least one record
        logged = [f"{each.levelname} {each.getMessage()}" for each in logs.records]
        self.assertEqual([re.sub(r" port \d+", "", line) for line in logged], [*lines, "CRITICAL the end"])


class ProcessClientMessage(Case):
    """process_client_message, create_error, check_presence, check_field: the response to a message."""

    def setUp(self):
        self.patch(server, "time", lambda: 1700000000.5)

    def assert_refused(self, message, error):
        """Fail unless the response to `message` is 400 with this error."""
        response = {"response": 400, "time": 1700000000.5, "error": error}
        self.assert_results(server.process_client_message, [(message, response)])

    def test_valid_presence_gets_200(self):
        response = {"response": 200, "time": 1700000000.5, "alert": "OK"}
        for changes in (
            {},
            {"time": 1732267890, "type": "status", "user": {"account_name": "x", "status": "I am here!"}},
            {"user": {"account_name": "Ж" * 25, "password": None}, "room": "a field that JIM does not have"},
        ):
            self.assert_results(server.process_client_message, [({**PRESENCE, **changes}, response)])

    def test_invalid_message_gets_400_with_the_reason(self):
        for message, error in (
            ({}, "'action' is missing"),
            ({"action": "presence"}, "'time' is missing"),
            ({"action": "presence", "time": 1}, "'user' is missing"),
            ({**PRESENCE, "user": {"status": "here"}}, "'account_name' is missing"),
            ({"action": ""}, "'action' must be 1 to 15 characters long, not 0"),
            ({"action": "a" * 16}, "'action' must be 1 to 15 characters long, not 16"),
            ({"action": "п" * 15}, f"the action '{'п' * 15}' is not supported, only 'presence' is"),
            ({"action": "\n\x1b\ud800"}, r"the action '\n\x1b\ud800' is not supported, only 'presence' is"),
        ):
            self.assert_refused(message, error)
        for length in (0, 26):
            error = f"'account_name' must be 1 to 25 characters long, not {length}"
            self.assert_refused({**PRESENCE, "user": {"account_name": "Ж" * length}}, error)

    def test_field_of_another_type_gets_400_with_both_types(self):
        values = {"null": None, "a boolean": True, "a number": 1, "a string": "5", "an array": []}
        values["an object"] = {}
        types = {"action": "a string", "type": "a string", "time": "a number", "user": "an object"}
        for name, wanted in (*types.items(), ("account_name", "a string"), ("status", "a string")):
            for found in values.keys() - {wanted}:
                field = {name: values[found]}
                if name not in types:
                    field = {"user": {"account_name": "Guest", **field}}
                self.assert_refused({**PRESENCE, **field}, f"'{name}' must be {wanted}, not {found}")

    def test_quit_has_no_response(self):
        self.assert_results(server.process_client_message, [({"action": "quit", "time": "?"}, None)])

    def test_is_logged(self):
        lines = "DEBUG processed a message, response 200", "DEBUG processed a message, response 400"
        with self.assert_logged(*lines, "DEBUG processed a quit"):
            for message in (PRESENCE, {}, {"action": "quit"}):
                server.process_client_message(message)


VALID = (  # text, message
    ("{}", {}),
    ('{"a": "Ж\\u0416😀\\ud83d\\ude00\\n"}', {"a": "ЖЖ😀😀\n"}),
    ('{"a": "q\\"}\\\\"}', {"a": 'q"}\\'}),  # an escaped quote; an escaped backslash, then a quote
    ('{"a": "}{][\\\\\\"]"}', {"a": '}{][\\"]'}),
    ('{ "w" :\r\n\t[true , [-1.5e-7], null], "": {"x": [ ]}}', {"w": [True, [-1.5e-7], None], "": {"x": []}}),
    ('{"a": "' + "я" * 631 + '"}', {"a": "я" * 631}),  # 640 characters, 1271 bytes
)
START = "a message is a JSON object and cannot start with "
INVALID = (  # bytes, error: the server knows it with the last of these bytes, whatever follows
    (b"hello", START + "b'h'"),
    (b"[1, 2]", START + "b'['"),
    (b"\xff", START + r"b'\xff'"),
    (b'{"a": NaN', "not JSON: NaN is not allowed"),
    (b'{"a": {"b": -Infinity', "not JSON: -Infinity is not allowed"),
    (b'{"a": "\xff"}', "the message is not UTF-8"),
    (b'{"a" 1}', "not JSON at character 6: Expecting ':' delimiter"),
    (b'{"a": "' + "я".encode() * 632 + b'"}', "the message is longer than 640 characters"),  # 641 characters
    (b'{"a": ' + b"[" * 634, "the message is longer than 640 characters"),  # nested deeply
    (b"{" + b"\xff" * 639, "the message is longer than 640 characters"),
)
FAULTY = (  # invalid with the last character, and not before
    "{]", "{\\", '{"a":\\', r'{"a": "\\" 1}', "{'a': 1}", '{"a": 1,}', '{"a":[1}', '{"a":{]',
    '{"a": [1,]}', '{"a": "b" "c"}', '{"a": "\n"}', '{"a": "\\x"}', '{"a": tru}',
)  # fmt: skip


class TakeMessage(Case):
    """take_message, is_incomplete, refuse_nan: where a message ends, and what is not one."""

    def assert_invalid(self, data, error):
        """Fail unless `data` is refused with this error, a regular expression."""
        with self.subTest(data=data), self.assertRaisesRegex(ProtocolError, f"^{error}$"):
            server.take_message(data)

    def test_message_and_the_bytes_after_it(self):
        for text, message in VALID:
            for rest in (b"", b" ", b'{"b": 2}', b"]", b"hello", b"\xd0", b"]" * 1000):
                self.assert_results(server.take_message, [(text.encode() + rest, (message, rest))])

    def test_whitespace_before_a_message_is_ignored(self):
        self.assert_results(server.take_message, [(b" \t\r\n {}", ({}, b"")), (b" \t\r\n ", (None, b""))])

    def test_every_beginning_of_a_message_is_incomplete(self):
        for text, _ in VALID:
            data = text.encode()
            table = [(data[:end], (None, data[:end])) for end in range(len(data))]
            self.assert_results(server.take_message, table)

    def test_invalid_messages_whatever_follows(self):
        for data, error in INVALID:
            for rest in (b"", b"}", b"x" * 1000):
                self.assert_invalid(data + rest, re.escape(error))

    def test_fault_in_an_object_is_known_with_its_last_character(self):
        for data in map(str.encode, FAULTY):
            self.assert_results(server.take_message, [(data[:-1], (None, data[:-1]))])
            self.assert_invalid(data, r"not JSON at character \d+: .+")


class Wire:
    """Stands for a socket that never waits: a piece arrives when the one before it has been received."""

    setblocking = mock.Mock()

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def recv(self, size, flags=0):
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces[0]
        if flags != socket.MSG_PEEK:
            self.pieces[:1] = [piece[size:]] if piece[size:] else []
        return piece[:size]


class ReceiveMessage(Case):
    """receive_message: one message in, in however many pieces."""

    def receive_all(self, *pieces):
        """Return all messages that arrive in these pieces."""
        client = Client(Wire(*pieces), ("127.0.0.1", 5000))
        messages = []
        with contextlib.suppress(BlockingIOError):
            while len(messages) < 99:  # or it might go on for ever
                messages.append(server.receive_message(client))
        return [message for message in messages if message is not None]

    def test_messages_in_any_pieces(self):
        messages = [{"Ж": 2}, {"a": '"'}]
        data = ' {"Ж": 2}\r\n\t{"a": "\\""}\n'.encode()
        for end in range(1, len(data)):
            self.assert_results(self.receive_all, [(data[:end], data[end:], messages)])
        self.assert_results(self.receive_all, [(*(bytes([each]) for each in data), messages)])

    def test_end_inside_a_message(self):
        for data in (b"{", b'{"a": "\xd0'):
            with self.subTest(data=data), self.assertRaisesRegex(ProtocolError, "^the message is cut short$"):
                self.receive_all(data, b"")

    def test_is_logged_as_it_has_arrived(self):
        self.patch(server, "RECEIVE_BYTES", 400)
        with self.assert_logged(*(f"DEBUG received from 127.0.0.1: {text}" for text in ('{"Ж":', r"\xd0"))):
            self.receive_all('{"Ж":'.encode(), b"\xd0")


@needs_sockets
class SendMessage(Case):
    """send_message: one message out."""

    def test_sends_json_with_its_characters_as_they_are_and_logs_it(self):
        ours, theirs = map(self.enter, socket.socketpair())
        with self.assert_logged('DEBUG sent to 127.0.0.1: {"time": 1.5, "error": "Жанна"}'):
            server.send_message(Client(ours, ("127.0.0.1", 5000)), {"time": 1.5, "error": "Жанна"})
        theirs.settimeout(PATIENCE)
        self.assertEqual(theirs.recv(10_000).decode(), '{"time": 1.5, "error": "Жанна"}')


class ClientName(Case):
    """client_name: a client as the log shows it."""

    def test_is_address_and_port(self):
        table = (
            (("127.0.0.1", 5000), "127.0.0.1 port 5000"),
            (("::1", 5000, 0, 0), "::1 port 5000"),
            (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7 port 5000"),
            (("2001:db8::ffff:1:2", 5000, 0, 0), "2001:db8::ffff:1:2 port 5000"),
            (None, "unknown client"),
        )
        self.assert_results(server.client_name, table)


def reset(sock):
    """Close a connection with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
    sock.close()


@needs_sockets
class ServerCase(Case):
    """What the tests of class Server share: a server that goes on when the test says so."""

    check_interval = 0.01  # the server waits no longer

    def setUp(self):
        self.clock = self.patch(server, "monotonic", mock.Mock(return_value=1000))
        self.sleep = self.patch(server, "sleep", mock.Mock())
        self.patch(server, "CHECK_INTERVAL", self.check_interval)
        self.listener = self.enter(server.open_listener("127.0.0.1", 0))
        self.server = Server(self.listener)
        self.addCleanup(self.close)

    def close(self):
        """Close the server and all its connections."""
        with mock.patch.object(self.server, "serve_once", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, self.server.serve_forever)

    def connect(self, data=b""):
        """Return the socket of a client that has sent `data`."""
        sock = self.enter(socket.create_connection(self.listener.getsockname(), PATIENCE))
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    def serve_until(self, done):
        """Let the server go on until `done()`; fail if it takes too long."""
        end = time.monotonic() + PATIENCE
        while not done():
            self.assertLess(time.monotonic(), end, "the server did not do what the test waits for")
            self.server.serve_once()

    def accepted(self, number=1):
        """Let the server go on until it has that many clients; return them."""
        self.serve_until(lambda: len(self.server.clients) == number)
        return list(self.server.clients)

    def responses(self, sock, number=sys.maxsize):
        """Return that many responses, or all until the server ends the connection."""
        pieces = []

        def done():
            with contextlib.suppress(BlockingIOError):
                while pieces[-1:] != [b""]:
                    pieces.append(sock.recv(10_000))
            return pieces[-1:] == [b""] or b"".join(pieces).count(b"}") >= number

        self.serve_until(done)
        return json.loads("[" + b"".join(pieces).decode().replace("}{", "},{") + "]")

    def codes(self, sock, number=1):
        """Return the codes of that many responses."""
        return [response["response"] for response in self.responses(sock, number)]

    def visit(self, data):
        """Let a client send `data`, half-close, read all responses and leave; return their codes."""
        sock = self.connect(data)
        sock.shutdown(socket.SHUT_WR)
        codes = self.codes(sock, sys.maxsize)
        sock.close()
        self.accepted(0)
        return codes


class Conversation(ServerCase):
    """Server.serve_forever, serve_once, accept_client, serve_client, answer_message, drop: valid clients."""

    def test_turn_is_one_message(self):
        process = self.patch(server, "process_client_message", mock.Mock(return_value={"response": 200}))
        self.connect(b"{}" * 9)
        for turn in range(1, 10):
            self.serve_until(lambda turn=turn: process.call_count >= turn)
            self.assertEqual(process.call_count, turn)

    def test_200_messages_that_arrive_together_are_answered_without_a_new_event(self):
        self.patch(server, "CHECK_INTERVAL", PATIENCE)
        self.assertEqual(self.codes(self.connect(b"{}" * 200), 200), [400] * 200)

    def test_responses_come_in_order_also_after_the_client_has_half_closed(self):
        self.assertEqual(self.visit((PRESENCE_BYTES + b"{}") * 50), [200, 400] * 50)

    def test_silent_clients_delay_nobody(self):
        for _ in range(20):
            self.connect(b'{"action": "pres')
        self.accepted(20)
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_client_that_leaves_is_forgotten_whether_it_closes_or_resets_its_connection(self):
        for leave in (socket.socket.close, reset):
            with self.assert_logged("DEBUG connected: 127.0.0.1", "DEBUG disconnected: 127.0.0.1"):
                sock = self.connect()
                (client,) = self.accepted()
                leave(sock)
                self.accepted(0)
            self.assertEqual(client.sock.fileno(), -1)
            self.assertEqual(list(self.server.selector.get_map()), [self.listener.fileno()])

    def test_log_is_flushed_in_each_turn_of_the_loop(self):
        with mock.patch.object(server, "flush_log") as flush_log:
            self.server.serve_once()
        flush_log.assert_called_once_with()

    def test_serves_until_an_exception_and_then_closes_all_connections(self):
        self.connect()
        (client,) = self.accepted()
        turns = [None, None, KeyboardInterrupt]
        with mock.patch.object(self.server, "serve_once", side_effect=turns) as serve_once:
            self.assertRaises(KeyboardInterrupt, self.server.serve_forever)
        self.assertEqual((serve_once.call_count, client.sock.fileno()), (3, -1))
        self.assertIsNone(self.server.selector.get_map())  # it is closed, too


class Refusal(ServerCase):
    """Server.serve_client, finish, ignore_input: invalid messages, and clients that quit."""

    def test_invalid_presence_gets_400_and_a_warning_and_the_conversation_goes_on(self):
        line = "WARNING invalid message from 127.0.0.1: 'action' is missing"
        with self.assert_logged(line, level="WARNING"):
            self.assertEqual(self.visit(b"{}" + PRESENCE_BYTES + b"\r\n"), [400, 200])

    def test_not_a_json_object_gets_400_with_the_reason_and_ends_the_conversation(self):
        response = {"response": 400, "time": mock.ANY, "error": START + "b'h'"}
        self.assertEqual(self.responses(self.connect(b"hello")), [response])

    def test_not_a_json_object_is_a_warning_with_what_was_received(self):
        self.patch(server, "RECEIVE_BYTES", 400)
        error = r"""the message is not UTF-8: received b'{"a": "\xff"}'"""
        with self.assert_logged(f"WARNING refused 127.0.0.1: {error}", level="WARNING"):
            self.visit(b'{"a": "\xff"}')

    def test_last_response_arrives_though_the_client_is_still_sending(self):
        self.assertEqual(self.visit(PRESENCE_BYTES + b"{}" + b"hello" * 1000), [200, 400, 400])
        self.assertEqual(self.visit(PRESENCE_BYTES + QUIT_BYTES + b"{}" * 1000), [200])

    def test_quit_ends_the_conversation_without_a_response_and_without_a_warning(self):
        with self.assert_logged(level="WARNING"):
            self.assertEqual(self.visit(QUIT_BYTES), [])

    def test_client_that_leaves_before_its_last_response_is_dropped(self):
        self.connect()
        (client,) = self.accepted()
        with mock.patch.object(server, "send_message", side_effect=ConnectionResetError):
            self.server.finish(client, {"response": 400})
        self.assertEqual(self.server.clients, set())


class Trouble(ServerCase):
    """Server.serve_client: what goes wrong with one client affects no other."""

    def fail(self):
        """Let the server fail at one message; return the responses, and the only record of an error."""
        failure = mock.patch.object(server, "check_presence", side_effect=ZeroDivisionError("by zero"))
        with failure, self.assertLogs(LOG, "ERROR") as logs:
            return self.responses(self.connect(PRESENCE_BYTES)), *logs.records

    def test_failure_of_the_server_gets_500_and_affects_no_other_client(self):
        other = self.connect()
        self.accepted()
        responses, _ = self.fail()
        self.assertEqual(responses, [{"response": 500, "time": mock.ANY, "error": "internal server error"}])
        other.sendall(PRESENCE_BYTES)
        self.assertEqual(self.codes(other), [200])

    def test_failure_of_the_server_is_an_error_with_its_traceback_in_one_line(self):
        _, record = self.fail()
        line = server_log_config.OneLineFormatter("%(levelname)s %(message)s").format(record)
        text = (
            r"ERROR failed to serve 127\.0\.0\.1 port \d+\\nTraceback .* in process_client_message.*: by zero"
        )
        self.assertRegex(line, f"^{text}$")

    def test_client_that_does_not_read_is_dropped(self):
        self.patch(server, "process_client_message", lambda message: {"alert": "x" * 1_000_000})
        drop = self.patch(self.server, "drop", mock.Mock(wraps=self.server.drop))
        with self.assert_logged("WARNING lost 127.0.0.1: it does not read its responses", level="WARNING"):
            self.connect(b"{}" * 200)
            self.serve_until(lambda: drop.called)


class Deadlines(ServerCase):
    """Server.check_clients, answer_message, finish: how long a client may take."""

    check_interval = 1

    def assert_dropped_at(self, end, *lines):
        """Let the clock tick; fail unless the one client is dropped at `end`, with these warnings."""
        select = mock.patch.object(self.server.selector, "select", return_value=[])
        with select, self.assert_logged(*lines, level="WARNING"):
            while self.server.clients and self.clock() <= end:
                self.clock.return_value += 1
                self.server.serve_once()
        self.assertEqual(self.clock(), end)

    def test_silent_client_is_dropped_after_60_seconds(self):
        self.connect()
        self.accepted()
        self.assert_dropped_at(1060, "WARNING dropped 127.0.0.1: no complete message in 60 s")

    def test_client_that_drips_has_no_more_time(self):
        sock = self.connect(b"{")
        (client,) = self.accepted()
        for self.clock.return_value, data in ((1030, b"{ "), (1059, b"{  ")):
            sock.sendall(b" ")
            self.serve_until(lambda data=data: client.data == data)
        self.assert_dropped_at(1060, mock.ANY)

    def test_message_gives_60_seconds_more(self):
        sock = self.connect()
        self.accepted()
        self.clock.return_value = 1050
        sock.sendall(PRESENCE_BYTES + b"{")
        self.codes(sock)
        self.assert_dropped_at(1110, mock.ANY)

    def test_client_has_2_seconds_to_close_after_its_last_response(self):
        for end, data in ((1002, b"hello"), (1004, QUIT_BYTES)):
            self.responses(self.connect(data))
            self.assert_dropped_at(end)


class Room(ServerCase):
    """MAX_CLIENTS, Server.accept_clients, accept_client, pause: how many clients are accepted."""

    def test_clients_may_take_all_open_files_but_20_and_on_windows_511_sockets(self):
        resource = mock.Mock(RLIMIT_NOFILE=7, getrlimit={7: (1024, 4096)}.get)
        for module, number in ((resource, 1004), (None, 511)):  # None: it cannot be imported
            with mock.patch.dict(sys.modules, resource=module):
                self.assertEqual(runpy.run_path(server.__file__)["MAX_CLIENTS"], number)

    def test_full_server_serves_its_clients_and_accepts_the_next_when_one_leaves(self):
        self.patch(server, "MAX_CLIENTS", 2)
        first, second, third = self.connect(), self.connect(), self.connect(PRESENCE_BYTES)
        self.accepted(2)
        second.sendall(PRESENCE_BYTES)
        self.assertEqual(self.codes(second), [200])
        self.assertEqual(len(self.server.clients), 2)
        first.close()
        self.assertEqual(self.codes(third), [200])

    def test_full_server_sleeps_a_little_so_that_its_loop_rests(self):
        for limit, calls in ((1, []), (0, [mock.call(0.001)])):
            with mock.patch.object(server, "MAX_CLIENTS", limit):
                self.server.accept_clients()
            self.assertEqual(self.sleep.mock_calls, calls)

    def test_full_server_is_an_error_once_a_minute(self):
        self.patch(server, "MAX_CLIENTS", 0)
        line = "ERROR cannot accept a client, 0 are connected: there is no room for more"
        for self.clock.return_value, lines in ((1000, [line]), (1059, []), (1060, [line]), (1119, [])):
            with self.assert_logged(*lines):
                self.server.accept_clients()

    def test_client_that_cannot_be_accepted_is_an_error_and_the_next_is_served(self):
        gone = mock.Mock(accept=mock.Mock(side_effect=OSError("gone")))
        with self.assert_logged("ERROR cannot accept a client, 0 are connected: gone"):
            with mock.patch.object(self.server, "listener", gone):
                self.server.accept_clients()
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_client_that_resets_before_it_is_accepted_is_no_trouble(self):
        reset(self.connect())
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_loop_accepts_10_clients_in_a_turn_at_most(self):
        with mock.patch.object(self.server, "accept_client") as accept_client:
            self.server.accept_clients()
        self.assertEqual(accept_client.call_count, 10)


@needs_sockets
class OpenListener(Case):
    """open_listener: where the server listens."""

    def assert_listens(self, address, *reached):
        """Fail unless a listener on `address` is reached at these addresses; return its own."""
        with server.open_listener(address, 0) as listener:
            for each in reached:
                socket.create_connection((each, listener.getsockname()[1]), PATIENCE).close()
            return listener.getsockname()[0]

    def has_ipv6(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            return socket.has_dualstack_ipv6()

    def test_on_one_address_which_may_be_a_name(self):
        for address in ("127.0.0.1", "localhost"):
            self.assertEqual(self.assert_listens(address, "127.0.0.1"), "127.0.0.1")

    def test_on_an_ipv6_address_and_on_all_addresses(self):
        if not self.has_ipv6():
            self.skipTest("this machine has no IPv6")
        self.assertEqual(self.assert_listens("::1", "::1"), "::1")
        self.assert_listens("", "127.0.0.1", "::1")

    def test_on_all_addresses_without_ipv6(self):
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            self.assertEqual(self.assert_listens("", "127.0.0.1"), "0.0.0.0")


class DescribeError(Case):
    """describe_error: what the user is told if the server cannot listen."""

    def test_common_errors_come_with_advice(self):
        for code, text in (
            (errno.EADDRINUSE, "port 80 is taken: stop the program that uses it, or choose another with -p"),
            (errno.EADDRNOTAVAIL, "x is not an address of this machine: omit -a to listen on all of them"),
            (errno.EACCES, "the system does not allow port 80: choose another, for example with -p 8888"),
        ):
            self.assertEqual(server.describe_error(OSError(code, "no"), "x", 80), text)

    def test_other_errors_come_in_the_words_of_the_system(self):
        error = OSError(errno.EADDRNOTAVAIL, "no")
        text = f"cannot serve on all addresses port 80: {error}"
        self.assertEqual(server.describe_error(error, "", 80), text)
        self.assertEqual(server.describe_error(UnicodeError("no"), "x", 80), "cannot serve on x port 80: no")


class ParseArgs(Case):
    """parse_args: the command line."""

    def test_options_and_their_defaults(self):
        for argv, port, addr, level in (
            ([], 7777, "", "DEBUG"),
            (["-p", "0", "-a", "::1"], 0, "::1", "DEBUG"),
            (["--log-level", "ERROR", "-p", "65535"], 65535, "", "ERROR"),
        ):
            self.assertEqual(vars(server.parse_args(argv)), {"port": port, "addr": addr, "log_level": level})

    def test_port_that_does_not_exist_is_a_usage_error(self):
        for port in ("-1", "65536"):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as stderr:
                server.parse_args(["-p", port])
            self.assertIn(f"error: a port is a number from 0 to 65535, not {port}\n", stderr.getvalue())


class LogCase(Case):
    """What the tests of the log share: a folder of its own for the files, and what the console shows."""

    def setUp(self):
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "[a] name")
        self.patch(server_log_config, "LOG_FOLDER", str(self.folder))
        self.patch(server_log_config, "FILE_HANDLER", server_log_config.DailyFileHandler())
        self.console = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.addCleanup(server_log_config.close_log)

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())

    def logged(self, name=None):
        """Return level and message of the lines in a file, by default the only one."""
        (name,) = [name] if name else self.files()
        return without_times((self.folder / name).read_text("utf-8"))

    def shown(self):
        """Return level and message of the lines on the console."""
        return without_times(self.console.getvalue())


class OneLineFormatter(Case):
    """OneLineFormatter.format: one record, one line."""

    def test_only_printable_characters_stay_as_they_are(self):
        formatter = server_log_config.OneLineFormatter("%(message)s")
        for text, line in (
            ("Жанна's 😀", "Жанна's 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO server b", r"a\n2026-11-22 12:00:00,000 INFO server b"),
            ("\x1b[2J\r\x00\t\x85\u2028\u202e\ud800", r"\x1b[2J\r\x00\t\x85\u2028\u202e\ud800"),
        ):
            self.assertEqual(formatter.format(logging.makeLogRecord({"msg": text})), line)


class Append(Case):
    """append: text at the end of a file."""

    def test_makes_folder_and_file_and_starts_a_new_line_if_the_last_one_was_cut_off(self):
        path = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "a", "b", "file.log")
        for text, content in (("Ж\n", "Ж\n"), ("cut o", "Ж\ncut o"), ("b\n", "Ж\ncut o\nb\n")):
            server_log_config.append(str(path), text)
            self.assertEqual(path.read_bytes(), content.encode())


@contextlib.contextmanager
def at(day, clock="12:00:00"):
    """Set the time for a block."""
    now = int(time.mktime(time.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")))
    with mock.patch("time.time", return_value=now), mock.patch("time.time_ns", return_value=now * 10**9):
        yield


TODAY, TOMORROW = "2026-11-22", "2026-11-23"
EARLIER = [f"server.2020-01-{day:02}.log" for day in range(1, 32)]  # one file more than is kept


class DailyFile(LogCase):
    """DailyFileHandler.emit, begin_day, flush, delete_old_files, flush_log: a file for each day."""

    def setUp(self):
        super().setUp()
        server_log_config.configure_log()
        self.file = self.folder / f"server.{TODAY}.log"
        self.error = f"ERROR cannot write the log {self.file}, records are lost: no space"
        self.failing = mock.patch.object(server_log_config, "append", side_effect=OSError("no space"))

    def log(self, text, *days, level=logging.DEBUG):
        """Log a text at noon of some days, by default today, and write it."""
        for day in days or [TODAY]:
            with at(day):
                LOG.log(level, text)
                server_log_config.flush_log()

    def make_files(self, *names):
        self.folder.mkdir()
        for name in names:
            (self.folder / name).write_bytes(b"")

    def test_lines_of_before_midnight_that_are_written_after_it_are_in_the_file_of_their_day(self):
        with at(TODAY, "23:59:59"):
            LOG.debug("old")
        with at(TOMORROW, "00:00:00"):
            LOG.debug("new")
        server_log_config.flush_log()
        self.assertEqual(self.logged(f"server.{TODAY}.log"), ["DEBUG old"])
        self.assertEqual(self.logged(f"server.{TOMORROW}.log"), ["DEBUG new"])

    def test_clock_that_runs_back_overwrites_nothing(self):
        self.log("text", TODAY, TOMORROW, TODAY)
        self.assertEqual(self.logged(f"server.{TODAY}.log"), ["DEBUG text"] * 2)

    def test_last_30_files_of_earlier_days_are_kept_and_other_files_are_left_alone(self):
        others = ["client.log", "my server.2019-12-31.log", "server.2019-12-31.log.old", "server.log"]
        self.make_files(*EARLIER, self.file.name, *others)
        self.log("text")
        self.assertEqual(self.files(), sorted([*EARLIER[1:], self.file.name, *others]))

    def test_files_of_later_days_do_not_count(self):
        self.make_files(*EARLIER)
        self.log("text", "2019-12-31")
        self.assertEqual(self.files(), ["server.2019-12-31.log", *EARLIER])

    def test_file_that_cannot_be_deleted_stays(self):
        self.make_files(*EARLIER[1:])
        (self.folder / EARLIER[0]).mkdir()  # a folder, which cannot be deleted like a file
        self.log("text")
        self.assertEqual(self.files(), [*EARLIER, self.file.name])

    def test_file_or_folder_that_is_deleted_or_renamed_is_made_again(self):
        old = self.folder / "old"
        for spoil in (self.file.unlink, lambda: self.file.rename(old), lambda: shutil.rmtree(self.folder)):
            self.log("before")
            spoil()
            self.log("after")
            self.assertEqual(self.logged(self.file.name), ["DEBUG after"])
        self.assertEqual(self.shown(), [])

    def test_file_in_the_place_of_the_folder_is_reported_and_stops_nothing(self):
        self.folder.write_bytes(b"")
        self.log("text")
        (line,) = self.shown()
        self.assertIn(self.error[: -len("no space")], line)

    def test_lines_that_cannot_be_written_are_lost_and_no_others(self):
        self.log("before")
        with self.failing:
            self.log("lost")
        self.log("after")
        self.assertEqual(self.logged(), ["DEBUG before", self.error, "DEBUG after"])

    def test_failure_is_reported_once_a_day(self):
        with self.failing:
            self.log("lost", TODAY, TODAY, TOMORROW, TOMORROW)
        self.assertEqual(self.shown(), [self.error, self.error.replace(TODAY, TOMORROW)])

    def test_full_file_takes_only_info_and_error_until_midnight(self):
        getsize = self.patch(os.path, "getsize", mock.Mock(return_value=100 * 1024 * 1024 - 1))
        self.log("almost full")
        getsize.return_value += 1
        for level in (logging.DEBUG, logging.WARNING, logging.INFO, logging.ERROR):
            self.log("text", level=level)
        lines = [f"ERROR the log {self.file} is full: until midnight it takes only INFO and ERROR"]
        lines += ["INFO text", "ERROR text"]
        self.assertEqual(self.shown(), lines)
        self.assertEqual(self.logged(self.file.name), ["DEBUG almost full", "DEBUG text", *lines])
        self.log("text", TOMORROW)
        self.assertEqual(self.logged(f"server.{TOMORROW}.log"), ["DEBUG text"])

    def test_1000_lines_are_written_without_waiting_for_flush_log(self):
        with at(TODAY):
            for _ in range(999):
                LOG.debug("text")
            self.assertFalse(self.folder.exists())
            LOG.debug("text")
        self.assertEqual(len(self.logged()), 1000)


class ConfigureLog(LogCase):
    """configure_log, is_about_server, close_log: what goes where."""

    def log_at_all_levels(self):
        for level in server_log_config.LEVELS:
            LOG.log(getattr(logging, level), "text")

    def test_before_it_and_after_close_log_records_go_nowhere(self):
        self.log_at_all_levels()
        server_log_config.configure_log()
        server_log_config.close_log()
        self.log_at_all_levels()
        self.assertEqual((self.folder.exists(), self.shown()), (False, []))

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(level="DEBUG") as logs:
            logging.getLogger("another").warning("not ours")
            LOG.warning("ours")
        self.assertEqual(logs.output, ["WARNING:another:not ours"])

    def test_file_takes_a_level_and_above_and_the_console_info_and_error(self):
        for number, level in enumerate(server_log_config.LEVELS):
            server_log_config.configure_log(level)
            self.log_at_all_levels()
            server_log_config.close_log()
            self.assertEqual(self.logged(), [f"{each} text" for each in server_log_config.LEVELS[number:]])
            shutil.rmtree(self.folder)
        self.assertEqual(self.shown(), ["INFO text", "ERROR text"] * 4)

    def test_second_call_replaces_the_first(self):
        server_log_config.configure_log()
        server_log_config.configure_log()
        LOG.info("once")
        self.assertEqual(self.shown(), ["INFO once"])


@needs_sockets
class Main(LogCase):
    """main: from the command line to the exit code."""

    def run_main(self, *argv):
        """Run the server and press Ctrl+C; return its exit code."""
        with mock.patch.object(Server, "serve_once", side_effect=KeyboardInterrupt):
            return server.main(["-p", "0", *argv])

    def test_says_where_it_listens_and_that_it_stopped(self):
        for address, where in (("127.0.0.1", r"127\.0\.0\.1"), ("", "all addresses")):
            self.assertEqual(self.run_main("-a", address), 0)
            listening, stopped = self.shown()[-2:]
            self.assertRegex(listening, rf"^INFO listening on {where} port [1-9]\d*, stop with Ctrl\+C$")
            self.assertEqual(stopped, "INFO stopped")

    def test_address_of_another_machine_is_one_line_and_exit_code_1(self):
        self.assertEqual(self.run_main("-a", "192.0.2.1"), 1)
        line = "ERROR 192.0.2.1 is not an address of this machine: omit -a to listen on all of them"
        self.assertEqual(self.shown(), [line])

    def test_address_that_cannot_be_one_is_one_line_and_exit_code_1(self):
        for address in ("a..b", "é..b", "Ж" * 70, "no such name"):
            with self.subTest(address=address):
                self.assertEqual(self.run_main("-a", address), 1)
                self.assertRegex(self.shown()[-1], rf"^ERROR cannot serve on {address} port 0: ")

    def test_log_takes_the_given_level_and_is_closed_at_the_end(self):
        for level, written in (("ERROR", False), ("INFO", True)):
            self.run_main("-a", "127.0.0.1", "--log-level", level)
            self.assertEqual((self.folder.exists(), len(LOG.handlers)), (written, 1))


class Stop(Case):
    """stop: what a signal does."""

    def test_first_signal_raises_keyboard_interrupt_and_others_are_ignored(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.assertRaises(KeyboardInterrupt, server.stop, signal.SIGINT, None)
        handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
        self.assertEqual(handlers, [signal.SIG_IGN] * 2)


# On Windows, only a process itself can press Ctrl+C in its console: this program runs the script, and does so
# when it reads a line.
RUN_ON_WINDOWS = """if True:
    import os, runpy, signal, sys, threading

    def press_ctrl_c():
        if sys.stdin.readline():
            os.kill(0, signal.CTRL_C_EVENT)

    threading.Thread(target=press_ctrl_c, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
PYTHON = [sys.executable]
if os.name == "nt":  # in IDLE, it is pythonw.exe, which has no console
    PYTHON = [sys.executable.replace("pythonw", "python"), "-c", RUN_ON_WINDOWS]


@needs_sockets
class Script(Case):
    """server.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (server, server_log_config):
            copy = self.folder / os.path.relpath(module.__file__, os.path.dirname(server.__file__))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self, *before, port=0):
        """Start the script in another current folder; return its process."""
        process = subprocess.Popen(
            [*before, *PYTHON, str(self.folder / "server.py"), "-a", "127.0.0.1", "-p", str(port)],
            cwd=tempfile.gettempdir(), env={**os.environ, "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: a console of its own
        )  # fmt: skip
        self.enter(process)
        timer = threading.Timer(PATIENCE, process.kill)  # a line that does not come is a failure
        timer.start()
        for clean_up in (process.kill, timer.join, timer.cancel):  # the last one first
            self.addCleanup(clean_up)
        return process

    def start_and_listen(self, *before):
        """Start the script and wait until it listens; return its process and its address."""
        process = self.start(*before)
        line = process.stderr.readline()
        port = re.search(r" listening on 127\.0\.0\.1 port (\d+), ", line).group(1)
        return process, ("127.0.0.1", int(port))

    def connect(self, address):
        """Return the socket of a client that has sent a presence."""
        sock = self.enter(socket.create_connection(address, PATIENCE))
        sock.sendall(PRESENCE_BYTES)
        return sock

    def assert_stops(self, process, number):
        """Fail unless a signal, repeated at any time, ends the script with one line and exit code 0."""
        if os.name == "nt":
            print(file=process.stdin, flush=True)  # RUN_ON_WINDOWS presses Ctrl+C, once
            shown = ""
        else:
            process.send_signal(number)
            process.send_signal(number)
            shown = process.stderr.readline()
            process.send_signal(number)
        shown += process.stderr.read()
        self.assertEqual((process.wait(), without_times(shown)), (0, ["INFO stopped"]))

    def logged(self):
        """Return level and message of all lines in the log file."""
        (file,) = (self.folder / "log").glob("server.*.log")
        return without_times(file.read_text("utf-8"))

    def test_log_of_a_run_tells_its_story_and_ctrl_c_twice_ends_it(self):
        process, address = self.start_and_listen()
        sock = self.connect(address)
        self.assertIn(b"200", sock.recv(10_000))
        sock.sendall(QUIT_BYTES)
        self.assertEqual(sock.recv(10_000), b"")
        self.assertIn(b"200", self.connect(address).recv(10_000))  # the lines of earlier turns are written
        self.assert_stops(process, signal.SIGINT)
        verbs = [line.split()[1] for line in self.logged() if "DEBUG received" not in line]
        story = ["listening", "connected:", "processed", "sent", "processed"]
        self.assertEqual([*verbs[:5], verbs[-1]], [*story, "stopped"])

    @unittest.skipIf(os.name == "nt", "Windows has neither a limit of open files nor SIGTERM")
    def test_log_is_written_though_clients_take_all_open_files_and_sigterm_ends_it(self):
        process, address = self.start_and_listen("sh", "-c", 'ulimit -n 40; exec "$0" "$@"')
        socks = [self.connect(address) for _ in range(45)]
        error = "ERROR cannot accept a client, 20 are connected: there is no room for more"
        self.assertEqual(without_times(process.stderr.readline()), [error])
        socks[0].close()
        self.assertIn(b"200", socks[20].recv(10_000))  # the lines of earlier turns are written
        self.assert_stops(process, signal.SIGTERM)
        self.assertIn(error, self.logged())

    def test_port_that_is_taken_is_one_line_and_exit_code_1(self):
        listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        process = self.start(port=port)
        _, shown = process.communicate(timeout=PATIENCE)
        line = f"ERROR port {port} is taken: stop the program that uses it, or choose another with -p"
        self.assertEqual((process.returncode, without_times(shown)), (1, [line]))

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import server"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)


if __name__ == "__main__":
    unittest.main()
