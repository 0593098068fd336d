"""What a container's log may be. Its options are the Engine's to follow: it runs a template, compiles expressions and
opens files by them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from dom0.socketproxy.refusal import FORBIDDEN, Refused, never, short
from dom0.socketproxy.requests import LogConfig
from dom0.socketproxy.scope import Scope

DRIVERS = ("", "json-file", "local", "none")  # others connect to what their options name, paths of the host too
FIELDS = (
    *("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName"),
    *("ContainerID", "ContainerName", "ContainerImageID", "ContainerImageName"),
)
LEAST = 4_000  # bytes of a file: each is opened, renamed and compressed when it is full
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}  # as the Engine reads them


class _Option(NamedTuple):
    values: re.Pattern[str]
    said: str


_SIZE = re.compile(r"([0-9]{1,12})([kmg]?)b?", re.IGNORECASE)
_NAMES = _Option(re.compile(r"[ -~]{0,4096}"), "names, 4,096 letters of them")
_EXPRESSION = _Option(re.compile(r"[^{]{0,256}"), "an expression of 256 letters, without numbers of repeats")
OPTIONS: Mapping[str, _Option] = {
    "compress": _Option(re.compile("(?i:true|false)"), "true or false"),
    "env": _NAMES,
    "env-regex": _EXPRESSION,
    "labels": _NAMES,
    "labels-regex": _EXPRESSION,
    "max-file": _Option(re.compile("[1-9][0-9]?|100"), "1 to 100"),
    "max-size": _Option(_SIZE, "4k at least, as 10m"),
    "mode": _Option(re.compile("blocking|non-blocking"), "blocking or non-blocking"),
    "tag": _Option(
        re.compile(rf"(?=.{{0,256}}\Z)(?:[^{{}}\x00-\x1f]|\{{\{{ ?\.(?:{'|'.join(FIELDS)}) ?\}}\}})*"),
        f"text with fields: {' '.join(f'{{{{.{name}}}}}' for name in FIELDS)}",
    ),
}
"""No max-buffer-size: it is the Engine's own memory."""


def checked(asked: LogConfig | None, scope: Scope) -> LogConfig | None:
    """As the Engine gets it: the labels that are written beside what is said have its names. Raises Refused."""
    if asked is None:
        return None
    if asked.type not in DRIVERS:
        raise never("HostConfig.LogConfig.Type", asked.type)
    for key, value in asked.config.items():
        if key not in OPTIONS:
            raise never("HostConfig.LogConfig.Config", key)
        option = OPTIONS[key]
        if not option.values.fullmatch(value) or (key == "max-size" and _size(value) < LEAST):
            field = f"HostConfig.LogConfig.Config.{key}"
            what = f"{field}: {short(value)}: not through this socket: {option.said}"
            raise Refused(FORBIDDEN, what, field=field, value=short(value))
    if "labels" not in asked.config:
        return asked
    names = ",".join(map(scope.long_label, asked.config["labels"].split(",")))
    return replace(asked, config={**asked.config, "labels": names})


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    return int(found[1]) * UNITS[found[2].lower()] if found else 0
