"""`dom0 completion`: the shell's completion script; and the completions that ask the running dom0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from dom0.cli.options import COMPLETION
from dom0.errors import Dom0Error

if TYPE_CHECKING:
    from dom0.cli.client import Agent


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, /, shell: str) -> None:
    """Print the completion script of SHELL.

    $ source <(dom0 completion bash)
    $ dom0 completion bash > /etc/bash_completion.d/dom0
    $ dom0 completion zsh > "${fpath[1]}/_dom0"
    $ dom0 completion fish > ~/.config/fish/completions/dom0.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None, shell
    click.echo(script(ctx.find_root().command, {}, "dom0", COMPLETION).source())


def _from_agent(ask: Callable[[Agent], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes what the running dom0 answers; nothing if it does not."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from dom0.cli.client import Agent

        try:
            return [text for text in ask(Agent()) if text.startswith(incomplete) and text.isprintable()]
        except Dom0Error:
            return []

    return complete


services = _from_agent(lambda agent: sorted({service.service for service in agent.status().services}))
generations = _from_agent(lambda agent: [str(info.number) for info in agent.history()])
ambassadors = _from_agent(lambda agent: [found.service for found in agent.ambassadors()])
files = _from_agent(lambda agent: [info.path for info in agent.files()])
