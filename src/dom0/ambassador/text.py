"""What people read of an ambassador, the same in its container and from the machine. Pure; the caller escapes it."""

from __future__ import annotations

from collections.abc import Iterator

from dom0.ambassador.messages import ListenerState, Receipt
from dom0.forward.dataplane import Flow
from dom0.forward.drain import Counts
from dom0.times import moment

HISTORY = ("NUMBER", "AT", "CAUSE", "LISTENERS", "TARGETS", "OLD CONNECTIONS")


def remark(listener: ListenerState) -> str:
    said = ["rewired"] if listener.rewired else []
    said += [f"new connections: {listener.down}"] if listener.down else []
    said += [f"down: {', '.join(listener.unhealthy)}"] if listener.unhealthy else []
    return "; ".join(said)


def listener_lines(listener: ListenerState, *facts: str) -> Iterator[str]:
    """`facts` stand beside its name."""
    yield f"{listener.listener}  {', '.join((f'generation {listener.generation}', *facts))}"
    yield f"  from     {', '.join(listener.sources)}{' (rewired)' if listener.rewired else ''}"
    if any(source.startswith("plaintext:") for source in listener.sources):
        yield "  nothing is encrypted on the way to another node"
    yield f"  targets  {', '.join(listener.targets) or 'none'}"
    if listener.unhealthy:
        yield f"  down     {', '.join(listener.unhealthy)}"
    if listener.down:
        yield f"  new connections: {listener.down}"


def headline(receipt: Receipt) -> str:
    return f"{', '.join(receipt.listeners)}: {_change(receipt)}"


def history_row(receipt: Receipt) -> tuple[str, ...]:
    """Cells below HISTORY."""
    cause = f"{receipt.cause}, undone" if receipt.undone else receipt.cause
    old = old_connections(receipt)
    return (str(receipt.number), moment(receipt.at), cause, ", ".join(receipt.listeners), _change(receipt), old)


def old_connections(receipt: Receipt) -> str:
    drained = [f"drained until {moment(receipt.draining)}"] if receipt.draining else []
    return ", ".join([*counts(receipt), *drained]) or "none"


def counts(counted: Receipt | Counts) -> list[str]:
    """`rescued`: clients that still waited for an answer to their first packet."""
    names = {"kept": "kept", "ended": "ended", "cut": "cut", "moved": "moved"}
    names["rescued"] = f"half-open connection{'s' if counted.rescued != 1 else ''} redirected"
    return [f"{number} {words}" for name, words in names.items() if (number := getattr(counted, name))]


def flow_cells(flow: Flow) -> dict[str, str]:
    """By their heads."""
    return {
        "LISTENER": str(flow.came_by),
        "GENERATION": str(flow.generation),
        "CLIENT": str(flow.client),
        "TARGET": str(flow.target),
        "STATE": flow.state or "-",
        "SENT": str(flow.sent),
        "RECEIVED": str(flow.received),
    }


def _change(receipt: Receipt) -> str:
    return " → ".join(", ".join(targets) or "nothing" for targets in (receipt.before, receipt.after))
