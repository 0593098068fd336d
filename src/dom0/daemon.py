"""The agent process, put together: Engine, machine, API. Decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from dom0.agent import disks, handover, notify, source
from dom0.agent.ambassadors import Ambassadors
from dom0.agent.api import serve
from dom0.agent.boot import BootNotes
from dom0.agent.image_server import ImageServer
from dom0.agent.journal import Journal
from dom0.agent.logins import Logins
from dom0.agent.machine import Machine, StatusSources
from dom0.agent.metrics_server import MetricsServer
from dom0.agent.neighbours import Neighbours
from dom0.agent.notify import Notifier
from dom0.agent.processes import NEW_SOCKET, HostProcesses, SeenFromScope
from dom0.agent.progress import Changes
from dom0.agent.readiness import Readiness
from dom0.agent.reconcile import Surroundings
from dom0.agent.role import RoleRunner
from dom0.agent.scopes import Scopes
from dom0.agent.status import MembershipStatus
from dom0.agent.store import exclusive_lock
from dom0.agent.web_server import WebServer
from dom0.engine.docker import DockerEngine
from dom0.engine.protocol import Engine
from dom0.engine.values import EngineInfo
from dom0.errors import Dom0Error, EngineError, EngineUnreachable, NotFound
from dom0.host import boot_record, contract, launcher
from dom0.names import ENGINE_SOCKET, FARM_FILE, SSHD, Access, etc_directory, run_directory, state_directory

log = logging.getLogger(__name__)

STATE, RUN, ETC = state_directory(), run_directory(), etc_directory()
ALL_ENDPOINTS = (1, 44)  # the API that takes several networks at create
STEPS_PER_CORE = 8  # see agent/reconcile
LOOK_AGAIN = 1.0  # seconds between looks whether an Engine that does not answer does again, at another socket or ours
CUT_OFF = "the Docker Engine has made a new socket; dom0 restarts to connect to it"
LOST = "the Docker Engine reports this container as ended or removed; dom0 ends, so that no second one runs beside it"
END_WITHIN = 10.0  # seconds for an agent before us that the Engine has lost: it ends when it notices
LOOK_FOR_FARM = 5.0  # seconds between looks whether this machine has joined a farm
LONGEST_PAUSE = 5.0  # seconds between attempts to reach the Engine at start

Watch = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside the machine, until that is closed."""


async def run(info: bytes) -> None:
    """Serve until SIGTERM or SIGINT. Raises EngineUnreachable, EngineUnsuitable, Busy, Unwritable.

    `info`: what the Engine has said of itself, b"" if it has not been asked.
    """
    with exclusive_lock(STATE, patience=END_WITHIN):
        engine = await _reach_engine(info)
        try:
            await _serve(engine)
        finally:
            await engine.close()


async def _serve(engine: Engine) -> None:
    info, own, traces = await asyncio.gather(engine.info(), source.find_own(engine), handover.has_traces(engine))
    may_be_handed_over = traces and not own.is_guest
    changed, readiness = Changes(), Readiness()
    ambassadors, scopes = Ambassadors(engine, readiness, changed), Scopes()
    data = (STATE, Path(f"/proc/1/root{info.root_dir}"))
    give_way = partial(handover.hand_over, engine, say=log.info)
    machine = Machine(
        engine,
        state=STATE,
        own=own,
        resolve=lambda image, audience, handed: source.resolve(engine, ETC, STATE, own, audience, image, handed),
        hand_over=give_way,
        handover_may_come=may_be_handed_over,  # until we know
        surroundings=_surroundings(info, own, ambassadors),
        changed=changed,
        readiness=readiness,
        boot_notes=BootNotes(RUN / boot_record.RUNNING),
        journal=Journal(STATE, now=time.time),
        sources=StatusSources(
            problems=(
                partial(launcher.problems, RUN, own.image),
                lambda: ambassadors.problems,
                partial(disks.problems, RUN, STATE),
                partial(disks.filling, data),
                lambda: scopes.problems(*machine.seen, time.time()),
                lambda: tuple(problem for server in servers for problem in server.problems),
                lambda: notifier.unsent() if machine.desired.notify else (),
            ),
            sharing=lambda: image_server.status,
            farm=_tell_farm,
            scopes=scopes.status,
            places=data,
        ),
    )
    image_server = ImageServer(changed, lambda: machine.desired.sharing, mirrors=info.mirrors, is_guest=own.is_guest)
    metrics_server = MetricsServer(changed, lambda: machine.desired.metrics, partial(_numbers, machine, ambassadors))
    web_server = WebServer(
        changed,
        lambda: machine.desired.web,
        machine.devices,
        lambda access, device: answers(access, device),  # noqa: PLW0108 -- it is there when somebody asks
        state=STATE,
        run=RUN,
        journal=machine.journal,
        is_guest=own.is_guest,
    )
    notifier = Notifier(STATE, machine.journal.note)
    servers, neighbours = (image_server, metrics_server, web_server), Neighbours(ambassadors, machine, readiness)
    watches: list[Watch] = [*(server.run for server in servers), partial(_end_when_ended, engine, machine, own)]
    watches.append(partial(_tell_people, machine, notifier))
    if not own.is_guest:
        watches.append(partial(_follow_farm, engine, RoleRunner(engine, machine, own, give_way), neighbours))
    log.info("Docker Engine %s, %d cores; image %s", info.version, info.cpus, own.image or "none")
    _close_when_told(machine)
    async with serve(machine, ambassadors, RUN / Access.ALL.socket, gid=_engines_group()) as answers:
        await _run(engine, machine, ambassadors, watches, may_be_handed_over=may_be_handed_over)


def _surroundings(info: EngineInfo, own: source.Own, ambassadors: Ambassadors) -> Surroundings:
    return Surroundings(
        steps=STEPS_PER_CORE * info.cpus,
        all_endpoints=tuple(map(int, info.api_version.split("."))) >= ALL_ENDPOINTS,
        leaving=ambassadors.leaving,
        processes=HostProcesses() if own.sees_host else SeenFromScope() if own.is_guest else None,
        under_owner_until=own.started if own.is_guest else 0.0,
    )


def _close_when_told(machine: Machine) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, machine.close)


def _engines_group() -> int:
    """Of its socket: who may use that owns the machine."""
    socket = Path(ENGINE_SOCKET)
    return socket.stat().st_gid if socket.exists() else 0


async def _run(
    engine: Engine, machine: Machine, ambassadors: Ambassadors, watches: list[Watch], *, may_be_handed_over: bool
) -> None:
    """Until the machine is closed."""
    if may_be_handed_over:
        with contextlib.suppress(Dom0Error):
            if await handover.is_at_work(engine):
                machine.begin_handover()
        watches.append(partial(_settle_handover, engine, machine))
    logins = Logins(
        engine,
        STATE,
        machine.journal,
        machine.changed,
        container=lambda: machine.container_ids.get(SSHD),
        keys=machine.ssh_keys,
    )
    watches += [logins.run, partial(_end_when_cut_off, machine)]
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(watch()) for watch in watches]
        tasks.create_task(ambassadors.run())
        await machine.run()
        ambassadors.close()
        for task in beside:
            task.cancel()


async def _tell_people(machine: Machine, notifier: Notifier) -> None:
    await notify.tell(
        notifier,
        machine.changed,
        status=machine.status,
        wanted=lambda: machine.desired.notify,
        is_seen=lambda: machine.seen[0] is not None,
    )


async def _numbers(machine: Machine, ambassadors: Ambassadors) -> bytes:
    from dom0.agent import metrics  # which few machines are asked for

    used = await machine.usage()
    known = machine.status(), ambassadors.status(), dict(machine.journal.noted)
    return metrics.render(*known, used.machine, used.containers)


async def _follow_farm(engine: Engine, runner: RoleRunner, neighbours: Neighbours) -> None:
    """Where a person, or whoever started this machine, has made it a node of one."""
    named = contract.get(RUN, "farm")
    while not named and not (STATE / FARM_FILE).exists():  # noqa: ASYNC110 -- another process writes it
        await asyncio.sleep(LOOK_FOR_FARM)
    from dom0.farms import base_os, follow, join  # with TLS and the fetcher, for the few machines that need them

    if named:
        await join.follow(STATE, named)
    await follow.follow(STATE, engine, runner, base_os.BaseOsHost(), neighbours)


def _tell_farm() -> MembershipStatus | None:
    if not (STATE / FARM_FILE).exists():
        return None
    from dom0.farms import follow, join  # as above

    with contextlib.suppress(Dom0Error, OSError):  # damaged, which is in the log
        if (member := join.read(STATE)) is not None:
            report = follow.read(STATE).report
            return MembershipStatus(
                farm=member.farm,
                server=member.address,
                node=member.name,
                role=member.role,
                revision=report.revision,
                state=report.state,
                reason=report.reason,
            )
    return None


async def _settle_handover(engine: Engine, machine: Machine) -> None:
    """Wait for a running hand-over, which waits for our answer; finish or undo one that was interrupted."""
    failure = None
    try:
        await handover.follow_helper(engine)
        await handover.recover(engine, log.info)
        failure = await handover.last_failure(engine)
    except Dom0Error as error:
        log.info("hand-over: %s", error.message)
    machine.end_handover(failure)


async def _end_when_cut_off(machine: Machine) -> None:
    """An Engine that creates its socket itself creates a new one at every start; our mount is of the old one.

    The restart policy starts us again, with the new one. Until there is one the Engine is down, which the status says.
    """
    while True:
        await machine.changed.until(lambda: machine.is_blind)
        if await _answers_elsewhere():
            log.warning(CUT_OFF)
            machine.close()
            return
        await asyncio.sleep(LOOK_AGAIN)


async def _answers_elsewhere() -> bool:
    """Whether the Engine answers at a socket that it has created since our start.

    It creates the socket first, then loads its containers. One that ends in between is started twice, and from then on
    over and over, out of the Engine's control (seen on Docker 26.1).
    """
    if not HostProcesses().has_old_socket_at(os.getpid()):
        return False
    try:
        engine = await DockerEngine.connect(f"unix://{NEW_SOCKET}")
    except EngineUnreachable:
        return False
    except EngineError:
        return True  # our next start says what it lacks
    await engine.close()
    return True


async def _end_when_ended(engine: Engine, machine: Machine, own: source.Own) -> None:
    """An Engine can lose a process (seen on Docker 26.1): it reports the container as ended, or has removed it.

    The agent that is started next, by the restart policy or by a person, needs the state directory, which we lock.
    """
    while own.container:
        try:
            await engine.wait_container(own.container)
        except NotFound:
            pass
        except EngineError as error:
            log.debug("our own container: %s", error.message)
            await asyncio.sleep(LOOK_AGAIN)
            continue
        log.warning(LOST)
        machine.close()
        return


async def _reach_engine(info: bytes) -> Engine:
    """Wait for an Engine that is still starting, however long it takes.

    Raises EngineUnreachable when it answers at a new socket.
    """
    pause = 0.1
    while True:
        try:
            return await DockerEngine.connect(info=info)
        except EngineUnreachable as error:
            if await _answers_elsewhere():
                raise EngineUnreachable(CUT_OFF) from error
            log.warning("%s", error.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
