"""What `dom0:latest` and the services' images name after an `up` that was refused, has failed, or was cut off."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing.api import EngineRefused
from dom0.testing.machines import DOM0, Machine

COMPOSE = """
    name: {name}
    x-dom0: {{rollout: {{monitor: 1s, timeout: 15m}}}}
    services:
      web:
        build: ./web
        init: true
        {behaviour}
    """
GOOD = 'command: ["sleep", "100000"]'
BROKEN = 'command: ["false"]'
BROKEN_LATER = (
    GOOD
    + """
        volumes: ["/run/later:/later"]
        healthcheck:
          test: [CMD, sh, -c, "until [ -e /later/broken ]; do sleep 0.1; done; exit 1"]
          interval: 1s
          timeout: 15m
          retries: 1"""
)
DOCKERFILE = "FROM busybox:test\nENV VERSION={version}\n"
NAMES = ("dom0:latest", "box-web:latest")


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    write(machine, "good")
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture
def before(box: Machine) -> Iterator[dict[str, str]]:
    """The images that count; afterwards it is the same machine again, and nothing that was built is left over."""
    found = named(box)
    yield found
    box.until(lambda: not [tag for tag in tags(box) if tag.startswith("dom0-built")])


@pytest.fixture
def broken(box: Machine) -> Iterator[Path]:
    """A file of the host: as soon as it is there, what is BROKEN_LATER has failed; before, nobody knows."""
    file = box.host.path("/run/later/broken")
    file.parent.mkdir()
    yield file
    shutil.rmtree(file.parent)


def write(machine: Machine, version: str, *, name: str = "box", behaviour: str = GOOD) -> None:
    dockerfile = DOCKERFILE.format(version=version)
    machine.write(COMPOSE.format(name=name, behaviour=behaviour), {"web/Dockerfile": dockerfile})


def named(machine: Machine) -> dict[str, str]:
    return {name: machine.image_id(name) for name in NAMES}


def tags(machine: Machine) -> list[str]:
    return [tag for row in machine.ask("/images/json") for tag in row["RepoTags"] or ()]


def test_a_good_up_moves_the_names_and_its_containers_are_called_by_them(box: Machine, before: dict[str, str]) -> None:
    write(box, "better")
    box.up()
    assert all(image_id != before[name] for name, image_id in named(box).items())
    assert box.container("box-web-1")["Config"]["Image"] == "box-web"
    assert box.container("box-web-1")["Image"] == box.image_id("box-web")
    assert box.container("dom0")["Config"]["Image"] == "dom0:latest"


def test_a_refused_up_moves_no_name(box: Machine, before: dict[str, str]) -> None:
    write(box, "other", name="other")
    refused = box.up(check=False)
    assert refused.code == 3
    assert "the running project is box" in refused.stderr
    assert "building" not in refused.stdout
    assert named(box) == before
    with pytest.raises(EngineRefused):
        box.image_id("other-web")


def test_ctrl_c_before_the_change_has_begun_leaves_no_name_and_says_that_nothing_goes_on(
    box: Machine, before: dict[str, str], tmp_path: Path
) -> None:
    """Here while a helper of docker's is asked for a login."""
    helper, asked = tmp_path / "docker-credential-slow", tmp_path / "asked"
    helper.write_text(f"#!/bin/sh\n: >{asked}\nexec sleep 1000\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credHelpers": {"localhost:9": "slow"}}')
    write(box, "asks", behaviour=f"{GOOD}\n      other: {{image: 'localhost:9/x:1'}}")
    env = {"PATH": f"{tmp_path}:{box.host.environment()['PATH']}", "DOCKER_CONFIG": str(tmp_path)}
    argv = [*DOM0, "up", str(box.project)]
    with box.host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, cwd=tmp_path) as up:
        box.until(asked.exists)
        up.send_signal(signal.SIGINT)
        assert up.stderr is not None
        said = up.stderr.read()
        assert (up.wait(), b"goes on" in said) == (130, False), said
    assert named(box) == before


def test_after_a_failed_up_the_names_are_of_what_runs(box: Machine, before: dict[str, str], tmp_path: Path) -> None:
    write(box, "broken", behaviour=BROKEN)
    assert box.up(check=False).code == 5
    assert named(box) == before
    assert box.image_id("dom0:failed") != before["dom0:latest"]
    box.until_good()  # the command ends when it is known, and the agent goes back meanwhile
    again = box.host.run([*DOM0, "up"], cwd=tmp_path)
    assert "nothing to do" in again.stdout


def test_an_image_that_was_built_before_gives_its_names_back_too(box: Machine, before: dict[str, str]) -> None:
    write(box, "broken-too", behaviour=BROKEN)
    broken = box.build()
    assert named(box)["dom0:latest"] == broken
    assert box.up(check=False).code == 5
    assert (named(box), box.image_id("dom0:failed")) == (before, broken)


def test_a_busy_machine_moves_no_name_for_the_second_one(box: Machine, before: dict[str, str], broken: Path) -> None:
    write(box, "slow", behaviour=BROKEN_LATER)
    first = box.begin("up", str(box.project))
    box.until(lambda: box.status()["generation"]["outcome"] == "pending")
    during = named(box)
    write(box, "second")
    second = box.up(check=False)
    assert (second.code, named(box)) == (6, during)
    broken.touch()
    assert first.wait() == 5
    assert named(box) == before
    box.up()


def test_a_command_that_is_killed_after_its_request_hinders_nothing(box: Machine, before: dict[str, str]) -> None:
    number = box.status()["generation"]["number"]
    write(box, "killed")
    command = box.begin("up", str(box.project))
    box.until(lambda: box.status()["generation"]["number"] > number)
    command.send_signal(signal.SIGKILL)
    box.until(lambda: box.status()["generation"]["outcome"] == "good")
    generation = box.status()["generation"]
    assert generation["dom0_image"] == box.image_id("dom0:latest") != before["dom0:latest"]
    box.until(lambda: box.status()["dom0_image"] == generation["dom0_image"])


def test_an_agent_that_is_killed_while_it_goes_back_gives_the_names_back_at_its_next_start(
    box: Machine, before: dict[str, str], broken: Path
) -> None:
    write(box, "slow-too", behaviour=BROKEN_LATER)
    command = box.begin("up", str(box.project))
    box.until(lambda: box.status()["generation"]["outcome"] == "pending")
    box.docker("kill", "dom0")
    command.wait()
    broken.touch()
    box.docker("start", "dom0")
    box.until(lambda: box.status()["generation"]["dom0_image"] == before["dom0:latest"])
    box.until(lambda: named(box) == before)
