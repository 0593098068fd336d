"""`dom0 init`: a new project, copied from an example."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import msgspec

from dom0 import terminal
from dom0.errors import ProjectError, UsageError

DEFAULT_EXAMPLE = "hello"
_NAME = re.compile(r"^(name|  hostname): \S+", re.MULTILINE)  # of the project, and the one that logins see


class NewProjects(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    directory: str
    example: str
    projects: tuple[str, ...]  # their names; of an example of several machines those of its directories


@click.command(name="init")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=".")
@click.option(
    "--example", metavar="NAME", default=DEFAULT_EXAMPLE, help="hello (the default), mybox, two-hosts or guest-machine."
)
@click.option("--json", "as_json", is_flag=True, help="An object: directory, example, projects.")
def command(directory: Path, example: str, as_json: bool) -> None:
    """Make a small commented project in DIR that runs as it is.

    DIR is the current directory if left out. It must be empty or not there yet. The project gets its name; an example
    of several machines is one project for each, with names of their own.

    $ dom0 init mybox && dom0 up mybox
    $ dom0 init --example mybox bigger
    $ dom0 init --example two-hosts
    """
    from dom0.images import recipe

    there = (path for path in recipe.examples().iterdir() if path.is_dir())
    examples = {path.name: path for path in there if not (path / "farm.yaml").exists()}  # those: dom0 farm init
    if example not in examples:
        raise UsageError(f"--example {example}: there is none", hint=f"there are: {', '.join(sorted(examples))}")
    source = examples[example]
    project = project_name(directory.resolve().name)
    if directory.exists() and not directory.is_dir():
        raise ProjectError(f"{directory}: is no directory", hint="name another one: dom0 init DIR")
    if directory.is_dir() and any(directory.iterdir()):
        raise ProjectError(f"{directory}: is not empty", hint="nothing is overwritten; name another one: dom0 init DIR")
    shutil.copytree(source, directory, dirs_exist_ok=True, copy_function=shutil.copyfile)
    compose = directory / "compose.yaml"
    if compose.exists():
        compose.write_text(_NAME.sub(rf"\1: {project}", compose.read_text()))
        projects, following = [project], f"dom0 up{'' if str(directory) == '.' else f' {shlex.quote(str(directory))}'}"
    else:
        projects = sorted(path.parent.name for path in source.glob("*/compose.yaml"))
        following = f"read {shlex.quote(str(directory / 'README.md'))}"
    noun = "project" if len(projects) == 1 else "the projects"
    terminal.say_done(
        NewProjects(directory=str(directory), example=example, projects=tuple(projects)),
        f"{directory}: {noun} {', '.join(projects)}, like the example {example}",
        f"next: {following}",
        as_json=as_json,
    )


def project_name(directory: str) -> str:
    """A directory's name as Compose makes a project's name of it: lower case, letters, digits, `-` and `_`."""
    name = re.sub(r"[^a-z0-9_-]", "", directory.lower()).lstrip("_-")
    if not name:
        raise UsageError(
            f"{directory or '/'}: no project name can be made of it", hint="name a directory with letters or digits"
        )
    return name
