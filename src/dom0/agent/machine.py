"""The machine as commands and its own start see it: what can be asked of it, and what it reports.

How it gets from one generation to another is in `current`; this module decides when: at start, on a command, and when a
generation belongs to another dom0 image, which then takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dom0 import __version__
from dom0.agent import image_names, problems
from dom0.agent.backups import backups
from dom0.agent.boot import BootNotes
from dom0.agent.clock import Clock, SystemClock
from dom0.agent.current import AGAIN, Current
from dom0.agent.devices import DeviceRegister
from dom0.agent.events import ENGINE, Kind
from dom0.agent.generations import Generation, describe
from dom0.agent.hooks import run_own_pre_stop
from dom0.agent.image_names import names_of
from dom0.agent.journal import Journal
from dom0.agent.logs import AT_ONCE, read_logs
from dom0.agent.loop_notes import LoopNotes
from dom0.agent.ownership import read_seal, write_seal
from dom0.agent.progress import Background, Board, Changes, Follower
from dom0.agent.proposal import Proposal, Proposer, Resolve
from dom0.agent.readiness import Readiness, ReadyStarts
from dom0.agent.reconcile import STOPPING, Reconciler, Surroundings
from dom0.agent.report import service_status
from dom0.agent.rollback import find_target
from dom0.agent.scope_status import ScopeStatus
from dom0.agent.served_farms import ServedFarms
from dom0.agent.source import Handed, Own
from dom0.agent.state_files import StateFiles, Trial
from dom0.agent.status import (
    NO_LOGINS,
    NOT_READ,
    Acted,
    GenerationInfo,
    LogLine,
    LogsRequest,
    MembershipStatus,
    Outcome,
    Phase,
    Progress,
    SharingStatus,
    Status,
    UpRequest,
    Verb,
)
from dom0.agent.storage import StorageStatus, storage
from dom0.agent.vitals import UsageStatus, look, usages
from dom0.compose.model import Project
from dom0.durable import Unwritable
from dom0.engine.protocol import Engine
from dom0.engine.values import Event, State
from dom0.errors import Busy, Dom0Error, EngineError, EngineUnreachable, UsageError
from dom0.health import Problem
from dom0.images import names
from dom0.names import ROOT, short_id
from dom0.plan.actual import Actual
from dom0.plan.adoption import carry_over
from dom0.plan.builtins import SSH_STATE
from dom0.plan.desired import Desired, Role
from dom0.plan.differences import Difference, compare
from dom0.plan.hooks import has_post_start
from dom0.plan.memory import Memory, cleared
from dom0.plan.planner import Plan
from dom0.plan.preview import Change, preview
from dom0.plan.steps import MISSING, AnyStep, CreateNetwork
from dom0.plan.text import kind_of, say_step

log = logging.getLogger(__name__)

HandOver = Callable[[str], Awaitable[None]]
"""Lets another dom0 image take our place: we end before it does. Raises Dom0Error if that was not to be."""

UP_WITHIN = 60.0  # seconds for the `dom0 up` that has started us to say what it wants
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds until our own project is tried again, growing


class CommandTurn(msgspec.Struct):
    """Of one command that changes the machine. Until it `is_over`, when all is ready, no other one may."""

    is_over: bool = False
    asked: UpRequest | None = None  # None: a rollback
    change: asyncio.Task[Progress] | None = None  # once it has begun
    is_replaced: bool = False  # by another `dom0 up`, before it had changed anything
    followers: list[Follower] = []  # of the commands that asked for it


class HandoverState(msgspec.Struct):
    """Of us to another dom0 image. While one `may_come`, no command begins a change."""

    may_come: bool
    at_work: bool = False
    problem: Problem | None = None  # why the last one was undone


class OwnProject(msgspec.Struct):
    """That of our own image, which is tried again until it is taken over."""

    proposal: asyncio.Task[None] | None = None  # all tries
    attempt: asyncio.Task[Dom0Error | None] | None = None  # one of them
    problem: Problem | None = None  # with the last one


class StatusSources(msgspec.Struct, frozen=True, kw_only=True):
    """What the status has from elsewhere. `places`: directories with data."""

    problems: Sequence[Callable[[], tuple[Problem, ...]]] = ()
    sharing: Callable[[], SharingStatus | None] = lambda: None
    farm: Callable[[], MembershipStatus | None] = lambda: None
    scopes: Callable[[Actual], list[ScopeStatus]] = lambda _: []
    places: Sequence[Path] = ()


NOWHERE_ELSE = StatusSources()


class Machine:
    def __init__(
        self,
        engine: Engine,
        *,
        state: Path,
        own: Own,
        resolve: Resolve,
        hand_over: HandOver,
        surroundings: Surroundings,
        changed: Changes,
        readiness: Readiness,
        boot_notes: BootNotes,
        journal: Journal,
        sources: StatusSources = NOWHERE_ELSE,
        handover_may_come: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.changed, self.journal = changed, journal
        self.devices = DeviceRegister(state, journal)
        self.served_farms = ServedFarms((clock or SystemClock()).now)
        self._engine = engine
        self._state = state
        self._own = own
        self._hand_over = hand_over
        self._readiness = readiness
        self._leaving = surroundings.leaving
        self._boot_notes = boot_notes
        self._sources = sources
        self._clock = clock or SystemClock()
        self._board = Board(changed, journal.note)
        self._notes = LoopNotes(journal)
        self._background = Background()
        self._loop = Reconciler(
            engine,
            listener=self,
            surroundings=surroundings,
            save=StateFiles(state).save_memory,
            seal=read_seal(state),
            save_seal=partial(write_seal, state),
            clock=self._clock,
        )
        self._current = Current(
            engine,
            state,
            loop=self._loop,
            own_image=own.image,
            clock=self._clock,
            board=self._board,
            changed=changed,
            background=self._background,
            journal=journal,
        )
        self._proposer = Proposer(engine, state, own=own, current=self._current, resolve=resolve, audience=self._board)
        self.files = self._current.files
        self._turn: CommandTurn | None = None  # of a person: a second one is told to wait
        self._lives, self._closed = asyncio.Event(), asyncio.Event()
        self._own_project = OwnProject()
        self._handover = HandoverState(may_come=handover_may_come)
        self._steps_done = 0
        self._searches = asyncio.Semaphore(AT_ONCE)  # of logs

    # life

    async def run(self) -> None:
        """Keep the machine as its generation says until `close`."""
        async with self._background, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._loop.run())
            self._current.resume()
            if self.journal.is_of_another_boot:
                self.journal.note(Kind.MACHINE_BOOTED, "machine", "the machine has booted", by=ENGINE)
            from_image = f" from the dom0 image {short_id(self._own.image)}" if self._own.image else ""
            self.journal.note(Kind.AGENT_STARTED, "dom0", f"the agent {__version__} runs{from_image}")
            self._tell_ambassadors()
            self._background.start(image_names.put_right(self._engine, self._current.generation, self._own.image))
            if self._proposer.owes_our_own:
                self._own_project.proposal = self._background.start(self._propose_own())
            self._lives.set()
            await self._closed.wait()
            self._loop.close()
            self._background.cancel()
        self.journal.note(Kind.AGENT_ENDED, "dom0", "the agent has ended")
        self.journal.close()

    def close(self) -> None:
        self._closed.set()
        self.changed.tell()

    # our own project

    async def _propose_own(self) -> None:
        """Until it succeeds: a network at boot or an image that is missing may come later."""
        pause = FIRST_PAUSE
        if self._own.awaits_up:
            # until the `dom0 up` that started us has asked for its change, or was refused, or was killed before that
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UP_WITHIN):
                    await self.changed.until(lambda: self._turn is not None)
            if (turn := self._turn) is not None:
                await self.changed.until(lambda: turn.is_over or not self._proposer.owes_our_own)
        while self._proposer.owes_our_own:
            cause = "first start" if self._current.generation is None else "image changed"
            self._own_project.attempt = self._background.start(self._try_own(cause))
            (error,) = await asyncio.gather(self._own_project.attempt, return_exceptions=True)
            if isinstance(error, asyncio.CancelledError):  # for a `dom0 up`
                await self.changed.until(lambda: self._turn is None or self._turn.is_over)
            elif isinstance(error, Dom0Error):
                problem = problems.of_proposal(error, self._clock.now())
                if self._own_project.problem is None or self._own_project.problem.title != problem.title:
                    log.error("%s", error.message)
                    self.journal.note(Kind.REFUSED, "dom0", "the project of the dom0 image was refused", error.message)
                    self._own_project.problem = problem
                    self.changed.tell()
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN if isinstance(error, Unwritable) else LONGEST_PAUSE)

    async def _try_own(self, cause: str) -> Dom0Error | None:
        """What it was refused with."""
        try:
            await self._propose(Proposal(cause=cause))
        except Dom0Error as error:
            return error
        return None

    async def _propose(self, proposal: Proposal) -> None:
        await self._proposer.propose(proposal)
        self._own_project.problem = None

    # what commands ask for

    async def up(self, request: UpRequest) -> AsyncGenerator[Progress]:
        """Try everything again that was stopped, given up or refused; a new generation if the project now says more.

        What another one pulls is ended, and kept: it has changed nothing yet.
        """
        turn = self._turn
        # Who asks again may not have read it.
        asked = msgspec.structs.replace(request, project=NOT_READ, logins=NO_LOGINS, layer=b"", pulls=(), networks=())
        if turn is not None and not turn.is_over and turn.change is not None and turn.asked == asked:
            yield Progress(text="the same change is under way already: following it")
            async for line in self._attend(turn, turn.change):
                yield line
            return
        if turn is not None and not turn.is_over and turn.change is not None and self._board.pulls:
            turn.is_replaced = True
            turn.change.cancel()
            await asyncio.wait([turn.change])
            turn.is_over = True
        async with self._exclusive() as turn:
            turn.asked = asked
            self._handover.problem = None
            async for line in self._follow(turn, self._bring_up(request, turn)):
                yield line

    async def rollback(self, number: int | None) -> AsyncGenerator[Progress]:
        """Go to generation `number`, or to the last good one before the current one. Raises UsageError, EngineError."""
        async with self._exclusive() as turn:
            target = await find_target(self._engine, self._current.generations, self._current.generation, number)
            if self._own_project.proposal is not None:
                self._own_project.proposal.cancel()  # a person knows better
            async for line in self._follow(turn, self._bring_back(target, turn)):
                yield line

    async def plan_rollback(self, number: int) -> list[Change]:
        """What `rollback` to that generation would do to what there is. Changes nothing.

        Raises UsageError, EngineError, and Busy while it is not known what there is.
        """
        target = await find_target(self._engine, self._current.generations, self._current.generation, number)
        actual = self._seen_actual()
        current = self._current.generation
        desired = carry_over(target.desired, current.desired if current else None)
        memory = msgspec.structs.replace(cleared(self._loop.memory), pending=not target.is_good, last_good={})
        changes = preview(desired, actual, memory, self._clock.now())
        if self._own.is_guest or target.dom0_image in ("", self._own.image):
            return changes
        return [*changes, Change(action="replace", kind="container", name=ROOT, reason="its image changes")]

    async def storage(self) -> StorageStatus:
        """Raises Busy while it is not known what there is."""
        actual = self._seen_actual()
        return await asyncio.to_thread(storage, self.desired, actual, state=self._state, places=self._sources.places)

    async def scopes(self) -> list[ScopeStatus]:
        """Raises Busy while it is not known what there is; OSError."""
        return await asyncio.to_thread(self._sources.scopes, self._seen_actual())

    def _seen_actual(self) -> Actual:
        actual = self._loop.actual
        if self._current.generation is None or actual is None:
            raise Busy("dom0: has not seen yet what there is", hint="ask again in a moment: dom0 status")
        return actual

    async def usage(self) -> UsageStatus:
        running = [one.container_id for one in self.status().services if one.started and not one.finished]
        used = await usages(self._engine, running)
        return UsageStatus(
            now=self._clock.now(), machine=await asyncio.to_thread(look, self._sources.places), containers=used
        )

    def differences(self, number: int, before: int | None) -> list[Difference]:
        """What generation `number` asks for and generation `before` does not; None: the one made before it. Raises
        UsageError, Damaged.
        """
        generations = self._current.generations
        target = generations.read(number)
        if before is None and number > 1 and number - 1 not in generations.numbers():
            hint = "dom0 history lists those that are"
            raise UsageError(f"generation {number}: the one before it is not kept any more", hint=hint)
        before = number - 1 if before is None else before
        return compare(generations.read(before).desired if before else None, target.desired)

    def follow_logs(self, request: LogsRequest) -> AsyncGenerator[list[LogLine]]:
        """Raises UsageError for what is no container of a service, and where a search is to be followed."""
        if request.follow and request.searches:
            raise UsageError(
                "logs: what is searched for is not followed", hint="leave follow out, or find, since and until"
            )
        named = (one for one in self.status().services if one.container and one.container == request.container)
        if (service := next(named, None)) is None:
            raise UsageError(f"{request.container}: no service here has this container", hint="dom0 status shows them")
        return read_logs(self._engine, service, request, self._searches)

    async def act(self, verb: Verb, service: str) -> list[Acted]:
        """To all containers of a service, as a person by docker: what was stopped stays so. When it has been done.

        Raises UsageError, and the first EngineError when all that was begun has ended.
        """
        containers = {
            one.container_id: one.container
            for one in self.status().services
            if one.service == service and one.container_id and one.phase is not Phase.DATA
        }
        if not containers:
            raise UsageError(f"{service}: no service here has containers of this name", hint="dom0 status shows them")

        async def do(container_id: str) -> None:
            if verb is Verb.START:
                if (await self._engine.container(container_id)).state is State.PAUSED:
                    await self._engine.unpause_container(container_id)
                else:
                    await self._engine.start_container(container_id)
                return
            async with self._leaving(container_id, comes_back=verb is Verb.RESTART):
                left = await run_own_pre_stop(self._engine, container_id)
                if verb is Verb.STOP:
                    await self._engine.stop_container(container_id, timeout=left)
                else:
                    await self._engine.restart_container(container_id, timeout=left)

        for error in await asyncio.gather(*map(do, containers), return_exceptions=True):
            if error is not None:
                raise error
        return [Acted(service=service, container=name) for name in sorted(containers.values())]

    def try_next(self, trial: Trial) -> None:
        """Raises Unwritable."""
        self._current.state_files.announce(trial, self._clock.now())

    async def confirm(self, number: int | None = None) -> Status:
        """Raises UsageError when nothing is on trial, Busy where another generation than `number` is current."""
        await self._lives.wait()
        self._check_current(number)
        self._current.confirm()
        self.changed.tell()
        return self.status()

    async def abort(self, number: int | None = None) -> Status:
        """End the change that is under way, whatever it waits for, and go back; with `number`, that generation alone.

        Raises UsageError where there is nothing to end, or nothing to go back to; Busy where another generation than
        `number` is current, or a change is prepared that would end in its place; Unwritable.
        """
        await self._lives.wait()
        self._check_current(number)
        change = self._turn.change if self._turn is not None else None
        prepared: asyncio.Task[Any] | None = None  # nothing is begun: it reads the project, or pulls images
        if change is not None and not change.done() and self._proposer.is_at_work:
            prepared = change
        elif self._board.pulls:
            prepared = self._own_project.proposal  # ended until the next start, or `dom0 up`
        if prepared is None:
            self._current.abort()
        elif number is None:
            prepared.cancel()
        else:
            raise Busy(
                f"generation {number}: another change is being prepared, and only that would be ended",
                hint="wait for it: dom0 status --watch; or end it: dom0 abort",
            )
        self.changed.tell()
        return self.status()

    def _check_current(self, number: int | None) -> None:
        """Raises Busy where a number is given, and it is not that of the current generation."""
        current = self._current.generation.number if self._current.generation else 0
        if number not in (None, current):
            raise Busy(
                f"generation {number}: it is not the current one, generation {current} is", hint="look: dom0 status"
            )

    def end_handover(self, problem: Problem | None) -> None:
        """No hand-over is under way any more; `problem`: why it was undone."""
        if problem is not None and problem != self._handover.problem:
            self.journal.note(Kind.HANDOVER_FAILED, "dom0", "the dom0 image stays as it was", problem.title)
        self._handover.at_work = self._handover.may_come = False
        self._handover.problem = problem
        self.changed.tell()
        self._loop.wake()

    def begin_handover(self) -> None:
        """A hand-over is under way."""
        self._handover.at_work = self._handover.may_come = True

    async def _follow(self, turn: CommandTurn, change: Coroutine[Any, Any, Progress]) -> AsyncGenerator[Progress]:
        """Begin `change`, which goes on when the caller stops listening."""
        turn.change = self._background.start(change)
        turn.change.add_done_callback(lambda _task: self.changed.tell())
        async for line in self._attend(turn, turn.change):
            yield line

    async def _attend(self, turn: CommandTurn, task: asyncio.Task[Progress]) -> AsyncGenerator[Progress]:
        """Lines of progress until the change has its outcome, which is the last one."""
        with self._board.follow() as follower:
            turn.followers.append(follower)
            task.add_done_callback(lambda _task: follower.end())
            async for line in follower.lines():
                yield line
        if not task.cancelled():
            yield task.result()
        elif not self._closed.is_set():  # it had not begun
            number = self._current.generation.number if self._current.generation else 0
            by, outcome = ("another dom0 up", Outcome.REPLACED) if turn.is_replaced else ("dom0 abort", Outcome.ABORTED)
            title = f"{by}: nothing was changed; what was pulled so far is kept"
            problem = Problem(code="generation-failed", subject="dom0", title=title)
            yield Progress(outcome=outcome, generation=number, problems=(problem,))

    async def _bring_up(self, request: UpRequest, turn: CommandTurn) -> Progress:
        for one in request.pulls:
            kind = Kind.PULL_FAILED if one.reason else Kind.PULL_DONE
            self.journal.note(kind, one.image, one.text, one.reason)
        for name in request.networks:
            self.journal.note(kind_of(CreateNetwork), name, f"create network {name}", MISSING)
        before = self._current.generation
        if self._own_project.attempt is not None:
            self._own_project.attempt.cancel()  # what it pulls may take a day, and what has come is kept
        try:
            proposal = Proposal(
                cause="dom0 up" if before else "first start",
                image=request.dom0_image,
                handed=_handed_with(request),
                force=request.force,
                adopt=request.adopt,
                of_a_person=True,
            )
            await self._propose(proposal)
        except Dom0Error as error:
            await names.unmark(self._engine, request.dom0_image)  # a new root container's own is tried again
            return self._refused(before.number if before else 0, error)
        return await self._outcome(turn)

    async def _bring_back(self, target: Generation, turn: CommandTurn) -> Progress:
        left = self._current.generation
        assert left is not None
        try:
            async with names.left(self._engine, "" if left.is_good else left.dom0_image, names_of(target)):
                self._current.go_back(target, cause="dom0 rollback")
        except Dom0Error as error:
            return self._refused(target.number, error)
        return await self._outcome(turn)

    def _refused(self, generation: int, error: Dom0Error) -> Progress:
        problem = problems.of_proposal(error, self._clock.now())
        self.journal.note(Kind.REFUSED, "dom0", "nothing was changed", error.message)
        return Progress(outcome=Outcome.FAILED, generation=generation, problems=(problem,))

    async def _outcome(self, turn: CommandTurn) -> Progress:
        """Of the generation that is current now: its judgement, or that it is at rest if it was judged before.

        When all of it is ready, that is told, and others may change the machine.
        """
        generation = self._current.generation
        assert generation is not None
        if not generation.is_pending:
            done_before = self._steps_done
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(generation.desired.rollout.timeout):
                    await self.changed.until(lambda: self._current.converged)
            plan = self._loop.plan
            if not self._current.converged or plan is None or not plan.well:
                return Progress(outcome=Outcome.FAILED, generation=generation.number, problems=self.status().problems)
            text = f"generation {generation.number}: {'ready' if self._steps_done > done_before else 'nothing to do'}"
            problems = plan.problems
            return Progress(text=text, outcome=generation.outcome, generation=generation.number, problems=problems)
        await self.changed.until(lambda: self._is_decided(generation.number) or self._current.watched_until > 0)
        if not self._is_decided(generation.number):
            turn.is_over = True
            ready = Progress(
                text=f"generation {generation.number}: ready",
                generation=generation.number,
                watched_until=self._current.watched_until,
                goes_back_to=self._current.goes_back_to,
            )
            for follower in turn.followers:
                follower.post(ready)
        await self.changed.until(lambda: self._is_decided(generation.number))
        verdict = self._current.verdict
        if verdict is not None and verdict.generation == generation.number:
            return verdict
        return Progress(outcome=Outcome.REPLACED, generation=generation.number)

    def _is_decided(self, number: int) -> bool:
        generation, verdict = self._current.generation, self._current.verdict
        judged = verdict is not None and verdict.generation == number
        return judged or generation is None or generation.number != number

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[CommandTurn]:
        """Raises Busy while another one changes the machine, and when we end, as we do to give way to another image."""
        if self._turn is not None and not self._turn.is_over:
            raise Busy(
                "dom0: another dom0 command is changing this machine",
                hint="wait for it: dom0 status --watch; or end it: dom0 abort",
            )
        turn = self._turn = CommandTurn()
        self.changed.tell()
        try:
            await self._lives.wait()
            await self.changed.until(lambda: not self._handover.may_come or self._closed.is_set())
            if self._closed.is_set():
                raise Busy("dom0: is shutting down", hint="try again when it has started: dom0 status")
            yield turn
        finally:
            turn.is_over = True
            self.changed.tell()
            self._loop.wake()

    # what it reports

    @property
    def is_changing(self) -> bool:
        """Whether something is under way, or comes by itself, which a generation may come of, or its outcome."""
        generation, turn, own = self._current.generation, self._turn, self._own_project.proposal
        proposes_own = own is not None and not own.done() and self._own_project.problem is None
        goes_on = turn is not None and turn.change is not None and not turn.change.done()  # when nobody listens, too
        has_turn = goes_on or (turn is not None and not turn.is_over)
        is_pending = generation is not None and generation.is_pending
        return not self._lives.is_set() or has_turn or proposes_own or is_pending

    @property
    def seen(self) -> tuple[Plan | None, Actual | None]:
        """The last plan and what it was made of, where there is one."""
        return self._loop.plan, self._loop.actual

    @property
    def desired(self) -> Desired:
        """Of the current generation; empty before the first one."""
        generation = self._current.generation
        return generation.desired if generation else Desired(project="")

    def ssh_keys(self) -> list[str]:
        """Lines of authorized_keys: the project's, and those that were let in by `dom0 ssh add`."""
        texts = [file.content for slot in self.desired.slots if slot.role is Role.SSHD for file in slot.files]
        with contextlib.suppress(OSError):
            texts.append(Path(SSH_STATE, "authorized_keys").read_bytes())
        return [line for text in texts for line in text.decode(errors="replace").splitlines()]

    @property
    def container_ids(self) -> Mapping[str, str]:
        """Of everybody's containers, by their names, as far as is known."""
        return self._loop.actual.names if self._loop.actual else {}

    @property
    def is_blind(self) -> bool:
        """Whether the Engine does not answer."""
        told_by_loop = isinstance(self._loop.trouble, EngineUnreachable)
        return told_by_loop or (
            self._own_project.problem is not None and self._own_project.problem.code == "engine-unreachable"
        )

    def history(self) -> list[GenerationInfo]:
        current = self._current.generation.number if self._current.generation else 0
        return [
            self._describe(g) if g.number == current else describe(g, current=False)
            for g in self._current.generations.all()
        ]

    def _describe(self, current: Generation) -> GenerationInfo:
        watched_until, goes_back_to = self._current.watched_until, self._current.goes_back_to
        return describe(current, current=True, watched_until=watched_until, goes_back_to=goes_back_to)

    def status(self) -> Status:
        generation, loop = self._current.generation, self._loop
        steps = [say_step(step) for step in loop.steps_under_way]
        if self._handover.at_work and generation is not None:
            steps.append(f"hand over to the dom0 image {short_id(generation.dom0_image)}")
        good = next(self._current.generations.good_of(generation.desired.project), None) if generation else None
        return Status(
            project=self._current.project,
            version=__version__,
            dom0_image=self._own.image,
            generation=self._describe(generation) if generation else None,
            last_good=good.number if good else None,
            converged=self._current.converged,
            services=tuple(map(service_status, loop.plan.slots if loop.plan else ())),
            steps=tuple(steps),
            pulls=self._board.pulls,
            sharing=self._sources.sharing(),
            farm=self._sources.farm(),
            serves=tuple(one.farm for one in self.served_farms.list()),
            backups=backups(generation.desired) if generation else (),
            problems=(
                *([problems.of_engine(loop.trouble, loop.trouble_since)] if loop.trouble is not None else []),
                *(problem for problem in (self._own_project.problem, self._handover.problem) if problem is not None),
                *([problems.unwritable(self.journal.unwritten)] if self.journal.unwritten is not None else []),
                *self._current.problems,
                *(loop.plan.problems if loop.plan else ()),
                *(problem for ask in self._sources.problems for problem in ask()),
            ),
            inputs=generation.inputs if generation else "",
            now=self._clock.now(),
            is_guest=self._own.is_guest,
        )

    # LoopListener

    def planned(self, plan: Plan) -> float:
        self._notes.note_trouble(None)
        self.journal.tick()
        again_in = self._current.judge(plan)
        if plan.well and self._belongs_to_another_image():
            self.begin_handover()
            self._background.start(self._give_way())
        self._boot_notes.note(plan)
        self._tell_ambassadors()
        self.changed.tell()
        return again_in

    def _tell_ambassadors(self) -> None:
        slots, memory = self._loop.plan.slots if self._loop.plan else (), self._loop.memory
        hooked = [p.container.id for p in slots if p.container and has_post_start(p.container, p.slot)]
        post_started = {id_: memory.post_started.get(id_, 0.0) for id_ in hooked}
        ending = memory.stopped  # by an agent before us, until there is a plan
        if self._loop.plan is not None:
            steps = (*self._loop.plan.steps, *self._loop.steps_under_way)
            ending = {step.container_id: math.inf for step in steps if isinstance(step, STOPPING)}
        self._readiness.now = ReadyStarts(self._current.project, memory.health_passed, post_started, ending)

    def step_ended(self, step: AnyStep, error: EngineError | None, seconds: float) -> None:
        text = f"{say_step(step)}: {error.message}" if error else f"{say_step(step)} ({seconds:.1f} s)"
        slot = getattr(step, "slot", None)
        self._steps_done += 1
        self._notes.note_step(step, error)
        self._board.say(text, service=slot.service if slot else "")

    def trouble_changed(self) -> None:
        self._notes.note_trouble(self._loop.trouble)
        self.changed.tell()

    def container_told(self, event: Event, memory: Memory) -> None:
        self._notes.note_event(event, memory)

    def _belongs_to_another_image(self) -> bool:
        """Once it is good, a generation is kept by the dom0 image it came from."""
        generation = self._current.generation
        if generation is None or not generation.is_good or self._handover.may_come:
            return False
        if self._own.is_guest or self._handover.problem is not None:
            return False  # another's to decide; or it has been tried, and undone
        if self._proposer.is_at_work or self._own_project.problem is not None:
            return False  # our own image is about to bring the next one, or was refused and says why
        if self._turn is not None and not self._turn.is_over:
            return False  # a command changes it, or waits for this generation
        return generation.dom0_image not in ("", self._own.image)

    async def _give_way(self) -> None:
        generation = self._current.generation
        assert generation is not None
        image = short_id(generation.dom0_image)
        why = f"generation {generation.number} is good, and of that image"
        self.journal.note(Kind.HANDOVER_BEGUN, "dom0", f"hand over to the dom0 image {image}", why)
        try:
            await self._hand_over(generation.dom0_image)
        except Dom0Error as error:
            title = f"the dom0 image of generation {generation.number} cannot take over: {error.message}"
            self.end_handover(Problem(code="handover-failed", subject="dom0", title=title, hint=error.hint))


def _handed_with(request: UpRequest) -> Handed:
    """Raises UsageError."""
    try:
        project = msgspec.json.decode(request.project, type=Project | None)
    except msgspec.DecodeError as error:
        raise UsageError(f"project: {error}", hint="leave it out, and it is read anew") from error
    if request.logins == NO_LOGINS:
        return Handed(project, request.layer, images=request.images)
    from dom0.registry.credentials import Login  # few machines need one

    try:
        logins = msgspec.json.decode(request.logins, type=dict[str, Login])
    except msgspec.DecodeError as error:
        raise UsageError(f"logins: {error}", hint="leave them out, and root's on this machine are used") from error
    return Handed(project, request.layer, logins, request.images)
