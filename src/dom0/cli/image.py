"""`dom0 image`: the image chain, from the root file system to the machines' images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal
from dom0.cli import image_login, image_pull, image_serve
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.engine_client import on_engine
from dom0.cli.report import Report
from dom0.errors import Dom0Error, UsageError
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, KEPT_IMAGES, ROOTFS_IMAGE, short_id
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image


class ChainImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the chain, as `--json` prints it."""

    name: str  # "" when another image has taken it
    id: str
    size: int  # bytes, with what lies below
    based_on: str  # ID, "" for the lowest
    used_by: tuple[str, ...]  # "dom0" and "generation N"


class BuiltChainImage(msgspec.Struct, frozen=True, kw_only=True):
    """As `build --json` prints it."""

    name: str
    id: str
    size: int  # bytes, with what lies below


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """As `save --json` prints it."""

    file: str
    size: int  # bytes
    images: tuple[str, ...]
    left_out: int  # bytes of layers


@click.group("image")
def command() -> None:
    """Build, pull, save and load the images that machines are made of.

    dom0-rootfs is a small Debian, dom0-base adds dom0 itself, and `dom0 build` adds a project. dom0-ambassador stands
    on none of them.

    $ dom0 image ls

    $ dom0 image pull redis:7
    """


command.add_command(image_pull.command)
command.add_command(image_pull.fetch)
command.add_command(image_serve.serve)
command.add_command(image_login.login)
command.add_command(image_login.logout)


@command.command("build", short_help="Build dom0-base and dom0-ambassador.")
@click.argument("name", required=False, type=click.Choice([BASE_IMAGE, AMBASSADOR_IMAGE]), metavar="[NAME]")
@click.option("--no-cache", is_flag=True, help="Build everything anew, with the packages of today.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects: name, id, size.")
def build(name: str | None, no_cache: bool, as_json: bool) -> None:
    """Build dom0-base (with dom0-rootfs) and dom0-ambassador, or the one of them that is NAME, if not up to date.

    $ dom0 image build --no-cache  # take in Debian's security updates
    $ dom0 image build dom0-ambassador
    """
    names = [name] if name else [BASE_IMAGE, AMBASSADOR_IMAGE]
    built = on_engine(lambda engine: _build(engine, names, Report(beside=as_json), no_cache=no_cache))
    lines = (f"{image.name}: {short_id(image.id)}, {terminal.size(image.size)}" for image in built)
    terminal.say_done(built, *lines, as_json=as_json)


@command.command("save", short_help="Save the machine's images to a file.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--without-layers-of",
    "there",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Leave out what another machine has: its dom0 image ls --layers --json, or an archive that it has loaded.",
)
@click.option("--json", "as_json", is_flag=True, help="An object: file, size, images, left_out.")
def save(file: Path, there: Path | None, as_json: bool) -> None:
    """Save dom0:latest and all images that its machine needs to FILE, for boot media (see `dom0 os write`).

    So a machine starts without a network, makes backups of its home, and images of its own on dom0-rootfs, which goes
    along. An image that is not on this host is named: the machine will pull it. With --without-layers-of only what is
    missing there goes onto a stick, for dom0 image load.

    $ dom0 image save dom0.tar

    $ dom0 image save --without-layers-of /media/stick/there.json /media/stick/dom0.tar
    """
    references, left_out = on_engine(lambda engine: _save(engine, file, there))
    saved = Saved(file=str(file), size=file.stat().st_size, images=tuple(references), left_out=left_out)
    text = f"{file}: {', '.join(saved.images)}, {terminal.size(saved.size)}"
    terminal.say_done(saved, f"{text}; without {terminal.size(left_out)} of layers" if there else text, as_json=as_json)


@command.command("load", short_help="Load images from a file.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="A list of objects: id, names, layers, layers_here.")
def load(file: Path, as_json: bool) -> None:
    """Load images of FILE, which dom0 image save or docker save has made, also without layers that are here.

    Each layer is checked before anything is loaded, and no name moves before all images are loaded. A layer that is
    neither in FILE nor here is named, and nothing is loaded then.

    $ dom0 image load /media/stick/dom0.tar
    """
    from dom0.images import load as loading

    loaded = on_engine(lambda engine: loading.load(engine, file))
    lines = (
        f"{', '.join(each.names)}: {short_id(each.id)}, {each.layers_here} of {each.layers} layers were here"
        for each in loaded
    )
    terminal.say_done(loaded, *lines, as_json=as_json)


@command.command("ls", short_help="List images of machines, partial blobs or layers.")
@click.option("--partial", is_flag=True, help="What has come of images that dom0 image pull did not end: BLOB, HERE.")
@click.option("--layers", is_flag=True, help="Layers of all images here, for dom0 image save --without-layers-of.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="A list of objects: name, id, size, based_on, used_by; with --partial: digest, size, have, used; with "
    "--layers: id, names, layers.",
)
def list_images(partial: bool, layers: bool, as_json: bool) -> None:
    """List the images of the chain: how large they are, what they stand on, and who uses them.

    $ dom0 image ls

    $ dom0 image ls --layers --json >/media/stick/there.json
    """
    if partial and layers:
        raise UsageError("--layers: not together with --partial", hint="list one after the other")
    if partial:
        image_pull.say_partial_blobs(as_json=as_json)
        return
    if layers:
        from dom0.images.layer_list import list_layers

        images = on_engine(list_layers)
        of_images = (
            (", ".join(image.names) or short_id(image.id), short_id(layer.digest or layer.diff_id))
            for image in images
            for layer in image.layers
        )
        terminal.say_table(images, ("IMAGE", "LAYER"), of_images, as_json=as_json)
        return
    rows = on_engine(_rows)
    names = {row.id: row.name or short_id(row.id) for row in rows}
    cells = (
        (
            row.name or "<none>",
            short_id(row.id),
            terminal.size(row.size),
            names.get(row.based_on, short_id(row.based_on)),
            ", ".join(row.used_by),
        )
        for row in rows
    )
    terminal.say_table(rows, ("IMAGE", "ID", "SIZE", "BASED ON", "USED BY"), cells, as_json=as_json)


async def _build(engine: Engine, names: Sequence[str], report: Report, *, no_cache: bool) -> list[BuiltChainImage]:
    from dom0.images.chain import build_ambassador, build_base

    builders = {BASE_IMAGE: build_base, AMBASSADOR_IMAGE: build_ambassador}
    built = {name: await builders[name](engine, report.say, no_cache=no_cache) for name in names}
    return [BuiltChainImage(name=name, id=image.id, size=image.size) for name, image in built.items()]


async def _save(engine: Engine, file: Path, there: Path | None) -> tuple[Sequence[str], int]:
    """The names of what was saved, and how many bytes of layers were left out."""
    from dom0.backup import restic
    from dom0.images import save as saving
    from dom0.images.layer_list import read_there
    from dom0.registry.manifest import parse_platform

    platform = parse_platform(f"linux/{(await engine.info()).machine}")
    layers = await read_there(there, platform) if there else []

    images = await saving.images_of_machine(engine)
    references = [*images.here]
    if images.has_backups:  # a machine with the base OS cannot make the image for them
        try:
            await restic.prepare_image(engine)
            references.append(restic.IMAGE)
        except Dom0Error as error:
            terminal.say_to_stderr(f"{restic.IMAGE}: not saved, so there are no backups there; {error.message}")
    for missing in images.missing:
        terminal.say_to_stderr(f"{missing}: not on this host and not saved; the machine will pull it")
    if images.private:
        names = ", ".join(images.private)
        terminal.say_to_stderr(f"{names}: private, so not saved; a new machine gets them by dom0 up in the project")
    if there:
        return references, await saving.save_without(references, file, layers, platform)
    await saving.save(references, file)
    return references, 0


async def _rows(engine: Engine) -> list[ChainImage]:
    users: dict[str, list[str]] = {}  # image ID -> the root container, ambassadors and generations made from it
    for label in (f"{labels.ROLE}=root", f"{labels.ROLE}=ambassador", labels.AMBASSADOR):  # with dom0, and without
        for container in await engine.containers(labels=[label]):
            users.setdefault(container.image_id, []).append(container.name)
    with contextlib.suppress(AgentUnreachable):
        for generation in reversed(Agent().history()):
            users.setdefault(generation.dom0_image, []).append(f"generation {generation.number}")
    return rows_of(await engine.images(labels=[labels.INPUTS]), users)


def rows_of(images: Sequence[Image], users: Mapping[str, Sequence[str]]) -> list[ChainImage]:
    """The lowest first, then by name. Other images on dom0-rootfs inherit its label and are not in the chain."""
    machines = [image for image in images if image.labels.get(labels.ROLE) == "root"]
    below = {_below(image) for image in machines}
    rows = [
        ChainImage(
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
    names = [tag.removesuffix(":latest") for tag in image.tags if not tag.startswith(f"{KEPT_IMAGES}:")]
    return min(names, default="")


def _below(image: Image) -> str:
    """A dom0 image has both labels: it inherits the one of dom0-base."""
    return image.labels.get(labels.BASE) or image.labels.get(labels.ROOTFS_ID, "")


def _height(row: ChainImage, rows: Sequence[ChainImage]) -> int:
    below = next((other for other in rows if other.id == row.based_on), None)
    return 0 if below is None else 1 + _height(below, rows)
