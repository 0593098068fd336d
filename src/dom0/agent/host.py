"""What plan/host_checks has to know of the host: who listens on the ports that are asked for, which devices are there.

Where that cannot be read, nothing is reported, and the Engine refuses later. Changes nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

from dom0.engine.values import PublishedPort
from dom0.plan.attachments import overlapping
from dom0.plan.desired import Desired
from dom0.plan.host_checks import Host, Listener, devices_of, new_ports

PROC = Path("/proc")
EVERY_IPV4 = "0.0.0.0"  # noqa: S104 -- compared, not bound. "::" may leave IPv4 out: nobody can see that
_LISTENS = {"tcp": "0A", "udp": "07"}  # <net/tcp_states.h>; an unconnected UDP socket is in TCP_CLOSE


def look_at_host(desired: Desired, before: Desired | None, *, cpus: int, root: Path) -> Host:
    """`root` is the host's root directory as we see it; our network namespace is the host's. Blocks."""
    wanted = new_ports(desired, before)
    found = [(port, inode) for port, inode in _sockets() if overlapping([port], wanted)] if wanted else []
    programs = _programs({inode for _, inode in found})
    listeners = tuple(Listener(port, programs.get(inode, "")) for port, inode in found)
    absent = set()
    for path in devices_of(desired):
        with contextlib.suppress(OSError):
            if not root.joinpath(path.lstrip("/")).exists() and root.joinpath("dev").is_dir():
                absent.add(path)
    return Host(cpus, listeners, absent=frozenset(absent))


def _sockets() -> Iterator[tuple[PublishedPort, str]]:
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "self" / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS[name[:3]]:
                    yield _port(name[:3], fields[1]), fields[9]


def _port(protocol: str, address: str) -> PublishedPort:
    """`0100007F:1F90`, the words of the address in the byte order of this machine."""
    words, _, port = address.partition(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    ip = ipaddress.ip_address(packed)
    text = str(getattr(ip, "ipv4_mapped", None) or ip)
    return PublishedPort(protocol, int(port, 16), "" if text == EVERY_IPV4 else text)


def _programs(inodes: set[str]) -> dict[str, str]:
    """Inode of a socket -> the program that has it."""
    found: dict[str, str] = {}
    if inodes:
        for process in PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    inode = str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")
                    if inode in inodes:
                        found[inode] = f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return found
