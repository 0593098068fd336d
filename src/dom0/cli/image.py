"""`dom0 image`: the image chain, from the root file system to the machines' images."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.report import Report
from dom0.errors import Dom0Error
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, ROOTFS_IMAGE
from dom0.plan import labels

# As in images.recipe, which would load what builds them.

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the chain, as `--json` prints it."""

    name: str  # "" when another image has taken it
    id: str
    size: int  # bytes, with what lies below
    based_on: str  # ID, "" for the lowest
    used_by: tuple[str, ...]  # "dom0" and "generation N"


class BuiltImage(msgspec.Struct, frozen=True, kw_only=True):
    """As `build --json` prints it."""

    name: str
    id: str
    size: int  # bytes, with what lies below


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """As `save --json` prints it."""

    file: str
    size: int  # bytes
    images: tuple[str, ...]


@click.group("image")
def command() -> None:
    """Look at and build the images that machines are made of.

    dom0-rootfs is a small Debian, dom0-base adds dom0 itself, and `dom0 build` adds a project. dom0-ambassador stands
    on none of them.

    $ dom0 image ls
    """


@command.command("build")
@click.argument("name", required=False, type=click.Choice([BASE_IMAGE, AMBASSADOR_IMAGE]), metavar="[NAME]")
@click.option("--no-cache", is_flag=True, help="Build everything anew, with the packages of today.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects: name, id, size.")
def build(name: str | None, no_cache: bool, as_json: bool) -> None:
    """Build dom0-base (with dom0-rootfs) and dom0-ambassador, or the one of them that is NAME, if not up to date.

    $ dom0 image build --no-cache  # take in Debian's security updates
    $ dom0 image build dom0-ambassador
    """
    names = [name] if name else [BASE_IMAGE, AMBASSADOR_IMAGE]
    built = asyncio.run(_build(names, Report(beside=as_json), no_cache=no_cache))
    if as_json:
        terminal.say_json(built)
    elif not terminal.quiet():
        for image in built:
            terminal.say(f"{image.name}: {terminal.short_id(image.id)}, {terminal.size(image.size)}")


@command.command("save")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="An object: file, size, images.")
def save(file: Path, as_json: bool) -> None:
    """Save dom0:latest and all images that its machine needs to FILE, for boot media (see `dom0 os write`).

    So a machine starts without a network, and makes backups of its home. An image that is not on this host is named:
    the machine will pull it.

    $ dom0 image save dom0.tar
    """
    references = asyncio.run(_save(file))
    saved = Saved(file=str(file), size=file.stat().st_size, images=tuple(references))
    if as_json:
        terminal.say_json(saved)
    elif not terminal.quiet():
        terminal.say(f"{file}: {', '.join(saved.images)}, {terminal.size(saved.size)}")


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="A list of objects: name, id, size, based_on, used_by.")
def list_images(as_json: bool) -> None:
    """List the images of the chain: how large they are, what they stand on, and who uses them.

    $ dom0 image ls
    """
    rows = asyncio.run(_rows())
    if as_json:
        terminal.say_json(rows)
        return
    names = {row.id: row.name or terminal.short_id(row.id) for row in rows}
    cells = [
        (
            row.name or "<none>",
            terminal.short_id(row.id),
            terminal.size(row.size),
            names.get(row.based_on, terminal.short_id(row.based_on)),
            ", ".join(row.used_by),
        )
        for row in rows
    ]
    terminal.say_columns(("IMAGE", "ID", "SIZE", "BASED ON", "USED BY"), cells)


async def _build(names: Sequence[str], report: Report, *, no_cache: bool) -> list[BuiltImage]:
    from dom0.engine.docker import DockerEngine
    from dom0.images.chain import build_ambassador, build_base

    builders = {BASE_IMAGE: build_base, AMBASSADOR_IMAGE: build_ambassador}
    engine = await DockerEngine.connect()
    try:
        built = {name: await builders[name](engine, report, no_cache=no_cache) for name in names}
    finally:
        await engine.close()
    return [BuiltImage(name=name, id=image.id, size=image.size) for name, image in built.items()]


async def _save(file: Path) -> Sequence[str]:
    from dom0.engine.docker import DockerEngine
    from dom0.images import save as saving

    engine = await DockerEngine.connect()
    try:
        images = await saving.images_of_machine(engine)
        references = [*images.here, *(await _image_for_backups(engine) if images.has_home else ())]
    finally:
        await engine.close()
    for missing in images.missing:
        terminal.say_to_stderr(f"{missing}: not on this host and not saved; the machine will pull it")
    if images.private:
        names = ", ".join(images.private)
        terminal.say_to_stderr(f"{names}: private, so not saved; a new machine gets them by dom0 up in the project")
    await saving.save(references, file)
    return references


async def _image_for_backups(engine: Engine) -> Sequence[str]:
    """Of the home; a machine with the base OS cannot make it."""
    from dom0 import home

    try:
        await home.prepare_image(engine)
    except Dom0Error as error:
        terminal.say_to_stderr(f"{home.IMAGE}: not saved, so `dom0 home` has no backups there; {error.message}")
        return ()
    return (home.IMAGE,)


async def _rows() -> list[ImageRow]:
    from dom0.engine.docker import DockerEngine

    engine = await DockerEngine.connect()
    try:
        images = await engine.images(labels=[labels.INPUTS])
        return rows_of(images, await _users(engine))
    finally:
        await engine.close()


async def _users(engine: Engine) -> dict[str, list[str]]:
    """Image ID -> the root container, ambassadors and the generations that were made from it."""
    users: dict[str, list[str]] = {}
    for label in (f"{labels.ROLE}=root", f"{labels.ROLE}=ambassador", labels.AMBASSADOR):  # with dom0, and without
        for container in await engine.containers(labels=[label]):
            users.setdefault(container.image_id, []).append(container.name)
    with contextlib.suppress(AgentUnreachable):
        for generation in reversed(Agent().history()):
            users.setdefault(generation.dom0_image, []).append(f"generation {generation.number}")
    return users


def rows_of(images: Sequence[Image], users: Mapping[str, Sequence[str]]) -> list[ImageRow]:
    """The lowest first, then by name. What else stands on dom0-rootfs has its label too and is not in the chain."""
    machines = [image for image in images if image.labels.get(labels.ROLE) == "root"]
    below = {_below(image) for image in machines}
    rows = [
        ImageRow(
            name=_name(image),
            id=image.id,
            size=image.size,
            based_on=_below(image),
            used_by=tuple(users.get(image.id, ())),
        )
        for image in images
        if image in machines or image.id in below or _name(image) in (ROOTFS_IMAGE, AMBASSADOR_IMAGE)
    ]
    return sorted(rows, key=lambda row: (_height(row, rows), row.name == "", row.name, row.id))


def _name(image: Image) -> str:
    """Without the tags that only keep an image from being pruned."""
    names = [tag.removesuffix(":latest") for tag in image.tags if not tag.startswith("dom0-kept:")]
    return min(names, default="")


def _below(image: Image) -> str:
    """A dom0 image has both labels: it inherits the one of dom0-base."""
    return image.labels.get(labels.BASE) or image.labels.get(labels.ROOTFS_ID, "")


def _height(row: ImageRow, rows: Sequence[ImageRow]) -> int:
    below = next((other for other in rows if other.id == row.based_on), None)
    return 0 if below is None else 1 + _height(below, rows)
