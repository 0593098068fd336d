"""The options of requests to an ambassador, the same in its own command and in `dom0 ambassador`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dom0.errors import UsageError

if TYPE_CHECKING:
    from dom0.ambassador.messages import Rewire

Command = TypeVar("Command", bound=Callable[..., Any])

listener = click.option(
    "--listener", "-l", default="", metavar="PORT[/PROTOCOL]", help="Of several: 6379, 53/udp, 7000-7005."
)
_existing = click.option(
    "--existing",
    default="",
    metavar="POLICY",
    help="Old connections: keep, cut, drain=30s. Default: as its settings say.",
)
_udp = click.option(
    "--udp",
    type=click.Choice(["move", "keep"]),
    metavar="WHAT",
    help="move: UDP flows go to the new target at once; keep: they stay. Default: as its settings say.",
)
_hold = click.option("--hold", is_flag=True, help="Let new connections wait until the new target accepts one.")
_hold_timeout = click.option(
    "--hold-timeout", metavar="TIME", default="30s", help="With --hold: at most so long, else it goes back."
)
_plan = click.option("--plan", is_flag=True, help="Change nothing; list the connections it would concern.")


def undo(command: Command) -> Command:
    """Named as the fields of Undo."""
    return listener(_existing(_udp(command)))


def rewire(command: Command) -> Command:
    """Named as the fields of Rewire, without `to`."""
    return undo(_hold(_hold_timeout(_plan(command))))


def rewire_request(within: float, **given: Any) -> tuple[Rewire, float]:
    """The request, and in how many seconds it is answered where others are `within` so many. Raises UsageError."""
    from dom0.ambassador.declaration import parse_wait
    from dom0.ambassador.messages import Rewire

    request = Rewire(**given)
    try:
        return request, within + (parse_wait(request.hold_timeout) if request.hold else 0.0)
    except ValueError as error:
        raise UsageError(f"--hold-timeout: {error}", hint="such as 30s or 5m") from error
