"""What becomes of a generation: transitions as values, from what the plan says and how long it has said so. Pure.

    pending ──(all well, and stays so)──▶ good   (or trial ──confirm──▶ good)
       └──(a service failed, or too late)──▶ failed ─▶ the good one that ran before it

`current` carries a transition out, and writes down the generation as it is after it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from dom0.agent.generations import Generation
from dom0.agent.status import Outcome
from dom0.plan.desired import Rollout
from dom0.plan.phase import Phase
from dom0.plan.planner import WELL, Plan

REFUSALS = 3  # times the Engine may refuse a step before the generation has failed


class Wait(msgspec.Struct, frozen=True):
    """Nothing becomes of it yet. `again_in`: seconds until time alone may change that (0: it may not).

    `is_ready`: all is well; it is good when it stays so until then.
    """

    again_in: float = 0.0
    is_ready: bool = False


class Accept(msgspec.Struct, frozen=True):
    """It is good, or on trial from now on."""


class RestartTrial(msgspec.Struct, frozen=True):
    """The clock went back: the trial would last as much longer."""


class Fail(msgspec.Struct, frozen=True):
    """It is not good, once its services have been asked what they said last."""

    reason: str


class Expire(msgspec.Struct, frozen=True):
    """Nobody has confirmed the trial."""


class GoBack(msgspec.Struct, frozen=True):
    """To the good one before it; where there is none, what was asked for is tried on."""


class Release(msgspec.Struct, frozen=True):
    """What Docker Compose made runs again as it did: it is not ours any more."""


Transition: TypeAlias = Wait | Accept | RestartTrial | Fail | Expire | GoBack | Release


def decide(
    generation: Generation, plan: Plan, *, is_left: bool, age: float, well_for: float | None, now: float
) -> Transition:
    """`is_left`: it was judged, and the machine has to go back from it. `now`: seconds since the epoch.

    `age`: seconds since the machine came to it. `well_for`: for how many all has been well without a break.
    """
    if generation.foreign:
        as_before = all(p.container and p.container.running == p.slot.runs for p in plan.slots)
        return Release() if as_before and not plan.steps else Wait()
    if is_left:
        return GoBack()
    match generation.outcome:
        case Outcome.TRIAL:
            left = generation.trial_until - now
            if left > generation.trial:
                return RestartTrial()
            return Wait(left) if left > 0 else Expire()
        case Outcome.PENDING:
            return _judge(plan, generation.desired.rollout, age, well_for)
    return Wait()


def _judge(plan: Plan, rollout: Rollout, age: float, well_for: float | None) -> Transition:
    for slot in plan.slots:
        if slot.phase in (Phase.CRASH_LOOP, Phase.UNHEALTHY):
            return Fail(slot.reason)
    if plan.refused is not None and plan.refused.count >= REFUSALS:
        return Fail(plan.refused.message)
    if plan.well and well_for is not None:
        left = rollout.monitor - well_for
        return Wait(left, is_ready=True) if left > 0 else Accept()
    left = rollout.timeout - age
    return Wait(left) if left > 0 else Fail(_too_late(plan, rollout.timeout))


def _too_late(plan: Plan, timeout: float) -> str:
    """Apart: what the Engine would not start, and what runs or waits and is not ready."""
    late = [slot for slot in plan.slots if slot.phase not in WELL]
    refused = "; ".join(slot.reason for slot in late if slot.refused)  # which names its service
    slow = "; ".join(f"{slot.slot.service} ({slot.reason or slot.phase})" for slot in late if not slot.refused)
    told = [
        *([f"could not be started within {timeout:g} s: {refused}"] if refused else []),
        *([f"not ready within {timeout:g} s: {slow}"] if slow else []),
    ]
    others = "; ".join(problem.title for problem in plan.problems)
    return "; ".join(told) or f"not ready within {timeout:g} s: {others}"


# the generation as it is after a transition


def accepted(generation: Generation, now: float) -> Generation:
    """On trial where one was asked for."""
    if not generation.trial:
        return replace(generation, outcome=Outcome.GOOD)
    return replace(generation, outcome=Outcome.TRIAL, trial_until=now + generation.trial)


def confirmed(generation: Generation) -> Generation:
    """One that is not judged yet still has to be found good."""
    outcome = Outcome.GOOD if generation.outcome is Outcome.TRIAL else generation.outcome
    return replace(generation, outcome=outcome, trial=0.0, trial_until=0.0)


def ended(generation: Generation, outcome: Outcome, reason: str = "", said: tuple[str, ...] = ()) -> Generation:
    """Before it was good, or on trial. `reason` and `said` are of a failure."""
    return replace(generation, outcome=outcome, reason=reason, said=said, trial=0.0, trial_until=0.0)


def come_back_to(target: Generation, *, before: int, now: float, because: str) -> Generation:
    """One that was never good is judged again. `before`: number of the good one that it would go back to."""
    if not target.is_good:
        target = replace(target, outcome=Outcome.PENDING, reason="", said=(), before=before, trial=0.0, trial_until=0.0)
    return replace(target, back_at=now, back_because=because)
