"""The bodies as they go to the Engine: which keys are sent, how they are spelled, what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from dom0.engine import bodies
from dom0.engine.bodies import ContainerBody, EndpointSettings, HostConfig, NetworkBody, PortBinding, Resources
from dom0.testing.builders import as_sent

KINDS = [kind for _, kind in inspect.getmembers(bodies, inspect.isclass) if issubclass(kind, bodies.Body)]
IRREGULAR = {  # as the API spells them, where that is not the field's name in CamelCase
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "DeviceIDs",
    "EnableIPv4",
    "EnableIPv6",
    "IPAM",
    "IPAMConfig",
    "IPRange",
    "IPv4Address",
    "IPv6Address",
    "LinkLocalIPs",
    "UTSMode",
}


def test_the_keys_are_spelled_as_the_api_does() -> None:
    found = {
        key
        for kind in KINDS
        for field, key in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
        if key != "".join(part.capitalize() for part in field.split("_"))
    }
    assert found == IRREGULAR


def test_what_was_not_asked_for_is_not_sent() -> None:
    assert as_sent(ContainerBody(image="app")) == {"Image": "app"}
    assert as_sent(NetworkBody()) == {}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (ContainerBody(cmd=(), entrypoint=()), {"Cmd": [], "Entrypoint": []}),
        (ContainerBody(stop_timeout=0), {"StopTimeout": 0}),
        (HostConfig(masked_paths=(), readonly_paths=()), {"MaskedPaths": [], "ReadonlyPaths": []}),
        (HostConfig(init=False), {"Init": False}),
        (HostConfig(extra_hosts=(), mounts=(), port_bindings={}), {"ExtraHosts": [], "Mounts": [], "PortBindings": {}}),
        (Resources(oom_kill_disable=False), {"OomKillDisable": False}),
        (NetworkBody(enable_ipv4=False), {"EnableIPv4": False}),
        (HostConfig(port_bindings={"80/tcp": (PortBinding(),)}), {"PortBindings": {"80/tcp": [{}]}}),
    ],
    ids=lambda value: "" if isinstance(value, bodies.Body) else "-".join(value),
)
def test_what_is_empty_on_purpose_is_sent(body: bodies.Body, sent: dict[str, Any]) -> None:
    assert as_sent(body) == sent
    assert msgspec.convert(sent, type(body)) == body


@pytest.mark.parametrize(
    "text",
    [
        '{"HostConfig": {"privileged": true}}',
        '{"HostConfig": {"CapAdd": "SYS_ADMIN"}}',
        '{"Hostconfig": {}}',
        '{"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {}}}]}}',
    ],
)
def test_a_key_that_is_not_known_and_a_wrong_type_are_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=ContainerBody)


def test_an_endpoint_without_settings_is_sent() -> None:
    networking = bodies.NetworkingConfig(endpoints_config={"lan": EndpointSettings()})
    assert as_sent(ContainerBody(networking_config=networking)) == {
        "NetworkingConfig": {"EndpointsConfig": {"lan": {}}}
    }
