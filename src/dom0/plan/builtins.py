"""The containers that a machine has besides its services: `dom0-sshd` and `home-volume`, as `x-dom0` asks. Pure.

Both are of the image dom0-base, not of the machine's own: so a login outlives every change of the project, and sshd is
replaced only for another dom0-base or other `x-dom0.ssh`, and then not before the last person has logged out.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from dom0.compose.model import Project, Volume
from dom0.compose.x_dom0 import DevSettings, MachineSettings, SshSettings
from dom0.engine.bodies import (
    ContainerBody,
    Empty,
    HealthConfig,
    HostConfig,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    VolumeBody,
)
from dom0.engine.values import Image, PublishedPort
from dom0.names import BASE_IMAGE, ENGINE_SOCKET, ENGINE_SOCKET_INSIDE, HOME, RUN, SSHD
from dom0.plan import labels
from dom0.plan.desired import InjectedFile, Role, Slot, VolumeSpec
from dom0.plan.facts import Facts
from dom0.plan.hashing import ground_hash
from dom0.plan.refusal import refusal

SSH_STATE = "/var/lib/dom0/ssh"  # host keys, and the keys that `dom0 ssh add` let in
PROJECT_KEYS = "/etc/ssh/authorized_keys.d"  # images/dom0-base/tree/etc/ssh/sshd_config.d/dom0.conf
LOG = LogConfig(type="json-file", config={"max-size": "5m", "max-file": "2"})  # whoever reaches their ports fills it
LONGEST_HOSTNAME = 63  # of the kernel's 64 with its NUL


def builtin_slots(project: Project, facts: Facts) -> tuple[Slot, ...]:
    """None without an image for them (`facts.base`). Raises ProjectError for a service that has one of their names."""
    machine = project.machine
    if machine is None or facts.base is None:
        return ()
    slots = []
    if machine.home is not None:
        uid, dev = (machine.ssh or SshSettings()).uid, machine.dev or DevSettings()
        create = ContainerBody(
            user=f"{uid}:{uid}",
            entrypoint=("true",),
            cmd=(),
            healthcheck=HealthConfig(test=("NONE",)),
            labels={labels.DEV_IMAGE: dev.image, labels.DEV_COMMAND: msgspec.json.encode(dev.command).decode()},
            host_config=HostConfig(mounts=_home_mounts(machine), network_mode="none"),
        )
        volumes = (machine.home.volume,)
        slots.append(builtin_slot(project.name, HOME, Role.HOME, facts.base, create, volumes=volumes, runs=False))
    if machine.ssh is not None:
        slots.append(_sshd_slot(project.name, machine, machine.ssh, facts.base))
    for slot in slots:
        if slot.service in project.services:
            what = "is the name of a container that x-dom0 asks for"
            raise refusal(project, ("services", slot.service), what, "give the service another name")
    return tuple(slots)


def with_home_volume(project: Project, volumes: tuple[VolumeSpec, ...]) -> tuple[VolumeSpec, ...]:
    """`volumes` and the home volume, unless the project itself says how that is made.

    A service that shares it names it as external: it is, to the project.
    """
    home = project.machine.home if project.machine else None
    others = tuple(spec for spec in volumes if home is None or not spec.external or spec.name != home.volume)
    if home is None or any(spec.name == home.volume for spec in others):
        return volumes
    digest = ground_hash(Volume())
    create = VolumeBody(labels={labels.PROJECT: project.name, labels.HASH: digest})
    return (*others, VolumeSpec(key=home.volume, name=home.volume, hash=digest, create=create))


def _sshd_slot(project: str, machine: MachineSettings, ssh: SshSettings, base: Image) -> Slot:
    create = ContainerBody(
        hostname=(machine.hostname or project)[:LONGEST_HOSTNAME],
        entrypoint=("/usr/lib/dom0/start-sshd",),
        cmd=(),
        env=(f"DOM0_USER={ssh.user}", f"DOM0_UID={ssh.uid}", f"DOM0_HOME={_home_path(machine)}"),
        exposed_ports={"22/tcp": Empty()},
        healthcheck=HealthConfig(test=("NONE",)),  # sshd ends when it cannot serve
        host_config=HostConfig(
            binds=(f"{ENGINE_SOCKET}:{ENGINE_SOCKET_INSIDE}", *(f"{path}:{path}" for path in (RUN, SSH_STATE))),
            mounts=_home_mounts(machine),
            network_mode="bridge",
            port_bindings={"22/tcp": (PortBinding(host_port=str(ssh.port)),)},
            restart_policy=RestartPolicy(name="unless-stopped"),
            log_config=LOG,
        ),
    )
    keys = "".join(f"{key}\n" for key in ssh.authorized_keys)
    return builtin_slot(
        project,
        SSHD,
        Role.SSHD,
        base,
        create,
        files=(InjectedFile(path=f"{PROJECT_KEYS}/{ssh.user}", content=keys.encode()),),
        restart_policy="unless-stopped",
        volumes=(machine.home.volume,) if machine.home else (),
        ports=(PublishedPort("tcp", ssh.port),),
        # The process of an open session, by OpenSSH from 9.8 on and before.
        defer_while=(f"sshd-session: {ssh.user}@", f"sshd: {ssh.user}@"),
    )


def _home_path(machine: MachineSettings) -> str:
    given = machine.home.path if machine.home else ""
    return given or f"/home/{(machine.ssh or SshSettings()).user}"


def _home_mounts(machine: MachineSettings) -> tuple[Mount, ...]:
    if machine.home is None:
        return ()
    return (Mount(type="volume", source=machine.home.volume, target=_home_path(machine)),)


def builtin_slot(project: str, name: str, role: Role, base: Image, create: ContainerBody, **more: Any) -> Slot:
    """Its hash is over the create body: a key that is spelled otherwise makes another container."""
    files = more.get("files", ())
    digest = hashlib.sha256(msgspec.json.encode([create, files], order="sorted")).hexdigest()
    own = {
        labels.PROJECT: project,
        labels.ROLE: role.value,
        labels.SERVICE: name,
        labels.NUMBER: "1",
        labels.HASH: digest,
    }
    return Slot(
        service=name,
        number=1,
        name=name,
        role=role,
        hash=digest,
        image=BASE_IMAGE,
        image_id=base.id,
        create=msgspec.structs.replace(create, image=BASE_IMAGE, labels=create.labels | own),
        **more,
    )
