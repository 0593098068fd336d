"""How long a function may be until it is parted: as much as fits on a screen."""

from __future__ import annotations

import ast
from pathlib import Path

import dom0

PACKAGE = Path(dom0.__file__).parent
MOST = 60  # lines, with those of functions in it


def test_no_function_is_longer_than_sixty_lines() -> None:
    """Without the test kit."""
    long = [
        f"{file.relative_to(PACKAGE)}: {node.name} has {lines} lines"
        for file in PACKAGE.rglob("*.py")
        if "testing" not in file.relative_to(PACKAGE).parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST
    ]
    assert long == []
