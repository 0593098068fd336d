"""Writes the manual pages from the commands themselves: dom0(1) with all commands, and dom0-GROUP(1) for each of those
that have commands of their own.

python -m dom0.testing.manual DIRECTORY
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dom0 import __version__
from dom0.cli.commands import cli
from dom0.cli.modules import SECTIONS
from dom0.testing.reference import options, paragraphs

MARKED = re.compile(r"`([^`]+)`")
FILES = (
    ("/run/dom0/dom0.sock", "where the agent answers"),
    ("/var/lib/dom0", "generations, the journal, the files of the project as they are"),
)


def pages() -> dict[str, str]:
    """File name -> page in the man macros."""
    root = click.Context(cli)
    commands = {name: cli.get_command(root, name) for names in SECTIONS.values() for name in names}
    groups = {name: it for name, it in commands.items() if isinstance(it, click.Group)}
    others = [
        line for name in groups for line in (".TP", rf"\fB{_text(f'dom0-{name}')}\fR(1)", _text(_brief(groups[name])))
    ]
    body = [*prose(cli), ".SH OPTIONS", *_listed(options(cli, exposed=False))]
    for section, names in SECTIONS.items():
        body.append(f".SH {_text(section.upper())}")
        for name in names:
            if (command := commands[name]) is not None and name not in groups:
                body += _section(f"dom0 {name}", command)
        body += [
            line
            for name in names
            if name in groups
            for line in (".TP", rf"\fBdom0 {name}\fR", f"see \\fBdom0\\-{name}\\fR(1)")
        ]
    body += [".SH FILES", *(line for path, what in FILES for line in (".TP", _text(path), _text(what)))]
    body += [".SH EXIT STATUS", _text(cli.epilog or ""), ".SH SEE ALSO", *others]
    found = {"dom0.1": _page("dom0", "your whole machine is one container image", body)}
    for name, group in groups.items():
        inner = [
            line
            for child, it in group.commands.items()
            if not it.hidden
            for line in _section(f"dom0 {name} {child}", it)
        ]
        of_group = [*prose(group), ".SH COMMANDS", *inner, ".SH SEE ALSO", r"\fBdom0\fR(1)"]
        found[f"dom0-{name}.1"] = _page(f"dom0-{name}", _brief(group), of_group)
    return found


def _page(name: str, brief: str, body: list[str]) -> str:
    head = [
        f'.TH {_text(name.upper())} 1 "" "dom0 {__version__}" "dom0"',
        ".SH NAME",
        rf"{_text(name)} \- {_text(brief)}",
    ]
    usage = rf"\fB{_text(name.replace('-', ' ', 1))}\fR [\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]..."
    return "\n".join([*head, ".SH SYNOPSIS", usage, ".SH DESCRIPTION", *body, ""])


def _brief(command: click.Command) -> str:
    return (command.get_short_help_str(limit=200)).rstrip(".")


def _section(name: str, command: click.Command) -> Iterator[str]:
    yield f".SS {_text(name)}"
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    yield rf"\fB{_text(name)}\fR {_text(usage)}"
    yield from prose(command)
    yield from _listed(options(command, exposed=True))


def prose(command: click.Command) -> Iterator[str]:
    text, examples = paragraphs(command)
    for paragraph in text:
        yield from (".PP", _text(paragraph))
    if examples:
        yield from (".PP", ".RS 4", ".nf", *map(_text, examples), ".fi", ".RE")


def _listed(taken: list[click.Option]) -> Iterator[str]:
    for option in taken:
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in (*option.opts, *option.secondary_opts))
        default = f" Default: {option.default}." if option.show_default else ""
        yield from (".TP", names + (rf" \fI{_text(option.metavar)}\fR" if option.metavar else ""))
        yield _text(f"{option.help or ''}{default}")


def _text(text: str) -> str:
    """So that it stands for itself: no escape, no request at the beginning of a line, hyphens that can be copied."""
    escaped = MARKED.sub(r"\1", text).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)
