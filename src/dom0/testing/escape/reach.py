"""An oracle that reads: whether a body, as the Engine would get it, reaches anything that is not the scope's.

It was written from the Engine's API and not from the rules under test, of which it imports nothing, and knows every
value that is harmless: whatever else stands in a body is said. `world` has the one that looks at an Engine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

Doc = dict[str, Any]
Harmless = Callable[[Any], bool]

VOLUME = re.compile(r"[a-zA-Z0-9_.-]+")
NET_SYSCTL = re.compile(r"net\.[^\s]+|kernel\.(shm\w+|msg\w+|sem)|fs\.mqueue\.\w+")
TMPFS = re.compile(r"(size|mode|uid|gid|nr_blocks|nr_inodes)=\w+%?|r[ow]|(no)?exec|nosuid|nodev|noatime")
LOG_OPTIONS = {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode"}


LIMITS = (
    *("BlkioWeight", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems", "Memory"),
    *("MemoryReservation", "MemorySwap", "NanoCpus", "PidsLimit", "ShmSize", "Ulimits"),
)


class Sent(NamedTuple):
    """A request as the Engine gets it. `is_answered`: its answer goes to the client unread."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str | tuple[str, ...]]
    body: bytes
    is_answered: bool


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a scope may reach: the beginning of its names, its socket and label, its containers, what it was granted."""

    prefix: str
    label: str
    socket: str
    containers: frozenset[str]  # IDs and names
    ids: frozenset[str] = frozenset()  # of everything of its own, the containers' too
    images: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    ports: range = range(0)
    writable: frozenset[str] = frozenset()  # paths of the host
    readable: frozenset[str] = frozenset()

    def request(self, sent: Sent) -> list[str]:
        """What a request reaches that it should not, in words."""
        found = [f"path: {part!r}" for part in sent.path if part in ("", ".", "..") or not part.isprintable()]
        match sent.path:
            case ("containers", "create") if str(sent.query.get("name", "")).startswith(f"PATHS.{self.prefix}"):
                return self._looks_at_paths(sent.body)
            case ("containers", "create"):
                found += self.container(sent.body)
            case ("networks", "create"):
                found += self.network(sent.body)
            case ("volumes", "create"):
                found += self.volume(sent.body)
            case ("images" | "commit", *_) if sent.path[-1] not in ("json", "history"):
                found += self._of_image(sent)
            case (kind, name, *_) if sent.is_answered or sent.method != "GET":
                if name not in self.ids and not (kind in ("networks", "volumes") and self._is_own(name)):
                    found.append(f"{sent.method} of a foreign thing: {sent.path}")
                found += self._of_action(sent)
        named = sent.path[-1] == "rename" or sent.path == ("containers", "create")
        if named and not self._is_own(str(sent.query.get("name", ""))):
            found.append(f"a name that is not the scope's: {dict(sent.query)}")
        return found

    def _of_image(self, sent: Sent) -> list[str]:
        match sent.path:
            case ("images", "load"):  # what is in the archive is judged while it comes
                return []
            case ("images", "get"):
                return [f"saved: {name}" for name in sent.query.get("names", ()) if not self._is_image(name)]
            case ("images", *name) if sent.method == "DELETE":
                return [] if self._is_image("/".join(name)) else [f"an image that is not the scope's: {name}"]
            case ("images", source, "tag") if source in self.ids:
                pass
            case ("commit",) if sent.query.get("container") in self.containers:
                pass
            case _:
                return [f"{sent.method} of a foreign thing: {sent.path}"]
        named = self._is_image(str(sent.query.get("repo", "")))
        return [] if named else [f"a name of an image that is not the scope's: {dict(sent.query)}"]

    def _of_action(self, sent: Sent) -> list[str]:
        body = json.loads(sent.body or b"{}") if sent.method == "POST" else {}
        if sent.path[-1] in ("connect", "disconnect"):
            endpoint = body.pop("EndpointConfig", {})
            known: Mapping[str, Harmless] = {"Container": lambda ref: ref in self.containers, "Force": _is_any}
            return _others(body, known) + _others(endpoint, self._of_endpoint())
        if sent.path[-1] == "update":
            return _others(body, dict.fromkeys((*LIMITS, "RestartPolicy"), _is_any))
        return [f"{key}: an exec's power" for key in body if key == "Privileged"]

    def container(self, sent: bytes) -> list[str]:
        """The same of a create body."""
        body = json.loads(sent)
        host, networking = body.pop("HostConfig", {}), body.pop("NetworkingConfig", {})
        found = _others(body, self._of_container())
        found += _others(host, self._of_host())
        if "Labels" not in body:
            found.append("Labels: missing")
        if host.get("CgroupnsMode") != "private" or not host.get("NetworkMode"):
            found.append("HostConfig: a default of the Engine that is the host's, or shared by all")
        endpoints = networking.pop("EndpointsConfig", {})
        found += _others(networking, {})
        found += [f"EndpointsConfig: {name!r}" for name in endpoints if not self._is_network(name)]
        for endpoint in endpoints.values():
            found += _others(endpoint, self._of_endpoint())
        if not self._is_network(host.get("NetworkMode", "")) and endpoints:
            found.append("EndpointsConfig: networks beside a mode that has none")
        return found

    def _looks_at_paths(self, sent: bytes) -> list[str]:
        """What a container reaches that is made to look below granted paths and is never started."""
        body = json.loads(sent)
        mounts = body.get("HostConfig", {}).pop("Mounts", [])
        found = []
        for one in mounts:
            granted = self.writable | (self.readable if one.get("ReadOnly") else set())
            if one["Type"] != "volume" or self._on_paths().get(one["Source"]) not in granted:
                found.append(f"Mounts: {one}")
        host = _others(body.pop("HostConfig", {}), {"NetworkMode": lambda mode: mode == "none"})
        known: dict[str, Harmless] = {**dict.fromkeys(("Image", "Entrypoint"), _is_any), "Labels": self._is_stamped}
        return found + host + _others(body, known) + ([] if "Labels" in body else ["Labels: missing"])

    def _on_paths(self) -> dict[str, str]:
        """Paths by the volumes on them."""
        return {
            f"PATHS.{self.prefix}{hashlib.sha256(path.encode()).hexdigest()[:16]}": path
            for path in self.writable | self.readable
        }

    def network(self, sent: bytes) -> list[str]:
        body = json.loads(sent)
        options = {"com.docker.network.bridge.enable_icc", "com.docker.network.bridge.enable_ip_masquerade"}
        options.add("com.docker.network.driver.mtu")
        found = _others(
            body,
            {
                "Name": self._is_own,
                "Labels": self._is_stamped,
                "Driver": lambda driver: driver in ("", "bridge"),
                "Options": lambda asked: set(asked) <= options,
                **dict.fromkeys(("Attachable", "CheckDuplicate", "EnableIPv4", "EnableIPv6", "Internal"), _is_any),
            },
        )
        return found + [f"{key}: missing" for key in ("Name", "Labels") if key not in body]

    def volume(self, sent: bytes) -> list[str]:
        body = json.loads(sent)
        if path := self._on_paths().get(body.get("Name")):
            options = body.pop("DriverOpts", {})
            given = options == {"type": "none", "o": "rbind,rslave", "device": path}
            return [] if given and self._is_stamped(body.get("Labels", {})) else [f"DriverOpts: {options}"]
        found = _others(
            body, {"Name": self._is_own, "Labels": self._is_stamped, "Driver": lambda driver: driver in ("", "local")}
        )
        return found + [f"{key}: missing" for key in ("Name", "Labels") if key not in body]

    def _of_container(self) -> Mapping[str, Harmless]:
        inside = (
            *("AttachStderr", "AttachStdin", "AttachStdout", "Cmd", "Domainname", "Entrypoint", "Env", "ExposedPorts"),
            *("Healthcheck", "Hostname", "MacAddress", "NetworkDisabled", "OpenStdin", "Shell", "StdinOnce"),
            *("StopSignal", "StopTimeout", "Tty", "User", "WorkingDir", "ArgsEscaped"),
        )
        return {
            **dict.fromkeys(inside, _is_any),
            "Image": lambda image: image in self.images,
            "Labels": self._is_stamped,
            "Volumes": lambda targets: all(value == {} for value in targets.values()),
        }

    def _of_host(self) -> Mapping[str, Harmless]:
        inside = (
            *("AutoRemove", "CapDrop", "ConsoleSize", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd"),
            *("Init", "ReadonlyRootfs", "RestartPolicy"),
        )
        return {
            **dict.fromkeys(LIMITS + inside, _is_any),
            "Binds": lambda binds: all(map(self._is_bind, binds)),
            "CapAdd": lambda names: set(names) <= self.capabilities,
            "CgroupnsMode": lambda mode: mode == "private",
            "IpcMode": lambda mode: mode in ("", "none", "private", "shareable") or self._is_joined(mode),
            "LogConfig": _is_log,
            "Mounts": lambda mounts: all(map(self._is_mount, mounts)),
            "NetworkMode": lambda mode: mode == "none" or self._is_joined(mode) or self._is_network(mode),
            "OomKillDisable": lambda said: said is False,
            "OomScoreAdj": lambda score: score >= 0,
            "PidMode": lambda mode: mode == "" or self._is_joined(mode),
            "PortBindings": lambda bound: all(self._is_port(one) for many in bound.values() for one in many),
            "SecurityOpt": lambda said: set(said) <= {"no-new-privileges", "no-new-privileges:true"},
            "Sysctls": lambda said: all(map(NET_SYSCTL.fullmatch, said)),
            "Tmpfs": lambda said: all(map(_is_tmpfs, said.values())),
            "VolumesFrom": lambda said: all(re.sub(":r[ow]$", "", one) in self.containers for one in said),
        }

    def _of_endpoint(self) -> Mapping[str, Harmless]:
        return {
            "Aliases": _is_any,
            "GwPriority": _is_any,
            "IPAMConfig": lambda said: set(said) <= {"IPv4Address", "IPv6Address", "LinkLocalIPs"},
            "Links": lambda links: all(link.partition(":")[0] in self.containers for link in links),
            "MacAddress": _is_any,
        }

    def _is_image(self, name: str) -> bool:
        return name in self.images or name.startswith(f"dom0.invalid{self.label}/")

    def _is_own(self, name: str) -> bool:
        return name.startswith(self.prefix) and VOLUME.fullmatch(name) is not None

    def _is_network(self, name: str) -> bool:
        return name.startswith(self.prefix)

    def _is_joined(self, mode: str) -> bool:
        return mode.startswith("container:") and mode.removeprefix("container:") in self.containers

    def _is_stamped(self, labels: Mapping[str, str]) -> bool:
        """Whether they say whose it is, and all others that say anything are of the scope's own."""
        path, own = labels.get("dom0.scope", ""), ("dom0.scope", "dom0.orchestrator", "dom0.paths")
        others = [key for key, value in labels.items() if value and key not in own]
        is_said = path == self.label or path.startswith(f"{self.label}/")
        return is_said and all(key.startswith(f"{self.label[1:]}/") for key in others)

    def _is_bind(self, bind: str) -> bool:
        source, target, *options = bind.split(":")
        passed = {"ro", "rw", "nocopy", "rprivate"}
        return (
            self._is_own(source)
            and target.startswith("/")
            and len(options) < 2
            and all(option in passed for said in options for option in said.split(","))
        )

    def _is_mount(self, mount: Doc) -> bool:
        options = mount.get("VolumeOptions", {})
        kind, source = mount["Type"], mount.get("Source", "")
        if path := self._on_paths().get(source):
            part = options.get("Subpath", "")
            inside = part != "" and not {"", ".", ".."} & set(part.split("/"))
            return kind == "volume" and inside and (path in self.writable or mount.get("ReadOnly", False))
        if kind == "bind" and source in self.writable | self.readable:
            return self._is_plain_bind(mount, may_write=source in self.writable)
        if not set(mount) <= {"Type", "Source", "Target", "ReadOnly", "Consistency", "VolumeOptions", "TmpfsOptions"}:
            return False
        if kind == "volume":
            stamped = self._is_stamped(options.get("Labels", {}))
            return (
                (source == "" or self._is_own(source)) and stamped and set(options) <= {"NoCopy", "Labels", "Subpath"}
            )
        if kind == "tmpfs":
            return source == "" and not options and set(mount.get("TmpfsOptions", {})) <= {"SizeBytes", "Mode"}
        return kind == "bind" and bool(source == self.socket)

    def _is_plain_bind(self, mount: Doc, *, may_write: bool) -> bool:
        options = mount.get("BindOptions", {})
        if options.pop("Propagation", "") not in ("", "rprivate"):
            return False
        keys = {"CreateMountpoint", "NonRecursive", "ReadOnlyForceRecursive"}
        keys |= {"ReadOnlyNonRecursive"} if may_write else set()
        return (may_write or bool(mount.get("ReadOnly"))) and set(options) <= keys

    def _is_port(self, binding: Doc) -> bool:
        first, _, last = str(binding.get("HostPort", "")).partition("-")
        numbers = (first, last or first)
        return set(binding) <= {"HostIp", "HostPort"} and all(
            number.isascii() and number.isdigit() and int(number) in self.ports for number in numbers
        )


def _others(said: Doc, harmless: Mapping[str, Harmless]) -> list[str]:
    """Keys that are not known to be harmless, or have a value that is not."""
    return [f"{key}: {value!r}" for key, value in said.items() if not harmless.get(key, _is_none)(value)]


def _is_any(_value: Any) -> bool:
    return True


def _is_none(_value: Any) -> bool:
    return False


def _is_tmpfs(options: str) -> bool:
    return _all_match(TMPFS, filter(None, options.split(",")))


def _all_match(pattern: re.Pattern[str], texts: Iterable[str]) -> bool:
    return all(map(pattern.fullmatch, texts))


def _is_log(said: Doc) -> bool:
    settings = said.get("Config", {})
    run = [value for value in settings.values() if re.search(r"\{\{(?! ?\.[a-zA-Z]+ ?\}\})|\{\d|\{\{[^}]*\{\{", value)]
    kind = said.get("Type", "") in ("", "json-file", "local", "none")
    return kind and set(settings) <= LOG_OPTIONS and not run
