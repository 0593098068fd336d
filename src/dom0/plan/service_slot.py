"""One service of the project → the slots of its containers, with the create bodies that Compose 2.26.1 makes. Pure.

Source: Compose 2.26.1 `pkg/compose/create.go`, getCreateConfigs.
"""

from __future__ import annotations

import json

from msgspec import structs

from dom0.compose.findings import KeyPath
from dom0.compose.model import HealthCheck, Project, Service
from dom0.durations import nanoseconds, seconds
from dom0.engine.bodies import ContainerBody, Empty, HealthConfig, HostConfig, LogConfig, RestartPolicy
from dom0.engine.resources import updatable
from dom0.engine.values import Image
from dom0.plan import labels
from dom0.plan.ambassadors import IMAGE_ROLE
from dom0.plan.attachments import (
    attachments,
    container_name,
    fixed_ports,
    links,
    networks_by_priority,
    port_bindings,
    spare_port_missing,
)
from dom0.plan.desired import Condition, Dependency, HealthTest, Order, Role, Slot
from dom0.plan.facts import Facts, image_ref
from dom0.plan.hashing import service_hash
from dom0.plan.hooks import hooks_of, pre_stop_label
from dom0.plan.host_resources import host_resources
from dom0.plan.mounts import Mounts, container_mounts
from dom0.plan.orchestrators import group_of, is_orchestrator, socket_service
from dom0.plan.parents import PARENT
from dom0.plan.refusal import refusal
from dom0.socketproxy import scope

RESTART_POLICIES = {
    "": "no",
    "no": "no",
    "none": "no",
    "always": "always",
    "any": "always",
    "on-failure": "on-failure",
    "unless-stopped": "unless-stopped",
}


def service_slots(project: Project, name: str, facts: Facts) -> tuple[Slot, ...]:
    """Raises ProjectError."""
    count = project.services[name].replicas
    if not count:
        return ()
    ref = image_ref(project, name)
    if ref not in facts.images:
        built = project.services[name].build is not None
        hint = "dom0 build makes it" if built else f"docker pull {ref}, or check the name"
        raise refusal(project, ("services", name, "image"), f"there is no image {ref} here", hint)
    mounts = container_mounts(project, name, facts.images[ref].volumes)
    return tuple(_slot(project, name, number, facts, mounts) for number in range(1, count + 1))


def _slot(project: Project, name: str, number: int, facts: Facts, mounts: Mounts) -> Slot:
    service, image = project.services[name], facts.images[image_ref(project, name)]
    group = group_of(project, name, facts)
    digest = service_hash(project, name, mounts, in_scopes_group=bool(group))
    policy = restart_policy(project, name)
    host = _host_config(project, name, number, mounts, policy)
    if group:
        host = structs.replace(host, cgroup_parent=group)
    depends_on = [
        Dependency(
            service=other, condition=Condition(d.condition or Condition.STARTED), required=d.required, restart=d.restart
        )
        for other, d in sorted(service.depends_on.items())
        if other in project.services
    ]
    if is_orchestrator(service):  # it waits until its socket is served
        depends_on.append(Dependency(service=socket_service(name), condition=Condition.HEALTHY))
    return Slot(
        service=name,
        number=number,
        name=container_name(project, name, number),
        role=Role.SERVICE,
        hash=digest,
        image=image_ref(project, name),
        image_id=image.id,
        create=_container_body(project, name, _container_labels(project, name, number, digest, image), host),
        platform=service.platform,
        attachments=attachments(project, name, number),
        volumes=mounts.volumes,
        anonymous=mounts.anonymous,
        files=mounts.files,
        depends_on=tuple(depends_on),
        parents=tuple(parents(service)),
        order=replacement_order(service, mounts),
        health=health_test(service.healthcheck, image),
        health_gate=service.x_dom0 is None or service.x_dom0.health_gate,
        schedule=service.x_dom0.schedule if service.x_dom0 else "",
        timezone=project.machine.timezone if project.machine else "",
        restart_policy=policy.name,
        restart_retries=policy.maximum_retry_count,
        post_start=hooks_of(service.post_start),
        stop_grace=seconds(service.stop_grace_period) if service.stop_grace_period else 10.0,
        resources=updatable(host),
        ports=fixed_ports(service),
    )


def _container_body(project: Project, name: str, own_labels: dict[str, str], host: HostConfig) -> ContainerBody:
    service = project.services[name]
    return ContainerBody(
        image=image_ref(project, name),
        hostname=service.hostname,
        domainname=service.domainname,
        user=service.user,
        working_dir=service.working_dir,
        env=tuple(key if value is None else f"{key}={value}" for key, value in sorted(service.environment.items())),
        exposed_ports=dict.fromkeys((*service.expose, *(f"{p.target}/{p.protocol}" for p in service.ports)), Empty()),
        tty=service.tty,
        open_stdin=service.stdin_open,
        attach_stdout=True,
        attach_stderr=True,
        network_disabled=service.network_mode == "disabled",
        cmd=service.command,
        entrypoint=service.entrypoint,
        stop_signal=service.stop_signal,
        stop_timeout=int(seconds(service.stop_grace_period)) if service.stop_grace_period else None,
        healthcheck=health_config(service.healthcheck),
        labels=own_labels,
        host_config=host,
    )


def health_config(check: HealthCheck | None) -> HealthConfig | None:
    """None where the project says nothing of it: then the image's check counts."""
    if check is None:
        return None
    return HealthConfig(
        test=("NONE",) if check.disable else check.test,
        interval=nanoseconds(check.interval),
        timeout=nanoseconds(check.timeout),
        start_period=nanoseconds(check.start_period),
        start_interval=nanoseconds(check.start_interval),
        retries=check.retries or 0,
    )


def _container_labels(project: Project, name: str, number: int, digest: str, image: Image) -> dict[str, str]:
    service = project.services[name]
    by_settings = service.x_dom0 is not None and service.x_dom0.ambassador is not None
    forwards = by_settings or image.labels.get(labels.ROLE) == IMAGE_ROLE
    own = {labels.AMBASSADOR: "true"} if forwards else {}
    # an image that was committed or built in a scope says that its containers are of one
    own |= {key: "" for key in (scope.LABEL, scope.ORCHESTRATOR) if key in image.labels}
    if is_orchestrator(service):
        of_image = {key: value for key, value in image.labels.items() if key.startswith(scope.RESERVED)}
        own |= {scope.LABEL: f"/{name}", scope.ORCHESTRATOR: json.dumps(of_image, sort_keys=True)}
    dependencies = (f"{k}:{d.condition}:{str(d.restart).lower()}" for k, d in sorted(service.depends_on.items()))
    return (
        service.labels
        | own
        | {
            labels.PROJECT: project.name,
            labels.ROLE: Role.SERVICE.value,
            labels.SERVICE: name,
            labels.NUMBER: str(number),
            labels.HASH: digest,
            labels.PRE_STOP: pre_stop_label(hooks_of(service.pre_stop)),
            labels.COMPOSE_PROJECT: project.name,
            labels.COMPOSE_SERVICE: name,
            labels.COMPOSE_NUMBER: str(number),
            labels.COMPOSE_HASH: project.compose_hashes.get(name, digest),
            labels.COMPOSE_IMAGE: image.id,
            labels.COMPOSE_ONEOFF: "False",
            labels.COMPOSE_VERSION: labels.compose_version(project.compose_version),
            labels.COMPOSE_WORKING_DIR: project.working_dir,
            labels.COMPOSE_CONFIG_FILES: ",".join(project.config_files),
            labels.COMPOSE_DEPENDS_ON: ",".join(dependencies),
        }
    )


def _host_config(project: Project, name: str, number: int, mounts: Mounts, restart: RestartPolicy) -> HostConfig:
    service, logging = project.services[name], project.services[name].logging
    security, unconfined = _security_options(project, name)
    networks = networks_by_priority(project, service)
    return HostConfig(
        **structs.asdict(host_resources(service)),
        binds=mounts.binds,
        mounts=mounts.mounts or None,
        tmpfs=mounts.tmpfs,
        annotations=service.annotations,
        cap_add=service.cap_add,
        cap_drop=service.cap_drop,
        network_mode=service.network_mode or (project.networks[networks[0]].name if networks else "none"),
        ipc_mode=service.ipc,
        pid_mode=service.pid,
        cgroupns_mode=service.cgroup,
        userns_mode=service.userns_mode,
        uts_mode=service.uts,
        readonly_rootfs=service.read_only,
        restart_policy=restart,
        shm_size=service.shm_size,
        sysctls=service.sysctls,
        # `db:ro` → `service:db:ro`, `container:name:ro` → `name:ro`; Compose 2.26 forgets the `ro`
        volumes_from=tuple(
            source.removeprefix("container:") if source.startswith("container:") else f"{PARENT}{source}"
            for source in service.volumes_from
        ),
        dns=service.dns,
        dns_search=service.dns_search,
        dns_options=service.dns_opt,
        security_opt=security,
        masked_paths=() if unconfined else None,
        readonly_paths=() if unconfined else None,
        storage_opt=service.storage_opt,
        privileged=service.privileged,
        isolation=service.isolation,
        runtime=service.runtime,
        group_add=service.group_add,
        links=links(project, name, number),
        oom_score_adj=service.oom_score_adj,
        port_bindings=port_bindings(service),
        extra_hosts=tuple(host.replace("=", ":", 1) for host in service.extra_hosts),
        init=service.init,
        log_config=LogConfig(type=logging.driver, config=logging.options) if logging else None,
    )


def _security_options(project: Project, name: str) -> tuple[tuple[str, ...], bool]:
    """The profile's text instead of its path, as the Engine wants it; and whether system paths are unmasked."""
    parsed, unconfined = [], False
    for number, option in enumerate(project.services[name].security_opt):
        if option == "systempaths=unconfined":
            unconfined = True
            continue
        separator = "=" if "=" in option else ":"
        key, _, value = option.partition(separator)
        if not value and key != "no-new-privileges":
            path = ("services", name, "security_opt", str(number))
            raise refusal(project, path, f"{option!r} is no security option", "such as no-new-privileges:true")
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            profile = json.loads(project.contents[value])
            parsed.append("seccomp=" + json.dumps(profile, separators=(",", ":"), ensure_ascii=False))
        else:
            parsed.append(option)
    return tuple(parsed), unconfined


def restart_policy(project: Project, name: str) -> RestartPolicy:
    """`deploy.restart_policy` first, as with Compose."""
    service = project.services[name]
    path: KeyPath = ("services", name, "restart")
    condition, _, retries = service.restart.partition(":")
    if service.deploy and service.deploy.restart_policy:
        path, policy = ("services", name, "deploy", "restart_policy"), service.deploy.restart_policy
        condition, retries = policy.condition, str(policy.max_attempts or 0)
    if condition not in RESTART_POLICIES:
        policies = f"one of {', '.join(filter(None, RESTART_POLICIES))}"
        raise refusal(project, path, f"unknown policy {condition!r}", policies)
    engine_name, retries = RESTART_POLICIES[condition], retries or "0"
    if not (retries.isascii() and retries.isdigit()):
        raise refusal(project, path, f"{retries!r} is no number of retries", "such as on-failure:3")
    if int(retries) and engine_name != "on-failure":
        raise refusal(project, path, "a number of retries goes with on-failure only", "leave it out")
    return RestartPolicy(name=engine_name, maximum_retry_count=int(retries))


def parents(service: Service) -> dict[str, str]:
    """Services whose namespaces or volumes this one shares, and the key that says so."""
    entries = (entry for entry in service.volumes_from if not entry.startswith("container:"))
    found = {entry.partition(":")[0]: "volumes_from" for entry in entries}
    modes = {"pid": service.pid, "ipc": service.ipc, "network_mode": service.network_mode}
    found |= {mode.removeprefix(PARENT): key for key, mode in modes.items() if mode.startswith(PARENT)}
    return dict(sorted(found.items()))


def replacement_order(service: Service, mounts: Mounts) -> Order:
    """What the file says, else start-first wherever two of it can run side by side."""
    update = service.deploy.update_config if service.deploy else None
    if update and update.order:
        return Order(update.order)
    addresses = (n for n in service.networks.values() if n)
    exclusive = (
        spare_port_missing(service)
        or mounts.writes
        or bool(service.mac_address)
        or any(n.ipv4_address or n.ipv6_address or n.mac_address or n.link_local_ips for n in addresses)
        or service.network_mode == "host"
        or service.network_mode.startswith("container:")
        or bool(parents(service))
        or is_orchestrator(service)
    )
    return Order.STOP_FIRST if exclusive else Order.START_FIRST


def health_test(check: HealthCheck | None, image: Image) -> HealthTest | None:
    """The command that tells whether it is healthy: the service's, else its image's, as the Engine merges them."""
    if check is not None and check.disable:
        return None
    match check.test if check and check.test else image.healthcheck_test:
        case ("CMD", *argv) if argv:
            pass
        case ("CMD-SHELL", *command) if command:
            argv = ["/bin/sh", "-c", *command]
        case _:
            return None
    return HealthTest(
        argv=tuple(argv),
        timeout=seconds(check.timeout) if check and check.timeout else 30.0,
        start_period=seconds(check.start_period) if check else 0.0,
    )
