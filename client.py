"""JIM client: announces a user to a JIM server and shows its answer.

    python client.py <addr> [<port>]          for example: python client.py 127.0.0.1

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message ends
where its object closes: there is no delimiter, so one `recv` may return half a message, or three.
"""

from __future__ import annotations

import argparse
import json
import socket
import string
import sys
import threading
from time import monotonic, time

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
    """Return a presence message for `account_name`; with a `status`, in JIM's full form.

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
    100: "OK",
    101: "OK",
    200: "OK",
    201: "OK",
    202: "OK",
    400: "wrong request or JSON",
    401: "not authorised",
    402: "wrong login or password",
    403: "blocked",
    404: "no such user or chat",
    409: "already connected",
    410: "offline",
    500: "server error",
}
FIRST_REFUSAL = 400  # this code and those above it are refusals


def process_response(message: dict[str, object]) -> str:
    """Return a response as text, for example "200 : OK"; raise ProtocolError if it is not a valid one."""
    code = response_code(message)
    text = message.get("alert") or message.get("error") or DEFAULT_TEXTS[code]
    LOG.debug("processed a response, code %d", code)
    return f"{code} : {text}"


MISSING = object()  # marks a missing field: no value in JSON is this object


def response_code(message: dict[str, object]) -> int:
    """Return the code of a response; raise ProtocolError if it is missing or not one of JIM's."""
    if not isinstance(message, dict):
        raise wrong_type_error("message", message, "an object")
    code = message.get("response", MISSING)
    if isinstance(code, bool) or not isinstance(code, (int, float)):  # in Python, True is an int
        raise wrong_type_error("response", code, "a number")
    if isinstance(code, float) or code not in DEFAULT_TEXTS:  # 200.0 == 200, so the dict would accept it
        shown = str(code)[:20]
        raise ProtocolError(f"'response' is not one of JIM's codes: {shown}")
    return code


def check_string(name: str, value: object, longest: int) -> None:
    """Raise ProtocolError unless `value`, of the field `name`, is a string of 1 to `longest` characters."""
    if not isinstance(value, str):
        raise wrong_type_error(name, value, "a string")
    if not 1 <= len(value) <= longest:
        raise ProtocolError(f"'{name}' must be 1 to {longest} characters long, not {len(value)}")


JSON_TYPES = {  # what JSON calls the types that Python's parser returns
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def wrong_type_error(name: str, value: object, wanted: str) -> ProtocolError:
    """Return the error for a field that is missing or has another type than `wanted`."""
    if value is MISSING:
        return ProtocolError(f"'{name}' is missing")
    found = JSON_TYPES.get(type(value), "something else")
    return ProtocolError(f"'{name}' must be {wanted}, not {found}")


def refuse_constant(name: str) -> None:
    """Raise ProtocolError: `name` is NaN, Infinity or -Infinity, which are not JSON."""
    raise ProtocolError(f"not JSON: {name} is not a number")


# Python's parser accepts these three constants; it calls `refuse_constant` when it meets one.
DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def take_message(data: bytes) -> tuple[dict[str, object] | None, int]:
    """Return the message at the start of `data` and its length in bytes; (None, 0) if it is incomplete.

    Raises ProtocolError if `data` is not the beginning of a message, whatever may follow.
    """
    if not data:
        return None, 0
    text, has_bad_byte = decode_utf8(data)
    text = text[:MAX_MESSAGE]
    if text and text[0] != "{":
        raise ProtocolError(f"a message is a JSON object and cannot start with {text[0]!r}")
    try:
        # Like `json.loads`, but returns also the index where the object ends, and ignores what follows.
        message, end = DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not is_incomplete(text, error):
            raise ProtocolError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
        if len(text) == MAX_MESSAGE:
            raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters") from error
        if has_bad_byte:
            raise ProtocolError("the message is not UTF-8") from error
        return None, 0
    return message, len(text[:end].encode("utf-8"))


def decode_utf8(data: bytes) -> tuple[str, bool]:
    """Return the text of `data` up to the first byte that is not UTF-8, and whether there is such a byte.

    Half a character at the end is left out of the text: its other half may still arrive.
    """
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8")  # `start` is the index of the byte in question
        return text, error.reason != "unexpected end of data"


WORD_CHARACTERS = string.ascii_letters + string.digits + "+-.\\"  # of true, -1.5e+7, \u0416


def is_incomplete(text: str, error: json.JSONDecodeError) -> bool:
    r"""Return whether `text`, which the parser refused with `error`, may become JSON if more follows.

    It may if a string is still open, as in {"a": "b, or if the fault is in the last word, as in {"a": tru.
    It may not if the fault is further left, as in {"a": }.
    """
    if error.msg.startswith("Unterminated string"):
        return True
    last_word = len(text.rstrip(WORD_CHARACTERS))  # the index where it begins
    return error.pos >= last_word


# The wire: one message out and one in, over a connected socket.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical response and some more
WHITESPACE = b" \t\r\n"  # JSON's whitespace, which may surround a message


def send_message(sock: socket.socket, message: dict[str, object]) -> None:
    """Send `message`. Raises OSError; it is a ConnectionError if the server has closed the connection."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж": as \u0416 it would take 6 characters
    # "backslashreplace": a lone surrogate, which UTF-8 does not have, is sent as an escape such as \ud800.
    sock.sendall(text.encode("utf-8", "backslashreplace"))
    LOG.debug("sent %s", text)


def receive_message(sock: socket.socket) -> dict[str, object]:
    """Return the next message, however TCP splits it; ignore whatever follows it.

    Raises ProtocolError if it is not valid, ConnectionError if the server closes first, OSError.
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
    finally:  # log invalid input too: it explains the error
        LOG.debug("received %s", data.decode("utf-8", "backslashreplace") or "nothing")
    return message


# The conversation: one presence, one response.

EXCHANGE_TIMEOUT = 10.0  # seconds for the whole exchange, from the name of the server to its response
WAIT_STEP = 0.1  # seconds: how often to look for Ctrl+C, which on Windows does not end a wait


def connect(address: str, port: int) -> socket.socket:
    """Return a socket connected to the server; a name may have several addresses: the first that accepts.

    Raises OSError, and UnicodeError for a name that is impossible, such as "a..b".
    """
    # One address may use up half of the time, so that a second one has its chance.
    sock = socket.create_connection((address, port), timeout=EXCHANGE_TIMEOUT / 2)
    sock.settimeout(EXCHANGE_TIMEOUT)  # from here on, `exchange_in_time` limits the time
    LOG.debug("connected to %s port %d", address, port)
    return sock


def exchange(address: str, port: int, message: dict[str, object]) -> dict[str, object]:
    """Connect to a server, send `message` and return the response. Raises OSError, ValueError."""
    with connect(address, port) as sock:
        try:
            send_message(sock, message)
        except ConnectionError as error:  # some servers answer and close without reading the request
            LOG.debug("not sent, but perhaps answered: %r", error)
        return receive_message(sock)


def exchange_in_time(address: str, port: int, message: dict[str, object]) -> dict[str, object]:
    """Do what `exchange` does, within EXCHANGE_TIMEOUT; raise socket.timeout if it takes longer.

    The exchange runs in a thread, because looking up a name has no timeout and cannot be interrupted.
    """
    results: list[dict[str, object] | Exception] = []

    def work() -> None:
        """Leave the response, or the exception, in `results`."""
        try:
            results.append(exchange(address, port, message))
        except Exception as error:  # raised again below, in the main thread
            results.append(error)

    deadline = monotonic() + EXCHANGE_TIMEOUT
    thread = threading.Thread(target=work, daemon=True)  # daemon: Python can exit before the thread ends
    thread.start()
    while thread.is_alive() and monotonic() < deadline:
        thread.join(WAIT_STEP)  # returns earlier if the thread ends
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
    """Run one exchange and show its result; return the exit code: 0 accepted, 1 refused or failed."""
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
