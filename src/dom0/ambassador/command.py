"""The `dom0-ambassador` command. Only this module of the package prints and exits.

It is what `docker exec AMBASSADOR dom0-ambassador …` runs, so it starts fast: everything else is loaded when needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dom0.errors import Dom0Error, UsageError
from dom0.printable import printable

if TYPE_CHECKING:
    from dom0.ambassador.messages import Planned, Receipt, State
    from dom0.forward.dataplane import Flow

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
LISTENER = click.option("--listener", "-l", default="", metavar="PORT[/PROTOCOL]", help="6379, 53/udp, 7000-7005.")
EXISTING = click.option(
    "--existing", default="", metavar="POLICY", help="Old connections: keep, cut, drain=30s. Else as the settings say."
)
UDP = click.option("--udp", type=click.Choice(["move", "keep"]), default=None, help="UDP flows: move, keep.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 settings or variables invalid, 6 busy.",
)
def cli() -> None:
    """Forward connections to wherever a service is now.

    \b
    $ docker run -d --cap-add NET_ADMIN --sysctl net.ipv4.ip_forward=1 --name redis \\
          -e REDIS_PORT_6379_TCP=tcp://10.0.0.5:6379 dom0-ambassador
    $ docker exec redis dom0-ambassador show
    $ docker exec redis dom0-ambassador rewire --to 10.0.0.6:6379 --existing drain=30s
    """


@cli.command()
def run() -> None:
    """Forward as the environment says, until SIGTERM. What the image runs.

    \b
    REDIS_PORT_6379_TCP=tcp://HOST:6379   a link variable, any number of them; UDP too
    DOM0_AMBASSADOR={"listen": {…}}       settings as JSON: policies, several targets, health
    """
    import asyncio

    from dom0 import log
    from dom0.ambassador.serve import serve

    try:
        log.configure(os.environ.get("DOM0_LOG", "info"))
    except ValueError as error:
        raise UsageError(f"DOM0_LOG: {error}", hint="debug, info, warning or error") from error
    asyncio.run(serve(os.environ))


@cli.command()
def check() -> None:
    """Read the environment as `run` would, and change nothing.

    \b
    $ docker exec redis dom0-ambassador check
    """
    from dom0.ambassador.declaration import from_environment

    declaration, ignored = from_environment(os.environ)
    for rule in declaration.rules:
        say(f"{rule.listener} → {', '.join(map(str, rule.sources))}")
    for name in ignored:
        say_to_stderr(f"dom0-ambassador: {name}: is not forwarded")


@cli.command()
@JSON
def ls(*, as_json: bool) -> None:
    """List listeners and where they lead."""
    state = _state()
    if as_json:
        return say_json(state.listeners)
    from dom0.ambassador import text

    rows = [
        (it.listener, ", ".join(it.targets) or "-", str(it.generation or "-"), str(it.flows), text.remark(it))
        for it in state.listeners
    ]
    return say_columns(("LISTENER", "TARGETS", "GENERATION", "FLOWS", "REMARK"), rows)


@cli.command()
@JSON
def show(*, as_json: bool) -> None:
    """Everything about this ambassador: listeners, policies, problems."""
    state = _state()
    if as_json:
        return say_json(state)
    from dom0.ambassador import text

    say(f"dom0-ambassador {state.version}, forwards by: {state.plane}, shortcut: {'on' if state.shortcut else 'off'}")
    for it in state.listeners:
        existing = f"existing: {state.existing[it.listener]}"
        say("\n".join(["", *text.listener_lines(it, f"{it.flows} flows", existing)]))
    for line in text.problem_lines(state.problems):
        say(line)
    return None


@cli.command()
@click.option("--to", multiple=True, required=True, metavar="HOST[:PORT]", help="The new target; several share.")
@LISTENER
@EXISTING
@UDP
@click.option("--hold", is_flag=True, help="Let new connections wait until the target accepts one.")
@click.option("--hold-timeout", default="30s", metavar="TIME", help="Else nothing is changed.", show_default=True)
@click.option("--plan", is_flag=True, help="Change nothing; list the connections it concerns.")
@JSON
def rewire(
    *,
    to: tuple[str, ...],
    listener: str,
    existing: str,
    udp: Any,
    hold: bool,
    hold_timeout: str,
    plan: bool,
    as_json: bool,
) -> None:
    """Send new connections elsewhere from now on; none is refused by the switch.

    \b
    $ dom0-ambassador rewire --to 10.0.0.6:6379                      # old ones go on until they end
    $ dom0-ambassador rewire --to 10.0.0.6:6379 --existing cut       # both ends of the old ones learn it now
    $ dom0-ambassador rewire --to redis-b --existing drain=30s --hold
    $ dom0-ambassador rewire --listener 53/udp --to 10.0.0.6:53 --udp move --plan
    """
    from dom0.ambassador.declaration import parse_wait
    from dom0.ambassador.messages import Planned, Receipt, Rewire

    request = Rewire(
        to=to, listener=listener, existing=existing, udp=udp, hold=hold, hold_timeout=hold_timeout, plan=plan
    )
    try:
        patience = 60 + (parse_wait(hold_timeout) if hold else 0)
    except ValueError as error:
        raise UsageError(f"--hold-timeout: {error}") from error
    answer = _ask(request, Planned if plan else Receipt, timeout=patience)
    if as_json:
        say_json(answer)
    elif plan:
        _say_planned(answer)
    else:
        _say_receipt(answer)


@cli.command()
@LISTENER
@EXISTING
@UDP
@JSON
def undo(*, listener: str, existing: str, udp: Any, as_json: bool) -> None:
    """Back to the targets before the last rewire; undo again goes back one more.

    \b
    $ dom0-ambassador undo
    $ dom0-ambassador undo --listener 6379 --existing cut
    """
    from dom0.ambassador.messages import Receipt, Undo

    receipt = _ask(Undo(listener=listener, existing=existing, udp=udp), Receipt)
    say_json(receipt) if as_json else _say_receipt(receipt)


@cli.command()
@JSON
def history(*, as_json: bool) -> None:
    """List receipts: what was rewired, by whom or what, and what became of old connections."""
    from dom0.ambassador.messages import History, Receipt

    receipts: list[Receipt] = _ask(History(), list[Receipt])
    if as_json:
        return say_json(receipts)
    from dom0.ambassador import text

    return say_columns(text.HISTORY, map(text.history_row, receipts))


@cli.command()
@LISTENER
@click.option("--generation", "-g", type=click.IntRange(min=0), default=0, help="Only those of one generation.")
@JSON
def flows(*, listener: str, generation: int, as_json: bool) -> None:
    """List connections: who, where to, since which generation."""
    from dom0.ambassador.messages import Flows
    from dom0.forward.dataplane import Flow

    found: list[Flow] = _ask(Flows(listener=listener, generation=generation), list[Flow])
    return say_json(found) if as_json else _say_flows(found)


@cli.command()
def version() -> None:
    """Print the version."""
    from dom0 import __version__

    say(f"dom0-ambassador {__version__}")


def _state() -> State:
    from dom0.ambassador.messages import Show, State

    state: State = _ask(Show(), State)
    return state


def _ask(request: Any, kind: Any, *, timeout: float = 60.0) -> Any:
    from dom0.ambassador.client import ask
    from dom0.ambassador.messages import CONTROL, RUN_DIRECTORY

    path = Path(os.environ.get("DOM0_RUN", RUN_DIRECTORY)) / Path(CONTROL).name
    return ask(request, kind, path=path, timeout=timeout)


def _say_receipt(receipt: Receipt) -> None:
    from dom0.ambassador import text

    generations = ", ".join(map(str, receipt.generations))
    say(text.headline(receipt))
    say(f"  receipt {receipt.number}, generation {generations}, switched in {receipt.switch_ms:.1f} ms")
    say(f"  old connections: {text.old_connections(receipt)}")


def _say_planned(planned: Planned) -> None:
    from dom0.ambassador import text

    say(text.headline(planned.receipt))
    say(f"  would be: {text.old_connections(planned.receipt)}")
    _say_flows(planned.flows)


def _say_flows(found: Iterable[Flow]) -> None:
    from dom0.ambassador import text

    heads = ("LISTENER", "GENERATION", "CLIENT", "TARGET", "STATE", "SENT", "RECEIVED")
    cells = map(text.flow_cells, found)
    say_columns(heads, [[one[head] for head in heads] for one in cells])


def say(text: str) -> None:
    click.echo(printable(text, keep="\n"))


def say_to_stderr(text: str) -> None:
    click.echo(printable(text, keep="\n"), err=True)


def say_json(document: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def say_columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    cells = [heads, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(heads))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(_run(sys.argv[1:]))


def _run(argv: Sequence[str]) -> int:
    try:
        cli.main(list(argv), prog_name="dom0-ambassador", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        return _refuse(UsageError(error.format_message(), hint="dom0-ambassador --help"))
    except Dom0Error as error:
        return _refuse(error)
    except BaseExceptionGroup as group:
        errors = group.subgroup(Dom0Error)
        if errors is None:
            raise
        return _refuse(_first(errors))
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # nobody reads any more; the flush at exit stays quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _refuse(Dom0Error(f"{error.filename or 'dom0-ambassador'}: {error.strerror or error}"))
    return 0


def _refuse(error: Dom0Error) -> int:
    say_to_stderr(f"dom0-ambassador: {error.message}")
    if error.hint:
        say_to_stderr("\n".join(f"      {line}" for line in error.hint.splitlines()))
    return error.exit_code


def _first(group: BaseExceptionGroup[Dom0Error]) -> Dom0Error:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


if __name__ == "__main__":
    main()
