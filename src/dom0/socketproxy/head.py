"""One request's head, read strictly: method, path and query as the Engine will get them anew. Pure.

Refused is what two readers may read differently: a path that is not in its one spelling, a parameter twice, two
lengths of the body, a body that is a form (the Engine prefers a form's values to the query's). Sources: RFC 9112,
moby's router.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote

import h11
import msgspec

from dom0.http.channel import Headers
from dom0.socketproxy.refusal import BAD_REQUEST, NOT_ALLOWED, TOO_LARGE, Refused

LONGEST_TARGET = 8192  # bytes
MOST_PARAMETERS = 32
SEVERAL = ("names", "t")  # parameters that are names of images: read as one text with spaces
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
OLDEST_API = (1, 24)
_VERSION = re.compile(r"v1\.([1-9][0-9])")
_MAY_STAND = "-._~!$&'()*+,;=:@"  # in a path as they are: RFC 3986, pchar


class Head(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: tuple[str, ...]  # unquoted, without version
    query: dict[str, str]
    upgrade: str  # what the client wants to speak after this, "" for HTTP
    registry_auth: str  # X-Registry-Auth as it was sent


def read(request: h11.Request, newest: tuple[int, int]) -> Head:
    """`newest`: the API version that is spoken. Raises Refused."""
    headers = Headers(request.headers)
    if headers.all("Transfer-Encoding") and headers.all("Content-Length"):
        raise Refused(BAD_REQUEST, "the body has two lengths")
    content_type = headers.get("Content-Type").split(";")[0].strip().lower()
    if len(headers.all("Content-Type")) > 1 or content_type in FORMS:
        raise Refused(BAD_REQUEST, "Content-Type: a form is not taken; send JSON")
    if headers.all("Content-Encoding") not in ([], ["identity"]):
        raise Refused(BAD_REQUEST, "Content-Encoding: the body must be sent as it is")
    method = request.method.decode("ascii", "replace")
    if method not in METHODS:
        raise Refused(NOT_ALLOWED, f"{method}: no such method")
    target = request.target.decode("latin-1")
    if len(target) > LONGEST_TARGET:
        raise Refused(TOO_LARGE, "the path is too long")
    raw_path, _, raw_query = target.partition("?")
    return Head(
        method=method,
        path=_path(raw_path, newest),
        query=_query(raw_query),
        upgrade=headers.get("Upgrade").lower(),
        registry_auth=headers.get("X-Registry-Auth"),
    )


def _path(raw: str, newest: tuple[int, int]) -> tuple[str, ...]:
    if not raw.startswith("/"):
        raise Refused(BAD_REQUEST, "the path does not begin with /")
    raw_parts = raw[1:].split("/")
    if match := _VERSION.fullmatch(raw_parts[0]):
        asked = (1, int(match[1]))
        if asked > newest:
            mine, theirs = (f"{major}.{minor}" for major, minor in (newest, asked))
            message = f"client version {theirs} is too new. Maximum supported API version is {mine}"
            raise Refused(BAD_REQUEST, message)
        if asked < OLDEST_API:
            raise Refused(BAD_REQUEST, f"client version {asked[0]}.{asked[1]} is too old")
        raw_parts = raw_parts[1:]
    return tuple(_part(part) for part in raw_parts)


def _part(raw: str) -> str:
    try:
        part = unquote(raw, errors="strict")
    except UnicodeDecodeError as error:
        raise Refused(BAD_REQUEST, "the path is not UTF-8") from error
    if raw not in (quote(part, safe=_MAY_STAND), quote(part, safe="")):
        raise Refused(BAD_REQUEST, f"{raw}: a path is spelled in one way only")
    if part in ("", ".", "..") or not part.isprintable() or "/" in part or "%" in part:
        raise Refused(BAD_REQUEST, f"{raw!r}: not a part of a path")
    return part


def _query(raw: str) -> dict[str, str]:
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except ValueError as error:
        raise Refused(BAD_REQUEST, f"the query: {error}") from error
    query: dict[str, str] = {}
    for key, value in pairs:
        if key in query and key not in SEVERAL:
            raise Refused(BAD_REQUEST, "a parameter is there twice")
        query[key] = f"{query[key]} {value}" if key in query else value
    if not all(value.isprintable() for pair in pairs for value in pair):
        raise Refused(BAD_REQUEST, "a parameter has control characters")
    return query
