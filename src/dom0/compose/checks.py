"""Values that Compose accepts and no machine can run. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from dom0.compose.findings import Finding, KeyPath
from dom0.compose.model import Network, Project, Service
from dom0.names import OURS

MAX_CONTAINERS = 1000
MAX_PORTS = 20_000  # the Engine runs two processes and some rules for each

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FREE_TEXT = {  # where line breaks and the like are data
    "annotations", "args", "command", "content", "develop", "dockerfile_inline", "driver_opts", "entrypoint",
    "environment", "labels", "options", "sysctls", "test",
}  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # of a container or a volume
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"  # registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}"
)
_MAY_BE_MINUS_1 = {"cpu_quota", "mem_limit", "memswap_limit", "mem_swappiness", "oom_score_adj", "pids_limit"}


def findings(project: Project, *, on_one_host: bool = True) -> list[Finding]:
    """The first thing that is wrong with each key."""
    found: list[Finding] = []
    if not _PROJECT.fullmatch(project.name):
        what = f"{project.name!r} cannot be a project's name"
        found.append(Finding(("name",), what, "lowercase letters, digits, - and _"))
    found += control_characters(msgspec.to_builtins(msgspec.structs.replace(project, machine=None)), ())
    found += control_characters(msgspec.to_builtins(project.machine), ("x-dom0",))
    for name, service in project.services.items():
        for check in _SERVICE_CHECKS:
            found += (Finding(("services", name, *path), what, hint) for path, what, hint in check(service))
    for key, network in project.networks.items():
        found += _network(key, network)
    for key, volume in project.volumes.items():
        if not _NAME.fullmatch(volume.name):
            found.append(Finding(("volumes", key, "name"), f"{volume.name!r} cannot be a volume's name", _NAME_HINT))
    found += (*_file_objects(project), *_together(project, on_one_host=on_one_host), *_awaited_jobs(project))
    first: dict[KeyPath, Finding] = {}
    for finding in found:
        first.setdefault(finding.path, finding)
    return list(first.values())


Complaint = tuple[KeyPath, str, str]  # path inside the service, what is wrong, what to do
_NAME_HINT = "letters, digits, _ . and -, two at least"


def control_characters(value: Any, path: KeyPath, *, free: bool = False) -> Iterator[Finding]:
    """In keys everywhere, and in values except where they are `free` text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if _CONTROL.search(key):
                yield Finding((*path, key), "there is a control character in this name", "take it out")
            else:
                yield from control_characters(inner, (*path, key), free=free or key in _FREE_TEXT)
    elif free:
        return
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from control_characters(inner, (*path, str(number)))
    elif isinstance(value, str) and _CONTROL.search(value):
        yield Finding(path, f"there is a control character in {value!r}", "take it out")


def _names(service: Service) -> Iterator[Complaint]:
    if service.container_name and not _NAME.fullmatch(service.container_name):
        yield ("container_name",), f"{service.container_name!r} cannot be a container's name", _NAME_HINT
    if service.container_name in OURS:
        yield ("container_name",), f"{service.container_name} is a container of dom0 itself", "take another name"
    if service.image and not _IMAGE.fullmatch(service.image):
        yield ("image",), f"{service.image!r} cannot be an image's name", "such as redis:7 or registry:5000/team/app"


def _numbers(service: Service) -> Iterator[Complaint]:
    if not 0 <= service.replicas <= MAX_CONTAINERS:
        key = ("scale",) if service.scale is not None else ("deploy", "replicas")
        yield key, f"{service.replicas} is not a possible number of containers", f"0 to {MAX_CONTAINERS}"
    for field in service.__struct_fields__:
        value = getattr(service, field)
        if not isinstance(value, int | float) or value >= 0 or field == "scale":
            continue
        if value < (-1000 if field == "oom_score_adj" else -1 if field in _MAY_BE_MINUS_1 else 0):
            yield (field,), f"{value} is out of range", "such a number means nothing, or was too large"


def _schedule(service: Service) -> Iterator[Complaint]:
    if not (service.x_dom0 and service.x_dom0.schedule):
        return
    if service.restart not in ("", "no"):
        yield ("restart",), f"{service.restart} and x-dom0.schedule would both start it", "leave it out, or no"
    elif service.deploy and service.deploy.restart_policy and service.deploy.restart_policy.condition != "none":
        yield ("deploy", "restart_policy"), "it and x-dom0.schedule would both start it", "condition: none"
    if service.x_dom0.ambassador:
        yield ("x-dom0", "schedule"), "an ambassador runs all the time", "leave it out"


def _environment(service: Service) -> Iterator[Complaint]:
    for name in service.environment:
        if not name or "=" in name:
            yield ("environment",), f"{name!r} cannot be a variable's name", "look at env_file too: NAME=value"


def _hooks(service: Service) -> Iterator[Complaint]:
    for key, hooks in (("post_start", service.post_start), ("pre_stop", service.pre_stop)):
        for number, hook in enumerate(hooks):
            if not hook.command:
                yield (key, str(number), "command"), "there is no command", "such as ./set-up.sh or [sh, -c, …]"
            for name in hook.environment:
                if not name or "=" in name:
                    hint = "NAME=value, or a mapping"
                    yield (key, str(number), "environment"), f"{name!r} cannot be a variable's name", hint


def _volumes(service: Service) -> Iterator[Complaint]:
    for number, volume in enumerate(service.volumes):
        key = ("volumes", str(number))
        if volume.type == "image":
            yield key, "the type image is not supported yet", "build its files into the service's image"
        elif volume.type not in ("bind", "volume", "tmpfs"):
            what = f"the type {volume.type} is refused: no Linux machine outside Swarm has it"
            yield key, what, "bind, volume or tmpfs"
        if not volume.target.startswith("/"):
            hint = "start it with /"
            if ":" in volume.target:  # Compose takes a: for a drive of Windows
                hint = "for a volume with a name of one letter use the long form: {type: volume, source: …, target: /…}"
            yield key, f"{volume.target!r} is not an absolute path in the container", hint
        if volume.type == "bind" and not volume.source.startswith("/"):
            yield key, f"{volume.source!r} is not a path of this machine", "start it with ./ or /"


def _swarm_modes(service: Service) -> Iterator[Complaint]:
    mode = service.deploy.mode if service.deploy else ""
    if mode not in ("", "replicated", "global"):
        hint = "for a job leave the mode out: a service with restart: no that ends with 0 is not run again"
        yield ("deploy", "mode"), f"{mode} is refused: Compose has no jobs", hint


def _addresses(service: Service) -> Iterator[Complaint]:
    for key, network in service.networks.items():
        for field, version in (("ipv4_address", 4), ("ipv6_address", 6)):
            text = getattr(network, field) if network else ""
            if text and not _is_address(text, version):
                hint = "such as 172.28.0.10" if version == 4 else "such as fd00::10"
                yield ("networks", key, field), f"{text!r} is not an IPv{version} address", hint


def _ports(service: Service) -> Iterator[Complaint]:
    if len(service.ports) > MAX_PORTS:
        hint = "network_mode: host has all ports of the machine without publishing any"
        yield ("ports",), f"{len(service.ports)} ports are published, at most {MAX_PORTS} are possible", hint
    for number, port in enumerate(service.ports):
        if port.host_ip and not (_is_address(port.host_ip, 4) or _is_address(port.host_ip, 6)):
            yield ("ports", str(number), "host_ip"), f"{port.host_ip!r} is not an address", "such as 127.0.0.1"
        key, hint = ("ports", str(number)), "such as 8080:80, 127.0.0.1:8080:80 or 53:53/udp"
        first, _, last = port.published.partition("-")
        numbers = [text for text in (first, last) if text]
        if not 1 <= port.target <= 65535:
            yield key, f"{port.target} cannot be a port of the container", hint
        elif any(not (text.isascii() and text.isdigit() and int(text) <= 65535) for text in numbers):
            yield key, f"{port.published!r} cannot be a port of the host", hint
        elif last and int(first) > int(last):
            yield key, f"{port.published} ends before it begins", hint
        elif port.protocol not in ("", "tcp", "udp", "sctp"):
            yield key, f"{port.protocol!r} is not a protocol", hint


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _network(key: str, network: Network) -> Iterator[Finding]:
    if not network.name or network.name != network.name.strip() or "/" in network.name:
        yield Finding(("networks", key, "name"), f"{network.name!r} cannot be a network's name", _NAME_HINT)
    for number, pool in enumerate(network.ipam.config if network.ipam else ()):
        path = ("networks", key, "ipam", "config", str(number))
        for field in ("subnet", "ip_range"):
            text = getattr(pool, field)
            try:
                if text:
                    ipaddress.ip_network(text, strict=False)
            except ValueError:
                yield Finding((*path, field), f"{text!r} is not a range of addresses", "such as 172.28.0.0/16")
        if pool.gateway and not (_is_address(pool.gateway, 4) or _is_address(pool.gateway, 6)):
            yield Finding((*path, "gateway"), f"{pool.gateway!r} is not an address", "such as 172.28.0.1")


def _file_objects(project: Project) -> Iterator[Finding]:
    """Configs and secrets that have no text: Compose fails only when it creates the container."""
    for kind, objects in (("configs", project.configs), ("secrets", project.secrets)):
        for key, item in objects.items():
            if item.environment and item.environment not in project.environment:
                hint = f"write {item.environment}=… into the project's .env file, or use file:"
                yield Finding((kind, key, "environment"), f"the variable {item.environment} is not set", hint)
            elif not (item.environment or item.file or item.content or item.external):
                yield Finding((kind, key), "has no text", "for an empty file use file: with an empty file")


def _together(project: Project, *, on_one_host: bool) -> Iterator[Finding]:
    """What two services cannot both have."""
    total = sum(service.replicas for service in project.services.values())
    if total > MAX_CONTAINERS >= max(service.replicas for service in project.services.values()):
        what = f"{total} containers are asked for, at most {MAX_CONTAINERS} are possible"
        yield Finding(("services",), what, "lower scale: or deploy.replicas: of some services")
    names: dict[str, str] = {}
    ports: dict[tuple[str, str, str], str] = {}
    for name, service in project.services.items():
        if service.container_name:
            other = names.setdefault(service.container_name, name)
            if other != name:
                what = f"{service.container_name} is the name of services.{other} already"
                yield Finding(("services", name, "container_name"), what, "give it another one, or leave it out")
        # one fixed port of one address; the Engine sees the rest (0.0.0.0 beside 127.0.0.1)
        published = service.ports if service.replicas and not service.network_mode else ()
        for number, port in enumerate(published):
            if not port.published.isdigit() or port.published == "0":  # a range, or the Engine's choice
                continue
            path = ("services", name, "ports", str(number))
            other = ports.setdefault((port.host_ip, port.published, port.protocol), name)
            if other != name:
                what = f"{port.published}/{port.protocol} is published by services.{other} already"
                yield Finding(path, what, "publish another port, or bind both to different addresses")
            elif service.replicas > 1 and on_one_host:
                hint = f"publish a range: {port.published}-{int(port.published) + service.replicas - 1}:{port.target}"
                yield Finding(path, f"{service.replicas} containers cannot share port {port.published}", hint)


def _awaited_jobs(project: Project) -> Iterator[Finding]:
    jobs = {name for name, service in project.services.items() if service.x_dom0 and service.x_dom0.schedule}
    for name, service in project.services.items():
        for job in jobs.intersection(service.depends_on):
            what = f"services.{job} runs by its schedule: nothing can wait for it"
            yield Finding(("services", name, "depends_on", job), what, f"leave {job} out of depends_on")


_SERVICE_CHECKS: tuple[Callable[[Service], Iterator[Complaint]], ...] = (
    _names,
    _numbers,
    _schedule,
    _environment,
    _hooks,
    _volumes,
    _swarm_modes,
    _addresses,
    _ports,
)
