"""What can be known to be wrong only with the whole project, the images or the expanded slots at hand. Pure.

Every refusal is a ProjectError with its place, before anything is changed. What a single key can say wrong is refused
by the loader (`dom0.compose.checks` and `support`), in the words of the file.
"""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath

from dom0.compose.findings import Finding, KeyPath, Locations, refuse
from dom0.compose.model import Project
from dom0.names import LABELS, ROOT
from dom0.plan.attachments import fixed_ports, networks_by_priority, overlapping, port_range
from dom0.plan.desired import Condition, NetworkSpec, Slot, VolumeSpec
from dom0.plan.mounts import file_uses, is_bind_string
from dom0.plan.parents import PARENT
from dom0.plan.refusal import refusal
from dom0.plan.service_slot import parents

ENGINES_OWN = ("bridge", "host", "none")  # networks


def check_project(project: Project) -> None:
    for name, service in project.services.items():
        _check_labels(project, ("services", name, "labels"), service.labels)
        _check_networking(project, name)
        _check_references(project, name)
        _check_replicas(project, name)
        _check_mounts(project, name)
    for key, network in project.networks.items():
        _check_labels(project, ("networks", key, "labels"), network.labels)
        if network.name in ENGINES_OWN:
            what = f"on the Engine's own network {network.name} containers have no names"
            hint = f"write network_mode: {network.name} in the service instead"
            raise refusal(project, ("networks", key, "name"), what, hint)
    for key, volume in project.volumes.items():
        _check_labels(project, ("volumes", key, "labels"), volume.labels)
    # Compose looks at depends_on only; what shares a namespace has to wait, too
    needs = {name: [*service.depends_on, *parents(service)] for name, service in project.services.items()}
    done: set[str] = set()
    for start in needs:
        if circle := _circle(start, needs, done, ()):
            what = f"it depends on itself: {' → '.join(circle)}"
            raise refusal(project, ("services", circle[0]), what, "take one of these away")


def check_runs(running: str, project: str, locations: Locations) -> None:
    """Whether a machine of the project `running`, "" for none, may become `project`."""
    if running not in ("", project):
        what = f"the running project is {running}, this one is {project}"
        raise refuse([Finding(("name",), what, "take the running one down first: dom0 down")], locations)


def check_slots(project: Project, slots: tuple[Slot, ...]) -> None:
    """Names and host ports that two containers would share, and `service_healthy` without a health check."""
    names = {ROOT: "the machine's root container"}
    for slot in slots:
        if slot.name in names:
            what = f"{slot.name} is also the name of {names[slot.name]}"
            raise refusal(project, (*slot.path, "container_name"), what, "give it another container_name")
        names[slot.name] = ".".join(slot.path)
    for number, slot in enumerate(slots):
        for other in slots[:number]:
            if port := overlapping(slot.ports, other.ports):
                what = f"{port.port}/{port.protocol} is taken by {'.'.join(other.path)}"
                hint = "publish another port, or bind both to different addresses"
                raise refusal(project, (*slot.path, "ports"), what, hint)
    healthless = {slot.service for slot in slots if slot.health is None}
    for slot in slots:
        for dependency in slot.depends_on:
            if dependency.condition is Condition.HEALTHY and dependency.service in healthless and dependency.required:
                path = ("services", slot.service, "depends_on", dependency.service)
                hint = f"add services.{dependency.service}.healthcheck, or wait for service_started"
                raise refusal(project, path, "it has no health check to wait for", hint)


def check_specs(project: Project, networks: tuple[NetworkSpec, ...], volumes: tuple[VolumeSpec, ...]) -> None:
    for kind, specs in (("networks", networks), ("volumes", volumes)):
        owners: dict[str, str] = {}
        for spec in specs:
            if spec.external:
                continue
            if spec.name in owners:
                what = f"{kind}.{owners[spec.name]} is called {spec.name} too"
                hint = "use one key for both, or give one of them another name"
                raise refusal(project, (kind, spec.key), what, hint)
            owners[spec.name] = spec.key


def _check_labels(project: Project, path: KeyPath, labels: dict[str, str]) -> None:
    for label in labels:
        if label.startswith(LABELS):
            what = f"{label} is reserved, labels that begin with `dom0.` say what belongs to dom0"
            raise refusal(project, path, what, "give it another name")


def _check_networking(project: Project, name: str) -> None:
    """What the Engine takes from no container. Source: Engine 26.1 `runconfig/hostconfig_unix.go`, each tried."""
    service = project.services[name]
    path = ("services", name)
    if service.network_mode and service.networks:
        what = "network_mode and networks exclude each other"
        raise refusal(project, (*path, "network_mode"), what, "take one of them out")
    if service.uts == "host" and service.hostname:
        raise refusal(project, (*path, "hostname"), "with uts: host it is the host's", "take one of them out")
    mode = service.network_mode
    conflicting = ["mac_address"] if mode else []
    if mode == "host" or mode.startswith((PARENT, "container:")):
        conflicting += ["links", "external_links"]
    if mode.startswith((PARENT, "container:")):
        conflicting += ["hostname", "dns", "extra_hosts", "ports", "expose"]
    for key in (key for key in conflicting if getattr(service, key)):
        hint = "take one of them out"
        if mode.startswith(PARENT):
            hint = f"say it in services.{mode.removeprefix(PARENT)}, whose network it is"
        raise refusal(project, (*path, key), f"goes with a network of its own, not with network_mode: {mode}", hint)
    primary = next(iter(networks_by_priority(project, service)), "")
    config = service.networks.get(primary)
    if config and config.mac_address and service.mac_address not in ("", config.mac_address):
        what = f"differs from the one of networks.{primary}"
        raise refusal(project, (*path, "mac_address"), what, "say one of them")


def _check_references(project: Project, name: str) -> None:
    service = project.services[name]
    needed = [(other, "depends_on") for other, dependency in service.depends_on.items() if dependency.required]
    for other, key in (*needed, *parents(service).items()):
        if other not in project.services:
            what, hint = f"there is no service {other}", "name one that there is"
            if other in project.disabled:
                what = f"{other} is not active, a profile keeps it out"
                hint = "enable its profile, COMPOSE_PROFILES=NAME in the project's .env file, or write required: false"
            raise refusal(project, ("services", name, key), what, hint)
        if key != "depends_on" and service.replicas and not project.services[other].replicas:
            what = f"it shares a namespace or volumes with {other}, which has no containers"
            raise refusal(project, ("services", name, key), what, f"scale {other} to 1, or {name} to 0 too")


def _check_replicas(project: Project, name: str) -> None:
    """What only one container can have."""
    service = project.services[name]
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
            what = f"{value} cannot belong to {count} containers at once"
            raise refusal(project, ("services", name, key), what, hint)
    for number, port in enumerate(service.ports):
        first, last = port_range(port)
        if first and last - first + 1 < count:
            what = f"{port.published} is too few ports for {count} containers"
            path = ("services", name, "ports", str(number))
            raise refusal(project, path, what, f"publish {first}-{first + count - 1}")


def _check_mounts(project: Project, name: str) -> None:
    """Its SELinux labels, and its inline contents.

    These are written into a container before it starts: into its file system or a volume only.
    """
    service = project.services[name]
    for number, volume in enumerate(service.volumes):
        if volume.type == "volume":  # Compose takes no notice of :z there
            continue
        if volume.bind and volume.bind.selinux and not is_bind_string(project, volume):
            path: KeyPath = ("services", name, "volumes", str(number), "bind", "selinux")
            hint = "write create_host_path: true, and neither recursive nor a colon in its paths"
            raise refusal(project, path, "the Engine takes it only for a plain bind mount", hint)

    for use in file_uses(project, name):
        for key, value in (("uid", use.reference.uid), ("gid", use.reference.gid)):
            if use.inline and value and not (value.isascii() and value.isdigit()):
                path = ("services", name, use.kind, use.reference.source, key)
                hint = "names of users mean nothing outside of the container"
                raise refusal(project, path, f"{value!r} is no number", hint)

    kinds = {posixpath.normpath(v.target): v.type for v in service.volumes}
    kinds |= {posixpath.normpath(entry.partition(":")[0]): "tmpfs" for entry in service.tmpfs}
    read_only = {posixpath.normpath(v.target) for v in service.volumes if v.read_only}
    for use in (use for use in file_uses(project, name) if use.inline):
        file, path = use.target, ("services", name, use.kind, use.reference.source)
        place = next((it for it in (file, *map(str, PurePosixPath(file).parents)) if it in kinds), "")
        if place and kinds[place] == "tmpfs":
            what = f"{file} would be hidden by the tmpfs at {place}"
            hint = "give the config or secret another target, or use `file:`"
            raise refusal(project, path, what, hint)
        if place in read_only or (service.read_only and not place):
            what = f"{file} cannot be written, {place or 'the file system'} is read-only"
            hint = "use `file:` instead of `content:` or `environment:`"
            raise refusal(project, path, what, hint)


def _circle(name: str, needs: dict[str, list[str]], done: set[str], path: KeyPath) -> KeyPath:
    if name in path:
        return (*path[path.index(name) :], name)
    if name in done or name not in needs:
        return ()
    for other in needs[name]:
        if circle := _circle(other, needs, done, (*path, name)):
            return circle
    done.add(name)
    return ()
