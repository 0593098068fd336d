"""A create body: what passes, as the Engine gets it, and what does not, with the grant that it would take."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.engine import bodies
from dom0.socketproxy import requests, rules, strict
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import LABEL, ORCHESTRATOR, PATHS, Scope

GUEST = Scope("guest")
ID = "a" * 64
NOTHING = Grants()
SOCKET = "/run/dom0/scopes/guest/docker.sock"


class Any64(dict[str, str]):
    """Whatever is referred to is there."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, key: str) -> str:
        return self._of.format(key)


def create(asked: dict[str, Any], grants: Grants = NOTHING, name: str = "web", **of_image: Any) -> dict[str, Any]:
    body = strict.read(json.dumps({"Image": "a:1", **asked}).encode(), requests.Container)
    resolved = rules.Resolved(
        image="a:1",
        **of_image,
        socket=SOCKET,
        containers=Any64(ID),
        named=Any64("guest.{}"),
        networks=Any64("guest.{}"),
        volumes=Any64("guest.{}"),
    )
    sent = msgspec.json.encode(rules.container(body, GUEST, grants, resolved, name))
    return dict(json.loads(sent))


def host(**more: Any) -> dict[str, Any]:
    return dict(create({"HostConfig": more})["HostConfig"])


def test_it_has_the_scopes_label_and_its_name_on_the_network() -> None:
    sent = create({"Labels": {"a": "b"}, "HostConfig": {"NetworkMode": "front"}})
    assert sent["Labels"] == {"guest/a": "b", LABEL: "/guest", ORCHESTRATOR: "", PATHS: ""}
    assert sent["NetworkingConfig"] == {"EndpointsConfig": {"guest.front": {"Aliases": ["web"]}}}
    assert sent["HostConfig"]["NetworkMode"] == "guest.front"


@pytest.mark.parametrize("mode", ["", "default", "bridge"])
def test_without_a_network_it_is_on_the_scopes_own_bridge(mode: str) -> None:
    assert host(NetworkMode=mode)["NetworkMode"] == f"guest.{mode}"


@pytest.mark.parametrize("key", ["NetworkMode", "PidMode", "IpcMode"])
def test_a_namespace_is_shared_with_the_scopes_own_by_id(key: str) -> None:
    assert host(**{key: "container:db"})[key] == f"container:{ID}"


def test_links_are_of_the_network_and_keep_their_names() -> None:
    sent = create({"HostConfig": {"Links": ["db", "cache:redis"]}})
    assert sent["NetworkingConfig"]["EndpointsConfig"]["guest."]["Links"] == ["guest.db:db", "guest.cache:redis"]
    assert "Links" not in sent["HostConfig"]


@pytest.mark.parametrize(
    ("bind", "sent"),
    [
        ("data:/d", "guest.data:/d"),
        ("data:/d:ro", "guest.data:/d:ro"),
        ("data:/d:z", "guest.data:/d"),
        ("d:/d:ro,nocopy", "guest.d:/d:ro,nocopy"),
    ],
)
def test_a_bind_of_a_volume_is_of_the_scopes(bind: str, sent: str) -> None:
    assert host(Binds=[bind])["Binds"] == [sent]


@pytest.mark.parametrize(
    "asked",
    [
        {"Binds": ["/var/run/docker.sock:/s"]},
        {"Mounts": [{"Type": "bind", "Source": "/run/docker.sock", "Target": "/s"}]},
    ],
)
def test_the_engines_socket_is_the_scopes_own(asked: dict[str, Any]) -> None:
    sent = host(**asked)
    assert sent["Mounts"] == [{"Type": "bind", "Source": SOCKET, "Target": "/s", "ReadOnly": True}]
    assert "Binds" not in sent


@pytest.mark.parametrize(
    ("asked", "field", "grant", "said"),
    [
        (
            {"Binds": ["/etc:/e"]},
            "HostConfig.Binds",
            Grants(paths=("/etc",)),
            """HostConfig.Binds: '/etc': not granted; it would take the grant paths: ["/etc"]""",
        ),
        (
            {"Mounts": [{"Type": "bind", "Source": "/etc/x/..", "Target": "/e", "ReadOnly": True}]},
            "HostConfig.Mounts",
            Grants(paths=("/etc:ro",)),
            """HostConfig.Mounts: '/etc/x/..': not granted; it would take the grant paths: ["/etc:ro"]""",
        ),
        (
            {"CapAdd": ["CAP_NET_ADMIN"]},
            "HostConfig.CapAdd",
            Grants(capabilities=("NET_ADMIN",)),
            "HostConfig.CapAdd: 'CAP_NET_ADMIN': not granted; it would take the grant capabilities: [NET_ADMIN]",
        ),
        (
            {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
            "HostConfig.PortBindings",
            Grants(ports=("80/tcp",)),
            """HostConfig.PortBindings: '80/tcp': not granted; it would take the grant ports: ["80/tcp"]""",
        ),
    ],
)
def test_a_refusal_says_the_field_and_the_grant_that_would_do(
    asked: dict[str, Any], field: str, grant: Grants, said: str
) -> None:
    with pytest.raises(Refused) as refused:
        host(**asked)
    assert (refused.value.status, refused.value.field, refused.value.grant) == (403, field, grant)
    assert refused.value.message == said
    create({"HostConfig": asked}, grant)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"Binds": ["/etc:/e"]}, "HostConfig.Binds"),
        ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/e"}]}, "HostConfig.Mounts"),
    ],
)
def test_a_path_of_the_host_is_refused(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        host(**asked)
    assert (refused.value.status, refused.value.field) == (403, field)


def test_a_volume_without_a_name_is_wanted_where_nothing_else_is_mounted() -> None:
    asked = requests.Container(
        volumes={"/a/": bodies.Empty(), "/b": bodies.Empty(), "/c": bodies.Empty(), "/d": bodies.Empty()},
        host_config=requests.HostConfig(
            binds=("data:/b/x/..:ro",), mounts=(bodies.Mount(type="tmpfs", target="/c"),), tmpfs={"/e": ""}
        ),
    )
    assert rules.anonymous(asked, ["/e", "/f", "/a"], ["/d"]) == ["/a", "/f"]
    with pytest.raises(Refused, match="no path"):
        rules.anonymous(requests.Container(volumes={"a": bodies.Empty()}), (), ())


def test_a_granted_capability_passes_in_any_spelling() -> None:
    sent = create({"HostConfig": {"CapAdd": ["cap_net_admin"]}}, Grants(capabilities=("NET_ADMIN",)))
    assert sent["HostConfig"]["CapAdd"] == ["NET_ADMIN"]


@pytest.mark.parametrize("path", ["/", "/proc/1/root", "/var/run", "/var/lib/docker/volumes"])
def test_a_path_that_nobody_can_be_granted_is_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        host(Binds=[f"{path}:/x"])
    assert (refused.value.status, refused.value.field, refused.value.grant) == (403, "HostConfig.Binds", None)


def test_only_containers_can_be_orchestrators() -> None:
    labels = {LABEL: "/team", ORCHESTRATOR: "{}", "a": "b"}
    asked = requests.Network(name="n", labels=labels)
    sent = {LABEL: "/guest/team", "guest/a": "b"}
    assert rules.network(asked, GUEST, NOTHING).labels == sent
    assert rules.volume(bodies.VolumeBody(name="v", labels=labels), GUEST).labels == sent


LONG = "x" * rules.LARGEST_LISTED


@pytest.mark.parametrize(
    ("asked", "of_image", "said"),
    [
        ({"Cmd": ["sh", "-c", LONG]}, {}, "the body"),
        ({"Entrypoint": [LONG]}, {}, "the body"),
        ({"Cmd": ["\x01" * (len(LONG) // 6)]}, {}, "the body"),
        ({"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": f"/{LONG}"}]}}, {}, "the body"),
        ({}, {"image_command": (LONG,)}, "the body"),
        ({"Env": [f"A={LONG}"]}, {}, "Env and Healthcheck"),
        ({"Env": [LONG[: len(LONG) // 2]], "Healthcheck": {"Test": [LONG[: len(LONG) // 2]]}}, {}, "Env and Healthch"),
        ({}, {"image_environment": (LONG,)}, "Env and Healthcheck"),
    ],
)
def test_a_container_ends_where_others_could_not_read_its_rows(
    asked: dict[str, Any], of_image: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=rf"^{said}.* put what is so long into a file"):
        create(asked, **of_image)


def test_a_container_as_long_as_anybodys_passes() -> None:
    create({"Cmd": ["sh", "-c", "x" * 100_000], "Env": [f"A{number}={'x' * 100}" for number in range(1000)]})


def test_an_exec_and_a_network_have_an_end() -> None:
    assert rules.execution(requests.Exec(cmd=("x" * 100_000,))).cmd
    with pytest.raises(Refused, match="the exec"):
        rules.execution(requests.Exec(cmd=("x" * 100_000,), env=(LONG,)))
    with pytest.raises(Refused, match=r"the network: .* ask for less"):
        rules.network(requests.Network(name="n", options={rules.NETWORK_OPTIONS[0]: LONG}), GUEST, NOTHING)


def test_a_granted_port_passes() -> None:
    asked = {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}
    sent = create({"HostConfig": asked}, Grants(ports=("8080-8090",)))
    assert sent["HostConfig"]["PortBindings"] == asked["PortBindings"]


@pytest.mark.parametrize("port", ["", "0"])
def test_a_port_that_the_engine_chooses_has_a_grant_of_its_own(port: str) -> None:
    asked = {"PortBindings": {"80/tcp": [{"HostPort": port}]}}
    assert create({"HostConfig": asked}, Grants(ports=("0",)))["HostConfig"]["PortBindings"]["80/tcp"]
    with pytest.raises(Refused) as refused:
        create({"HostConfig": asked}, Grants(ports=("1-65535",)))
    assert refused.value.grant == Grants(ports=("0/tcp",))


@pytest.mark.parametrize(("of_image", "may"), [(100, True), (101, False)])
def test_a_container_has_as_many_ports_as_lists_of_it_can_say(of_image: int, may: bool) -> None:
    bound = {f"{port}/udp": [{"HostPort": str(port)}] for port in range(8000, 8400)}
    exposed: dict[str, Any] = {port: {} for port in (*bound, *(f"{port}/tcp" for port in range(1, 501)))}
    asked = {"ExposedPorts": exposed, "HostConfig": {"PortBindings": bound}}
    with contextlib.nullcontext() if may else pytest.raises(Refused, match="ExposedPorts: more than 1000"):
        create(asked, Grants(ports=("8000-9000/udp",)), image_ports=of_image)


def test_the_engine_chooses_some_ports_of_a_container_and_not_each_of_the_host() -> None:
    granted, most = Grants(ports=("0", "8000-9000")), rules.MOST_CHOSEN_PORTS
    several = [{"HostPort": port} for port in ("", "0", "00", "0-0")] * (most // 4)
    assert rules.chosen_ports({"80/tcp": several, "81/tcp": None}) == most
    plain = {f"{port}/tcp": [{"HostPort": str(port)}] for port in range(8000, 8900)}
    create({"HostConfig": {"PortBindings": {**plain, "80/tcp": several}}}, granted)
    with pytest.raises(Refused, match="21 ports that the Engine chooses, of 20 in one container: publish fewer"):
        create({"HostConfig": {"PortBindings": {"80/tcp": several, "81/tcp": [{}]}}}, granted)


@pytest.mark.parametrize("port", ["8080-", "x", "70000", "0-1"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(Refused):
        create({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": port}]}}}, Grants(ports=("1-65535",)))


@pytest.mark.parametrize(
    ("path", "permissions", "passes"),
    [
        ("/dev/ttyUSB0", "rwm", True),
        ("/dev/ttyUSB0", "", True),
        ("/dev/fuse", "rw", True),
        ("/dev/fuse", "rwm", False),
        ("/dev/fuse", "", False),
        ("/dev/ttyUSB1", "r", False),
        ("/dev", "r", False),
        ("/dev/x/../ttyUSB0", "r", False),
        ("//dev/ttyUSB0", "r", False),
    ],
)
def test_exactly_the_devices_that_were_granted_pass(path: str, permissions: str, passes: bool) -> None:
    asked = [{"PathOnHost": path, "PathInContainer": "/dev/x", "CgroupPermissions": permissions}]
    grants = Grants(devices=("/dev/ttyUSB0", "/dev/fuse:rw"))
    with contextlib.nullcontext() if passes else pytest.raises(Refused, match="Devices"):
        assert create({"HostConfig": {"Devices": asked}}, grants)["HostConfig"]["Devices"] == asked


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"Subnet": "10.1.2.0/24", "Gateway": "10.1.2.1", "IPRange": "10.1.2.128/25"}, ""),
        ({"Subnet": "fd00:1:2::/64"}, ""),
        ({"Subnet": "10.2.0.0/24"}, "not granted"),
        ({"Subnet": "10.0.0.0/8"}, "not granted"),
        ({"Subnet": "::ffff:10.1.2.0/120"}, "not granted"),
        ({"Subnet": "10.1.2.3/24"}, "host bits set"),
        ({"Gateway": "10.1.2.1"}, "IPAM.Config"),
        ({"Subnet": "10.1.2.0/24", "Gateway": "192.168.0.1"}, "is not in"),
        ({"Subnet": "10.1.2.0/24", "IPRange": "10.0.0.0/8"}, "is not in"),
        ({"Subnet": "10.1.2.0/24", "AuxiliaryAddresses": {"a": "10.1.3.1"}}, "is not in"),
    ],
)
def test_a_network_has_addresses_that_were_granted(pool: dict[str, Any], said: str) -> None:
    asked = strict.read(json.dumps({"Name": "n", "IPAM": {"Config": [pool]}}).encode(), requests.Network)
    grants = Grants(subnets=("10.1.0.0/16", "fd00:1::/32"))
    with pytest.raises(Refused, match=re.escape(said)) if said else contextlib.nullcontext():
        sent = json.loads(msgspec.json.encode(rules.network(asked, GUEST, grants)))
        assert sent["IPAM"] == {"Config": [pool]}


@pytest.mark.parametrize("name", ["ALL", "cap_all", "NET_ADMN"])
def test_what_no_grant_can_name_is_no_capability_to_add(name: str) -> None:
    with pytest.raises(Refused, match="not through this socket"):
        create({"HostConfig": {"CapAdd": [name]}}, Grants())


def test_every_key_of_a_host_config_passes_is_refused_or_has_a_rule() -> None:
    """A key that the model learns has to be decided upon."""
    keys = {field.name for field in msgspec.structs.fields(requests.HostConfig)}
    assert keys >= rules.PASS | rules.NEVER
    assert not rules.PASS & rules.NEVER
    assert keys - rules.PASS - rules.NEVER == {
        *("binds", "mounts", "tmpfs", "volumes_from", "links", "network_mode", "port_bindings", "publish_all_ports"),
        *("cap_add", "security_opt", "sysctls", "log_config", "runtime", "isolation", "oom_score_adj"),
        *("volume_driver", "devices", "ulimits"),
        *("cgroupns_mode", "ipc_mode", "pid_mode", "userns_mode", "uts_mode", "memory_swappiness"),
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("Ulimits", [{"Name": name, "Soft": 99, "Hard": 99}]) for name in ("rtprio", "RTPRIO", "nice", "n\u0131ce")),
    ],
)
def test_what_the_engine_and_others_would_pay_for_is_refused(key: str, value: object) -> None:
    with pytest.raises(Refused, match=f"{key}.*not through this socket"):
        host(**{key: value})


@pytest.mark.parametrize(("key", "value"), [("MaskedPaths", []), ("ReadonlyPaths", [])])
def test_a_value_that_is_empty_and_yet_takes_protection_away_is_refused(key: str, value: object) -> None:
    with pytest.raises(Refused, match=key):
        host(**{key: value})


def test_an_update_gives_no_more_than_a_create() -> None:
    assert rules.update(requests.Update(memory=1 << 20), NOTHING) == requests.Update(memory=1 << 20)
    with pytest.raises(Refused, match="CpuRealtimeRuntime"):
        rules.update(requests.Update(cpu_realtime_runtime=1000), NOTHING)


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        ({"NanoCpus": 1_500_000_000}, True),
        ({"NanoCpus": 1_500_000_001}, False),
        ({"CpuQuota": 150_000}, True),
        ({"CpuQuota": 150_001}, False),
        ({"CpuQuota": 80_000, "CpuPeriod": 50_000}, False),
        ({"CpuQuota": -1}, True),
    ],
)
def test_processors_are_at_most_those_of_the_budget(asked: dict[str, int], may: bool) -> None:
    granted = Grants(cpus=1.5)
    if may:
        assert create({"HostConfig": asked}, granted)["HostConfig"].items() >= asked.items()
        return
    with pytest.raises(Refused) as refused:
        create({"HostConfig": asked}, granted)
    assert refused.value.grant is not None
    assert (refused.value.grant.cpus or 0) > 1.5


VALUES = st.sampled_from(
    [
        True,
        1,
        -1,
        "host",
        "container:x",
        "/etc",
        "/etc:/e",
        ["ALL"],
        ["/etc:/e"],
        ["seccomp=unconfined"],
        {"a": "b"},
        [{"Type": "bind", "Source": "/"}],
    ]
) | st.text(max_size=12)
POWERFUL = (
    "Privileged",
    "Devices",
    "DeviceRequests",
    "DeviceCgroupRules",
    "CgroupParent",
    "Cgroup",
    "Runtime",
    "StorageOpt",
    "MaskedPaths",
)
KEYS = st.sampled_from([field.encode_name for field in msgspec.structs.fields(requests.HostConfig)] + list(POWERFUL))


@settings(max_examples=1000)
@given(st.dictionaries(KEYS | st.text(max_size=10), VALUES, max_size=4))
def test_whatever_passes_has_no_power(asked: dict[str, Any]) -> None:
    try:
        sent = host(**asked)
    except Refused:
        return
    assert not set(POWERFUL) & set(sent)
    assert not sent.get("CapAdd")
    assert all(bind.startswith("guest.") for bind in sent.get("Binds", []))
    assert all(mount["Type"] != "bind" or mount["Source"] == SOCKET for mount in sent.get("Mounts", []))
    for key in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"):
        assert sent.get(key, "") in ("", "none", "private", "shareable", f"container:{ID}") or sent[key].startswith(
            "guest."
        )
    assert set(sent.get("SecurityOpt", [])) <= set(rules.NO_NEW_PRIVILEGES)
    assert not any(sent.get("PortBindings", {}).values())
    assert sent.get("OomScoreAdj", 0) >= 0
