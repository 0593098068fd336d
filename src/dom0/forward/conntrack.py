"""conntrack: the command that lists connections, its output parsed, and the file that restores them. Pure.

`conntrack -o save` (1.4.8) leaves the marks out, so the file is written from the list. The kernel keeps everything
else that translation needs; sequence numbers it learns from the next segments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from dom0.forward.dataplane import Flow
from dom0.forward.table import Protocol, Target

_ENDED = (" TIME_WAIT src=", " CLOSE src=")  # the kernel's memory of connections that have ended
_TRANSLATED = 2  # occurrences of src=: original and reply
_UNREPLIED, _ASSURED = "[UNREPLIED]", "[ASSURED]"
_PROTOCOLS = {str(protocol) for protocol in Protocol}


class Entry(msgspec.Struct, frozen=True):
    flow: Flow
    replied: bool
    assured: bool


def list_command(generations: Collection[int] | None) -> list[str]:
    """Both families. With one generation the kernel filters, with several `entries` does."""
    mark = [f"--mark={next(iter(generations)):d}"] if generations is not None and len(generations) == 1 else []
    return ["conntrack", "-L", "-o", "extended,id", *mark]


def entries(printed: str, generations: Collection[int] | None = None) -> list[Entry]:
    """Connections with a mark in what was printed, without ended ones. Raises ValueError for an unreadable line.

    After a minute of many short connections nearly all lines are of ended ones: they are not even parsed.
    """
    wanted = None if generations is None else frozenset(generations)
    lines = (line for line in printed.splitlines() if not any(words in line for words in _ENDED))
    found = (entry for line in lines for entry in _entries(line))
    return [entry for entry in found if wanted is None or entry.flow.generation in wanted]


def saved(kept: Iterable[Entry]) -> str:
    """The file for `conntrack -R`."""
    return "".join(f"{_saved(entry)}\n" for entry in kept)


def _entries(line: str) -> Iterator[Entry]:
    """`ipv4 2 tcp 6 86398 ESTABLISHED src=… dst=… sport=… dport=… [packets=… bytes=…] src=… mark=7 use=1 id=9`."""
    words = line.split()
    if len(words) > _TRANSLATED and words[2] not in _PROTOCOLS:
        return  # ICMP and the like are never ours
    pairs, flags = _pairs(line, words[4:])
    if int(pairs[-1].get("mark", "0")) == 0:
        return
    if len(pairs) != _TRANSLATED:
        raise ValueError(f"conntrack printed {line!r}")
    try:
        yield _entry(words, flags, *pairs)
    except (KeyError, ValueError) as error:
        raise ValueError(f"conntrack printed {line!r}") from error


def _pairs(line: str, words: Iterable[str]) -> tuple[list[dict[str, str]], list[str]]:
    """The key=value words, a new dict from each `src` on; and all other words."""
    pairs: list[dict[str, str]] = []
    others = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            others.append(word)
            continue
        if key == "src":
            pairs.append({})
        if not pairs:
            raise ValueError(f"conntrack printed {line!r}")
        pairs[-1][key] = value
    if not pairs:
        raise ValueError(f"conntrack printed {line!r}")
    return pairs, others


def _entry(words: list[str], others: list[str], original: Mapping[str, str], reply: Mapping[str, str]) -> Entry:
    flow = Flow(
        protocol=Protocol(words[2]),
        generation=int(reply["mark"]),
        client=Target(original["src"], int(original["sport"])),
        listener=Target(original["dst"], int(original["dport"])),
        near=Target(reply["dst"], int(reply["dport"])),
        target=Target(reply["src"], int(reply["sport"])),
        state=next((word for word in others if word.isupper() and not word.startswith("[")), ""),
        sent=int(original.get("bytes", "0")),
        received=int(reply.get("bytes", "0")),
        number=int(reply["id"]),
        expires=int(words[4]) if words[4].isdecimal() else 0,  # an offloaded one has none
    )
    return Entry(flow, _UNREPLIED not in others, _ASSURED in others)


def _saved(entry: Entry) -> str:
    """`-g` and `-n` make the kernel translate; `-r` and `-q` with the same addresses would not."""
    flow = entry.flow
    seen = [word for word, is_so in (("SEEN_REPLY", entry.replied), ("ASSURED", entry.assured)) if is_so]
    state = f" --state {flow.state}" if flow.state else ""
    source = f"-q {flow.near.address}" if flow.near == flow.client else f"-n {flow.near}"
    return (
        f"-A -t {flow.expires} -u {','.join(seen) or 'UNSET'}"
        f" -s {flow.client.address} -d {flow.listener.address} -g {flow.target} {source}"
        f" -p {flow.protocol} --sport {flow.client.port} --dport {flow.listener.port}"
        f" --reply-port-src {flow.target.port} --reply-port-dst {flow.near.port}{state} -m {flow.generation}"
    )
