"""Images from a registry into the Engine, over a line that may be terrible: what is missing there is fetched into a
depot, where it stays whatever happens, and loaded when all of it has come.

The Engine then has what its own pull would have made: the same ID, names and digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from dom0.engine.protocol import Engine
from dom0.engine.values import EngineInfo
from dom0.errors import Conflict, EngineError, EngineUnreachable, Final, NotFound, Temporary
from dom0.images.layers_there import Remembered, in_graph_driver
from dom0.images.names import find
from dom0.registry import credentials
from dom0.registry.archive import Archive, Damaged, diff_ids
from dom0.registry.client import Registry
from dom0.registry.depot import Depot, Need
from dom0.registry.fetch import USUAL, GaveUp, Terms, fetch
from dom0.registry.manifest import Descriptor, ImageManifest, Index, choose, digest_of, parse_manifest, parse_platform
from dom0.registry.mirrors import Mirrored
from dom0.registry.patience import LONGEST_ASKED, pause
from dom0.registry.progress import Meter, Waiting
from dom0.registry.reference import DEFAULT_REGISTRY, Reference
from dom0.registry.verify import require_signed
from dom0.terminal import size
from dom0.times import ago

T = TypeVar("T")

KEPT = 2 << 30  # bytes of blobs that stay in a depot for the next pull
MOST_DAMAGED = 3  # times that a blob may turn out to be damaged after it was fetched
_ANSWER, _LONGEST_ANSWER = 10.0, 120.0  # seconds for a manifest: the first try, any other one
_NAMING = 60.0  # seconds for a pull of the Engine's own that only adds a name: some kB
_RESOLVER = -1  # the worker, as a meter sees it, that asks for manifests


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is that of the manifest or index; sizes are bytes. `warning`: what is not as a pull would have it."""

    id: str
    digest: str
    size: int  # of its config and layers
    received: int  # of these, over the line
    layers: int
    layers_here: int  # that the Engine had before
    warning: str = ""


class _Image(msgspec.Struct, frozen=True):
    """What a reference names now."""

    reference: Reference
    manifest: ImageManifest
    index: Index | None

    @property
    def digest(self) -> str:
        return (self.index or self.manifest).digest

    @property
    def by_digest(self) -> Reference:
        return replace(self.reference, tag=None, digest=self.digest)


def describe(meter: Meter, now: float) -> str:
    """How far a pull is, in a few words; `now` in seconds since the epoch."""
    progress = meter.progress(asyncio.get_running_loop().time())
    words = [f"{progress.share:.0%} of {size(progress.size)}"] if progress.size else ["asks the registry"]
    if progress.waiting:
        return f"{words[0]}, waits {max(0.0, progress.waiting.until - now):.0f}s: {progress.waiting.why}"
    if progress.size > progress.have:
        words.append(f"{size(int(progress.rate))}/s")
        words += [f"{ago(progress.left)} left"] if progress.left is not None else []
        words += [f"{progress.drops} drops"] if progress.drops else []
    elif progress.size:
        words.append("the Engine takes it")
    return ", ".join(words)


async def pull(
    engine: Engine,
    depot: Depot,
    reference: Reference,
    *,
    platform: str = "",
    key: Path | None = None,
    terms: Terms = USUAL,
    meter: Meter,
) -> Pulled:
    """Return when the Engine has the image; `platform` is its own if none is said.

    `key`: the PEM file of a public key that it has to be signed with, or nothing of it is fetched.
    Cancelled, it leaves in the depot what has come. Raises Final and GaveUp of the registry, EngineError, and
    Unwritable and NoSpace of the depot.
    """
    if reference.digest is not None:
        reference = replace(reference, tag=None)  # as docker: of a digest the tag is no part of the name
    info = await engine.info()
    async with _registry_of(reference, info) as registry:
        image = await _resolve(registry, reference, platform or f"linux/{info.machine}", terms, meter)
        if key is not None:
            await _patiently(partial(require_signed, registry, reference, image.digest, key), terms, meter)
        image_id = image.digest if info.containerd_store else image.manifest.config.digest
        layers = len(image.manifest.layers)
        if not platform and await find(engine, image_id):  # an index is of all platforms
            layers_here = layers
            await _name(engine, image, image_id)
        else:
            async with _undone(engine, image.reference.familiar(), image_id):
                layers_here = await _fetch_and_load(engine, depot, registry, image, info, terms, meter)
                await _require_loaded(engine, image, image_id)
        if info.containerd_store:
            await asyncio.to_thread(_remembered(depot).add, image_id, image.manifest)
    warning = await _complete_names(engine, image, image_id, info, platform, terms, meter)
    await asyncio.to_thread(depot.trim)
    return Pulled(
        id=image_id,
        digest=image.digest,
        size=sum(each.size for each in (image.manifest.config, *image.manifest.layers)),
        received=meter.received,
        layers=layers,
        layers_here=layers_here,
        warning=warning,
    )


@asynccontextmanager
async def _registry_of(reference: Reference, info: EngineInfo) -> AsyncIterator[Mirrored]:
    """As the Engine would ask it."""
    login = await credentials.find(reference.registry, os.environ, Path.home())
    urls = info.mirrors if reference.registry == DEFAULT_REGISTRY else ()
    mirrors = [Registry(urlsplit(url).netloc, base=url) for url in urls]
    registry = Mirrored([*mirrors, Registry(reference.registry, login, insecure=is_insecure(reference.registry, info))])
    try:
        yield registry
    finally:
        await registry.close()


def is_insecure(registry: str, info: EngineInfo) -> bool:
    """Whether the Engine would take a certificate of anybody from `host[:port]`, or none."""
    if registry in info.insecure_registries:
        return True
    host = registry.rpartition(":")[0] if not registry.endswith("]") and ":" in registry else registry
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    networks = (each for each in info.insecure_registries if "/" in each)
    return any(address in ipaddress.ip_network(each, strict=False) for each in networks)


async def _resolve(registry: Mirrored, reference: Reference, platform: str, terms: Terms, meter: Meter) -> _Image:
    async def ask(wanted: Reference) -> ImageManifest | Index:
        raw, media_type, _ = await _patiently(lambda: registry.manifest(wanted), terms, meter)
        return parse_manifest(raw, media_type)

    found = await ask(reference)
    if isinstance(found, ImageManifest):
        return _Image(reference, found, None)
    chosen = choose(found, parse_platform(platform))
    manifest = await ask(replace(reference, tag=None, digest=chosen.digest))
    if not isinstance(manifest, ImageManifest):
        raise Final(f"{reference}: {chosen.digest}: is an index in an index")
    return _Image(reference, manifest, found)


async def _fetch_and_load(
    engine: Engine, depot: Depot, registry: Mirrored, image: _Image, info: EngineInfo, terms: Terms, meter: Meter
) -> int:
    """Returns how many layers the Engine had."""
    config, layers = image.manifest.config, image.manifest.layers
    with depot.use(each.digest for each in (config, *layers)):
        ids = diff_ids(await _config(depot, registry, image, terms, meter), image.manifest)
        left_out = await _left_out(engine, depot, image.manifest, info, ids)
        damaged = 0
        while True:
            missing = [each for each in layers if each.digest not in left_out]
            await asyncio.to_thread(_make_space, depot, missing, info)
            await _fetch(depot, registry, image, [config, *missing], terms, meter)
            try:
                await engine.load_image(_archive(image, depot, left_out), name=image.reference.familiar())
            except EngineError as error:
                if isinstance(error.__cause__, Damaged) and damaged < MOST_DAMAGED:
                    damaged += 1
                    await asyncio.to_thread(depot.discard, error.__cause__.descriptor.digest)
                elif left_out and not isinstance(error, EngineUnreachable):  # it has less than it seemed
                    left_out = frozenset()
                else:
                    raise
            else:
                return len(layers) - len(missing)


async def _config(depot: Depot, registry: Mirrored, image: _Image, terms: Terms, meter: Meter) -> bytes:
    config = image.manifest.config
    while True:
        await _fetch(depot, registry, image, [config], terms, meter)
        raw = await asyncio.to_thread(depot.path(config.digest).read_bytes)
        if digest_of(raw) == config.digest:
            return raw
        await asyncio.to_thread(depot.discard, config.digest)


async def _left_out(
    engine: Engine, depot: Depot, image: ImageManifest, info: EngineInfo, ids: tuple[str, ...]
) -> frozenset[str]:
    if info.containerd_store:
        return await _remembered(depot).in_containerd(engine)
    return await in_graph_driver(engine, image, ids)


def _remembered(depot: Depot) -> Remembered:
    return Remembered(depot.root / "images")


def _archive(image: _Image, depot: Depot, left_out: frozenset[str]) -> Archive:
    def opened(blob: Descriptor) -> IO[bytes]:
        return depot.path(blob.digest).open("rb")

    return Archive(image.reference, image.manifest, image.index, opened, left_out=left_out)


async def _fetch(
    depot: Depot, registry: Mirrored, image: _Image, blobs: Sequence[Descriptor], terms: Terms, meter: Meter
) -> None:
    await fetch(blobs, registry, depot, repository=image.reference.repository, terms=terms, meter=meter)


def _make_space(depot: Depot, missing: Sequence[Descriptor], info: EngineInfo) -> None:
    """Of an Engine elsewhere nobody knows its disk. Unpacked, a layer is at least as large. Raises NoSpace."""
    coming = sum(each.size for each in missing)
    here = sum(each.size for each in missing if depot.find(each.digest, each.size))
    root = Path(info.root_dir)
    is_here = info.name == os.uname().nodename and root.is_dir()
    depot.make_space(Need(depot=coming - here, engine=2 * coming if is_here else 0), root if is_here else depot.root)


async def _name(engine: Engine, image: _Image, image_id: str) -> None:
    if image.reference.digest is None:
        await engine.tag_image(image_id, image.reference.familiar())


@asynccontextmanager
async def _undone(engine: Engine, name: str, image_id: str) -> AsyncIterator[None]:
    """Where a load fails: containerd's store gives the name to an image whose layers it then cannot unpack."""
    was_there, before = await find(engine, image_id), await find(engine, name)
    try:
        yield
    except EngineError as error:
        if not isinstance(error, EngineUnreachable) and was_there is None and await find(engine, image_id):
            if before is not None:
                with contextlib.suppress(NotFound):
                    await engine.tag_image(before.id, name)
            with contextlib.suppress(Conflict):  # somebody else has given it another name meanwhile
                await engine.remove_image(image_id)
        raise


async def _require_loaded(engine: Engine, image: _Image, image_id: str) -> None:
    """Raises EngineError where the Engine says that it loaded the archive, and has not what is in it."""
    name = image.reference.familiar() if image.reference.digest is None else image_id
    found = await find(engine, name)
    if found is None or found.id != image_id:
        raise EngineError(f"image {image.reference.familiar()}: the Docker Engine has not made {image_id} of it")


async def _complete_names(
    engine: Engine, image: _Image, image_id: str, info: EngineInfo, platform: str, terms: Terms, meter: Meter
) -> str:
    """Let the Engine pull what it has by digest: that fills in the digest, and asks for some kB. What is missing then.

    A tag is never pulled: it could be another image's by now.
    """
    name = image.by_digest.familiar()
    wanted = image.reference.familiar() if info.containerd_store else name
    with contextlib.suppress(NotFound):
        if (await engine.image(wanted)).id == image_id:
            return ""

    async def ask() -> None:
        async for _ in engine.pull_image(name, platform=platform):
            pass

    if image.reference.digest is not None:
        await _patiently(ask, terms, meter, most=_NAMING)
        return ""
    try:
        async with asyncio.timeout(_NAMING):
            await ask()
    except (EngineError, TimeoutError) as error:
        return f"without a digest, for which the Engine could not ask: {error or 'no answer'}"
    return ""


async def _patiently(ask: Callable[[], Awaitable[T]], terms: Terms, meter: Meter, *, most: float = 0.0) -> T:
    """Try again until there is an answer, or no patience left. `most`: seconds of a try, else of one for a manifest."""
    clock = asyncio.get_running_loop().time
    began, misses = clock(), 0
    try:
        while True:
            meter.works(_RESOLVER)
            try:
                async with asyncio.timeout(most or min(_ANSWER * 2 ** min(misses, 9), _LONGEST_ANSWER)):
                    return await ask()
            except (Temporary, EngineError, OSError) as error:
                if isinstance(error, EngineError) and not error.transient:
                    raise
                wait = pause(misses, clock() - began, random.random())  # noqa: S311 -- spreads tries, hides nothing
                if isinstance(error, Temporary) and error.retry_after:
                    wait = max(wait, min(error.retry_after, LONGEST_ASKED))
                if clock() + wait - began > terms.patience:
                    raise GaveUp(f"{str(error) or 'no answer'}; nothing else for {terms.patience:g} s") from error
                meter.waits(_RESOLVER, Waiting(str(error) or "no answer", time.time() + wait))
            await asyncio.sleep(wait)
            misses += 1
    finally:
        meter.ends(_RESOLVER)
