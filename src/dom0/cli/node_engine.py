"""The Engine of a node of a farm, asked for on the machine of the farm's server: `dom0 -H NODE`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import msgspec

from dom0.errors import Dom0Error, ProjectError, UsageError
from dom0.farms.directory import FarmDirectory
from dom0.http import blocking
from dom0.names import FARM_SOCKET

VARIABLE = "DOM0_FARM"
ANSWER_WITHIN = 30.0  # seconds


class Reached(msgspec.Struct):
    """What the server answers: a socket, or why there is none."""

    socket: str = ""
    message: str = ""
    hint: str = ""


def find_by_option(name: str) -> str:
    """For `-H NAME`. Raises UsageError, Dom0Error."""
    try:
        return find_engine(FarmDirectory(Path(os.environ.get(VARIABLE) or ".")), name)
    except ProjectError as error:
        what = f"-H {name}: is no address of an Engine, and of no farm's node: {error.message}"
        hint = f"unix:///path, tcp://host:port or ssh://user@host; a node, on its server: {VARIABLE}=DIR dom0 -H NODE"
        raise UsageError(what, hint=hint) from error


def find_engine(farm: FarmDirectory, name: str) -> str:
    """The node's Engine, as DOCKER_HOST has it. Raises UsageError for no node of the farm, Dom0Error."""
    settings = farm.settings()
    farm.nodes().named(name)
    try:
        connection = blocking.connect(os.path.realpath(farm.reach / FARM_SOCKET), timeout=ANSWER_WITHIN)
        with blocking.ask(connection, "POST", f"/nodes/{quote(name)}", timeout=ANSWER_WITHIN) as answer:
            found = msgspec.json.decode(answer.read(), type=Reached)
    except PermissionError as error:
        raise Dom0Error(
            f"{name}: nodes are reached by the user who serves the farm", hint="as that user, or as root"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        what = f"{name}: cannot be reached: the server of {settings.name} does not run on this machine"
        raise Dom0Error(what, hint=f"here, where it runs; or start it: dom0 farm serve --dir {farm.path}") from error
    if not found.socket:
        raise Dom0Error(found.message, hint=found.hint)
    return f"unix://{found.socket}"
