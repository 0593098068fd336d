"""One handler for each step: the only place that changes anything in the Engine.

A handler may be killed between any two of its calls; the planner then goes on from what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, TypeVar, assert_never

from msgspec.structs import replace

from dom0.agent.hooks import run_hooks, run_pre_stop
from dom0.engine.bodies import ContainerBody, Mount, NetworkBody, NetworkingConfig, RestartPolicy, UpdateBody
from dom0.engine.protocol import Engine
from dom0.errors import Conflict, EngineError, NotFound
from dom0.plan import labels
from dom0.plan.desired import Desired, NetworkSpec, Slot
from dom0.plan.ownership import Seal, new_mark
from dom0.plan.parents import with_parents
from dom0.plan.steps import (
    MISSING,
    UNWANTED,
    VANISHED,
    AnyStep,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    GiveUpContainer,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    ReplaceNetwork,
    RestartContainer,
    RunPostStart,
    StartContainer,
    StopContainer,
    StopInScope,
    UnpauseContainer,
    UpdateContainer,
)

STOP_MARGIN = 10.0  # seconds over the stop timeout, for the Engine to notice
STOP_TRIES = 3
IMAGE_NAME_TTL = 1.0  # seconds
NO_RESTART = UpdateBody(restart_policy=RestartPolicy(name="no"))


class AroundStop(Protocol):
    """Around a stop, as `Ambassadors.leaving`."""

    def __call__(self, container_id: str, /, *, comes_back: bool) -> AbstractAsyncContextManager[None]: ...


def stays(_container_id: str, *, comes_back: bool) -> AbstractAsyncContextManager[None]:
    """Where no ambassador follows anything."""
    del comes_back
    return contextlib.nullcontext()


Marked = TypeVar("Marked", ContainerBody, NetworkBody)


class Applier:
    """Of one generation. `all_endpoints`: the Engine takes every network at create (API 1.44), else only the first one.

    `mint` makes the mark of a create (plan/ownership).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        mint: Callable[[], str],
        generation: int,
        all_endpoints: bool,
        leaving: AroundStop = stays,
    ) -> None:
        self._engine = engine
        self._leaving = leaving
        self._mint = mint
        self._generation = generation
        self._all_endpoints = all_endpoints
        self._named: dict[str, tuple[str, float]] = {}  # name of an image -> its ID, and when that expires
        self._naming: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one asks, for all of an image

    async def apply(self, step: AnyStep) -> frozenset[str]:  # noqa: C901 -- a flat match of all steps
        """Do it; returns the IDs of the containers it touched. Raises EngineError."""
        match step:
            case CreateNetwork():
                return await self._create_network(step.spec)
            case ReplaceNetwork():
                return await self._replace_network(step)
            case RemoveNetwork():
                await self._engine.remove_network(step.network_id)
                return frozenset()
            case CreateVolume():
                await self._engine.create_volume(step.spec.name, step.spec.create)
                return frozenset()
            case CreateContainer():
                image = await self._image_reference(step.slot)
                body = create_body(step, image, generation=self._generation, all_endpoints=self._all_endpoints)
                marked, platform = self._marked(body), step.slot.platform
                return frozenset({await self._engine.create_container(step.name, marked, platform=platform)})
            case StartContainer():
                return await self._start(step.slot, step.container_id)
            case RunPostStart():
                await run_hooks(self._engine, step.container_id, "post_start", step.slot.post_start)
            case RestartContainer():
                if step.reason == VANISHED:
                    await self._end_vanished(step)
                else:
                    await self._stop(step, comes_back=True)
                return await self._start(step.slot, step.container_id)
            case UnpauseContainer():
                await self._engine.unpause_container(step.container_id)
            case StopContainer():
                if step.rests:
                    await self._engine.update_container(step.container_id, NO_RESTART)
                await self._stop(step, comes_back=step.reason != UNWANTED)
            case StopInScope():
                with contextlib.suppress(EngineError):  # that of one that is removed when it ends is not to be changed
                    await self._engine.update_container(step.member_id, NO_RESTART)
                with contextlib.suppress(NotFound):
                    await self._engine.stop_container(step.member_id, timeout=None)
                return frozenset({step.member_id})
            case GiveUpContainer():
                await self._engine.update_container(step.container_id, NO_RESTART)
                await self._stop(step, comes_back=False)
            case RemoveContainer():
                await self._engine.remove_container(step.container_id, force=True)
            case RenameContainer():
                await self._engine.rename_container(step.container_id, step.to)
            case ConnectNetwork():
                if step.stale:
                    with contextlib.suppress(NotFound):
                        await self._engine.disconnect_network(step.attachment.network, step.container_id, force=True)
                await self._engine.connect_network(step.attachment.network, step.container_id, step.attachment.endpoint)
            case UpdateContainer():
                await self._engine.update_container(step.container_id, step.update)
            case _:
                assert_never(step)
        return frozenset({step.container_id})

    async def _create_network(self, spec: NetworkSpec) -> frozenset[str]:
        with contextlib.suppress(Conflict):  # it exists by now; the next look tells whether it will do
            await self._engine.create_network(spec.name, self._marked(spec.create))
        return frozenset()

    async def _replace_network(self, step: ReplaceNetwork) -> frozenset[str]:
        """Raises Conflict, with everything still connected, while somebody else's container runs in it."""
        others = set(await self._engine.network_members(step.network_id)) - set(step.attached)
        if others:
            names = ", ".join(sorted([(await self._engine.container(other)).name for other in others]))
            raise Conflict(
                f"network {step.spec.name}: its configuration changed, and {names} still runs in it",
                hint=f"docker network disconnect {step.spec.name} NAME, then dom0 up",
            )
        for container_id in step.attached:
            try:
                await self._engine.disconnect_network(step.network_id, container_id, force=True)
            except NotFound:
                continue
        await self._engine.remove_network(step.network_id)
        return frozenset(step.attached) | await self._create_network(step.spec)

    def _marked(self, body: Marked) -> Marked:
        return replace(body, labels=body.labels | {labels.CREATE: self._mint()})

    async def _image_reference(self, slot: Slot) -> str:
        """The name as written while it still means the pinned image, so that `docker ps` shows it; else the ID."""
        async with self._naming[slot.image]:
            image_id, expires = self._named.get(slot.image, ("", 0.0))
            if time.monotonic() > expires:
                try:
                    image_id = (await self._engine.image(slot.image)).id
                except EngineError:
                    return slot.image_id
                self._named[slot.image] = image_id, time.monotonic() + IMAGE_NAME_TTL
        return slot.image if image_id == slot.image_id else slot.image_id

    async def _end_vanished(self, step: RestartContainer) -> None:
        """The Engine finds no process to stop, and notices the end after the container's own stop timeout only.

        A stop while its containerd is not there is lost.
        """
        for _ in range(STOP_TRIES):
            await self._engine.stop_container(step.container_id, timeout=0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step.slot.stop_grace + STOP_MARGIN):
                    await self._engine.wait_container(step.container_id)
                    return
        raise EngineError(
            f"container {step.slot.name}: its process is gone, but the Engine still reports it as running",
            hint=f"docker rm -f {step.slot.name}, and dom0 makes it again",
        )

    async def _start(self, slot: Slot, container_id: str) -> frozenset[str]:
        for file in slot.files:
            archive = io.BytesIO()  # with the file at its absolute path
            with tarfile.open(fileobj=archive, mode="w") as tar:
                entry = tarfile.TarInfo(file.path.lstrip("/"))
                entry.size, entry.mode, entry.uid, entry.gid = len(file.content), file.mode, file.uid, file.gid
                tar.addfile(entry, io.BytesIO(file.content))
            await self._engine.put_archive(container_id, "/", archive.getvalue())
        await self._engine.start_container(container_id)
        return frozenset({container_id})

    async def _stop(self, step: StopContainer | RestartContainer | GiveUpContainer, *, comes_back: bool) -> None:
        async with self._leaving(step.container_id, comes_back=comes_back):
            left = await run_pre_stop(self._engine, step.container_id, step.pre_stop) if step.pre_stop else None
            await self._engine.stop_container(step.container_id, timeout=left)


async def create_networks(engine: Engine, desired: Desired, seal: Seal, told: Callable[[str], None]) -> None:
    """Those of `desired` that are missing, for an agent that is not loaded yet: all starts of containers wait for them.

    `told` gets the name of each. Before the agent has a key for its marks it would not know them for its own. What the
    Engine refuses it asks for again, and says why.
    """
    if seal.older is None:
        return
    applier = Applier(engine, mint=partial(new_mark, seal), generation=0, all_endpoints=True)

    async def create(spec: NetworkSpec) -> None:
        with contextlib.suppress(EngineError):
            await applier.apply(CreateNetwork(lock=spec.name, reason=MISSING, spec=spec))
            told(spec.name)

    with contextlib.suppress(EngineError):
        here = {network.name for network in await engine.networks()}
        missing = [spec for spec in desired.networks if not spec.external and spec.name not in here]
        await asyncio.gather(*map(create, missing))


def create_body(step: CreateContainer, image: str, *, generation: int, all_endpoints: bool) -> ContainerBody:
    """The create call's body: the slot's, with image, networks, inherited volumes and the IDs of its parents put in."""
    create, attachments = step.slot.create, step.slot.attachments
    host = with_parents(create.host_config, step.parents)
    if inherit := step.inherit:  # at mounts declared without a source, and where the image has a volume
        mounts = [replace(m, source=inherit[m.target]) if m.target in inherit else m for m in host.mounts or ()]
        declared = {mount.target for mount in mounts}
        mounts += [Mount(type="volume", source=v, target=path) for path, v in inherit.items() if path not in declared]
        host = replace(host, mounts=tuple(mounts))
    written = create.labels | {labels.GENERATION: str(generation)}
    if step.replaces:
        written[labels.COMPOSE_REPLACE] = step.replaces
    endpoints = {one.network: one.endpoint for one in (attachments if all_endpoints else attachments[:1])}
    networking = NetworkingConfig(endpoints_config=endpoints)
    return replace(create, image=image, labels=written, host_config=host, networking_config=networking)
