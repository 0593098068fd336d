"""Things on a host that dom0 did not make and must not touch, whatever happens to its own."""

from __future__ import annotations

from typing import Any

from dom0.testing.busybox import IMAGE
from dom0.testing.machines import Machine

NAME = "foreign"


class Foreign:
    """A container, a network, a volume and an image; two more containers look much like ones of project `project`."""

    def __init__(self, machine: Machine, project: str) -> None:
        self.machine = machine
        self._names = (NAME, f"{project}-foreign-1", "dom0-foreign")
        machine.docker("network", "create", NAME)
        machine.docker("volume", "create", NAME)
        recipe = f"FROM {IMAGE}\nLABEL {NAME}=1\n"  # an image of its own: dom0 gives those it uses another name
        machine.host.run(["docker", "build", "--quiet", "--tag", f"{NAME}:1", "-"], stdin=recipe.encode())
        for name in self._names:
            self._run(name, "--label", f"com.docker.compose.project={project}", "--label", "dom0.role=service")
        self._before = self._look()

    def is_untouched(self) -> bool:
        """Assert it; what differs is shown. True, to be used in conditions."""
        now = self._look()
        for name, document in self._before.items():
            assert now[name] == document, name
        return True

    def has_restarted_only(self) -> bool:
        """As `is_untouched` after a restart of the Engine, which starts containers anew."""
        for name, document in self._before.items():
            now = _without_life(self._look()[name])
            assert now == _without_life(document), name
        return True

    def _run(self, name: str, *options: str) -> None:
        place = ("--network", NAME, "--volume", f"{NAME}:/data", "--restart", "always", "--init", "--name", name)
        self.machine.docker("run", "--detach", *place, *options, f"{NAME}:1", "sleep", "100000")

    def _look(self) -> dict[str, Any]:
        found = {name: self.machine.container(name) for name in self._names}
        return found | {
            "network": self.machine.ask(f"/networks/{NAME}"),
            "volume": self.machine.ask(f"/volumes/{NAME}"),
            "image": self.machine.ask(f"/images/{NAME}:1/json"),
        }


def _without_life(document: dict[str, Any]) -> dict[str, Any]:
    """Without what a restart of the Engine changes."""
    passing = ("State", "NetworkSettings", "Containers", "SandboxID", "RestartCount")
    return {key: value for key, value in document.items() if key not in passing}
