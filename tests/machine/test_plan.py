"""`dom0 plan` and `dom0 up` on a real Engine: the same refusals in the same words, and what is planned is done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.machines import DOM0, Machine

COMPOSE = """
    name: {name}
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: box-tools
        build: ./tools
        command: ["sleep", "100000"]
        init: true
        {more}
      worker:
        image: box-tools
        build: ./tools
        command: ["sleep", "100000"]
        init: true
        depends_on: {{prepare: {{condition: service_completed_successfully}}}}
      prepare:
        image: box-tools
        build: ./tools
        command: ["true"]
      other:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
    """
TOOLS = "FROM busybox:test\nENV VERSION={version}\n"
CONTAINERS = ("dom0", "box-web-1", "box-worker-1", "box-prepare-1", "box-other-1")


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    write(machine)
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture
def untouched(box: Machine) -> Iterator[None]:
    """Neither a refusal nor a plan changes anything, names of images included."""
    before = lives(box), tags(box)
    yield
    assert (lives(box), tags(box)) == before


def write(machine: Machine, version: str = "1", *, name: str = "box", more: str = "") -> None:
    machine.write(COMPOSE.format(name=name, more=more), {"tools/Dockerfile": TOOLS.format(version=version)})


def lives(machine: Machine) -> dict[str, tuple[str, str]]:
    return machine.lives(*CONTAINERS)


def tags(machine: Machine) -> dict[str, str]:
    return {tag: row["Id"] for row in machine.ask("/images/json") for tag in row["RepoTags"] or ()}


def plan(machine: Machine) -> list[tuple[str, str]]:
    said = machine.dom0("plan", "--json", str(machine.project), check=False)
    assert said.code in (0, 10), said
    return [(change["action"], change["name"]) for change in json.loads(said.stdout) if change["kind"] != "file"]


def words(said: Output) -> str:
    """Without the progress of the build."""
    return "\n".join(line for line in said.stderr.splitlines() if not line[:10].strip()[:1].isdigit())


@pytest.fixture
def taken_port(box: Machine) -> Iterator[str]:
    argv = ["--publish", "18080:80", "--name", "holder", "busybox:test", "sleep", "1000"]
    box.docker("run", "--detach", *argv)
    yield "ports: ['18080:80']"
    box.docker("rm", "--force", "holder")


@pytest.mark.parametrize("fault", ["name", "port", "device", "cpus", "memory"])
def test_plan_refuses_what_up_refuses_in_the_same_words(
    box: Machine, taken_port: str, untouched: None, fault: str
) -> None:
    more = {"port": taken_port, "device": "devices: [/dev/nope]", "cpus": "cpus: 512", "memory": "mem_limit: 512"}
    write(box, name="other" if fault == "name" else "box", more=more.get(fault, ""))
    planned, done = box.dom0("plan", str(box.project), check=False), box.up(check=False)
    assert (planned.code, done.code) == (3, 3), (planned, done)
    assert words(planned) == words(done)


def test_what_was_built_before_is_refused_with_the_names_of_the_projects_own_files(
    box: Machine, untouched: None
) -> None:
    write(box, more="depends_on: {other: {condition: service_healthy}}")
    box.build(tag="box:built")
    done = box.dom0("up", "--tag", "box:built", str(box.project), check=False)
    box.docker("image", "rm", "box:built")
    assert done.code == 3
    assert re.match(r"dom0: compose\.yaml:\d+: services\.\w+\.depends_on\.other: ", words(done)), done


def test_a_changed_dockerfile_is_planned_as_all_that_follows_from_it(box: Machine) -> None:
    write(box, "2")
    before = lives(box), tags(box)
    planned = plan(box)
    assert (lives(box), tags(box)) == before
    assert planned == [
        ("build", "dom0:latest"),
        ("build", "box-tools"),
        ("replace", "dom0"),
        ("replace", "box-prepare-1"),
        ("replace", "box-web-1"),
        ("replace", "box-worker-1"),
    ]
    box.up()
    now = lives(box)
    assert {name for name in CONTAINERS if now[name] != before[0][name]} == {n for a, n in planned if a == "replace"}
    assert plan(box) == []


def test_a_dockerfile_that_gives_the_same_image_replaces_no_service(box: Machine) -> None:
    write(box, "2")
    (box.project / "tools" / "Dockerfile").write_text("# a comment\n" + TOOLS.format(version="2"))
    assert plan(box) == [("build", "dom0:latest"), ("replace", "dom0")]


def test_without_building_it_is_what_the_image_asks_for_as_it_is(box: Machine) -> None:
    write(box, "3")
    said = box.dom0("plan", "--no-build", str(box.project), check=False)
    assert (said.code, said.stdout) == (0, "nothing to do: the machine is as dom0:latest, as it is, asks\n")
    assert "dom0:latest is not what" in said.stderr


def test_a_directory_without_a_project_is_not_taken_for_one(box: Machine, tmp_path: Path) -> None:
    said = box.host.run([*DOM0, "plan"], cwd=tmp_path, check=False)
    assert (said.code, said.stdout) == (0, "nothing to do: the machine is as dom0:latest, as it is, asks\n")
    assert said.stderr.endswith("dom0:latest: as it is, no project is read\n")
