"""`network` and `lease` of the base OS: every card that comes has its address, also one that comes again."""

from __future__ import annotations

import pytest

from dom0.testing.disk_machine import DiskMachine

RUN = "/run/dom0/os"


class Cards:
    """Network cards of a machine: the kernel's interfaces, with what /sys would show of cards."""

    def __init__(self, machine: DiskMachine) -> None:
        self.machine = machine
        machine.inside("/sys/class/net").mkdir(parents=True)
        machine.inside("/data/etc").mkdir()

    def plug(self, name: str) -> None:
        self.ip("link", "add", "name", name, "type", "veth")
        directory = self.machine.inside(f"/sys/class/net/{name}")
        (directory / "device").mkdir(parents=True)
        (directory / "type").write_text("1\n")
        index, _ = self.ip("-o", "link", "show", "dev", name).split(":", 1)
        (directory / "ifindex").write_text(f"{index}\n")

    def unplug(self, name: str) -> None:
        directory = self.machine.inside(f"/sys/class/net/{name}")
        (directory / "ifindex").unlink()
        (directory / "type").unlink()
        (directory / "device").rmdir()
        directory.rmdir()
        self.ip("link", "del", name)

    def ip(self, *arguments: str) -> str:
        return self.machine.run("/usr/bin/ip", *arguments).stdout

    def has_address(self, name: str, address: str) -> bool:
        return f" {address} " in self.ip("-4", "address", "show", "dev", name)

    def routes(self) -> list[str]:
        return self.ip("route", "show").splitlines()

    def await_address(self, name: str, address: str) -> None:
        self.machine.until(lambda: self.has_address(name, address))

    def await_client(self, name: str, *, other_than: int = 0) -> int:
        """The process that asks for an address, once there is one."""

        def other() -> int:
            _, number = self.machine.inside(f"{RUN}/interface.{name}").read_text().split()
            return int(number) if int(number) != other_than else 0

        return self.machine.until(other)

    def clients(self) -> set[int]:
        return {int(word) for word in self.machine.run("/usr/bin/pidof", "udhcpc", check=False).stdout.split()}

    def keep(self, ip: str) -> None:
        """What init runs, with that setting of the boot contract."""
        self.machine.contract(f"ip={ip}")
        self.machine.start("/usr/lib/dom0/network", "keep")


@pytest.fixture
def cards(machine: DiskMachine) -> Cards:
    return Cards(machine)


def test_a_client_that_was_killed_is_started_again(cards: Cards) -> None:
    cards.plug("eth0")
    cards.keep("dhcp")
    first = cards.await_client("eth0")
    cards.machine.run("/usr/bin/kill", "-KILL", str(first))
    second = cards.await_client("eth0", other_than=first)
    cards.machine.until(lambda: cards.clients() == {second})


def test_a_card_that_comes_again_under_its_name_is_served_again(cards: Cards) -> None:
    cards.plug("eth0")
    cards.keep("dhcp")
    first = cards.await_client("eth0")
    cards.unplug("eth0")
    cards.plug("eth0")
    second = cards.await_client("eth0", other_than=first)
    cards.machine.until(lambda: cards.clients() == {second})


@pytest.mark.parametrize("comes", ["eth0", "eth1"])
def test_a_static_address_goes_to_the_card_that_comes_in_place_of_its_own(cards: Cards, comes: str) -> None:
    cards.plug("eth0")
    cards.keep("192.0.2.7/24,192.0.2.1,192.0.2.53")
    cards.await_address("eth0", "192.0.2.7/24")
    cards.unplug("eth0")
    cards.plug(comes)
    cards.await_address(comes, "192.0.2.7/24")


def test_a_second_card_does_not_get_the_static_address(cards: Cards) -> None:
    cards.plug("eth0")
    cards.plug("eth1")
    cards.keep("192.0.2.7/24,192.0.2.1")
    cards.machine.until(lambda: cards.machine.inside(f"{RUN}/interface.eth1").read_text())
    assert cards.has_address("eth0", "192.0.2.7/24")
    assert not cards.has_address("eth1", "192.0.2.7/24")


def test_a_static_address_may_be_in_no_network(cards: Cards) -> None:
    cards.plug("eth0")
    cards.keep("192.0.2.7/32,198.51.100.1")
    cards.await_address("eth0", "192.0.2.7/32")
    cards.machine.until(cards.routes)
    assert [route.split()[:5] for route in cards.routes()] == [["default", "via", "198.51.100.1", "dev", "eth0"]]


@pytest.mark.parametrize(("mask", "router"), [("24", "192.0.2.1"), ("32", "198.51.100.1")])
def test_a_lease_may_be_in_no_network(cards: Cards, mask: str, router: str) -> None:
    cards.plug("eth0")
    cards.ip("link", "set", "eth0", "up")
    lease = (f"mask={mask}", "ip=192.0.2.7", f"router={router}", "interface=eth0", "/usr/lib/dom0/lease")
    for word in ("bound", "renew"):
        cards.machine.run(*lease, word)
        assert cards.has_address("eth0", f"192.0.2.7/{mask}")
        default = [route for route in cards.routes() if route.startswith("default")]
        assert [route.split()[:5] for route in default] == [["default", "via", router, "dev", "eth0"]]


def named(machine: DiskMachine) -> str:
    """The name that it gets, in a namespace in which that renames nobody else."""
    return machine.run("unshare", "-u", "sh", "-c", "/usr/lib/dom0/network prepare && hostname").stdout.strip()


def test_a_machine_keeps_its_name_also_one_that_boot2docker_gave_it(machine: DiskMachine) -> None:
    theirs = machine.inside("/data/var/lib/boot2docker/etc")
    theirs.mkdir(parents=True)
    (theirs / "hostname").write_text("no name at all\n")
    made = named(machine)
    assert made.startswith("dom0-")
    assert named(machine) == made
    machine.inside("/data/etc/hostname").unlink()
    (theirs / "hostname").write_text("whale\n")
    assert named(machine) == "whale"
    machine.contract("hostname=box")
    assert named(machine) == "box"
