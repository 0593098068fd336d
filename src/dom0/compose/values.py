"""YAML text → plain values, by one small set of rules: no dates, no sexagesimals, no `yes` that turns into true.

Docker Compose writes YAML 1.2 with Go's rules for quotes. By PyYAML's own rules `=`, `<<` or `1:30` would have another
meaning.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml import CSafeLoader

from dom0.compose.tags import Override, Reset

_PREFIX = "tag:yaml.org,2002:"


class PlainLoader(CSafeLoader):
    """Only for text that our own measuring or Compose itself has made safe."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own interface


class SourceLoader(PlainLoader):
    """Of a file as a person writes it: merge keys and Compose's two tags."""


def _number(kind: type[float], node: yaml.Node) -> float | str:
    try:
        return kind(node.value)
    except ValueError:
        return str(node.value)


def _override(loader: CSafeLoader, node: yaml.Node) -> Override:
    match node:
        case yaml.MappingNode():
            return Override(loader.construct_mapping(node, deep=True))
        case yaml.SequenceNode():
            return Override(loader.construct_sequence(node, deep=True))
        case yaml.ScalarNode():
            return Override(loader.construct_scalar(node))
        case _:
            raise AssertionError(node)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,19})", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,2})?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    PlainLoader.add_implicit_resolver(_PREFIX + _tag, re.compile(f"(?:{_pattern})$", re.ASCII), list(_first))
PlainLoader.add_constructor(f"{_PREFIX}int", lambda _, node: _number(int, node))
PlainLoader.add_constructor(f"{_PREFIX}float", lambda _, node: _number(float, node))
PlainLoader.add_constructor(f"{_PREFIX}bool", lambda _, node: node.value.lower() == "true")
PlainLoader.add_constructor(f"{_PREFIX}null", lambda _loader, _node: None)
SourceLoader.add_implicit_resolver(_PREFIX + "merge", re.compile(r"<<$"), ["<"])
SourceLoader.add_constructor("!reset", lambda _loader, _node: Reset)
SourceLoader.add_constructor("!override", _override)
