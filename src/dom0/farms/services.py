"""Services that ambassadors on other nodes lead to: `node:nas/service:redis:6379` is found by what nas reports.

Theory of operation: as long as one of its ambassadors leads to another node, a node asks for it every few seconds: POST
/v1/services. The server tells the other node that it is asked for (`Order.services`), which then reports every few
seconds whether the service is ready, and at which ports it is published. No port is opened for this. The first node
gets such a port, at the address that the other one connects to the server from: so a node leads others only to itself.
That is for `plaintext:node:…`. Else it is a port in the tunnel between both, which leads to the container: each node
reports its public key, and gets those of the nodes that it asks something of, or that ask something of it.

All of it is in memory, and repeated. What is not known, as after a start of the server, is reported as unknown, and
ambassadors go on to where they went; no tunnel is changed until all nodes have had time to ask. A node that falls
silent keeps its tunnels until it asks for something else, or is no node any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
from msgspec import Meta

from dom0.ambassador.sources import Fixed, usable
from dom0.durable import Unwritable
from dom0.engine.values import PublishedPort
from dom0.errors import Dom0Error
from dom0.farms import join, tunnel
from dom0.farms.tunnel import INTERFACE, KEY_PATTERN, Entrance, Peer, PublicKey
from dom0.farms.wireguard import KEY, NoTunnel, Tunnel
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.http.server import HttpError, Request, Response, refusal

if TYPE_CHECKING:
    from dom0.farms.orders import Orders

EVERY = 2.0  # seconds between two requests of a node that wants something, or is asked for something
SOON = 0.3  # seconds, while it waits for an answer
SILENT = 15.0  # seconds without a request: its last one counts no more
SLOW = 30.0  # seconds that a tunnel may take, until that is told
PATIENCE = 5  # attempts to reach the server, until that is told
ANSWER_WITHIN = 5.0  # seconds
MOST_WANTED = 64  # by one node
MOST_ASKED = 1024  # of one node
MOST_PLACES = 16  # of one service
MOST_REASON = 500  # characters
MOST = 1 << 20  # bytes of a question or an answer
UNUSED = 30.0  # seconds that a tunnel is not needed, until it is removed
_SERVICE = r"service:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}:[0-9]{1,5}"

OwnService = Annotated[str, Meta(pattern=rf"^{_SERVICE}\Z")]
FarService = Annotated[str, Meta(pattern=rf"^(plaintext:)?node:[a-z0-9-]{{1,63}}/{_SERVICE}\Z")]

log = logging.getLogger(__name__)


class Neighbours(Protocol):
    """Whoever knows the ambassadors and the services of this machine."""

    @property
    def wanted(self) -> frozenset[str] | None:
        """Where ambassadors lead to on other nodes, as FarService; None while that is not known."""

    def tell(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        """Of those: ADDRESS:PORT of each that is published, none where it is known that there is none; of what is in
        `found` not at all nothing is known. `reasons`: why.
        """

    def published(self, services: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        """Of OwnService: the host's ports that lead there, None where it is not ready; of none while nobody knows."""

    def entrances(self, services: Iterable[str]) -> Mapping[str, tuple[tuple[int, str, int], ...]]:
        """Of OwnService: ports of the host, each with the address and the port of the container behind it; of none
        while nobody knows.
        """


class NodePort(msgspec.Struct, frozen=True):
    """A port of the node, at `address`, "" for all."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    address: Annotated[str, Meta(pattern=r"^[0-9a-f:.]{0,45}\Z")] = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """`entrances`: ports in the tunnel, as soon as they are there."""

    is_ready: bool
    places: Annotated[tuple[NodePort, ...], Meta(max_length=MOST_PLACES)] = ()
    entrances: Annotated[tuple[Annotated[int, Meta(ge=1, le=65535)], ...], Meta(max_length=MOST_PLACES)] = ()


class ServicesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`key`: of the node's tunnel, "" where it has none; `lacks`: why it cannot have one."""

    wants: Annotated[tuple[FarService, ...], Meta(max_length=MOST_WANTED)] = ()
    offers: Annotated[dict[OwnService, Offer], Meta(max_length=MOST_ASKED)] = {}
    key: Annotated[str, Meta(pattern=rf"^({KEY_PATTERN})?\Z")] = ""
    lacks: Annotated[str, Meta(max_length=MOST_REASON)] = ""


class ServicesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`asked`: what others want of the node; `found` and `reasons` as Neighbours are told. `guests`: of what is wanted
    by a tunnel, the keys of those that may come; `peers`: the other ends of its tunnel. `is_whole`: nobody else may.
    """

    asked: Annotated[tuple[OwnService, ...], Meta(max_length=MOST_ASKED)] = ()
    found: dict[FarService, tuple[str, ...]] = {}
    reasons: dict[FarService, str] = {}
    guests: Annotated[dict[OwnService, tuple[PublicKey, ...]], Meta(max_length=MOST_ASKED)] = {}
    peers: tuple[Peer, ...] = ()
    is_whole: bool = False


class _LastRequest(msgspec.Struct, frozen=True):
    """`at`: by the loop's time."""

    said: ServicesRequest
    address: str
    at: float


class ServiceServer:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._requests: dict[str, _LastRequest] = {}  # by the node's key
        self._ends: dict[str, str] = {}  # of tunnels: their keys by those of their nodes
        self._asked: dict[str, float] = {}  # nodes that others want something of, by their names -> since when
        self._started = asyncio.get_running_loop().time()

    async def ask(self, key: str, request: Request) -> Response:
        """Raises HttpError."""
        try:
            names = await self._orders.names()
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        if key not in names:  # nothing of it is read
            raise HttpError(403, "this machine is no node of the farm")
        try:
            said = msgspec.json.decode(await request.read(MOST), type=ServicesRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(400, str(error)) from error
        now = asyncio.get_running_loop().time()
        self._requests[key] = _LastRequest(said, request.address, now)
        self._requests = {
            it: last for it, last in self._requests.items() if it in names and (last.said.key or now - last.at < SILENT)
        }
        self._ends = _find_ends(self._requests)
        wanted = {split(want) for last in self._requests.values() for want in last.said.wants}
        self._asked = {node: self._asked.get(node, now) for node, _ in wanted}
        self._orders.ask_services_of(frozenset(self._asked))
        asked = sorted(service for node, service in wanted if node == names[key])[:MOST_ASKED]
        found, reasons = dict[str, tuple[str, ...]](), dict[str, str]()
        for want in said.wants:
            places, reason = self._find(want, key, names, now)
            if places is not None:
                found[want] = places
            if reason:
                reasons[want] = reason
        answer = ServicesAnswer(
            asked=tuple(asked),
            found=found,
            reasons=reasons,
            guests=self._guests(names[key], asked),
            peers=self._peers(key, names),
            is_whole=now - self._started >= SILENT,
        )
        return Response(msgspec.json.encode(answer))

    def _guests(self, node: str, asked: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Of `node`, as in the answer to it."""
        guests: dict[str, set[str]] = {}
        for key, last in self._requests.items():
            for want in filter(is_by_tunnel, last.said.wants):
                if split(want)[0] == node and split(want)[1] in asked:
                    guests.setdefault(split(want)[1], set()).update(filter(None, [self._ends.get(key)]))
        return {service: tuple(sorted(keys)) for service, keys in guests.items()}

    def _peers(self, key: str, names: Mapping[str, str]) -> tuple[Peer, ...]:
        """Of the node with `key`: those that it wants something of, and those that want something of it."""
        wanted = self._partners(key)
        others = (it for it in self._ends if names[it] in wanted or names[key] in self._partners(it))
        return tuple(sorted(Peer(self._ends[it], self._requests[it].address) for it in others if it != key))

    def _find_lack(self, key: str, name: str) -> str:
        """Why no tunnel leads to a node."""
        said = self._requests[key].said
        if said.lacks:
            return f"{name} has no tunnel: {said.lacks}; `plaintext: true` goes without one"
        if said.key and key not in self._ends:
            return f"the address of {name} in the tunnel is another node's too: remove its {KEY} and its {INTERFACE}"
        return ""

    def _partners(self, key: str) -> set[str]:
        """Names of the nodes that it wants to reach by a tunnel."""
        return {split(want)[0] for want in self._requests[key].said.wants if is_by_tunnel(want)}

    def _find(self, want: str, asking: str, names: Mapping[str, str], now: float) -> tuple[tuple[str, ...] | None, str]:
        """As `find`. `asking`: key of who wants it."""
        node, service = split(want)
        if node not in names.values():
            return (), f"{node} is no node of the farm"
        other, last = next(((key, last) for key, last in self._requests.items() if names[key] == node), ("", None))
        if last is not None and now - last.at < SILENT:
            if not is_by_tunnel(want):
                return find(service, node, last.said.offers, last.address)
            if asking == other:
                return (), f"{node} is this node itself: {service}"
            for each in (asking, other):
                if reason := self._find_lack(each, names[each]):
                    return (), reason
            places, reason = find_in_tunnel(service, node, last.said)
            is_slow = places is None and now - self._asked[node] >= SLOW
            return places, f"{node} has not said yet where it is in its tunnel" if is_slow else reason
        is_silent = last is not None or now - self._asked[node] >= SILENT
        what = f"{node} has said nothing of it for {SILENT:g} seconds or more: is it on, and reaches the farm's server?"
        return None, what if is_silent else ""


def _find_ends(requests: Mapping[str, _LastRequest]) -> dict[str, str]:
    """Keys of tunnels, by those of their nodes, that have an address of their own."""
    keys = {node: last.said.key for node, last in requests.items() if last.said.key}
    uses = Counter(map(tunnel.address_of, keys.values()))
    return {node: key for node, key in keys.items() if uses[tunnel.address_of(key)] == 1}


def is_by_tunnel(want: str) -> bool:
    return want.startswith("node:")


def split(want: str) -> tuple[str, str]:
    """A FarService into the node's name and OwnService."""
    node, _, service = want.removeprefix("plaintext:").removeprefix("node:").partition("/")
    return node, service


def find(service: str, node: str, offers: Mapping[str, Offer], address: str) -> tuple[tuple[str, ...] | None, str]:
    """Where `service` of `node` is, None where that is not known; and why it is nowhere. `address`: the node's own."""
    offer = offers.get(service)
    if offer is None:
        return None, ""
    if reason := _unpublished(offer, node):
        return (), reason
    try:
        here = usable(ip_address(address))
    except ValueError:
        return (), f"{node} asks the farm's server from {address}, where no other node reaches it"
    places = [place for place in offer.places if place.address in ("", here)]
    if not places:
        others = ", ".join(sorted({place.address for place in offer.places}))
        return (), f"{node} publishes it at {others}, and asks the farm's server from {here}"
    return tuple(str(Fixed(here, place.port)) for place in places), ""


def find_in_tunnel(service: str, node: str, said: ServicesRequest) -> tuple[tuple[str, ...] | None, str]:
    """The same, of what `node` has said, for one that has a tunnel too."""
    offer = said.offers.get(service)
    if offer is None or not said.key:
        return None, ""
    if reason := _unpublished(offer, node):
        return (), reason
    here = tunnel.address_of(said.key)
    return tuple(str(Fixed(here, port)) for port in offer.entrances) or None, ""


def _unpublished(offer: Offer, node: str) -> str:
    if not offer.is_ready:
        return f"nothing of it is ready on {node}"
    if not offer.places:
        return f"{node} publishes no fixed TCP port for it: `ports` of the service say which, and at which address"
    return ""


async def follow(
    neighbours: Neighbours, is_asked: Callable[[], bool | None], client: Client, secret: str, own_tunnel: Tunnel
) -> None:
    """Of a node, until it is cancelled. `is_asked`: whether the server has said so, None where it has said nothing."""
    await _Following(neighbours, is_asked, client, secret, own_tunnel).run()


class _Following:
    """`needed_at`: when the tunnel was needed last, or may have been."""

    def __init__(
        self, neighbours: Neighbours, is_asked: Callable[[], bool | None], client: Client, secret: str, own: Tunnel
    ) -> None:
        self._neighbours = neighbours
        self._is_asked = is_asked
        self._client = client
        self._secret = secret
        self._tunnel = own
        self._said: ServicesRequest | None = None  # the server may know what an agent before us has said
        self._heard = ServicesAnswer()
        self._failures = 0
        self._needed_at: float | None = asyncio.get_running_loop().time()

    async def run(self) -> None:
        while True:
            wanted, pause = sorted(self._neighbours.wanted or ()), EVERY
            try:
                if self._neighbours.wanted is None:
                    pause = SOON
                elif wanted or self._heard.asked or self._is_asked() or self._is_to_be_corrected:
                    pause = await self._talk(wanted)
                await self._end_unused()
            except (Dom0Error, OSError, Malformed) as error:
                self._failures += 1
                if self._failures >= PATIENCE:
                    why = f"the farm's server does not say: {str(error) or 'nothing came'}"
                    self._neighbours.tell({}, dict.fromkeys(wanted, why))
            except Exception:  # a bug here is in the way of no role
                log.exception("farm: services")
            await asyncio.sleep(pause)

    @property
    def _is_to_be_corrected(self) -> bool:
        """Whether a server that speaks to us may know that we want what we do not want any more."""
        return bool(self._said.wants) if self._said else self._is_asked() is not None

    async def _talk(self, wanted: list[str]) -> float:
        """Return how long to wait then. Raises Dom0Error, OSError, Malformed."""
        before, (key, lacks) = self._heard.asked, await self._keep_tunnel()
        request = ServicesRequest(
            wants=tuple(wanted[:MOST_WANTED]), offers=self._offers(before), key=key, lacks=lacks[:MOST_REASON]
        )
        answer = await _ask(self._client, self._secret, request)
        self._said, self._heard, self._failures = request, answer, 0
        await self._keep_tunnel()
        too_many = dict.fromkeys(wanted[MOST_WANTED:], f"one of more than {MOST_WANTED} that this node wants")
        self._neighbours.tell(answer.found, answer.reasons | too_many)
        is_waiting = any(it not in answer.found and it not in answer.reasons for it in request.wants)
        return SOON if is_waiting or answer.asked != before else EVERY

    @property
    def _needs_tunnel(self) -> bool:
        return bool(self._heard.guests) or any(map(is_by_tunnel, self._neighbours.wanted or ()))

    async def _keep_tunnel(self) -> tuple[str, str]:
        """As was heard last. Return its key, or why there is none; neither where none is needed."""
        if not self._needs_tunnel:
            return "", ""
        try:
            key, entrances = await self._tunnel.open(), self._entrances()
            if self._heard.is_whole and entrances.keys() == self._heard.guests.keys():
                await self._tunnel.set(tunnel.desired(self._heard.peers, self._heard.guests.items(), entrances))
        except (NoTunnel, Unwritable) as error:
            return "", error.message
        return key, ""

    async def _end_unused(self) -> None:
        """As it may be needed by what is not known yet, after a while."""
        now, is_asked = asyncio.get_running_loop().time(), self._is_asked()
        if self._needs_tunnel or is_asked is None or (is_asked and not self._heard.is_whole):
            self._needed_at = now
        elif self._needed_at is not None and now - self._needed_at >= UNUSED:
            self._needed_at = now
            try:
                await self._tunnel.close()
                self._needed_at = None
            except (NoTunnel, Unwritable) as error:  # it is tried again as late as now
                log.warning("farm: the tunnel stays: %s", error.message)

    def _entrances(self) -> dict[str, tuple[Entrance, ...]]:
        """Of what guests want; of none while nobody knows."""
        found = self._neighbours.entrances(self._heard.guests)
        return {service: tuple(Entrance(*each) for each in places) for service, places in found.items()}

    def _offers(self, asked: Iterable[str]) -> dict[str, Offer]:
        entrances, there = self._entrances(), self._tunnel.entrances
        return {
            service: Offer(
                is_ready=ports is not None,
                places=tuple(islice(_places(ports or ()), MOST_PLACES)),
                entrances=tuple(it.port for it in entrances.get(service, ()) if it in there)[:MOST_PLACES],
            )
            for service, ports in self._neighbours.published(asked).items()
        }


def _places(ports: Iterable[PublishedPort]) -> Iterable[NodePort]:
    for port in ports:
        with suppress(ValueError):  # the Engine has taken it, so it is an address
            yield NodePort(port.port, str(ip_address(port.ip)) if port.ip else "")


async def _ask(client: Client, secret: str, request: ServicesRequest) -> ServicesAnswer:
    """Raises Dom0Error, OSError, Malformed."""
    body = msgspec.json.encode(request)
    status, said = await join.ask(client, "/v1/services", secret, body, within=ANSWER_WITHIN, most=MOST)
    try:
        if status == 200:
            return msgspec.json.decode(said, type=ServicesAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionError("the answer is not one of a farm's server") from error
    raise ConnectionError("it does not know how" if status == 404 else f"it answers with {status}")
