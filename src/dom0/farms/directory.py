"""A farm on the disk of its server. Commands and the server share it, also at the same time, and each of them may be
killed at any moment.

    farm.yaml                  what a person says (`settings`)
    roles/NAME/compose.yaml    a role: the project that its nodes are to run
    state/nodes.json           which machines wait, and which are nodes (`nodes`); replaced as a whole, under a lock
    state/server.pem           key and certificate of the server, never made anew: nodes know the server by it
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0 import flock
from dom0.durable import write_atomic, writing
from dom0.errors import Busy, Dom0Error, ProjectError, UsageError
from dom0.farms import settings
from dom0.farms.nodes import Nodes
from dom0.farms.settings import NAME, FarmSettings
from dom0.wording import did_you_mean, excerpt

T = TypeVar("T")
PATIENCE = 10.0  # seconds for another process to let go of the lock, which it has for one write
_LOCK_AGAIN = 0.01  # seconds between attempts
_OF_MAKE = {"roles", "state", f".{settings.FILE}.new"}  # what a killed one leaves
_SETTINGS = """\
name: {name}
listen: {listen} # where its server answers, ADDRESS:PORT; 0.0.0.0 is every address of this machine
"""


class FarmDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.server_pem = self.state / "server.pem"
        self._nodes = self.state / "nodes.json"

    def settings(self) -> FarmSettings:
        """Raises ProjectError."""
        try:
            return settings.read((self.path / settings.FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ProjectError(
                f"{self.path}: no farm is here: it has no {settings.FILE}",
                hint="make one: dom0 farm init DIR; or say where it is: --dir DIR",
            ) from error

    def roles(self) -> list[str]:
        found = (self.path / "roles").glob("*/compose.yaml")
        return sorted(file.parent.name for file in found if NAME.fullmatch(file.parent.name))

    def check_role(self, role: str) -> None:
        """Raises UsageError where there is none."""
        if role not in (known := self.roles()):
            hint = did_you_mean(role, known) or f"make it: {self.path / 'roles'}/NAME/compose.yaml"
            raise UsageError(f"{excerpt(role)}: is no role of this farm", hint=hint)

    def nodes(self) -> Nodes:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        try:
            return msgspec.json.decode(self._nodes.read_bytes(), type=Nodes)
        except FileNotFoundError:
            return Nodes()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            hint = "put a copy of it in its place; without one each machine has to be approved again"
            raise Dom0Error(f"{self._nodes}: is damaged: {error}", hint=hint) from error
        except PermissionError as error:
            hint = f"it has to belong to who serves the farm: chown --reference={self.state} {self._nodes}"
            raise Dom0Error(f"{self._nodes}: permission denied", hint=hint) from error
        except OSError as error:
            hint = "if it is the disk: dmesg"
            raise Dom0Error(f"{self._nodes}: cannot be read: {error.strerror}", hint=hint) from error

    def change(self, step: Callable[[Nodes], tuple[Nodes, T]]) -> T:
        """Put what `step` makes of the nodes in their place, on the disk before this returns, and return its other
        result.

        Raises Busy, Unwritable, and what `step` does; nothing has changed then.
        """
        with writing(self.state):
            descriptor = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        deadline = time.monotonic() + PATIENCE
        try:
            while not flock.try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise Busy(f"{self.state}: another process has it", hint="see which one: lslocks")
                time.sleep(_LOCK_AGAIN)
            before = self.nodes()
            after, result = step(before)
            if after != before:
                found = os.fstat(descriptor)
                owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None  # `sudo dom0 farm approve`
                write_atomic(self._nodes, msgspec.json.encode(after), owner=owner)
        finally:
            os.close(descriptor)
        return result

    def check_new(self) -> None:
        """Raises ProjectError where something is in the way; what a killed `make` has left is not."""
        if self.path.exists() and not self.path.is_dir():
            raise ProjectError(f"{self.path}: is no directory", hint="name another one: dom0 farm init DIR")
        if self.path.is_dir() and any(entry.name not in _OF_MAKE for entry in self.path.iterdir()):
            raise ProjectError(
                f"{self.path}: is not empty", hint="nothing is overwritten; name another one: dom0 farm init DIR"
            )

    def make(self, name: str, pem: bytes, role: str, project: bytes) -> None:
        """The files of a new farm; the one that makes it a farm comes last. Raises Unwritable."""
        with writing(self.state):
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.state.chmod(0o700)
        listen = f"0.0.0.0:{settings.PORT}"
        compose = self.path / "roles" / role / "compose.yaml"
        files = {
            self.server_pem: (pem, 0o600),
            self.state / ".gitignore": (b"*\n", 0o644),
            compose: (project, 0o644),
            self.path / settings.FILE: (_SETTINGS.format(name=name, listen=listen).encode(), 0o644),
        }
        for path, (content, mode) in files.items():
            if not path.exists():
                write_atomic(path, content, mode=mode)
