"""JIM client: tells a server who is present, and the person what the server answers.

    python client.py <addr> [<port>]          for example: python client.py 127.0.0.1

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message
ends where its object closes; nothing else marks its end, so `recv` may well return half of one.
"""

from __future__ import annotations

import argparse
import codecs
import json
import logging
import re
import socket
import sys
import threading
from time import monotonic, time

from client_log_config import LEVELS, LOG, close, configure

DEFAULT_NAME = "Guest"  # the one name that every server of the course knows
DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_MESSAGE = 640  # characters of a whole message; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
WHITE_SPACE = " \t\r\n"  # what JSON allows between messages
ANY_CHARACTER = "\ufffd"  # stands for one beyond ASCII of which only the beginning is known
EXCHANGE_TIMEOUT = 10.0  # seconds from connecting to the whole answer: what a person waits for
RECEIVE_BYTES = 400  # bytes asked of one `recv`: a usual response and some more
STATUS = "Yep, I am here!"  # JIM's own example; some servers insist on a status

MEANINGS = {  # every code of JIM, and what stands for the text that its response lacks
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
FIRST_REFUSAL = 400  # this code and those above it say no

ADVICE = (  # for the person, by what went wrong: the first that fits
    (socket.gaierror, "unknown server {address}: check the name, or give an IP address"),
    (ValueError, "{address} port {port} does not speak JIM: {error}"),
    (socket.timeout, "no answer from {address} port {port} in {timeout:.0f} s: does a JIM server run there?"),
    (ConnectionRefusedError, "nobody listens at {address} port {port}: is the server running?"),
    (ConnectionError, "{address} port {port} closed the connection without an answer"),
    (OSError, "cannot reach {address} port {port}: {error}"),
)


class ProtocolError(ValueError):
    """What was received, or was to be sent, is not JIM; its text says why."""


# The protocol: nothing here knows of sockets.


def create_presence(account_name: str = DEFAULT_NAME, status: str | None = None) -> dict[str, object]:
    """Return the message that `account_name` is present, in JIM's full form if there is a `status`.

    Raises ProtocolError for a name that JIM does not allow and for a status that is no string.
    """
    presence: dict[str, object] = {"action": "presence", "time": time()}
    user = {"account_name": check_name(account_name)}
    if status is not None:
        if not isinstance(status, str):
            raise ProtocolError("a status has to be a string")
        presence["type"] = "status"
        user["status"] = status
    presence["user"] = user
    LOG.debug("created the presence of %s", account_name)
    return presence


def check_name(name: str) -> str:
    """Return `name` if it can name an account: a string of 1 to 25 characters, else raise ProtocolError."""
    if not isinstance(name, str):
        raise ProtocolError("an account name has to be a string")
    if not 1 <= len(name) <= MAX_NAME:
        raise ProtocolError(f"an account name has to have 1 to {MAX_NAME} characters, not {len(name)}")
    return name


def response_code(message: dict[str, object]) -> int:
    """Return the code of a response; raise ProtocolError if it has none, or one that JIM has not."""
    if not isinstance(message, dict) or "response" not in message:
        raise ProtocolError("its response has no code")
    code = message["response"]
    if not isinstance(code, int) or code not in MEANINGS:
        raise ProtocolError(f"its response code is none of JIM's: {code!r:.20}")
    return code


def process_response(message: dict[str, object]) -> str:
    """Return a response as one text, for example "200 : OK"; raise ProtocolError if it is none."""
    code = response_code(message)
    text = message.get("alert") or message.get("error") or MEANINGS[code]
    LOG.debug("processed the response %d", code)
    return f"{code} : {text}"


def refuse_constant(name: str) -> None:
    """Raise ProtocolError for NaN, Infinity and -Infinity, which Python's parser would let pass."""
    raise ProtocolError(f"not JSON: {name} is no number")


ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False)  # no message contains itself
DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def take_message(text: str) -> tuple[dict[str, object] | None, int]:
    """Return the message at the start of `text` and its length, or (None, 0) while it is not whole.

    Raises ProtocolError at once when `text` is no message and no more text can make it one.
    """
    text = text[:MAX_MESSAGE]
    try:
        message, length = DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        check_unfinished(text, error)
        return None, 0
    except RecursionError:
        raise ProtocolError("the message is nested too deep") from None
    if not text.isascii():
        check_utf8(text[:length])
    if not isinstance(message, dict):
        raise not_an_object(text)
    return message, length


def not_an_object(text: str) -> ProtocolError:
    """Return the error that `text` begins something other than a JSON object."""
    return ProtocolError(f"a message is a JSON object and cannot start with {text[0]!r}")


def check_unfinished(text: str, error: json.JSONDecodeError) -> None:
    """Raise ProtocolError unless `text`, at which the parser failed with `error`, lacks but its end."""
    check_utf8(text)
    if text[:1] not in ("", "{"):
        raise not_an_object(text)
    if not is_unfinished(text):
        raise ProtocolError(f"not JSON: {error.msg} at character {error.pos + 1}")
    if len(text) == MAX_MESSAGE:
        raise ProtocolError(f"the message is longer than {MAX_MESSAGE} characters")


def check_utf8(text: str) -> None:
    """Raise ProtocolError if `text` holds what stands for bytes that are not UTF-8.

    That is a lone surrogate for each of them (the decoder's error handler "surrogateescape").
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError("the message is not UTF-8") from None


def check_cut(text: str, cut: bytes) -> None:
    """Raise ProtocolError if no message goes on, after `text`, with a character that begins with `cut`.

    Python's decoder waits for the rest of any character, also of a surrogate, which UTF-8 has not.
    """
    if b"\xed\xa0" <= cut < b"\xee":
        raise ProtocolError("the message is not UTF-8")
    take_message(text + ANY_CHARACTER)


def is_unfinished(text: str) -> bool:
    """Tell whether `text` is good JSON as far as it goes, so that only its end is missing.

    What the end may have cut in two is mended first; if the parser then stumbles over nothing
    but the end itself, there is no fault before it.
    """
    mended = mend_end(text).rstrip(WHITE_SPACE)
    try:
        DECODER.raw_decode(mended)
    except json.JSONDecodeError as error:
        return error.pos == len(mended)
    return False


OPEN_STRING = (
    r'((?:[^"]|"(?:[^"\\]|\\.)*")*'  # strings that are closed, what is between them, and then one ...
    r'"(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)'  # ... that is open, as far as its characters are whole ...
    r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?"  # ... and at its end perhaps the beginning of an escape
)
CUT_VALUE = (
    r"(?<![\w.+-])"  # from its very beginning ...
    r"(?:t|tr|tru|f|fa|fal|fals|n|nu|nul"  # ... a word or ...
    r"|-|-?(?:0|[1-9][0-9]*)(?:\.|(?:\.[0-9]+)?[eE][+-]?))\Z"  # ... a number that wants more
)


def mend_end(text: str) -> str:
    """Return `text` with the string closed, or the word or number replaced, that its end cut in two."""
    string = re.fullmatch(OPEN_STRING, text, re.DOTALL)
    if string:
        return string.group(1) + '"'
    return re.sub(CUT_VALUE, "0", text)


# The wire: one message out and one in, over a connected socket.


def send_message(sock: socket.socket, message: dict[str, object], deadline: float | None = None) -> None:
    """Send all of `message` before `deadline`, on the clock `monotonic` (EXCHANGE_TIMEOUT from now).

    Raises OSError: socket.timeout when it is too late, ConnectionError when the server is gone.
    """
    text = ENCODER.encode(message)
    sock.settimeout(seconds_to(deadline or start_deadline()))
    sock.sendall(text.encode("utf-8", "backslashreplace"))  # a lone surrogate goes as JSON's \udXXX
    LOG.debug("sent %s", text)


def receive_message(sock: socket.socket, deadline: float | None = None) -> dict[str, object]:
    """Return the next message, in however many pieces it arrives; what comes with it is dropped.

    All of it has to arrive before `deadline`, as in `send_message`. Raises ProtocolError as soon as what
    arrives can be no message, ConnectionError when the server leaves instead, and socket.timeout.
    """
    deadline = deadline or start_deadline()
    cut, text, message = b"", "", None  # `cut`: the beginning of a character, the rest is still to come
    try:
        while message is None:
            sock.settimeout(seconds_to(deadline))
            piece = sock.recv(RECEIVE_BYTES)
            data = cut + piece
            letters, used = codecs.utf_8_decode(data, "surrogateescape", not piece)
            cut, text = data[used:], (text + letters).lstrip(WHITE_SPACE)
            message, _ = take_message(text)  # what follows it is dropped
            if message is None and cut:
                check_cut(text, cut)
            if message is None and not piece:
                raise ProtocolError("the message is cut short") if text else ConnectionError("no answer")
    finally:
        LOG.debug("received %s", text or "nothing")  # what is no message, too: it explains the refusal
    return message


def start_deadline() -> float:
    """Return the time, on the clock `monotonic`, at which an exchange that starts now is too late."""
    return monotonic() + EXCHANGE_TIMEOUT


def seconds_to(deadline: float) -> float:
    """Return how long it is to `deadline`; raise socket.timeout if it is past."""
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise socket.timeout("too late")
    return seconds


# The conversation: one presence, one response.


def resolve(address: str, port: int, flags: int = 0) -> list[tuple[int, tuple[object, ...]]]:
    """Return the family and the socket address of each place that `address` stands for, if it is known."""
    host = address.encode() if address.isascii() else address  # bytes: no IDNA tables to import
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return []
    return [(family, where) for family, _, _, _, where in found]


def look_up(address: str, port: int, deadline: float) -> list[tuple[int, tuple[object, ...]]]:
    """Return the places that `address` stands for: one if it is an IP address, all if it is a name.

    A name is asked for in a thread, since `getaddrinfo` knows no time limit and no Ctrl+C.
    Raises socket.gaierror for an unknown name, socket.timeout.
    """
    places = resolve(address, port, socket.AI_NUMERICHOST)
    if not places:
        thread = threading.Thread(target=lambda: places.extend(resolve(address, port)), daemon=True)
        thread.start()
        thread.join(seconds_to(deadline))
    if not places:
        seconds_to(deadline)  # raises socket.timeout if the answer is only late
        raise socket.gaierror("unknown name")
    return places


def dial(family: int, where: tuple[object, ...], seconds: float) -> socket.socket:
    """Return a socket connected to `where` within that many seconds; raise OSError if that fails."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    LOG.debug("connected to %s port %s", *where[:2])
    return sock


def connect(address: str, port: int, deadline: float) -> socket.socket:
    """Return a socket connected to the first place where somebody listens.

    Each place but the last may take half of the time that is left. Raises what `look_up` does,
    and the OSError of the last place.
    """
    *others, last = look_up(address, port, deadline)
    for place in others:
        try:
            return dial(*place, seconds_to(deadline) / 2)
        except OSError as error:
            LOG.debug("no connection to %s: %s", place, error)
    return dial(*last, seconds_to(deadline))


def exchange(address: str, port: int, message: dict[str, object]) -> dict[str, object]:
    """Send `message` to a server and return what it answers, all of it within EXCHANGE_TIMEOUT.

    A server may answer and leave without having listened. Raises OSError and ProtocolError, as
    `connect`, `send_message` and `receive_message` do.
    """
    deadline = start_deadline()
    with connect(address, port, deadline) as sock:
        try:
            send_message(sock, message, deadline)
        except ConnectionError as error:
            LOG.debug("not sent, but perhaps answered before: %r", error)
        return receive_message(sock, deadline)


def explain(error: Exception, address: str, port: int) -> str:
    """Return one sentence for the person: what went wrong with the exchange, and what to try."""
    advice = next(advice for kind, advice in ADVICE if isinstance(error, kind))
    return advice.format(error=error, address=address, port=port, timeout=EXCHANGE_TIMEOUT)


# The command line.


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; with wrong ones say so and exit with code 2."""
    parser = argparse.ArgumentParser(description="Tell a JIM server who is present, and show its answer.")
    parser.add_argument("addr", help="IP address or name of the server")
    parser.add_argument(
        "port", nargs="?", type=int, default=DEFAULT_PORT, help="its TCP port (default: %(default)s)"
    )
    parser.add_argument("-n", "--name", default=DEFAULT_NAME, help="account name (default: %(default)s)")
    level = "least level that the log file takes: DEBUG, INFO, WARNING or ERROR (default: %(default)s)"
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, default=LEVELS[0], help=level)
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 1 to {MAX_PORT}, not {arguments.port}")
    try:
        check_name(arguments.name)
    except ProtocolError as error:
        parser.error(str(error))
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Tell the server who is present, and the person what came of it; return the exit code."""
    try:
        presence = create_presence(arguments.name, STATUS)
        response = exchange(arguments.addr, arguments.port, presence)
        answer = process_response(response)
    except (OSError, ValueError) as error:
        LOG.error(explain(error, arguments.addr, arguments.port))
        LOG.debug("the cause: %r", error)
        return 1
    refused = response_code(response) >= FIRST_REFUSAL
    LOG.log(logging.ERROR if refused else logging.INFO, answer)
    return 1 if refused else 0


def main(argv: list[str] | None = None) -> int:
    """Run the client as the command line asks; return its exit code, 130 after Ctrl+C."""
    try:
        arguments = parse_args(argv)
        configure(arguments.log_level)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.error("stopped by Ctrl+C")
        return 130
    finally:
        close()


if __name__ == "__main__":
    sys.exit(main())
