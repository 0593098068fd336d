"""A resolved project → what it is in Swarm mode, or every key that Swarm cannot do, with its place and a way out. Pure.

`docker stack deploy` drops such keys without a word; here each key of a service is in the table of those that are kept,
or is refused.
"""

from __future__ import annotations

import hmac
import posixpath
import re
from collections.abc import Iterator, Mapping

import msgspec

from dom0.compose.findings import Finding, KeyPath, refuse
from dom0.compose.model import (
    Deploy,
    FileReference,
    Project,
    Resource,
    Resources,
    Service,
    ServiceNetwork,
    ServiceVolume,
    Ulimit,
    UpdateConfig,
    Volume,
)
from dom0.durations import nanoseconds
from dom0.engine import bodies
from dom0.engine import swarm_bodies as swarm
from dom0.engine.bodies import TmpfsOptions
from dom0.engine.swarm_bodies import FileKind
from dom0.farms.float_content import FARM, PROJECT, SHARED, STACK, FloatFile, FloatProject, image_label
from dom0.plan.facts import image_ref
from dom0.plan.service_slot import RESTART_POLICIES, health_config
from dom0.plan.specs import network_ipam
from dom0.registry.manifest import digest_of

MOST_SECRET, MOST_CONFIG = 500 << 10, 1000 << 10  # bytes that Swarm takes
MOST_FILE_NAME = 64  # characters
_MARK = 16  # characters
_SERVICE = re.compile(r"(?=.{1,63}\Z)[a-zA-Z0-9](?:[-_]*[a-zA-Z0-9]+)*")
_ROLE = "make it a role, which runs on the nodes that have it: roles/NAME/compose.yaml"
_KEPT = frozenset(
    (
        "attach",
        "cap_add",
        "cap_drop",
        "command",
        "configs",
        "cpus",
        "deploy",
        "dns",
        "dns_opt",
        "dns_search",
        "entrypoint",
        "environment",
        "expose",
        "extra_hosts",
        "group_add",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "labels",
        "logging",
        "mem_limit",
        "mem_reservation",
        "networks",
        "pids_limit",
        "ports",
        "profiles",
        "pull_policy",
        "pull_refresh_after",
        "read_only",
        "restart",
        "scale",
        "secrets",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "volumes",
        "working_dir",
        "develop",
    )
)
_WAYS_OUT = {
    "build": "build it beforehand, docker build --tag NAME, and say image: NAME",
    "depends_on": "services that float start in any order, on any node: leave it out, and let the service try again",
    "container_name": "leave it out: its name is PROJECT_SERVICE",
    "network_mode": "leave it out; or publish its ports with mode: host",
    "shm_size": "mount one: volumes: [{type: tmpfs, target: /dev/shm, tmpfs: {size: 64m}}]",
    "links": "leave it out: services of one network find each other by their names",
    "volumes_from": "name the volumes of each service",
    "x_dom0": "what it says is for one machine's dom0: leave it out",
}
_OVER_THE_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs"})  # file systems
_BINDS = frozenset({"bind", "rbind"})  # options of mount, beside which no type counts
_ACTIONS = ("pause", "continue", "rollback")
_NETWORK_KEPT = frozenset({"aliases", "priority", "driver_opts"})
_NOTHING_SAID, _USUAL = Service(), ServiceNetwork()


def find_flaws(project: Project) -> list[Finding]:
    """All that Swarm cannot do."""
    found = list(_flaws_of_project(project))
    for name, service in project.services.items():
        at = ("services", name)
        if not _SERVICE.fullmatch(f"{project.name}_{name}"):
            hint = "letters, digits, - and _ inside, at most 63 with that of the project"
            found.append(Finding(at, f"Swarm takes no service named {project.name}_{name}", hint))
        for field in msgspec.structs.fields(Service):
            if field.name not in _KEPT and getattr(service, field.name) != getattr(_NOTHING_SAID, field.name):
                hint = _WAYS_OUT.get(field.name, f"leave it out, or {_ROLE}")
                found.append(Finding((*at, field.encode_name), "Swarm cannot do that", hint))
        for path, what, hint in (
            *_flaws_of_keys(service),
            *_flaws_of_lists(service),
            *_flaws_of_volumes(project, service),
        ):
            found.append(Finding((*at, *path), what, hint))
    return found


def find_declared_volumes(project: Project, declared: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Where a service would write to a volume of its image's, which Swarm removes with the task. `declared`: paths by
    images that services refer to.
    """
    found = []
    for name, service in project.services.items():
        mounted = {posixpath.normpath(path) for path in (*service.tmpfs, *(one.target for one in service.volumes))}
        for path in declared.get(image_ref(project, name), ()):
            if posixpath.normpath(path) not in mounted:
                what = f"it declares a volume at {path}, which would be removed with each container"
                hint = f"tmpfs: [{path}] where nothing in it is to stay; volumes: of what all nodes reach; or {_ROLE}"
                found.append(Finding(("services", name, "image"), what, hint))
    return found


def make(
    project: Project, images: Mapping[str, str], contents: Mapping[tuple[str, str], bytes], key: bytes
) -> tuple[FloatProject, dict[str, bytes]]:
    """And what is in its files, by their digests. `images`: names of ours by those that services refer to; `contents`:
    of configs and secrets, by `configs` or `secrets` and key. `key`: the farm's own, without which nobody finds a
    secret by trying until its mark is the one in its name. Raises ProjectError.
    """
    names, files = {}, {}
    for (section, name), content in contents.items():
        kind: FileKind = "secret" if section == "secrets" else "config"
        mark = hmac.digest(key, content, "sha256").hex()[:_MARK]
        names[section, name] = f"{project.name}_{name}-{mark}"
        files[names[section, name]] = FloatFile(kind=kind, digest=digest_of(content), size=len(content))
    if flaws := [*find_flaws(project), *_flaws_of_contents(contents, names)]:
        raise refuse(flaws, project.locations)
    networks = [
        _network(project, key)
        for key, network in sorted(project.networks.items())
        if not network.external and any(key in service.networks for service in project.services.values())
    ]
    running = (name for name, service in sorted(project.services.items()) if service.replicas)
    services = [_service(project, name, images, names) for name in running]
    made = FloatProject(name=project.name, networks=tuple(networks), files=files, services=tuple(services))
    return made, {digest_of(content): content for content in contents.values()}


# what Swarm cannot do

Flaw = tuple[KeyPath, str, str]


def _flaws_of_project(project: Project) -> Iterator[Finding]:
    if project.machine is not None:
        yield Finding(("x-dom0",), "is for one machine's dom0", "leave it out")
    for key, network in project.networks.items():
        at = ("networks", key)
        if network.driver not in ("", "overlay") and not network.external:
            yield Finding((*at, "driver"), f"{network.driver} is of one machine", "leave it out: it is overlay")
        if network.enable_ipv4 is False:
            yield Finding((*at, "enable_ipv4"), "Swarm cannot do that", "leave it out")


def _flaws_of_keys(service: Service) -> Iterator[Flaw]:
    for key, words in (("command", service.command), ("entrypoint", service.entrypoint)):
        if words == ():
            yield (key,), "Swarm cannot clear what the image says", "write the command that is meant"
    for key, network in service.networks.items():
        for field in msgspec.structs.fields(ServiceNetwork) if network else ():
            if field.name not in _NETWORK_KEPT and getattr(network, field.name) != getattr(_USUAL, field.name):
                hint = "leave it out: a task gets its address where it starts"
                yield ("networks", key, field.encode_name), "Swarm cannot do that", hint
    yield from _flaws_of_deploy(service.deploy or Deploy())


def _flaws_of_lists(service: Service) -> Iterator[Flaw]:
    for number, port in enumerate(service.ports):
        if port.host_ip:
            hint = "leave it out: it is published at all addresses of a node"
            yield ("ports", str(number), "host_ip"), "Swarm cannot do that", hint
        if "-" in port.published:
            yield ("ports", str(number), "published"), "Swarm takes one port, no range", "name one"
    for number, entry in enumerate(service.tmpfs):
        if ":" in entry:
            hint = "volumes: [{type: tmpfs, target: /x, tmpfs: {size: 64m, mode: 0o1777}}]"
            yield ("tmpfs", str(number)), "Swarm cannot do these options here", hint


def _flaws_of_deploy(deploy: Deploy) -> Iterator[Flaw]:
    resources = deploy.resources or Resources()
    for kind in ("limits", "reservations"):
        found: Resource = getattr(resources, kind) or Resource()
        at = ("deploy", "resources", kind)
        if found.devices or found.generic_resources:
            key = "devices" if found.devices else "generic_resources"
            yield (*at, key), "no node says which it has", _ROLE
        if kind == "reservations" and found.pids:
            yield (*at, "pids"), "Swarm has a limit of them, no reservation", "say it in limits"
    restart, update, rollback = deploy.restart_policy, deploy.update_config, deploy.rollback_config
    for path, said, known in (
        (("endpoint_mode",), deploy.endpoint_mode, ("vip", "dnsrr")),
        (("restart_policy", "condition"), restart.condition if restart else "", ("none", "on-failure", "any")),
        (("update_config", "failure_action"), update.failure_action if update else "", _ACTIONS),
        (("rollback_config", "failure_action"), rollback.failure_action if rollback else "", _ACTIONS[:2]),
    ):
        if said and said not in known:
            yield ("deploy", *path), f"Swarm does not know {said}", f"one of {', '.join(known)}"


def _flaws_of_volumes(project: Project, service: Service) -> Iterator[Flaw]:
    """A task that moves would find another directory, or an empty volume, without a word; and one on a node that is cut
    off goes on beside the one that has taken its place.
    """
    for number, volume in enumerate(service.volumes):
        at = ("volumes", str(number))
        if volume.type == "tmpfs":
            continue
        if volume.type != "volume":
            hint = f"configs: or secrets: for files; driver_opts of a network's file system for data; or {_ROLE}"
            yield at, "a directory of one machine does not move with the service", hint
            continue
        known = project.volumes.get(volume.source) or Volume()
        options = known.driver_opts.get("o", "").split(",")
        is_shared = known.driver_opts.get("type") in _OVER_THE_NETWORK and not _BINDS.intersection(options)
        if known.driver in ("", "local") and not is_shared:
            hint = f"driver: or driver_opts: of what all nodes reach, as type: nfs; or {_ROLE}"
            yield at, "a volume of one machine does not move with the service, which would find an empty one", hint
        elif not volume.read_only and known.labels.get(SHARED) != "yes":
            hint = (
                "read_only: true; or, where what runs there bears that, of the volume"
                f' labels: {{{SHARED}: "yes"}}; or {_ROLE}'
            )
            yield at, "two containers may write to it at once, as when a node is cut off", hint


def _flaws_of_contents(
    contents: Mapping[tuple[str, str], bytes], names: Mapping[tuple[str, str], str]
) -> Iterator[Finding]:
    for (section, key), content in contents.items():
        if len(names[section, key]) > MOST_FILE_NAME:
            most = MOST_FILE_NAME - _MARK - 2
            yield Finding((section, key), "its name is too long for Swarm", f"{most} characters with the project's")
        most = MOST_SECRET if section == "secrets" else MOST_CONFIG
        if not 0 < len(content) <= most:
            hint = "bring it in an image" if content else "write something into it"
            yield Finding((section, key), f"Swarm takes 1 to {most} bytes, it has {len(content)}", hint)


# what it can do


def _network(project: Project, key: str) -> swarm.SwarmNetworkBody:
    network = project.networks[key]
    return swarm.SwarmNetworkBody(
        name=network.name,
        driver="overlay",
        check_duplicate=True,  # the Engine's default only since API 1.44
        attachable=network.attachable,
        internal=network.internal,
        enable_ipv6=bool(network.enable_ipv6),
        ipam=network_ipam(network),
        labels=network.labels | {STACK: project.name},
        options=network.driver_opts,
    )


def _service(
    project: Project, name: str, images: Mapping[str, str], files: Mapping[tuple[str, str], str]
) -> swarm.ServiceBody:
    service = project.services[name]
    deploy, image = service.deploy or Deploy(), images[image_ref(project, name)]
    replicated = swarm.Replicated(replicas=service.replicas)
    is_global = deploy.mode == "global"
    return swarm.ServiceBody(
        name=f"{project.name}_{name}",
        labels=_without_ours(deploy.labels) | {STACK: project.name},
        task_template=swarm.TaskSpec(
            container_spec=_container(project, name, image, files),
            resources=_resources(service),
            restart_policy=_restart_policy(service),
            placement=_placement(deploy, image),
            networks=tuple(
                swarm.NetworkUse(
                    target=project.networks[key].name,
                    aliases=(name, *(use.aliases if use else ())),
                    driver_opts=use.driver_opts if use else {},
                )
                for key, use in sorted(service.networks.items())
            ),
            log_driver=swarm.Driver(name=service.logging.driver, options=service.logging.options)
            if service.logging
            else None,
        ),
        mode=swarm.Mode(global_=bodies.Empty()) if is_global else swarm.Mode(replicated=replicated),
        update_config=_rules(deploy.update_config, "rollback"),
        rollback_config=_rules(deploy.rollback_config, "pause"),
        endpoint_spec=swarm.EndpointSpec(
            mode=deploy.endpoint_mode,
            ports=tuple(
                swarm.PortConfig(
                    name=port.name,
                    protocol=port.protocol or "tcp",
                    target_port=port.target,
                    published_port=int(port.published or 0),
                    publish_mode=port.mode or "ingress",
                )
                for port in service.ports
            ),
        ),
    )


def _container(project: Project, name: str, image: str, files: Mapping[tuple[str, str], str]) -> swarm.ContainerSpec:
    service = project.services[name]
    dns = (service.dns, service.dns_search, service.dns_opt)
    hosts = (entry.partition("=") for entry in service.extra_hosts)
    return swarm.ContainerSpec(
        image=image,
        labels=_without_ours(service.labels) | {STACK: project.name},
        command=service.entrypoint,
        args=service.command,
        hostname=service.hostname,
        env=tuple(key if value is None else f"{key}={value}" for key, value in sorted(service.environment.items())),
        dir=service.working_dir,
        user=service.user,
        groups=service.group_add,
        tty=service.tty,
        open_stdin=service.stdin_open,
        read_only=service.read_only,
        mounts=(
            *(swarm.SwarmMount(type="tmpfs", target=target) for target in service.tmpfs),
            *(_mount(project, volume) for volume in service.volumes),
        ),
        stop_signal=service.stop_signal,
        stop_grace_period=_duration(service.stop_grace_period),
        healthcheck=health_config(service.healthcheck),
        hosts=tuple(f"{address} {host}" for host, _, address in hosts),
        dns_config=swarm.DnsConfig(nameservers=dns[0], search=dns[1], options=dns[2]) if any(dns) else None,
        secrets=tuple(
            swarm.SecretUse(file=_target(use, use.source), secret_name=files["secrets", use.source])
            for use in service.secrets
        ),
        configs=tuple(
            swarm.ConfigUse(
                file=_target(use, posixpath.join("/", use.source)), config_name=files["configs", use.source]
            )
            for use in service.configs
        ),
        init=service.init,
        sysctls=service.sysctls,
        capability_add=service.cap_add,
        capability_drop=service.cap_drop,
        ulimits=tuple(
            bodies.Ulimit(name=key, soft=limit.soft, hard=limit.hard)
            for key, entry in sorted(service.ulimits.items())
            for limit in (Ulimit(soft=entry, hard=entry) if isinstance(entry, int) else entry,)
        ),
    )


def _target(use: FileReference, usual: str) -> swarm.FileTarget:
    mode = 0o444 if use.mode is None else use.mode
    return swarm.FileTarget(name=use.target or usual, uid=use.uid or "0", gid=use.gid or "0", mode=mode)


def _mount(project: Project, volume: ServiceVolume) -> swarm.SwarmMount:
    if volume.type == "tmpfs":
        tmpfs = volume.tmpfs
        options = TmpfsOptions(size_bytes=tmpfs.size, mode=tmpfs.mode) if tmpfs else None
        return swarm.SwarmMount(type="tmpfs", target=volume.target, read_only=volume.read_only, tmpfs_options=options)
    known, own = project.volumes[volume.source], volume.volume
    return swarm.SwarmMount(
        type="volume",
        target=volume.target,
        source=_volume_name(known),
        read_only=volume.read_only,
        volume_options=swarm.SwarmVolumeOptions(
            no_copy=own.nocopy if own else False,
            labels=known.labels | {STACK: project.name},
            subpath=own.subpath if own else "",
            driver_config=swarm.Driver(name=known.driver or "local", options=known.driver_opts),
        ),
    )


def _volume_name(volume: Volume) -> str:
    """With a mark of its options, where they say what is in it: an Engine that has a volume of the name, as a role's or
    with other options, takes that one without a word.
    """
    if volume.driver not in ("", "local"):
        return volume.name
    return f"{volume.name}-{digest_of(msgspec.json.encode(volume.driver_opts, order='sorted'))[-_MARK:]}"


def _resources(service: Service) -> swarm.TaskRequirements:
    found = (service.deploy.resources if service.deploy else None) or Resources()
    limits, reservations = found.limits or Resource(), found.reservations or Resource()
    return swarm.TaskRequirements(
        limits=swarm.TaskResources(
            nano_cpus=round((limits.cpus or service.cpus) * 1e9),
            memory_bytes=limits.memory or service.mem_limit,
            pids=limits.pids or service.pids_limit,
        ),
        reservations=swarm.TaskResources(
            nano_cpus=round(reservations.cpus * 1e9), memory_bytes=reservations.memory or service.mem_reservation
        ),
    )


def _restart_policy(service: Service) -> swarm.TaskRestartPolicy:
    """`deploy.restart_policy` first, as with Compose. At once where nothing else is said: what has died with its node
    has waited long enough.
    """
    said = service.deploy.restart_policy if service.deploy else None
    if said is None:
        condition, _, retries = service.restart.partition(":")
        names = {"no": "none", "on-failure": "on-failure"}
        condition = names.get(RESTART_POLICIES.get(condition, ""), "any") if condition else "any"
        return swarm.TaskRestartPolicy(condition=condition, delay=0, max_attempts=int(retries) if retries else None)
    return swarm.TaskRestartPolicy(
        condition=said.condition or "any",
        delay=nanoseconds(said.delay),
        max_attempts=said.max_attempts,
        window=_duration(said.window),
    )


def _placement(deploy: Deploy, image: str) -> swarm.Placement:
    """Only where the image is."""
    said = deploy.placement
    return swarm.Placement(
        constraints=(*(said.constraints if said else ()), f"node.labels.{image_label(image)}==here"),
        preferences=tuple(
            swarm.Preference(spread=swarm.Spread(spread_descriptor=one.spread))
            for one in (said.preferences if said else ())
        ),
        max_replicas=said.max_replicas_per_node if said else 0,
    )


def _rules(said: UpdateConfig | None, failure_action: str) -> swarm.UpdateRules:
    said = said or UpdateConfig()
    return swarm.UpdateRules(
        parallelism=1 if said.parallelism is None else said.parallelism,
        delay=nanoseconds(said.delay),
        failure_action=said.failure_action or failure_action,
        monitor=nanoseconds(said.monitor),
        max_failure_ratio=said.max_failure_ratio,
        order=said.order,
    )


def _duration(text: str) -> int | None:
    return nanoseconds(text) if text else None


def _without_ours(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if not key.startswith((FARM, PROJECT))}
