"""Roles come to nodes: a farm's server and two nodes, each a host with an Engine of its own and a whole machine.

The second one keeps images in another way than the server, as the base OS does, and its machine stands on another
dom0-base than the roles.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.run import Output
from dom0.testing import chain
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host, Switch
from dom0.testing.machines import DOM0, Machine
from dom0.testing.namespaces import Child
from dom0.testing.pages import plain_lines

pytestmark = [pytest.mark.engine, pytest.mark.chain]
SERVER, OTHER = "10.9.0.1", "10.9.0.2"
LARGE = 16 << 20  # bytes of a file that nobody can compress
PAGE = (Path(__file__).parents[2] / "docs/farm.md").read_text()
FIRST = "name: box\nx-dom0: {rollout: {monitor: 1s}}\n"
WEB = """
name: box
services:
  web:
    image: busybox:test
    command: ["sh", "-c", "echo {word} $(cat /run/secrets/word); exec sleep 1000"]
    secrets: [word]
    stop_grace_period: 1s
x-dom0: {{rollout: {{monitor: 1s, timeout: 30s}}}}
secrets:
  word: {{file: ./word.txt}}
"""
STORE = """
name: box
services:
  store:
    image: busybox:test
    hostname: store
    command: ["sleep", "1000"]
    stop_grace_period: 1s
"""


class Farm:
    """Its server runs on the first node's host; `serve` it."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        self.path = directory / "attic"
        self.nodes = {}
        for name, host in hosts.items():
            project = directory / name
            project.mkdir()
            self.nodes[name] = Machine(host, project)
        self.machine = self.nodes["one"]
        self.machine.dom0("farm", "init", str(self.path))
        shutil.rmtree(self.path / "roles" / "hello")
        (self.path / "farm.yaml").write_text(
            f"name: attic\nlisten: {SERVER}:7701\nroles: {{web: &s {{soak: 1s}}, store: *s}}\n"
        )
        self.write("web", WEB.format(word="first"), word_txt="secret\n")
        self.write("store", STORE)
        self.server: Child | None = None

    def serve(self) -> str:
        """Returns what nodes join with."""
        printed = self.path / "served"
        with printed.open("wb") as log:
            self.server = self.machine.begin("farm", "serve", "--dir", str(self.path), "--json", stdout=log)
        return str(json.loads(self.machine.until(printed.read_text))["join"])

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait(60)

    def enroll(self, name: str, role: str, join: str) -> None:
        machine = self.nodes[name]
        joining = machine.begin("farm", "join", join)
        code = machine.until(lambda: next((one["code"] for one in self.ask("nodes") if one["code"]), ""))
        self.command("approve", code, "--as", name, "--role", role)
        assert joining.wait(60) == 0

    def write(self, role: str, compose: str, **files: str) -> None:
        for name, text in {"compose.yaml": compose, **files}.items():
            path = self.path / "roles" / role / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def command(self, *arguments: str, check: bool = True) -> Any:
        return self.machine.dom0("farm", *arguments, "--dir", str(self.path), check=check)

    def reach(self, *arguments: str, check: bool = False, stdin: bytes = b"") -> Output:
        """In the farm's directory, as who serves it."""
        return self.machine.host.run([*DOM0, *arguments], cwd=self.path, stdin=stdin, check=check)

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json").stdout)

    def status(self) -> Any:
        return json.loads(self.command("status", "--json", check=False).stdout)  # 10: not all run it

    def until_said(self, name: str, revision: int, state: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            node = next(one for one in self.status()["nodes"] if one["name"] == name)
            return node if (node["revision"], node["state"]) == (revision, state) else None

        said = self.machine.until(found)
        assert said is not None
        return said


@pytest.fixture(scope="module")
def hosts(engines_possible: None) -> Iterator[dict[str, Host]]:
    switch = Switch()
    made: dict[str, Host] = {}
    try:
        for name, address in {"one": SERVER, "two": OTHER}.items():
            store = CONTAINERD_STORE if name == "two" else OWN_STORE
            made[name] = Host(name=name, switch=switch, address=f"{address}/24", config=store)
            chain.provide(made[name])
        yield made
    finally:
        for host in made.values():
            host.stop()
        switch.stop()


@pytest.fixture(scope="module")
def farm(hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Both nodes are enrolled, and run a machine without a service."""
    made = Farm(hosts, tmp_path_factory.mktemp("farm"))
    for machine in made.nodes.values():
        machine.write(FIRST)
        machine.up(wait=False)
    join = made.serve()
    made.enroll("one", "web", join)
    made.enroll("two", "store", join)
    yield made
    made.kill()


def test_each_node_runs_its_role(farm: Farm) -> None:
    planned = farm.command("plan", check=False)
    assert planned.code == 10
    assert plain_lines(planned.stdout) <= plain_lines(PAGE)
    revised = farm.command("up").stdout
    assert "revision 1" in revised
    assert plain_lines(revised) <= plain_lines(PAGE)
    farm.until_said("one", 1, "good")
    farm.until_said("two", 1, "good")
    assert farm.machine.until(lambda: farm.command("status", check=False).code == 0)  # when they have soaked
    assert plain_lines(farm.command("status").stdout) <= plain_lines(PAGE)
    assert farm.nodes["one"].output("box-web-1") == "first secret\n"
    assert farm.nodes["two"].containers()["box-store-1"] == "running"


def test_nodes_are_reached_from_the_servers_machine(farm: Farm) -> None:
    shown = [line for line in PAGE.partition("$ cd attic\n")[2].partition("```")[0].splitlines() if line]
    while shown:
        command = shlex.split(shown.pop(0).removeprefix("$ dom0 "))
        printed = [shown.pop(0) for _ in range(len(shown)) if not shown[0].startswith("$ ")]
        assert farm.reach(*command, check=True).stdout.splitlines() == printed


def test_input_output_and_exit_code_of_a_command_on_a_node_are_its_own(farm: Farm) -> None:
    much = os.urandom(3 << 19)
    said = farm.reach("farm", "exec", "two", "--", "sh", "-c", "sha256sum; echo done >&2; exit 7", stdin=much)
    assert (said.code, said.stdout.split()[0], said.stderr) == (7, hashlib.sha256(much).hexdigest(), "done\n")
    assert farm.reach("-H", "two", "exec", "store", "cat", stdin=b"through").stdout == "through"
    status = json.loads(farm.reach("-H", "two", "status", "--json", check=True).stdout)
    assert [one["service"] for one in status["services"]] == ["store"]
    unknown = farm.reach("-H", "tow", "status")
    assert (unknown.code, "did you mean two?" in unknown.stderr) == (2, True)


def test_logs_of_a_node_are_followed_until_ctrl_c(farm: Farm) -> None:
    argv = [*DOM0, "farm", "logs", "--follow", "one"]
    following = farm.machine.host.popen(argv, cwd=farm.path, stdout=subprocess.PIPE)
    assert following.stdout is not None
    with following.stdout:
        assert following.stdout.readline() == b"web-1  | first secret\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130


def test_a_second_up_without_a_change_makes_no_revision(farm: Farm) -> None:
    gone, damaged, *_ = sorted((farm.path / "state/blobs").iterdir())
    whole = {blob: blob.read_bytes() for blob in (gone, damaged)}
    gone.unlink()
    damaged.write_bytes(b"cut off")
    assert farm.ask("up") == {"revision": 1, "changes": []}
    assert {blob: blob.read_bytes() for blob in whole} == whole  # it is written anew
    assert farm.command("plan").stdout == "nothing to do: the current revision is what the roles say\n"
    assert [one["number"] for one in farm.ask("history")] == [1]


def test_a_change_comes_to_the_nodes_of_its_role_alone(farm: Farm) -> None:
    store = farm.nodes["two"].lives("box-store-1")
    farm.write("web", WEB.format(word="second"), word_txt="secret\n")
    planned = farm.command("plan", "--json", check=False)
    expected = [{"role": "web", "change": "changed", "nodes": ["one"]}]
    assert (planned.code, json.loads(planned.stdout)) == (10, expected)
    assert farm.ask("up") == {"revision": 2, "changes": expected}
    farm.until_said("one", 2, "good")
    farm.until_said("two", 2, "good")
    assert farm.nodes["one"].output("box-web-1") == "second secret\n"
    assert farm.nodes["two"].lives("box-store-1") == store


def test_a_role_that_is_refused_makes_no_revision(farm: Farm) -> None:
    farm.write("web", WEB.format(word="third").replace("secrets: [word]", "secrets: [word]\n    nonsense: true"))
    before = farm.ask("history")
    refused = farm.command("up", check=False)
    assert refused.code != 0
    assert refused.stderr.startswith("dom0: roles/web: ")
    assert "nonsense" in refused.stderr
    assert farm.ask("history") == before


def test_without_a_server_a_node_runs_on_and_follows_when_there_is_one_again(farm: Farm) -> None:
    farm.kill()
    farm.write("store", STORE.replace("1000", "2000"))
    farm.write("web", WEB.format(word="third"))
    assert farm.ask("up")["revision"] == 3
    farm.nodes["two"].host.restart_engine()
    farm.nodes["two"].until_running("box-store-1")
    assert farm.nodes["two"].container("box-store-1")["Config"]["Cmd"] == ["sleep", "1000"]
    farm.serve()
    farm.until_said("two", 3, "good")
    farm.until_said("one", 3, "good")
    assert farm.nodes["two"].container("box-store-1")["Config"]["Cmd"] == ["sleep", "2000"]
    assert farm.nodes["one"].output("box-web-1") == "third secret\n"


def test_an_agent_and_a_server_that_are_killed_in_the_middle_go_on(farm: Farm) -> None:
    farm.write("web", WEB.format(word="fourth").replace("monitor: 1s", "monitor: 6s"))
    assert farm.ask("up")["revision"] == 4
    farm.until_said("one", 4, "trying")
    farm.kill()
    farm.nodes["one"].host.run(["kill", "-KILL", str(farm.nodes["one"].container("dom0")["State"]["Pid"])])
    farm.serve()
    farm.until_said("one", 4, "good")
    assert farm.nodes["one"].output("box-web-1") == "fourth secret\n"


def test_a_bad_revision_touches_one_node_which_goes_back_by_itself(farm: Farm) -> None:
    farm.command("assign", "two", "web")
    farm.write("web", WEB.format(word="good"))
    good = farm.ask("up")["revision"]
    for name in farm.nodes:
        farm.until_said(name, good, "good")
    assert farm.machine.until(lambda: farm.command("status", check=False).code == 0)  # when they have soaked
    lives = farm.nodes["two"].lives("box-web-1")
    farm.write("web", WEB.format(word="bad").replace("exec sleep 1000", "exit 3"))
    bad = farm.ask("up")["revision"]
    assert "web" in farm.until_said("one", bad, "failed")["reason"]
    assert farm.machine.until(lambda: farm.status()["paused"])["web"].startswith("one failed: ")
    assert set(farm.nodes["one"].output("box-web-1").splitlines()) == {"good secret"}  # it may have been started twice
    one, two = farm.status()["nodes"]
    assert (two["revision"], two["state"], two["fetched"], two["target"]) == (good, "good", True, 0)
    assert one["waits"] == two["waits"] == f"role web is paused: {farm.status()['paused']['web']}"
    said = farm.command("status", check=False).stdout
    assert {line for line in plain_lines(said) if line.startswith(("one ", "web: ", "next: "))} <= plain_lines(PAGE)
    shown = PAGE.partition("$ dom0 farm history\n")[2].partition("```")[0]
    assert plain_lines(shown) <= plain_lines(farm.command("history").stdout)
    farm.command("rollback")
    for name in farm.nodes:
        farm.until_said(name, good, "good")
    assert farm.nodes["two"].lives("box-web-1") == lives
    assert farm.status()["paused"] == {}


def test_the_second_node_takes_its_images_from_the_first(farm: Farm) -> None:
    server, second = farm.nodes["one"].host, farm.nodes["two"]
    for name in farm.nodes:
        farm.command("drain", name)
    farm.write("web", WEB.format(word="large"))
    (farm.path / "roles/web/large").write_bytes(os.urandom(LARGE))
    revision = farm.ask("up")["revision"]
    farm.machine.docker("rmi", "dom0-farm-attic:web")  # built there, it would not be fetched
    farm.command("undrain", "one")
    farm.until_said("one", revision, "good")
    for rule in (
        "table inet farm",
        "chain inet farm sent { type filter hook output priority 0; }",
        f"rule inet farm sent ip daddr {OTHER} tcp sport 7701 counter",
    ):
        server.run(["nft", "add", *rule.split(" ")])
    farm.command("undrain", "two")
    farm.until_said("two", revision, "good")
    assert second.output("box-web-1") == "large secret\n"
    counted = re.search(r"bytes (\d+)", server.run(["nft", "list", "chain", "inet", "farm", "sent"]).stdout)
    assert counted is not None
    assert int(counted[1]) <= LARGE // 100
    said = second.docker("logs", "dom0")
    came = re.findall(r"(\d+) bytes came, (\d+) of them from other nodes", said.stdout + said.stderr)
    assert int(came[-1][0]) >= int(came[-1][1]) >= LARGE


def test_a_node_that_is_cut_off_keeps_its_role_and_follows_when_the_line_is_back(farm: Farm) -> None:
    cut_off = farm.nodes["two"]
    farm.command("assign", "two", "store")
    cut_off.until_running("box-store-1")
    cut_off.until_good()
    for rule in (
        "table inet cut",
        "chain inet cut off { type filter hook input priority 0; }",
        f"rule inet cut off ip saddr {SERVER} drop",
    ):
        cut_off.host.run(["nft", "add", *rule.split(" ")])
    farm.write("store", STORE.replace("1000", "3000"))
    revision = farm.ask("up")["revision"]
    before = cut_off.lives("box-store-1")
    cut_off.host.run(["kill", "-KILL", str(cut_off.container("box-store-1")["State"]["Pid"])])
    assert cut_off.until(lambda: cut_off.lives("box-store-1") != before)
    cut_off.until_running("box-store-1")
    assert cut_off.container("box-store-1")["Config"]["Cmd"] == ["sleep", "2000"]
    assert farm.status()["nodes"][1]["revision"] < revision
    cut_off.host.run(["nft", "delete", "table", "inet", "cut"])
    farm.until_said("two", revision, "good")
    assert cut_off.container("box-store-1")["Config"]["Cmd"] == ["sleep", "3000"]
