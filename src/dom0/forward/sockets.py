"""The sockets of processes, as /proc tells them: a relay's flows, and who listens on the host. Changes nothing."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from dom0.forward.table import Protocol, Target

# <net/tcp_states.h>; a UDP socket prints as ESTABLISHED if it is connected, else as CLOSE
_NAMES = "ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING"
_STATES = dict(enumerate(_NAMES.split(), 1))
_FIELDS = 10  # of a line, up to the inode


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """An end that was never connected has port 0 as `remote`."""

    protocol: Protocol
    local: Target
    remote: Target
    state: str
    queued: int = 0  # what waits to be read: connections of one that listens, bytes of others


def sockets(states: Collection[str] = ()) -> dict[int, Socket]:
    """Those of our network namespace, by inode; with `states` only those in one of them. Raises OSError."""
    found: dict[int, Socket] = {}
    for protocol in Protocol:
        for name in (protocol.value, f"{protocol}6"):
            path = Path("/proc/thread-self/net", name)
            if path.exists():  # a kernel may have no IPv6
                found |= parse(path.read_text(), protocol, states)
    return found


def parse(listed: str, protocol: Protocol, states: Collection[str] = ()) -> dict[int, Socket]:
    """From the text of /proc/net/tcp, tcp6, udp or udp6."""
    found = {}
    for line in listed.splitlines()[1:]:
        fields = line.split()
        if len(fields) < _FIELDS:
            continue
        state = _STATES.get(int(fields[3], 16), "")
        if states and state not in states:
            continue
        found[int(fields[9])] = Socket(
            protocol=protocol,
            local=_end(fields[1]),
            remote=_end(fields[2]),
            state=state,
            queued=int(fields[4].partition(":")[2], 16),
        )
    return found


def inodes(pid: int) -> Iterator[int]:
    """Of the sockets that process `pid` has open; none if it has ended."""
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile, as the one that this list was read from
                target = str(handle.readlink())
                if target.startswith("socket:["):
                    yield int(target.removeprefix("socket:[").removesuffix("]"))


def _end(text: str) -> Target:
    """`0100007F:1F90`, or 32 digits: words of four bytes as the machine has them in memory. Mapped v4 becomes v4."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return Target(str(getattr(address, "ipv4_mapped", None) or address), int(port, 16))
