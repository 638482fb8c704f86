"""The logger "server": it writes a file for each day into log/; INFO and above also go to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
The client's file repeats some of this, so that each side can be copied alone.
"""

from __future__ import annotations

import fnmatch
import logging
import os
from collections import deque  # a list that quickly removes its first item
from datetime import date

LOG_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger has the name of its script
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what --log-level may be
BUFFER_BYTES = 1024 * 1024  # written in one piece, as another server may write to the same file
MAX_FILE_BYTES = 100 * 1024 * 1024  # 100 MB for the file of a day, so that no client can fill the disk
KEPT_FILES = 30  # files of earlier days

LOG = logging.getLogger("server")
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


class DailyFileHandler(logging.Handler):
    """Collects lines; `flush` appends them to today's file, log/server.YYYY-MM-DD.log.

    The date is in the file's name, so nothing has to be renamed at midnight. logging's
    TimedRotatingFileHandler renames its file; on Windows, this fails while another program reads it.
    """

    def __init__(self) -> None:
        """Start without lines."""
        super().__init__()
        self.lines: deque[str] = deque()
        self.path = ""  # the file of the last flush
        self.full = False  # whether this file has MAX_FILE_BYTES
        self.reported: set[str] = set()  # the problems that the user has been told of

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one line; logging calls this for each record. A full file takes only errors."""
        still_full = self.full and self.path == path_of_today()  # on a new day, there is a new file
        if still_full and record.levelno < logging.ERROR:
            return
        try:
            self.lines.append(self.format(record) + "\n")
        except Exception:  # a mistake in a call of LOG, for example the wrong number of values
            self.handleError(record)  # shows a traceback on the console, and the program goes on

    def flush(self) -> None:
        """Append the lines to today's file. If that fails, they are lost, and an ERROR says why."""
        if not self.lines:
            return
        if self.path != path_of_today():
            self.begin_day()
        try:
            os.makedirs(LOG_FOLDER, exist_ok=True)
            with open(self.path, "a", BUFFER_BYTES, encoding="utf-8", errors="backslashreplace") as file:
                while self.lines:  # one by one: if Ctrl+C interrupts this, the others are still there
                    file.write(self.lines[0])
                    self.lines.popleft()
            self.full = os.path.getsize(self.path) >= MAX_FILE_BYTES
        except OSError as error:
            self.lines = deque(["\n"])  # the file may end with half a line: next time, first end it
            self.report(f"cannot write the log {self.path}, records are lost: {error}")
        if self.full:
            self.report(f"the log {self.path} is full: until midnight it takes only errors")

    def begin_day(self) -> None:
        """Change to the file of today."""
        self.path = path_of_today()
        self.full = False
        delete_old_files()

    def report(self, problem: str) -> None:
        """Log a problem of the log itself, once. LOG.error calls `emit`, but not `flush`: no endless loop."""
        if problem not in self.reported:
            self.reported.add(problem)
            LOG.error(problem)


def path_of_today() -> str:
    """Return the path of the file that today's records are written to."""
    return os.path.join(LOG_FOLDER, f"server.{date.today()}.log")


def delete_old_files() -> None:
    """Of the log files of earlier days, keep the newest KEPT_FILES and delete the others."""
    try:
        names = os.listdir(LOG_FOLDER)
    except OSError:  # there is no such folder yet
        return
    names = sorted(fnmatch.filter(names, "server.????-??-??.log"))  # ? is any character
    today = os.path.basename(path_of_today())
    earlier = [name for name in names if name < today]  # sorted names are sorted dates: the year comes first
    for name in earlier[:-KEPT_FILES]:  # all but the last KEPT_FILES
        try:
            os.remove(os.path.join(LOG_FOLDER, name))
        except OSError:  # on Windows, another program may have it open
            pass


FILE_HANDLER = DailyFileHandler()


def flush_log() -> None:
    """Write the collected lines to the file."""
    FILE_HANDLER.flush()


def configure_log(level: str = "DEBUG", verbose: bool = False) -> None:
    """Start the log. File: `level` and above. Console: the same, but DEBUG only if `verbose`."""
    close_log()  # in case it was called before
    LOG.setLevel(level)
    console = logging.StreamHandler()
    if not verbose:
        console.setLevel("INFO")
    for handler in (console, FILE_HANDLER):
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def close_log() -> None:
    """Write the collected lines; then remove all handlers but the first, which does nothing."""
    FILE_HANDLER.flush()
    for handler in LOG.handlers[1:]:
        LOG.removeHandler(handler)
