"""What commands print: text, tables, JSON, questions, errors. Nothing from outside reaches a terminal unescaped."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeAlias

from dom0.errors import Dom0Error, UsageError
from dom0.printable import printable as printable

Branch: TypeAlias = "tuple[str, Sequence[Branch]]"  # a line, and what is below it
QUIET = "dom0.quiet"  # in click's context: the option was given
_HINTS = {
    errno.ENOSPC: "free some space: df -h",
    errno.EDQUOT: "free some space: df -h",
    errno.EACCES: "run it as root, or as a user who may",
    errno.EPERM: "run it as root, or as a user who may",
}
_KNOWN = (Dom0Error, OSError, KeyboardInterrupt, EOFError)  # all others are bugs


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


def say_progress(text: str) -> None:
    """Beside the result, for people who do not want it quiet."""
    if not quiet():
        say_to_stderr(text)


def say_over(text: str) -> None:
    """Over the last line of the terminal that standard error is, cut where that ends; "" clears it."""
    import shutil

    line = printable(text)[: shutil.get_terminal_size().columns - 1]
    sys.stderr.write(f"\r{line}\x1b[K")
    sys.stderr.flush()


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def say_json(document: Any) -> None:
    """One JSON document, indented: for programs, and readable."""
    import msgspec

    _write(sys.stdout, msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say_json_line(document: Any) -> None:
    import msgspec

    _write(sys.stdout, msgspec.json.encode(document).decode())


def say_result(document: Any, *lines: str, as_json: bool) -> None:
    """The answer to a question: `document` for programs, `lines` for people."""
    if as_json:
        say_json(document)
        return
    for line in lines:
        say(line)


def say_done(document: Any, *lines: str, as_json: bool) -> None:
    """What a command did, as `say_result`; people may want it quiet."""
    if as_json or not quiet():
        say_result(document, *lines, as_json=as_json)


def say_table(
    document: Any,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    as_json: bool,
    colours: Mapping[str, Mapping[str, str]] = {},
) -> None:
    """A list: `document` for programs, a table for people (see `columns`)."""
    if as_json:
        say_json(document)
    else:
        say_columns(heads, rows, colours=colours)


def say_columns(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, colours: Mapping[str, Mapping[str, str]] = {}
) -> None:
    import click  # leaves the colours out where standard output is no terminal

    for line in columns(heads, rows, colours=colours):
        click.echo(line)


def columns(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, colours: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """A table as docker prints it: upper-case heads, two or more spaces between columns.

    `colours`: by the head of a column that has some, the colour of each of its texts; yellow for all others.
    """
    import click

    cells = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for index, row in enumerate(cells):
        line = ""
        for head, cell, width in zip(heads, row, widths, strict=True):
            painted = click.style(cell, fg=colours[head].get(cell, "yellow")) if index and head in colours else cell
            line += painted + " " * (width - len(cell) + 2)
        lines.append(line.rstrip())
    return lines


def branches(trees: Sequence[Branch], indent: str = "") -> Iterator[str]:
    """Lines as tree(1) prints what is below a root."""
    for index, (text, below) in enumerate(trees):
        is_last = index == len(trees) - 1
        yield f"{indent}{'└── ' if is_last else '├── '}{text}"
        yield from branches(below, indent + ("    " if is_last else "│   "))


def has_keyboard() -> bool:
    return sys.stdin.isatty()


def confirm(question: str, refusal: str) -> None:
    """Raises UsageError unless a person at a terminal says yes. Ctrl-C ends it, where asyncio runs as well: its own
    handler would wait for the answer.
    """
    import signal

    import click

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        is_confirmed = has_keyboard() and click.confirm(question, err=True)
    finally:
        signal.signal(signal.SIGINT, before)
    if not is_confirmed:
        raise UsageError(refusal, hint="--yes confirms")


def size(count: int) -> str:
    """Bytes as docker writes them: 1.5kB, 230MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"


def end(error: BaseException, *, program: str = "dom0", as_json: bool = False) -> int:
    """Say on standard error what ended a command, and return its exit code. Raises `error` again if it is a bug."""
    while isinstance(error, BaseExceptionGroup):
        known = error.subgroup(_KNOWN)
        if known is None:
            raise error
        error = known.exceptions[0]
    match error:
        case Dom0Error():
            if as_json:
                import json

                document = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
                sys.stderr.write(f"{json.dumps(document)}\n")
            else:
                hints = (f"      {line}" for line in error.hint.splitlines())
                say_to_stderr("\n".join((f"{program}: {error.message}", *hints)))
            return error.exit_code
        case BrokenPipeError():  # the reader has gone; keeps the flush at exit quiet
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        case OSError():
            where = f"{error.filename}: " if isinstance(error.filename, str) else ""
            failed = Dom0Error(f"{where}{error.strerror or error}", hint=_HINTS.get(error.errno or 0, ""))
            return end(failed, program=program, as_json=as_json)
        case KeyboardInterrupt() | EOFError():
            say_to_stderr("")  # ends the line of the terminal's ^C
            return 130
    raise error
