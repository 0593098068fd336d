"""The relay's data plane: socat processes, where CAP_NET_ADMIN is missing.

Theory of operation: we open each TCP listener's socket and hand it to one socat for each target, which accepts on it
and makes a process for each connection. A rewire starts others on the same socket and ends the former; the socket stays
open, so nobody is refused. The processes of connections are not affected. A UDP socket cannot be shared
so; there the new socat opens one beside the old one. Which listener, generation and target a process serves stands in
its command line, so a control plane that was killed finds everything again.

What the kernel's plane promises and this one does not: a dead target shows as a connection that is accepted and then
ended; a connect that waits for a dead target is not sent on; weights are ignored; bytes are not counted; when its
processes end, so do all connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error
from dom0.forward import sockets
from dom0.forward.dataplane import Flow
from dom0.forward.sockets import Socket
from dom0.forward.table import Down, Listener, Protocol, Route, Table, Target, parse_listener, table
from dom0.run import start

MOST_PROCESSES = 512  # that listen; each has about 2 MB of its own
_BACKLOG = 1024  # connections that wait to be accepted
_UDP_SILENCE = 120  # seconds, as the kernel's connection tracking has it
_FOREVER = 100_000_000  # seconds; socat would end a connection half a second after one side closed its half
_DEADLINE = 5.0  # seconds until a UDP socket is open
_TRIES, _PAUSE = 2000, 0.001  # seconds
_SO_ATTACH_REUSEPORT_CBPF, _BPF_RETURN = 51, 0x06  # <asm/socket.h>, <linux/bpf_common.h>
_ENDED = ("Z", "")  # states of a process, see `_state`
_OURS = re.compile(r"-lpdom0-relay (\S+) (\d+) (\d+) \[?([0-9a-f.:]+?)\]?:(\d+)", re.ASCII)  # see `command`


class Relay(msgspec.Struct, frozen=True, order=True):
    """What one socat forwards: the target at `index` of a route."""

    listener: Listener
    generation: int
    index: int
    target: Target


class RelayPlane:
    """A DataPlane. One for each network and process namespace."""

    name = "relay"

    def __init__(self) -> None:
        self._sockets: dict[Listener, socket.socket] = {}
        self._started: set[int] = set()  # process IDs; children of ours, to be waited for
        self._set: Table | None = None  # what is in force, as far as this process knows

    async def set(self, table: Table) -> None:
        self._reap()
        wanted = {relay for route in table.routes if route.down is None for relay in relays(route)}
        if len(wanted) > MOST_PROCESSES:
            raise Dom0Error(
                f"relay: {len(wanted)} listeners, counted for each target, are more than {MOST_PROCESSES}",
                hint="run the ambassador with --cap-add NET_ADMIN, the kernel has no such limit",
            )
        holding = {route.listener for route in table.routes if route.down is Down.HOLD}
        before = _listening()
        missing = sorted(wanted - set(before.values()))
        with contextlib.ExitStack() as undo:
            opened: dict[Listener, socket.socket] = {}
            for listener in sorted({relay.listener for relay in missing} | holding):
                if listener.protocol is Protocol.TCP and listener not in self._sockets:
                    opened[listener] = undo.enter_context(_listen(listener))
            await self._start(missing, self._sockets | opened)
            undo.pop_all()
        self._sockets |= opened
        for pid, relay in before.items():
            if relay not in wanted:
                await _retire(pid, beside=opened.get(relay.listener))
        self._set = table
        self._close({relay.listener for relay in wanted} | holding)

    async def read(self) -> Table | None:
        found: dict[tuple[Listener, int], list[Relay]] = defaultdict(list)
        for relay in _listening().values():
            found[relay.listener, relay.generation].append(relay)
        routes = [
            Route(listener, generation, tuple(relay.target for relay in sorted(served)))
            for (listener, generation), served in found.items()
        ]
        known = self._set.routes if self._set else ()
        routes += [route for route in known if route.down is not None]
        weighted = {msgspec.structs.replace(route, targets=_unweighted(route)): route for route in known}
        return table(weighted.get(route, route) for route in routes) if routes else None

    async def flows(self, generations: Collection[int] | None = None) -> list[Flow]:
        self._reap()
        return [flow for flow in _flows() if generations is None or flow.generation in generations]

    async def forget(self, flows: Collection[Flow]) -> int:
        """UDP only: a TCP client has been accepted already, so it does not retransmit its SYN."""
        return _end(flow for flow in flows if flow.protocol is Protocol.UDP)

    async def cut(self, flows: Collection[Flow]) -> int:
        return _end(flows)

    async def cleanup(self) -> None:
        await _kill(_processes())
        self._set = None
        self._close(set())
        self._reap()

    async def _start(self, missing: Iterable[Relay], handles: dict[Listener, socket.socket]) -> None:
        begun = []
        try:
            for relay in missing:
                handle = handles.get(relay.listener)
                begun.append(start(command(relay), third=handle.fileno() if handle else None))
            for pid, relay in zip(begun, missing, strict=True):
                await _until_listening(pid, relay)
        except BaseException:
            await _kill(begun)
            raise
        finally:
            self._started |= set(begun)

    def _close(self, kept: Collection[Listener]) -> None:
        for listener in self._sockets.keys() - kept:
            self._sockets.pop(listener).close()

    def _reap(self) -> None:
        self._started = {pid for pid in self._started if not _has_ended(pid)}


def relays(route: Route) -> list[Relay]:
    return [Relay(route.listener, route.generation, index, it) for index, it in enumerate(_unweighted(route))]


def _unweighted(route: Route) -> tuple[Target, ...]:
    return tuple(msgspec.structs.replace(target, weight=1) for target in route.targets)


def command(relay: Relay) -> list[str]:
    """TCP gets its listening socket as file descriptor 3; UDP opens its own."""
    name = f"-lpdom0-relay {relay.listener} {relay.generation} {relay.index} {relay.target}"
    family = 6 if relay.target.family == "ip6" else 4
    if relay.listener.protocol is Protocol.TCP:
        source, sink = "ACCEPT-FD:3,fork,nodelay,keepalive", f"TCP{family}:{relay.target},nodelay,keepalive"
        return ["socat", "-d0", name, f"-t{_FOREVER}", "-b65536", source, sink]
    port, both = relay.listener.port, socket.has_dualstack_ipv6()
    everywhere = f"UDP6-LISTEN:{port},ipv6only=0" if both else f"UDP4-LISTEN:{port}"
    source, sink = f"{everywhere},fork,reuseaddr,reuseport", f"UDP{family}:{relay.target}"
    return ["socat", "-d0", name, f"-T{_UDP_SILENCE}", "-b65536", source, sink]


def parse(argv: list[str]) -> Relay | None:
    """What a process with this command line forwards; None if it is not one of ours."""
    match = _OURS.fullmatch(argv[2]) if len(argv) > 2 and argv[0] == "socat" else None
    if match is None:
        return None
    try:
        return Relay(parse_listener(match[1]), int(match[2]), int(match[3]), Target(match[4], int(match[5])))
    except ValueError:
        return None


def _listen(listener: Listener) -> socket.socket:
    """Raises Dom0Error."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", listener.port), family=family, backlog=_BACKLOG, reuse_port=True, dualstack_ipv6=both
        )
    except OSError as error:
        raise Dom0Error(
            f"{listener}: cannot be listened on: {error.strerror}", hint="is another program using the port?"
        ) from error


async def _until_listening(pid: int, relay: Relay) -> None:
    """A TCP one has its socket from us; for a moment after its start it has no command line. Raises Dom0Error."""
    deadline = time.monotonic() + _DEADLINE
    is_tcp = relay.listener.protocol is Protocol.TCP
    while not (_relay_of(str(pid)) if is_tcp else _sockets_of(pid, sockets.sockets())):
        if _has_ended(pid) or time.monotonic() > deadline:
            raise Dom0Error(f"{relay.listener}: cannot be listened on", hint="is another program using the port?")
        await asyncio.sleep(0.005)


async def _retire(pid: int, *, beside: socket.socket | None) -> None:
    """End a socat that listens, but not between accepting a connection and forking its process.

    `beside` is given where it has a listening socket of its own, of a control plane before us: what waits there to be
    accepted would be lost, so all that is new goes to ours first.
    """
    if beside is not None:  # of two sockets that listen on a port, the later one gets all, instead of every other
        program = ctypes.create_string_buffer(struct.pack("=HBBI", _BPF_RETURN, 0, 0, 1))
        filters = struct.pack("@HP", 1, ctypes.addressof(program))
        beside.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filters)
    for _ in range(_TRIES):
        if not _signal(pid, signal.SIGSTOP):
            return
        await _until_in(("T", *_ENDED), pid)
        there = sockets.sockets()
        waiting = beside and any(end.queued for end in _sockets_of(pid, there) if end.state == "LISTEN")
        if not waiting and not _connected(pid, there):
            break
        _signal(pid, signal.SIGCONT)
        await asyncio.sleep(_PAUSE)
    await _kill([pid])


async def _kill(pids: Collection[int]) -> None:
    """Returns when they have ended: they neither listen nor are found any more."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    for pid in pids:
        await _until_in(_ENDED, pid)


async def _until_in(states: Collection[str], pid: int) -> None:
    """A signal that was sent need not have arrived."""
    for _ in range(_TRIES):
        if _state(pid) in states:
            return
        await asyncio.sleep(_PAUSE)


def _state(pid: int) -> str:
    """Of a process, as /proc names it: T is stopped; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _has_ended(pid: int) -> bool:
    """Of a child of ours."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _listening() -> dict[int, Relay]:
    """The socats that wait for connections. Each leads a session; those with a connection are in its session."""
    return {pid: relay for pid, relay in _processes().items() if _leads(pid)}


def _flows() -> Iterator[Flow]:
    there = sockets.sockets()
    for pid, relay in _processes().items():
        ends = [] if _leads(pid) else _connected(pid, there)
        near = next((end for end in ends if end.remote == relay.target), None)
        client = next((end for end in ends if end.local.port == relay.listener.port and end is not near), None)
        if near is None or client is None:
            continue
        state = near.state if near.state == "SYN_SENT" else client.state
        yield Flow(
            protocol=relay.listener.protocol,
            generation=relay.generation,
            client=client.remote,
            listener=client.local,
            near=near.local,
            target=relay.target,
            state=state if relay.listener.protocol is Protocol.TCP else "",
            number=pid,
        )


def _connected(pid: int, there: dict[int, Socket]) -> list[Socket]:
    return [end for end in _sockets_of(pid, there) if end.remote.port]


def _sockets_of(pid: int, there: dict[int, Socket]) -> list[Socket]:
    return [there[inode] for inode in sockets.inodes(pid) if inode in there]


def _end(flows: Iterable[Flow]) -> int:
    """The kernel closes both sides of a process that is gone."""
    there = {(flow.number, flow.client, flow.near) for flow in _flows()}
    doomed = [flow.number for flow in flows if (flow.number, flow.client, flow.near) in there]
    return sum(_signal(pid, signal.SIGKILL) for pid in doomed)


def _processes() -> dict[int, Relay]:
    """Ours in this network namespace."""
    found = {}
    here = Path("/proc/thread-self/ns/net").readlink()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (relay := _relay_of(entry.name)) and (entry / "ns/net").readlink() == here:
                    found[int(entry.name)] = relay
    return found


def _relay_of(pid: str) -> Relay | None:
    """What process `pid` forwards, if it is one of ours. Raises OSError: there is none."""
    return parse(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
