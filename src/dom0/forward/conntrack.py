"""conntrack: the command that lists connections, its output parsed, and the file that restores them. Pure.

`conntrack -o save` (1.4.8) leaves the marks out, so the file is written from the list. The kernel keeps everything
else that translation needs; sequence numbers it learns from the next segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

import msgspec

from dom0.forward.dataplane import Flow
from dom0.forward.table import Protocol, Target

_ENDED = (" TIME_WAIT src=", " CLOSE src=")  # the kernel's memory of connections that have ended
_PROTOCOLS = {str(protocol) for protocol in Protocol}


class ConntrackEntry(msgspec.Struct, frozen=True):
    flow: Flow
    replied: bool
    assured: bool


def list_command(generations: Collection[int] | None) -> list[str]:
    """Both families. With one generation the kernel filters, with several `entries` does."""
    mark = [f"--mark={next(iter(generations)):d}"] if generations is not None and len(generations) == 1 else []
    return ["conntrack", "-L", "-o", "extended,id", *mark]


def entries(printed: str, generations: Collection[int] | None = None) -> list[ConntrackEntry]:
    """Connections with a mark in what was printed, without ended ones. Raises ValueError for an unreadable line.

    After a minute of many short connections nearly all lines are of ended ones: they are not even parsed.
    """
    wanted = None if generations is None else frozenset(generations)
    lines = (line for line in printed.splitlines() if not any(words in line for words in _ENDED))
    found = (entry for line in lines if (entry := _entry(line)))
    return [entry for entry in found if wanted is None or entry.flow.generation in wanted]


def saved(kept: Iterable[ConntrackEntry]) -> str:
    """The file for `conntrack -R`. `-g` and `-n` make the kernel translate; `-r` and `-q` with the same addresses would
    not.
    """
    lines = []
    for entry in kept:
        flow = entry.flow
        seen = [word for word, is_so in (("SEEN_REPLY", entry.replied), ("ASSURED", entry.assured)) if is_so]
        state = f" --state {flow.state}" if flow.state else ""
        source = f"-q {flow.near.address}" if flow.near == flow.client else f"-n {flow.near}"
        lines.append(
            f"-A -t {flow.expires} -u {','.join(seen) or 'UNSET'}"
            f" -s {flow.client.address} -d {flow.listener.address} -g {flow.target} {source}"
            f" -p {flow.protocol} --sport {flow.client.port} --dport {flow.listener.port}"
            f" --reply-port-src {flow.target.port} --reply-port-dst {flow.near.port}{state} -m {flow.generation}\n"
        )
    return "".join(lines)


def _entry(line: str) -> ConntrackEntry | None:
    """`ipv4 2 tcp 6 86398 ESTABLISHED src=… dst=… sport=… dport=… [packets=… bytes=…] src=… mark=7 use=1 id=9`.

    None for what is never ours: a connection without a mark, ICMP and the like.
    """
    words = line.split()
    values = defaultdict[str, list[str]](list)  # by key: the original direction's, the reply's; flags have no value
    for word in words[4:]:
        key, _, value = word.partition("=")
        values[key].append(value)
    try:
        if words[2] not in _PROTOCOLS or values["mark"] in ([], ["0"]):
            return None
        client, target = map(Target, values["src"], map(int, values["sport"]))
        listener, near = map(Target, values["dst"], map(int, values["dport"]))
        sent, received = map(int, values["bytes"] or ("0", "0"))
        flow = Flow(
            protocol=Protocol(words[2]),
            generation=int(values["mark"][0]),
            client=client,
            listener=listener,
            near=near,
            target=target,
            state=next((word for word in words[4:] if word.isupper() and not word.startswith("[")), ""),
            sent=sent,
            received=received,
            number=int(values["id"][0]),
            expires=int(words[4]) if words[4].isdecimal() else 0,  # an offloaded one has none
        )
    except (IndexError, ValueError) as error:
        raise ValueError(f"conntrack printed {line!r}") from error
    return ConntrackEntry(flow, "[UNREPLIED]" not in values, "[ASSURED]" in values)
