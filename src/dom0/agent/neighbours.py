"""What this machine exchanges with other nodes of a farm about services: where the ambassadors here lead to, and at
which ports the services are published that theirs ask for. Knows nothing of farms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dom0.agent.ambassadors import Ambassadors
from dom0.agent.followed import find_behind, find_published, wanted
from dom0.agent.machine import Machine
from dom0.agent.readiness import Readiness
from dom0.engine.values import PublishedPort


class Neighbours:
    def __init__(self, ambassadors: Ambassadors, machine: Machine, readiness: Readiness) -> None:
        self._ambassadors = ambassadors
        self._machine = machine
        self._readiness = readiness

    @property
    def wanted(self) -> frozenset[str] | None:
        """`Ambassadors.wanted_far`."""
        return self._ambassadors.wanted_far

    def tell(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        """Where those are: `Ambassadors.tell_far`."""
        self._ambassadors.tell_far(found, reasons)

    def published(self, services: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        """Of `service:NAME:PORT`: the ports of this host that lead there, None where it is not ready; of none while the
        Engine has not been looked at.
        """
        _, actual = self._machine.seen
        if actual is None:
            return {}
        now = self._readiness.now
        return {str(source): find_published(source, actual.containers, now) for source in wanted(services)}

    def entrances(self, services: Iterable[str]) -> Mapping[str, tuple[tuple[int, str, int], ...]]:
        """The same, by IPv4: with the address and the port of the container behind each."""
        _, actual = self._machine.seen
        if actual is None:
            return {}
        now = self._readiness.now
        return {str(source): find_behind(source, actual.containers, now) for source in wanted(services)}
