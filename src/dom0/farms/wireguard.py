"""The tunnel of this node, set up in the kernel: the interface by rtnetlink, WireGuard by `wg`, rules by `nft`.

All that is set is set whole and again, so it does not matter where a process was killed. The interface is ours if it
has our key, or none yet; any other one of its name is left as it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path

from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.farms import tunnel
from dom0.farms.tunnel import INTERFACE, NETWORK, Entrance, Peer, TunnelState
from dom0.forward.netlink import NESTED, acknowledgements, attribute, message
from dom0.run import CommandFailed, capture

KEY = "farm-wireguard.key"
AGAIN = 30.0  # seconds until it is set again, though nothing has changed
WITHIN = 10.0  # seconds for a command
# <linux/rtnetlink.h>, <linux/netlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <linux/if.h>
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR = 16, 17, 20
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP = 0x1


class NoTunnel(Dom0Error):
    """It cannot be here; the message says why."""


class Tunnel:
    """`state`: the directory of this node, where its private key stays."""

    def __init__(self, state: Path) -> None:
        self._key_file = state / KEY
        self._private = ""
        self._public = ""
        self._peers = frozenset[Peer]()  # as they were set last
        self._set: TunnelState | None = None
        self._set_at = 0.0

    @property
    def entrances(self) -> frozenset[Entrance]:
        """That are there."""
        return frozenset(entrance for _, entrance in self._set.forwards) if self._set else frozenset()

    async def open(self) -> str:
        """Return the public key; others can reach this node then. Raises NoTunnel, Unwritable."""
        try:
            if not self._public:
                self._private, self._public = await self._keys()
            if INTERFACE not in _interfaces():
                self._set, self._peers = None, frozenset()
                _make_link()
            if self._set is None:
                if not await self._is_ours():
                    raise NoTunnel(f"its interface {INTERFACE} is somebody else's: ip link delete {INTERFACE}")
                await _run(
                    ["wg", "set", INTERFACE, "private-key", str(self._key_file), "listen-port", f"{tunnel.PORT}"]
                )
                _address_and_up(IPv4Address(tunnel.address_of(self._public)))
        except (OSError, CommandFailed) as error:
            raise NoTunnel(_why(error)) from error
        return self._public

    async def set(self, wanted: TunnelState) -> None:
        """After `open`. Raises NoTunnel."""
        now = asyncio.get_running_loop().time()
        if wanted == self._set and now - self._set_at < AGAIN:
            return
        text = tunnel.configuration(self._private, wanted.peers, frozenset(wanted.peers) - self._peers)
        try:
            await _run(["nft", "-f", "-"], tunnel.rules(wanted.forwards))
            await _run(["wg", "syncconf", INTERFACE, "/dev/stdin"], text)
        except CommandFailed as error:
            self._set = None
            raise NoTunnel(_why(error)) from error
        self._set, self._set_at, self._peers = wanted, now, frozenset(wanted.peers)

    async def close(self) -> None:
        """Nothing of it is there then, but the key. Raises NoTunnel, Unwritable."""
        if not self._key_file.exists():  # there was none ever
            return
        try:
            if not self._public:
                self._private, self._public = await self._keys()
            if INTERFACE in _interfaces() and await self._is_ours():
                _ask(_RTM_DELLINK, _link(socket.if_nametoindex(INTERFACE)))
            await _run(["nft", "-f", "-"], tunnel.remove_rules())
        except (OSError, CommandFailed) as error:
            raise NoTunnel(_why(error)) from error
        self._set, self._peers = None, frozenset()

    async def _is_ours(self) -> bool:
        """Raises CommandFailed."""
        return await _run(["wg", "show", INTERFACE, "public-key"]) in (self._public, "(none)")

    async def _keys(self) -> tuple[str, str]:
        """Raises CommandFailed, OSError, Unwritable."""
        try:
            private = self._key_file.read_text()
            return private.strip(), await _run(["wg", "pubkey"], private)
        except (FileNotFoundError, UnicodeDecodeError, CommandFailed):  # there is none, or it is damaged
            private = await _run(["wg", "genkey"])
            write_atomic(self._key_file, private.encode() + b"\n")
            return private, await _run(["wg", "pubkey"], private)


def _why(error: OSError | CommandFailed) -> str:
    if isinstance(error, CommandFailed):
        return error.message
    if error.errno == errno.EOPNOTSUPP:
        return "its kernel has no WireGuard (the module wireguard)"
    if error.errno == errno.EADDRINUSE:
        return f"another program there has UDP port {tunnel.PORT}"
    return f"its interface {INTERFACE} cannot be set up: {error.strerror}"


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _make_link() -> None:
    """Raises OSError."""
    kind = attribute(_IFLA_INFO_KIND, b"wireguard")
    made = attribute(_IFLA_IFNAME, INTERFACE.encode() + b"\0") + attribute(_IFLA_LINKINFO | NESTED, kind)
    _ask(_RTM_NEWLINK, _link(0) + made, _CREATE | _EXCLUSIVE)


def _address_and_up(address: IPv4Address) -> None:
    """Raises OSError."""
    index = socket.if_nametoindex(INTERFACE)
    head = struct.pack("=BBBBI", socket.AF_INET, NETWORK.prefixlen, 0, 0, index)
    both = attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    _ask(_RTM_NEWADDR, head + both, _CREATE | _REPLACE)
    _ask(_RTM_NEWLINK, _link(index, _UP))


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _ask(kind: int, body: bytes, flags: int = 0) -> None:
    """Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(message(kind, body, flags=flags))
        ((_, code),) = acknowledgements(kernel.recv(65536))
    if code:
        raise OSError(code, os.strerror(code))


async def _run(argv: list[str], stdin: str = "") -> str:
    """What it printed. Raises CommandFailed."""
    return (await capture(argv, stdin=stdin.encode(), timeout=WITHIN)).stdout.strip()
