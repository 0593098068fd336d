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
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE
from dom0.testing.machine_farm import Farm, hosts_on_a_switch
from dom0.testing.machines import DOM0
from dom0.testing.pages import plain_lines

pytestmark = [pytest.mark.engine, pytest.mark.chain]
SERVER, OTHER = "10.9.0.1", "10.9.0.2"
LARGE = 16 << 20  # bytes of a file that nobody can compress
PAGE = (Path(__file__).parents[2] / "docs/farm.md").read_text()
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


@pytest.fixture(scope="module")
def farm(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Both nodes are enrolled, and run a machine without a service."""
    with hosts_on_a_switch({"one": OWN_STORE, "two": CONTAINERD_STORE}, "10.9.0") as hosts:
        settings = f"listen: {SERVER}:7701\nroles: {{web: &s {{soak: 1s}}, store: *s}}"
        made = Farm(hosts, tmp_path_factory.mktemp("farm"), settings)
        made.write("web", WEB.format(word="first"), word_txt="secret\n")
        made.write("store", STORE)
        made.start()
        made.enroll({"one": "web", "two": "store"})
        yield made


def reach(farm: Farm, *arguments: str, check: bool = False, stdin: bytes = b"") -> Output:
    """In the farm's directory, as who serves it."""
    return farm.machine.host.run([*DOM0, *arguments], cwd=farm.path, stdin=stdin, check=check)


def test_each_node_runs_its_role(farm: Farm) -> None:
    planned = farm.command("plan", check=False)
    assert planned.code == 10
    assert plain_lines(planned.stdout) <= plain_lines(PAGE)
    revised = farm.command("up").stdout
    assert "revision 1" in revised
    assert plain_lines(revised) <= plain_lines(PAGE)
    farm.until_said("one", 1, "good")
    farm.until_said("two", 1, "good")
    farm.until_all_run()
    assert plain_lines(farm.command("status").stdout) <= plain_lines(PAGE)
    assert farm.nodes["one"].output("box-web-1") == "first secret\n"
    assert farm.nodes["two"].containers()["box-store-1"] == "running"


def test_nodes_are_reached_from_the_servers_machine(farm: Farm) -> None:
    shown = [line for line in PAGE.partition("$ cd attic\n")[2].partition("```")[0].splitlines() if line]
    while shown:
        command = shlex.split(shown.pop(0).removeprefix("$ dom0 "))
        printed = [shown.pop(0) for _ in range(len(shown)) if not shown[0].startswith("$ ")]
        assert reach(farm, *command, check=True).stdout.splitlines() == printed


def test_input_output_and_exit_code_of_a_command_on_a_node_are_its_own(farm: Farm) -> None:
    much = os.urandom(3 << 19)
    said = reach(farm, "farm", "exec", "two", "--", "sh", "-c", "sha256sum; echo done >&2; exit 7", stdin=much)
    assert (said.code, said.stdout.split()[0], said.stderr) == (7, hashlib.sha256(much).hexdigest(), "done\n")
    assert reach(farm, "-H", "two", "exec", "store", "cat", stdin=b"through").stdout == "through"
    status = json.loads(reach(farm, "-H", "two", "status", "--json", check=True).stdout)
    assert [one["service"] for one in status["services"]] == ["store"]
    unknown = reach(farm, "-H", "tow", "status")
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
    own = farm.path / "roles/web/Dockerfile.dom0"
    own.write_text("FROM busybox:test\n")
    refused = farm.command("up", check=False)
    own.unlink()
    assert "Dockerfile.dom0: the image does not stand on dom0-base" in refused.stderr
    assert farm.ask("history") == before


def test_without_a_server_a_node_runs_on_and_follows_when_there_is_one_again(farm: Farm) -> None:
    farm.kill()
    farm.write("store", STORE.replace("1000", "2000"))
    farm.write("web", WEB.format(word="third"))
    assert farm.up() == 3
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
    assert farm.up() == 4
    farm.until_said("one", 4, "trying")
    farm.kill()
    farm.nodes["one"].host.run(["kill", "-KILL", str(farm.nodes["one"].container("dom0")["State"]["Pid"])])
    farm.serve()
    farm.until_said("one", 4, "good")
    assert farm.nodes["one"].output("box-web-1") == "fourth secret\n"


def test_a_bad_revision_touches_one_node_which_goes_back_by_itself(farm: Farm) -> None:
    farm.command("assign", "two", "web")
    farm.write("web", WEB.format(word="good"))
    good = farm.up()
    for name in farm.nodes:
        farm.until_said(name, good, "good")
    farm.until_all_run()
    lives = farm.nodes["two"].lives("box-web-1")
    farm.write("web", WEB.format(word="bad").replace("exec sleep 1000", "exit 3"))
    bad = farm.up()
    assert "web" in farm.until_said("one", bad, "failed")["reason"]
    assert farm.machine.until(lambda: farm.status()["paused"])["web"].startswith("one failed: ")
    farm.nodes["one"].until_good()
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
    revision = farm.up()
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
    revision = farm.up()
    before = cut_off.lives("box-store-1")
    cut_off.host.run(["kill", "-KILL", str(cut_off.container("box-store-1")["State"]["Pid"])])
    assert cut_off.until(lambda: cut_off.lives("box-store-1") != before)
    cut_off.until_running("box-store-1")
    assert cut_off.container("box-store-1")["Config"]["Cmd"] == ["sleep", "2000"]
    assert farm.status()["nodes"][1]["revision"] < revision
    cut_off.host.run(["nft", "delete", "table", "inet", "cut"])
    farm.until_said("two", revision, "good")
    assert cut_off.container("box-store-1")["Config"]["Cmd"] == ["sleep", "3000"]
