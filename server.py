"""JIM server: answers the presence messages of any number of clients at once, in one thread.

    python server.py [-p <port>] [-a <addr>]          Ctrl+C stops it

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message
ends where its object closes; nothing else marks its end, so `recv` may well return half of one.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import json
import re
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from time import monotonic, time
from types import FrameType
from typing import NoReturn

from server_log_config import LEVELS, LOG, LOG_FILE, close, configure, write_out

DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_MESSAGE = 640  # characters of a whole message; from JIM
MAX_ACTION = 15  # characters of an action; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
MAX_TIME = sys.float_info.max  # seconds; whatever is beyond is no finite number
WHITE_SPACE = " \t\r\n"  # what JSON allows between messages
ANY_CHARACTER = "\ufffd"  # stands for one beyond ASCII of which only the beginning is known
MESSAGE_TIMEOUT = 60.0  # seconds from one whole message to the next: time to type one by hand
LINGER_TIMEOUT = 2.0  # seconds for a dismissed client to hear of it and leave
SWEEP_INTERVAL = 1.0  # seconds from one look at the deadlines to the next
FULL_RECORD_INTERVAL = 60.0  # seconds from one record that the server is full to the next
RECEIVE_BYTES = 400  # bytes asked of one `recv`: a usual presence, fit for the fast allocator
LINGER_BYTES = 1024 * 1024  # read from a dismissed client, and forgotten, before it is cut off
BACKLOG = 1024  # connections that may wait to be accepted
SELECT_SOCKETS = 512  # what `select` takes on Windows; other selectors know no such limit
IPV4_MAPPED = "::ffff:"  # how a socket for both shows an IPv4 address: as one of IPv6
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl+C, and how an operating system stops a server
ADVICE = {  # for the person, by what keeps the server from listening
    errno.EADDRINUSE: "port {port} is taken: stop the program that uses it, or choose another with -p",
    errno.EACCES: "port {port} needs special rights: choose one above 1023 with -p",
    errno.EADDRNOTAVAIL: "{address} is no address of this machine: leave out -a to listen on all it has",
}
JSON_TYPES = {  # what JSON calls what its decoder returns
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
MISSING = object()  # stands for a field that is not there


class ProtocolError(ValueError):
    """What was received is not JIM; its text says why."""


class ServerError(Exception):
    """The server itself has failed; its cause is what a developer has to look at."""


# The protocol: nothing here knows of sockets.


def process_client_message(message: dict[str, object]) -> dict[str, object]:
    """Return the response to a message: 200 to a presence, 400 with the reason to all else."""
    try:
        check_presence(message)
        response = {"response": 200, "time": time(), "alert": "OK"}
    except ProtocolError as error:
        response = create_error(400, str(error))
    LOG.debug("processed a message, response %s", response["response"])
    return response


def create_error(code: int, text: str) -> dict[str, object]:
    """Return the response that something went wrong: by the client's fault (4xx) or by ours (500)."""
    return {"response": code, "time": time(), "error": text}


def check_presence(message: dict[str, object]) -> None:
    """Raise ProtocolError, which names the field and its fault, unless `message` is a presence."""
    if not isinstance(message, dict):
        raise wrong_type("message", message, "an object")
    action = message.get("action", MISSING)
    if action != "presence":
        check_string("action", action, MAX_ACTION)
        raise ProtocolError(f"the action {action!r} is not served here, only 'presence' is")
    check_time(message.get("time", MISSING))
    if not isinstance(message.get("type", ""), str):
        raise wrong_type("type", message["type"], "a string")
    check_user(message.get("user", MISSING))


def check_user(user: object) -> None:
    """Raise ProtocolError unless `user`, as found in a presence, is an object with a good name."""
    if not isinstance(user, dict):
        raise wrong_type("user", user, "an object")
    check_string("account_name", user.get("account_name", MISSING), MAX_NAME)
    if not isinstance(user.get("status", ""), str):
        raise wrong_type("status", user["status"], "a string")


def check_time(value: object) -> None:
    """Raise ProtocolError unless `value`, as found in a message, is a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type("time", value, "a number")
    if not abs(value) <= MAX_TIME:  # and not ">", which is false of NaN
        raise ProtocolError("'time' is too large a number")


def check_string(name: str, value: object, longest: int) -> None:
    """Raise ProtocolError unless the value of a field is a string of 1 to `longest` characters."""
    if not isinstance(value, str):
        raise wrong_type(name, value, "a string")
    if not 0 < len(value) <= longest:
        raise ProtocolError(f"'{name}' has to have 1 to {longest} characters, not {len(value)}")


def wrong_type(name: str, value: object, wanted: str) -> ProtocolError:
    """Return the error that a field is missing or of another type than `wanted`."""
    if value is MISSING:
        return ProtocolError(f"'{name}' is missing")
    found = JSON_TYPES.get(type(value), "something else")
    return ProtocolError(f"'{name}' has to be {wanted}, not {found}")


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


# The wire: what one client sends, and what is sent to it. Nothing here ever waits.


class Client:
    """One connection: its socket and address, the text not yet taken, and how long all that may last."""

    __slots__ = ("address", "behind", "cut", "deadline", "dismissed", "linger_bytes", "sock", "text")

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Take over a socket and an address, as `accept` returns them."""
        sock.setblocking(False)
        self.sock = sock
        self.address = address
        self.cut = b""  # the beginning of a character, the rest of which is still to come
        self.text = ""  # what has been received and is no whole message yet
        self.deadline = monotonic() + MESSAGE_TIMEOUT
        self.behind = False  # whether messages in `text` wait for the next turn
        self.dismissed = False  # whether it has been sent its last response
        self.linger_bytes = LINGER_BYTES  # still to be read once it is dismissed

    def __str__(self) -> str:
        """Return the address and the port, for the log."""
        host, port = self.address[:2]
        return f"{host[7:] if host.startswith(IPV4_MAPPED) else host} port {port}"


def receive_text(client: Client) -> bool:
    """Receive once, and add it to the client's text; tell whether the client has sent its last.

    Raises OSError when the network fails.
    """
    try:
        piece = client.sock.recv(RECEIVE_BYTES)
    except BlockingIOError:
        return False
    except ConnectionResetError:  # how some programs leave
        piece = b""
    data = client.cut + piece
    letters, used = codecs.utf_8_decode(data, "surrogateescape", not piece)
    client.cut = data[used:]
    client.text = (client.text + letters).lstrip(WHITE_SPACE)
    return not piece


def receive_messages(client: Client) -> Iterator[dict[str, object]]:
    """Receive once, unless there is text left of the turn before; yield the messages that are whole.

    Raises EOFError when the client has left after its last message, ProtocolError as soon as what
    it sends can be no message, OSError when the network fails.
    """
    ended = not client.behind and receive_text(client)
    client.behind = False
    while client.text:
        message, length = take_message(client.text)
        if message is None:
            break
        LOG.debug("received from %s: %s", client, client.text[:length])
        client.text = client.text[length:].lstrip(WHITE_SPACE)
        client.deadline = monotonic() + MESSAGE_TIMEOUT
        yield message
    if client.cut:
        check_cut(client.text, client.cut)
    if ended:
        raise ProtocolError("the message is cut short") if client.text else EOFError


def send_message(sock: socket.socket, message: dict[str, object], peer: object = "the client") -> None:
    """Send all of `message`; raise BlockingIOError if `peer` does not read what it is sent, or OSError."""
    text = ENCODER.encode(message)
    sock.sendall(text.encode("utf-8", "backslashreplace"))  # a lone surrogate goes as JSON's \udXXX
    LOG.debug("sent to %s: %s", peer, text)


# The conversation: everybody's messages, answered as they come.


def answer_messages(client: Client) -> None:
    """Answer what a client has sent so far, in its order, up to the first wrong message.

    What is behind that has to wait for the next turn, or short wrong messages, of which hundreds
    arrive at once, would keep all other clients waiting.
    """
    for message in receive_messages(client):
        try:
            response = process_client_message(message)
        except Exception as error:
            raise ServerError from error
        send_message(client.sock, response, client)
        if "error" in response:
            LOG.warning("a wrong message from %s: %s", client, response["error"])
            client.behind = True
            break


class Server:
    """Serves all clients of a listening socket in one thread: whoever has sent something is next."""

    def __init__(self, listener: socket.socket) -> None:
        """Prepare to accept clients from `listener`, which stays the caller's to close."""
        listener.setblocking(False)
        # Clients' sockets inherit it: a response need not wait until the one before has arrived.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.clients: set[Client] = set()
        self.behind: set[Client] = set()  # those of them who have sent more than a turn's work
        self.accepting = True
        self.next_sweep = monotonic() + SWEEP_INTERVAL
        self.next_full_record = monotonic()

    def serve_forever(self) -> NoReturn:
        """Serve until an exception such as KeyboardInterrupt ends it."""
        while True:
            self.serve_once()

    def serve_once(self) -> None:
        """Wait at most SWEEP_INTERVAL for something to do, and do a little of it for each client."""
        write_out()
        behind, self.behind = self.behind, set()
        ready = self.selector.select(0 if behind else SWEEP_INTERVAL)
        for client in behind:
            self.serve_client(client)
        for key, _ in ready:
            client = key.data
            if client is None:  # it is the listener
                self.accept_clients(len(ready))
            elif client.dismissed:
                self.drain(client)
            elif client not in behind:
                self.serve_client(client)
        if monotonic() >= self.next_sweep:
            self.sweep()

    def accept_clients(self, limit: int) -> None:
        """Accept at most `limit` clients that wait, so that those who are in get their turn as well."""
        try:
            for _ in range(limit):
                self.check_room()
                self.add_client(*self.listener.accept())
        except (BlockingIOError, ConnectionAbortedError):
            pass  # nobody waits, or somebody no longer does: the next turn looks again
        except (OSError, ValueError) as error:
            self.stop_accepting(error)

    def check_room(self) -> None:
        """Raise OSError if the selector takes no more sockets."""
        if isinstance(self.selector, selectors.SelectSelector) and len(self.clients) + 1 >= SELECT_SOCKETS:
            raise OSError(errno.EMFILE, f"select takes no more than {SELECT_SOCKETS} sockets")

    def add_client(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Serve a new client from now on."""
        client = Client(sock, address)
        try:
            self.selector.register(sock, selectors.EVENT_READ, client)
        except (OSError, ValueError):
            sock.close()
            raise
        self.clients.add(client)
        self.serve_client(client)  # it has most likely sent something by now

    def stop_accepting(self, reason: Exception) -> None:
        """Let clients wait until one leaves or the next sweep, and write a record now and then."""
        self.selector.unregister(self.listener)
        self.accepting = False
        if monotonic() >= self.next_full_record:
            LOG.warning("full with %d clients, others have to wait: %s", len(self.clients), reason)
            self.next_full_record = monotonic() + FULL_RECORD_INTERVAL

    def start_accepting(self) -> None:
        """Accept clients again, if the selector can take the listener."""
        try:
            self.selector.register(self.listener, selectors.EVENT_READ)
        except (OSError, ValueError):
            pass  # the next sweep tries again
        else:
            self.accepting = True

    def serve_client(self, client: Client) -> None:
        """Answer a client. Whatever goes wrong with that ends here, and costs nobody else anything."""
        try:
            answer_messages(client)
            if client.behind:
                self.behind.add(client)
        except EOFError:
            self.drop(client)
        except ProtocolError as error:
            LOG.debug("received from %s: %s", client, client.text)
            LOG.warning("refused %s: %s", client, error)
            self.dismiss(client, create_error(400, str(error)))
        except BlockingIOError:
            LOG.warning("dropped %s: it does not read its responses", client)
            self.drop(client)
        except OSError as error:
            LOG.warning("lost %s: %s", client, error)
            self.drop(client)
        except Exception:
            LOG.exception("failed to serve %s", client)
            self.dismiss(client, create_error(500, "the server failed, which is not your fault"))

    def dismiss(self, client: Client, response: dict[str, object]) -> None:
        """Send a client its last response, and from then on only wait for it to leave."""
        try:
            send_message(client.sock, response, client)
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(client)
        else:
            client.dismissed = True
            client.deadline = monotonic() + LINGER_TIMEOUT

    def drain(self, client: Client) -> None:
        """Read, and forget, what a dismissed client had still sent.

        Closed over unread data, a connection is reset, and the last response may be lost with it.
        """
        try:
            data = client.sock.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        client.linger_bytes -= len(data)
        if not data or client.linger_bytes < 0:
            self.drop(client)

    def drop(self, client: Client) -> None:
        """Close a client's connection."""
        self.selector.unregister(client.sock)
        client.sock.close()
        self.clients.remove(client)
        self.behind.discard(client)
        if not self.accepting:
            self.start_accepting()

    def expire(self, client: Client) -> None:
        """Drop a client whose deadline is over, unless it was in time and only the server is late."""
        if not client.dismissed:
            self.serve_client(client)
            if client not in self.clients or client.deadline > monotonic():
                return
            LOG.warning("dropped %s: no whole message in %.0f s", client, MESSAGE_TIMEOUT)
        self.drop(client)

    def sweep(self) -> None:
        """Look for clients whose deadline is over, and for room if there was none."""
        now = monotonic()
        self.next_sweep = now + SWEEP_INTERVAL
        for client in [client for client in self.clients if client.deadline <= now]:
            self.expire(client)
        if not self.accepting:
            self.start_accepting()

    def close(self) -> None:
        """Close the connections of all clients."""
        for client in self.clients:
            client.sock.close()
        self.selector.close()


# The command line.


def open_listener(address: str, port: int) -> socket.socket:
    """Return a socket that listens on `address`; if that is empty on all addresses, IPv4 and IPv6.

    Raises OSError, and UnicodeError for a name that no host can have.
    """
    if not address and socket.has_dualstack_ipv6():
        everywhere = ("", port)
        return socket.create_server(everywhere, family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    places = socket.getaddrinfo(address or "0.0.0.0", port, type=socket.SOCK_STREAM)
    family, where = min((family, where) for family, _, _, _, where in places)  # IPv4 before IPv6
    return socket.create_server(where, family=family, backlog=BACKLOG)


def explain(error: OSError | UnicodeError, address: str, port: int) -> str:
    """Return one sentence for the person: why the server cannot listen, and what to do."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"unknown address {address}: give an IP address of this machine"
    advice = ADVICE.get(error.errno or 0, "cannot listen on {address} port {port}: {error}")
    return advice.format(address=address, port=port, error=error)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; with wrong ones say so and exit with code 2."""
    parser = argparse.ArgumentParser(description="Answer the presence messages of JIM clients, until Ctrl+C.")
    parser.add_argument(
        "-p",
        dest="port",
        type=int,
        default=DEFAULT_PORT,
        help="TCP port (default: %(default)s); 0 lets the system choose",
    )
    parser.add_argument(
        "-a", dest="addr", default="", help="IP address to listen on (default: all addresses)"
    )
    level = "least level that the log file takes: DEBUG, INFO, WARNING or ERROR (default: %(default)s)"
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, default=LEVELS[0], help=level)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 0 to {MAX_PORT}, not {arguments.port}")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Serve as the command line asks; return 1 if that cannot even begin."""
    address = arguments.addr or "all addresses"
    try:
        listener = open_listener(arguments.addr, arguments.port)
        with listener, contextlib.closing(Server(listener)) as server:
            where = f"{address} port {listener.getsockname()[1]}"
            LOG.info("listening on %s, log in %s, stop with Ctrl+C", where, LOG_FILE)
            server.serve_forever()
    except (OSError, UnicodeError) as error:
        LOG.error(explain(error, address, arguments.port))
        LOG.debug("the cause: %r", error)
        return 1


def main(argv: list[str] | None = None) -> int:
    """Run the server as the command line asks until Ctrl+C; return its exit code."""
    try:
        arguments = parse_args(argv)
        configure(arguments.log_level)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.info("stopped")
        return 0
    finally:
        close()


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt at the first signal to stop, and ignore those that follow."""
    handle_stop_signals(lambda number, frame: None)  # not SIG_IGN: one may be on its way
    raise KeyboardInterrupt


def handle_stop_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Let `handler` handle Ctrl+C and SIGTERM from now on."""
    for number in STOP_SIGNALS:
        signal.signal(number, handler)


if __name__ == "__main__":
    handle_stop_signals(stop)
    exit_code = main()
    handle_stop_signals(signal.SIG_IGN)  # unlike a handler of ours, this lasts until Python has ended
    sys.exit(exit_code)
