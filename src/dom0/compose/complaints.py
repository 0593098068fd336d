"""Docker Compose's error message about a project → the finding: its key, what is wrong and what to do. No I/O.

Compose reports one error at a time. A message that no pattern matches, as of a newer Compose, is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dom0.compose.findings import Finding, KeyPath
from dom0.compose.references import plain, services
from dom0.compose.support import known_keys
from dom0.wording import did_you_mean

_NAMED = ("services", "networks", "volumes", "configs", "secrets")
# Patterns are text, compiled when Compose reports an error: to compile all takes longer than to read a small project.
_INDEX = r"\.\[([0-9]+)\]"
_SPACE = r"\s*\n\s*"
_NOISE = r": invalid compose project$|^validating [^\n:]*: |^decoding failed due to [^\n]*\n+"
_UNKNOWN = (  # until Compose 2.35 and since
    r"(?P<path>\S+) Additional property (?P<key>.+) is not allowed$",
    r"(?P<path>\S*) ?additional properties '(?P<key>.+?)'(, '.+')* not allowed$",
)
_PORT = r"Invalid (?P<what>\w+): (?P<value>.+)$"
_SAME_NAME = r'services\.(?P<service>.+?): container name "(?P<name>.+?)" is already in use by '
_AT_KEY = r"(?P<path>(?:services|networks|volumes|configs|secrets|include|name)(?:\.[^\s:]+)*):? (?P<what>.+)$"
_WHERE = r"'(?P<top>\w+)\[(?P<name>.+?)\]\.(?P<key>[\w.-]+).*?'"
_DECODING = rf"(error decoding )?{_WHERE}:? "

# pattern, path (or @file), what is wrong, what to do; {…} are the pattern's groups
_Row = tuple[str, KeyPath, str, str]


def _row(pattern: str, path: str, what: str, hint: str = "") -> _Row:
    place = (path,) if path.startswith("@") else tuple(path.split())
    return pattern + "$", place, what, hint


_ROWS = (
    _row(
        r'service "(?P<service>.+?)" refers to undefined (?P<kind>\w+) #extensions',
        "services {service} {kind}s",
        "Docker Compose loses names that begin with x- here",
        "give the {kind} another name",
    ),
    _row(
        r'service "(?P<service>.+?)" depends on undefined service "(?P<name>.+?)"',
        "services {service}",
        "depends on the service {name}, which is not defined",
        "define services.{name}, or enable the profile it belongs to",
    ),
    _row(
        r'service "(?P<service>.+?)" refers to undefined (?P<kind>\w+) (?P<name>.+)',
        "services {service} {kind}s",
        "the {kind} {name} is not defined",
        "define it at the top level: {kind}s: {{{name}: …}}",
    ),
    _row(
        r"dependency cycle detected: (?P<names>(?P<first>.+?)( -> .*)?)",
        "services {first}",
        "depends on itself: {names}",
        "remove one of these dependencies",
    ),
    _row(
        r'service "(?P<service>.+?)" has neither an image nor a build context specified',
        "services {service}",
        "has neither image: nor build:",
        "say which image it runs",
    ),
    _row(
        rf'{_DECODING}time: .*duration "(?P<text>.*)"',
        "{top} {name} {key}",
        "{text!r} is not a duration",
        "such as 1m30s",
    ),
    _row(rf"{_DECODING}invalid size: (?P<text>.+)", "{top} {name} {key}", "{text} is not a size", "such as 512m or 2g"),
    _row(
        rf"{_DECODING}invalid suffix: (?P<text>.+)",
        "{top} {name} {key}",
        "no size ends in {text}",
        "such as 512m or 2g",
    ),
    _row(rf"{_DECODING}cannot parse value as '\w+': (?P<what>.+)", "{top} {name} {key}", "{what}"),
    _row(
        rf"(cannot parse )?{_WHERE} expected type .*value: '(?P<text>.*)'",
        "{top} {name} {key}",
        "{text!r} is not a value for this key",
    ),
    _row(rf"cannot parse {_WHERE}, (?P<what>.+)", "{top} {name} {key}", "{what}"),
    _row(
        r"(?P<path>services\.\S+\.container_name) (?P<text>'.*') does not match pattern .*",
        "{path}",
        "{text} cannot be a container's name",
        "letters, digits, _ . and -, two at least",
    ),
    _row(r"service (volume|ports) (?P<path>\S+) (?P<what>.+)", "{path}", "{what}"),
    _row(
        r"panic: (?P<what>[^\n]*).*",
        "",
        "Docker Compose crashes on this project: {what}",
        "some key has a value of the wrong type",
    ),
    _row(rf"{_DECODING}(?P<what>.+)", "{top} {name} {key}", "{what}"),
    _row(
        r"error while interpolating (?P<path>\S+): required variable (?P<name>\S+) is missing a value: ?(?P<what>.*)",
        "{path}",
        "the variable {name} is not set: {what}",
        "set {name} in the project's .env file",
    ),
    _row(
        r'error while interpolating (?P<path>\S+): failed to cast to expected type: .*parsing "(?P<text>.*)": .*',
        "{path}",
        "{text!r} is not a value for this key",
    ),
    _row(r"error while interpolating (?P<path>\S+): (failed to cast [^:]*: )?(?P<what>.+)", "{path}", "{what}"),
    _row(
        r"invalid interpolation format for (?P<path>\S+?)\.\n.*\n(?P<text>.*)",
        "{path}",
        "{text} is not a variable",
        "${{NAME}} stands for a variable, $$ for a dollar sign",
    ),
    _row(
        r"env file (?P<file>.+?) not found: .*",
        "",
        "the env_file {file} does not exist",
        "make it, or set required: false",
    ),
    _row(
        r"failed to read (?P<file>.+?): line (?P<line>\d+): (?P<what>.+)",
        "@{file}:{line}",
        "{what}",
        "NAME=value, one a line",
    ),
    _row(r"failed to read (?P<file>.+?): (?P<what>.+)", "@{file}", "{what}", "NAME=value, one a line"),
    _row(r"line (?P<line>\d+): (?P<what>.+)", "@an env_file:{line}", "{what}", "NAME=value, one a line"),
    _row(r"open (?P<file>.+?): no such file or directory", "", "{file} does not exist"),
    _row(
        r'cannot extend service "(?P<service>.+?)" in .+?: service "(?P<name>.+?)" not found',
        "services {service} extends",
        "there is no service {name} to extend",
    ),
    _row(
        r"[Nn]on-string key in (?P<path>\S+): (?P<key>.*)",
        "{path}",
        "the key {key} has to be text",
        "put quotes around it",
    ),
    _row(r"[Nn]on-string key at top level: (?P<key>.*)", "", "the key {key} has to be text", "put quotes around it"),
    _row(
        r"services\.scale: can't set container_name and (?P<service>.+) as container name must be unique",
        "services {service} container_name",
        "only one container can have this name, and several are asked for",
        "leave container_name out, or scale to 1",
    ),
    _row(
        r"service (?P<service>.+) declares mutually exclusive `network_mode` and `networks`",
        "services {service} network_mode",
        "cannot be combined with networks:",
        "keep one of the two",
    ),
    _row(
        r"(?P<path>\S+) conflicts with imported resource",
        "{path}",
        "is defined here and in an included file",
        "rename one of the two",
    ),
    _row(
        r"experimental (git|OCI) remote resource is disabled.*",
        "include",
        "names something on another host, and a machine has to come up without a network",
        "put a copy of it into the project",
    ),
    _row(r"project name must not be empty.*", "name", "is missing", "name: mybox as the first line"),
)


def understand(words: str, documents: Iterable[Mapping[str, Any]]) -> Finding:
    """`words` is what Compose printed, with the project's paths; `documents` are the contents of its files."""
    text = re.sub(_INDEX, r".\1", words.strip())
    while (shorter := re.sub(_NOISE, "", text)) != text:
        text = shorter
    special: tuple[tuple[str, Callable[[re.Match[str]], Finding]], ...] = (
        *((pattern, _unknown_key) for pattern in _UNKNOWN),
        (_PORT, lambda match: _port(match, documents)),
        (_SAME_NAME, lambda match: _same_name(match, documents)),
    )
    for pattern, make in special:
        if match := re.match(pattern, text, re.DOTALL):
            return make(match)
    for pattern, place, what, hint in _ROWS:
        if match := re.match(pattern, text, re.DOTALL):
            groups = {name: _one_line(value or "") for name, value in match.groupdict().items()}
            where = tuple(part.format(**groups) for part in place)
            file = where[0].removeprefix("@") if where and where[0].startswith("@") else ""
            path = () if file else where
            return Finding(path, what.format(**groups).removesuffix(": "), hint.format(**groups), file)
    if match := re.match(_AT_KEY, text, re.DOTALL):
        what = match["what"].removeprefix(f"{match['path']} ").replace("must be a null", "has the wrong type")
        what = what.replace("must be a array", "must be a list").replace("must be a object", "must be a mapping")
        return Finding(tuple(match["path"].split(".")), _one_line(what))
    return Finding((), _one_line(text) or "Docker Compose does not accept the project, and does not say why")


def _unknown_key(match: re.Match[str]) -> Finding:
    path = () if match["path"] in ("(root)", "") else tuple(match["path"].split("."))
    key = match["key"]
    if len(path) == 1 and path[0] in _NAMED:
        return Finding((*path, key), "this cannot be a name", "letters, digits, dots, - and _ can")
    return Finding((*path, key), "no such key", did_you_mean(key, known_keys(path)))


def _port(match: re.Match[str], documents: Iterable[Mapping[str, Any]]) -> Finding:
    """Compose does not name the service."""
    value = _one_line(match["value"])
    kinds = {"proto": "protocol", "containerPort": "port of the container", "hostPort": "port of the host"}
    what = f"{value!r} cannot be a {kinds.get(match['what'], match['what'])}"
    hint = "such as 8080:80, 127.0.0.1:8080:80 or 53:53/udp"
    for document in documents:
        for name, service in services(dict(document)):
            if isinstance(service, dict) and value in str(service.get("ports")):
                return Finding(("services", name, "ports"), what, hint)
    return Finding(("services",), what, hint)


def _same_name(match: re.Match[str], documents: Iterable[Mapping[str, Any]]) -> Finding:
    """Compose names one of the two services, at random."""
    name = match["name"]
    theirs = {
        service
        for document in documents
        for service, keys in services(dict(document))
        if isinstance(keys, dict) and plain(keys.get("container_name")) == name
    }
    if len(theirs) < 2:  # it comes from a variable or by extends:
        what = f"{name} is the name of another service's container already"
        return Finding(("services", match["service"], "container_name"), what)
    first, second = sorted(theirs)[:2]
    return Finding(("services", second, "container_name"), f"{name} is the name of services.{first} already")


def _one_line(text: str) -> str:
    return re.sub(_SPACE, "; ", text.strip())
