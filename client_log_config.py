"""The logger "client": it writes to log/client.log, and INFO and ERROR also to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
Importing this module creates nothing; `configure_log` switches the log on, and `close_log` off.
"""

import logging
import os
from typing import BinaryIO

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "client.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger's name is the module's, too
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # the choices of --log-level

LOG = logging.getLogger("client")
LOG.propagate = False  # do not pass records on to the root logger, which would not `escape` them (below)
LOG.addHandler(logging.NullHandler())  # until `configure_log` is called, records go nowhere


def escape(text: str) -> str:
    r"""Return `text` with unprintable characters escaped, for example a line break as \n.

    Otherwise the other side could fake a log line, or clear the screen with a control character.
    """
    if text.isprintable():
        return text
    escaped = ""
    for char in text:
        escaped += char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
    return escaped


class OneLineFormatter(logging.Formatter):
    """Formats a record, with its traceback, as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as one line, without a newline at its end."""
        return escape(super().format(record))


class LogFileHandler(logging.Handler):
    """Appends each record to the log file. If that fails, it says so once and the program goes on.

    Unlike logging.FileHandler it opens the file for each record, so that a deleted file is made again.
    """

    failed = False  # True when that has been said
    check_end = True  # whether the last line may be cut off: at the start and after a failure

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record to the file; logging calls this for each record."""
        try:
            line = self.format(record).encode("utf-8") + b"\n"
            with open_log_file(LOG_FILE) as file:
                if self.check_end and ends_inside_a_line(file):
                    file.write(b"\n")
                file.write(line)
            self.check_end = False
        except OSError as error:
            self.check_end = True
            if not self.failed:
                self.failed = True  # before LOG.error, which calls this method again
                LOG.error("cannot write the log %s, records are lost: %s", LOG_FILE, error)
        except Exception:  # the program's own call of LOG was wrong, for example "%d" with a string
            self.handleError(record)  # what logging's own handlers do: show a traceback on the console


def open_log_file(path: str) -> BinaryIO:
    """Open a log file for appending; make it, and its folder, if they are missing. Raises OSError."""
    try:
        return open(path, "ab+")  # "a": what is written goes to the end; "+": reading is allowed, too
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "ab+")


def ends_inside_a_line(file: BinaryIO) -> bool:
    """Return whether the last line of `file` is cut off, as happens when the disk is full."""
    if file.tell() == 0:  # the position; after opening with "a" it is the end, so this file is empty
        return False
    file.seek(-1, os.SEEK_END)  # go to the last byte
    return file.read(1) != b"\n"


def is_for_console(record: logging.LogRecord) -> bool:
    """Return False for a WARNING, which the console does not show.

    The other side can cause any number of them, and printing to a paused terminal would stop this program.
    """
    return record.levelno != logging.WARNING


def configure_log(level: str = "DEBUG") -> None:
    """Write records of `level` (one of LEVELS) and above to the file, and INFO and ERROR to the console."""
    close_log()  # in case it was on already
    LOG.setLevel("DEBUG" if level == "DEBUG" else "INFO")  # let INFO through to the console in any case
    console = logging.StreamHandler()
    console.addFilter(is_for_console)  # a filter decides, beside the level, which records are shown
    for handler, lowest_level in ((console, "INFO"), (LogFileHandler(), level)):
        handler.setLevel(lowest_level)
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def close_log() -> None:
    """Remove and close the handlers; later records go nowhere."""
    for handler in LOG.handlers[1:]:  # all but the NullHandler
        LOG.removeHandler(handler)
        handler.close()
