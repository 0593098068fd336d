"""What Compose printed → plain data with the project's final paths → Project. No I/O.

Quirks of `docker compose config` are undone here: every `$` comes doubled, a key that begins with `x-` in a mapping of
free names (labels, environment…) is lost in a made-up key `#extensions`, its JSON lacks every nested `x-` key, and its
YAML may lack the line break that a text begins with (until 2.26 at least). So JSON it is, and YAML for our own keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml

from dom0.compose import x_dom0
from dom0.compose.decode import decode
from dom0.compose.findings import Finding, KeyPath, Locations, refuse
from dom0.compose.model import FileObject, Network, Project, Service, Volume
from dom0.compose.values import PlainLoader
from dom0.compose.x_dom0 import MachineSettings
from dom0.errors import ProjectError

MERGED = "x-dom0-merged"  # our own last layer: x-dom0 of all layers, see x_dom0.merge

_BINDS_ARE_MADE = 5  # first version of Compose
_LOST = "#extensions"
_OCTAL = re.compile("0?[0-7]{1,4}")
_FREE_NAMES = {  # mappings whose keys are names, not Compose's words
    "annotations", "args", "aux_addresses", "depends_on", "driver_opts", "environment", "labels", "networks",
    "options", "services", "storage_opt", "sysctls", "ulimits", "volumes", "configs", "secrets", "additional_contexts",
}  # fmt: skip

_SECTIONS: dict[str, type[Any]] = {
    "services": Service,
    "networks": Network,
    "volumes": Volume,
    "configs": FileObject,
    "secrets": FileObject,
}

Relocate = Callable[[str, KeyPath], str]
"""A path as Compose printed it, and the key it stands at → the path on the machine."""


def parse(text: str) -> dict[str, Any]:
    """Raises ProjectError: this is not what Compose prints."""
    try:
        data = msgspec.json.decode(text.replace("$$", "$"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProjectError("Docker Compose printed something that is not JSON", hint=str(error)[:200]) from error
    if not isinstance(data, dict):
        raise ProjectError("Docker Compose printed no project")
    for _, service in _mapping(data, "services"):
        # Compose does not take its own JSON here: block devices have Go's names, `Path`, and a zero is left out.
        config = service.get("blkio_config") or {}
        for key, devices in config.items():
            if isinstance(devices, list):
                config[key] = [{name.lower(): value for name, value in device.items()} for device in devices]
        limits = service.get("ulimits") or {}
        for key, limit in limits.items():
            if isinstance(limit, dict):
                limits[key] = {"soft": 0, "hard": 0} | limit
    return data


def parse_with_own(text: str, written: str) -> dict[str, Any]:
    """`written`: the same project in YAML, which has x-dom0 of the services, or "". Raises ProjectError."""
    data = parse(text)
    try:
        own = yaml.load(written.replace("$$", "$"), Loader=PlainLoader)  # noqa: S506 -- a safe loader
    except (yaml.YAMLError, RecursionError) as error:
        raise ProjectError("Docker Compose printed something that is not YAML", hint=str(error)[:200]) from error
    for name, service in _mapping(own or {}, "services"):
        if x_dom0.KEY in service:
            data["services"][name][x_dom0.KEY] = service[x_dom0.KEY]
    return data


def restore_empty_lists(printed: Any, written: Any) -> None:
    """Compose's JSON has null for an empty list in keys that it does not know; `written` are such keys as they were."""
    if isinstance(printed, dict) and isinstance(written, dict):
        printed |= {key: [] for key, value in written.items() if value == [] and printed.get(key) is None}
        for key, value in written.items():
            restore_empty_lists(printed.get(key), value)


def fill_in_defaults(data: dict[str, Any], version: str) -> None:
    """Add what Compose leaves out as a default: from version 5 on `create_host_path` of binds."""
    if int(version.partition(".")[0]) < _BINDS_ARE_MADE:
        return
    for _, service in _mapping(data, "services"):
        for volume in service.get("volumes") or ():
            if volume.get("type") == "bind" and isinstance(volume.get("bind"), dict):
                volume["bind"].setdefault("create_host_path", True)


def for_hashing(data: dict[str, Any]) -> str:
    """The project for Compose to read again: JSON is YAML, every `$` means itself.

    Compose does not accept all of its own output. Changed, and not hashed: a stand-in for a service that another one
    depends on and that a profile disables; no build; a size of -1 as a number.
    """
    services: dict[str, Any] = {}
    for name, service in _mapping(data, "services"):
        services[name] = {key: -1 if value == "-1" else value for key, value in service.items()}
        if "build" in service:
            services[name]["build"] = {"context": "."}
    wanted = {name for service in services.values() for name in service.get("depends_on") or {}}
    stand_ins = {name: {"image": "none"} for name in sorted(wanted - services.keys())}
    return msgspec.json.encode(data | {"services": services | stand_ins}).decode().replace("$", "$$")


def relocate(data: dict[str, Any], paths: Relocate, contexts: Relocate) -> None:
    """Replace paths in `data`: by `paths` those that containers mount, by `contexts` those that `dom0 build` reads."""
    for name, service in _mapping(data, "services"):
        here = ("services", name)
        for number, volume in enumerate(service.get("volumes") or ()):
            if volume.get("type") == "bind":
                _replace(volume, "source", paths, (*here, "volumes", str(number), "source"))
        build = service.get("build") or {}
        _replace(build, "context", contexts, (*here, "build", "context"))
        extra = build.get("additional_contexts") or {}
        for key in extra:
            _replace(extra, key, contexts, (*here, "build", "additional_contexts", key))
    for kind in ("configs", "secrets"):
        for name, item in _mapping(data, kind):
            _replace(item, "file", paths, (kind, name, "file"))
    for name, volume in _mapping(data, "volumes"):
        _replace(volume.get("driver_opts") or {}, "device", paths, ("volumes", name, "driver_opts", "device"))


def with_text(data: Any, old: str, new: str) -> Any:
    """With `new` in the place of `old` in every text."""
    if isinstance(data, str):
        return data.replace(old, new)
    if isinstance(data, dict):
        return {key: with_text(value, old, new) for key, value in data.items()}
    return [with_text(value, old, new) for value in data] if isinstance(data, list) else data


def _replace(holder: dict[str, Any], key: str, paths: Relocate, where: KeyPath) -> None:
    if isinstance(holder.get(key), str):
        holder[key] = paths(holder[key], where)


def _mapping(data: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in (data.get(key) or {}).items():
        yield name, value or {}


def lost_keys(data: Any, path: KeyPath = ()) -> Iterator[Finding]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key == _LOST:
                lost = str(value).removeprefix("map[").partition(":")[0]
                hint = f"write the entries as a list: - {lost}=…"
                yield Finding((*path, lost), "Docker Compose loses keys that begin with x- here", hint)
            else:
                yield from lost_keys(value, (*path, str(key)))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from lost_keys(value, (*path, str(number)))


def project_of(data: dict[str, Any], locations: Locations) -> Project:
    """Raises ProjectError for data that does not fit the model, or a wrong value under x-dom0."""
    plain = _without_extensions(data)
    for name, service in (plain.get("services") or {}).items():
        _make_modes_numeric(service)
        for port in service.get("ports") or ():
            port["protocol"] = str(port.get("protocol", "")).lower()  # as the Engine calls it
        if x_dom0.KEY in data["services"][name]:
            service[x_dom0.KEY] = data["services"][name][x_dom0.KEY]
    sections: dict[str, Any] = {
        key: {name: decode(value, kind, (key, name), locations) for name, value in _mapping(plain, key)}
        for key, kind in _SECTIONS.items()
    }
    owned = ((name, service.x_dom0) for name, service in sections["services"].items() if service.x_dom0)
    if wrong := [finding for name, own in owned for finding in x_dom0.service_findings(name, own)]:
        raise refuse(wrong, locations)
    project = Project(name=str(data.get("name") or ""), **sections)
    if MERGED not in data:
        return project
    section = x_dom0.with_empty_sections(data[MERGED])
    machine = decode(section, MachineSettings, (x_dom0.KEY,), locations, ours=True)
    if wrong := list(x_dom0.findings(machine)):
        raise refuse(wrong, locations)
    return msgspec.structs.replace(project, machine=machine)


def _make_modes_numeric(holder: dict[str, Any]) -> None:
    """A service or its build: Compose 2.40 prints the modes of configs and secrets as octal text."""
    for use in (*holder.get("configs", ()), *holder.get("secrets", ())):
        if isinstance(mode := use.get("mode"), str) and _OCTAL.fullmatch(mode):
            use["mode"] = int(mode, 8)
    if "build" in holder:
        _make_modes_numeric(holder["build"])


def _without_extensions(data: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this mapping are names, one that begins with x- is no extension."""
    if isinstance(data, dict):
        return {
            key: _without_extensions(value, names=not names and key in _FREE_NAMES)
            for key, value in data.items()
            if names or not str(key).startswith("x-")
        }
    if isinstance(data, list):
        return [_without_extensions(value) for value in data]
    return data
