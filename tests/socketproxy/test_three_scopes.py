"""Three scopes and somebody without one work at random on one Engine, with the same names. Each has what it made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dom0.testing import api, scopes
from dom0.testing.api import EngineRefused
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
NAMES = ("web", "mail", "cache", "web-1")  # none may begin an ID, as "db" may: the Engine takes it for one
PREDEFINED = {"bridge", "host", "none"}
STEPS = 60


class Tenant:
    """One who works at a socket and remembers what it was told."""

    def __init__(self, socket: Path, random: Random) -> None:
        self.socket = socket
        self.random = random
        self.containers: set[str] = set()
        self.networks: set[str] = set()
        self.volumes: set[str] = set()

    def work(self) -> None:
        steps: tuple[Callable[[str], None], ...] = (
            self._create,
            self._create,
            self._remove,
            self._rename,
            self._create_network,
            self._remove_network,
            self._create_volume,
            self._remove_volume,
            self._prune,
        )
        for _ in range(STEPS):
            self.random.choice(steps)(self.random.choice(NAMES))

    def _ask(self, method: str, target: str, body: Any = None, **query: str) -> Any:
        """None where it is refused."""
        try:
            return api.request(self.socket, method, target, body, query=query)
        except EngineRefused:
            return None

    def _create(self, name: str) -> None:
        volume, network = self.random.choice(NAMES), self.random.choice(("none", *NAMES))
        host = {"Binds": [f"{volume}:/data"], "NetworkMode": network}
        asked = {"Image": "busybox:test", "Cmd": ["true"], "HostConfig": host}
        if network in self.networks | {"none"} and self._ask("POST", "/containers/create", asked, name=name):
            self.containers.add(name)
            self.volumes.add(volume)

    def _remove(self, name: str) -> None:
        if self._ask("DELETE", f"/containers/{name}", force="1") is not None:
            self.containers.remove(name)

    def _rename(self, name: str) -> None:
        new = self.random.choice(NAMES)
        if self._ask("POST", f"/containers/{name}/rename", name=new) is not None:
            self.containers.remove(name)
            self.containers.add(new)

    def _create_network(self, name: str) -> None:
        if self._ask("POST", "/networks/create", {"Name": name, "CheckDuplicate": True}):
            self.networks.add(name)

    def _remove_network(self, name: str) -> None:
        if self._ask("DELETE", f"/networks/{name}") is not None:
            self.networks.remove(name)

    def _create_volume(self, name: str) -> None:
        if self._ask("POST", "/volumes/create", {"Name": name}):
            self.volumes.add(name)

    def _remove_volume(self, name: str) -> None:
        if self._ask("DELETE", f"/volumes/{name}") is not None:
            self.volumes.remove(name)

    def _prune(self, _name: str) -> None:
        if self.random.randrange(3) == 0 and self._ask("POST", "/containers/prune") is not None:
            self.containers.clear()
        if answer := self._ask("POST", "/networks/prune"):
            self.networks -= set(answer["NetworksDeleted"] or ())

    def sees(self) -> tuple[set[str], set[str], set[str]]:
        return seen(self.socket)


def seen(socket: Path) -> tuple[set[str], set[str], set[str]]:
    """Names of containers, networks and volumes."""
    containers = api.request(socket, "GET", "/containers/json", query={"all": "1"})
    networks = {row["Name"] for row in api.request(socket, "GET", "/networks")}
    volumes = api.request(socket, "GET", "/volumes")["Volumes"] or ()
    return {row["Names"][0][1:] for row in containers}, networks - PREDEFINED, {row["Name"] for row in volumes}


def test_each_has_what_it_made(engine_host: Host, tmp_path: Path) -> None:
    seed = Random().getrandbits(64)  # noqa: S311 -- no secret
    with ExitStack() as stack:
        tenants = {}
        for scope in ("guest", "other", "guest-2"):
            directory = tmp_path / scope
            directory.mkdir()
            path = stack.enter_context(scopes.served(engine_host, directory, "images: {use: [busybox]}", scope=scope))
            tenants[f"{scope}."] = Tenant(path, Random(f"{seed} {scope}"))  # noqa: S311
        engine = Tenant(engine_host.socket, Random(f"{seed}"))  # noqa: S311
        engine._prune = lambda _name: None  # type: ignore[method-assign] # the Engine's own takes everybody's
        with ThreadPoolExecutor(4) as threads:
            for work in [threads.submit(tenant.work) for tenant in (engine, *tenants.values())]:
                work.result()
        everything = [set(engine.containers), set(engine.networks), set(engine.volumes)]
        for prefix, tenant in tenants.items():
            made = (tenant.containers, tenant.networks, tenant.volumes)
            assert tenant.sees() == made, f"seed {seed}, {prefix}"
            for all_of_them, own in zip(everything, made, strict=True):
                all_of_them |= {prefix + name for name in own}
        assert seen(engine_host.socket) == tuple(everything), f"seed {seed}"
