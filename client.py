"""JIM client: announces a user to a JIM server and shows its answer.

    python client.py <addr> [<port>]          for example: python client.py 127.0.0.1

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message ends
where its object closes: nothing separates messages, and one `recv` may return half of one, or three.
"""

from __future__ import annotations

import argparse
import json
import socket
import string
import sys
import threading
from time import monotonic, time  # monotonic: a clock for measuring, which never jumps

from client_log_config import LEVELS, LOG, close_log, configure_log

DEFAULT_NAME = "Guest"  # the one name that every server of the course knows
DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_MESSAGE = 640  # characters of a whole message; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
STATUS = "Yep, I am here!"  # JIM's own example; some servers insist on a status


class ProtocolError(ValueError):
    """Raised for a message that is not valid JIM; the text says why."""


# The protocol: no sockets here.


def create_presence(account_name: str = DEFAULT_NAME, status: str | None = None) -> dict[str, object]:
    """Return a presence message, which tells a server that the user `account_name` is here.

    With a `status`, which is optional, it has the same fields as the example in JIM's specification.
    Raises ProtocolError for an invalid name or a status that is not a string.
    """
    check_string("account_name", account_name, MAX_NAME)
    user: dict[str, object] = {"account_name": account_name}
    presence: dict[str, object] = {"action": "presence", "time": time()}
    if status is not None:
        if not isinstance(status, str):
            raise wrong_type_error("status", status, "a string")
        user["status"] = status
        presence["type"] = "status"
    presence["user"] = user
    LOG.debug("created a presence of %s", account_name)
    return presence


DEFAULT_TEXTS = {  # JIM's codes, and the text to show when a response has none
    100: "OK", 101: "OK",
    200: "OK", 201: "OK", 202: "OK",
    400: "wrong request or JSON", 401: "not authorised", 402: "wrong login or password", 403: "blocked",
    404: "no such user or chat", 409: "already connected", 410: "offline",
    500: "server error",
}  # fmt: skip
FIRST_REFUSAL = 400  # this code and those above it are refusals


def process_response(message: dict[str, object]) -> str:
    """Return a response as text, for example "200 : OK"; raise ProtocolError if it is not a valid one."""
    code = response_code(message)
    text = message.get("alert") or message.get("error") or DEFAULT_TEXTS[code]
    LOG.debug("processed a response, code %d", code)
    return f"{code} : {text}"


MISSING = object()  # stands for a missing field; None cannot, because that is JSON's null in Python


def response_code(message: dict[str, object]) -> int:
    """Return the code of a response; raise ProtocolError if it is missing or not one of JIM's."""
    if not isinstance(message, dict):
        raise wrong_type_error("message", message, "an object")
    code = message.get("response", MISSING)
    if isinstance(code, bool) or not isinstance(code, (int, float)):  # in Python, True is an int
        raise wrong_type_error("response", code, "a number")  # also if it is missing
    # No code is a float; but 200.0 == 200 in Python, so `in` alone would accept 200.0.
    if isinstance(code, float) or code not in DEFAULT_TEXTS:
        shown = str(code)[:20]  # it may have hundreds of digits
        raise ProtocolError(f"'response' is not one of JIM's codes: {shown}")
    return code


def check_string(name: str, value: object, longest: int) -> None:
    """Raise ProtocolError unless `value`, of the field `name`, is a string of 1 to `longest` characters."""
    if not isinstance(value, str):
        raise wrong_type_error(name, value, "a string")
    if not 1 <= len(value) <= longest:
        raise ProtocolError(f"'{name}' must be 1 to {longest} characters long, not {len(value)}")


JSON_TYPES = {  # what JSON calls the types that Python's parser returns
    dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number",
    bool: "a boolean", type(None): "null",
}  # fmt: skip


def wrong_type_error(name: str, value: object, wanted: str) -> ProtocolError:
    """Return the error for a field that is missing or has another type than `wanted`."""
    if value is MISSING:
        return ProtocolError(f"'{name}' is missing")
    found = JSON_TYPES.get(type(value), "something else")
    return ProtocolError(f"'{name}' must be {wanted}, not {found}")


def refuse_constant(name: str) -> None:
    """Raise ProtocolError for `name`, which is NaN, Infinity or -Infinity: these are not JSON."""
    raise ProtocolError(f"not JSON: {name} is not a number")


# Usually, Python's parser accepts these three words; this one calls `refuse_constant` instead.
DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def decode_utf8(data: bytes) -> tuple[str, bool]:
    """Return the text of `data` up to the first invalid byte, and whether there is an invalid byte.

    Half a character at the end of `data` is not invalid: its other half may still arrive.
    """
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8")  # `start` is the index of the first byte that failed
        is_half_a_character = error.reason == "unexpected end of data"  # Python's words for it
        return text, not is_half_a_character


# The characters of JSON's words, such as true, and of its numbers, such as -1.5e+7.
WORD_CHARACTERS = string.ascii_letters + string.digits + "+-."


def is_incomplete(text: str, error: json.JSONDecodeError) -> bool:
    """Return whether more characters could complete `text`, which the parser refused with `error`.

    They could if the parser stopped at the end or in the last word; if it stopped earlier, `text` is wrong.
    """
    if error.msg.startswith("Unterminated string"):  # a string is still open
        return True
    # `error.pos` is the index where the parser stopped. Examples:
    #     {"a":           at 5, which is the end: incomplete
    #     {"a": tru       at 6, where the last word starts: incomplete (as trux is, until more follows)
    #     {"a": "\u04     at 8, where the last word, u04, starts: incomplete
    #     {"a": }         at 6, before the end, which is 7: wrong
    start_of_last_word = len(text.rstrip(WORD_CHARACTERS))  # `rstrip` removes these characters from the end
    return error.pos >= start_of_last_word


def take_message(data: bytes) -> tuple[dict[str, object] | None, int]:
    """Return the message at the start of `data` and its length in bytes; (None, 0) if it is incomplete.

    `data` must not begin with whitespace. Raises ProtocolError if no further bytes could make it valid.
    """
    if not data:
        return None, 0
    text, has_invalid_byte = decode_utf8(data)
    text = text[:MAX_MESSAGE]  # a valid message is never longer
    if text and text[0] != "{":  # `text` is empty if its first character is cut or invalid: see below
        raise ProtocolError(f"a message is a JSON object and cannot start with {text[0]!r}")
    try:
        # Like `json.loads`, but it ignores what follows the object, and also returns the index of its end.
        message, end = DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not is_incomplete(text, error):
            raise ProtocolError(f"not JSON at character {error.pos + 1}: {error.msg}") from error
        if len(text) == MAX_MESSAGE:  # and the object has still not ended
            raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters") from error
        if has_invalid_byte:  # inside the object, since that has not ended
            raise ProtocolError("the message is not UTF-8") from error
        return None, 0  # none of the three faults: the object is only incomplete
    return message, len(text[:end].encode("utf-8"))  # `end` counts characters, the caller wants bytes


# The wire: one message out and one in, over a connected socket.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical response and some more
WHITESPACE = b" \t\r\n"  # JSON's whitespace, which may surround a message


def send_message(sock: socket.socket, message: dict[str, object]) -> None:
    """Send `message`. Raises OSError; it is a ConnectionError if the server has closed the connection."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж": as \u0416 it would take 6 characters
    # A damaged name may hold a code such as \ud800, which UTF-8 cannot encode: "backslashreplace" sends it
    # as these six characters, which JSON understands.
    sock.sendall(text.encode("utf-8", "backslashreplace"))
    LOG.debug("sent %s", text)


def receive_message(sock: socket.socket) -> dict[str, object]:
    """Return the next message, however TCP splits it; ignore whatever follows it.

    Raises ProtocolError if it is not valid, ConnectionError if the server closes instead, and OSError.
    """
    data = b""
    message = None
    try:
        while message is None:
            piece = sock.recv(RECEIVE_BYTES)
            if not piece and data:
                raise ProtocolError("the message is cut short")
            if not piece:
                raise ConnectionError("the server closed the connection without an answer")
            data = (data + piece).lstrip(WHITESPACE)
            message, _ = take_message(data)
    finally:  # log the data even after an error; an invalid byte appears as \xff
        LOG.debug("received %s", data.decode("utf-8", "backslashreplace") or "nothing")
    return message


# The conversation: one presence, one response.

EXCHANGE_TIMEOUT = 10.0  # seconds for everything, from looking up the server's name to its response
WAIT_STEP = 0.1  # seconds of one wait: on Windows, Ctrl+C is noticed only when a wait is over


def connect(address: str, port: int) -> socket.socket:
    """Connect to a server and return the socket; if its name has several addresses, try them in turn.

    Raises OSError, and UnicodeError for a name that is impossible, such as "a..b".
    """
    # Spend at most half of the time on one address, so that there is time for a second one.
    sock = socket.create_connection((address, port), timeout=EXCHANGE_TIMEOUT / 2)
    sock.settimeout(EXCHANGE_TIMEOUT)  # the shorter timeout was for connecting only
    LOG.debug("connected to %s port %d", address, port)
    return sock


def exchange(address: str, port: int, message: dict[str, object]) -> dict[str, object]:
    """Connect to a server, send `message` and return the response. Raises OSError, ValueError."""
    with connect(address, port) as sock:
        try:
            send_message(sock, message)
        except ConnectionError as error:  # some servers answer and close without reading the request
            LOG.debug("could not send, but the server may have answered: %r", error)
        return receive_message(sock)


def exchange_in_time(address: str, port: int, message: dict[str, object]) -> dict[str, object]:
    """Do what `exchange` does, within EXCHANGE_TIMEOUT; raise socket.timeout if it takes longer.

    The exchange runs in a thread, because looking up a name has no timeout and cannot be interrupted.
    """
    # The thread leaves its result here, because it cannot return one.
    results: list[dict[str, object] | Exception] = []

    def work() -> None:
        """Put the response, or the exception, into `results`."""
        try:
            results.append(exchange(address, port, message))
        except Exception as error:  # raised again below, in the main thread
            results.append(error)

    deadline = monotonic() + EXCHANGE_TIMEOUT
    thread = threading.Thread(target=work, daemon=True)  # daemon: Python can exit while it still runs
    thread.start()  # from here on, `work` runs at the same time as the lines below
    while thread.is_alive() and monotonic() < deadline:
        thread.join(WAIT_STEP)  # wait for its end, but not long, or Ctrl+C would have to wait, too
    if not results:
        raise socket.timeout("timed out")
    result = results[0]
    if isinstance(result, Exception):
        raise result
    return result


ADVICE = (  # what to tell the user, by kind of error; the first match wins, so subclasses come first
    (socket.gaierror, "unknown server {address}: check the name, or give an IP address"),
    (UnicodeError, "unknown server {address}: check the name, or give an IP address"),
    (ValueError, "{address} port {port} does not speak JIM: {error}"),
    (socket.timeout, "no answer from {address} port {port} in {waited:.0f} s: does a JIM server run there?"),
    (ConnectionRefusedError, "nothing is listening on {address} port {port}: is the server running?"),
    (ConnectionError, "{address} port {port} closed the connection without an answer"),
    (OSError, "cannot reach {address} port {port}: {error}"),
)


def describe_error(error: Exception, address: str, port: int, waited: float) -> str:
    """Return one line for the user: what went wrong after `waited` seconds, and what to try."""
    matches = [advice for kind, advice in ADVICE if isinstance(error, kind)]
    return matches[0].format(error=error, address=address, port=port, waited=waited)


# The command line.


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; on a usage error print it and exit with code 2."""
    parser = argparse.ArgumentParser(description="Announce a user to a JIM server and show its answer.")
    parser.add_argument("addr", help="IP address or name of the server")
    parser.add_argument(
        "port", nargs="?", type=int, default=DEFAULT_PORT, help="TCP port (default: %(default)s)"
    )
    parser.add_argument("-n", "--name", default=DEFAULT_NAME, help="account name (default: %(default)s)")
    level = "lowest level written to the log file: DEBUG, INFO, WARNING or ERROR (default: %(default)s)"
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, default="DEBUG", help=level)
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 1 to {MAX_PORT}, not {arguments.port}")
    try:
        check_string("account_name", arguments.name, MAX_NAME)
    except ProtocolError as error:
        parser.error(f"argument -n/--name: {error}")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Run one exchange and log its result, also to the console; return 0 if accepted, 1 otherwise."""
    start = monotonic()
    try:
        presence = create_presence(arguments.name, STATUS)
        response = exchange_in_time(arguments.addr, arguments.port, presence)
        answer = process_response(response)
    except (OSError, ValueError) as error:
        LOG.error(describe_error(error, arguments.addr, arguments.port, monotonic() - start))
        LOG.debug("the cause: %r", error)
        return 1
    if response_code(response) >= FIRST_REFUSAL:
        LOG.error(answer)
        return 1
    LOG.info(answer)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the client; return its exit code, which is 130 after Ctrl+C."""
    try:
        arguments = parse_args(argv)
        configure_log(arguments.log_level)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.error("stopped by Ctrl+C")
        return 130
    finally:
        close_log()


if __name__ == "__main__":
    sys.exit(main())
