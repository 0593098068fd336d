"""The launcher on a test host: the base OS's own program, run by busybox or another shell, and tiny root images for it.

An image here is busybox with a command and a health check; it is a root container by its label, as far as a launcher
can see. The picture comes from the Engine's socket.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dom0.testing import api, busybox
from dom0.testing.hosts import PATIENCE, Host, until
from dom0.testing.namespaces import Child

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "os/tree/usr/lib/dom0/launch"
DOCUMENT = ROOT / "docs/launcher.md"
_STATE, _RUN = "/var/lib/dom0/launcher", "/run/dom0/os"
_RUNS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
_HASTE = {"DOM0_GOOD_AFTER": "1", "DOM0_STEADY": "1", "DOM0_HEALTHY_WITHIN": "60", "DOM0_RETRY": "600"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a root container of an image does."""

    command: tuple[str, ...] = ("sh", "-c", _RUNS)
    health: str = "--interval=300ms --start-period=1s CMD true"
    role: str = "root"


HEALTHY = Kind()
UNCHECKED = Kind(health="")
EXITS = Kind(("sh", "-c", "exit 3"))
HANGS = Kind(health="--interval=300ms --start-period=1h CMD false")  # runs, and is never healthy
UNHEALTHY = Kind(health="--interval=300ms --retries=1 CMD false")
MISSING = Kind(("/no/such/program",))
BROKEN = {"exits": EXITS, "hangs": HANGS, "is unhealthy": UNHEALTHY, "does not start": MISSING}


def forget_stop(host: Host) -> None:
    """The Engine remembers that a person stopped a dom0 of an earlier test, and the launcher asks it."""
    host.docker("run", "--rm", "--name", "dom0", busybox.IMAGE, "true")


class Launcher:
    """Of one host. `start` it, `kill` it, `reboot` the machine under it."""

    def __init__(
        self, host: Host, *, interpreter: tuple[str, ...] = ("busybox", "sh"), program: Path = PROGRAM
    ) -> None:
        self.host = host
        self._program = program
        self._interpreter = interpreter
        self._process: Child | None = None
        self._log = host.root / "launch.log"
        self._log.write_bytes(b"")
        self._layer = host.root / "layer.tar"
        self._layer.write_bytes(busybox.layer())

    def image(self, kind: Kind, name: str = "dom0:latest") -> str:
        """Make an image, another one each time, and give it the name; returns its ID."""
        changes = [f"CMD {json.dumps(kind.command)}", f"LABEL dom0.role={kind.role} made={time.monotonic_ns()}"]
        changes += [f"HEALTHCHECK {kind.health}"] if kind.health else []
        words = [word for change in changes for word in ("--change", change)]
        self.host.docker("import", *words, str(self._layer), name)
        return self.id_of(name)

    def id_of(self, name: str) -> str:
        return str(self._ask(f"/images/{name}/json")["Id"])

    def start(self, **settings: str) -> None:
        assert self._process is None
        with self._log.open("ab") as log:
            argv = [*self._interpreter, str(self._program)]
            self._process = self.host.popen(argv, stdout=log, stderr=log, env=_HASTE | settings)

    def kill(self) -> None:
        """In the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def reboot(self, *, crash: bool = False, **settings: str) -> None:
        """The Engine and all its containers end, /run is empty, and the launcher starts beside the Engine."""
        self.shut_down(crash=crash)
        self.boot(**settings)

    def shut_down(self, *, crash: bool = False) -> None:
        self.stop()
        if crash:
            self.host.kill_engine()
        else:
            self.host.stop_engine()
        self.host.run(["rm", "-rf", "/run/dom0"])

    def boot(self, **settings: str) -> None:
        self.start(**settings)
        self.host.start_engine()

    # what there is

    def roots(self) -> dict[str, str]:
        """Name -> state of every root container."""
        rows = api.request(self.host.socket, "GET", "/containers/json", query={"all": "1"})
        return {r["Names"][0].removeprefix("/"): r["State"] for r in rows if r["Labels"].get("dom0.role") == "root"}

    def running(self) -> list[str]:
        return [name for name, state in self.roots().items() if state == "running"]

    def container(self, name: str = "dom0") -> dict[str, Any]:
        found: dict[str, Any] = self._ask(f"/containers/{name}/json")
        return found

    def told(self) -> dict[str, str]:
        """The state document."""
        lines = self.host.path(f"{_RUN}/launcher").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def recall(self, name: str) -> str:
        file = self.host.path(f"{_STATE}/{name}")
        return file.read_text().strip() if file.exists() else ""

    def record(self) -> list[str]:
        """The stages in the boot record, with their texts."""
        file = self.host.path("/run/dom0/boot.record")
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split("\t", 1)[1].replace("\t", " ").strip() for line in lines]

    def log(self) -> str:
        return self._log.read_text()

    # waiting

    def until(self, condition: Callable[[], T], *, within: float = PATIENCE) -> T:
        def story() -> str:
            seen = self.host.docker("ps", "--all", check=False)
            return f"{seen.stdout}{seen.stderr}\n{self.log()}"

        return until(condition, story, within=within)

    def until_runs(self, image: str, runs: str = "") -> dict[str, Any]:
        """Wait until dom0 of the image ID runs; `runs`: and the launcher tells that it is that kind."""

        def condition() -> dict[str, Any] | None:
            found = self.container()
            right = found["Image"] == image and found["State"]["Running"]
            return found if right and (not runs or self._tells(image, runs)) else None

        found = self.until(condition)
        assert found is not None
        return found

    def _tells(self, image: str, runs: str) -> bool:
        told = self.told()
        return (told["runs"], told["image"]) == (runs, image)

    def until_good(self, image: str) -> None:
        self.until(lambda: self.recall("good") == image and self.container()["Image"] == image)

    def until_tells(self, runs: str) -> Mapping[str, str]:
        def condition() -> Mapping[str, str] | None:
            told = self.told()
            return told if told["runs"] == runs else None

        found = self.until(condition)
        assert found is not None
        return found

    def _ask(self, target: str) -> Any:
        return api.request(self.host.socket, "GET", target)
