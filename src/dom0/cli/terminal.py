"""What the commands print: plain text, columns, JSON, errors. Nothing from outside reaches a terminal unescaped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from dom0.errors import Dom0Error
from dom0.printable import printable as printable

QUIET = "dom0.quiet"  # in click's context: the option was given

Style = Callable[[str], str]


def quiet() -> bool:
    """Whether the caller wants results and errors only: no progress, no advice. Without click there was no option."""
    if "click" not in sys.modules:
        return False
    import click

    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def say(text: str = "") -> None:
    """Print lines of our own and quoted text on standard output; control characters are escaped."""
    _write(sys.stdout, printable(text, keep="\n\t"))


def say_to_stderr(text: str) -> None:
    _write(sys.stderr, printable(text, keep="\n\t"))


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def say_error(error: Dom0Error, *, as_json: bool = False) -> None:
    """`dom0: where: what is wrong`, and below it what to do; or one JSON document."""
    if as_json:
        import json

        document = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        sys.stderr.write(f"{json.dumps(document)}\n")
        return
    say_to_stderr(f"dom0: {error.message}")
    if error.hint:
        say_to_stderr("\n".join(f"      {line}" for line in error.hint.splitlines()))


def say_json(document: Any) -> None:
    """One JSON document, indented: for programs, and readable."""
    import msgspec

    _write(sys.stdout, msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say_json_line(document: Any) -> None:
    import msgspec

    _write(sys.stdout, msgspec.json.encode(document).decode())


def say_columns(heads: Sequence[str], rows: Iterable[Sequence[str]], *, styles: dict[str, Style] | None = None) -> None:
    """A table as docker prints it: upper-case heads, two or more spaces between columns.

    `styles` gives by head how a cell of that column is coloured on a terminal.
    """
    import click  # leaves the colours out where nobody sees them

    for line in columns(heads, rows, styles=styles or {}):
        click.echo(line)


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]], *, styles: dict[str, Style]) -> list[str]:
    cells = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(heads))]
    paint = [styles.get(head) for head in heads]
    return [_line(row, widths, paint if index else [None] * len(heads)) for index, row in enumerate(cells)]


def _line(row: Sequence[str], widths: Sequence[int], paint: Sequence[Style | None]) -> str:
    last = len(row) - 1
    padding = ["" if index == last else " " * (widths[index] - len(cell) + 2) for index, cell in enumerate(row)]
    painted = [style(cell) if style else cell for cell, style in zip(row, paint, strict=True)]
    return "".join(cell + pad for cell, pad in zip(painted, padding, strict=True)).rstrip()


def size(count: int) -> str:
    """Bytes as docker writes them: 1.5kB, 230MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"


def is_terminal() -> bool:
    return sys.stdout.isatty()


def has_keyboard() -> bool:
    return sys.stdin.isatty()


def short_id(identifier: str) -> str:
    """An ID as docker shows it: twelve hex digits."""
    return identifier.removeprefix("sha256:")[:12]
