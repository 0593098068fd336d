"""Plans and steps as text for people. What they mean is decided elsewhere."""

from __future__ import annotations

from typing import assert_never

from dom0.plan.steps import (
    AnyStep,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    GiveUpContainer,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    ReplaceNetwork,
    RestartContainer,
    RunPostStart,
    StartContainer,
    StopContainer,
    StopInScope,
    UnpauseContainer,
    UpdateContainer,
)


def say_step(step: AnyStep) -> str:  # noqa: C901 -- a flat match, one line a step
    """`start mybox-redis-1`: a verb and a name."""
    match step:
        case CreateNetwork():
            return f"create network {step.spec.name}"
        case ReplaceNetwork():
            return f"replace network {step.spec.name}"
        case RemoveNetwork():
            return f"remove network {step.name}"
        case CreateVolume():
            return f"create volume {step.spec.name}"
        case CreateContainer():
            return f"create {step.name}"
        case StartContainer():
            return f"start {step.slot.name}"
        case RunPostStart():
            return f"run post_start of {step.slot.name}"
        case RestartContainer():
            return f"restart {step.slot.name}"
        case UnpauseContainer():
            return f"unpause {step.name}"
        case StopContainer() | StopInScope():
            return f"stop {step.name}"
        case GiveUpContainer():
            return f"give up restarting {step.name}"
        case RemoveContainer():
            return f"remove {step.name}"
        case RenameContainer():
            return f"rename {step.name} to {step.to}"
        case ConnectNetwork():
            return f"connect {step.name} to {step.attachment.network}"
        case UpdateContainer():
            return f"update {step.name}"
    assert_never(step)
