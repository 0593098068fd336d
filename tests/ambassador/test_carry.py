"""What a restart carries over, as files that nft and conntrack take without us."""

from __future__ import annotations

from pathlib import Path

from dom0.ambassador.carry import FLOWS, RULES, save
from dom0.ambassador.park import announce
from dom0.ambassador.state import BOOT
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import Listener, Protocol, Route, Target, table
from dom0.testing.wires import Wires, make_router

LISTENER = Listener(Protocol.TCP, 6379)


async def test_what_was_saved_is_in_force_in_another_namespace_without_us(
    wires: Wires, plane: KernelPlane, tmp_path: Path
) -> None:
    wanted = table([Route(LISTENER, 7, (Target(wires.providers[0].v4, 6379),))])
    await plane.set(wanted)
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    assert client.ask() == "provider1:?"
    await save(plane, tmp_path)
    wires.recreate(wires.ambassador)
    wires.ambassador.run("nft", "-f", str(tmp_path / RULES))
    wires.ambassador.run("conntrack", "-R", str(tmp_path / FLOWS))
    wires.plug(wires.ambassador)
    make_router(wires.ambassador)
    place = own(wires.ambassador.namespace)
    announce(place)
    assert client.ask("still") == "provider1:still"
    assert await KernelPlane(place).read() == wanted
    client.close()


async def test_the_first_word_of_the_rules_is_the_boot_that_they_belong_to(plane: KernelPlane, tmp_path: Path) -> None:
    await plane.set(table([Route(LISTENER, 1, (Target("10.0.0.1", 1),))]))
    await save(plane, tmp_path)
    assert (tmp_path / RULES).read_text().split("\n")[0] == f"# {BOOT.read_text().strip()}"


async def test_without_rules_nothing_is_saved_over_what_was_saved_before(plane: KernelPlane, tmp_path: Path) -> None:
    (tmp_path / RULES).write_text("before")
    await save(plane, tmp_path)
    assert (tmp_path / RULES).read_text() == "before"
    assert not (tmp_path / FLOWS).exists()
