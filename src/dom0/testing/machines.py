"""A whole machine for tests: a host, a project in a directory, and the commands that a person would type there.

The picture comes from the Engine's and the agent's sockets, independent of the code under test.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dom0.agent.contract import PATHS, RESTART
from dom0.names import ROOT
from dom0.run import CommandFailed, Output
from dom0.testing import api
from dom0.testing.hosts import PATIENCE, Host, until
from dom0.testing.namespaces import Child, Stream

T = TypeVar("T")
AGENT_SOCKET = "/run/dom0/dom0.sock"


class Machine:
    """`project` is the directory that `dom0 up` gets; write its files with `write`."""

    def __init__(self, host: Host, project: Path) -> None:
        self.host = host
        self.project = project

    # what a person does

    def write(self, compose: str, files: Mapping[str, str] = {}) -> None:
        """Write compose.yaml and other files of the project; what else lies there stays."""
        for name, content in {"compose.yaml": textwrap.dedent(compose), **files}.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def dom0(
        self, *arguments: str, check: bool = True, timeout: float = PATIENCE, env: Mapping[str, str] | None = None
    ) -> Output:
        """Run the `dom0` command on the host. Raises CommandFailed."""
        return self.host.run([*DOM0, *arguments], check=check, timeout=timeout, env=env, cwd=self.project)

    def begin(self, *arguments: str, stdout: Stream = None, stderr: Stream = None) -> Child:
        """Start the `dom0` command and leave it running."""
        return self.host.popen([*DOM0, *arguments], stdout=stdout, stderr=stderr, cwd=self.project)

    def up(self, *arguments: str, wait: bool = True, check: bool = True) -> Output:
        """With `wait` until it is known whether all stays well."""
        return self.dom0("up", *arguments, *(["--wait"] if wait else []), str(self.project), check=check)

    def docker(self, *arguments: str, check: bool = True) -> Output:
        return self.host.docker(*arguments, check=check)

    def run_by_hand(self, image: str = "dom0:latest") -> None:
        """Start the root container by the documented `docker run`."""
        self.host.run(docker_run(image))

    def build(self, *, tag: str = "dom0:latest") -> str:
        """Build the project's image and return its ID."""
        self.dom0("build", "--quiet", "--tag", tag, str(self.project))
        return self.image_id(tag)

    # what there is

    def ask(self, target: str) -> Any:
        """One GET on the Engine. Raises EngineRefused."""
        return api.request(self.host.socket, "GET", target)

    def container(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/containers/{name}/json")
        return found

    def containers(self) -> dict[str, str]:
        """Name -> state of every container on the host."""
        rows = api.request(self.host.socket, "GET", "/containers/json", query={"all": "1"})
        return {row["Names"][0].removeprefix("/"): row["State"] for row in rows}

    def lives(self, *names: str) -> dict[str, tuple[str, str]]:
        """Name -> container ID and time of its start: the same again means that nobody touched it."""
        found = {name: self.container(name) for name in names}
        return {name: (document["Id"], document["State"]["StartedAt"]) for name, document in found.items()}

    def live(self, path: str) -> Path:
        """Where a file of the project is on the host, as containers have it."""
        return self.host.path(f"/var/lib/dom0/project/{path}")

    def variable(self, container: str, name: str) -> str:
        """What the container was created with in its environment."""
        words: list[str] = self.container(container)["Config"]["Env"]
        return next(word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}="))

    def image_id(self, name: str) -> str:
        return str(self.ask(f"/images/{name}/json")["Id"])

    def output(self, name: str) -> str:
        """What the container said."""
        said = self.docker("logs", name)
        return said.stdout + said.stderr

    def status(self) -> dict[str, Any]:
        """The agent's own word. Raises OSError, EngineRefused while none answers."""
        found: dict[str, Any] = api.request(self.host.path(AGENT_SOCKET), "GET", "/v1/status")
        return found

    def history(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = api.request(self.host.path(AGENT_SOCKET), "GET", "/v1/history")
        return found

    # waiting

    def until(self, condition: Callable[[], T], *, within: float = PATIENCE) -> T:
        return until(condition, self._story, within=within)

    def until_good(self, generation: int | None = None) -> dict[str, Any]:
        """Wait until the current generation is good and everything as desired; `generation`: that very one."""

        def good() -> dict[str, Any] | None:
            found = self.status()
            current = found["generation"]
            if current is None or generation not in (None, current["number"]):
                return None
            return found if current["outcome"] == "good" and found["converged"] else None

        found = self.until(good)
        assert found is not None
        return found

    def until_running(self, name: str, *, not_id: str = "") -> dict[str, Any]:
        """Wait until the container runs; `not_id`: and is another one than that."""

        def running() -> dict[str, Any] | None:
            found = self.container(name)
            return found if found["State"]["Running"] and found["Id"] != not_id else None

        found = self.until(running)
        assert found is not None
        return found

    def _story(self) -> str:
        parts = [["docker", "ps", "--all"], [*DOM0, "status"], ["docker", "logs", "--tail", "40", "dom0"]]
        return "\n".join(self._say(argv) for argv in parts)

    def _say(self, argv: list[str]) -> str:
        try:
            said = self.host.run(argv, check=False, timeout=20)
        except CommandFailed as error:
            return error.message
        return said.stdout + said.stderr


DOM0 = (sys.executable, "-m", "dom0")


def docker_run(image: str) -> list[str]:
    """The root container as a person would start it, by the page on concepts."""
    return [
        *("docker", "run", "--detach", "--name", ROOT, "--restart", RESTART),
        *("--privileged", "--network", "host", "--pid", "host"),
        *(word for path in PATHS for word in ("--volume", f"{path}:{path}")),
        image,
    ]
