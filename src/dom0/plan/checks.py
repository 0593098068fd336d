"""What can be known to be wrong only with the whole project, the images or the expanded slots at hand. Pure.

Every refusal is a ProjectError with its place, before anything is changed. What a single key can say wrong is refused
by the loader (`dom0.compose.checks` and `support`), in the words of the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from dom0.compose.model import Project, Service
from dom0.errors import ProjectError
from dom0.plan.attachments import fixed_ports, overlapping, port_range
from dom0.plan.desired import Condition, NetworkSpec, Role, Slot, VolumeSpec
from dom0.plan.mounts import container_mounts, file_uses, is_bind_string
from dom0.plan.network_checks import check_network, check_networking
from dom0.plan.service_slot import parents

ROOT_CONTAINER = "dom0"
RESERVED_LABELS = "dom0."


def check_project(project: Project) -> None:
    for name, service in project.services.items():
        _check_labels(f"services.{name}.labels", service.labels)
        check_networking(project, name)
        _check_references(project, name)
        _check_replicas(name, service)
        _check_selinux(project, name)
        _check_files(project, name)
    for key, network in project.networks.items():
        _check_labels(f"networks.{key}.labels", network.labels)
        check_network(key, network)
    for key, volume in project.volumes.items():
        _check_labels(f"volumes.{key}.labels", volume.labels)
    _check_cycles(project)


def check_running(project: str, running: str) -> None:
    """`running`: the project that the machine is now, "" for none."""
    if running not in ("", project):
        raise ProjectError(
            f"name: the running project is {running}, this one is {project}",
            hint="take the running one down first: dom0 down",
        )


def check_slots(slots: tuple[Slot, ...]) -> None:
    """What two containers cannot have both: a name, a host port. And health checks that somebody waits for."""
    names = {ROOT_CONTAINER: "the machine's root container"}
    for slot in slots:
        if slot.name in names:
            raise ProjectError(
                f"{_where(slot)}.container_name: {slot.name} is also the name of {names[slot.name]}",
                hint="give it another container_name",
            )
        names[slot.name] = _where(slot)
    _check_taken_ports(slots)
    _check_awaited_health(slots)


def check_specs(networks: tuple[NetworkSpec, ...], volumes: tuple[VolumeSpec, ...]) -> None:
    for kind, specs in (("networks", networks), ("volumes", volumes)):
        owners: dict[str, str] = {}
        for spec in specs:
            if spec.external:
                continue
            if spec.name in owners:
                raise ProjectError(
                    f"{kind}.{spec.key}: {kind}.{owners[spec.name]} is called {spec.name} too",
                    hint="use one key for both, or give one of them another name",
                )
            owners[spec.name] = spec.key


def _where(slot: Slot) -> str:
    return f"services.{slot.service}" if slot.role is Role.SERVICE else f"x-dom0 ({slot.service})"


def _check_labels(where: str, labels: dict[str, str]) -> None:
    for label in labels:
        if label.startswith(RESERVED_LABELS):
            raise ProjectError(
                f"{where}: {label} is reserved, labels that begin with `dom0.` say what belongs to dom0",
                hint="give it another name",
            )


def _check_references(project: Project, name: str) -> None:
    service = project.services[name]
    for other, dependency in service.depends_on.items():
        if other not in project.services and dependency.required:
            raise _missing_service(project, f"services.{name}.depends_on", other)
    for other in parents(service):
        if other not in project.services:
            raise _missing_service(project, f"services.{name}", other)
        if service.replicas and not project.services[other].replicas:
            raise ProjectError(
                f"services.{name}: it shares a namespace or volumes with {other}, which has no containers",
                hint=f"scale {other} to 1, or {name} to 0 too",
            )


def _missing_service(project: Project, where: str, other: str) -> ProjectError:
    if other in project.disabled:
        hint = "enable its profile, or write required: false"
        return ProjectError(f"{where}: {other} is not active, a profile keeps it out", hint=hint)
    return ProjectError(f"{where}: there is no service {other}")


def _check_replicas(name: str, service: Service) -> None:
    """What only one container can have."""
    count = service.replicas
    if count < 2:
        return
    addresses = (n.ipv4_address or n.ipv6_address or n.mac_address for n in service.networks.values() if n)
    single = {
        "container_name": service.container_name,
        "ports": next((port.port for port in fixed_ports(service)), ""),
        "networks": next((address for address in addresses if address), ""),
        "mac_address": service.mac_address,
    }
    for key, value in single.items():
        if value:
            hint = f"take it out of {key}, or scale to 1" + ("; a range of ports will do" if key == "ports" else "")
            raise ProjectError(f"services.{name}.{key}: {value} cannot belong to {count} containers at once", hint=hint)
    for number, port in enumerate(service.ports):
        first, last = port_range(port)
        if first and last - first + 1 < count:
            raise ProjectError(
                f"services.{name}.ports[{number}]: {port.published} is too few ports for {count} containers",
                hint=f"publish {first}-{first + count - 1}",
            )


def _check_selinux(project: Project, name: str) -> None:
    for number, volume in enumerate(project.services[name].volumes):
        if volume.type == "volume":  # Compose takes no notice of :z there
            continue
        if volume.bind and volume.bind.selinux and not is_bind_string(project, volume):
            raise ProjectError(
                f"services.{name}.volumes[{number}].bind.selinux: the Engine takes it only for a plain bind mount",
                hint="write create_host_path: true, and neither recursive nor a colon in its paths",
            )


def _check_files(project: Project, name: str) -> None:
    for use in file_uses(project, name):
        for key, value in (("uid", use.reference.uid), ("gid", use.reference.gid)):
            if use.inline and value and not (value.isascii() and value.isdigit()):
                raise ProjectError(
                    f"services.{name}.{use.kind}.{use.reference.source}.{key}: {value!r} is no number",
                    hint="names of users mean nothing outside of the container",
                )
    _check_injected(project, name)


def _check_injected(project: Project, name: str) -> None:
    """Texts are written into a container before it starts: into its own file system or a volume, nowhere else."""
    service = project.services[name]
    kinds = {posixpath.normpath(v.target): v.type for v in service.volumes}
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
    """Compose looks at depends_on only; what shares a namespace has to wait, too."""
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
                    f"{_where(slot)}.ports: {port.port}/{port.protocol} is taken by {_where(other)}",
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
