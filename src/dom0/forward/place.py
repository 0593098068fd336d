"""A network namespace that is forwarded in: the ambassador's own, or a consumer's. Enters it; knows no rules.

A command enters through nsenter. A socket is made by a thread that enters and ends: setns(2) moves only the calling
thread, and a socket stays where it was made.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0.forward.table import check_address

OWN_TABLE = "dom0_ambassador"
SHORTCUT_TABLE = re.compile(r"dom0_shortcut_[a-z0-9]{1,64}", re.ASCII)
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>; os.setns came with Python 3.12
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Make it with `own` or `consumer`. `addresses` are the ambassador's, as the consumer knows them."""

    table: str  # of nftables
    namespace: str = ""  # a path, /proc/PID/ns/net; this process's own if empty
    addresses: tuple[str, ...] = ()

    @property
    def is_consumer(self) -> bool:
        return bool(self.addresses)

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv`, run here."""
        return ["nsenter", f"--net={self.namespace}", "--", *argv] if self.namespace else list(argv)

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when it is called here: it makes a socket, or reads /proc/sys/net."""

        def inside() -> T:
            handle = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(handle, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, f"{self.namespace}: {os.strerror(number)}")
            finally:
                os.close(handle)
            return function()

        return in_own_thread(inside) if self.namespace else function()

    def open_socket(self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int) -> socket.socket:
        """Of this namespace, wherever it is used. Raises OSError: EPERM without the capability it takes."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def sysctl(self, name: str) -> str:
        """The value of `net.ipv4.ip_forward`; empty if this kernel has none."""
        path = Path("/proc/sys") / name.replace(".", "/")
        try:
            return self.call(path.read_text).strip()
        except OSError:
            return ""


def own(namespace: str = "") -> Place:
    """The ambassador's namespace: whatever arrives at one of its addresses is forwarded."""
    return Place(table=OWN_TABLE, namespace=namespace)


def consumer(namespace: str, addresses: Sequence[str], name: str) -> Place:
    """A consumer's namespace. `name` tells one ambassador from another: lower-case letters and digits.

    Raises ValueError for a name or addresses that could not stand in a rule.
    """
    table = shortcut_table(name)
    if not SHORTCUT_TABLE.fullmatch(table):
        raise ValueError(f"{name!r} cannot be part of a table's name")
    if not addresses:
        raise ValueError("an ambassador without addresses has no shortcut")
    for address in addresses:
        check_address(address)
    return Place(table=table, namespace=namespace, addresses=tuple(addresses))


def shortcut_table(name: str) -> str:
    return f"dom0_shortcut_{name}"


def in_own_thread(function: Callable[[], T]) -> T:
    """What `function` returns in a thread that ends with it, and takes with it the namespaces that it entered."""
    with ThreadPoolExecutor(1) as own_thread:
        return own_thread.submit(function).result()
