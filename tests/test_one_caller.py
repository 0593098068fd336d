"""How often a reader has to jump: to a function that is called from one place only."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dom0

PACKAGE = Path(dom0.__file__).parent
MOST = 0.25  # of all functions; httpx 0.28 has 0.31 by the same count, trio 0.35 has 0.26


def scopes(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Each node with the function or class that it is in."""
    for node in ast.iter_child_nodes(tree):
        yield name, node
        is_scope = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from scopes(node, f"{name}.{node.name}" if is_scope else name)  # type: ignore[attr-defined]


def test_at_most_a_quarter_of_the_functions_has_one_caller() -> None:
    """By their names, without special methods and what a decorator hands to somebody else, and without the test kit."""
    functions: list[str] = []
    callers: dict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        if "testing" in file.relative_to(PACKAGE).parts:
            continue
        for scope, node in scopes(ast.parse(file.read_text()), str(file)):
            match node:
                case ast.FunctionDef(name, decorator_list=[]) | ast.AsyncFunctionDef(name, decorator_list=[]):
                    functions += [] if name.startswith("__") else [name]
                case ast.Call(ast.Name(name) | ast.Attribute(attr=name)):
                    callers[name].add(scope)
    jumps = sum(len(callers[name]) == 1 for name in functions)
    assert len(functions) > 1000
    assert jumps <= MOST * len(functions), f"{jumps} of {len(functions)}"
