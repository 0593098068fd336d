"""Plans and steps as text for people. What they mean is decided elsewhere."""

from __future__ import annotations

import re
from typing import assert_never

from dom0.plan import steps


def say_step(step: steps.AnyStep) -> str:  # noqa: C901 -- a flat match, one line a step
    """`start mybox-redis-1`: a verb and a name."""
    match step:
        case steps.CreateNetwork():
            return f"create network {step.spec.name}"
        case steps.ReplaceNetwork():
            return f"replace network {step.spec.name}"
        case steps.RemoveNetwork():
            return f"remove network {step.name}"
        case steps.CreateVolume():
            return f"create volume {step.spec.name}"
        case steps.CreateContainer():
            return f"create {step.name}"
        case steps.StartContainer():
            return f"start {step.slot.name}"
        case steps.RunPostStart():
            return f"run post_start of {step.slot.name}"
        case steps.RestartContainer():
            return f"restart {step.slot.name}"
        case steps.UnpauseContainer():
            return f"unpause {step.name}"
        case steps.StopContainer() | steps.StopInScope():
            return f"stop {step.name}"
        case steps.GiveUpContainer():
            return f"give up restarting {step.name}"
        case steps.RemoveContainer():
            return f"remove {step.name}"
        case steps.RenameContainer():
            return f"rename {step.name} to {step.to}"
        case steps.ConnectNetwork():
            return f"connect {step.name} to {step.attachment.network}"
        case steps.UpdateContainer():
            return f"update {step.name}"
    assert_never(step)


def kind_of(step: type[steps.AnyStep]) -> str:
    """`start-container`: what programs call such a step."""
    return re.sub(r"\B(?=[A-Z])", "-", step.__name__).lower()


def name_of(step: steps.AnyStep) -> str:
    """Of the container, network or volume that it is about."""
    match step:
        case steps.CreateNetwork() | steps.ReplaceNetwork() | steps.CreateVolume():
            return step.spec.name
        case steps.StartContainer() | steps.RunPostStart() | steps.RestartContainer():
            return step.slot.name
    return step.name
