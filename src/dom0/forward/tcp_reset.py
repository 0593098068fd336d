"""Makes both ends of a connection that is deleted from conntrack be reset now, also if they are silent.

Theory of operation: TCP answers a SYN within a connection with an ACK of its true sequence numbers (RFC 5961,
"challenge ACK"). Our kernel has no connection for that ACK and answers it with a reset, which has those numbers. So one
segment with arbitrary numbers to each end, with the other's address as source, is enough. An end that has no such
connection any more sends a reset, so every end that is alive answers; those that did not are sent another one.
`nft.end` makes sure that the answer reaches our kernel, whatever the rules in force would do with it.

Which segments: conntrack of other hosts may be in between (published ports, a second ambassador), and drops what is out
of the window or leaves it untranslated. It passes a SYN in the direction of the connection, so that goes to the target,
and a SYN-ACK in the other direction, to the client.

What was seen (Linux 6.18): it works with `nf_conntrack_tcp_loose` 0 and 1. `net.ipv4.tcp_challenge_ack_limit` is
unlimited by default, but one socket answers one such segment in `net.ipv4.tcp_invalid_ratelimit` (500 ms), hence the
pause between rounds. A rule that drops invalid packets on their way in would break it.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice

import msgspec

from dom0.forward.dataplane import Flow
from dom0.forward.place import Place
from dom0.forward.table import Protocol, Target

_ROUNDS = 4
_ROUND_SECONDS = 0.6  # longer than tcp_invalid_ratelimit
_BATCH = 32  # segments between two looks at the answers
_BUFFER = 4 << 20
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_HOPS = 64
_IPV6_HDRINCL = 36  # <linux/in6.h>
_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
_Ends = tuple[str, int, str, int]  # from address and port, to address and port


class Segment(msgspec.Struct, frozen=True):
    """A TCP segment with `flags`, without data, with the source address of the connection's other end."""

    source: Target
    to: Target
    flags: int

    @property
    def key(self) -> _Ends:
        return self.source.address, self.source.port, self.to.address, self.to.port


def reset(place: Place, flows: Iterable[Flow]) -> list[Segment]:
    """Have both ends of TCP `flows` reset, whose conntrack entries are deleted; returns what was never answered.

    Takes some seconds if an end does not answer. Raises OSError: EPERM without CAP_NET_RAW.
    """
    tcp = [flow for flow in flows if flow.protocol is Protocol.TCP]
    segments = [Segment(flow.listener, flow.client, _SYN | _ACK) for flow in tcp]
    segments += [Segment(flow.near, flow.target, _SYN) for flow in tcp]
    waiting = {one.key: one for one in segments}
    with ExitStack() as open_sockets:
        sockets = {}
        answers = open_sockets.enter_context(selectors.DefaultSelector())
        for family in {_family(one.to) for one in segments}:
            sockets[family] = open_sockets.enter_context(_socket(place, family))
            answers.register(sockets[family], selectors.EVENT_READ)
        for _ in range(_ROUNDS):
            until = time.monotonic() + _ROUND_SECONDS
            todo = iter(list(waiting.values()))
            while batch := list(islice(todo, _BATCH)):
                for one in batch:
                    with contextlib.suppress(OSError):  # no route to it, or a full queue: it has not answered
                        sockets[_family(one.to)].sendto(packet(one), (one.to.address, 0))
                _note_answers(answers, waiting, 0.0)
            while waiting and (left := until - time.monotonic()) > 0:
                _note_answers(answers, waiting, left)
            if not waiting:
                break
    return list(waiting.values())


def _socket(place: Place, family: socket.AddressFamily) -> socket.socket:
    raw = place.open_socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.setblocking(False)
    if family == socket.AF_INET6:
        raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # no CAP_NET_ADMIN; what does not fit is asked again
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return raw


def _note_answers(answers: selectors.BaseSelector, waiting: dict[_Ends, Segment], patience: float) -> None:
    """Take whoever answered out of `waiting`; wait for the first answer at most `patience` seconds."""
    for key, _ in answers.select(patience):
        assert isinstance(key.fileobj, socket.socket)
        for ends, flags in _received(key.fileobj):
            waiting.pop((ends[2], ends[3], ends[0], ends[1]), None)
            if flags & _RST:  # of our own kernel to the end in this namespace
                waiting.pop(ends, None)


def _received(raw: socket.socket) -> Iterator[tuple[_Ends, int]]:
    """Ends and flags of the segments that wait. IPv6 hands over no header; the address they came to is beside them."""
    while True:
        try:
            data, beside, _, sender = raw.recvmsg(128, 64)
        except BlockingIOError:
            return
        start, to = 0, b"".join(value[:16] for _, kind, value in beside if kind == socket.IPV6_PKTINFO)
        if raw.family == socket.AF_INET:
            start, to = (data[0] & 0xF) * 4, data[16:20]
        source_port, port = struct.unpack_from("!HH", data, start)
        yield (sender[0], source_port, socket.inet_ntop(raw.family, to), port), data[start + 13]


def packet(one: Segment) -> bytes:
    """The whole IP packet; the kernel fills in IPv4's checksum and length."""
    family = _family(one.to)
    ends = socket.inet_pton(family, one.source.address) + socket.inet_pton(family, one.to.address)
    ports, numbers = struct.pack("!HH", one.source.port, one.to.port), secrets.token_bytes(8)
    tcp = ports + numbers + struct.pack("!BBHHH", 5 << 4, one.flags, 1024, 0, 0)
    pseudo = ends + struct.pack("!LL", len(tcp), socket.IPPROTO_TCP)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if family == socket.AF_INET:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, _HOPS, socket.IPPROTO_TCP, 0)
    else:
        head = struct.pack("!LHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, _HOPS)
    return head + ends + tcp


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _family(target: Target) -> socket.AddressFamily:
    return socket.AF_INET6 if target.family == "ip6" else socket.AF_INET
