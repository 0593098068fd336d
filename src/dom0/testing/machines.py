"""A whole machine for tests: a host, a project in a directory, and the commands that a person would type there.

The picture comes from the Engine's and the agent's sockets, independent of the code under test.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dom0.agent.contract import PATHS, RESTART
from dom0.names import ROOT
from dom0.run import CommandFailed, Output
from dom0.testing import api
from dom0.testing.hosts import PATIENCE, Host, until
from dom0.testing.namespaces import Child, Stream

T = TypeVar("T")
GUEST_IMAGE = "guest/dom0:1"
NOTHING = """
    name: box
    services: {}
    """
OWNER = """
    name: owner
    x-dom0: {{rollout: {{monitor: 1s}}}}
    services:
      guest:
        image: guest/dom0:1
        volumes: ["{files}:{files}"]
        x-dom0:
          orchestrator:
            grants:
              images: {{use: ["*"], build: true}}
              ports: ["1-65535", "1-65535/udp"]
              paths: ["{files}"]
    """
"""What a whole machine in a scope needs; it reads what a person has in `files`."""
DOM0 = (sys.executable, "-m", "dom0")
RUN, STATE = "/run/dom0", "/var/lib/dom0"
AGENT_SOCKET = f"{RUN}/dom0.sock"


class Machine:
    """`project` is the directory that `dom0 up` gets; write its files with `write`."""

    def __init__(self, host: Host, project: Path) -> None:
        self.host = host
        self.project = project
        self._engine = host.socket
        self._dom0: Sequence[str] = DOM0
        self.docker_command: Sequence[str] = ("docker",)
        self._run, self.state = host.path(RUN), host.path(STATE)

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
        return self.host.run([*self._dom0, *arguments], check=check, timeout=timeout, env=env, cwd=self.project)

    def begin(self, *arguments: str, stdout: Stream = None, stderr: Stream = None) -> Child:
        """Start the `dom0` command and leave it running."""
        return self.host.popen([*self._dom0, *arguments], stdout=stdout, stderr=stderr, cwd=self.project)

    def up(self, *arguments: str, wait: bool = True, check: bool = True) -> Output:
        """With `wait` until it is known whether all stays well."""
        return self.dom0("up", *arguments, *(["--wait"] if wait else []), str(self.project), check=check)

    def docker(self, *arguments: str, check: bool = True) -> Output:
        return self.host.run([*self.docker_command, *arguments], check=check)

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
        return api.request(self._engine, "GET", target)

    def container(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/containers/{name}/json")
        return found

    def containers(self) -> dict[str, str]:
        """Name -> state of every container on the host."""
        rows = api.request(self._engine, "GET", "/containers/json", query={"all": "1"})
        return {row["Names"][0].removeprefix("/"): row["State"] for row in rows}

    def lives(self, *names: str) -> dict[str, tuple[str, str]]:
        """Name -> container ID and time of its start: the same again means that nobody touched it."""
        found = {name: self.container(name) for name in names}
        return {name: (document["Id"], document["State"]["StartedAt"]) for name, document in found.items()}

    def live(self, path: str) -> Path:
        """Where a file of the project is on the host, as containers have it."""
        return self.state / "project" / path

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
        found: dict[str, Any] = api.request(self._run / "dom0.sock", "GET", "/v1/status")
        return found

    def history(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = api.request(self._run / "dom0.sock", "GET", "/v1/history")
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
        logs = [*self.docker_command, "logs", "--tail", "40", "dom0"]
        parts = [[*self.docker_command, "ps", "--all"], [*self._dom0, "status"], logs]
        return "\n".join(self._say(argv) for argv in parts)

    def _say(self, argv: list[str]) -> str:
        try:
            said = self.host.run(argv, check=False, timeout=20)
        except CommandFailed as error:
            return error.message
        return said.stdout + said.stderr


class GuestMachine(Machine):
    """One whose root container is a service of another machine, and has its Engine through a scoped socket.

    Names, files and documents are those that the guest has, who reads what is beside `project`. `owner` is where the
    other machine's project lies.
    """

    def __init__(self, host: Host, project: Path, owner: Path) -> None:
        super().__init__(host, project)
        owners = Machine(host, owner)
        owners.write(NOTHING)
        owners.build(tag=GUEST_IMAGE)
        owners.write(OWNER.format(files=project.parent))
        owners.up()
        socket = f"{RUN}/scopes/guest/docker.sock"
        self._engine = host.path(socket)
        self.docker_command = ("docker", "--host", f"unix://{socket}")
        self._dom0 = ("docker", "exec", "--workdir", str(project), "guest.dom0", "dom0")
        volumes = "/var/lib/docker/volumes/owner_guest-{}/_data"
        self._run, self.state = host.path(volumes.format("run")), host.path(volumes.format("state"))
        self.until_good()


def docker_run(image: str) -> list[str]:
    """The root container as a person would start it, by the page on concepts."""
    return [
        *("docker", "run", "--detach", "--name", ROOT, "--restart", RESTART),
        *("--privileged", "--network", "host", "--pid", "host"),
        *(word for path in PATHS for word in ("--volume", f"{path}:{path}")),
        image,
    ]
