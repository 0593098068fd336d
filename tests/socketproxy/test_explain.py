"""What would be refused of a body: all of it, and grants that would do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.engine import bodies
from dom0.socketproxy import explain
from dom0.socketproxy.grants import Grants, Images


def explained(body: dict[str, Any]) -> list[tuple[str, Grants | None]]:
    return [(one.field, one.grant) for one in explain.container(json.dumps(body).encode(), Grants())]


def test_all_that_would_be_refused_is_found() -> None:
    body = {
        "Image": "web:1",
        "Cmd": ["sleep", "1"],
        "HostConfig": {
            "CapAdd": ["NET_ADMIN", "ALL"],
            "PortBindings": {"80/tcp": [{"HostPort": "80"}, {"HostPort": ""}]},
            "Privileged": True,
            "MaskedPaths": [],
            "Memory": 1,
            "Unknown": 1,
        },
        "NetworkingConfig": {"EndpointsConfig": {"front": {"DriverOpts": {"a": "b"}}, "back": {}}},
        "Future": True,
        "Empty": None,
    }
    assert explained(body) == [
        ("Image", Grants(images=Images(use=("web:1",)))),
        ("HostConfig.CapAdd", Grants(capabilities=("NET_ADMIN",))),
        ("HostConfig.CapAdd", None),
        ("HostConfig.PortBindings", Grants(ports=("80/tcp",))),
        ("HostConfig.PortBindings", Grants(ports=("0/tcp",))),
        ("HostConfig.Privileged", None),
        ("HostConfig.MaskedPaths", None),
        ("HostConfig.Unknown", None),
        ("EndpointsConfig.DriverOpts", None),
        ("Future", None),
    ]


def test_what_is_only_wrong_together_is_found() -> None:
    together = {
        "HostConfig": {"NetworkMode": "none", "CapAdd": ["CHOWN"]},
        "NetworkingConfig": {"EndpointsConfig": {"front": {}}},
    }
    assert explained(together) == [
        ("HostConfig.CapAdd", Grants(capabilities=("CHOWN",))),
        ("NetworkingConfig.EndpointsConfig", None),
    ]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"Image": "a", "image": "b"}', b'{"HostConfig": 1}'])
def test_what_is_no_body_is_refused(raw: bytes) -> None:
    assert [one.grant for one in explain.container(raw, Grants())] == [None]


def test_a_network_and_a_volume() -> None:
    (driver,) = explain.network(bodies.NetworkBody(driver="macvlan"), "front", Grants())
    assert (driver.field, driver.value) == ("Driver", "'macvlan'")
    (options,) = explain.volume(bodies.VolumeBody(driver_opts={"device": "/"}), "data")
    assert options.field == "DriverOpts"
    assert explain.network(bodies.NetworkBody(internal=True), "front", Grants()) == []
    assert explain.volume(bodies.VolumeBody(), "data") == []


asked = st.fixed_dictionaries(
    {},
    optional={
        "Image": st.sampled_from(["web", "web:1", "localhost:5000/a/b:c", "a@sha256:" + "0" * 64]),
        "HostConfig": st.fixed_dictionaries(
            {},
            optional={
                "Binds": st.lists(st.sampled_from(["/srv:/a:ro", "/srv:/b", "/srv/in/../x:/c", "data:/d"]), max_size=4),
                "CapAdd": st.lists(st.sampled_from(["CAP_CHOWN", "net_admin", "SYS_TIME"]), max_size=3),
                "PortBindings": st.dictionaries(
                    st.sampled_from(["80/tcp", "53/udp"]),
                    st.lists(
                        st.fixed_dictionaries(
                            {"HostPort": st.sampled_from(["80", "8000-8010"])},
                            optional={"HostIp": st.sampled_from(["127.0.0.1", "::1", "0.0.0.0"])},  # noqa: S104
                        ),
                        max_size=3,
                    ),
                ),
            },
        ),
    },
)


@given(asked)
def test_what_it_would_take_is_enough(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    granted = explain.needed(explain.container(raw, Grants()), Grants())
    assert explain.container(raw, granted) == []
