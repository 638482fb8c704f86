"""JIM client: announces a user to a JIM server and shows its answer.

    python client.py <addr> [<port>]          for example: python client.py 127.0.0.1

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one directly after another. One `recv`
may return half of a message, or several messages. A message begins with { and ends with the } that closes it.

Both sides have some functions in common. Each file repeats them, so that each side can be copied alone.
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
MAX_BYTES = 4 * MAX_MESSAGE  # in UTF-8, a character takes at most 4 bytes
TIMEOUT = 10  # seconds for connecting, and again for the response
WAIT = 0.5  # seconds that one `recv` may wait: on Windows, Ctrl+C has no effect until `recv` returns
MAX_STEPS = 3000  # of `receive_response`: a server that sends without end must not fill the log

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


FIRST_REFUSAL = 400  # this code and all above it are refusals
MEANINGS = {  # JIM's codes; the meaning is shown if a response has no text of its own
    100: "OK", 101: "OK", 200: "OK", 201: "OK", 202: "OK",
    400: "wrong request or JSON", 401: "not authorised", 402: "wrong login or password", 403: "blocked",
    404: "no such user or chat", 409: "already connected", 410: "offline", 500: "server error",
}  # fmt: skip


def process_response(message: Message) -> str:
    """Return a response as text, for example "200 : OK"; raise ProtocolError if it has no valid code."""
    if "response" not in message:
        raise ProtocolError(f"'response' is missing, the keys are {repr(list(message))[:60]}")
    code = message["response"]
    if type(code) is not int or code not in MEANINGS:  # `in` alone: TypeError for a list, True for 200.0
        raise ProtocolError(f"'response' must be a number, one of JIM's codes, not {repr(code)[:20]}")
    text = message.get("alert") or message.get("error") or MEANINGS[code]
    LOG.debug("processed a response, code %d", code)
    return f"{code} : {text}"


# The wire: bytes in, messages out, and back.

RECEIVE_BYTES = 200  # bytes that one `recv` may return: a typical message and some more
IGNORED = b" \t\r\n\xef\xbb\xbf"  # around a message: whitespace, and a mark that some programs send first


def refuse_nan(constant: str) -> None:
    """Raise ProtocolError. PARSER calls this when it finds NaN or Infinity, which JSON does not allow."""
    raise ProtocolError(f"not JSON: {constant} is not allowed")


PARSER = json.JSONDecoder(parse_constant=refuse_nan)  # `json.loads`, except that it calls refuse_nan


def take_message(data: bytes) -> tuple[Message | None, bytes]:
    """Return the message at the start of `data`, and the bytes after it; (None, data) if it is incomplete.

    For example, b'{"a": 1} {"b' gives {"a": 1} and b'{"b'. Raises ProtocolError if the message is invalid.
    """
    data = data.lstrip(IGNORED)  # remove any of these bytes, in any order
    if data and not data.startswith(b"{"):
        raise ProtocolError(f"a message is a JSON object and cannot start with {data[:1]!r}")
    try:  # only for speed: usually, `data` is exactly one message. If not, go on below
        return parse_message(data), b""
    except ProtocolError:  # it is incomplete, or more follows, or it is invalid
        pass
    end = find_end(data[:MAX_BYTES])
    if end > 0:
        return parse_message(data[:end]), data[end:].lstrip(IGNORED)
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters")
    return None, data


def find_end(data: bytes) -> int:
    """Return the length of the message at the start of `data`: 10 for b'{"a": "}"} {'; 0 if incomplete."""
    depth = 0  # how many { are open
    in_string = False  # { and } in strings do not count
    escaped = False  # whether the character before was a backslash: then a " does not end the string
    # latin-1 makes each byte a character. In UTF-8, all bytes of other characters are above those of { } " \.
    for length, char in enumerate(data.decode("latin-1"), start=1):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
        elif char == "{" and not in_string:
            depth += 1
        elif char == "}" and not in_string:
            depth -= 1
            if depth == 0:
                return length
    return 0


def parse_message(data: bytes) -> Message:
    """Return the message in `data`. Raises ProtocolError if this is invalid, or not exactly one message."""
    try:
        text = data.decode("utf-8")
        if len(text) > MAX_MESSAGE:
            raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters")
        message: Message = PARSER.decode(text)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise ProtocolError(f"not JSON: {error}") from error
    return message


def send_message(sock: socket.socket, message: Message) -> None:
    """Send `message`. Raises OSError if the connection fails."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж" and does not become \u0416
    sock.sendall(text.encode("utf-8", "replace"))  # "?" for characters that the command line has garbled
    LOG.debug("sent %s", text)


def receive_response(sock: socket.socket) -> Message:
    """Return the server's response, in however many pieces it arrives; ignore what follows.

    Raises ProtocolError, ConnectionError if the server closes instead, and socket.timeout after TIMEOUT.
    """
    deadline = monotonic() + TIMEOUT
    data = b""  # received, but not yet a whole message
    for _ in range(MAX_STEPS):  # each step takes a message from `data`, or receives more
        message, data = take_message(data)
        if message is None:
            piece = receive_piece(sock, deadline)
            if not piece and data:
                raise ProtocolError("the message is cut short")
            if not piece:
                raise ConnectionError("the server has closed the connection")
            data += piece
        elif "action" in message and "response" not in message:  # a request, such as JIM's "probe"
            LOG.info("skipped a message that is not a response: %s", message)
        else:
            return message
    raise ProtocolError(f"there is no response in {MAX_STEPS} steps")


def receive_piece(sock: socket.socket, deadline: float) -> bytes:
    """Return the next bytes, or b"" if the server has closed; raise socket.timeout at `deadline`."""
    sock.settimeout(WAIT)  # from now on, `recv` raises socket.timeout if nothing arrives in this time
    while monotonic() < deadline:
        try:
            piece = sock.recv(RECEIVE_BYTES)
        except socket.timeout:  # only WAIT is over: look at the clock and try again
            continue
        LOG.debug("received %s", piece.decode("utf-8", "backslashreplace"))  # shows an invalid byte as \xff
        return piece
    raise socket.timeout("no response")


# The conversation: one presence, one response.


def exchange(address: str, port: int, message: Message) -> Message:
    """Return the response. Raises OSError, ProtocolError, or UnicodeError if the address is malformed."""
    with socket.create_connection((address, port), TIMEOUT) as sock:  # makes a socket and connects it
        LOG.debug("connected to %s port %d", address, port)
        send_message(sock, message)
        return receive_response(sock)


def describe_error(error: Exception, address: str, port: int) -> str:
    """Return one line for the user: what went wrong, and what to try."""
    server = f"{address} port {port}"
    if isinstance(error, ProtocolError):
        return f"{server} does not speak JIM: {error}"
    # gaierror: there is no such name. UnicodeError: no name can be like this, for example "a..b".
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"unknown server {address}: check it; write the port after a space, not after a colon"
    if isinstance(error, socket.timeout):
        return f"no answer from {server} in {TIMEOUT} s: does a JIM server run there?"
    if isinstance(error, ConnectionRefusedError):  # a kind of ConnectionError, so it must be tested first
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
    parser.add_argument("-v", "--verbose", action="store_true", help="show all records on the console")
    parser.add_argument("--log-level", choices=LEVELS, default="DEBUG", help="lowest level that is logged")
    arguments = parser.parse_args(argv)
    if arguments.addr.isdigit():
        parser.error(f"{arguments.addr} is not an address: give the address first, then the port")
    if not 1 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 1 to {MAX_PORT}, not {arguments.port}")
    if not 1 <= len(arguments.name) <= MAX_NAME:
        parser.error(f"a name has 1 to {MAX_NAME} characters, not {len(arguments.name)}")
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
    arguments = parse_args(argv)
    try:
        configure_log(arguments.log_level, arguments.verbose)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.error("stopped by Ctrl+C")
        return 130  # by convention, 128 + 2: Ctrl+C sends the signal number 2
    finally:
        close_log()


if __name__ == "__main__":
    sys.exit(main())
