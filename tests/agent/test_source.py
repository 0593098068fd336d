"""Images of a project are pinned: what is missing is pulled, and said in the words for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.agent.progress import Board, Changes
from dom0.agent.source import Handed, Own, pin_images, resolve
from dom0.compose.model import Project
from dom0.compose.x_dom0 import MachineSettings
from dom0.durable import Unwritable
from dom0.engine.values import Image
from dom0.errors import Dom0Error, EngineError, Final, ProjectError
from dom0.plan.facts import ImageNeed
from dom0.testing.builders import image_id
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

FAILURES = [Final("registry: says no", hint="log in"), EngineError("refused"), OSError(28, "is full")]


def need(ref: str, pull_policy: str = "never") -> ImageNeed:
    return ImageNeed(where="compose.yaml:3: services.web.image", ref=ref, pull_policy=pull_policy)


def engine() -> FakeEngine:
    docker = FakeDocker()
    docker.images.all[image_id("app")] = Image(id=image_id("app"), tags=("app:latest",))
    return FakeEngine(docker)


async def no_pull(need: ImageNeed, has_copy: bool) -> None:
    raise AssertionError(need)


async def test_a_missing_image_is_refused_by_its_place() -> None:
    place = r"compose\.yaml:3: services\.web\.image"
    with pytest.raises(ProjectError, match=rf"^{place}: the image nope is not on this machine"):
        await pin_images(engine(), (need("app:latest"), need("nope")), no_pull, print)


async def test_an_image_is_pinned_to_the_id_that_its_name_has_now() -> None:
    found = await pin_images(engine(), (need("app:latest"),), no_pull, print)
    assert found["app:latest"].id == image_id("app")


async def test_what_is_missing_or_always_pulled_is_pulled_once() -> None:
    docker, pulls = engine(), []

    async def pull(need: ImageNeed, has_copy: bool) -> None:
        pulls.append((need.ref, has_copy))
        docker.docker.images.add(need.ref)

    needs = (need("new:1", ""), need("app:latest", "always"), need("new:1", ""), need("app:latest", "always"))
    found = await pin_images(docker, needs, pull, print)
    assert pulls == [("new:1", False), ("app:latest", True)]
    assert found["app:latest"].id != image_id("app")


async def test_what_is_pinned_is_taken_whatever_its_name_means_here_and_never_pulled() -> None:
    docker = engine()
    other = docker.docker.images.add("other")
    needs = (need("app:latest", "always"), need("nowhere.example/app@sha256:" + "0" * 64, ""))
    found = await pin_images(docker, needs, no_pull, print, pinned=dict.fromkeys((each.ref for each in needs), other))
    assert [image.id for image in found.values()] == [other, other]
    with pytest.raises(EngineError):
        await pin_images(docker, needs, no_pull, print, pinned={"app:latest": image_id("gone")})


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
async def test_where_a_copy_is_here_a_pull_that_fails_is_no_failure(failure: Exception) -> None:
    said: list[str] = []

    async def pull(need: ImageNeed, has_copy: bool) -> None:
        raise failure

    found = await pin_images(engine(), (need("app:latest", "always"),), pull, said.append)
    assert found["app:latest"].id == image_id("app")
    assert said == [f"app:latest: cannot be pulled, the one that is here is used: {failure}"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
async def test_why_a_pull_failed_is_said_by_the_place_of_the_image_and_stops_no_other_one(failure: Exception) -> None:
    docker = engine()

    async def pull(need: ImageNeed, has_copy: bool) -> None:
        if need.ref == "nope":
            raise failure
        docker.docker.images.add(need.ref)

    with pytest.raises(ProjectError) as refused:
        await pin_images(docker, (need("nope", ""), need("new:1", "")), pull, print)
    text = "compose.yaml:3: services.web.image: the image nope is not on this machine and cannot be pulled: "
    assert refused.value.message == text + str(failure)
    assert refused.value.hint.startswith("log in" if isinstance(failure, Final) else "check its name")
    assert "new:1" in {tag for image in await docker.images() for tag in image.tags}


async def test_the_name_of_an_image_that_cannot_be_pulled_is_said_once() -> None:
    async def pull(need: ImageNeed, has_copy: bool) -> None:
        raise Final(f"{need.ref}: no such host")

    said: list[str] = []
    await pin_images(engine(), (need("app:latest", "always"),), pull, said.append)
    assert said == ["app:latest: cannot be pulled, the one that is here is used: no such host"]


async def test_a_disk_that_cannot_keep_what_comes_is_no_fault_of_the_project() -> None:
    async def pull(need: ImageNeed, has_copy: bool) -> None:
        raise Unwritable("/var/lib/dom0/pull: is full")

    with pytest.raises(Dom0Error) as refused:
        await pin_images(engine(), (need("nope", ""),), pull, print)
    assert type(refused.value) is Unwritable


async def test_a_time_zone_that_only_the_machine_of_dom0_up_knows_is_refused(tmp_path: Path) -> None:
    handed = Handed(Project(name="box", machine=MachineSettings(timezone="Nowhere/City")))
    with pytest.raises(ProjectError, match=r"^x-dom0\.timezone: 'Nowhere/City' is not a time zone$"):
        await resolve(engine(), tmp_path, tmp_path, Own(), Board(Changes()), handed=handed)
