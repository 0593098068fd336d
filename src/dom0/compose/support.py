"""The table of how dom0 treats every key that Compose accepts. docs/reference/compose.md is printed from it.

A key that is not listed is treated as the key around it. The table has every key of the schemas in Debian's Compose
2.26.1 and 2.40.3; a newer Compose may accept more keys, which `decode` refuses by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from dom0.compose.findings import Finding, KeyPath
from dom0.compose.model import Project
from dom0.wording import keys_at


class SupportLevel(StrEnum):
    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


class KeySupport(msgspec.Struct, frozen=True):
    """`key` is dotted, `*` stands for a name. `note`: how, why, and for a refused key what to do instead.

    `newer`: Compose 2.26 does not know the key.
    """

    key: str
    level: SupportLevel
    note: str = ""
    newer: bool = False

    @property
    def path(self) -> KeyPath:
        return tuple(self.key.split("."))


def _rows(prefix: str, level: SupportLevel, entries: Mapping[str, str], *, newer: bool = False) -> Iterator[KeySupport]:
    for keys, note in entries.items():
        for key in keys.split():
            yield KeySupport(f"{prefix}{key}", level, note, newer)


_HONOURED, _IGNORED, _REFUSED = SupportLevel

TABLE: tuple[KeySupport, ...] = (
    *_rows(
        "",
        _HONOURED,
        {
            "name": "the project's name; taken from the directory if it is missing, required in an image",
            "include": "of files inside the project; `git`, `oci` and other hosts are refused",
            "services networks volumes": "",
            "configs secrets": "mounted read-only, or written into the container before every start if the text is "
            "inline; another text makes another container",
            "x-dom0": "see x-dom0.md",
        },
    ),
    *_rows("", _IGNORED, {"version": "obsolete, Compose ignores it too", "x-*": "yours"}),
    *_rows(
        "services.*.",
        _HONOURED,
        {
            "annotations blkio_config cap_add cap_drop cgroup cgroup_parent command container_name": "",
            "build": "by `dom0 build`; the machine itself builds nothing",
            "configs secrets": "`uid`, `gid` and `mode` count for inline text only, as in Compose",
            "cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset": "",
            "depends_on": "all conditions, `required` and `restart`; health checks run at once instead of after their "
            "first interval",
            "deploy": "what concerns one host; see below",
            "deploy.mode": "`replicated`, and `global` as one container; jobs are refused",
            "deploy.replicas deploy.restart_policy deploy.resources": "",
            "deploy.update_config": "`order`",
            "device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint": "",
            "env_file label_file": "read when the project is loaded, inside the project only",
            "environment expose": "",
            "extends": "from files inside the project",
            "external_links extra_hosts group_add hostname image init ipc labels links": "",
            "gpus": "Compose 2.26 accepts it and does nothing, here the container gets them",
            "healthcheck": "and decides whether a new generation is good",
            "logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit": "",
            "networks.*.gw_priority": "by Engines from 28.0 on; before, `priority` decides",
            "network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports privileged": "",
            "post_start": "after every start, whoever made it; the service is not ready before, see concepts.md",
            "pre_stop": "before every stop that dom0 makes, within `stop_grace_period`; see concepts.md",
            "profiles": "no service runs whose profile is not enabled: `COMPOSE_PROFILES=NAME` in the project's `.env`",
            "pull_policy": "`build` images come from `dom0 build`",
            "read_only restart runtime": "",
            "scale": "up to 1000 containers in a project",
            "security_opt shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits": "",
            "user userns_mode uts volumes_from working_dir": "",
            "volumes": "`bind`, `volume` and `tmpfs`; `npipe`, `cluster` and `image` are refused",
            "x-dom0": "see x-dom0.md",
        },
    ),
    *_rows(
        "services.*.",
        _IGNORED,
        {
            "attach": "says what `docker compose up` prints; `dom0 logs` prints any service",
            "cpu_count cpu_percent": "the Engine has it on Windows only",
            "deploy.endpoint_mode deploy.labels": "of a Swarm service, Compose ignores it too",
            "deploy.placement": "there is one host",
            "deploy.resources.reservations.cpus deploy.resources.reservations.generic_resources": "for Swarm's choice "
            "of a node, Compose ignores it too",
            "deploy.restart_policy.delay deploy.restart_policy.window": "the Engine has its own, growing delay",
            "deploy.rollback_config": "the whole machine goes back to its last good generation",
            "deploy.update_config.delay deploy.update_config.failure_action deploy.update_config.max_failure_ratio "
            "deploy.update_config.monitor deploy.update_config.parallelism": "`x-dom0.rollout` judges a change",
            "develop": "for `docker compose watch`",
            "ports.app_protocol ports.mode ports.name": "of a Swarm service, Compose ignores it too",
            "volumes.consistency": "for macOS",
            "x-*": "yours",
        },
    ),
    *_rows(
        "services.*.",
        _REFUSED,
        {
            "credential_spec": "for Windows containers; leave it out",
            "isolation": "for Windows containers; leave it out, or write default",
        },
    ),
    *_rows(
        "services.*.",
        _IGNORED,
        {"pull_refresh_after": "an image is pulled where it is missing, with `pull_policy: always` each time"},
        newer=True,
    ),
    *_rows(
        "services.*.",
        _REFUSED,
        {
            "models": "Docker Model Runner is not part of the Engine; run the model's server as a service",
            "provider": "it runs a program of the host, which no machine has; run the service as a container",
            "use_api_socket": "it hands out the registry logins of whoever starts it; mount /run/docker.sock instead",
        },
        newer=True,
    ),
    *_rows(
        "",
        _REFUSED,
        {"models": "Docker Model Runner is not part of the Engine; run the model's server as a service"},
        newer=True,
    ),
    *_rows(
        "networks.*.",
        _HONOURED,
        {
            "attachable driver driver_opts enable_ipv6 external internal ipam labels name": "",
            "enable_ipv4": "the Engine can switch it off from 28.0 on",
        },
    ),
    *_rows("networks.*.", _REFUSED, {"ipam.options": "Compose accepts it and loses it; leave it out"}),
    *_rows("volumes.*.", _HONOURED, {"driver driver_opts external labels name": ""}),
    *_rows(
        "configs.*.",
        _HONOURED,
        {"content file name": "", "environment": "the variable from the project's `.env`, which has to be set"},
    ),
    *_rows("secrets.*.", _HONOURED, {"environment": "as of a config", "file name": ""}),
    *_rows("configs.*.", _IGNORED, {"labels": "of a Swarm config, Compose ignores them too"}),
    *_rows("secrets.*.", _IGNORED, {"labels": "of a Swarm secret, Compose ignores them too"}),
    *_rows("configs.*.", _REFUSED, {"external template_driver": "lives in Swarm; use file:, content: or environment:"}),
    *_rows(
        "secrets.*.",
        _REFUSED,
        {"driver driver_opts external template_driver": "lives in Swarm; use file: or environment:"},
    ),
)

_HARMLESS = {  # values of a refused key that change nothing
    "services.*.isolation": ("default",),
    "configs.*.external": (False,),
    "secrets.*.external": (False,),
}

# Keys below the table's own depth, where Compose's schema has others than the model.
_SCHEMA = {
    "include": "env_file path project_directory",
    "networks.*.ipam": "config driver options",
    "services.*.deploy.resources.limits": "cpus memory pids",
    "services.*.deploy.resources.reservations": "cpus devices generic_resources memory",
    "services.*.env_file": "format path required",
    "services.*.extends": "file service",
}


def known_keys(path: KeyPath) -> list[str]:
    """The keys that may stand at `path`; indexes of lists in it are skipped."""
    wanted = tuple(part for part in path if not part.isdigit())
    here = {row.path[-1] for row in TABLE if len(row.path) == len(wanted) + 1 and _matches(row.path[:-1], wanted)}
    named = [keys.split() for pattern, keys in _SCHEMA.items() if _matches(tuple(pattern.split(".")), wanted)]
    here.update(named[0] if named else keys_at(Project, wanted) if len(wanted) > 2 else ())
    return sorted(here - {"*", "x-*"})


def refused(project: Mapping[str, Any]) -> Iterator[Finding]:
    """`project` is what Compose resolved, as plain data."""
    for row in TABLE:
        if row.level is SupportLevel.REFUSED:
            reason, _, advice = row.note.partition("; ")
            for path, value in _found(project, row.path):
                if value not in _HARMLESS.get(row.key, ()):
                    yield Finding(path, f"refused: {reason}", advice)


def ignored(project: Mapping[str, Any]) -> Iterator[Finding]:
    """Keys that have no effect, without those that Compose fills in itself."""
    for row in TABLE:
        if row.level is SupportLevel.IGNORED and row.key not in _FILLED_IN and not row.key.endswith("x-*"):
            for path, _ in _found(project, row.path):
                yield Finding(path, f"ignored: {row.note}")


_FILLED_IN = ("services.*.ports.mode",)


def _found(data: Any, pattern: KeyPath, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Path and value of every key of `data` that matches and is not empty. Lists are searched too."""
    if isinstance(data, list):
        for number, entry in enumerate(data):
            yield from _found(entry, pattern, (*path, str(number)))
    elif not pattern:
        if data not in (None, "", [], {}):
            yield path, data
    elif isinstance(data, dict):
        keys = list(data) if pattern[0] == "*" else [pattern[0]]
        for key in keys:
            if key in data:
                yield from _found(data[key], pattern[1:], (*path, str(key)))


def _matches(pattern: KeyPath, path: KeyPath) -> bool:
    return len(pattern) == len(path) and all(p in ("*", part) for p, part in zip(pattern, path, strict=True))
