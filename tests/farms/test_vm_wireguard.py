"""A tunnel in the kernel of the base OS: between a machine and a container that plays another node."""

from __future__ import annotations

import shlex

import msgspec
import pytest

from dom0.farms.tunnel import INTERFACE, TABLE, Entrance, Peer, TunnelState, address_of
from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600), pytest.mark.usefixtures("virtual_machines")]
SECRET = "nobody-reads-this"
PORT = 7000
_DOM0 = "import asyncio, sys\nsys.path.append('/usr/lib/dom0/python')\n"
_OPEN = f"""{_DOM0}
import msgspec
from pathlib import Path
from dom0.farms.tunnel import TunnelState
from dom0.farms.wireguard import Tunnel
async def main():
    tunnel = Tunnel(Path("/var/lib/dom0"))
    print(await tunnel.open())
    await tunnel.set(msgspec.json.decode(sys.argv[1], type=TunnelState))
asyncio.run(main())
"""
_CLOSE = f"""{_DOM0}
from pathlib import Path
from dom0.farms.wireguard import Tunnel
asyncio.run(Tunnel(Path("/var/lib/dom0")).close())
"""
_SERVE = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())
socketserver.TCPServer(("", 6379), Echo).serve_forever()
"""
# In which interfaces' frames the word is that comes back.
_ASK = """
import socket, sys, time
address, port, secret = sys.argv[1:]
capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
capture.settimeout(2)
deadline = time.monotonic() + 300
while True:
    try:
        asking = socket.create_connection((address, int(port)), 60)
        break
    except ConnectionRefusedError:  # it starts
        assert time.monotonic() < deadline
        time.sleep(1)
with asking:
    asking.sendall(f"{secret}\\n".encode())
    heard = b""
    while secret.encode() not in heard:
        heard += asking.recv(1000)
seen = {}
try:
    while True:
        frame, (interface, *_) = capture.recvfrom(65536)
        seen[interface] = seen.get(interface, False) or secret.encode() in frame
except TimeoutError:
    print(*(f"{interface}={seen[interface]}" for interface in sorted(seen)))
"""


class Machine:
    def __init__(self, machine: vm.VirtualMachine) -> None:
        self._machine = machine

    def run(self, *argv: str, stdin: str = "") -> str:
        return self._machine.ssh(f"{shlex.join(argv)} <<'END'\n{stdin}\nEND").stdout.strip()

    def python(self, container: str, script: str, *arguments: str) -> str:
        return self.run("docker", "exec", "-i", container, "python3", "-IS", "-", *arguments, stdin=script)

    def open(self, container: str, state: TunnelState) -> str:
        """Return its key."""
        return self.python(container, _OPEN, msgspec.json.encode(state).decode())

    def inspect(self, container: str, what: str) -> str:
        return self.run("docker", "inspect", "--format", what, container)


def test_the_kernel_of_the_base_os_encrypts_what_goes_between_nodes() -> None:
    with vm.scratch() as directory:
        key = vm.Key(directory)
        disk = vm.overlay(directory / "data", data_disk.provide(started=False))
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as booted:
            booted.status()
            machine = Machine(booted)
            run, dom0 = ("docker", "run", "--detach"), machine.inspect("dom0", "{{.Image}}")
            publish = f"--publish=127.0.0.1:{PORT}:6379"
            machine.run(*run, "--name=served", publish, "--entrypoint=python3", dom0, "-ISc", _SERVE)
            machine.run(*run, "--name=far", "--privileged", "--entrypoint=sleep", dom0, "infinity")
            address = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
            served, far = machine.inspect("served", address), machine.inspect("far", address)
            near = machine.inspect("far", "{{.NetworkSettings.Networks.bridge.Gateway}}")
            keys = {container: machine.open(container, TunnelState()) for container in ("dom0", "far")}
            forwards = ((address_of(keys["far"]), Entrance(PORT, served, 6379)),)
            assert machine.open("dom0", TunnelState((Peer(keys["far"], far),), forwards)) == keys["dom0"]
            assert machine.open("far", TunnelState((Peer(keys["dom0"], near),))) == keys["far"]
            seen = machine.python("far", _ASK, address_of(keys["dom0"]), str(PORT), SECRET)
            assert seen == f"{INTERFACE}=True eth0=False"
            assert "eth0=True" in machine.python("far", _ASK, served, "6379", SECRET), "it would be seen"
            assert INTERFACE in machine.run("docker", "exec", "dom0", "wg", "show")
            machine.python("dom0", _CLOSE)
            assert machine.run("docker", "exec", "dom0", "wg", "show") == ""
            assert TABLE not in machine.run("docker", "exec", "dom0", "nft", "list", "tables")
