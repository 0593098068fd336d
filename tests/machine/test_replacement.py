"""dom0 replaced by `dom0 up`: by another project, another base, and by images that do not work."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.agent import handover
from dom0.agent.succession import Result
from dom0.engine.docker import DockerEngine
from dom0.testing.foreign import Foreign
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      ssh: {{}}
      home: {{}}
      rollout: {{monitor: 1s, timeout: 60s}}
    services:
      steady:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
      changing:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """
UNCHANGED = ("box-steady-1", "dom0-sshd", "home-volume")
ROOT_ONLY = {"dom0", "box-steady-1", "box-changing-1", "dom0-sshd", "home-volume"}
MACHINE = {*ROOT_ONLY, "foreign", "box-foreign-1", "dom0-foreign"}


@pytest.fixture(scope="module")
def box(machine: Machine, foreign: Foreign) -> Machine:
    write(machine, "first")
    machine.up()
    machine.until_good()
    return machine


def write(machine: Machine, version: str, dockerfile: str = "") -> None:
    """With `dockerfile`, the project says itself how its image is made."""
    machine.write(COMPOSE.format(version=version))
    own = machine.project / "Dockerfile"
    own.unlink(missing_ok=True)
    if dockerfile:
        own.write_text(f"FROM dom0-base\nCOPY compose.yaml /etc/dom0/compose.d/50-box.yaml\n{dockerfile}\n")


def root_image(machine: Machine) -> Any:
    return machine.container("dom0")["Image"]


def test_another_project_replaces_dom0_and_the_service_that_changed_and_nothing_else(
    box: Machine, foreign: Foreign
) -> None:
    before, root = box.lives(*UNCHANGED), root_image(box)
    write(box, "second")
    box.up()
    assert box.variable("box-changing-1", "VERSION") == "second"
    assert root_image(box) == box.image_id("dom0:latest") != root
    assert box.lives(*UNCHANGED) == before
    box.until(lambda: box.containers().keys() == MACHINE)
    assert foreign.is_untouched()


def test_the_same_project_again_changes_nothing(box: Machine) -> None:
    everything = tuple(ROOT_ONLY)
    before, generations = box.lives(*everything), box.history()
    box.up()
    assert box.lives(*everything) == before
    assert box.history() == generations


def test_an_edit_that_keeps_the_size_of_the_file_arrives(box: Machine) -> None:
    write(box, "edit-1")
    box.up()
    write(box, "edit-2")
    box.up()
    assert box.variable("box-changing-1", "VERSION") == "edit-2"


def test_another_dom0_base_takes_over_by_a_hand_over(box: Machine, foreign: Foreign) -> None:
    before, root = box.lives("box-steady-1"), root_image(box)
    new_base(box)
    box.up()
    box.until_good()
    assert root_image(box) == box.image_id("dom0:latest") != root
    assert box.container("dom0")["Config"]["Labels"]["dom0.base"] == box.image_id("dom0-base")
    box.until(lambda: box.container("dom0-sshd")["Image"] == box.image_id("dom0-base"))
    assert box.lives("box-steady-1") == before
    box.until(lambda: box.containers().keys() == MACHINE)
    assert foreign.is_untouched()


def new_base(machine: Machine) -> None:
    """Another dom0-base of the same sources."""
    build = ("build", "--quiet", "--tag", "dom0-base", "-")
    machine.host.run(["docker", *build], stdin=b"FROM dom0-base\nLABEL test.another=base\n")


def test_pruning_images_leaves_what_good_generations_need(box: Machine) -> None:
    for version in ("before-pruning", "after-pruning"):
        write(box, version)
        box.up()
    good = [generation for generation in box.history() if generation["outcome"] == "good"]
    box.docker("image", "rm", "--force", "dom0:latest")
    box.docker("image", "prune", "--force")
    for generation in good:
        assert box.image_id(generation["dom0_image"]) == generation["dom0_image"]
    box.dom0("rollback")
    assert box.variable("box-changing-1", "VERSION") == "before-pruning"
    assert root_image(box) == good[1]["dom0_image"]


@pytest.mark.parametrize("entrypoint", ['["false"]', '["/no/such/program"]'])
def test_the_old_dom0_is_back_when_the_new_one_does_not_run(box: Machine, foreign: Foreign, entrypoint: str) -> None:
    before, root = box.lives(*UNCHANGED), root_image(box)
    write(box, "third", f"ENTRYPOINT {entrypoint}")
    failed = box.up(check=False)
    assert failed.code == 5, failed
    box.until(lambda: root_image(box) == root and box.status()["dom0_image"] == root)
    assert box.lives(*UNCHANGED) == before
    box.until(lambda: "handover-failed" in {problem["code"] for problem in box.status()["problems"]})
    assert "dom0" in box.dom0("status", check=False).stdout
    assert foreign.is_untouched()


def test_a_working_image_after_a_failed_one_takes_over(box: Machine) -> None:
    write(box, "fourth")
    box.up()
    assert box.variable("box-changing-1", "VERSION") == "fourth"
    assert root_image(box) == box.image_id("dom0:latest")
    box.until(lambda: box.status()["problems"] == [])
    box.until(lambda: box.containers().keys() == MACHINE)


async def test_the_old_dom0_is_back_when_the_new_one_hangs(box: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 10.0)  # its three minutes are long, and the old one must answer in it
    before, root = box.lives(*UNCHANGED), root_image(box)
    write(box, "fifth", 'ENTRYPOINT ["sleep", "100000"]')
    hanging = box.build(tag="hanging")
    engine = await DockerEngine.connect(box.host.docker_host)
    try:
        end = await handover.settle(engine, hanging, lambda line: None)
    finally:
        await engine.close()
    assert end.result is Result.UNDONE
    assert "did not answer" in end.reason
    box.until(lambda: root_image(box) == root and box.status()["dom0_image"] == root)
    assert box.lives(*UNCHANGED) == before
    box.docker("rm", "--force", "dom0-failed")
