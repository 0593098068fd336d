"""Names of images that count move when a build is taken up, and go back when its generation fails."""

from __future__ import annotations

import json

import pytest

from dom0.engine.values import Image
from dom0.errors import Conflict
from dom0.images import names
from dom0.names import IMAGE
from dom0.plan.labels import IMAGES
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine


class Store:
    """An Engine with a machine's image and its service's, and the same two built anew."""

    def __init__(self) -> None:
        self.images = FakeDocker().images
        self.engine = FakeEngine(FakeDocker())
        self.images = self.engine.docker.images
        self.old_web = self.images.add("box-web")
        self.old = self.images.add(IMAGE, labels=self._made_with(self.old_web))
        self.web = self.images.add("draft-web")
        self.new = self.images.add("draft", labels=self._made_with(self.web))

    def _made_with(self, web: str) -> dict[str, str]:
        return {IMAGES: json.dumps({"box-web": web})}

    @property
    def image(self) -> Image:
        return self.images.all[self.new]

    def of(self, name: str) -> str:
        """`old` or `new`, for both images; "" where the name is none's."""
        found = [image.id for image in self.images.all.values() if f"{name}:latest" in image.tags or name in image.tags]
        known = {self.old: "old", self.old_web: "old", self.new: "new", self.web: "new"}
        return known[found[0]] if found else ""

    def built(self) -> list[str]:
        return [tag for image in self.images.all.values() for tag in image.tags if tag.startswith("dom0-built")]


@pytest.fixture
def store() -> Store:
    return Store()


async def test_what_was_built_has_no_name_that_counts(store: Store) -> None:
    await names.mark(store.engine, store.image, IMAGE)
    assert (store.of(IMAGE), store.of("box-web"), len(store.built())) == ("old", "old", 2)


async def test_what_is_taken_up_has_its_names_before_anything_is_made_from_it(store: Store) -> None:
    await names.mark(store.engine, store.image, IMAGE)
    async with names.taken_up(store.engine, store.new):
        assert (store.of(IMAGE), store.of("box-web")) == ("new", "new")
    assert (store.of(IMAGE), store.of("box-web"), store.built()) == ("new", "new", [])


async def test_what_was_brought_from_another_store_is_taken_up_without_images_that_have_other_ids_here(
    store: Store,
) -> None:
    store.images.remove("draft-web", in_use=lambda _: False)
    await names.mark(store.engine, store.image, IMAGE)
    async with names.taken_up(store.engine, store.new):
        assert (store.of(IMAGE), store.of("box-web")) == ("new", "old")


async def test_what_cannot_be_taken_up_leaves_every_name_where_it_was(store: Store) -> None:
    await names.mark(store.engine, store.image, IMAGE)
    store.images.tag(store.old_web, "box-web")
    with pytest.raises(Conflict):
        async with names.taken_up(store.engine, store.new):
            raise Conflict("refused")
    assert (store.of(IMAGE), store.of("box-web")) == ("old", "old")


async def test_a_name_that_was_nobodys_is_nobodys_again(store: Store) -> None:
    store.images.remove("box-web", in_use=lambda _id: False)
    await names.mark(store.engine, store.image, IMAGE)
    with pytest.raises(Conflict):
        async with names.taken_up(store.engine, store.new):
            raise Conflict("refused")
    assert (store.of(IMAGE), store.of("box-web")) == ("old", "")


async def test_an_image_that_was_not_built_for_up_moves_no_name(store: Store) -> None:
    async with names.taken_up(store.engine, store.new):
        pass
    assert (store.of(IMAGE), store.of("box-web")) == ("old", "old")


async def test_built_under_another_name_it_gets_that_one_and_leaves_dom0_latest(store: Store) -> None:
    await names.mark(store.engine, store.image, "dom0:trial")
    async with names.taken_up(store.engine, store.new):
        pass
    assert (store.of(IMAGE), store.of("dom0:trial"), store.of("box-web")) == ("old", "new", "new")
    assert store.built() == []


async def test_a_refused_image_is_gone_with_its_last_name(store: Store) -> None:
    await names.mark(store.engine, store.image, IMAGE)
    for draft in ("draft", "draft-web"):
        await store.engine.remove_image(draft)
    await names.unmark(store.engine, store.new)
    assert (store.built(), set(store.images.all)) == ([], {store.old, store.old_web})


async def test_what_has_failed_is_called_so_and_its_names_are_of_the_good_ones(store: Store) -> None:
    await names.give(store.engine, {IMAGE: store.new, "box-web": store.web})
    await names.give_back(
        store.engine, store.new, {IMAGE: store.old, "box-web": store.old_web, "redis:7": store.old_web}
    )
    assert (store.of(IMAGE), store.of("box-web"), store.of("dom0:failed")) == ("old", "old", "new")
    assert store.of("redis:7") == ""


async def taken_up(store: Store) -> dict[str, str]:
    """Returns the names that there were before."""
    await names.mark(store.engine, store.image, IMAGE)
    async with names.taken_up(store.engine, store.new):
        return {IMAGE: store.old, "box-web": store.old_web}


async def test_what_is_left_before_it_was_good_gives_its_names_back(store: Store) -> None:
    before = await taken_up(store)
    async with names.left(store.engine, store.new, before):
        assert (store.of(IMAGE), store.of("box-web")) == ("new", "new")
    assert (store.of(IMAGE), store.of("box-web"), store.built()) == ("old", "old", [])


async def test_what_cannot_be_left_keeps_its_names(store: Store) -> None:
    before = await taken_up(store)
    with pytest.raises(Conflict):
        async with names.left(store.engine, store.new, before):
            raise Conflict("refused")
    assert (store.of(IMAGE), store.of("box-web"), store.built()) == ("new", "new", [])


async def test_who_is_killed_while_it_is_left_is_known_too(store: Store) -> None:
    before = await taken_up(store)
    async with names.left(store.engine, store.new, before):
        assert await names.not_taken_up(store.engine) == store.new


async def test_leaving_a_good_one_moves_no_name(store: Store) -> None:
    before = await taken_up(store)
    async with names.left(store.engine, "", before):
        pass
    assert (store.of(IMAGE), store.of("box-web")) == ("new", "new")


async def test_a_name_that_a_person_has_given_meanwhile_stays_where_it_is(store: Store) -> None:
    other = store.images.add("box-web")
    await names.give_back(store.engine, store.new, {IMAGE: store.old, "box-web": store.old_web})
    assert store.images.find("box-web").id == other


async def test_who_was_killed_in_the_middle_is_known_by_the_name_it_left(store: Store) -> None:
    assert await names.not_taken_up(store.engine) == ""
    await names.mark(store.engine, store.image, IMAGE)
    assert await names.not_taken_up(store.engine) == ""
    await names.give(store.engine, {IMAGE: store.new})
    assert await names.not_taken_up(store.engine) == store.new
