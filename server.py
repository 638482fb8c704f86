"""JIM server: answers the presence messages of many clients at once, in one thread.

    python server.py [-p <port>] [-a <addr>]          Ctrl+C stops it

JIM (JSON instant messaging) sends JSON objects over TCP, in UTF-8, one directly after another. One `recv`
may return half of a message, or several messages. A message begins with { and ends with the } that closes it.
After an invalid presence, the conversation goes on; after bytes that are not a JSON object, it ends.
A selector reports the sockets for which bytes have arrived in the system's buffer. Each of these clients gets
a turn: receive one message, send one response. No turn waits for a client, so nobody can hold up the others.

Client and server have some functions in common. Both files repeat them, so that each can be copied alone.
"""

from __future__ import annotations

import argparse
import errno
import json
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
MESSAGE_TIMEOUT = 60  # seconds a client has for each message: enough to type one by hand
CLOSING_TIMEOUT = 2  # seconds a client has to close the connection after its last response

Message = Dict[str, Any]  # a JSON object: its fields by name, with values of any type


class ProtocolError(ValueError):
    """A message is not valid JIM; the text says why."""


# The protocol: what a message may contain, and the response to it.


def process_client_message(message: Message) -> Message | None:
    """Return the response: 200 for a presence, 400 with the reason for anything else, None for a quit."""
    if message.get("action") == "quit":
        LOG.debug("processed a quit")
        return None
    try:
        check_presence(message)
        response = {"response": 200, "time": time(), "alert": "OK"}
    except ProtocolError as error:
        response = create_error(400, str(error))
    LOG.debug("processed a message, response %s", response["response"])
    return response


def create_error(code: int, text: str) -> Message:
    """Return an error response: code 400 if the client is at fault, 500 if the server is."""
    return {"response": code, "time": time(), "error": text}


def check_presence(message: Message) -> None:
    """Raise ProtocolError, which names the field and its fault, unless `message` is a valid presence."""
    check_field(message, "action", "a string", MAX_ACTION)
    if message["action"] != "presence":
        raise ProtocolError(f"the action {message['action']!r} is not supported, only 'presence' is")
    check_field(message, "time", "a number")
    check_field(message, "user", "an object")
    check_field(message["user"], "account_name", "a string", MAX_NAME)
    if "type" in message:
        check_field(message, "type", "a string")
    if "status" in message["user"]:
        check_field(message["user"], "status", "a string")


JSON_TYPES = {  # Python's types, and what JSON calls them
    dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number",
    bool: "a boolean", type(None): "null",
}  # fmt: skip


def check_field(fields: Message, name: str, wanted: str, longest: int | None = None) -> None:
    """Check that the field `name` is `wanted`, such as "a string", and not too long; raise ProtocolError."""
    if name not in fields:
        raise ProtocolError(f"'{name}' is missing")
    value = fields[name]
    found = JSON_TYPES[type(value)]
    if found != wanted:
        raise ProtocolError(f"'{name}' must be {wanted}, not {found}")
    if longest is not None and not 1 <= len(value) <= longest:
        raise ProtocolError(f"'{name}' must be 1 to {longest} characters long, not {len(value)}")


# The wire: bytes in, messages out, and back.

RECEIVE_BYTES = 400  # bytes that one `recv` may return: a typical message and some more
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


class Client:
    """One connection: its socket, and what the server knows about it."""

    def __init__(self, sock: socket.socket, address: Any) -> None:
        """Take the two things that `accept` returns."""
        sock.setblocking(False)  # a call that would have to wait raises BlockingIOError instead
        self.sock = sock
        self.name = client_name(address)
        self.data = b""  # received, but not yet a whole message
        self.deadline = monotonic() + MESSAGE_TIMEOUT  # when its next message must be complete
        self.closing = False  # True after its last response: the server waits until the client closes


def client_name(address: Any) -> str:
    """Return an address as the log shows it: ("127.0.0.1", 5000) is "127.0.0.1 port 5000"."""
    if not address:  # on macOS, `accept` returns None for a client that has already left
        return "unknown client"
    host = address[0]
    if host.startswith("::ffff:"):  # an IPv6 socket shows 1.2.3.4 as ::ffff:1.2.3.4
        host = host[len("::ffff:") :]
    return f"{host} port {address[1]}"


def receive_message(client: Client) -> Message | None:
    """Return one message, or None if incomplete. Raises ProtocolError, ConnectionError, BlockingIOError."""
    # MSG_PEEK: look at the bytes, but leave them in the system's buffer. Below, take those of one message. If
    # we took a second one, too, the selector would not report this client again: it looks into that buffer.
    piece = client.sock.recv(RECEIVE_BYTES, socket.MSG_PEEK)
    if not piece and client.data:
        raise ProtocolError("the message is cut short")
    if not piece:
        raise ConnectionError("the client has closed the connection")
    client.data += piece
    message, rest = take_message(client.data)
    if message is None:
        client.data = rest
        end = len(piece)
    else:
        client.data = b""
        end = len(piece) - len(rest)  # the message ends inside `piece`, and `rest` follows
    taken = client.sock.recv(end)
    LOG.debug("received from %s: %s", client.name, taken.decode("utf-8", "backslashreplace"))
    return message


def send_message(client: Client, message: Message) -> None:
    """Send `message` to a client. Raises OSError if the connection fails, or if the client does not read."""
    text = json.dumps(message, ensure_ascii=False)  # "Ж" stays "Ж" and does not become \u0416
    try:
        client.sock.sendall(text.encode("utf-8"))
    except BlockingIOError as error:  # the system's buffer is full
        # `serve_client` takes a BlockingIOError for "nothing has arrived": raise another kind.
        raise OSError("it does not read its responses") from error
    LOG.debug("sent to %s: %s", client.name, text)


# The conversation: many clients, one thread.

CHECK_INTERVAL = 1  # seconds between two checks whether the time of a client is over
PAUSE = 0.001  # seconds that the server sleeps if it cannot accept a client
REPORT_INTERVAL = 60  # seconds between two reports that it cannot accept a client
BACKLOG = 1024  # connections that may wait to be accepted
MAX_ACCEPTS = 10  # new clients in one turn: more would keep the others waiting
try:  # each client takes one of the files that this process may open; 20 are left for the log and Python
    import resource

    MAX_CLIENTS = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 20
except ImportError:  # on Windows, a selector can watch 512 sockets: 511 clients and the listener
    MAX_CLIENTS = 511


class Server:
    """Serves the clients of a listening socket."""

    def __init__(self, listener: socket.socket) -> None:
        """Prepare to accept clients from `listener`, which the caller has to close."""
        listener.setblocking(False)
        self.listener = listener
        self.clients: set[Client] = set()
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, data=None)  # clients have a Client as `data`
        self.next_check = monotonic() + CHECK_INTERVAL
        self.next_report = monotonic()  # when it may next be reported that a client cannot be accepted

    def serve_forever(self) -> None:
        """Serve until an exception such as KeyboardInterrupt; then close all connections."""
        try:
            while True:
                self.serve_once()
        finally:
            for client in self.clients:
                client.sock.close()
            self.selector.close()

    def serve_once(self) -> None:
        """Wait until something can be read, but not longer than CHECK_INTERVAL; read it and answer."""
        flush_log()  # the log collects lines: write them before waiting, once in each turn of this loop
        for key, _ in self.selector.select(CHECK_INTERVAL):  # of (key, event) we need the key
            if key.data is None:  # what was given to `register`
                self.accept_clients()
            else:
                self.serve_client(key.data)
        if monotonic() >= self.next_check:
            self.check_clients()

    def accept_clients(self) -> None:
        """Accept the clients who are waiting: MAX_ACCEPTS at most, and only as long as there is room."""
        room = MAX_CLIENTS - len(self.clients)
        if room <= 0:
            self.pause("there is no room for more")
        try:
            for _ in range(min(room, MAX_ACCEPTS)):
                self.accept_client()
        except BlockingIOError:  # nobody is waiting any more
            return
        except OSError as error:  # for example, this client has already left
            self.pause(str(error))

    def accept_client(self) -> None:
        """Accept one client and give it its first turn. Raises BlockingIOError, OSError."""
        sock, address = self.listener.accept()
        client = Client(sock, address)
        self.selector.register(sock, selectors.EVENT_READ, data=client)
        self.clients.add(client)
        LOG.debug("connected: %s", client.name)
        self.serve_client(client)  # most clients send immediately

    def pause(self, reason: str) -> None:
        """Report, at most once in REPORT_INTERVAL, that a client cannot be accepted; sleep a moment."""
        if monotonic() >= self.next_report:
            self.next_report = monotonic() + REPORT_INTERVAL
            LOG.error("cannot accept a client, %d are connected: %s", len(self.clients), reason)
        sleep(PAUSE)  # the selector reports this client again at once; do not use a whole processor for that

    def serve_client(self, client: Client) -> None:
        """Give a client its turn. Any error ends here and affects no other client."""
        try:
            if client.closing:
                self.ignore_input(client)
            else:
                self.answer_message(client)
        except ProtocolError as error:  # from `receive_message`: it has not sent a JSON object
            LOG.warning("refused %s: %s: received %r", client.name, error, client.data)
            self.finish(client, create_error(400, str(error)))
        except BlockingIOError:  # the first special kind of OSError: nothing has arrived yet
            return
        except ConnectionError:  # the second: it has left
            self.drop(client)
        except OSError as error:  # any other: the network has failed, or the client does not read
            LOG.warning("lost %s: %s", client.name, error)
            self.drop(client)
        except Exception:  # the server itself has failed
            LOG.exception("failed to serve %s", client.name)  # an ERROR with the traceback
            self.finish(client, create_error(500, "internal server error"))

    def answer_message(self, client: Client) -> None:
        """Receive a message from a client, process it, and send the response."""
        message = receive_message(client)
        if message is None:
            return
        client.deadline = monotonic() + MESSAGE_TIMEOUT
        response = process_client_message(message)
        if response is None:  # it quits
            self.finish(client)
            return
        send_message(client, response)
        if "error" in response:
            LOG.warning("invalid message from %s: %s", client.name, response["error"])

    def finish(self, client: Client, last_response: Message | None = None) -> None:
        """Send a client its last response, if there is one; then wait until it closes, or CLOSING_TIMEOUT."""
        client.closing = True
        client.deadline = monotonic() + CLOSING_TIMEOUT
        try:
            if last_response is not None:
                send_message(client, last_response)
            client.sock.shutdown(socket.SHUT_WR)  # send no more, but read on: `close` could lose the response
        except OSError:
            self.drop(client)

    def ignore_input(self, client: Client) -> None:
        """Receive what a client sends after its last response, and ignore it; drop it if it has closed."""
        piece = client.sock.recv(RECEIVE_BYTES)
        if not piece:
            self.drop(client)

    def drop(self, client: Client) -> None:
        """Close the connection of a client."""
        self.selector.unregister(client.sock)
        self.clients.remove(client)
        client.sock.close()
        LOG.debug("disconnected: %s", client.name)

    def check_clients(self) -> None:
        """Drop the clients whose time is over."""
        now = monotonic()
        self.next_check = now + CHECK_INTERVAL
        for client in list(self.clients):  # a copy, for `drop` changes the set
            if client.deadline <= now:
                if not client.closing:
                    LOG.warning("dropped %s: no complete message in %d s", client.name, MESSAGE_TIMEOUT)
                self.drop(client)


# The command line.


def open_listener(address: str, port: int) -> socket.socket:
    """Return a socket that listens on `address`, or on all addresses for "". Raises OSError, UnicodeError."""
    # `create_server` is `socket`, `bind` and `listen` in one call. AF_INET is IPv4, AF_INET6 is IPv6.
    if not address and socket.has_dualstack_ipv6():  # an IPv6 socket can also take IPv4 clients
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET  # ::1 is IPv6, 127.0.0.1 is IPv4
    results = socket.getaddrinfo(address or "0.0.0.0", port, family, socket.SOCK_STREAM)  # look up a name
    return socket.create_server(results[0][4], family=family, backlog=BACKLOG)  # [4]: address and port


def describe_error(error: OSError | UnicodeError, address: str, port: int) -> str:
    """Return one line for the user: why the server cannot listen, and what to do."""
    code = getattr(error, "errno", None)  # the system's number for the error; a UnicodeError has none
    if code == errno.EADDRINUSE:
        return f"port {port} is taken: stop the program that uses it, or choose another with -p"
    if code == errno.EADDRNOTAVAIL and address:
        return f"{address} is not an address of this machine: omit -a to listen on all of them"
    if code == errno.EACCES:  # the port is below 1024, or Windows keeps it for another program
        return f"the system does not allow port {port}: choose another, for example with -p 8888"
    return f"cannot serve on {address or 'all addresses'} port {port}: {error}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line; on a usage error print it and exit with code 2."""
    parser = argparse.ArgumentParser(description="Answer the presence messages of JIM clients, until Ctrl+C.")
    parser.add_argument("-p", dest="port", type=int, default=DEFAULT_PORT, help="port (default: %(default)s)")
    parser.add_argument("-a", dest="addr", default="", help="IP address to listen on (default: all)")
    parser.add_argument("--log-level", choices=LEVELS, default="DEBUG", help="lowest level in the log file")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= MAX_PORT:
        parser.error(f"a port is a number from 0 to {MAX_PORT}, not {arguments.port}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the server until Ctrl+C; return its exit code."""
    try:
        arguments = parse_args(argv)
        configure_log(arguments.log_level)
        with open_listener(arguments.addr, arguments.port) as listener:
            port = listener.getsockname()[1]  # the system has chosen it if 0 was given
            LOG.info("listening on %s port %d, stop with Ctrl+C", arguments.addr or "all addresses", port)
            Server(listener).serve_forever()
    except KeyboardInterrupt:
        LOG.info("stopped")
    except (OSError, UnicodeError) as error:
        LOG.error(describe_error(error, arguments.addr, arguments.port))
        return 1
    finally:
        close_log()
    return 0


def stop(number: int, frame: object) -> None:
    """Stop the server at Ctrl+C or `kill`. Python calls this with two arguments, which we do not need."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # ignore a second signal: it would disturb the end
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)  # Ctrl+C sends this signal
    signal.signal(signal.SIGTERM, stop)  # the command `kill` sends this one
    sys.exit(main())
