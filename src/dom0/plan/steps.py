"""The closed vocabulary of what dom0 does to an Engine. Every step carries its reason; the handlers are in agent/apply.

Each step can be killed before, during or after its Engine calls: the next plan is made from what is then there.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dom0.engine.bodies import UpdateBody
from dom0.plan.desired import Attachment, NetworkSpec, Slot, VolumeSpec
from dom0.plan.hooks import PreStop

MISSING = "it does not exist"  # the reasons that the agent treats apart from others
REMOVED = "it was removed"
UNHEALTHY = "unhealthy"
UNWANTED = "no longer in the project"
VANISHED = "its process is gone, and the Engine did not notice"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """`lock` names what no other step may touch meanwhile; `priority`: longer chains of dependents first."""

    lock: str
    reason: str
    priority: int = 0


class CreateNetwork(Step, frozen=True, kw_only=True):
    spec: NetworkSpec


class ReplaceNetwork(Step, frozen=True, kw_only=True):
    """Disconnect `attached`, remove, create; the planner then connects the containers again."""

    spec: NetworkSpec
    network_id: str
    attached: tuple[str, ...]


class RemoveNetwork(Step, frozen=True, kw_only=True):
    network_id: str
    name: str


class CreateVolume(Step, frozen=True, kw_only=True):
    spec: VolumeSpec


class CreateContainer(Step, frozen=True, kw_only=True):
    slot: Slot
    name: str
    parents: dict[str, str] = {}  # service -> container ID for `service:NAME` references
    inherit: dict[str, str] = {}  # target -> anonymous volume of the container it replaces
    replaces: str = ""  # container ID


class StartContainer(Step, frozen=True, kw_only=True):
    slot: Slot
    container_id: str


class RunPostStart(Step, frozen=True, kw_only=True):
    """`started`: the start that it is for. Its lock is the container's own: one that hangs is still replaced."""

    slot: Slot
    container_id: str
    started: float


class RestartContainer(Step, frozen=True, kw_only=True):
    slot: Slot
    container_id: str
    pre_stop: PreStop | None = None


class UnpauseContainer(Step, frozen=True, kw_only=True):
    container_id: str
    name: str


class StopContainer(Step, frozen=True, kw_only=True):
    """`rests`: without its restart policy, so that no restart of the Engine starts it beside its replacement."""

    container_id: str
    name: str
    pre_stop: PreStop | None = None
    rests: bool = False


class StopInScope(Step, frozen=True, kw_only=True):
    """Of a container in a scope without an orchestrator. It is not ours: it stays, and no restart starts it again."""

    member_id: str
    name: str


class GiveUpContainer(Step, frozen=True, kw_only=True):
    """Take its restart policy away, then stop it: a looping container stays replaceable (balena-supervisor#1632)."""

    container_id: str
    name: str
    pre_stop: PreStop | None = None


class RemoveContainer(Step, frozen=True, kw_only=True):
    container_id: str
    name: str


class RenameContainer(Step, frozen=True, kw_only=True):
    container_id: str
    name: str
    to: str


class ConnectNetwork(Step, frozen=True, kw_only=True):
    container_id: str
    name: str
    attachment: Attachment
    stale: bool = False  # it still carries an endpoint of a network that is gone


class UpdateContainer(Step, frozen=True, kw_only=True):
    container_id: str
    name: str
    update: UpdateBody


AnyStep: TypeAlias = (
    CreateNetwork
    | ReplaceNetwork
    | RemoveNetwork
    | CreateVolume
    | CreateContainer
    | StartContainer
    | RunPostStart
    | RestartContainer
    | UnpauseContainer
    | StopContainer
    | StopInScope
    | GiveUpContainer
    | RemoveContainer
    | RenameContainer
    | ConnectNetwork
    | UpdateContainer
)
