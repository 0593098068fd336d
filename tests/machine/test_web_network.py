"""The page on the network of a real machine: every request of the API, as every kind of stranger and device asks it."""

from __future__ import annotations

import itertools
import json
import re
import stat
from typing import Any

import pytest

from dom0.agent import api
from dom0.names import Access
from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.machines import Machine
from dom0.testing.network_page import HOST, Device, trusting_flag
from dom0.testing.possible import require

PORT = 8443
COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 100ms, timeout: 60s}}, {web}}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{WORD: "{word}"}}
    """
WEB = f'web: {{listen: "0.0.0.0:{PORT}"}}'
JSON = {"Content-Type": "application/json"}
FOREIGN = (
    {"Host": f"attacker.example:{PORT}"},  # whose name leads here (DNS rebinding)
    {"Host": f"localhost:{PORT}"},
    {"Origin": "https://attacker.example"},
    {"Origin": f"http://{HOST}:{PORT}"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
)


def project(web: str = WEB, word: str = "first") -> str:
    return COMPOSE.format(web=web, word=word)


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(project())
    machine.up()
    machine.until_good()
    machine.until(lambda: told(machine)["address"])
    return machine


def told(box: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.dom0("web", "devices", "--json").stdout)
    return found


def invite(box: Machine, name: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.dom0("web", "pair", name, *options, "--json").stdout)
    return found


_sources = itertools.count()


def stranger(box: Machine) -> Device:
    """From an address of its own: who is refused often is not heard for a minute."""
    number = next(_sources)
    return Device(HOST, PORT, source=f"127.0.{number // 250}.{number % 250 + 2}", namespace=box.host.network)


def pair(box: Machine, name: str, *options: str) -> Device:
    device = stranger(box)
    assert device.pair(invite(box, name, *options)["code"]) == 200
    return device


@pytest.fixture(scope="module")
def looking(box: Machine) -> Device:
    return pair(box, "looking")


@pytest.fixture(scope="module")
def revoked(box: Machine) -> Device:
    """One that might have operated the machine, until a moment ago."""
    device = pair(box, "revoked", "--operate")
    box.dom0("web", "revoke", "revoked")
    return device


@pytest.fixture(scope="module")
def operating(box: Machine) -> Device:
    return pair(box, "operating", "--operate")


def asked(route: str) -> tuple[str, str, dict[str, str], str]:
    """A question that changes nothing where it is answered."""
    method, path = route.split()
    path = re.sub(r"\{\w+\}", "1", path).replace("/logs", "/logs?container=box-web-1")
    return method, path, JSON if method == "POST" else {}, '{"generation": 99}' if method == "POST" else ""


def test_what_people_see_of_it(box: Machine) -> None:
    said = box.dom0("web", "pair", "seen").stdout
    code = re.search(r"[a-z2-9]{4}-[a-z2-9]{4}", said)
    assert code
    device = stranger(box)
    assert device.pair(code[0]) == 200
    assert device.fingerprint in said
    assert re.search(rf"https://[\d.]+:{PORT}/", said)
    assert re.search(r"^seen +look +\d{4}-", box.dom0("web", "devices").stdout, re.MULTILINE)
    for words, code_ in ((("pair", "seen"), 2), (("pair", "A b"), 2), (("revoke", "nobody"), 2)):
        assert box.dom0("web", *words, check=False).code == code_
    assert json.loads(box.dom0("web", "revoke", "seen", "--json").stdout)["devices"] == told(box)["devices"]
    assert device.ask("GET", "/v1/status")[0] == 401
    events = [json.loads(line) for line in box.dom0("events", "--json").stdout.splitlines()]
    kinds = [(one["kind"], one["subject"]) for one in events]
    for wanted in (
        ("command", "dom0 web pair"),
        ("device-paired", "seen"),
        ("refused", "dom0 web revoke"),
        ("command", "dom0 web revoke"),
        ("device-refused", "the page"),
        ("page-certificate", "the page"),
    ):
        assert wanted in kinds


def open_page(phone: Browser) -> None:
    """Again where the network has changed, as by a container that starts: Chromium gives up what it loads then."""

    def asks_for_a_code() -> bool:
        if any("net::ERR_NETWORK_CHANGED" in problem for problem in phone.problems):
            phone.problems.clear()
            phone.open(f"https://{HOST}:{PORT}/")
        return bool(phone.run("!!document.querySelector('#code')"))

    phone.open(f"https://{HOST}:{PORT}/")
    phone.until_true(asks_for_a_code, "a page that asks for a code")


def test_a_browser_on_the_network_is_paired_sees_the_machine_and_is_out_at_once(box: Machine) -> None:
    require(browser.missing(), "tests of the page")
    flag = trusting_flag(box.host.state / "web" / "server.pem")
    with Browser(flag, inside=["nsenter", f"--net={box.host.network}"]) as phone:
        open_page(phone)
        code = invite(box, "phone", "--operate")["code"]
        phone.run("document.querySelector('#code').focus()")
        for letter in code:
            phone.press(letter)
        phone.press("Enter")
        phone.until_text("Everything is as desired", "h1")
        assert "may change this machine" in phone.text("#about")
        phone.run("location.hash = '#/services'")
        phone.click("[data-ask='restart web']")
        phone.until("document.querySelector('#ask .main')?.disabled === false")
        phone.click("#ask .main")
        phone.until_text("was restarted", "#acts")
        events = [json.loads(line) for line in box.dom0("events", "--json").stdout.splitlines()]
        assert [one["actor"] for one in events if one["subject"] == "dom0 restart web"] == ["device phone on the page"]
        box.dom0("web", "revoke", "phone")
        phone.until_text("This device is not paired", "h1")


@pytest.mark.parametrize("route", api.ROUTES)
def test_each_request_is_for_devices_that_may_ask_it_and_for_nobody_else(
    box: Machine, looking: Device, operating: Device, revoked: Device, route: str
) -> None:
    access = api.ROUTES[route].access
    method, path, headers, body = asked(route)
    for device, may in ((looking, Access.VIEW), (operating, Access.OPERATE)):
        status, said = device.ask(method, path, headers, body)
        assert (status == 404) == (access > may), (route, may, said)
        other = operating if device is looking else looking
        mixed = stranger(box)
        mixed.cookie, mixed.token = device.cookie, other.token
        assert mixed.ask(method, path, headers, body)[0] == 401
        mixed.cookie, mixed.token = "", device.token
        assert mixed.ask(method, path, headers, body)[0] == 401
        mixed.cookie, mixed.token = device.cookie, ""
        assert mixed.ask(method, path, headers, body)[0] == 401
    old = stranger(box)
    old.cookie, old.token = revoked.cookie, revoked.token
    assert old.ask(method, path, headers, body)[0] == 401
    nobody = stranger(box)
    assert nobody.ask(method, path, headers, body)[0] == 401
    nobody.cookie, nobody.token = operating.cookie, operating.token
    for foreign in FOREIGN:
        status, said = nobody.ask(method, path, headers | foreign, body)
        assert status == 403, foreign
        assert b"box" not in said
    if method == "POST":
        assert operating.ask(method, path, {"Content-Type": "text/plain"}, body)[0] == 415


def test_a_device_stays_and_a_code_does_not_when_the_agent_is_killed_or_handed_over(
    box: Machine, looking: Device
) -> None:
    before, code = told(box), invite(box, "late")["code"]
    box.docker("kill", "dom0")
    assert looking_fails(looking)
    box.docker("start", "dom0")
    box.until(lambda: not looking_fails(looking))
    assert stranger(box).pair(code) == 401
    box.write(project(word="second"))
    box.up()
    box.until_good(2)
    box.until(lambda: not looking_fails(looking))
    after = told(box)
    assert (after["fingerprint"], after["devices"]) == (before["fingerprint"], before["devices"])
    for name in ("server.pem", "devices.json"):
        kept = (box.host.state / "web" / name).stat()
        assert (stat.S_IMODE(kept.st_mode), kept.st_uid) == (0o600, 0)


def looking_fails(device: Device) -> bool:
    try:
        return device.ask("GET", "/v1/status")[0] != 200
    except OSError:
        return True


def test_nothing_listens_any_more_where_the_project_does_not_ask_for_it(box: Machine, looking: Device) -> None:
    box.write(project(web="home: {}", word="second"))
    planned = json.loads(box.dom0("plan", str(box.project), "--json", check=False).stdout)
    reason = "x-dom0.web asks for it no longer"
    assert {"action": "stop", "kind": "web", "name": f"0.0.0.0:{PORT}", "reason": reason} in planned
    box.up()
    box.until_good(3)
    with pytest.raises(ConnectionRefusedError):
        looking.ask("GET", "/")
    refused = box.dom0("web", "pair", "late", check=False)
    assert (refused.code, "the page is not on the network" in refused.stderr) == (2, True)
    assert [one["name"] for one in told(box)["devices"]] == ["looking", "operating"]
