"""`dom0 exec`: a command in a running container of a service. This process becomes docker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from dom0.cli import completion, engine_client
from dom0.cli.containers import list_containers
from dom0.errors import NotFound, UsageError
from dom0.names import ROOT
from dom0.plan import labels
from dom0.run import become

_OPTIONS = (
    click.option("-i", "--interactive", is_flag=True, help="Standard input stays attached; always so unless detached."),
    click.option("-t", "--tty", is_flag=True, help="Allocate a terminal; default: if the caller has one."),
    click.option("-T", "--no-tty", is_flag=True, help="Allocate none."),
    click.option("-d", "--detach", is_flag=True, help="Leave the command in the background."),
    click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="As docker exec."),
    click.option("-u", "--user", metavar="USER", help="As docker exec."),
    click.option("-w", "--workdir", metavar="DIR", help="As docker exec."),
    click.option("--privileged", is_flag=True, help="As docker exec."),
)


def with_options(of: Callable[..., None]) -> Callable[..., None]:
    """Those that `become_docker` takes."""
    for option in reversed(_OPTIONS):
        of = option(of)
    return of


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@with_options
@click.option(
    "--index", type=click.IntRange(min=1), metavar="N", help="Which container of the service, if it has several."
)
@click.argument("service", shell_complete=completion.services)
@click.argument("arguments", metavar="COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(service: str, arguments: tuple[str, ...], index: int | None, **given: Any) -> None:
    """Run a command in a running container of SERVICE; `dom0` is the root container itself.

    $ dom0 exec redis redis-cli ping
    $ dom0 exec --index 2 web sh
    """
    become_docker(find_container(service, index), arguments, **given)


def become_docker(
    container: str,
    arguments: tuple[str, ...],
    *,
    interactive: bool,
    tty: bool,
    no_tty: bool,
    detach: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
) -> NoReturn:
    """Raises CommandFailed if it cannot start."""
    argv = ["docker", "exec", "--detach" if detach else "--interactive"]
    if tty or (not no_tty and not detach and sys.stdin.isatty() and sys.stdout.isatty()):
        argv.append("--tty")
    argv += [word for variable in env for word in ("--env", variable)]
    if user is not None:
        argv += ["--user", user]
    if workdir is not None:
        argv += ["--workdir", workdir]
    if privileged:
        argv.append("--privileged")
    become([*argv, container, *arguments])


def find_container(service: str, index: int | None) -> str:
    """The ID of the running container of `service`, the lowest number first. Raises NotFound, UsageError."""
    if service == ROOT:
        if engine_client.container(ROOT) is None:
            raise NotFound(f"{ROOT}: does not run here", hint="start it: dom0 up")
        return service
    listed = (one for one in list_containers() if one.labels.get(labels.NUMBER, "").isdecimal())
    running = [one for one in listed if one.state == "running"]
    of_service = [one for one in running if one.labels.get(labels.SERVICE) == service]
    found = [one for one in of_service if index in (None, int(one.labels[labels.NUMBER]))]
    projects = sorted({one.labels.get(labels.PROJECT, "") for one in found})
    if not found:
        which = f"{service}: no container {index} of it runs" if index else f"{service}: no container of it runs"
        there = sorted({one.labels.get(labels.SERVICE, "") for one in running} - {""})
        hint = f"these run: {', '.join(there)}; why one does not: dom0 status" if there else "start it: dom0 up"
        raise NotFound(which, hint=hint)
    if len(projects) > 1:
        raise UsageError(f"{service}: is a service of several projects: {', '.join(projects)}", hint="use docker exec")
    return min(found, key=lambda one: int(one.labels[labels.NUMBER])).id
