"""Which image has the tag `dom0:latest`, and which have the tags of the service images that a project builds.

    build ─▶ dom0-built:ID ──(taken up)──▶ dom0:latest, box-web ──(failed)──▶ the ones before; dom0:failed
                   └──(refused)──▶ nothing

A build moves no tag. A dom0 image has a label with the IDs of the service images that were built with it
(`dom0.images`), so its project is read before any tag has moved. An image with the tag `dom0-built:ID` was built for
`dom0 up` and is not taken up yet: the tag stays until the generation is on disk, so that after a kill the next process
can correct the tags.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dom0.engine.protocol import Engine, find_image
from dom0.errors import Dom0Error, EngineError
from dom0.images.fingerprint import images_of
from dom0.names import IMAGE, short_id

if TYPE_CHECKING:
    from dom0.engine.values import Image

BUILT = "dom0-built"
BESIDE = "-beside"  # ends the name of one that was built under another name than dom0:latest
FAILED = "dom0:failed"  # the last one whose generation failed

Names = Mapping[str, str]
"""Name -> ID of the image that has it, "" where none has."""


def has_its_names(tags: Collection[str]) -> bool:
    """Whether an image with these tags was taken up as dom0:latest before, or built for no `dom0 up`."""
    return IMAGE in tags and not any(tag.startswith(f"{BUILT}:") for tag in tags)


async def give(engine: Engine, names: Names) -> None:
    """Tag each image with its name, and remove names without one. Raises EngineError."""
    for name, image_id in names.items():
        if image_id:
            await engine.tag_image(image_id, name)
        else:
            await engine.remove_image(name)


async def mark(engine: Engine, image: Image, tag: str) -> None:
    """`image` was built for `dom0 up`, to have the name `tag`. Raises EngineError."""
    for image_id in (await _service_images(engine, image)).values():
        await engine.tag_image(image_id, _built(image_id))
    if tag == IMAGE:
        await engine.tag_image(image.id, _built(image.id))
    else:
        await give(engine, {tag: image.id, _built(image.id) + BESIDE: image.id})


async def unmark(engine: Engine, image_id: str) -> None:
    """It is taken up, or refused: images without another tag are removed. Never raises: a leftover tag does no harm."""
    if not image_id:
        return
    with contextlib.suppress(EngineError):
        image = await find_image(engine, image_id)
        ids = images_of(image.labels).values() if image else ()
        for name in (_built(image_id), _built(image_id) + BESIDE, *map(_built, ids)):
            with contextlib.suppress(EngineError):
                await engine.remove_image(name)


@asynccontextmanager
async def taken_up(engine: Engine, image_id: str) -> AsyncIterator[None]:
    """Move its names before the block, which creates containers by name, and back if the block raises.

    Nothing for an image that was not built for `dom0 up`. Raises EngineError.
    """
    wanted = await _wanted(engine, image_id)
    before = await present(engine, wanted)
    try:
        await give(engine, wanted)
        yield
    except BaseException:
        with contextlib.suppress(EngineError):
            await give(engine, before)
        raise
    if before:
        await unmark(engine, image_id)


@asynccontextmanager
async def taken_up_later(engine: Engine, image_id: str) -> AsyncIterator[None]:
    """The same around a change of the root container, whose agent takes the image up.

    After a kill in the block that agent corrects the names, or the old one at its next start.
    """
    wanted = await _wanted(engine, image_id)
    before = await present(engine, wanted)
    try:
        await give(engine, wanted)
        yield
    except Dom0Error:
        if before:
            await give(engine, before | {FAILED: image_id})
            await unmark(engine, image_id)
        raise


@asynccontextmanager
async def left(engine: Engine, image_id: str, names: Names) -> AsyncIterator[None]:
    """Around leaving a generation of `image_id` ("": none) that was never good: then names are again as in `names`.

    After a kill in the block the agent's next start does it. Raises EngineError, before the block.
    """
    latest = await find_image(engine, IMAGE)
    if latest is not None and latest.id == image_id:
        await mark(engine, latest, IMAGE)
    try:
        yield
    except BaseException:
        await unmark(engine, image_id)
        raise
    with contextlib.suppress(EngineError):
        await give_back(engine, image_id, names)


async def give_back(engine: Engine, image_id: str, names: Names) -> None:
    """The generation of `image_id` is not kept: what it or its service images are called by is again as in `names`.

    Raises EngineError.
    """
    failed = await find_image(engine, image_id)
    if failed is None or names.get(IMAGE) == image_id:
        return
    its_own = {image_id, *images_of(failed.labels).values()}
    await give(
        engine,
        {
            name: names[name]
            for name, present_id in (await present(engine, names)).items()
            if present_id in its_own - {names[name]} and names[name] and await find_image(engine, names[name])
        },
    )
    await engine.tag_image(image_id, FAILED)
    await unmark(engine, image_id)


async def not_taken_up(engine: Engine) -> str:
    """ID of the image that has the name dom0:latest although a kill ended its `taken_up`, "" for none."""
    latest = await find_image(engine, IMAGE)
    return latest.id if latest and await find_image(engine, _built(latest.id)) else ""


async def _wanted(engine: Engine, image_id: str) -> Names:
    if not image_id:
        return {}
    is_latest = await find_image(engine, _built(image_id)) is not None
    if not is_latest and await find_image(engine, _built(image_id) + BESIDE) is None:
        return {}
    wanted = await _service_images(engine, await engine.image(image_id))
    return wanted | {IMAGE: image_id} if is_latest else wanted


async def _service_images(engine: Engine, image: Image) -> dict[str, str]:
    """What was built with it, as `Names`. Brought from an Engine that keeps images in another way, it is not here."""
    return {name: id_ for name, id_ in images_of(image.labels).items() if await find_image(engine, id_)}


async def present(engine: Engine, names: Iterable[str]) -> dict[str, str]:
    """As `Names`."""
    found = {name: await find_image(engine, name) for name in names}
    return {name: image.id if image else "" for name, image in found.items()}


def _built(image_id: str) -> str:
    return f"{BUILT}:{short_id(image_id)}"
