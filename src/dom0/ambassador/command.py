"""The `dom0-ambassador` command. Only this module of the package prints and exits.

It is what `docker exec AMBASSADOR dom0-ambassador …` runs, so it starts fast: everything else is loaded when needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dom0 import terminal
from dom0.ambassador import options
from dom0.errors import UsageError
from dom0.health import problem_lines
from dom0.terminal import say

if TYPE_CHECKING:
    from dom0.ambassador.messages import Receipt, State
    from dom0.forward.dataplane import Flow

PROGRAM = "dom0-ambassador"
ANSWER_WITHIN = 60.0  # seconds
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


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
        terminal.say_to_stderr(f"{PROGRAM}: {name}: is not forwarded")


@cli.command()
@JSON
def ls(*, as_json: bool) -> None:
    """List listeners and where they lead."""
    from dom0.ambassador import text

    listeners = _state().listeners
    rows = (
        (it.listener, ", ".join(it.targets) or "-", str(it.generation or "-"), str(it.flows), text.remark(it))
        for it in listeners
    )
    heads = ("LISTENER", "TARGETS", "GENERATION", "FLOWS", "REMARK")
    terminal.say_table(listeners, heads, rows, as_json=as_json)


@cli.command()
@JSON
def show(*, as_json: bool) -> None:
    """Everything about this ambassador: listeners, policies, problems."""
    from dom0.ambassador import text

    state, lines = _state(), []
    for it in state.listeners:
        existing = f"existing: {state.existing[it.listener]}"
        lines += ["", *text.listener_lines(it, f"{it.flows} flows", existing)]
    shortcut = "on" if state.shortcut else "off"
    head = f"dom0-ambassador {state.version}, forwards by: {state.plane}, shortcut: {shortcut}"
    terminal.say_result(state, head, *lines, *problem_lines(state.problems), as_json=as_json)


@cli.command()
@click.option("--to", multiple=True, required=True, metavar="HOST[:PORT]", help="The new target; several share.")
@options.rewire
@JSON
def rewire(*, as_json: bool, **given: Any) -> None:
    """Send new connections elsewhere from now on; none is refused by the switch.

    \b
    $ dom0-ambassador rewire --to 10.0.0.6:6379                      # old ones go on until they end
    $ dom0-ambassador rewire --to 10.0.0.6:6379 --existing cut       # both ends of the old ones learn it now
    $ dom0-ambassador rewire --to redis-b --existing drain=30s --hold
    $ dom0-ambassador rewire --listener 53/udp --to 10.0.0.6:53 --udp move --plan
    """
    from dom0.ambassador import text
    from dom0.ambassador.messages import Planned, Receipt

    request, within = options.rewire_request(ANSWER_WITHIN, **given)
    answer = _ask(request, Planned if request.plan else Receipt, timeout=within)
    if as_json:
        terminal.say_json(answer)
    elif not request.plan:
        _say_receipt(answer)
    else:
        say(text.headline(answer.receipt))
        say(f"  would be: {text.old_connections(answer.receipt)}")
        _say_flows(answer.flows)


@cli.command()
@options.undo
@JSON
def undo(*, as_json: bool, **given: Any) -> None:
    """Back to the targets before the last rewire; undo again goes back one more.

    \b
    $ dom0-ambassador undo
    $ dom0-ambassador undo --listener 6379 --existing cut
    """
    from dom0.ambassador.messages import Receipt, Undo

    receipt = _ask(Undo(**given), Receipt)
    terminal.say_json(receipt) if as_json else _say_receipt(receipt)


@cli.command()
@JSON
def history(*, as_json: bool) -> None:
    """List receipts: what was rewired, by whom or what, and what became of old connections."""
    from dom0.ambassador import text
    from dom0.ambassador.messages import History, Receipt

    receipts: list[Receipt] = _ask(History(), list[Receipt])
    terminal.say_table(receipts, text.HISTORY, map(text.history_row, receipts), as_json=as_json)


@cli.command()
@options.listener
@click.option("--generation", "-g", type=click.IntRange(min=0), default=0, help="Only those of one generation.")
@JSON
def flows(*, listener: str, generation: int, as_json: bool) -> None:
    """List connections: who, where to, since which generation."""
    from dom0.ambassador.messages import Flows
    from dom0.forward.dataplane import Flow

    found: list[Flow] = _ask(Flows(listener=listener, generation=generation), list[Flow])
    terminal.say_json(found) if as_json else _say_flows(found)


@cli.command()
def version() -> None:
    """Print the version."""
    from dom0 import __version__

    say(f"dom0-ambassador {__version__}")


def _state() -> State:
    from dom0.ambassador.messages import Show, State

    state: State = _ask(Show(), State)
    return state


def _ask(request: Any, kind: Any, *, timeout: float = ANSWER_WITHIN) -> Any:
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


def _say_flows(found: Iterable[Flow]) -> None:
    from dom0.ambassador import text

    heads = ("LISTENER", "GENERATION", "CLIENT", "TARGET", "STATE", "SENT", "RECEIVED")
    cells = map(text.flow_cells, found)
    terminal.say_columns(heads, [[one[head] for head in heads] for one in cells])


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    code = 0
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        code = terminal.end(UsageError(error.format_message(), hint=f"{PROGRAM} --help"), program=PROGRAM)
    except click.Abort:
        code = 130
    except BaseException as error:
        code = terminal.end(error, program=PROGRAM)
    sys.exit(code)


if __name__ == "__main__":
    main()
