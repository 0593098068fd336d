"""A DNS server of the test's own: it answers what the test says, when the test says it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer:
    """On a UDP socket that is bound already. Names end with a dot; one that is not known does not exist."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self._records: dict[str, list[str]] = {}
        self.address: str = bound.getsockname()[0]
        self.ttl = 0
        self.is_silent = False
        self.asked: list[str] = []  # `NAME TYPE`
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def say(self, name: str, addresses: Iterable[str]) -> None:
        """None of them: the name is there and has no address."""
        self._records[name] = list(addresses)

    def forget(self, name: str) -> None:
        del self._records[name]

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # an empty datagram ends it
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, sender = self._socket.recvfrom(4096)
            if not packet:
                return
            if not self.is_silent:
                self._socket.sendto(self._answer(packet), sender)

    def _answer(self, packet: bytes) -> bytes:
        query = dns.message.from_wire(packet)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), question.rdtype
        self.asked.append(f"{name} {dns.rdatatype.to_text(kind)}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name not in self._records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer.to_wire()
        six = kind == dns.rdatatype.AAAA
        if addresses := [it for it in self._records[name] if (":" in it) == six]:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *addresses))
        return answer.to_wire()
