"""Compares client and server: what both define at their top level is the same, but for those two words."""
# ruff: noqa: INP001

from __future__ import annotations

import ast
import sys
from pathlib import Path

# These are each side's own. What has become equal must leave this list.
ALLOWED = {
    "ConfigureLog", "DescribeError", "LogCase", "Main", "ParseArgs", "Script", "SendMessage", "close_log",
    "configure_log", "describe_error", "main", "parse_args", "send_message",
}  # fmt: skip


def definitions(path: str) -> dict[str, str]:
    """Return the text of each function, class and constant at the top level of a file, by its name."""
    source = Path(path).read_text(encoding="utf-8").replace("client", "server")
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    names = [ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else node.name for node in nodes]
    return {name: ast.get_source_segment(source, node) or "" for name, node in zip(names, nodes)}


different = set()
for name in ("{}.py", "{}_log_config.py", "test_{}.py"):
    client, server = definitions(name.format("client")), definitions(name.format("server"))
    different |= {each for each in client.keys() & server.keys() if client[each] != server[each]}
if different != ALLOWED:
    sys.exit(f"these differ and may not, or may differ and do not: {sorted(different ^ ALLOWED)}")
