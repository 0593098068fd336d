"""What is done without click: to load it would be most of the time of an answer that is asked for again and again, is
in the way of the Engine, where the agent waits for it in a boot, and lets Compose wait in an `up`.

Only a command in its plainest form; for all else the command itself asks, and says what it found.
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
    """Whether that was all. Raises Dom0Error, as the command would."""
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
    """Until it is told to end. Nothing of it is loaded before the Engine answers."""
    from dom0.engine import address, answer

    answer.await_engine(address.find(None, os.environ, Path.home()), within=_ENGINE_WITHIN)

    gc.disable()  # of what is loaded nothing is garbage, now and later
    import asyncio

    from dom0 import daemon, log

    gc.freeze()
    gc.enable()
    log.configure(os.environ.get("DOM0_LOG", "info"))
    asyncio.run(daemon.run())


def _up(directory: Path | None) -> bool:
    from dom0.cli import unchanged

    project = unchanged.find_project(directory)
    if project is None:
        return False
    machine, changed = unchanged.look(project, IMAGE)
    if machine is not None:
        terminal.say(machine.text)
    else:
        from dom0.cli.bring_up import run

        run(project, IMAGE, changed=changed)
    return True
