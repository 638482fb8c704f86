"""Tests of server.py and server_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_server              all of them
    python -m unittest -v test_server           the same, with their names: what the server does

A test states one fact and is named for it. None sleeps, and none leaves a file behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import selectors
import shutil
import signal
import socket
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
SWEEP_INTERVAL = server.SWEEP_INTERVAL
LINGER_TIMEOUT = server.LINGER_TIMEOUT
PATIENCE = 10.0  # seconds that a test waits before it fails, and only then
PRESENCE = {"action": "presence", "time": 1.5, "user": {"account_name": "Guest"}}
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) server (.*)")


def presence(**changes):
    """Return a presence with some fields changed; those set to None are left out."""
    message = {**PRESENCE, **changes}
    return {name: value for name, value in message.items() if value is not None}


def of_user(**fields):
    """Return a presence of a user with these fields."""
    return presence(user=fields)


def in_bytes(message):
    """Return a message as it goes over the wire."""
    return json.dumps(message, ensure_ascii=False).encode("utf-8")


def in_objects(data):
    """Return the messages that stand one after another in `data`."""
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
    """A clock that goes only when it is told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class ProcessClientMessage(unittest.TestCase):
    """process_client_message: what a message is answered with."""

    def assert_refused(self, message, error):
        with mock.patch("server.time", Clock(NOW)):
            response = server.process_client_message(message)
        self.assertEqual(response, {"response": 400, "time": NOW, "error": error})

    def test_presence_is_answered_with_200(self):
        with mock.patch("server.time", Clock(NOW)):
            response = server.process_client_message(PRESENCE)
        self.assertEqual(response, {"response": 200, "time": NOW, "alert": "OK"})

    def test_good_presences(self):
        user = {"account_name": "Guest"}
        for message in (
            presence(type="status", user={**user, "status": "Yep, I am here!"}),
            presence(type="", user={**user, "status": ""}),
            presence(time=0),
            presence(time=-1),
            presence(time=1732267890),
            presence(time=sys.float_info.max),
            presence(time=int(sys.float_info.max)),
            of_user(account_name="x"),
            of_user(account_name="Ж" * 25),
            of_user(account_name="\n\x1b[2J\x00\u2028\ud800"),
            presence(room="a field that JIM does not know"),
            presence(user={**user, "password": None}),
        ):
            with self.subTest(message=message):
                self.assertEqual(server.process_client_message(message)["response"], 200)

    def test_missing_fields(self):
        for message, error in (
            ({}, "'action' is missing"),
            (presence(action=None), "'action' is missing"),
            (presence(time=None), "'time' is missing"),
            (presence(user=None), "'user' is missing"),
            (of_user(), "'account_name' is missing"),
            (of_user(status="here"), "'account_name' is missing"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, error)

    def test_fields_of_a_wrong_type(self):
        types = {
            "null": None,
            "a boolean": True,
            "a number": 5,
            "a string": "5",
            "an array": [5],
            "an object": {"a": 5},
        }
        for wanted, fields in {
            "a string": ("action", "type", "account_name", "status"),
            "a number": ("time",),
            "an object": ("user",),
        }.items():
            for name in fields:
                for found, value in types.items():
                    if found == wanted:
                        continue
                    message = {**PRESENCE, "user": {"account_name": "Guest"}}
                    (message["user"] if name in ("account_name", "status") else message)[name] = value
                    with self.subTest(name=name, value=value):
                        self.assert_refused(message, f"'{name}' has to be {wanted}, not {found}")

    def test_false_is_no_time(self):
        self.assert_refused(presence(time=False), "'time' has to be a number, not a boolean")

    def test_fractional_action_is_named_a_number(self):
        self.assert_refused(presence(action=1.5), "'action' has to be a string, not a number")

    def test_texts_of_a_wrong_length(self):
        for message, error in (
            (presence(action=""), "'action' has to have 1 to 15 characters, not 0"),
            (presence(action="a" * 16), "'action' has to have 1 to 15 characters, not 16"),
            (of_user(account_name=""), "'account_name' has to have 1 to 25 characters, not 0"),
            (of_user(account_name="a" * 26), "'account_name' has to have 1 to 25 characters, not 26"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, error)

    def test_times_without_end(self):
        for value in (float("inf"), float("-inf"), float("nan"), 10**400, -(10**400)):
            with self.subTest(value=value):
                self.assert_refused(presence(time=value), "'time' is too large a number")

    def test_other_actions_are_named(self):
        for action in ("quit", "msg", "authenticate", "Presence", "presence ", "п" * 15):
            with self.subTest(action=action):
                self.assert_refused(
                    presence(action=action), f"the action '{action}' is not served here, only 'presence' is"
                )

    def test_action_is_named_in_printable_characters(self):
        error = server.process_client_message({"action": "\n\x1b\u202e\ud800"})["error"]
        self.assertEqual(error, r"the action '\n\x1b\u202e\ud800' is not served here, only 'presence' is")

    def test_what_is_no_object_is_refused(self):
        for message, found in (
            ([], "an array"),
            (None, "null"),
            ("presence", "a string"),
            (b"", "something else"),
        ):
            with self.subTest(message=message):
                self.assert_refused(message, f"'message' has to be an object, not {found}")

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            server.process_client_message(PRESENCE)
        self.assertEqual(logs.output, ["DEBUG:server:processed a message, response 200"])


class CreateError(unittest.TestCase):
    """create_error: the response that something went wrong."""

    def test_holds_code_time_and_text(self):
        with mock.patch("server.time", Clock(NOW)):
            self.assertEqual(server.create_error(500, "why"), {"response": 500, "time": NOW, "error": "why"})


class TakeMessage(unittest.TestCase):
    """take_message: where a message ends, and what can be none."""

    def assert_no_message(self, text, reason):
        with self.assertRaises(ProtocolError) as caught:
            server.take_message(text)
        self.assertEqual(str(caught.exception), reason)

    def test_whole_message_is_returned_with_its_length(self):
        self.assertEqual(server.take_message('{"a": 1}'), ({"a": 1}, 8))

    def test_what_follows_is_left(self):
        for more in ('{"b": 2}', "]", "\n", "\udcff"):
            with self.subTest(more=more):
                self.assertEqual(server.take_message('{"a": 1}' + more), ({"a": 1}, 8))

    def test_every_beginning_is_waited_for(self):
        text = (
            '{ "s": "q\\"\\\\\\/\\b\\u00e9\\uD83D\\ude00 я", "n": [-0.5e-7, 0, -12, 1E+2, [], {}],\r\n'
            '\t"w" : [true , false, null], "o": {"" : {"x": [ ]}} }'
        )
        for end in range(len(text)):
            with self.subTest(text=text[:end]):
                self.assertEqual(server.take_message(text[:end]), (None, 0))
        self.assertEqual(server.take_message(text)[1], len(text))

    def test_what_can_be_no_object_is_refused_at_once(self):
        for text in (
            "hello",
            "[",
            "[]",
            "4",
            "42",
            '"a',
            "null",
            "nul",
            "\ufeff{",
            "\x00",
            "\x16\x03",
            "}",
            "'",
        ):
            with self.subTest(text=text), self.assertRaises(ProtocolError) as caught:
                server.take_message(text)
            self.assertRegex(str(caught.exception), "^a message is a JSON object")

    def test_faults_inside_an_object_are_refused_at_once(self):
        for text in (
            "{]", "{,", "{1", "{'a", '{"a"}', '{"a" 1', '{"a",', "{t", '{"a" t', '{"\\x',
            '{"a": }', '{"a": ,', '{"a": 1,}', '{"a": [1,]', '{"a": [1}', '{"a": {]', '{"a": [1 2',
            '{"a": 01', '{"a": +1', '{"a": .5', '{"a": 1.x', '{"a": 1. ', '{"a": 1.5.', '{"a": 1e5e',
            '{"a": 1e+-', '{"a": -x', '{"a": - ', '{"a": --', '{"a": 0x', '{"a": 1t',
            '{"a": tr ', '{"a": trux', '{"a": True', '{"a": Na', '{"a": I',
            '{"a": "x"t', '{"a": "x".', '{"a": "b" "', '{"a": "\n', '{"a": "\t', '{"a": "\x00',
            '{"a": "\\x', '{"a": "\\u12x', '{"a": "\\u12 ',
        ):  # fmt: skip
            with self.subTest(text=text), self.assertRaises(ProtocolError) as caught:
                server.take_message(text)
            self.assertRegex(str(caught.exception), r"^not JSON: .+ at character \d+$")

    def test_reason_names_the_place(self):
        self.assert_no_message('{"a" 1', "not JSON: Expecting ':' delimiter at character 6")

    def test_reason_names_what_it_starts_with(self):
        self.assert_no_message("GET /", "a message is a JSON object and cannot start with 'G'")

    def test_reason_is_short_however_long_the_text_is(self):
        for text in ("42", "[" + "1, " * 200 + "1]"):
            with self.subTest(text=text):
                self.assert_no_message(text, f"a message is a JSON object and cannot start with '{text[0]}'")

    def test_constants_that_json_has_not_are_refused(self):
        for name in ("NaN", "Infinity", "-Infinity"):
            with self.subTest(name=name):
                self.assert_no_message('{"a": [' + name, f"not JSON: {name} is no number")

    def test_message_of_640_characters_is_taken(self):
        text = '{"a": "' + "я" * 631 + '"}'
        self.assertEqual(server.take_message(text), ({"a": "я" * 631}, 640))

    def test_message_of_641_characters_is_refused(self):
        self.assert_no_message('{"a": "' + "я" * 632 + '"}', "the message is longer than 640 characters")

    def test_639_characters_without_an_end_are_waited_for(self):
        self.assertEqual(server.take_message('{"a": "' + "я" * 632), (None, 0))

    def test_640_characters_without_an_end_are_refused(self):
        self.assert_no_message('{"a": "' + "я" * 633, "the message is longer than 640 characters")

    def test_fault_is_told_before_the_length(self):
        self.assert_no_message('{"a" 1' + "x" * 1000, "not JSON: Expecting ':' delimiter at character 6")

    def test_deep_nesting_is_no_trouble(self):
        for text in ('{"a":' * 100_000, '{"a": ' + "[" * 100_000):
            with self.subTest(text=text[:10]):
                self.assert_no_message(text, "the message is longer than 640 characters")

    def test_nesting_too_deep_for_the_parser_is_refused(self):
        decoder = json.JSONDecoder()
        decoder.scan_once = json.scanner.py_make_scanner(decoder)  # it alone is deep on every Python
        with mock.patch("server.DECODER", decoder):
            self.assert_no_message('{"a":' + "[" * 600, "the message is nested too deep")

    def test_bytes_that_are_not_utf8_are_refused(self):
        for text in ("\udcff", '{"a": "\udcff', '{"a": "\udcff"}', "{\udcff"):
            with self.subTest(text=text):
                self.assert_no_message(text, "the message is not UTF-8")

    def test_escaped_lone_surrogate_is_taken(self):
        self.assertEqual(server.take_message('{"a": "\\ud800"}'), ({"a": "\ud800"}, 15))

    def test_last_of_two_equal_keys_counts(self):
        self.assertEqual(server.take_message('{"a": 1, "a": 2}'), ({"a": 2}, 16))


class CheckCut(unittest.TestCase):
    """check_cut: whether a message can go on with a character that is not whole."""

    def test_character_in_a_string_is_waited_for(self):
        for cut in (b"\xd0", b"\xe0\xa0", b"\xed", b"\xed\x9f", b"\xee", b"\xee\x80", b"\xf0\x9f\x98"):
            with self.subTest(cut=cut):
                server.check_cut('{"a": "я', cut)

    def test_surrogate_is_refused(self):
        for cut in (b"\xed\xa0", b"\xed\xb0", b"\xed\xbf"):
            with self.subTest(cut=cut), self.assertRaisesRegex(ProtocolError, "^the message is not UTF-8$"):
                server.check_cut('{"a": "я', cut)

    def test_character_outside_of_strings_is_refused(self):
        for text in ("", "{", '{"a": ', '{"a": "b"', '{"a": 1'):
            with self.subTest(text=text), self.assertRaises(ProtocolError):
                server.check_cut(text, b"\xd0")

    def test_character_that_makes_the_message_too_long_is_refused(self):
        text = '{"a": "' + "я" * 632
        with self.assertRaisesRegex(ProtocolError, "^the message is longer than 640 characters$"):
            server.check_cut(text, b"\xd0")


class IsUnfinished(unittest.TestCase):
    """is_unfinished: whether nothing but its end is missing."""

    def test_whole_object_is_not_unfinished(self):
        self.assertIs(server.is_unfinished("{}"), False)

    def test_beginning_is_unfinished(self):
        self.assertTrue(server.is_unfinished('{"a": '))

    def test_fault_is_not_unfinished(self):
        self.assertFalse(server.is_unfinished('{"a": }'))


class MendEnd(unittest.TestCase):
    """mend_end: what the end of a text has cut in two is made whole."""

    def test_mended_ends(self):
        for text, mended in (
            ('{"a', '{"a"'),
            ('{"a": "b\\', '{"a": "b"'),
            ('{"a": "b\\\\', '{"a": "b\\\\"'),
            ('{"a": "b\\u12', '{"a": "b"'),
            ('{"a": "b\\u1234', '{"a": "b\\u1234"'),
            ('{"a": "tru', '{"a": "tru"'),
            ('{"a": tru', '{"a": 0'),
            ('{"a": -', '{"a": 0'),
            ('{"a": -1.5e+', '{"a": 0'),
            ('{"a": 12.', '{"a": 0'),
        ):
            with self.subTest(text=text):
                self.assertEqual(server.mend_end(text), mended)

    def test_ends_that_need_no_mending(self):
        for text in ("{", '{"a"', '{"a": 12', '{"a": 1t', '{"a": tru ', '{"a": [1, '):
            with self.subTest(text=text):
                self.assertEqual(server.mend_end(text), text)


class ClientTest(unittest.TestCase):
    """Client: one connection."""

    def setUp(self):
        self.sock, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(self.sock.close)

    def test_shows_address_and_port(self):
        for address, shown in (
            (("127.0.0.1", 5000), "127.0.0.1 port 5000"),
            (("::1", 5000, 0, 0), "::1 port 5000"),
            (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7 port 5000"),
        ):
            with self.subTest(address=address):
                self.assertEqual(str(Client(self.sock, address)), shown)

    def test_takes_little_memory(self):
        self.assertFalse(hasattr(Client(self.sock, ("127.0.0.1", 5000)), "__dict__"))

    def test_never_waits(self):
        Client(self.sock, ("127.0.0.1", 5000))
        self.assertEqual(self.sock.gettimeout(), 0)

    def test_has_60_seconds_for_its_first_message(self):
        with mock.patch("server.monotonic", Clock(1000.0)):
            self.assertEqual(Client(self.sock, ("127.0.0.1", 5000)).deadline, 1060.0)


class WireCase(unittest.TestCase):
    """What the tests of the wire share: a client, and its peer who sends and receives."""

    def setUp(self):
        self.connect_anew()

    def connect_anew(self):
        sock, self.peer = socket.socketpair()
        self.client = Client(sock, ("127.0.0.1", 5000))
        self.addCleanup(self.peer.close)
        self.addCleanup(sock.close)
        self.peer.settimeout(PATIENCE)

    def receive(self):
        return list(server.receive_messages(self.client))


class ReceiveMessages(WireCase):
    """receive_messages: bytes in, whole messages out."""

    def test_one_message(self):
        self.peer.sendall(b'{"a": 1}')
        self.assertEqual(self.receive(), [{"a": 1}])

    def test_several_messages_in_one_piece(self):
        self.peer.sendall(b' {"a": 1}{"a": 2}\r\n\t{"a": 3}\n')
        self.assertEqual(self.receive(), [{"a": 1}, {"a": 2}, {"a": 3}])

    def test_message_split_at_every_byte(self):
        data = b' \n{"\xd0\x96": "\\u00e9\xf0\x9f\x98\x80"} '
        for end in range(len(data)):
            with self.subTest(data=data[:end]):
                self.peer.sendall(data[:end])
                messages = self.receive() if end else []
                self.peer.sendall(data[end:])
                self.assertEqual(messages + self.receive(), [{"Ж": "é😀"}])

    def test_message_byte_by_byte(self):
        messages = []
        for byte in '{"a": "Жанна"}{"b": [1, 2]} '.encode():
            self.peer.sendall(bytes([byte]))
            messages += self.receive()
        self.assertEqual(messages, [{"a": "Жанна"}, {"b": [1, 2]}])

    def test_piece_is_no_more_than_400_bytes(self):
        self.peer.sendall(b'{"a":1}' * 100)
        self.assertEqual(self.receive(), [{"a": 1}] * 57)

    def test_nothing_there_is_no_message(self):
        self.assertEqual(self.receive(), [])

    def test_end_after_a_message(self):
        self.peer.sendall(b'{"a": 1}\n')
        self.peer.close()
        self.assertEqual(self.receive(), [{"a": 1}])
        with self.assertRaises(EOFError):
            self.receive()

    def test_end_inside_a_message(self):
        for data in (b'{"a": 1', b'{"a": "\xd0'):
            with self.subTest(data=data):
                self.connect_anew()
                self.peer.sendall(data)
                self.peer.shutdown(socket.SHUT_WR)
                self.assertEqual(self.receive(), [])
                with self.assertRaises(ProtocolError):
                    self.receive()

    def test_end_inside_a_message_has_a_reason(self):
        self.peer.sendall(b"{")
        self.peer.close()
        self.receive()
        with self.assertRaisesRegex(ProtocolError, "^the message is cut short$"):
            self.receive()

    def test_messages_before_a_fault_are_received(self):
        for fault in (b"hello", b"X", b"\xff", b'{"a": \xff', b"{]"):
            with self.subTest(fault=fault):
                self.connect_anew()
                self.peer.sendall(b'{"a": 1}{"a": 2}' + fault)
                messages = server.receive_messages(self.client)
                self.assertEqual([next(messages), next(messages)], [{"a": 1}, {"a": 2}])
                with self.assertRaises(ProtocolError):
                    next(messages)

    def test_bytes_that_are_not_utf8_are_refused_at_once_however_split(self):
        for data in (b"\xff", b"\xc0", b"\xed\xa0", b"\xed\xbf", b"\xf5", b"\xd0(", b"\xf0\x9f\x98("):
            with self.subTest(data=data):
                self.connect_anew()
                self.peer.sendall(b'{"a": "')
                self.receive()
                with self.assertRaisesRegex(ProtocolError, "^the message is not UTF-8$"):
                    for byte in data:
                        self.peer.sendall(bytes([byte]))
                        self.receive()

    def test_beginning_of_a_character_that_no_message_has_there_is_refused_at_once(self):
        for data in (b"\xef", b"\xef\xbb", b"{\xd0", b'{"a": \xf0\x9f', b"{}\xc2"):
            with self.subTest(data=data):
                self.connect_anew()
                self.peer.sendall(data)
                with self.assertRaises(ProtocolError):
                    self.receive()

    def test_each_message_gives_60_seconds_more(self):
        with mock.patch("server.monotonic", Clock(2000.0)):
            self.peer.sendall(b'{"a": 1}')
            self.receive()
        self.assertEqual(self.client.deadline, 2060.0)

    def test_half_a_message_gives_no_time(self):
        before = self.client.deadline
        with mock.patch("server.monotonic", Clock(before)):
            self.peer.sendall(b'{"a": ')
            self.receive()
        self.assertEqual(self.client.deadline, before)

    def test_leaves_a_trace(self):
        self.peer.sendall(b'{"a": 1}{"b')
        with self.assertLogs(LOG, "DEBUG") as logs:
            self.receive()
        self.assertEqual(logs.output, ['DEBUG:server:received from 127.0.0.1 port 5000: {"a": 1}'])


class SendMessage(WireCase):
    """send_message: one message out."""

    def sent(self, message):
        server.send_message(self.client.sock, message)
        return self.peer.recv(10_000)

    def test_sends_json(self):
        self.assertEqual(self.sent({"response": 200, "time": 1.5}), b'{"response": 200, "time": 1.5}')

    def test_letters_go_as_they_are(self):
        self.assertEqual(self.sent({"error": "Жанна"}), '{"error": "Жанна"}'.encode())

    def test_lone_surrogate_goes_as_an_escape(self):
        self.assertEqual(self.sent({"error": "\ud800"}), b'{"error": "\\ud800"}')

    def test_sends_all_or_fails(self):
        with self.assertRaises(BlockingIOError):
            server.send_message(self.client.sock, {"error": "x" * 10_000_000})

    def test_peer_who_does_not_read_is_not_waited_for(self):
        with self.assertRaises(BlockingIOError):
            for _ in range(100_000):
                server.send_message(self.client.sock, {"error": "x" * 600})

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            server.send_message(self.client.sock, {"a": 1}, self.client)
            server.send_message(self.client.sock, {"a": 2})
        self.assertEqual(
            logs.output,
            [
                'DEBUG:server:sent to 127.0.0.1 port 5000: {"a": 1}',
                'DEBUG:server:sent to the client: {"a": 2}',
            ],
        )


class AnswerMessages(WireCase):
    """answer_messages: each message that has arrived gets its response."""

    def test_answers_in_order(self):
        self.peer.sendall(in_bytes(PRESENCE) * 2 + b'{"a": 1}' + in_bytes(PRESENCE))
        server.answer_messages(self.client)
        server.answer_messages(self.client)
        self.assertEqual(codes(self.peer.recv(10_000)), [200, 200, 400, 200])

    def test_wrong_message_is_a_warning(self):
        self.peer.sendall(in_bytes(PRESENCE) + b"{}")
        with self.assertLogs(LOG, "WARNING") as logs:
            server.answer_messages(self.client)
        warning = "WARNING:server:a wrong message from 127.0.0.1 port 5000: 'action' is missing"
        self.assertEqual(logs.output, [warning])


class ServerCase(unittest.TestCase):
    """What the tests of the server share: a server that takes its turns when the test says so."""

    def setUp(self):
        for name, seconds in (("SWEEP_INTERVAL", 0.01), ("LINGER_TIMEOUT", 2 * PATIENCE)):
            patch = mock.patch.object(server, name, seconds)  # short turns, and no help from the sweep
            patch.start()
            self.addCleanup(patch.stop)
        self.listener = server.open_listener("127.0.0.1", 0)
        self.addCleanup(self.listener.close)
        self.start()

    def start(self):
        self.server = Server(self.listener)
        self.addCleanup(self.server.close)

    def connect(self, *data):
        """Return a client's socket, which has sent `data`."""
        sock = socket.create_connection(self.listener.getsockname(), PATIENCE)
        self.addCleanup(sock.close)
        for piece in data:
            sock.sendall(piece)
        sock.setblocking(False)
        return sock

    def turns_until(self, done):
        """Let the server take turns until `done()`; fail if that does not come."""
        end = time.monotonic() + PATIENCE
        while not done():
            self.assertLess(time.monotonic(), end, "the server did not do what it was waited for")
            self.server.serve_once()

    def accepted(self, number=1):
        """Let the server accept that many clients in all; return them."""
        self.turns_until(lambda: len(self.server.clients) == number)
        return list(self.server.clients)

    def received(self, sock, number=1):
        """Return the codes of the next responses."""
        data = b""

        def done():
            nonlocal data
            with contextlib.suppress(BlockingIOError):
                data += sock.recv(10_000)
            return data.count(b"}") >= number

        self.turns_until(done)
        return codes(data)

    def received_to_the_end(self, sock):
        """Return all data until the server closes the connection."""
        pieces = []

        def done():
            with contextlib.suppress(BlockingIOError):
                while pieces[-1:] != [b""]:
                    pieces.append(sock.recv(10_000))
            return pieces[-1:] == [b""]

        self.turns_until(done)
        return b"".join(pieces)


class Conversation(ServerCase):
    """Server: good clients, one or many, and those who only seem bad."""

    def test_presence_is_answered(self):
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_connection_carries_many_messages(self):
        sock = self.connect()
        for message, code in ((PRESENCE, 200), ({"action": "quit"}, 400), (PRESENCE, 200)):
            sock.sendall(in_bytes(message))
            self.assertEqual(self.received(sock), [code])

    def test_responses_do_not_wait_for_each_other(self):
        self.connect()
        (client,) = self.accepted()
        self.assertTrue(client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_turn_ends_with_a_wrong_message(self):
        good, wrong = in_bytes(PRESENCE), b"{}"
        sock = self.connect(good + good + wrong + wrong + good)
        for answers in ([200, 200, 400], [400], [200]):
            self.server.serve_once()
            self.assertEqual(codes(sock.recv(10_000)), answers)

    def test_rest_of_a_client_does_not_wait_for_an_event(self):
        sock = self.connect(b"{}" * 9)
        before = time.monotonic()
        with mock.patch("server.SWEEP_INTERVAL", 1.0):
            for _ in range(9):
                self.server.serve_once()
        self.assertLess(time.monotonic() - before, 0.9)
        self.assertEqual(codes(sock.recv(10_000)), [400] * 9)

    def test_client_with_much_to_say_keeps_its_order(self):
        sock = self.connect((in_bytes(PRESENCE) + b"{}") * 50)
        self.assertEqual(self.received(sock, 100), [200, 400] * 50)

    def test_client_with_much_to_say_may_leave(self):
        sock = self.connect(b"{}" * 100)
        self.server.serve_once()
        sock.close()
        self.turns_until(lambda: not self.server.clients)
        self.assertEqual(self.server.behind, set())

    def test_client_with_much_to_say_who_is_dropped_gets_no_further_turn(self):
        self.connect(b"{}" * 9)
        self.turns_until(lambda: self.server.behind)
        self.server.drop(*self.server.behind)
        self.assertEqual(self.server.behind, set())

    def test_half_closed_client_gets_every_answer(self):
        sock = self.connect(in_bytes(PRESENCE) * 5)
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(codes(self.received_to_the_end(sock)), [200] * 5)

    def test_many_clients_at_once(self):
        socks = [self.connect(in_bytes(PRESENCE)) for _ in range(50)]
        self.assertEqual([self.received(sock) for sock in socks], [[200]] * 50)

    def test_waiting_clients_are_accepted_several_in_a_turn(self):
        busy = [self.connect() for _ in range(3)]
        self.accepted(3)
        for sock in busy:
            sock.sendall(b"{}")
        for _ in range(10):
            self.connect()
        self.server.serve_once()
        self.assertEqual(len(self.server.clients), 3 + 4)

    def test_silent_clients_keep_nobody_waiting(self):
        for _ in range(50):
            self.connect(b'{"action": "pres')
        self.accepted(50)
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_client_who_leaves_is_forgotten(self):
        sock = self.connect(in_bytes(PRESENCE))
        self.received(sock)
        sock.close()
        self.turns_until(lambda: not self.server.clients)
        self.assertEqual(list(self.server.selector.get_map()), [self.listener.fileno()])

    def test_client_who_leaves_is_no_event_for_the_log(self):
        with self.assertLogs(LOG, "INFO") as logs:
            LOG.info("nothing but this")
            self.connect(in_bytes(PRESENCE)).close()
            self.accepted()
            self.turns_until(lambda: not self.server.clients)
        self.assertEqual(logs.output, ["INFO:server:nothing but this"])

    def test_client_who_resets_has_left_as_well(self):
        sock = self.connect()
        self.accepted()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        with self.assertLogs(LOG, "INFO") as logs:
            LOG.info("nothing but this")
            sock.close()
            self.turns_until(lambda: not self.server.clients)
        self.assertEqual(logs.output, ["INFO:server:nothing but this"])

    def test_is_answered_in_the_turn_that_accepts_it(self):
        sock = self.connect(in_bytes(PRESENCE))
        self.server.serve_once()
        self.assertEqual(codes(sock.recv(10_000)), [200])

    def test_log_is_written_before_the_server_waits(self):
        calls = mock.Mock()
        calls.select.return_value = []
        select = mock.patch.object(self.server.selector, "select", calls.select)
        with select, mock.patch("server.write_out", calls.write_out):
            self.server.serve_once()
        self.assertEqual(calls.method_calls, [mock.call.write_out(), mock.call.select(0.01)])

    def test_close_closes_all_connections(self):
        sock = self.connect()
        self.accepted()
        self.server.close()
        sock.settimeout(PATIENCE)
        self.assertEqual(sock.recv(1), b"")
        self.assertIsNone(self.server.selector.get_map())


class Refusal(ServerCase):
    """Server: clients who do not speak JIM."""

    def refused(self, *data):
        """Return all that a client is answered, and what the log says of it from WARNING on."""
        with self.assertLogs(LOG, "WARNING") as logs:
            sock = self.connect(*data)
            answer = self.received_to_the_end(sock)
            port = sock.getsockname()[1]
            sock.close()
            self.turns_until(lambda: not self.server.clients)
        return in_objects(answer), [line.replace(f" port {port}", "") for line in logs.output]

    def test_gets_400_with_the_reason_and_the_end(self):
        answers, _ = self.refused(b"hello")
        self.assertEqual(
            [(answer["response"], answer["error"]) for answer in answers],
            [(400, "a message is a JSON object and cannot start with 'h'")],
        )

    def test_is_one_warning(self):
        _, warnings = self.refused(b"hello")
        self.assertEqual(
            warnings,
            ["WARNING:server:refused 127.0.0.1: a message is a JSON object and cannot start with 'h'"],
        )

    def test_leaves_a_trace_of_what_was_sent(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            self.received_to_the_end(self.connect(b"hello" + b"!" * 1000))
        self.assertRegex(logs.output[0], r"^DEBUG:server:received from 127.0.0.1 port \d+: hello!{395}$")

    def test_comes_after_the_answers_to_good_messages(self):
        answers, _ = self.refused(in_bytes(PRESENCE) + b"{}" + b"hello")
        self.assertEqual([answer["response"] for answer in answers], [200, 400, 400])

    def test_of_what_the_end_of_the_stream_cuts_short(self):
        sock = self.connect(b'{"action": "presence"')
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(in_objects(self.received_to_the_end(sock))[0]["error"], "the message is cut short")

    def test_is_not_lost_to_what_the_client_had_still_sent(self):
        answers, _ = self.refused(b"hello" * 100_000)
        self.assertEqual([answer["response"] for answer in answers], [400])

    def test_is_all_the_client_hears(self):
        sock = self.connect(b"hello")
        self.accepted()
        sock.sendall(in_bytes(PRESENCE))
        self.assertEqual(codes(self.received_to_the_end(sock)), [400])

    def test_ends_two_seconds_later_if_the_client_does_not_leave(self):
        clock = Clock()
        with mock.patch("server.monotonic", clock), mock.patch("server.LINGER_TIMEOUT", LINGER_TIMEOUT):
            self.start()
            sock = self.connect(b"hello")
            self.received_to_the_end(sock)
            for now, left in ((1001.9, 1), (1002.0, 0)):
                clock.now = now
                self.server.sweep()
                self.assertEqual(len(self.server.clients), left)

    def test_ends_without_a_second_warning(self):
        clock = Clock()
        with mock.patch("server.monotonic", clock), self.assertLogs(LOG, "WARNING") as logs:
            self.start()
            self.received_to_the_end(self.connect(b"hello"))
            clock.now += 100.0
            self.server.sweep()
        self.assertEqual(len(logs.output), 1)

    def test_ends_when_more_than_a_mebibyte_is_still_sent(self):
        sock = self.connect(b"hello")
        (client,) = self.accepted()
        self.assertEqual(client.linger_bytes, 1024 * 1024)
        client.linger_bytes = 8
        sock.sendall(b"12345678")
        self.server.serve_once()
        self.assertEqual(self.server.clients, {client})
        sock.sendall(b"9")
        self.turns_until(lambda: not self.server.clients)


class Trouble(ServerCase):
    """Server: what fails costs one client, not the others."""

    def test_unforeseen_failure_is_answered_with_500(self):
        with self.assertLogs(LOG, "ERROR"), mock.patch(
            "server.check_presence", side_effect=ZeroDivisionError
        ):
            answer = self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        (response,) = in_objects(answer)
        self.assertEqual(response["response"], 500)
        self.assertEqual(response["error"], "the server failed, which is not your fault")

    def test_unforeseen_failure_is_logged_with_its_place(self):
        with self.assertLogs(LOG, "ERROR") as logs, mock.patch(
            "server.check_presence", side_effect=ZeroDivisionError
        ):
            self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        self.assertEqual(len(logs.records), 1)
        self.assertRegex(
            logs.output[0], r"(?s)failed to serve 127.0.0.1 port \d+.*in process_client_message.*ZeroDivision"
        )

    def test_unforeseen_failure_costs_nobody_else(self):
        other = self.connect()
        self.accepted()
        with self.assertLogs(LOG, "ERROR"), mock.patch(
            "server.check_presence", side_effect=ZeroDivisionError
        ):
            self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
        other.sendall(in_bytes(PRESENCE))
        self.assertEqual(self.received(other), [200])

    def test_unforeseen_failure_of_any_kind_is_ours(self):
        for failure in (OSError, EOFError, BlockingIOError, ConnectionResetError, ValueError, KeyError):
            with self.subTest(failure=failure), self.assertLogs(LOG, "ERROR"):
                with mock.patch("server.check_presence", side_effect=failure):
                    answer = self.received_to_the_end(self.connect(in_bytes(PRESENCE)))
                self.assertEqual(codes(answer), [500])

    def test_failing_network_drops_the_client_with_a_warning(self):
        self.connect()
        (client,) = self.accepted()
        client.sock.close()
        with self.assertLogs(LOG, "WARNING") as logs:
            self.server.serve_client(client)
        self.assertEqual(self.server.clients, set())
        self.assertRegex(logs.output[0], r"^WARNING:server:lost 127.0.0.1 port \d+: .*Bad file descriptor$")

    def test_client_who_does_not_read_is_dropped_with_a_warning(self):
        sock = self.connect()
        (client,) = self.accepted()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with self.assertLogs(LOG, "WARNING") as logs:
            while self.server.clients:
                with contextlib.suppress(OSError):
                    sock.send(in_bytes(PRESENCE) * 100)
                self.server.serve_once()
        self.assertRegex(
            logs.output[0], r"^WARNING:server:dropped .* port \d+: it does not read its responses$"
        )

    def test_refused_client_who_is_gone_is_dropped(self):
        self.connect()
        (client,) = self.accepted()
        client.sock.shutdown(socket.SHUT_RDWR)
        self.server.dismiss(client, {"response": 400})
        self.assertEqual(self.server.clients, set())

    def test_refused_client_who_resets_is_dropped(self):
        sock = self.connect(b"hello")
        self.accepted()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()
        self.turns_until(lambda: not self.server.clients)

    def test_client_who_resets_before_it_is_accepted_is_no_trouble(self):
        sock = self.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_client_who_gives_up_while_it_is_accepted_is_no_trouble(self):
        self.server.listener = mock.Mock(accept=mock.Mock(side_effect=ConnectionAbortedError))
        self.server.accept_clients(1)
        self.assertTrue(self.server.accepting)

    def test_nobody_to_accept_is_no_trouble(self):
        self.server.accept_clients(1)
        self.assertTrue(self.server.accepting)


class Deadline(ServerCase):
    """Server: how long a client may take for a message."""

    def setUp(self):
        self.clock = Clock()
        patch = mock.patch("server.monotonic", self.clock)
        patch.start()
        self.addCleanup(patch.stop)
        super().setUp()

    def sweep_at(self, now):
        self.clock.now = now
        self.server.sweep()
        return len(self.server.clients)

    def test_silent_client_is_dropped_after_60_seconds(self):
        sock = self.connect()
        self.accepted()
        self.assertEqual(self.sweep_at(1059.9), 1)
        with self.assertLogs(LOG, "WARNING") as logs:
            self.assertEqual(self.sweep_at(1060.0), 0)
        port = sock.getsockname()[1]
        warning = f"WARNING:server:dropped 127.0.0.1 port {port}: no whole message in 60 s"
        self.assertEqual(logs.output, [warning])
        self.assertEqual(sock.recv(1), b"")

    def test_message_that_only_the_server_is_late_for_is_answered(self):
        sock = self.connect()
        self.accepted()
        sock.sendall(in_bytes(PRESENCE))
        self.assertEqual(self.sweep_at(1100.0), 1)
        self.assertEqual(codes(sock.recv(10_000)), [200])

    def test_client_who_has_left_is_no_warning(self):
        sock = self.connect()
        self.accepted()
        sock.close()
        with self.assertLogs(LOG, "WARNING") as logs:
            LOG.warning("nothing but this")
            self.assertEqual(self.sweep_at(1100.0), 0)
        self.assertEqual(len(logs.output), 1)

    def test_dripping_does_not_help(self):
        sock = self.connect(b"{")
        self.accepted()
        for now in (1020.0, 1040.0, 1059.0):
            self.clock.now = now
            sock.sendall(b" ")
            self.server.serve_once()
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.sweep_at(1060.0), 0)

    def test_whole_message_gives_60_seconds_more(self):
        sock = self.connect()
        self.accepted()
        self.clock.now = 1050.0
        sock.sendall(in_bytes(PRESENCE) + b"{")
        self.received(sock)
        self.assertEqual(self.sweep_at(1109.9), 1)
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.sweep_at(1110.0), 0)

    def test_is_looked_at_once_a_second(self):
        with mock.patch("server.SWEEP_INTERVAL", SWEEP_INTERVAL):
            self.start()
            for now, sweeps in ((1000.9, 0), (1001.0, 1), (1001.9, 0), (1002.0, 1)):
                self.connect().close()  # something to do, so that the turn is a short one
                self.clock.now = now
                with mock.patch.object(self.server, "sweep", wraps=self.server.sweep) as sweep:
                    self.server.serve_once()
                with self.subTest(now=now):
                    self.assertEqual(sweep.call_count, sweeps)


class FullSelector(selectors.SelectSelector):
    """A selector that takes no more than so many sockets, as some platforms' do."""

    room = 1

    def register(self, fileobj, events, data=None):
        if len(self.get_map()) >= self.room:
            raise ValueError("too many sockets")
        return super().register(fileobj, events, data)


class Room(ServerCase):
    """Server: more clients than there is room for."""

    def fill(self, selector=selectors.SelectSelector, sockets=512):
        """Start anew with a selector of another kind, as if it took so many sockets."""
        patches = (
            mock.patch("server.SELECT_SOCKETS", sockets),
            mock.patch("selectors.DefaultSelector", selector),
        )
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        self.start()

    @unittest.skipIf(os.name == "nt", "Windows sets no such limit")
    def test_without_descriptors_it_serves_those_it_has_and_accepts_again(self):
        import resource

        first, second = self.connect(in_bytes(PRESENCE)), self.connect(in_bytes(PRESENCE))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with self.assertLogs(LOG, "WARNING"):
                self.assertEqual(self.received(first), [200])
                self.turns_until(lambda: not self.server.accepting)
                first.sendall(in_bytes(PRESENCE))
                self.assertEqual(self.received(first), [200])
                first.close()
                self.assertEqual(self.received(second), [200])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_select_takes_512_sockets_with_the_listener(self):
        self.assertEqual(server.SELECT_SOCKETS, 512)
        self.fill(sockets=3)
        for _ in range(3):
            self.connect()
        with self.assertLogs(LOG, "WARNING") as logs:
            self.turns_until(lambda: not self.server.accepting)
        full = "full with 2 clients, others have to wait: [Errno 24] select takes no more than 3 sockets"
        self.assertEqual(logs.output, ["WARNING:server:" + full])

    def test_other_selectors_take_any_number(self):
        with mock.patch("server.SELECT_SOCKETS", 1):
            if isinstance(self.server.selector, selectors.SelectSelector):
                self.skipTest("this platform has but select")
            self.connect()
            self.accepted()

    def test_selector_that_takes_no_more_sockets_costs_the_newcomer(self):
        self.fill(FullSelector)
        sock = self.connect()
        with self.assertLogs(LOG, "WARNING"):
            self.assertEqual(self.received_to_the_end(sock), b"")
        self.assertEqual((self.server.accepting, self.server.clients), (False, set()))

    def test_full_server_does_not_spin(self):
        self.fill(sockets=2)
        for _ in range(2):
            self.connect()
        with self.assertLogs(LOG, "WARNING"):
            self.turns_until(lambda: not self.server.accepting)
        self.assertEqual(self.server.selector.select(0), [])

    def test_full_server_accepts_when_a_client_leaves(self):
        self.fill(sockets=2)
        first, second = self.connect(), self.connect(in_bytes(PRESENCE))
        with self.assertLogs(LOG, "WARNING"):
            self.turns_until(lambda: not self.server.accepting)
            self.server.next_sweep = float("inf")
            first.close()
            self.assertEqual(self.received(second), [200])

    def test_full_server_tries_again_with_every_sweep(self):
        self.server.stop_accepting(OSError())
        self.server.sweep()
        self.assertTrue(self.server.accepting)
        self.assertEqual(self.received(self.connect(in_bytes(PRESENCE))), [200])

    def test_listener_that_cannot_return_waits_for_the_next_sweep(self):
        self.fill(FullSelector)
        self.server.stop_accepting(OSError())
        self.server.selector.room = 0
        self.server.sweep()
        self.assertFalse(self.server.accepting)
        self.server.selector.room = 1
        self.server.sweep()
        self.assertTrue(self.server.accepting)

    def test_is_said_once_a_minute(self):
        clock = Clock()
        with mock.patch("server.monotonic", clock):
            self.start()
            for now, records in ((1000.0, 1), (1000.0, 0), (1059.9, 0), (1060.0, 1), (1061.0, 0)):
                clock.now = now
                with self.subTest(now=now), self.assertLogs(LOG, "WARNING") as logs:
                    LOG.warning("something, or assertLogs would complain")
                    self.server.stop_accepting(OSError("no more"))
                    self.server.start_accepting()
                self.assertEqual(len(logs.output) - 1, records)


class OpenListener(unittest.TestCase):
    """open_listener: where the server listens."""

    def listener(self, address, port=0):
        listener = server.open_listener(address, port)
        self.addCleanup(listener.close)
        return listener

    def reach(self, listener, address):
        socket.create_connection((address, listener.getsockname()[1]), PATIENCE).close()

    def test_on_one_address(self):
        listener = self.listener("127.0.0.1")
        self.assertEqual(listener.getsockname()[0], "127.0.0.1")
        self.reach(listener, "127.0.0.1")

    def test_on_an_ipv6_address(self):
        if not socket.has_dualstack_ipv6():
            self.skipTest("this machine has no IPv6")
        self.reach(self.listener("::1"), "::1")

    def test_on_all_addresses(self):
        listener = self.listener("")
        self.reach(listener, "127.0.0.1")
        if socket.has_dualstack_ipv6():
            self.reach(listener, "::1")

    def test_on_all_addresses_of_a_machine_without_ipv6(self):
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            listener = self.listener("")
        self.assertEqual(listener.getsockname()[0], "0.0.0.0")

    def test_name_stands_for_its_ipv4_address(self):
        both = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]
        for found in (both, both[::-1]):
            with mock.patch("socket.getaddrinfo", return_value=found), self.subTest(found=found):
                self.assertEqual(self.listener("a.name").family, socket.AF_INET)

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


class Explain(unittest.TestCase):
    """explain: what the person is told when the server cannot listen."""

    def test_each_has_its_advice(self):
        for error, text in (
            (
                OSError(errno.EADDRINUSE, ""),
                "port 80 is taken: stop the program that uses it, or choose another with -p",
            ),
            (OSError(errno.EACCES, ""), "port 80 needs special rights: choose one above 1023 with -p"),
            (
                OSError(errno.EADDRNOTAVAIL, ""),
                "::5 is no address of this machine: leave out -a to listen on all it has",
            ),
            (socket.gaierror(-2, ""), "unknown address ::5: give an IP address of this machine"),
            (UnicodeError(), "unknown address ::5: give an IP address of this machine"),
            (OSError("what else"), "cannot listen on ::5 port 80: what else"),
        ):
            with self.subTest(error=error):
                self.assertEqual(server.explain(error, "::5", 80), text)


class ParseArgs(unittest.TestCase):
    """parse_args: what the command line may say."""

    def assert_usage(self, *argv):
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as stderr:
            server.parse_args(list(argv))
        self.assertEqual(caught.exception.code, 2)
        return stderr.getvalue()

    def test_defaults(self):
        self.assertEqual(vars(server.parse_args([])), {"port": 7777, "addr": "", "log_level": "DEBUG"})

    def test_everything(self):
        self.assertEqual(
            vars(server.parse_args(["-p", "8888", "-a", "::1", "--log-level", "ERROR"])),
            {"port": 8888, "addr": "::1", "log_level": "ERROR"},
        )

    def test_limits_of_a_port(self):
        for port in (0, 65535):
            with self.subTest(port=port):
                self.assertEqual(server.parse_args(["-p", str(port)]).port, port)

    def test_what_is_no_port(self):
        for port in ("-1", "65536", "http", "", "77.7"):
            with self.subTest(port=port):
                self.assert_usage("-p", port)

    def test_port_out_of_range_is_explained(self):
        self.assertRegex(self.assert_usage("-p", "65536"), "a port is a number from 0 to 65535, not 65536")

    def test_levels(self):
        for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
            with self.subTest(level=level):
                self.assertEqual(server.parse_args(["--log-level", level]).log_level, level)

    def test_other_wrong_usage(self):
        for argv in (["7777"], ["--log-level", "LOUD"], ["-x"]):
            with self.subTest(argv=argv):
                self.assert_usage(*argv)


class LogCase(unittest.TestCase):
    """What the tests of the log share: a log file in a folder of its own, and what the console shows."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "log")
        self.set_log_file(os.path.join(self.folder, "server.log"))
        self.console = io.StringIO()
        redirection = contextlib.redirect_stderr(self.console)
        redirection.__enter__()
        self.addCleanup(redirection.__exit__, None, None, None)
        self.addCleanup(server_log_config.close)

    def set_log_file(self, path):
        patch = mock.patch.object(server_log_config, "LOG_FILE", path)
        patch.start()
        self.addCleanup(patch.stop)
        self.log_file = path

    def logged(self):
        """Return the lines of the log file."""
        server_log_config.write_out()
        with open(self.log_file, encoding="utf-8") as log:
            return log.read().splitlines()

    def shown(self):
        """Return the lines on the console."""
        return self.console.getvalue().splitlines()

    def messages(self, lines):
        """Return what follows the module in each of the lines."""
        return [LINE.fullmatch(line).group(2) for line in lines]


class LogFile(unittest.TestCase):
    """LOG_FILE: where the log is."""

    def test_stands_in_the_folder_log_beside_the_module(self):
        self.assertEqual(server_log_config.LOG_FILE, os.path.join(HERE, "log", "server.log"))


class Escape(unittest.TestCase):
    """escape: nothing but printable characters gets through."""

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
    """OneLineFormatter: one record, one line."""

    def setUp(self):
        self.formatter = server_log_config.OneLineFormatter(server_log_config.LINE_FORMAT)
        self.formatter.converter = time.gmtime  # UTC, wherever the test runs

    def record(self, created=NOW, msecs=500.0, msg="text"):
        fields = {"created": created, "msecs": msecs, "levelname": "INFO", "module": "server", "msg": msg}
        return logging.makeLogRecord(fields)

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.formatter.format(self.record()), "2023-11-14 22:13:20,500 INFO server text")

    def test_time_is_that_of_the_record(self):
        for seconds, msecs, shown in (
            (NOW, 0.0, "2023-11-14 22:13:20,000"),
            (NOW + 0.25, 7.9, "2023-11-14 22:13:20,007"),
            (NOW + 1, 999.9, "2023-11-14 22:13:21,999"),
            (NOW, 500.0, "2023-11-14 22:13:20,500"),
        ):
            with self.subTest(shown=shown):
                self.assertEqual(self.formatter.formatTime(self.record(seconds, msecs)), shown)

    def test_text_of_a_second_is_made_once(self):
        self.formatter.converter = mock.Mock(wraps=time.gmtime)
        for seconds in (NOW, NOW + 0.1, NOW + 0.4, NOW + 1):
            self.formatter.formatTime(self.record(seconds))
        self.assertEqual(self.formatter.converter.call_count, 2)

    def test_time_is_local(self):
        self.assertIs(server_log_config.OneLineFormatter.converter, time.localtime)

    def test_line_breaks_of_a_peer_are_escaped(self):
        line = self.formatter.format(self.record(msg="a\n2023-11-14 22:13:20,500 INFO server forged\u2028"))
        self.assertTrue(
            line.endswith(r"INFO server a\n2023-11-14 22:13:20,500 INFO server forged\u2028"), line
        )

    def test_traceback_is_part_of_the_line(self):
        record = self.record()
        try:
            raise ZeroDivisionError("division by zero")
        except ZeroDivisionError:
            record.exc_info = sys.exc_info()
        self.assertRegex(
            self.formatter.format(record),
            r"server text\\nTraceback .*\\nZeroDivisionError: division by zero$",
        )


class ConsoleHandlerTest(LogCase):
    """ConsoleHandler: a console that nobody reads keeps no client waiting."""

    def assert_not_waited_for(self, writer):
        """Fill a console that nobody reads, and log to it."""
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(1000))
        os.set_blocking(writer, True)
        with open(writer, "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
            server_log_config.configure()
            LOG.info("nobody reads this")
        self.assertEqual(self.messages(self.logged()), ["nobody reads this"])

    @unittest.skipUnless(sys.platform == "linux", "elsewhere the server may have to wait")
    def test_full_pipe_is_not_waited_for(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.assert_not_waited_for(writer)

    @unittest.skipUnless(sys.platform == "linux", "elsewhere the server may have to wait")
    def test_full_terminal_is_not_waited_for(self):
        reader, writer = os.openpty()
        self.addCleanup(os.close, reader)
        self.assert_not_waited_for(writer)

    def shown_in(self, encoding, text):
        """Return what a console of that encoding shows of a record."""
        reader, writer = os.pipe()
        with open(reader, "rb") as shown:
            with open(writer, "w", encoding=encoding, newline="\n") as stream:
                with contextlib.redirect_stderr(stream):
                    server_log_config.configure()
                LOG.info(text)
                server_log_config.close()
            return shown.read().decode(encoding)

    def test_console_shows_the_line(self):
        self.assertRegex(self.shown_in("utf-8", "Жанна"), "^[-0-9]{10} [:,0-9]{12} INFO server Жанна\n$")

    def test_console_shows_what_it_has_no_letters_for_as_escapes(self):
        self.assertRegex(self.shown_in("ascii", "\u0451"), r" INFO server \\u0451\n$")

    @unittest.skipIf(os.name == "nt", "Windows knows no such thing")
    def test_console_stays_as_it_was(self):
        for blocking in (True, False):
            reader, writer = os.pipe()
            self.addCleanup(os.close, reader)
            os.set_blocking(writer, blocking)
            with open(writer, "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
                server_log_config.configure()
                LOG.info("text")
                with self.subTest(blocking=blocking):
                    self.assertEqual(os.get_blocking(writer), blocking)

    @unittest.skipUnless(sys.platform == "linux", "elsewhere the server may have to wait")
    def test_line_that_was_cut_off_is_ended_before_the_next(self):
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as shown:
            with open(writer, "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
                server_log_config.configure()
                LOG.info("x" * 10_000_000)
                shown.read(10_000_000)
                LOG.info("next")
                LOG.info("last")
                server_log_config.close()
            lines = shown.read().decode("utf-8").split("\n")
        self.assertEqual([line[23:] for line in lines], ["", " INFO server next", " INFO server last", ""])

    def test_console_that_is_a_file_is_continued(self):
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
            stream.write("before\n")
            stream.flush()
            server_log_config.configure()
            LOG.info("text")
            stream.seek(0)
            self.assertRegex(stream.read(), "^before\n.* INFO server text\n$")

    def test_is_closed_but_once(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        with open(writer, "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
            handler = server_log_config.ConsoleHandler()
        handler.close()
        with mock.patch("os.close") as close:
            handler.close()
        close.assert_not_called()

    def test_no_console_is_no_trouble(self):
        with contextlib.redirect_stderr(None):
            server_log_config.configure()
            LOG.info("text")
        self.assertEqual(self.messages(self.logged()), ["text"])


class LogFileHandlerTest(LogCase):
    """LogFileHandler: a file a day, written many records at a time, and never in the way."""

    def test_records_wait_for_write_out(self):
        server_log_config.configure()
        LOG.info("text")
        self.assertEqual(os.path.getsize(self.log_file), 0)
        server_log_config.write_out()
        self.assertGreater(os.path.getsize(self.log_file), 0)

    def test_close_writes_out(self):
        server_log_config.configure()
        LOG.info("text")
        server_log_config.close()
        self.assertEqual(self.messages(self.logged()), ["text"])

    def test_file_of_yesterday_is_put_aside_also_when_nothing_ran_at_midnight(self):
        os.mkdir(self.folder)
        with open(self.log_file, "w", encoding="utf-8") as log:
            log.write("old\n")
        today = time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))
        yesterday = today - 1
        os.utime(self.log_file, (yesterday, yesterday))
        server_log_config.configure()
        LOG.info("new")
        self.assertEqual(self.messages(self.logged()), ["new"])
        dated = "server.log." + time.strftime("%Y-%m-%d", time.localtime(yesterday))
        self.assertEqual(sorted(os.listdir(self.folder)), ["server.log", dated])

    def test_thirty_old_days_are_kept(self):
        os.mkdir(self.folder)
        for day in range(1, 32):
            open(f"{self.log_file}.2020-01-{day:02}", "w", encoding="utf-8").close()
        open(self.log_file, "w", encoding="utf-8").close()
        os.utime(self.log_file, (NOW, NOW))
        server_log_config.configure()
        LOG.info("new")
        kept = sorted(os.listdir(self.folder))
        self.assertEqual((len(kept), kept[1]), (31, "server.log.2020-01-03"))

    def test_file_that_cannot_be_put_aside_is_continued(self):
        os.mkdir(self.folder)
        open(self.log_file, "w", encoding="utf-8").close()
        os.utime(self.log_file, (NOW, NOW))
        server_log_config.configure()
        with mock.patch("os.rename", side_effect=PermissionError):
            LOG.info("one")
            LOG.info("two")
        self.assertEqual(self.messages(self.logged()), ["one", "two"])

    def test_file_in_the_place_of_the_folder_costs_one_warning(self):
        open(self.folder, "w", encoding="utf-8").close()
        server_log_config.configure()
        LOG.debug("the program goes on")
        LOG.info("here too")
        warning, info = self.messages(self.shown())
        self.assertRegex(
            warning, r"^cannot write the log .*server\.log, going on without it: .*" + re.escape(self.folder)
        )
        self.assertEqual(info, "here too")

    def full_disk(self):
        """Configure a log on a disk that is full."""
        if not os.path.exists("/dev/full"):
            self.skipTest("no device here is always full")
        os.mkdir(self.folder)
        os.symlink("/dev/full", self.log_file)
        server_log_config.configure()

    def assert_one_warning(self):
        warnings = [line for line in self.shown() if " WARNING " in line]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertRegex(
            warnings[0],
            r"cannot write the log .*server\.log, going on without it: .*No space left on device",
        )

    def test_full_disk_costs_one_warning(self):
        self.full_disk()
        for text in ("one", "x" * 100_000, "three"):
            LOG.info(text)
            server_log_config.write_out()
        server_log_config.close()
        self.assert_one_warning()
        self.assertEqual(len(self.shown()), 4)

    def test_full_disk_is_noticed_by_a_record_too_long_to_wait(self):
        self.full_disk()
        LOG.debug("x" * 100_000)
        self.assert_one_warning()

    def test_full_disk_is_noticed_when_records_are_written_out(self):
        self.full_disk()
        LOG.debug("text")
        self.assertEqual(self.shown(), [])
        server_log_config.write_out()
        self.assert_one_warning()

    def test_full_disk_is_noticed_at_the_end(self):
        self.full_disk()
        LOG.debug("text")
        server_log_config.close()
        self.assert_one_warning()

    def test_day_begins_at_midnight_sharp(self):
        server_log_config.configure()
        handler = LOG.handlers[-1]
        self.assertEqual(time.strftime("%H:%M:%S", time.localtime(handler.rolloverAt)), "00:00:00")
        for seconds, turns in ((-0.1, False), (0, True), (0.1, True)):
            record = logging.makeLogRecord({"created": handler.rolloverAt + seconds})
            with self.subTest(seconds=seconds):
                self.assertIs(handler.shouldRollover(record), turns)


class Configure(LogCase):
    """configure: what goes where."""

    def test_until_then_records_go_nowhere(self):
        LOG.error("nobody sees this")
        self.assertEqual(self.shown(), [])

    def test_records_go_to_no_other_logger(self):
        with self.assertLogs(logging.getLogger(), "DEBUG") as logs:
            logging.getLogger("another").warning("a record of another")
            LOG.warning("a record of ours")
        self.assertEqual(logs.output, ["WARNING:another:a record of another"])

    def test_folder_is_made(self):
        server_log_config.configure()
        self.assertEqual(os.listdir(self.folder), ["server.log"])

    def test_folder_that_is_there_is_used(self):
        os.mkdir(self.folder)
        server_log_config.configure()
        self.assertEqual(os.listdir(self.folder), ["server.log"])

    def test_lines_are_as_the_assignment_wants_them(self):
        server_log_config.configure()
        LOG.warning("from %s", "Жанна")
        for line in (*self.logged(), *self.shown()):
            self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING server from Жанна$")
        self.assertEqual((len(self.logged()), len(self.shown())), (1, 1))

    def test_levels(self):
        levels = ("DEBUG", "INFO", "WARNING", "ERROR")
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                self.set_log_file(os.path.join(self.folder, level))
                server_log_config.configure(level)
                for each in levels:
                    LOG.log(getattr(logging, each), each)
                self.assertEqual(self.messages(self.logged()), list(levels[number:]))
        self.assertEqual(self.messages(self.shown()), list(levels[1:]) * 4)

    def test_everything_is_logged_by_default(self):
        server_log_config.configure()
        LOG.debug("a trace")
        self.assertEqual(self.messages(self.logged()), ["a trace"])

    def test_second_call_takes_the_place_of_the_first(self):
        server_log_config.configure()
        server_log_config.configure()
        LOG.info("once")
        self.assertEqual(self.messages(self.logged()), ["once"])
        self.assertEqual(self.messages(self.shown()), ["once"])

    def test_file_is_continued(self):
        for text in ("first", "second"):
            server_log_config.configure()
            LOG.info(text)
            server_log_config.close()
        self.assertEqual(self.messages(self.logged()), ["first", "second"])

    def test_file_is_utf8(self):
        server_log_config.configure()
        LOG.info("Жанна")
        server_log_config.close()
        with open(self.log_file, "rb") as log:
            self.assertIn("Жанна".encode(), log.read())

    def test_records_are_made_without_what_no_line_shows(self):
        server_log_config.configure()
        record = LOG.makeRecord("server", logging.INFO, "server.py", 0, "text", (), None)
        self.assertEqual((record.threadName, record.processName, record.process), (None, None, None))

    def test_other_loggers_are_as_ever(self):
        self.assertIs(type(logging.getLogger("another")), logging.Logger)

    def test_close_silences_the_logger(self):
        server_log_config.configure()
        server_log_config.close()
        LOG.error("nobody sees this")
        self.assertEqual((self.logged(), self.shown()), ([], []))
        self.assertFalse(LOG.isEnabledFor(logging.DEBUG))


class Main(LogCase):
    """main: the script's work, as far as it does not serve."""

    def test_port_that_is_taken_is_one_line_and_exit_code_1(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.assertEqual(server.main(["-a", "127.0.0.1", "-p", str(port)]), 1)
        told = [f"port {port} is taken: stop the program that uses it, or choose another with -p"]
        self.assertEqual((self.messages(self.shown()), self.messages(self.logged())[:1]), (told, told))
        self.assertRegex(self.shown()[0], " ERROR ")

    def test_log_tells_the_cause(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server.main(["-a", "127.0.0.1", "-p", str(listener.getsockname()[1])])
        self.assertRegex(self.messages(self.logged())[-1], r"^the cause: OSError\(\d+, ")

    def test_machine_that_cannot_serve_is_one_line_and_exit_code_1(self):
        with mock.patch("selectors.DefaultSelector", side_effect=OSError("no more")):
            self.assertEqual(server.main(["-a", "", "-p", "0"]), 1)
        self.assertEqual(self.messages(self.shown()), ["cannot listen on all addresses port 0: no more"])

    def test_unknown_address_is_one_line_and_exit_code_1(self):
        for address in ("no such name", "a" * 64, "é" * 64):
            with self.subTest(address=address):
                self.assertEqual(server.main(["-a", address]), 1)
        self.assertEqual(len(self.shown()), 3)

    def test_wrong_usage_is_exit_code_2(self):
        with self.assertRaises(SystemExit) as caught:
            server.main(["-p", "x"])
        self.assertEqual(caught.exception.code, 2)

    def test_ctrl_c_is_one_line_and_exit_code_0(self):
        with mock.patch("server.Server.serve_forever", side_effect=KeyboardInterrupt):
            self.assertEqual(server.main(["-a", "127.0.0.1", "-p", "0"]), 0)
        self.assertEqual(self.messages(self.shown())[1:], ["stopped"])

    def test_says_where_it_listens(self):
        for address, shown in (("127.0.0.1", "127.0.0.1"), ("", "all addresses")):
            with mock.patch("server.Server.serve_forever", side_effect=KeyboardInterrupt):
                server.main(["-a", address, "-p", "0"])
            first = self.messages(self.shown())[-2]
            self.assertRegex(
                first, rf"^listening on {shown} port [1-9]\d*, log in .*server\.log, stop with Ctrl\+C$"
            )

    def test_log_is_closed_at_the_end(self):
        with mock.patch("server.Server.serve_forever", side_effect=KeyboardInterrupt):
            server.main(["-a", "127.0.0.1", "-p", "0"])
        self.assertEqual([type(handler) for handler in LOG.handlers], [logging.NullHandler])

    def test_log_level_is_that_of_the_log_file(self):
        with mock.patch("server.Server.serve_forever", side_effect=KeyboardInterrupt):
            server.main(["-a", "127.0.0.1", "-p", "0", "--log-level", "ERROR"])
        self.assertEqual(self.logged(), [])


@unittest.skipIf(os.name == "nt", "Windows sends no such signals")
class Stop(unittest.TestCase):
    """stop: what Ctrl+C and SIGTERM do."""

    def test_first_signal_stops_and_those_that_follow_do_nothing(self):
        for first in server.STOP_SIGNALS:
            handlers = {number: signal.getsignal(number) for number in server.STOP_SIGNALS}
            try:
                server.handle_stop_signals(server.stop)
                with self.subTest(first=first), self.assertRaises(KeyboardInterrupt):
                    signal.raise_signal(first)
                for number in server.STOP_SIGNALS:
                    signal.raise_signal(number)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)


class Script(unittest.TestCase):
    """server.py as a person runs it, copied with its log module alone into an empty folder."""

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
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def logged(self):
        with open(os.path.join(self.folder, "log", "server.log"), encoding="utf-8") as log:
            return log.read().splitlines()

    def assert_serves_until(self, number):
        process = self.start("-a", "127.0.0.1", "-p", "0")
        first = process.stderr.readline()
        port = int(re.search(r"listening on 127\.0\.0\.1 port (\d+)", first).group(1))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            for _ in range(2):
                sock.sendall(in_bytes(PRESENCE))
                self.assertEqual(codes(sock.recv(10_000)), [200])
            for _ in range(2):
                process.send_signal(number)
            self.assertEqual(process.wait(PATIENCE), 0)
        rest = process.stderr.read().splitlines()
        self.assertEqual(len(rest), 1, rest)
        self.assertRegex(rest[0], " INFO server stopped$")

    def test_importing_it_creates_nothing(self):
        before = list(os.walk(self.folder))
        subprocess.run([sys.executable, "-B", "-c", "import server"], cwd=self.folder, check=True)
        self.assertEqual(list(os.walk(self.folder)), before)

    def test_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = self.start("-a", "127.0.0.1", "-p", str(listener.getsockname()[1]))
            _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (1, 1), shown)

    def test_ctrl_c_stops_it(self):
        self.assert_serves_until(signal.SIGINT)

    def test_sigterm_stops_it(self):
        self.assert_serves_until(signal.SIGTERM)

    def test_log_tells_the_story(self):
        self.assert_serves_until(signal.SIGTERM)
        verbs = [LINE.fullmatch(line).group(2).split()[0] for line in self.logged()]
        self.assertEqual(verbs[:5], ["listening", "received", "processed", "sent", "received"])
        self.assertEqual(verbs[-1], "stopped")


if __name__ == "__main__":
    unittest.main()
