"""Services that ambassadors on other nodes lead to: `node:nas/service:redis:6379` of one is found by what nas says.

Theory of operation: as long as one of its ambassadors leads to another node, a node says so every few seconds: POST
/v1/services. The server tells the other one that it is asked for that (`Order.services`), which then says every few
seconds whether it is ready, and at which ports it is published. No port is opened for this. What is told to the first
one is such a port, at the address that the other one asks the server from: so no node leads others but to itself.

All of it is in memory, and said again and again. Where something is not known, as after the server was started, that is
told as such, and ambassadors go on to where they went.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
from msgspec import Meta

from dom0.ambassador.sources import Fixed, usable
from dom0.engine.values import PublishedPort
from dom0.errors import Dom0Error
from dom0.farms import join
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.http.server import HttpError, Request, Response, refusal

if TYPE_CHECKING:
    from dom0.farms.orders import Orders

EVERY = 2.0  # seconds between two words of a node that wants something, or is asked for something
SOON = 0.3  # seconds, while it waits for an answer
SILENT = 15.0  # seconds without a word: what it has said counts no more
PATIENCE = 5  # attempts to reach the server, until that is told
ANSWER_WITHIN = 5.0  # seconds
MOST_WANTED = 64  # by one node
MOST_ASKED = 1024  # of one node
MOST_PLACES = 16  # of one service
MOST = 1 << 20  # bytes of a question or an answer
_SERVICE = r"service:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}:[0-9]{1,5}"

OwnService = Annotated[str, Meta(pattern=rf"^{_SERVICE}\Z")]
FarService = Annotated[str, Meta(pattern=rf"^node:[a-z0-9-]{{1,63}}/{_SERVICE}\Z")]

log = logging.getLogger(__name__)


class Neighbours(Protocol):
    """Whoever knows the ambassadors and the services of this machine."""

    @property
    def wanted(self) -> frozenset[str]:
        """Where ambassadors lead to on other nodes, as FarService."""

    def tell(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        """Of those: ADDRESS:PORT of each that is published, none where it is known that there is none; of what is in
        `found` not at all nothing is known. `reasons`: why.
        """

    def published(self, services: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        """Of OwnService: the host's ports that lead there, None where it is not ready; of none while nobody knows."""


class Place(msgspec.Struct, frozen=True):
    """A port of the node, at `address`, "" for all."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    address: Annotated[str, Meta(pattern=r"^[0-9a-f:.]{0,45}\Z")] = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    is_ready: bool
    places: Annotated[tuple[Place, ...], Meta(max_length=MOST_PLACES)] = ()


class ServicesRequest(msgspec.Struct, frozen=True, kw_only=True):
    wants: Annotated[tuple[FarService, ...], Meta(max_length=MOST_WANTED)] = ()
    offers: Annotated[dict[OwnService, Offer], Meta(max_length=MOST_ASKED)] = {}


class ServicesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`asked`: what others want of the node; `found` and `reasons` as Neighbours are told."""

    asked: Annotated[tuple[OwnService, ...], Meta(max_length=MOST_ASKED)] = ()
    found: dict[FarService, tuple[str, ...]] = {}
    reasons: dict[FarService, str] = {}


class _Word(msgspec.Struct, frozen=True):
    """A node's last one. `at`: by the loop's time."""

    said: ServicesRequest
    address: str
    at: float


class ServiceServer:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._words: dict[str, _Word] = {}  # by the node's key
        self._asked: dict[str, float] = {}  # nodes that others want something of, by their names -> since when

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
        self._words[key] = _Word(said, request.address, now)
        self._words = {it: word for it, word in self._words.items() if it in names and now - word.at < SILENT}
        wanted = {split(want) for word in self._words.values() for want in word.said.wants}
        self._asked = {node: self._asked.get(node, now) for node, _ in wanted}
        self._orders.ask_services_of(frozenset(self._asked))
        asked = sorted(service for node, service in wanted if node == names[key])[:MOST_ASKED]
        found, reasons = dict[str, tuple[str, ...]](), dict[str, str]()
        for want in said.wants:
            places, reason = self._find(want, names, now)
            if places is not None:
                found[want] = places
            if reason:
                reasons[want] = reason
        return Response(msgspec.json.encode(ServicesAnswer(asked=tuple(asked), found=found, reasons=reasons)))

    def _find(self, want: str, names: Mapping[str, str], now: float) -> tuple[tuple[str, ...] | None, str]:
        """As `find`."""
        node, service = split(want)
        if node not in names.values():
            return (), f"{node} is no node of the farm"
        word = next((word for key, word in self._words.items() if names[key] == node), None)
        if word is not None:
            return find(service, node, word.said.offers, word.address)
        is_silent = now - self._asked[node] >= SILENT
        what = f"{node} has said nothing of it for {SILENT:g} seconds or more: is it on, and reaches the farm's server?"
        return None, what if is_silent else ""


def split(want: str) -> tuple[str, str]:
    """A FarService into the node's name and OwnService."""
    node, _, service = want.removeprefix("node:").partition("/")
    return node, service


def find(service: str, node: str, offers: Mapping[str, Offer], address: str) -> tuple[tuple[str, ...] | None, str]:
    """Where `service` of `node` is, None where that is not known; and why it is nowhere. `address`: the node's own."""
    offer = offers.get(service)
    if offer is None:
        return None, ""
    if not offer.is_ready:
        return (), f"nothing of it is ready on {node}"
    if not offer.places:
        return (), f"{node} publishes no fixed port for it: `ports` of the service say which, and at which address"
    try:
        here = usable(ip_address(address))
    except ValueError:
        return (), f"{node} asks the farm's server from {address}, where no other node reaches it"
    places = [place for place in offer.places if place.address in ("", here)]
    if not places:
        others = ", ".join(sorted({place.address for place in offer.places}))
        return (), f"{node} publishes it at {others}, and asks the farm's server from {here}"
    return tuple(str(Fixed(here, place.port)) for place in places), ""


async def follow(neighbours: Neighbours, is_asked: Callable[[], bool], client: Client, secret: str) -> None:
    """Of a node, until it is cancelled. `is_asked`: whether the server has said so."""
    asked: tuple[str, ...] = ()
    failures = 0
    while True:
        wanted, pause = sorted(neighbours.wanted), EVERY
        if wanted or asked or is_asked():
            try:
                request = ServicesRequest(wants=tuple(wanted[:MOST_WANTED]), offers=_offers(neighbours, asked))
                answer = await _ask(client, secret, request)
                too_many = dict.fromkeys(wanted[MOST_WANTED:], f"one of more than {MOST_WANTED} that this node wants")
                neighbours.tell(answer.found, answer.reasons | too_many)
                is_waiting = any(it not in answer.found and it not in answer.reasons for it in request.wants)
                pause = SOON if is_waiting or answer.asked != asked else EVERY
                asked, failures = answer.asked, 0
            except (Dom0Error, OSError, Malformed) as error:
                failures += 1
                if failures >= PATIENCE:
                    why = f"the farm's server does not say: {str(error) or 'nothing came'}"
                    neighbours.tell({}, dict.fromkeys(wanted, why))
            except Exception:  # a bug here is in the way of no role
                log.exception("farm: services")
        await asyncio.sleep(pause)


def _offers(neighbours: Neighbours, asked: Iterable[str]) -> dict[str, Offer]:
    return {
        service: Offer(is_ready=ports is not None, places=tuple(islice(_places(ports or ()), MOST_PLACES)))
        for service, ports in neighbours.published(asked).items()
    }


def _places(ports: Iterable[PublishedPort]) -> Iterable[Place]:
    for port in ports:
        with suppress(ValueError):  # the Engine has taken it, so it is an address
            yield Place(port.port, str(ip_address(port.ip)) if port.ip else "")


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
