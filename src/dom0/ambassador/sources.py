"""Where a listener's connections go, as it was asked for: an address, a DNS name, or what the dom0 agent follows. Pure.

A source says no more than its text does; which addresses stand behind it now is found by addresses.py and the agent.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

from dom0.forward.table import HEAVIEST
from dom0.wording import excerpt

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\.?$)({_LABEL}\.)*{_LABEL}\.?", re.ASCII)
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_LABELLED = re.compile(r"[\w./-]{1,200}(=[^:\s]{0,200})?", re.ASCII)
_FOLLOWED = re.compile(r"(?P<kind>container|service|label):(?P<name>.*?)(:(?P<port>[0-9]*))?", re.ASCII | re.DOTALL)
_NODE = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # as farms call theirs
_ON_NODE = re.compile(
    rf"(?P<kind>(plaintext:)?node):(?P<name>{_NODE}/service:{_CONTAINER.pattern}):(?P<port>[0-9]*)", re.ASCII
)
_HOST = re.compile(r"(\[(?P<bracketed>[^\]]*)\]|(?P<plain>[^:\[\]]*))(:(?P<port>.*))?", re.ASCII | re.DOTALL)
FORMS = (
    "HOST:PORT, ADDRESS:PORT, [IPV6]:PORT, container:NAME:PORT, service:NAME:PORT, label:KEY=VALUE:PORT or "
    "node:NODE/service:NAME:PORT"
)


TargetKind = Literal["container", "service", "label", "node", "plaintext:node"]


class _Source(msgspec.Struct, frozen=True, tag_field="source"):
    pass


class Fixed(_Source, frozen=True, tag="address"):
    """`address` in its shortest form. `port` 0: the one that the listener's target has now."""

    address: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}{_port(self.port)}"


class Named(_Source, frozen=True, tag="name"):
    """`host` in lower case; with a dot at its end no search domain is tried."""

    host: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.host}{_port(self.port)}"

    @property
    def key(self) -> str:
        """The key of its addresses, as for Followed."""
        return self.host


class Followed(_Source, frozen=True, tag="followed"):
    """`node`: a service of another node of the farm, by the tunnel between both, `name` is `NODE/service:NAME`;
    `plaintext:node`: the same, by the network as it is.
    """

    kind: TargetKind
    name: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}{_port(self.port)}"

    @property
    def key(self) -> str:
        """What the agent looks for. The port is ours, but of what is on another node: that is published as any port."""
        return str(self) if self.is_far else f"{self.kind}:{self.name}"

    @property
    def is_far(self) -> bool:
        return self.kind in ("node", "plaintext:node")

    @property
    def in_plaintext(self) -> Followed:
        return msgspec.structs.replace(self, kind="plaintext:node") if self.is_far else self


Source = Fixed | Named | Followed


def _port(port: int) -> str:
    return f":{port}" if port else ""


def parse(text: str, *, weight: int = 1, portless: bool = False) -> Source:
    """`portless`: the port may be left out. Raises ValueError, which says what is wrong with `text`."""
    if not 1 <= weight <= HEAVIEST:
        raise ValueError(f"{weight} is not a weight (1 to {HEAVIEST})")
    if followed := _parse_followed(text, weight, portless=portless):
        return followed
    if text.count(":") > 1 and "[" not in text:
        raise ValueError(f"{_quoted(text)}: an IPv6 address stands in brackets: [2001:db8::1]:6379")
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not one of {FORMS}")
    port = _parse_port(match["port"], text, portless=portless)
    if match["bracketed"] is not None:
        return Fixed(_address(match["bracketed"], version=6), port, weight)
    host = match["plain"]
    if re.fullmatch(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?", host, re.ASCII | re.IGNORECASE):  # no name ends in a number
        return Fixed(_address(host, version=4), port, weight)
    if not _NAME.fullmatch(host):
        raise ValueError(f"{_quoted(host)} is neither an address nor a name")
    return Named(host.lower(), port, weight)


def _parse_followed(text: str, weight: int, *, portless: bool) -> Followed | None:
    """Raises ValueError."""
    of_farm = text.removeprefix("plaintext:")
    if of_farm.startswith("node:") and not text.removeprefix("node:").isdigit():
        on_node = _ON_NODE.fullmatch(text)
        if on_node is None:
            raise ValueError(f"{_quoted(text)} is not node:NODE/service:NAME:PORT")
        far = msgspec.convert(on_node["kind"], TargetKind)
        return Followed(far, on_node["name"], parse_port(on_node["port"]), weight)
    followed = _FOLLOWED.fullmatch(text)
    if followed is None or (followed["name"].isdigit() and followed["port"] is None):
        return None
    kind, name = followed["kind"], followed["name"]
    if not (_LABELLED if kind == "label" else _CONTAINER).fullmatch(name):
        raise ValueError(f"{_quoted(name)} cannot be the name of a {kind}")
    port = _parse_port(followed["port"], text, portless=portless)
    return Followed(msgspec.convert(kind, TargetKind), name, port, weight)


def _parse_port(port: str | None, text: str, *, portless: bool) -> int:
    if port is None and not portless:
        raise ValueError(f"{_quoted(text)} names no port: {FORMS}")
    return 0 if port is None else parse_port(port)


def parse_port(text: str) -> int:
    """Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{_quoted(text)} is not a port (1 to 65535)")
    return int(text)


def _address(text: str, *, version: int) -> str:
    try:
        return usable((ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(text))
    except ipaddress.AddressValueError:
        raise ValueError(f"{_quoted(text)} is not an IPv{version} address") from None


def usable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """In its shortest form. Raises ValueError: no connection could be sent there."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None or address.is_link_local:
            raise ValueError(f"{address} is a link-local address; name one that is routed")
        if address.ipv4_mapped is not None:
            return usable(address.ipv4_mapped)
    if address.is_loopback:
        raise ValueError(f"{address} is the ambassador itself: a loop")
    if address.is_unspecified or address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        raise ValueError(f"{address} is not the address of a host")
    return str(address)


def parse_place(text: str) -> Fixed:
    """ADDRESS:PORT. Raises ValueError."""
    if isinstance(found := parse(text), Fixed):
        return found
    raise ValueError(f"{_quoted(text)} is not ADDRESS:PORT")


def shifted(source: Source, by: int) -> Source:
    """The same host, `by` ports further: a range goes to as many ports. Raises ValueError."""
    if source.port + by > 65535:
        raise ValueError(f"{source}: the range runs past port 65535")
    return msgspec.structs.replace(source, port=source.port + by)


def _quoted(text: str) -> str:
    return f"'{excerpt(text if len(text) <= 100 else text[:100] + '…')}'"
