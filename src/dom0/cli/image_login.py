"""`dom0 image login` and `logout`: logins for registries, where docker has its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal
from dom0.cli.engine_client import on_engine
from dom0.errors import RegistryError, Temporary, UsageError

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.registry.credentials import Login

_ANSWER = 60.0  # seconds for all of it
_MOST_BYTES = 64 << 10  # of a password
_NOT_STORED = "nothing is stored; try again"
_PIPED = "dom0 image login --username USER --password-stdin REGISTRY <FILE"


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """As `login --json` prints it."""

    registry: str
    user: str
    stored: str  # a file, or the name of a credential helper


class LoggedOut(msgspec.Struct, frozen=True, kw_only=True):
    """As `logout --json` prints it."""

    registry: str
    was_logged_in: bool


@click.command("login", short_help="Log in to a registry, for docker too.")
@click.argument("registry", metavar="REGISTRY")
@click.option("-u", "--username", metavar="USER", default="", help="Else it is asked for.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input; else it is asked for.")
@click.option("--json", "as_json", is_flag=True, help="An object: registry, user, stored.")
def login(registry: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Log in to REGISTRY, as docker login does it and for docker too.

    The registry is asked whether it takes the login before it is stored: in docker's config.json, or with the
    credential helper that this names. The one of Docker Hub is called docker.io.

    $ dom0 image login registry.example:5000

    $ dom0 image login -u guest --password-stdin registry.example:5000 <password
    """
    from dom0.registry.reference import parse_registry

    host = parse_registry(registry)
    told = _ask_for(username, password_stdin=password_stdin)
    done = on_engine(lambda engine: _check_and_store(engine, host, told))
    note = ", not encrypted" if os.sep in done.stored else ""
    terminal.say_done(done, f"{host}: logged in as {done.user}; kept in {done.stored}{note}", as_json=as_json)


@click.command("logout", short_help="Forget the login for a registry.")
@click.argument("registry", metavar="REGISTRY")
@click.option("--json", "as_json", is_flag=True, help="An object: registry, was_logged_in.")
def logout(registry: str, as_json: bool) -> None:
    """Forget the login for REGISTRY, for docker too.

    $ dom0 image logout registry.example:5000
    """
    from dom0.registry import credentials
    from dom0.registry.reference import parse_registry

    host = parse_registry(registry)
    removed = asyncio.run(credentials.remove(host, os.environ, Path.home()))
    document = LoggedOut(registry=host, was_logged_in=removed)
    terminal.say_done(document, f"{host}: {'logged out' if removed else 'there was no login'}", as_json=as_json)


def _ask_for(user: str, *, password_stdin: bool) -> Login:
    """The password is never an argument, which everybody on the machine can read. Raises UsageError."""
    from dom0.registry.credentials import Login

    if password_stdin and not user:
        raise UsageError("--password-stdin: needs --username", hint=_PIPED)
    if not password_stdin and not terminal.has_keyboard():
        raise UsageError("password: there is no terminal to ask on", hint=_PIPED)
    try:
        if password_stdin:
            password = sys.stdin.buffer.read(_MOST_BYTES + 1).decode().removesuffix("\n").removesuffix("\r")
        else:
            user = user or click.prompt("Username", err=True)
            password = click.prompt("Password", hide_input=True, err=True)
    except UnicodeDecodeError:
        raise UsageError("user or password: is not UTF-8", hint=_PIPED) from None
    if not user.isprintable() or ":" in user:
        raise UsageError("--username: has a colon or what cannot be printed", hint="ask who runs the registry")
    if not password or len(password) > _MOST_BYTES or "\0" in password or "\n" in password:
        raise UsageError("password: is empty, too long or of several lines", hint=_PIPED)
    return Login(user, password)


async def _check_and_store(engine: Engine, host: str, told: Login) -> LoggedIn:
    from dom0.images.pull import is_insecure
    from dom0.registry import credentials
    from dom0.registry.client import Registry

    registry = Registry(host, told, insecure=is_insecure(host, await engine.info()))
    try:
        async with asyncio.timeout(_ANSWER):
            await registry.check_login()
    except TimeoutError as error:
        raise Temporary(f"{host}: no answer within {_ANSWER:g} s", hint=_NOT_STORED) from error
    except RegistryError as error:
        error.hint = error.hint or _NOT_STORED
        raise
    finally:
        await registry.close()
    stored = await credentials.store(host, told, os.environ, Path.home())
    return LoggedIn(registry=host, user=told.user, stored=stored)
