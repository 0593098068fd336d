"""Ask for the addresses of a name as the resolver of this machine would: /etc/hosts first, then DNS with its search
domains and ndots. What an answer means is decided in addresses.py.

Links and --add-host are lines of /etc/hosts, and the Engine rewrites them while we run.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.ambassador.addresses import SHORTEST, Counting, NameAnswer, count, is_waiting, known, pause
from dom0.ambassador.sources import usable
from dom0.forward.table import FAMILIES, Family

LIFETIME = 4.0  # seconds for all attempts of one query
ENGINE_SERVER = "127.0.0.11"
ENGINE_TTL = 600.0  # seconds, of its containers' names; what it asks others for keeps theirs
_RECORDS: dict[Family, str] = {"ip": "A", "ip6": "AAAA"}


class LookupResult(msgspec.Struct, frozen=True):
    """`ttl` in seconds, None where nothing was learned; `error` is why."""

    answers: dict[Family, NameAnswer]
    ttl: float | None
    engine: bool = False
    error: str = ""


class Lookup:
    """`resolv_conf` and `hosts` are read anew each time: the Engine rewrites both."""

    def __init__(self, resolv_conf: Path = Path("/etc/resolv.conf"), hosts: Path = Path("/etc/hosts")) -> None:
        self._resolv_conf = resolv_conf
        self._hosts = hosts

    async def ask(self, host: str) -> LookupResult:
        if addresses := self._in_hosts(host):
            return LookupResult(_by_family(addresses), SHORTEST)
        import dns.asyncresolver
        import dns.exception

        try:
            resolver = dns.asyncresolver.Resolver(str(self._resolv_conf))
        except (dns.exception.DNSException, OSError, ValueError) as error:  # a line that is no address
            return LookupResult({}, None, error=f"no DNS server is known: {error}")
        asked = await asyncio.gather(*(self._ask_one(resolver, host, _RECORDS[family]) for family in FAMILIES))
        engine = ENGINE_SERVER in map(str, resolver.nameservers)
        answers = {
            family: replace(answer, whole=engine and ttl == ENGINE_TTL)
            for family, (answer, ttl, _) in zip(FAMILIES, asked, strict=True)
        }
        ttls = [ttl for _, ttl, _ in asked if ttl is not None]
        errors = [error for _, _, error in asked if error]
        return LookupResult(answers, min(ttls) if ttls else None, engine, errors[0] if errors and not ttls else "")

    def _in_hosts(self, host: str) -> set[str]:
        try:
            text = self._hosts.read_text(errors="replace")
        except OSError:
            return set()
        found = set()
        for line in text.splitlines():
            words = line.split("#", 1)[0].split()
            if host.removesuffix(".").lower() in (word.lower() for word in words[1:]):
                found |= _usable(words[0])
        return found

    async def _ask_one(self, resolver: Any, host: str, record: str) -> tuple[NameAnswer, float | None, str]:
        import dns.exception
        import dns.resolver

        try:
            reply = await resolver.resolve(host, record, search=True, raise_on_no_answer=False, lifetime=LIFETIME)
        except dns.resolver.NXDOMAIN:
            return NameAnswer(), None, "no such name"
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return NameAnswer(), None, " ".join(str(error).split())[:200] or type(error).__name__
        found = {address for item in reply.rrset or () for address in _usable(str(item.address))}
        if not found:
            return NameAnswer(), None, f"it has no usable {record} record"
        return NameAnswer(frozenset(found), learned=True), float(reply.chaining_result.minimum_ttl), ""


def _by_family(addresses: set[str]) -> dict[Family, NameAnswer]:
    six = frozenset(address for address in addresses if ":" in address)
    return {"ip": NameAnswer(frozenset(addresses - six), learned=True), "ip6": NameAnswer(six, learned=True)}


def _usable(text: str) -> set[str]:
    """Nothing for an address that no connection can be sent to, such as the loopback's."""
    try:
        return {usable(ipaddress.ip_address(text))}
    except ValueError:
        return set()


class Names:
    """Asks for each watched name as often as its TTL says; calls `on_change` when the addresses that count change."""

    def __init__(self, lookup: Lookup, on_change: Callable[[], None], ticks: Callable[[], float]) -> None:
        self._lookup = lookup
        self._on_change = on_change
        self._ticks = ticks
        self._counting: dict[str, dict[Family, Counting]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.errors: dict[str, str] = {}  # names of which nothing was ever found, or nothing lately

    def addresses(self, host: str) -> tuple[str, ...]:
        return tuple(sorted(it for counting in self._counting.get(host, {}).values() for it in counting.current))

    def all(self) -> dict[str, tuple[str, ...]]:
        return {host: addresses for host in self._counting if (addresses := self.addresses(host))}

    def know(self, host: str, addresses: Collection[str]) -> None:
        """They counted before this process started."""
        by_family = _by_family(set(addresses))
        ticks = self._ticks()
        self._counting[host] = {family: known(it.addresses, ticks) for family, it in by_family.items()}

    def watch(self, hosts: Collection[str], group: asyncio.TaskGroup) -> None:
        """These and no others from now on."""
        for host in self._tasks.keys() - hosts:
            self._tasks.pop(host).cancel()
        for notes in (self._counting, self.errors):
            for host in notes.keys() - hosts:
                del notes[host]
        for host in set(hosts) - self._tasks.keys():
            self._tasks[host] = group.create_task(self._follow(host))

    async def ask(self, host: str) -> tuple[str, ...]:
        """What counts for `host`, asked now if nothing is known."""
        if not self.addresses(host):
            self._take(host, await self._lookup.ask(host))
        return self.addresses(host)

    async def _follow(self, host: str) -> None:
        while True:
            before = self.addresses(host), self.errors.get(host)
            reply = await self._lookup.ask(host)
            self._take(host, reply)
            if (self.addresses(host), self.errors.get(host)) != before:
                self._on_change()
            counting = self._counting[host]
            waiting = any(is_waiting(counting[family], answer) for family, answer in reply.answers.items())
            await asyncio.sleep(SHORTEST if waiting else pause(reply.ttl, engine=reply.engine))

    def _take(self, host: str, reply: LookupResult) -> None:
        ticks = self._ticks()
        counting = self._counting.setdefault(host, {})
        for family in FAMILIES:
            answer = reply.answers.get(family, NameAnswer())
            counting[family] = count(counting.get(family, Counting()), answer, ticks)
        if reply.error:
            self.errors[host] = reply.error
        else:
            self.errors.pop(host, None)
