"""A machine whose boot contract names a farm: its agent joins by itself, and knows at the next start what it is."""

from __future__ import annotations

import json
from pathlib import Path

from dom0.testing import browser
from dom0.testing.bare_agent import BareAgent
from dom0.testing.browser import Browser
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.web_page import Web

COMPOSE = """
name: box
services:
  box:
    image: busybox:test
    command: sleep 1000
"""
FARM = "name: attic\nlisten: 127.0.0.1:7701\n"


def test_the_agent_joins_the_farm_of_the_boot_contract(engine_host: Host, tmp_path: Path) -> None:
    machine = Machine(engine_host, tmp_path)
    farm = str(tmp_path / "attic")
    machine.dom0("farm", "init", farm)
    (tmp_path / "attic" / "farm.yaml").write_text(FARM)
    with (tmp_path / "served").open("wb") as log:
        server = machine.begin("farm", "serve", "--dir", farm, "--json", stdout=log)
    served = json.loads(machine.until((tmp_path / "served").read_text))
    engine_host.run(["mkdir", "-p", "/run/dom0/os"])
    engine_host.run(["tee", "/run/dom0/os/contract"], stdin=f"ip=dhcp\nfarm={served['join']}\n".encode())
    agent = BareAgent(machine)
    agent.write(COMPOSE)
    agent.start()

    def nodes() -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(machine.dom0("farm", "nodes", "--dir", farm, "--json").stdout)
        return found

    try:
        (waiting,) = machine.until(nodes)
        machine.until(lambda: f"code {waiting['code']}" in agent.log.read_text())
        machine.until(lambda: "waits to be approved by the server" in machine.dom0("status", check=False).stdout)
        machine.dom0("farm", "approve", waiting["code"], "--as", "nas", "--role", "hello", "--dir", farm)
        machine.until(lambda: "nas: a node of the farm attic, with the role hello" in agent.log.read_text())
        machine.dom0("farm", "assign", "nas", "hello", "--dir", farm)
        said = "nas of attic at 127.0.0.1:7701, role hello, told of no revision yet"
        machine.until(lambda: said in machine.dom0("status", check=False).stdout)
        if not browser.missing():
            with Web(machine) as web, Browser() as page:
                page.open(web.address)
                told = page.until_text("nas of attic", "[data-key='Farm']")
                assert "role hello, told of no revision yet" in told
                page.until_text("the server of attic runs here", "[data-key='Farm']")
                page.run("location.hash = '#/farm'")
                page.until_text("nas", "[data-key='attic'] tbody")
                assert "no revision yet" in page.text("[data-key='attic'] header")
                assert "no revision has its role" in page.text("[data-key='nas']")
                machine.dom0("farm", "pause", "hello", "--dir", farm)
                page.until_text("hello is paused", "[data-key='attic']")
                commands = page.run("[...document.querySelectorAll('main .cmd')].map((one) => one.dataset.copy)")
                assert f"dom0 farm resume hello --dir {farm}" in commands
                shown = machine.dom0(*f"farm status --dir {farm}".split(), check=False).stdout
                assert f"dom0 farm status --dir {farm}" in commands
                assert "the server of attic runs here" in machine.dom0("status", check=False).stdout
                assert "nas" in shown
                assert "no revision has its role" in shown
                machine.dom0("farm", "resume", "hello", "--dir", farm)
                page.until("!document.querySelector('main').innerText.includes('is paused')")
                server.kill()
                server.wait()
                page.until_text("Its server has said nothing for", "[data-key='attic']")
                server = machine.begin("farm", "serve", "--dir", farm)
                page.until("!document.querySelector('main').innerText.includes('has said nothing')")
                assert page.problems == []
        agent.kill()
        agent.start()
        machine.until(lambda: agent.log.read_text().count("nas: a node of the farm attic") == 2)
        assert json.loads(machine.dom0("farm", "join", "--json").stdout)["name"] == "nas"
        assert [node["state"] for node in nodes()] == ["enrolled"]
    finally:
        agent.kill()
        server.kill()
        server.wait()
        engine_host.run(["rm", "-r", "/run/dom0/os"])
