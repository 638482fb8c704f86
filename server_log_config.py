"""The logger "server": one line a record, into log/server.log and, from INFO on, onto the console.

A line is `<date-time> <level> <module> <message>`, whatever a peer puts into the message.
The file turns over at midnight, and 30 old days are kept.
Importing this module opens and creates nothing: `configure` does, and `close` ends it.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import stat
import sys
import time
from typing import TextIO

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "server.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(module)s %(message)s"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what the log file may be limited to
CONSOLE_LEVEL = logging.INFO
OLD_DAYS = 30  # files kept besides the one of today


class ScriptLogger(logging.Logger):
    """A logger that takes every record for one of server.py.

    To search the stack for the module that speaks costs a large part of a record.
    """

    def findCaller(self, *_: object, **__: object) -> tuple[str, int, str, None]:
        """Return where every record is said to come from: file, line, function, no stack."""
        return "server.py", 0, "(unknown function)", None


logging.setLoggerClass(ScriptLogger)  # for this one logger
LOG = logging.getLogger("server")
logging.setLoggerClass(logging.Logger)
LOG.propagate = False  # to handlers of others, which would not escape what a peer sends
LOG.addHandler(logging.NullHandler())  # until `configure` is called, records go nowhere


def escape(text: str) -> str:
    r"""Return `text` with all that is not printable written as an escape such as \n, \x1b or \u202e.

    So a peer can neither start a line of its own in the log nor give commands to the terminal.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class OneLineFormatter(logging.Formatter):
    """Makes one line of a record, its traceback included."""

    second = 0  # since 1970, the last one whose text was made ...
    second_text = ""  # ... and this text

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line that `record` is, without a line break at its end."""
        return escape(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of `record`; the text of a second is made once, not once a record."""
        if int(record.created) != self.second:
            self.second = int(record.created)
            self.second_text = time.strftime("%Y-%m-%d %H:%M:%S", self.converter(self.second))
        return f"{self.second_text},{int(record.msecs):03}"


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no StreamHandler[...] before 3.11
    """Writes records to the console, but never waits for one that nobody reads."""

    def __init__(self) -> None:
        """Find out how to write to the console without waiting, if it is one that can make us wait."""
        super().__init__()
        self.console = open_without_waiting(self.stream)
        self.line_end = b""  # what the record before still lacks

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or as much of it as the console takes at once."""
        if self.console is None:
            super().emit(record)
            return
        line = self.line_end + self.format(record).encode(self.stream.encoding, "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            written = os.write(self.console, line)
            self.line_end = b"" if written == len(line) else b"\n"

    def close(self) -> None:
        """Close what has been opened; the console itself stays open."""
        super().close()
        if self.console is not None:
            os.close(self.console)
            self.console = None


def open_without_waiting(stream: TextIO) -> int | None:
    """Return a descriptor of our own for a terminal or a pipe, or None where that cannot be had.

    "Do not wait" holds for all who use the same descriptor, and others write to this console, too.
    On Linux this opens the console anew; elsewhere it may not, and the server may then have to wait.
    """
    try:
        descriptor = stream.fileno()
        if os.isatty(descriptor) or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (AttributeError, OSError, ValueError):  # Windows, an IDE's console, or none at all
        pass
    return None


class LogFileHandler(logging.handlers.TimedRotatingFileHandler):
    """Collects records for the log file of the day, to write many at a time.

    Where that fails, it says so once and lets the program go on.
    """

    failed = False

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Tell whether `record` is of another day than the file (and that a file: /dev/null has no days)."""
        return record.created >= self.rolloverAt and os.path.isfile(self.baseFilename)

    def rotate(self, source: str, dest: str) -> None:
        """Put the file of the day before aside; where that is not allowed, go on in it."""
        with contextlib.suppress(OSError):
            super().rotate(source, dest)

    def flush(self) -> None:
        """Do nothing, though called after each record: `write_out` writes them all."""

    def write_out(self) -> None:
        """Write to the file what has been collected."""
        try:
            super().flush()
        except OSError as error:
            self.report(error)

    def handleError(self, record: logging.LogRecord) -> None:
        """Report why a record could not be written; called while the error is handled."""
        self.report(sys.exc_info()[1])

    def report(self, error: BaseException | None) -> None:
        """Warn the person at the console, the first time that something goes wrong."""
        if not self.failed:
            self.failed = True
            warn_of_no_log(error)


def warn_of_no_log(error: BaseException | None) -> None:
    """Tell the person at the console that there is no log, and why."""
    LOG.warning("cannot write the log %s, going on without it: %s", LOG_FILE, error)


def configure(level: str = "DEBUG") -> None:
    """Let records from `level` (one of LEVELS) on into the log file, and from INFO on to the console.

    The log's folder is made if it is missing. Raises nothing when the file cannot be written:
    the warning on the console is all that comes of it.
    """
    close()
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no part of a line
    LOG.setLevel(min(logging.getLevelName(level), CONSOLE_LEVEL))  # the number that a name stands for
    add_handler(ConsoleHandler(), CONSOLE_LEVEL)
    try:
        os.makedirs(os.path.dirname(LOG_FILE), exist_ok=True)
        file_handler = LogFileHandler(LOG_FILE, when="midnight", backupCount=OLD_DAYS, encoding="utf-8")
        add_handler(file_handler, level)
    except OSError as error:
        warn_of_no_log(error)


def add_handler(handler: logging.Handler, level: int | str) -> None:
    """Let the logger write through `handler` what is of `level` or above."""
    handler.setLevel(level)
    handler.setFormatter(OneLineFormatter(LINE_FORMAT))
    LOG.addHandler(handler)


def write_out() -> None:
    """Write to the log file what has been collected for it; to be called before the program waits."""
    for handler in LOG.handlers:
        if isinstance(handler, LogFileHandler):
            handler.write_out()


def close() -> None:
    """Close the log file, and fall silent."""
    write_out()
    LOG.setLevel(logging.NOTSET)
    for handler in LOG.handlers[1:]:  # all but the NullHandler
        LOG.removeHandler(handler)
        with contextlib.suppress(OSError):  # of a full disk, which is known by now
            handler.close()
