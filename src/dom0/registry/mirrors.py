"""Several servers that have the same images: a registry and its mirrors, asked like one.

Who has not failed for a while is asked first, mirrors before the registry; then who failed longest ago. So one that is
silent until somebody loses patience is not in the way of the others at the next try.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TypeVar

from dom0.errors import RegistryError
from dom0.registry.client import Registry
from dom0.registry.manifest import Descriptor, ImageManifest, Index
from dom0.registry.recent import remember
from dom0.registry.reference import Reference

T = TypeVar("T")

FORGIVEN = 60.0  # seconds after which a failure counts no more


class Mirrored:
    """`registries`: in the order in which they are asked, the one that is mirrored last. `close` it at the end."""

    def __init__(self, registries: Sequence[Registry]) -> None:
        self._registries = tuple(registries)
        self._failed: dict[Registry, float] = {}
        self._senders: dict[str, set[Registry]] = {}  # by digest: whose bytes are taken, and whose were wrong
        self._doubted: dict[str, set[Registry]] = {}

    @property
    def is_anonymous(self) -> bool:
        """As `Registry.is_anonymous`, of all of them."""
        return all(registry.is_anonymous for registry in self._registries)

    async def close(self) -> None:
        for registry in self._registries:
            await registry.close()

    async def manifest(self, reference: Reference) -> tuple[bytes, str, str]:
        """As `Registry.manifest`; where all fail, the mirrored one's error is raised."""
        return await self._first(lambda registry: registry.manifest(reference))

    async def image(self, reference: Reference) -> ImageManifest | Index:
        """As `Registry.image`; one whose manifest makes no sense has failed as well."""
        return await self._first(lambda registry: registry.image(reference))

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `Registry.blob`. Who breaks off in the middle is not the first to be asked for the rest."""
        errors: dict[Registry, RegistryError] = {}
        doubted = self._doubted.get(descriptor.digest, ())
        for registry in sorted(self._by_trust(), key=lambda each: each in doubted):
            async with AsyncExitStack() as stack:
                try:
                    with self._watched(registry):
                        chunks = await stack.enter_async_context(registry.blob(repository, descriptor, start, stop))
                except RegistryError as error:
                    errors[registry] = error
                    continue
                senders = self._senders.get(descriptor.digest, set())
                remember(self._senders, descriptor.digest, senders | {registry})
                with self._watched(registry):
                    yield chunks
                return
        raise errors[self._registries[-1]]

    def doubt(self, descriptor: Descriptor) -> tuple[()]:
        """What came is not what its digest says: who sent some of it is the last to be asked for it from now on."""
        doubted = self._doubted.get(descriptor.digest, set())
        remember(self._doubted, descriptor.digest, doubted | self._senders.pop(descriptor.digest, set()))
        return ()

    async def _first(self, ask: Callable[[Registry], Awaitable[T]]) -> T:
        errors: dict[Registry, RegistryError] = {}
        for registry in self._by_trust():
            try:
                with self._watched(registry):
                    return await ask(registry)
            except RegistryError as error:
                errors[registry] = error
        raise errors[self._registries[-1]]

    def _by_trust(self) -> list[Registry]:
        forgiven = time.monotonic() - FORGIVEN
        return sorted(self._registries, key=lambda each: max(self._failed.get(each, forgiven), forgiven))

    @contextmanager
    def _watched(self, registry: Registry) -> Iterator[None]:
        """Being cancelled is a failure too: nobody waits for this one any more."""
        try:
            yield
        except BaseException:
            self._failed[registry] = time.monotonic()
            raise
