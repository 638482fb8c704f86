"""JIM client: announces a user to a JIM server and shows its answer.

    python client.py <addr> [<port>]          for example: python client.py 127.0.0.1

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one directly after another. One `recv`
may return half of a message, or several messages. A message begins with { and ends with the } that closes it.

Client and server have some functions in common. Both files repeat them, so that each can be copied alone.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from time import monotonic, time  # monotonic: a clock that nobody can set, for measuring
from typing import Any, Dict

from client_log_config import LEVELS, LOG, close_log, configure_log

DEFAULT_NAME = "Guest"
DEFAULT_PORT = 7777  # from the assignment
STATUS = "Yep, I am here!"  # JIM's own example
MAX_PORT = 65535  # from TCP
MAX_NAME = 25  # characters of an account name; from JIM
MAX_MESSAGE = 640  # characters of a message; from JIM
EXCHANGE_TIMEOUT = 10  # seconds for connecting, sending and receiving
STEP = 0.5  # seconds that one `recv` waits: on Windows, Ctrl+C has no effect before it returns

Message = Dict[str, Any]  # a JSON object: its fields by name, with values of any type


class ProtocolError(ValueError):
    """A message is not valid JIM; the text says why."""


# The protocol: the message to send, and what the response means.


def create_presence(account_name: str = DEFAULT_NAME, status: str | None = None) -> Message:
    """Return a presence message: it tells a server that the user `account_name` is here."""
    presence: Message = {"action": "presence", "time": time(), "user": {"account_name": account_name}}
    if status is not None:  # optional in JIM, but some servers insist on it
        presence["type"] = "status"
        presence["user"]["status"] = status
    LOG.debug("created a presence of %s", account_name)
    return presence


MEANINGS = {  # JIM's codes; the meaning is shown if a response has no text of its own
    100: "OK", 101: "OK", 200: "OK", 201: "OK", 202: "OK",
    400: "wrong request or JSON", 401: "not authorised", 402: "wrong login or password", 403: "blocked",
    404: "no such user or chat", 409: "already connected", 410: "offline", 500: "server error",
}  # fmt: skip
FIRST_REFUSAL = 400  # this code and all above it are refusals


def process_response(message: Message) -> str:
    """Return a response as text, for example "200 : OK"; raise ProtocolError if it has no valid code."""
    if "response" not in message:
        raise ProtocolError("'response' is missing")
    code = message["response"]
    if not isinstance(code, int) or code not in MEANINGS:  # first the type: `[] in MEANINGS` raises TypeError
        shown = repr(code)[:20]  # it may be very long
        raise ProtocolError(f"'response' must be a number, one of JIM's codes, not {shown}")
    text = message.get("alert") or message.get("error") or MEANINGS[code]
    LOG.debug("processed a response, code %d", code)
    return f"{code} : {text}"


# The wire: bytes in, messages out, and back.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical message and some more
MAX_STEPS = 3000  # then the client gives up: a server that sends without end must not fill the log
WHITESPACE = b" \t\r\n"  # JSON allows it before and after a message


def refuse_nan(constant: str) -> None:
    """Raise ProtocolError. PARSER calls this with "NaN" or "Infinity", which JSON does not allow."""
    raise ProtocolError(f"not JSON: {constant} is not allowed")


PARSER = json.JSONDecoder(parse_constant=refuse_nan)  # otherwise the same as in `json.loads`


def take_message(data: bytes) -> tuple[Message | None, bytes]:
    """Return the message at the start of `data`, and the bytes after it; (None, data) if it is incomplete.

    For example, b'{"a": 1} {"b' gives {"a": 1} and b' {"b'. Raises ProtocolError if the message is not a
    JSON object in UTF-8 of at most MAX_MESSAGE characters.
    """
    data = data.lstrip(WHITESPACE)
    if data and not data.startswith(b"{"):
        raise ProtocolError(f"a message is a JSON object and cannot start with {data[:1]!r}")
    # "replace": bytes that are not UTF-8 become "\ufffd". At the end, this may be only half a character.
    text = data.decode("utf-8", "replace")[:MAX_MESSAGE]
    try:
        # Like `loads`, but `raw_decode` allows more text after the message and also returns where it ends.
        message, end = PARSER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not is_incomplete(text):
            raise ProtocolError(f"not JSON at character {error.pos + 1}: {error.msg}") from error
        if len(text) == MAX_MESSAGE:
            raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters") from error
        return None, data
    used = text[:end].encode("utf-8")  # encode it again: this gives other bytes if some have been replaced
    if not data.startswith(used):
        raise ProtocolError("the message is not UTF-8")
    return message, data[len(used) :]


def is_incomplete(text: str) -> bool:
    """Return whether the first bracket of `text` is still open, and none is closed by the wrong kind: {]."""
    # Escaped backslashes and quotes do not end a string: put another escape, \n, in their place.
    text = text.replace(r"\\", r"\n").replace(r"\"", r"\n")
    open_brackets = []
    in_string = False  # brackets in strings do not count
    for char in text:
        if char == '"':
            in_string = not in_string
        elif char == "\\" and not in_string:  # no further text can make this valid
            return False
        elif char in "{[" and not in_string:
            open_brackets.append(char)
        elif char in "}]" and not in_string:
            pair = open_brackets.pop() + char
            if pair not in ("{}", "[]"):  # the wrong kind
                return False
            if not open_brackets:  # the first bracket is closed
                return False
    return True


def send_message(sock: socket.socket, message: Message) -> None:
    """Send `message`. Raises OSError if the connection fails."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж" and does not become \u0416
    sock.sendall(text.encode("utf-8"))
    LOG.debug("sent %s", text)


def receive_response(sock: socket.socket, deadline: float) -> Message:
    """Return the server's response, in however many pieces it arrives; ignore what follows it.

    Raises ProtocolError if it is invalid, ConnectionError if the server closes instead, socket.timeout
    when `monotonic()` reaches `deadline`, and OSError if the connection fails.
    """
    data = b""
    for _ in range(MAX_STEPS):  # in each step, either take a message from `data` or receive more
        message, data = take_message(data)
        if message is None:
            piece = receive_piece(sock, deadline)
            if not piece and data:
                raise ProtocolError("the message is cut short")
            if not piece:
                raise ConnectionError("the server has closed the connection")
            data += piece
        elif "action" in message:  # it is a request, such as JIM's "probe"
            LOG.debug("skipped a request")
        else:
            return message
    raise ProtocolError(f"there is no response in {MAX_STEPS} steps")


def receive_piece(sock: socket.socket, deadline: float) -> bytes:
    """Return the next bytes, or b"" if the server has closed; raise socket.timeout at `deadline`."""
    sock.settimeout(STEP)  # from now on, `recv` raises socket.timeout if nothing arrives in this time
    while monotonic() < deadline:
        try:
            piece = sock.recv(RECEIVE_BYTES)
        except socket.timeout:  # look at the clock and try again
            continue
        LOG.debug("received %s", piece.decode("utf-8", "backslashreplace"))  # shows an invalid byte as \xff
        return piece
    raise socket.timeout


# The conversation: one presence, one response.


def exchange(address: str, port: int, message: Message) -> Message:
    """Return the response of a server to `message`. Raises OSError, ProtocolError, UnicodeError."""
    deadline = monotonic() + EXCHANGE_TIMEOUT
    # `create_connection` makes a socket and connects it; it takes IPv4 and IPv6 addresses, and names.
    with socket.create_connection((address, port), EXCHANGE_TIMEOUT) as sock:
        LOG.debug("connected to %s port %d", address, port)
        send_message(sock, message)
        return receive_response(sock, deadline)


def describe_error(error: Exception, address: str, port: int) -> str:
    """Return one line for the user: what went wrong, and what to try."""
    server = f"{address} port {port}"
    if isinstance(error, ProtocolError):
        return f"{server} does not speak JIM: {error}"
    if isinstance(error, (socket.gaierror, UnicodeError)):  # no such name; no possible name, as a..b
        return f"unknown server {address}: check the name, or give an IP address"
    if isinstance(error, socket.timeout):
        return f"no answer from {server} in {EXCHANGE_TIMEOUT} s: does a JIM server run there?"
    if isinstance(error, ConnectionRefusedError):  # first this kind of ConnectionError, then the others
        return f"nothing is listening on {server}: is the server running?"
    if isinstance(error, ConnectionError):
        return f"{server} closed the connection without an answer"
    return f"cannot reach {server}: {error}"


# The command line.


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; on a usage error print it and exit with code 2."""
    parser = argparse.ArgumentParser(description="Announce a user to a JIM server and show its answer.")
    parser.add_argument("addr", help="IP address or name of the server")
    parser.add_argument("port", nargs="?", type=int, default=DEFAULT_PORT, help="port (default: %(default)s)")
    parser.add_argument("-n", "--name", default=DEFAULT_NAME, help="account name (default: %(default)s)")
    parser.add_argument("--log-level", choices=LEVELS, default="DEBUG", help="lowest level in the log file")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 1 to {MAX_PORT}, not {arguments.port}")
    if not 1 <= len(arguments.name) <= MAX_NAME or not arguments.name.isprintable():
        parser.error(f"a name is 1 to {MAX_NAME} printable characters, not {arguments.name!r}")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Run one exchange and log its result, also to the console; return 0 if accepted, 1 otherwise."""
    presence = create_presence(arguments.name, STATUS)
    try:
        response = exchange(arguments.addr, arguments.port, presence)
        answer = process_response(response)
    except (OSError, ProtocolError, UnicodeError) as error:
        LOG.error(describe_error(error, arguments.addr, arguments.port))
        return 1
    if response["response"] >= FIRST_REFUSAL:
        LOG.error(answer)
        return 1
    LOG.info(answer)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the client; return its exit code."""
    try:
        arguments = parse_args(argv)
        configure_log(arguments.log_level)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.error("stopped by Ctrl+C")
        return 130  # by convention, 128 + 2: Ctrl+C sends the signal number 2
    finally:
        close_log()


if __name__ == "__main__":
    sys.exit(main())
