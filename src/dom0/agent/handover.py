"""Puts a root container of another image in the place of the present one, and goes back if it does not answer.

`start_helper` is for callers that may end meanwhile (the agent itself, a terminal): a short-lived container of the new
image does the work. `settle` is the work: look, decide (succession.py), do one thing, look again. Kill it anywhere and
call it again. The gap in which no agent runs lasts from the old one's stop to the new one's first answer; services run
on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import assert_never

from dom0.agent.contract import helper_body, root_body
from dom0.agent.succession import (
    ASIDE,
    NAMES,
    Create,
    End,
    Remove,
    Rename,
    Result,
    RootContainers,
    SetRestart,
    Start,
    StartResult,
    Stop,
    Verify,
    decide,
    wanted_after_cut,
)
from dom0.engine.bodies import RestartPolicy, UpdateBody
from dom0.engine.protocol import Engine, find_container
from dom0.engine.values import Container, State
from dom0.errors import Busy, Conflict, Dom0Error, EngineError, NotFound, RolledBack
from dom0.health import Problem
from dom0.names import FAILED, HANDOVER, IMAGE, ROOT, short_id
from dom0.plan.desired import Role
from dom0.plan.labels import ROLE

PATIENCE = 180.0  # seconds for a new root container to answer, as the launcher waits; small machines are slow
PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between questions, growing: each one costs a start of Python
RESTARTS = 3  # of a new root container by the Engine before it counts as failed
STOP_GRACE = 20.0  # seconds for the old agent to end
CHECK = ("dom0", "agent", "--check")
TRACES = {HANDOVER, *NAMES} - {ROOT}

Say = Callable[[str], None]
Ask = Callable[[Engine, Container], Awaitable[bool]]
"""Whether the agent in that root container answers."""


async def ask_inside(engine: Engine, container: Container) -> bool:
    """Ask by a process in the container: works from anywhere, and costs a start of Python."""
    try:
        return (await engine.exec(container.id, CHECK, timeout=PATIENCE)).exit_code == 0
    except (Conflict, NotFound):
        return False  # it is between two starts


async def start_root(engine: Engine, image_id: str, say: Say, ask: Ask = ask_inside) -> None:
    """Run the root container of `image_id` where none runs. Raises Dom0Error with the end of its log."""
    result = await settle(engine, image_id, say, ask)
    if result.result is not Result.DONE:
        log = (await engine.logs(ROOT, tail=20)).strip()
        raise Dom0Error(f"{ROOT}: {result.reason}\n{log}".strip(), hint="its whole log: docker logs dom0")


async def hand_over(engine: Engine, image_id: str, say: Say) -> None:
    """Let `image_id` take over and wait until it has. Raises RolledBack if the old one runs again, Busy, Dom0Error."""
    await start_helper(engine, image_id)
    say(f"{HANDOVER} puts the new dom0 in the place of the old one")
    await follow_helper(engine)
    current = await _find(engine, ROOT)
    if current is None or current.image_id != image_id:
        failure = await last_failure(engine)
        why = failure.title if failure else "another change of its image came between"
        hint = f"its log: docker logs {FAILED}; what happened: docker logs {HANDOVER}"
        raise RolledBack(f"{ROOT}: {why}", hint=hint)
    with contextlib.suppress(TimeoutError):  # a helper that stays is for `forget_failure`
        async with asyncio.timeout(PATIENCE):
            while await _find(engine, HANDOVER) is not None:  # noqa: ASYNC110 -- it is the Engine that changes it
                await asyncio.sleep(PAUSE)


async def start_helper(engine: Engine, image_id: str) -> None:
    """Start the container that will do it. Raises Busy if one is at work."""
    await recover(engine, lambda line: None)
    await forget_failure(engine)
    try:
        helper = await engine.create_container(HANDOVER, helper_body(image_id))
    except Conflict as error:
        raise _busy() from error
    try:
        await engine.start_container(helper)
    except EngineError:
        await engine.remove_container(helper, force=True)
        raise


async def run_helper(engine: Engine, image_id: str, say: Say) -> None:
    """What the helper does. Its log and its container stay if the old one runs again, else it removes itself."""
    ended = await settle(engine, image_id, say)
    match ended.result:
        case Result.DONE:
            await engine.remove_container(HANDOVER, force=True)
        case Result.UNDONE:
            say(ended.reason or "the new dom0 did not answer; the old one runs again")
        case Result.FAILED:
            say(ended.reason)


async def recover(engine: Engine, say: Say) -> None:
    """Finish or undo a change that was cut off for good. Raises Busy while a helper is at work."""
    helper = await _find(engine, HANDOVER)
    if helper is not None and _is_at_work(helper):
        if helper.restart_count < RESTARTS:
            raise _busy()
        await engine.remove_container(helper.id, force=True)
    if wanted := wanted_after_cut(await look(engine)):
        await settle(engine, wanted, say)


async def forget_failure(engine: Engine) -> None:
    """Remove what a change that was undone has left to read: the new container, stopped, and the helper's."""
    for name in (HANDOVER, FAILED):
        container = await _find(engine, name)
        if container is not None and not (name == HANDOVER and _is_at_work(container)):
            await engine.remove_container(container.id, force=True)
    await remove_aside(engine)


async def remove_aside(engine: Engine) -> None:
    """Remove the root containers that the host's launcher, which deletes nothing, has moved out of the way."""
    for container in await engine.containers(labels=[f"{ROLE}={Role.ROOT}"]):
        if container.name.startswith(ASIDE):
            await engine.remove_container(container.id, force=True)


async def last_failure(engine: Engine) -> Problem | None:
    """For `dom0 status`: why the latest change of the dom0 image was undone. None when it was not."""
    helper = await _find(engine, HANDOVER)
    if helper is None or helper.state is not State.EXITED:  # no log can be had of one that is being removed
        return None
    lines = (await engine.logs(helper.id, tail=1)).strip().splitlines()
    return Problem(
        code="handover-failed",
        subject=ROOT,
        title=lines[-1] if lines else "the new dom0 did not answer; the old one runs again",
        hint=f"docker logs {FAILED}; then bring another image: dom0 up",
        since=helper.finished,
    )


async def settle(engine: Engine, wanted: str, say: Say, ask: Ask = ask_inside) -> End:
    """Do one step after the other until a root container of the image ID `wanted` runs, or the one before it again."""
    verdict, reason = None, ""
    while True:
        step = decide(await look(engine), wanted, verdict)
        if isinstance(step, End):
            return End(step.result, step.reason or reason)
        if isinstance(step, Start | Verify):
            verdict = await _judge(engine, step, say, ask)
            reason = verdict.reason or reason
        else:
            await _do(engine, step, wanted, say)


async def look(engine: Engine) -> RootContainers:
    """Raises Conflict if somebody else's container has one of our names."""
    current, following, previous, failed = [await _find(engine, name) for name in NAMES]
    return RootContainers(current, following, previous, failed)


async def _find(engine: Engine, name: str) -> Container | None:
    container = await find_container(engine, name)
    if container is not None and container.labels.get(ROLE) not in (Role.ROOT, Role.HANDOVER):
        raise Conflict(
            f"{name}: a container of this name is there that is none of dom0's",
            hint=f"give it another name: docker rename {name} other",
        )
    return container


async def _do(engine: Engine, step: Create | Stop | Rename | SetRestart | Remove, wanted: str, say: Say) -> None:
    match step:
        case Create(name):
            image = IMAGE if IMAGE in (await engine.image(wanted)).tags else wanted  # as a person would type it
            try:
                await engine.create_container(name, root_body(image))
            except Conflict:
                if await _find(engine, name) is None:
                    raise
                # else the host's launcher has made it meanwhile; the next look takes it as it is
        case Stop(container):
            say(f"stop {_say(container)}")
            await engine.stop_container(container.id, timeout=STOP_GRACE)
        case Rename(container, name):
            await engine.rename_container(container.id, name)
        case SetRestart(container, policy):
            await engine.update_container(container.id, UpdateBody(restart_policy=RestartPolicy(name=policy)))
        case Remove(container):
            await engine.remove_container(container.id, force=True)
        case _:
            assert_never(step)


async def _judge(engine: Engine, step: Start | Verify, say: Say, ask: Ask) -> StartResult:
    """Start it if need be, and ask until it answers, ends, or the time is over."""
    container = step.container
    if isinstance(step, Start):
        say(f"start {_say(container)}")
        try:
            await engine.start_container(container.id)
        except EngineError as error:
            if error.transient:
                raise
            return StartResult(container.id, good=False, reason=f"{_say(container)} does not start: {error.message}")
    pause = PAUSE
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                now = await engine.container(container.id)
                has_failed = now.restart_count >= RESTARTS
                if not now.running or (has_failed and now.state is State.RESTARTING):  # else its code is not said
                    return StartResult(container.id, good=False, reason=f"{_say(now)} exited with code {now.exit_code}")
                asked = time.monotonic()
                if not has_failed and await ask(engine, container):
                    return StartResult(container.id, good=True)
                # A question takes a slow machine seconds, and the processor from what it waits for.
                await asyncio.sleep(max(pause, time.monotonic() - asked))
                pause = min(pause * 1.5, LONGEST_PAUSE)
    except TimeoutError:
        reason = f"{_say(container)} did not answer within {PATIENCE:g} s"
        return StartResult(container.id, good=False, reason=reason)


async def has_traces(engine: Engine) -> bool:
    """Whether there is what a change of the root container makes, leaves or refuses, or the Engine does not say.

    Where there is nothing, which is nearly always, one question is all that this costs.
    """
    try:
        rows = await engine.containers()
    except EngineError:
        return True
    foreign = any(row.name == ROOT and row.labels.get(ROLE) != Role.ROOT for row in rows)
    return foreign or any(row.name in TRACES or row.name.startswith(ASIDE) for row in rows)


async def is_at_work(engine: Engine) -> bool:
    helper = await _find(engine, HANDOVER)
    return helper is not None and _is_at_work(helper)


def _is_at_work(helper: Container) -> bool:
    """Also while it removes itself: the Engine refuses to do that twice."""
    return helper.running or helper.state is State.REMOVING


async def follow_helper(engine: Engine) -> None:
    """Wait until the helper has ended, if there is one. One that cannot even start is removed, with what it left.

    Raises RolledBack with its log then.
    """
    while True:
        helper = await _find(engine, HANDOVER)
        if helper is None or not _is_at_work(helper):
            return
        if helper.restart_count >= RESTARTS:
            with contextlib.suppress(NotFound, Conflict):  # another follower removes it
                log = (await engine.logs(helper.id, tail=20)).strip()
                await recover(engine, lambda line: None)
                raise RolledBack(
                    f"{HANDOVER}: does not run in the new image\n{log}", hint="the old dom0 runs as before"
                )
        with contextlib.suppress(NotFound):
            await engine.wait_container(helper.id)
        await asyncio.sleep(PAUSE)


def _busy() -> Busy:
    return Busy(
        f"{HANDOVER}: another change of the dom0 image is under way", hint=f"watch it: docker logs -f {HANDOVER}"
    )


def _say(container: Container) -> str:
    return f"{container.name} of image {short_id(container.image_id)}"
