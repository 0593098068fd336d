"""A farm whose machines are virtual ones that start from the network: a switch, the router of a house that gives them
addresses, and the farm's server on a host beside them, with Debian's dnsmasq.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dom0.farms.directory import FarmDirectory
from dom0.farms.revisions import NodeReport
from dom0.forward.place import own
from dom0.osimage import build, qemu
from dom0.testing import chain, redis, vm
from dom0.testing.hosts import Host, Switch, until
from dom0.testing.machine_farm import Farm

T = TypeVar("T")
NETWORK = "10.9.6"
SERVER = f"{NETWORK}.1"
MACHINES = {"nas": 11, "pi": 12, "lamp": 13}  # numbers of their cards, and of their addresses
PATIENCE = 1500.0  # seconds: a first boot, which loads images, on a busy machine without KVM
_SIZE = 8 << 30  # bytes of a data disk; the file is sparse
_EMPTY = "name: box\nx-dom0: {rollout: {monitor: 1s}}\n"


class NetbootFarm(Farm):
    """`configure` and `serve` it, and give its machines power."""

    def __init__(self, switch: Switch, server: Host, directory: Path) -> None:
        super().__init__({"server": server}, directory, "")
        self.directory = FarmDirectory(self.path)
        self.image = directory / "dom0.tar"
        self.disks = {name: vm.blank(directory / f"{name}.disk", _SIZE) for name in MACHINES}
        self._cables = {name: vm.Cable(switch.network, switch.tap(), number) for name, number in MACHINES.items()}
        self._variables = Path(shutil.copyfile(qemu.UEFI_VARIABLES, directory / "variables"))
        self._powered: list[vm.VirtualMachine] = []
        switch.give_addresses(f"{NETWORK}.254/24", {one.mac: self.address(name) for name, one in self._cables.items()})
        self.machine.write(_EMPTY)
        self.machine.dom0("build", str(self.machine.project))
        self.machine.dom0("image", "save", str(self.image))

    @staticmethod
    def address(name: str) -> str:
        return f"{NETWORK}.{MACHINES[name]}"

    def configure(self, *, image: bool = True, os: Path | None = None) -> None:
        """Write farm.yaml. `image`: which machines get with each start; `os`: what the next revision says."""
        lines = ["name: attic", f"listen: {SERVER}:7701", "roles: {store: {soak: 1s}}"]
        lines += [f"os: {os}"] if os else []
        lines += ["netboot:", "  interface: eth0", "  config: [format=blank]", f"  os: {vm.base_os() / build.UKI}"]
        lines += [f"  image: {self.image}"] if image else []
        (self.path / "farm.yaml").write_text("".join(f"{line}\n" for line in lines))

    @contextmanager
    def power(
        self, name: str, *, by: str, memory: int, drives: Sequence[qemu.Drive] | None = None
    ) -> Iterator[vm.VirtualMachine]:
        """For that machine, until the block ends. `by`: `bios` or `efi`. `drives`: in place of its disk."""
        with vm.VirtualMachine(
            qemu.Bios() if by == "bios" else qemu.Uefi(self._variables),
            drives=[self.disks[name]] if drives is None else drives,
            cable=self._cables[name],
            restarts=True,
            memory=memory,
        ) as machine:
            self._powered.append(machine)
            yield machine
            self._powered.remove(machine)

    def until(self, condition: Callable[[], T]) -> T:
        return until(condition, self._story, within=PATIENCE)

    def until_shown(self, machine: vm.VirtualMachine, pattern: str) -> re.Match[str]:
        """On its screen, which is a terminal."""
        found = self.until(lambda: re.search(pattern, machine.screen()))
        assert found
        return found

    def _story(self) -> str:
        return "\n".join([super()._story(), *(machine.screen()[-4000:] for machine in self._powered)])

    def report(self, name: str) -> NodeReport:
        """What the node said last. Raises UsageError."""
        return self.directory.report(self.directory.nodes().named(name).key)

    def ask_redis(self, name: str, line: str) -> str:
        """What that of the machine answers the server's machine. Raises OSError."""
        with own(self.machine.host.network).call(socket.socket) as asking:
            asking.settimeout(30)
            asking.connect((self.address(name), 6379))
            asking.sendall(f"{line}\r\n".encode())
            return asking.recv(4096).decode().strip()

    def redis_answers(self, name: str) -> bool:
        try:
            return self.ask_redis(name, "PING") == "+PONG"
        except OSError:
            return False

    def until_redis_answers(self, name: str) -> None:
        self.until(lambda: self.redis_answers(name))


@contextmanager
def netboot_farm(directory: Path) -> Iterator[NetbootFarm]:
    switch = Switch()
    try:
        with Host(name="server", switch=switch, address=f"{SERVER}/24") as server:
            chain.provide(server)
            redis.provide(server)
            yield NetbootFarm(switch, server, directory)
    finally:
        switch.stop()
