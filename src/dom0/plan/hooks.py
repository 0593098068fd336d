"""Compose's lifecycle hooks: `post_start` runs in a container after each of its starts, `pre_stop` before a stop. Pure.

The `pre_stop` hooks are kept in a label of the container: when it is removed, its service may be gone from the project
or have other hooks.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dom0.compose import model
from dom0.engine.values import Container
from dom0.plan.desired import Hook, Slot
from dom0.plan.labels import HASH, PRE_STOP


class PreStop(msgspec.Struct, frozen=True, kw_only=True):
    """`grace`: seconds for the hooks and the stop together."""

    hooks: tuple[Hook, ...]
    grace: float


def hooks_of(written: Iterable[model.Hook]) -> tuple[Hook, ...]:
    return tuple(
        Hook(
            argv=hook.command or (),
            user=hook.user,
            privileged=hook.privileged,
            workdir=hook.working_dir,
            env=tuple(k if v is None else f"{k}={v}" for k, v in sorted(hook.environment.items())),
        )
        for hook in written
    )


def pre_stop_label(hooks: tuple[Hook, ...]) -> str:
    """Empty without hooks, and written all the same, so that it hides the label of an image."""
    return msgspec.json.encode(hooks).decode() if hooks else ""


def pre_stop_of(container: Container) -> PreStop | None:
    """None also for a label that cannot be read, which another version of dom0 wrote."""
    try:
        hooks = msgspec.json.decode(container.labels.get(PRE_STOP) or "[]", type=tuple[Hook, ...])
    except msgspec.DecodeError:
        return None
    return PreStop(hooks=hooks, grace=container.stop_grace) if hooks else None


def has_post_start(container: Container, slot: Slot) -> bool:
    """Not for a container of an earlier configuration: it is about to be replaced."""
    return bool(slot.post_start) and container.labels.get(HASH) == slot.hash
