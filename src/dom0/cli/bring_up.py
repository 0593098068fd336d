"""Build a project and let the machine become it: what `dom0 up` and `dom0 try` do. Runs without click.

Slow imports wait until Compose, which is another process, reads the project, or the root container starts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from dom0 import terminal, times
from dom0.agent.status import (
    LARGEST_PROJECT,
    MOST_NETWORKS,
    MOST_PULLS,
    NO_LOGINS,
    NOT_READ,
    Outcome,
    Progress,
    UpRequest,
)
from dom0.cli import succession, unchanged
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.follow import follow
from dom0.cli.in_use import place_of, projects_in_place, running_project
from dom0.cli.places import agent_socket, is_here, is_login
from dom0.cli.report import Report, ending_pulls, watching
from dom0.cli.root_start import RootStart
from dom0.errors import Busy, Dom0Error, EngineUnreachable, NotFound, ProjectError, UsageError
from dom0.http import blocking
from dom0.images.built import Built
from dom0.names import PLACED, ROOT, short_id, state_directory
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.agent.foresee import Running
    from dom0.compose.model import Project
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, Image
    from dom0.images.reading import Reading
    from dom0.plan.desired import Desired
    from dom0.plan.facts import ImageNeed
    from dom0.plan.ownership import Seal

START_WITHIN = 30.0  # seconds for the agent in a root container that runs to answer
MARGIN = 2 << 20  # bytes of a request beside the project in it: a small layer, in base64
_NEEDED = ("dom0.agent.handover",)  # in the end
_NEEDED_FIRST = ("dom0.agent.foresee", "dom0.agent.source")  # where no agent runs yet, and a project is refused here
_START = "the start of dom0"
ASK_HERE, PAUSE_HERE = 3.0, 0.002  # seconds: to ask on this machine's socket before a process in the container asks


def run(
    project: Path | None,
    tag: str,
    *,
    image: str | None = None,
    root: RootStart | None = None,
    force: bool = False,
    adopts: bool = False,
    wait: bool = False,
    as_json: bool = False,
) -> None:
    """`dom0 up`, and what it says at its end. Raises as `bring_up`."""
    import asyncio  # takes as long as all of the above

    last = asyncio.run(
        bring_up(project, tag, image=image, root=root, force=force, adopts=adopts, wait=wait, as_json=as_json)
    )
    if last.outcome:
        text = str(last.outcome)
    else:
        text = f"ready, and watched until {times.moment(last.watched_until)}: "
        if last.goes_back_to:
            text += f"if it does not stay well, the machine goes back to generation {last.goes_back_to} by itself"
        else:
            text += "there is no good one to go back to: if it does not stay well, dom0 goes on trying"
    if not as_json:
        terminal.say(f"generation {last.generation} is {text}")


async def bring_up(
    project: Path | None,
    tag: str,
    *,
    image: str | None = None,
    root: RootStart | None = None,
    force: bool = False,
    adopts: bool = False,
    trial: float = 0.0,
    wait: bool = True,
    as_json: bool,
) -> Progress:
    """Build, let the image's project become the machine, and wait for the outcome. `trial` in seconds, 0: none.

    `image`: the ID of the one that the project, as it is, was built into, "" if there is none yet, None if nobody has
    looked. `root`: the start of a root container, which may have begun. Without `wait` only until all is ready: what it
    returns then has no outcome, and says until when it is watched. Raises RolledBack, ProjectError, EngineError,
    UsageError.
    """
    from asyncio import CancelledError

    report = Report(as_json=as_json)
    if project is None or adopts:
        image = ""
    elif image is None:
        image = _built_before(project, tag)
    async with _reading_of(project if not image else None) as reading, _engine() as engine:
        from dom0.images import private

        if image:
            built = Built(await engine.image(image), changed=False)
        elif project is not None:
            built = await _build(engine, project, tag, reading, report, adopts=adopts)
        else:
            built = Built(await image_as_it_is(engine, tag, report.say), changed=False)
        async with _unmarking(engine, built.image.id, BaseException):
            await place_of(engine, built.image, project, adopts=adopts)
            if project is not None:
                await private.deliver(engine, built.image, project)
            await _prepare_backups(engine, built, report)
            if trial:
                Agent().announce_trial(built.image.id, trial)
        wanted = UpRequest(force=force, adopt=adopts)
        # after a Ctrl-C that leaves something under way it is Interrupted
        async with _named_as_written(built, project), _unmarking(engine, built.image.id, CancelledError):
            with root or RootStart() as root:
                last, in_place = await _take_up(engine, built, project, wanted, root, report, wait=wait)
        in_place = in_place and last.outcome in (Outcome.GOOD, None) and not succession.is_guest()
        if in_place and last.outcome:
            await succession.await_succession(engine, report)
        elif in_place:
            new = short_id(built.image.id)
            report.aside(f"dom0: its new image {new} takes the place of the running one when the generation is good")
        return last


async def _build(
    engine: Engine, project: Path, tag: str, reading: Awaitable[Reading] | None, report: Report, *, adopts: bool
) -> Built:
    """The project's image, marked as one that may be taken up. Raises as `bring_up`."""
    await _prepare(engine, "dom0.images.project")
    from dom0.agent.in_use import require_free
    from dom0.cli import kept_reading
    from dom0.images import names
    from dom0.images.project import Options, built_unnamed

    places = await projects_in_place(engine, project, adopts=adopts)
    running = running_project()
    is_first = not (running or adopts) and what_runs(asks=False).generation is None
    refuse = functools.partial(require_free, engine) if is_first else None
    options = Options(tag=tag, taken_over=places, running=running, refuse=refuse)
    async with (
        built_unnamed(engine, project, report.say, options, reading) as built,
        _unmarking(engine, built.image.id, BaseException),
    ):
        await names.mark(engine, built.image, tag)  # a new one has no other name yet
    kept_reading.keep(built)
    return built


@contextlib.asynccontextmanager
async def _unmarking(engine: Engine, image_id: str, *ends: type[BaseException]) -> AsyncIterator[None]:
    """Where one of `ends` ends the block the image is not taken up."""
    try:
        yield
    except ends:
        from dom0.images import names

        await names.unmark(engine, image_id)
        raise


async def _prepare_backups(engine: Engine, built: Built, report: Report) -> None:
    """What jobs for them start is made where restic is: not in their containers."""
    if built.project and built.project.machine and built.project.machine.backup:
        from dom0.backup import restic

        try:
            await restic.prepare_image(engine)
        except Dom0Error as error:
            report.aside(f"dom0: volumes cannot be backed up: {error.message}; {error.hint}, then: dom0 backup now")


def _built_before(project: Path, tag: str) -> str:
    """The ID of the dom0 image if it is up to date, else "": a build would find the same, but looks at more."""
    try:
        images = unchanged.tagged_images()
    except EngineUnreachable:
        return ""  # `_engine` says why
    return images[tag].id if unchanged.is_current(project, tag, images) else ""


@contextlib.asynccontextmanager
async def _reading_of(project: Path | None) -> AsyncIterator[Awaitable[Reading] | None]:
    """Compose has begun to read the project when the block begins."""
    from dom0.images.dockerfile import MACHINES, PLAIN

    if project is None or any((project / name).exists() for name in (MACHINES, PLAIN)):
        yield None
        return
    import asyncio

    from dom0.compose.output_cache import OutputCache
    from dom0.images.reading import read

    cache = OutputCache()
    reading = asyncio.create_task(read(project, cache))
    reading.add_done_callback(lambda _ended: cache.started.set())  # perhaps it was refused before
    try:
        await cache.started.wait()
        yield reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await cache.close()


@contextlib.asynccontextmanager
async def _named_as_written(built: Built, project: Path | None) -> AsyncIterator[None]:
    """In what the block refuses the project's files have their own names, for which it is read where no build has."""
    try:
        with built.named_as_written():
            yield
    except ProjectError as error:
        if project is not None and not built.written and not built.image.labels.get(labels.DOCKERFILE):
            from dom0.images.layout import as_written
            from dom0.images.reading import read

            with contextlib.suppress(Dom0Error):
                reading = await read(project)
                error.message = as_written(error.message, reading.project)
                await reading.cache.close()
        raise


@contextlib.asynccontextmanager
async def _engine() -> AsyncIterator[Engine]:
    """Connected."""
    import asyncio

    await asyncio.to_thread(_load, "dom0.engine.docker", "dom0.cli.engine_client")
    from dom0.cli.engine_client import connected

    async with connected() as engine:
        yield engine


async def _prepare(engine: Engine, *modules: str) -> None:
    """What takes long to load and to answer, while Compose reads or the root container starts."""
    import asyncio

    needed = _NEEDED if agent_socket().exists() else (*_NEEDED, *_NEEDED_FIRST)
    await asyncio.gather(engine.info(), asyncio.to_thread(_load, *modules, *needed))


def _load(*modules: str) -> None:
    """To be called in a thread, so that the event loop sees at once when Compose ends."""
    import importlib

    for module in modules:
        importlib.import_module(module)


async def image_as_it_is(engine: Engine, tag: str, say: Callable[[str], None]) -> Image:
    """Where no project is read. Raises UsageError if there is no such image."""
    from dom0.engine.protocol import find_image

    image = await find_image(engine, tag)
    if image is None:
        raise UsageError(
            f"{tag}: there is no such image, and no project in this directory",
            hint="name a project: dom0 up DIR; or make one: dom0 init DIR",
        )
    say(f"{tag}: as it is, no project is read")
    return image


async def _take_up(
    engine: Engine,
    built: Built,
    project: Path | None,
    wanted: UpRequest,
    root: RootStart,
    report: Report,
    *,
    wait: bool,
) -> tuple[Progress, bool]:
    """The last line of progress, and whether the running agent has taken the project up in place of its image's.

    An agent that gives way to the image of the generation before does not answer: its successor is asked.
    """
    import asyncio

    from dom0.agent.handover import forget_failure, has_traces, is_at_work
    from dom0.images import names

    while True:
        if await has_traces(engine):
            async with _unmarking(engine, built.image.id, BaseException):
                await succession.let_end(engine, report.say)
            await forget_failure(engine)
        try:
            read, in_place, has_started = await _become(engine, built, project, root, report, adopts=wanted.adopt)
            text = msgspec.json.encode(read)
            fits = read and len(text) < LARGEST_PROJECT - MARGIN
            request = replace(wanted, project=msgspec.Raw(text) if fits else NOT_READ)
            with watching(_START) if has_started else contextlib.nullcontext():
                logins = await logins_for(engine, built.image.id, read or built.project, report.say)
                await asyncio.sleep(0)  # a Ctrl-C that came since it waited last: from here on nothing does
            request = replace(request, logins=logins, pulls=tuple(report.pulled[-MOST_PULLS:]))
            request = replace(request, networks=tuple(report.networks[-MOST_NETWORKS:]))
            if in_place:
                request = replace(request, dom0_image=built.image.id, layer=built.layer)
            return follow(Agent(patient=False).up(request), report, wait=wait), in_place
        except (Busy, AgentUnreachable) as error:
            is_down = isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
            if await is_at_work(engine) or (is_down and await _comes_up(engine)):
                continue
            if isinstance(error, Busy):
                busy_with = Agent().status().generation
                if busy_with is None or busy_with.dom0_image != built.image.id:
                    await names.unmark(engine, built.image.id)
            raise


async def logins_for(engine: Engine, image: str, project: Project | None, say: Callable[[str], None]) -> msgspec.Raw:
    """Of the person, for the registries that the agent is about to ask. It says what is wrong with the project."""
    from dom0.cli import kept_reading
    from dom0.registry import credentials

    if not os.access(credentials.config_file(os.environ, Path.home()), os.F_OK):
        return NO_LOGINS
    if (project := project or kept_reading.find(image)) is None:
        return NO_LOGINS
    from dom0.agent.source import find_pulls
    from dom0.images.pull import own_login
    from dom0.plan.facts import images_needed
    from dom0.registry.reference import parse

    found: dict[str, credentials.Login] = {}
    with contextlib.suppress(Dom0Error):
        registries = {parse(need.ref).registry for need in await find_pulls(engine, images_needed(project))}
        for registry in sorted(registries):
            try:
                login = await own_login(registry)
            except Dom0Error as error:
                say(f"{registry}: asked without a login of yours: {error.message}")
            else:
                found |= {registry: login} if login else {}
    return msgspec.Raw(msgspec.json.encode(found))


async def _comes_up(engine: Engine) -> bool:
    """Whether the agent answers in the end, if its container runs: it may have been started a moment ago."""
    import asyncio

    deadline = time.monotonic() + START_WITHIN
    with contextlib.suppress(NotFound):
        while (await engine.container(ROOT)).running and time.monotonic() < deadline:
            with contextlib.suppress(Dom0Error):
                Agent(patient=False).status()
                return True
            await asyncio.sleep(succession.PAUSE)
    return False


async def _become(
    engine: Engine, built: Built, project: Path | None, start: RootStart, report: Report, *, adopts: bool
) -> tuple[Project | None, bool, bool]:
    """Let a root container of the image run, unless only the project differs.

    Returns the project, if the agent needs it and would read the same; whether the running one takes it up; and whether
    one was started.
    """
    from dom0.agent.handover import hand_over, start_root
    from dom0.engine.protocol import find_container
    from dom0.engine.values import State
    from dom0.images import names
    from dom0.socketproxy.scope import ORCHESTRATOR

    image = built.image
    root = None if start.is_pending else await find_container(engine, ROOT)
    if root is not None and root.state is State.PAUSED:
        report.say(f"unpause {ROOT}")
        await engine.unpause_container(root.id)
    if root is not None and root.running:
        if root.image_id == image.id:
            return None, False, False
        if root.labels.get(labels.BASE) == image.labels.get(labels.BASE):
            return (built.project if built.project and _is_read_alike(built.project, image) else None), True, False
        if root.labels.get(ORCHESTRATOR):  # its owner decides which image it is of, and it may not make another one
            report.say(f"{ROOT}: is a service of another machine, and stays of the image that it has")
            return None, True, False
    is_beside = root is None and names.has_its_names(image.tags) and labels.AWAITS in image.labels
    read, answers = await _refuse_or_start(engine, built, project, start if is_beside else None, report, adopts=adopts)
    if answers:
        return read, False, True
    with watching(_START):
        async with names.taken_up_later(engine, image.id):
            if root is not None and root.running:
                await hand_over(engine, image.id, report.say)
            else:
                await start_root(engine, image.id, report.say, _ask_here)
    return read, False, True


async def _refuse_or_start(
    engine: Engine, built: Built, project: Path | None, start: RootStart | None, report: Report, *, adopts: bool
) -> tuple[Project | None, bool]:
    """`start`: of a root container that begins beside. It is removed where the project is refused.

    Returns the project, if its agent reads it in the same way, and whether that answers. It finds its networks created:
    until it is loaded, a processor has nothing else to do.
    """
    import asyncio

    if start is not None:
        with contextlib.suppress(_ToPull):
            with start:
                start.begin()
                await _prepare(engine)
                from dom0.agent.apply import create_networks

                accepted = await _refuse_beforehand(engine, built, project, report, adopts=adopts, beside=True)
                start.accept()
            with watching(_START):
                answering = _has_come_up(start, built.image.id)
                if accepted is None:
                    return None, await answering
                creating = create_networks(engine, accepted.desired, accepted.seal, report.created)
                answers, _ = await asyncio.gather(answering, creating)
                return accepted.project, answers
    await _refuse_beforehand(engine, built, project, report, adopts=adopts)
    return None, False


class _Accepted(msgspec.Struct, frozen=True):
    """A project that the new agent reads in the same way, and what it makes of that. `seal` is of its marks."""

    project: Project
    desired: Desired
    seal: Seal


class _ToPull(Exception):
    """That may take a day, and an agent which is started beside does not wait for so long: it would pull by itself."""


async def _never_beside(_need: ImageNeed, _has_copy: bool) -> None:
    raise _ToPull


async def _refuse_beforehand(
    engine: Engine, built: Built, project: Path | None, report: Report, *, adopts: bool, beside: bool = False
) -> _Accepted | None:
    """Raises what the new agent would refuse, before its container runs: Dom0Error; _ToPull if it starts beside.

    Returns the project if that agent reads it in the same way.
    """
    from dom0.agent.foresee import refuse
    from dom0.agent.in_use import find_adoptable
    from dom0.agent.pull import pulling
    from dom0.agent.source import read_project, resolve_beforehand
    from dom0.cli import kept_reading
    from dom0.cli.announced import Heard, announcing
    from dom0.images import names, private
    from dom0.plan.adoption import adopt

    image = built.image
    roots, is_private = private_roots(project, image), bool(private.of_image(image.labels))
    if is_private and not roots:
        return None  # of another machine: only its agent can read the project
    try:
        place = await place_of(engine, image, project, adopts=adopts)
        found = None
        if place == PLACED:
            found = built.project or (kept_reading.find(image.id) if project or not is_private else None)
        if found is None:
            async with read_project(engine, image, place, roots) as (_, found):
                pass
        if beside:
            desired = await resolve_beforehand(engine, image, found, _never_beside, report.say)
        else:
            with announcing() as tell, ending_pulls(report):
                async with pulling(engine, found, Heard(report, tell)) as pull:
                    desired = await resolve_beforehand(engine, image, found, pull, report.say)
        if adopts:
            desired = adopt(desired, await find_adoptable(engine, desired))
        running = what_runs(asks=not beside)
        desired = await refuse(engine, desired, running, found.locations)
    except _ToPull:
        raise
    except BaseException:  # Ctrl-C too
        await names.unmark(engine, image.id)
        raise
    return _Accepted(found, desired, running.seal) if place == PLACED and _is_read_alike(found, image) else None


def _is_read_alike(project: Project, image: Image) -> bool:
    """Whether the agent of `image` has the Docker Compose that has read `project`, so that its hashes are the same."""
    from dom0.images.second_reading import other_compose

    return not other_compose(image, project.compose_version)


def private_roots(project: Path | None, image: Image) -> list[Path]:
    """Where there may be what an image leaves out: in the project that it was built from, else on this machine."""
    from dom0.agent.private_files import find_roots

    if project is not None:
        return [project]
    try:
        return find_roots(state_directory(), image.id, image.labels.get(labels.PROJECT, "")) if is_here() else []
    except PermissionError:
        return []


def what_runs(*, asks: bool = True) -> Running:
    """What the machine is now. Without the right to read its files, and of another machine, only its project is known.

    `asks`: where its files were read and name none, there may be an agent that does. Raises Dom0Error.
    """
    from dom0.agent.foresee import Running, read_running
    from dom0.agent.store import Forbidden

    try:
        found = read_running(state_directory(), None if is_login() else Path("/")) if is_here() else Running()
    except (PermissionError, Forbidden):
        found = Running()
    if found.generation is not None or (found.state is not None and not asks):
        return found
    try:
        return replace(found, project=Agent().status().project)
    except AgentUnreachable:
        return found


async def _ask_here(engine: Engine, root: Container) -> bool:
    """Asks on this machine's socket first: a process in the container takes processor time from the agent's start."""
    from dom0.agent.handover import ask_inside

    return await _answers_here(root.image_id) or await ask_inside(engine, root)


async def _has_come_up(root: RootStart, image_id: str) -> bool:
    import asyncio

    return await asyncio.to_thread(root.await_start) and await _answers_here(image_id)


async def _answers_here(image_id: str) -> bool:
    """Whether the agent of that dom0 image does on this machine's socket, in a moment."""
    import asyncio

    deadline = time.monotonic() + (ASK_HERE if is_here() else 0.0)
    while time.monotonic() < deadline:
        with contextlib.suppress(Dom0Error, OSError):
            blocking.connect(str(agent_socket())).close()  # to say why it fails, `Agent` would ask the Engine
            if Agent(patient=False).status().dom0_image == image_id:
                return True
        await asyncio.sleep(PAUSE_HERE)
    return False
