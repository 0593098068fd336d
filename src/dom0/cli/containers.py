"""Which containers are meant by the names of services. Asks the Engine, decides by labels."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

import msgspec

from dom0 import terminal
from dom0.cli import engine_client
from dom0.cli.engine_client import ListedContainer, on_engine
from dom0.errors import Dom0Error, UsageError
from dom0.names import ROOT
from dom0.plan import labels
from dom0.run import become, capture
from dom0.socketproxy.scope import is_made_inside

if TYPE_CHECKING:
    from dom0.cli.client import Agent
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, ContainerSummary

Listed = TypeVar("Listed", "ContainerSummary", "Container", ListedContainer)


def say_if_none(found: Collection[object]) -> None:
    """To a person, where there is nothing to show: after `dom0 down`, or before the first `dom0 up`."""
    if not found:
        terminal.say_progress("nothing of dom0 is here; start it: dom0 up")


async def find_containers(
    engine: Engine, services: Sequence[str], *, missing_is_error: bool = True
) -> list[ContainerSummary]:
    """The containers of `services`, of all services of the machine if none is named. Raises UsageError."""
    ours = [one for one in await engine.containers(labels=[labels.PROJECT]) if not is_made_inside(one.labels)]
    projects = {container.labels[labels.PROJECT] for container in ours}
    ours += taken_over(await engine.containers(labels=[labels.COMPOSE_SERVICE]), projects)
    by_service: dict[str, list[ContainerSummary]] = {}
    for container in sorted(ours, key=lambda one: (one.labels.get(labels.SERVICE, ""), one.name)):
        is_root = container.name == ROOT and container.labels.get(labels.ROLE) == "root"
        service = ROOT if is_root else container.labels.get(labels.SERVICE, "")  # "": only has labels of our image
        by_service.setdefault(service, []).append(container)
    if missing_is_error:
        _refuse_unknown(services, by_service)
    names = services or [name for name in by_service if name not in ("", ROOT)]
    return [container for name in names for container in by_service.get(name, ())]


def _refuse_unknown(services: Sequence[str], known: Collection[str]) -> None:
    for service in services:
        if service not in known:
            there = ", ".join(sorted(filter(None, known))) or "none; dom0 up makes them"
            raise UsageError(f"{service}: has no container here", hint=f"services that have: {there}")


def list_containers() -> list[ListedContainer]:
    """As `find_containers` of all services. Raises EngineError."""
    ours = [one for one in engine_client.containers(labels.PROJECT) if not is_made_inside(one.labels)]
    projects = {container.labels[labels.PROJECT] for container in ours}
    return [*ours, *taken_over(engine_client.containers(labels.COMPOSE_SERVICE), projects)]


def taken_over(by_compose: Iterable[Listed], projects: Collection[str]) -> Iterator[Listed]:
    """What Docker Compose made for the machine's `projects`, with the labels of ours that it never gets."""
    for container in by_compose:
        theirs = container.labels
        if is_made_inside(theirs):
            continue
        project = theirs.get(labels.COMPOSE_PROJECT, "")
        if labels.PROJECT not in theirs and project in projects and theirs.get(labels.COMPOSE_ONEOFF) != "True":
            own = {
                labels.PROJECT: project,
                labels.ROLE: "service",
                labels.SERVICE: theirs[labels.COMPOSE_SERVICE],
                labels.NUMBER: theirs.get(labels.COMPOSE_NUMBER, "1"),
            }
            yield msgspec.structs.replace(container, labels={**theirs, **own})


def let_docker(verb: Literal["start", "stop", "restart"], services: Sequence[str], *, as_json: bool) -> None:
    """`docker VERB` of all containers of the services, after their `pre_stop`.

    The agent does it before a stop, so that ambassadors lead elsewhere first; docker where no agent answers, and for
    what is no service of its generation. Raises UsageError, EngineError, CommandFailed.
    """
    import asyncio

    from dom0.agent.status import Acted
    from dom0.cli.client import Agent, AgentUnreachable
    from dom0.plan.phase import Phase

    agent, known = Agent(patient=False), set[str]()
    if verb != "start":
        with contextlib.suppress(AgentUnreachable):
            known = {one.service for one in agent.status().services if one.container and one.phase is not Phase.DATA}
    if known.issuperset(services):
        _let_agent(agent, verb, list(dict.fromkeys(services)), as_json=as_json)
        return
    by_service: dict[str, list[ListedContainer]] = {}
    for container in list_containers():
        if name := container.labels.get(labels.SERVICE):
            by_service.setdefault(name, []).append(container)
    _refuse_unknown(services, by_service)
    meant = [(container, service) for service in dict.fromkeys(services) for container in by_service[service]]
    if verb != "start" and (hooked := [one.id for one, _ in meant if one.labels.get(labels.PRE_STOP)]):
        # What fails is said by docker, which is asked to stop all of them again.
        on_engine(
            lambda engine: asyncio.gather(*(_stop_after_hook(engine, one) for one in hooked), return_exceptions=True)
        )
    acted = sorted((container.names[0].removeprefix("/"), service) for container, service in meant)
    argv = ["docker", verb, *(name for name, _ in acted)]
    if not as_json:
        become(argv)
    asyncio.run(capture(argv))
    terminal.say_json([Acted(service=service, container=name) for name, service in acted])


def _let_agent(agent: Agent, verb: str, services: Sequence[str], *, as_json: bool) -> None:
    """All at once. Raises the first refusal, with the words of all, when all have been answered."""
    from dom0.agent.status import Acted

    done, failed = dict[str, list[Acted]](), dict[str, Exception]()

    def act(service: str) -> None:
        path = f"/v1/services/{quote(service, safe='')}/{verb}"
        try:
            done[service] = agent.call("POST", path, list[Acted], within=None)
        except Exception as error:
            failed[service] = error

    threads = [threading.Thread(target=act, args=(one,), daemon=True) for one in services]  # daemons: Ctrl-C ends it
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    acted = [one for service in services for one in done.get(service, ())]
    terminal.say_done(acted, *(one.container for one in acted), as_json=as_json)
    errors = [failed[service] for service in services if service in failed]
    refusals = [error for error in errors if isinstance(error, Dom0Error)]
    if errors != refusals:
        raise ExceptionGroup(verb, errors)
    if refusals:
        refusals[0].message = "\n".join(error.message for error in refusals)
        raise refusals[0]


async def _stop_after_hook(engine: Engine, container_id: str) -> None:
    from dom0.agent.hooks import run_own_pre_stop

    left = await run_own_pre_stop(engine, container_id)
    if left is not None:
        await engine.stop_container(container_id, timeout=left)
