"""`dom0 up` returns when everything is ready: what people do until it is known whether it stays well, and then."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from dom0.testing.api import EngineRefused
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: {monitor}, timeout: 15m}}}}
    services:
      web:
        image: busybox:test
        command: {command}
        init: true
        environment: {{VERSION: "{version}"}}
    """
WEB = "box-web-1"
LONG = "10m"
ENDS = '["sh", "-c", "until [ -e /end ]; do sleep 0.1; done; rm /end; exit 3"]'


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    write(machine, "good")
    machine.up()
    return machine


def write(machine: Machine, version: str, *, monitor: str = "1s", command: str = '["sleep", "100000"]') -> None:
    machine.write(COMPOSE.format(version=version, monitor=monitor, command=command))


def generation(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.status()["generation"]
    return found


def good_number(box: Machine) -> int:
    """Of the generation that runs, when dom0 is at rest in its image."""
    box.until(lambda: _is_good(box) and _its_image_answers(box))
    box.until(lambda: "dom0-handover" not in box.containers())
    return int(generation(box)["number"])


def watched(box: Machine, version: str, **fields: str) -> tuple[int, int]:
    """Bring a version that is watched for long. Returns its number, and that of the one before."""
    before = good_number(box)
    write(box, version, **({"monitor": LONG} | fields))
    box.up(wait=False)
    return int(generation(box)["number"]), before


def is_back(box: Machine, number: int, version: str) -> None:
    box.until_good(number)
    assert box.variable(WEB, "VERSION") == version
    assert good_number(box) == number


def test_up_returns_when_all_is_ready_and_says_until_when_it_is_watched_and_what_happens_else(box: Machine) -> None:
    before = good_number(box)
    write(box, "watched", monitor=LONG)
    said = box.up("--json", wait=False)
    last = json.loads(said.stdout.splitlines()[-1])
    assert "outcome" not in last
    assert last["watched_until"] - time.time() > 500
    assert (last["generation"], last["goes_back_to"]) == (before + 1, before)
    assert (box.variable(WEB, "VERSION"), generation(box)["outcome"]) == ("watched", "pending")
    assert generation(box)["watched_until"] == last["watched_until"]
    shown = box.dom0("status").stdout.splitlines()[0]
    assert f"box: as desired; generation {before + 1} (ready, watched until 2" in shown
    again = box.up(wait=False).stdout.splitlines()
    assert again[-1].startswith(f"generation {before + 1} is ready, and watched until 2")
    assert again[-1].endswith(f": if it does not stay well, the machine goes back to generation {before} by itself")
    image = box.image_id("dom0:latest").removeprefix("sha256:")[:12]
    assert f"dom0: its new image {image} takes the place of the running one when the generation is good" in again[-2]
    box.dom0("abort")
    is_back(box, before, "good")


def test_what_fails_while_it_is_watched_goes_back_by_itself_and_status_says_why(box: Machine) -> None:
    number, before = watched(box, "ends", command=ENDS)
    box.until(lambda: generation(box)["number"] == before or tell_to_end(box))
    is_back(box, before, "good")
    shown = box.dom0("status").stdout.splitlines()[0]
    assert f"generation {before} (good)" in shown
    assert f": generation {number} failed: web" in shown
    assert "back since 2" in shown


def tell_to_end(box: Machine) -> bool:
    """The service, which is started again each time, until dom0 gives it up."""
    box.docker("exec", WEB, "touch", "/end", check=False)
    return False


def test_rollback_ends_the_watch_and_gives_the_names_back(box: Machine) -> None:
    latest = box.image_id("dom0:latest")
    _, before = watched(box, "not-wanted")
    assert box.image_id("dom0:latest") != latest
    box.dom0("rollback")
    is_back(box, before, "good")
    assert box.image_id("dom0:latest") == latest


def test_another_up_replaces_what_is_watched(box: Machine) -> None:
    number, before = watched(box, "replaced")
    until = generation(box)["watched_until"]
    waiting = box.begin("up", "--wait", str(box.project))
    box.until(lambda: generation(box)["watched_until"] > until)
    write(box, "replacement")
    assert f"generation {number + 1} is good" in box.up().stdout
    assert waiting.wait() == 1
    outcomes = {one["number"]: one["outcome"] for one in box.history()}
    assert (outcomes[before], outcomes[number], outcomes[number + 1]) == ("good", "replaced", "good")
    assert box.variable(WEB, "VERSION") == "replacement"


def test_up_wait_says_how_it_ended(box: Machine) -> None:
    before, running = good_number(box), box.variable(WEB, "VERSION")
    write(box, "ends-later", monitor=LONG, command=ENDS)
    waiting = box.begin("up", "--wait", str(box.project))
    box.until(lambda: generation(box)["watched_until"] > 0)
    box.until(lambda: generation(box)["number"] == before or tell_to_end(box))
    assert waiting.wait() == 5
    is_back(box, before, running)


def test_ctrl_c_ends_only_the_waiting(box: Machine) -> None:
    before = good_number(box)
    write(box, "interrupted", monitor="8s")
    waiting = box.begin("up", "--wait", str(box.project))
    box.until(lambda: generation(box)["watched_until"] > 0)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait() == 130
    assert good_number(box) > before
    assert box.variable(WEB, "VERSION") == "interrupted"


def _is_good(box: Machine) -> bool:
    return bool(generation(box)["outcome"] == "good")


def _helper_is_there(box: Machine) -> bool:
    return "dom0-handover" in box.containers()


def _nobody_answers(box: Machine) -> bool:
    try:
        box.status()
    except (OSError, EngineRefused):
        return True
    return False


def _its_image_answers(box: Machine) -> bool:
    return bool(box.status()["dom0_image"] == generation(box)["dom0_image"])


def _is_over(box: Machine) -> bool:
    """On a machine that has much else to do a moment can have passed before it was looked for."""
    return _is_good(box) and _its_image_answers(box)


MOMENTS = (_is_good, _helper_is_there, _nobody_answers, _its_image_answers)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("built", [False, True])
def test_an_up_that_meets_the_change_of_the_dom0_image_is_done(box: Machine, moment: Any, built: bool) -> None:
    """At once, or after a build."""
    good_number(box)
    name = f"{moment.__name__}-{built}"
    write(box, f"{name}-before")
    number = int(json.loads(box.up("--json", wait=False).stdout.splitlines()[-1])["generation"])
    write(box, name)
    if built:
        box.build(tag="dom0:next")
    arguments = ["--no-build", "--tag", "dom0:next"] if built else [str(box.project)]
    box.until(lambda: moment(box) or _is_over(box))
    said = box.dom0("up", "--wait", *arguments)
    assert said.stdout.splitlines()[-1].startswith("generation "), said
    assert box.until_good()["generation"]["number"] == number + 1
    assert box.variable(WEB, "VERSION") == name


def _interrupted(box: Machine, *arguments: str) -> str:
    """What `dom0 up` says on standard error when Ctrl-C comes while the dom0 image changes."""
    waiting = box.begin("up", *arguments, str(box.project), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with waiting:
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        assert any(b"image takes the place" in line or b"which is under way" in line for line in waiting.stdout)
        waiting.send_signal(signal.SIGINT)
        said = waiting.stderr.read().decode()
        assert waiting.wait() == 130
    return said


GOES_ON = """
dom0: the change of the dom0 image: goes on without this command
      watch it: dom0 status --watch
      go back when it has ended: dom0 rollback
"""


def test_ctrl_c_while_the_dom0_image_changes_names_the_way_back(box: Machine) -> None:
    """Not `dom0 abort`: the generation is good."""
    before, running = good_number(box), box.variable(WEB, "VERSION")
    write(box, "with-another-image")
    assert _interrupted(box, "--wait") == GOES_ON
    assert good_number(box) == before + 1
    box.dom0("rollback")
    is_back(box, before, running)


def test_ctrl_c_names_it_also_in_an_up_that_meets_that_change(box: Machine) -> None:
    good_number(box)
    write(box, "met")
    box.up(wait=False)
    box.until(lambda: box.docker("pause", "dom0-handover", check=False).code == 0)
    write(box, "never-begun")
    assert _interrupted(box) == GOES_ON
    box.docker("unpause", "dom0-handover")
    good_number(box)
    assert box.variable(WEB, "VERSION") == "met"


@pytest.mark.parametrize("command", [("status",), ("history",), ("rollback",), ("down",)])
def test_other_commands_that_meet_it_are_done_too(box: Machine, command: tuple[str, ...]) -> None:
    good_number(box)
    write(box, f"before-{command[0]}")
    box.up(wait=False)
    box.until(lambda: _nobody_answers(box) or _is_over(box))
    assert box.dom0(*command).code == 0
    if command == ("down",):
        assert box.containers() == {}


def test_a_first_generation_has_nothing_to_go_back_to_and_says_so(box: Machine) -> None:
    box.dom0("down")
    box.write(COMPOSE.replace("name: box", "name: other").format(version=1, monitor=LONG, command='["sleep", "1000"]'))
    said = box.up(wait=False).stdout.splitlines()[-1]
    assert "there is no good one to go back to: if it does not stay well, dom0 goes on trying" in said
    box.dom0("down")
    assert box.containers() == {}
