"""The `dom0` command. Each command is a module of this package, loaded when it is asked for; this is the only place
that exits.

A command module has one public name, `command`. It parses, calls what does the work, and prints; it returns the exit
code where that is not 0, and raises Dom0Error where something is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from dom0.cli import options, terminal
from dom0.errors import Dom0Error, UsageError

SECTIONS: dict[str, dict[str, str]] = {
    "Project": {
        "init": "dom0.cli.init",
        "build": "dom0.cli.build",
        "image": "dom0.cli.image",
    },
    "Machine": {
        "plan": "dom0.cli.plan",
        "up": "dom0.cli.up",
        "down": "dom0.cli.down",
        "try": "dom0.cli.trial",
        "confirm": "dom0.cli.confirm",
        "history": "dom0.cli.history",
        "rollback": "dom0.cli.rollback",
    },
    "Look inside": {
        "status": "dom0.cli.status",
        "tree": "dom0.cli.tree",
        "logs": "dom0.cli.logs",
        "exec": "dom0.cli.exec",
        "ambassador": "dom0.cli.ambassador",
    },
    "Home": {
        "dev": "dom0.cli.dev",
        "home": "dom0.cli.home",
        "ssh": "dom0.cli.ssh",
    },
    "This host": {
        "doctor": "dom0.cli.doctor",
        "version": "dom0.cli.version",
        "completion": "dom0.cli.completion",
    },
}
HIDDEN = {"agent": "dom0.cli.agent", "handover": "dom0.cli.handover"}
COMPLETION = "_DOM0_COMPLETE"  # set by the completion scripts
MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()} | HIDDEN


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
            raise UsageError(f"{args[0]}: is no dom0 command", hint=_did_you_mean(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for section, modules in SECTIONS.items():
            with formatter.section(section):
                rows = [(name.ljust(width), self._short_help(ctx, name)) for name in modules]
                formatter.write_dl(rows)

    def _short_help(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        assert command is not None, name
        return command.get_short_help_str(limit=200)


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, [known for known in MODULES if known not in HIDDEN])
    return f"did you mean `dom0 {close[0]}`?" if close else "`dom0 --help` lists the commands"


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


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are told on standard error."""
    try:
        code = _invoke(list(argv))
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except Dom0Error as error:
        return _refuse(error)
    except click.ClickException as error:
        return _refuse(_of_click(error))
    except (click.Abort, KeyboardInterrupt, EOFError):
        terminal.say_to_stderr("")  # ends the line of the terminal's ^C
        return 130
    except BrokenPipeError:  # nobody reads any more; the flush at exit stays quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _refuse(_of_system(error))
    except BaseExceptionGroup as group:
        errors = group.subgroup(Dom0Error)
        if errors is None:
            raise
        return _refuse(_first(errors))
    return code


def _invoke(argv: list[str]) -> int:
    """As click's own main, without its ways to end."""
    if instruction := os.environ.get(COMPLETION):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "dom0", COMPLETION, instruction)
    with cli.make_context("dom0", argv) as ctx:
        result: Any = cli.invoke(ctx)
    return result if isinstance(result, int) else 0


def _refuse(error: Dom0Error) -> int:
    terminal.say_error(error)
    return error.exit_code


def _of_click(error: click.ClickException) -> Dom0Error:
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path.removeprefix("dom0").strip() if ctx else ""
    where = f"{command}: " if command else ""
    return UsageError(f"{where}{error.format_message()}", hint=f"`{ctx.command_path if ctx else 'dom0'} --help`")


def _of_system(error: OSError) -> Dom0Error:
    where = error.filename if isinstance(error.filename, str) else "dom0"
    return Dom0Error(f"{where}: {error.strerror or error}")


def _first(group: BaseExceptionGroup[Dom0Error]) -> Dom0Error:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
