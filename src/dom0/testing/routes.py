"""Builds routes and tables for tests of ambassadors in one line."""

from __future__ import annotations

from collections.abc import Iterable

from dom0.forward.table import Down, Listener, Protocol, Route, Target
from dom0.testing.wires import Node


def tcp(generation: int, *targets: Target, listen: int = 6379, down: Down | None = None) -> Route:
    return Route(Listener(Protocol.TCP, listen), generation, targets, down)


def udp(generation: int, *targets: Target, listen: int = 6379, down: Down | None = None) -> Route:
    return Route(Listener(Protocol.UDP, listen), generation, targets, down)


def at(nodes: Node | Iterable[Node], port: int = 6379, *, weight: int = 1) -> tuple[Target, ...]:
    """Both addresses of each node."""
    every = [nodes] if isinstance(nodes, Node) else nodes
    return tuple(Target(address, port, weight) for node in every for address in (node.v4, node.v6))
