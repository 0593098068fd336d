"""Project → Desired: names, labels, pins, order, health. Create bodies are compared with Compose's in tests/compare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import Mount, NetworkBody, RestartPolicy, VolumeBody
from dom0.engine.resources import updatable
from dom0.engine.values import PublishedPort
from dom0.plan import labels
from dom0.plan.desired import Condition, Desired, HealthTest, Hook, Order, Role, Sharing, Slot
from dom0.plan.expand import expand
from dom0.plan.facts import images_needed
from dom0.plan.hooks import PreStop, pre_stop_of
from dom0.testing import builders
from dom0.testing.builders import as_sent
from dom0.testing.projects import facts, image, project


def expanded(text: str, *images: Any, **fields: Any) -> Desired:
    found = project(text, **fields)
    return expand(found, facts(found, *images))


def only_slot(text: str, *images: Any, **fields: Any) -> Slot:
    (slot,) = expanded(text, *images, **fields).slots
    return slot


def service(text: str, *images: Any) -> Slot:
    """The first slot of a service that says `text`, on a default network."""
    networks = "networks: {default: {name: n}}"
    return expanded(f"{{services: {{web: {{networks: {{default: }}, {text}}}}}, {networks}}}", *images).slots[0]


def test_containers_are_named_and_numbered_as_compose_does() -> None:
    desired = expanded("{services: {web: {scale: 2}, db: {container_name: my-db}, gone: {scale: 0}}}")
    assert [slot.name for slot in desired.slots] == ["my-db", "box-web-1", "box-web-2"]
    assert [slot.key for slot in desired.slots] == ["db-1", "web-1", "web-2"]
    assert {slot.role for slot in desired.slots} == {Role.SERVICE}


def test_a_built_service_runs_the_image_that_compose_would_tag() -> None:
    assert only_slot("{services: {web: {build: {context: /x}}}}").image == "box-web"
    assert only_slot("{services: {web: {build: {context: /x}, image: mine}}}").image == "mine"


def test_an_image_that_one_service_builds_is_built_for_the_others_too() -> None:
    built = "web: {build: {context: /x}, image: mine, scale: 0}"
    needs = images_needed(project(f"{{services: {{{built}, job: {{image: mine}}, db: {{image: other}}}}}}"))
    assert {need.ref: need.built for need in needs} == {"mine": True, "other": False}


def test_the_image_is_pinned_and_written_where_compose_looks_for_it() -> None:
    slot = only_slot("{services: {web: {}}}")
    assert slot.image_id == image("busybox:test").id
    assert slot.create.labels[labels.COMPOSE_IMAGE] == slot.image_id


def test_labels_say_whose_container_it_is_to_us_and_to_compose() -> None:
    slot = only_slot(
        "{services: {web: {labels: {mine: 'yes', com.docker.compose.service: mine}}}}",
        compose_hashes={"web": "c0ffee"},
        compose_version="2.26.1-4",
        working_dir="/p",
        config_files=["/p/a.yaml", "/p/b.yaml"],
    )
    assert slot.create.labels == {
        "mine": "yes",
        labels.PROJECT: "box",
        labels.ROLE: "service",
        labels.SERVICE: "web",
        labels.NUMBER: "1",
        labels.HASH: slot.hash,
        labels.PRE_STOP: "",
        labels.COMPOSE_PROJECT: "box",
        labels.COMPOSE_SERVICE: "web",
        labels.COMPOSE_NUMBER: "1",
        labels.COMPOSE_HASH: "c0ffee",
        labels.COMPOSE_IMAGE: slot.image_id,
        labels.COMPOSE_ONEOFF: "False",
        labels.COMPOSE_VERSION: "2.26.1",
        labels.COMPOSE_WORKING_DIR: "/p",
        labels.COMPOSE_CONFIG_FILES: "/p/a.yaml,/p/b.yaml",
        labels.COMPOSE_DEPENDS_ON: "",
    }


def test_networks_and_volumes_carry_both_kinds_of_labels_and_a_hash() -> None:
    desired = expanded("{networks: {n: {name: box_n}}, volumes: {v: {name: box_v, labels: {a: b}}}}")
    (network,), (volume,) = desired.networks, desired.volumes
    assert network.create.labels == {
        labels.PROJECT: "box",
        labels.HASH: network.hash,
        labels.COMPOSE_PROJECT: "box",
        labels.COMPOSE_NETWORK: "n",
        labels.COMPOSE_VERSION: "",
    }
    assert volume.create.labels == {
        "a": "b",
        labels.PROJECT: "box",
        labels.HASH: volume.hash,
        labels.COMPOSE_PROJECT: "box",
        labels.COMPOSE_VOLUME: "v",
        labels.COMPOSE_VERSION: "",
    }


def test_external_networks_and_volumes_are_named_and_never_made() -> None:
    desired = expanded("{networks: {n: {name: lan, external: true}}, volumes: {v: {name: big, external: true}}}")
    assert [(n.name, n.external, n.create, n.hash) for n in desired.networks] == [("lan", True, NetworkBody(), "")]
    assert [(v.name, v.external, v.create, v.hash) for v in desired.volumes] == [("big", True, VolumeBody(), "")]


def test_the_network_of_highest_priority_is_the_primary_one_and_ties_go_by_name() -> None:
    slot = only_slot(
        """
        services: {web: {networks: {b: , a: {priority: 5, aliases: [x]}, c: {priority: 5}}}}
        networks: {a: {name: box_a}, b: {name: box_b}, c: {name: box_c}}
        """
    )
    assert [attachment.network for attachment in slot.attachments] == ["box_a", "box_c", "box_b"]
    assert slot.create.host_config.network_mode == "box_a"
    assert slot.attachments[0].endpoint.aliases == ("box-web-1", "web", "x")


def test_without_any_network_there_is_none() -> None:
    slot = only_slot("{services: {web: {}}}")
    assert slot.attachments == ()
    assert slot.create.host_config.network_mode == "none"


def test_references_to_other_services_are_left_for_the_agent_and_named_as_parents() -> None:
    desired = expanded(
        """
        services:
          a: {}
          b: {}
          web:
            network_mode: service:a
            pid: service:a
            ipc: service:b
            volumes_from: [b, "a:ro", "container:x:ro"]
        """
    )
    web = desired.slots[-1]
    host = web.create.host_config
    assert (host.network_mode, host.pid_mode, host.ipc_mode) == ("service:a", "service:a", "service:b")
    assert host.volumes_from == ("service:b", "service:a:ro", "x:ro")
    assert web.parents == ("a", "b")


def test_dependencies_keep_their_conditions() -> None:
    desired = expanded(
        """
        services:
          db: {healthcheck: {test: [CMD, "true"]}}
          web:
            depends_on:
              db: {condition: service_healthy, restart: true}
              other: {condition: service_started, required: false}
        """
    )
    (dependency,) = desired.slots[-1].depends_on
    assert (dependency.service, dependency.condition) == ("db", Condition.HEALTHY)
    assert (dependency.required, dependency.restart) == (True, True)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("user: root", Order.START_FIRST),
        ("ports: [{target: 80, published: '8080', protocol: tcp}]", Order.STOP_FIRST),
        ("ports: [{target: 80, protocol: tcp}]", Order.START_FIRST),
        ("ports: [{target: 80, published: '0', protocol: tcp}]", Order.START_FIRST),
        ("ports: [{target: 80, published: 8000-8001, protocol: tcp}]", Order.START_FIRST),
        ("scale: 2, ports: [{target: 80, published: 8000-8001, protocol: tcp}]", Order.STOP_FIRST),
        ("volumes: [{type: bind, source: /a, target: /b}]", Order.STOP_FIRST),
        ("volumes: [{type: bind, source: /a, target: /b, read_only: true}]", Order.START_FIRST),
        ("volumes: [{type: volume, target: /b}]", Order.START_FIRST),
        ("volumes: [{type: tmpfs, target: /b}]", Order.START_FIRST),
        ("mac_address: '02:42:ac:1e:65:43'", Order.STOP_FIRST),
        ("deploy: {update_config: {order: stop-first}}", Order.STOP_FIRST),
        (
            "deploy: {update_config: {order: start-first}}, volumes: [{type: bind, source: /a, target: /b}]",
            Order.START_FIRST,
        ),
    ],
)
def test_the_old_one_is_stopped_first_only_where_two_cannot_run_at_once(text: str, order: Order) -> None:
    assert service(text).order is order


@pytest.mark.parametrize(
    "text",
    [
        "{services: {web: {network_mode: host}}}",
        "{services: {web: {network_mode: 'container:x'}}}",
        "{services: {web: {networks: {n: {ipv4_address: 10.0.0.5}}}}, networks: {n: {name: n}}}",
        "{services: {web: {volumes: [{type: volume, source: v, target: /b}]}}, volumes: {v: {name: v}}}",
    ],
)
def test_what_cannot_be_shared_is_replaced_stop_first(text: str) -> None:
    assert only_slot(text).order is Order.STOP_FIRST


def test_who_shares_a_namespace_of_another_service_is_replaced_stop_first() -> None:
    child = expanded("{services: {a: {}, web: {pid: 'service:a'}}}").slots[-1]
    assert child.order is Order.STOP_FIRST


def test_fixed_host_ports_are_told_and_chosen_ones_are_not() -> None:
    ports = """[{target: 80, published: '8080', protocol: tcp}, {target: 81, published: 9000-9001, protocol: tcp},
        {target: 82, protocol: tcp}, {target: 83, published: '0', protocol: tcp},
        {target: 84, published: '53', protocol: udp, host_ip: 127.0.0.1},
        {target: 85, published: '8085', protocol: tcp, host_ip: 0.0.0.0}]"""
    assert service(f"ports: {ports}").ports == (
        PublishedPort("tcp", 8080),
        PublishedPort("tcp", 8085),
        PublishedPort("udp", 53, "127.0.0.1"),
    )


def test_a_container_without_a_network_of_its_own_takes_no_ports() -> None:
    port = "{target: 80, published: '8080', protocol: tcp}"
    assert only_slot(f"{{services: {{web: {{network_mode: host, ports: [{port}]}}}}}}").ports == ()


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("healthcheck: {test: [CMD, a, b]}", ("a", "b")),
        ("healthcheck: {test: [CMD-SHELL, a && b]}", ("/bin/sh", "-c", "a && b")),
        ("healthcheck: {test: [NONE]}", None),
        ("healthcheck: {test: [CMD, a], disable: true}", None),
        ("healthcheck: {interval: 5s}", ("from", "image")),
        ("user: root", ("from", "image")),
    ],
)
def test_the_health_command_is_the_services_or_its_images(text: str, argv: tuple[str, ...] | None) -> None:
    with_check = image("busybox:test", has_healthcheck=True, healthcheck_test=("CMD", "from", "image"))
    health = service(text, with_check).health
    assert (health.argv if health else None) == argv


def test_an_image_that_switches_its_parents_health_check_off_has_none() -> None:
    assert service("user: root", image("busybox:test", healthcheck_test=("NONE",))).health is None


def test_health_times_are_seconds_and_the_engines_where_nothing_is_said() -> None:
    said = service("healthcheck: {test: [CMD, a], timeout: 1m30s, start_period: 500ms}").health
    assert said == HealthTest(argv=("a",), timeout=90.0, start_period=0.5)
    assert service("healthcheck: {test: [CMD, a]}").health == HealthTest(argv=("a",))


def test_the_health_command_runs_at_once_unless_told_not_to() -> None:
    assert service("user: root").health_gate
    assert not service("x-dom0: {health_gate: false}").health_gate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user: root", ("no", 0)),
        ("restart: 'no'", ("no", 0)),
        ("restart: always", ("always", 0)),
        ("restart: on-failure:3", ("on-failure", 3)),
        ("restart: always, deploy: {restart_policy: {condition: none}}", ("no", 0)),
        ("deploy: {restart_policy: {condition: any}}", ("always", 0)),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", ("on-failure", 4)),
    ],
)
def test_deploy_decides_about_restarts_before_restart_does(text: str, expected: tuple[str, int]) -> None:
    slot = service(text)
    assert (slot.restart_policy, slot.restart_retries) == expected
    assert slot.create.host_config.restart_policy == RestartPolicy(name=expected[0], maximum_retry_count=expected[1])


def test_the_grace_period_is_the_engines_ten_seconds_unless_said() -> None:
    assert service("user: root").stop_grace == 10.0
    assert service("user: root").create.stop_timeout is None
    assert service("stop_grace_period: 1m30s").stop_grace == 90.0


def test_hooks_are_what_the_engines_exec_takes() -> None:
    written = (
        "[{command: [chown, x], user: root, privileged: true, working_dir: /srv, environment: {B: null, A: '1'}}, "
        "{command: [second]}]"
    )
    slot = service(f"post_start: {written}, pre_stop: {written}")
    first = Hook(argv=("chown", "x"), user="root", privileged=True, workdir="/srv", env=("A=1", "B"))
    assert slot.post_start == (first, Hook(argv=("second",)))
    assert json.loads(slot.create.labels[labels.PRE_STOP])[1] == {"argv": ["second"]}
    container = replace(builders.container(slot), labels=slot.create.labels, stop_grace=25.0)
    assert pre_stop_of(container) == PreStop(hooks=slot.post_start, grace=25.0)


def test_no_label_of_an_image_is_a_hook() -> None:
    assert service("user: root").create.labels[labels.PRE_STOP] == ""


def test_resources_are_the_numbers_that_the_engine_will_show() -> None:
    slot = service(
        "mem_limit: '67108864', cpus: 0.3, pids_limit: -1, cpu_shares: 73, deploy: {resources: {limits: {memory: 1}}}"
    )
    assert slot.resources == {"Memory": 1, "NanoCpus": 300000000, "CpuShares": 73}
    assert slot.resources == updatable(slot.create.host_config)


def test_a_bind_that_may_make_its_directory_is_sent_in_the_engines_old_form() -> None:
    slot = service(
        """volumes: [
            {type: bind, source: /a, target: /m, read_only: true, bind: {create_host_path: true, propagation: rslave}},
            {type: bind, source: /b, target: /there, bind: {propagation: rslave}},
            {type: bind, source: /c, target: /flat, bind: {create_host_path: true, recursive: disabled}}]"""
    )
    host = as_sent(slot.create.host_config)
    assert host["Binds"] == ["/a:/m:ro,rslave"]
    assert host["Mounts"] == [
        {"Type": "bind", "Target": "/there", "Source": "/b", "BindOptions": {"Propagation": "rslave"}},
        {
            "Type": "bind",
            "Target": "/flat",
            "Source": "/c",
            "BindOptions": {"CreateMountpoint": True, "NonRecursive": True},
        },
    ]


def test_volumes_go_by_their_names_in_the_engine() -> None:
    slot = only_slot(
        """
        services: {web: {volumes: [{type: volume, source: data, target: /d/}, {type: volume, target: /anonymous}]}}
        volumes: {data: {name: box_data}}
        """
    )
    assert slot.volumes == ("box_data",)
    assert as_sent(slot.create.host_config)["Mounts"] == [
        {"Type": "volume", "Target": "/d", "Source": "box_data"},
        {"Type": "volume", "Target": "/anonymous"},
    ]


def test_files_are_mounted_and_texts_are_written_into_the_container() -> None:
    slot = only_slot(
        """
        services:
          web:
            configs: [{source: app}, {source: text, target: etc/text, mode: 256, uid: "7", gid: "8"}]
            secrets: [{source: key}, {source: word, target: word}]
        configs: {app: {file: /p/app.conf}, text: {content: hello}}
        secrets: {key: {file: /p/key}, word: {environment: WORD}}
        """,
        environment={"WORD": "swordfish"},
    )
    assert as_sent(slot.create.host_config)["Mounts"] == [
        {"Type": "bind", "Source": "/p/key", "Target": "/run/secrets/key", "ReadOnly": True},
        {"Type": "bind", "Source": "/p/app.conf", "Target": "/app", "ReadOnly": True},
    ]
    written = [(f.path, f.content, f.mode, f.uid, f.gid) for f in slot.files]
    assert written == [
        ("/run/secrets/word", b"swordfish", 0o444, 0, 0),
        ("/etc/text", b"hello", 0o400, 7, 8),
    ]
    assert "swordfish" not in str(slot.create)


def test_a_seccomp_profile_is_sent_as_text() -> None:
    slot = only_slot(
        "{services: {web: {security_opt: ['seccomp:p.json', 'systempaths=unconfined', no-new-privileges]}}}",
        contents={"p.json": '{ "defaultAction":\n "SCMP_ACT_ALLOW" }'},
    )
    host = as_sent(slot.create.host_config)
    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges"]
    assert (host["MaskedPaths"], host["ReadonlyPaths"]) == ([], [])


def test_links_name_every_container_of_the_linked_service() -> None:
    desired = expanded(
        """
        services: {db: {scale: 2}, web: {links: ["db:base"], external_links: ["other:there"], networks: {default: }}}
        networks: {default: {name: n}}
        """
    )
    (attachment,) = desired.slots[-1].attachments
    assert as_sent(attachment.endpoint)["Links"] == [
        "box-db-1:base",
        "box-db-1:db-1",
        "box-db-1:box-db-1",
        "box-db-2:base",
        "box-db-2:db-1",
        "box-db-2:box-db-1",
        "other:there",
    ]


def test_the_times_of_a_rollout_come_from_the_machine() -> None:
    rollout = expanded("{machine: {rollout: {timeout: 1m30s, monitor: 0s}}}").rollout
    assert (rollout.timeout, rollout.monitor) == (90.0, 0.0)


def test_anonymous_volumes_are_those_of_service_and_image_that_nothing_covers() -> None:
    volumes = image("busybox:test", volumes=("/a", "/b/", "/c", "/d"))
    text = """
        services:
          web:
            volumes: [{type: volume, target: /own/}, {type: bind, source: /x, target: /a}]
            tmpfs: ["/c:size=1m"]
            configs: [{source: d}]
        configs: {d: {file: /d}}
        """
    assert only_slot(text, volumes).anonymous == ("/b", "/own")


def test_a_selinux_mark_on_a_named_volume_means_nothing() -> None:
    volume = "{type: volume, source: data, target: /x, bind: {selinux: z}}"
    text = f"{{services: {{web: {{volumes: [{volume}]}}}}, volumes: {{data: {{name: box_data}}}}}}"
    assert only_slot(text).create.host_config.mounts == (Mount(type="volume", target="/x", source="box_data"),)


def test_what_newer_engines_know_of_networks_reaches_them() -> None:
    network = "{gw_priority: 5, interface_name: lan0, driver_opts: {a: b}}"
    networks = "networks: {default: {name: n, enable_ipv4: false, enable_ipv6: true}}"
    desired = expanded(f"{{services: {{web: {{networks: {{default: {network}}}}}}}, {networks}}}")
    endpoint = desired.slots[0].attachments[0].endpoint
    assert endpoint.gw_priority == 5
    assert endpoint.driver_opts == {"a": "b", "com.docker.network.endpoint.ifname": "lan0"}
    assert desired.networks[0].create.enable_ipv4 is False


def test_where_images_are_given_and_to_whom_is_part_of_it_and_nothing_by_default() -> None:
    serve = {"listen": "192.0.2.5:5050", "allow": ["192.0.2.0/24"], "limit": "2M"}
    pull = {"keep": "1G", "peers": ["192.0.2.7:5050"], "serve": serve}
    assert expanded("{services: {}}", machine={"pull": pull}).sharing == Sharing(
        peers=("192.0.2.7:5050",), listen="192.0.2.5:5050", allow=("192.0.2.0/24",), rate=2 << 20, keep=1 << 30
    )
    assert expanded("{services: {}}", machine={"pull": {"limit": "100k"}}) == expanded("{services: {}}")
