"""What has to be done in a Swarm so that the projects under `float/` run there, and why. Pure.

Only what has the farm's label is changed or removed. A step that cannot be taken says so, and is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dom0.engine.bodies import Body
from dom0.farms.float_content import FloatProject, digest_of_body

Kind = Literal["network", "secret", "config", "service"]
MOST_SAID = 300  # characters


class FloatAction(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"
    STAYS = "stays"  # it would be another one, and cannot be


class FloatObject(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. `farm`, `project`, `digest`: what its labels say, "" where it has none of ours. Of a service:
    `running` of `wanted` tasks, on which `nodes` (names), `images` that it may run and `files`
    that it may need, how its last `update` ended.
    """

    kind: Kind
    name: str
    id: str
    farm: str = ""
    project: str = ""
    digest: str = ""
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    running: int = 0
    wanted: int = 0
    nodes: tuple[str, ...] = ()
    update: str = ""
    said: Annotated[str, Meta(max_length=MOST_SAID)] = ""


class FloatStep(msgspec.Struct, frozen=True, kw_only=True):
    """`digest`: of what is wanted, "" where nothing is. `id`: of what is there."""

    action: FloatAction
    kind: Kind
    name: str
    project: str
    why: str
    digest: str = ""
    id: str = ""

    @property
    def is_due(self) -> bool:
        return self.action is not FloatAction.STAYS


def steps(
    farm: str, desired: Mapping[str, FloatProject], actual: Collection[FloatObject], tried: Mapping[str, str]
) -> tuple[FloatStep, ...]:
    """In their order. `tried`: digests of services that ran once; what Swarm rolled back from is not tried again."""
    there = {(one.kind, one.name): one for one in actual}
    wanted = {(kind, name): (project, digest) for kind, name, project, digest in _wanted(desired)}
    found = []
    for (kind, name), (project, digest) in wanted.items():
        one = there.get((kind, name))
        action, why = _judge(farm, kind, digest, one, tried.get(name, ""))
        if action is not None:
            found.append(
                FloatStep(
                    action=action,
                    kind=kind,
                    name=name,
                    project=project,
                    why=why,
                    digest=digest,
                    id=one.id if one else "",
                )
            )
    in_use = {file for one in actual if ("service", one.name) in wanted for file in one.files}
    for kind in ("service", "secret", "config", "network"):  # nobody uses what comes later
        for one in sorted(actual, key=lambda one: one.name):
            if one.kind == kind and one.farm == farm and (kind, one.name) not in wanted and one.name not in in_use:
                why = f"{one.project} has it no more" if one.project in desired else f"float/{one.project} is gone"
                found.append(
                    FloatStep(
                        action=FloatAction.REMOVE, kind=kind, name=one.name, project=one.project, why=why, id=one.id
                    )
                )
    return tuple(found)


def _wanted(desired: Mapping[str, FloatProject]) -> Iterator[tuple[Kind, str, str, str]]:
    """Kind, name, project and digest; what others need comes first."""
    for key, project in sorted(desired.items()):
        for network in project.networks:
            yield "network", network.name, key, digest_of_body(network)
        for name, file in sorted(project.files.items()):
            yield file.kind, name, key, name.rpartition("-")[2]
        for service in project.services:
            yield "service", service.name, key, digest_of_body(service)


def _judge(farm: str, kind: Kind, digest: str, one: FloatObject | None, tried: str) -> tuple[FloatAction | None, str]:
    if one is None:
        return FloatAction.CREATE, "is not there"
    if one.farm != farm:
        return FloatAction.STAYS, f"there is a {kind} of this name that the farm did not make: rename one of both"
    if one.digest == digest:
        return None, ""
    if kind != "service":
        return FloatAction.STAYS, f"a {kind} cannot be changed: rename it, or take it away for one dom0 farm up"
    if tried == digest and one.update.startswith("rollback"):
        return FloatAction.STAYS, f"Swarm went back: {one.said or 'it failed'}; change it, and dom0 farm up"
    return FloatAction.UPDATE, "has changed"


def find_body(desired: Mapping[str, FloatProject], step: FloatStep) -> Body:
    """Of a network or service that a step is about."""
    project = desired[step.project]
    bodies: tuple[Body, ...] = (*project.networks, *project.services)
    return next(
        body for body in bodies if getattr(body, "name", "") == step.name and digest_of_body(body) == step.digest
    )
