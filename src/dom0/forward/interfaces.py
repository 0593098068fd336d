"""The interfaces of a network namespace: enables forwarding on them, and lists their addresses.

Needs CAP_NET_ADMIN only. /proc/sys is read-only in a container, but the per-interface settings of IPv4 can also be
changed through rtnetlink, and `forwarding` of the interface that a packet comes in by is what counts; so an ambassador
needs no `--sysctl` for IPv4. IPv6 has no such way: `--sysctl net.ipv6.conf.all.forwarding=1`.

Where packets leave by the interface they came in by, Linux sends ICMP redirects, as long as
`net.ipv4.conf.all.send_redirects` or the interface's own setting says so. Hosts do not follow them to an address on
their own link, but they count against the limit of ICMP errors to that host: an unreachable for a refused UDP datagram
can be left out for a second. `--sysctl net.ipv4.conf.all.send_redirects=0` and what is done here end that.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dom0.forward.netlink import NESTED, acknowledgements, attribute, message
from dom0.forward.place import Place

# <linux/rtnetlink.h>, <linux/if_link.h>, <linux/ip.h>, <linux/sockios.h>, <linux/if.h>
_RTM_SETLINK = 19
_IFLA_AF_SPEC, _IFLA_INET_CONF = 26, 1
_FORWARDING, _SEND_REDIRECTS = 1, 6  # IPV4_DEVCONF_…
_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFHWADDR = 0x8913, 0x8915, 0x8927
_SIOCETHTOOL, _GDRVINFO = 0x8946, 0x3
_DRIVER_INFO = struct.Struct("4x32s32x32x32s64x")  # <linux/ethtool.h>: driver, bus; versions and counts left out
_UP, _LOOPBACK, _NOARP = 0x1, 0x8, 0x80
_LINK_LOCAL = "fe80"


class Interface(msgspec.Struct, frozen=True):
    """One that is up and whose neighbours ask for MAC addresses. `addresses` of both families, not link-local."""

    name: str
    mac: bytes
    addresses: tuple[str, ...]


def let_through(place: Place) -> None:
    """Forward IPv4 from every interface, and send no redirects. Raises OSError: EPERM without CAP_NET_ADMIN."""
    with place.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        settings = attribute(_FORWARDING, struct.pack("=I", 1)) + attribute(_SEND_REDIRECTS, struct.pack("=I", 0))
        inet = attribute(socket.AF_INET | NESTED, attribute(_IFLA_INET_CONF | NESTED, settings))
        for index, _ in place.call(socket.if_nameindex):
            head = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
            kernel.send(message(_RTM_SETLINK, head + attribute(_IFLA_AF_SPEC | NESTED, inet)))
            ((_, code),) = acknowledgements(kernel.recv(4096))
            if code not in (0, errno.EAFNOSUPPORT):  # an interface without IPv4
                raise OSError(code, f"interface {index}: {os.strerror(code)}")


def is_of_a_host(place: Place) -> bool:
    """Whether hardware or a bridge is here, as with `docker run --network host`: our rules would be for all of it."""
    return place.call(lambda: any(_is_hardware_or_bridge(name) for _, name in socket.if_nameindex()))


def _is_hardware_or_bridge(name: str) -> bool:
    asked = ctypes.create_string_buffer(struct.pack("=I", _GDRVINFO), _DRIVER_INFO.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(asked)))
        except OSError:  # the loopback has no driver
            return False
    driver, bus = (text.rstrip(b"\0") for text in _DRIVER_INFO.unpack(asked.raw))
    return driver == b"bridge" or bus not in (b"", b"N/A")


def interfaces(place: Place) -> tuple[Interface, ...]:
    return place.call(lambda: tuple(_interfaces()))


def _interfaces() -> Iterator[Interface]:
    v6: dict[int, list[str]] = {}
    table = Path("/proc/thread-self/net/if_inet6")  # another thread's namespace is another file
    for line in table.read_text().splitlines() if table.exists() else ():
        address, number, *_ = line.split()
        if not address.startswith(_LINK_LOCAL):
            v6.setdefault(int(number, 16), []).append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for index, name in socket.if_nameindex():
            asked = struct.pack("16s24x", name.encode())
            flags = struct.unpack_from("=H", fcntl.ioctl(asking, _SIOCGIFFLAGS, asked), 16)[0]
            if flags & (_UP | _LOOPBACK | _NOARP) != _UP:
                continue
            mac, addresses = fcntl.ioctl(asking, _SIOCGIFHWADDR, asked)[18:24], v6.get(index, [])
            try:  # the first IPv4 address, which Docker gives and which masquerading takes
                addresses.insert(0, socket.inet_ntoa(fcntl.ioctl(asking, _SIOCGIFADDR, asked)[20:24]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
            yield Interface(name, mac, tuple(addresses))
