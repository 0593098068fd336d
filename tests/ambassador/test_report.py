"""What an ambassador says of the kernel it runs on. What it says of itself is in test_serve.py."""

from __future__ import annotations

from dom0.ambassador.report import connections
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import table
from dom0.testing.routes import at, tcp
from dom0.testing.wires import Wires


async def test_the_kernels_list_of_connections_shows_how_full_it_is(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))

    def fill() -> tuple[int, int]:
        found = own(wires.ambassador.namespace).call(connections)
        assert found is not None
        return found

    before, _ = fill()
    for _ in range(10):
        wires.consumer.connect(wires.ambassador.v4, 6379)
    there, most = fill()
    assert there >= before + 10
    assert most >= there
