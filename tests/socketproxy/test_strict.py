from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.engine.bodies import Empty, EndpointSettings
from dom0.socketproxy import requests, strict
from dom0.socketproxy.refusal import Refused


@pytest.mark.parametrize(
    "text",
    [
        '{"HostConfig": {}, "HostConfig": {}}',
        '{"HostConfig": {}, "hostconfig": {}}',
        '{"Kind": 1, "\u212aind": 2}',
        '{"Hosts": 1, "Ho\u017fts": 2}',
        "{} {}",
        "[1",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": "\\ud800"}',
        '{"a": 99999999999999999999}',
        "[" * 100_000,
        '{/* a */ "a": 1}',
        "\ufeff{}",
        '{"a": 01}',
        "{'a': 1}",
    ],
)
def test_what_two_readers_may_read_differently_is_no_json(text: str) -> None:
    with pytest.raises(Refused) as refused:
        strict.parse(text.encode("utf-8", "surrogatepass"))
    assert refused.value.status == 400


def test_another_encoding_is_refused() -> None:
    with pytest.raises(Refused):
        strict.parse(json.dumps({"Image": "a"}).encode("utf-16"))


@pytest.mark.parametrize("empty", [None, "", 0, False, [], {}])
def test_a_key_that_is_not_known_is_dropped_while_it_says_nothing(empty: object) -> None:
    body = strict.read(
        json.dumps({"Image": "a", "OfTomorrow": empty, "HostConfig": {"Too": empty}}).encode(),
        requests.Container,
    )
    assert body == requests.Container(image="a")


@pytest.mark.parametrize("key", ["OfTomorrow", "image", "IMAGE", "Hostname "])
def test_a_key_that_is_not_known_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(Refused, match=key.strip()) as refused:
        strict.read(json.dumps({"HostConfig": {key: "x"}}).encode(), requests.Container)
    assert (refused.value.status, refused.value.field) == (403, f"HostConfig.{key}")


@pytest.mark.parametrize(
    "host",
    [
        {"CapAdd": "ALL"},
        {"Privileged": "true"},
        {"Memory": "1"},
        {"Memory": 1.5},
        {"Init": 1},
        {"Binds": {"a": "b"}},
        [],
    ],
)
def test_types_are_exact(host: object) -> None:
    with pytest.raises(Refused):
        strict.read(json.dumps({"HostConfig": host}).encode(), requests.Container)


def test_what_was_said_on_purpose_stays_although_it_is_empty() -> None:
    asked = {"Image": "a", "Cmd": [], "Entrypoint": [], "Labels": {"a": ""}, "HostConfig": {"Init": False}}
    body = strict.read(json.dumps(asked).encode(), requests.Container)
    assert (body.cmd, body.entrypoint, body.labels, body.host_config.init) == ((), (), {"a": ""}, False)


def test_what_an_inspection_says_may_be_sent_back() -> None:
    endpoint = {"Aliases": ["a"], "IPAddress": "1.2.3.4", "NetworkID": "0" * 64}
    asked = {"NetworkingConfig": {"EndpointsConfig": {"n": endpoint}}}
    body = strict.read(json.dumps(asked).encode(), requests.Container)
    assert body.networking_config == requests.Networking(endpoints_config={"n": EndpointSettings(aliases=("a",))})


def test_what_is_null_in_a_mapping_is_empty() -> None:
    asked = {"ExposedPorts": {"80/tcp": None}, "HostConfig": {"PortBindings": {"80/tcp": None}}}
    body = strict.read(json.dumps(asked).encode(), requests.Container)
    assert (body.exposed_ports, body.host_config.port_bindings) == ({"80/tcp": Empty()}, {"80/tcp": ()})


@pytest.mark.parametrize("depth", [100, 400, 600, 900, 5000])
def test_a_body_of_any_depth_is_read_or_refused(depth: int) -> None:
    text = '{"Labels": ' + "[" * depth + "]" * depth + "}"
    with pytest.raises(Refused):
        strict.read(text.encode(), requests.Container)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)


@given(JSON)
def test_any_document_is_read_or_refused(document: object) -> None:
    with contextlib.suppress(Refused):
        strict.read(json.dumps(document).encode(), requests.Container)
