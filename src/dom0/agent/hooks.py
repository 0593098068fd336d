"""Runs Compose's lifecycle hooks in a container: one after the other, until one fails.

After a kill it is not known how far they came, and the next agent runs all of them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from dom0.engine.protocol import Engine
from dom0.errors import Conflict, EngineError, EngineUnreachable, NotFound
from dom0.plan.desired import Hook
from dom0.plan.hooks import PreStop, pre_stop_of
from dom0.plan.ownership import is_inherited
from dom0.printable import printable

log = logging.getLogger(__name__)

LAST_GRACE = 2.0  # seconds that hooks leave for the stop at least, as Kubernetes does
MOST_SAID = 200  # characters of a hook's output


async def run_pre_stop(engine: Engine, container_id: str, pre_stop: PreStop) -> float:
    """Whatever comes of it, the container is stopped. Returns the seconds that are left for that.

    Raises EngineUnreachable, NotFound.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + pre_stop.grace
    try:
        async with asyncio.timeout_at(deadline):
            await run_hooks(engine, container_id, "pre_stop", pre_stop.hooks)
    except TimeoutError:
        log.warning("container %.12s: pre_stop did not end within %g s", container_id, pre_stop.grace)
    except Conflict:
        pass  # it does not run any more, or is paused
    except (EngineUnreachable, NotFound):
        raise
    except EngineError as error:
        log.warning("container %.12s: %s", container_id, error.message)
    return max(deadline - clock(), min(pre_stop.grace, LAST_GRACE))


async def run_own_pre_stop(engine: Engine, container_id: str) -> float | None:
    """Those of the container's label, before a person stops it: as `run_pre_stop`, None where there are none.

    Only where we have written the label: one that came with an image would run what that image wants.
    """
    container = await engine.container(container_id)
    pre_stop = pre_stop_of(container)
    if pre_stop is None or is_inherited(container.labels, (await engine.image(container.image_id)).labels):
        return None
    return await run_pre_stop(engine, container_id, pre_stop)


async def run_hooks(engine: Engine, container_id: str, key: str, hooks: Sequence[Hook]) -> None:
    """Raises EngineError with the exit code and the end of the output; Conflict, NotFound: it does not run."""
    for number, hook in enumerate(hooks):
        name = f"{key}[{number}]"
        try:
            result = await engine.exec(
                container_id, hook.argv, user=hook.user, env=hook.env, workdir=hook.workdir, privileged=hook.privileged
            )
        except (EngineUnreachable, NotFound, Conflict):
            raise
        except EngineError as error:
            raise EngineError(f"{name}: {error.message}") from error
        if result.exit_code:
            said = printable(result.output.strip()[-MOST_SAID:], keep="\n\t")
            ended = f"{name} exited with code {result.exit_code}"
            raise EngineError(f"{ended}: {said}" if said else f"{ended} and printed nothing")
