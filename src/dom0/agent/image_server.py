"""Gives blobs of images to other machines where the generation says so, and is the mirror of docker.io that the Engine
of this machine asks where its `registry-mirrors` say so.

Where and to whom is decided here; what answers (`registry/serve`, `registry/pull_through`) is loaded with the first
connection, as most starts of the agent need nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from importlib import import_module

import msgspec
from msgspec.structs import replace

from dom0.agent.listener import connected
from dom0.agent.progress import Changes
from dom0.agent.status import SharingStatus
from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.names import MIRROR, pull_directory
from dom0.plan.desired import Sharing

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until one that cannot be listened at is tried again

_HINTS = {
    errno.EADDRINUSE: "who has it: ss -ltnp; or choose another port",
    errno.EADDRNOTAVAIL: "this machine's addresses: ip -brief address; it is tried again",
}


class SharingEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`sharing` as far as it matters there."""

    listen: str
    is_mirror: bool
    sharing: Sharing


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
        self._changed = changed
        self._find_sharing = find_sharing
        self._is_mirror = f"http://{MIRROR}" in (url.rstrip("/") for url in mirrors)
        self._is_guest = is_guest
        self._listening: set[SharingEndpoint] = set()
        self._problems: dict[SharingEndpoint, Problem] = {}

    async def run(self) -> None:
        tasks: dict[SharingEndpoint, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = self._wanted()
                for endpoint in tasks.keys() - wanted:
                    tasks[endpoint].cancel()
                    await asyncio.wait([tasks.pop(endpoint)])
                for endpoint in wanted - tasks.keys():
                    tasks[endpoint] = group.create_task(self._keep_serving(endpoint))
                await self._changed.until(lambda wanted=wanted: self._wanted() != wanted)  # type: ignore[misc]

    def _wanted(self) -> set[SharingEndpoint]:
        sharing = self._find_sharing()
        found = set[SharingEndpoint]()
        if self._is_guest:
            return found
        if sharing.listen:
            found.add(SharingEndpoint(listen=sharing.listen, is_mirror=False, sharing=replace(sharing, peers=())))
        if self._is_mirror:
            own = Sharing(peers=sharing.peers, keep=sharing.keep)
            found.add(SharingEndpoint(listen=MIRROR, is_mirror=True, sharing=own))
        return found

    # what it tells

    @property
    def status(self) -> SharingStatus | None:
        """None: this machine neither gives blobs nor asks other machines for them."""
        served = next((each for each in self._listening if not each.is_mirror), None)
        mirror = next((each.listen for each in self._listening if each.is_mirror), "")
        peers = () if self._is_guest else self._find_sharing().peers
        if not (served or mirror or peers):
            return None
        where, whom = (served.listen, served.sharing.allow) if served else ("", ())
        return SharingStatus(peers=peers, served_at=where, allow=whom, mirror=mirror)

    @property
    def problems(self) -> tuple[Problem, ...]:
        if self._is_guest and self._find_sharing().listen:
            title = "x-dom0.pull.serve: in a scope the machine around it pulls, so there is nothing to give"
            return (Problem(code="images-unserved", subject="images", title=title, severity=Severity.WARNING),)
        return tuple(self._problems.values())

    # one of them

    async def _keep_serving(self, endpoint: SharingEndpoint) -> None:
        """Until it is cancelled: an address may come later, and go."""
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    await self._serve(endpoint)
                except (OSError, Dom0Error) as error:
                    self._note(endpoint, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._problems.pop(endpoint, None)
            self._changed.tell()

    async def _serve(self, endpoint: SharingEndpoint) -> None:
        from dom0.registry.listening import listen, read_address, read_networks

        with listen(*read_address(endpoint.listen)) as listening:
            self._problems.pop(endpoint, None)
            self._listening.add(endpoint)
            self._changed.tell()
            try:
                await connected(listening)
                for module in ("pull_through", "serve"):
                    await asyncio.to_thread(import_module, f"dom0.registry.{module}")  # it takes long
                from dom0.registry.depot import Depot
                from dom0.registry.pull_through import pull_through
                from dom0.registry.serve import serve

                sharing = endpoint.sharing
                async with AsyncExitStack() as stack:
                    depot = await asyncio.to_thread(Depot, pull_directory(), sharing.keep)
                    mirror = None
                    if endpoint.is_mirror:
                        mirror = (await stack.enter_async_context(pull_through(depot, sharing.peers))).answer
                    allow = read_networks(sharing.allow)
                    await stack.enter_async_context(
                        serve(depot, listening, allow=allow, rate=sharing.rate, mirror=mirror)
                    )
                    await asyncio.Event().wait()
            finally:
                self._listening.discard(endpoint)

    def _note(self, endpoint: SharingEndpoint, error: OSError | Dom0Error) -> None:
        if isinstance(error, Dom0Error):
            what, hint = error.message, error.hint
        elif endpoint.is_mirror and error.errno == errno.EADDRINUSE:
            return  # by a `dom0 image serve --mirror`
        else:
            number = error.errno or 0
            what, hint = f"{endpoint.listen}: {os.strerror(number)}", _HINTS.get(number, "it is tried again")
        before = self._problems.get(endpoint)
        since = before.since if before else time.time()
        title = f"images are not served at {what}" if isinstance(error, OSError) else f"images are not served: {what}"
        problem = Problem(code="images-unserved", subject="images", title=title, hint=hint, since=since)
        if problem != before:
            self._problems[endpoint] = problem
            self._changed.tell()
