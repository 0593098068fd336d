"""What plan/host_checks has to know of the host: who listens on the ports that are asked for, which devices are there.

Where that cannot be read, nothing is reported, and the Engine refuses later. Changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from dom0.engine.values import PublishedPort
from dom0.forward import sockets
from dom0.forward.table import Protocol
from dom0.plan.attachments import overlapping
from dom0.plan.desired import Desired
from dom0.plan.host_checks import HostFacts, ListeningSocket, devices_of, new_ports

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 -- compared, not bound. "::" may leave IPv4 out: nobody can see that
_LISTENS = {Protocol.TCP: "LISTEN", Protocol.UDP: "CLOSE"}  # an unconnected UDP socket is in TCP_CLOSE


def look_at_host(desired: Desired, before: Desired | None, *, cpus: int, root: Path) -> HostFacts:
    """`root` is the host's root directory as we see it; our network namespace is the host's. Blocks."""
    wanted = new_ports(desired, before)
    listeners = tuple(_listeners(wanted)) if wanted else ()
    absent = set()
    for path in {path for slot in desired.slots for path in devices_of(slot)}:
        with contextlib.suppress(OSError):
            if not root.joinpath(path.lstrip("/")).exists() and root.joinpath("dev").is_dir():
                absent.add(path)
    return HostFacts(cpus, listeners, absent=frozenset(absent))


def _listeners(wanted: Sequence[PublishedPort]) -> Iterator[ListeningSocket]:
    """On those ports, with the programs that have the sockets."""
    ports: dict[int, PublishedPort] = {}  # by the inodes of sockets
    with contextlib.suppress(OSError):
        for inode, one in sockets.sockets(_LISTENS.values()).items():
            address = "" if one.local.address == EVERY_IPV4 else one.local.address
            port = PublishedPort(one.protocol.value, one.local.port, address)
            if one.state == _LISTENS[one.protocol] and overlapping([port], wanted):
                ports[inode] = port
    programs: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*") if ports else ():
        with contextlib.suppress(OSError):
            for inode in ports.keys() & set(sockets.inodes(int(process.name))):
                programs[inode] = f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return (ListeningSocket(port, programs.get(inode, "")) for inode, port in ports.items())
