"""Network namespaces for tests of ambassadors: consumers, an ambassador and providers on one bridge, IPv4 and IPv6.

Theory of operation: a namespace lives while a process in it does, a `cat` that reads a pipe whose other end only we
hold; nothing has a name on this machine. Servers are threads of ours and clients sockets of ours, made inside the
namespaces. So all of it ends with this process, by whatever death, and any number of runs stand side by side with the
same addresses.

`Wires` makes 10.77.0.1 … and fd77::1 … in the order asked for. Providers answer `NAME:` and what they were told, over
TCP and UDP on any address; nothing here knows about ambassadors.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from dom0.forward.place import own

T = TypeVar("T")
_PROGRAMS = ("ip", "nft", "conntrack", "nsenter", "unshare")
TURNS = 3  # of the event loop, from accept() to the connection that a server is told of
PATIENCE = 60.0  # seconds until a condition counts as never met
_PREFIX = {4: ("10.77.0.", 24), 6: ("fd77::", 64)}


def missing() -> str:
    """Why this machine cannot make wires; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Node:
    """A network namespace with an `eth0` on the bridge."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.v4 = f"{_PREFIX[4][0]}{number}"
        self.v6 = f"{_PREFIX[6][0]}{number:x}"
        self._sockets: list[socket.socket] = []
        self._open()

    def _open(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(b"\n")
        self._holder.stdin.flush()
        self._holder.stdout.read(1)  # it is a `cat` by now, so the namespace is there
        self._place = own(self.namespace)

    @property
    def pid(self) -> str:
        """Of a process in the namespace, as a word of a command."""
        return str(self._holder.pid)

    @property
    def namespace(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    def address(self, family: int) -> str:
        return self.v6 if family == 6 else self.v4

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """What `argv` printed, run in the namespace."""
        done = subprocess.run(
            self._place.command(argv), input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {argv}: {done.stderr}")
        return done.stdout

    def call(self, function: Callable[[], T]) -> T:
        """`function` in the namespace, in a thread of its own."""
        return self._place.call(function)

    def sysctl(self, name: str, value: int) -> None:
        path = Path("/proc/sys") / name.replace(".", "/")
        self.call(lambda: path.write_text(str(value)))

    def socket(self, family: int = 4, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Closed at the latest with the node."""
        made = self.call(lambda: socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind))
        made.settimeout(PATIENCE)
        self._sockets.append(made)
        return made

    def connect(self, address: str, port: int) -> Client:
        """Open a TCP connection. Raises what the socket does."""
        made = self.socket(6 if ":" in address else 4)
        made.connect((address, port))
        return Client(made)

    def send_to(self, address: str, port: int) -> Client:
        """A UDP socket that talks to one address only."""
        made = self.socket(6 if ":" in address else 4, socket.SOCK_DGRAM)
        made.connect((address, port))
        return Client(made)

    def stop(self) -> None:
        for made in self._sockets:
            made.close()
        self._holder.kill()
        self._holder.communicate()


class Client:
    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self.port: int = made.getsockname()[1]

    def ask(self, text: str = "?") -> str:
        """Who answers. Raises what the socket does."""
        self.say(text)
        return self.hear()

    def say(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def hear(self) -> str:
        return self.socket.recv(65536).decode()

    def is_reset(self) -> bool:
        """It is told, within PATIENCE and without saying anything, that the connection is no more."""
        try:
            self.socket.recv(1)
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()


class Provider(Node):
    """Answers on every port it serves; remembers its connections."""

    def __init__(self, name: str, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name, number)
        self._loop = loop
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._connections: dict[tuple[str, int], asyncio.StreamWriter] = {}
        self.reset: list[tuple[str, int]] = []  # who reset a connection, as we saw them

    @property
    def peers(self) -> list[tuple[str, int]]:
        """Whose connections are open now."""
        return list(self._connections)

    def serve(self, *ports: int) -> None:
        """TCP and UDP, IPv4 and IPv6."""
        for port in ports:
            tcp, udp = self.socket(6), self.socket(6, socket.SOCK_DGRAM)
            for made in (tcp, udp):
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(("::", port))
                made.setblocking(False)
            asyncio.run_coroutine_threadsafe(self._serve(tcp, udp), self._loop).result(PATIENCE)

    def push(self, text: str) -> None:
        """Say something to everybody who is connected, unasked."""

        def write() -> None:
            for writer in self._connections.values():
                writer.write(f"{self.name}:{text}".encode())

        self._loop.call_soon_threadsafe(write)

    def send_datagram(self, address: str, port: int) -> None:
        """From the first of its UDP ports, to somebody who need not have asked."""
        to = f"::ffff:{address}" if "." in address else address
        self._loop.call_soon_threadsafe(self._datagrams[0].sendto, f"{self.name}:late".encode(), (to, port))

    def shut(self) -> None:
        """Serve nobody any more: connects are refused, connections reset."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        self.shut()
        super().stop()

    async def _serve(self, tcp: socket.socket, udp: socket.socket) -> None:
        self._servers.append(await asyncio.start_server(self._converse, sock=tcp, backlog=4096))
        transport, _ = await self._loop.create_datagram_endpoint(lambda: _Answering(self.name), sock=udp)
        self._datagrams.append(transport)

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        for transport in self._datagrams:
            transport.close()
        self._servers.clear()
        self._datagrams.clear()
        for _ in range(TURNS):  # one that was accepted just now becomes a connection
            await asyncio.sleep(0)
        for writer in self._connections.values():
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port = writer.get_extra_info("peername")[:2]
        peer = (address.removeprefix("::ffff:"), port)
        self._connections[peer] = writer
        try:
            while data := await reader.read(65536):
                writer.write(f"{self.name}:".encode() + data)
                await writer.drain()
        except ConnectionError:
            self.reset.append(peer)
        finally:
            del self._connections[peer]
            writer.close()


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(f"{self._name}:".encode() + data, addr)


class Wires:
    """Use it as a context manager. The ambassador's node forwards packets and has nothing else of an ambassador."""

    def __init__(self, *, consumers: int = 1, providers: int = 2, ports: Sequence[int] = (6379,)) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self._make(consumers, providers, ports)
        except BaseException:
            self._stack.close()
            raise

    def _make(self, consumers: int, providers: int, ports: Sequence[int]) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        self._stack.callback(self._end_loop, thread)
        self._numbers = itertools.count(1)
        self._bridge = Node("bridge", next(self._numbers))
        self._stack.callback(self._bridge.stop)
        self._bridge.run("ip", "link", "add", "bridge", "up", "type", "bridge", "mcast_snooping", "0")
        self.ambassador = self.node("ambassador")
        make_router(self.ambassador)
        self.consumers = [self.node(f"consumer{number}") for number in range(1, consumers + 1)]
        self.consumer = self.consumers[0]
        self.providers = [self.provider(f"provider{number}", *ports) for number in range(1, providers + 1)]

    def __enter__(self) -> Wires:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def node(self, name: str) -> Node:
        made = Node(name, next(self._numbers))
        self._stack.callback(made.stop)
        self.plug(made)
        return made

    def provider(self, name: str, *ports: int) -> Provider:
        made = Provider(name, next(self._numbers), self._loop)
        self._stack.callback(made.stop)
        self.plug(made)
        made.serve(*ports)
        return made

    def plug(self, node: Node, *, mac: str = "") -> None:
        """Give `node` its `eth0` with its addresses."""
        port = _port(node)
        address = f"address {mac}" if mac else ""
        self._bridge.run(
            "ip", "-batch", "-",
            stdin=f"link add {port} up master bridge type veth peer name eth0 netns {node.pid} {address}\n",
        )  # fmt: skip
        node.run(
            "ip", "-batch", "-",
            stdin=f"link set lo up\naddress add {node.v4}/{_PREFIX[4][1]} dev eth0\n"
            f"address add {node.v6}/{_PREFIX[6][1]} dev eth0 nodad\nlink set eth0 up\n",
        )  # fmt: skip

    def recreate(self, node: Node) -> None:
        """Another namespace in the place of `node`'s, as when a container is replaced. It is not plugged in."""
        self._bridge.run("ip", "link", "delete", _port(node))  # the kernel takes its time with namespaces
        node.stop()
        node._open()

    def _end_loop(self, thread: threading.Thread) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        self._loop.close()


def _port(node: Node) -> str:
    """The bridge's end of the node's cable."""
    return f"port{node.v4.rpartition('.')[2]}"


def make_router(node: Node) -> None:
    """What `--sysctl` gives an ambassador's container."""
    node.sysctl("net.ipv4.ip_forward", 1)
    node.sysctl("net.ipv6.conf.all.forwarding", 1)


def eventually(condition: Callable[[], T], what: str = "it", *, patience: float = PATIENCE) -> T:
    """The first true value of `condition`. Raises AssertionError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about in {patience:g} s")
        time.sleep(0.01)
    return value


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
