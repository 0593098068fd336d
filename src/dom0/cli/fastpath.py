"""What runs without click, whose import takes longer than a health check or an `up` with nothing to do, slows the
Engine at a boot, and delays Compose in an `up`.

Only commands in their plainest form; all others are left to click.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

from dom0 import terminal
from dom0.names import IMAGE

ANSWER_WITHIN = 20.0  # seconds; the image's health check gives up after thirty
_ENGINE_WITHIN = 60.0  # seconds; then the agent says itself that there is none


def answer(argv: Sequence[str]) -> bool:
    """Whether `argv` has been carried out. Raises Dom0Error, as the command would."""
    match argv:
        case ["agent", "--check"]:
            return _agent_answers()
        case ["agent"]:
            run_agent()
            return True
        case ["up"]:
            return _up(None)
        case ["up", directory] if directory[:1] not in ("", "-"):
            return _up(Path(directory))
    return False


def _agent_answers() -> bool:
    from dom0.cli.places import agent_socket
    from dom0.http import blocking

    try:
        connection = blocking.connect(str(agent_socket()))
        with blocking.ask(connection, "GET", "/v1/status", timeout=ANSWER_WITHIN) as answer:
            return answer.status == blocking.OK
    except OSError:
        return False


def run_agent() -> None:
    """Until SIGTERM. Nothing of the agent is loaded before the Engine answers."""
    from dom0.engine import address, answer

    where = address.find(None, os.environ, Path.home())
    answer.await_engine(where, within=_ENGINE_WITHIN)
    asked = answer.ask_info(where)

    gc.disable()  # imports make no garbage
    import asyncio

    from dom0 import daemon, log

    gc.freeze()
    gc.enable()
    log.configure(os.environ.get("DOM0_LOG", "info"))
    asyncio.run(daemon.run(answer.take_info(asked)))


def _up(directory: Path | None) -> bool:
    from dom0.cli import unchanged

    project = unchanged.find_project(directory)
    if project is None:
        return False
    machine, image = unchanged.look(project, IMAGE)
    if machine is not None:
        terminal.say(machine.text)
        return True
    from dom0.cli.root_start import RootStart

    with RootStart() as root:
        image = root.begin_if_current(project) if image is None else image
        from dom0.cli.bring_up import run

        run(project, IMAGE, image=image, root=root)
    return True
