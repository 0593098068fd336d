"""Docker Compose's error message about a project → the finding: its key, what is wrong and what to do. No I/O.

Compose reports one error at a time. A message that no pattern matches, as of a newer Compose, is passed on as it is.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dom0.compose.findings import Finding, KeyPath
from dom0.compose.references import plain, services
from dom0.compose.support import known_keys
from dom0.wording import did_you_mean

AN_ENV_FILE = "an env_file"  # Compose until 2.26 does not say which one it cannot read
_OTHER_NAME = "give it another one, or leave container_name out"
_NAMED = ("services", "networks", "volumes", "configs", "secrets")
# Patterns are text, compiled when Compose reports an error: to compile all takes longer than to read a small project.
_INDEX = r"\.\[([0-9]+)\]"
_SPACE = r"\s*\n\s*"
_NOISE = r": invalid compose project$|^validating [^\n:]*: |^decoding failed due to [^\n]*\n+"
_UNKNOWN = (  # until Compose 2.35 and since
    r"(?P<path>\S+) Additional property (?P<key>.+) is not allowed$",
    r"(?P<path>\S*) ?additional properties '(?P<key>.+?)'(, '.+')? not allowed$",
)
_UNSET = r'The "(\w+)" variable is not set'
_VARIABLE = r"(?<!\$)\$\{?([A-Za-z_][A-Za-z0-9_]*)"
_PORT = r"Invalid (?P<what>\w+): (?P<value>.+)$"
_TEST = ("healthcheck", "test")
_NO_PORT = r"No port specified: (?P<value>.*?)(<empty>)?$"
_WAITING_CIRCLE = r"dependency cycle detected: (?P<names>.+ -> .+)$"
_CIRCLE = r"Circular reference:\s+(?P<names>\S+ in .+)$"
_NO_SERVICE = r'service "(?P<service>.+?)" depends on undefined service "(?P<name>.+?)"$'
_NOT_DEFINED = r'service "(?P<service>.+?)" refers to undefined (?P<kind>\w+) (?!#extensions)(?P<name>.+)$'
_WAITING = ("depends_on", "links", "volumes_from", "network_mode", "ipc", "pid")  # keys that name a service
_SAME_NAME = r'services\.(?P<service>.+?): container name "(?P<name>.+?)" is already in use by '
_AT_KEY = r"(?P<path>(?:services|networks|volumes|configs|secrets|include|name|version)(?:\.[^\s:]+)?):? (?P<what>.+)$"
_AS_DESCRIBED = "leave it out, or write it as Compose describes it: https://docs.docker.com/reference/compose-file/"
_TYPED = "a number is written without quotes, a flag is true or false, all else is text"
_VOLUMES = "such as ./data:/data or data:/data"
_PORTS = "such as 8080:80, 127.0.0.1:8080:80 or 53:53/udp"
_WHERE = r"'(?P<top>\w+)\[(?P<name>.+?)\]\.(?P<key>[\w.-]+).*?'"
_DECODING = rf"(error decoding )?{_WHERE}:? "

_MOST_SAID = 8  # texts of a message that are looked for

_EXAMPLES = {
    "ports": _PORTS,
    "volumes": _VOLUMES,
    "test": "such as [CMD, curl, -f, http://localhost], or a command as one text",
    "devices": "such as /dev/ttyUSB0 or /dev/ttyUSB0:/dev/ttyUSB1:rw",
}
_SHAPES = {
    "a list": "such as [a, b], or an entry a line after `- `",
    "a mapping": "such as {KEY: VALUE}, or a line KEY: VALUE for each",
    "a string": "put quotes around it",
    "boolean": "true or false",
    "one of the following": "write one of these, or leave the key out",
    "missing property": "write it as well",
    "is required": "write it as well",
    "must be set": "write one of these",
    "": _AS_DESCRIBED,
}
# pattern, path (or @file, or #file that some key names), what is wrong, what to do; {…} are the pattern's groups
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
        r"include cycle detected:\s+(?P<names>.+)",
        "include",
        "the files include each other: {names}",
        "take one of these out of include:",
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
    _row(
        rf"{_DECODING}cannot parse value as '(?P<kind>\w+)': (?P<what>.+)",
        "{top} {name} {key}",
        "{what}",
        "it takes a value of the type {kind}",
    ),
    _row(
        rf"(cannot parse )?{_WHERE} expected type '(?P<kind>\w+)'.*value: '(?P<text>.*)'",
        "{top} {name} {key}",
        "{text!r} is not a value for this key",
        "it takes a value of the type {kind}",
    ),
    _row(rf"cannot parse {_WHERE}, (?P<what>.+)", "{top} {name} {key}", "{what}", _TYPED),
    _row(
        r"(?P<path>services\.\S+\.container_name) (?P<text>'.*') does not match pattern .*",
        "{path}",
        "{text} cannot be a container's name",
        "letters, digits, _ . and -, two at least",
    ),
    _row(r"service volume (?P<path>\S+) (?P<what>.+)", "{path}", "{what}", _VOLUMES),
    _row(r"service ports (?P<path>\S+) (?P<what>.+)", "{path}", "{what}", _PORTS),
    _row(
        r"panic: (?P<what>[^\n]*).*",
        "",
        "Docker Compose crashes on this project: {what}",
        "some key has a value of the wrong type; `docker compose config` with fewer services shows which",
    ),
    _row(
        rf"{_DECODING}invalid boolean: (?P<text>.+)",
        "{top} {name} {key}",
        "{text!r} is neither true nor false",
        "write one of the two",
    ),
    _row(
        rf'{_DECODING}strconv\..*parsing "(?P<text>.*)": .*',
        "{top} {name} {key}",
        "{text!r} is not a number",
        _TYPED,
    ),
    _row(rf"{_DECODING}(?P<what>.+)", "{top} {name} {key}", "{what}", _AS_DESCRIBED),
    _row(
        r"error while interpolating (?P<path>\S+): required variable (?P<name>\S+) is missing a value:? ?(?P<what>.*)",
        "{path}",
        "the variable {name} is not set: {what}",
        "set {name} in the project's .env file",
    ),
    _row(
        r'error while interpolating (?P<path>\S+): failed to cast to expected type: .*parsing "(?P<text>.*)": .*',
        "{path}",
        "{text!r} is not a value for this key",
        _TYPED,
    ),
    _row(r"error while interpolating (?P<path>\S+): (failed to cast [^:]*: )?(?P<what>.+)", "{path}", "{what}", _TYPED),
    _row(
        r"invalid interpolation format for (?P<path>\S+?)\.\n.*\n(?P<text>.*)",
        "{path}",
        "{text} is not a variable",
        "${{NAME}} stands for a variable, $$ for a dollar sign",
    ),
    _row(
        r"env file (?P<file>.+?) not found: .*",
        "#{file}",
        "the env_file {file} does not exist",
        "make it, or set required: false",
    ),
    _row(
        r"failed to read (?P<file>.+?): line (?P<line>\d+): (?P<what>.+)",
        "@{file}:{line}",
        "{what}",
        "NAME=value, one a line",
    ),
    _row(
        r"failed to read (?P<file>.+?): (?P<what>.+)",
        "@{file}",
        "{what}",
        "NAME=value, one a line; a dollar sign that means itself in single quotes: NAME='a$b'",
    ),
    _row(r"line (?P<line>\d+): (?P<what>.+)", f"@{AN_ENV_FILE}:{{line}}", "{what}", "NAME=value, one a line"),
    _row(
        r"open (?P<file>.+?): no such file or directory",
        "#{file}",
        "{file} does not exist",
        "make it, or take it out here",
    ),
    _row(
        r'cannot extend service "(?P<service>.+?)" in .+?: service "(?P<name>.+?)" not found',
        "services {service} extends",
        "there is no service {name} to extend",
        "define services.{name} in that file, or name another one",
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


def understand(words: str, documents: Sequence[Mapping[str, Any]]) -> Finding:
    """`words` is what Compose printed, with the project's paths; `documents` are the contents of its files."""
    text = re.sub(_INDEX, r".\1", words.strip())
    while (shorter := re.sub(_NOISE, "", text)) != text:
        text = shorter
    special: tuple[tuple[str, Callable[[re.Match[str]], Finding]], ...] = (
        *((pattern, _unknown_key) for pattern in _UNKNOWN),
        (_PORT, lambda match: _port(match, documents)),
        (_NO_PORT, lambda match: _no_port(match["value"], documents)),
        (_WAITING_CIRCLE, lambda match: _waiting_circle(match["names"].split(" -> "), documents)),
        (_CIRCLE, lambda match: _circle(re.findall(r"(\S+) in ", match["names"]))),
        (_NO_SERVICE, lambda match: _no_service(match["service"], match["name"], documents)),
        (_NOT_DEFINED, lambda match: _not_defined(match["service"], match["kind"], match["name"], documents)),
        (_SAME_NAME, lambda match: _same_name(match, documents)),
    )
    for pattern, make in special:
        if match := re.match(pattern, text, re.DOTALL):
            return make(match)
    for pattern, place, what, hint in _ROWS:
        if match := re.match(pattern, text, re.DOTALL):
            groups = {name: _one_line(value or "") for name, value in match.groupdict().items()}
            keys = {"{path}": groups.get("path", "").split(".")}
            where = tuple(key for part in place for key in keys.get(part, [part.format(**groups)]))
            file = where[0].removeprefix("@") if where and where[0].startswith("@") else ""
            path = () if file else where
            if where and where[0].startswith("#"):
                path = _naming(where[0][1:], documents)
            return Finding(path, what.format(**groups).removesuffix(": "), hint.format(**groups), file)
    if match := re.match(_AT_KEY, text, re.DOTALL):
        what = match["what"].removeprefix(f"{match['path']} ").replace("must be a null", "has the wrong type")
        what = what.replace("must be a array", "must be a list").replace("must be a object", "must be a mapping")
        hint = next((hint for word, hint in _SHAPES.items() if word in what), "")
        return Finding(tuple(match["path"].split(".")), _one_line(what), hint)
    if not text:
        return Finding((), "Docker Compose does not accept the project, and does not say why", _AS_DESCRIBED)
    path = _saying(text, documents)
    hint = next((hint for key, hint in _EXAMPLES.items() if key in path), _AS_DESCRIBED)
    return Finding(path, _one_line(text), hint)


def blame(finding: Finding, warnings: Iterable[str], documents: Iterable[Mapping[str, Any]]) -> Finding:
    """As `finding`, or as of the variable that is not set where one stands at its key: `warnings` are Compose's."""
    unset = {match[1] for warning in warnings if (match := re.match(_UNSET, warning))}
    path = (*finding.path, "image") if finding.path[:1] == ("services",) and len(finding.path) == 2 else finding.path
    for document in documents if unset and path else ():
        for where, text in _texts(document, path):
            if name := next((name for name in re.findall(_VARIABLE, text) if name in unset), ""):
                what = f"the variable {name} is not set: {finding.what}"
                hint = f"write {name}=… into the project's .env file: what a shell exports reaches no machine"
                return replace(finding, path=where, what=what, hint=hint)
    return finding


def _texts(value: Any, rest: KeyPath, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """All texts at and below `rest`; of a list that has no such entry all of it: another file's stand before them."""
    value = plain(value)
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key in [rest[0]] if rest else value:
            yield from _texts(value.get(key), rest[1:], (*path, str(key)))
    elif isinstance(value, list):
        entries = {str(number): entry for number, entry in enumerate(value)}
        for number in rest[:1] if entries.keys() & rest[:1] else entries:
            yield from _texts(entries[number], rest[1:], (*path, number))


def _naming_there(service: str, keys: Sequence[str], name: str, documents: Iterable[Mapping[str, Any]]) -> KeyPath:
    """The place below one of `keys` of the service where `name` stands, else the service."""
    here: KeyPath = ("services", service)
    for document in documents:
        for key in keys:
            if name in _at(document, (*here, key)):
                return (*here, key, name)
            for path, text in _texts(document, (*here, key)):
                if name in text.split(":")[:2]:
                    return path
    return (*here, keys[0]) if len(keys) == 1 else here


def _at(document: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
    """The mapping at `path`, an empty one where there is none."""
    found: Any = document
    for key in path:
        found = plain(found.get(key)) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _saying(words: str, documents: Sequence[Mapping[str, Any]]) -> KeyPath:
    """The key whose text Compose complains of where it names none: what is in quotes, else what comes last."""
    said = re.findall(r'"([^"]+)"', words) or re.split(r" and ", words.rpartition(": ")[2])
    if "healthcheck.test" in words:  # it says what a list may begin with
        texts = (found for document in documents for found in _texts(document, ("services",)))
        return next((path for path, text in texts if path[-3:] == (*_TEST, "0") and text not in said), ())
    for word in said[:_MOST_SAID]:
        texts = (found for document in documents for found in _texts(document, ("services",)))
        if path := next((path for path, text in texts if word in text), ()):
            return path
    return ()


def _naming(file: str, documents: Iterable[Mapping[str, Any]]) -> KeyPath:
    """The key that names the file, () where none does."""
    texts = (found for document in documents for found in _texts(document, ()))
    return next((path for path, text in texts if f"/{file}".endswith(f"/{posixpath.normpath(text)}")), ())


def _unknown_key(match: re.Match[str]) -> Finding:
    path = () if match["path"] in ("(root)", "") else tuple(match["path"].split("."))
    key = match["key"]
    if len(path) == 1 and path[0] in _NAMED:
        return Finding((*path, key), "this cannot be a name", "letters, digits, dots, - and _ can")
    return Finding((*path, key), "no such key", did_you_mean(key, known_keys(path)))


def _waiting_circle(names: Sequence[str], documents: Iterable[Mapping[str, Any]]) -> Finding:
    path = _naming_there(names[0], _WAITING, names[1], documents)
    return Finding(path, f"depends on itself: {' -> '.join(names)}", "remove one of these dependencies")


def _circle(names: Sequence[str]) -> Finding:
    """Compose begins with any of the services that extend each other, or with one on the way there."""
    names = names[names.index(names[-1]) : -1] or names
    first = names.index(min(names))
    names = [*names[first:], *names[: first + 1]]
    return Finding(("services", names[0], "extends"), f"extends itself: {' -> '.join(names)}", "take one of these out")


def _port(match: re.Match[str], documents: Iterable[Mapping[str, Any]]) -> Finding:
    value = _one_line(match["value"])
    kinds = {"proto": "protocol", "containerPort": "port of the container", "hostPort": "port of the host"}
    what = f"{value!r} cannot be a {kinds.get(match['what'], match['what'])}"
    return Finding(_with_port(value, documents), what, _PORTS)


def _no_port(value: str, documents: Iterable[Mapping[str, Any]]) -> Finding:
    return Finding(_with_port(value, documents), f"{value!r} says no port of the container", _PORTS)


def _with_port(value: str, documents: Iterable[Mapping[str, Any]]) -> KeyPath:
    """Compose does not name the service."""
    for document in documents:
        for name, service in services(dict(document)):
            ports = plain(service.get("ports")) if isinstance(service, dict) else None
            for number, port in enumerate(ports if isinstance(ports, list) else ()):
                if value in str(port):
                    return "services", name, "ports", str(number)
    return ("services",)


def _no_service(service: str, name: str, documents: Sequence[Mapping[str, Any]]) -> Finding:
    what = f"depends on the service {name}, which is not defined"
    known = {key for document in documents for key, _ in services(dict(document))}
    near, define = did_you_mean(name, known - {service}), f"define services.{name}, or take it out here"
    hint = f"{near} Else {define}" if near.endswith("?") else define
    path = ("services", name, "profiles")
    if profile := next((text for document in documents for _, text in _texts(document, path)), ""):
        what = f"depends on the service {name}, whose profile is not enabled"
        hint = f"COMPOSE_PROFILES={profile} in the project's .env file enables it"
    return Finding(_naming_there(service, _WAITING, name, documents), what, hint)


def _not_defined(service: str, kind: str, name: str, documents: Sequence[Mapping[str, Any]]) -> Finding:
    near = did_you_mean(name, {str(key) for document in documents for key in _at(document, (f"{kind}s",))})
    define = f"define it at the top level: {kind}s: {{{name}: {'{file: …}' if kind in ('config', 'secret') else '{}'}}}"
    path = _naming_there(service, (f"{kind}s",), name, documents)
    return Finding(path, f"the {kind} {name} is not defined", f"{near} Else {define}" if near.endswith("?") else define)


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
        return Finding(("services", match["service"], "container_name"), what, _OTHER_NAME)
    first, second = sorted(theirs)[:2]
    what = f"{name} is the name of services.{first} already"
    return Finding(("services", second, "container_name"), what, _OTHER_NAME)


def _one_line(text: str) -> str:
    return re.sub(_SPACE, "; ", text.strip())
