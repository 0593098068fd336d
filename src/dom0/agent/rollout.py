"""Whether a new generation is good: a pure judgement over its plan and the clock."""

from __future__ import annotations

import msgspec

from dom0.agent.status import Outcome
from dom0.plan.desired import Rollout
from dom0.plan.phase import Phase
from dom0.plan.planner import WELL, Plan

REFUSALS = 3  # times the Engine may refuse a step before the generation has failed


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`check_at`: when the clock alone can change it, seconds since the epoch."""

    outcome: Outcome
    reason: str = ""
    check_at: float = 0.0


def judge(plan: Plan, rollout: Rollout, *, began: float, well_since: float, refusals: int, now: float) -> Verdict:
    """`well_since`: since when the plan has been well without a break (0: it is not).

    `refusals`: how often in a row the Engine has refused the step it refused most.
    """
    if reason := _hopeless(plan, refusals):
        return Verdict(outcome=Outcome.FAILED, reason=reason)
    if plan.well and well_since:
        good_at = well_since + rollout.monitor
        return Verdict(outcome=Outcome.GOOD) if now >= good_at else Verdict(outcome=Outcome.PENDING, check_at=good_at)
    deadline = began + rollout.timeout
    if now >= deadline:
        return Verdict(outcome=Outcome.FAILED, reason=f"not healthy within {rollout.timeout:g} s: {_laggards(plan)}")
    return Verdict(outcome=Outcome.PENDING, check_at=deadline)


def _hopeless(plan: Plan, refusals: int) -> str:
    for slot in plan.slots:
        if slot.phase in (Phase.PARKED, Phase.UNHEALTHY):
            return slot.reason
    if refusals >= REFUSALS and plan.problems:
        return plan.problems[-1].title
    return ""


def _laggards(plan: Plan) -> str:
    late = [f"{slot.slot.service} ({slot.reason or slot.phase})" for slot in plan.slots if slot.phase not in WELL]
    return "; ".join(late) or "; ".join(problem.title for problem in plan.problems)
