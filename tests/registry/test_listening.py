"""Sockets that listen where people say, and who is taken in."""

from __future__ import annotations

import socket

import pytest

from dom0.registry import listening


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_address_of_ipv6_is_every_one_of_ipv4_too(host: str) -> None:
    with listening.listen("::", 0) as opened, socket.create_connection((host, opened.getsockname()[1])):
        accepted, (address, *_) = opened.accept()
        accepted.close()
    assert listening.is_among(address, listening.read_networks([host]))
    assert not listening.is_among(address, listening.read_networks(["192.168.0.0/16", "fd00::/8"]))


def test_an_address_of_ipv4_is_that_alone() -> None:
    with listening.listen("127.0.0.1", 0) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"
