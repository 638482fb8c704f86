"""The logger "client": one line a record, into log/client.log and, from INFO on, onto the console.

A line is `<date-time> <level> <module> <message>`, whatever a peer puts into the message.
Importing this module opens and creates nothing: `configure` does, and `close` ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "client.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(module)s %(message)s"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what the log file may be limited to
CONSOLE_LEVEL = logging.INFO

LOG = logging.getLogger("client")
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

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line that `record` is, without a line break at its end."""
        return escape(super().format(record))


class LogFileHandler(logging.FileHandler):
    """Writes records to the log file; when that fails, it says so once and lets the program go on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Warn the first time that a record cannot be written; called while the error is handled."""
        if not self.failed:
            self.failed = True
            warn_of_no_log(sys.exc_info()[1])


def warn_of_no_log(error: BaseException | None) -> None:
    """Tell the person at the console that there is no log, and why."""
    LOG.warning("cannot write the log %s, going on without it: %s", LOG_FILE, error)


def configure(level: str = "DEBUG") -> None:
    """Let records from `level` (one of LEVELS) on into the log file, and from INFO on to the console.

    The log's folder is made if it is missing. Raises nothing when the file cannot be written:
    the warning on the console is all that comes of it.
    """
    close()
    LOG.setLevel(min(logging.getLevelName(level), CONSOLE_LEVEL))  # the number that a name stands for
    add_handler(logging.StreamHandler(), CONSOLE_LEVEL)
    try:
        os.makedirs(os.path.dirname(LOG_FILE), exist_ok=True)
        add_handler(LogFileHandler(LOG_FILE, encoding="utf-8"), level)
    except OSError as error:
        warn_of_no_log(error)


def add_handler(handler: logging.Handler, level: int | str) -> None:
    """Let the logger write through `handler` what is of `level` or above."""
    handler.setLevel(level)
    handler.setFormatter(OneLineFormatter(LINE_FORMAT))
    LOG.addHandler(handler)


def close() -> None:
    """Close the log file, and fall silent."""
    LOG.setLevel(logging.NOTSET)
    for handler in LOG.handlers[1:]:  # all but the NullHandler
        LOG.removeHandler(handler)
        with contextlib.suppress(OSError):  # of a full disk, which is known by now
            handler.close()
