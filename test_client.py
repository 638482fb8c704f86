"""Tests of client.py and client_log_config.py; they need no other file, no fixed port and no network.

    python -m unittest test_client              all of them
    python -m unittest -v test_client           the same, with their names: what the client does

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
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) \w+ (.*)")


class Clock:
    """A clock that goes on by `step` whenever it is looked at."""

    def __init__(self, now=1000.0, step=0.0):
        self.now = now
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


class CreatePresence(unittest.TestCase):
    """create_presence: the message that somebody is present."""

    def test_without_a_status(self):
        with mock.patch("client.time", Clock(NOW)):
            presence = client.create_presence("C0deMaver1ck")
        self.assertEqual(
            presence, {"action": "presence", "time": NOW, "user": {"account_name": "C0deMaver1ck"}}
        )

    def test_with_a_status(self):
        with mock.patch("client.time", Clock(NOW)):
            presence = client.create_presence("Жанна", "Yep, I am here!")
        self.assertEqual(
            presence,
            {
                "action": "presence",
                "time": NOW,
                "type": "status",
                "user": {"account_name": "Жанна", "status": "Yep, I am here!"},
            },
        )

    def test_name_is_guest_by_default(self):
        self.assertEqual(client.create_presence()["user"], {"account_name": "Guest"})

    def test_time_is_now_as_a_float(self):
        before = time.time()
        now = client.create_presence()["time"]
        self.assertIsInstance(now, float)
        self.assertTrue(before <= now <= time.time(), now)

    def test_empty_status_is_a_status(self):
        self.assertEqual(client.create_presence(status="")["user"]["status"], "")

    def test_names_that_jim_allows(self):
        for name in ("x", "Ж" * 25, "\n\ud800"):
            with self.subTest(name=name):
                self.assertEqual(client.create_presence(name)["user"]["account_name"], name)

    def test_names_that_jim_does_not_allow(self):
        for name, reason in (
            ("", "an account name has to have 1 to 25 characters, not 0"),
            ("x" * 26, "an account name has to have 1 to 25 characters, not 26"),
            (None, "an account name has to be a string"),
            (b"Guest", "an account name has to be a string"),
            (5, "an account name has to be a string"),
        ):
            with self.subTest(name=name), self.assertRaises(ProtocolError) as caught:
                client.create_presence(name)
            self.assertEqual(str(caught.exception), reason)

    def test_status_that_is_no_string(self):
        for status in (5, b"here", False):
            with self.subTest(status=status), self.assertRaisesRegex(
                ProtocolError, "^a status has to be a string$"
            ):
                client.create_presence("Guest", status)

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.create_presence("Guest")
        self.assertEqual(logs.output, ["DEBUG:client:created the presence of Guest"])


class ProcessResponse(unittest.TestCase):
    """process_response: what the server answered, in one line."""

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
        for code, text in (
            (100, "OK"),
            (101, "OK"),
            (200, "OK"),
            (201, "OK"),
            (202, "OK"),
            (400, "wrong request or JSON"),
            (401, "not authorised"),
            (402, "wrong login or password"),
            (403, "blocked"),
            (404, "no such user or chat"),
            (409, "already connected"),
            (410, "offline"),
            (500, "server error"),
        ):
            for message in ({"response": code}, {"response": code, "alert": None, "error": ""}):
                with self.subTest(message=message):
                    self.assertEqual(client.process_response(message), f"{code} : {text}")

    def test_codes_that_jim_has_not(self):
        for code in (0, 1, -200, 199, 203, 299, 300, 405, 501, 999, 20000, True, False):
            with self.subTest(code=code), self.assertRaises(ProtocolError) as caught:
                client.process_response({"response": code})
            self.assertEqual(str(caught.exception), f"its response code is none of JIM's: {code}")

    def test_codes_of_a_wrong_type(self):
        for code in ("200", 200.0, None, [200], {"200": 200}, float("nan")):
            with self.subTest(code=code), self.assertRaisesRegex(ValueError, "is none of JIM's"):
                client.process_response({"response": code})

    def test_what_is_no_response(self):
        for message in ({}, {"alert": "OK"}, {"action": "presence"}, [], None, "200", ["response"]):
            with self.subTest(message=message), self.assertRaises(ValueError) as caught:
                client.process_response(message)
            self.assertEqual(str(caught.exception), "its response has no code")

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.process_response({"response": 200})
        self.assertEqual(logs.output, ["DEBUG:client:processed the response 200"])


class TakeMessage(unittest.TestCase):
    """take_message: where a message ends, and what can be none."""

    def assert_no_message(self, text, reason):
        with self.assertRaises(ProtocolError) as caught:
            client.take_message(text)
        self.assertEqual(str(caught.exception), reason)

    def test_whole_message_is_returned_with_its_length(self):
        self.assertEqual(client.take_message('{"a": 1}'), ({"a": 1}, 8))

    def test_what_follows_is_left(self):
        for more in ('{"b": 2}', "]", "\n", "\udcff"):
            with self.subTest(more=more):
                self.assertEqual(client.take_message('{"a": 1}' + more), ({"a": 1}, 8))

    def test_every_beginning_is_waited_for(self):
        text = (
            '{ "s": "q\\"\\\\\\/\\b\\u00e9\\uD83D\\ude00 я", "n": [-0.5e-7, 0, -12, 1E+2, [], {}],\r\n'
            '\t"w" : [true , false, null], "o": {"" : {"x": [ ]}} }'
        )
        for end in range(len(text)):
            with self.subTest(text=text[:end]):
                self.assertEqual(client.take_message(text[:end]), (None, 0))
        self.assertEqual(client.take_message(text)[1], len(text))

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
                client.take_message(text)
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
                client.take_message(text)
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
        self.assertEqual(client.take_message(text), ({"a": "я" * 631}, 640))

    def test_message_of_641_characters_is_refused(self):
        self.assert_no_message('{"a": "' + "я" * 632 + '"}', "the message is longer than 640 characters")

    def test_639_characters_without_an_end_are_waited_for(self):
        self.assertEqual(client.take_message('{"a": "' + "я" * 632), (None, 0))

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
        with mock.patch("client.DECODER", decoder):
            self.assert_no_message('{"a":' + "[" * 600, "the message is nested too deep")

    def test_bytes_that_are_not_utf8_are_refused(self):
        for text in ("\udcff", '{"a": "\udcff', '{"a": "\udcff"}', "{\udcff"):
            with self.subTest(text=text):
                self.assert_no_message(text, "the message is not UTF-8")

    def test_escaped_lone_surrogate_is_taken(self):
        self.assertEqual(client.take_message('{"a": "\\ud800"}'), ({"a": "\ud800"}, 15))

    def test_last_of_two_equal_keys_counts(self):
        self.assertEqual(client.take_message('{"a": 1, "a": 2}'), ({"a": 2}, 16))


class CheckCut(unittest.TestCase):
    """check_cut: whether a message can go on with a character that is not whole."""

    def test_character_in_a_string_is_waited_for(self):
        for cut in (b"\xd0", b"\xe0\xa0", b"\xed", b"\xed\x9f", b"\xee", b"\xee\x80", b"\xf0\x9f\x98"):
            with self.subTest(cut=cut):
                client.check_cut('{"a": "я', cut)

    def test_surrogate_is_refused(self):
        for cut in (b"\xed\xa0", b"\xed\xb0", b"\xed\xbf"):
            with self.subTest(cut=cut), self.assertRaisesRegex(ProtocolError, "^the message is not UTF-8$"):
                client.check_cut('{"a": "я', cut)

    def test_character_outside_of_strings_is_refused(self):
        for text in ("", "{", '{"a": ', '{"a": "b"', '{"a": 1'):
            with self.subTest(text=text), self.assertRaises(ProtocolError):
                client.check_cut(text, b"\xd0")

    def test_character_that_makes_the_message_too_long_is_refused(self):
        text = '{"a": "' + "я" * 632
        with self.assertRaisesRegex(ProtocolError, "^the message is longer than 640 characters$"):
            client.check_cut(text, b"\xd0")


class IsUnfinished(unittest.TestCase):
    """is_unfinished: whether nothing but its end is missing."""

    def test_whole_object_is_not_unfinished(self):
        self.assertIs(client.is_unfinished("{}"), False)

    def test_beginning_is_unfinished(self):
        self.assertTrue(client.is_unfinished('{"a": '))

    def test_fault_is_not_unfinished(self):
        self.assertFalse(client.is_unfinished('{"a": }'))


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
                self.assertEqual(client.mend_end(text), mended)

    def test_ends_that_need_no_mending(self):
        for text in ("{", '{"a"', '{"a": 12', '{"a": 1t', '{"a": tru ', '{"a": [1, '):
            with self.subTest(text=text):
                self.assertEqual(client.mend_end(text), text)


class WireCase(unittest.TestCase):
    """What the tests of the wire share: a connected socket, and the server at its other end."""

    def setUp(self):
        self.connect_anew()

    def connect_anew(self):
        self.sock, self.server = socket.socketpair()
        self.addCleanup(self.server.close)
        self.addCleanup(self.sock.close)
        self.server.settimeout(PATIENCE)


class SendMessage(WireCase):
    """send_message: one message out."""

    def sent(self, message):
        client.send_message(self.sock, message)
        return self.server.recv(10_000)

    def test_sends_json(self):
        self.assertEqual(
            self.sent({"action": "presence", "time": 1.5}), b'{"action": "presence", "time": 1.5}'
        )

    def test_letters_go_as_they_are(self):
        self.assertEqual(self.sent({"account_name": "Жанна"}), '{"account_name": "Жанна"}'.encode())

    def test_lone_surrogate_goes_as_an_escape(self):
        self.assertEqual(self.sent({"account_name": "\ud800"}), b'{"account_name": "\\ud800"}')

    def test_has_10_seconds(self):
        with mock.patch("client.monotonic", Clock(1000.0)):
            client.send_message(self.sock, {"a": 1})
        self.assertEqual(self.sock.gettimeout(), 10.0)

    def test_has_as_long_as_the_deadline_says(self):
        with mock.patch("client.monotonic", Clock(1000.0)):
            client.send_message(self.sock, {"a": 1}, 1003.0)
        self.assertEqual(self.sock.gettimeout(), 3.0)

    def test_sends_nothing_when_it_is_too_late(self):
        with mock.patch("client.monotonic", Clock(1000.0)), self.assertRaises(socket.timeout):
            client.send_message(self.sock, {"a": 1}, 1000.0)
        self.sock.close()
        self.assertEqual(self.server.recv(100), b"")

    def test_sends_all_of_a_long_message(self):
        received = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: self.server.recv(65536), b"")))
        reader.start()
        client.send_message(self.sock, {"a": "x" * 10_000_000})
        self.sock.close()
        reader.join(PATIENCE)
        self.assertEqual(sum(map(len, received)), 10_000_009)

    def test_server_that_is_gone(self):
        self.server.close()
        with self.assertRaises(ConnectionError):
            client.send_message(self.sock, {"a": 1})

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.send_message(self.sock, {"a": 1})
        self.assertEqual(logs.output, ['DEBUG:client:sent {"a": 1}'])


class ReceiveMessage(WireCase):
    """receive_message: one message in."""

    def assert_receives(self, message, data):
        self.server.sendall(data)
        self.assertEqual(client.receive_message(self.sock), message)

    def test_response_of_one_piece(self):
        self.assert_receives({"response": 200}, b'{"response": 200}')

    def test_response_in_pieces_of_every_size(self):
        data = b'\r\n\t {"response": 200, "alert": "\xd0\x96\\u0416\xf0\x9f\x98\x80"}'
        for size in range(1, len(data)):
            with self.subTest(size=size), mock.patch("client.RECEIVE_BYTES", size):
                self.connect_anew()
                self.assert_receives({"response": 200, "alert": "ЖЖ😀"}, data)

    def test_response_of_640_characters(self):
        text = "я" * (640 - len('{"response": 200, "alert": ""}'))
        message = {"response": 200, "alert": text}
        self.assert_receives(message, json.dumps(message, ensure_ascii=False).encode())

    def test_response_of_641_characters(self):
        self.server.sendall(b'{"response": 200, "alert": "%s"}' % (b"x" * 611))
        with self.assertRaisesRegex(ProtocolError, "^the message is longer than 640 characters$"):
            client.receive_message(self.sock)

    def test_what_follows_is_dropped(self):
        for more in (b'{"response": 400}', b"\n", b"hello", b"\xff", b"\xed\xa0", b"]" * 300):
            with self.subTest(more=more):
                self.connect_anew()
                self.server.sendall(b'{"response": 200}' + more)
                self.assertEqual(client.receive_message(self.sock), {"response": 200})

    def test_end_without_a_word(self):
        for data in (b"", b" \r\n"):
            with self.subTest(data=data):
                self.connect_anew()
                self.server.sendall(data)
                self.server.close()
                with self.assertRaisesRegex(ConnectionError, "^no answer$"):
                    client.receive_message(self.sock)

    def test_end_inside_the_response(self):
        for data in (b'{"response": 200', b"{", b'{"a": "\xd0'):
            with self.subTest(data=data):
                self.connect_anew()
                self.server.sendall(data)
                self.server.close()
                with self.assertRaises(ProtocolError):
                    client.receive_message(self.sock)

    def test_end_inside_the_response_has_a_reason(self):
        self.server.sendall(b'{"response": 200')
        self.server.close()
        with self.assertRaisesRegex(ProtocolError, "^the message is cut short$"):
            client.receive_message(self.sock)

    def test_what_is_not_jim_is_refused_though_the_connection_stands(self):
        for data in (
            b"HTTP/1.1 400 Bad Request",
            b"X{}",
            b"[]",
            b"200",
            b"{'response': 200}",
            b"\xff",
            b'{"a": "\xff',
            b'{"a": "\xed\xa0',
            b'{"a": \xd0',
            b"\xef",
            b"{]",
        ):
            with self.subTest(data=data):
                self.connect_anew()
                self.server.sendall(data)
                with self.assertRaises(ProtocolError):
                    client.receive_message(self.sock)

    def test_pieces_do_not_move_the_deadline(self):
        clock = Clock(1000.0, step=2.0)
        self.server.sendall(b" " * 10_000)
        with mock.patch("client.monotonic", clock), self.assertRaises(socket.timeout):
            client.receive_message(self.sock)
        self.assertEqual(clock.now, 1012.0)

    def test_deadline_of_the_exchange(self):
        clock = Clock(1000.0, step=2.0)
        self.server.sendall(b"{")
        with mock.patch("client.monotonic", clock), self.assertRaises(socket.timeout):
            client.receive_message(self.sock, 1002.0)
        self.assertEqual(clock.now, 1002.0)

    def test_silent_server_is_left_at_the_deadline(self):
        with self.assertRaises(socket.timeout):
            client.receive_message(self.sock, time.monotonic() + 0.01)

    def test_leaves_a_trace(self):
        for data, trace in (
            (b'{"a": 1}', 'received {"a": 1}'),
            (b"hello", "received hello"),
            (b" {]" + b"x" * 1000, "received {]" + "x" * 397),
        ):
            self.server.sendall(data)
            with self.assertLogs(LOG, "DEBUG") as logs, contextlib.suppress(ProtocolError):
                client.receive_message(self.sock)
            with self.subTest(data=data):
                self.assertEqual(logs.output, ["DEBUG:client:" + trace])

    def test_silence_leaves_a_trace(self):
        self.server.close()
        with self.assertLogs(LOG, "DEBUG") as logs, contextlib.suppress(ConnectionError):
            client.receive_message(self.sock)
        self.assertEqual(logs.output, ["DEBUG:client:received nothing"])


class SecondsTo(unittest.TestCase):
    """seconds_to: how long it is to a deadline."""

    def test_deadline_to_come(self):
        with mock.patch("client.monotonic", Clock(1000.0)):
            self.assertEqual(client.seconds_to(1000.5), 0.5)

    def test_deadline_that_is_past(self):
        for deadline in (1000.0, 999.5):
            with self.subTest(deadline=deadline), mock.patch("client.monotonic", Clock(1000.0)):
                self.assertRaises(socket.timeout, client.seconds_to, deadline)


class LookUp(unittest.TestCase):
    """look_up: where an address or a name leads."""

    def setUp(self):
        self.deadline = time.monotonic() + PATIENCE

    def test_address_stands_for_itself(self):
        for address, family, where in (
            ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 7777)),
            ("::1", socket.AF_INET6, ("::1", 7777, 0, 0)),
        ):
            with self.subTest(address=address):
                self.assertEqual(client.look_up(address, 7777, self.deadline), [(family, where)])

    def test_name_stands_for_addresses(self):
        self.assertIn((socket.AF_INET, ("127.0.0.1", 7777)), client.look_up("localhost", 7777, self.deadline))

    def test_unknown_names(self):
        for name in ("no such name", "", "a" * 64 + ".", "é" * 64, "a..é"):
            with self.subTest(name=name), self.assertRaises(socket.gaierror):
                client.look_up(name, 7777, self.deadline)

    def test_slow_answer_is_not_waited_for(self):
        asked, answer = [], threading.Event()
        self.addCleanup(answer.set)

        def getaddrinfo(*_, flags, **__):
            asked.append(flags)
            if not flags:
                answer.wait(PATIENCE)
            raise socket.gaierror

        with mock.patch("socket.getaddrinfo", getaddrinfo), self.assertRaises(socket.timeout):
            client.look_up("a.slow.name", 7777, time.monotonic() + 0.01)
        self.assertEqual(asked, [socket.AI_NUMERICHOST, 0])


class NetCase(unittest.TestCase):
    """What the tests of a connection share: a listening socket for the server that a test plays."""

    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.addCleanup(self.listener.close)
        self.port = self.listener.getsockname()[1]

    def play_server(self, *answers, leave=True):
        """Accept one client in a thread, receive its message, send the answers; return what was received."""
        received = []

        def play():
            sock, _ = self.listener.accept()
            self.addCleanup(sock.close)
            received.append(json.loads(sock.recv(10_000)))
            for answer in answers:
                sock.sendall(answer)
            if leave:
                sock.close()

        thread = threading.Thread(target=play)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return received


class Dial(NetCase):
    """dial: one place, called once."""

    def test_has_that_many_seconds(self):
        with client.dial(socket.AF_INET, ("127.0.0.1", self.port), 4.0) as sock:
            self.assertEqual((sock.getpeername(), sock.gettimeout()), (("127.0.0.1", self.port), 4.0))

    def test_leaves_a_trace(self):
        with self.assertLogs(LOG, "DEBUG") as logs:
            client.dial(socket.AF_INET, ("127.0.0.1", self.port), 4.0).close()
        self.assertEqual(logs.output, [f"DEBUG:client:connected to 127.0.0.1 port {self.port}"])


class Connect(NetCase):
    """connect: the first place where somebody listens."""

    def connect(self, address, seconds=PATIENCE):
        sock = client.connect(address, self.port, time.monotonic() + seconds)
        self.addCleanup(sock.close)
        return sock

    def test_to_an_address(self):
        self.assertEqual(self.connect("127.0.0.1").getpeername(), ("127.0.0.1", self.port))

    def test_where_nobody_listens(self):
        self.listener.close()
        with self.assertRaises(ConnectionRefusedError):
            self.connect("127.0.0.1")

    def test_tries_each_place_in_turn(self):
        nobody, somebody = ("127.0.0.2", self.port), ("127.0.0.1", self.port)
        for wheres in ((nobody, somebody), (nobody, nobody, somebody), (somebody, nobody)):
            places = [(socket.AF_INET, where) for where in wheres]
            with self.subTest(places=places), mock.patch("client.look_up", return_value=places):
                self.assertEqual(self.connect("a.name").getpeername(), somebody)

    def test_a_place_that_is_not_the_last_has_half_of_the_time(self):
        places = [(socket.AF_INET, ("127.0.0.2", self.port)), (socket.AF_INET, ("127.0.0.1", self.port))]
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch("client.look_up", return_value=places))
            stack.enter_context(mock.patch("client.monotonic", Clock(1000.0)))
            dial = stack.enter_context(mock.patch("client.dial", wraps=client.dial))
            client.connect("a.name", self.port, 1008.0).close()
        self.assertEqual([call[0] for call in dial.call_args_list], [(*places[0], 4.0), (*places[1], 8.0)])

    def test_leaves_a_trace(self):
        places = [(socket.AF_INET, ("127.0.0.2", self.port)), (socket.AF_INET, ("127.0.0.1", self.port))]
        with mock.patch("client.look_up", return_value=places), self.assertLogs(LOG, "DEBUG") as logs:
            self.connect("a.name")
        self.assertRegex(logs.output[0], r"^DEBUG:client:no connection to .*127\.0\.0\.2.*refused$")
        self.assertEqual(logs.output[1:], [f"DEBUG:client:connected to 127.0.0.1 port {self.port}"])

    def test_failing_connection_is_closed(self):
        self.listener.close()
        patch = mock.patch("socket.socket.close", autospec=True, side_effect=socket.socket.close)
        with patch as close, self.assertRaises(ConnectionRefusedError):
            self.connect("127.0.0.1")
        self.assertEqual(close.call_count, 1)


class Exchange(NetCase):
    """exchange: one message out, one message in."""

    def test_sends_the_message_and_returns_the_answer(self):
        received = self.play_server(b'{"response": 200}')
        self.assertEqual(client.exchange("127.0.0.1", self.port, {"action": "presence"}), {"response": 200})
        self.assertEqual(received, [{"action": "presence"}])

    def test_closes_the_connection(self):
        left = []

        def play():
            sock, _ = self.listener.accept()
            with sock:
                sock.recv(10_000)
                sock.sendall(b'{"response": 200}')
                left.append(sock.recv(10_000))

        server = threading.Thread(target=play)
        server.start()
        client.exchange("127.0.0.1", self.port, {"action": "presence"})
        server.join(PATIENCE)
        self.assertEqual(left, [b""])

    def test_answer_counts_though_the_server_did_not_listen(self):
        self.play_server(b'{"response": 200}')
        with mock.patch("client.send_message", self.send_and_fail), self.assertLogs(LOG, "DEBUG") as logs:
            self.assertEqual(client.exchange("127.0.0.1", self.port, {}), {"response": 200})
        self.assertEqual(
            logs.output[1], "DEBUG:client:not sent, but perhaps answered before: BrokenPipeError()"
        )

    def send_and_fail(self, sock, message, deadline):
        sock.sendall(b"{}")
        raise BrokenPipeError

    def test_has_one_deadline_for_all(self):
        deadlines = []
        self.play_server(b'{"response": 200}')
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch("client.monotonic", Clock(1000.0)))
            for name in ("connect", "send_message", "receive_message"):
                function = mock.Mock(wraps=getattr(client, name))
                function.side_effect = lambda *args: deadlines.append(args[-1]) or mock.DEFAULT
                stack.enter_context(mock.patch.object(client, name, function))
            client.exchange("127.0.0.1", self.port, {})
        self.assertEqual(deadlines, [1010.0] * 3)


class Explain(unittest.TestCase):
    """explain: what the person is told when the exchange fails."""

    def test_each_failure_has_its_advice(self):
        for error, text in (
            (socket.gaierror(-2, "?"), "unknown server ::5: check the name, or give an IP address"),
            (
                ProtocolError("the message is not UTF-8"),
                "::5 port 80 does not speak JIM: the message is not UTF-8",
            ),
            (socket.timeout("?"), "no answer from ::5 port 80 in 10 s: does a JIM server run there?"),
            (ConnectionRefusedError(), "nobody listens at ::5 port 80: is the server running?"),
            (ConnectionResetError(), "::5 port 80 closed the connection without an answer"),
            (BrokenPipeError(), "::5 port 80 closed the connection without an answer"),
            (
                OSError(errno.ENETUNREACH, "no way"),
                f"cannot reach ::5 port 80: [Errno {errno.ENETUNREACH}] no way",
            ),
        ):
            with self.subTest(error=error):
                self.assertEqual(client.explain(error, "::5", 80), text)


class ParseArgs(unittest.TestCase):
    """parse_args: what the command line may say."""

    def assert_usage(self, *argv):
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as stderr:
            client.parse_args(list(argv))
        self.assertEqual(caught.exception.code, 2)
        return stderr.getvalue()

    def test_defaults(self):
        self.assertEqual(
            vars(client.parse_args(["localhost"])),
            {"addr": "localhost", "port": 7777, "name": "Guest", "log_level": "DEBUG"},
        )

    def test_everything(self):
        self.assertEqual(
            vars(client.parse_args(["::1", "8888", "-n", "Жанна", "--log-level", "ERROR"])),
            {"addr": "::1", "port": 8888, "name": "Жанна", "log_level": "ERROR"},
        )

    def test_long_name_of_the_option(self):
        self.assertEqual(client.parse_args(["::1", "--name", "x"]).name, "x")

    def test_limits_of_a_port(self):
        for port in (1, 65535):
            with self.subTest(port=port):
                self.assertEqual(client.parse_args(["::1", str(port)]).port, port)

    def test_levels(self):
        for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
            with self.subTest(level=level):
                self.assertEqual(client.parse_args(["::1", "--log-level", level]).log_level, level)

    def test_what_is_no_port(self):
        for port in ("0", "-1", "65536", "http", "", "77.7"):
            with self.subTest(port=port):
                self.assert_usage("::1", port)

    def test_port_out_of_range_is_explained(self):
        self.assertIn("a port is a number from 1 to 65535, not 0", self.assert_usage("::1", "0"))

    def test_name_that_jim_does_not_allow_is_explained(self):
        for name, length in (("", 0), ("x" * 26, 26)):
            usage = self.assert_usage("::1", "-n", name)
            self.assertIn(f"an account name has to have 1 to 25 characters, not {length}", usage)

    def test_other_wrong_usage(self):
        for argv in ([], ["::1", "7777", "8888"], ["::1", "--log-level", "LOUD"], ["-n"]):
            with self.subTest(argv=argv):
                self.assert_usage(*argv)


class LogCase(unittest.TestCase):
    """What the tests of the log share: a log file in a folder of its own, and what the console shows."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="jim-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "log")
        self.set_log_file(os.path.join(self.folder, "client.log"))
        self.console = io.StringIO()
        redirection = contextlib.redirect_stderr(self.console)
        redirection.__enter__()
        self.addCleanup(redirection.__exit__, None, None, None)
        self.addCleanup(client_log_config.close)

    def set_log_file(self, path):
        patch = mock.patch.object(client_log_config, "LOG_FILE", path)
        patch.start()
        self.addCleanup(patch.stop)
        self.log_file = path

    def logged(self):
        """Return the lines of the log file."""
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
        self.assertEqual(client_log_config.LOG_FILE, os.path.join(HERE, "log", "client.log"))


class Escape(unittest.TestCase):
    """escape: nothing but printable characters gets through."""

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
    """OneLineFormatter: one record, one line."""

    def setUp(self):
        self.formatter = client_log_config.OneLineFormatter(client_log_config.LINE_FORMAT)
        self.formatter.converter = time.gmtime  # UTC, wherever the test runs

    def record(self, msg="text"):
        fields = {"created": NOW, "msecs": 500.0, "levelname": "INFO", "module": "client", "msg": msg}
        return logging.makeLogRecord(fields)

    def test_line_is_time_level_module_message(self):
        self.assertEqual(self.formatter.format(self.record()), "2023-11-14 22:13:20,500 INFO client text")

    def test_line_breaks_of_a_peer_are_escaped(self):
        line = self.formatter.format(self.record(msg="a\n2023-11-14 22:13:20,500 INFO client forged\u2028"))
        self.assertTrue(
            line.endswith(r"INFO client a\n2023-11-14 22:13:20,500 INFO client forged\u2028"), line
        )

    def test_traceback_is_part_of_the_line(self):
        record = self.record()
        try:
            raise ZeroDivisionError("division by zero")
        except ZeroDivisionError:
            record.exc_info = sys.exc_info()
        self.assertRegex(
            self.formatter.format(record),
            r"client text\\nTraceback .*\\nZeroDivisionError: division by zero$",
        )


class LogFileHandlerTest(LogCase):
    """LogFileHandler: a log that is never in the way."""

    def test_records_are_in_the_file_at_once(self):
        client_log_config.configure()
        LOG.info("text")
        self.assertEqual(self.messages(self.logged()), ["text"])

    def test_file_in_the_place_of_the_folder_costs_one_warning(self):
        open(self.folder, "w", encoding="utf-8").close()
        client_log_config.configure()
        LOG.debug("the program goes on")
        LOG.info("here too")
        warning, info = self.messages(self.shown())
        self.assertRegex(
            warning, r"^cannot write the log .*client\.log, going on without it: .*" + re.escape(self.folder)
        )
        self.assertEqual(info, "here too")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no device here is always full")
    def test_full_disk_costs_one_warning(self):
        os.mkdir(self.folder)
        os.symlink("/dev/full", self.log_file)
        client_log_config.configure()
        for text in ("one", "x" * 100_000, "three"):
            LOG.info(text)
        client_log_config.close()
        warnings = [line for line in self.shown() if " WARNING " in line]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertRegex(
            warnings[0], "cannot write the log .*client.log, going on without it: .*No space left on device"
        )
        self.assertEqual(len(self.shown()), 4)


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
        client_log_config.configure()
        self.assertEqual(os.listdir(self.folder), ["client.log"])

    def test_folder_that_is_there_is_used(self):
        os.mkdir(self.folder)
        client_log_config.configure()
        self.assertEqual(os.listdir(self.folder), ["client.log"])

    def test_lines_are_as_the_assignment_wants_them(self):
        client_log_config.configure()
        LOG.warning("from %s", "Жанна")
        for line in (*self.logged(), *self.shown()):
            self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING test_client from Жанна$")
        self.assertEqual((len(self.logged()), len(self.shown())), (1, 1))

    def test_levels(self):
        levels = ("DEBUG", "INFO", "WARNING", "ERROR")
        for number, level in enumerate(levels):
            with self.subTest(level=level):
                self.set_log_file(os.path.join(self.folder, level))
                client_log_config.configure(level)
                for each in levels:
                    LOG.log(getattr(logging, each), each)
                self.assertEqual(self.messages(self.logged()), list(levels[number:]))
        self.assertEqual(self.messages(self.shown()), list(levels[1:]) * 4)

    def test_everything_is_logged_by_default(self):
        client_log_config.configure()
        LOG.debug("a trace")
        self.assertEqual(self.messages(self.logged()), ["a trace"])

    def test_second_call_takes_the_place_of_the_first(self):
        client_log_config.configure()
        client_log_config.configure()
        LOG.info("once")
        self.assertEqual(self.messages(self.logged()), ["once"])
        self.assertEqual(self.messages(self.shown()), ["once"])

    def test_file_is_continued(self):
        for text in ("first", "second"):
            client_log_config.configure()
            LOG.info(text)
            client_log_config.close()
        self.assertEqual(self.messages(self.logged()), ["first", "second"])

    def test_file_is_utf8(self):
        client_log_config.configure()
        LOG.info("Жанна")
        client_log_config.close()
        with open(self.log_file, "rb") as log:
            self.assertIn("Жанна".encode(), log.read())

    def test_close_silences_the_logger(self):
        client_log_config.configure()
        client_log_config.close()
        LOG.error("nobody sees this")
        self.assertEqual((self.logged(), self.shown()), ([], []))
        self.assertFalse(LOG.isEnabledFor(logging.DEBUG))


class Main(LogCase, NetCase):
    """main: the script's work, from the command line to the exit code."""

    def run_main(self, *answers):
        """Run the client against a server with these answers; return its exit code and what is shown."""
        received = self.play_server(*answers)
        code = client.main(["127.0.0.1", str(self.port)])
        self.received = received
        return code, self.messages(self.shown())

    def test_accepted(self):
        for answer in (b'{"response": 200}', b'{"response": 202, "alert": "OK"}', b'{"response": 100}'):
            with self.subTest(answer=answer):
                code, shown = self.run_main(answer)
                self.assertEqual((code, shown[-1]), (0, answer.decode()[13:16] + " : OK"))

    def test_accepted_is_one_line(self):
        self.assertEqual(self.run_main(b'{"response": 200}'), (0, ["200 : OK"]))
        self.assertRegex(self.shown()[0], " INFO ")

    def test_refused(self):
        self.assertEqual(self.run_main(b'{"response": 400, "error": "no"}'), (1, ["400 : no"]))
        self.assertRegex(self.shown()[0], " ERROR ")

    def test_server_that_fails(self):
        self.assertEqual(self.run_main(b'{"response": 500}'), (1, ["500 : server error"]))

    def test_answer_that_is_not_jim(self):
        for answer, reason in (
            (b"hello", "a message is a JSON object and cannot start with 'h'"),
            (b'{"response": "200"}', "its response code is none of JIM's: '200'"),
            (b'{"response": NaN}', "not JSON: NaN is no number"),
            (b'{"response": 2', "the message is cut short"),
            (b'{"response": ' + b"1" * 1000, "the message is longer than 640 characters"),
        ):
            with self.subTest(answer=answer):
                code, shown = self.run_main(answer)
                self.assertEqual(
                    (code, shown[-1]), (1, f"127.0.0.1 port {self.port} does not speak JIM: {reason}")
                )

    def test_no_answer(self):
        told = f"127.0.0.1 port {self.port} closed the connection without an answer"
        self.assertEqual(self.run_main(), (1, [told]))

    def test_nobody_there(self):
        self.listener.close()
        code = client.main(["127.0.0.1", str(self.port)])
        told = f"nobody listens at 127.0.0.1 port {self.port}: is the server running?"
        self.assertEqual((code, self.messages(self.shown())), (1, [told]))
        self.assertRegex(self.shown()[0], " ERROR ")

    def test_silent_server(self):
        with mock.patch("client.EXCHANGE_TIMEOUT", 0.01):
            code = client.main(["127.0.0.1", str(self.port)])
        self.assertEqual(code, 1)
        self.assertRegex(self.shown()[0], "no answer from 127.0.0.1 port")

    def test_sends_jims_full_form(self):
        with mock.patch("client.time", Clock(NOW)):
            self.run_main(b'{"response": 200}')
        user = {"account_name": "Guest", "status": "Yep, I am here!"}
        self.assertEqual(self.received, [{"action": "presence", "time": NOW, "type": "status", "user": user}])

    def test_name_of_the_command_line_is_sent(self):
        received = self.play_server(b'{"response": 200}')
        client.main(["127.0.0.1", str(self.port), "-n", "Жанна"])
        self.assertEqual(received[0]["user"]["account_name"], "Жанна")

    def test_wrong_usage_is_exit_code_2(self):
        with self.assertRaises(SystemExit) as caught:
            client.main([])
        self.assertEqual(caught.exception.code, 2)

    def test_ctrl_c_is_one_line_and_exit_code_130(self):
        with mock.patch("client.exchange", side_effect=KeyboardInterrupt):
            self.assertEqual(client.main(["127.0.0.1"]), 130)
        self.assertEqual(self.messages(self.shown()), ["stopped by Ctrl+C"])
        self.assertRegex(self.shown()[0], " ERROR ")

    def test_log_tells_the_story(self):
        self.run_main(b'{"response": 200}')
        verbs = [message.split()[0] for message in self.messages(self.logged())]
        self.assertEqual(verbs, ["created", "connected", "sent", "received", "processed", "200"])

    def test_log_names_the_module_that_speaks(self):
        self.run_main(b'{"response": 200}')
        self.assertEqual({line.split()[3] for line in self.logged()}, {"client"})

    def test_log_tells_the_cause(self):
        self.listener.close()
        client.main(["127.0.0.1", str(self.port)])
        self.assertRegex(self.messages(self.logged())[-1], r"^the cause: ConnectionRefusedError\(\d+, ")

    def test_log_level_is_that_of_the_log_file(self):
        self.play_server(b'{"response": 200}')
        client.main(["127.0.0.1", str(self.port), "--log-level", "ERROR"])
        self.assertEqual(self.logged(), [])

    def test_log_is_closed_at_the_end(self):
        self.run_main(b'{"response": 200}')
        self.assertEqual([type(handler) for handler in LOG.handlers], [logging.NullHandler])


class Script(NetCase):
    """client.py as a person runs it, copied with its log module alone into an empty folder."""

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
        process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "dev",
                "-W",
                "error",
                os.path.join(self.folder, "client.py"),
                "127.0.0.1",
                str(self.port),
            ],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
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

    def test_refused_in_letters_that_the_console_has_not(self):
        process, sock = self.start()
        sock.sendall('{"response": 400, "error": "\N{CYRILLIC SMALL LETTER IO}"}'.encode())
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (1, 1), shown)
        self.assertTrue(shown.endswith(" ERROR client 400 : \\u0451\n"), shown)

    @unittest.skipIf(os.name == "nt", "Windows sends no such signal")
    def test_ctrl_c(self):
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        self.addCleanup(signal.signal, signal.SIGINT, ours)
        process, _ = self.start()
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, shown.count("\n")), (130, 1), shown)


if __name__ == "__main__":
    unittest.main()
