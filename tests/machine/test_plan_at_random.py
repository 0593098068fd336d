"""Random projects and changes on a real Engine: what `dom0 plan` prints is what `dom0 up` does."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from dom0.testing.api import EngineRefused
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine
from dom0.testing.random_projects import IMAGES, Projects, compose_file

SEEDS, ROUNDS = (1, 2, 3, 4), 6
WELL = ("ready", "completed", "stopped", "data")
QUIET = 1.0  # seconds without a change before a machine counts as at rest

Pictures = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    for name in IMAGES:
        machine.host.run(["docker", "build", "--tag", name, "-"], stdin=f"FROM busybox:test\nENV IS={name}\n".encode())
    return machine


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_planned_is_what_is_done(box: Machine, seed: int) -> None:
    projects = Projects(seed)
    project = projects.project()
    box.write(compose_file(project))
    box.up()
    rested = at_rest(box)
    for round_ in range(ROUNDS):
        rested = meddle(box, projects) or rested
        project = projects.changed(project)
        box.write(compose_file(project))
        said = box.dom0("plan", "--json", str(box.project), check=False)
        before = picture(box)
        assert before == rested, (seed, round_)  # nobody has asked for anything since
        done = box.up(check=False)
        assert (done.code, said.code in (0, 10)) == (0, True), (seed, round_, said, done)
        planned = {(change["action"], change["name"]) for change in json.loads(said.stdout) if is_meant(change)}
        rested = at_rest(box)
        assert planned == happened(before, rested), (seed, round_, compose_file(project))
    box.dom0("down")


def is_meant(change: dict[str, str]) -> bool:
    return change["kind"] != "image" and change["name"] != "dom0"


def meddle(box: Machine, projects: Projects) -> Pictures:
    """What a person does between two `dom0 up`, and the picture after it; none if nothing is done."""
    running = [name for name, state in box.containers().items() if name.startswith("box-") and state == "running"]
    if running and projects.random.random() < 0.7:
        argv = projects.random.choice((["stop", "--time", "1"], ["rm", "--force"], ["kill"]))
        box.docker(*argv, projects.random.choice(sorted(running)))
        return at_rest(box)
    return {}


def at_rest(box: Machine) -> Pictures:
    deadline, since, last = time.monotonic() + PATIENCE, time.monotonic(), picture(box)
    while time.monotonic() - since < QUIET or not rests(box.status()):
        assert time.monotonic() < deadline, box.status()
        time.sleep(0.2)
        if (now := picture(box)) != last:
            since, last = time.monotonic(), now
    return last


def rests(status: dict[str, Any]) -> bool:
    """Whether nothing is due later either: what was killed is started again after a pause."""
    return status["converged"] and all(service["phase"] in WELL for service in status["services"])


def picture(box: Machine) -> Pictures:
    """(kind, name) -> what identifies it and its state; a container is called by its place, whatever its name is."""
    found: Pictures = {}
    for container in box.containers():
        try:
            one = box.container(container)
        except EngineRefused:  # gone since it was listed
            continue
        labels, host = one["Config"]["Labels"], one["HostConfig"]
        if "dom0.service" not in labels:
            continue
        networks = sorted(one["NetworkSettings"]["Networks"])
        ids = sorted(network["NetworkID"] for network in one["NetworkSettings"]["Networks"].values())
        rest = (host["RestartPolicy"]["Name"], host["Memory"], one["Name"], networks, ids)
        name = f"box-{labels['dom0.service']}-{labels['dom0.number']}"
        found["container", name] = (one["Id"], one["State"]["Running"], one["State"]["StartedAt"], rest)
    for network in box.ask("/networks"):
        found["network", network["Name"]] = (network["Id"],)
    for volume in box.ask("/volumes")["Volumes"] or ():
        found["volume", volume["Name"]] = (volume["Name"],)
    return found


def happened(before: Pictures, after: Pictures) -> set[tuple[str, str]]:
    found = {("create", name) for _, name in after.keys() - before.keys()}
    found |= {("remove", name) for _, name in before.keys() - after.keys()}
    changed = (key for key in before.keys() & after.keys() if before[key] != after[key])
    return found | {(_action(before[key], after[key]), key[1]) for key in changed}


def _action(was: tuple[Any, ...], now: tuple[Any, ...]) -> str:
    if was[0] != now[0]:
        return "replace"
    if was[1:3] != now[1:3]:
        return "restart" if was[1] else "start"
    return "update"
