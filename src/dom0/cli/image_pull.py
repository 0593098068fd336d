"""`dom0 image pull`: images from registries over an unreliable line, and what has come of them so far."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
import msgspec

from dom0 import terminal, times
from dom0.cli.announced import announcing
from dom0.cli.engine_client import on_engine
from dom0.cli.pulls import TAKEN, StatusLine
from dom0.errors import Dom0Error, Interrupted, ProjectError, UsageError
from dom0.names import PLACED, pull_directory, short_id

if TYPE_CHECKING:
    from dom0.agent.status import PullStatus
    from dom0.engine.protocol import Engine
    from dom0.images.pull import Pulled
    from dom0.plan.facts import ImageNeed
    from dom0.registry.depot import Depot
    from dom0.registry.fetch import Terms
    from dom0.registry.progress import Meter
    from dom0.registry.reference import Reference
    from dom0.registry.verify import PublicKey

_NOTHING = "nothing to pull: the images of this project are here"
_SHOWN_EVERY = 0.5  # seconds
PORT = 5050  # of `dom0 image serve`


Outcome: TypeAlias = "tuple[list[Pulled], list[Dom0Error | OSError]]"
"""What was pulled, and why the rest was not."""


class PartialBlob(msgspec.Struct, frozen=True, kw_only=True):
    """As `ls --partial --json` prints it."""

    digest: str
    size: int | None  # bytes; null where nothing says how many it has
    have: int  # bytes that have come
    used: float  # seconds since the epoch


def read_address(text: str, where: str) -> tuple[str, int]:
    """Of `HOST:PORT`. Raises UsageError."""
    from dom0.registry import listening

    try:
        return listening.read_address(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", hint=f"as 192.168.1.5:{PORT}, or [fd00::5]:{PORT}") from error


peers_option = click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    callback=lambda _context, _option, values: [read_address(each, "--peer") and each for each in values],
    help="Another machine, where dom0 image serve runs; asked before the registry. Can be said several times.",
)


@click.command("pull", short_help="Pull images over a line that breaks.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--platform", metavar="OS/ARCH", default="", help="Of this platform, not of the Engine's own.")
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Only what is signed with this public key, as cosign sign --key does it.",
)
@peers_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="A list of objects: reference, id, digest, size, received, from_peers, layers, layers_here, warning.",
)
def command(names: tuple[str, ...], platform: str, key: Path | None, peers: tuple[str, ...], as_json: bool) -> None:
    """Pull images over a line that breaks, and go on from the byte where it broke.

    As docker pull, and the Engine has the same image afterwards. What breaks is tried again until nothing has come for
    a day. What has come stays on the disk of this host when the command is ended or killed, or the power fails: the
    next one goes on from there. Layers that the Engine has are not asked for.

    $ dom0 image pull redis:7
    """
    from dom0.images.pull import platform_of
    from dom0.registry import reference
    from dom0.registry.verify import PublicKey

    references = [reference.parse(name) for name in names]
    platform = platform_of(platform, "--platform")
    wanted = [(each, platform) for each in references]
    keys = [PublicKey(str(key), key.read_bytes())] if key else []
    say_end(on_engine(lambda engine: pull_all(engine, wanted, peers, lambda _: keys)), as_json=as_json)


@click.command("fetch", short_help="Pull what a project needs.")
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path, resolve_path=True, file_okay=False)
)
@peers_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects, as those of dom0 image pull.")
def fetch(directory: Path, peers: tuple[str, ...], as_json: bool) -> None:
    """Pull what the services of the project in DIR need and the Engine has not, as dom0 image pull does.

    Then dom0 up has nothing to pull over a line that breaks, but what says pull_policy: always, of which it takes the
    one that is here where that fails. What the project builds is left to it.

    $ dom0 image fetch && dom0 up
    """
    say_end(on_engine(lambda engine: pull_missing(engine, directory, peers)), as_json=as_json)


def say_partial_blobs(*, as_json: bool) -> None:
    """What has come of blobs that are not whole, those in use last first."""
    blobs = [
        PartialBlob(digest=blob.digest, size=blob.size, have=blob.have, used=blob.used)
        for blob in (own_depot().blobs() if pull_directory().is_dir() else ())
        if blob.have and not blob.is_whole
    ]
    now = time.time()
    cells = (
        (
            short_id(blob.digest),
            terminal.size(blob.have),
            "" if blob.size is None else terminal.size(blob.size),
            f"{times.ago(now - blob.used)} ago",
        )
        for blob in blobs
    )
    terminal.say_table(blobs, ("BLOB", "HERE", "SIZE", "USED"), cells, as_json=as_json)


def own_depot() -> Depot:
    from dom0.images.pull import KEPT
    from dom0.registry.depot import Depot

    return Depot(pull_directory(), KEPT)


async def pull_missing(engine: Engine, directory: Path, peers: Sequence[str] = ()) -> Outcome:
    """What the project there needs and the Engine has not. Raises ProjectError, EngineError, Interrupted."""
    from dom0.agent.pull import depot_of, keys_of, settings_of, terms_of
    from dom0.agent.source import find_pulls
    from dom0.compose.load import load
    from dom0.engine.protocol import find_image
    from dom0.plan.facts import images_needed

    project = await load(directory, PLACED, hashed=False)
    wanted, failed = read_needs(images_needed(project))
    pulls = [need for need in await find_pulls(engine, list(wanted)) if await find_image(engine, need.ref) is None]
    keys, terms, depot = partial(keys_of, project), terms_of(project), depot_of(project)
    peers = [*peers, *settings_of(project).peers]
    pulled, others = await pull_all(engine, [wanted[need] for need in pulls], peers, keys, terms, depot)
    return pulled, [*failed, *others]


def read_needs(needs: Iterable[ImageNeed]) -> tuple[dict[ImageNeed, tuple[Reference, str]], list[ProjectError]]:
    """Name and platform of each that is not built here; and what is wrong with those that have none."""
    from dom0.images.pull import platform_of
    from dom0.registry import reference

    found: dict[ImageNeed, tuple[Reference, str]] = {}
    refused: list[ProjectError] = []
    for need in needs:
        try:
            if not need.built:
                found[need] = reference.parse(need.ref), platform_of(need.platform, "platform")
        except UsageError as error:
            refused.append(ProjectError(f"{need.where}: {error.message}", hint=error.hint))
    return found, refused


async def pull_all(
    engine: Engine,
    wanted: Iterable[tuple[Reference, str]],
    peers: Sequence[str] = (),
    keys: Callable[[Reference], Sequence[PublicKey]] = lambda _: (),
    terms: Terms | None = None,
    depot: Depot | None = None,
) -> Outcome:
    """One after the other, each of its platform; one that fails does not stop the others. Raises Interrupted.

    `keys`: with which each has to be signed; `terms` and `depot`: None for the usual ones.
    """
    from dom0.images.pull import pull
    from dom0.registry.fetch import USUAL
    from dom0.registry.progress import Meter

    pulled: list[Pulled] = []
    failed: list[Dom0Error | OSError] = []
    for reference, platform in wanted:
        name, meter = reference.familiar(), Meter()
        try:
            async with shown(name, meter):
                done = await pull(
                    engine,
                    depot or own_depot(),
                    reference,
                    platform=platform,
                    keys=keys(reference),
                    peers=peers,
                    terms=terms or USUAL,
                    meter=meter,
                    say=terminal.say_to_stderr,
                )
                pulled.append(done)
        except asyncio.CancelledError as error:
            come = f"{terminal.size(meter.have)} of {terminal.size(meter.size)} have come and are kept"
            why = come if meter.size else "ended while the registry was asked; what had come before is kept"
            raise Interrupted(f"{name}: {why}", hint=f"go on from there: dom0 image pull {name}") from error
        except (Dom0Error, OSError) as error:
            failed.append(error)
    return pulled, failed


def say_end(outcome: Outcome, *, as_json: bool) -> None:
    """What is here, and why the rest is not: the last error is raised."""
    pulled, failed = outcome
    lines = list(map(_line, pulled)) if pulled or failed else [_NOTHING]
    terminal.say_done(pulled, *lines, as_json=as_json)
    for error in failed[:-1]:
        terminal.end(error, as_json=as_json)
    if failed:
        raise failed[-1]


@asynccontextmanager
async def shown(name: str, meter: Meter, *, then: str = TAKEN) -> AsyncIterator[None]:
    """How far it is, on standard error: one line that changes on a terminal, else a line now and then.

    `then`: what is done with it when all has come. What the Engine takes is in `dom0 status`, too.
    """
    line = StatusLine(terminal.say_to_stderr)
    with announcing() if then == TAKEN else contextlib.nullcontext(lambda _: None) as tell:
        task = asyncio.create_task(_show(name, meter, line, then, tell))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            line.clear()


async def _show(
    name: str, meter: Meter, line: StatusLine, then: str, tell: Callable[[tuple[PullStatus, ...]], None]
) -> None:
    from dom0.agent.pull import status_of

    while True:
        pulls = (status_of(name, meter),)
        tell(pulls)
        if not terminal.quiet():
            line.show(pulls, then)
        await asyncio.sleep(_SHOWN_EVERY)


def _line(image: Pulled) -> str:
    came = f"{terminal.size(image.received)} came over the line" if image.received else "nothing had to come"
    came += f", {terminal.size(image.from_peers)} of that from peers" if image.from_peers else ""
    text = f"{image.reference}: {short_id(image.id)}, {terminal.size(image.size)}; {came}"
    return f"{text}; {image.warning}" if image.warning else text
