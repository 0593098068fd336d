"""The generation that the machine is at: how it gets there, and stays or goes back.

What becomes of it is decided in `rollout`, what is done for it in plan/; here is the order in which things are written
down: a generation is whole on disk before its files are placed, its files are placed before it becomes current, and it
is `failed` before the machine goes back. Killed anywhere in between, the next agent goes on (`resume`); on a full disk,
it is tried again until it works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from dom0.agent import image_names, private_files, problems, rollout
from dom0.agent.clock import Clock
from dom0.agent.events import Kind
from dom0.agent.files import Files
from dom0.agent.generations import Generation, Generations
from dom0.agent.in_place import find_places
from dom0.agent.journal import Journal
from dom0.agent.last_words import Words, last_words
from dom0.agent.progress import Background, Board, Changes
from dom0.agent.reconcile import Aim, Reconciler
from dom0.agent.source import Candidate
from dom0.agent.state_files import StateFiles
from dom0.agent.status import Outcome, Progress
from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error, UsageError
from dom0.health import Problem
from dom0.plan.adoption import carry_over
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan
from dom0.plan.snapshot import version

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN = 10.0  # seconds until what could not be written is tried again


class Watch(msgspec.Struct):
    """What is seen of a generation from when the machine came to it; the first two in monotonic seconds.

    `good_at`: when it is good if all stays well, seconds since the epoch; 0 while it is not. `starts`: container ID of
    what is ready -> when it was started.
    """

    began: float
    well_since: float | None = None
    good_at: float = 0.0
    starts: dict[str, float] = {}
    listening: asyncio.Task[tuple[Words, ...]] | None = None  # to what its failing services say
    giving_back: asyncio.Task[None] | None = None  # the names of its images


class Current:
    def __init__(
        self,
        engine: Engine,
        state: Path,
        *,
        loop: Reconciler,
        own_image: str,
        clock: Clock,
        board: Board,
        changed: Changes,
        background: Background,
        journal: Journal,
    ) -> None:
        self.generations = Generations(state)
        self.state_files = StateFiles(state)
        self.files = Files(state / "project", changed)
        self.generation: Generation | None = None
        self.verdict: Progress | None = None  # the last judgement
        self._failure: Progress | None = None  # the next one
        self._engine = engine
        self._state = state
        self._loop = loop
        self._own_image = own_image
        self._clock = clock
        self._board = board
        self._background = background
        self._journal = journal
        self._watch = Watch(began=0.0)
        self._is_left = False  # it has failed, and the machine is on its way back from it
        self._adopted_from = 0  # number of the generation that the next one takes over
        self._problems: dict[str, Problem] = {}

    # reading

    @property
    def project(self) -> str:
        """Its name, empty before the first generation."""
        return self.generation.desired.project if self.generation else ""

    @property
    def converged(self) -> bool:
        """Not while the Engine does not tell what there is: the last plan is about what was."""
        return self._loop.trouble is None and self._loop.is_settled

    @property
    def problems(self) -> tuple[Problem, ...]:
        """With the state directory, and the project's files."""
        unsaved = self._loop.unsaved
        return (*self._problems.values(), *((problems.unwritable(unsaved),) if unsaved else ()), *self.files.problems)

    @property
    def watched_until(self) -> float:
        """When the generation is good if it stays as well as it is, seconds since the epoch; 0: nothing is watched."""
        is_watched = self.generation is not None and self.generation.is_pending and self.converged
        return self._watch.good_at if is_watched else 0.0

    @property
    def goes_back_to(self) -> int:
        """Number of the generation that follows if this one is not kept; 0: none, or it is judged."""
        fallback = self._fallback(self.generation) if self.generation else None
        return fallback.number if fallback else 0

    def _fallback(self, generation: Generation) -> Generation | None:
        return self.generations.good_before(generation) if generation.is_undecided else None

    def resume(self) -> None:
        """Aim at what the last agent aimed at."""
        generation, damage = self.generations.current()
        if damage is not None:
            self._note_damage(damage, f"generation {generation.number}" if generation else "a new generation")
        if generation is None:
            return
        memory, damage = self.state_files.load_memory()
        if damage is not None:
            self._note_damage(damage, "an empty one")
        self._is_left = generation.outcome.is_failure
        self._aim_at(self._settle_in(generation), memory=memory)

    def _settle_in(self, generation: Generation) -> Generation:
        """It goes on with the files that are there where they cannot be written; that is tried again.

        A generation of our own image is ours from now on, whichever agent made it current.
        """
        try:
            self.files.place(self.generations.files(generation.number))
            if self._own_image == generation.dom0_image != generation.agent_image:
                generation = self.generations.update(replace(generation, agent_image=self._own_image))
            self._problems.pop("placement", None)
        except Dom0Error as error:
            self._problems["placement"] = problems.unwritable(error)
        return generation

    # going somewhere

    def begin(
        self, candidate: Candidate, cause: str, *, recreate: tuple[str, ...], as_it_was: Desired | None = None
    ) -> None:
        """Make what `candidate` asks for the current generation, if it is not that already.

        `as_it_was`: what it takes over from Docker Compose, to go back to. Raises Unwritable, Damaged.
        """
        if as_it_was is not None:  # to go back to, without ever having been current
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
        current = self.generation
        trial = self.state_files.trial_of(candidate.dom0_image, self._clock.now())
        if current is not None and says_the_same(candidate, current):
            self._aim_at(current, recreate=recreate)
        else:
            generation = self._add(candidate, "dom0 try" if trial else cause, trial)
            self._leave(current)
            self._board.say(f"generation {generation.number}: {generation.cause}")
            self._switch_to(generation, recreate=recreate, is_new=True)
            self._note(generation, Kind.GENERATION_BEGUN, "begun", generation.cause)
        self.state_files.forget_trial()
        self._problems.clear()

    def go_back(self, target: Generation, *, cause: str) -> None:
        """The target's image IDs are pinned, so it is what it was, whatever the tags say now.

        What was taken over since stays the machine's. Raises Unwritable, Damaged.
        """
        log.warning("back to generation %d: %s", target.number, cause)
        self._board.say(f"back to generation {target.number}: {cause}")
        if place := find_places(self._state).get(target.desired.project):
            self._board.say(f"the files in {place} stay as they are: they are yours to change")
        if not target.is_good:
            self.verdict = None
        target = rollout.come_back_to(target, before=self._good_now(), now=self._clock.now(), because=cause)
        self._leave(self.generation)
        desired = carry_over(target.desired, self.generation.desired if self.generation else None)
        self._switch_to(replace(target, desired=desired))
        self._note(target, Kind.GENERATION_BACK, "the machine goes back to it", cause)

    def confirm(self) -> None:
        """Raises UsageError when nothing is on trial, Unwritable."""
        generation = self.generation
        if generation is None or not generation.trial:
            raise UsageError("confirm: no generation is on trial", hint="dom0 try starts one")
        self.generation = self.generations.update(rollout.confirmed(generation))
        self._note(generation, Kind.GENERATION_CONFIRMED, "confirmed")
        if self.generation.is_good:
            self._settle_as_good(self.generation)

    def abort(self) -> None:
        """End what is not good yet, or on trial, and go back. Raises Unwritable, UsageError where that cannot be."""
        generation = self.generation
        if generation is None or not generation.is_undecided:
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
            agent_image=self._own_image,
        )
        self.verdict, self._adopted_from = None, 0
        return self.generations.add(generation, candidate.files)

    def _good_now(self) -> int:
        """Number of the generation to come back to from the next one."""
        if self._adopted_from:
            return self._adopted_from
        if self.generation is None:
            return 0
        return self.generation.number if self.generation.is_good else self.generation.before

    def _leave(self, current: Generation | None) -> None:
        if current is not None and current.is_undecided:
            self.generations.update(rollout.ended(current, Outcome.REPLACED))
            self._note(current, Kind.GENERATION_REPLACED, "replaced before it was good")

    def _switch_to(
        self, generation: Generation, *, recreate: tuple[str, ...] | None = None, is_new: bool = False
    ) -> None:
        self.files.place(self.generations.files(generation.number))
        for problem in self.files.problems:
            self._board.say(f"{problem.subject}: {problem.title}")
            self._journal.note(Kind.FILE_CONFLICT, problem.subject, f"{problem.subject}: {problem.title}")
        if not is_new:  # else it was written a moment ago, and each write waits for the disk
            generation = self.generations.update(replace(generation, agent_image=self._own_image))
        self.generations.make_current(generation.number)
        self._is_left = False
        self._aim_at(generation, recreate=recreate)

    def _aim_at(
        self, generation: Generation, *, memory: Memory | None = None, recreate: tuple[str, ...] | None = None
    ) -> None:
        self.generation = generation
        self._journal.generation = generation.number
        self._watch = Watch(began=self._clock.monotonic())
        fallback = self._fallback(generation)  # of which containers are stopped, and not removed
        self._loop.aim(
            Aim(
                desired=generation.desired,
                generation=generation.number,
                pending=generation.is_pending,
                last_good={slot.key: version(slot) for slot in fallback.desired.slots} if fallback else {},
                recreate=recreate,
                memory=memory,
            )
        )

    # what becomes of it

    def judge(self, plan: Plan) -> float:
        """Returns after how many seconds time alone may change the judgement (0: it may not)."""
        try:
            again_in = self._move_on(self.generation, plan) if self.generation is not None else 0.0
            self._problems.pop("unwritable", None)
            if "placement" in self._problems and self.generation is not None:
                self.generation = self._settle_in(self.generation)
                again_in = min(again_in or AGAIN, AGAIN)
        except Dom0Error as error:
            if "unwritable" not in self._problems:
                log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            self._problems["unwritable"] = problems.unwritable(error)
            again_in = AGAIN
        return again_in

    def _move_on(self, generation: Generation, plan: Plan) -> float:
        transition = self._decide(generation, plan)
        match transition:
            case rollout.Wait():
                self._watch.listening = None
                return transition.again_in
            case rollout.Accept():
                self._accept(generation)
                return generation.trial
            case rollout.RestartTrial():
                self.generation = self.generations.update(rollout.accepted(generation, self._clock.now()))
                return generation.trial
            case rollout.Fail():
                if self._watch.listening is None:
                    self._watch.listening = self._start(last_words(self._engine, plan))
                elif self._watch.listening.done():
                    self._fail(generation, Outcome.FAILED, transition.reason, plan.problems)
            case rollout.Expire():
                self._fail(generation, Outcome.EXPIRED, "not confirmed in time", plan.problems)
            case rollout.GoBack():
                self._return_from(generation)
            case rollout.Release():
                self.generations.leave_current()
                self._board.say(f"generation {generation.number}: runs again, and is docker compose's")
                project = generation.desired.project
                self._note(generation, Kind.GENERATION_RELEASED, "runs again, and is docker compose's")
                self._problems["adoption"] = problems.released(project, self._clock.now())
                self.generation = None
                self._loop.aim(Aim(desired=Desired(project=project), memory=Memory()))
            case _:
                assert_never(transition)
        return 0.0

    def _decide(self, generation: Generation, plan: Plan) -> rollout.Transition:
        watch, monotonic, now = self._watch, self._clock.monotonic(), self._clock.now()
        before, ready = watch.starts, (slot.container for slot in plan.slots if slot.phase is Phase.READY)
        watch.starts = {container.id: container.started for container in ready if container}
        # the Engine may have started it again before we looked
        has_ended = any(before.get(id_, started) != started for id_, started in watch.starts.items())
        if not (plan.well and plan.settled):
            watch.well_since = None
        elif watch.well_since is None or has_ended:
            watch.well_since, watch.good_at = monotonic, 0.0
        transition = rollout.decide(
            generation,
            plan,
            is_left=self._is_left,
            age=monotonic - watch.began,
            well_for=None if watch.well_since is None else monotonic - watch.well_since,
            now=now,
        )
        if isinstance(transition, rollout.Wait) and transition.is_ready:
            watch.good_at = watch.good_at or now + transition.again_in
        else:
            watch.good_at = 0.0
        return transition

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The next plan finds it done."""
        task = self._background.start(coroutine)
        task.add_done_callback(lambda _task: self._loop.wake())
        return task

    def _accept(self, generation: Generation) -> None:
        accepted = self.generation = self.generations.update(rollout.accepted(generation, self._clock.now()))
        if accepted.is_good:
            self._settle_as_good(accepted)
        else:
            self._loop.accept(on_trial=True)
        outcome, number = accepted.outcome, accepted.number
        log.info("generation %d: %s", number, outcome)
        kind = Kind.GENERATION_GOOD if accepted.is_good else Kind.GENERATION_TRIAL
        self._note(accepted, kind, "good" if accepted.is_good else "on trial, and goes back unless it is confirmed")
        self._board.post(Progress(text=f"generation {number}: {outcome}", generation=number))
        self.verdict = Progress(outcome=outcome, generation=number)

    def _settle_as_good(self, generation: Generation) -> None:
        """Now what the last good one left behind may go."""
        self._loop.accept(on_trial=False)
        self._background.start(self._keep_images(generation))

    async def _keep_images(self, generation: Generation) -> None:
        try:
            self.generations.prune({generation.number, generation.before})
            await asyncio.to_thread(private_files.forget, self._state, generation)
        except (Dom0Error, OSError) as error:  # as when no descriptor is left; the next good generation does it
            log.warning("what the last good generation left behind stays: %s", error)
        await image_names.keep(self._engine, self.generations.all())

    def _fail(self, generation: Generation, outcome: Outcome, reason: str, others: tuple[Problem, ...] = ()) -> None:
        log.error("generation %d: %s: %s", generation.number, outcome, reason)
        problem = Problem(code="generation-failed", subject=f"generation {generation.number}", title=reason)
        listening = self._watch.listening
        words = listening.result() if listening and listening.done() else ()
        said = tuple(f"{word.service}: {word.line}" for word in words)
        failed = self.generation = self.generations.update(rollout.ended(generation, outcome, reason, said))
        self._note(failed, Kind(f"generation-{outcome}"), outcome, reason)
        for word in words:
            self._board.say(f"said: {word.line}", service=word.service)
        self._failure = Progress(outcome=outcome, generation=generation.number, problems=(problem, *others))
        self._is_left = True
        self._return_from(failed)

    def _return_from(self, failed: Generation) -> None:
        """Where there is nothing good to go back to, what was asked for is tried on."""
        target, watch = self.generations.good_before(failed), self._watch
        if target is not None:
            if watch.giving_back is None:
                give_back = image_names.give_back(self._engine, self.generations.all(), failed, target)
                watch.giving_back = self._start(give_back)
            if not watch.giving_back.done():
                return
        if self._failure is not None:  # else told already, by a try that could not be written
            self.verdict, self._failure = self._failure, None
        if target is not None:
            self.go_back(target, cause=f"generation {failed.number} {failed.outcome}: {failed.reason}")
        else:
            self._is_left = False
            self._loop.keep_trying()

    def _note(self, generation: Generation, kind: Kind, text: str, reason: str = "") -> None:
        subject = f"generation {generation.number}"
        self._journal.note(kind, subject, f"{subject}: {text}", reason)

    # problems

    def _note_damage(self, damage: Dom0Error, instead: str) -> None:
        title, hint = f"{damage.message}; {instead} is used instead", "check the disk, then dom0 up"
        log.error("%s", title)
        self._problems[damage.message] = Problem(
            code="state-damaged", subject="dom0", title=title, hint=hint, since=self._clock.now()
        )


def says_the_same(candidate: Candidate, current: Generation) -> bool:
    """Compared by their canonical JSON: one was read from a file, the other was just made."""
    if candidate.dom0_image != current.dom0_image or current.outcome.is_failure:
        return False
    asked, found = (msgspec.json.encode(d, order="sorted") for d in (candidate.desired, current.desired))
    return asked == found
