"""What an attempt is after: a file of the host, somebody else's container, volume, network and image. And the oracle.

The oracle asks the raw Engine and looks at the host, never at the socket under test. An escape is anything that a scope
with no grant but an image must not get: a secret in an answer, a change of what is not its own, a container with power.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dom0.names import ROOT
from dom0.testing import api, busybox
from dom0.testing.api import EngineRefused
from dom0.testing.escape.raw import Answer

MOUNTED = "canary-by-mount"  # what a process says that could mount
VICTIM, TREASURE, PRIVATE, FOREIGN_IMAGE = "victim", "treasure", "private", "private/secret:1"
DIRECTORY = "/var/lib/escape"  # on the host
SHARED = "shared"  # a network that the scope may join
SUBNETS = tuple(ip_network(text) for text in ("10.213.0.0/16", "172.16.0.0/12", "192.168.0.0/16"))  # and the Engine's
GRANTED, READABLE, MAPPED = "/var/lib/granted", "/var/lib/readable", "/var/lib/mapped"  # directories of the host
GIVEN = "/var/lib/given"  # to the orchestrator alone
GRANTS = f"""
images: {{use: [busybox], pull: ["pulled/*"], build: true, own: 10}}
paths: ["{GRANTED}", "{READABLE}:ro", "{MAPPED}:/var/lib/dom0"]
join: [shared]
subnets: [10.213.0.0/16]
devices: ["/dev/full:r"]
"""
"""Of the scope under test: what is granted must not lead to more."""
MOST_VOLUMES = 100
LABELLED = "busybox:labelled"  # an image that may be used, whose labels others act on
LABELS = {"traefik.enable": "true", "com.docker.compose.project": "shop", "dom0.role": "service"}
CONTROL = ("traefik.", "com.docker.compose.", "com.centurylinklabs.", "dom0.")
OWN_LABELS = ("dom0.scope", "dom0.orchestrator", "dom0.paths")  # of scopes
LONGEST_LABELS = 100_000  # bytes of JSON
OWN_MODES = ("", "none", "private", "shareable", "default", "bridge")
SYSCTLS = re.compile(r"net\.|kernel\.(shm|msg|sem)|fs\.mqueue\.")
CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("memory", "cpu", "pids")  # of version 1
LIMITS = ("memory.max", "cpu.max", "pids.max", "memory.limit_in_bytes", "cpu.cfs_quota_us")
ANONYMOUS = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def loopback(popen: Callable[..., subprocess.Popen[bytes]]) -> Iterator[str]:
    """The host's canary by HTTP at an address that only the host reaches: its URL. `popen` starts a process there."""
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", DIRECTORY, "0"]
    with popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split()[5].decode()
            yield f"http://127.0.0.1:{port}/canary"
        finally:
            server.kill()


class World:
    """`engine` is the raw socket, `host` finds a file of the host, at `loopback` is one too. `prefix`: of the scope's
    names, where it has one; `socket`: the one under test, which its containers may have; `group`: the control group
    that they are in.
    """

    def __init__(
        self,
        engine: Path,
        host: Path,
        *,
        image: str,
        loopback: str,
        prefix: str = "",
        socket: str = "",
        group: str = "",
    ) -> None:
        self.engine = engine
        self.image = image
        self.loopback = loopback
        self.prefix = prefix
        self._own_images = f"dom0.invalid/{prefix.rstrip('.')}/" if prefix else ""
        self.socket = socket
        self.group = group
        self.canaries = {kind: f"canary-{secrets.token_hex(12)}" for kind in ("file", "env", "volume", "label")}
        self.canaries["mount"] = MOUNTED
        self.directory = Path(DIRECTORY)  # on the host
        self.outside = host / str(self.directory).lstrip("/")
        self.granted, self.readable, self.mapped = (host / path[1:] for path in (GRANTED, READABLE, MAPPED))
        self.victim: dict[str, Any] = {}
        self._before: dict[str, set[str]] = {}
        self._since = ""
        self._lay_out()

    @property
    def victim_id(self) -> str:
        return str(self.victim["Id"])

    @property
    def foreign_image_id(self) -> str:
        return str(self._get(f"/images/{FOREIGN_IMAGE}/json")["Id"])

    @property
    def foreign_layers(self) -> list[str]:
        return list(self._get(f"/images/{FOREIGN_IMAGE}/json")["RootFS"]["Layers"])

    def _lay_out(self) -> None:
        self.outside.mkdir(parents=True, exist_ok=True)
        (self.outside / "canary").write_text(self.canaries["file"])
        self._lay_out_granted()
        api.import_image(self.engine, busybox.IMAGE, busybox.layer())
        api.request(
            self.engine, "POST", "/volumes/create", {"Name": TREASURE, "Labels": {"secret": self.canaries["label"]}}
        )
        for name in (PRIVATE, SHARED):
            labelled = {"Name": name, "Labels": {"secret": self.canaries["label"]}}
            api.request(self.engine, "POST", "/networks/create", labelled)
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            content = self.canaries["file"].encode()
            entry = tarfile.TarInfo("secret")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        api.import_image(self.engine, FOREIGN_IMAGE, layer.getvalue())
        body = {
            "Image": self.image,
            "Cmd": ["sh", "-c", f"echo {self.canaries['volume']} >/t/gold; exec sleep 100000"],
            "Env": [f"SECRET={self.canaries['env']}"],
            "Labels": {"secret": self.canaries["label"]},
            "HostConfig": {"Binds": [f"{TREASURE}:/t"], "NetworkMode": PRIVATE},
        }
        made = api.request(self.engine, "POST", "/containers/create", body, query={"name": VICTIM})
        api.request(self.engine, "POST", f"/networks/{SHARED}/connect", {"Container": made["Id"]})
        api.request(self.engine, "POST", f"/containers/{made['Id']}/start")
        self.victim = self._get(f"/containers/{VICTIM}/json")
        self._lay_out_labelled()
        if self.prefix:
            self._lay_out_orchestrator()
        self._before = self._everything()
        self._since = _now()

    def _lay_out_labelled(self) -> None:
        asked = {"Image": self.image, "Cmd": ["true"], "Labels": LABELS}
        made = api.request(self.engine, "POST", "/containers/create", asked)
        repository, tag = LABELLED.split(":")
        api.request(self.engine, "POST", "/commit", query={"container": made["Id"], "repo": repository, "tag": tag})
        api.request(self.engine, "DELETE", f"/containers/{made['Id']}")

    def _lay_out_orchestrator(self) -> None:
        """A service that was given the scope's socket, and more of the host than the scope was granted."""
        asked = {
            "Image": self.image,
            "Cmd": ["sleep", "100000"],
            "Labels": {"dom0.scope": f"/{self.prefix.rstrip('.')}", "dom0.orchestrator": "{}"},
            "HostConfig": {"NetworkMode": "host", "IpcMode": "shareable", "Binds": [f"{GIVEN}:/given"]},
        }
        made = api.request(self.engine, "POST", "/containers/create", asked, query={"name": self._orchestrator})
        api.request(self.engine, "POST", f"/containers/{made['Id']}/start")

    @property
    def _orchestrator(self) -> str:
        """Its name."""
        return f"{self.prefix}{ROOT}"

    def _lay_out_granted(self) -> None:
        for directory in (self.granted, self.readable, self.mapped):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        (self.readable / "book").write_text("read me")

    def _get(self, target: str) -> Any:
        return api.request(self.engine, "GET", target)

    def _everything(self) -> dict[str, set[str]]:
        images = self._get("/images/json")
        return {
            "containers": {
                row["Id"] for row in api.request(self.engine, "GET", "/containers/json", query={"all": "1"})
            },
            "networks": {row["Id"] for row in self._get("/networks")},
            "volumes": {row["Name"] for row in self._get("/volumes")["Volumes"] or ()},
            "images": {f"{name}={row['Id']}" for row in images for name in row["RepoTags"] or ["<none>"]},
            "control groups": self._groups(),
        }

    def _groups(self) -> set[str]:
        """Those beside the scope's that are no container's, and the limits of these and its own."""
        hierarchies = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else [CGROUPS / key for key in HIERARCHIES]
        found = set()
        for outer in (one / self.group[1:].rpartition("/")[0] for one in hierarchies if self.group):
            for place in (
                outer,
                *(one for one in outer.iterdir() if one.is_dir() and not ANONYMOUS.fullmatch(one.name)),
            ):
                limits = [place / name for name in LIMITS if (place / name).exists()]
                found |= {f"{place}"} | {f"{limit}={limit.read_text().strip()}" for limit in limits}
        return found

    # the oracle

    def escapes(self, answers: Iterable[Answer]) -> list[str]:
        """What was got that is not the scope's, in words."""
        now = self._everything()
        found = [f"an answer holds the {kind} canary" for kind in self._told(answers)]
        found += self._damage(now)
        found += self._labels_of_all()
        for container_id in now["containers"] - self._before["containers"]:
            found += self._powers(self._get(f"/containers/{container_id}/json"), now)
        for network_id in now["networks"] - self._before["networks"]:
            found += self._network(self._get(f"/networks/{network_id}"))
        if len(now["volumes"] - self._before["volumes"]) > MOST_VOLUMES:
            found.append(f"more than {MOST_VOLUMES} volumes")
        for name in now["volumes"] - self._before["volumes"]:
            found += self._volume(self._get(f"/volumes/{quote(name, safe='')}"))
        return found

    def clean(self) -> None:
        """Remove what the last attempt made."""
        now = self._everything()
        made = {kind: now[kind] - self._before[kind] for kind in now}
        for container_id in made["containers"]:
            self._drop(f"/containers/{container_id}", force="1", v="1")
        for network_id in made["networks"]:
            self._drop(f"/networks/{network_id}")
        for name in made["volumes"]:
            self._drop(f"/volumes/{quote(name, safe='')}")
        for tag in made["images"]:
            name, _, image_id = tag.partition("=")
            self._drop(f"/images/{image_id if name == '<none>' else name}", force="1")
        self._lay_out_granted()
        self._since = _now()
        if self._damage(self._everything() if any(made.values()) else now):
            self._lay_out_anew()

    def _lay_out_anew(self) -> None:
        """So that the next attempt is not told from the damage of this one."""
        self._drop(f"/containers/{self.victim_id}", force="1")
        if self.prefix:
            self._drop(f"/containers/{self._orchestrator}", force="1")
        for name in (PRIVATE, SHARED):
            self._drop(f"/networks/{name}")
        self._drop(f"/volumes/{TREASURE}", force="1")
        for path in self.outside.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._lay_out()

    def _drop(self, target: str, **query: str) -> None:
        with contextlib.suppress(EngineRefused):
            api.request(self.engine, "DELETE", target, query=query)

    def _told(self, answers: Iterable[Answer]) -> list[str]:
        content = b"\n".join(answer.content for answer in answers)
        return [kind for kind, secret in self.canaries.items() if secret.encode() in content]

    def _damage(self, now: dict[str, set[str]]) -> list[str]:
        found = []
        victim = self._victim_now()
        before = _projection(self.victim)
        found += [
            f"the foreign container's {key} was {before[key]}, and is {value}"
            for key, value in victim.items()
            if value != before[key]
        ]
        with contextlib.suppress(EngineRefused):  # it is gone, which is said above
            if self._get(f"/containers/{self.victim_id[:12]}/json")["Id"] != self.victim_id:
                found.append("the foreign container's short ID means another one")
        for kind in ("containers", "networks", "volumes", "images"):
            if lost := self._before[kind] - now[kind]:
                found.append(f"foreign {kind} are gone: {sorted(lost)}")
        if new := {name for name in now["images"] - self._before["images"] if not self._is_own_image(name)}:
            found.append(f"names of images are new: {sorted(new)}")
        if changed := now["control groups"] ^ self._before["control groups"]:
            found.append(f"control groups have changed: {sorted(changed)}")
        if (self.outside / "canary").read_text() != self.canaries["file"]:
            found.append("the host's file was written")
        if made := {path.name for path in self.outside.iterdir()} - {"canary"}:
            found.append(f"the host has new files: {sorted(made)}")
        if [path.name for path in self.readable.iterdir()] != ["book"] or (self.readable / "book").stat().st_size != 7:
            found.append("what may be read was written")
        return found

    def _labels_of_all(self) -> list[str]:
        """Of every container that was made, if only for a step of a build: events of the raw Engine have them."""
        query = {"since": self._since, "until": _now(), "filters": '{"type":["container"],"event":["create"]}'}
        found = []
        told = api.request(self.engine, "GET", "/events", query=query)  # a document, or several as text
        for line in map(json.loads, told.splitlines()) if isinstance(told, str) else [told]:
            attributes = line["Actor"]["Attributes"]
            name, image = attributes.pop("name"), attributes.pop("image", "")
            if acted_on := self._acted_on(attributes, of_image=self._labels_of(image)):
                found.append(f"container {name} has the labels {acted_on}")
        return found

    def _labels_of(self, image: str) -> Mapping[str, str]:
        try:
            return (self._get(f"/images/{quote(image)}/json")["Config"] or {}).get("Labels") or {}
        except EngineRefused:  # it is gone
            return LABELS

    def _acted_on(self, labels: Mapping[str, str] | None, *, of_image: Mapping[str, str] = {}) -> list[str]:
        """Keys that may mean something to others. What an image says may be there, and say nothing."""
        found = []
        for key, value in (labels or {}).items():
            if self.prefix:
                is_own = key in OWN_LABELS or key.startswith(f"{self.prefix.rstrip('.')}/")
                is_harmless = is_own or (key in of_image and not value)
            else:
                is_harmless = not key.strip(" /").casefold().startswith(CONTROL)
            found += [] if is_harmless else [key]
        return found

    def _is_own_image(self, name: str) -> bool:
        """Or, where the scope names images, what has lost a name."""
        return bool(self.prefix) and name.startswith((self._own_images, "<none>"))

    def _victim_now(self) -> dict[str, Any]:
        try:
            return _projection(self._get(f"/containers/{self.victim_id}/json"))
        except EngineRefused:
            return {"existence": False}

    def _powers(self, found: dict[str, Any], now: dict[str, set[str]]) -> list[str]:
        host, name = found["HostConfig"], found["Name"]
        own = now["containers"] - self._before["containers"]
        powers = {
            "Privileged": host["Privileged"],
            "CapAdd": host["CapAdd"],
            "Devices": [entry for entry in host["Devices"] or () if not _may_be_read(entry)],
            "DeviceRequests": host["DeviceRequests"],
            "DeviceCgroupRules": host["DeviceCgroupRules"],
            "Binds": [bind for bind in host["Binds"] or () if not self._is_own(bind)],
            "Mounts": [mount for mount in found["Mounts"] if not self._is_harmless(mount)],
            "PidMode": _foreign(host["PidMode"], own),
            "IpcMode": _foreign(host["IpcMode"], own),
            "UTSMode": host["UTSMode"],
            "UsernsMode": host["UsernsMode"],
            "CgroupnsMode": self.prefix and host["CgroupnsMode"] == "host",  # the default on cgroup v1
            "NetworkMode": host["NetworkMode"] in ("host", PRIVATE)
            or _foreign(host["NetworkMode"], own, networks=True),
            "Networks": [
                key
                for key in found["NetworkSettings"]["Networks"]
                if key in ("host", PRIVATE) or (self.prefix and key == "bridge")
            ],
            "Names": _names_on_shared(found),
            "SecurityOpt": [opt for opt in host["SecurityOpt"] or () if not opt.startswith("no-new-privileges")],
            "MaskedPaths": not host["MaskedPaths"],
            "ReadonlyPaths": not host["ReadonlyPaths"],
            "Runtime": host["Runtime"] not in ("runc", ""),
            "LogConfig": host["LogConfig"]["Type"] not in ("json-file", "local", "none"),
            "Log's memory": (host["LogConfig"]["Config"] or {}).get("max-buffer-size"),
            "Log's work": [one for one in (host["LogConfig"]["Config"] or {}).items() if _is_work(*one)],
            "Labels' length": _is_long(found["Config"]["Labels"]),
            "Ulimits": [one["Name"] for one in host["Ulimits"] or () if one["Name"].lower() in ("nice", "rtprio")],
            "OomScoreAdj": host["OomScoreAdj"] < 0,
            "OomKillDisable": host["OomKillDisable"],
            "PortBindings": [key for key, value in (host["PortBindings"] or {}).items() if value],
            "PublishAllPorts": host["PublishAllPorts"],
            "Sysctls": [key for key in host.get("Sysctls") or () if not SYSCTLS.match(key)],
            "VolumesFrom": [
                ref for ref in host["VolumesFrom"] or () if not self._is_own_container(ref.partition(":")[0], own)
            ],
            "Links": [link for link in host["Links"] or () if VICTIM in link],
            "CgroupParent": not self._is_in_group(host["CgroupParent"]) and (host["CgroupParent"] or "the Engine's"),
            "StorageOpt": host.get("StorageOpt"),
            "Annotations": host.get("Annotations"),
            "Image": found["Image"] in {e.partition("=")[2] for e in self._before["images"] if FOREIGN_IMAGE in e},
            "Name": self.prefix and not name.startswith(f"/{self.prefix}"),
            "Label": self.prefix
            and not found["Config"]["Labels"].get("dom0.scope", "").startswith("/" + self.prefix.rstrip(".")),
        }
        return [f"{name} has {key}: {json.dumps(value)}" for key, value in powers.items() if value]

    def _is_in_group(self, parent: str) -> bool:
        """In the scope's own, or in that of a scope inside."""
        inside = rf"{re.escape(self.group)}(/[a-z]+)+"
        return parent == self.group or (bool(self.group) and re.fullmatch(inside, parent) is not None)

    def _is_own(self, bind: str) -> bool:
        source = bind.partition(":")[0]
        return source in (GRANTED, MAPPED) or (source != TREASURE and bind[0] not in "/.")

    def _is_own_container(self, reference: str, own: set[str]) -> bool:
        """By ID, or by the name that only a scope's have."""
        is_named = bool(self.prefix) and reference.startswith(self.prefix) and reference != self._orchestrator
        return reference in own or is_named

    def _is_harmless(self, mount: dict[str, Any]) -> bool:
        if mount["Type"] == "bind":
            may_write = mount["Source"] in (self.socket, GRANTED, MAPPED)
            return may_write or (mount["Source"] == READABLE and not mount["RW"])
        return mount["Type"] in ("volume", "tmpfs") and mount.get("Name") != TREASURE

    def _network(self, found: dict[str, Any]) -> list[str]:
        flaws = {
            "Driver": found["Driver"] if found["Driver"] != "bridge" else "",
            "Options": [key for key in found["Options"] or () if "bridge" in key or "gateway" in key],
            "Members": [member for member in found["Containers"] or () if member == self.victim_id],
            "Subnets": [pool["Subnet"] for pool in found["IPAM"]["Config"] or () if not _may_have(pool["Subnet"])],
            "Name": self.prefix and not found["Name"].startswith(self.prefix),
            "Labels": self._acted_on(found["Labels"]),
            "Labels' length": _is_long(found["Labels"]),
        }
        return [f"network {found['Name']} has {key}: {value}" for key, value in flaws.items() if value]

    def _volume(self, found: dict[str, Any]) -> list[str]:
        named_wrongly = (
            self.prefix and not found["Name"].startswith(self.prefix) and not ANONYMOUS.fullmatch(found["Name"])
        )
        if found["Name"].startswith(f"PATHS.{self.prefix}"):
            return (
                [] if found["Options"]["device"] in (GRANTED, READABLE, MAPPED) else [f"a volume on {found['Options']}"]
            )
        flaws = {"Options": found["Options"], "Driver": found["Driver"] != "local", "Name": named_wrongly}
        flaws["Labels"] = self._acted_on(found["Labels"])
        flaws["Labels' length"] = _is_long(found["Labels"])
        return [f"volume {found['Name']} has {key}: {value}" for key, value in flaws.items() if value]


def _now() -> str:
    return f"{time.time():.9f}"


def _is_long(labels: Mapping[str, str] | None) -> bool:
    return len(json.dumps(labels)) > LONGEST_LABELS


def _is_work(option: str, value: str) -> bool:
    """Whether an option of a log makes the Engine do more than to write: in a template, an expression, many files."""
    if option in ("max-file", "max-size"):
        return value.isdecimal() and (int(value) > 100) == (option == "max-file")
    return re.search(r"\{\{(?!\.\w+\}\})|\{\d", value) is not None


def _may_be_read(device: dict[str, str]) -> bool:
    return device["PathOnHost"] == "/dev/full" and device["CgroupPermissions"] == "r"


def _may_have(subnet: str) -> bool:
    found = ip_network(subnet)
    return any(found.version == own.version and found.subnet_of(own) for own in SUBNETS)  # type: ignore[arg-type]


def _names_on_shared(found: dict[str, Any]) -> list[str]:
    """Those that are another's to have: of its own there are the container's and the beginning of its ID."""
    names = found["NetworkSettings"]["Networks"].get(SHARED, {}).get("DNSNames") or ()
    return [name for name in names if name not in (found["Name"][1:], found["Id"][:12])]


def _foreign(mode: str, own: set[str], *, networks: bool = False) -> bool:
    if mode.startswith("container:"):
        return mode.removeprefix("container:") not in own
    return mode == "host" or (not networks and mode not in OWN_MODES)


def _projection(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "existence": True,
        "name": found["Name"],
        "start": found["State"]["StartedAt"],
        "state": found["State"]["Status"],
        "execs": found["ExecIDs"],
        "memory": found["HostConfig"]["Memory"],
        "restart policy": found["HostConfig"]["RestartPolicy"],
        "networks": sorted(found["NetworkSettings"]["Networks"]),
    }
