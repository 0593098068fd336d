"""Gives blobs of images to other machines where the generation says so, and is the mirror of docker.io that the Engine
of this machine asks where its `registry-mirrors` say so.

Where and to whom is decided here; what answers (`registry/serve`, `registry/pull_through`) is loaded with the first
connection, as most starts of the agent need nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from importlib import import_module

from msgspec.structs import replace

from dom0.agent.listener import Listener, connected
from dom0.agent.progress import Changes
from dom0.agent.status import SharingStatus
from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.names import MIRROR, pull_directory
from dom0.plan.desired import Sharing


class _ServedBlobs(Listener[Sharing]):
    """`served`: what it serves now."""

    key = "pull.serve"
    subject = "images"
    code = "images-unserved"
    severity = Severity.ERROR
    failed = "images are not served"
    is_mirror = False

    def __init__(self, changed: Changes, wanted: Callable[[], Sharing | None]) -> None:
        super().__init__(changed, wanted)
        self.served: Sharing | None = None

    async def serve(self, asked: Sharing, listening: socket.socket) -> None:
        self.served, self.problems = asked, ()
        self._changed.tell()
        try:
            await connected(listening)
            for module in ("pull_through", "serve"):
                await asyncio.to_thread(import_module, f"dom0.registry.{module}")  # it takes long
            from dom0.registry.depot import Depot
            from dom0.registry.listening import read_networks
            from dom0.registry.pull_through import pull_through
            from dom0.registry.serve import serve

            async with AsyncExitStack() as stack:
                depot = await asyncio.to_thread(Depot, pull_directory(), asked.keep)
                mirror = None
                if self.is_mirror:
                    mirror = (await stack.enter_async_context(pull_through(depot, asked.peers))).answer
                allow = read_networks(asked.allow)
                await stack.enter_async_context(serve(depot, listening, allow=allow, rate=asked.rate, mirror=mirror))
                await asyncio.Event().wait()
        finally:
            self.served = None
            self._changed.tell()


class _Mirror(_ServedBlobs):
    is_mirror = True

    def note(self, where: str, error: OSError | Dom0Error) -> None:
        if not (isinstance(error, OSError) and error.errno == errno.EADDRINUSE):  # by a `dom0 image serve --mirror`
            super().note(where, error)


class ImageServer:
    """`changed` tells of another generation, and is told when the status or the problems change."""

    def __init__(
        self,
        changed: Changes,
        find_sharing: Callable[[], Sharing],
        *,
        mirrors: Sequence[str] = (),
        is_guest: bool = False,
    ) -> None:
        self._find_sharing = find_sharing
        self._is_mirror = f"http://{MIRROR}" in (url.rstrip("/") for url in mirrors)
        self._is_guest = is_guest
        self._shared = _ServedBlobs(changed, self.shared)
        self._mirror = _Mirror(changed, self.mirrored)

    async def run(self) -> None:
        await asyncio.gather(self._shared.run(), self._mirror.run())

    def shared(self) -> Sharing | None:
        """What is to be given to other machines."""
        sharing = self._find_sharing()
        return replace(sharing, peers=()) if sharing.listen and not self._is_guest else None

    def mirrored(self) -> Sharing | None:
        """What the Engine of this machine is to be given."""
        sharing = self._find_sharing()
        is_asked = self._is_mirror and not self._is_guest
        return Sharing(listen=MIRROR, peers=sharing.peers, keep=sharing.keep) if is_asked else None

    @property
    def status(self) -> SharingStatus | None:
        """None: this machine neither gives blobs nor asks other machines for them."""
        served, mirror = self._shared.served, self._mirror.served
        peers = () if self._is_guest else self._find_sharing().peers
        if not (served or mirror or peers):
            return None
        where, whom = (served.listen, served.allow) if served else ("", ())
        return SharingStatus(peers=peers, served_at=where, allow=whom, mirror=mirror.listen if mirror else "")

    @property
    def problems(self) -> tuple[Problem, ...]:
        if self._is_guest and self._find_sharing().listen:
            title = "x-dom0.pull.serve: in a scope the machine around it pulls, so there is nothing to give"
            return (Problem(code="images-unserved", subject="images", title=title, severity=Severity.WARNING),)
        return self._shared.problems + self._mirror.problems
