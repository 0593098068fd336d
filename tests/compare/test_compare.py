"""What dom0 makes of a Compose file, field by field against what `docker compose up` makes of the same file.

Every file in `cases/created` is created twice on a real Engine under the same name, first by Compose, then by us, and
`docker inspect` of both has to be equal; those in `cases/started` are started too. What may differ stands in
`DIFFERENCES`, with its reason. `cases/files` is copied beside each Compose file.

We write mounts and capabilities as Compose 2.26 does. A newer one says the same to the Engine in another form, so with
it both are brought into one form first (`one_form`).
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dom0.agent.apply import Applier
from dom0.compose import support
from dom0.compose.load import load
from dom0.compose.model import Project
from dom0.engine.docker import DockerEngine
from dom0.plan import labels
from dom0.plan.desired import Desired, Slot
from dom0.plan.expand import expand
from dom0.plan.facts import Facts, images_needed
from dom0.plan.hooks import pre_stop_of
from dom0.plan.mounts import file_uses
from dom0.plan.steps import CreateContainer, CreateNetwork, CreateVolume, RunPostStart, StartContainer, StopContainer
from dom0.testing import api
from dom0.testing.hosts import Host

NAME = "cmp"
CASES = Path(__file__).parent / "cases"
ENVIRONMENT = {"FROM_ENVIRONMENT": "it came\nfrom outside\n"}

# Where the two may differ: a regular expression on the field's path, and why. A path reads
# `containers.NAME.HostConfig.Binds[0]`. `@` at the end: the values may differ, but both sides must have one.
DIFFERENCES: tuple[tuple[str, str], ...] = (
    (r"(containers|networks|volumes)\..*\.(Created|CreatedAt)", "another moment"),
    (r"containers\..*\.State\.(StartedAt|FinishedAt|Pid|Health\..*)", "another moment, another process"),
    (r"containers\..*\.(ResolvConfPath|HostnamePath|HostsPath|LogPath)", "paths below the container's own ID"),
    (r"containers\..*\.GraphDriver\.Data\..*", "layers are named by random IDs"),
    (r"containers\..*\.NetworkSettings\.(SandboxID|SandboxKey)", "random IDs"),
    (r"containers\..*\.NetworkSettings\.(EndpointID|MacAddress|IPAddress)", "of the moment's default bridge endpoint"),
    (r"containers\..*\.Networks\..*\.(NetworkID|EndpointID)", "random IDs"),
    (r"networks\..*\.(Id|EndpointID)", "random IDs"),
    (r"containers\..*\.Config\.Image", "we create from the pinned image ID, Compose from the name"),
    (r"containers\..*\.Labels\.dom0\..*", "our own labels"),
    (r"(networks|volumes)\..*\.Labels\.dom0\..*", "our own labels"),
    (r"networks\.(?!.*fixed).*\.IPAM\.Config\[0\]\.(Gateway|Subnet)", "the Engine chooses, where the case fixes none"),
    (
        r"containers\..*\.Networks\..*\.(IPAddress|IPv6Gateway)",
        "Compose repeats the asked addresses in fields that are the Engine's to fill in (one of them the wrong one)",
    ),
    (r"containers\..*\.NetworkSettings\.Ports\..*\.HostPort", "the Engine chooses from the published range"),
    (
        r"containers\..*\.Labels\.com\.docker\.compose\.config-hash",
        "Compose says something else in `config --hash` than `up` writes: it resolves again what was resolved (unset "
        "variables, env_file), and hashes container IDs of parents; its commands look for the label, not its value",
    ),
    (
        r"(networks|volumes)\..*\.Labels\.com\.docker\.compose\.config-hash",
        "newer ones write a hash there too, and leave alone what has none",
    ),
    (
        r"containers\.cmp-user-1\.(HostConfig\.NetworkMode|NetworkSettings\.Networks\.(cmp-lan|[0-9a-f]{64})\..*)",
        "Compose attaches to an external network by its ID, we by its name: an ID would be another one tomorrow",
    ),
    (
        r"containers\.cmp-long-plain-1\.HostConfig\.Mounts\[\d\]\.BindOptions(\.CreateMountpoint)?",
        "Compose 2.40 makes a directory that is not there also where the long form does not ask for it, 2.26 does not",
    ),
    # cases/created/better.yaml: what Compose 2.26 accepts and forgets; later ones do as we do
    (r"containers\.cmp-volumes-from-1\..*(VolumesFrom|Mounts).*", "the `:ro` of volumes_from"),
    (r"containers\.cmp-recursive-1\..*(Binds|Mounts).*", "`recursive`, which the old form of binds has no word for"),
    (r"containers\.cmp-driver-options-1\..*DriverOpts.*", "`driver_opts` of an endpoint"),
    (r"containers\.cmp-gpus-1\..*\.DeviceRequests.*", "`gpus`"),
    (r"containers\.cmp-gpu-options-1\..*\.DeviceRequests.*\.Options.*", "`options` of a device"),
    (r"containers\.cmp-bound-subpath-1\..*(Binds|Mounts).*", "`subpath` where the volume is a directory of the host"),
)


def cases(directory: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted((CASES / directory).glob("*.yaml"))]


@pytest.mark.parametrize("case", cases("created"))
async def test_what_is_created_equals_what_compose_creates(case: Path, engine_host: Host, tmp_path: Path) -> None:
    await compare(case, engine_host, tmp_path, start=False)


@pytest.mark.parametrize("case", cases("started"))
async def test_what_is_started_equals_what_compose_starts(case: Path, engine_host: Host, tmp_path: Path) -> None:
    await compare(case, engine_host, tmp_path, start=True)


RUNS_HOOKS = (2, 30)  # the first Compose that does; older ones accept and forget them
TELL = "{ echo $$0; pwd; id -u; env | grep -v -e SHLVL -e HOSTNAME | sort; grep CapEff /proc/self/status; } >>/kept/log"
HOOKS = f"""
name: {NAME}
services:
  web:
    image: busybox:test
    command: [sleep, "100000"]
    init: true
    user: "33"
    working_dir: /usr
    environment: {{A: one, B: two, C: three}}
    volumes: ["./kept:/kept"]
    post_start:
      - command: [sh, -c, "{TELL}", plain]
      - command: [sh, -c, "{TELL}", told]
        user: "0"
        privileged: true
        working_dir: /tmp
        environment: [A=other, B, D=four]
    pre_stop:
      - command: [sh, -c, "{TELL}", before]
        environment: {{A: last, C: }}
"""


async def test_hooks_find_in_the_container_what_they_find_there_with_compose(engine_host: Host, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(HOOKS)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o777)
    log = tmp_path / "kept" / "log"
    project = await load(tmp_path, tmp_path)
    compose(engine_host, tmp_path, "up", "--detach")
    compose(engine_host, tmp_path, "down", "--timeout", "1")
    theirs = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    await create(engine_host, project, start=True)
    await run_hooks(engine_host, project)
    ours = log.read_text()
    assert re.findall("^(?:plain|told|before)$", ours, re.MULTILINE) == ["plain", "told", "before"]
    assert theirs == (ours if compose_version(project) >= RUNS_HOOKS else "")


async def run_hooks(host: Host, project: Project) -> None:
    engine = await DockerEngine.connect(host.docker_host)
    try:
        applier = Applier(engine, mint=lambda: "mark", generation=1, all_endpoints=True)
        (slot,) = (await expanded(engine, project)).slots
        found = await engine.container(slot.name)
        await applier.apply(
            RunPostStart(lock="", reason="", slot=slot, container_id=found.id, started=found.started),
        )
        await applier.apply(
            StopContainer(lock="", reason="", container_id=found.id, name=found.name, pre_stop=pre_stop_of(found))
        )
    finally:
        await engine.close()


async def expanded(engine: DockerEngine, project: Project) -> Desired:
    images = {need.ref: await engine.image(need.ref) for need in images_needed(project)}
    return expand(project, Facts(images=images))


async def compare(case: Path, host: Host, directory: Path, *, start: bool) -> None:
    shutil.copytree(CASES / "files", directory, dirs_exist_ok=True)
    shutil.copy(case, directory / "compose.yaml")
    project = await load(directory, directory, env=ENVIRONMENT)
    outside(host, project)
    compose(host, directory, "up", "--detach", *(() if start else ("--no-start",)), "--quiet-pull")
    theirs = inspect(host, project, case)
    compose(host, directory, "down", "--volumes", "--timeout", "0")
    await create(host, project, start=start)
    ours = inspect(host, project, case)
    assert theirs["containers"], "the case compares nothing"
    found = differences(theirs, ours)
    assert not found, "\n".join(found)


def outside(host: Host, project: Project) -> None:
    """What the file calls external has to be there."""
    for network in project.networks.values():
        if network.external:
            host.docker("network", "create", network.name)
    for volume in project.volumes.values():
        if volume.external:
            host.docker("volume", "create", volume.name)


def compose(host: Host, directory: Path, *arguments: str) -> str:
    argv = ["docker", "compose", "--project-directory", str(directory), *arguments]
    return host.run(argv, cwd=directory, env=ENVIRONMENT).stdout


async def create(host: Host, project: Project, *, start: bool) -> None:
    engine = await DockerEngine.connect(host.docker_host)
    try:
        desired = await expanded(engine, project)
        applier = Applier(engine, mint=lambda: "mark", generation=1, all_endpoints=True)
        for network in desired.networks:
            await applier.apply(CreateNetwork(lock="", reason="", spec=network))
        for volume in desired.volumes:
            await applier.apply(CreateVolume(lock="", reason="", spec=volume))
        for slot in parents_first(desired.slots):
            parents = {name: (await engine.container(f"{NAME}-{name}-1")).id for name in slot.parents}
            step = CreateContainer(lock="", reason="", slot=slot, name=slot.name, parents=parents)
            (container_id,) = await applier.apply(step)
            if start:
                await applier.apply(StartContainer(lock="", reason="", slot=slot, container_id=container_id))
            container = await engine.container(container_id)
            assert container.ports == slot.ports, slot.key
            assert container.resources.items() <= slot.resources.items(), slot.key  # the kernel may lack one
    finally:
        await engine.close()


def parents_first(slots: tuple[Slot, ...]) -> list[Slot]:
    """Those that share nothing of another one first; the cases have no longer chains."""
    return sorted(slots, key=lambda slot: bool(slot.parents))


def inspect(host: Host, project: Project, case: Path) -> dict[str, Any]:
    """Everything of the project that the Engine knows, with names instead of IDs and of MAC addresses by chance."""
    wanted = {"filters": f'{{"label": ["{labels.COMPOSE_PROJECT}={NAME}"]}}'}
    rows = api.request(host.socket, "GET", "/containers/json", query={"all": "1"} | wanted)
    containers = [api.request(host.socket, "GET", f"/containers/{row['Id']}/json") for row in rows]
    networks = [
        api.request(host.socket, "GET", f"/networks/{row['Id']}")
        for row in api.request(host.socket, "GET", "/networks", query=wanted)
    ]
    volumes = api.request(host.socket, "GET", "/volumes", query=wanted)["Volumes"] or []
    if compose_version(project) > (2, 26):
        containers = [one_form(container) for container in containers]
    names = [container["Name"].lstrip("/") for container in containers]
    found = {
        "containers": {container["Name"].lstrip("/"): container for container in containers},
        "networks": {network["Name"]: network for network in networks},
        "volumes": {volume["Name"]: volume for volume in volumes},
        "files": {name: inline_files(host, project, name) for name in names},
    }
    replaced = {container["Id"]: f"<{name}>" for name, container in found["containers"].items()}
    replaced |= {container_id[:12]: name for container_id, name in replaced.items()}
    macs = set(MAC.findall(str(found))) - set(MAC.findall(case.read_text()))
    answer: dict[str, Any] = normalised(found, replaced | dict.fromkeys(macs, "<chosen>"))
    return answer


MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


def compose_version(project: Project) -> tuple[int, ...]:
    major, minor = project.compose_version.split(".")[:2]
    return int(major), int(minor)


def one_form(container: dict[str, Any]) -> dict[str, Any]:
    """Every bind as a mount, capabilities by their short names; without what only tells which form it was."""
    host = container["HostConfig"]
    mounts = [bind_as_mount(bind) for bind in host["Binds"] or ()] + [
        without_empty(m) for m in host.get("Mounts") or ()
    ]
    capabilities = {
        key: [name.removeprefix("CAP_") for name in host[key]] if host[key] else host[key]
        for key in ("CapAdd", "CapDrop")
    }
    told = [{key: value for key, value in mount.items() if key != "Mode"} for mount in container["Mounts"]]
    return container | {"HostConfig": host | capabilities | {"Binds": None, "Mounts": mounts}, "Mounts": told}


def bind_as_mount(bind: str) -> dict[str, Any]:
    source, target, options = bind.split(":")
    words = {*options.split(",")} - {"rw"}
    mount: dict[str, Any] = {
        "Source": source,
        "Target": target,
        "ReadOnly": "ro" in words,
        "SELinux": "".join(words & {"z", "Z"}),
    }
    if source.startswith("/"):
        propagation = next((word for word in words if word.endswith(("private", "shared", "slave"))), "")
        mount |= {"Type": "bind", "BindOptions": {"Propagation": propagation, "CreateMountpoint": True}}
    else:
        mount |= {"Type": "volume", "VolumeOptions": {"NoCopy": "nocopy" in words}}
    return without_empty(mount)


def without_empty(mount: dict[str, Any]) -> dict[str, Any]:
    """And without `consistency`, which says nothing on Linux."""
    inner = {key: without_empty(value) if isinstance(value, dict) else value for key, value in mount.items()}
    return {key: value for key, value in inner.items() if value and key != "Consistency"}


def inline_files(host: Host, project: Project, container: str) -> dict[str, Any]:
    """What was written into the container: target -> content, mode and owner."""
    service = container.removeprefix(f"{NAME}-").rpartition("-")[0]
    uses = file_uses(project, service) if service in project.services else ()
    found = {}
    for use in uses:
        if use.inline:
            copied = host.docker("cp", f"{container}:{use.target}", "-").stdout.encode()
            with tarfile.open(fileobj=io.BytesIO(copied)) as tar:
                (entry,) = tar.getmembers()
                content = tar.extractfile(entry)
                assert content is not None
                found[use.target] = [entry.name, entry.mode, entry.uid, entry.gid, content.read()]
    return found


# Compose keeps these in Go's maps, so that it sends them in another order every time.
UNORDERED = {"Env", "ExtraHosts", "Ulimits", "Mounts", "Binds", "GroupAdd"}


def normalised(value: Any, replaced: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {normalised(k, replaced): normalised(v, replaced, k) for k, v in value.items()}
    if isinstance(value, list):
        items = [normalised(item, replaced) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if key in UNORDERED else items
    if isinstance(value, str):
        for text, name in replaced.items():
            value = value.replace(text, name)
        if key == labels.COMPOSE_DEPENDS_ON:
            value = ",".join(sorted(value.split(",")))
        return re.sub(r"\b[0-9a-f]{64}\b", "<anonymous>", value) if key in ("Name", "Source") else value
    return value


def differences(theirs: Any, ours: Any) -> list[str]:
    left, right = dict(flat(theirs)), dict(flat(ours))
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern, _ in DIFFERENCES))
    return [
        f"{path}: compose {left.get(path, MISSING)!r}, we {right.get(path, MISSING)!r}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path, MISSING) != right.get(path, MISSING) and not allowed.fullmatch(path)
    ]


MISSING = "nothing"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from flat(item, f"{path}[{number}]")
    else:
        yield path, value


# Honoured keys that no case can have.
NOT_COMPARED = {
    "networks.*.enable_ipv4": "Compose knows it from 2.33 on",
    "services.*.networks.*.gw_priority": "Compose knows it from 2.33 on",
    "services.*.cpu_rt_period": "needs a kernel with real-time groups, which Debian's is not",
    "services.*.cpu_rt_runtime": "the same",
    "services.*.storage_opt": "needs a storage driver with quotas, the Engine refuses it elsewhere",
    "services.*.x-dom0": "Compose does not know it",
}


def test_every_honoured_key_is_compared() -> None:
    documents = [yaml.safe_load(path.read_text()) for path in CASES.rglob("*.yaml")]
    rows = [row for row in support.TABLE if row.level is support.SupportLevel.HONOURED and row.path[1:2] == ("*",)]
    missing = {row.key for row in rows if not any(says(document, row.path) for document in documents)}
    assert missing == set(NOT_COMPARED)


def says(document: Any, path: tuple[str, ...]) -> bool:
    """Whether the document has the key; `*` stands for any."""
    if not path:
        return True
    if not isinstance(document, dict):
        return False
    return any(says(value, path[1:]) for key, value in document.items() if path[0] in ("*", key))
