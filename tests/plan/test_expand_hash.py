"""When a change of the project means another container, network or volume, and when it does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dom0.compose import support
from dom0.compose.model import Network, Project, Service, Volume
from dom0.engine.values import Image
from dom0.plan.desired import Desired, Slot
from dom0.plan.expand import expand
from dom0.plan.hashing import ground_hash
from dom0.testing.projects import facts, project, support_of

# One value for every key that a service can have.
VALUES: dict[str, Any] = {
    "profiles": ["p"],
    "annotations": {"a": "b"},
    "attach": False,
    "build": {"context": "/x"},
    "develop": {"watch": []},
    "blkio_config": {"weight": 300},
    "cap_add": ["NET_ADMIN"],
    "cap_drop": ["ALL"],
    "cgroup_parent": "/p",
    "cgroup": "private",
    "cpu_count": 2,
    "cpu_percent": 50.0,
    "cpu_period": 50000,
    "cpu_quota": 25000,
    "cpu_rt_period": 1000,
    "cpu_rt_runtime": 500,
    "cpus": 0.5,
    "cpuset": "0",
    "cpu_shares": 5,
    "command": ["true"],
    "configs": [{"source": "inline"}],
    "container_name": "named",
    "credential_spec": {"file": "x"},
    "depends_on": {"other": {"condition": "service_started"}},
    "deploy": {"resources": {"limits": {"memory": 1}}},
    "device_cgroup_rules": ["c 1:3 mr"],
    "devices": [{"source": "/dev/null", "target": "/dev/null", "permissions": "r"}],
    "dns": ["9.9.9.9"],
    "dns_opt": ["use-vc"],
    "dns_search": ["example.org"],
    "domainname": "example.org",
    "entrypoint": [],
    "environment": {"A": None},
    "expose": ["80"],
    "external_links": ["a:b"],
    "extra_hosts": ["a=192.0.2.1"],
    "group_add": ["5"],
    "gpus": [{"count": -1}],
    "hostname": "h",
    "healthcheck": {"test": ["CMD", "true"]},
    "image": "other:image",
    "init": False,
    "ipc": "host",
    "isolation": "default",
    "labels": {"a": "b"},
    "links": ["other"],
    "logging": {"driver": "none"},
    "mem_limit": 1,
    "mem_reservation": 1,
    "memswap_limit": -1,
    "mem_swappiness": 1,
    "mac_address": "02:42:ac:1e:65:43",
    "network_mode": "host",
    "networks": {"second": None},
    "oom_kill_disable": True,
    "oom_score_adj": 5,
    "pid": "host",
    "pids_limit": 5,
    "platform": "linux/amd64",
    "ports": [{"target": 80, "protocol": "tcp"}],
    "privileged": True,
    "pull_policy": "never",
    "read_only": True,
    "restart": "always",
    "runtime": "runc",
    "scale": 2,
    "secrets": [{"source": "file"}],
    "security_opt": ["seccomp=unconfined"],
    "shm_size": 1,
    "stdin_open": True,
    "stop_grace_period": "1m0s",
    "stop_signal": "SIGUSR1",
    "storage_opt": {"size": "1G"},
    "sysctls": {"a": "b"},
    "tmpfs": ["/scratch"],
    "tty": True,
    "ulimits": {"core": 0},
    "user": "1",
    "userns_mode": "host",
    "uts": "host",
    "volumes": [{"type": "bind", "source": "/project/file", "target": "/x"}],
    "volumes_from": ["other"],
    "working_dir": "/w",
    "post_start": [{"command": ["true"]}],
    "pre_stop": [{"command": ["true"]}],
    "models": {"m": None},
    "provider": {"type": "p"},
    "use_api_socket": True,
    "pull_refresh_after": "1d",
    "x-dom0": {"health_gate": False},
}
UNHASHED = {
    "profiles",
    "attach",
    "build",
    "develop",
    "depends_on",
    "pull_policy",
    "pull_refresh_after",
    "scale",
    "x-dom0",
}
KEYS = [field.encode_name for field in msgspec.structs.fields(Service)]


def box(**keys: Any) -> Project:
    """A project with a service `web` that says `keys`, and what these may refer to."""
    found = project(
        """
        services: {other: {}}
        networks: {first: {name: box_first}, second: {name: box_second}}
        configs: {inline: {content: one}}
        secrets: {file: {file: /project/file}}
        """,
        digests={"/project/file": "d1"},
    )
    service = {"image": "busybox:test", "networks": {"first": None}} | keys
    if keys.get("network_mode"):
        del service["networks"]
    return msgspec.structs.replace(found, services=found.services | {"web": msgspec.convert(service, Service)})


def desired(found: Project) -> Desired:
    return expand(found, facts(found))


def web(found: Project) -> Slot:
    return next(slot for slot in desired(found).slots if slot.service == "web")


def test_the_table_of_values_knows_every_key_of_a_service() -> None:
    assert sorted(VALUES) == sorted(KEYS)


@pytest.mark.parametrize("key", sorted(set(VALUES) - UNHASHED))
def test_a_change_means_another_container_for(key: str) -> None:
    assert web(box(**{key: VALUES[key]})).hash != web(box()).hash


@pytest.mark.parametrize("key", sorted(UNHASHED))
def test_a_change_means_the_same_container_for(key: str) -> None:
    assert web(box(**{key: VALUES[key]})).hash == web(box()).hash


@pytest.mark.parametrize("key", sorted(VALUES))
def test_nothing_that_a_service_says_is_lost_unless_the_support_table_says_so(key: str) -> None:
    """Either it reaches the desired state, besides the hash, or the table calls it ignored or refused."""
    row = support_of(f"services.*.{key}")
    assert row is not None
    if row.level is support.SupportLevel.HONOURED and key not in ("profiles", "build", "pull_policy"):
        assert without_hashes(web(box(**{key: VALUES[key]}))) != without_hashes(web(box())) or key == "scale"


def without_hashes(slot: Slot) -> Slot:
    labels = {key: value for key, value in slot.create.labels.items() if not key.endswith("hash")}
    return msgspec.structs.replace(slot, hash="", create=msgspec.structs.replace(slot.create, labels=labels))


def test_what_only_says_how_to_replace_it_means_the_same_container() -> None:
    says = {"replicas": 1, "update_config": {"order": "stop-first"}, "rollback_config": {}, "labels": {"a": "b"}}
    assert web(box(deploy=says)).hash == web(box()).hash


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("configs", {"configs": {"inline": {"content": "two"}}}),
        ("secrets", {"digests": {"/project/file": "d2"}}),
        ("volumes", {"digests": {"/project/file": "d2"}}),
        ("networks", {"networks": {"first": {"name": "box_first"}, "second": {"name": "renamed"}}}),
    ],
)
def test_another_content_means_another_container(key: str, changed: dict[str, Any]) -> None:
    before = box(**{key: VALUES[key]})
    parts = {name: msgspec.convert(value, _type_of(name)) for name, value in changed.items()}
    assert web(msgspec.structs.replace(before, **parts)).hash != web(before).hash
    assert web(msgspec.structs.replace(box(), **parts)).hash == web(box()).hash


def _type_of(field: str) -> Any:
    return next(f.type for f in msgspec.structs.fields(Project) if f.name == field)


def test_another_profile_text_means_another_container() -> None:
    before = msgspec.structs.replace(box(security_opt=["seccomp=p.json"]), contents={"p.json": "{}"})
    after = msgspec.structs.replace(before, contents={"p.json": '{"defaultAction": "SCMP_ACT_ALLOW"}'})
    assert web(before).hash != web(after).hash


def test_another_volume_name_means_another_container() -> None:
    mount = [{"type": "volume", "source": "v", "target": "/v"}]
    before, after = (
        msgspec.structs.replace(box(volumes=mount), volumes={"v": Volume(name=name)}) for name in ("one", "two")
    )
    assert web(before).hash != web(after).hash


def test_another_image_id_is_compared_apart() -> None:
    found = box()
    one, two = (expand(found, facts(found, _image(n))).slots[-1] for n in (1, 2))
    assert one.image_id != two.image_id
    assert one.hash == two.hash


def _image(number: int) -> Image:
    return Image(id=f"sha256:{number:064}", tags=("busybox:test",))


def test_every_container_of_a_service_has_the_same_hash() -> None:
    hashes = {slot.hash for slot in desired(box(scale=3)).slots if slot.service == "web"}
    assert len(hashes) == 1


# Values that other values forbid, or that change who the others are.
LONERS = {"depends_on", "links", "volumes_from", "network_mode", "mac_address", "scale", "read_only", "uts"}
SOME_KEYS = st.dictionaries(
    st.sampled_from(sorted(VALUES.keys() - LONERS)),
    st.none(),
    max_size=8,
).map(lambda chosen: {key: VALUES[key] for key in chosen})


@given(SOME_KEYS, st.randoms())
def test_the_order_of_keys_means_nothing(keys: dict[str, Any], random: Any) -> None:
    shuffled = list(keys)
    random.shuffle(shuffled)
    environment = {"B": "2", "A": "1", "C": None}
    backwards = dict(reversed(environment.items()))
    one = box(**keys | {"environment": environment})
    other = box(**{"environment": backwards} | {key: keys[key] for key in shuffled if key != "environment"})
    assert web(one) == web(other)


@given(SOME_KEYS, st.sampled_from(msgspec.structs.fields(Service)))
def test_to_say_a_default_means_the_same_container(keys: dict[str, Any], field: Any) -> None:
    assume(field.encode_name not in (*keys, "image", "networks"))
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    said = msgspec.to_builtins({field.encode_name: default})
    assert web(box(**keys, **said)).hash == web(box(**keys)).hash


@given(SOME_KEYS)
def test_the_desired_state_survives_being_stored(keys: dict[str, Any]) -> None:
    state = desired(box(**keys))
    stored = msgspec.json.encode(state, order="sorted")
    assert msgspec.json.decode(stored, type=Desired) == state
    assert msgspec.json.encode(msgspec.json.decode(stored, type=Desired), order="sorted") == stored


@pytest.mark.parametrize(
    "change",
    [
        {"driver": "macvlan"},
        {"driver_opts": {"a": "b"}},
        {"ipam": {"config": [{"subnet": "10.0.0.0/24"}]}},
        {"internal": True},
        {"attachable": True},
        {"labels": {"a": "b"}},
        {"enable_ipv6": True},
    ],
)
def test_a_network_is_another_one_when_it_says_something_else(change: dict[str, Any]) -> None:
    assert ground_hash(msgspec.convert(change, Network)) != ground_hash(Network())


@pytest.mark.parametrize("change", [{"driver": "nfs"}, {"driver_opts": {"a": "b"}}, {"labels": {"a": "b"}}])
def test_a_volume_is_another_one_when_it_says_something_else(change: dict[str, Any]) -> None:
    assert ground_hash(msgspec.convert(change, Volume)) != ground_hash(Volume())


def test_the_engines_own_drivers_need_not_be_said() -> None:
    assert ground_hash(Network(driver="bridge")) == ground_hash(Network())
    assert ground_hash(Volume(driver="local")) == ground_hash(Volume())
