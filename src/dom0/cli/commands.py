"""The command line as click sees it: the commands by their table, and one line of it carried out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from dom0.cli import options
from dom0.cli.modules import HIDDEN, MODULES, SECTIONS
from dom0.errors import UsageError

_OF_COMPOSE = {
    "attach": "what it prints: dom0 logs --follow SERVICE; else docker attach CONTAINER",
    "bridge": "docker compose bridge",
    "commit": "docker commit CONTAINER; what the containers are called: dom0 status",
    "config": "the project as Compose reads it: docker compose config; what would change: dom0 plan",
    "cp": "docker cp; what the containers are called: dom0 status",
    "create": "dom0 up",
    "export": "docker export CONTAINER; or all of the machine in a file: dom0 image save",
    "images": "dom0 image ls",
    "kill": "docker kill CONTAINER; dom0 starts it again unless you stop it: dom0 stop SERVICE",
    "ls": "what runs: dom0 status; what ran: dom0 history",
    "pause": "docker pause CONTAINER; dom0 leaves it so until dom0 up",
    "port": "dom0 status",
    "ps": "dom0 status",
    "publish": "all of the machine in a file: dom0 image save",
    "pull": "dom0 image fetch, then dom0 up; or pull_policy: always in compose.yaml",
    "push": "docker push; or all of the machine in a file: dom0 image save",
    "rm": "take the service out of compose.yaml, then dom0 up",
    "run": "in a running service: dom0 exec SERVICE COMMAND; in a container of its own: dom0 dev IMAGE COMMAND",
    "scale": "write scale: into the service in compose.yaml, then dom0 up",
    "stats": "dom0 top; of other containers too: docker stats",
    "unpause": "docker unpause CONTAINER; or dom0 up",
    "volumes": "docker volume ls; which of them are backed up: dom0 status",
    "wait": "dom0 up --wait; or watch it: dom0 status --watch",
    "watch": "dom0 status --watch; after each edit: dom0 up",
}
"""What people type who know Compose, and the command that does it here."""


class Commands(click.Group):
    """The commands by their table; a module is imported when its command runs or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in MODULES if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        command: click.Command = import_module(MODULES[cmd_name]).command
        options.complete(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in MODULES and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx))
            near = f"did you mean `dom0 {close[0]}`?" if close else "`dom0 --help` lists the commands"
            raise UsageError(f"{args[0]}: unknown command", hint=_OF_COMPOSE.get(args[0], near))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for section, modules in SECTIONS.items():
            with formatter.section(section):
                commands = {name: self.get_command(ctx, name) for name in modules}
                rows = [(name.ljust(width), it.get_short_help_str(limit=200)) for name, it in commands.items() if it]
                formatter.write_dl(rows)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 project invalid, 4 Engine, 5 rolled back, 6 busy, 10 plan: changes.",
)
@click.version_option(package_name="dom0", message="dom0 %(version)s")
def cli() -> None:
    """Your whole machine is one container image.

    $ dom0 init mybox    # a small project that runs as it is
    $ dom0 up mybox      # build it, start it, keep it running
    $ dom0 status        # what runs, and why
    """


options.complete(cli, hidden=False)


def invoke(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code. Raises Dom0Error, KeyboardInterrupt, EOFError, OSError."""
    try:  # as click's own main, without its ways to end
        if instruction := os.environ.get(options.COMPLETION):
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "dom0", options.COMPLETION, instruction)
        with cli.make_context("dom0", list(argv)) as ctx:
            result: Any = cli.invoke(ctx)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click before 8.2 has none, and ends as below
            click.echo(error.format_message())
            return 0
        refusing = getattr(error, "ctx", None)
        command = refusing.command_path if refusing else "dom0"
        where = f"{command.removeprefix('dom0 ')}: " if command != "dom0" else ""
        said = error.format_message().replace("is not a valid integer range", "is no whole number")
        raise UsageError(
            f"{where}{said.replace('is not a valid integer', 'is no whole number')}", hint=f"`{command} --help`"
        ) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
