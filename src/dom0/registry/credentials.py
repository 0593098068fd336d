"""The login that docker has for a registry: in `config.json`, or with the helper that it names. Found, stored there as
docker login does it, and removed.

Source: docker's CLI, `cli/config/configfile` and docker-credential-helpers. A login is never said in a message.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from dom0.durable import write_atomic, writing
from dom0.errors import Dom0Error
from dom0.registry.reference import DEFAULT_REGISTRY
from dom0.run import CommandFailed, Output, capture
from dom0.wording import excerpt, flaw

_DEFAULT_KEY = "https://index.docker.io/v1/"  # what docker calls the default registry there
_MOST_BYTES = 1 << 20
_PATIENCE = 30.0  # seconds for a helper, which may ask a person
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PROGRAM = "docker-credential-"
_NOT_FOUND = "credentials not found"  # as helpers say it
_IDENTITY = "<token>"  # the user name with which helpers give an identity token


class Login(msgspec.Struct, frozen=True):
    """With a password, or with a token that others are got for. Its text says nothing of it."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def for_engine(self, registry: str) -> dict[str, str]:
        """As the Engine's API wants it (AuthConfig), from whoever asks for a pull."""
        server = _DEFAULT_KEY if registry == DEFAULT_REGISTRY else registry
        secret = {"identitytoken": self.identity_token} if self.identity_token else {"password": self.password}
        return {"username": self.user, **secret, "serveraddress": server}

    def __repr__(self) -> str:
        return "Login(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _Entry(msgspec.Struct):
    auth: str = ""
    identity_token: str = msgspec.field(name="identitytoken", default="")


class _Config(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry] = {}
    helpers: dict[str, str] = msgspec.field(name="credHelpers", default={})
    store: str = msgspec.field(name="credsStore", default="")


class _HelperOutput(msgspec.Struct):
    user: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


async def find(host: str, env: Mapping[str, str], home: Path) -> Login | None:
    """The login for registry `host[:port]`, None where there is none.

    Raises Dom0Error for a file that docker could not read either, and for a helper that fails.
    """
    file = config_file(env, home)
    config = _config(file)
    if config is None:
        return None
    own = _key(host)
    if helper := _helper_for(config, host):
        return await _ask_helper(helper, own, env, file)
    for key, entry in sorted(config.auths.items(), key=lambda item: item[0] != own):
        if _host(key) == host and (entry.auth or entry.identity_token):
            return _login(entry, f"{file}: auths.{excerpt(key[:300])}")
    return None


async def store(host: str, login: Login, env: Mapping[str, str], home: Path) -> str:
    """Where docker finds it as well; returns which file or program that is. Raises Dom0Error."""
    file = config_file(env, home)
    config = _config(file) or _Config()
    key, helper = _key(host), _helper_for(config, host)
    entry: dict[str, str] = {}
    if helper:
        told = {"ServerURL": key, "Username": login.user, "Secret": login.password}
        await _run_helper(helper, "store", msgspec.json.encode(told), env, file)
    else:
        entry["auth"] = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    _change(file, lambda auths: {**auths, key: entry})  # docker has an entry too for what a helper keeps
    return f"{_PROGRAM}{helper}" if helper else str(file)


async def remove(host: str, env: Mapping[str, str], home: Path) -> bool:
    """False where there was none. Raises Dom0Error."""
    file = config_file(env, home)
    there = await find(host, env, home) is not None
    config = _config(file)
    if config is None:
        return False
    if there and (helper := _helper_for(config, host)):
        await _run_helper(helper, "erase", _key(host).encode(), env, file)
    if any(_host(key) == host for key in config.auths):
        _change(file, lambda auths: {key: entry for key, entry in auths.items() if _host(key) != host})
    return there


def config_file(env: Mapping[str, str], home: Path) -> Path:
    return Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _key(host: str) -> str:
    """What docker calls the registry in its file."""
    return _DEFAULT_KEY if host == DEFAULT_REGISTRY else host


def _helper_for(config: _Config, host: str) -> str:
    return config.helpers.get(_key(host)) or config.helpers.get(host) or config.store


def _change(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The entries of a file that `_config` has read; all else in it stays. Raises Dom0Error."""
    target = file.resolve()  # it may be a link to where somebody keeps it
    with writing(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(target.parent):
        owner, raw = None, b""
        if target.exists():
            found, raw = target.stat(), target.read_bytes()
            owner = (found.st_uid, found.st_gid)  # a user's, with sudo
        try:
            document = json.loads(raw) if raw.strip() else {}
            document["auths"] = change(document.get("auths", {}))
            text = json.dumps(document, indent="\t", allow_nan=False)
        except (ValueError, RecursionError):  # numbers that JSON has and Python has not
            raise _unusable(file, "is no JSON that can be written again") from None
        write_atomic(target, f"{text}\n".encode(), mode=0o600, owner=owner)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """No other dom0 changes a file there meanwhile: of two logins at once both stay."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # NFS has no such lock
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
    if not raw.strip():  # as `touch` makes it; docker takes it too
        return _Config()
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
        raise Dom0Error(f"{where}: auth has to be user:password in base64", hint="log in again: dom0 image login")
    return Login(user, password.strip("\0"))


def _host(key: str) -> str:
    """The registry of an entry: `https://registry.example/v1/` is an older form."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return DEFAULT_REGISTRY if host == f"index.{DEFAULT_REGISTRY}" else host


async def _ask_helper(helper: str, key: str, env: Mapping[str, str], file: Path) -> Login | None:
    output = await _run_helper(helper, "get", key.encode(), env, file)
    if _NOT_FOUND in output.stdout + output.stderr and output.code != 0:
        return None
    try:
        told = msgspec.json.decode(output.stdout, type=_HelperOutput)
    except (msgspec.DecodeError, RecursionError):
        raise Dom0Error(f"{_PROGRAM}{helper}: what it says is no login", hint=f"{file} names it") from None
    if told.user == _IDENTITY:
        return Login(identity_token=told.secret)
    return Login(told.user, told.secret) if told.user and told.secret else None


async def _run_helper(helper: str, verb: str, told: bytes, env: Mapping[str, str], file: Path) -> Output:
    """Ended well, or with the word that it has no such login. Raises Dom0Error, which says nothing of what is told."""
    if not _HELPER.fullmatch(helper):
        raise _unusable(file, f"{excerpt(helper[:100])!r} is no name of a credential helper")
    argv = [f"{_PROGRAM}{helper}", verb]
    try:
        output = await capture(argv, env=env, stdin=told, timeout=_PATIENCE, check=False)
    except CommandFailed as error:
        raise Dom0Error(f"{file}: credential helper {error.message}", hint=error.hint) from error
    if output.code != 0 and not (verb != "store" and _NOT_FOUND in output.stdout + output.stderr):
        hint = (
            f"to see why: echo {told.decode()} | {argv[0]} {verb} >/dev/null" if verb != "store" else f"{file} names it"
        )
        raise Dom0Error(f"{argv[0]}: exit code {output.code}", hint=hint)
    return output


def _unusable(file: Path, why: str) -> Dom0Error:
    return Dom0Error(f"{file}: {why}", hint="docker keeps its logins there; log in again: dom0 image login")
