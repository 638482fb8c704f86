#!/usr/bin/env python3
"""Compare the twins: what both sides name must be the same text in both files.

    .ci/twins.py        the files in the current folder; exit code 1 and a line for each difference

A twin is a function, a class or a constant at the top level of both files.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

# What may differ, and why. What has become equal, or is no longer in both files, must leave this list.
ALLOWED = {
    ("client.py", "server.py"): {
        "describe_error": "other things go wrong when connecting than when listening",
        "main": "one exchange, or serving until it is stopped",
        "parse_args": "each side has its own command line",
        "receive_message": "the client waits, the server does not",
        "run": "one exchange, or serving until it is stopped",
        "send_message": "the client waits, the server does not",
    },
    ("client_log_config.py", "server_log_config.py"): {
        "LOG": "each side has its own logger",
        "OneLineFormatter": "the server's makes the text of each second only once",
        "close_log": "the server has lines left to write",
        "configure_log": "each side has its own handler for its files",
    },
}


def names(statement: ast.stmt) -> list[str]:
    """Return the names that a statement at the top level defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def definitions(path: str) -> dict[str, str]:
    """Return the text of each definition at the top level of a file, by its name."""
    source = Path(path).read_text(encoding="utf-8")
    texts: dict[str, str] = {}
    for statement in ast.parse(source).body:
        parts = [*getattr(statement, "decorator_list", []), statement]
        text = "\n".join(ast.get_source_segment(source, part) or "" for part in parts)
        for name in names(statement):
            texts[name] = texts.get(name, "") + text  # a name may be defined twice
    return texts


def complaints(pair: tuple[str, str], allowed: dict[str, str]) -> list[str]:
    """Return what is wrong with a pair of files, a line for each name."""
    ours, theirs = map(definitions, pair)
    both = ours.keys() & theirs.keys()
    different = {name for name in both if ours[name] != theirs[name]}
    where = " and ".join(pair)
    return [f"{where}: '{name}' differs" for name in sorted(different - allowed.keys())] + [
        f"{where}: '{name}' need not be allowed to differ" for name in sorted(allowed.keys() - different)
    ]


if __name__ == "__main__":
    sys.exit("\n".join(line for pair in ALLOWED for line in complaints(pair, ALLOWED[pair])) or 0)
