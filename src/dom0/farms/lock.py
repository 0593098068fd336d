"""Who may reboot: at most as many machines of a group as may be down at once.

    POST /v1/pre-reboot      {client_params: {id, group}} -> 200: it may, now and until it says otherwise
    POST /v1/steady-state    the same                     -> 200: it has no lock (any more)

The protocol is FleetLock's (coreos.github.io/zincati/development/fleetlock/protocol): a machine locks before it reboots
and unlocks when it is well again, as often as it likes. The group of a node is its role. Its places are those of the
roll-out too: who goes to a revision has one. A lock ends by the machine that has it, or by a person: a machine that is
silent may be in the middle of what must not happen twice at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.errors import Busy, Dom0Error, UsageError
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import NodeState, bearer
from dom0.farms.rollout import Lock, RolloutState
from dom0.farms.settings import FarmSettings, RoleSettings
from dom0.http.server import Request, Response
from dom0.wording import did_you_mean, excerpt

MOST = 256  # locks that machines may have which are no nodes
MOST_BYTES = 4096  # of a body

log = logging.getLogger(__name__)


class ClientParams(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}\Z")]
    group: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9.-]{1,128}\Z")]


class FleetLockRequest(msgspec.Struct, frozen=True, kw_only=True):
    client_params: ClientParams


class FleetLock:
    """Answers machines. A node is who its secret says, and its group its role; others are only heard where farm.yaml
    says `fleetlock: open`.
    """

    def __init__(self, farm: FarmDirectory) -> None:
        self._farm = farm
        self._settings = farm.settings()

    async def pre_reboot(self, request: Request) -> Response:
        return await self._answer(request, lambda state, lock: acquire(state, self._settings, lock))

    async def steady_state(self, request: Request) -> Response:
        return await self._answer(request, release)

    async def _answer(self, request: Request, change: Callable[[RolloutState, Lock], RolloutState]) -> Response:
        if request.headers.all("fleet-lock-protocol") != ["true"]:
            return _refused(400, "bad_request", "the header fleet-lock-protocol: true is missing")
        try:
            said = msgspec.json.decode(await request.read(MOST_BYTES), type=FleetLockRequest).client_params
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refused(400, "bad_request", str(error))
        lock = Lock(group=said.group, id=said.id, since=time.time(), foreign=True)
        key = bearer(request.headers.all("Authorization"))
        if key or self._settings.fleetlock != "open":
            nodes = (await asyncio.to_thread(self._farm.nodes)).nodes
            node = next((node for node in nodes if node.key == key and node.state is NodeState.ENROLLED), None)
            if node is None:
                return _refused(
                    401, "not_admitted", "no node of this farm has this secret; others: fleetlock in farm.yaml"
                )
            if node.role != said.group and change is not release:  # it may have had another role when it locked
                return _refused(403, "not_admitted", f"the group of {node.name} is its role, {node.role}")
            lock = replace(lock, id=node.name, foreign=False)
        try:
            await asyncio.to_thread(self._farm.change_rollout, lambda state: (change(state, lock), None))
        except Busy as error:
            return _refused(409, "failed_lock_semaphore_full", error.message)
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return _refused(503, "server_problem", "the farm's server has a problem: its log says which")
        return Response()


def _refused(status: int, kind: str, why: str) -> Response:
    """Of few kinds, since clients count them."""
    return Response(msgspec.json.encode({"kind": kind, "value": why}), status=status)


def acquire(state: RolloutState, settings: FarmSettings, wanted: Lock) -> RolloutState:
    """Raises Busy where all places of the group are taken."""
    group, ours = wanted.group, (wanted.id, wanted.foreign)
    locks = [lock for lock in state.locks if lock.group == group]
    if any((lock.id, lock.foreign) == ours for lock in locks):
        return state
    holders = {(lock.id, lock.foreign) for lock in locks}
    holders |= {(name, False) for name, turn in state.turns.items() if turn.role == group}
    most = settings.roles.get(group, RoleSettings()).at_once
    if len(holders | {ours}) > most:
        names = ", ".join(sorted(name for name, _ in holders - {ours})[:3])
        raise Busy(f"{names}: {'has its place' if most == 1 else f'have the {most} places'} of the group {group}")
    if wanted.foreign and sum(lock.foreign for lock in state.locks) >= MOST:
        raise Busy(f"{MOST} machines that are no nodes have locks already")
    return replace(state, locks=(*state.locks, wanted))


def release(state: RolloutState, wanted: Lock) -> RolloutState:
    """What is not held needs no release. A node gives back all that it has, also of a role that it had before."""
    ours, group = (wanted.id, wanted.foreign), wanted.group
    kept = (lock for lock in state.locks if (lock.id, lock.foreign) != ours or (lock.foreign and lock.group != group))
    return replace(state, locks=tuple(kept))


def unlock(state: RolloutState, name: str) -> tuple[RolloutState, Lock]:
    """By a person: the lock of a node, or of another machine by its id. Raises UsageError."""
    found = next((lock for lock in state.locks if lock.id == name), None)
    if found is None:
        hint = did_you_mean(name, (lock.id for lock in state.locks)) or "dom0 farm status says who has one"
        raise UsageError(f"{excerpt(name)}: has no reboot lock", hint=hint)
    return replace(state, locks=tuple(lock for lock in state.locks if lock is not found)), found
