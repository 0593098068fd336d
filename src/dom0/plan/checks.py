"""What can be known to be wrong before anything is changed. Pure; every refusal is a ProjectError with its place.

The loader refuses keys that this machine does not honour (see the support table in `dom0.compose`); here is what
needs the whole project, the images or the expanded slots.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from dom0.compose.model import FileObject, Project, Service
from dom0.errors import ProjectError
from dom0.plan.attachments import fixed_ports, networks_by_priority, overlapping, port_range
from dom0.plan.desired import Condition, NetworkSpec, Slot, VolumeSpec
from dom0.plan.mounts import container_mounts, file_uses
from dom0.plan.service_slot import parents

ROOT_CONTAINER = "dom0"
_ENGINE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_RESERVED_LABELS = "dom0."


def check_project(project: Project) -> None:
    for name, service in project.services.items():
        _check_names(name, service)
        _check_labels(f"services.{name}.labels", service.labels)
        _check_networking(project, name)
        _check_references(project, name)
        _check_ports(name, service)
        _check_replicas(name, service)
        _check_volumes(name, service)
        _check_files(project, name)
    for key, network in project.networks.items():
        _check_labels(f"networks.{key}.labels", network.labels)
    for key, volume in project.volumes.items():
        _check_labels(f"volumes.{key}.labels", volume.labels)
    _check_cycles(project)


def check_slots(slots: tuple[Slot, ...]) -> None:
    """What two containers cannot have both: a name, a host port. And health checks that somebody waits for."""
    names: dict[str, str] = {ROOT_CONTAINER: "the machine's root container"}
    for slot in slots:
        if slot.name in names:
            raise ProjectError(
                f"services.{slot.service}.container_name: {slot.name} is also the name of {names[slot.name]}",
                hint="give it another container_name",
            )
        names[slot.name] = f"services.{slot.service}"
    _check_taken_ports(slots)
    _check_awaited_health(slots)


def check_specs(networks: tuple[NetworkSpec, ...], volumes: tuple[VolumeSpec, ...]) -> None:
    for kind, specs in (("networks", networks), ("volumes", volumes)):
        owners: dict[str, str] = {}
        for spec in specs:
            if not _ENGINE_NAME.fullmatch(spec.name):
                raise ProjectError(f"{kind}.{spec.key}.name: the Engine takes no name like {spec.name!r}")
            if spec.name in owners:
                raise ProjectError(
                    f"{kind}.{spec.key}: {kind}.{owners[spec.name]} is called {spec.name} too",
                    hint="use one key for both, or give one of them another name",
                )
            owners[spec.name] = spec.key


def _check_names(name: str, service: Service) -> None:
    if service.container_name and not _ENGINE_NAME.fullmatch(service.container_name):
        raise ProjectError(
            f"services.{name}.container_name: the Engine takes no name like {service.container_name!r}",
            hint="letters, digits, `_`, `.` and `-`",
        )


def _check_labels(where: str, labels: dict[str, str]) -> None:
    for label in labels:
        if label.startswith(_RESERVED_LABELS):
            raise ProjectError(f"{where}: {label} is reserved: labels from `dom0.` on say what belongs to dom0")


def _check_networking(project: Project, name: str) -> None:
    service = project.services[name]
    where = f"services.{name}"
    if service.network_mode and service.networks:
        raise ProjectError(f"{where}: network_mode and networks exclude each other", hint="take one of them out")
    if service.network_mode and service.mac_address:
        raise ProjectError(f"{where}.mac_address: goes with networks, not with network_mode {service.network_mode}")
    for key, config in service.networks.items():
        if key not in project.networks:
            raise ProjectError(f"{where}.networks: {key} is not defined at the top level")
        if config and config.gw_priority:
            raise ProjectError(
                f"{where}.networks.{key}.gw_priority: the Engine knows it from 28.0 on only",
                hint="use priority: the network with the highest one has the default route",
            )
    primary = next(iter(networks_by_priority(project, service)), "")
    config = service.networks.get(primary)
    if config and config.mac_address and service.mac_address not in ("", config.mac_address):
        raise ProjectError(f"{where}.mac_address: differs from the one of networks.{primary}")


def _check_references(project: Project, name: str) -> None:
    service = project.services[name]
    for other, dependency in service.depends_on.items():
        if other not in project.services and dependency.required:
            raise _missing_service(project, f"services.{name}.depends_on", other)
    for other in parents(service):
        if other not in project.services:
            raise _missing_service(project, f"services.{name}", other)
        if not project.services[other].replicas:
            raise ProjectError(
                f"services.{name}: it shares a namespace or volumes with {other}, which has no containers",
                hint=f"scale {other} to 1, or scale {name} to 0 too",
            )


def _missing_service(project: Project, where: str, other: str) -> ProjectError:
    if other in project.disabled:
        return ProjectError(f"{where}: {other} is not active, a profile keeps it out", hint="activate its profile")
    return ProjectError(f"{where}: there is no service {other}")


def _check_ports(name: str, service: Service) -> None:
    for number, port in enumerate(service.ports):
        try:
            first, last = port_range(port)
        except ValueError as error:
            raise ProjectError(f"services.{name}.ports[{number}]: {port.published!r} is no port") from error
        if not 0 <= first <= last <= 65535:
            raise ProjectError(f"services.{name}.ports[{number}]: {port.published} is no range of ports")
        if first != last and last - first + 1 < service.replicas:
            raise ProjectError(
                f"services.{name}.ports[{number}]: {port.published} is too few ports for {service.replicas} containers"
            )


def _check_replicas(name: str, service: Service) -> None:
    if service.replicas < 0:
        raise ProjectError(f"services.{name}.scale: {service.replicas} is less than nothing")
    if service.replicas < 2:
        return
    addresses = (n.ipv4_address or n.ipv6_address or n.mac_address for n in service.networks.values() if n)
    single = {
        "container_name": service.container_name,
        "ports": next((p.port for p in fixed_ports(service)), ""),
        "networks": next((address for address in addresses if address), ""),
        "mac_address": service.mac_address,
    }
    for key, value in single.items():
        if value:
            raise ProjectError(
                f"services.{name}.{key}: {value} cannot belong to {service.replicas} containers at once",
                hint=f"take {key} out, or scale to 1" + ("; or publish a range of ports" if key == "ports" else ""),
            )


def _check_volumes(name: str, service: Service) -> None:
    for number, volume in enumerate(service.volumes):
        where = f"services.{name}.volumes[{number}]"
        if volume.type not in ("bind", "volume", "tmpfs"):
            raise ProjectError(f"{where}: mounts of type {volume.type} are not for a machine of one Linux host")
        if not posixpath.isabs(volume.target):
            raise ProjectError(f"{where}.target: {volume.target!r} is not absolute")
        if volume.type == "bind" and ":" in volume.source + volume.target:
            raise ProjectError(f"{where}: the Engine takes no colon in a path")
        if volume.bind and volume.bind.selinux and not volume.bind.create_host_path:
            raise ProjectError(f"{where}.bind.selinux: goes only with create_host_path: true")


def _check_files(project: Project, name: str) -> None:
    for use in file_uses(project, name):
        where = f"services.{name}.{use.kind}.{use.reference.source}"
        _check_definition(f"{use.kind}.{use.reference.source}", use.definition)
        for key, value in (("uid", use.reference.uid), ("gid", use.reference.gid)):
            if value and not (value.isascii() and value.isdigit()):
                raise ProjectError(f"{where}.{key}: {value!r} is no number")
        owned = use.reference.uid or use.reference.gid or use.reference.mode is not None
        if owned and not use.inline:
            raise ProjectError(
                f"{where}: a file is mounted with its own owner and mode",
                hint="take uid, gid and mode out, or use `content:` or `environment:`",
            )
    _check_injected(project, name)


def _check_definition(where: str, definition: FileObject) -> None:
    for key in ("external", "driver", "template_driver"):
        if getattr(definition, key):
            raise ProjectError(f"{where}.{key}: only Swarm knows that", hint="use file, environment or content")
    if not (definition.file or definition.environment or definition.content):
        raise ProjectError(f"{where}: says neither file nor environment nor content")


def _check_injected(project: Project, name: str) -> None:
    """Contents are written into a container before it starts: into its own file system or a volume, nowhere else."""
    service = project.services[name]
    kinds = {posixpath.normpath(v.target): "tmpfs" if v.type == "tmpfs" else "volume" for v in service.volumes}
    kinds |= {posixpath.normpath(entry.partition(":")[0]): "tmpfs" for entry in service.tmpfs}
    read_only = {posixpath.normpath(v.target) for v in service.volumes if v.read_only}
    for file in container_mounts(project, name).files:
        place = next((path for path in _upwards(file.path) if path in kinds), "")
        if place and kinds[place] == "tmpfs":
            raise ProjectError(
                f"services.{name}: {file.path} would be hidden by the tmpfs at {place}",
                hint="give the config or secret another target, or use `file:`",
            )
        if place in read_only or (service.read_only and not place):
            raise ProjectError(
                f"services.{name}: {file.path} cannot be written, {place or 'the file system'} is read-only",
                hint="use `file:` instead of `content:` or `environment:`",
            )


def _upwards(path: str) -> Iterator[str]:
    """`/a/b/c` → itself, `/a/b`, `/a`."""
    while path not in ("/", ""):
        yield path
        path = posixpath.dirname(path)


def _check_cycles(project: Project) -> None:
    needs = {name: [*service.depends_on, *parents(service)] for name, service in project.services.items()}
    done: set[str] = set()
    for start in needs:
        _visit(start, needs, done, ())


def _visit(name: str, needs: dict[str, list[str]], done: set[str], path: tuple[str, ...]) -> None:
    if name in path:
        circle = " → ".join((*path[path.index(name) :], name))
        raise ProjectError(f"services.{name}: it depends on itself: {circle}", hint="take one of these away")
    if name in done or name not in needs:
        return
    for other in needs[name]:
        _visit(other, needs, done, (*path, name))
    done.add(name)


def _check_taken_ports(slots: tuple[Slot, ...]) -> None:
    for number, slot in enumerate(slots):
        for other in slots[:number]:
            if port := overlapping(slot.ports, other.ports):
                raise ProjectError(
                    f"services.{slot.service}.ports: {port.port}/{port.protocol} is taken by services.{other.service}",
                    hint="publish another port, or bind both to different addresses",
                )


def _check_awaited_health(slots: tuple[Slot, ...]) -> None:
    healthless = {slot.service for slot in slots if slot.health is None}
    for slot in slots:
        for dependency in slot.depends_on:
            if dependency.condition is Condition.HEALTHY and dependency.service in healthless and dependency.required:
                raise ProjectError(
                    f"services.{slot.service}.depends_on.{dependency.service}: it has no health check to wait for",
                    hint=f"add services.{dependency.service}.healthcheck, or wait for service_started",
                )
