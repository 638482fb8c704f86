"""The logger "server": one line per record, to a file a day in log/ and, INFO and ERROR, to the console.

A line is `<date-time> <level> <module> <message>`, whatever a peer sends.
Each line goes to the file of its own day, log/server.YYYY-MM-DD.log; 30 older files are kept.
Importing this module creates nothing; `configure_log` opens the log and `close_log` closes it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
from time import monotonic
from typing import BinaryIO

LOG_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the name of the logger is the module's
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # the choices of --log-level

LOG = logging.getLogger("server")
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


# The files: one a day. Nothing is ever renamed.

DAY_LENGTH = len("YYYY-MM-DD")  # a line begins with its day
DAY_FILES = "server.[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].log"  # the pattern of their names
OLD_FILES = 30  # files kept besides the one that is being written
MAX_FILE_BYTES = 100 * 1024 * 1024  # for a day: 31 such files are 3 GB, which a laptop can spare
REPORT_INTERVAL = 3600.0  # seconds between two reports that the log cannot be written


class DailyFileHandler(logging.Handler):
    """Collects lines; `flush` appends them to the file of their day."""

    def __init__(self) -> None:
        """Begin without lines."""
        super().__init__()
        self.lines: list[str] = []  # each with a newline at its end
        self.full_files: set[str] = set()  # those that have been reported as full
        self.next_report = monotonic()  # when a failure may be reported again
        self.check_end = True  # whether the file may end inside a line
        self.last_file = ""  # the file written last
        self.announced = False

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one record; logging calls this for each record."""
        try:
            self.lines.append(self.format(record) + "\n")
        except Exception:  # the call of the logger was wrong, for example "%d" with a string
            self.handleError(record)  # logging's own way: a traceback on the console

    def flush(self) -> None:
        """Append the collected lines to the file of their day, or files, if midnight is among them."""
        for day in sorted({line[:DAY_LENGTH] for line in self.lines}):
            path = os.path.join(LOG_FOLDER, f"server.{day}.log")
            text = "".join(line for line in self.lines if line.startswith(day))
            try:
                self.write(path, text.encode("utf-8"))
            except OSError as error:
                self.check_end = True
                self.report(path, error)
        self.lines.clear()  # also what could not be written: it must not fill the memory

    def write(self, path: str, lines: bytes) -> None:
        """Append `lines` to the file of a day, unless it is full. Raises OSError."""
        with open_log_file(path) as file:
            size = file.tell()  # right after opening, the position is the end
            if size == 0:
                delete_old_files(path)
            if size >= MAX_FILE_BYTES:
                self.report_full(path)
                return
            if self.check_end and ends_inside_a_line(file):
                file.write(b"\n")
            file.write(lines)
        self.check_end = False
        self.last_file = path

    def announce(self) -> None:
        """Say where the log is: once, and not before something has been written there."""
        if self.last_file and not self.announced:
            self.announced = True
            LOG.info("log in %s", self.last_file)

    def report_full(self, path: str) -> None:
        """Say, once for each file, that it is full."""
        if path not in self.full_files:
            self.full_files.add(path)
            LOG.error("the log %s is full, the rest of the day is not logged", path)

    def report(self, path: str, error: OSError) -> None:
        """Say that the log cannot be written, but not again within REPORT_INTERVAL."""
        if monotonic() >= self.next_report:
            self.next_report = monotonic() + REPORT_INTERVAL
            LOG.error("cannot write the log %s, going on without it: %s", path, error)


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


def delete_old_files(new_file: str) -> None:
    """Delete the oldest files, by their names, but keep OLD_FILES of them, and `new_file`."""
    names = fnmatch.filter(os.listdir(LOG_FOLDER), DAY_FILES)
    old_names = sorted(name for name in names if name != os.path.basename(new_file))
    for name in old_names[:-OLD_FILES]:  # all but the last OLD_FILES
        with contextlib.suppress(OSError):  # open in another program (on Windows), or a folder: it stays
            os.remove(os.path.join(LOG_FOLDER, name))


# The logger's handlers: the console and the files.


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
    skip_what_no_line_shows(True)
    LOG.setLevel("DEBUG" if level == "DEBUG" else "INFO")  # INFO for the console, even if not for the file
    console = logging.StreamHandler()
    console.addFilter(is_for_console)
    add_handler(console, "INFO")
    add_handler(DailyFileHandler(), level)


def add_handler(handler: logging.Handler, level: str) -> None:
    """Add `handler` to the logger, for records from `level` up."""
    handler.setLevel(level)
    handler.setFormatter(OneLineFormatter(LINE_FORMAT))
    LOG.addHandler(handler)


def flush_log() -> None:
    """Write the collected lines to the log file. The server calls this before it waits."""
    for handler in LOG.handlers:
        if isinstance(handler, DailyFileHandler):
            handler.flush()
            handler.announce()


def close_log() -> None:
    """Write what is left, then remove and close the handlers; later records go nowhere."""
    for handler in LOG.handlers:
        if isinstance(handler, DailyFileHandler):
            handler.flush()
    for handler in LOG.handlers[1:]:  # all but the NullHandler
        LOG.removeHandler(handler)
        handler.close()
    skip_what_no_line_shows(False)


CALLER_FILE = logging._srcfile  # noqa: SLF001  # see below


def skip_what_no_line_shows(skip: bool) -> None:
    """Let logging find out no thread, process or calling function for a record, or all of them again.

    This makes a record a third cheaper. The switches are those of the logging HOWTO, "Optimization".
    """
    logging._srcfile = None if skip else CALLER_FILE  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = not skip
