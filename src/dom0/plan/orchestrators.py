"""What `x-dom0.orchestrator` means: an Engine socket of the service's own, which a container beside it serves. Pure.

The container is of the image dom0-base, as sshd is: it outlives changes of the project and of the agent. Its grants are
a file in it, so other grants make another one. The listening sockets of all scopes are kept by one more, the holder,
which is not replaced while it runs: so what has bound a socket notices nothing, whoever serves it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import msgspec

from dom0.compose.model import Project, Service, ServiceVolume, Volume
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
from dom0.engine.values import Container, Image
from dom0.engine.values import Volume as ActualVolume
from dom0.names import CGROUPS, CGROUPS_INSIDE, ENGINE_SOCKET, ENGINE_SOCKET_INSIDE, PROGRAM, ROOT, RUN, SCOPES, STATE
from dom0.plan import labels
from dom0.plan.builtins import LOG, builtin_slot
from dom0.plan.desired import Condition, Dependency, Desired, HealthTest, InjectedFile, Order, Role, Slot
from dom0.plan.facts import Facts, image_ref
from dom0.plan.refusal import refusal
from dom0.socketproxy import cgroup
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.scope import LABEL, NAME_PATTERN, Scope

HOLDER = "dom0-sockets"
GRANTS = "/etc/dom0/grants.json"
SOCKET_TIMEOUT = 10.0  # seconds for it to answer
STOP_TIMEOUT = 15  # seconds: it has 10 for what is under way
SELDOM = 60_000_000_000  # nanoseconds between two looks of the Engine
_KEY = "x-dom0.orchestrator"
PLACES = {STATE: "state", RUN: "run"}  # of a dom0, and the last part of its volumes' names
_ENGINE_SOCKETS = (ENGINE_SOCKET, ENGINE_SOCKET_INSIDE)


def scope_socket(scope: str) -> str:
    """On the host, and in the container that serves it."""
    return f"{SCOPES}/{scope}/docker.sock"


def is_orchestrator(service: Service) -> bool:
    return service.x_dom0 is not None and service.x_dom0.orchestrator is not None


def group_of(project: Project, name: str, facts: Facts) -> str:
    """The control group of an orchestrator with a budget, which is of all that it starts too; else ""."""
    if not is_orchestrator(project.services[name]) or not _orchestrators(project)[name].budget.asked():
        return ""
    return cgroup.below(facts.scopes, name)


def with_orchestrators(project: Project, images: Mapping[str, Image]) -> Project:
    """`project` with its socket in every orchestrator's service, and volumes for one that is a whole dom0.

    `images` by reference as written. Raises ProjectError.
    """
    for name in _orchestrators(project):
        _check(project, name)
        service, volumes = project.services[name], project.volumes
        # Where it asks for the Engine's socket, and at the usual place, it finds its own. Read-only: that hinders
        # nobody who talks to it, and nothing else can be done to it.
        own = ServiceVolume(type="bind", source=scope_socket(name), target=ENGINE_SOCKET, read_only=True)
        mounts = [
            msgspec.structs.replace(own, target=volume.target) if volume.source in _ENGINE_SOCKETS else volume
            for volume in service.volumes
        ]
        if not any(volume.target in _ENGINE_SOCKETS for volume in mounts):
            mounts.append(own)
        if _is_dom0(project, name, images):
            # for what it keeps and for its sockets, where its service mounts nothing there
            taken = {posixpath.normpath(volume.target) for volume in mounts}
            keys = {path: f"{name}-{key}" for path, key in PLACES.items() if path not in taken}
            mounts += (ServiceVolume(type="volume", source=key, target=path) for path, key in keys.items())
            volumes = {key: Volume(name=f"{project.name}_{key}") for key in keys.values()} | volumes
        service = msgspec.structs.replace(service, container_name=f"{name}.{ROOT}", volumes=tuple(mounts))
        project = msgspec.structs.replace(project, volumes=volumes, services={**project.services, name: service})
    return project


def socket_slots(project: Project, facts: Facts) -> tuple[Slot, ...]:
    """Raises ProjectError without the image that serves them."""
    wanted = _orchestrators(project)
    if not wanted:
        return ()
    if facts.base is None:
        where = ("services", min(wanted), *_KEY.split("."))
        raise refusal(project, where, "dom0-base, which serves its socket, is not here", "dom0 up brings it")
    for name in wanted:
        own = msgspec.structs.replace(wanted[name].images, use=(*wanted[name].images.use, image_ref(project, name)))
        wanted[name] = msgspec.structs.replace(wanted[name], images=own)  # it may look at what it runs from
        if _is_dom0(project, name, facts.images):
            wanted[name] = _with_places_granted(project, name, wanted[name])
    servers = (
        _socket_slot(project.name, name, grants, facts.base, facts.scopes) for name, grants in sorted(wanted.items())
    )
    return (_holder_slot(project.name, facts.base), *servers)


class Ending(msgspec.Struct, frozen=True):
    """A scope that has no orchestrator any more, and the names of the volumes that stay and no other scope sees."""

    scope: str
    volumes: tuple[str, ...]


def endings(before: Desired, after: Desired, there: Iterable[ActualVolume]) -> list[Ending]:
    """`there`: the volumes of the Engine. One that a service mounts goes on to be used."""
    mounted = {name for slot in after.slots for name in slot.volumes}
    had, has = (
        {scope_served_by(slot.service) for slot in desired.slots if slot.role is Role.SOCKET}
        for desired in (before, after)
    )
    own = {slot.service: slot.volumes for slot in before.slots}
    return [
        Ending(
            scope,
            tuple(
                volume.name
                for volume in sorted(there, key=lambda one: one.name)
                if volume.name not in mounted
                and (volume.name in own.get(scope, ()) or Scope(scope).owns_volume(volume.name, volume.labels))
            ),
        )
        for scope in sorted(had - has)
    ]


def scope_of(container: Container) -> str:
    """Whose the container is, an orchestrator of ours or what serves its socket; "" for any other."""
    if container.labels.get(labels.ROLE) == Role.SOCKET:
        return scope_served_by(container.labels.get(labels.SERVICE, ""))
    return container.labels.get(LABEL, "").removeprefix("/")


def scope_served_by(service: str) -> str:
    return service.removeprefix(socket_service(""))


def _orchestrators(project: Project) -> dict[str, Grants]:
    """Service, which is the name of its scope too -> what that may do."""
    found = ((name, service.x_dom0) for name, service in project.services.items() if service.replicas)
    return {name: own.orchestrator.grants for name, own in found if own is not None and own.orchestrator is not None}


def socket_service(scope: str) -> str:
    return f"dom0-socket-{scope}"


def _check(project: Project, name: str) -> None:
    service, path = project.services[name], ("services", name)
    if not NAME_PATTERN.fullmatch(name):
        what = f"{name!r} cannot be the name of a scope, which all its containers' names begin with"
        raise refusal(project, path, what, "1 to 31 small letters, digits, - and _, a letter or digit first")
    if service.container_name:
        what = f"an orchestrator's container is called {name}.{ROOT}: it is the first of its scope"
        raise refusal(project, (*path, "container_name"), what, "leave it out")
    if service.cgroup_parent and _orchestrators(project)[name].budget.asked():
        what = "an orchestrator with a budget is in the control group of its scope"
        raise refusal(project, (*path, "cgroup_parent"), what, "leave it out, or memory, cpus and pids of the grants")
    if service.replicas > 1:
        what = f"an orchestrator runs once, not {service.replicas} times"
        raise refusal(project, path, what, "a second one is a second service, with a scope of its own")
    for number, volume in enumerate(service.volumes):
        holds_one = any(PurePosixPath(one).is_relative_to(volume.source) for one in _ENGINE_SOCKETS)
        if volume.type == "bind" and holds_one and volume.source not in _ENGINE_SOCKETS:
            what = f"{volume.source} has the Engine's socket in it, and {_KEY} limits nothing"
            raise refusal(project, (*path, "volumes", str(number)), what, "bind what is needed of it, not all")
    for key, value in {"privileged": service.privileged, "pid": service.pid == "host"}.items():
        if value:
            what = f"whoever has that has the machine, and {_KEY} limits nothing"
            raise refusal(project, (*path, key), what, f"leave out {key}, or {_KEY}")


def _is_dom0(project: Project, name: str, images: Mapping[str, Image]) -> bool:
    image = images.get(image_ref(project, name))
    return image is not None and labels.BASE in image.labels


def _with_places_granted(project: Project, name: str, grants: Grants) -> Grants:
    """A dom0's containers bind what lies in its own directories: those are the orchestrator's, not the host's.

    Raises ProjectError.
    """
    said = {path.inside for path in grants.host_paths}
    places = (
        f"{project.volumes[volume.source].name if volume.type == 'volume' else volume.source}:{path}"
        for volume in project.services[name].volumes
        if (path := posixpath.normpath(volume.target)) in PLACES and path not in said
    )
    try:
        return msgspec.structs.replace(grants, paths=(*grants.paths, *places))
    except ValueError as error:
        hint = "mount a volume or a directory of its own there, or nothing"
        raise refusal(
            project, ("services", name, "volumes"), f"a dom0 cannot keep its own there: {error}", hint
        ) from error


def _holder_slot(project: str, base: Image) -> Slot:
    answers = ("test", "-S", f"{SCOPES}/holder.sock")
    return builtin_slot(
        project,
        HOLDER,
        Role.HOLDER,
        base,
        ContainerBody(
            entrypoint=(PROGRAM, "socket", "hold"),
            cmd=(SCOPES,),
            healthcheck=HealthConfig(test=("CMD", *answers), interval=SELDOM),
            host_config=HostConfig(
                binds=(f"{SCOPES}:{SCOPES}",),
                log_config=LOG,
                network_mode="none",
                restart_policy=RestartPolicy(name="unless-stopped"),
            ),
        ),
        health=HealthTest(argv=answers, timeout=SOCKET_TIMEOUT),
        restart_policy="unless-stopped",
        defer_while=("dom0.socketproxy.hold",),  # its own process: while it runs
    )


def _socket_slot(project: str, scope: str, grants: Grants, base: Image, groups: str) -> Slot:
    """`groups`: where those of scopes are. To keep a budget it writes to the host's control groups, or asks the host's
    systemd for them: that takes the host's process 1, and gives it no more than the Engine's socket does. In a scope it
    asks its own socket.
    """
    socket = scope_socket(scope)
    limits, systemd = bool(grants.budget.asked()), groups.endswith(".slice")
    answers = ("docker", "--host", f"unix://{socket}", "version", "--format", "{{.Server.Version}}")
    return builtin_slot(
        project,
        socket_service(scope),
        Role.SOCKET,
        base,
        ContainerBody(
            entrypoint=(PROGRAM, "socket", "serve"),
            cmd=("--scope", scope, "--grants", GRANTS, "--holder", SCOPES),
            stop_timeout=STOP_TIMEOUT,
            env=(f"DOCKER_HOST=unix://{ENGINE_SOCKET_INSIDE}",),
            healthcheck=HealthConfig(test=("CMD", *answers), interval=SELDOM, timeout=int(SOCKET_TIMEOUT * 1e9)),
            host_config=HostConfig(
                binds=(
                    f"{ENGINE_SOCKET}:{ENGINE_SOCKET_INSIDE}",
                    f"{SCOPES}:{SCOPES}",
                    *([f"{CGROUPS}:{CGROUPS_INSIDE}"] if limits and groups.startswith("/") else []),
                ),
                log_config=LOG,
                network_mode="none",
                pid_mode="host" if limits and systemd else "",
                privileged=limits and systemd,
                restart_policy=RestartPolicy(name="unless-stopped"),
            ),
        ),
        files=(InjectedFile(path=GRANTS, content=msgspec.json.encode(grants), mode=0o400),),
        depends_on=(Dependency(service=HOLDER, condition=Condition.HEALTHY),),
        order=Order.START_FIRST,  # two may serve one socket
        stop_grace=float(STOP_TIMEOUT),
        health=HealthTest(argv=answers, timeout=SOCKET_TIMEOUT),
        restart_policy="unless-stopped",
    )
