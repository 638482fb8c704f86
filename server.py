"""JIM server: answers the presence messages of any number of clients at once, in one thread.

    python server.py [-p <port>] [-a <addr>]          Ctrl+C stops it

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message ends
where its object closes: there is no delimiter, so one `recv` may return half a message, or three.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import json
import os
import selectors
import signal
import socket
import string
import sys
from collections.abc import Callable
from time import monotonic, sleep, time
from types import FrameType
from typing import NoReturn

from server_log_config import LEVELS, LOG, close_log, configure_log, flush_log

DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_MESSAGE = 640  # characters of a whole message; from JIM
MAX_ACTION = 15  # characters of an action; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
MAX_TIME = sys.float_info.max  # seconds; the largest finite float


class ProtocolError(ValueError):
    """Raised for a message that is not valid JIM; the text says why."""


class ServerError(Exception):
    """Raised when the server itself fails, whatever the cause."""


# The protocol: no sockets here.


def process_client_message(message: dict[str, object]) -> dict[str, object] | None:
    """Return the response to a message: 200 for a presence, 400 with the reason for anything else.

    Return None for a quit, which has no response.
    """
    if isinstance(message, dict) and message.get("action") == "quit":
        LOG.debug("processed a quit")
        return None
    try:
        check_presence(message)
        response = {"response": 200, "time": time(), "alert": "OK"}
    except ProtocolError as error:
        response = create_error(400, str(error))
    LOG.debug("processed a message, response %s", response["response"])
    return response


def create_error(code: int, text: str) -> dict[str, object]:
    """Return an error response: `code` 4xx if the client is at fault, 500 if we are."""
    return {"response": code, "time": time(), "error": text}


MISSING = object()  # marks a missing field: no value in JSON is this object


def check_presence(message: dict[str, object]) -> None:
    """Raise ProtocolError, naming the field and what is wrong with it, unless `message` is a presence."""
    if not isinstance(message, dict):
        raise wrong_type_error("message", message, "an object")
    action = message.get("action", MISSING)
    if action != "presence":
        check_string("action", action, MAX_ACTION)
        raise ProtocolError(f"the action {action!r} is not supported, only 'presence' is")
    check_time(message.get("time", MISSING))
    check_text("type", message)
    check_user(message.get("user", MISSING))


def check_user(user: object) -> None:
    """Raise ProtocolError unless `user`, of a presence, is an object with a valid account_name."""
    if not isinstance(user, dict):
        raise wrong_type_error("user", user, "an object")
    check_string("account_name", user.get("account_name", MISSING), MAX_NAME)
    check_text("status", user)


def check_text(name: str, fields: dict[str, object]) -> None:
    """Raise ProtocolError if the field `name`, which is optional, is there but is not a string."""
    if name in fields and not isinstance(fields[name], str):
        raise wrong_type_error(name, fields[name], "a string")


def check_time(value: object) -> None:
    """Raise ProtocolError unless `value`, of a message, is a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # in Python, True is an int
        raise wrong_type_error("time", value, "a number")
    if not -MAX_TIME <= value <= MAX_TIME:
        raise ProtocolError("'time' is too large a number")


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


# The wire: one client's bytes in and out. Nothing here waits.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical presence and some more
WHITESPACE = b" \t\r\n"  # JSON's whitespace, which may surround a message
MESSAGE_TIMEOUT = 60.0  # seconds a client has for each message: enough to type one by hand
CLOSING_TIMEOUT = 2.0  # seconds for a client to read its last response and close
CLOSING_BYTES = 1024 * 1024  # that a client may still send meanwhile


class Client:
    """One connection: its socket, what it has sent, and how long it may stay silent."""

    def __init__(self, sock: socket.socket, address: tuple[str, int] | None) -> None:
        """Take a socket and an address as returned by `accept`."""
        sock.setblocking(False)  # from now on, what would have to wait raises BlockingIOError
        self.sock = sock
        self.name = client_name(address)
        self.data = b""  # received, but not yet taken as a message
        self.deadline = monotonic() + MESSAGE_TIMEOUT  # for its next message to be complete
        self.closing = False  # True once it has its last response, and is only waited for to close
        self.bytes_to_discard = CLOSING_BYTES  # how much it may then still send


def client_name(address: tuple[str, int] | None) -> str:
    """Return an address as the log shows it, for example "127.0.0.1 port 50000"."""
    if not address:  # seen on macOS, when the client is already gone
        return "unknown address"
    host, port = address[:2]  # with IPv6, two more items follow
    if host.startswith("::ffff:"):  # an IPv4 address, as a socket for both IPv4 and IPv6 shows it
        host = host[len("::ffff:") :]
    return f"{host} port {port}"


def receive_message(client: Client) -> dict[str, object] | None:
    """Return the next message of a client, or None if it has not arrived whole. Receives once at most.

    Raises ProtocolError if it is not valid, EOFError if the client has closed the connection, OSError.
    """
    message, length = take_message(client.data)
    if message is None and receive_bytes(client):
        message, length = take_message(client.data)
    if message is not None:
        LOG.debug("received from %s: %s", client.name, client.data[:length].decode("utf-8"))
        client.data = client.data[length:].lstrip(WHITESPACE)
        client.deadline = monotonic() + MESSAGE_TIMEOUT
    return message


def receive_bytes(client: Client) -> bool:
    """Receive once, into `client.data`; return whether anything has arrived. Raises as `receive_message`."""
    try:
        piece = client.sock.recv(RECEIVE_BYTES)
    except BlockingIOError:  # nothing has arrived yet
        return False
    if not piece and client.data:
        raise ProtocolError("the message is cut short")
    if not piece:
        raise EOFError
    client.data = (client.data + piece).lstrip(WHITESPACE)
    return True


# What `json.dumps` would make for every message. "Ж" stays "Ж": as \u0416 it would take 6 characters.
ENCODER = json.JSONEncoder(ensure_ascii=False)


def send_message(client: Client, message: dict[str, object]) -> None:
    """Send `message`. Raises OSError; it is a BlockingIOError if the client does not read.

    After that the client has to be dropped: a part of the message may have been sent.
    """
    text = ENCODER.encode(message)
    # "backslashreplace": a lone surrogate, which UTF-8 does not have, is sent as an escape such as \ud800.
    client.sock.sendall(text.encode("utf-8", "backslashreplace"))
    LOG.debug("sent to %s: %s", client.name, text)


# The conversation: every client's messages, answered as they arrive.

CHECK_INTERVAL = 1.0  # seconds between two checks of the deadlines
FULL_INTERVAL = 3600.0  # seconds between two records that the server is full
MAX_CLIENTS = 511 if os.name == "nt" else sys.maxsize  # Windows' select takes 512 sockets, ours included
NO_ROOM = (  # what `accept` fails with when there is no room for one more client, not because of the client
    errno.EMFILE,  # this process may not open more files
    errno.ENFILE,  # the system may not
    errno.ENOBUFS,
    errno.ENOMEM,
    10024,  # Windows: too many open sockets
)


class Server:
    """Serves all clients of a listening socket in one thread.

    It asks a selector, which watches many sockets at once, who has sent something, and gives each of
    those clients a turn: one message received, processed and answered. Then it asks again.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Prepare to accept clients from `listener`, which the caller still has to close."""
        listener.setblocking(False)
        # Send each response at once, even if the one before has not been acknowledged; clients inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.accepting = True  # whether the selector watches the listener
        self.clients: set[Client] = set()
        self.ready: set[Client] = set()  # those who get a turn in the next iteration
        self.next_check = monotonic() + CHECK_INTERVAL
        self.next_full_record = monotonic()

    def serve_forever(self) -> NoReturn:
        """Serve until interrupted by an exception, such as KeyboardInterrupt."""
        while True:
            self.serve_once()

    def serve_once(self) -> None:
        """Wait until somebody has sent something, CHECK_INTERVAL at most; give each ready client a turn."""
        flush_log()
        events = self.selector.select(0 if self.ready else CHECK_INTERVAL)
        for key, _ in events:  # `key` has what was registered: a socket, `fileobj`, and a client, `data`
            if key.fileobj is self.listener:  # somebody wants to connect: accept
                self.accept_clients(len(events))
            else:  # a client has sent something: it gets a turn
                self.ready.add(key.data)
        ready, self.ready = self.ready, set()
        for client in ready:
            if client.closing:
                self.discard_input(client)
            else:
                self.serve_client(client)
        if monotonic() >= self.next_check:
            self.check_deadlines()

    def serve_client(self, client: Client) -> None:
        """Give a client its turn. Any error ends here and affects no other client."""
        try:
            self.answer_message(client)
        except (EOFError, ConnectionError):  # the client has closed or reset the connection
            self.drop(client)
        except ProtocolError as error:  # what it has sent is not a JSON object: 400, and we close
            LOG.debug("received from %s: %s", client.name, client.data.decode("utf-8", "backslashreplace"))
            LOG.warning("refused %s: %s", client.name, error)
            self.close_gracefully(client, create_error(400, str(error)))
        except BlockingIOError:  # the system's buffer for its responses is full
            LOG.warning("dropped %s: it does not read its responses", client.name)
            self.drop(client)
        except OSError as error:  # the network has failed
            LOG.warning("lost %s: %s", client.name, error)
            self.drop(client)
        except Exception:  # the server has failed: 500, and we close
            LOG.exception("failed to serve %s", client.name)
            self.close_gracefully(client, create_error(500, "internal server error"))

    def answer_message(self, client: Client) -> None:
        """Receive a message from a client, process it, and send the response."""
        message = receive_message(client)
        if message is None:  # its rest has not arrived yet
            return
        try:
            response = process_client_message(message)
        except Exception as error:  # whatever it is: not the client's fault, and not the network's
            raise ServerError("failed to process a message") from error
        if response is None:  # the client quits
            self.close_gracefully(client)
            return
        send_message(client, response)
        if "error" in response:  # a JSON object, but not a valid presence: 400, and we go on
            LOG.warning("invalid message from %s: %s", client.name, response["error"])
        if client.data:  # perhaps its next message
            self.ready.add(client)

    def close_gracefully(self, client: Client, last_response: dict[str, object] | None = None) -> None:
        """Send a client its last response, if there is one; then only wait for it to close."""
        try:
            if last_response is not None:
                send_message(client, last_response)
            client.sock.shutdown(socket.SHUT_WR)  # the client sees the end; we can still read
        except OSError:
            self.drop(client)
        else:
            client.closing = True
            client.deadline = monotonic() + CLOSING_TIMEOUT

    def discard_input(self, client: Client) -> None:
        """Discard what a closing client is still sending, until it closes the connection.

        If we closed first, TCP would reset the connection, and the last response might be lost.
        """
        try:
            piece = client.sock.recv(RECEIVE_BYTES)
        except OSError:
            piece = b""
        client.bytes_to_discard -= len(piece)
        if not piece or client.bytes_to_discard < 0:
            self.drop(client)

    def drop(self, client: Client) -> None:
        """Close the connection of a client."""
        self.selector.unregister(client.sock)
        client.sock.close()
        self.clients.remove(client)
        self.ready.discard(client)
        LOG.debug("disconnected: %s", client.name)
        if not self.accepting:
            self.start_accepting()

    def check_deadlines(self) -> None:
        """Drop clients past their deadline; accept again if there is room."""
        now = monotonic()
        late = now - self.next_check
        if late > CHECK_INTERVAL:  # the server itself stood still, for example in a suspended laptop
            for client in self.clients:
                client.deadline += late
        self.next_check = now + CHECK_INTERVAL
        for client in list(self.clients):
            if client.deadline <= now:
                if not client.closing:
                    LOG.warning("dropped %s: no complete message in %.0f s", client.name, MESSAGE_TIMEOUT)
                self.drop(client)
        if not self.accepting:
            self.start_accepting()

    def accept_clients(self, limit: int) -> None:
        """Accept up to `limit` waiting clients, so that connected ones still get their turn."""
        for _ in range(limit):
            if len(self.clients) >= MAX_CLIENTS:
                self.stop_accepting("no more sockets can be watched")
                return
            try:
                self.add_client(*self.listener.accept())
            except BlockingIOError:  # nobody else is waiting
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self.stop_accepting(error)
                    return
                LOG.debug("could not accept a client: %s", error)  # for example reset before

    def add_client(self, sock: socket.socket, address: tuple[str, int] | None) -> None:
        """Start serving a new client."""
        client = Client(sock, address)
        try:
            self.selector.register(sock, selectors.EVENT_READ, client)
        except OSError:
            sock.close()
            raise
        self.clients.add(client)
        self.ready.add(client)  # most clients send a message at once: do not wait for an event
        LOG.debug("connected: %s", client.name)

    def stop_accepting(self, reason: object) -> None:
        """Leave new clients waiting until there is room; report it at most once an hour."""
        if monotonic() >= self.next_full_record:
            self.next_full_record = monotonic() + FULL_INTERVAL
            LOG.error("full with %d clients, others have to wait: %s", len(self.clients), reason)
        if not self.clients:  # nobody is left to be served, and to watch nothing is an error on Windows
            sleep(CHECK_INTERVAL)
            return
        self.selector.unregister(self.listener)
        self.accepting = False

    def start_accepting(self) -> None:
        """Let the selector watch the listener again."""
        try:
            self.selector.register(self.listener, selectors.EVENT_READ)
        except OSError:
            return  # still no room: the next check tries again
        self.accepting = True

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.sock.close()
        self.selector.close()


# The command line.

BACKLOG = 1024  # connections that may wait to be accepted
LAST_SPECIAL_PORT = 1023  # up to this port, only an administrator may listen (but not on Windows)


def open_listener(address: str, port: int) -> socket.socket:
    """Return a socket that listens on `address`; if it is empty, on all of them, IPv4 and IPv6.

    Raises OSError, and UnicodeError for an impossible host name.
    """
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    address = address or "0.0.0.0"  # all IPv4 addresses
    family = socket.AF_INET6 if ":" in address else socket.AF_INET  # only an IPv6 address has colons
    infos = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)
    sockaddr = infos[0][4]  # of the first result the last item, which is what `bind` takes
    return socket.create_server(sockaddr, family=family, backlog=BACKLOG)


def describe_error(error: OSError | UnicodeError, address: str, port: int) -> str:
    """Return one line for the user: why the server cannot listen, and what to do."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"unknown address {address}: give an IP address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: stop the program that uses it, or choose another with -p"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine: omit -a to listen on all of them"
    if error.errno in (errno.EACCES, 10013):  # the latter on Windows
        if port <= LAST_SPECIAL_PORT and os.name != "nt":
            return f"port {port} needs special rights: choose one above {LAST_SPECIAL_PORT} with -p"
        return f"the system keeps port {port} for itself or for another program: try -p 8888"
    return f"cannot listen on {address} port {port}: {error}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; on a usage error print it and exit with code 2."""
    parser = argparse.ArgumentParser(description="Answer the presence messages of JIM clients, until Ctrl+C.")
    port = "TCP port (default: %(default)s); with 0 the system chooses one"
    parser.add_argument("-p", dest="port", type=int, default=DEFAULT_PORT, help=port)
    parser.add_argument(
        "-a", dest="addr", default="", help="IP address to listen on (default: all addresses)"
    )
    level = "lowest level written to the log file: DEBUG, INFO, WARNING or ERROR (default: %(default)s)"
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, default="DEBUG", help=level)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 0 to {MAX_PORT}, not {arguments.port}")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Serve until KeyboardInterrupt; return 1 if the server cannot start, or cannot go on."""
    address = arguments.addr or "all addresses"
    try:
        listener = open_listener(arguments.addr, arguments.port)
    except (OSError, UnicodeError) as error:
        LOG.error(describe_error(error, address, arguments.port))
        LOG.debug("the cause: %r", error)
        return 1
    LOG.info("listening on %s port %d, stop with Ctrl+C", address, listener.getsockname()[1])
    try:
        with listener:
            serve(listener)
    except OSError as error:
        LOG.error("cannot go on serving: %s", error)
    return 1


def serve(listener: socket.socket) -> None:
    """Serve the clients of `listener` until interrupted, then close their connections."""
    server = Server(listener)
    try:
        server.serve_forever()
    finally:
        server.close()


def main(argv: list[str] | None = None) -> int:
    """Run the server until Ctrl+C; return its exit code."""
    try:
        arguments = parse_args(argv)
        configure_log(arguments.log_level)
        return run(arguments)
    except KeyboardInterrupt:
        LOG.info("stopped")
        return 0
    finally:
        close_log()


# Signals: they are handled when this file is run as a script, not when it is imported.

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Ctrl+C, kill, a closed terminal, Ctrl+Break
STOP_INTERVAL = 1.0  # seconds in which a second signal is ignored: the server is stopping already

next_stop = 0.0  # on the clock `monotonic`: when a signal counts again


def stop(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, unless that was done less than STOP_INTERVAL ago."""
    global next_stop  # noqa: PLW0603
    if monotonic() >= next_stop:
        next_stop = monotonic() + STOP_INTERVAL
        raise KeyboardInterrupt


def handle_stop_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Let `handler` handle all STOP_SIGNALS that this system has."""
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)
        if number is None:  # Windows has no SIGHUP, and only Windows has SIGBREAK
            continue
        if name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
            continue  # started with `nohup`: the server outlives its terminal
        signal.signal(number, handler)


if __name__ == "__main__":
    handle_stop_signals(stop)
    # While Python exits, a signal would still end the process with another exit code: ignore it.
    atexit.register(handle_stop_signals, signal.SIG_IGN)
    sys.exit(main())
