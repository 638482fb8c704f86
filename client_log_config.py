"""The logger "client": it writes to log/client.log; INFO and above also go to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
Nothing is written before `configure_log` is called, nor after `close_log`.
The server's file repeats some of this, so that each side can be copied alone.
"""

from __future__ import annotations

import logging
import os

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "client.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger has the name of its script
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what --log-level may be

LOG = logging.getLogger("client")
LOG.propagate = False  # do not pass records on to the root logger and its handlers
LOG.addHandler(logging.NullHandler())  # does nothing; but with no handler at all, logging prints warnings


def escape(text: str) -> str:
    r"""Return `text` if it is printable, otherwise as `repr` shows it: a line break becomes \n."""
    if text.isprintable():
        return text
    return repr(text)[1:-1]  # [1:-1] removes the quotes


class OneLineFormatter(logging.Formatter):
    """Formats each record as one line, so that no name with a line break can forge a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record. If it has a traceback, the lines of this follow, indented."""
        record.msg = escape(record.getMessage())  # the message with its values
        record.args = ()  # there are no other values
        line, *traceback = super().format(record).split("\n")
        return "\n    ".join([line, *map(escape, traceback)])


class LogFileHandler(logging.Handler):
    """Appends each record to LOG_FILE. If this fails, it reports one error and stops.

    (logging's own FileHandler would print a traceback for each record.)
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record; logging calls this for each."""
        try:
            line = self.format(record)
            os.makedirs(os.path.dirname(LOG_FILE), exist_ok=True)
            with open(LOG_FILE, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line + "\n")
        except OSError as error:
            LOG.removeHandler(self)  # LOG.error calls all handlers: this one would fail again, without end
            LOG.error("cannot write the log %s: %s", LOG_FILE, error)
        except Exception:  # a mistake in a call of LOG, for example the wrong number of values
            self.handleError(record)  # shows a traceback on the console, and the program goes on


def configure_log(level: str = "DEBUG", verbose: bool = False) -> None:
    """Start the log. File: `level` and above. Console: the same, but DEBUG only if `verbose`."""
    close_log()  # in case it was called before
    LOG.setLevel(level)
    console = logging.StreamHandler()
    if not verbose:
        console.setLevel("INFO")
    for handler in (console, LogFileHandler()):
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def close_log() -> None:
    """Remove all handlers but the first, which does nothing."""
    for handler in LOG.handlers[1:]:
        LOG.removeHandler(handler)
