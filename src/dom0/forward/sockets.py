"""The connected sockets of processes, as /proc tells them: what a relay's flows are read from. Changes nothing."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dom0.forward.table import Protocol, Target

# <net/tcp_states.h>; of UDP only connected ones are of interest, they print as ESTABLISHED
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


def sockets() -> dict[int, Socket]:
    """Those of our network namespace, by inode. Raises OSError."""
    found: dict[int, Socket] = {}
    for protocol in Protocol:
        for name in (protocol.value, f"{protocol}6"):
            path = Path("/proc/thread-self/net", name)
            if path.exists():  # a kernel may have no IPv6
                found |= parse(path.read_text(), protocol)
    return found


def parse(listed: str, protocol: Protocol) -> dict[int, Socket]:
    """From the text of /proc/net/tcp, tcp6, udp or udp6."""
    found = {}
    for line in listed.splitlines()[1:]:
        fields = line.split()
        if len(fields) < _FIELDS:
            continue
        found[int(fields[9])] = Socket(
            protocol=protocol,
            local=_end(fields[1]),
            remote=_end(fields[2]),
            state=_STATES.get(int(fields[3], 16), ""),
            queued=int(fields[4].partition(":")[2], 16),
        )
    return found


def inodes(pid: int) -> Iterator[int]:
    """Of the sockets that process `pid` has open; none if it has ended."""
    try:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            target = str(handle.readlink())
            if target.startswith("socket:["):
                yield int(target.removeprefix("socket:[").removesuffix("]"))
    except OSError:
        return


def _end(text: str) -> Target:
    """`0100007F:1F90`, or 32 digits: words of four bytes as the machine has them in memory. Mapped v4 becomes v4."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return Target(str(getattr(address, "ipv4_mapped", None) or address), int(port, 16))
