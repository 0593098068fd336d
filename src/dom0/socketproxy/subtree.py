"""All that belongs to a scope, and to the scopes inside it: stopped, removed. What is not theirs is not touched.

First nothing new can be made (`gate`). Then every container is paused, so that none of them acts any more, and after
that stopped: the Engine sends the signal to a paused one and lets it go on, so it ends in good order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from dom0.engine.bodies import RestartPolicy, UpdateBody
from dom0.errors import Dom0Error
from dom0.names import ROOT
from dom0.socketproxy import budget, gate, listing, paths, registrations
from dom0.socketproxy.listing import Row
from dom0.socketproxy.refusal import BAD_REQUEST, NOT_FOUND, Refused
from dom0.socketproxy.room import Kind
from dom0.socketproxy.scope import LABEL, Scope
from dom0.socketproxy.upstream import BAD_GATEWAY, EngineAnswer, Upstream

ACTIVE = ("running", "paused", "restarting")
ROUNDS = 5  # what the Engine was about to start when it was asked appears late
CONFLICT = 409  # of a container: it is being removed already; of a volume: somebody uses it
PATIENCE = 5.0  # seconds, until what a container held is free when it has gone
ANSWERED_WITHIN = 10.0  # seconds, for what the Engine does at once
STOPPED_WITHIN = 120.0  # seconds, however long a container asks for; then it is killed


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one object; `error` is what the Engine says against it."""

    action: Literal["stop", "remove"]
    kind: Kind | Literal["control group", "registration"]
    name: str  # in the Engine; of a registration that of the scope
    error: str = ""


async def known(upstream: Upstream) -> set[str]:
    """The scopes that have anything in this Engine. Raises Refused."""
    found = set()
    for kind in listing.KINDS:
        async for row in listing.of_scopes(upstream, kind):
            scope = (row["Labels"] or {}).get(LABEL, "").split("/")[1:2]
            if scope and listing.name(kind, row).startswith((f"{scope[0]}.", f"{paths.PREFIX}{scope[0]}.")):
                found.add(scope[0])
    return found


async def stop(upstream: Upstream, scope: Scope) -> list[Done]:
    """Stop every container; none is started again with the Engine. Raises Refused, Busy, Dom0Error, OSError."""
    async with _closed(scope):
        return await _stop(upstream, scope)


async def remove(upstream: Upstream, scope: Scope, *, volumes: bool) -> list[Done]:
    """Stop it, and remove its containers and networks, with `volumes` all data too. Raises as `stop`.

    The orchestrator of a project stays: it is a service there. What its server needed goes unless that goes on.
    """
    async with _closed(scope):
        done = await _stop(upstream, scope)
        for name, row in await _owned(upstream, scope, "container"):
            if not _is_orchestrator(scope, name, row):
                query = {"force": "1", "v": "1" if volumes else "0"}
                done.append(await _remove(upstream, "container", name, row["Id"], query))
        for name, row in await _owned(upstream, scope, "network"):
            done.append(await _remove(upstream, "network", name, row["Id"], {}))
        for name, _ in await _owned(upstream, scope, "volume") if volumes else ():
            done.append(await _remove(upstream, "volume", name, name, {}))
        for name, row in await _on_paths(upstream, scope, "container"):
            done.append(await _remove(upstream, "container", name, row["Id"], {"force": "1", "v": "1"}))
        for name, _ in await _on_paths(upstream, scope, "volume"):
            done.append(await _remove(upstream, "volume", name, name, {}))
        return done + await _forget(upstream, scope)


async def volumes(upstream: Upstream, scope: Scope) -> list[str]:
    """Those that are left. Raises Refused."""
    return sorted(name for name, _ in await _owned(upstream, scope, "volume"))


async def _on_paths(upstream: Upstream, scope: Scope, kind: Kind) -> list[tuple[str, Row]]:
    """What a server has made on granted paths, with nothing of its own in it; see `directories`."""
    return [
        (name, row)
        async for row in listing.of_scopes(upstream, kind)
        if (name := listing.name(kind, row)).startswith(paths.prefix(scope))
        and row["Labels"][LABEL] == scope.path
        and (
            row["State"] == "created"
            if kind == "container"
            else row["Options"] == paths.options((row["Options"] or {}).get("device", ""))
        )
    ]


async def _forget(upstream: Upstream, scope: Scope) -> list[Done]:
    """The control group, which limits what comes as long as it is served, and what is known of its server."""
    done: list[Done] = []
    with registrations.cgroup_of(scope.name) as noted:
        if registrations.is_served(scope.name):
            return done
        if group := noted.read():
            error = await budget.remove(upstream, group)
            done.append(Done(action="remove", kind="control group", name=group, error=error))
            noted.write(group if error else "")
        if registrations.forget(scope.name):
            done.append(Done(action="remove", kind="registration", name=scope.name))
    return done


@asynccontextmanager
async def _closed(scope: Scope) -> AsyncIterator[None]:
    closing = gate.stopping(scope.name)
    await asyncio.to_thread(closing.__enter__)
    try:
        yield
    finally:
        closing.__exit__(None, None, None)


async def _stop(upstream: Upstream, scope: Scope) -> list[Done]:
    done: dict[str, Done] = {}
    for _ in range(ROUNDS):
        is_quiet = await asyncio.to_thread(gate.is_quiet, scope.name)
        active = [found for found in await _owned(upstream, scope, "container") if found[1]["State"] in ACTIVE]
        if is_quiet and not active:
            return list(done.values())
        for name, row in active:
            if _is_orchestrator(scope, name, row):  # first; its agent leaves one alone that was plainly stopped
                done[name] = _done("stop", "container", name, await _end(upstream, row["Id"]))
        rest = [found for found in active if not _is_orchestrator(scope, *found)]
        await asyncio.gather(*(_act(upstream, row["Id"], "pause") for _, row in rest))
        for one in await asyncio.gather(*(_stop_container(upstream, name, row["Id"]) for name, row in rest)):
            done[one.name] = one
    names = ", ".join(sorted(name for name, _ in active)) or "a request that makes or starts something"
    raise Dom0Error(f"{scope.path}: still runs: {names}", hint="who starts it? docker events; then try it again")


async def _stop_container(upstream: Upstream, name: str, container_id: str) -> Done:
    reply = await _end(upstream, container_id)
    rests = UpdateBody(restart_policy=RestartPolicy(name="no"))
    await _act(upstream, container_id, "update", body=rests)  # one with --rm has gone
    return _done("stop", "container", name, reply)


async def _end(upstream: Upstream, container_id: str) -> EngineAnswer:
    reply = await _act(upstream, container_id, "stop", within=STOPPED_WITHIN)
    return await _act(upstream, container_id, "kill") if reply.status == BAD_GATEWAY else reply


async def _act(
    upstream: Upstream,
    container_id: str,
    action: str,
    *,
    body: UpdateBody | None = None,
    within: float = ANSWERED_WITHIN,
) -> EngineAnswer:
    """One container that hangs does not keep the others: BAD_GATEWAY if the Engine has not answered within seconds."""
    try:
        return await upstream.ask("POST", "containers", container_id, action, body=body, patience=within)
    except Refused as error:
        return EngineAnswer(error.status, {"message": error.message})


async def _remove(upstream: Upstream, kind: Kind, name: str, reference: str, query: Mapping[str, str]) -> Done:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while (reply := await upstream.ask("DELETE", f"{kind}s", reference, query=query)).status == CONFLICT:
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.1)
    return _done("remove", kind, name, reply)


def _done(action: Literal["stop", "remove"], kind: Kind, name: str, reply: EngineAnswer) -> Done:
    is_gone = reply.status == NOT_FOUND or (kind == "container" and reply.status == CONFLICT)
    failed = reply.status >= BAD_REQUEST and not is_gone
    error = str((reply.document or {}).get("message", reply.status)) if failed else ""
    return Done(action=action, kind=kind, name=name, error=error)


def _is_orchestrator(scope: Scope, name: str, row: Row) -> bool:
    """Whether it is the service of a project that was given the scope's socket; nothing inside can say so of itself."""
    return name == scope.long(ROOT) and scope.is_orchestrator(row["Labels"])


async def _owned(upstream: Upstream, scope: Scope, kind: Kind) -> list[tuple[str, Row]]:
    """With their names. Raises Refused."""
    return [(listing.name(kind, row), row) async for row in listing.owned(upstream, scope, kind)]
