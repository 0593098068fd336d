"""How often a reader has to jump: to a function that is called from one place only."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dom0

PACKAGE = Path(dom0.__file__).parent
MOST = 0.25  # of all functions; by the same count httpx 0.28.1 has 0.31 (72 of 233), trio 0.35.0 has 0.28 (113 of 404)


def places(body: list[ast.stmt], name: str) -> Iterator[tuple[str, ast.stmt]]:
    """The module's functions and its classes' methods, each with its name, and all else as one place of that `name`."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield from places(node.body, f"{name}.{node.name}")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield f"{name}.{node.name}", node
            case _:
                yield name, node


def is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)


def test_at_most_a_quarter_of_the_functions_has_one_caller() -> None:
    """Counted by their names: functions and methods that stand in no other function, without special methods, without
    those that a decorator hands to somebody else and those of a Protocol, and without the test kit.

    A caller is one such function or method, with all that stands in it, or a module's other lines together. A function
    that calls itself is a caller of its own: it cannot be put back.
    """
    functions: list[str] = []
    callers: dict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        if "testing" in file.relative_to(PACKAGE).parts:
            continue
        module = ast.parse(file.read_text())
        declared = {id(method) for node in module.body if is_protocol(node) for method in ast.walk(node)}
        for place, node in places(module.body, str(file)):
            match node:
                case ast.FunctionDef(name, decorator_list=[]) | ast.AsyncFunctionDef(name, decorator_list=[]):
                    functions += [] if name.startswith("__") or id(node) in declared else [name]
            for inner in ast.walk(node):
                match inner:
                    case ast.Call(ast.Name(name) | ast.Attribute(attr=name)):
                        callers[name].add(place)
    jumps = sum(len(callers[name]) == 1 for name in functions)
    assert len(functions) > 1000
    assert jumps <= MOST * len(functions), f"{jumps} of {len(functions)}"
