"""Compares client and server: what both files define at their top level must be the same text in both."""
# ruff: noqa: INP001

from __future__ import annotations

import ast
import sys
from pathlib import Path

# These are each side's own. What has become equal must leave this list.
ALLOWED = {"describe_error", "main", "parse_args", "send_message", "LOG", "close_log", "configure_log"}


def definitions(path: str) -> dict[str, str]:
    """Return the text of each function, class and constant at the top level of a file, by its name."""
    source = Path(path).read_text(encoding="utf-8")
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    names = [ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else node.name for node in nodes]
    return {name: ast.get_source_segment(source, node) or "" for name, node in zip(names, nodes)}


different = set()
for ending in (".py", "_log_config.py"):
    client, server = definitions(f"client{ending}"), definitions(f"server{ending}")
    different |= {name for name in client.keys() & server.keys() if client[name] != server[name]}
if different != ALLOWED:
    sys.exit(f"these differ and may not, or may differ and do not: {sorted(different ^ ALLOWED)}")
