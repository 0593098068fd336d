"""Keeps neighbours from sending to a namespace without rules while an ambassador's container is replaced.

Theory of operation: between a new container's link coming up and its rules there are some 30 ms in which its kernel
would answer established connections with resets. So before the old one ends it tells all neighbours that its addresses
are at a MAC that nobody has (`park`): segments get lost, and lost segments are sent again. With rules and connections
in place the new one tells where it is (`announce`). A gratuitous ARP request and an unsolicited neighbour
advertisement change entries that neighbours have and make none.

What was seen (Linux 6.18): the entry changes at once, without `arp_accept`, and however fresh it is. A neighbour that
has something to send asks the absent MAC after five seconds, three times, then gives the entry up and asks everybody;
established connections went on after an absence of 16 s. While the old kernel still runs it answers whoever asks
everybody with the truth, so `park` is the last thing before the end.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from dom0.forward.interfaces import Interface, interfaces
from dom0.forward.place import Place
from dom0.forward.tcp_reset import checksum

NOBODY = bytes.fromhex("02646f6d3000")  # locally administered, "dom0"
_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ARP, _IPV6 = 0x0806, 0x86DD
_REQUEST = 1
_ADVERTISEMENT, _OVERRIDE, _TARGET_MAC = 136, 0x20000000, 2  # RFC 4861


def park(place: Place) -> None:
    """Raises OSError: EPERM without CAP_NET_RAW."""
    for interface in interfaces(place):
        _send(place, interface, NOBODY)


def announce(place: Place) -> None:
    """Announce our own MAC addresses. Raises OSError: EPERM without CAP_NET_RAW."""
    for interface in interfaces(place):
        _send(place, interface, interface.mac)


def _send(place: Place, interface: Interface, mac: bytes) -> None:
    with place.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((interface.name, 0))
        for address in map(ipaddress.ip_address, interface.addresses):
            if address.version == 6:
                option = struct.pack("!BB", _TARGET_MAC, 1) + mac
                message = struct.pack("!BBHL", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed + option
                pseudo = address.packed + _ALL_NODES.packed + struct.pack("!LL", len(message), socket.IPPROTO_ICMPV6)
                message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
                head = _ALL_NODES_MAC + interface.mac + struct.pack("!H", _IPV6)
                head += struct.pack("!LHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
                link.send(head + address.packed + _ALL_NODES.packed + message)
            else:
                head = _BROADCAST + interface.mac + struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, _REQUEST)
                link.send(head + mac + address.packed + bytes(6) + address.packed)
