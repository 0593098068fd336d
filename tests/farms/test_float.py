"""A project that floats: on three Engines, of which any may die. The farm's server and the commands are what a person
runs; of nodes all but what brings up roles.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dom0.errors import EXIT_CHANGES
from dom0.testing import api
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host, Switch, switch_on, until
from dom0.testing.machine_farm import look
from dom0.testing.namespaces import Child

pytestmark = pytest.mark.engine
T = TypeVar("T")
DOM0 = (sys.executable, "-m", "dom0")
ADDRESSES = {"one": "10.9.8.1", "two": "10.9.8.2", "three": "10.9.8.3"}
BLOG = """
name: blog
services:
  web:
    image: busybox:test
    command: [sh, -c, "mkdir /w; cat /run/secrets/word - < /page > /w/index.html; exec httpd -f -p 80 -h /w"]
    secrets: [word]
    configs: [page]
    stop_grace_period: 1s
    deploy: {replicas: REPLICAS, endpoint_mode: dnsrr, update_config: {monitor: 1s, parallelism: 0}}
secrets: {word: {file: ./word}}
configs: {page: {content: hello}}
"""


KNOWS_THREE = re.compile(r"switched to configuration voters=\(\d+ \d+ \d+\)")  # in an Engine's log


class Farm:
    """Its server is a process on the first host. `serve` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.switch = Switch()
        self.hosts: dict[str, Host] = {}
        self.server: Child | None = None
        self.logs = path.parent

    def start(self) -> None:
        for name, address in ADDRESSES.items():
            store = CONTAINERD_STORE if name == "two" else OWN_STORE
            self.hosts[name] = Host(name=name, switch=self.switch, address=f"{address}/24", config=store)
            self.hosts[name].run(["ip", "route", "add", "default", "via", "10.9.8.254"])
            if name != "one":
                self.hosts[name].docker("rmi", "busybox:test")
        self.command("init", str(self.path), at="")
        (self.path / "farm.yaml").write_text(
            f"name: attic\nlisten: {ADDRESSES['one']}:7701\nfloat: {{managers: [one, two, three]}}\n"
        )
        join = self.serve()
        joining = {name: host.popen([*DOM0, "farm", "join", join]) for name, host in self.hosts.items()}

        def codes() -> dict[str, str]:
            found = {node["hostname"]: node["code"] for node in self.look("nodes")}
            return found if found.keys() == ADDRESSES.keys() else {}

        for name, code in until(codes).items():
            self.command("approve", code, "--as", name, "--role", "hello")
        for name in self.hosts:
            assert joining[name].wait(60) == 0
            self.follow(name)
        shutil.rmtree(self.path / "roles" / "hello")

    def follow(self, name: str) -> None:
        """Start what a node's agent does for its farm."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.hosts[name].popen([sys.executable, "-m", "dom0.testing.farm_node"], stdout=log, stderr=log)

    def serve(self) -> str:
        """Returns what nodes join with."""
        printed = self.path.parent / "served"
        with printed.open("wb") as log, (self.logs / "server.log").open("ab") as errors:
            argv = [*DOM0, "farm", "serve", "--dir", str(self.path), "--json"]
            self.server = self.hosts["one"].popen(argv, stdout=log, stderr=errors)
        return str(json.loads(until(printed.read_text))["join"])

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait(60)

    def command(self, *arguments: str, at: str = "--dir", check: bool = True) -> Any:
        where = [at, str(self.path)] if at else []
        return self.hosts["one"].run([*DOM0, "farm", *arguments, *where], check=check)

    def ask(self, *arguments: str) -> Any:
        said = self.command(*arguments, "--json", check=False)
        assert said.code in (0, EXIT_CHANGES), said.stderr
        return json.loads(said.stdout)

    def look(self, command: str) -> Any:
        """What `dom0 farm COMMAND --json` prints, without another process: it is looked at again and again."""
        return json.loads(look(self.path, command, "--json").stdout)

    def floating(self) -> Any:
        return self.look("status")["floating"]

    def write(self, text: str = BLOG, *, replicas: int = 3, word: str = "open ") -> None:
        directory = self.path / "float" / "blog"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "compose.yaml").write_text(text.replace("REPLICAS", str(replicas)))
        (directory / "word").write_text(word)

    def settled(self, service: str = "blog_web") -> Any:
        """Its status, as soon as all of it runs and nothing is to be done or goes on."""

        def found() -> Any:
            status = self.floating()
            one = next((one for one in status["services"] if one["name"] == service), None)
            is_settled = one and one["running"] == one["wanted"] and not one["changing"] and not status["steps"]
            return one if is_settled else None

        return until(found, self.story)

    def swarm(self, at: str, what: str) -> Any:
        return api.request(self.hosts[at].socket, "GET", f"/{what}")

    def lost_majority(self) -> str:
        """What status says of the manager that is left, as soon as it says so."""

        def found() -> str:
            status = self.floating()
            is_lost = (status["writer"], status["services"], status["steps"]) == ("", [], [])
            said = str(status["waits"].get("one", ""))
            return said if is_lost and "--force-new-cluster" in said else ""

        return until(found, self.story)

    def has_three_managers(self) -> bool:
        """Who hear each other, each by its own word too, and nobody else is in the Swarm."""
        for name in ADDRESSES:
            swarm = self.swarm(name, "info")["Swarm"]
            if not swarm["ControlAvailable"] or swarm.get("Managers") != len(ADDRESSES):
                return False
        nodes = self.swarm("one", "nodes")
        found = [(one["Description"].get("Hostname"), one.get("ManagerStatus", {})) for one in nodes]
        reached = sorted(name for name, manager in found if manager.get("Reachability") == "reachable")
        return len(found) == 3 and reached == sorted(ADDRESSES) and any(manager.get("Leader") for _, manager in found)

    def tasks(self, at: str, service: str = "") -> list[str]:
        """IDs of the containers that Swarm runs there, of all services or of one."""
        named = f"label=com.docker.swarm.service.name{'=' if service else ''}{service}"
        return self.hosts[at].docker("ps", "--quiet", "--filter", named).stdout.split()

    def running_on_one(self) -> set[str]:
        """All tasks there. What has no other place is among them: a new leader may take a node that it has not heard
        yet for a dead one, and its tasks are made anew then.
        """
        until(lambda: self.tasks("one", "theirs"), self.story)
        return {*self.tasks("one")}

    def pages(self) -> set[str]:
        """What the containers of the service give."""
        show = ["cat", "/w/index.html"]
        return {
            host.docker("exec", container, *show).stdout
            for name, host in self.hosts.items()
            for container in self.tasks(name, "blog_web")
        }

    def story(self) -> str:
        status = self.command("status", check=False)
        logs = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(self.logs.glob("*.log"))]
        nodes = self.hosts["one"].docker("node", "ls", check=False)
        return "\n".join([status.stdout, status.stderr, nodes.stdout, nodes.stderr, *logs])

    def stop(self) -> None:
        for host in self.hosts.values():
            host.stop()
        self.switch.stop()


@pytest.fixture(scope="module")
def farm(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    made = Farm(tmp_path_factory.mktemp("farm") / "attic")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_without_a_floating_project_no_engine_is_in_a_swarm(farm: Farm) -> None:
    until(lambda: all(node["state"] == "enrolled" for node in farm.look("nodes")))
    assert farm.command("plan", check=False).code == 2  # no role, and nothing that floats
    for host in farm.hosts.values():
        assert api.request(host.socket, "GET", "/info")["Swarm"]["LocalNodeState"] == "inactive"


def test_up_does_what_plan_says_and_a_floating_service_runs_on_the_nodes(farm: Farm) -> None:
    theirs = farm.hosts["three"]
    theirs.docker("swarm", "init", "--advertise-addr", ADDRESSES["three"])
    farm.write()
    planned = farm.ask("plan")
    (project,) = planned
    assert (project["role"], project["change"]) == ("float/blog", "new")
    assert [(step["kind"], step["change"]) for step in project["steps"]] == [
        ("network", "create"),
        ("config", "create"),
        ("secret", "create"),
        ("service", "create"),
    ]
    assert farm.ask("up")["changes"] == planned
    assert farm.settled()["wanted"] == 3

    def waits() -> Any:
        found = farm.floating()["waits"]
        return found if found.keys() == {"three"} else None

    assert "there: docker swarm leave" in until(waits, farm.story)["three"]
    (alone,) = farm.swarm("three", "nodes")
    assert (alone["Spec"]["Labels"], farm.swarm("three", "services")) == ({}, [])
    assert "dom0-float" not in theirs.docker("images").stdout
    theirs.docker("swarm", "leave", "--force")

    def is_in(node: Any) -> bool:
        spec = node["Spec"]
        return spec["Role"] == "manager" and any(label.startswith("dom0.image.") for label in spec["Labels"])

    until(lambda: sum(map(is_in, farm.swarm("one", "nodes"))) == 3, farm.story)
    until(lambda: farm.floating()["managers"] == ["one", "three", "two"], farm.story)
    made = {("service", one["Spec"]["Name"]) for one in farm.swarm("one", "services")}
    made |= {(kind, one["Spec"]["Name"]) for kind in ("secret", "config") for one in farm.swarm("one", f"{kind}s")}
    made |= {("network", one["Name"]) for one in farm.swarm("one", "networks") if "dom0.farm" in (one["Labels"] or {})}
    assert made == {(step["kind"], step["name"]) for step in project["steps"]}
    assert farm.command("plan").stdout.startswith("nothing to do")
    for name, host in farm.hosts.items():
        for one in farm.tasks(name, "blog_web"):
            assert host.docker("exec", one, "wget", "-q", "-O", "-", "http://web/").stdout == "open hello"


def test_a_server_that_is_killed_in_the_middle_of_an_apply_goes_on(farm: Farm) -> None:
    host = farm.hosts["one"]
    image = host.docker("image", "inspect", "--format", "{{.Id}}", "busybox:test").stdout.strip()
    words = [
        "--detach",
        "--name",
        "theirs",
        "--no-resolve-image",
        "--constraint",
        "node.hostname==one",
        image,
        "sleep",
        "999",
    ]
    host.docker("service", "create", *words)
    farm.write(word="closed ")
    (change,) = farm.ask("up")["changes"]
    made = {(step["kind"], step["change"]): step["name"] for step in change["steps"]}
    assert made.keys() == {("secret", "create"), ("service", "update")}
    word = made["secret", "create"]
    until(lambda: word in [one["Spec"]["Name"] for one in farm.swarm("one", "secrets")], farm.story)
    farm.kill_server()
    farm.serve()
    assert "three" in farm.settled()["nodes"]
    until(lambda: [one["Spec"]["Name"] for one in farm.swarm("one", "secrets")] == [word], farm.story)


def test_what_is_bad_goes_back_and_is_not_tried_again(farm: Farm) -> None:
    farm.write(BLOG.replace("exec httpd", "exit 3; exec httpd"), word="bad ")
    farm.ask("up")
    (step,) = until(
        lambda: [step for step in farm.floating()["steps"] if step["change"] == "stays"],
        farm.story,
    )
    assert step["why"].startswith("Swarm went back: ")
    farm.command("rollback")
    assert farm.settled()["running"] == 3


def test_two_of_three_managers_crash_and_all_is_well_when_they_are_back(farm: Farm) -> None:
    farm.settled()
    # One that crashes in the first second, before it has the Swarm's log, is never again a manager by itself.
    until(lambda: all(KNOWS_THREE.search(host.log.read_text()) for host in farm.hosts.values()), farm.story)
    before = farm.running_on_one()
    farm.hosts["two"].lose_power()
    farm.hosts["three"].kill_engine()  # dom0 is still there, and asks the farm's server
    assert "what runs goes on, and nothing is changed until most managers are back" in farm.lost_majority()
    assert before <= {*farm.tasks("one")}  # more, where two went on for a moment
    farm.write(word="late ")
    assert farm.ask("up")["revision"] > 0
    assert farm.lost_majority()
    for name in ("two", "three"):
        farm.hosts[name].start_engine()
    farm.follow("two")
    until(farm.has_three_managers, farm.story)
    assert farm.settled()["running"] == 3
    until(lambda: farm.pages() == {"late hello"}, farm.story)
    until(lambda: farm.floating()["writer"] != "" and farm.floating()["waits"] == {}, farm.story)


def test_after_a_power_cut_of_the_whole_house_what_floats_runs_before_there_is_a_server(farm: Farm) -> None:
    pages, wanted = farm.pages(), farm.settled()["wanted"]
    for host in farm.hosts.values():
        host.lose_power()
    switch_on(farm.hosts.values())
    until(farm.has_three_managers, farm.story)
    until(lambda: sum(len(farm.tasks(name, "blog_web")) for name in farm.hosts) == wanted, farm.story)
    until(lambda: farm.pages() == pages, farm.story)
    for name in farm.hosts:
        farm.follow(name)
    farm.serve()
    until(lambda: farm.floating()["writer"] != "" and farm.floating()["waits"] == {}, farm.story)
    assert farm.settled()["running"] == wanted


def test_what_status_says_brings_a_swarm_back_whose_managers_are_gone_for_ever(farm: Farm) -> None:
    before, pages = farm.running_on_one(), farm.pages()
    for name in ("two", "three"):
        farm.hosts[name].docker("swarm", "leave", "--force")
    assert "docker swarm init --force-new-cluster, on one that says this" in farm.lost_majority()
    assert before <= {*farm.tasks("one")}  # more, where two went on for a moment
    farm.hosts["one"].docker("swarm", "init", "--force-new-cluster", "--advertise-addr", ADDRESSES["one"])
    until(farm.has_three_managers, farm.story)
    assert farm.settled()["running"] == 3
    until(lambda: farm.pages() == pages, farm.story)
    until(lambda: farm.floating()["writer"] != "" and farm.floating()["waits"] == {}, farm.story)


def test_a_service_survives_the_death_of_its_node_and_two_managers_go_on(farm: Farm) -> None:
    until(farm.has_three_managers, farm.story)
    farm.hosts["three"].stop()
    until(lambda: "three" not in farm.settled()["nodes"], farm.story)
    assert farm.settled()["running"] == 3
    farm.write(replicas=2, word="closed ")
    farm.ask("up")
    until(lambda: farm.settled()["wanted"] == 2, farm.story)
    farm.command("remove", "three")
    until(lambda: {one["Description"]["Hostname"] for one in farm.swarm("one", "nodes")} == {"one", "two"}, farm.story)


def test_a_project_that_is_gone_is_removed_and_nothing_else(farm: Farm) -> None:
    farm.hosts["one"].docker("volume", "create", "blog_kept")
    theirs = farm.tasks("one", "theirs")
    shutil.rmtree(farm.path / "float")
    (gone,) = farm.ask("up")["changes"]
    assert (gone["role"], gone["change"]) == ("float/blog", "removed")
    assert {step["change"] for step in gone["steps"]} == {"remove"}
    until(lambda: not farm.swarm("one", "secrets"), farm.story)
    until(lambda: not farm.floating()["steps"], farm.story)
    assert [one["Spec"]["Name"] for one in farm.swarm("one", "services")] == ["theirs"]
    assert farm.tasks("one", "theirs") == theirs != []
    assert "blog_kept" in farm.hosts["one"].docker("volume", "ls", "--quiet").stdout
