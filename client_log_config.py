"""The logger "client": one line per record, to log/client.log and, INFO and ERROR, to the console.

A line is `<date-time> <level> <module> <message>`, whatever a peer sends.
Importing this module creates nothing; `configure_log` opens the log and `close_log` closes it.
"""

from __future__ import annotations

import logging
import os
from typing import BinaryIO

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "client.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the name of the logger is the module's
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # the choices of --log-level

LOG = logging.getLogger("client")
LOG.propagate = False  # other loggers' handlers would write records as they are, without `escape`
LOG.addHandler(logging.NullHandler())  # until `configure_log` is called, records go nowhere


def escape(text: str) -> str:
    r"""Return `text` with unprintable characters escaped, for example a line break as \n.

    So a peer can neither forge a log line nor send control sequences to the terminal.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escape_character(char) for char in text)


def escape_character(char: str) -> str:
    r"""Return a character as Python writes it in a string: \n, \x1b, \u202e."""
    return char.encode("unicode_escape").decode("ascii")


class OneLineFormatter(logging.Formatter):
    """Formats a record, with its traceback, as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as one line, without a newline at its end."""
        return escape(super().format(record))


class LogFileHandler(logging.Handler):
    """Appends each record to the log file. If that fails, it says so once and the program goes on."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record to the file; logging calls this for each record."""
        try:
            line = self.format(record).encode("utf-8") + b"\n"
            with open_log_file(LOG_FILE) as file:
                if ends_inside_a_line(file):
                    file.write(b"\n")
                file.write(line)
        except OSError as error:
            self.report(error)
        except Exception:  # the call of the logger was wrong, for example "%d" with a string
            self.handleError(record)  # logging's own way: a traceback on the console

    def report(self, error: OSError) -> None:
        """Say that the log cannot be written, but only once."""
        if not self.failed:
            self.failed = True
            LOG.error("cannot write the log %s, going on without it: %s", LOG_FILE, error)


def open_log_file(path: str) -> BinaryIO:
    """Open a log file for appending; make it, and its folder, if they are missing. Raises OSError."""
    try:
        return open(path, "ab+")  # "a": what is written goes to the end; "+": reading is allowed, too
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "ab+")


def ends_inside_a_line(file: BinaryIO) -> bool:
    """Return whether the last line of `file` was cut off, as happens when the disk is full."""
    if file.tell() == 0:  # right after opening, the position is the end: the file is empty
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def is_for_console(record: logging.LogRecord) -> bool:
    """Return whether the console shows `record`: INFO and ERROR, what this program says of itself.

    A WARNING is about the peer: a peer could flood the console, or stop us at one that nobody reads.
    """
    return record.levelno != logging.WARNING


def configure_log(level: str = "DEBUG") -> None:
    """Send records to the log file from `level` up (one of LEVELS), and INFO and ERROR to the console.

    If the file cannot be written, that is reported on the console; nothing is raised.
    """
    close_log()
    LOG.setLevel("DEBUG" if level == "DEBUG" else "INFO")  # INFO for the console, even if not for the file
    console = logging.StreamHandler()
    console.addFilter(is_for_console)
    add_handler(console, "INFO")
    add_handler(LogFileHandler(), level)


def add_handler(handler: logging.Handler, level: str) -> None:
    """Add `handler` to the logger, for records from `level` up."""
    handler.setLevel(level)
    handler.setFormatter(OneLineFormatter(LINE_FORMAT))
    LOG.addHandler(handler)


def close_log() -> None:
    """Remove and close the handlers; later records go nowhere."""
    for handler in LOG.handlers[1:]:  # all but the NullHandler
        LOG.removeHandler(handler)
        handler.close()
