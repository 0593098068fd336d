"""A node's part in the farm's Swarm, by the server's orders: it fetches the images, creates or joins the Swarm, and, if
it is the one that writes, brings what is there to what is desired.

Everything is read from the Engine anew each time: whatever is killed, the next process goes on from there. As long as
no project floats, neither the farm's server nor the Engine is asked; nothing is read or written in a Swarm without the
farm's label. Orders are carried out at once, while images are fetched in the background: no order is ever stale.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec.structs import replace

from dom0.engine.protocol import Engine
from dom0.engine.swarm import Member, Service, SwarmMode, SwarmObject, SwarmState, Task
from dom0.engine.swarm_bodies import ConfigUse, FileBody, MemberBody, SecretUse, ServiceBody, SwarmNetworkBody
from dom0.errors import Dom0Error, EngineError
from dom0.farms import join
from dom0.farms.float_content import DIGEST, FARM, PROJECT, REGISTRY, REPOSITORY, FloatProject
from dom0.farms.float_news import FloatNews
from dom0.farms.float_steps import MOST_SAID, FloatAction, FloatObject, FloatStep, Kind, find_body, steps
from dom0.farms.float_swarm import IDLE, MANAGER, FloatOrder, FloatReport, MemberOrder, WriteOrder
from dom0.farms.peers import is_in_memory
from dom0.farms.revisions import MOST_REASON, Blob, FarmImage
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.images.loading import remove_name
from dom0.names import LABELS
from dom0.printable import printable

AGAIN = 5.0  # seconds until what has failed is tried again
SHORTLY = 0.2  # seconds until the server hears what has changed
LOOK_AT_IMAGES = 60.0  # seconds between looks whether somebody has removed one
MOST_ANSWER = 16 << 20  # bytes
DRAINED = "dom0.drained"  # label of a machine that people have drained by the farm
_NAMES = f"{REGISTRY}/{REPOSITORY}:"

log = logging.getLogger(__name__)


class ContentSource(Protocol):
    """Whoever gets things from the farm's server. Raises Dom0Error, OSError."""

    async def bring(self, image: FarmImage) -> None:
        """The Engine has it then, under its reference."""

    async def read(self, blob: Blob) -> bytes: ...


async def float_along(
    floats: FloatNews, state: Path, engine: Engine, client: Client, secret: str, source: ContentSource
) -> None:
    """Until it is cancelled. `state`: where this machine keeps what it has to know."""
    floater = _Floater(state, engine, source)
    report: FloatReport | None = None
    said = ""
    try:
        while True:
            pause: float | None = AGAIN
            try:
                order = await _ask(client, secret, report) if floats.revision else None
                if order is None or order.again >= IDLE:
                    report, pause = None, IDLE if floats.revision else None
                else:
                    before, report = report, None  # what an Engine said that does not answer any more is not said again
                    report = await floater.follow(order, before)
                    pause = order.again if report == before else SHORTLY
                    if report.failed and report == before:
                        pause = AGAIN
                    said = _note(report.failed, said)
            except (Dom0Error, OSError, Malformed, ValueError) as error:
                said = _note(str(error) or "the server does not answer", said)
            except Exception:  # a bug here is in the way of no role
                log.exception("farm: float")
            await floats.rest(pause, floater.bringing)
    finally:
        await floater.close()


def _note(what: str, said: str) -> str:
    """In the log, once."""
    if what and what != said:
        log.warning("farm: float: %s", what)
    return what


async def _ask(client: Client, secret: str, report: FloatReport | None) -> FloatOrder | None:
    """None: this server knows nothing of it. Raises OSError, Malformed."""
    body = msgspec.json.encode({"report": report})
    status, said = await join.ask(client, "/v1/float", secret, body, most=MOST_ANSWER)
    if status in (403, 404):
        return None
    try:
        if status == 200:
            return msgspec.json.decode(said, type=FloatOrder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionError("the answer is not one of a farm's server") from error
    raise ConnectionError(f"it answers with {status}")


class _Floater:
    def __init__(self, state: Path, engine: Engine, source: ContentSource) -> None:
        self._state = state
        self._engine = engine
        self._source = source
        self._swarm: SwarmMode | None = None
        self._images: tuple[str, ...] = ()
        self._look_at = 0.0
        self.bringing: asyncio.Task[None] | None = None  # images, beside all else
        self._lacks = ""  # why an image is not here
        self._written: dict[str, str] = {}  # digests of services, by their names
        self._is_joining = False  # by what was told here

    async def close(self) -> None:
        if self.bringing is not None:
            self.bringing.cancel()
            await asyncio.gather(self.bringing, return_exceptions=True)
        if self._swarm is not None:
            await self._swarm.close()

    async def follow(self, order: FloatOrder, report: FloatReport | None) -> FloatReport:
        """Do what is told, and return what is then. `report`: what the server knows. Raises Dom0Error, OSError."""
        swarm = self._swarm = self._swarm or await SwarmMode.connect()
        failed, self._written = "", {}
        if report is not None:
            for do in (self._have, self._end_join, self._act):
                try:
                    await do(swarm, order)
                except (Dom0Error, OSError, ValueError) as error:
                    failed = _words(error)
        failed = failed or self._lacks
        await self._look_at_images()
        in_memory = await asyncio.to_thread(is_in_memory, self._state)
        found = FloatReport(place=await swarm.place(), images=self._images, in_memory=in_memory, written=self._written)
        if _is_ours(found.place, order):
            try:
                found = await _describe(swarm, order, found)
            except EngineError as error:  # most managers do not hear each other
                failed = failed or error.message
        return replace(found, failed=printable(failed)[:MOST_REASON])

    async def _end_join(self, swarm: SwarmMode, _order: FloatOrder) -> None:
        """The Engine goes on with a join that took too long; where that comes to nothing, as when most managers do not
        hear each other, it neither tries again nor joins anew before it has left.
        """
        if self._is_joining:
            state = (await swarm.place()).state
            if state == "error":
                await swarm.leave()
            self._is_joining = state == "pending"

    async def _act(self, swarm: SwarmMode, order: FloatOrder) -> None:
        if order.init:
            log.info("farm: makes the Swarm, reached at %s", order.address)
            await swarm.init(order.address, {FARM: order.farm})
        if order.join is not None:
            log.info("farm: joins the Swarm at %s", ", ".join(order.join.managers))
            self._is_joining = True
            await swarm.join(order.address, order.join.managers, order.join.token)
        if order.write is not None and _is_ours(await swarm.place(), order):
            await _Writer(swarm, self._source, order.farm, order.write, self._written).write()

    async def _have(self, _swarm: SwarmMode, order: FloatOrder) -> None:
        """Images that are to be here, and none that nobody needs."""
        for name in self._images:
            if order.keep is not None and name not in order.keep:
                await remove_name(self._engine, name)
                self._look_at = 0.0
        if self.bringing is not None and self.bringing.done():
            brought, self.bringing = self.bringing, None
            brought.result()
        missing = [image for image in order.images if image.reference not in self._images]
        if not missing:
            self._lacks = ""
        elif self.bringing is None and self._look_at > 0:
            self.bringing = asyncio.create_task(self._bring(missing))

    async def _bring(self, images: Collection[FarmImage]) -> None:
        for image in images:
            try:
                await self._source.bring(image)
                self._lacks = ""
            except (Dom0Error, OSError, ValueError) as error:
                self._lacks = _words(error)
                await asyncio.sleep(AGAIN)
                return
            finally:
                self._look_at = 0.0

    async def _look_at_images(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            rows = await self._engine.images()
            self._images = tuple(sorted(tag for row in rows for tag in row.tags if tag.startswith(_NAMES)))
            self._look_at = now + LOOK_AT_IMAGES


def _words(error: Exception) -> str:
    return error.message if isinstance(error, Dom0Error) else str(error) or "nothing came"


def _is_ours(place: SwarmState, order: FloatOrder) -> bool:
    """Whether this manager is one of the farm's Swarm, and hears most others."""
    return place.labels.get(FARM) == order.farm


async def _describe(swarm: SwarmMode, order: FloatOrder, report: FloatReport) -> FloatReport:
    """With what a manager knows."""
    members = await swarm.members()
    projects = order.write.projects if order.write else {}
    return replace(
        report,
        token=await swarm.worker_token(),
        members=members,
        objects=await _objects(swarm, order.farm, _names(projects), {member.id: member for member in members}),
    )


def _names(projects: Mapping[str, FloatProject]) -> frozenset[str]:
    return frozenset(
        name
        for project in projects.values()
        for name in (
            *(network.name for network in project.networks),
            *project.files,
            *(service.name for service in project.services),
        )
    )


async def _objects(
    swarm: SwarmMode, farm: str, names: frozenset[str], members: Mapping[str, Member]
) -> tuple[FloatObject, ...]:
    """What is the farm's, or has one of the names."""
    grounds: list[tuple[Kind, SwarmObject]] = [("network", one) for one in await swarm.networks()]
    grounds += [("secret", one) for one in await swarm.files("secret")]
    grounds += [("config", one) for one in await swarm.files("config")]
    tasks: dict[str, list[Task]] = {}
    for task in await swarm.tasks():
        tasks.setdefault(task.service, []).append(task)
    found = [_object(kind, one) for kind, one in grounds]
    found += [_service(one, tasks.get(one.id, []), members) for one in await swarm.services()]
    return tuple(one for one in found if one.farm == farm or one.name in names)


def _object(kind: Kind, one: SwarmObject | Service) -> FloatObject:
    labels = one.labels
    return FloatObject(
        kind=kind,
        name=one.name,
        id=one.id,
        farm=labels.get(FARM, ""),
        project=labels.get(PROJECT, ""),
        digest=labels.get(DIGEST, ""),
    )


def _service(one: Service, tasks: list[Task], members: Mapping[str, Member]) -> FloatObject:
    wanted = [task for task in tasks if task.wanted == "running"]
    running = [task for task in wanted if task.state == "running"]
    hosts = {members[task.node].hostname for task in running if task.node in members}
    waiting = next((task.said for task in wanted if task.state != "running"), "")
    failed = next((task.said for task in tasks if task.state in ("failed", "rejected")), "")
    said = one.said if one.update not in ("", "completed") else ""
    if len(running) < one.wanted:
        said = said or failed or waiting
    return replace(
        _object("service", one),
        images=one.images,
        files=one.files,
        running=len(running),
        wanted=one.wanted,
        nodes=tuple(sorted(hosts)),
        update=one.update,
        said=said[:MOST_SAID],
    )


class _Writer:
    """The only one that writes what the farm has in the Swarm."""

    def __init__(
        self, swarm: SwarmMode, source: ContentSource, farm: str, order: WriteOrder, written: dict[str, str]
    ) -> None:
        """`written`: where it notes the digests of services that it has made or changed."""
        self._swarm = swarm
        self._source = source
        self._farm = farm
        self._order = order
        self._written = written

    async def write(self) -> None:
        """All that can be done now. Raises the first EngineError after that, OSError."""
        failures: list[Dom0Error] = []
        members = await self._swarm.members()
        by_id = {member.id: member for member in members}
        actual = await _objects(self._swarm, self._farm, _names(self._order.projects), by_id)
        for step in steps(self._farm, self._order.projects, actual, self._order.tried):
            try:
                await self._take(step)
            except EngineError as error:
                failures.append(error)
        if self._order.rotate:
            await self._swarm.rotate_tokens()
            log.info("farm: float: made other tokens: a machine that knew them is no node any more")
        busy = {task.node for task in await self._swarm.tasks() if task.state == "running"}
        for member in members:
            try:
                if member.id in self._order.forget:
                    await self._forget(member, is_busy=member.id in busy)
                elif (told := self._order.members.get(member.id)) is not None:
                    await self._settle(member, told, members)
            except EngineError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _take(self, step: FloatStep) -> None:
        match step.action, step.kind:
            case FloatAction.STAYS, _:
                return
            case FloatAction.REMOVE, "service":
                await self._swarm.remove_service(step.id)
            case FloatAction.REMOVE, "network":
                await self._swarm.remove_network(step.id)
            case FloatAction.REMOVE, ("secret" | "config") as kind:
                await self._swarm.remove_file(kind, step.id)
            case FloatAction.CREATE, ("secret" | "config") as kind:
                file = self._order.projects[step.project].files[step.name]
                content = await self._source.read(Blob(digest=file.digest, size=file.size))
                await self._swarm.create_file(
                    kind, FileBody(name=step.name, labels=self._labels(step, {}), data=content)
                )
            case _:
                await self._write_body(step)
        log.info("farm: float: %s %s %s: %s", step.action, step.kind, step.name, step.why)

    async def _write_body(self, step: FloatStep) -> None:
        body = find_body(self._order.projects, step)
        if isinstance(body, SwarmNetworkBody):
            await self._swarm.create_network(replace(body, labels=self._labels(step, body.labels)))
            return
        assert isinstance(body, ServiceBody)
        named = replace(await self._with_ids(body), labels=self._labels(step, body.labels))
        if step.action is FloatAction.CREATE:
            await self._swarm.create_service(named)
        for service in await self._swarm.services() if step.action is FloatAction.UPDATE else ():
            if service.id == step.id:
                await self._swarm.update_service(service, named)
        self._written[step.name] = step.digest

    async def _with_ids(self, body: ServiceBody) -> ServiceBody:
        task = body.task_template
        container = task.container_spec
        secrets = {one.name: one.id for one in await self._swarm.files("secret")} if container.secrets else {}
        configs = {one.name: one.id for one in await self._swarm.files("config")} if container.configs else {}

        def of_secret(use: SecretUse) -> SecretUse:
            return replace(use, secret_id=secrets.get(use.secret_name, ""))

        def of_config(use: ConfigUse) -> ConfigUse:
            return replace(use, config_id=configs.get(use.config_name, ""))

        container = replace(
            container,
            secrets=tuple(map(of_secret, container.secrets)),
            configs=tuple(map(of_config, container.configs)),
        )
        return replace(body, task_template=replace(task, container_spec=container))

    def _labels(self, step: FloatStep, own: Mapping[str, str]) -> dict[str, str]:
        return {**own, FARM: self._farm, PROJECT: step.project, DIGEST: step.digest}

    async def _forget(self, member: Member, *, is_busy: bool) -> None:
        """In steps, one a time: what runs there goes elsewhere first; a manager is none before it can be removed, which
        after `--force-new-cluster` one of before is already, whatever its role says.
        """
        if member.state == "ready" and member.availability != "drain":
            await self._swarm.update_member(member, _body(member, member.labels, member.role, "drain"))
        elif member.role == MANAGER and member.manager:
            await self._swarm.update_member(member, _body(member, member.labels, "worker", member.availability))
        elif member.state != "ready" or not is_busy:
            await self._swarm.remove_member(member.id)
            log.info("farm: float: forgot %s (%s)", member.hostname, member.id)

    async def _settle(self, member: Member, told: MemberOrder, members: Collection[Member]) -> None:
        """As it is to be. None ceases to be a manager before those that are to be are, and before those that are
        forgotten are none: it may be needed for a majority until then.
        """
        kept = {key: value for key, value in member.labels.items() if not key.startswith(LABELS)}
        role, availability = told.role, member.availability
        to_be = [one for one in members if (its := self._order.members.get(one.id)) and its.role == MANAGER]
        is_needed = any(one.role == MANAGER or one.manager for one in members if one.id in self._order.forget)
        if member.role == MANAGER and (is_needed or not all(one.is_reachable for one in to_be)):
            role = MANAGER
        if told.is_drained:
            kept[DRAINED], availability = "yes", "drain"
        elif DRAINED in member.labels:
            availability = "active"
        wanted = _body(member, {**kept, **told.labels}, role, availability)
        if wanted != _body(member, member.labels, member.role, member.availability):
            await self._swarm.update_member(member, wanted)


def _body(member: Member, labels: Mapping[str, str], role: str, availability: str) -> MemberBody:
    return MemberBody(name=member.name, labels=dict(labels), role=role, availability=availability)
