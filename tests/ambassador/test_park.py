"""Neighbours that are told another MAC address than the true one, and the true one again."""

from __future__ import annotations

from dom0.ambassador.park import NOBODY, announce, park
from dom0.forward.interfaces import interfaces
from dom0.forward.place import own
from dom0.testing.wires import Wires, eventually


async def test_neighbours_are_sent_to_nobody_and_back(wires: Wires, family: int) -> None:
    place = own(wires.ambassador.namespace)
    (interface,) = interfaces(place)
    wires.consumer.send_to(wires.ambassador.address(family), 9).say("who are you?")
    eventually(lambda: interface.mac == neighbour(wires, family))
    park(place)
    eventually(lambda: neighbour(wires, family) == NOBODY)
    announce(place)
    eventually(lambda: interface.mac == neighbour(wires, family))


def neighbour(wires: Wires, family: int) -> bytes:
    """The MAC that the consumer has for the ambassador."""
    words = wires.consumer.run("ip", "neighbour", "show", wires.ambassador.address(family)).split()
    return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", "")) if "lladdr" in words else b""
