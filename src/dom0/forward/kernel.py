"""The data plane of the kernel: NAT by rules of nftables, connections in conntrack. Decides nothing.

One class for both places: the ambassador's own namespace, and a consumer's (the shortcut). Rules and connections stay
when this process ends; a new one reads them back and goes on.

What was seen (Linux 6.18, nft 1.1.3, conntrack 1.4.8):
- Without `nf_conntrack_tcp_be_liberal` a segment beyond its window is not translated, so our own kernel gets it and
  resets its sender; with it, it goes to the other end.
- `conntrack -R` brings translated connections back with marks and ports; they carry full load at once, with and without
  be_liberal, because the kernel learns their windows anew.
- A connection that is deleted and whose client speaks next is translated as a new one by the rules in force; the new
  target knows nothing of it and resets it. An idle end is not told: hence tcp_reset.py.
- A change is in force some milliseconds before `nft` exits: closing its socket blocks until the replaced rules are
  out of use.
- Without the last NAT hook of a namespace the kernel translates established connections no longer: hence `retire`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from dom0.errors import Dom0Error
from dom0.forward import conntrack, ctnetlink, nft, tcp_reset
from dom0.forward.dataplane import Flow
from dom0.forward.place import Place, own, shortcut_table
from dom0.forward.table import FAMILIES, Protocol, Table, table
from dom0.run import CommandFailed, Output, capture

_log = logging.getLogger(__name__)
_SECONDS = 30.0  # for a command that ends in milliseconds
_INTERRUPTED = "Interrupted system call"  # the kernel's table grew while it was listed: ask again
_TRIES = 5


class KernelPlane:
    """See dataplane.DataPlane. Needs CAP_NET_ADMIN; `cut` also CAP_NET_RAW."""

    name = "kernel"

    def __init__(self, place: Place | None = None) -> None:
        self._place = place or own()
        self._set: Table | None = None  # what we know to be in force
        self._setting = asyncio.Lock()
        self._cutting = asyncio.Lock()

    async def set(self, wanted: Table) -> None:
        """Writes what differs; everything at the first call, and when the table is the same again."""
        table(wanted.routes)  # a bug elsewhere must not become a rule
        async with self._setting:
            before, self._set = self._set, None
            if before is None:  # a killed process may have left rules of a cut
                await self._nft(nft.ended(self._place) + nft.replace(self._place, wanted))
            elif before == wanted or not await self._update(before, wanted):
                await self._nft(nft.replace(self._place, wanted))
            self._set = wanted

    async def read(self) -> Table | None:
        """In a consumer's namespace: without listeners that refuse or hold, which the ambassador does."""
        # nft 1.1.3 finds only the last table when it is to list two at once.
        lists = (["nft", "-j", "list", "table", family, self._place.table] for family in FAMILIES)
        listed = await asyncio.gather(*(self._run(argv, check=False) for argv in lists))
        if any(output.code != 0 for output in listed):
            return None
        try:
            return nft.parse(output.stdout for output in listed)
        except ValueError as error:
            _log.warning("table %s was changed by somebody else: %s", self._place.table, error)
            return None

    async def flows(self, generations: Collection[int] | None = None) -> list[Flow]:
        return [entry.flow for entry in await self._entries(generations)]

    async def forget(self, flows: Collection[Flow]) -> int:
        return len(await self._delete(flows))

    async def cut(self, flows: Collection[Flow]) -> int:
        """Without CAP_NET_RAW only ends that send within the next seconds are reset, idle ones are not.

        UDP has no connection to reset: its flows are forgotten.
        """
        if all(flow.protocol == Protocol.UDP for flow in flows):
            return await self.forget(flows)
        async with self._cutting:
            await self._nft(nft.end(self._place, flows))
            told = True
            try:
                ended = await self._delete(flows)
                told = await self._tell(ended)
            finally:
                if told:
                    await self._nft(nft.ended(self._place))
            return len(ended)

    async def cleanup(self) -> None:
        async with self._setting:
            self._set = None
            await self._nft(nft.remove(self._place))

    async def retire(self) -> bool:
        """Forward nothing new; once all connections have ended, remove the rules. Returns whether that is so.

        Without our NAT hooks the kernel no longer translates established connections, so the hooks stay until then.
        """
        if self._set != Table():
            await self.set(Table())
        if await self.flows():
            return False
        await self.cleanup()
        return True

    async def dump(self) -> str:
        """All flows, as a file for `conntrack -R`, which leaves those that are there already as they are."""
        return conntrack.saved(await self._entries(None))

    async def _tell(self, ended: Collection[Flow]) -> bool:
        """False without the capability. Ends that do not answer are only logged."""
        try:
            silent = await asyncio.to_thread(tcp_reset.reset, self._place, ended)
        except PermissionError:
            _log.warning("%d connections were cut; idle ends are not reset without CAP_NET_RAW", len(ended))
            return False
        for one in silent:
            _log.info("nobody at %s answered when its connection with %s was cut", one.to, one.source)
        return True

    async def _update(self, before: Table, wanted: Table) -> bool:
        try:
            await self._nft(nft.update(self._place, before, wanted))
        except CommandFailed as error:  # somebody took our table away
            _log.warning("table %s is written anew: %s", self._place.table, error)
            return False
        return True

    async def _entries(self, generations: Collection[int] | None) -> list[conntrack.ConntrackEntry]:
        if generations is not None and not generations:
            return []
        command = conntrack.list_command(generations)
        for _ in range(_TRIES):
            output = await self._run(command, check=False)
            if output.code == 0 or _INTERRUPTED not in output.stderr:
                break
        if output.code != 0:
            raise CommandFailed(self._place.command(command), output.code, output.stderr)
        try:
            found = conntrack.entries(output.stdout, generations)
        except ValueError as error:
            raise Dom0Error(f"ambassador: {error}") from error
        if self._place.is_consumer:  # several ambassadors' generations may have the same number
            return [entry for entry in found if entry.flow.listener.address in self._place.addresses]
        return found

    async def _delete(self, flows: Collection[Flow]) -> list[Flow]:
        try:
            return await asyncio.to_thread(ctnetlink.delete, self._place, list(flows))
        except OSError as error:
            raise Dom0Error(f"ambassador: connections cannot be forgotten: {error.strerror}") from error

    async def _nft(self, text: str) -> None:
        if text:
            await self._run(["nft", "-f", "-"], stdin=text)

    async def _run(self, argv: Sequence[str], *, stdin: str = "", check: bool = True) -> Output:
        return await capture(self._place.command(argv), stdin=stdin.encode(), timeout=_SECONDS, check=check)


async def silence(namespace: str, known: Collection[str]) -> None:
    """Shortcuts that have another name than `known` forward nothing new; what is established goes on by their rules.

    Raises CommandFailed.
    """
    where = own(namespace)
    listed = await capture(where.command(["nft", "-j", "list", "tables"]))
    if text := nft.silence(nft.shortcuts(listed.stdout) - {shortcut_table(name) for name in known}):
        await capture(where.command(["nft", "-f", "-"]), stdin=text.encode())
