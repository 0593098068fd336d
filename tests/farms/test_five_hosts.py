"""A house of five machines: a good revision and a bad one while each page is visited all the time; a server, a canary
and the owner of a lock that end in the middle, nodes that are cut off, and a power cut of the whole house.

A page is healthy as soon as the test opens its gate, so a roll-out stands still wherever the test wants it to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from dom0.farms import join
from dom0.farms.directory import FarmDirectory
from dom0.farms.rollout import RolloutState
from dom0.testing import chain
from dom0.testing.hosts import switch_on, until
from dom0.testing.machine_farm import Farm, hosts_on_a_switch
from dom0.testing.machines import Machine

pytestmark = [pytest.mark.engine, pytest.mark.chain, pytest.mark.timeout(900)]
NETWORK = "10.9.5"
PIS = ("pi1", "pi2", "pi3", "pi4")
CANARY = "pi2"  # the others go in the order of their names
ADDRESSES = {name: f"{NETWORK}.{number}" for number, name in enumerate(("nas", *PIS), 1)}
SETTINGS = f"""
listen: {ADDRESSES["nas"]}:7701
roles:
  store: {{soak: 1s}}
  web: {{soak: 1s, at_once: 2, canary: {CANARY}}}
"""
STORE = """
name: box
services:
  store: {image: "busybox:test", command: [sleep, "100000"], init: true, restart: always}
x-dom0: {rollout: {monitor: 1s}}
"""
WEB = """
name: box
services:
  page:
    image: busybox:test
    init: true
    command: [sh, -c, "mkdir /w; echo {word} >/w/index.html; {then}exec httpd -f -p 80 -h /w"]
    volumes: ["/run/gate:/gate:ro"]
    healthcheck:
      test: [CMD, sh, -c, "test -e /gate/{word} && wget -q -O - http://127.0.0.1/"]
      start_period: 1h
      start_interval: 2s
    pre_stop: [{{command: [sleep, "1"]}}]
    restart: unless-stopped
  door:
    image: dom0-ambassador
    ports: ["8080:80"]
    x-dom0: {{ambassador: {{listen: {{"80": {{to: ["service:page:80"], down: hold}}}}}}}}
    restart: unless-stopped
    depends_on: [page]
x-dom0: {{rollout: {{monitor: 1s, timeout: 10m}}}}
"""
VISIT = "curl -sS --fail --max-time 60 http://{}:8080/"
VISITOR = "while test -e /run/visiting; do for at in {}; do {} || echo nothing from $at; done; sleep 0.2; done"


class House(Farm):
    def write_page(self, word: str, then: str = "") -> int:
        """The revision that is current then."""
        self.write("web", WEB.format(word=word, then=then))
        return self.up()

    def open(self, word: str, names: Iterable[str] = PIS) -> None:
        for name in names:
            (self.nodes[name].host.path("/run/gate") / word).touch()

    def page(self, name: str) -> str:
        """As who comes from another machine sees it."""
        asker = next(node for node in self.nodes if node != name)
        visit = VISIT.format(ADDRESSES[name]).split()
        return self.nodes[asker].host.run(visit, check=False).stdout.strip()

    def until_shown(self, pages: dict[str, str]) -> None:
        self.until(lambda: {name: self.page(name) for name in pages} == pages)

    def until_tried(self, revision: int, *names: str) -> None:
        """By these nodes at the same time, and by no others; the new page stands beside the old one."""

        def tried() -> set[str]:
            told = ((one["name"], one["revision"], one["state"]) for one in self.status()["nodes"])
            return {name for name, number, state in told if (number, state) == (revision, "trying")}

        self.until(lambda: tried() == self.turns == {*names})
        self.until(lambda: all(self.pages(name) == 2 for name in names))

    def pages(self, name: str) -> int:
        """How many containers of the page run there."""
        states = self.nodes[name].containers()
        return sum("box-page-1" in container and state == "running" for container, state in states.items())

    @property
    def rollout(self) -> RolloutState:
        """What is on the server's disk of it."""
        return FarmDirectory(self.path).rollout()

    @property
    def turns(self) -> set[str]:
        """Who has one."""
        return {*self.rollout.turns}

    def lives(self) -> dict[str, object]:
        """By node: the same again means that nobody touched what it runs."""
        pages = {name: self.nodes[name].lives("box-page-1", "box-door-1") for name in PIS}
        return {"nas": self.machine.lives("box-store-1"), **pages}

    def untouched(self, before: dict[str, object]) -> set[str]:
        after = self.lives()
        return {name for name in after if after[name] == before[name]}


@contextmanager
def visited(house: House, *pages: str) -> Iterator[None]:
    """All machines with a page in turns, all the time; each visit gets one of these."""
    host = house.machine.host
    flag, printed = host.path("/run/visiting"), house.path.parent / "visits"
    flag.touch()
    loop = VISITOR.format(" ".join(ADDRESSES[name] for name in PIS), VISIT.format("$at"))
    with printed.open("wb") as log:
        visitor = host.popen(["sh", "-c", loop], stdout=log, stderr=log)
    until(lambda: len(printed.read_text().splitlines()) > len(PIS))
    yield
    flag.unlink()
    assert visitor.wait(120) == 0
    assert {*printed.read_text().splitlines()} <= {*pages}


@pytest.fixture(scope="module")
def house(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """All run the first revision."""
    with hosts_on_a_switch({name: {} for name in ADDRESSES}, NETWORK) as hosts:
        chain.provide_ambassador(hosts["nas"])
        made = House(hosts, tmp_path_factory.mktemp("house"), SETTINGS)
        made.write("store", STORE)
        made.write("web", WEB.format(word="first", then=""))
        for name in PIS:
            hosts[name].path("/run/gate").mkdir()
        made.start()
        made.enroll({"nas": "store", **dict.fromkeys(PIS, "web")})
        made.open("first")
        made.up()
        made.until_all_run()
        made.until_shown(dict.fromkeys(PIS, "first"))
        yield made


def test_a_good_revision_goes_to_the_canary_then_to_two_at_once_also_past_a_server_that_is_killed(house: House) -> None:
    before, old = house.lives(), house.page(CANARY)
    with visited(house, old, "good"):
        revision = house.write_page("good")
        house.until_tried(revision, CANARY)
        house.kill()
        house.serve()
        house.open("good", [CANARY])
        house.until_tried(revision, "pi1", "pi3")
        house.kill()
        house.open("good", ["pi1"])
        house.serve()
        house.until_tried(revision, "pi3", "pi4")
        house.open("good")
        house.until_all_run()
    assert house.untouched(before) == {"nas"}
    house.until_shown(dict.fromkeys(PIS, "good"))


def test_a_bad_revision_touches_one_node_which_goes_back_and_no_visitor_notices(house: House) -> None:
    before, old = house.lives(), house.page(CANARY)
    runs, drawn = house.status()["revision"], house.rollout.drawn
    with visited(house, old):
        bad = house.write_page("bad", "exit 3; ")
        house.open("bad")
        house.until_said(CANARY, bad, "failed")
        house.until(lambda: house.status()["paused"])
        others = [one for one in house.status()["nodes"] if one["name"] in PIS and one["name"] != CANARY]
        assert {(one["revision"], one["state"], one["target"]) for one in others} == {(runs, "good", 0)}
        house.command("rollback")
        house.until_all_run()
    assert house.rollout.drawn == drawn + 2  # the canary's, there and back
    assert house.untouched(before) >= {*ADDRESSES} - {CANARY}


def test_a_machine_gets_no_name_of_another_one_and_keeps_what_it_runs(house: House) -> None:
    before = house.lives()
    house.command("remove", "pi4")
    code = house.until(lambda: house.codes().get("pi4"))
    assert code
    refused = house.command("approve", code, "--as", "pi3", "--role", "web", check=False)
    assert (refused.code, "there is a node of this name" in refused.stderr) == (1, True)
    assert house.codes() == {"pi4": code}
    house.command("approve", code, "--as", "pi4", "--role", "web")
    house.until_all_run()
    assert house.untouched(before) == {*ADDRESSES}


def test_who_dies_with_the_lock_or_as_the_canary_stops_all_others_until_a_person_says_what_to_do(house: House) -> None:
    before, old = house.lives(), house.page(CANARY)
    dead = house.nodes["pi4"]
    membership = join.read(dead.state)
    assert membership is not None
    headers = ["-H", f"Authorization: Bearer {membership.secret}", "-H", "fleet-lock-protocol: true"]
    body = json.dumps({"client_params": {"id": "pi4", "group": "web"}})
    url = f"https://{ADDRESSES['nas']}:7701/v1/pre-reboot"
    dead.host.run(["curl", "-sS", "--fail", "--insecure", *headers, "--data", body, url])
    dead.host.lose_power()
    revision = house.write_page("late")

    def all_wait_for_the_lock() -> bool:
        others = [one for one in house.status()["nodes"] if one["name"] in PIS and one["name"] != "pi4"]
        has_lock = "waits: pi4 has the reboot lock since "
        return all(one["fetched"] and one["waits"].startswith(has_lock) for one in others)

    house.until(all_wait_for_the_lock)
    dead.host.start_engine()
    house.until_shown({"pi4": old})
    assert house.turns == set()
    house.command("unlock", "pi4")
    house.until_tried(revision, CANARY)

    house.kill()
    house.nodes[CANARY].host.lose_power()
    house.serve(sys.executable, "-m", "dom0.testing.farm_server")
    why = house.until(lambda: house.status()["paused"])["web"]
    assert why.startswith(f"{CANARY} is silent since ")
    assert why.endswith(f", when it had begun with revision {revision}")
    house.kill()
    house.serve()
    house.open("late")
    house.nodes[CANARY].host.start_engine()
    house.until_said(CANARY, revision, "good")
    assert (house.turns, house.untouched(before)) == (set(), {"nas", "pi1", "pi3"})
    house.command("resume", "web")
    house.until_all_run()
    house.until_shown(dict.fromkeys(PIS, "late"))


def cut_off(machine: Machine) -> None:
    for rule in (
        "table inet cut",
        "chain inet cut off { type filter hook input priority 0; }",
        "rule inet cut off iifname eth0 drop",
    ):
        machine.host.run(["nft", "add", *rule.split(" ")])


def kill_page(machine: Machine) -> None:
    """Until it is there again, as it was."""
    killed = machine.container("box-page-1")
    machine.host.run(["kill", "-KILL", str(killed["State"]["Pid"])])
    machine.until(lambda: machine.container("box-page-1")["State"]["StartedAt"] != killed["State"]["StartedAt"])
    assert machine.until_running("box-page-1")["Config"] == killed["Config"]


def test_nodes_that_are_cut_off_keep_their_role_and_the_others_go_on(house: House) -> None:
    revision = house.write_page("alone")
    house.until_tried(revision, CANARY)  # so all have fetched
    away = [house.nodes[name] for name in ("pi3", "pi4")]
    for machine in away:
        cut_off(machine)
    house.open("alone")
    house.until_said("pi1", revision, "good")
    for machine in away:
        kill_page(machine)
        machine.host.run(["nft", "delete", "table", "inet", "cut"])
    house.until_all_run()
    house.until_shown(dict.fromkeys(PIS, "alone"))


def test_after_a_power_cut_of_the_whole_house_each_runs_its_role_before_there_is_a_server(house: House) -> None:
    old = house.page(CANARY)
    revision = house.write_page("dark")
    house.until_tried(revision, CANARY)
    house.open("dark", [CANARY])
    house.until_tried(revision, "pi1", "pi3")
    for machine in house.nodes.values():
        machine.host.lose_power()
    switch_on(machine.host for machine in house.nodes.values())
    house.until_shown({CANARY: "dark", "pi1": old, "pi3": old, "pi4": old})
    house.machine.until_running("box-store-1")
    house.serve()
    house.until_tried(revision, "pi1", "pi3")
    house.open("dark")
    house.until_all_run()
    house.until_shown(dict.fromkeys(PIS, "dark"))
