"""The logger "server": it writes to a file for each day in log/, and INFO and ERROR also to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
A line goes to the file of its own day, log/server.YYYY-MM-DD.log; 30 older files are kept.
Importing this module creates nothing; `configure_log` switches the log on, and `close_log` off.
"""

from __future__ import annotations

import fnmatch
import functools
import logging
import os
from time import localtime, monotonic, strftime

LOG_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger's name is the module's, too
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # the choices of --log-level

LOG = logging.getLogger("server")
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

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of `record`, for example "2026-11-22 12:18:51,552"."""
        return f"{second_as_text(int(record.created))},{int(record.msecs):03}"


@functools.lru_cache(maxsize=1)  # remembers its last result: most records are of the same second
def second_as_text(second: int) -> str:
    """Return a Unix time as local date and time."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(second))


DAY_FILES = "server.[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].log"  # [0-9] is any digit, as in a shell
OLD_FILES = 30  # files kept besides the one that is being written
MAX_FILE_BYTES = 100 * 1024 * 1024  # the most for one day: 31 full files take 3 GB
REPORT_INTERVAL = 3600.0  # seconds between two reports that the log cannot be written
BUSY_INTERVAL = 0.01  # seconds between two writes to the file while the server is busy


class DailyFileHandler(logging.Handler):
    """Collects lines; `flush` appends them to the file of their day."""

    def __init__(self) -> None:
        """Begin without lines."""
        super().__init__()
        self.lines: dict[str, list[str]] = {}  # for each day, such as "2026-11-22", its lines
        self.full_files: set[str] = set()  # those that have been reported as full
        self.next_report = monotonic()  # when a failure may be reported again
        self.next_flush = monotonic()  # when a busy server has to write the lines
        self.check_end = False  # True after a failed write
        self.last_file = ""  # the file written last
        self.announced = False  # whether the user has been told where the log is

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one record; logging calls this for each record."""
        try:
            line = self.format(record) + "\n"
            day = line[:10]  # a line begins with its day
            self.lines.setdefault(day, []).append(line)  # `setdefault` puts [] there if the day is new
        except Exception:  # the program's own call of LOG was wrong, for example "%d" with a string
            self.handleError(record)  # what logging's own handlers do: show a traceback on the console

    def flush(self) -> None:
        """Append the collected lines to the file of their day; after midnight there may be two days."""
        for day in sorted(self.lines):
            path = f"{LOG_FOLDER}{os.sep}server.{day}.log"
            try:
                self.write(path, self.lines[day])
            except OSError as error:
                self.check_end = True
                if monotonic() >= self.next_report:
                    self.next_report = monotonic() + REPORT_INTERVAL
                    LOG.error("cannot write the log %s, records are lost: %s", path, error)
        self.lines.clear()  # drop what could not be written, and the line that this error has just added
        self.next_flush = monotonic() + BUSY_INTERVAL

    def write(self, path: str, lines: list[str]) -> None:
        """Append `lines` to the file of a day, unless it is full. Raises OSError."""
        file = open_day_file(path)
        try:
            size = os.lseek(file, 0, os.SEEK_END)  # go to the end; the position there is the size
            if size == 0:
                delete_old_files(path)
            if size >= MAX_FILE_BYTES:
                if path not in self.full_files:
                    self.full_files.add(path)
                    LOG.error("the log %s is full, the rest of the day is not logged", path)
                return
            # After a failed write, or in a file that is new to us, the last line may be cut off.
            if (self.check_end or path != self.last_file) and size > 0 and last_line_is_cut_off(file):
                os.write(file, b"\n")
            data = "".join(lines).encode("utf-8")
            lines.clear()  # before writing, so that close_log does not write them again after Ctrl+C
            written = os.write(file, data)
            if written < len(data):  # the disk is full: to write the rest raises the error that says so
                os.write(file, data[written:])
        finally:
            os.close(file)
        self.check_end = False
        self.last_file = path

    def announce(self) -> None:
        """Tell the user once where the log is, after the first successful write."""
        if self.last_file and not self.announced:
            self.announced = True
            LOG.info("log in %s", self.last_file)


# `os.open` returns a number, the file's descriptor, and takes half of the time of `open`: the log is written
# often. O_BINARY keeps Windows from writing "\r\n" for "\n".
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


def open_day_file(path: str) -> int:
    """Open a log file for appending; make it, and its folder, if they are missing. Raises OSError."""
    try:
        return os.open(path, OPEN_FLAGS, 0o666)  # 0o666: everybody may read and write it, but not execute it
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, OPEN_FLAGS, 0o666)


def last_line_is_cut_off(file: int) -> bool:
    """Return whether the last line of `file` is cut off, as happens when the disk is full."""
    os.lseek(file, -1, os.SEEK_END)  # go to the last byte
    return os.read(file, 1) != b"\n"


def delete_old_files(new_file: str) -> None:
    """Keep `new_file` and OLD_FILES others, the newest by the dates in their names; delete the rest."""
    names = fnmatch.filter(os.listdir(LOG_FOLDER), DAY_FILES)  # the names that match the pattern
    old_names = sorted([name for name in names if name != os.path.basename(new_file)])
    for name in old_names[:-OLD_FILES]:  # all but the last OLD_FILES
        try:
            os.remove(os.path.join(LOG_FOLDER, name))
        except OSError:  # for example, it is open in another program: leave it
            pass


# What logging looks up for each record (calling function, thread, process) is not in our lines, and takes a
# quarter of the time: configure_log switches it off ("Optimization" in logging's HOWTO), close_log on.
SAVED_SRCFILE = logging._srcfile


def is_for_console(record: logging.LogRecord) -> bool:
    """Return False for a WARNING, which the console does not show.

    The other side can cause any number of them, and printing to a paused terminal would stop this program.
    """
    return record.levelno != logging.WARNING


def configure_log(level: str = "DEBUG") -> None:
    """Write records of `level` (one of LEVELS) and above to the file, and INFO and ERROR to the console."""
    close_log()  # in case it was on already
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    LOG.setLevel("DEBUG" if level == "DEBUG" else "INFO")  # let INFO through to the console in any case
    console = logging.StreamHandler()
    console.addFilter(is_for_console)  # a filter decides, beside the level, which records are shown
    for handler, lowest_level in ((console, "INFO"), (DailyFileHandler(), level)):
        handler.setLevel(lowest_level)
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def flush_log(idle: bool = True) -> None:
    """Write the collected lines to the log file; while the server is not idle, only every BUSY_INTERVAL."""
    for handler in LOG.handlers:
        if isinstance(handler, DailyFileHandler) and (idle or monotonic() >= handler.next_flush):
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
    logging._srcfile = SAVED_SRCFILE
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = True
