"""The machine: which generation it is at, how it gets to another one, and how it comes back when that is no good.

    propose ─▶ pending ──(all well, and stays so)──▶ good   (or trial ──confirm──▶ good)
                  └──(a service failed, or too late)──▶ failed ─▶ the last good one again, and its dom0 image

What decides is pure (plan/, rollout); this module keeps the order in which things are written down: a generation is
whole on disk before its files are placed, and its files are placed before it becomes current.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0 import __version__
from dom0.agent import rollout
from dom0.agent.generations import Generation, Generations, describe
from dom0.agent.kept import keep_images
from dom0.agent.placement import place
from dom0.agent.progress import Board
from dom0.agent.reconcile import Clock, Reconciler, SystemClock
from dom0.agent.report import service_statuses
from dom0.agent.source import Candidate, Own
from dom0.agent.status import GenerationInfo, Outcome, Progress, Status, UpRequest
from dom0.agent.store import read_json, write_json
from dom0.engine.protocol import Engine
from dom0.errors import Busy, Dom0Error, EngineError, EngineUnreachable, ProjectError, UsageError
from dom0.health import Problem
from dom0.plan import labels
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory, Version
from dom0.plan.planner import Plan
from dom0.plan.scene import version
from dom0.plan.steps import AnyStep
from dom0.plan.text import say_step

log = logging.getLogger(__name__)

Resolve = Callable[[str, Callable[[str], None]], Awaitable[Candidate]]
"""Reads the project of the image with that ID ("": of our own); it says what it pulls."""
HandOver = Callable[[str], Awaitable[None]]
"""Lets another dom0 image take our place."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The next generation from `dom0_image` goes back after `seconds` unless it is confirmed."""

    dom0_image: str
    seconds: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` under way at once; `all_endpoints`: the Engine takes several networks at create (API 1.44)."""

    steps: int
    all_endpoints: bool


class Machine:
    def __init__(
        self,
        engine: Engine,
        *,
        state: Path,
        own: Own,
        resolve: Resolve,
        hand_over: HandOver,
        limits: Limits,
        handing_over: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._state = state
        self._own = own
        self._resolve = resolve
        self._hand_over = hand_over
        self._limits = limits
        self._clock = clock or SystemClock()
        self._generations = Generations(state)
        self._generation = self._generations.current()
        self._reconciler: Reconciler | None = None
        self._board = Board()
        self._changing = asyncio.Lock()  # by a person: a second one is told to wait
        self._proposing = asyncio.Lock()
        self._lives = asyncio.Event()
        self._closed = asyncio.Event()
        self._tasks: asyncio.TaskGroup
        self._began = self._clock.monotonic()
        self._well_since = 0.0
        self._handing_over = handing_over
        self._own_problem: Problem | None = None
        self._handover_problem: Problem | None = None
        self.changed = asyncio.Condition()

    # life

    async def run(self) -> None:
        """Keep the machine as its generation says until `close`."""
        async with asyncio.TaskGroup() as self._tasks:
            if self._generation is not None:
                self._aim_at(self._generation, self._load_memory())
            if self._must_propose():
                self._tasks.create_task(self._propose_own())
            self._lives.set()
            await self._closed.wait()
            if self._reconciler is not None:
                self._reconciler.close()

    def close(self) -> None:
        self._closed.set()

    def _must_propose(self) -> bool:
        """A restart goes on with what is; another image is a new proposal, unless it has failed before."""
        if self._generation is None:
            return True
        if self._own.image in ("", self._generation.dom0_image, self._generation.agent_image):
            return False
        earlier = next((g for g in self._generations.all() if g.dom0_image == self._own.image), None)
        return earlier is None or earlier.outcome is not Outcome.FAILED

    async def _propose_own(self) -> None:
        cause = "first start" if self._generation is None else "image changed"
        try:
            await self._propose(cause)
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- a refusal, no bug: the trace says nothing
            self._own_problem = self._problem_of(error)

    def _problem_of(self, error: Dom0Error) -> Problem:
        code = "project-invalid" if isinstance(error, ProjectError) else "engine-refused"
        return Problem(code=code, subject="dom0", title=error.message, hint=error.hint, since=self._clock.now())

    # what persons ask for

    async def up(self, request: UpRequest) -> AsyncGenerator[Progress]:
        """Try everything again that was stopped, parked or refused; a new generation if the project now says more."""
        async with self._exclusive():
            self._handover_problem, self._handing_over = None, False
            with self._board.follow() as lines:
                self._tasks.create_task(self._propose_and_tell(request))
                async for line in lines:
                    yield line
                    if line.outcome is not None:
                        return

    async def _propose_and_tell(self, request: UpRequest) -> None:
        """Post an outcome where no judgement will: for a refusal, and for a generation that was judged before."""
        before = self._generation
        try:
            await self._propose("dom0 up", image=request.dom0_image, force=request.force)
        except Dom0Error as error:
            number = before.number if before else 0
            self._board.post(Progress(outcome=Outcome.FAILED, generation=number, problems=(self._problem_of(error),)))
            return
        after = self._generation
        if before is not None and after is not None and after.number == before.number:
            await self._tell_when_settled(after)

    async def _tell_when_settled(self, generation: Generation) -> None:
        """Post the outcome of a generation that was judged before; others are still to be judged."""
        if not generation.is_pending:
            self._board.post(await self._settled(generation))

    async def rollback(self, number: int | None) -> AsyncGenerator[Progress]:
        """Go to generation `number`, or to the last good one before the current one. Raises UsageError."""
        async with self._exclusive():
            target = self._rollback_target(number)
            self._handover_problem, self._handing_over = None, False
            with self._board.follow() as lines:
                self._go_back(target, cause=f"rollback to {target.number}")
                self._tasks.create_task(self._tell_when_settled(self._generations.read(target.number)))
                async for line in lines:
                    yield line
                    if line.outcome is not None:
                        return

    def try_next(self, trial: Trial) -> None:
        write_json(self._state / "trial.json", trial)

    async def confirm(self) -> Status:
        """Raises UsageError when nothing is on trial."""
        if self._generation is None or not self._generation.trial_until:
            raise UsageError("confirm: no generation is on trial", hint="dom0 try starts one")
        self._generation = self._generations.update(
            replace(self._generation, trial_until=0.0, outcome=Outcome.GOOD)
            if self._generation.outcome is Outcome.TRIAL
            else replace(self._generation, trial_until=0.0)
        )
        if self._generation.outcome is Outcome.GOOD:
            self._settle_as_good(self._generation)
        return self.status()

    def end_handover(self, problem: Problem | None) -> None:
        """Whoever was at work on it has ended, with `problem` if it was undone."""
        self._handing_over, self._handover_problem = False, problem
        if self._reconciler is not None:
            self._reconciler.wake()

    def history(self) -> list[GenerationInfo]:
        current = self._generation.number if self._generation else 0
        return [describe(generation, current=generation.number == current) for generation in self._generations.all()]

    def status(self) -> Status:
        plan = self._reconciler.plan if self._reconciler else None
        good = self._generations.last_good()
        under_way = self._reconciler.steps_under_way if self._reconciler else ()
        return Status(
            project=self._generation.desired.project if self._generation else "",
            version=__version__,
            dom0_image=self._own.image,
            generation=describe(self._generation, current=True) if self._generation else None,
            last_good=good.number if good else None,
            converged=plan is not None and plan.settled and not under_way,
            services=service_statuses(plan),
            steps=tuple(say_step(step) for step in under_way),
            problems=self._problems(plan),
            inputs=self._generation.inputs if self._generation else "",
            now=self._clock.now(),
        )

    def _problems(self, plan: Plan | None) -> tuple[Problem, ...]:
        problems = list(plan.problems) if plan else []
        problems[:0] = [problem for problem in (self._own_problem, self._handover_problem) if problem is not None]
        if self._reconciler is not None and self._reconciler.trouble is not None:
            problems.insert(0, _trouble_problem(self._reconciler.trouble, self._reconciler.trouble_since))
        return tuple(problems)

    # from one generation to the next

    async def _propose(self, cause: str, *, image: str = "", force: bool = False) -> None:
        """Make what `image` asks for ("": our own) the current generation, if it is not that already."""
        async with self._proposing:
            present = await self._engine.containers(labels=[labels.PROJECT]) if force else ()
            await self._propose_alone(cause, image=image, recreate=tuple(container.id for container in present))

    async def _propose_alone(self, cause: str, *, image: str, recreate: tuple[str, ...]) -> None:
        candidate = await self._resolve(image, self._say)
        self._own_problem = None
        current = self._generation
        if current is not None and current.desired.project not in ("", candidate.desired.project):
            raise ProjectError(
                f"name: the running project is {current.desired.project}, this one is {candidate.desired.project}",
                hint="take the running one down first: dom0 down",
            )
        memory = replace(self._cleared_memory(), recreate=recreate)
        if current is not None and _says_the_same(candidate, current):
            self._aim_at(current, replace(memory, pending=current.is_pending))
            return
        generation = self._generations.add(
            Generation(
                number=0,
                created=self._clock.now(),
                cause=cause,
                dom0_image=candidate.dom0_image,
                desired=candidate.desired,
                trial_until=self._take_trial(candidate.dom0_image),
                inputs=candidate.inputs,
            ),
            candidate.files,
        )
        if current is not None and current.is_pending:
            self._generations.update(replace(current, outcome=Outcome.REPLACED))
        self._say(f"generation {generation.number}: {cause}")
        self._switch_to(generation, replace(memory, pending=True, kept=self._versions_to_keep()))

    def _versions_to_keep(self) -> dict[str, Version]:
        good = self._generations.last_good()
        return {slot.key: version(slot) for slot in good.desired.slots} if good else {}

    def _take_trial(self, image: str) -> float:
        trial = read_json(self._state / "trial.json", Trial)
        if trial is None or trial.dom0_image != image:
            return 0.0
        (self._state / "trial.json").unlink(missing_ok=True)
        return self._clock.now() + trial.seconds

    def _switch_to(self, generation: Generation, memory: Memory) -> None:
        place(self._generations.files(generation.number), self._state / "project")
        generation = self._generations.update(replace(generation, agent_image=self._own.image))
        self._generations.make_current(generation.number)
        self._aim_at(generation, memory)

    def _aim_at(self, generation: Generation, memory: Memory) -> None:
        self._generation = generation
        self._began, self._well_since = self._clock.monotonic(), 0.0
        if self._reconciler is None:
            place(self._generations.files(generation.number), self._state / "project")
            self._reconciler = self._make_reconciler(generation.desired, memory)
            self._tasks.create_task(self._reconciler.run())
        self._reconciler.adopt(generation.desired, generation.number, memory)

    def _make_reconciler(self, desired: Desired, memory: Memory) -> Reconciler:
        reconciler = Reconciler(
            self._engine,
            desired,
            memory=memory,
            save=self._save_memory,
            limit=self._limits.steps,
            all_endpoints=self._limits.all_endpoints,
            clock=self._clock,
        )
        reconciler.on_plan = self._on_plan
        reconciler.on_step = self._on_step
        return reconciler

    def _rollback_target(self, number: int | None) -> Generation:
        current = self._generation.number if self._generation else 0
        if number is None:
            target = self._generations.last_good(before=current)
            if target is None:
                raise UsageError("rollback: there is no good generation before this one", hint="dom0 history")
            return target
        target = self._generations.read(number)
        if target.number == current:
            raise UsageError(f"rollback: generation {number} is the current one", hint="dom0 history")
        return target

    def _go_back(self, target: Generation, *, cause: str) -> None:
        """The target's image IDs are pinned, so it is what it was, whatever the tags say now."""
        log.warning("generation %d: %s", target.number, cause)
        self._say(f"back to generation {target.number}")
        if target.outcome not in (Outcome.GOOD, Outcome.TRIAL):
            target = self._generations.update(replace(target, outcome=Outcome.PENDING, reason=""))
        kept = self._versions_to_keep() if target.is_pending else {}
        self._switch_to(target, replace(self._cleared_memory(), pending=target.is_pending, kept=kept))

    # what the reconciler tells

    def _on_plan(self, plan: Plan) -> float:
        now = self._clock.monotonic()
        self._well_since = (self._well_since or now) if plan.well and plan.settled else 0.0
        again_in = self._judge(plan, now)
        if plan.well and self._belongs_to_another_image():
            self._handing_over = True
            self._tasks.create_task(self._give_way())
        self._tasks.create_task(self._tell_change())
        return again_in

    def _belongs_to_another_image(self) -> bool:
        """Once it is good, a generation is kept by the dom0 image it came from."""
        generation = self._generation
        if generation is None or generation.outcome is not Outcome.GOOD or self._handing_over:
            return False
        if self._handover_problem is not None:
            return False  # it has been tried, and undone
        if self._proposing.locked() or self._own_problem is not None:
            return False  # our own image is about to bring the next one, or was refused and says why
        return generation.dom0_image not in ("", self._own.image)

    def _judge(self, plan: Plan, now: float) -> float:
        """Returns after how many seconds time alone may change the judgement (0: it may not)."""
        generation = self._generation
        assert generation is not None
        if generation.outcome is Outcome.TRIAL:
            left = generation.trial_until - self._clock.now()
            if left <= 0:
                self._fail(generation, "it was not confirmed in time", plan)
            return max(left, 0.0)
        if not generation.is_pending:
            return 0.0
        verdict = rollout.judge(
            plan, generation.desired.rollout, began=self._began, well_since=self._well_since, now=now
        )
        if verdict.outcome is Outcome.GOOD:
            self._accept(generation)
        elif verdict.outcome is Outcome.FAILED:
            self._fail(generation, verdict.reason, plan)
        return verdict.check_in

    def _accept(self, generation: Generation) -> None:
        on_trial = generation.trial_until > 0.0  # also if its time has passed meanwhile: nobody has confirmed it
        outcome = Outcome.TRIAL if on_trial else Outcome.GOOD
        self._generation = self._generations.update(replace(generation, outcome=outcome))
        log.info("generation %d: %s", generation.number, outcome)
        if on_trial:
            self._remember(replace(self._memory(), pending=False))
        else:
            self._settle_as_good(self._generation)
        self._board.post(Progress(text=f"generation {generation.number}: {outcome}", generation=generation.number))
        self._finish(generation.number, outcome)

    def _settle_as_good(self, generation: Generation) -> None:
        """Now what the last good one left behind may go."""
        self._generation = generation
        self._generations.prune()
        self._remember(replace(self._memory(), pending=False, kept={}))
        self._tasks.create_task(self._keep_images())

    def _fail(self, generation: Generation, reason: str, plan: Plan) -> None:
        log.error("generation %d: failed: %s", generation.number, reason)
        problem = Problem(code="generation-failed", subject=f"generation {generation.number}", title=reason)
        self._generations.update(replace(generation, outcome=Outcome.FAILED, reason=reason, trial_until=0.0))
        target = self._generations.last_good(before=generation.number)
        if target is None:
            self._generation = self._generations.read(generation.number)
            self._remember(replace(self._memory(), pending=False, parked={}))
        else:
            self._go_back(target, cause=f"generation {generation.number} failed: {reason}")
        self._finish(generation.number, Outcome.FAILED, problems=(problem, *plan.problems))

    def _finish(self, number: int, outcome: Outcome, problems: tuple[Problem, ...] = ()) -> None:
        self._board.post(Progress(outcome=outcome, generation=number, problems=problems))

    async def _settled(self, generation: Generation) -> Progress:
        """Wait until a generation that was judged before is at rest again."""
        deadline = self._clock.now() + generation.desired.rollout.timeout
        while self._clock.now() < deadline:
            plan = self._reconciler.plan if self._reconciler else None
            if plan is not None and plan.settled and self.status().converged:
                return self._rested(generation, plan)
            with contextlib.suppress(TimeoutError):
                async with self.changed, asyncio.timeout(deadline - self._clock.now()):
                    await self.changed.wait()
        return Progress(outcome=Outcome.FAILED, generation=generation.number, problems=self.status().problems)

    def _rested(self, generation: Generation, plan: Plan) -> Progress:
        outcome = generation.outcome if plan.well else Outcome.FAILED
        text = f"generation {generation.number}: nothing to do" if plan.well else ""
        return Progress(text=text, outcome=outcome, generation=generation.number, problems=plan.problems)

    async def _give_way(self) -> None:
        assert self._generation is not None
        image = self._generation.dom0_image
        try:
            await self._hand_over(image)
        except Dom0Error as error:
            title = f"the dom0 image of generation {self._generation.number} cannot take over: {error.message}"
            self._handover_problem = Problem(code="handover-failed", subject="dom0", title=title, hint=error.hint)

    async def _keep_images(self) -> None:
        try:
            await keep_images(self._engine, self._generations.all())
        except EngineError as error:
            log.warning("images of good generations are not protected: %s", error.message)

    def _on_step(self, step: AnyStep, error: EngineError | None, seconds: float) -> None:
        text = f"{say_step(step)}: {error.message}" if error else f"{say_step(step)} ({seconds:.1f} s)"
        slot = getattr(step, "slot", None)
        self._board.post(Progress(text=text, service=slot.service if slot else ""))

    def _say(self, text: str) -> None:
        self._board.post(Progress(text=text))

    async def _tell_change(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # memory

    def _memory(self) -> Memory:
        return self._reconciler.memory if self._reconciler else self._load_memory()

    def _load_memory(self) -> Memory:
        return read_json(self._state / "memory.json", Memory) or Memory()

    def _save_memory(self, memory: Memory) -> None:
        write_json(self._state / "memory.json", memory, durable=False)

    def _remember(self, memory: Memory) -> None:
        if self._reconciler is not None:
            self._reconciler.memory = memory
            self._reconciler.wake()

    def _cleared_memory(self) -> Memory:
        """What was stopped, parked or refused gets another chance."""
        return replace(self._memory(), held={}, parked={}, crashes={}, refused={}, quiet={})

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        if self._changing.locked():
            raise Busy("dom0: another change is under way", hint="wait for it: dom0 status --watch")
        async with self._changing:
            await self._lives.wait()
            yield


def _trouble_problem(trouble: EngineError, since: float) -> Problem:
    if isinstance(trouble, EngineUnreachable):
        title = "the Docker Engine does not answer"
        return Problem(code="engine-unreachable", subject="engine", title=title, hint="dom0 doctor", since=since)
    title = f"the Docker Engine cannot say what is there: {trouble.message}"
    return Problem(code="engine-refused", subject="engine", title=title, hint="journalctl -u docker", since=since)


def _says_the_same(candidate: Candidate, current: Generation) -> bool:
    """Compared by their canonical JSON: one was read from a file, the other was just made."""
    if candidate.dom0_image != current.dom0_image or current.outcome is Outcome.FAILED:
        return False
    asked, found = (msgspec.json.encode(d, order="sorted") for d in (candidate.desired, current.desired))
    return asked == found
