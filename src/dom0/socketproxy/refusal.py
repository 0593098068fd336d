"""Why a request does not reach the Engine, as the Engine would say it: a status and a message."""

from __future__ import annotations

import re

import msgspec

from dom0.socketproxy.grants import Grants
from dom0.socketproxy.partial import one_line

BAD_REQUEST, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, CONFLICT, TOO_LARGE = 400, 403, 404, 405, 409, 413
UNAVAILABLE = 503
_NUMBERED = re.compile(rb"[<>&]|\\[bf]|\xe2\x80[\xa8\xa9]")
LONGEST = 2_000  # characters of a message: in some is what a client has written


NO_BUILDKIT = "BuildKit is not to be had through this socket; docker build does without it by DOCKER_BUILDKIT=0"


class Refused(Exception):
    """`field` and `value`, where one is at fault, and `grant`, the smallest that would allow it."""

    def __init__(
        self, status: int, message: str, *, field: str = "", value: str = "", grant: Grants | None = None
    ) -> None:
        message = message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…"
        super().__init__(message)
        self.status = status
        self.message = f"{message}; it would take the grant {one_line(grant)}" if grant else message
        self.field = field
        self.value = value
        self.grant = grant


def never(field: str, value: object) -> Refused:
    """For what no grant allows."""
    return Refused(FORBIDDEN, f"{field}: {short(value)}: not through this socket", field=field, value=short(value))


def not_granted(field: str, value: object, grant: Grants) -> Refused:
    return Refused(FORBIDDEN, f"{field}: {short(value)}: not granted", field=field, value=short(value), grant=grant)


def too_many(kind: str, granted: int, grant: Grants) -> Refused:
    return Refused(FORBIDDEN, f"{granted} {kind} are all that was granted", field=kind, grant=grant)


def check_size(field: str, value: object, most: int, remedy: str) -> None:
    """Of `value` in the Engine's JSON, which is in its lists and events: others read it there. Raises Refused."""
    if (size := size_as_json(value)) > most:
        what = f"{field}: {size} bytes of JSON, of {most} that may be: {remedy}"
        raise Refused(BAD_REQUEST, what, field=field)


def size_as_json(value: object) -> int:
    """Bytes, at most: Go's encoder writes some letters by their numbers (encoding/json, HTMLEscape)."""
    written = msgspec.json.encode(value)
    return len(written) + 5 * len(_NUMBERED.findall(written))


def short(value: object) -> str:
    text = repr(msgspec.to_builtins(value))  # by the Engine's keys
    return text if len(text) <= 80 else f"{text[:77]}…"
