"""Attempts on the control groups of the host, by the request that gives a scope inside a budget: path 20."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dom0.testing.escape.case import Attempt, Case, body, run
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import World

_PUT = ("PUT", "/dom0/budget")
_SCOPES = (
    *("", "/", "..", "/..", "/../other", "/team/../..", "/team/../../other", "//team", "/team/", "team", "/./team"),
    *("/Team", "/\u212aind", "/team\n", "/team\0", "/other.slice", "/" + "a" * 32, "/" + "a" * 64, "/x" * 16),
    *("/tasks", "/cgroup.procs", "/memory.max", "/cgroup.subtree_control", "/\\x2e\\x2e"),
)
_BODIES: tuple[Any, ...] = (
    '{"Scope":"/team","scope":"/../other"}',
    '{"scope":"/../other"}',
    '{"Scope":["/../other"]}',
    '{"Scope":"/team","CgroupParent":"/"}',
    '{"Scope":"/team","PidsLimit":-1}',
    '{"Scope":"/team","Memory":"max"}',
    '{"Scope":"/team","PidsLimit":1e30}',
    '{"Scope":"/team","Containers":{"":1000}}',
    '{"Scope":"/team","Containers":{"/../other":5}}',
)
_PARENTS = ("/team", "/team/..", "/team/../..", "/other", "/team.slice", "//team", "team", "/team/other")


def cases() -> Iterator[Case]:
    for scope in _SCOPES:
        yield Case(20, f"a budget of {json.dumps(scope)}", _budget(json.dumps({"Scope": scope, "PidsLimit": 5})))
    for text in _BODIES:
        yield Case(20, f"a budget by {text}", _budget(text))
    for parent in _PARENTS:
        yield Case(20, f"the budget of /team, and a container in {parent}", _contained(parent))


def _budget(text: str) -> Attempt:
    return lambda client, world: [client.ask(*_PUT, text.encode())]


def _contained(parent: str) -> Attempt:
    def attempt(client: Client, world: World) -> list[Answer]:
        made = client.ask(*_PUT, {"Scope": "/team", "PidsLimit": 50})
        return [made, *run(client, body(world, HostConfig={"CgroupParent": parent}))]

    return attempt
