"""`dom0 completion`: the shell's completion script; and the completions that ask the running dom0."""

from __future__ import annotations

import click

from dom0.errors import Dom0Error


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    $ source <(dom0 completion bash)
    $ dom0 completion bash > /etc/bash_completion.d/dom0
    $ dom0 completion zsh > "${fpath[1]}/_dom0"
    $ dom0 completion fish > ~/.config/fish/completions/dom0.fish
    """
    from click.shell_completion import get_completion_class

    from dom0.cli import COMPLETION
    from dom0.cli.commands import cli

    script = get_completion_class(shell)
    assert script is not None, shell
    click.echo(script(cli, {}, "dom0", COMPLETION).source())


def services(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The service names of the running dom0; none if it does not answer."""
    from dom0.cli.client import Agent

    try:
        names = sorted({service.service for service in Agent().status().services})
    except Dom0Error:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def generations(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The numbers of the generations of the running dom0; none if it does not answer."""
    from dom0.cli.client import Agent

    try:
        numbers = [str(info.number) for info in Agent().history()]
    except Dom0Error:
        return []
    return [number for number in numbers if number.startswith(incomplete)]


def ambassadors(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of the ambassadors of the running dom0; none if it does not answer."""
    from dom0.agent.ambassador_status import AmbassadorStatus
    from dom0.cli.client import Agent

    try:
        names = [found.service for found in Agent().call("GET", "/v1/ambassadors", list[AmbassadorStatus])]
    except Dom0Error:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The files that the machine changed; none if the running dom0 does not answer."""
    from dom0.agent.file_status import FileInfo
    from dom0.cli.client import Agent

    try:
        paths = [info.path for info in Agent().call("GET", "/v1/files", list[FileInfo])]
    except Dom0Error:
        return []
    return [path for path in paths if path.startswith(incomplete) and path.isprintable()]
