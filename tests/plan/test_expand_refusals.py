"""What expand refuses before anything is changed: each with its place, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dom0.compose.load import load
from dom0.errors import ProjectError
from dom0.plan.expand import expand
from dom0.plan.facts import Facts
from dom0.testing.projects import facts, image, project

PORT = "{target: 80, published: '8080', protocol: tcp}"
CASES = {
    "a container name for two containers": (
        "{services: {web: {scale: 2, container_name: x}}}",
        "services.web.container_name: x cannot belong to 2 containers at once",
    ),
    "a host port for two containers": (
        f"{{services: {{web: {{scale: 2, ports: [{PORT}]}}}}}}",
        "services.web.ports: 8080 cannot belong to 2 containers at once",
    ),
    "an address for two containers": (
        "{services: {web: {scale: 2, networks: {n: {ipv4_address: 10.0.0.2}}}}, networks: {n: {name: n}}}",
        "services.web.networks: 10.0.0.2 cannot belong to 2 containers at once",
    ),
    "fewer ports than containers": (
        "{services: {web: {scale: 3, ports: [{target: 80, published: 8000-8001, protocol: tcp}]}}}",
        "services.web.ports.0: 8000-8001 is too few ports for 3 containers",
    ),
    "one host port for two services": (
        f"{{services: {{a: {{ports: [{PORT}]}}, web: {{ports: [{PORT}]}}}}}}",
        "services.web.ports: 8080/tcp is taken by services.a",
    ),
    "one container name for two services": (
        "{services: {a: {container_name: x}, web: {container_name: x}}}",
        "services.web.container_name: x is also the name of services.a",
    ),
    "the root container's name": (
        "{services: {web: {container_name: dom0}}}",
        "services.web.container_name: dom0 is also the name of the machine's root container",
    ),
    "network_mode and networks": (
        "{services: {web: {network_mode: host, networks: {n: }}}, networks: {n: {name: n}}}",
        "services.web.network_mode: network_mode and networks exclude each other",
    ),
    "a mac_address without a network": (
        "{services: {web: {network_mode: bridge, mac_address: '02:42:ac:1e:65:43'}}}",
        "services.web.mac_address: goes with a network of its own, not with network_mode: bridge",
    ),
    "ports in the network of another service": (
        f"{{services: {{db: {{}}, web: {{network_mode: 'service:db', ports: [{PORT}]}}}}}}",
        "services.web.ports: goes with a network of its own, not with network_mode: service:db",
    ),
    "links without a network": (
        "{services: {db: {}, web: {network_mode: host, links: [db]}}}",
        "services.web.links: goes with a network of its own, not with network_mode: host",
    ),
    "a name of its own with the host's": (
        "{services: {web: {uts: host, hostname: x}}}",
        "services.web.hostname: with uts: host it is the host's",
    ),
    "a network of the Engine's own": (
        "{networks: {default: {name: bridge, external: true}}}",
        "networks.default.name: on the Engine's own network bridge containers have no names",
    ),
    "two mac addresses for one endpoint": (
        """
        services: {web: {mac_address: '02:00:00:00:00:01', networks: {n: {mac_address: '02:00:00:00:00:02'}}}}
        networks: {n: {name: n}}
        """,
        "services.web.mac_address: differs from the one of networks.n",
    ),
    "a port of the machine's own sshd": (
        "{services: {web: {ports: [{target: 22, published: '2222', protocol: tcp}]}}, machine: {ssh: {}}}",
        "services.web.ports: 2222/tcp is taken by x-dom0 (dom0-sshd)",
    ),
    "the default name of another container": (
        "{services: {a: {}, web: {container_name: box-a-1}}}",
        "services.web.container_name: box-a-1 is also the name of services.a",
    ),
    "an unknown dependency": (
        "{services: {web: {depends_on: {db: {condition: service_started}}}}}",
        "services.web.depends_on: there is no service db",
    ),
    "a dependency that a profile keeps out": (
        "{services: {web: {depends_on: {db: {condition: service_started}}}}, disabled: [db]}",
        "services.web.depends_on: db is not active, a profile keeps it out",
    ),
    "an unknown parent": ("{services: {web: {pid: 'service:db'}}}", "services.web.pid: there is no service db"),
    "a parent without containers": (
        "{services: {db: {scale: 0}, web: {volumes_from: [db]}}}",
        "services.web.volumes_from: it shares a namespace or volumes with db, which has no containers",
    ),
    "a circle of parents and dependencies": (
        "{services: {a: {pid: 'service:b'}, b: {depends_on: {c: {}}}, c: {ipc: 'service:a'}}}",
        "services.a: it depends on itself: a → b → c → a",
    ),
    "waiting for the health of what has no check": (
        "{services: {db: {}, web: {depends_on: {db: {condition: service_healthy}}}}}",
        "services.web.depends_on.db: it has no health check to wait for",
    ),
    "retries without on-failure": (
        "{services: {web: {restart: 'always:3'}}}",
        "services.web.restart: a number of retries goes with on-failure only",
    ),
    "an unknown restart policy": (
        "{services: {web: {restart: never}}}",
        "services.web.restart: unknown policy 'never'",
    ),
    "retries that are no number": (
        "{services: {web: {restart: 'on-failure:x'}}}",
        "services.web.restart: 'x' is no number of retries",
    ),
    "a selinux mark that would be lost": (
        "{services: {web: {volumes: [{type: bind, source: /a, target: /x, bind: {selinux: z}}]}}}",
        "services.web.volumes.0.bind.selinux: the Engine takes it only for a plain bind mount",
    ),
    "an owner that is no number": (
        "{services: {web: {configs: [{source: c, uid: root}]}}, configs: {c: {content: x}}}",
        "services.web.configs.c.uid: 'root' is no number",
    ),
    "a text for a read-only file system": (
        "{services: {web: {read_only: true, configs: [{source: c}]}}, configs: {c: {content: x}}}",
        "services.web.configs.c: /c cannot be written, the file system is read-only",
    ),
    "a text that a tmpfs would hide": (
        "{services: {web: {tmpfs: ['/run:size=1m'], secrets: [{source: s}]}}, secrets: {s: {content: x}}}",
        "services.web.secrets.s: /run/secrets/s would be hidden by the tmpfs at /run",
    ),
    "a security option that is none": (
        "{services: {web: {security_opt: [whatever]}}}",
        "services.web.security_opt.0: 'whatever' is no security option",
    ),
    "a label of ours on a container": (
        "{services: {web: {labels: {dom0.project: x}}}}",
        "services.web.labels: dom0.project is reserved, labels that begin with `dom0.` say what belongs to dom0",
    ),
    "a label of ours on a volume": (
        "{volumes: {v: {name: v, labels: {dom0.hash: x}}}}",
        "volumes.v.labels: dom0.hash is reserved, labels that begin with `dom0.` say what belongs to dom0",
    ),
    "one name for two networks": (
        "{networks: {a: {name: n}, b: {name: n}}}",
        "networks.b: networks.a is called n too",
    ),
}


@pytest.mark.parametrize(("text", "message"), CASES.values(), ids=CASES)
def test_a_project_is_refused_for(text: str, message: str) -> None:
    refused = project(text)
    with pytest.raises(ProjectError) as caught:
        expand(refused, facts(refused, base=image("dom0-base")))
    assert caught.value.message == message


async def test_a_refusal_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: box\nservices:\n  db: {image: db, scale: 0}\n  web: {image: web}\n")
    (tmp_path / "compose.override.yaml").write_text("services:\n  web:\n    volumes_from: [db]\n")
    refused = await load(tmp_path, Path("/final"))
    with pytest.raises(ProjectError) as caught:
        expand(refused, facts(refused))
    assert caught.value.message.startswith("compose.override.yaml:3: services.web.volumes_from: ")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{services: {web: {image: nginx}}}", "services.web.image: there is no image nginx here", "docker pull nginx"),
        (
            "{services: {web: {build: {context: /x}}}}",
            "services.web.image: there is no image box-web here",
            "dom0 build",
        ),
    ],
)
def test_a_missing_image_is_refused_with_the_way_to_get_it(text: str, message: str, hint: str) -> None:
    with pytest.raises(ProjectError) as caught:
        expand(project(text), Facts(images={}))
    assert caught.value.message == message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "{services: {web: {depends_on: {db: {condition: service_started, required: false}}}}}",
        f"{{services: {{a: {{ports: [{PORT}], scale: 0}}, web: {{ports: [{PORT}]}}}}}}",
        "{services: {a: {ports: [{host_ip: 10.0.0.1, target: 1, published: '8080', protocol: tcp}]}, "
        "web: {ports: [{host_ip: 10.0.0.2, target: 1, published: '8080', protocol: tcp}]}}}",
        f"{{services: {{a: {{ports: [{PORT}]}}, web: {{ports: [{{target: 80, published: '8080', protocol: udp}}]}}}}}}",
        "{services: {web: {read_only: true, configs: [{source: c, target: /data/c}], "
        "volumes: [{type: volume, target: /data}]}}, configs: {c: {content: x}}}",
        "{services: {web: {healthcheck: {test: [CMD, x]}}, a: {depends_on: {web: {condition: service_healthy}}}}}",
    ],
)
def test_what_only_looks_like_a_conflict_is_accepted(text: str) -> None:
    accepted = project(text)
    assert expand(accepted, facts(accepted)).slots


@pytest.mark.parametrize(
    ("text", "key", "oldest"),
    [
        ("healthcheck: {test: [CMD, x], start_interval: 1s}", "healthcheck.start_interval", "1.44"),
        ("annotations: {a: b}", "annotations", "1.43"),
        ("mac_address: '02:00:00:00:00:01'", "mac_address", "1.44"),
        ("networks: {n: {mac_address: '02:00:00:00:00:01'}}", "networks.n.mac_address", "1.44"),
        ("networks: {n: {interface_name: lan0}}", "networks.n.interface_name", "1.48"),
        ("volumes: [{type: volume, target: /x, volume: {subpath: y}}]", "volumes.0.volume.subpath", "1.45"),
        (
            "volumes: [{type: bind, source: /a, target: /x, bind: {recursive: disabled}}]",
            "volumes.0.bind.recursive",
            "1.42",
        ),
        (
            "volumes: [{type: bind, source: /a, target: /x, bind: {recursive: readonly}}]",
            "volumes.0.bind.recursive",
            "1.44",
        ),
    ],
)
def test_an_engine_that_would_drop_a_key_is_not_given_it(text: str, key: str, oldest: str) -> None:
    asking = project(f"{{services: {{web: {{{text}}}}}, networks: {{n: {{name: n}}}}}}")
    major, minor = oldest.split(".")
    before = f"{major}.{int(minor) - 1}"
    with pytest.raises(
        ProjectError, match=rf"^services\.web\.{re.escape(key)}: needs Docker Engine .* speaks {before}$"
    ):
        expand(asking, facts(asking, api_version=before))
    assert expand(asking, facts(asking, api_version=oldest)).slots
