"""`dom0 logs`: what the containers of services print, in order of time, and as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal
from dom0.agent.status import LogLine
from dom0.cli import completion, options
from dom0.cli.containers import find_containers, say_if_none
from dom0.cli.engine_client import on_engine
from dom0.engine.log_lines import Line, read_lines
from dom0.errors import NotFound, UsageError
from dom0.names import ROOT
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.engine.docker import DockerEngine
    from dom0.engine.values import ContainerSummary

START_MARGIN = 10.0  # seconds
_COLOURS = cycle(("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green"))


def _read_tail(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number nor all")
    return int(value)


def _read_time(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """As docker logs takes it: seconds since the epoch, a date and time, or how long ago."""
    for read in (float, options.parse_time):
        with contextlib.suppress(ValueError):
            return read(value)
    raise click.BadParameter(f"{value!r} is no time: 10m, 2026-11-23T12:00:00 or seconds since the epoch")


@click.command(name="logs")
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes, also from containers that come later.")
@click.option(
    "-n",
    "--tail",
    metavar="LINES",
    default="all",
    callback=_read_tail,
    help="Only the last LINES lines of each container; default: all.",
)
@click.option(
    "--since", metavar="TIME", default="0", callback=_read_time, help="Only later lines: 10m, or a date and time."
)
@click.option("--until", metavar="TIME", default="0", callback=_read_time, help="Only earlier lines, as --since.")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line.")
@click.option("--no-log-prefix", is_flag=True, help="Do not say which container a line is from.")
@click.option("--json", "as_json", is_flag=True, help="Objects, one a line: time, service, container, text.")
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completion.services)
def command(
    follow: bool,
    tail: int | None,
    since: float,
    until: float,
    timestamps: bool,
    no_log_prefix: bool,
    as_json: bool,
    services: tuple[str, ...],
) -> None:
    """Show what services print, all of their containers together; without SERVICE those of all services.

    `dom0` is the root container itself.

    $ dom0 logs -f --tail 20 redis
    $ dom0 logs --since 10m --until 2026-11-23T12:00:00
    $ dom0 logs dom0
    """
    if follow and until:
        raise UsageError("logs: --follow has no end, and --until names one", hint="leave one of them out")
    printer = JsonPrinter() if as_json else Printer(timestamps=timestamps, prefix=not no_log_prefix)
    on_engine(lambda engine: _show(engine, services, printer, Span(tail, since, until), follow=follow))


class Span(msgspec.Struct, frozen=True):
    """Which lines of a container: the last `tail` (None: all) between two times (0: no bound)."""

    tail: int | None = None
    since: float = 0.0
    until: float = 0.0


async def _show(engine: DockerEngine, services: Sequence[str], printer: Printer, span: Span, *, follow: bool) -> None:
    before = time.time()
    containers = await find_containers(engine, services)
    say_if_none(containers)
    printer.width = max((len(_title(container)) for container in containers), default=0)
    if follow:
        await _follow(engine, containers, before, services, printer, span)
        return
    async with contextlib.AsyncExitStack() as stack:  # the oldest line first; one line of each is held in memory
        sources = []
        for container in containers:
            lines = contextlib.aclosing(_lines(engine, container, span, follow=False))
            sources.append((container, await stack.enter_async_context(lines)))
        heads = {index: await anext(lines, None) for index, (_, lines) in enumerate(sources)}
        while present := [(head, index) for index, head in heads.items() if head is not None]:
            head, index = min(present)
            container, its_lines = sources[index]
            printer.print(container, head)
            heads[index] = await anext(its_lines, None)


class Printer:
    """Writes lines with their container's name before them, each name in its colour."""

    def __init__(self, *, timestamps: bool, prefix: bool) -> None:
        self._timestamps = timestamps
        self._prefix = prefix
        self.width = 0  # of the names
        self._prefixes: dict[str, str] = {}

    def print(self, container: ContainerSummary, line: Line) -> None:
        moment = line.moment + b" " if self._timestamps else b""
        title = _title(container)
        if self._prefix and title not in self._prefixes:
            self._prefixes[title] = click.style(f"{title:{self.width}}  | ", fg=next(_COLOURS))
        click.echo(self._prefixes.get(title, ""), nl=False)
        click.echo(moment + line.text)  # as the program wrote it, colours too: docker does the same


class JsonPrinter(Printer):
    """Writes one document a line."""

    def __init__(self) -> None:
        super().__init__(timestamps=True, prefix=True)

    def print(self, container: ContainerSummary, line: Line) -> None:
        document = LogLine(
            time=line.moment.decode(errors="replace"),
            service=container.labels.get(labels.SERVICE, ROOT),
            container=container.name,
            text=line.text.decode(errors="replace"),
        )
        click.echo(msgspec.json.encode(document))


def _title(container: ContainerSummary) -> str:
    service, number = container.labels.get(labels.SERVICE, ROOT), container.labels.get(labels.NUMBER)
    return terminal.printable(f"{service}-{number}" if number else service)


async def _follow(
    engine: DockerEngine,
    listed: Sequence[ContainerSummary],
    before: float,
    services: Sequence[str],
    printer: Printer,
    span: Span,
) -> None:
    """Print what comes until interrupted. A container that starts, again or anew, is followed from its start on.

    `before`: a time before they were listed.
    """
    after = time.time()
    async with asyncio.TaskGroup() as tasks:
        running = {
            container.id: tasks.create_task(_print_all(engine, container, printer, span)) for container in listed
        }
        wanted = {"type": ["container"], "event": ["start"], "label": [labels.PROJECT]}
        async for event in engine.events(since=before, filters=wanted):
            if event.id in running and event.time < after:
                continue  # it was listed when it had started
            for container in await find_containers(engine, services, missing_is_error=False):
                if container.id == event.id:
                    earlier = running.get(event.id)
                    # Its first lines may be a little older than the event that told of its start.
                    later = Span(since=event.time - START_MARGIN) if earlier else Span()
                    task = _print_all(engine, container, printer, later, earlier)
                    running[event.id] = tasks.create_task(task)


async def _print_all(
    engine: DockerEngine,
    container: ContainerSummary,
    printer: Printer,
    span: Span,
    earlier: asyncio.Task[bytes] | None = None,
) -> bytes:
    """Print lines until the container ends, those that `earlier` has not printed; returns the time of the last one."""
    after = await earlier if earlier else b""
    try:
        async with contextlib.aclosing(_lines(engine, container, span, follow=True)) as lines:
            async for line in lines:
                if line.moment > after:
                    printer.print(container, line)
                    after = line.moment
    except NotFound:
        pass  # it was removed meanwhile
    return after


async def _lines(
    engine: DockerEngine, container: ContainerSummary, span: Span, *, follow: bool
) -> AsyncGenerator[Line]:
    """To be closed, as the request is then."""
    pieces = engine.follow_logs(container.id, tail=span.tail, since=span.since, until=span.until, follow=follow)
    async with contextlib.aclosing(read_lines(pieces)) as found:
        async for lines in found:
            for line in lines:
                yield line
