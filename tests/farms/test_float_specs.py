"""What a project becomes in Swarm mode, and which keys of it Swarm cannot do."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.compose.load import load
from dom0.compose.model import Project
from dom0.engine.bodies import Body
from dom0.engine.swarm_bodies import ServiceBody
from dom0.errors import ProjectError
from dom0.farms.float_content import FloatProject, image_label, image_name
from dom0.farms.float_specs import find_declared_volumes, find_flaws, make
from dom0.registry.manifest import digest_of

IMAGE = image_name(f"sha256:{'a' * 64}")
KEY = b"of this farm"
WEB = """
name: blog
services:
  web:
    image: web
"""


def read(tmp_path: Path, compose: str) -> Project:
    (tmp_path / "compose.yaml").write_text(textwrap.dedent(compose))
    return asyncio.run(load(tmp_path, tmp_path, hashed=False, on_one_host=False))


def made(tmp_path: Path, compose: str, contents: dict[tuple[str, str], bytes] | None = None) -> FloatProject:
    project, _ = make(read(tmp_path, compose), {"web": IMAGE}, contents or {}, KEY)
    return project


def as_sent(body: Body) -> Any:
    return msgspec.json.decode(msgspec.json.encode(body))


def service(tmp_path: Path, keys: str) -> ServiceBody:
    (found,) = made(tmp_path, WEB + textwrap.indent(textwrap.dedent(keys), "    ")).services
    return found


def test_a_service_runs_only_where_its_image_is_and_moves_at_once(tmp_path: Path) -> None:
    body = as_sent(service(tmp_path, ""))
    assert body["Name"] == "blog_web"
    assert body["Labels"] == {"com.docker.stack.namespace": "blog"}
    assert body["Mode"] == {"Replicated": {"Replicas": 1}}
    task = body["TaskTemplate"]
    assert task["ContainerSpec"]["Image"] == IMAGE
    assert task["Placement"]["Constraints"] == [f"node.labels.{image_label(IMAGE)}==here"]
    assert task["RestartPolicy"] == {"Condition": "any", "Delay": 0}
    assert task["Networks"] == [{"Target": "blog_default", "Aliases": ["web"]}]
    assert body["UpdateConfig"] == {"Parallelism": 1, "FailureAction": "rollback", "MaxFailureRatio": 0}


def test_what_compose_says_of_a_service_is_what_swarm_is_told(tmp_path: Path) -> None:
    body = as_sent(
        service(
            tmp_path,
            """
            command: [serve, "8080"]
            entrypoint: [run]
            environment: {A: b}
            user: "7"
            working_dir: /srv
            init: false
            read_only: true
            group_add: ["9"]
            cap_add: [NET_ADMIN]
            sysctls: {net.core.somaxconn: "9"}
            ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}
            extra_hosts: [there:10.0.0.1]
            dns: [10.0.0.53]
            restart: on-failure:3
            stop_grace_period: 90s
            stop_signal: SIGINT
            labels: {of: container, dom0.farm: forged}
            healthcheck: {test: [CMD, ok], interval: 2s}
            logging: {driver: json-file, options: {max-size: 1m}}
            ports: [{target: 80, published: "8080", mode: host}, "9090:90/udp"]
            tmpfs: [/run]
            volumes: [{type: tmpfs, target: /t, tmpfs: {size: 4096}}]
            deploy:
              replicas: 3
              endpoint_mode: dnsrr
              labels: {of: service}
              placement: {constraints: [node.labels.dom0.role == web], preferences: [{spread: node.labels.rack}]}
              update_config: {parallelism: 2, order: start-first, failure_action: pause}
              resources: {limits: {cpus: "0.5", memory: 64m}, reservations: {memory: 32m}}
            """,
        )
    )
    container = body["TaskTemplate"]["ContainerSpec"]
    assert (container["Command"], container["Args"]) == (["run"], ["serve", "8080"])
    assert container["Env"] == ["A=b"]
    assert (container["User"], container["Dir"], container["Groups"]) == ("7", "/srv", ["9"])
    assert (container["Init"], container["ReadOnly"]) == (False, True)
    assert container["CapabilityAdd"] == ["NET_ADMIN"] or container["CapabilityAdd"] == ["CAP_NET_ADMIN"]
    assert container["Sysctls"] == {"net.core.somaxconn": "9"}
    assert {one["Name"]: (one["Soft"], one["Hard"]) for one in container["Ulimits"]} == {
        "nofile": (1, 2),
        "nproc": (3, 3),
    }
    assert container["Hosts"] == ["10.0.0.1 there"]
    assert container["DNSConfig"] == {"Nameservers": ["10.0.0.53"]}
    assert (container["StopGracePeriod"], container["StopSignal"]) == (90 * 10**9, "SIGINT")
    assert container["Labels"] == {"of": "container", "com.docker.stack.namespace": "blog"}
    assert container["Healthcheck"] == {"Test": ["CMD", "ok"], "Interval": 2 * 10**9}
    assert container["Mounts"] == [
        {"Type": "tmpfs", "Target": "/run"},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096}},
    ]
    task = body["TaskTemplate"]
    assert task["RestartPolicy"] == {"Condition": "on-failure", "Delay": 0, "MaxAttempts": 3}
    assert task["LogDriver"] == {"Name": "json-file", "Options": {"max-size": "1m"}}
    assert task["Resources"]["Limits"] == {"NanoCPUs": 5 * 10**8, "MemoryBytes": 64 << 20}
    assert task["Resources"]["Reservations"] == {"MemoryBytes": 32 << 20}
    assert task["Placement"]["Constraints"][0] == "node.labels.dom0.role == web"
    assert task["Placement"]["Preferences"] == [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}]
    assert body["Labels"] == {"of": "service", "com.docker.stack.namespace": "blog"}
    assert body["Mode"] == {"Replicated": {"Replicas": 3}}
    assert body["UpdateConfig"] == {
        "Parallelism": 2,
        "FailureAction": "pause",
        "MaxFailureRatio": 0,
        "Order": "start-first",
    }
    assert body["EndpointSpec"] == {
        "Mode": "dnsrr",
        "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"},
            {"Protocol": "udp", "TargetPort": 90, "PublishedPort": 9090, "PublishMode": "ingress"},
        ],
    }


def test_configs_and_secrets_are_named_by_what_is_in_them_and_by_nothing_that_others_can_try(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("open sesame")
    compose = """
        name: blog
        services:
          web: {image: web, secrets: [{source: word, mode: 0o400}], configs: [page]}
        secrets: {word: {file: ./word}, unused: {file: ./word}}
        configs: {page: {content: hello}}
        """
    contents = {("secrets", "word"): b"open sesame", ("configs", "page"): b"hello"}
    project = made(tmp_path, compose, contents)
    word, page = sorted(project.files, reverse=True)
    assert {name: (file.kind, file.digest) for name, file in project.files.items()} == {
        word: ("secret", digest_of(b"open sesame")),
        page: ("config", digest_of(b"hello")),
    }
    assert re.fullmatch("blog_word-[0-9a-f]{16}", word)
    assert re.fullmatch("blog_page-[0-9a-f]{16}", page)
    assert word[-16:] not in digest_of(b"open sesame")
    assert made(tmp_path, compose, contents).files == project.files
    assert word not in made(tmp_path, compose, {**contents, ("secrets", "word"): b"another"}).files
    assert word not in make(read(tmp_path, compose), {"web": IMAGE}, contents, b"of another farm")[0].files
    container = as_sent(project.services[0])["TaskTemplate"]["ContainerSpec"]
    assert container["Secrets"] == [
        {
            "File": {"Name": "/run/secrets/word", "UID": "0", "GID": "0", "Mode": 0o400},
            "SecretName": word,
        }
    ]
    assert container["Configs"] == [
        {"File": {"Name": "/page", "UID": "0", "GID": "0", "Mode": 0o444}, "ConfigName": page}
    ]


def test_a_file_that_swarm_does_not_take_is_refused(tmp_path: Path) -> None:
    project = read(tmp_path, WEB + "    secrets: [word]\nsecrets: {word: {file: ./compose.yaml}}\n")
    with pytest.raises(ProjectError, match=r"compose.yaml:\d+: secrets.word: Swarm takes 1 to 512000 bytes"):
        make(project, {"web": IMAGE}, {("secrets", "word"): bytes(512001)}, KEY)
    with pytest.raises(ProjectError, match="it has 0"):
        make(project, {"web": IMAGE}, {("secrets", "word"): b""}, KEY)


def test_a_name_that_swarm_does_not_take_is_refused(tmp_path: Path) -> None:
    long = "w" * 43
    project = read(tmp_path, WEB + f"    secrets: [{long}]\nsecrets: {{{long}: {{file: ./compose.yaml}}}}\n")
    with pytest.raises(ProjectError, match="its name is too long for Swarm"):
        make(project, {"web": IMAGE}, {("secrets", long): b"x"}, KEY)
    for name in ("a.b", "a-", "s" * 59):
        (flaw,) = find_flaws(read(tmp_path, f"name: blog\nservices: {{{name}: {{image: web}}}}\n"))
        assert "Swarm takes no service named" in flaw.what


def test_networks_are_overlays_and_volumes_of_all_nodes(tmp_path: Path) -> None:
    compose = """
        name: blog
        services:
          web:
            image: web
            networks: {back: {aliases: [other]}, theirs: null}
            volumes: [{type: volume, source: data, target: /data, volume: {nocopy: true}}]
        networks:
          back: {internal: true, ipam: {config: [{subnet: 10.5.0.0/24}]}}
          theirs: {external: true, name: theirs}
        volumes:
          data:
            driver_opts: {type: nfs, o: "addr=nas,rw", device: ":/data"}
            labels: {dom0.float.shared: "yes"}
        """
    project = made(tmp_path, compose)
    (network,) = project.networks
    assert as_sent(network) == {
        "Name": "blog_back",
        "Driver": "overlay",
        "CheckDuplicate": True,
        "Internal": True,
        "IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}]},
        "Labels": {"com.docker.stack.namespace": "blog"},
    }
    task = as_sent(project.services[0])["TaskTemplate"]
    assert task["Networks"] == [
        {"Target": "blog_back", "Aliases": ["web", "other"]},
        {"Target": "theirs", "Aliases": ["web"]},
    ]
    (mount,) = task["ContainerSpec"]["Mounts"]
    assert mount["Source"].startswith("blog_data-")
    assert mount["VolumeOptions"]["DriverConfig"]["Options"]["type"] == "nfs"


def test_a_volume_of_that_name_that_an_engine_has_already_is_another_one(tmp_path: Path) -> None:
    """As of a role that floats now, or at another address: the Engine would take it whatever its options are."""

    def name(keys: str) -> str:
        compose = f"{WEB}    volumes: ['data:/data:ro']\nvolumes: {{data: {{{keys}}}}}\n"
        (mount,) = made(tmp_path, compose).services[0].task_template.container_spec.mounts
        return mount.source

    first = "driver_opts: {type: nfs, device: ':/data', o: addr=10.0.0.1}"
    assert name(first) == name(f"driver: local, {first}") != "blog_data"
    assert name(first) != name(first.replace("10.0.0.1", "10.0.0.2"))
    assert name("driver: of-a-cluster") == "blog_data"  # where the name says what is in it


REFUSED = {
    "privileged: true": "privileged",
    "devices: [/dev/null]": "devices",
    "network_mode: host": "network_mode",
    "pid: host": "pid",
    "build: .": "build",
    "container_name: mine": "container_name",
    "shm_size: 1m": "shm_size",
    "security_opt: [no-new-privileges:true]": "security_opt",
    "cgroup_parent: x": "cgroup_parent",
    "platform: linux/amd64": "platform",
    "entrypoint: []": "entrypoint",
    "x-dom0: {health_gate: false}": "x-dom0",
    "tmpfs: ['/run:size=1m']": "tmpfs.0",
    "volumes: ['./data:/data']": "volumes.0",
    "volumes: ['data:/data']": "volumes.0",
    "ports: ['127.0.0.1:80:80']": "ports.0.host_ip",
    "deploy: {endpoint_mode: other}": "deploy.endpoint_mode",
    "deploy: {restart_policy: {condition: sometimes}}": "deploy.restart_policy.condition",
    "deploy: {update_config: {failure_action: other}}": "deploy.update_config.failure_action",
    "deploy: {rollback_config: {failure_action: rollback}}": "deploy.rollback_config.failure_action",
    "networks: {default: {ipv4_address: 10.0.0.9}}": "networks.default.ipv4_address",
    "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}": (
        "deploy.resources.reservations.devices"
    ),
}


@pytest.mark.parametrize("keys", REFUSED, ids=REFUSED.values())
def test_a_key_that_swarm_cannot_do_is_refused_by_name_with_a_way_out(tmp_path: Path, keys: str) -> None:
    compose = f"{WEB}    {keys}\n" + ("volumes: {data: {}}\n" if "data:/data'" in keys else "")
    flaws = find_flaws(read(tmp_path, compose))
    assert [".".join(flaw.path) for flaw in flaws] == [f"services.web.{REFUSED[keys]}"]
    assert all(flaw.what and flaw.hint for flaw in flaws)


def test_services_that_wait_for_each_other_and_bridges_are_refused(tmp_path: Path) -> None:
    compose = """
        name: blog
        services:
          web: {image: web, depends_on: [store]}
          store: {image: web}
        networks: {default: {driver: bridge}}
        volumes: {}
        """
    flaws = find_flaws(read(tmp_path, compose))
    assert {".".join(flaw.path) for flaw in flaws} == {"services.web.depends_on", "networks.default.driver"}


@pytest.mark.parametrize("options", ["type: none, o: bind", 'type: nfs, o: "rw,bind"'])
def test_a_local_volume_that_binds_a_directory_is_no_way_round(tmp_path: Path, options: str) -> None:
    volumes = f"volumes: {{data: {{driver_opts: {{{options}, device: /x}}}}}}\n"
    (flaw,) = find_flaws(read(tmp_path, f"{WEB}    volumes: ['data:/data']\n{volumes}"))
    assert "would find an empty one" in flaw.what


def test_a_volume_to_which_two_containers_may_write_at_once_is_refused_unless_it_says_so(tmp_path: Path) -> None:
    def refused(mode: str, labels: str) -> list[str]:
        opts = f"driver_opts: {{type: nfs, device: ':/data'}}, labels: {{{labels}}}"
        compose = f"{WEB}    volumes: ['data:/data{mode}']\nvolumes: {{data: {{{opts}}}}}\n"
        return [flaw.what for flaw in find_flaws(read(tmp_path, compose))]

    assert refused("", "") == ["two containers may write to it at once, as when a node is cut off"]
    assert refused("", "dom0.float.shared: 'no'") == refused("", "")
    assert refused(":ro", "") == refused("", "dom0.float.shared: 'yes'") == []


def test_a_volume_that_an_image_declares_would_be_removed_and_is_refused_where_nothing_is_mounted(
    tmp_path: Path,
) -> None:
    def refused(keys: str) -> list[str]:
        project = read(tmp_path, f"{WEB}    {keys}\n")
        return [".".join(flaw.path) for flaw in find_declared_volumes(project, {"web": ("/var/lib/data/",)})]

    assert refused("tmpfs: [/tmp]") == ["services.web.image"]
    assert refused("tmpfs: [/var/lib/data]") == []
    assert refused("volumes: [{type: tmpfs, target: /var/lib/data}]") == []
