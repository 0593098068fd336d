"""Images of a project are pinned: what is missing is said in the words for it."""

from __future__ import annotations

import pytest

from dom0.agent.source import pin_images
from dom0.engine.values import Image
from dom0.errors import ProjectError
from dom0.plan.facts import ImageNeed
from dom0.testing.builders import image_id
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine


def need(ref: str) -> ImageNeed:
    return ImageNeed(where="compose.yaml:3: services.web.image", ref=ref, pull_policy="never")


def engine() -> FakeEngine:
    docker = FakeDocker()
    docker.images.all[image_id("app")] = Image(id=image_id("app"), tags=("app:latest",))
    return FakeEngine(docker)


async def test_a_missing_image_is_refused_by_its_place() -> None:
    place = r"compose\.yaml:3: services\.web\.image"
    with pytest.raises(ProjectError, match=rf"^{place}: the image nope is not on this machine"):
        await pin_images(engine(), (need("app:latest"), need("nope")), print)


async def test_an_image_is_pinned_to_the_id_that_its_name_has_now() -> None:
    found = await pin_images(engine(), (need("app:latest"),), print)
    assert found["app:latest"].id == image_id("app")
