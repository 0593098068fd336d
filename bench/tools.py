"""The two ways to keep a project running that are compared, with one interface, and what the Engine says about both."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from bench import projects
from dom0.testing import api
from dom0.testing.hosts import Host
from dom0.testing.machines import AGENT_SOCKET

DOM0 = str(Path(sys.executable).with_name("dom0"))
KEPT = re.compile(r"/[0-9a-f]{12}_")  # beginning of a name
TIMEOUT = 600.0  # seconds for one command; what hangs fails the run


@dataclass(frozen=True)
class Up:
    """Seconds from the start of the command."""

    returned: float
    all_running: float  # when the last container was started; below 0 if none was

    @property
    def after(self) -> float:
        """From then until the command returned."""
        return self.returned - self.all_running


class Tool(Protocol):
    name: str  # also of the project

    def write(self, text: str) -> None: ...
    def up(self, *, healthy: bool = False) -> Up: ...
    def settle(self) -> None: ...
    def down(self) -> float: ...
    def status(self) -> float: ...


class Compose:
    name = "compose"

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._directory = directory / self.name

    def write(self, text: str) -> None:
        projects.write(self._directory, text)

    def up(self, *, healthy: bool = False) -> Up:
        return measure_up(self._host, self._argv("up", "--detach", *(["--wait"] if healthy else [])), self.name)

    def settle(self) -> None:
        """What `up` began has ended when it returns."""

    def down(self) -> float:
        return seconds(self._host, self._argv("down"))

    def status(self) -> float:
        return seconds(self._host, self._argv("ps"))

    def _argv(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "--project-directory", str(self._directory), *arguments]


class Dom0:
    """`dom0 up` always returns when everything is ready, and healthy where it can say so."""

    name = "machine"

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._directory = directory / self.name

    def write(self, text: str) -> None:
        projects.write(self._directory, text)

    def up(self, *, healthy: bool = False) -> Up:
        return measure_up(self._host, [DOM0, "up", str(self._directory)], self.name)

    def settle(self) -> None:
        """Wait until it is good, and its dom0 image has taken over."""
        deadline = time.monotonic() + TIMEOUT
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise RuntimeError("it did not become good")
            time.sleep(0.2)

    def _is_settled(self) -> bool:
        try:
            status = api.request(self._host.path(AGENT_SOCKET), "GET", "/v1/status")
        except (OSError, api.EngineRefused):
            return False
        generation = status["generation"] or {}
        in_place = generation.get("dom0_image") == status["dom0_image"]
        return generation.get("outcome") == "good" and in_place and not status["steps"]

    def down(self) -> float:
        return seconds(self._host, [DOM0, "down"])

    def status(self) -> float:
        return seconds(self._host, [DOM0, "status"])

    def build(self) -> float:
        return seconds(self._host, [DOM0, "build", str(self._directory)])


def seconds(host: Host, argv: list[str]) -> float:
    """Wall time of `argv` on `host`. Raises CommandFailed."""
    start = time.monotonic()
    host.run(argv, timeout=TIMEOUT)
    return time.monotonic() - start


def measure_up(host: Host, argv: list[str], project: str) -> Up:
    clock = time.time()
    returned = seconds(host, argv)
    return Up(returned, max(started(host, project), default=clock) - clock)


def started(host: Host, project: str) -> list[float]:
    """When each container of the project started, in seconds since the epoch. Raises if one does not run.

    What dom0 keeps, stopped, until the one in its place has proved itself has another name.
    """
    found = []
    for row in api.request(host.socket, "GET", "/containers/json", query={"all": "1", "filters": _label(project)}):
        state = api.request(host.socket, "GET", f"/containers/{row['Id']}/json")["State"]
        if not state["Running"]:
            if KEPT.match(row["Names"][0]):
                continue
            raise RuntimeError(f"{row['Names'][0]}: {state['Status']}: {state['Error']}")
        found.append(timestamp(state["StartedAt"]))
    return found


def timestamp(text: str) -> float:
    """The Engine writes nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def service_containers(host: Host, project: str, service: str) -> list[dict[str, Any]]:
    filters = f'{{"label": ["com.docker.compose.project={project}", "com.docker.compose.service={service}"]}}'
    found: list[dict[str, Any]] = api.request(host.socket, "GET", "/containers/json", query={"filters": filters})
    return found


def _label(project: str) -> str:
    return f'{{"label": ["com.docker.compose.project={project}"]}}'
