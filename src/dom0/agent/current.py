"""The generation that the machine is at: how it gets there, is judged, and stays or goes back.

    begin ─▶ pending ──(all well, and stays so)──▶ good   (or trial ──confirm──▶ good)
                └──(a service failed, or too late)──▶ failed ─▶ the good one that ran before it

What decides is pure (plan/, rollout); here is the order in which things are written down: a generation is whole on disk
before its files are placed, its files are placed before it becomes current, and it is `failed` before the machine goes
back. Killed anywhere in between, the next agent goes on (`resume`); on a full disk, it is tried again until it works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent import rollout
from dom0.agent.clock import Clock
from dom0.agent.files import Files
from dom0.agent.generations import Generation, Generations
from dom0.agent.in_place import find_places
from dom0.agent.last_words import Words
from dom0.agent.progress import Board
from dom0.agent.reconcile import Reconciler
from dom0.agent.source import Candidate
from dom0.agent.state_files import StateFiles
from dom0.agent.status import Outcome, Progress
from dom0.errors import Dom0Error, EngineError, UsageError
from dom0.health import Problem
from dom0.plan.adoption import carry_over
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory, Version, cleared
from dom0.plan.planner import Plan
from dom0.plan.snapshot import version

log = logging.getLogger(__name__)

AGAIN = 10.0  # seconds until what could not be written is tried again


class Current:
    """`on_plan` is called after every plan and its judgement, `on_good` when a generation has become good."""

    def __init__(
        self,
        state: Path,
        *,
        own_image: str,
        clock: Clock,
        board: Board,
        make_reconciler: Callable[[Desired, Memory], Reconciler],
        last_words: Callable[[Plan], Awaitable[tuple[Words, ...]]],
        give_names_back: Callable[[Generation, Generation], Awaitable[None]],
    ) -> None:
        self.generations = Generations(state)
        self.state_files = StateFiles(state)
        self.files = Files(state / "project")
        self._state = state
        self.generation: Generation | None = None
        self.reconciler: Reconciler | None = None
        self.verdict: Progress | None = None  # the last judgement
        self._failure: Progress | None = None  # the next one
        self.on_plan: Callable[[Plan], None] = lambda _plan: None
        self.on_good: Callable[[], None] = lambda: None
        self._own_image = own_image
        self._clock = clock
        self._board = board
        self._make_reconciler = make_reconciler
        self._last_words = last_words
        self._give_names_back = give_names_back  # from the first one, which has failed, to the second
        self._listening: asyncio.Task[tuple[Words, ...]] | None = None  # to what failing services say
        self._giving_back: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup
        self._began = 0.0  # monotonic, as the next one
        self._well_since = 0.0
        self._good_at = 0.0  # if all stays well, seconds since the epoch; 0 while it is not
        self._must_go_back = False
        self._adopted_from = 0  # number of the generation that the next one takes over
        self._problems: dict[str, Problem] = {}

    # reading

    @property
    def plan(self) -> Plan | None:
        return self.reconciler.plan if self.reconciler else None

    @property
    def converged(self) -> bool:
        """Not while the Engine does not tell what there is: the last plan is about what was."""
        return self.reconciler is not None and self.reconciler.trouble is None and self.reconciler.is_settled

    @property
    def problems(self) -> tuple[Problem, ...]:
        """With the state directory, and the project's files."""
        unsaved = self.reconciler.unsaved if self.reconciler else None
        return (*self._problems.values(), *((_unwritable(unsaved),) if unsaved else ()), *self.files.problems)

    @property
    def watched_until(self) -> float:
        """When the generation is good if it stays as well as it is, seconds since the epoch; 0: nothing is watched."""
        is_watched = self.generation is not None and self.generation.is_pending and self.converged
        return self._good_at if is_watched else 0.0

    @property
    def goes_back_to(self) -> int:
        """Number of the generation that follows if this one is not kept; 0: none, or it is judged."""
        if self.generation is None or self.generation.outcome not in (Outcome.PENDING, Outcome.TRIAL):
            return 0
        before = self.generations.good_before(self.generation)
        return before.number if before else 0

    def resume(self, tasks: asyncio.TaskGroup) -> None:
        """Aim at what the last agent aimed at."""
        self._tasks = tasks
        generation, damage = self.generations.current()
        if damage is not None:
            self._note_damage(damage, f"generation {generation.number}" if generation else "a new generation")
        if generation is None:
            return
        memory, damage = self.state_files.load_memory()
        if damage is not None:
            self._note_damage(damage, "an empty one")
        self._must_go_back = generation.outcome.is_failure
        self._aim_at(self._settle_in(generation), memory)

    def _settle_in(self, generation: Generation) -> Generation:
        """It goes on with the files that are there where they cannot be written; that is tried again."""
        try:
            self.files.place(self.generations.files(generation.number))
            generation = self._take_over(generation)
            self._problems.pop("placement", None)
        except Dom0Error as error:
            self._problems["placement"] = _unwritable(error)
        return generation

    def _take_over(self, generation: Generation) -> Generation:
        """A generation of our own image is ours from now on, whichever agent made it current."""
        if self._own_image != generation.dom0_image or self._own_image == generation.agent_image:
            return generation
        return self.generations.update(replace(generation, agent_image=self._own_image))

    # going somewhere

    @property
    def runs_nothing(self) -> bool:
        return self.generation is None or not self.generation.desired.slots

    def with_adopted(self, candidate: Candidate) -> Candidate:
        """What was taken over stays the machine's."""
        before = self.generation.desired if self.generation else None
        return replace(candidate, desired=carry_over(candidate.desired, before))

    def begin(
        self, candidate: Candidate, cause: str, *, recreate: tuple[str, ...], as_it_was: Desired | None = None
    ) -> None:
        """Make what `candidate` asks for the current generation, if it is not that already.

        `as_it_was`: what it takes over from Docker Compose, to go back to. Raises Unwritable, Damaged.
        """
        if as_it_was is not None:
            self._note_before(candidate, as_it_was)
        current = self.generation
        memory = replace(cleared(self._memory()), recreate=recreate)
        trial = self.state_files.trial_of(candidate.dom0_image, self._clock.now())
        if current is not None and says_the_same(candidate, current):
            self._aim_at(current, memory)
        else:
            generation = self._add(candidate, "dom0 try" if trial else cause, trial)
            self._leave(current)
            self._board.post(Progress(text=f"generation {generation.number}: {generation.cause}"))
            self._switch_to(generation, memory)
        self.state_files.forget_trial()
        self._problems.clear()

    def go_back(self, target: Generation, *, cause: str) -> None:
        """The target's image IDs are pinned, so it is what it was, whatever the tags say now.

        What was taken over since stays the machine's. Raises Unwritable, Damaged.
        """
        log.warning("back to generation %d: %s", target.number, cause)
        self._board.post(Progress(text=f"back to generation {target.number}: {cause}"))
        if place := find_places(self._state).get(target.desired.project):
            self._board.post(Progress(text=f"the files in {place} stay as they are: they are yours to change"))
        if not target.is_good:
            before = self._good_now()
            target = replace(
                target, outcome=Outcome.PENDING, reason="", said=(), before=before, trial=0.0, trial_until=0.0
            )
            self.verdict = None
        self._leave(self.generation)
        desired = carry_over(target.desired, self.generation.desired if self.generation else None)
        back = replace(target, desired=desired, back_at=self._clock.now(), back_because=cause)
        self._switch_to(back, cleared(self._memory()))

    def confirm(self) -> None:
        """Raises UsageError when nothing is on trial, Unwritable."""
        generation = self.generation
        if generation is None or not generation.trial:
            raise UsageError("confirm: no generation is on trial", hint="dom0 try starts one")
        on_trial = generation.outcome is Outcome.TRIAL
        outcome = Outcome.GOOD if on_trial else generation.outcome
        self.generation = self.generations.update(replace(generation, trial=0.0, trial_until=0.0, outcome=outcome))
        if on_trial:
            self._settle_as_good()

    def abort(self) -> None:
        """End what is not good yet, or on trial, and go back. Raises Unwritable, UsageError where that cannot be."""
        generation = self.generation
        if generation is None or generation.outcome not in (Outcome.PENDING, Outcome.TRIAL):
            raise UsageError(
                "abort: nothing is being changed", hint="go back from a generation that is good: dom0 rollback"
            )
        if self.generations.good_before(generation) is None:
            raise UsageError(
                "abort: there is no good generation to go back to", hint="stop and remove what runs: dom0 down"
            )
        self._fail(generation, Outcome.ABORTED, "dom0 abort")

    def _add(self, candidate: Candidate, cause: str, trial: float) -> Generation:
        generation = Generation(
            number=0,
            created=self._clock.now(),
            cause=cause,
            dom0_image=candidate.dom0_image,
            desired=candidate.desired,
            before=self._good_now(),
            trial=trial,
            inputs=candidate.inputs,
        )
        self.verdict, self._adopted_from = None, 0
        return self.generations.add(generation, candidate.files)

    def _note_before(self, candidate: Candidate, as_it_was: Desired) -> None:
        """It becomes the generation to go back to, without ever having been current."""
        before = Generation(
            number=0,
            created=self._clock.now(),
            cause="as docker compose ran it",
            dom0_image=candidate.dom0_image,
            desired=as_it_was,
            outcome=Outcome.GOOD,
            foreign=True,
        )
        self._adopted_from = self.generations.add(before, candidate.files).number

    def _release(self, generation: Generation) -> None:
        """What Docker Compose made runs again as it did: it is nobody's of ours any more."""
        self.generations.leave_current()
        self._board.post(Progress(text=f"generation {generation.number}: runs again, and is docker compose's"))
        problem = Problem(
            code="project-in-use",
            subject="dom0",
            title=f"{generation.desired.project}: not taken over from docker compose, which runs it as before",
            hint="why: dom0 history; again: dom0 up --adopt",
            since=self._clock.now(),
        )
        self._problems["adoption"] = problem
        self.generation = None
        assert self.reconciler is not None
        self.reconciler.adopt(Desired(project=generation.desired.project), 0, Memory())

    def _good_now(self) -> int:
        """Number of the generation to come back to from the next one."""
        if self._adopted_from:
            return self._adopted_from
        if self.generation is None:
            return 0
        return self.generation.number if self.generation.is_good else self.generation.before

    def _leave(self, current: Generation | None) -> None:
        if current is not None and current.outcome in (Outcome.PENDING, Outcome.TRIAL):
            self.generations.update(replace(current, outcome=Outcome.REPLACED, trial=0.0, trial_until=0.0))

    def _switch_to(self, generation: Generation, memory: Memory) -> None:
        self.files.place(self.generations.files(generation.number))
        for problem in self.files.problems:
            self._board.post(Progress(text=f"{problem.subject}: {problem.title}"))
        generation = self.generations.update(replace(generation, agent_image=self._own_image))
        self.generations.make_current(generation.number)
        self._must_go_back = False
        self._aim_at(generation, memory)

    def _aim_at(self, generation: Generation, memory: Memory) -> None:
        self.generation = generation
        self._began, self._well_since, self._good_at = self._clock.monotonic(), 0.0, 0.0
        self._listening = self._giving_back = None
        memory = replace(memory, pending=generation.is_pending, last_good=self._versions_to_keep(generation))
        if self.reconciler is None:
            self.reconciler = self._make_reconciler(generation.desired, memory)
            self.reconciler.on_plan = self._take_plan
            self._tasks.create_task(self.reconciler.run())
        self.reconciler.adopt(generation.desired, generation.number, memory)

    def _versions_to_keep(self, generation: Generation) -> dict[str, Version]:
        """What is stopped, and not removed, as long as the machine may go back to it."""
        if generation.outcome not in (Outcome.PENDING, Outcome.TRIAL):
            return {}
        before = self.generations.good_before(generation)
        return {slot.key: version(slot) for slot in before.desired.slots} if before else {}

    # judging

    def _take_plan(self, plan: Plan) -> float:
        now = self._clock.monotonic()
        self._well_since = (self._well_since or now) if plan.well and plan.settled else 0.0
        try:
            again_in = self._judge(plan, now)
            self._problems.pop("unwritable", None)
            if "placement" in self._problems and self.generation is not None:
                self.generation = self._settle_in(self.generation)
                again_in = min(again_in or AGAIN, AGAIN)
        except Dom0Error as error:
            self._note_unwritable(error)
            again_in = AGAIN
        self.on_plan(plan)
        return again_in

    def _judge(self, plan: Plan, now: float) -> float:
        """Returns after how many seconds time alone may change the judgement (0: it may not)."""
        generation = self.generation
        if generation is None:
            return 0.0
        if generation.foreign:
            if not plan.steps and all(p.container and p.container.running == p.slot.runs for p in plan.slots):
                self._release(generation)
            return 0.0
        if self._must_go_back:
            return self._return_from(generation)
        if generation.outcome is Outcome.TRIAL:
            return self._judge_trial(generation, plan)
        if not generation.is_pending:
            return 0.0
        verdict = rollout.judge(
            plan, generation.desired.rollout, began=self._began, well_since=self._well_since, now=now
        )
        self._good_at = (self._good_at or self._clock.now() + verdict.check_in) if verdict.ready else 0.0
        if verdict.outcome is Outcome.GOOD:
            self._accept(generation)
        elif verdict.outcome is not Outcome.FAILED:
            self._listening = None
        elif self._has_listened(plan):
            self._fail(generation, Outcome.FAILED, verdict.reason, plan.problems)
        return self._trial_left() or verdict.check_in

    def _has_listened(self, plan: Plan) -> bool:
        """Whether the last words are there; else they are asked for, and the next plan finds them."""
        if self._listening is None:
            self._listening = self._tasks.create_task(self._listen(plan))
        return self._listening.done()

    async def _listen(self, plan: Plan) -> tuple[Words, ...]:
        words = await self._last_words(plan)
        self._wake_soon()
        return words

    def _wake_soon(self) -> None:
        """When the task that calls this is done."""
        if self.reconciler is not None:
            asyncio.get_running_loop().call_soon(self.reconciler.wake)

    def _judge_trial(self, generation: Generation, plan: Plan) -> float:
        if self._trial_left() > generation.trial:  # the clock went back: it would wait for as long
            self._begin_trial(generation)
        left = self._trial_left()
        if left <= 0:
            self._fail(generation, Outcome.EXPIRED, "not confirmed in time", plan.problems)
        return max(left, 0.0)

    def _trial_left(self) -> float:
        until = self.generation.trial_until if self.generation else 0.0
        return until - self._clock.now() if until else 0.0

    def _begin_trial(self, generation: Generation) -> None:
        until = self._clock.now() + generation.trial
        self.generation = self.generations.update(replace(generation, outcome=Outcome.TRIAL, trial_until=until))

    def _accept(self, generation: Generation) -> None:
        outcome = Outcome.TRIAL if generation.trial else Outcome.GOOD
        if generation.trial:
            self._begin_trial(generation)
            self._remember(replace(self._memory(), pending=False))
        else:
            self.generation = self.generations.update(replace(generation, outcome=outcome))
            self._settle_as_good()
        log.info("generation %d: %s", generation.number, outcome)
        self._board.post(Progress(text=f"generation {generation.number}: {outcome}", generation=generation.number))
        self.verdict = Progress(outcome=outcome, generation=generation.number)

    def _settle_as_good(self) -> None:
        """Now what the last good one left behind may go."""
        assert self.generation is not None
        self.generations.prune({self.generation.number, self.generation.before})
        self._remember(replace(self._memory(), pending=False, last_good={}))
        self.on_good()

    def _fail(self, generation: Generation, outcome: Outcome, reason: str, problems: tuple[Problem, ...] = ()) -> None:
        log.error("generation %d: %s: %s", generation.number, outcome, reason)
        problem = Problem(code="generation-failed", subject=f"generation {generation.number}", title=reason)
        words = self._listening.result() if self._listening and self._listening.done() else ()
        said = tuple(f"{word.service}: {word.line}" for word in words)
        failed = replace(generation, outcome=outcome, reason=reason, said=said, trial=0.0, trial_until=0.0)
        self.generation = self.generations.update(failed)
        for word in words:
            self._board.post(Progress(service=word.service, text=f"said: {word.line}"))
        self._failure = Progress(outcome=outcome, generation=generation.number, problems=(problem, *problems))
        self._must_go_back = True
        self._return_from(failed)

    def _return_from(self, failed: Generation) -> float:
        """Where there is nothing good to go back to, what was asked for is tried on."""
        target = self.generations.good_before(failed)
        if target is not None and not self._has_given_back(failed, target):
            return 0.0
        self.verdict, self._failure = self._failure, None
        if target is not None:
            self.go_back(target, cause=f"generation {failed.number} {failed.outcome}: {failed.reason}")
        else:
            self._must_go_back = False
            self._remember(replace(self._memory(), pending=False, crash_loops={}))
        return 0.0

    def _has_given_back(self, failed: Generation, target: Generation) -> bool:
        """Whether the names of images are as `target` has them; else that is begun, and the next plan finds it done."""
        if self._giving_back is None:
            self._giving_back = self._tasks.create_task(self._give_back(failed, target))
        return self._giving_back.done()

    async def _give_back(self, failed: Generation, target: Generation) -> None:
        try:
            await self._give_names_back(failed, target)
        except EngineError as error:
            log.warning("generation %d: the names of its images stay: %s", failed.number, error.message)
        self._wake_soon()

    # memory and problems

    def _memory(self) -> Memory:
        return self.reconciler.memory if self.reconciler else Memory()

    def _remember(self, memory: Memory) -> None:
        if self.reconciler is not None:
            self.reconciler.memory = memory
            self.reconciler.wake()

    def _note_damage(self, damage: Dom0Error, instead: str) -> None:
        log.error("%s; %s is used instead", damage.message, instead)
        self._problems[damage.message] = Problem(
            code="state-damaged",
            subject="dom0",
            title=f"{damage.message}; {instead} is used instead",
            hint="check the disk, then dom0 up",
            since=self._clock.now(),
        )

    def _note_unwritable(self, error: Dom0Error) -> None:
        if "unwritable" not in self._problems:
            log.error("%s", error.message)
        self._problems["unwritable"] = _unwritable(error)


def _unwritable(error: Dom0Error) -> Problem:
    return Problem(code="state-unwritable", subject="dom0", title=error.message, hint=error.hint)


def says_the_same(candidate: Candidate, current: Generation) -> bool:
    """Compared by their canonical JSON: one was read from a file, the other was just made."""
    if candidate.dom0_image != current.dom0_image or current.outcome.is_failure:
        return False
    asked, found = (msgspec.json.encode(d, order="sorted") for d in (candidate.desired, current.desired))
    return asked == found
