"""Files of web servers over an unreliable line, fetched as layers of images are: what has arrived stays in a depot, and
a download goes on from there after a cut or a kill. Files are known by their digests, not by what they are for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dom0.errors import Final, NotThere
from dom0.registry.ask import patiently
from dom0.registry.client import stretch_of
from dom0.registry.depot import Depot, Need
from dom0.registry.fetch import USUAL, Terms, fetch
from dom0.registry.manifest import Descriptor
from dom0.registry.progress import Meter
from dom0.registry.web import CERTIFICATES, Reply, WebClient, refusal

Shown = Callable[[str, Meter], AbstractAsyncContextManager[None]]
"""Tells a person how far it is with a file of that name."""

_GONE = (403, 404, 410)


class Downloads:
    """Kept in the `depot` until somebody has used them well. An asynchronous context manager.

    An address with `http:` is asked in plain text; certificates have to be good ones all the same.
    """

    def __init__(
        self, depot: Callable[[], Depot], shown: Shown, *, terms: Terms = USUAL, certificates: Path = CERTIFICATES
    ) -> None:
        self._depot = depot
        self._shown = shown
        self._terms = replace(terms, most_wrong=1)  # its digest may be what is wrong, and all of it would come again
        self._web = WebClient(insecure=False, certificates=certificates)

    async def __aenter__(self) -> Downloads:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._web.close()

    async def read(self, url: str, most: int) -> bytes | None:
        """A small file; None if there is none. Raises Final for one of more than `most` bytes, and GaveUp."""

        async def ask() -> bytes:
            async with self._ask(url) as reply:
                return await reply.read(most)

        try:
            async with self._shown(url, meter := Meter()):
                return await patiently(ask, self._terms, meter)
        except NotThere:
            return None

    @asynccontextmanager
    async def file(self, url: str, digest: str, most: int) -> AsyncIterator[Path]:
        """One of that digest, of at most so many bytes. It goes when the block has ended well.

        Raises Final (NotThere), GaveUp; Unwritable and NoSpace of the depot.
        """
        depot = self._depot()
        with ExitStack() as stack:
            async with self._shown(url, meter := Meter()):
                size = await patiently(partial(self._size, url), self._terms, meter)
                if size > most:
                    raise Final(f"{url}: is larger than {most >> 20} MiB", hint="is it the right file?")
                stack.enter_context(depot.use([digest]))
                if (kept := depot.find(digest, size)) and not await asyncio.to_thread(_has, kept, digest):
                    depot.discard(digest)  # the disk has lost it; what comes now is verified as it ends
                depot.make_space(Need(depot=size - depot.have(digest, size), engine=0), depot.root)
                wanted = [Descriptor("", digest, size)]
                await fetch(wanted, self, depot, repository=url, terms=self._terms, meter=meter)
            yield depot.path(digest)
        depot.evict(digest)  # not while another process uses it

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `fetch` asks for it; `repository` is the address."""
        async with self._ask(repository, Range=f"bytes={start}-{stop - 1}") as reply:
            yield stretch_of(reply, descriptor, start, stop)

    async def _size(self, url: str) -> int:
        """In bytes."""
        async with self._ask(url, Range="bytes=0-0") as reply:
            size = reply.length
            if reply.status == 206:
                said = reply.headers.get("Content-Range").rpartition("/")[2]
                size = int(said) if said.isdecimal() and len(said) < 20 else None
            if size is None:
                raise Final(f"{url}: {reply.origin.netloc} does not say how long it is", hint="copy it here by hand")
            return size

    @asynccontextmanager
    async def _ask(self, url: str, **headers: str) -> AsyncIterator[Reply]:
        async with self._web.ask(url, where=url, headers=headers, plain=url.startswith("http:")) as reply:
            if reply.status in _GONE:
                raise NotThere(f"{url}: not found")
            if reply.status not in (200, 206):
                raise refusal(reply)
            yield reply


def _has(file: Path, digest: str) -> bool:
    with file.open("rb") as opened:
        return digest == f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
