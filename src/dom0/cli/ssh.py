"""`dom0 ssh`: who may log in. The keys are in the state directory; sshd reads them at every login."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec

from dom0 import terminal
from dom0.cli.client import note_done
from dom0.cli.places import go_where_files_are, require_here
from dom0.errors import Dom0Error, UsageError
from dom0.names import state_directory

KEY_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
_AS_ROOT = "as root; in a login: docker exec -i dom0 dom0 ssh add - <FILE"
LONGEST_INPUT = 1 << 20  # bytes; a key is below 1 kB


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One line of authorized_keys."""

    type: str
    fingerprint: str  # as ssh-keygen -l prints it
    comment: str
    line: str


@click.group(name="ssh")
def command() -> None:
    """Say who may log in to this machine.

    The keys are those of the user that `x-dom0.ssh` names; the project's own keys (`x-dom0.ssh.authorized_keys`) come
    in addition and are changed in compose.yaml.

    $ dom0 ssh add ~/.ssh/id_ed25519.pub
    $ ssh -p 2222 dom0@HOST
    """


@command.command(name="add")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Those that were added: as `ssh ls` lists them.")
def add(file: IO[bytes], as_json: bool) -> None:
    """Let the keys in FILE (`-`: standard input) log in.

    $ dom0 ssh add ~/.ssh/id_ed25519.pub
    $ cat *.pub | dom0 ssh add -
    """
    where = "standard input" if file.name == sys.stdin.name else file.name
    given = parse(file.read(LONGEST_INPUT), where)
    if not given:
        raise UsageError(f"{where}: holds no key", hint="a public key is a line like: ssh-ed25519 AAAA… name@host")
    with _changing() as path:
        present = load(path)
        known = {key.fingerprint for key in present}
        new = [key for key in given if key.fingerprint not in known]
        _write(path, [*present, *new])
    if new:
        note_done("dom0 ssh add", ", ".join(map(_show, new)))
    lines = (f"{'added' if key in new else 'known'}  {_show(key)}" for key in given)
    terminal.say_done(new, *lines, as_json=as_json)


@command.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with type, fingerprint, comment and line.")
def list_keys(as_json: bool) -> None:
    """List the keys that `dom0 ssh add` let in.

    $ dom0 ssh ls
    """
    go_where_files_are("ssh", "ls", as_json=as_json)
    keys = load(keys_file())
    rows = ((key.type, key.fingerprint, key.comment) for key in keys)
    terminal.say_table(keys, ("TYPE", "FINGERPRINT", "COMMENT"), rows, as_json=as_json)


@command.command(name="rm")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Those that were removed: as `ssh ls` lists them.")
def remove(keys: tuple[str, ...], as_json: bool) -> None:
    """Take keys away, each named by its fingerprint or its comment.

    $ dom0 ssh rm SHA256:AbC…
    $ dom0 ssh rm me@old-laptop
    """
    go_where_files_are("ssh", "rm", "--", *keys, as_json=as_json)
    with _changing() as path:
        present = load(path)
        gone = [_find(name, present) for name in dict.fromkeys(keys)]
        _write(path, [key for key in present if key not in gone])
    note_done("dom0 ssh rm", ", ".join(map(_show, gone)))
    terminal.say_done(gone, *(f"removed  {_show(key)}" for key in gone), as_json=as_json)


def keys_file() -> Path:
    require_here("the file of keys")
    return state_directory() / "ssh" / "authorized_keys"


def load(path: Path) -> list[Key]:
    """The keys in `path`, none if there is no such file. Raises Dom0Error for a line that is no key."""
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return []


def parse(data: bytes, where: str) -> list[Key]:
    """Read authorized_keys lines without options. Raises UsageError with the line's number."""
    if len(data) >= LONGEST_INPUT:
        raise UsageError(f"{where}: is larger than {LONGEST_INPUT} bytes", hint="give a file of public keys")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: is no text", hint="give a file of public keys") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    return [_parse_line(line, f"{where}:{number}") for number, line in lines if line and not line.startswith("#")]


def _parse_line(line: str, where: str) -> Key:
    if "PRIVATE KEY" in line:
        raise UsageError(f"{where}: is a private key", hint="give the public one, the file that ends with .pub")
    if not line.isprintable():
        raise UsageError(f"{where}: holds control characters", hint="give the key as ssh-keygen wrote it")
    kind, _, rest = line.partition(" ")
    if kind not in KEY_TYPES:
        raise UsageError(f"{where}: {kind!r} is no type of key", hint=f"one of {', '.join(KEY_TYPES)}; without options")
    encoded, _, comment = rest.strip().partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise UsageError(f"{where}: the key is damaged: {error}", hint="copy the whole line") from error
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise UsageError(f"{where}: the key is damaged: it is not of type {kind}", hint="copy the whole line")
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    comment = comment.strip()
    return Key(type=kind, fingerprint=f"SHA256:{digest}", comment=comment, line=f"{kind} {encoded} {comment}".rstrip())


def _find(name: str, keys: Sequence[Key]) -> Key:
    found = [key for key in keys if name in (key.fingerprint, key.comment)]
    if not found:
        raise UsageError(f"{name}: no key of that fingerprint or comment", hint="the keys: dom0 ssh ls")
    if len(found) > 1:
        raise UsageError(f"{name}: is the comment of {len(found)} keys", hint="name the fingerprint: dom0 ssh ls")
    return found[0]


def _show(key: Key) -> str:
    return f"{key.fingerprint}  {key.comment}".rstrip()


@contextmanager
def _changing() -> Iterator[Path]:
    """The file to change, for one process at a time."""
    path = keys_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        directory = os.open(path.parent, os.O_RDONLY)
    except PermissionError as error:
        raise Dom0Error(f"{path.parent}: permission denied", hint=_AS_ROOT) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(directory)


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Replace the file at once. sshd wants it owned by root or the user, and not writable for others."""
    new = path.with_suffix(".new")
    try:
        with new.open("w") as file:
            os.fchmod(file.fileno(), 0o644)
            file.writelines(f"{key.line}\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
    except PermissionError as error:
        raise Dom0Error(f"{path}: permission denied", hint=_AS_ROOT) from error
    new.replace(path)
