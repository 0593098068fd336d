"""Link variables: what `docker run --link` sets, and what people set by hand since. No I/O.

    ALIAS_PORT_6379_TCP=tcp://HOST:6380      the port to listen at → the target
    ALIAS_PORT_6379_TCP_ADDR, _PORT, _PROTO  the same in pieces; the whole one counts where both are
    ALIAS_PORT_7000_TCP_START=tcp://HOST:7000, ALIAS_PORT_7005_TCP_END=tcp://HOST:7005
    ALIAS_PORT=tcp://HOST:6379               the default port; counts where ALIAS has none of the above
    ALIAS_NAME, ALIAS_ENV_…                  say nothing about ports: ignored, whatever they hold

Source: moby daemon/links/links.go, ToEnv.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from dom0.ambassador.sources import Source, parse, parse_port, shifted
from dom0.forward.table import MOST_ROUTES, Listener, Protocol
from dom0.wording import Flaw, excerpt

_NUMBERED = re.compile(
    r"(?P<alias>.+)_PORT_(?P<port>[0-9]+)_(?P<protocol>TCP|UDP|SCTP)"
    r"(?P<part>|_ADDR|_PORT|_PROTO|_START|_END|_PORT_START|_PORT_END)",
    re.ASCII | re.DOTALL,
)
_DEFAULT = re.compile(r"(?P<alias>.+)_PORT", re.ASCII | re.DOTALL)
_URL = re.compile(r"(?P<protocol>[a-z]+)://(?P<target>.*)", re.ASCII | re.DOTALL)
LOOKED_FOR = "ALIAS_PORT_<n>_TCP=tcp://HOST:PORT or ALIAS_PORT_<n>_UDP=udp://HOST:PORT"


class LinkVariable(msgspec.Struct, frozen=True):
    variable: str  # its name, for messages
    listener: Listener
    source: Source


class Links(msgspec.Struct):
    found: list[LinkVariable] = []
    flaws: list[Flaw] = []
    ignored: list[str] = []  # look like link variables, but nothing of them is forwarded

    @contextmanager
    def flaws_of(self, variable: str) -> Iterator[None]:
        """A ValueError in the block is a flaw of `variable`."""
        try:
            yield
        except ValueError as error:
            self.flaws.append(_flaw(variable, str(error)))


class _Alias(msgspec.Struct, frozen=True):
    """Variables of one alias and protocol, by the port in their name and what follows it."""

    name: str
    protocol: str
    parts: dict[tuple[int, str], str]  # (port, part) -> value

    def variable(self, port: int, part: str = "") -> str:
        return f"{self.name}_PORT_{port}_{self.protocol}{part}"


def links(environ: Mapping[str, str]) -> Links:
    """What `environ` asks for; a listener that is named twice for one target is one link."""
    answer = Links()
    aliases: dict[tuple[str, str], _Alias] = {}
    for name, value in sorted(environ.items()):
        match = _NUMBERED.fullmatch(name)
        if match is None:
            continue
        if "_ENV_" in match["alias"] or match["protocol"] == "SCTP":
            answer.ignored.append(excerpt(name))
            continue
        with answer.flaws_of(name):
            port, key = parse_port(match["port"]), (match["alias"], match["protocol"])
            aliases.setdefault(key, _Alias(*key, {})).parts[port, match["part"]] = value
    for alias in aliases.values():
        _collect(answer, alias)
    named = {alias for alias, _ in aliases}
    for name, value in sorted(environ.items()):
        match = _DEFAULT.fullmatch(name)
        if match is None or match["alias"] in named or "_ENV_" in name:
            continue
        # Many programs have a variable of such a name that holds a number: only a tcp:// or udp:// address is taken.
        url = _URL.fullmatch(value)
        if url is not None and url["protocol"] in ("tcp", "udp"):
            with answer.flaws_of(name):
                source = _target(value, url["protocol"].upper())
                answer.found.append(LinkVariable(name, Listener(Protocol(url["protocol"]), source.port), source))
    first: dict[Listener, LinkVariable] = {}
    for link in answer.found:
        other = first.setdefault(link.listener, link)
        if other.source != link.source:
            what = f"{link.listener} goes to {link.source}, and {excerpt(other.variable)} sends it to {other.source}"
            answer.flaws.append(_flaw(link.variable, what, "one port has one target: take one of them away"))
    answer.found = list(first.values())
    return answer


def _collect(answer: Links, alias: _Alias) -> None:
    starts = sorted(port for port, part in alias.parts if part == "_START")
    ends = sorted(port for port, part in alias.parts if part == "_END")
    ranged: set[int] = set()
    for start in starts:
        end = start if start in ends else next((port for port in ends if port > start), 0)
        ends = [port for port in ends if port != end]
        with answer.flaws_of(alias.variable(start, "_START")):
            found = _range(alias, start, end)
            ranged |= {link.listener.port for link in found}
            answer.found += [link for link in found if (link.listener.port, "") not in alias.parts]
    answer.flaws += [_flaw(alias.variable(port, "_END"), "no _START goes with it") for port in ends]
    for port in sorted({port for port, _ in alias.parts}):
        if (port, "") not in alias.parts and (port in ranged or (port, "_ADDR") not in alias.parts):
            continue
        variable = alias.variable(port, "" if (port, "") in alias.parts else "_ADDR")
        with answer.flaws_of(variable):
            answer.found.append(LinkVariable(variable, _listener(alias, port), _single(alias, port)))


def _single(alias: _Alias, port: int) -> Source:
    if (port, "") in alias.parts:
        return _target(alias.parts[port, ""], alias.protocol)
    protocol = alias.parts.get((port, "_PROTO"), alias.protocol)
    if protocol.upper() != alias.protocol:
        raise ValueError(f"its _PROTO says {excerpt(protocol[:20])}")
    host = alias.parts[port, "_ADDR"]
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return _plain(f"{bracketed}:{alias.parts.get((port, '_PORT'), port)}")


def _range(alias: _Alias, start: int, end: int) -> list[LinkVariable]:
    """`end` is the port in the name of the last one: that of the range's end, or its beginning's again."""
    if not end:
        raise ValueError("no _END goes with it")
    first = _target(alias.parts[start, "_START"], alias.protocol)
    last = _target(alias.parts[end, "_END"], alias.protocol)
    count = last.port - first.port
    if shifted(first, count) != last:
        raise ValueError(f"the range begins at {first} and ends at {last}: two hosts")
    if count < 0 or (end not in (start, start + count)):
        raise ValueError(f"{first} to {last} are not as many ports as {start} to {end}")
    if count >= MOST_ROUTES or start + count > 65535:
        raise ValueError(f"a range of {count + 1} ports from {start} on is too long")
    variable = alias.variable(start, "_START")
    return [LinkVariable(variable, _listener(alias, start + n), shifted(first, n)) for n in range(count + 1)]


def _target(url: str, protocol: str) -> Source:
    match = _URL.fullmatch(url)
    expected = f"{protocol.lower()}://HOST:PORT"
    if match is None:
        raise ValueError(f"'{excerpt(url[:100])}' is not of the form {expected}")
    if match["protocol"] != protocol.lower():
        raise ValueError(f"'{excerpt(url[:100])}' is not {protocol}: {expected}")
    return _plain(match["target"])


def _plain(text: str) -> Source:
    if text.startswith(("container:", "service:", "label:", "node:")) and text.count(":") > 1:
        raise ValueError(f"'{excerpt(text[:100])}': a link variable holds HOST:PORT")
    return parse(text)


def _listener(alias: _Alias, port: int) -> Listener:
    return Listener(Protocol(alias.protocol.lower()), port)


def _flaw(variable: str, what: str, hint: str = "") -> Flaw:
    return Flaw((variable,), what, hint or f"expected: {LOOKED_FOR}")
