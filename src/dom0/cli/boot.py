"""`dom0 boot`: what a boot went through, as a table or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dom0 import terminal, times
from dom0.cli.places import require_here
from dom0.errors import Dom0Error, UsageError
from dom0.names import run_directory, state_directory

if TYPE_CHECKING:
    from dom0.host.boot import Boot

_WIDTH = 40  # characters of the longest bar
_PICTURES = (".svg", ".png")


@click.command(name="boot")
@click.argument("number", required=False, type=int)
@click.option("--last", metavar="N", type=click.IntRange(min=1), help="List the last N boots, a line for each.")
@click.option(
    "--compare", nargs=2, type=int, metavar="A B", help="Show how boot B differs from boot A, stage by stage."
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw it instead, to a file that ends in .svg or .png.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="A Boot document, with --last a list; with --compare Differences."
)
def command(
    number: int | None, last: int | None, compare: tuple[int, int] | None, plot: Path | None, as_json: bool
) -> None:
    """Show what a boot went through: every stage from power-on to the last service, and the slowest one.

    NUMBER is that of a boot as `--last` lists them; left out, it is the boot that this machine is in.

    $ dom0 boot
    $ dom0 boot --last 10
    $ dom0 boot --compare 6 7
    $ dom0 boot --plot boot.svg
    """
    if sum(one is not None for one in (number, last, compare)) > 1:
        raise UsageError("boot: NUMBER, --last and --compare exclude each other", hint="`dom0 boot --help`")
    if plot is not None and plot.suffix not in _PICTURES:
        raise UsageError(f"boot: --plot {plot}: ends neither in .svg nor in .png", hint="--plot boot.svg")
    boots = _boots()
    if compare:
        chosen = [_pick(boots, one) for one in compare]
    elif last:
        chosen = boots[-last:]
    else:
        chosen = [boots[-1] if number is None else _pick(boots, number)]
    if plot:
        _draw(chosen, plot, as_strips=bool(last))
        terminal.say(str(plot))
    if plot and not as_json:
        return
    if compare:
        _show_differences(*chosen, as_json=as_json)
    elif last:
        heads = ("", "BOOT", "RECORDED", "FIRMWARE", "ENGINE", "DOM0", "READY", "SLOWEST")
        terminal.say_table(chosen, heads, map(_line, chosen), as_json=as_json)
    else:
        _show_boot(chosen[0], as_json=as_json)


def _boots() -> list[Boot]:
    from dom0.host import boot_record
    from dom0.host.boot import analyze

    require_here("the record of boots")
    records = boot_record.read_all(run_directory(), state_directory())
    if not records:
        raise Dom0Error(
            f"{run_directory() / boot_record.RUNNING}: there is no record of a boot",
            hint="dom0's base OS keeps one, and the launcher on another host: see docs/boot.md",
        )
    return [analyze(record) for record in records]


def _pick(boots: Sequence[Boot], number: int) -> Boot:
    for boot in boots:
        if boot.number == number:
            return boot
    there = f"{boots[0].number} to {boots[-1].number}" if len(boots) > 1 else str(boots[0].number)
    raise UsageError(f"boot: there is no record of boot {number}", hint=f"recorded: {there}; dom0 boot --last 50")


def _show_boot(boot: Boot, *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(boot)
        return
    ready = f"ready after {boot.ready - boot.began:.2f} s" if boot.ready is not None else "not ready"
    slowest = next((f"; slowest: {it.name}, {it.seconds:.2f} s" for it in boot.stages if it.name == boot.slowest), "")
    terminal.say(f"boot {boot.number}, {times.moment(boot.written)}: {ready}{slowest}")
    longest = max(boot.ended - boot.began, 0.01)
    rows = (
        (
            stage.name,
            _number(f"{stage.began - boot.began:.2f}"),
            _number(f"{stage.seconds:.2f}"),
            _bar(stage.began - boot.began, stage.ended - boot.began, longest),
            ("slowest " if stage.name == boot.slowest else "") + stage.text,
        )
        for stage in boot.stages
    )
    terminal.say_columns(("STAGE", _number("FROM"), _number("TOOK"), "", ""), rows)
    for trouble in boot.troubles:
        terminal.say(f"problem after {trouble.at - boot.began:.2f} s: {trouble.text}")
    if boot.firmware is None:
        terminal.say("Times are from the kernel's start: this machine does not tell how long its firmware took.")
    if boot.unreadable:
        terminal.say(f"Lines of the record that are not understood: {boot.unreadable}")


def _bar(began: float, ended: float, longest: float) -> str:
    start = min(int(began / longest * _WIDTH), _WIDTH - 1)
    length = max(round(ended / longest * _WIDTH) - start, 1)
    return "·" * start + "█" * length + "·" * (_WIDTH - start - length)


def _line(boot: Boot) -> tuple[str, ...]:
    ends = {stage.name: f"{stage.ended - boot.began:.2f}" for stage in boot.stages}
    return (
        "*" if boot.running else "",
        str(boot.number),
        times.moment(boot.written),
        f"{boot.firmware:.2f}" if boot.firmware is not None else "-",
        ends.get("engine", "-"),
        ends.get("dom0", "-"),
        f"{boot.ready - boot.began:.2f}" if boot.ready is not None else "-",
        next((f"{stage.name} {stage.seconds:.2f}" for stage in boot.stages if stage.name == boot.slowest), "-"),
    )


def _show_differences(before: Boot, after: Boot, *, as_json: bool) -> None:
    from dom0.host.boot import READY, compare

    differences = compare(before, after)
    rows = []
    for row in differences:
        took = ["-" if one is None else f"{one:.2f}" for one in (row.before, row.after)]
        rows.append((row.name, *map(_number, (*took, f"{row.more:+.2f}"))))
    heads = map(_number, (f"BOOT {before.number}", f"BOOT {after.number}", "MORE"))
    terminal.say_table(differences, ("STAGE", *heads), rows, as_json=as_json)
    stages = [row for row in differences if row.name != READY]
    if not as_json and (worst := max(stages, key=lambda row: abs(row.more), default=None)):
        terminal.say(f"\nlargest difference: {worst.name}, {worst.more:+.2f} s")


def _number(text: str) -> str:
    return text.rjust(7)


def _draw(chosen: Sequence[Boot], to: Path, *, as_strips: bool) -> None:
    import asyncio

    from dom0.host import boot_plot
    from dom0.run import CommandFailed, capture

    picture = boot_plot.strips(chosen) if as_strips else boot_plot.waterfall(chosen)
    if to.suffix == ".svg":
        to.write_text(picture)
        return
    argv = ["rsvg-convert", "--format=png", "--zoom=2", f"--output={to}"]
    try:
        asyncio.run(capture(argv, stdin=picture.encode(), timeout=60))
    except CommandFailed as error:
        if error.code is not None:
            raise
        raise Dom0Error(
            f"boot: --plot {to}: needs rsvg-convert",
            hint="apt-get install librsvg2-bin; or --plot boot.svg, and elsewhere: rsvg-convert -o boot.png boot.svg",
        ) from error
