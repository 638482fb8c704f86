"""JIM server: answers the presence messages of any number of clients at once, in one thread.

    python server.py [-p <port>] [-a <addr>]          Ctrl+C stops it

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one after another. A message ends
where its object closes: nothing separates messages, and one `recv` may return half of one, or three.
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
from time import monotonic, sleep, time  # monotonic: a clock for measuring, which never jumps

from server_log_config import LEVELS, LOG, close_log, configure_log, flush_log

DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_MESSAGE = 640  # characters of a whole message; from JIM
MAX_ACTION = 15  # characters of an action; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
MAX_TIME = sys.float_info.max  # seconds; the largest finite float


class ProtocolError(ValueError):
    """Raised for a message that is not valid JIM; the text says why."""


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


MISSING = object()  # stands for a missing field; None cannot, because that is JSON's null in Python


def check_presence(message: dict[str, object]) -> None:
    """Raise ProtocolError, naming the field and what is wrong with it, unless `message` is a presence."""
    if not isinstance(message, dict):
        raise wrong_type_error("message", message, "an object")
    action = message.get("action", MISSING)
    if action != "presence":
        check_string("action", action, MAX_ACTION)  # if it is not even a valid string, say that first
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
    if not -MAX_TIME <= value <= MAX_TIME:  # infinity (1e999), or an int that no float can hold
        raise ProtocolError("'time' is too large a number")


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


# The wire: one client's bytes in and out. Nothing here waits.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical presence and some more
WHITESPACE = b" \t\r\n"  # JSON's whitespace, which may surround a message
MESSAGE_TIMEOUT = 60.0  # seconds a client has for each message: enough to type one by hand
CLOSING_TIMEOUT = 2.0  # seconds a client has, after its last response, to close the connection
CLOSING_BYTES = 1024 * 1024  # a client may send this many bytes more in that time


class Client:
    """One connection: its socket, what it has sent, and how long it may stay silent."""

    def __init__(self, sock: socket.socket, address: tuple[str, int] | None) -> None:
        """Take a socket and an address as returned by `accept`."""
        sock.setblocking(False)  # from now on, a call that would have to wait raises BlockingIOError
        self.sock = sock
        self.name = client_name(address)
        self.data = b""  # received, but not yet taken as a message
        self.deadline = monotonic() + MESSAGE_TIMEOUT  # when its next message must be complete
        self.closing = False  # True after its last response: we only wait for it to close
        self.bytes_to_discard = CLOSING_BYTES  # how many bytes it may send while it is closing


def client_name(address: tuple[str, int] | None) -> str:
    """Return an address as the log shows it, for example "127.0.0.1 port 50000"."""
    if not address:  # seen on macOS, when the client is already gone
        return "unknown address"
    host, port = address[:2]  # with IPv6, two more items follow
    if host.startswith("::ffff:"):  # a socket for both IPv4 and IPv6 shows IPv4 addresses like this
        host = host[len("::ffff:") :]
    return f"{host} port {port}"


def receive_message(client: Client) -> dict[str, object] | None:
    """Return the next message of a client, or None if it is not complete yet. Calls `recv` at most once.

    Raises ProtocolError if it is not valid, EOFError if the client has closed the connection, and OSError.
    """
    message, length = take_message(client.data)  # the last `recv` may have left a message there
    if message is None and receive_bytes(client):
        message, length = take_message(client.data)
    if message is not None:
        LOG.debug("received from %s: %s", client.name, client.data[:length].decode("utf-8"))
        client.data = client.data[length:].lstrip(WHITESPACE)
        client.deadline = monotonic() + MESSAGE_TIMEOUT
    return message


def receive_bytes(client: Client) -> bool:
    """Call `recv` once and add the bytes to `client.data`; return whether there were any."""
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


# Made once: `json.dumps` would make a new encoder for each message. "Ж" stays "Ж" and does not become \u0416.
ENCODER = json.JSONEncoder(ensure_ascii=False)


def send_message(client: Client, message: dict[str, object]) -> None:
    """Send `message`. Raises OSError; then the caller must drop the client: a part may have been sent.

    If a client does not read, the system's buffer for it fills up, and `sendall` raises BlockingIOError.
    """
    text = ENCODER.encode(message)
    client.sock.sendall(text.encode("utf-8"))
    LOG.debug("sent to %s: %s", client.name, text)


# The conversation: every client's messages, answered as they arrive.

CHECK_INTERVAL = 1.0  # seconds between two checks of the deadlines
FULL_INTERVAL = 3600.0  # seconds between two log lines which say that the server is full
RESERVED_FILES = 10  # open files for other things than clients: the listener, the log, Python's own
NO_ROOM = (  # the errors of `accept` that mean: there is no room for another client
    errno.EMFILE,  # too many open files in this process
    errno.ENFILE,  # too many open files in the whole system
    errno.ENOBUFS,  # not enough memory for the socket
    errno.ENOMEM,  # not enough memory
    10024,  # too many open sockets (Windows)
)


def max_clients() -> int:
    """Return how many clients can be connected at once. A connection counts as an open file."""
    if os.name == "nt":  # Windows: a selector can watch 512 sockets, one of which is the listener
        return 511
    import resource  # Windows does not have this module

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # the number of open files that we are allowed
    return max(limit - RESERVED_FILES, 1)


class Server:
    """Serves all clients of a listening socket in one thread.

    It asks a selector, which watches many sockets at once, who has sent something, and gives each of
    those clients a turn: one message received, processed and answered. Then it asks again.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Prepare to accept clients from `listener`, which the caller still has to close."""
        listener.setblocking(False)
        # Usually, TCP holds back a small response until the one before has arrived: switch that off. The
        # sockets that `accept` returns inherit this setting.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)  # tell us when somebody wants to connect
        self.accepting = True  # whether the selector watches the listener
        self.clients: set[Client] = set()
        self.max_clients = max_clients()
        self.ready: set[Client] = set()  # the clients that get a turn in the next iteration
        self.next_check = monotonic() + CHECK_INTERVAL  # of the deadlines
        self.next_full_record = monotonic()  # when "full" may be logged again

    def serve_once(self) -> None:
        """Do one iteration: wait for input, but not longer than CHECK_INTERVAL; give each client its turn."""
        events = self.selector.select(0)  # one for each socket where something has happened; 0: do not wait
        idle = not events and not self.ready
        flush_log(idle)
        if idle:
            events = self.selector.select(CHECK_INTERVAL)
        for key, _ in events:  # `key.fileobj` is the socket
            if key.fileobj is self.listener:  # somebody wants to connect: accept
                self.accept_clients(len(events))  # one for each event, or a rush would hold up the others
            else:  # a client has sent something: it gets a turn
                self.ready.add(key.data)  # `key.data` is the client, see add_client
        ready = self.ready
        self.ready = set()  # for the next iteration: a turn may add its client again
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
            LOG.exception("failed to serve %s", client.name)  # an ERROR with the traceback
            self.close_gracefully(client, create_error(500, "internal server error"))

    def answer_message(self, client: Client) -> None:
        """Receive a message from a client, process it, and send the response."""
        message = receive_message(client)
        if message is None:  # its rest has not arrived yet
            return
        try:
            response = process_client_message(message)
        except Exception as error:  # a bug of ours: serve_client takes an OSError for the network's failure
            raise RuntimeError("failed to process a message") from error
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

        If we closed while unread bytes are waiting, TCP would break the connection off (a "reset"), and
        the client might lose its last response.
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
        late = now - self.next_check  # how late this check is
        if late > CHECK_INTERVAL:  # the server itself stood still, for example in a suspended laptop
            for client in self.clients:  # give the lost time back, but nobody gets more than a full timeout
                client.deadline = min(client.deadline + late, now + MESSAGE_TIMEOUT)
        self.next_check = now + CHECK_INTERVAL
        for client in list(self.clients):
            if client.deadline <= now:
                if not client.closing:
                    LOG.warning("dropped %s: no complete message in %.0f s", client.name, MESSAGE_TIMEOUT)
                self.drop(client)
        if not self.accepting:
            self.start_accepting()

    def accept_clients(self, limit: int) -> None:
        """Accept up to `limit` waiting clients. The limit leaves time for those who are connected."""
        for _ in range(limit):
            if len(self.clients) >= self.max_clients:
                self.stop_accepting("the system allows no more")
                return
            try:
                sock, address = self.listener.accept()
                self.add_client(sock, address)
            except BlockingIOError:  # nobody else is waiting
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self.stop_accepting(error)
                    return
                LOG.debug("could not accept a client: %s", error)  # for example, it has already left

    def add_client(self, sock: socket.socket, address: tuple[str, int] | None) -> None:
        """Start serving a new client."""
        client = Client(sock, address)
        try:
            self.selector.register(sock, selectors.EVENT_READ, client)  # `client` comes back as `key.data`
        except OSError:
            sock.close()
            raise
        self.clients.add(client)
        self.ready.add(client)  # most clients send at once: try to receive without asking the selector
        LOG.debug("connected: %s", client.name)

    def stop_accepting(self, reason: object) -> None:
        """Leave new clients waiting until there is room; report it at most once an hour."""
        if monotonic() >= self.next_full_record:
            self.next_full_record = monotonic() + FULL_INTERVAL
            LOG.error("full with %d clients, others have to wait: %s", len(self.clients), reason)
        if self.clients:
            self.selector.unregister(self.listener)
            self.accepting = False
        else:  # other programs use up the room; and on Windows, a selector must watch at least one socket
            sleep(CHECK_INTERVAL)

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
    """Return a socket that listens on `address`, or on all addresses of this machine if it is empty.

    Raises OSError, and UnicodeError for a name that is impossible, such as "a..b".
    """
    # `create_server` is `socket`, `bind` and `listen` in one; "dual stack" is IPv4 and IPv6 in one socket.
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    address = address or "0.0.0.0"  # this means: all IPv4 addresses
    family = socket.AF_INET6 if ":" in address else socket.AF_INET  # only an IPv6 address has colons
    # Look the address up. Each result is a tuple, and its last item is the address as `bind` wants it.
    results = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)
    return socket.create_server(results[0][-1], family=family, backlog=BACKLOG)


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
    LOG.info("listening on %s port %d, stop with Ctrl+C", address, listener.getsockname()[1])  # [1]: port
    try:
        with listener:
            serve(listener)
    except OSError as error:
        LOG.error("cannot go on serving: %s", error)
    return 1


def serve(listener: socket.socket) -> None:
    """Serve the clients of `listener` until an exception such as KeyboardInterrupt; then disconnect them."""
    server = Server(listener)
    try:
        while True:
            server.serve_once()
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


STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Ctrl+C, kill, a closed terminal, Ctrl+Break
STOP_INTERVAL = 1.0  # seconds in which a second signal is ignored: the server is stopping already

next_stop = 0.0  # signals before this time (of `monotonic`) are ignored


def stop(number: int, frame: object) -> None:  # Python calls it with these; they are not needed here
    """Raise KeyboardInterrupt when a signal arrives, unless that was done less than STOP_INTERVAL ago."""
    global next_stop
    if monotonic() >= next_stop:
        next_stop = monotonic() + STOP_INTERVAL
        raise KeyboardInterrupt


def handle_stop_signals(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    """Let `handler` handle all STOP_SIGNALS that this system has."""
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)  # like signal.SIGINT; None if this system does not have it
        if number is None:
            continue
        if name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
            continue  # ignored already (SIG_IGN): `nohup` has started us, to go on when the terminal closes
        signal.signal(number, handler)


if __name__ == "__main__":
    handle_stop_signals(stop)
    # When Python exits, ignore all signals: a late one would change the exit code.
    atexit.register(handle_stop_signals, signal.SIG_IGN)
    sys.exit(main())
