"""Answers of the Engine as values: tolerant of what is new, strict with what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.engine import parse, wire
from dom0.engine.bodies import HostConfig
from dom0.engine.resources import KEYS, updatable
from dom0.engine.values import Container, Endpoint, Health, Mount, PublishedPort, State
from dom0.errors import EngineError

ZERO = "0001-01-01T00:00:00Z"  # how Go writes a time that is not set
ID = "f" * 64


def inspect(**changes: Any) -> bytes:
    """A container as the Engine writes it; `Section__Key` changes one value within."""
    document: dict[str, Any] = {
        "Id": ID,
        "Name": "/web-1",
        "Image": "sha256:" + "e" * 64,
        "Created": "2026-11-23T22:01:33.883016483Z",
        "RestartCount": 0,
        "State": {"Status": "created", "StartedAt": ZERO, "FinishedAt": ZERO, "ExitCode": 0, "Error": "", "Pid": 0},
        "Config": {"Image": "web", "Labels": None},
        "HostConfig": {"NetworkMode": "bridge", "VolumesFrom": None, "PidsLimit": None},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [],
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = document
        for section in sections:
            target = target[section]
        target[key] = value
    return msgspec.json.encode(document)


def container(**changes: Any) -> Container:
    return parse.container(inspect(**changes), "container web-1")


def test_a_container_that_was_only_created() -> None:
    found = container()
    assert (found.id, found.name, found.image, found.state) == (ID, "web-1", "web", State.CREATED)
    assert found.created == pytest.approx(1795471293.883016, abs=1e-6)
    assert (found.started, found.finished, found.health, found.restart_policy) == (0.0, 0.0, Health.NONE, "no")
    assert (found.labels, found.resources, found.endpoints, found.mounts, found.ports) == ({}, {}, (), (), ())


def test_a_container_at_work() -> None:
    found = container(
        State={
            "Status": "running",
            "StartedAt": "2026-11-23T23:01:34.5+01:00",
            "FinishedAt": ZERO,
            "OOMKilled": True,
            "Pid": 7,
            "Health": {"Status": "unhealthy", "FailingStreak": 3, "Log": [{"Output": "a"}, {"Output": "b\x1b[31m\n"}]},
        },
        RestartCount=4,
        HostConfig__RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3},
        HostConfig__VolumesFrom=["home:ro"],
        HostConfig__IpcMode="container:1",
        HostConfig__PidMode="host",
    )
    assert (found.state, found.started, found.oom_killed, found.pid) == (State.RUNNING, 1795471294.5, True, 7)
    assert (found.health, found.health_output) == (Health.UNHEALTHY, "b\\x1b[31m\n")
    assert (found.restart_policy, found.restart_retries, found.restart_count) == ("on-failure", 3, 4)
    assert (found.volumes_from, found.ipc_mode, found.pid_mode) == (("home:ro",), "container:1", "host")


@pytest.mark.parametrize("health", [None, {"Status": "none", "Log": None}, {"Log": []}])
def test_a_container_without_health(health: Any) -> None:
    assert container(State__Health=health).health is Health.NONE


def test_what_the_engine_could_not_start_says_why_on_one_line() -> None:
    assert container(State__Error="no\nsuch\x1b[1m file").error == "no such\\x1b[1m file"


def test_endpoints_are_sorted_and_may_be_empty() -> None:
    networks = {
        "b": {"NetworkID": "2", "Aliases": ["x", "y"], "IPAddress": "10.0.0.2"},
        "a": {"NetworkID": "", "Aliases": None, "IPAddress": ""},
        "c": None,
    }
    assert container(NetworkSettings__Networks=networks).endpoints == (
        Endpoint(network="a", network_id=""),
        Endpoint(network="b", network_id="2", aliases=("x", "y"), ip_address="10.0.0.2"),
    )
    assert container(NetworkSettings__Networks=None).endpoints == ()


def test_mounts_of_all_kinds() -> None:
    mounts = [
        {"Type": "volume", "Name": "v", "Source": "/var/v", "Destination": "/v", "RW": True},
        {"Type": "bind", "Source": "/etc", "Destination": "/b", "RW": False},
        {"Type": "tmpfs", "Source": "", "Destination": "/t"},
    ]
    found = container(Mounts=mounts, HostConfig__Tmpfs={"/t": "", "/u": "size=1m"}).mounts
    assert found == (
        Mount(type="bind", target="/b", source="/etc", writable=False),
        Mount(type="tmpfs", target="/t"),
        Mount(type="tmpfs", target="/u"),
        Mount(type="volume", target="/v", source="/var/v", name="v"),
    )


@pytest.mark.parametrize(
    ("bindings", "ports"),
    [
        ({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, (PublishedPort("tcp", 8080),)),
        ({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}, (PublishedPort("tcp", 80),)),  # noqa: S104
        ({"80/tcp": [{"HostIp": "::", "HostPort": "80"}]}, (PublishedPort("tcp", 80),)),
        ({"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]}, (PublishedPort("udp", 53, "127.0.0.1"),)),
        ({"80": [{"HostPort": "80"}]}, (PublishedPort("tcp", 80),)),
        ({"80/tcp": [{"HostIp": "", "HostPort": ""}]}, ()),
        ({"80/tcp": [{"HostIp": "", "HostPort": "0"}]}, ()),
        ({"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}, ()),
        ({"80/tcp": None}, ()),
        (
            {"81/tcp": [{"HostPort": "81"}, {"HostPort": "81"}], "80/tcp": [{"HostPort": "80"}]},
            (PublishedPort("tcp", 80), PublishedPort("tcp", 81)),
        ),
    ],
)
def test_only_fixed_ports_count(bindings: Any, ports: tuple[PublishedPort, ...]) -> None:
    found = container(HostConfig__PortBindings=bindings)
    assert found.ports == ports
    assert sorted({port for published in found.published.values() for port in published}) == list(ports)


def test_a_published_port_is_known_by_the_containers() -> None:
    bindings = {"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "81"}, {"HostPort": "80"}], "80/udp": [{"HostPort": "0"}]}
    published = container(HostConfig__PortBindings=bindings).published
    assert published == {"80/tcp": (PublishedPort("tcp", 80), PublishedPort("tcp", 81, "10.0.0.1"))}


@pytest.mark.parametrize(
    "changes",
    [
        {"Id": 1},
        {"State": None},
        {"State__Status": "dancing"},
        {"State__ExitCode": "0"},
        {"State__StartedAt": "yesterday"},
        {"Created": "2026-13-01T00:00:00Z"},
        {"Config__Labels": {"a": 1}},
        {"HostConfig__Memory": "64m"},
        {"HostConfig__PortBindings": {"80/tcp": [{"HostPort": "http"}]}},
        {"HostConfig__PortBindings": {"80/tcp": [{"HostPort": "٨٠"}]}},
        {"HostConfig__PortBindings": {"80/tcp": [{"HostPort": "65536"}]}},
        {"Mounts": [{"Type": "bind"}]},
        {"NetworkSettings__Networks": {"a": {"Aliases": "x"}}},
    ],
)
def test_a_wrong_type_is_refused_with_its_place(changes: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"^container web-1: the Engine's answer makes no sense: "):
        container(**changes)


def test_what_is_new_to_us_is_ignored() -> None:
    assert container(Novelty={"a": [1]}, State__Novelty=1, HostConfig__Novelty=None) == container()


def test_a_row_has_its_own_name_not_that_of_a_link() -> None:
    row = {"Id": ID, "ImageID": "sha256:e", "State": "running", "Labels": None}
    rows = [row | {"Names": ["/other/alias", "/one"]}, row | {"Names": None}, row | {"Names": ["/other/alias"]}]
    assert [found.name for found in parse.containers(msgspec.json.encode(rows), "containers")] == ["one", "", ""]


def test_an_image_with_everything() -> None:
    document = {
        "Id": "sha256:e",
        "RepoTags": ["a:1", "<none>:<none>"],
        "RepoDigests": ["<none>@<none>"],
        "Created": ZERO,
        "Size": 5,
        "RootFS": {"Type": "layers", "Layers": ["sha256:a", "sha256:b"]},
        "Config": {
            "Labels": {"a": "1"},
            "Volumes": {"/b": {}, "/a": {}},
            "Env": ["A=1"],
            "User": "me",
            "Cmd": ["c"],
            "Entrypoint": ["e"],
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5},
        },
    }
    found = parse.image(msgspec.json.encode(document), "image")
    assert (found.tags, found.digests, found.created, found.size) == (("a:1",), (), 0.0, 5)
    assert (found.volumes, found.env, found.user, found.cmd) == (("/a", "/b"), ("A=1",), "me", ("c",))
    assert found.layers == ("sha256:a", "sha256:b")
    assert (found.entrypoint, found.has_healthcheck, found.healthcheck_test) == (("e",), True, ("CMD-SHELL", "true"))


@pytest.mark.parametrize("config", [None, {}, {"Healthcheck": None}, {"Healthcheck": {"Test": ["NONE"]}}])
def test_an_image_without_a_health_check(config: Any) -> None:
    document = {"Id": "sha256:e", "Config": config}
    assert not parse.image(msgspec.json.encode(document), "image").has_healthcheck


INFO: dict[str, Any] = {
    "ID": "i",
    "Name": "n",
    "ServerVersion": "26.1.5",
    "NCPU": 2,
    "MemTotal": 3,
    "Driver": "overlay2",
    "DockerRootDir": "/d",
    "OperatingSystem": "Debian",
}


@pytest.mark.parametrize("swarm", [({"LocalNodeState": "active"}, True), ({"LocalNodeState": "inactive"}, False)])
def test_info_tells_whether_swarm_is_on(swarm: tuple[Any, bool]) -> None:
    document = {
        **INFO,
        "Swarm": swarm[0],
    }
    found = parse.info(msgspec.json.encode(document), "1.44", "info")
    assert (found.swarm_active, found.cgroup_version, found.api_version) == (swarm[1], "1", "1.44")


def test_info_tells_which_registries_may_be_insecure_and_which_mirror() -> None:
    document = {
        **INFO,
        "Architecture": "aarch64",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "IndexConfigs": {"docker.io": {"Secure": True}, "own:5000": {"Secure": False}},
            "Mirrors": ["https://mirror.example/"],
        },
    }
    found = parse.info(msgspec.json.encode(document), "1.44", "info")
    assert (found.insecure_registries, found.machine) == (("own:5000", "127.0.0.0/8"), "aarch64")
    assert found.mirrors == ("https://mirror.example/",)


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_value_or_a_refusal(data: bytes) -> None:
    for reader in (parse.container, parse.containers, parse.networks, parse.volumes, parse.images, parse.event):
        try:
            reader(data, "here")
        except EngineError as error:
            assert error.message.startswith("here: ")  # noqa: PT017 -- either outcome is right


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["Id", "Name", "State", "Created", "Config", "HostConfig", "Mounts", "NetworkSettings"])
        | st.sampled_from(["State__Health", "HostConfig__PortBindings", "HostConfig__Memory", "State__StartedAt"]),
        json_values,
        max_size=2,
    )
)
def test_no_document_ends_in_anything_but_a_value_or_a_refusal(changes: dict[str, Any]) -> None:
    outer = {path: value for path, value in changes.items() if "__" not in path}
    inner = {path: value for path, value in changes.items() if path.partition("__")[0] not in outer and "__" in path}
    try:
        container(**outer, **inner)
    except EngineError as error:
        assert error.message.startswith("container web-1: ")  # noqa: PT017 -- either outcome is right


@pytest.mark.parametrize(
    "line",
    [
        {"errorDetail": {"message": "wrong diff id"}, "error": "wrong diff id"},
        {"stream": "Error unpacking image team/app:1: apply layer error: wrong diff id calculated on extraction\n"},
    ],
)
def test_an_image_that_could_not_be_unpacked_is_not_loaded(line: dict[str, Any]) -> None:
    parse.loaded(b'{"stream":"Loaded image: team/app:1\\n"}', "image team/app:1")
    with pytest.raises(EngineError, match=r"^image team/app:1: the Docker Engine does not take it: .*wrong diff id"):
        parse.loaded(msgspec.json.encode(line), "image team/app:1")


@given(st.text())
def test_a_line_stays_on_its_line_and_says_all(text: str) -> None:
    shown = parse.one_line(text)
    assert shown.isprintable()
    assert not text.isprintable() or shown == text


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), st.integers(-1, 1 << 40) | st.none()))
def test_limits_of_both_sides_come_to_the_same_form(host: dict[str, int | None]) -> None:
    """What the Engine fills in beside what was asked changes nothing."""
    found = updatable(wire.HostConfig(**host))  # type: ignore[arg-type]
    asked = {field: found[key] for field, key in KEYS.items() if key in found}
    filled = dict.fromkeys(KEYS, 0) | {"memory_swap": 2 * asked.get("memory", 0), "pids_limit": -1} | asked
    assert updatable(HostConfig(**filled, cpuset_cpus="0-1")) == found  # type: ignore[arg-type]
    assert updatable(HostConfig(**asked)) == found  # type: ignore[arg-type]
