"""Deletes exactly the given conntrack entries, thousands at once, by netlink. Nothing else.

`conntrack -D` walks through the whole table for each request. Here an entry is looked up by its tuple, and its ID must
be the one that was listed: a new connection with the same tuple is not touched, unless the kernel reused the memory
address that the ID is made from.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence

from dom0.forward.dataplane import Flow
from dom0.forward.netlink import NESTED, acknowledgements, attribute, message
from dom0.forward.place import Place
from dom0.forward.table import Protocol

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>, <linux/netfilter/nfnetlink_conntrack.h>
_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_TUPLE_ORIGINAL, _ID = 1, 12
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; the destination's number is the next
_PROTO_NUMBER, _PROTO_SOURCE, _PROTO_DESTINATION = 1, 2, 3
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
_BATCH = 64  # messages a send; their answers fit any socket's buffer
_ANSWER_SECONDS = 5.0  # the kernel answers within the send; an answer that was lost must not hang us


def delete(place: Place, doomed: Sequence[Flow]) -> list[Flow]:
    """Delete the entries of flows; returns those that were still there. Raises OSError: EPERM without CAP_NET_ADMIN."""
    with place.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
        there: list[Flow] = []
        for start in range(0, len(doomed), _BATCH):
            batch = doomed[start : start + _BATCH]
            kernel.send(b"".join(_deletion(number, flow) for number, flow in enumerate(batch)))
            codes: dict[int, int] = {}
            while len(codes) < len(batch):
                codes |= acknowledgements(kernel.recv(65536))
            for number, flow in enumerate(batch):
                if codes[number] not in (0, errno.ENOENT):
                    raise OSError(codes[number], f"conntrack: {os.strerror(codes[number])}")
                if codes[number] == 0:
                    there.append(flow)
        return there


def _deletion(number: int, flow: Flow) -> bytes:
    client, listener = flow.client, flow.listener
    source, destination = ipaddress.ip_address(client.address), ipaddress.ip_address(listener.address)
    addresses = _IP_SOURCE[source.version]
    ip = attribute(addresses, source.packed) + attribute(addresses + 1, destination.packed)
    protocol = (
        attribute(_PROTO_NUMBER, bytes([_PROTOCOL[flow.protocol]]))
        + attribute(_PROTO_SOURCE, client.port.to_bytes(2, "big"))
        + attribute(_PROTO_DESTINATION, listener.port.to_bytes(2, "big"))
    )
    original = attribute(_TUPLE_IP | NESTED, ip) + attribute(_TUPLE_PROTO | NESTED, protocol)
    generic = bytes([_FAMILY[source.version], 0, 0, 0])  # family, version, resource
    body = generic + attribute(_TUPLE_ORIGINAL | NESTED, original)
    if flow.number:
        body += attribute(_ID, flow.number.to_bytes(4, "big"))
    return message(_DELETE, body, number)
