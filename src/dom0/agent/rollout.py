"""Whether a new generation is good: a pure judgement over its plan and the clock."""

from __future__ import annotations

import msgspec

from dom0.agent.status import Outcome
from dom0.plan.desired import Rollout
from dom0.plan.phase import Phase
from dom0.plan.planner import WELL, Plan

REFUSALS = 3  # times the Engine may refuse a step before the generation has failed


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`check_in`: seconds until time alone can change it. `ready`: all is well; it is good when it stays so."""

    outcome: Outcome
    reason: str = ""
    ready: bool = False
    check_in: float = 0.0


def judge(plan: Plan, rollout: Rollout, *, began: float, well_since: float, now: float) -> Verdict:
    """`well_since`: since when the plan has been well without a break (0: it is not). Times are monotonic."""
    if reason := _hopeless(plan):
        return Verdict(outcome=Outcome.FAILED, reason=reason)
    if plan.well and well_since:
        left = well_since + rollout.monitor - now
        good = Verdict(outcome=Outcome.GOOD)
        return Verdict(outcome=Outcome.PENDING, ready=True, check_in=left) if left > 0 else good
    deadline = began + rollout.timeout
    if now >= deadline:
        return Verdict(outcome=Outcome.FAILED, reason=_too_late(plan, rollout.timeout))
    return Verdict(outcome=Outcome.PENDING, check_in=deadline - now)


def _hopeless(plan: Plan) -> str:
    for slot in plan.slots:
        if slot.phase in (Phase.CRASH_LOOP, Phase.UNHEALTHY):
            return slot.reason
    return plan.refused.message if plan.refused is not None and plan.refused.count >= REFUSALS else ""


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
