"""A farm of whole machines, each on a host with an Engine of its own; its server is a process on the first of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from click.testing import CliRunner, Result

from dom0.cli.commands import cli
from dom0.run import Output
from dom0.testing import chain
from dom0.testing.hosts import Host, Switch, until
from dom0.testing.machines import DOM0, Machine
from dom0.testing.namespaces import Child

T = TypeVar("T")
_EMPTY = "name: box\nx-dom0: {rollout: {monitor: 1s}}\n"


@contextmanager
def hosts_on_a_switch(configs: Mapping[str, Mapping[str, Any]], network: str) -> Iterator[dict[str, Host]]:
    """By name, each with dom0-base and its Engine's configuration, at `network`.1, `network`.2 and so on."""
    switch = Switch()
    made: dict[str, Host] = {}
    try:
        for number, (name, config) in enumerate(configs.items(), 1):
            made[name] = Host(name=name, switch=switch, address=f"{network}.{number}/24", config=config)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(chain.provide, made.values()))
        yield made
    finally:
        for host in made.values():
            host.stop()
        switch.stop()


def look(farm: Path, *arguments: str) -> Result:
    """What `dom0 farm ...` says of the farm in that directory, without another process: for what is looked at again and
    again.
    """
    return CliRunner().invoke(cli, ["farm", *arguments, "--dir", str(farm)], standalone_mode=False)


class Farm:
    """`settings` are lines of farm.yaml beside its name. Write its roles, start its machines and `enroll` them."""

    def __init__(self, hosts: Mapping[str, Host], directory: Path, settings: str) -> None:
        self.path = directory / "attic"
        self.nodes: dict[str, Machine] = {}
        for name, host in hosts.items():
            (directory / name).mkdir()
            self.nodes[name] = Machine(host, directory / name)
        self.machine = next(iter(self.nodes.values()))
        self.machine.dom0("farm", "init", str(self.path))
        shutil.rmtree(self.path / "roles" / "hello")
        (self.path / "farm.yaml").write_text(f"name: attic\n{settings}\n")
        self.server: Child | None = None

    def serve(self, *argv: str) -> str:
        """Returns what nodes join with. `argv`: what is run in the place of dom0."""
        printed = self.path / "served"
        with printed.open("wb") as log:
            words = [*(argv or DOM0), "farm", "serve", "--dir", str(self.path), "--json"]
            self.server = self.machine.host.popen(words, stdout=log)
        return str(json.loads(self.until(printed.read_text))["join"])

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait(60)

    def start(self) -> None:
        """Each machine runs a project without a service."""
        for machine in self.nodes.values():
            machine.write(_EMPTY)
        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(machine.up, wait=False) for machine in self.nodes.values()]:
                done.result()

    def enroll(self, roles: Mapping[str, str]) -> None:
        """By the names of its machines, on which dom0 runs. It is served then."""
        server = self.serve()
        joining = [machine.begin("farm", "join", server) for machine in self.nodes.values()]
        codes = self.until(lambda: found if (found := self.codes()).keys() == roles.keys() else {})
        for name, code in codes.items():
            self.command("approve", code, "--as", name, "--role", roles[name])
        assert [one.wait(60) for one in joining] == [0] * len(joining)

    def codes(self) -> dict[str, str]:
        """Of those that wait, by what they call themselves."""
        return {one["hostname"]: one["code"] for one in self._look("nodes") if one["code"]}

    def write(self, role: str, compose: str, **files: str) -> None:
        for name, text in {"compose.yaml": compose, **files}.items():
            path = self.path / "roles" / role / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def until(self, condition: Callable[[], T]) -> T:
        return until(condition, self._story)

    def _story(self) -> str:
        said = [self.command("status", check=False).stdout]
        for name, machine in self.nodes.items():
            agent = machine.docker("logs", "--tail", "20", "dom0", check=False)
            containers = machine.docker("ps", "--all", check=False).stdout
            said.append(f"--- {name}\n{containers}{agent.stdout}{agent.stderr}")
        return "\n".join(said)

    def command(self, *arguments: str, check: bool = True) -> Output:
        return self.machine.dom0("farm", *arguments, "--dir", str(self.path), check=check)

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json").stdout)

    def up(self) -> int:
        """The revision that is current then."""
        return int(self.ask("up")["revision"])

    def status(self) -> Any:
        return self._look("status")

    def _look(self, command: str) -> Any:
        return json.loads(look(self.path, command, "--json").stdout)

    def until_all_run(self) -> None:
        """The current revision, and have soaked."""
        self.until(lambda: look(self.path, "status").return_value == 0)

    def until_said(self, name: str, revision: int, state: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            node = next(one for one in self.status()["nodes"] if one["name"] == name)
            return node if (node["revision"], node["state"]) == (revision, state) else None

        said = self.until(found)
        assert said is not None
        return said
