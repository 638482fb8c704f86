"""Tests of server.py and server_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest -v test_server           -v shows their names: what the server does

Each class says first which functions it tests. A test states one fact, never sleeps, leaves no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import select
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
KINDS = {"null": None, "a boolean": True, "a number": 1, "a string": "5", "an array": [], "an object": {}}
needs_sockets = unittest.skipIf(sys.platform == "emscripten", "WebAssembly has no sockets, no processes")


class ProcessClientMessage(unittest.TestCase):
    """process_client_message, create_error, check_presence, check_field: the response to a message."""

    def assert_refused(self, message, error):
        """Fail unless the response to `message` is 400 with this error."""
        response = server.process_client_message(message)
        self.assertEqual(response, {"response": 400, "time": mock.ANY, "error": error})

    def test_valid_presence_gets_200(self):
        for changes in (
            {"time": 1732267890, "type": "status", "user": {"account_name": "x", "status": "I am here!"}},
            {"user": {"account_name": "Ж" * 25, "password": None}, "room": "a field that JIM does not have"},
        ):
            response = server.process_client_message({**PRESENCE, **changes})
            self.assertEqual(response, {"response": 200, "time": mock.ANY, "alert": "OK"})

    def test_response_has_the_time(self):
        for message in (PRESENCE, {}):
            response = server.process_client_message(message)
            self.assertAlmostEqual(response["time"], time.time(), delta=PATIENCE)

    def test_missing_field(self):
        self.assert_refused({}, "'action' is missing")
        self.assert_refused({"action": "presence"}, "'time' is missing")
        self.assert_refused({"action": "presence", "time": 1}, "'user' is missing")
        self.assert_refused({**PRESENCE, "user": {"status": "here"}}, "'account_name' is missing")

    def test_action_of_another_length_or_name(self):
        self.assert_refused({"action": ""}, "'action' must be 1 to 15 characters long, not 0")
        self.assert_refused({"action": "a" * 16}, "'action' must be 1 to 15 characters long, not 16")
        self.assert_refused({"action": "п" * 15}, f"the action '{'п' * 15}' is not supported")
        self.assert_refused({"action": "\n\x1b\ud800"}, r"the action '\n\x1b\ud800' is not supported")

    def test_name_of_another_length(self):
        for length in (0, 26):
            error = f"'account_name' must be 1 to 25 characters long, not {length}"
            self.assert_refused({**PRESENCE, "user": {"account_name": "Ж" * length}}, error)

    def test_field_of_another_type(self):
        types = {"action": "a string", "type": "a string", "time": "a number", "user": "an object"}
        for name, wanted in types.items():
            for kind in KINDS.keys() - {wanted}:
                message = {**PRESENCE, name: KINDS[kind]}
                self.assert_refused(message, f"'{name}' must be {wanted}, not {kind}")
        for name in ("account_name", "status"):
            for kind in KINDS.keys() - {"a string"}:
                message = {**PRESENCE, "user": {"account_name": "Guest", name: KINDS[kind]}}
                self.assert_refused(message, f"'{name}' must be a string, not {kind}")


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
                    self.assertEqual(server.take_message(text.encode() + rest), (message, rest))

    def test_beginning_of_a_message_is_incomplete(self):
        for text, _ in VALID:
            data = text.encode()
            for end in range(0, len(data), len(data) // 99 + 1):
                self.assertEqual(server.take_message(data[:end]), (None, data[:end]))

    def test_whitespace_and_byte_order_mark_around_a_message_are_ignored(self):
        for space in (b" \t\r\n", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf ", b" " * 999):
            with self.subTest(space=space):
                self.assertEqual(server.take_message(space + b"{}" + space), ({}, b""))
                self.assertEqual(server.take_message(b"{}" + space + b'{"b'), ({}, b'{"b'))
        self.assertEqual(server.take_message(b" \xef\xbb"), (None, b""))

    def test_invalid_message_is_refused_with_its_last_byte_and_not_before_whatever_follows(self):
        for data, error in INVALID:
            self.assertIsNone(server.take_message(data[:-1])[0])
            for rest in (b"", b"}", b'"}' * 2000):
                with self.subTest(data=data), self.assertRaisesRegex(ProtocolError, "^" + re.escape(error)):
                    server.take_message(data + rest)


class Case(unittest.TestCase):
    """What the tests below share."""

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.enter = stack.enter_context  # enters a `with` context that lasts until the test ends


@needs_sockets
class ClientCase(Case):
    """What the tests of the wire share: a Client that is connected with a socket of the test."""

    def setUp(self):
        super().setUp()
        ours, self.theirs = map(self.enter, socket.socketpair())
        self.theirs.settimeout(PATIENCE)
        self.client = Client(ours, ("127.0.0.1", 5000))


class ReceiveMessage(ClientCase):
    """receive_message: one message in."""

    def test_messages_in_any_pieces(self):
        data = ' {"Ж": 2}\r\n\t{"a": "\\""}\n'.encode()
        for size in range(1, len(data)):
            self.theirs.sendall(data)
            with mock.patch.object(server, "RECEIVE_BYTES", size):
                messages = [server.receive_message(self.client) for _ in range(len(data) + 2)]
            self.assertEqual(list(filter(None, messages)), [{"Ж": 2}, {"a": '"'}])

    def test_what_has_arrived_is_logged_also_invalid_bytes(self):
        self.theirs.sendall('{"Ж":'.encode() + b"\xd0")
        with self.assertLogs(LOG, "DEBUG") as logs:
            server.receive_message(self.client)
        self.assertEqual(logs.output, [r'DEBUG:server:received from 127.0.0.1 port 5000: {"Ж":\xd0'])


class SendMessage(ClientCase):
    """send_message: one message out."""

    def test_sends_json_with_its_characters_as_they_are_and_logs_it(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            server.send_message(self.client, {"time": 1.5, "error": "Жанна"})
        self.assertEqual(self.theirs.recv(999).decode(), '{"time": 1.5, "error": "Жанна"}')
        self.assertIn('sent to 127.0.0.1 port 5000: {"time": 1.5, "error": "Жанна"}', logs.output[0])


class FormatAddress(unittest.TestCase):
    """format_address: a client as the log shows it."""

    def test_is_address_and_port(self):
        for address, text in (
            (("127.0.0.1", 5000), "127.0.0.1 port 5000"),
            (("::1", 5000, 0, 0), "::1 port 5000"),
            (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7 port 5000"),
            (("2001:db8::ffff:1:2", 5000, 0, 0), "2001:db8::ffff:1:2 port 5000"),
            (None, "unknown client"),
        ):
            self.assertEqual(server.format_address(address), text)


@needs_sockets
class ServerCase(Case):
    """What the tests of class Server share: a server that goes on when the test says so."""

    def setUp(self):
        super().setUp()
        self.clock = self.enter(mock.patch.object(server, "monotonic", return_value=1000))
        self.enter(mock.patch.object(server, "CHECK_INTERVAL", 0.01))  # the server waits no longer
        self.listener = self.enter(server.open_listener("127.0.0.1", 0))
        self.server = Server(self.listener)
        self.addCleanup(self.server.close)
        self.end = time.monotonic() + PATIENCE

    def connect(self, data=b""):
        """Return the socket of a client that has sent `data`."""
        sock = self.enter(socket.create_connection(self.listener.getsockname(), PATIENCE))
        sock.sendall(data)
        return sock

    def reset(self, sock):
        """Close a connection with a reset instead of an end."""
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.close()

    def serve_until(self, done):
        """Let the server go on until `done()`; fail if the test takes too long."""
        while not done():
            self.server.serve_once()
            self.assertLess(time.monotonic(), self.end, "the server did not do what the test waits for")

    def accepted(self, number=1):
        """Let the server go on until it has that many clients; return them."""
        self.serve_until(lambda: len(self.server.clients) == number)
        return list(self.server.clients)

    def responses(self, sock, number=sys.maxsize):
        """Return that many responses, or all until the server ends the connection."""
        messages, data, piece = [], b"", None
        while len(messages) < number and piece != b"":
            message, data = server.take_message(data)
            if message is None:
                self.serve_until(lambda: select.select([sock], [], [], 0)[0])  # until `recv` need not wait
                piece = sock.recv(10_000)
                data += piece
            else:
                messages.append(message)
        return messages

    def codes(self, sock, number=1):
        """Return the codes of that many responses."""
        return [response["response"] for response in self.responses(sock, number)]

    def visit(self, data):
        """Let a client send `data`, half-close and read all responses; return their codes."""
        sock = self.connect(data)
        sock.shutdown(socket.SHUT_WR)
        codes = self.codes(sock, sys.maxsize)
        self.accepted(0)
        return codes

    @contextlib.contextmanager
    def assert_warned(self, *lines, level="WARNING"):
        """Fail unless a block logs these lines, "<level> <message>" without ports, of `level` and above."""
        with self.assertLogs(LOG, level) as logs:
            yield
            LOG.critical("the end")  # assertLogs wants at least one record
        logged = [f"{each.levelname} {each.getMessage()}" for each in logs.records]
        self.assertEqual([re.sub(r" port \d+", "", line) for line in logged], [*lines, "CRITICAL the end"])


class Conversation(ServerCase):
    """Server.serve_once, serve_client, accept_clients, answer_message, drop: valid clients."""

    def test_turn_is_one_message(self):
        create_error = self.enter(mock.patch.object(server, "create_error", return_value={}))
        self.connect(b"{}" * 9)
        self.serve_until(lambda: create_error.called)
        create_error.assert_called_once()

    def test_messages_that_arrive_together_are_answered_in_order_and_without_waiting(self):
        self.enter(mock.patch.object(server, "CHECK_INTERVAL", PATIENCE))
        sock = self.connect(PRESENCE_BYTES + b"{}" * 200 + PRESENCE_BYTES)
        self.assertEqual(self.codes(sock, 202), [200, *[400] * 200, 200])

    def test_each_response_is_sent_immediately(self):
        self.connect()
        (client,) = self.accepted()
        self.assertTrue(client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_silent_and_busy_clients_delay_nobody(self):
        create_error = self.enter(mock.patch.object(server, "create_error", return_value={}))
        for data in [b'{"action": "pres', b"{}" * 1000] * 50:
            self.connect(data)
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])
        self.assertLess(create_error.call_count, 1000)

    def test_client_that_leaves_is_forgotten_whether_it_closes_or_resets_its_connection(self):
        lines = ("DEBUG connected: 127.0.0.1", "DEBUG disconnected: 127.0.0.1")
        for leave in (socket.socket.close, self.reset):
            with self.assert_warned(*lines, level="DEBUG"):
                sock = self.connect()
                (client,) = self.accepted()
                leave(sock)
                self.accepted(0)
            self.assertEqual(client.sock.fileno(), -1)
            self.assertEqual(list(self.server.selector.get_map()), [self.listener.fileno()])

    def test_client_that_is_dropped_in_the_turn_of_another_gets_no_turn(self):
        self.connect(), self.connect()
        self.server.pending = clients = set(self.accepted(2))
        drop_all = mock.Mock(side_effect=lambda _: list(map(self.server.drop, clients)))
        with mock.patch.object(self.server, "serve_client", drop_all):
            self.server.serve_once()
        drop_all.assert_called_once()

    def test_serves_until_an_exception_and_then_closes_all_connections(self):
        self.connect()
        (client,) = self.accepted()
        with mock.patch.object(self.server, "serve_once", side_effect=[None, None, KeyboardInterrupt]):
            self.assertRaises(KeyboardInterrupt, self.server.serve_forever)
        self.assertEqual(client.sock.fileno(), -1)
        self.assertIsNone(self.server.selector.get_map())  # it is closed, too


class Refusal(ServerCase):
    """Server.serve_client, refuse, finish: invalid messages, and clients that quit."""

    def test_invalid_presence_gets_400_and_a_warning_and_the_conversation_goes_on(self):
        with self.assert_warned("WARNING invalid message from 127.0.0.1: 'action' is missing"):
            self.assertEqual(self.visit(b"{}\n" + PRESENCE_BYTES + b"\r\n"), [400, 200])

    def test_not_a_json_object_gets_400_with_the_reason_and_ends_the_conversation(self):
        response = {"response": 400, "time": mock.ANY, "error": START + "b'h'"}
        with self.assert_warned(f"WARNING refused 127.0.0.1: {START}b'h'"):
            self.assertEqual(self.responses(self.connect(b"hello")), [response])

    def test_message_that_is_cut_short_gets_400(self):
        with self.assert_warned("WARNING refused 127.0.0.1: the message is cut short"):
            self.assertEqual(self.visit(b'{"a": "\xd0'), [400])

    def test_last_response_arrives_though_the_client_is_still_sending(self):
        self.assertEqual(self.visit(PRESENCE_BYTES + b"{}" + b"hello" * 1000), [200, 400, 400])

    def test_quit_ends_the_conversation_without_a_response_and_without_a_warning(self):
        with self.assert_warned():
            self.assertEqual(self.visit(PRESENCE_BYTES + b'{"action": "quit"}' + b"{}" * 1000), [200])


class Trouble(ServerCase):
    """Server.serve_client, answer_message, finish: what goes wrong with one client affects no other."""

    def test_failure_of_the_server_gets_500_and_a_traceback_in_the_log_whatever_its_kind(self):
        not_json = {"response": {200}}
        response = {"response": 500, "time": mock.ANY, "error": "internal server error"}
        for result in (ZeroDivisionError, FileNotFoundError, ConnectionResetError, BlockingIOError, not_json):
            process = mock.patch.object(server, "process_client_message", side_effect=[result])
            with self.subTest(result=result), process, self.assertLogs(LOG, "ERROR") as logs:
                self.assertEqual(self.responses(self.connect(PRESENCE_BYTES)), [response])
            self.assertRegex(logs.output[0], r"ERROR:server:failed to serve 127\.0\.0\.1 port \d+\nTraceback")
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_client_is_dropped_if_even_the_last_response_fails(self):
        send = mock.patch.object(server, "send_message", side_effect=ZeroDivisionError)
        with send, self.assertLogs(LOG, "ERROR"):
            self.assertEqual(self.responses(self.connect(PRESENCE_BYTES)), [])

    def test_client_that_does_not_read_is_dropped(self):
        self.enter(mock.patch.object(server, "process_client_message", return_value={"alert": "x" * 10**6}))
        drop = self.enter(mock.patch.object(self.server, "drop", wraps=self.server.drop))
        with self.assert_warned("WARNING lost 127.0.0.1: it does not read its responses"):
            self.connect(b"{}" * 200)
            self.serve_until(lambda: drop.called)

    def test_network_that_fails_is_a_warning(self):
        receive = mock.patch.object(server, "receive_message", side_effect=OSError("no route"))
        with receive, self.assert_warned("WARNING lost 127.0.0.1: no route"):
            self.assertEqual(self.responses(self.connect()), [])


class Deadlines(ServerCase):
    """Server.check_clients, answer_message, finish: how long a client may take."""

    def assert_ends_at(self, end, *lines):
        """Fail unless the one client is dropped at `end`, and not a second before, with these warnings."""
        for self.clock.return_value, number, logged in ((end - 1, 1, []), (end, 0, lines)):
            self.server.next_check = self.clock()
            with self.assert_warned(*logged):
                self.server.serve_once()
            self.assertEqual(len(self.server.clients), number)

    def test_silent_client_is_dropped_after_60_seconds(self):
        self.connect()
        self.accepted()
        self.assert_ends_at(1060, "WARNING dropped 127.0.0.1: no complete message in 60 s")

    def test_incomplete_message_is_refused_after_60_seconds_however_it_drips(self):
        sock = self.connect(b'{"action: "presence"}')  # a quote is missing
        (client,) = self.accepted()
        self.clock.return_value = 1059
        sock.sendall(b"x")
        self.serve_until(lambda: client.received.endswith(b"x"))
        self.clock.return_value = 1060
        with self.assert_warned("WARNING refused 127.0.0.1: no complete message in 60 s"):
            responses = self.responses(sock)
        error = "no complete message in 60 s"
        self.assertEqual(responses, [{"response": 400, "time": mock.ANY, "error": error}])

    def test_message_gives_60_seconds_more(self):
        sock = self.connect()
        self.accepted()
        self.clock.return_value = 1050
        sock.sendall(PRESENCE_BYTES)
        self.codes(sock)
        self.assert_ends_at(1110, "WARNING dropped 127.0.0.1: no complete message in 60 s")

    def test_client_has_2_seconds_to_close_after_its_last_response_or_a_quit(self):
        for end, data in ((1002, b"hello"), (1004, b'{"action": "quit"}')):
            self.responses(self.connect(data))
            self.assert_ends_at(end)


class Room(ServerCase):
    """Server.accept_clients, pause: how many clients are accepted."""

    def test_full_server_serves_its_clients_and_accepts_the_next_when_one_leaves(self):
        self.enter(mock.patch.object(server, "MAX_CLIENTS", 2))
        first, second, third = self.connect(), self.connect(), self.connect(PRESENCE_BYTES)
        self.accepted(2)
        second.sendall(PRESENCE_BYTES)
        self.assertEqual(self.codes(second), [200])
        self.assertEqual(len(self.server.clients), 2)
        first.close()
        self.assertEqual(self.codes(third), [200])

    def test_server_rests_only_if_it_is_full_and_somebody_waits(self):
        sleep = self.enter(mock.patch.object(server, "sleep"))
        self.visit(PRESENCE_BYTES)
        self.assertFalse(sleep.called)
        self.enter(mock.patch.object(server, "MAX_CLIENTS", 0))
        self.connect()
        self.serve_until(lambda: sleep.called)

    def test_full_server_is_an_error_once_a_minute(self):
        self.enter(mock.patch.object(server, "MAX_CLIENTS", 0))
        line = "ERROR cannot accept a client, 0 are connected: there is no room for more"
        for self.clock.return_value, lines in ((1000, [line]), (1059, []), (1060, [line]), (1119, [])):
            with self.assert_warned(*lines):
                self.server.accept_clients()

    def test_client_that_cannot_be_accepted_is_an_error_and_the_next_is_served(self):
        gone = mock.Mock(accept=mock.Mock(side_effect=OSError("gone")))
        with self.assert_warned("ERROR cannot accept a client, 0 are connected: gone"):
            with mock.patch.object(self.server, "listener", gone):
                self.server.accept_clients()
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_client_that_resets_before_it_is_accepted_is_no_trouble(self):
        self.reset(self.connect())
        self.assertEqual(self.codes(self.connect(PRESENCE_BYTES)), [200])

    def test_many_who_come_together_get_their_turn_soon(self):
        socks = [self.connect(PRESENCE_BYTES) for _ in range(100)]
        self.serve_until(lambda: self.server.clients)
        self.server.serve_once()
        self.server.serve_once()
        self.assertEqual(len(self.server.clients), len(socks))


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

    def test_on_an_ipv6_address_and_on_all_addresses(self):
        if not self.has_ipv6():
            self.skipTest("this machine has no IPv6")
        self.assertEqual(self.assert_listens("::1", "::1"), "::1")
        self.assert_listens("", "127.0.0.1", "::1")
        self.assert_listens("::", "127.0.0.1", "::1")

    def test_on_all_addresses_without_ipv6(self):
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            self.assertEqual(self.assert_listens("", "127.0.0.1"), "0.0.0.0")


class DescribeError(unittest.TestCase):
    """describe_error: what the user is told if the server cannot listen."""

    def test_common_errors_come_with_advice(self):
        for error, text in (
            (errno.EADDRINUSE, "port 80 is taken: stop the program that uses it, or choose another with -p"),
            (errno.EADDRNOTAVAIL, "x is not an address of this machine: omit -a to listen on all of them"),
            (errno.EACCES, "the system does not allow port 80: choose another, for example with -p 8888"),
        ):
            self.assertEqual(server.describe_error(OSError(error, "no"), "x", 80), text)

    def test_other_errors_come_in_the_words_of_the_system(self):
        shown = server.describe_error(OSError(errno.EADDRNOTAVAIL, "no"), "", 80)
        self.assertRegex(shown, "^cannot listen on all addresses port 80: .*no$")
        self.assertEqual(server.describe_error(OSError("no"), "x", 80), "cannot listen on x port 80: no")
        self.assertEqual(server.describe_error(UnicodeError("no"), "a..b", 80), "a..b cannot be an address")


class ParseArgs(unittest.TestCase):
    """parse_args: the command line."""

    def test_arguments(self):
        defaults = {"port": 7777, "addr": "", "verbose": False, "log_level": "DEBUG"}
        everything = {"port": 65535, "addr": "::1", "verbose": True, "log_level": "ERROR"}
        argv = ["-p", "65535", "-a", "::1", "-v", "--log-level", "ERROR"]
        self.assertEqual(vars(server.parse_args([])), defaults)
        self.assertEqual(vars(server.parse_args(argv)), everything)

    def test_port_that_does_not_exist_is_a_usage_error(self):
        for port in ("-1", "65536"):
            with contextlib.redirect_stderr(io.StringIO()) as stderr:
                self.assertRaisesRegex(SystemExit, "^2$", server.parse_args, ["-p", port])
            self.assertIn(f"error: a port is a number from 0 to 65535, not {port}\n", stderr.getvalue())


def without_times(text):
    """Return the lines of a log as "<level> <message>"; a line of another form stays as it is."""
    line = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) server (.*)$")
    return [line.sub(r"\1 \2", each) for each in text.splitlines()]


class LogCase(Case):
    """What the tests of the log share: a folder of its own for the files, and what the console shows."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "[a] name")
        handler = server_log_config.DailyFileHandler()
        self.enter(mock.patch.multiple(server_log_config, LOG_FOLDER=str(self.folder), FILE_HANDLER=handler))
        self.console = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.addCleanup(setattr, handler, "lines", [])
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


@needs_sockets
class Main(LogCase):
    """main, start_listening: from the command line to the exit code."""

    def run_main(self, *argv):
        """Run the server and press Ctrl+C; return its exit code."""
        with mock.patch.object(Server, "serve_once", side_effect=KeyboardInterrupt):
            return server.main(["-p", "0", *argv])

    def test_says_where_it_listens_and_that_it_stopped(self):
        places = {"": "all addresses", "localhost": "127.0.0.1", "0.0.0.0": "0.0.0.0"}
        for address, place in places.items():
            self.assertEqual(self.run_main("-a", address), 0)
            listening, stopped = self.shown()[-2:]
            self.assertRegex(listening, rf"^INFO listening on {place} port [1-9]\d*, stop with Ctrl\+C$")
            self.assertEqual(stopped, "INFO stopped")

    def test_address_that_cannot_be_one_is_one_line_and_exit_code_1(self):
        for number, address in enumerate(
            ("192.0.2.1", "a..b", "é..b", "Ж" * 70, "no name", "localhost:7777")
        ):
            self.assertEqual(self.run_main("-a", address), 1, address)
            (line,) = self.shown()[number:]
            self.assertIn(address, line)

    def test_too_few_open_files_are_one_line_and_exit_code_1(self):
        with mock.patch.multiple(server, OPEN_FILES=20, MAX_CLIENTS=0):
            self.assertEqual(self.run_main(), 1)
        self.assertEqual(self.shown(), ["ERROR the system allows only 20 open files, too few for a client"])

    def test_log_level_is_the_lowest_level_anywhere(self):
        self.run_main("-a", "127.0.0.1", "-v", "--log-level", "ERROR")
        self.assertEqual(self.shown(), [])
        self.assertFalse(self.folder.exists())

    def test_ctrl_c_while_it_starts(self):
        with mock.patch.object(server, "open_listener", side_effect=KeyboardInterrupt):
            self.assertEqual(server.main([]), 0)
        self.assertEqual(self.shown(), ["INFO stopped"])


class OneLineFormatter(unittest.TestCase):
    """OneLineFormatter, escape: one record, one line; a traceback follows, indented."""

    def test_only_printable_characters_of_the_message_stay_as_they_are(self):
        formatter = server_log_config.OneLineFormatter("[%(levelname)-8s]\t%(message)s")
        for text, line in (
            ("Жанна's 😀", "Жанна's 😀"),
            (r"a \n that somebody typed", r"a \n that somebody typed"),
            ("a\n2026-11-22 12:00:00,000 INFO server b", r"a\n2026-11-22 12:00:00,000 INFO server b"),
            ("\x1b[2J\r\x00\t\x85\u2028\u202e\ud800", r"\x1b[2J\r\x00\t\x85\u2028\u202e\ud800"),
        ):
            record = logging.makeLogRecord({"levelname": "INFO", "msg": text})
            self.assertEqual(formatter.format(record), f"[INFO    ]\t{line}")

    def test_traceback_is_indented_and_escaped(self):
        try:
            raise ZeroDivisionError("by\n2026-11-22 INFO forged\x1b\ud800")
        except ZeroDivisionError:
            record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
        lines = server_log_config.OneLineFormatter("%(message)s").format(record).split("\n")
        self.assertEqual(lines[:2], ["failed", "    Traceback (most recent call last):"])
        self.assertEqual(lines[-2:], ["    ZeroDivisionError: by", r"    2026-11-22 INFO forged\x1b\ud800"])


TODAY, TOMORROW = "2026-11-22", "2026-11-23"
EARLIER = [f"server.2020-01-{day:02}.log" for day in range(1, 32)]  # one file more than is kept


class DailyFileHandler(LogCase):
    """DailyFileHandler, path_of_today, delete_old_files, flush_log: a file for each day."""

    def setUp(self):
        super().setUp()
        server_log_config.configure_log()
        self.file = self.folder / f"server.{TODAY}.log"

    def log(self, text, *days, level=logging.DEBUG):
        """Log a text on some days, by default today, and write it."""
        for day in days or [TODAY]:
            with mock.patch.object(server_log_config, "date", **{"today.return_value": day}):
                LOG.log(level, text)
                server_log_config.flush_log()

    def make_files(self, *names):
        self.folder.mkdir()
        for name in names:
            (self.folder / name).write_bytes(b"")

    def test_each_day_has_its_file(self):
        self.log("text", TODAY, TOMORROW, TODAY)  # the clock may run back
        self.assertEqual(self.logged(f"server.{TODAY}.log"), ["DEBUG text"] * 2)
        self.assertEqual(self.logged(f"server.{TOMORROW}.log"), ["DEBUG text"])

    def test_names_of_the_files_do_not_depend_on_the_format(self):
        for line_format in ("[%(asctime)s] %(message)s", "%(levelname)-10s %(process)d\t%(message)s"):
            with mock.patch.object(server_log_config, "LINE_FORMAT", line_format):
                server_log_config.configure_log()
                self.log("text", TODAY, TOMORROW)
        self.assertEqual(self.files(), [f"server.{TODAY}.log", f"server.{TOMORROW}.log"])

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
        self.make_files(*EARLIER[2:])
        for name in EARLIER[:2]:
            (self.folder / name).mkdir()  # a folder, which cannot be deleted like a file
        self.log("text")
        self.assertEqual(self.files(), [*EARLIER, self.file.name])

    def test_old_file_is_not_deleted_before_a_line_is_written(self):
        self.make_files(*EARLIER)
        server_log_config.flush_log()
        self.assertEqual(self.files(), EARLIER)

    def test_file_or_folder_that_is_deleted_or_renamed_is_made_again(self):
        old = self.folder / "old"
        for spoil in (self.file.unlink, lambda: self.file.rename(old), lambda: shutil.rmtree(self.folder)):
            self.log("before")
            spoil()
            self.log("after")
            self.assertEqual(self.logged(self.file.name), ["DEBUG after"])
        self.assertEqual(self.shown(), [])

    def test_log_that_cannot_be_written_is_reported_once_a_day_and_stops_nothing(self):
        self.folder.write_bytes(b"")  # a file in the place of the folder
        self.log("lost", TODAY, TODAY, TOMORROW, TOMORROW)
        problem = re.compile(r"ERROR cannot write the log .*(server\..*), records are lost: ")
        files = [problem.match(line).group(1) for line in self.shown()]
        self.assertEqual(files, [f"server.{TODAY}.log", f"server.{TOMORROW}.log"])

    def test_line_whose_writing_ctrl_c_stops_is_written_by_the_next_flush(self):
        with mock.patch("os.makedirs", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, self.log, "stopped here")
        self.log("next")
        self.assertEqual(self.logged(), ["DEBUG stopped here", "DEBUG next"])

    def test_log_that_can_be_written_again_begins_with_a_new_line(self):
        self.file.mkdir(parents=True)  # a folder in the place of the file
        self.log("lost")
        self.file.rmdir()
        self.log("after")
        self.assertRegex("\n".join(self.logged()), "^\nERROR cannot write the log .*\nDEBUG after$")

    def test_full_file_takes_only_errors_until_midnight(self):
        with mock.patch("os.path.getsize", return_value=100 * 1024 * 1024 - 1) as getsize:
            self.log("almost full")
            getsize.return_value += 1
            for level in (logging.DEBUG, logging.WARNING, logging.ERROR):
                self.log("text", level=level)
        lines = [f"ERROR the log {self.file} is full: until midnight it takes only errors", "ERROR text"]
        self.assertEqual(self.shown(), [lines[0], "WARNING text", lines[1]])
        self.assertEqual(self.logged(self.file.name), ["DEBUG almost full", "DEBUG text", *lines])
        self.log("text", TOMORROW)
        self.assertEqual(self.logged(f"server.{TOMORROW}.log"), ["DEBUG text"])

    def test_full_file_that_cannot_be_written_is_reported_too(self):
        with mock.patch.object(server_log_config, "MAX_FILE_BYTES", 1):
            self.log("text")
            self.file.unlink()
            self.file.mkdir()
            self.log("text", TODAY, TODAY, level=logging.ERROR)
        self.assertEqual([line.split()[1] for line in self.shown()], ["the", "text", "cannot", "text"])

    @unittest.skipIf(sys.platform in ("win32", "emscripten"), "no pipes with names there")
    def test_log_can_be_a_pipe(self):
        reader, writer = os.pipe()
        with open(reader, encoding="utf-8") as pipe:
            self.folder.mkdir()
            self.file.symlink_to(f"/dev/fd/{writer}")
            self.log("text")
            os.close(writer)
            self.assertEqual(without_times(pipe.read()), ["DEBUG text"])

    def test_slip_in_a_call_of_log_is_shown_and_stops_nothing(self):
        LOG.debug("connected: %d", "x")
        self.log("next")
        self.assertIn(f'File "{__file__}"', self.console.getvalue())
        self.assertEqual(self.logged(), ["DEBUG next"])


class ConfigureLog(LogCase):
    """configure_log, close_log: which records go where."""

    def log_at_all_levels(self):
        for level in server_log_config.LEVELS:
            LOG.log(getattr(logging, level), "text")
        server_log_config.close_log()

    def test_before_it_and_after_close_log_records_go_nowhere(self):
        self.log_at_all_levels()
        server_log_config.configure_log()
        server_log_config.close_log()
        self.log_at_all_levels()
        self.assertEqual(self.shown(), [])
        self.assertFalse(self.folder.exists())

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(level="DEBUG") as logs:
            logging.getLogger("another").warning("not ours")
            LOG.warning("ours")
        self.assertEqual(logs.output, ["WARNING:another:not ours"])

    def test_file_takes_all_levels_and_the_console_info_and_above(self):
        server_log_config.configure_log()
        server_log_config.configure_log()  # replaces the first
        self.log_at_all_levels()
        self.assertEqual(self.logged(), ["DEBUG text", "INFO text", "WARNING text", "ERROR text"])
        self.assertEqual(self.shown(), ["INFO text", "WARNING text", "ERROR text"])

    def test_verbose_console_shows_what_the_file_has(self):
        server_log_config.configure_log(verbose=True)
        self.log_at_all_levels()
        self.assertEqual(self.shown(), self.logged())


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


@needs_sockets
class Script(Case):
    """server.py as a user runs it, copied with its log module alone into an empty folder."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="jim-")), "alone")
        for module in (server, server_log_config):
            copy = self.folder / os.path.relpath(module.__file__, os.path.dirname(server.__file__))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module.__file__, copy)

    def start(self, *before, port=0):
        """Start the script in another current folder; return its process and the first line that it shows."""
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
        return process, process.stderr.readline()

    def connect(self, line):
        """Return the socket of a client that has sent a presence to the server that shows this line."""
        port = re.search(r" listening on 127\.0\.0\.1 port (\d+), ", line).group(1)
        sock = self.enter(socket.create_connection(("127.0.0.1", port), PATIENCE))
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
        self.assertEqual(process.wait(), 0)
        self.assertEqual(without_times(shown), ["INFO stopped"])

    def logged(self):
        """Return level and message of all lines in the log file."""
        (file,) = (self.folder / "log").glob("server.*.log")
        return without_times(file.read_text("utf-8"))

    def test_who_is_here_and_who_was_refused_is_shown_and_ctrl_c_twice_ends_it(self):
        (self.folder / "resource.py").write_text("a module of Python has this name, too")
        process, line = self.start()
        sock = self.connect(line)
        self.assertIn(b"200", sock.recv(10_000))
        self.assertEqual(without_times(process.stderr.readline()), ["INFO Guest is here"])
        sock.sendall(b"hello")
        self.assertIn(b"400", sock.recv(10_000))
        self.assertEqual(sock.recv(1), b"")
        self.assertIn("WARNING refused 127.0.0.1 port ", without_times(process.stderr.readline())[0])
        self.assert_stops(process, signal.SIGINT)
        verbs = [line.split()[1] for line in self.logged() if "DEBUG received" not in line]
        self.assertEqual(verbs[:6], ["listening", "connected:", "Guest", "sent", "refused", "sent"])
        self.assertEqual(verbs[-1], "stopped")

    @unittest.skipIf(os.name == "nt", "Windows has neither a limit of open files nor SIGTERM")
    def test_log_is_written_though_clients_take_all_open_files_and_sigterm_ends_it(self):
        process, line = self.start("sh", "-c", 'ulimit -n 40; exec "$0" "$@"')
        socks = [self.connect(line) for _ in range(45)]
        shown = [without_times(process.stderr.readline())[0] for _ in range(21)]
        error = "ERROR cannot accept a client, 20 are connected: there is no room for more"
        self.assertEqual(shown, ["INFO Guest is here"] * 20 + [error])
        socks[0].close()
        self.assertIn(b"200", socks[20].recv(10_000))  # the lines of earlier turns are written
        self.assertEqual(without_times(process.stderr.readline()), ["INFO Guest is here"])
        self.assertIn(error, self.logged())
        self.assert_stops(process, signal.SIGTERM)

    @unittest.skipIf(os.name == "nt", "only a process itself can press Ctrl+C there")
    def test_ctrl_c_works_in_an_interactive_python_that_goes_on(self):
        with mock.patch.object(sys.modules[__name__], "PYTHON", [sys.executable, "-i"]):
            process, _ = self.start()
        process.send_signal(signal.SIGINT)
        self.assertEqual(without_times(process.stderr.readline()), ["INFO stopped"])
        _, shown = process.communicate("import signal; signal.raise_signal(signal.SIGINT)")
        self.assertIn("KeyboardInterrupt", shown)

    def test_port_that_is_taken_is_one_line_and_exit_code_1(self):
        listener = self.enter(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        process, line = self.start(port=port)
        self.assertIn(f" ERROR server port {port} is taken: ", line)
        self.assertEqual(process.stderr.read(), "")
        self.assertEqual(process.wait(), 1)

    def test_usage_error_touches_no_file(self):
        process, _ = self.start(port=65536)
        self.assertIn("a port is a number from 0 to 65535, not 65536", process.stderr.read())
        self.assertEqual(list(self.folder.rglob("*.log")), [])


if __name__ == "__main__":
    unittest.main()
