"""A table as text for `nft -f`, and the table parsed from what `nft -j` lists. Pure.

Theory of operation: a verdict map leads from protocol and port to a chain of that listener, which marks the connection
with the generation and translates its destination. The mark and the target are of one generation for every packet: the
kernel runs a chain as it was when the packet came, while two lookups in two maps could fall before and after a change.
All hooks are of type nat, which see a connection's first packet only: packets of established connections pay nothing
for listeners that refuse or hold, nor for the drop of what would be routed through this namespace.

Several targets share by `numgen random mod SUM-OF-WEIGHTS`. One target is written without a map: the kernel needs
0.5 ms for each anonymous map, which 4,096 listeners would notice.

`replace` rewrites everything in one transaction, whatever was there. `update` changes the listeners that differ,
which never touches a hook nor the others, and costs as little with thousands of listeners as with one.

A packet in flight while a transaction comes into force runs the old chain, and finds nothing in its anonymous map,
whose elements are deleted by then (Linux 6.18: 9 of 129,000 connections refused by 4,600 changes). What a listener's
chain has not translated is dropped: the client sends its first packet again, where our own kernel would refuse it. A
consumer's goes to the ambassador instead.

The masquerade keeps the port where it can (no `fully-random`): only then does a connection whose conntrack entry was
lost go on when its client speaks next. It is for connections with a mark of ours: rules of others in the namespace,
such as Docker's for its name server, translate theirs in their own way.

In a consumer's namespace the hook is `output` and only what goes to the ambassador's addresses is meant, TCP only at
its SYN: a connection that began before the shortcut stays with the ambassador. A listener that refuses or holds is left
out there, so the ambassador does it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dom0.forward.dataplane import Flow
from dom0.forward.place import SHORTCUT_TABLE, Place
from dom0.forward.table import FAMILIES, Down, Family, Listener, Protocol, Route, Table, Target, table

_ADDRESS_TYPE = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_UNREACHABLE = {"ip": "icmp type port-unreachable", "ip6": "icmpv6 type port-unreachable"}
_ENDING_SECONDS = 10  # a cut connection's remains are refused so long, should nobody take the rule away
_STANDING_CHAINS = {"refuse", "forwarding", "returning"}


def replace(place: Place, wanted: Table) -> str:
    """Everything anew, whatever was there."""
    return "".join(f"{line}\n" for family in FAMILIES for line in _whole_family(place, family, wanted))


def update(place: Place, before: Table, after: Table) -> str:
    """From `before`, which is in force, to `after`."""
    lines: list[str] = []
    for family in FAMILIES:
        name = f"{family} {place.table}"
        old, new = _routes(place, family, before), _routes(place, family, after)
        if gone := [listener for listener in old if listener not in new]:
            lines.append(f"delete element {name} listeners {{ {', '.join(map(_key, gone))} }}")
            lines += [f"{verb} chain {name} {_chain(listener)}" for listener in gone for verb in ("flush", "delete")]
        for listener, route in new.items():
            if route != old.get(listener):
                chain = f"{name} {_chain(listener)}"
                lines.append(f"{'flush' if listener in old else 'add'} chain {chain}")
                lines += [f"add rule {chain} {rule}" for rule in _rules(place, route, family)]
        lines += _leads(name, [listener for listener in new if listener not in old])
    return "".join(f"{line}\n" for line in lines)


def remove(place: Place) -> str:
    """Everything that `replace` and `end` made."""
    return _without(place.table) + ended(place)


def end(place: Place, flows: Collection[Flow]) -> str:
    """Whatever either end still sends on `flows` reaches our own kernel untranslated, which resets it.

    Otherwise a segment that arrives after the conntrack entry is deleted would start a new one by the rules in force,
    and if they lead to the same target the connection would go on. Neither our segments nor the
    resets are tracked. What a consumer itself sends would leave the namespace: there it is answered by a rule.
    """
    lines = []
    for family in FAMILIES:
        name = f"{family} {_ending_table(place)}"
        types = f"{_ADDRESS_TYPE[family]} . inet_service . {_ADDRESS_TYPE[family]} . inet_service"
        from_end = f"{family} saddr . tcp sport . {family} daddr . tcp dport @ends"
        to_end = f"{family} daddr . tcp dport . {family} saddr . tcp sport @ends"
        lines += [
            f"add table {name}",
            f"add set {name} ends {{ type {types}; flags timeout; timeout {_ENDING_SECONDS}s; }}",
            f"add chain {name} arriving {{ type filter hook prerouting priority raw; }}",
            f"add rule {name} arriving {from_end} notrack",
            f"add chain {name} leaving {{ type filter hook output priority raw; }}",
            f"add rule {name} leaving {to_end} notrack",
        ]
        if place.is_consumer:
            lines.append(f"add rule {name} leaving {from_end} reject with tcp reset")
        ours = [flow for flow in flows if flow.protocol == Protocol.TCP and flow.client.family == family]
        if ours:
            both = [f"{_end(it.client)} . {_end(it.listener)}, {_end(it.target)} . {_end(it.near)}" for it in ours]
            lines.append(f"add element {name} ends {{ {', '.join(both)} }}")
    return ended(place) + "".join(f"{line}\n" for line in lines)


def ended(place: Place) -> str:
    """Removes what `end` made."""
    return _without(_ending_table(place))


def shortcuts(printed: str) -> frozenset[str]:
    """Names of the tables of shortcuts in what `nft -j list tables` printed."""
    names = {entry["table"]["name"] for entry in json.loads(printed)["nftables"] if "table" in entry}
    return frozenset(name for name in names if SHORTCUT_TABLE.fullmatch(name))


def silence(tables: Iterable[str]) -> str:
    """Empty their maps of listeners, so they forward nothing new."""
    return "".join(f"flush map {family} {table} listeners\n" for table in tables for family in FAMILIES)


def parse(printed: Iterable[str]) -> Table:
    """From what `nft -j list table` printed for each family. Raises ValueError for what `replace` did not make."""
    routes: dict[Listener, Route] = {}
    for document in printed:
        for route in _parse_family(json.loads(document)["nftables"]):
            other = routes.get(route.listener, route)
            if (other.generation, other.down) != (route.generation, route.down):
                raise ValueError(f"{route.listener}: the families differ")
            targets = () if other is route else other.targets
            routes[route.listener] = Route(route.listener, route.generation, targets + route.targets, route.down)
    return table(routes.values())


def _routes(place: Place, family: Family, wanted: Table) -> dict[Listener, Route]:
    """What of `wanted` the table of `family` holds; the targets of others are left out, so as to compare."""
    return {
        route.listener: Route(route.listener, route.generation, targets, route.down)
        for route in wanted.routes
        if ((targets := route.targets_of(family)) or not route.targets) and not (place.is_consumer and route.down)
    }


def _whole_family(place: Place, family: Family, wanted: Table) -> Iterator[str]:
    name = f"{family} {place.table}"
    routes = _routes(place, family, wanted)
    yield f"add table {name}"
    yield f"delete table {name}"
    yield f"add table {name}"
    yield f"add map {name} listeners {{ type inet_proto . inet_service : verdict; }}"
    if not place.is_consumer:
        yield f"add chain {name} refuse"
        yield f"add rule {name} refuse meta l4proto tcp reject with tcp reset"
        yield f"add rule {name} refuse reject with {_UNREACHABLE[family]}"
    for listener, route in routes.items():
        yield f"add chain {name} {_chain(listener)}"
        for rule in _rules(place, route, family):
            yield f"add rule {name} {_chain(listener)} {rule}"
    yield from _leads(name, routes)
    to_chain = "meta l4proto . th dport vmap @listeners"
    if not place.is_consumer:
        yield f"add chain {name} forwarding {{ type nat hook prerouting priority -100; }}"
        yield f"add rule {name} forwarding fib daddr type local {to_chain}"
        yield f"add rule {name} forwarding fib daddr type unicast drop"  # ip_forward is on, yet we are nobody's router
    else:
        yield f"add chain {name} forwarding {{ type nat hook output priority -100; }}"
        if addresses := ", ".join(address for address in place.addresses if (":" in address) == (family == "ip6")):
            to_us = f"{family} daddr {{ {addresses} }}"
            yield f"add rule {name} forwarding {to_us} tcp flags & (fin | syn | rst | ack) == syn {to_chain}"
            yield f"add rule {name} forwarding {to_us} meta l4proto udp {to_chain}"
    yield f"add chain {name} returning {{ type nat hook postrouting priority srcnat; }}"
    yield f"add rule {name} returning ct mark != 0 ct status dnat masquerade"


def _leads(table_name: str, listeners: Collection[Listener]) -> Iterator[str]:
    if listeners:
        elements = ", ".join(f"{_key(listener)} : goto {_chain(listener)}" for listener in listeners)
        yield f"add element {table_name} listeners {{ {elements} }}"


def _rules(place: Place, route: Route, family: Family) -> list[str]:
    before = {None: [], Down.REFUSE: ["goto refuse"], Down.HOLD: ["drop"]}[route.down]
    targets = route.targets_of(family)
    dnat = [f"meta l4proto {route.listener.protocol} dnat {family} to {_balance(targets)}"] if targets else []
    missed = ["drop"] if targets and not place.is_consumer else []
    return [*before, f"ct mark set {route.generation:d}", *dnat, *missed]


def _balance(targets: tuple[Target, ...]) -> str:
    if len(targets) == 1 and targets[0].weight == 1:
        return str(Target(_address(targets[0]), int(targets[0].port)))
    elements, first = [], 0
    for target in targets:
        last = first + target.weight - 1
        elements.append(f"{first:d}-{last:d} : {_end(target)}" if first < last else f"{first:d} : {_end(target)}")
        first = last + 1
    return f"numgen random mod {first:d} map {{ {', '.join(elements)} }}"


def _end(target: Target) -> str:
    return f"{_address(target)} . {target.port:d}"


def _address(target: Target) -> str:
    """Parsed and printed again, without a zone: only an address can come out. Raises ValueError."""
    parsed = ipaddress.ip_address(target.address)
    return str(type(parsed)(int(parsed)))


def _key(listener: Listener) -> str:
    return f"{Protocol(listener.protocol)} . {listener.port:d}"


def _chain(listener: Listener) -> str:
    return f"{Protocol(listener.protocol)}_{listener.port:d}"


def _without(table: str) -> str:
    """No error if it is not there."""
    return "".join(f"{verb} table {family} {table}\n" for family in FAMILIES for verb in ("add", "delete"))


def _ending_table(place: Place) -> str:
    return f"{place.table}_ending"


def _parse_family(entries: Iterable[Mapping[str, Any]]) -> Iterator[Route]:
    rules: dict[str, list[Any]] = {}
    elements: list[Any] = []
    for entry in entries:
        match entry:
            case {"chain": {"name": str(name)}}:
                rules[name] = []
            case {"rule": {"chain": str(name), "expr": list(expression)}}:
                rules[name].append(expression)
            case {"map": {"name": "listeners"} as listeners}:
                elements = listeners.get("elem", [])
            case {"metainfo": _} | {"table": _}:
                pass
            case _:
                raise ValueError(f"{entry}: is not ours")
    chains = rules.keys() - _STANDING_CHAINS
    for element in elements:
        match element:
            case [{"concat": [str(protocol), int(port)]}, {"goto": {"target": str(chain)}}] if chain in chains:
                chains.remove(chain)
                listener = Listener(Protocol(protocol), port)
                if chain != _chain(listener):
                    raise ValueError(f"{chain}: is not the chain of {listener}")
                yield _parse_chain(listener, rules[chain])
            case _:
                raise ValueError(f"{element}: is no element of ours")
    if chains:
        raise ValueError(f"{min(chains)}: no listener leads to the chain")


def _parse_chain(listener: Listener, rules: list[Any]) -> Route:
    down: Down | None = None
    match rules:
        case [[{"drop": None}], *rest]:
            down, rules = Down.HOLD, rest
        case [[{"goto": {"target": "refuse"}}], *rest]:
            down, rules = Down.REFUSE, rest
    match rules:
        case [[{"mangle": {"key": {"ct": {"key": "mark"}}, "value": int(generation)}}]] if down is not None:
            return Route(listener, generation, (), down)
        case [
            [{"mangle": {"key": {"ct": {"key": "mark"}}, "value": int(generation)}}],
            [{"match": {"left": {"meta": {"key": "l4proto"}}, "right": right}}, {"dnat": dnat}],
            *missed,
        ] if missed in ([], [[{"drop": None}]]) and right == listener.protocol:
            return Route(listener, generation, tuple(_parse_targets(dnat)), down)
    raise ValueError(f"{_chain(listener)}: is not as we write it")


def _parse_targets(dnat: Any) -> Iterator[Target]:
    match dnat:
        case {"addr": str(address), "port": int(port)}:
            yield Target(address, port)
        case {"addr": {"map": {"key": {"numgen": {"mode": "random"}}, "data": {"set": list(elements)}}}}:
            for element in elements:
                match element:
                    case [{"range": [int(first), int(last)]}, {"concat": [str(address), int(port)]}]:
                        yield Target(address, port, last - first + 1)
                    case [int(), {"concat": [str(address), int(port)]}]:
                        yield Target(address, port)
                    case _:
                        raise ValueError(f"{element}: is no target of ours")
        case _:
            raise ValueError(f"{dnat}: is no translation of ours")
