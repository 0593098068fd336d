"""Images from a registry into the Engine, over an unreliable line: what is missing there is fetched into a
depot, where it stays whatever happens, and loaded when all of it has come.

The Engine then has what its own pull would have made: the same ID, names and digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from dom0 import times
from dom0.durable import Unwritable
from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import EngineInfo
from dom0.errors import Denied, EngineError, EngineUnreachable, Final, NotFound, NotThere, Unwelcome, UsageError
from dom0.images.feed import RETRIES, EngineDisk, feeding, remove_left_names
from dom0.images.layers_there import Remembered, in_graph_driver
from dom0.images.loading import NamedImage, load_as, remove_name
from dom0.names import HOST_ROOT
from dom0.registry import credentials
from dom0.registry.archive import DamagedArchive, diff_ids
from dom0.registry.ask import patiently
from dom0.registry.credentials import Login
from dom0.registry.depot import RESERVE, Depot, Need
from dom0.registry.fetch import USUAL, WASTE, BlobSource, Terms, fetch
from dom0.registry.manifest import Descriptor, Index, choose, digest_of, naming, parse_platform
from dom0.registry.progress import Meter
from dom0.registry.reference import DEFAULT_REGISTRY, Reference
from dom0.registry.unpacked import TooMuch, UnpackedLimit
from dom0.registry.verify import PublicKey, require_signed
from dom0.registry.waste import Waste
from dom0.socketproxy.scope import is_in_one

if TYPE_CHECKING:
    from dom0.registry.peers import Peered

KEPT = 2 << 30  # bytes of blobs that stay in a depot for the next pull
LOWEST_ALONE = 0.5  # seconds for the lowest layer, without which the Engine can unpack none
MOST_DAMAGED = 3  # times that a blob may turn out to be damaged after it was fetched
MOST_RESTARTS = 10  # of the Engine during one pull: more are perhaps because of it
SMALL, USUAL_RATIO = 1 << 30, 100  # bytes, and times the size
CONTAINERDS = "/var/lib/containerd"  # `root` in containerd-config.toml(5), where nothing else is said
_NAMING = 60.0  # seconds for a pull of the Engine's own that only adds a name: some kB


FindLogin = Callable[[str], Awaitable[Login | None]]
"""That for a registry. Raises Dom0Error."""


async def own_login(registry: str) -> Login | None:
    """What `docker login` of whoever runs this process has kept."""
    return await credentials.find(registry, os.environ, Path.home())


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """As `dom0 image pull --json` prints it. Sizes are bytes."""

    reference: str
    id: str
    digest: str  # of its manifest, or of the index of all platforms
    size: int  # of its config and layers, as they are sent
    received: int  # of these, over the line; what came twice counts twice
    from_peers: int  # of these, from other machines
    layers: int
    layers_here: int  # that the Engine had
    warning: str = ""  # what is not as a pull of the Engine's own would have it


async def pull(
    engine: Engine,
    depot: Depot,
    reference: Reference,
    *,
    platform: str = "",
    keys: Sequence[PublicKey] = (),
    peers: Sequence[str] = (),
    find_login: FindLogin = own_login,
    terms: Terms = USUAL,
    meter: Meter,
    say: Callable[[str], None] | None = None,
) -> Pulled:
    """Return when the Engine has the image; `platform` is its own if none is said.

    `keys`: with each of them it has to be signed, or nothing of it is fetched.
    `peers`: `host:port` of other machines that are asked before the registry.
    `say`: where the registry is refused in the end, the Engine's own pull is tried, and this is told why; None: it is
    not, nor where the image has to be signed. Cancelled, it leaves in the depot what has come.
    Raises Final and GaveUp of the registry, EngineError, and Unwritable and NoSpace of the depot.
    """
    name, waste = reference.familiar(), Waste(depot.root / WASTE)
    try:
        return await _pull(engine, depot, reference, platform, keys, peers, find_login, terms, meter)
    except (Final, EngineError) as error:
        if say is None or keys or isinstance(error, NotThere | Denied | EngineUnreachable):
            raise
        if await asyncio.to_thread(waste.amount, name, time.time()):  # once an hour, if it fails too
            again = times.ago(waste.left(name, time.time()))
            also = f"nor could the Docker Engine pull it, which may try again in {again}"
            raise Final(f"{error.message}; {also}", hint=error.hint) from error
        meter.note = f"{error.message}; the Docker Engine's own pull is tried"
        meter.size = meter.have = 0
        say(f"{name}: {meter.note.removeprefix(f'{name}: ')}")
        login = await find_login(reference.registry)
        auth = login.for_engine(reference.registry) if login else {}
        try:
            await pull_by_engine(engine, name, terms, platform=platform, login=auth, retries=False)
        except (EngineError, TimeoutError) as other:
            await asyncio.to_thread(waste.add, name, 1, time.time())
            raise Final(f"{error.message}; nor can the Docker Engine pull it: {other}", hint=error.hint) from error
    found, repository = await engine.image(name), name.removesuffix(f":{reference.tag}")
    return Pulled(
        reference=name,
        id=found.id,
        digest=dict(each.split("@") for each in found.digests).get(repository, reference.digest or ""),
        size=0,
        received=meter.received,
        from_peers=0,
        layers=len(found.layers),
        layers_here=0,
        warning="pulled by the Docker Engine itself",
    )


async def _pull(
    engine: Engine,
    depot: Depot,
    reference: Reference,
    platform: str,
    keys: Sequence[PublicKey],
    peers: Sequence[str],
    find_login: FindLogin,
    terms: Terms,
    meter: Meter,
) -> Pulled:
    wanted = reference if reference.digest is None else replace(reference, tag=None)  # as docker: the digest names it
    info = await engine.info()
    login = await find_login(wanted.registry)
    async with _registry_of(wanted, info, login, depot, peers) as registry:
        work = _Pull(engine, info, registry, depot, terms, meter)
        image = await work.resolve(registry, wanted, platform or f"linux/{info.machine}")
        for key in keys:
            await patiently(partial(require_signed, registry, wanted, image.digest, key), terms, meter)
        if registry.is_anonymous:
            await asyncio.to_thread(work.keep_manifests, image)
        layers_here = await work.bring(image)
    for_engine = login.for_engine(wanted.registry) if login else {}
    warning = await work.complete_names(image, platform, for_engine)
    await asyncio.to_thread(depot.trim)
    return Pulled(
        reference=reference.familiar(),
        id=image.id,
        digest=image.digest,
        size=sum(image.sizes.values()),
        received=meter.received,
        from_peers=registry.from_peers,
        layers=len(image.manifest.layers),
        layers_here=layers_here,
        warning=warning,
    )


async def pull_by_engine(
    engine: Engine,
    name: str,
    terms: Terms,
    *,
    platform: str = "",
    login: Mapping[str, str] = {},
    retries: bool = True,
) -> None:
    """`retries`: whether it may ask once more for all of a layer that was cut off.

    Raises EngineError, and TimeoutError where the Engine says nothing for as long as there is patience.
    """
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(terms.patience) as silence:
            async for progress in engine.pull_image(name, platform=platform, login=login):
                silence.reschedule(clock() + terms.patience)
                if progress.status.startswith(RETRIES) and not retries:
                    raise EngineError(f"image {name}: layer {progress.layer} was cut off")
    except TimeoutError as error:
        raise TimeoutError(f"nothing came for {times.ago(terms.patience)}") from error


@asynccontextmanager
async def _registry_of(
    reference: Reference, info: EngineInfo, login: Login | None, depot: Depot, peers: Sequence[str]
) -> AsyncIterator[Peered]:
    """As the Engine would ask it, behind peers."""
    from dom0.registry.client import Registry  # which a node of a farm does without
    from dom0.registry.mirrors import Mirrored
    from dom0.registry.peers import Peered

    urls = info.mirrors if reference.registry == DEFAULT_REGISTRY else ()
    mirrors = [Registry(urlsplit(url).netloc, base=url) for url in urls]
    upstream = Registry(reference.registry, login, insecure=is_insecure(reference.registry, info))
    registry = Peered(Mirrored([*mirrors, upstream]), peers, depot)
    try:
        yield registry
    finally:
        await registry.close()


def platform_of(text: str, where: str) -> str:
    """As `linux/arm64`; an architecture alone is one of Linux, "" stays. Raises UsageError."""
    whole = text if not text or "/" in text or text == "linux" else f"linux/{text}"
    try:
        if whole:
            parse_platform(whole)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    return whole


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


def find_images(info: EngineInfo, ends: Sequence[str] = ("", str(HOST_ROOT))) -> Path | None:
    """Where an Engine of this machine keeps images, as it is seen from here, which may be the root container. A
    containerd that it has not started itself has a directory of its own.
    """
    places = [info.root_dir]
    if info.containerd_store:
        places = [f"{info.root_dir}/containerd/daemon", CONTAINERDS, info.root_dir]
    for place in (Path(f"{end}{place}") for end in ends for place in places):
        with contextlib.suppress(OSError):
            if place.is_dir():
                return place
    return None


def _usual(layers: Sequence[Descriptor]) -> int:
    """Bytes that they may become without being counted."""
    return SMALL + USUAL_RATIO * sum({each.digest: each.size for each in layers}.values())


class ImageOrigin(BlobSource, Protocol):
    """Where the blobs of images come from. `is_anonymous`: they may be given to others."""

    @property
    def is_anonymous(self) -> bool: ...

    def doubt(self, descriptor: Descriptor, /) -> Sequence[tuple[int, int]]:
        """As of `fetch`."""


async def bring(
    engine: Engine, depot: Depot, image: NamedImage, origin: ImageOrigin, *, terms: Terms = USUAL, meter: Meter
) -> None:
    """Return when the Engine has an image of which all manifests are here, under its reference, which has a tag.

    Cancelled, it leaves in the depot what has come. Raises as `pull`.
    """
    await _Pull(engine, await engine.info(), origin, depot, terms, meter).bring(image)
    await asyncio.to_thread(depot.trim)


class _Pull(msgspec.Struct, frozen=True):
    """Who is asked and told, and where what comes is kept."""

    engine: Engine
    info: EngineInfo
    origin: ImageOrigin
    depot: Depot
    terms: Terms
    meter: Meter

    @property
    def remembered(self) -> Remembered:
        return Remembered(self.depot.root / "images")

    async def resolve(self, registry: Peered, reference: Reference, platform: str) -> NamedImage:
        index: Index | None = None
        manifest = await patiently(partial(registry.image, reference), self.terms, self.meter)
        if isinstance(manifest, Index):
            index = manifest
            with naming(reference):
                chosen = choose(index, parse_platform(platform))
            by_digest = replace(reference, tag=None, digest=chosen.digest)
            manifest = await patiently(partial(registry.image, by_digest), self.terms, self.meter)
            if isinstance(manifest, Index):
                raise Final(f"{reference}: {chosen.digest}: is an index in an index")
        top = (index or manifest).digest
        return NamedImage(reference, manifest, index, top if self.info.containerd_store else manifest.config.digest)

    def keep_manifests(self, image: NamedImage) -> None:
        """For peers."""
        for each in (image.index, image.manifest):
            if each is not None:
                self.depot.keep(each.raw, each.digest, public=True)

    async def bring(self, image: NamedImage) -> int:
        """Returns how many layers the Engine had. One that goes away meanwhile is waited for."""
        with self.depot.use(image.sizes):
            layers_here = await self._outlasting_restarts(image)
        if self.info.containerd_store:
            await asyncio.to_thread(self.remembered.add, image.id, image.manifest)
            if self._is_here:
                with contextlib.suppress(EngineError):  # the image is there; the next pull tries again
                    await remove_left_names(self.engine)
        return layers_here

    async def _outlasting_restarts(self, image: NamedImage) -> int:
        for _ in range(MOST_RESTARTS):
            with contextlib.suppress(EngineUnreachable):
                return await self._bring(image)
            await patiently(self.engine.info, self.terms, self.meter)
        return await self._bring(image)

    async def _bring(self, image: NamedImage) -> int:
        config = await self._config(image)
        with naming(image.reference):
            ids = diff_ids(config, image.manifest)
        there = await find_image(self.engine, image.id)
        # An index is of all platforms, and only some of them may be there; or a kill has ended a load.
        if there is None or there.layers != ids or image.while_loaded.familiar() in there.tags:
            return await self._fetch_and_load(image, ids)
        if image.reference.digest is None:
            await self.engine.tag_image(image.id, image.reference.familiar())
        return len(ids)

    async def _fetch_and_load(self, image: NamedImage, ids: tuple[str, ...]) -> int:
        config, layers = image.manifest.config, image.manifest.layers
        if self.info.containerd_store:
            left_out = await self.remembered.in_containerd(self.engine)
        else:
            left_out = await in_graph_driver(self.engine, image.manifest, ids)
        root = None if is_in_one(self.info.labels) else self._engines_root()
        damaged = 0
        while True:
            missing = [each for each in layers if each.digest not in left_out]
            await asyncio.to_thread(self._make_space, missing)
            try:
                if root and missing:
                    await self._fetch_and_feed(image, ids, missing, left_out, root)
                else:
                    await self._fetch(image, [config, *missing])
                    await self._load(image, left_out)
            except EngineError as error:
                if isinstance(error.__cause__, TooMuch):
                    raise Unwelcome(
                        f"{image.reference}: {error.__cause__}",
                        hint="a bomb, or there is no room for it: docker system df; whoever trusts it: docker pull",
                    ) from error
                if isinstance(error.__cause__, DamagedArchive) and damaged < MOST_DAMAGED:
                    damaged += 1
                    await asyncio.to_thread(self.depot.discard, error.__cause__.descriptor.digest)
                elif (left_out or root) and not isinstance(error, EngineUnreachable):  # it has less than it seemed
                    left_out, root = left_out if root else frozenset(), None
                else:
                    raise
            else:
                return len(layers) - len(missing)

    async def _fetch_and_feed(
        self, image: NamedImage, ids: Sequence[str], missing: Sequence[Descriptor], left_out: frozenset[str], root: Path
    ) -> None:
        """As fetching and then loading it."""
        free = (await asyncio.to_thread(shutil.disk_usage, root)).free
        disk = EngineDisk(root, max(SMALL, free - _usual(missing)))
        in_containerd = self.info.containerd_store
        async with feeding(self.engine, self.depot, image, ids, missing, disk, containerd_store=in_containerd) as feed:
            await self._fetch(image, [image.manifest.config, *missing], alone=LOWEST_ALONE)
            taken = await feed.taken()
            if not await feed.name_image():
                await self._load(image, left_out | taken)

    async def _config(self, image: NamedImage) -> bytes:
        """Raises Unwritable where it is another one whenever it is read."""
        config = image.manifest.config
        path = self.depot.path(config.digest)
        for _ in range(1 + MOST_DAMAGED):
            await self._fetch(image, [config])
            raw = await asyncio.to_thread(path.read_bytes)
            if digest_of(raw) == config.digest:
                self.meter.size = self.meter.have = 0  # how much is to come depends on what it says
                return raw
            await asyncio.to_thread(self.depot.discard, config.digest)
        raise Unwritable(f"{path}: the disk does not keep what is written to it", hint="look at: dmesg")

    async def _fetch(self, image: NamedImage, blobs: Sequence[Descriptor], *, alone: float = 0.0) -> None:
        await fetch(
            blobs,
            self.origin,
            self.depot,
            repository=image.reference.repository,
            public=self.origin.is_anonymous,
            terms=self.terms,
            meter=self.meter,
            doubt=self.origin.doubt,
            alone=alone,
        )

    def _make_space(self, missing: Sequence[Descriptor]) -> None:
        """Of an Engine elsewhere nobody knows its disk. Unpacked, a layer is at least as large. Raises NoSpace."""
        sizes = {each.digest: each.size for each in missing}
        coming = sum(sizes.values())
        here = sum(self.depot.have(digest, size) for digest, size in sizes.items())
        root = self._engines_root()
        need = Need(depot=coming - here, engine=2 * coming if root else 0)
        self.depot.make_space(need, root or self.depot.root)

    @property
    def _is_here(self) -> bool:
        """Whether the Engine is one of this machine, as it seems."""
        return self.info.name == os.uname().nodename

    def _engines_root(self) -> Path | None:
        """None: that of an Engine elsewhere."""
        return find_images(self.info) if self._is_here else None

    def _most_unpacked(self, missing: Sequence[Descriptor]) -> int:
        """Bytes that they may become, beside what is still to come, and the copy that the Engine makes of them."""
        root = self._engines_root()
        if root is None:
            return _usual(missing)
        sizes = {each.digest: each.size for each in missing}
        coming = sum(sizes.values())
        to_come = coming - sum(self.depot.have(digest, size) for digest, size in sizes.items())
        return shutil.disk_usage(root).free - RESERVE - coming - to_come

    async def _load(self, image: NamedImage, left_out: frozenset[str]) -> None:
        """Raises EngineError, also where the Engine says that it loaded the archive, and has not what is in it.

        containerd's store gives an image its name before it unpacks it, which can fail, and forgets the one that had
        the name. There it gets one of ours first.
        """
        if not self.info.containerd_store:
            await self._load_as(image.reference, image, left_out)
        elif image.reference.digest is not None:  # which no other image has
            there = await find_image(self.engine, image.id)
            try:
                await self._load_as(image.reference, image, left_out)
            except BaseException:  # Ctrl-C too
                if there is None:
                    await remove_name(self.engine, image.id)
                raise
        else:
            try:
                await self._load_as(image.while_loaded, image, left_out)
                await self.engine.tag_image(image.id, image.reference.familiar())
            finally:
                await remove_name(self.engine, image.while_loaded.familiar())

    async def _load_as(self, reference: Reference, image: NamedImage, left_out: frozenset[str]) -> None:
        def opened(blob: Descriptor) -> IO[bytes]:
            return self.depot.path(blob.digest).open("rb")

        missing = [each for each in image.manifest.layers if each.digest not in left_out]
        most, stop = await asyncio.to_thread(self._most_unpacked, missing), threading.Event()
        room = UnpackedLimit(most, opened, stop)

        def count() -> None:
            for layer in missing:
                room.take(layer)

        beside = ThreadPoolExecutor(1)  # the Engine meanwhile reads the archive, and unpacks nothing before its end
        counting = beside.submit(count)
        try:
            await load_as(self.engine, reference, image, opened, left_out, counting.result)
        finally:
            stop.set()
            beside.shutdown(wait=False)  # a slow disk would hold up the loop

    async def complete_names(self, image: NamedImage, platform: str, login: Mapping[str, str]) -> str:
        """Let the Engine pull what it has by digest: that fills in the digest, and asks for some kB.

        A tag is never pulled: it could be another image's by now. Returns what is missing then.
        """
        name = replace(image.reference, tag=None, digest=image.digest).familiar()
        with contextlib.suppress(NotFound):
            wanted = image.reference.familiar() if self.info.containerd_store else name
            if (await self.engine.image(wanted)).id == image.id:
                return ""

        async def ask() -> None:
            async for _ in self.engine.pull_image(name, platform=platform, login=login):
                pass

        if image.reference.digest is not None:
            await patiently(ask, self.terms, self.meter, most=_NAMING)
            return ""
        try:
            async with asyncio.timeout(_NAMING):
                await ask()
        except (EngineError, TimeoutError) as error:
            return f"without a digest, for which the Engine could not ask: {str(error) or 'no answer'}"
        return ""
