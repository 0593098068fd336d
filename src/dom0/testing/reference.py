"""Renders docs/reference/commands.md from the commands themselves; a test compares.

python -m dom0.testing.reference > docs/reference/commands.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from dom0.cli.commands import cli
from dom0.cli.modules import SECTIONS

_HEAD = """\
# Commands

The `--help` of each command says the same: this page is made from it. Words and options are those of docker and docker
compose wherever they mean the same. How a command ends: [exit codes](exit-codes.md). What `--json` prints: the agent's
[documents](api.md), or what the option says; what a command tells while it works goes to standard error then, where it
is not the answer itself, and an error is [a document](exit-codes.md) too. Commands that hand over the terminal (`exec`,
`farm exec`, `dev`, `os run`), `completion`, `schema`, `web`, `image serve`, `socket serve`, `socket hold`,
`disk format` and `disk adopt` have no `--json`.

Every command understands, before its name as in docker or after it:
"""
_FOOT = """\
The machine is the one whose Engine is named: by `--host`, `DOCKER_HOST`, a docker context, else the one of this host.
Where it is not this host's usual socket, the dom0 there is asked through it (`docker exec dom0`), so it has to be of
this version. `ssh://` is as docker has it: each connection is `ssh HOST docker system dial-stdio`. `boot`,
`install-host` and `ssh add` need files of the host, and refuse. The name of a node of a farm stands for its Engine,
[where the farm is served](../farm.md#reach-a-node-from-the-server): in the farm's directory, or with `DOM0_FARM`.

A command that takes DIR uses the current directory if it is left out. `dom0 --version` prints the command's version.

For tests the two places of dom0 can be moved: `DOM0_RUN` (its socket, default `/run/dom0`; this one is asked then) and
`DOM0_STATE` (default `/var/lib/dom0`).
"""


def page() -> str:
    return "\n".join([_HEAD, *_table(_global_options()), "", _FOOT, *_sections()]).rstrip("\n") + "\n"


def _global_options() -> list[click.Option]:
    return [one for one in options(cli, exposed=False) if one.name in ("host", "quiet", "no_color")]


def options(command: click.Command, *, exposed: bool) -> list[click.Option]:
    """`exposed`: all that a person is shown, else those that the command itself is not given."""
    found = [one for one in command.params if isinstance(one, click.Option)]
    return [one for one in found if (not one.hidden if exposed else not one.expose_value)]


def _sections() -> Iterator[str]:
    root = click.Context(cli)
    for title, names in SECTIONS.items():
        yield f"## {title}\n"
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None, name
            yield from _section(name, command, "###")
            for inner, child in command.commands.items() if isinstance(command, click.Group) else ():
                if not child.hidden:
                    yield from _section(f"{name} {inner}", child, "####")


def _section(name: str, command: click.Command, level: str) -> Iterator[str]:
    prose, examples = paragraphs(command)
    yield f"{level} dom0 {name}\n"
    for paragraph in prose:
        yield f"{paragraph}\n"
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    yield f"```text\ndom0 {name} {usage}\n```\n"
    if taken := options(command, exposed=True):
        yield from _table(taken)
        yield ""
    if examples:
        yield "\n".join(["```console", *examples, "```", ""])


def paragraphs(command: click.Command) -> tuple[list[str], list[str]]:
    """The help text: paragraphs, and lines to type (marked with a backspace, see cli/options)."""
    prose, examples = [], []
    for paragraph in (command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            examples += paragraph.splitlines()[1:]
        else:
            prose.append(paragraph.replace("\n", " "))
    return prose, examples


def _table(options: list[click.Option]) -> Iterator[str]:
    yield "| option | means |"
    yield "|---|---|"
    for option in options:
        names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
        names[-1] = f"{names[-1][:-1]}{f' {option.metavar}' if option.metavar else ''}`"
        default = f" Default: `{option.default}`." if option.show_default else ""
        text = (option.help or "").replace("|", "\\|")
        yield f"| {', '.join(names)} | {text}{default} |"


if __name__ == "__main__":
    sys.stdout.write(page())
