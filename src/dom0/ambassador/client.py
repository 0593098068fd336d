"""Ask a running ambassador: one request, one answer. No event loop: a command starts faster without."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0.ambassador.messages import CONTROL, ErrorAnswer, Request
from dom0.errors import Dom0Error

TIMEOUT = 60.0  # seconds; a rewire that holds takes as long as it may hold on top
T = TypeVar("T")


class AmbassadorError(Dom0Error):
    """The ambassador's own."""

    def __init__(self, refused: ErrorAnswer) -> None:
        super().__init__(refused.error, hint=refused.hint)
        self.exit_code = refused.exit_code


def ask(request: Request, kind: type[T], *, path: Path = Path(CONTROL), timeout: float = TIMEOUT) -> T:
    """Raises Dom0Error."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except OSError as error:
            hint = "is it running? docker logs AMBASSADOR says why not"
            raise Dom0Error(f"{path}: no ambassador answers: {error.strerror or error}", hint=hint) from error
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except TimeoutError as error:
            raise Dom0Error(f"{path}: no answer within {timeout:g} s") from error
        except OSError as error:
            raise Dom0Error(f"{path}: {error.strerror or error}") from error
    return decode(line, kind)


def decode(line: bytes, kind: type[T]) -> T:
    """One answer. Raises AmbassadorError, and Dom0Error for what is no answer."""
    try:
        document = json.loads(line)
        if isinstance(document, dict) and "error" in document:
            raise AmbassadorError(msgspec.convert(document, ErrorAnswer))
        return msgspec.convert(document, kind)
    except ValueError as error:  # json's and msgspec's errors are
        raise Dom0Error(f"ambassador: its answer is not understood: {error}") from error
