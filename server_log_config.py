"""The logger "server": it writes a file for each day into log/; INFO and ERROR also go to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
INFO and ERROR are about the server itself, DEBUG and WARNING are about one of its clients.
The client's file repeats some of these functions, so that each side can be copied alone.
"""

import glob
import logging
import os

LOG_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger's name is that of the script
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what --log-level may be
MAX_FILE_BYTES = 100 * 1024 * 1024  # 100 MB for the file of one day
MAX_LINES = 1000  # collected before they are written
KEPT_FILES = 30  # files of earlier days

LOG = logging.getLogger("server")
LOG.propagate = False  # only the handlers that are added below get its records
LOG.addHandler(logging.NullHandler())  # this one does nothing; with none at all, logging would print warnings


class OneLineFormatter(logging.Formatter):
    """Formats each record as one line; otherwise a line break in a name could start a forged line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; if it has unprintable characters, return it as `repr` shows it."""
        line = super().format(record)  # first let logging make the line
        if line.isprintable():
            return line
        return repr(line)[1:-1]  # a line break is now a backslash and an n; [1:-1] removes the quotes


def append(path: str, text: str) -> None:
    """Append `text` to a file; if its last line was cut off, begin a new line. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+b", buffering=0) as file:  # append bytes, in one piece; "+": we can also read
        if file.tell() > 0:  # the file is not empty: "a" starts at its end
            file.seek(-1, os.SEEK_END)  # go to the last byte, and read it
            if file.read(1) != b"\n":  # the last line was cut off, for example by a full disk
                text = "\n" + text
        file.write(text.encode("utf-8"))


def is_about_server(record: logging.LogRecord) -> bool:
    """Return whether `record` is about the server itself, and not about one of its clients."""
    return record.levelno in (logging.INFO, logging.ERROR)


class DailyFileHandler(logging.Handler):
    """Collects lines; `flush` appends them to the file of their day, log/server.YYYY-MM-DD.log."""

    def __init__(self) -> None:
        """Start without lines."""
        super().__init__()
        self.day = ""  # the date of the lines, for example "2026-11-25"
        self.path = ""  # the file of this day
        self.lines: list[str] = []
        self.full = False  # whether the file of this day is full
        self.problem = ""  # the last one, for example that the disk is full
        self.reported: list[str] = []  # the problems that have been reported

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one line; logging calls this for each record."""
        line = self.format(record) + "\n"
        day = line[:10]  # a line begins with its date
        if day != self.day:
            self.begin_day(day)
        if self.full and not is_about_server(record):  # a full file takes only what is about the server
            return
        self.lines.append(line)
        if len(self.lines) >= MAX_LINES:
            self.flush()

    def begin_day(self, day: str) -> None:
        """Write the lines of the day before; then collect those of `day`."""
        self.flush()
        self.day = day
        self.path = os.path.join(LOG_FOLDER, f"server.{day}.log")
        self.full = False
        delete_old_files(self.path)

    def flush(self) -> None:
        """Append the lines to the file of their day; if that fails, they are lost, and `problem` says why."""
        text = "".join(self.lines)
        self.lines = []
        if not text:
            return
        try:
            append(self.path, text)
            self.full = os.path.getsize(self.path) >= MAX_FILE_BYTES
        except OSError as error:
            self.problem = f"cannot write the log {self.path}, records are lost: {error}"
        if self.full:
            self.problem = f"the log {self.path} is full: until midnight it takes only INFO and ERROR"


def delete_old_files(path: str) -> None:
    """Of the log files that are older than `path`, keep the newest KEPT_FILES and delete the others."""
    pattern = os.path.join(glob.escape(LOG_FOLDER), "server.????-??-??.log")  # escape a ? in LOG_FOLDER
    older = [other for other in sorted(glob.glob(pattern)) if other < path]  # dates sort as text does
    for old in older[:-KEPT_FILES]:  # all but the last 30
        try:
            os.remove(old)
        except OSError:  # on Windows, another program may have it open
            pass


FILE_HANDLER = DailyFileHandler()


def flush_log() -> None:
    """Write the collected lines to the file; report each problem once."""
    FILE_HANDLER.flush()
    problem = FILE_HANDLER.problem
    if problem and problem not in FILE_HANDLER.reported:
        FILE_HANDLER.reported.append(problem)
        LOG.error(problem)


def configure_log(level: str = "DEBUG") -> None:
    """Write records of `level` (one of LEVELS) and above to the file, and INFO and ERROR to the console."""
    close_log()  # in case it was called before
    LOG.setLevel("DEBUG" if level == "DEBUG" else "INFO")  # the console shows INFO
    logging.logThreads = logging.logProcesses = False  # saves time: our lines do not show them
    console = logging.StreamHandler()
    console.addFilter(is_about_server)  # it shows only records for which this function returns True
    FILE_HANDLER.setLevel(level)
    for handler in (console, FILE_HANDLER):
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def close_log() -> None:
    """Write the collected lines; then remove all handlers but the first, which does nothing."""
    flush_log()
    for handler in LOG.handlers[1:]:
        LOG.removeHandler(handler)
