"""JIM server: answers the presence messages of many clients at once, in one thread.

    python server.py [-p <port>] [-a <addr>]          Ctrl+C stops it

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one directly after another. One `recv`
may return half of a message, or several messages. A message begins with { and ends with the } that closes it.
Each client who has sent something gets a turn: the server answers one message. No turn waits for a client, so
nobody can hold up the others.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import selectors
import signal
import socket
import sys
from time import monotonic, sleep, time  # monotonic: a clock that nobody can set, for measuring
from typing import Any, Dict

from server_log_config import LEVELS, LOG, close_log, configure_log, flush_log

DEFAULT_PORT = 7777  # from the assignment
MAX_PORT = 65535  # from TCP
MAX_ACTION = 15  # characters of an action; from JIM
MAX_NAME = 25  # characters of an account name; from JIM
MAX_MESSAGE = 640  # characters of a message; from JIM
MAX_BYTES = 4 * MAX_MESSAGE  # in UTF-8, a character takes at most 4 bytes
MESSAGE_TIMEOUT = 60  # seconds a client has for each message: enough to type one by hand
CLOSING_TIMEOUT = 2  # seconds a client has to close the connection after its last response
CHECK_INTERVAL = 1  # seconds between two checks whether a client has taken too long
REPORT_INTERVAL = 60  # seconds between two reports that it cannot accept a client
BACKLOG = 1024  # connections that may wait to be accepted
MAX_ACCEPTS = 200  # new clients in one go; then it is the turn of the others again
# A connection counts as an open file. The system allows only so many of these (-1: any number); 20 are for
# the log and Python. Windows does not count files, but can watch only 512 sockets: 511 clients, the listener.
OPEN_FILES = 511 + 20 if os.name == "nt" else os.sysconf("SC_OPEN_MAX")
MAX_CLIENTS = sys.maxsize if OPEN_FILES == -1 else OPEN_FILES - 20

Message = Dict[str, Any]  # a JSON object: its fields by name, with values of any type


class ProtocolError(ValueError):
    """A message is not valid JIM; the text says why."""


# The protocol: what a message may contain, and the response to it.


def process_client_message(message: Message) -> Message | None:
    """Return the response: 200 for a presence, 400 with the reason for anything else, None for a quit."""
    if message.get("action") == "quit":
        return None
    try:
        check_presence(message)
    except ProtocolError as error:
        return create_error(400, str(error))
    LOG.info("%s is here", message["user"]["account_name"])
    return {"response": 200, "time": time(), "alert": "OK"}


def create_error(code: int, text: str) -> Message:
    """Return an error response: code 400 if the client is at fault, 500 if the server is."""
    return {"response": code, "time": time(), "error": text}


def check_presence(message: Message) -> None:
    """Raise ProtocolError, which names the field and its fault, unless `message` is a valid presence."""
    check_field(message, "action", "a string", MAX_ACTION)
    if message["action"] != "presence":
        raise ProtocolError(f"the action {message['action']!r} is not supported")
    check_field(message, "time", "a number")
    check_field(message, "user", "an object")
    check_field(message["user"], "account_name", "a string", MAX_NAME)
    if "type" in message:
        check_field(message, "type", "a string")
    if "status" in message["user"]:
        check_field(message["user"], "status", "a string")


JSON_TYPES = {dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number",
              bool: "a boolean", type(None): "null"}  # Python's types in JSON's words  # fmt: skip


def check_field(fields: Message, name: str, wanted: str, longest: int | None = None) -> None:
    """Raise ProtocolError unless the field `name` is `wanted`, for example "a string", and not too long."""
    if name not in fields:
        raise ProtocolError(f"'{name}' is missing")
    value = fields[name]
    found = JSON_TYPES[type(value)]  # not `isinstance`: for it, True is an int
    if found != wanted:
        raise ProtocolError(f"'{name}' must be {wanted}, not {found}")
    if longest is not None and not 1 <= len(value) <= longest:
        raise ProtocolError(f"'{name}' must be 1 to {longest} characters long, not {len(value)}")


# The wire: bytes in, messages out, and back. Up to `parse_message`, the text is the same as in client.py.

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


class Client:
    """One connection: its socket, and what the server knows about it."""

    def __init__(self, sock: socket.socket, address: Any) -> None:
        """Take the two things that `accept` returns."""
        sock.setblocking(False)  # a call that would have to wait raises BlockingIOError instead
        self.sock = sock
        self.address = format_address(address)
        self.received = b""  # bytes that are not yet answered
        self.deadline = monotonic() + MESSAGE_TIMEOUT  # when its next message must be complete
        self.closing = False  # True after its last response: the server waits until the client closes


def format_address(address: Any) -> str:
    """Return an address as the log shows it: ("127.0.0.1", 5000) is "127.0.0.1 port 5000"."""
    if not address:  # on macOS, it is None if the client has already left
        return "unknown client"
    host = address[0]
    if host.startswith("::ffff:"):  # an IPv6 socket shows 1.2.3.4 as ::ffff:1.2.3.4
        host = host[len("::ffff:") :]
    return f"{host} port {address[1]}"


def receive_message(client: Client) -> Message | None:
    """Return one message, or None if it is incomplete. Raises ProtocolError, ConnectionError, OSError."""
    if client.received:  # the last `recv` may have brought two messages: then this is the second one
        message, client.received = take_message(client.received)
        if message is not None:
            return message
    try:
        piece = client.sock.recv(RECEIVE_BYTES)
    except BlockingIOError:  # nothing has arrived
        return None
    if not piece and client.received:
        raise ProtocolError("the message is cut short")
    if not piece:
        raise ConnectionError("the client has closed the connection")
    LOG.debug("received from %s: %s", client.address, piece.decode("utf-8", "backslashreplace"))
    message, client.received = take_message(client.received + piece)
    return message


def send_message(client: Client, message: Message) -> None:
    """Send `message`. Raises OSError if the connection fails, or if the client does not read."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж" and does not become \u0416
    try:
        client.sock.sendall(text.encode("utf-8"))
    except BlockingIOError as error:  # the system's buffer is full; a part of the text may be in it
        raise OSError("it does not read its responses") from error
    LOG.debug("sent to %s: %s", client.address, text)


# The conversation: many clients, one thread.


class Server:
    """Serves the clients of a listening socket.

    A message with a faulty field gets 400, and the conversation goes on. Other bytes get 400 and end it.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Prepare to accept clients from `listener`, which the caller has to close."""
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # for all clients: send immediately
        self.listener = listener
        self.clients: set[Client] = set()
        self.pending: set[Client] = set()  # clients whose `received` may hold another message
        # A selector watches sockets. It reports those on which something has arrived: bytes or the end from a
        # client, or a new client. With each, it returns the `data` that we give it here: None, or a Client.
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, data=None)
        self.next_check = monotonic() + CHECK_INTERVAL
        self.next_report = monotonic()  # when the server may report again that it cannot accept a client

    def serve_forever(self) -> None:
        """Serve until an exception such as KeyboardInterrupt."""
        try:
            while True:
                self.serve_once()
        finally:
            self.close()

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.sock.close()
        self.selector.close()

    def serve_once(self) -> None:
        """Give one turn to each client from whom something has come; wait at most CHECK_INTERVAL for that."""
        flush_log()  # the log collects lines: write them before waiting
        ready = self.pending  # the clients who get a turn
        self.pending = set()  # those who get another one, next time
        timeout = 0 if ready else CHECK_INTERVAL  # 0: do not wait
        for key, _ in self.selector.select(timeout):  # `key.data` is what we gave to `register`
            if key.data is None:
                self.accept_clients()
            else:
                ready.add(key.data)
        for client in ready:
            if client in self.clients:  # `check_clients` may have dropped it since
                self.serve_client(client)
        if monotonic() >= self.next_check:
            self.check_clients()

    def accept_clients(self) -> None:
        """Accept the clients who are waiting, if there is room; give each its first turn."""
        room = MAX_CLIENTS - len(self.clients)
        if room <= 0:
            self.pause("there is no room for more")
            return
        try:
            for _ in range(min(room, MAX_ACCEPTS)):
                sock, address = self.listener.accept()
                client = Client(sock, address)
                self.selector.register(sock, selectors.EVENT_READ, data=client)
                self.clients.add(client)
                LOG.debug("connected: %s", client.address)
                self.serve_client(client)  # most clients send immediately
        except BlockingIOError:  # the usual end of this loop: nobody else is waiting
            pass
        except OSError as error:
            self.pause(str(error))

    def pause(self, reason: str) -> None:
        """Report, at most once in REPORT_INTERVAL, why a client cannot be accepted; sleep a moment."""
        if monotonic() >= self.next_report:
            self.next_report = monotonic() + REPORT_INTERVAL
            LOG.error("cannot accept a client, %d are connected: %s", len(self.clients), reason)
        sleep(0.001)  # otherwise, `select` would report the client without end, and use a whole processor

    def serve_client(self, client: Client) -> None:
        """Give a client its turn. An error ends here and affects no other client."""
        try:
            if client.closing:
                self.wait_for_close(client)
            else:
                self.answer_message(client)
        except ProtocolError as error:  # from `receive_message`
            LOG.warning("refused %s: %s", client.address, error)
            self.finish(client, create_error(400, str(error)))
        except ConnectionError:  # the client has left (this is a kind of OSError, so it must come first)
            self.drop(client)
        except OSError as error:  # the network has failed, or the client does not read
            LOG.warning("lost %s: %s", client.address, error)
            self.drop(client)
        except Exception:  # the server itself has failed
            LOG.exception("failed to serve %s", client.address)  # an ERROR with the traceback
            self.finish(client, create_error(500, "internal server error"))

    def answer_message(self, client: Client) -> None:
        """Receive one message of a client, process it, and send the response."""
        message = receive_message(client)
        if message is None:
            return
        client.deadline = monotonic() + MESSAGE_TIMEOUT
        try:
            response = process_client_message(message)
        except OSError as error:  # `serve_client` would take it for a failure of the network
            raise RuntimeError("cannot process a message") from error
        if response is None:  # a quit
            self.finish(client)
            return
        if "error" in response:
            LOG.warning("invalid message from %s: %s", client.address, response["error"])
        send_message(client, response)
        if client.received:  # perhaps another message; `recv` has taken it, so no selector will report it
            self.pending.add(client)

    def finish(self, client: Client, last_response: Message | None = None) -> None:
        """Send a client its last response, if any; from now on, only receive, until it closes, too."""
        client.closing = True
        self.pending.discard(client)
        client.deadline = monotonic() + CLOSING_TIMEOUT
        try:
            if last_response is not None:
                send_message(client, last_response)
            # TCP has two directions. End ours: the client reads the response, then the end, and closes. If we
            # closed while bytes from it are unread, the system would cancel everything, also our response.
            client.sock.shutdown(socket.SHUT_WR)
        except Exception:  # it has left, or the server fails again
            self.drop(client)

    def wait_for_close(self, client: Client) -> None:
        """Drop a client that has closed, too; ignore anything else that it sends."""
        if client.sock.recv(RECEIVE_BYTES) == b"":
            self.drop(client)

    def drop(self, client: Client) -> None:
        """Close the connection of a client."""
        self.selector.unregister(client.sock)
        self.clients.remove(client)
        client.sock.close()
        LOG.debug("disconnected: %s", client.address)

    def check_clients(self) -> None:
        """Refuse the clients who have sent half a message for too long; drop those who do nothing."""
        now = monotonic()
        self.next_check = now + CHECK_INTERVAL
        reason = f"no complete message in {MESSAGE_TIMEOUT} s"
        late = [client for client in self.clients if client.deadline <= now]
        for client in late:  # not in the set itself, because `drop` changes it
            if client.closing:
                self.drop(client)
            elif client.received:
                LOG.warning("refused %s: %s", client.address, reason)
                self.finish(client, create_error(400, reason))
            else:
                LOG.warning("dropped %s: %s", client.address, reason)
                self.drop(client)


# The command line.


def open_listener(address: str, port: int) -> socket.socket:
    """Return a socket that listens on `address` ("": on all). Raises OSError, TypeError, UnicodeError."""
    if address in ("", "::") and socket.has_dualstack_ipv6():  # all addresses, of IPv6 and of IPv4
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    if ":" in address:  # an address of IPv6
        return socket.create_server((address, port), family=socket.AF_INET6, backlog=BACKLOG)
    address = socket.gethostbyname(address)  # of a name; "" becomes 0.0.0.0, all addresses of IPv4
    return socket.create_server((address, port), backlog=BACKLOG)  # `socket`, `bind`, `listen` in one call


def describe_error(error: Exception, address: str, port: int) -> str:
    """Return one line for the user: why the server cannot listen, and what to do."""
    if not isinstance(error, OSError):  # TypeError and UnicodeError: it is malformed, for example "a..b"
        return f"{address} cannot be an address"
    if error.errno == errno.EADDRINUSE:  # `errno` has a name for each of the system's error numbers
        return f"port {port} is taken: stop the program that uses it, or choose another with -p"
    if error.errno == errno.EADDRNOTAVAIL and address:  # without -a, this advice would make no sense
        return f"{address} is not an address of this machine: omit -a to listen on all of them"
    if error.errno == errno.EACCES:  # the port is below 1024, or Windows keeps it for another program
        return f"the system does not allow port {port}: choose another, for example with -p 8888"
    return f"cannot listen on {address or 'all addresses'} port {port}: {error}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; on a usage error print it and exit with code 2."""
    parser = argparse.ArgumentParser(description="Answer the presence messages of JIM clients, until Ctrl+C.")
    parser.add_argument("-p", dest="port", type=int, default=DEFAULT_PORT, help="port (default: %(default)s)")
    parser.add_argument("-a", dest="addr", default="", help="IP address to listen on (default: all)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all records on the console")
    parser.add_argument("--log-level", choices=LEVELS, default="DEBUG", help="lowest level that is logged")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 0 to {MAX_PORT}, not {arguments.port}")
    return arguments


def start_listening(arguments: argparse.Namespace) -> socket.socket | None:
    """Return a socket that listens; if this is impossible, log why and return None."""
    if MAX_CLIENTS < 1:
        LOG.error("the system allows only %d open files, too few for a client", OPEN_FILES)
        return None
    try:
        listener = open_listener(arguments.addr, arguments.port)
    except (OSError, TypeError, UnicodeError) as error:
        LOG.error(describe_error(error, arguments.addr, arguments.port))
        return None
    address, port = listener.getsockname()[:2]  # where it really listens; with IPv6, two more values follow
    where = "all addresses" if arguments.addr in ("", "::") else address
    LOG.info("listening on %s port %d, stop with Ctrl+C", where, port)
    return listener


def main(argv: list[str] | None = None) -> int:
    """Run the server until Ctrl+C; return its exit code."""
    arguments = parse_args(argv)
    try:
        configure_log(arguments.log_level, arguments.verbose)
        listener = start_listening(arguments)
        if listener is None:
            return 1
        with listener:
            Server(listener).serve_forever()
    except KeyboardInterrupt:
        LOG.info("stopped")
    finally:
        close_log()
    return 0


def stop(number: int, _frame: Any) -> None:
    """Raise KeyboardInterrupt at Ctrl+C or `kill`. If Python ends then, no second signal interrupts it."""
    if not (sys.flags.interactive or hasattr(sys, "ps1") or "idlelib" in sys.modules):  # -i, IPython, IDLE
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)  # from now on, Ctrl+C calls `stop`
    signal.signal(signal.SIGTERM, stop)  # so does the command `kill`
    sys.exit(main())
