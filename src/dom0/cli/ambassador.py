"""`dom0 ambassador`: look at and rewire the ambassadors of this machine; and what legacy links need."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dom0 import terminal
from dom0.ambassador import options
from dom0.cli import completion
from dom0.cli.client import ANSWER_WITHIN, Agent, AgentUnreachable
from dom0.errors import EXIT_CHANGES, EngineError, UsageError
from dom0.health import problem_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dom0.agent.ambassador_status import AmbassadorStatus, PlacedFlow
    from dom0.ambassador.messages import ListenerState
    from dom0.cli.legacy_links import Legacy

_name = click.argument("name", metavar="AMBASSADOR", shell_complete=completion.ambassadors)


@click.group(name="ambassador")
def command() -> None:
    """Forward connections to wherever a service is now: consumers keep their address, and their connections.

    AMBASSADOR is the name of its service.

    $ dom0 ambassador ls
    $ dom0 ambassador rewire redis --to 10.0.0.5:6379
    """


@command.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="A list of the agent's AmbassadorStatus documents.")
def list_all(as_json: bool) -> None:
    """List the ambassadors of this machine and their targets.

    $ dom0 ambassador ls
    """
    from dom0.ambassador.messages import ListenerState

    with _agent() as agent:
        found = agent.ambassadors()
    unknown = ListenerState(listener="-", generation=0, sources=(), targets=())
    rows = (
        (
            one.service,
            listener.listener,
            ", ".join(listener.targets),
            f"{sum(listener.listener in it.listeners for it in one.shortcuts)} of {len(one.shortcuts)}",
            _remark(one, listener),
        )
        for one in found
        for listener in (one.state.listeners if one.state else (unknown,))
    )
    terminal.say_table(found, ("AMBASSADOR", "LISTENER", "TARGETS", "SHORTCUTS", "REMARK"), rows, as_json=as_json)


@command.command(name="show")
@_name
@click.option("--json", "as_json", is_flag=True, help="The agent's AmbassadorStatus document.")
def show(name: str, as_json: bool) -> None:
    """Show everything about one ambassador: listeners, which consumers have the shortcut and which not, and why.

    $ dom0 ambassador show redis
    """
    with _agent() as agent:
        found = next((one for one in agent.ambassadors() if name in (one.service, one.container)), None)
    if found is None:
        raise UsageError(f"{name}: is no ambassador of this machine", hint="dom0 ambassador ls")
    terminal.say_result(found, *_lines(found), as_json=as_json)


@command.command(name="rewire")
@_name
@click.option("--to", multiple=True, required=True, metavar="TARGET", help="Where to; several share the connections.")
@options.rewire
@click.option("--json", "as_json", is_flag=True, help="The agent's Rewired document.")
def rewire(name: str, as_json: bool, **given: Any) -> None:
    """Give an ambassador other targets; new connections go there at once, those through shortcuts too.

    TARGET is HOST:PORT, container:NAME:PORT, service:NAME:PORT or label:KEY=VALUE:PORT; without :PORT the present port
    stays. It may be node:NODE/service:NAME:PORT too, of another node of the farm. The answer is a receipt: what became
    of the connections of before.

    $ dom0 ambassador rewire redis --to 10.0.0.5:6379 --existing drain=30s
    $ dom0 ambassador rewire redis --to service:redis-new --hold
    $ dom0 ambassador rewire redis --to 10.0.0.5 --existing cut --plan
    """
    request, within = options.rewire_request(ANSWER_WITHIN, **given)
    _change(name, "rewire", request, within, plan=request.plan, as_json=as_json)


@command.command(name="undo")
@_name
@options.undo
@click.option("--json", "as_json", is_flag=True, help="The agent's Rewired document.")
def undo(name: str, as_json: bool, **given: Any) -> None:
    """Go back to the targets before the last rewire; the options are for connections made since.

    $ dom0 ambassador undo redis
    """
    from dom0.ambassador.messages import Undo

    _change(name, "undo", Undo(**given), ANSWER_WITHIN, plan=False, as_json=as_json)


@command.command(name="history")
@_name
@click.option("--json", "as_json", is_flag=True, help="A list of Receipt documents, the oldest first.")
def history(name: str, as_json: bool) -> None:
    """List the receipts of an ambassador: when its targets changed, why, and what became of connections.

    $ dom0 ambassador history redis
    """
    from dom0.ambassador import text
    from dom0.ambassador.messages import Receipt

    with _agent() as agent:
        receipts = agent.call("GET", _path(name, "history"), list[Receipt])
    terminal.say_table(receipts, text.HISTORY, map(text.history_row, receipts), as_json=as_json)


@command.command(name="flows")
@_name
@options.listener
@click.option("--generation", type=click.IntRange(min=1), metavar="N", help="Only those of one generation.")
@click.option("--json", "as_json", is_flag=True, help="A list of the agent's PlacedFlow documents.")
def flows(name: str, listener: str, generation: int | None, as_json: bool) -> None:
    """List the connections that an ambassador and its shortcuts forward now.

    $ dom0 ambassador flows redis --listener 6379
    """
    from urllib.parse import urlencode

    from dom0.agent.ambassador_status import PlacedFlow

    asked = {"listener": listener} if listener else {}
    asked |= {"generation": str(generation)} if generation else {}
    with _agent() as agent:
        found = agent.call("GET", f"{_path(name, 'flows')}?{urlencode(asked)}", list[PlacedFlow])
    if as_json:
        terminal.say_json(found)
    else:
        _show_flows(found)


@command.command(name="migrate")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with container, links, breaks, compose, …")
def migrate(as_json: bool) -> int:
    """Find containers on this host that use legacy links, and say what replaces each link.

    Asks the Docker Engine only, and changes nothing. Ends with 10 if there are any, with 0 if there are none.

    $ dom0 ambassador migrate
    $ dom0 ambassador migrate --json | jq -r '.[].compose'
    """
    from dom0.cli import engine_client
    from dom0.cli.checks import read_version
    from dom0.cli.legacy_links import examine, is_legacy

    listed = (engine_client.inspect(row.id) for row in engine_client.containers())
    by_name = {found.name.removeprefix("/"): found for found in listed if found is not None}
    version = engine_client.engine_version()
    found = [
        examine(container, by_name, engine=read_version(version)[0])
        for _, container in sorted(by_name.items())
        if is_legacy(container)
    ]
    if as_json:
        terminal.say_json(found)
    elif not found:
        terminal.say("no container here has a legacy link")
    else:
        for one in found:
            _show_legacy(one)
        if not terminal.quiet():
            terminal.say(f"This Engine is {version}.")
    return EXIT_CHANGES if found else 0


def _show_legacy(one: Legacy) -> None:
    links = ", ".join(f"{link.target} as {link.alias}" for link in one.links)
    terminal.say(f"{one.container} ({one.image}) is linked to {links}")
    for text in one.breaks:
        terminal.say(f"  {text}")
    if one.named:
        terminal.say(f"  its command or environment names {', '.join(one.named)}")
    copied = [name for link in one.links for name in link.copied]
    if copied:
        terminal.say(f"  copied from the linked containers and not replaced below: {', '.join(copied)}")
    terminal.say("  in a Compose file, these lines replace the link:\n")
    terminal.say("\n".join(f"    {line}" for line in one.compose.splitlines()))
    terminal.say()


@contextmanager
def _agent() -> Iterator[Agent]:
    """Where it does not answer and an ambassador may run, the error says how to ask that one itself."""
    try:
        yield Agent()
    except AgentUnreachable as error:
        from dom0.cli import engine_client
        from dom0.plan import labels

        try:  # ambassadors run on without dom0, but not after `dom0 down`
            may_run = any(one.state == "running" for one in engine_client.containers(labels.AMBASSADOR))
        except EngineError:
            may_run = True
        if not may_run:
            raise
        verb = click.get_current_context().info_name
        hint = f"{error.hint}\nor ask the ambassador itself: docker exec AMBASSADOR dom0-ambassador {verb}"
        raise AgentUnreachable(error.message, hint=hint) from error


def _path(name: str, verb: str) -> str:
    from urllib.parse import quote

    return f"/v1/ambassadors/{quote(name, safe='')}/{verb}"


def _change(name: str, verb: str, request: Any, within: float, *, plan: bool, as_json: bool) -> None:
    from dom0.agent.ambassador_status import Rewired
    from dom0.ambassador import text

    with _agent() as agent:
        rewired = agent.call("POST", _path(name, verb), Rewired, body=request, within=within)
    if as_json:
        terminal.say_json(rewired)
        return
    receipt = rewired.receipt
    beside = text.counts(rewired.shortcuts)
    old = text.old_connections(receipt) + (f" (in shortcuts: {', '.join(beside)})" if beside else "")
    terminal.say(text.headline(receipt))
    if plan:
        terminal.say(f"  would be: {old}")
        _show_flows(rewired.flows)
        return
    terminal.say(f"  receipt {receipt.number}, switched in {receipt.switch_ms:.1f} ms; old connections: {old}")
    for refused in rewired.refused:
        terminal.say_to_stderr(f"  shortcut of {refused}; its connections take the ambassador")


def _remark(one: AmbassadorStatus, listener: ListenerState | None) -> str:
    from dom0.ambassador import text

    if not one.running:
        return "does not run"
    said = [f"cannot be asked: {one.error}"] if one.error else []
    said += [remark] if listener and (remark := text.remark(listener)) else []
    return "; ".join(said)


def _lines(one: AmbassadorStatus) -> list[str]:
    from dom0.ambassador import text

    state = one.state
    if state is None:
        return [f"{one.service}: container {one.container}, {_remark(one, None) or 'not heard of yet'}"]
    shortcut = "on" if state.shortcut else "off"
    lines = [f"{one.service}: container {one.container}, forwards by: {state.plane}, shortcut: {shortcut}"]
    lines += [f"  cannot be asked: {one.error}; what follows is what it said last"] if one.error else []
    for listener in state.listeners:
        existing = state.existing.get(listener.listener, "")
        lines += ["", *text.listener_lines(listener, f"existing: {existing}")]
    lines += ["", "Consumers on its networks:"] if one.shortcuts else []
    for consumer in one.shortcuts:
        has = f"shortcut for {', '.join(consumer.listeners)}" if consumer.listeners else "no shortcut"
        lines.append(f"  {consumer.consumer}: {has}{f' ({consumer.reason})' if consumer.reason else ''}")
    return [*lines, *problem_lines(state.problems)]


def _show_flows(found: Iterable[PlacedFlow]) -> None:
    from dom0.ambassador import text

    heads = ("LISTENER", "GENERATION", "SHORTCUT", "CLIENT", "TARGET", "STATE")
    cells = [text.flow_cells(one.flow) | {"SHORTCUT": one.consumer or "-"} for one in found]
    terminal.say_columns(heads, [[one[head] for head in heads] for one in cells])
