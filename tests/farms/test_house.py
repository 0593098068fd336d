"""The example house as its README says, on two hosts: a visitor notices neither a good revision nor a bad one, and both
machines are back after a power cut.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dom0.run import Output
from dom0.testing import chain
from dom0.testing.hosts import Host, Switch, switch_on
from dom0.testing.machine_farm import look
from dom0.testing.machines import DOM0, Machine
from dom0.testing.namespaces import Child
from dom0.testing.pages import plain_lines

pytestmark = [pytest.mark.engine, pytest.mark.chain, pytest.mark.timeout(900)]
log = logging.getLogger(__name__)
README = (Path(__file__).parents[2] / "examples/house/README.md").read_text()
ADDRESSES = {"nas": "10.9.1.1", "pi": "10.9.1.2"}
VISIT = ["curl", "-sS", "--fail", "--max-time", "60", f"http://{ADDRESSES['pi']}:8080/cgi-bin/visit"]


class House:
    """`serve` it."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        self.nodes = {}
        for name, host in hosts.items():
            (directory / name).mkdir()
            self.nodes[name] = Machine(host, directory / name)
        with ThreadPoolExecutor() as threads:
            list(threads.map(self.begin, self.nodes.values()))
        self.nas = self.nodes["nas"]
        self.path = self.nas.project / "attic"
        self.shown(self.nas.dom0("farm", "init", "--example", "house", "attic"))
        (self.path / "roles/web/.env").write_text(f"STORE={ADDRESSES['nas']}\n")
        self.server: Child | None = None

    @staticmethod
    def begin(machine: Machine) -> None:
        chain.provide(machine.host)
        machine.dom0("init", "house")
        machine.dom0("up", "house")

    def shown(self, said: Output) -> None:
        assert plain_lines(said.stdout) <= plain_lines(README)

    def serve(self) -> str:
        """Returns what machines join with: the address of nas there, where another one leads outside."""
        printed = self.path / "served"
        with printed.open("wb") as log:
            self.server = self.nas.begin("farm", "serve", "--dir", str(self.path), "--json", stdout=log)
        _, _, port_and_fingerprint = json.loads(self.nas.until(printed.read_text))["join"].partition(":")
        return f"{ADDRESSES['nas']}:{port_and_fingerprint}"

    def command(self, *arguments: str, check: bool = True) -> Output:
        return self.nas.host.run([*DOM0, *arguments], cwd=self.path, check=check, timeout=600)

    def status(self) -> Any:
        return json.loads(look(self.path, "status", "--json").stdout)

    def until_all_run(self) -> None:
        assert self.nas.until(lambda: look(self.path, "status").return_value == 0)

    def enroll(self, name: str, role: str, join: str) -> None:
        joining = self.nodes[name].begin("farm", "join", join)

        def code() -> str:
            waiting = json.loads(self.command("farm", "nodes", "--json").stdout)
            return next((str(one["code"]) for one in waiting if one["code"]), "")

        self.shown(self.command("farm", "approve", self.nas.until(code), "--as", name, "--role", role))
        assert joining.wait(60) == 0


@pytest.fixture(scope="module")
def house(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    switch, hosts = Switch(), dict[str, Host]()
    try:
        for name, address in ADDRESSES.items():
            hosts[name] = Host(name=name, switch=switch, address=f"{address}/24", outside=True)
        made = House(hosts, tmp_path_factory.mktemp("house"))
        chain.provide_ambassador(hosts["nas"])
        join = made.serve()
        made.enroll("nas", "store", join)
        made.enroll("pi", "web", join)
        yield made
    finally:
        for host in hosts.values():
            host.stop()
        switch.stop()


class Visitor(threading.Thread):
    """Comes again and again, from the other machine, until it is told to stop."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.host = house.nas.host
        self.is_over = threading.Event()
        self.visits: list[Output] = []

    def run(self) -> None:
        while not self.is_over.is_set():
            self.visits.append(self.host.run(VISIT, check=False))

    def __enter__(self) -> Visitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.join()

    def assert_nothing_lost(self, before: int) -> int:
        """Each visit was counted, in its turn. Returns the number of the last one."""
        expected = [f"visit {before + 1 + number}\n" for number in range(len(self.visits))]
        assert [one.stdout or one.stderr for one in self.visits] == expected
        return before + len(self.visits)


def test_the_readme_from_the_first_revision_to_a_bad_one_that_no_visitor_notices(house: House) -> None:
    up = house.command("farm", "up")
    house.shown(Output(0, "".join(up.stdout.partition("revision")[1:]), ""))
    house.until_all_run()
    house.shown(house.command("farm", "status"))
    assert house.nas.host.run(VISIT).stdout == "visit 1\n"
    file = house.path / "roles/web/page/Dockerfile"
    good = file.read_text()
    with Visitor(house) as visitor:
        file.write_text(good.replace('"-p", "80"', '"-p", "81"'))
        house.command("farm", "up")
        house.nas.until(lambda: house.status()["paused"] and not house.status()["nodes"][0]["waits"])
        assert house.status()["nodes"][1]["state"] == "failed"
        house.shown(house.command("farm", "status", check=False))
        house.shown(house.command("farm", "rollback"))
        house.until_all_run()
        file.write_text(good.replace("a house", "another house"))
        house.command("farm", "up")
        house.until_all_run()
    last = visitor.assert_nothing_lost(1)
    log.info("%d visits", len(visitor.visits))
    assert house.command("-H", "nas", "exec", "redis", "redis-cli", "get", "visits").stdout == f"{last}\n"
    page = house.nas.host.run(["curl", "-sS", VISIT[-1].removesuffix("cgi-bin/visit")]).stdout
    assert page == "another house\n"


def test_after_a_power_cut_of_the_whole_house_all_run_what_they_ran(house: House) -> None:
    before = int(house.nas.host.run(VISIT).stdout.split()[1])
    assert house.server is not None
    house.server.kill()
    house.server.wait(60)
    for machine in house.nodes.values():
        machine.host.lose_power()
    switch_on(machine.host for machine in house.nodes.values())
    house.nodes["pi"].until(lambda: house.nas.host.run(VISIT, check=False).stdout == f"visit {before + 1}\n")
    house.serve()
    house.until_all_run()
