"""What was refused through the socket of a scope: a file of bounded size, one refusal a line, equal ones counted.

A client writes into it with what it asks for: every text is made printable and shortened, and the older half goes when
it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from io import BufferedReader
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.printable import printable
from dom0.socketproxy.grants import Grants

FILE = "refusals.jsonl"
FULL = 1 << 20  # bytes; then it is the older file, in place of the one before
COUNTED_FOR = 10.0  # seconds, after which equal ones are written as one line with their number
LONGEST = 300  # characters of a text

log = logging.getLogger(__name__)


class RefusedRequest(msgspec.Struct, frozen=True, kw_only=True):
    at: float  # seconds since the epoch
    method: str
    path: str
    message: str
    field: str = ""
    value: str = ""
    grant: Grants | None = None  # the smallest that would allow it
    times: int = 1

    def as_recorded(self) -> RefusedRequest:
        """On one line of a terminal, whatever the client has written."""
        texts = {key: getattr(self, key) for key in ("method", "path", "message", "field", "value")}
        shown = {key: printable(text) for key, text in texts.items()}
        return replace(
            self, **{key: text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for key, text in shown.items()}
        )


class Refusals:
    """Writes them to a file in `directory`, inside a running loop. `close` writes what was counted and not written."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        self._last: RefusedRequest | None = None
        self._counted: RefusedRequest | None = None  # how often the last one has come again
        self._timer: asyncio.TimerHandle | None = None
        self._is_written = True

    def note(self, refusal: RefusedRequest) -> None:
        """In the log too, where equal ones in a row are said once."""
        refusal = refusal.as_recorded()
        if self._last and replace(refusal, at=0, times=1) == replace(self._last, at=0, times=1):
            times = self._counted.times + 1 if self._counted else 1
            self._counted = replace(refusal, times=times)
            self._timer = self._timer or asyncio.get_running_loop().call_later(COUNTED_FOR, self._write_counted)
            return
        self._write_counted()
        self._last = refusal
        log.info("/%s: refused: %s", self._file.parent.name, refusal.message)
        self._append(refusal)

    def close(self) -> None:
        self._write_counted()

    def _write_counted(self) -> None:
        if self._timer:
            self._timer.cancel()
        counted, self._counted, self._timer = self._counted, None, None
        if counted:
            self._append(counted)

    def _append(self, refusal: RefusedRequest) -> None:
        line = msgspec.json.encode(refusal) + b"\n"
        try:
            with contextlib.suppress(FileNotFoundError):
                if self._file.lstat().st_size + len(line) > FULL:
                    self._file.replace(_older(self._file))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._file, flags, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            if self._is_written:
                log.warning("%s: refusals are in this log only: %s", self._file, error.strerror)
            self._is_written = False
        else:
            self._is_written = True


class Reader:
    """What is there, oldest first, and what comes. `close` it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._opened: BufferedReader | None = None
        self._rest = b""  # of a line that is not whole yet

    def read(self) -> list[RefusedRequest]:
        """Those that have come since the last call. Raises OSError."""
        content = self._rest
        if self._opened is None:
            with contextlib.suppress(FileNotFoundError):
                content += _older(self._path).read_bytes()
        else:
            content += self._opened.read()
        with contextlib.suppress(FileNotFoundError):
            if self._opened is None or not os.path.samestat(self._path.stat(), os.fstat(self._opened.fileno())):
                self.close()
                self._opened = self._path.open("rb")
                content += self._opened.read()
        *lines, self._rest = content.split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # a later version has written it
                found.append(
                    msgspec.json.decode(line, type=RefusedRequest).as_recorded()
                )  # an older one wrote what came
        return found

    def close(self) -> None:
        if self._opened:
            self._opened.close()


def read(directory: Path) -> list[RefusedRequest]:
    """All that are still there. Raises OSError."""
    with contextlib.closing(Reader(directory)) as reader:
        return reader.read()


def _older(file: Path) -> Path:
    return file.with_name(f"{file.name}.1")
