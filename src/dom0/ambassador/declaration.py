"""Settings and link variables → the rules of each listener, checked and complete. Pure.

What is wrong is told all at once, each with its place; nothing is taken from a declaration with a flaw in it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import ParamSpec, TypeVar

import msgspec

from dom0.ambassador import sources
from dom0.ambassador.settings import HealthSettings, Listen, Settings
from dom0.ambassador.sources import Followed, Source
from dom0.ambassador.variables import LOOKED_FOR, links
from dom0.durations import seconds
from dom0.errors import ProjectError
from dom0.forward.table import MOST_ROUTES, MOST_TARGETS, Listener, Protocol, Udp, parse_listener
from dom0.wording import Flaw, excerpt, flaw

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "DOM0_AMBASSADOR"  # holds Settings as JSON
LARGEST = 256 * 1024  # characters of it
LONGEST_WAIT = 24 * 3600.0  # seconds
_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})(/tcp|/udp)?", re.ASCII)
_MOST_TOLD = 20  # flaws in one message


class _Choice(msgspec.Struct, frozen=True, tag_field="policy"):
    pass


class Keep(_Choice, frozen=True, tag="keep"):
    """Old connections go on until they end."""

    def __str__(self) -> str:
        return "keep"


class Cut(_Choice, frozen=True, tag="cut"):
    def __str__(self) -> str:
        return "cut"


class DrainFor(_Choice, frozen=True, tag="drain"):
    """They have `seconds` to end."""

    seconds: float

    def __str__(self) -> str:
        return f"drain={self.seconds:g}s"


Policy = Keep | Cut | DrainFor


class Last(_Choice, frozen=True, tag="last"):
    """New connections are sent to the target although it looks down."""


class Refuse(_Choice, frozen=True, tag="refuse"):
    pass


class Hold(_Choice, frozen=True, tag="hold"):
    """They wait, for `seconds` after the target went down; then they are refused. 0: for as long as it takes."""

    seconds: float = 0.0


WhenDown = Last | Refuse | Hold


class Probing(msgspec.Struct, frozen=True):
    interval: float
    timeout: float
    fall: int
    rise: int


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    listener: Listener
    sources: tuple[Source, ...]
    existing: Policy = Keep()
    udp: Udp = "move"
    down: WhenDown = Last()
    health: Probing | None = None


class MetricsAddress(msgspec.Struct, frozen=True):
    """`address` empty: every address."""

    address: str
    port: int


class Declaration(msgspec.Struct, frozen=True):
    """`rules` in the order of their listeners, each listener once. `plaintext`: those that lead to other nodes by the
    network as it is.
    """

    rules: tuple[Rule, ...] = ()
    metrics: MetricsAddress | None = None
    shortcut: bool = True
    plaintext: frozenset[Listener] = frozenset()

    @property
    def listeners(self) -> frozenset[Listener]:
        return frozenset(rule.listener for rule in self.rules)

    def rule(self, listener: Listener) -> Rule | None:
        return next((rule for rule in self.rules if rule.listener == listener), None)

    @property
    def digest(self) -> str:
        """Of all that decides where connections go, and may by a rewire. Where there was no such word before it is the
        same as then.
        """
        said = (self.rules, sorted(self.plaintext)) if self.plaintext else self.rules
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


class Misdeclared(ProjectError):
    """`flaws` with their places, below `place`."""

    def __init__(self, place: str, flaws: Iterable[Flaw]) -> None:
        self.flaws = tuple(flaws)
        lines = [": ".join(filter(None, (place, ".".join(it.steps), it.what))) for it in self.flaws]
        if len(lines) > _MOST_TOLD:
            lines[_MOST_TOLD:] = [f"and {len(lines) - _MOST_TOLD} more"]
        hints = dict.fromkeys(it.hint for it in self.flaws[:_MOST_TOLD] if it.hint)
        super().__init__("\n".join(map(excerpt, lines)), hint="\n".join(map(excerpt, hints)))


def from_environment(environ: Mapping[str, str]) -> tuple[Declaration, tuple[str, ...]]:
    """The declaration, and the variables that look like link variables and are ignored. Raises ProjectError."""
    found = links(environ)
    if found.flaws:
        raise Misdeclared("", found.flaws)
    declared = declare(read_settings(environ[VARIABLE]), place=VARIABLE) if environ.get(VARIABLE) else Declaration()
    taken = declared.listeners
    twice = [link for link in found.found if link.listener in taken]
    flaws = [Flaw((link.variable,), f"{VARIABLE} says already where {link.listener} goes") for link in twice]
    rules = (*declared.rules, *(Rule(listener=link.listener, sources=(link.source,)) for link in found.found))
    if not flaws and len(rules) > MOST_ROUTES:
        flaws.append(Flaw((), f"{len(rules)} listeners are more than {MOST_ROUTES}"))
    if flaws:
        raise Misdeclared("", flaws)
    if not rules:
        hint = f"set {LOOKED_FOR},\nor {VARIABLE} to the settings as JSON: docs/ambassador.md"
        raise ProjectError("ambassador: no listener is declared, so there is nothing to forward", hint=hint)
    ordered = tuple(sorted(rules, key=lambda rule: rule.listener))
    return msgspec.structs.replace(declared, rules=ordered), tuple(found.ignored)


def read_settings(text: str) -> Settings:
    """From VARIABLE. Raises Misdeclared."""
    if len(text) > LARGEST:
        raise Misdeclared(VARIABLE, [Flaw((), f"{len(text)} characters are more than {LARGEST}")])
    try:
        return msgspec.json.decode(text.encode(errors="surrogateescape"), type=Settings)
    except msgspec.ValidationError as error:
        raise Misdeclared(VARIABLE, [flaw(error, Settings)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misdeclared(VARIABLE, [Flaw((), f"is not JSON: {error}")]) from error


def declare(settings: Settings, *, place: str = "") -> Declaration:
    """Raises Misdeclared; its flaws' steps lead from `settings` on."""
    flaws: list[Flaw] = []
    rules: dict[Listener, Rule] = {}
    plaintext: set[Listener] = set()
    for key, listen in settings.listen.items():
        try:
            made = {rule.listener: rule for rule in _rules(key, listen)}
        except _Wrong as wrong:
            flaws.append(Flaw(("listen", key, *wrong.steps), wrong.what, wrong.hint))
            continue
        if twice := made.keys() & rules.keys():
            flaws.append(Flaw(("listen", key), f"{min(twice)} is listed twice"))
        rules |= made
        plaintext |= made.keys() if listen.plaintext else set()
    metrics = None
    try:
        metrics = _endpoint(str(settings.metrics), rules) if settings.metrics != "" else None
    except ValueError as error:
        flaws.append(Flaw(("metrics",), str(error), "such as 9180 or 127.0.0.1:9180"))
    if not flaws and len(rules) > MOST_ROUTES:
        flaws.append(Flaw(("listen",), f"{len(rules)} listeners are more than {MOST_ROUTES}"))
    if flaws:
        raise Misdeclared(place, flaws)
    in_order = tuple(rules[listener] for listener in sorted(rules))
    return Declaration(in_order, metrics, settings.shortcut, frozenset(plaintext))


class _Wrong(Exception):
    """A Flaw below a key of `listen`."""

    def __init__(self, steps: tuple[str, ...], what: str, hint: str = "") -> None:
        super().__init__(what)
        self.steps, self.what, self.hint = steps, what, hint


def _at(steps: tuple[str, ...], parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `parse` returns. Raises _Wrong with `steps` where it raises ValueError."""
    try:
        return parse(*args, **kwargs)
    except ValueError as error:
        raise _Wrong(steps, str(error)) from None


def _rules(key: str, listen: Listen) -> Iterator[Rule]:
    listeners = _at((), parse_listeners, key)
    template = Rule(
        listener=listeners[0],
        sources=tuple(_sources(listen, listeners[0])),
        existing=_at(("existing",), parse_policy, listen.existing),
        udp=listen.udp,
        down=_at(("down",), parse_down, listen.down),
        health=_probing(listen.health, listeners[0]) if listen.health else None,
    )
    for number, listener in enumerate(listeners):
        to = tuple(_at(("to",), sources.shifted, source, number) for source in template.sources)
        yield msgspec.structs.replace(template, listener=listener, sources=to)


def parse_listeners(text: str) -> tuple[Listener, ...]:
    """One, or a range. Raises ValueError."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return (parse_listener(text),)
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{text} is not a range of ports: 7000-7005")
    if last - first >= MOST_ROUTES:
        raise ValueError(f"{text} are more than {MOST_ROUTES} listeners")
    protocol = Protocol((match[3] or "/tcp")[1:])
    return tuple(Listener(protocol, port) for port in range(first, last + 1))


def _sources(listen: Listen, listener: Listener) -> Iterator[Source]:
    if not 1 <= len(listen.to) <= MOST_TARGETS:
        raise _Wrong(("to",), f"{len(listen.to)} targets: 1 to {MOST_TARGETS} are possible", "to: [HOST:PORT]")
    seen: set[str] = set()
    for number, entry in enumerate(listen.to):
        text, weight = (entry, 1) if isinstance(entry, str) else (entry.target, entry.weight)
        source = _at(("to", str(number)), sources.parse, text, weight=weight)
        if str(source) in seen:
            raise _Wrong(("to", str(number)), f"{source} is listed twice")
        seen.add(str(source))
        if wrong := find_far_flaw(source, listener, plaintext=listen.plaintext):
            raise _Wrong(("to", str(number)), wrong.what, wrong.hint)
        yield by_its_way(source, plaintext=listen.plaintext)


def find_far_flaw(source: Source, listener: Listener, *, plaintext: bool) -> Flaw | None:
    """Why it may not lead to another node, where it does."""
    if not isinstance(source, Followed) or not source.is_far:
        return None
    if listener.protocol is not Protocol.TCP:
        hint = "for UDP name ADDRESS:PORT at which it is published there; nothing is encrypted on the way"
        return Flaw((), f"{source}: to another node goes TCP alone", hint)
    if source.in_plaintext == source and not plaintext:
        what = f"{source}: nothing would be encrypted on the way; who is on that network could read and change it"
        return Flaw((), what, "where that may be say so beside `to`: plaintext: true")
    return None


def by_its_way(source: Source, *, plaintext: bool) -> Source:
    """As the listener leads there, if that is on another node."""
    return source.in_plaintext if plaintext and isinstance(source, Followed) else source


def parse_policy(text: str) -> Policy:
    """`keep`, `cut`, `drain=30s`. Raises ValueError."""
    plain: dict[str, Policy] = {"keep": Keep(), "cut": Cut()}
    return _parse_choice(text, plain, "drain", DrainFor)


def parse_down(text: str) -> WhenDown:
    """`last`, `refuse`, `hold`, `hold=30s`. Raises ValueError."""
    plain: dict[str, WhenDown] = {"last": Last(), "refuse": Refuse(), "hold": Hold()}
    return _parse_choice(text, plain, "hold", Hold)


def _parse_choice(text: str, plain: Mapping[str, T], timed: str, make: Callable[[float], T]) -> T:
    """One of `plain`, or `timed` with a duration."""
    if text in plain:
        return plain[text]
    word, _, duration = text.partition("=")
    if word != timed or not duration:
        raise ValueError(f"'{excerpt(text[:50])}' is not one of {', '.join(plain)}, {timed}=DURATION")
    return make(parse_wait(duration))


def parse_wait(text: str) -> float:
    """Seconds, more than 0 and at most a day. Raises ValueError."""
    try:
        found = seconds(text)
    except ValueError:
        raise ValueError(f"'{excerpt(text[:50])}' is not a duration, such as 500ms or 30s") from None
    if not 0 < found <= LONGEST_WAIT:
        raise ValueError(f"{text} is out of range: more than 0s, at most {LONGEST_WAIT / 3600:g}h")
    return found


def _probing(health: HealthSettings, listener: Listener) -> Probing:
    if listener.protocol is Protocol.UDP:
        raise _Wrong(("health",), "only a TCP target can be asked whether it is up", "leave health out")
    interval = _at(("health", "interval"), parse_wait, health.interval)
    timeout = _at(("health", "timeout"), parse_wait, health.timeout)
    if interval < 0.1:
        raise _Wrong(("health", "interval"), f"{health.interval} is too often: 100ms or more")
    for name in ("fall", "rise"):
        if not 1 <= getattr(health, name) <= 100:
            raise _Wrong(("health", name), f"{getattr(health, name)} is out of range: 1 to 100")
    return Probing(interval, timeout, health.fall, health.rise)


def _endpoint(text: str, taken: Container[Listener]) -> MetricsAddress:
    host, colon, port = text.rpartition(":")
    address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))) if colon else ""
    number = sources.parse_port(port)
    if Listener(Protocol.TCP, number) in taken:
        raise ValueError(f"{number} is a listener already")
    return MetricsAddress(address, number)
