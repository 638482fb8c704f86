"""The logger "client": it writes to log/client.log; INFO and above also go to the console.

Each record is one line, `<date-time> <level> <module> <message>`, whatever the other side sends.
Nothing is written before `configure_log` is called, nor after `close_log`.
The server's file repeats some of these functions, so that each side can be copied alone.
"""

import logging
import os

LOG_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log", "client.log")
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"  # the logger's name is that of the script
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # what --log-level may be

LOG = logging.getLogger("client")
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


class LogFileHandler(logging.Handler):
    """Appends each record to the log file. If that fails, it reports the error and removes itself.

    (logging's own FileHandler would show a traceback instead.)
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record; logging calls this for each record."""
        try:
            append(LOG_FILE, self.format(record) + "\n")
        except OSError as error:
            LOG.removeHandler(self)  # or LOG.error would call `emit` again; now only the console is left
            LOG.error("cannot write the log %s: %s", LOG_FILE, error)


def configure_log(level: str = "DEBUG") -> None:
    """Write records of `level` (one of LEVELS) and above to the file, and INFO and above to the console."""
    close_log()  # in case it was called before
    LOG.setLevel("DEBUG")  # the logger takes everything; each handler has its own level
    console = logging.StreamHandler()
    console.setLevel("INFO")
    file_handler = LogFileHandler()
    file_handler.setLevel(level)
    for handler in (console, file_handler):
        handler.setFormatter(OneLineFormatter(LINE_FORMAT))
        LOG.addHandler(handler)


def close_log() -> None:
    """Remove all handlers but the first, which does nothing."""
    for handler in LOG.handlers[1:]:
        LOG.removeHandler(handler)
