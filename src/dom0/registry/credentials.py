"""The login that docker has for a registry: in `config.json`, or with the helper that it names.

Source: docker's CLI, `cli/config/configfile` and docker-credential-helpers. A login is never said in a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dom0.errors import Dom0Error
from dom0.registry.reference import DEFAULT_REGISTRY
from dom0.run import CommandFailed, capture
from dom0.wording import excerpt, flaw

_DEFAULT_KEY = "https://index.docker.io/v1/"  # what docker calls the default registry there
_MOST_BYTES = 1 << 20
_PATIENCE = 30.0  # seconds for a helper, which may ask a person
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = "credentials not found"  # as helpers say it
_IDENTITY = "<token>"  # the user name with which helpers give an identity token


class Login(msgspec.Struct, frozen=True):
    """With a password, or with a token that others are got for. Its text says nothing of it."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Login(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _Entry(msgspec.Struct):
    auth: str = ""
    identity_token: str = msgspec.field(name="identitytoken", default="")


class _Config(msgspec.Struct):
    auths: dict[str, _Entry] = {}
    helpers: dict[str, str] = msgspec.field(name="credHelpers", default={})
    store: str = msgspec.field(name="credsStore", default="")


class _Told(msgspec.Struct):
    user: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


async def find(host: str, env: Mapping[str, str], home: Path) -> Login | None:
    """The login for registry `host[:port]`, None where there is none.

    Raises Dom0Error for a file that docker could not read either, and for a helper that fails.
    """
    file = Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    config = _config(file)
    if config is None:
        return None
    own = _DEFAULT_KEY if host == DEFAULT_REGISTRY else host
    if helper := config.helpers.get(own) or config.helpers.get(host) or config.store:
        return await _ask_helper(helper, own, env, file)
    for key, entry in sorted(config.auths.items(), key=lambda item: item[0] != own):
        if _host(key) == host and (entry.auth or entry.identity_token):
            return _login(entry, f"{file}: auths.{excerpt(key[:300])}")
    return None


def _config(file: Path) -> _Config | None:
    """None where there is none. Raises Dom0Error, without a word of what is in the file."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # noqa: PTH123 -- a file descriptor
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _unusable(file, "is no file")
            raw = opened.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror}") from error
    if len(raw) > _MOST_BYTES:
        raise _unusable(file, f"is longer than {_MOST_BYTES >> 10} KiB")
    try:
        return msgspec.json.decode(raw, type=_Config)
    except msgspec.ValidationError as error:
        found = flaw(error, _Config)
        raise _unusable(file, " ".join(filter(None, [".".join(found.steps), found.what]))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unusable(file, "is no JSON") from None


def _login(entry: _Entry, where: str) -> Login:
    try:
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if entry.identity_token:
        return Login(user if colon else "", "", entry.identity_token)
    if not colon or not user:
        raise Dom0Error(f"{where}: auth has to be user:password in base64", hint="log in again: docker login")
    return Login(user, password.strip("\0"))


def _host(key: str) -> str:
    """The registry of an entry: `https://registry.example/v1/` is an older form."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return DEFAULT_REGISTRY if host == f"index.{DEFAULT_REGISTRY}" else host


async def _ask_helper(helper: str, key: str, env: Mapping[str, str], file: Path) -> Login | None:
    if not _HELPER.fullmatch(helper):
        raise _unusable(file, f"{excerpt(helper[:100])!r} is no name of a credential helper")
    argv = [f"docker-credential-{helper}", "get"]
    try:
        output = await capture(argv, env=env, stdin=key.encode(), timeout=_PATIENCE, check=False)
    except CommandFailed as error:
        raise Dom0Error(f"{file}: credential helper {error.message}", hint=error.hint) from error
    if output.code != 0:
        if _NOT_FOUND in output.stdout + output.stderr:
            return None
        raise Dom0Error(
            f"{argv[0]}: exit code {output.code}", hint=f"to see why: echo {key} | {argv[0]} get >/dev/null"
        )
    try:
        told = msgspec.json.decode(output.stdout, type=_Told)
    except (msgspec.DecodeError, RecursionError):
        raise Dom0Error(f"{argv[0]}: what it says is no login", hint=f"{file} names it") from None
    if told.user == _IDENTITY:
        return Login(identity_token=told.secret)
    return Login(told.user, told.secret) if told.user and told.secret else None


def _unusable(file: Path, why: str) -> Dom0Error:
    return Dom0Error(f"{file}: {why}", hint="docker keeps its logins there; log in again: docker login")
