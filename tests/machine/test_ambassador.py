"""An ambassador in a project: rewired under load, with the shortcut and without, followed containers, killed agents."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dom0.testing import api, browser
from dom0.testing.bare_agent import BareAgent
from dom0.testing.browser import Browser
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.possible import require
from dom0.testing.web_page import Web

SERVER = """
    import socket, sys, threading
    def serve(connection):
        for line in connection.makefile("rb"):
            connection.sendall(sys.argv[1].encode() + b" " + line)
    listening = socket.create_server(("", 7000))
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
"""Answers every line with its own name before it."""
CLIENT = """
    import json, os, socket, time
    def ask(stream):
        stream.write(b"?\\n")
        stream.flush()
        return stream.readline().split()[0].decode()
    def connect():
        for _ in range(200):
            try:
                return socket.create_connection(("echo", 7000), 20).makefile("rwb")
            except socket.gaierror as error:
                if error.errno != socket.EAI_AGAIN:
                    raise
                time.sleep(0.01)
        raise OSError("the name is not resolved")
    kept, old, new, lost, failed, errors, rounds = None, "", "", 0, 0, [], 0
    while True:
        try:
            if kept is None:
                kept = connect()
            old = ask(kept)
        except (OSError, IndexError) as error:
            kept, lost, errors = None, lost + 1, [*errors[-9:], f"kept: {error!r}"]
        try:
            with connect() as stream:
                new = ask(stream)
        except (OSError, IndexError) as error:
            failed, errors = failed + 1, [*errors[-9:], f"new: {error!r}"]
        rounds += 1
        with open("/tmp/count.new", "w") as file:
            found = {"old": old, "new": new, "lost": lost, "failed": failed, "errors": errors, "rounds": rounds}
            json.dump(found, file)
        os.replace("/tmp/count.new", "/tmp/count")
        time.sleep(0.005)
"""
"""Keeps one connection busy and makes new ones all the time; says who answers on both, and counts what went wrong.

While an ambassador's container is replaced its name is resolved again and again (docs/ambassador.md). One that moves to
another address takes both kinds of connection along without a word: each is noticed by its 20 s, one after the other.
"""
COMPOSE = """
    name: box
    x-dom0:
      rollout: {monitor: 1s, timeout: 60s}
    services:
      one: &server
        image: python:test
        entrypoint: ["python3", "-u", "/server.py"]
        command: ["one"]
        init: true
        healthcheck: {test: "exit 0", interval: 1h}  # nobody may wait for the Engine's first look
        volumes: ["./server.py:/server.py:ro"]
      two:
        <<: *server
        command: ["two"]
      echo:
        image: dom0-ambassador
        x-dom0:
          ambassador:
            listen:
              "7000": {to: ["service:one:7000"]}
        networks: {default: {ipv4_address: 10.77.7.100}}
      client:
        image: python:test
        entrypoint: ["python3", "-u", "/client.py"]
        init: true
        volumes: ["./client.py:/client.py:ro"]
        depends_on: [echo, one]
    networks:
      default:
        driver_opts: {com.docker.network.advertise_addr_nmsgs: "0"} # docs/ambassador.md says when this is needed
        ipam: {config: [{subnet: 10.77.7.0/24}]}
    """
CONSUMERS = ("box-client-1", "stranger")


@pytest.fixture(scope="module")
def machine(session_host: Host, ambassador_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host without dom0-base: the agent is a process of its own."""
    images = api.images(session_host.socket)
    yield Machine(session_host, tmp_path_factory.mktemp("project"))
    session_host.clean(keep=images)


@pytest.fixture(scope="module")
def agent(machine: Machine) -> Iterator[BareAgent]:
    """The project runs, and so does a consumer that dom0 did not make."""
    recipe = b"FROM dom0-ambassador\nLABEL dom0.role=\nENTRYPOINT []\nHEALTHCHECK NONE\n"
    machine.host.run(["docker", "build", "--quiet", "--tag", "python:test", "-"], stdin=recipe)
    agent = BareAgent(machine)
    agent.write(COMPOSE, {"server.py": SERVER, "client.py": CLIENT})
    agent.start()
    machine.until_good()
    script = ("--volume", "/var/lib/dom0/project/client.py:/client.py:ro")
    run = ("run", "--detach", "--init", "--name", "stranger", "--network", "box_default", *script)
    machine.docker(*run, "python:test", "python3", "-u", "/client.py")
    yield agent
    agent.kill()
    machine.docker("rm", "--force", "stranger")


@pytest.fixture(autouse=True)
def settled(agent: BareAgent) -> None:
    """Every test begins with both consumers served by `one`, on new connections since the shortcut is in place."""
    machine = agent.machine
    machine.until(lambda: "box-client-1" in shortcuts(agent))
    rewire(agent, "service:one", "--existing", "cut")
    rounds = {consumer: count(machine, consumer).get("rounds", 0) for consumer in CONSUMERS}
    for consumer in CONSUMERS:  # one round may have begun before the cut; the next one has noticed it
        machine.until(lambda: count(machine, consumer).get("rounds", 0) > rounds[consumer] + 1)  # noqa: B023 -- at once
    until_seen(machine, "one", "one")


def ambassador(agent: BareAgent) -> dict[str, Any]:
    """Empty until the agent has found it."""
    found = agent.ask("GET", "/v1/ambassadors")
    return dict(found[0]) if found else {}


def leads_to(agent: BareAgent) -> list[str]:
    state = ambassador(agent).get("state")
    return list(state["listeners"][0]["targets"]) if state else []


def shortcuts(agent: BareAgent) -> set[str]:
    """Who has the shortcut."""
    return {one["consumer"] for one in ambassador(agent).get("shortcuts", ()) if one.get("listeners")}


def targets(machine: Machine, service: str) -> list[str]:
    networks = machine.container(f"box-{service}-1")["NetworkSettings"]["Networks"]
    return [f"{networks['box_default']['IPAddress']}:7000"]


def count(machine: Machine, consumer: str) -> dict[str, Any]:
    return dict(json.loads(machine.docker("exec", consumer, "cat", "/tmp/count", check=False).stdout or "{}"))  # noqa: S108


def seen(machine: Machine, consumer: str) -> tuple[str, str]:
    """Who answers on the old connection, who on new ones."""
    found = count(machine, consumer)
    return found.get("old", ""), found.get("new", "")


def until_seen(machine: Machine, old: str, new: str) -> None:
    """Both consumers hear `old` on their old connection and `new` on new ones."""
    try:
        machine.until(lambda: all(seen(machine, consumer) == (old, new) for consumer in CONSUMERS))
    except AssertionError as error:
        found = {consumer: count(machine, consumer) for consumer in CONSUMERS}
        raise AssertionError(f"{found}, expected {(old, new)}") from error


def troubles(machine: Machine, consumer: str) -> tuple[int, int, list[str]]:
    """Connections lost, connects or requests that failed, and the last errors of both."""
    found = count(machine, consumer)
    return found["lost"], found["failed"], found["errors"]


def rewire(agent: BareAgent, to: str, *options: str) -> dict[str, Any]:
    said = agent.machine.dom0("ambassador", "rewire", "echo", "--to", to, *options, "--json")
    return dict(json.loads(said.stdout))


def control_planes(machine: Machine) -> list[str]:
    """Process IDs."""
    processes = machine.docker("top", "box-echo-1", "-eo", "pid,args").stdout.splitlines()
    return [line.split()[0] for line in processes if "dom0-ambassador run" in line]


def namespace(machine: Machine, consumer: str) -> str:
    """The rules in its network namespace."""
    pid = str(machine.container(consumer)["State"]["Pid"])
    return machine.host.run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "ruleset"]).stdout


def test_a_rewire_switches_new_connections_and_keeps_old_ones(agent: BareAgent) -> None:
    machine = agent.machine
    before = {consumer: troubles(machine, consumer) for consumer in CONSUMERS}
    said = rewire(agent, "service:two")
    until_seen(machine, "one", "two")
    assert {consumer: troubles(machine, consumer) for consumer in CONSUMERS} == before
    assert said["shortcuts"]["kept"] >= 1
    assert said["receipt"]["kept"] >= said["shortcuts"]["kept"] + 1
    assert said["receipt"].get("cut", 0) == 0


def test_only_the_consumer_that_dom0_made_has_rules(agent: BareAgent) -> None:
    machine = agent.machine
    assert "dom0_shortcut" in namespace(machine, "box-client-1")
    assert "dom0_shortcut" not in namespace(machine, "stranger")
    assert "docker-dns" in namespace(machine, "box-client-1") or "127.0.0.11" in namespace(machine, "box-client-1")
    reasons = {one["consumer"]: one.get("reason", "") for one in ambassador(agent)["shortcuts"]}
    assert reasons["stranger"] == "dom0 did not make it"


def test_packets_of_the_shortcut_skip_the_ambassador(agent: BareAgent) -> None:
    listed = json.loads(agent.machine.dom0("ambassador", "flows", "echo", "--json").stdout)
    flows = [flow for flow in listed if flow["flow"]["state"] == "ESTABLISHED"]
    through = {flow["flow"]["client"]["address"] for flow in flows if not flow.get("consumer")}
    beside = {flow["flow"]["client"]["address"] for flow in flows if flow.get("consumer") == "box-client-1"}
    addresses = {
        name: agent.machine.container(name)["NetworkSettings"]["Networks"]["box_default"]["IPAddress"]
        for name in CONSUMERS
    }
    assert through == {addresses["stranger"]}
    assert beside == {addresses["box-client-1"]}


def test_cut_ends_old_connections_on_both_ways(agent: BareAgent) -> None:
    machine = agent.machine
    said = rewire(agent, "service:two", "--existing", "cut")
    until_seen(machine, "two", "two")
    assert said["shortcuts"]["cut"] >= 1
    assert said["receipt"]["cut"] >= said["shortcuts"]["cut"] + 1


def test_undo_leads_back(agent: BareAgent) -> None:
    machine = agent.machine
    rewire(agent, "service:two")
    said = machine.dom0("ambassador", "undo", "echo")
    assert "→" in said.stdout
    until_seen(machine, "one", "one")


def test_a_plan_lists_connections_and_changes_nothing(agent: BareAgent) -> None:
    before = ambassador(agent)["state"]["table"]
    said = rewire(agent, "service:two", "--plan", "--existing", "cut")
    assert {flow.get("consumer", "") for flow in said["flows"]} == {"", "box-client-1"}
    assert said["receipt"]["cut"] >= 2
    assert ambassador(agent)["state"]["table"] == before


def test_a_rewire_by_hand_inside_the_ambassador_is_noticed_and_the_shortcut_follows(agent: BareAgent) -> None:
    machine = agent.machine
    (two,) = targets(machine, "two")
    machine.docker("exec", "box-echo-1", "dom0-ambassador", "rewire", "--to", two, "--existing", "cut")
    until_seen(machine, "two", "two")


def test_a_provider_that_comes_back_with_another_address_is_followed(agent: BareAgent) -> None:
    machine = agent.machine
    before = targets(machine, "one")
    agent.kill()
    machine.docker("rm", "--force", "box-one-1")
    squat = ("run", "--detach", "--name", "squatter", "--network", "box_default", "--init")
    machine.docker(*squat, "busybox:test", "sleep", "1000")  # has its address now
    agent.start()
    machine.until(lambda: leads_to(agent) == targets(machine, "one") != before)
    until_seen(machine, "one", "one")
    machine.docker("rm", "--force", "squatter")
    machine.until_good()


def test_a_restarted_consumer_gets_its_shortcut_again(agent: BareAgent) -> None:
    machine = agent.machine
    machine.docker("restart", "--time", "1", "box-client-1")
    machine.until(lambda: "dom0_shortcut" in namespace(machine, "box-client-1"))
    machine.until(lambda: "box-client-1" in shortcuts(agent))
    machine.until(lambda: seen(machine, "box-client-1") == ("one", "one"))


def test_a_killed_agent_leaves_the_shortcut_and_the_next_one_adopts_it(agent: BareAgent) -> None:
    machine = agent.machine
    before = {consumer: troubles(machine, consumer) for consumer in CONSUMERS}
    agent.kill()
    rules = namespace(machine, "box-client-1")
    assert "dom0_shortcut" in rules
    agent.start()
    machine.until(lambda: "box-client-1" in shortcuts(agent))
    rewire(agent, "service:two")
    until_seen(machine, "one", "two")
    assert {consumer: troubles(machine, consumer) for consumer in CONSUMERS} == before


def test_a_rewire_while_no_agent_runs_reaches_the_shortcut_when_one_does(agent: BareAgent) -> None:
    machine = agent.machine
    agent.kill()
    (two,) = targets(machine, "two")
    machine.docker("exec", "box-echo-1", "dom0-ambassador", "rewire", "--to", two, "--existing", "cut")
    machine.until(lambda: seen(machine, "stranger") == ("two", "two"))
    agent.start()
    until_seen(machine, "two", "two")


def test_an_agent_that_ends_lets_new_connections_take_the_ambassador(agent: BareAgent) -> None:
    machine = agent.machine
    before = troubles(machine, "box-client-1")
    agent.kill(signal.SIGTERM)
    (two,) = targets(machine, "two")
    machine.docker("exec", "box-echo-1", "dom0-ambassador", "rewire", "--to", two)
    machine.until(lambda: seen(machine, "box-client-1") == ("one", "two"))
    assert troubles(machine, "box-client-1") == before
    agent.start()


def test_an_ambassador_whose_control_plane_was_killed_is_heard_again_and_nothing_is_lost(agent: BareAgent) -> None:
    machine = agent.machine
    before = {consumer: troubles(machine, consumer) for consumer in CONSUMERS}
    (pid,) = control_planes(machine)
    machine.host.run(["kill", "-KILL", pid])
    machine.until(lambda: ambassador(agent).get("error") or control_planes(machine) not in ([], [pid]))
    machine.until(lambda: not ambassador(agent).get("error") and control_planes(machine) not in ([], [pid]))
    rewire(agent, "service:two")
    until_seen(machine, "one", "two")
    assert {consumer: troubles(machine, consumer) for consumer in CONSUMERS} == before


def test_other_settings_replace_the_ambassador_and_connections_go_on(agent: BareAgent) -> None:
    machine = agent.machine
    before = {consumer: troubles(machine, consumer) for consumer in CONSUMERS}
    old = machine.container("box-echo-1")["Id"]
    agent.write(COMPOSE.replace('to: ["service:one:7000"]', 'to: ["service:two:7000"]'))
    agent.ask("POST", "/v1/up")
    machine.until_running("box-echo-1", not_id=old)
    until_seen(machine, "one", "two")
    assert {consumer: troubles(machine, consumer) for consumer in CONSUMERS} == before
    assert machine.until(lambda: "box-client-1" in shortcuts(agent))


def test_switched_off_it_goes_away_and_connections_do_not(agent: BareAgent) -> None:
    machine = agent.machine
    before = {consumer: troubles(machine, consumer) for consumer in CONSUMERS}
    agent.write(COMPOSE.replace('["service:one:7000"]}', '["service:one:7000"]}\n            shortcut: false'))
    agent.kill()  # so another one has to find what this one left
    agent.start()
    agent.ask("POST", "/v1/up")
    machine.until(lambda: ambassador(agent)["state"].get("shortcut") is False)
    rewire(agent, "service:two")
    until_seen(machine, "one", "two")
    assert {consumer: troubles(machine, consumer) for consumer in CONSUMERS} == before
    assert shortcuts(agent) == set()
    machine.docker("restart", "--time", "1", "box-client-1")
    machine.until(lambda: seen(machine, "box-client-1") == ("two", "two"))
    assert "dom0_shortcut" not in namespace(machine, "box-client-1")
    agent.write(COMPOSE)
    agent.ask("POST", "/v1/up")
    machine.until_good()


def test_an_ambassador_at_another_address_takes_its_shortcut_along(agent: BareAgent) -> None:
    machine = agent.machine
    lost = count(machine, "box-client-1")["lost"]
    agent.write(COMPOSE.replace("10.77.7.100", "10.77.7.200"))
    agent.ask("POST", "/v1/up")
    machine.until(lambda: "10.77.7.200" in namespace(machine, "box-client-1"))
    until_seen(machine, "one", "one")
    assert count(machine, "box-client-1")["lost"] == lost, "its old connection goes on by the shortcut"
    rewire(agent, "service:two")
    machine.until(lambda: seen(machine, "stranger")[1] == "two" == seen(machine, "box-client-1")[1])
    agent.write(COMPOSE)
    agent.ask("POST", "/v1/up")
    machine.until_good()


def test_who_is_no_ambassador_is_refused_with_those_that_are(agent: BareAgent) -> None:
    refused = agent.machine.dom0("ambassador", "rewire", "nobody", "--to", "10.0.0.1:1", check=False)
    assert refused.code == 2
    assert "there are: echo" in refused.stderr
    wrong = agent.machine.dom0("ambassador", "rewire", "echo", "--to", "127.0.0.1:7000", check=False)
    assert (wrong.code, "loop" in wrong.stderr) == (2, True)


def asked(desk: Browser, action: str, press: Callable[[str], None]) -> str:
    """What is asked before `action`, when it can be answered."""
    press(f"[data-ask='{action}']")
    desk.until("document.querySelector('#ask').open && document.querySelector('#ask .main')?.disabled === false")
    return desk.text("#ask")


@pytest.fixture(scope="module")
def desk(agent: BareAgent) -> Iterator[Browser]:
    """The page that may change the machine, at its wiring."""
    require(browser.missing(), "tests of the page")
    with Web(agent.machine, "--operate") as web, Browser() as desk:
        desk.look(1440, 900)
        desk.open(web.address)
        desk.until("document.querySelectorAll('main .card').length > 2")
        desk.run("location.hash = '#/wiring'")
        desk.until_text("box-client-1", "[aria-label='Who reaches echo']")
        desk.run("document.querySelector('[data-pick]').focus()")
        desk.press("t")  # of all names that can be picked, one begins so
        yield desk


def last_receipt(agent: BareAgent) -> dict[str, Any]:
    return dict(json.loads(agent.machine.dom0("ambassador", "history", "echo", "--json").stdout)[-1])


@pytest.mark.parametrize("by", ["point", "reach"])
def test_the_page_leads_an_ambassador_to_another_service_and_back(agent: BareAgent, desk: Browser, by: str) -> None:
    """By the mouse, and by the keyboard alone."""
    machine, press = agent.machine, getattr(desk, by)
    [one], [two] = targets(machine, "one"), targets(machine, "two")
    for action, before, after, words in (
        ("lead echo two {0}", one, two, "dom0 ambassador rewire echo --to service:two"),
        ("undo echo {0} {0}", two, one, "dom0 ambassador undo echo"),
    ):
        question = asked(desk, action.format(last_receipt(agent)["number"]), press)
        assert words in question
        assert (f"7000/tcp from {before} to {after}" in question) == (action[:4] == "lead")
        assert (f"It was: 7000/tcp from {after} to {before}" in question) == (action[:4] == "undo")
        for width, dark in itertools.product((390, 1440), (False, True)):
            desk.look(width, 900, dark=dark)
            assert desk.run("document.documentElement.scrollWidth <= innerWidth"), (width, dark)
            assert desk.pale_texts() == [], (width, dark)
            assert desk.violations() == [], (width, dark)
        press("#ask .main")
        told = desk.until_text("done", "#acts")
        receipt = last_receipt(agent)
        assert f"receipt {receipt['number']}: 7000/tcp from {before} to {after}; " in told
        assert leads_to(agent) == [after]
        assert desk.violations() == []
        press("#acts button")
        desk.until("document.querySelector('#acts').innerText === ''")
    noted = [json.loads(line) for line in machine.dom0("events", "--json").stdout.splitlines()][-2:]
    assert [(one["kind"], one["reason"]) for one in noted] == [("rewired", "rewire"), ("rewired", "undo")]
    assert {one["actor"] for one in noted} == {f"uid {os.getuid()} on the page"}
    assert desk.problems == []


def test_what_another_one_has_rewired_meanwhile_is_asked_no_more_and_refused(agent: BareAgent, desk: Browser) -> None:
    rewire(agent, "service:two")
    number = last_receipt(agent)["number"]
    asked(desk, f"undo echo {number} {number}", desk.point)
    rewire(agent, "service:one")
    desk.until_text("The machine has changed meanwhile: this is not asked any more.", "#ask")
    desk.press("Escape")
    desk.until("!document.querySelector('#ask').open")
    end = desk.run(f"""(async () => {{
        const {{ Act, action }} = await import("/act.js");
        const act = new Act(action("undo echo {number} 1"), () => {{}});
        await act.done;
        return act.end;
    }})()""")
    assert end["is"] == "bad"
    said = f"refused, nothing was changed: undo: rewire {number} is not the last one any more"
    assert end["text"].startswith(said)
    assert leads_to(agent) == targets(agent.machine, "one")
    desk.problems.clear()  # the browser says that it was refused


def test_what_became_of_a_rewire_is_unknown_where_the_agent_is_killed_and_it_is_not_done_twice(
    agent: BareAgent, desk: Browser
) -> None:
    machine = agent.machine
    before = last_receipt(agent)["number"]
    [pid] = control_planes(machine)
    asked(desk, f"lead echo two {before}", desk.point)
    machine.host.run(["kill", "-STOP", pid])
    try:
        desk.point("#ask .main")
        desk.until_text("under way", "#acts")
        machine.until(lambda: "socat -t" in machine.docker("top", "box-echo-1", "-eo", "pid,args").stdout)
        agent.kill()
        desk.until_text("unknown", "#acts")
        desk.until_text("Not connected since", "#line")
    finally:
        machine.host.run(["kill", "-CONT", pid])
    machine.until(lambda: "socat -t" not in machine.docker("top", "box-echo-1", "-eo", "pid,args").stdout)
    agent.start()
    desk.until("!document.querySelector('#line').innerText")
    desk.until_text("box-client-1", "[aria-label='Who reaches echo']")
    machine.until(lambda: not ambassador(agent).get("error") and bool(ambassador(agent).get("state")))
    receipts = json.loads(machine.dom0("ambassador", "history", "echo", "--json").stdout)
    assert len([one for one in receipts if one["number"] > before and one["cause"] == "rewire"]) <= 1
    assert "done" not in desk.text("#acts")
    desk.point("#acts button")
    desk.problems.clear()  # the browser says what it could not load


def test_the_page_shows_who_reaches_an_ambassador_and_where_each_connection_goes(agent: BareAgent) -> None:
    require(browser.missing(), "tests of the page")
    machine = agent.machine
    [one], [two] = targets(machine, "one"), targets(machine, "two")
    with Web(machine) as web, Browser() as page:
        page.look(1440, 900)
        page.open(web.address)
        page.until("document.querySelectorAll('main .card').length > 2")
        page.run("location.hash = '#/wiring'")
        page.until_text(f"box-one-1 {one}", "[aria-label='Where echo leads']")
        page.until_text("dom0 did not make it", "[aria-label='Who reaches echo']")
        assert "by the shortcut" in page.text("[aria-label='Who reaches echo'] [data-key='box-client-1']")
        assert "through the ambassador" in page.text("[aria-label='Who reaches echo'] [data-key='stranger']")
        page.click("[data-key='flows'] summary")
        page.until_text("ESTABLISHED", "[aria-label='Connections of echo']")
        connections = page.text("[aria-label='Connections of echo']")
        assert "stranger" in connections
        assert "box-client-1" in connections
        page.run("document.querySelector('[data-pick]').focus()")
        page.press("t")  # the only one that begins so
        page.until_text("dom0 ambassador rewire echo --to service:two --plan", "[data-key='echo']")
        page.point("[data-ask^='lead echo two ']")
        assert "This page may only look" in page.until_text("dom0 ambassador rewire echo --to service:two", "#ask")
        assert page.run("document.querySelectorAll('#ask .acts button').length") == 1
        page.press("Escape")
        for width, dark in itertools.product((390, 1440), (False, True)):
            page.look(width, 900, dark=dark)
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), (width, dark)
            assert page.pale_texts() == [], (width, dark)
            assert page.violations() == [], (width, dark)
        rewire(agent, "service:two")
        page.until_text(f"box-two-1 {two}", "[aria-label='Where echo leads']")
        page.until_text(f"{one} → {two}", "[data-key='echo'] .events")
        page.picture("web-wiring.png", 560)
        assert page.problems == []
