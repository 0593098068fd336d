"""Pulls what a new generation needs over an unreliable line, and says meanwhile how far it is.

The fetcher is loaded when there is something to pull: most starts of the agent need nothing of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec.structs import replace

from dom0 import sizes, times
from dom0.agent.events import Kind
from dom0.agent.status import PullStatus
from dom0.durations import seconds
from dom0.errors import Dom0Error, Final
from dom0.names import pull_directory
from dom0.socketproxy.scope import is_in_one

if TYPE_CHECKING:
    from dom0.compose.model import Project
    from dom0.compose.x_dom0 import PullSettings
    from dom0.engine.protocol import Engine
    from dom0.images.pull import FindLogin
    from dom0.plan.facts import ImageNeed
    from dom0.registry.credentials import Login
    from dom0.registry.depot import Depot
    from dom0.registry.fetch import Terms
    from dom0.registry.progress import Meter
    from dom0.registry.reference import Reference
    from dom0.registry.verify import PublicKey

TOLD_EVERY = 1.0  # seconds
BRIEFLY = 20.0  # seconds in which nothing comes, after which the copy that is here is used

Pull: TypeAlias = "Callable[[ImageNeed, bool], Awaitable[None]]"
"""Returns when the Engine has the image; whether it has a copy already decides how long it is tried.

Raises Dom0Error, OSError.
"""


class Audience(Protocol):
    def say(self, text: str) -> None: ...

    def show(self, pulls: tuple[PullStatus, ...]) -> None:
        """What is pulled now; told again and again."""

    def note(self, kind: str, subject: str, text: str, reason: str = "") -> None:
        """For the journal of the machine."""


@asynccontextmanager
async def pulling(
    engine: Engine, project: Project, audience: Audience, find_login: FindLogin | None = None
) -> AsyncIterator[Pull]:
    """What pulls images during the block, as the project's settings say. `find_login`: None for that of whoever calls.

    Cancelled, it keeps what has come: the next pull goes on from there.
    """
    pulls = _Pulls(engine, project, audience, find_login)
    telling = asyncio.create_task(pulls.tell())
    try:
        yield pulls.pull
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        audience.show(())


def status_of(image: str, meter: Meter) -> PullStatus:
    """To be called in an event loop."""
    progress = meter.progress(asyncio.get_running_loop().time())
    return PullStatus(
        image=image,
        size=progress.size,
        have=progress.have,
        rate=progress.rate,
        left=progress.left,
        drops=progress.drops,
        waits_for=_without_name(progress.waiting.why) if progress.waiting else "",
        waits_until=progress.waiting.until if progress.waiting else 0.0,
        note=meter.note,
    )


def _without_name(why: str) -> str:
    """A terminal has room for little more than the image and the reason, which names it once more."""
    where, _, reason = why.partition(": ")
    return reason if reason and "/" in where and " " not in where else why


def terms_of(project: Project) -> Terms:
    from dom0.registry.fetch import Terms

    settings = settings_of(project)
    rate = sizes.parse(settings.limit) if settings.limit else 0.0
    return Terms(workers=settings.parallel, rate=rate, patience=seconds(settings.patience))


def keys_of(project: Project, reference: Reference) -> list[PublicKey]:
    """With each of them the image has to be signed."""
    from dom0.registry.verify import PublicKey

    name = f"{reference.registry}/{reference.repository}"
    paths = [entry.key for entry in settings_of(project).verify if fnmatchcase(name, entry.match)]
    return [PublicKey(path, project.keys[path].encode()) for path in paths]


def depot_of(project: Project) -> Depot:
    from dom0.registry.depot import Depot

    return Depot(pull_directory(), sizes.parse(settings_of(project).keep))


def settings_of(project: Project) -> PullSettings:
    from dom0.compose.x_dom0 import PullSettings

    return (project.machine.pull if project.machine else None) or PullSettings()


class _Pulls:
    def __init__(self, engine: Engine, project: Project, audience: Audience, find_login: FindLogin | None) -> None:
        self._engine = engine
        self._project = project
        self._audience = audience
        self._find_login = find_login
        self._meters: dict[str, Meter] = {}
        # By registry: one image after the other has the whole line. With a limit there is one line.
        self._turns: dict[str, asyncio.Lock] = {}
        self._silent: set[str] = set()  # registries of which nothing came: where a copy is here, one wait is enough
        self._waits: dict[str, str] = {}  # by image, until it is said: what becomes of it if nothing comes

    async def tell(self) -> None:
        while True:
            self._show()
            await asyncio.sleep(TOLD_EVERY)

    def _show(self) -> None:
        pulls = tuple(status_of(image, meter) for image, meter in self._meters.items())
        for each in pulls:
            if each.waits_for and (end := self._waits.pop(each.image, "")):
                self._audience.say(f"{each.image}: {each.waits_for}; tried again {end}")
        self._audience.show(pulls)

    async def pull(self, need: ImageNeed, has_copy: bool) -> None:
        from dom0.images.pull import pull_by_engine
        from dom0.registry.ask import patiently
        from dom0.registry.fetch import GaveUp
        from dom0.registry.reference import parse

        reference = parse(need.ref)
        terms = terms_of(self._project)
        then = "this is given up; what has come is kept. Ctrl-C ends it sooner"
        if has_copy:
            terms = replace(terms, patience=min(terms.patience, BRIEFLY))
            then = "the copy that is here is used"
        self._waits[need.ref] = f"until nothing has come for {times.ago(terms.patience)}: then {then}"
        self._audience.say(f"pull {need.ref}")
        async with self._turns.setdefault("" if terms.rate else reference.registry, asyncio.Lock()):
            if has_copy and reference.registry in self._silent:
                raise GaveUp(f"{reference.registry}: nothing came of it a moment ago")
            try:
                with self._metered(need.ref) as meter, self._noted(need.ref, meter):
                    if is_in_one((await self._engine.info()).labels):  # the machine around it pulls
                        if keys_of(self._project, reference):
                            raise Final(f"{need.ref}: in a scope nobody can see whether it is signed")
                        ask = partial(pull_by_engine, self._engine, need.ref, terms, platform=need.platform)
                        await patiently(ask, terms, meter, most=math.inf)
                    else:
                        await self._fetch(need, reference, terms, meter)
            except GaveUp:
                self._silent.add(reference.registry)
                raise

    @contextmanager
    def _metered(self, image: str) -> Iterator[Meter]:
        from dom0.registry.progress import Meter

        self._meters[image] = Meter()
        self._show()
        try:
            yield self._meters[image]
        finally:
            del self._meters[image]
            self._show()

    @contextmanager
    def _noted(self, image: str, meter: Meter) -> Iterator[None]:
        clock = asyncio.get_running_loop().time
        began = clock()

        def so_far() -> str:
            drops = f", {meter.drops} requests cut off" if meter.drops else ""
            return f"{image}: {sizes.rounded(meter.received)} came in {times.ago(clock() - began)}{drops}"

        self._audience.note(Kind.PULL_BEGUN, image, f"pull {image}")
        try:
            yield
        except (Dom0Error, OSError, asyncio.CancelledError) as error:
            why = "it was ended" if isinstance(error, asyncio.CancelledError) else str(error)
            self._audience.note(Kind.PULL_FAILED, image, f"no pull of {so_far()}", why)
            raise
        self._audience.note(Kind.PULL_DONE, image, f"pulled {so_far()}")

    async def _fetch(self, need: ImageNeed, reference: Reference, terms: Terms, meter: Meter) -> None:
        from dom0.images.pull import platform_of, pull

        done = await pull(
            self._engine,
            await asyncio.to_thread(depot_of, self._project),
            reference,
            platform=platform_of(need.platform, "platform"),
            keys=keys_of(self._project, reference),
            peers=settings_of(self._project).peers,
            find_login=self._login_for,
            terms=terms,
            meter=meter,
            say=self._audience.say,
        )
        if done.warning:
            self._audience.say(f"{need.ref}: {done.warning}")

    async def _login_for(self, registry: str) -> Login | None:
        """As docker: what cannot be read is no reason not to ask."""
        from dom0.images.pull import own_login

        try:
            return await (self._find_login or own_login)(registry)
        except Dom0Error as error:
            self._audience.say(f"{registry}: asked without a login: {error.message}")
            return None
