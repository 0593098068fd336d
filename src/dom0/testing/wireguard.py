"""WireGuard without the kernel's module: Debian's wireguard-go, which `wg` speaks to as to the kernel.

Each has a /run of its own, because its socket has a name there. The interface is there with it, so what is tested makes
none itself. A `cat` is process 1 there, and all of it ends with us, by whatever death.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from dom0.farms.tunnel import INTERFACE
from dom0.forward.place import in_own_thread
from dom0.testing.namespaces import enter
from dom0.testing.wires import Node, eventually

T = TypeVar("T")
_PROGRAMS = ("wireguard-go", "wg")
_ALL_PROTOCOLS = 3  # <linux/if_ether.h>
_ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_START = f"""
mount -t tmpfs tmpfs /run && mkdir /run/wireguard || exit
wireguard-go --foreground {INTERFACE} &
exec cat
"""


def missing() -> str:
    """Why there is none; empty if there is."""
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if Path("/dev/net/tun").exists() else "this kernel has no tun devices"


class WireGuard:
    """On `node`, until `stop`. Use it as a context manager."""

    def __init__(self, node: Node) -> None:
        self._process = subprocess.Popen(
            ["nsenter", f"--net={node.namespace}", "--", *_ISOLATED, "sh", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(Path(f"/proc/{self._process.pid}/root/run/wireguard/{INTERFACE}.sock").exists, "wireguard-go")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def do(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of it there."""

        def inside() -> T:
            enter(self._process.pid, "net", "mnt")
            return asyncio.run(what())

        return in_own_thread(inside)

    def run(self, *argv: str) -> str:
        argv = ("nsenter", f"--target={self._process.pid}", "--net", "--mount", "--", *argv)
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def stop(self) -> None:
        self._process.communicate()


class Capture:
    """All that goes over `eth0` of a node from now on."""

    def __init__(self, namespace: Callable[[Callable[[], socket.socket]], socket.socket]) -> None:
        self._socket = namespace(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)))
        self._socket.bind(("eth0", _ALL_PROTOCOLS))
        self._socket.setblocking(False)

    def take(self) -> bytes:
        """What went since the last time."""
        frames = []
        while True:
            try:
                frames.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return b"\0".join(frames)

    def close(self) -> None:
        self._socket.close()
