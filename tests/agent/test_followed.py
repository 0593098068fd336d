"""Which addresses stand behind what an ambassador cannot find by itself."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.agent.followed import Located, find, find_behind, find_published, wanted
from dom0.agent.readiness import ReadyStarts
from dom0.engine.values import Container, Endpoint, Health, PublishedPort, State
from dom0.plan import labels
from dom0.testing.builders import PROJECT, container, slot

AMBASSADOR = container(
    slot("echo"), id="a" * 64, endpoints=(Endpoint(network="n", network_id="n", ip_address="10.0.0.9"),)
)

READY = ReadyStarts(PROJECT)


def provider(service: str, address: str, *, network: str = "n", **fields: Any) -> Container:
    endpoint = Endpoint(network=network, network_id=network, ip_address=address, ipv6_address=fields.pop("v6", ""))
    return container(slot(service), id=f"{address:0<64.64}", endpoints=(endpoint,), **fields)


def found(text: str, *containers: Container) -> tuple[str, ...]:
    (source,) = wanted([text])
    return find([source], AMBASSADOR, containers, READY).addresses[source.key]


def test_what_an_ambassador_finds_by_itself_is_left_to_it() -> None:
    assert wanted(["10.0.0.1:80", "name:80", "no source at all"]) == ()
    assert [str(source) for source in wanted(["service:web:80", "service:web:80", "container:x"])] == [
        "service:web:80",
        "container:x",
    ]


def test_a_service_is_all_its_containers() -> None:
    assert found(
        "service:web:80", provider("web", "10.0.0.2"), provider("web", "10.0.0.3"), provider("db", "10.0.0.4")
    ) == (
        "10.0.0.2",
        "10.0.0.3",
    )


def test_a_container_is_meant_by_its_whole_name_whoever_made_it() -> None:
    other = provider("web", "10.0.0.2", name="cache", labels={})
    assert found("container:cache:80", other, provider("web", "10.0.0.3", name="cache-2")) == ("10.0.0.2",)


def test_a_service_of_another_project_is_not_ours() -> None:
    other = provider("web", "10.0.0.2", labels={labels.PROJECT: "other", labels.SERVICE: "web"})
    assert found("service:web:80", other) == ()


@pytest.mark.parametrize(("text", "is_meant"), [("tier=db", True), ("tier", True), ("tier=web", False), ("tie", False)])
def test_a_label_is_meant_with_its_value_or_without(text: str, is_meant: bool) -> None:
    labelled = provider("web", "10.0.0.2", labels={"tier": "db"})
    assert found(f"label:{text}:80", labelled) == (("10.0.0.2",) if is_meant else ())


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.EXITED},
        {"state": State.PAUSED},
        {"state": State.RESTARTING},
        {"health": Health.STARTING},
        {"health": Health.UNHEALTHY},
        {"network": "other"},
    ],
    ids=str,
)
def test_one_that_cannot_serve_does_not_count(fields: dict[str, Any]) -> None:
    assert found("service:web:80", provider("web", "10.0.0.2", **fields)) == ()


@pytest.mark.parametrize(("passed", "counts"), [(200.0, True), (100.0, False)])
def test_one_whose_gate_has_passed_counts_before_the_engine_has_looked(passed: float, counts: bool) -> None:
    (source,) = wanted(["service:web:80"])
    web = provider("web", "10.0.0.2", health=Health.STARTING, started=200.0)
    addresses = find([source], AMBASSADOR, [web], ReadyStarts(PROJECT, {web.id: passed})).addresses[source.key]
    assert addresses == (("10.0.0.2",) if counts else ())


def test_a_healthy_one_counts_with_both_families() -> None:
    assert found("service:web:80", provider("web", "10.0.0.2", v6="fd00::2", health=Health.HEALTHY)) == (
        "10.0.0.2",
        "fd00::2",
    )


def test_one_that_is_about_to_be_stopped_does_not_count_and_the_last_one_is_awaited_if_it_comes_back() -> None:
    (source,) = wanted(["service:web:80"])
    one, two = provider("web", "10.0.0.2"), provider("web", "10.0.0.3")
    assert find([source], AMBASSADOR, [one, two], ReadyStarts(PROJECT, ending={one.id: one.started})) == Located(
        {"service:web": ("10.0.0.3",)}, {"service:web": two.id}
    )
    since = ReadyStarts(PROJECT, ending={one.id: one.started - 1})  # it was started again
    assert find([source], AMBASSADOR, [one], since).addresses == {"service:web": ("10.0.0.2",)}
    for comes_back, awaited in ((True, ("service:web",)), (False, ())):
        both = {one.id: comes_back, two.id: comes_back}
        assert find([source], AMBASSADOR, [one, two], READY, both) == Located({"service:web": ()}, {}, awaited)


def test_an_ambassador_is_not_behind_itself() -> None:
    assert found("service:echo:80", AMBASSADOR) == ()


def test_who_has_the_address_is_told_where_it_is_one_container() -> None:
    sources = wanted(["service:web:80", "service:db:80"])
    one, two, three = provider("web", "10.0.0.2"), provider("web", "10.0.0.3"), provider("db", "10.0.0.4")
    assert find(sources, AMBASSADOR, [one, two, three], READY).identities == {"service:db": three.id}
    assert find(sources, AMBASSADOR, [one], READY).identities == {"service:web": one.id}


PUBLISHED = {"6379/tcp": (PublishedPort("tcp", 7000, "10.9.0.1"),), "53/udp": (PublishedPort("udp", 53),)}


@pytest.mark.parametrize(
    ("service", "fields", "ports"),
    [
        ("service:redis:6379", {}, PUBLISHED["6379/tcp"]),
        ("service:redis:53", {}, ()),
        ("service:redis:7000", {}, ()),
        ("service:redis:6379", {"health": Health.STARTING}, None),
        ("service:redis:6379", {"state": State.EXITED}, None),
        ("service:other:6379", {}, None),
    ],
)
def test_other_nodes_are_told_where_a_port_of_a_service_that_is_ready_is_published(
    service: str, fields: dict[str, Any], ports: tuple[PublishedPort, ...] | None
) -> None:
    (source,) = wanted([service])
    redis = provider("redis", "10.0.0.2", published=PUBLISHED, **fields)
    assert find_published(source, [redis], READY) == ports


def test_a_tunnel_leads_to_the_containers_behind_published_ports() -> None:
    (source,) = wanted(["service:redis:6379"])
    one = provider("redis", "10.0.0.2", published=PUBLISHED, v6="fd00::2")
    two = provider(
        "redis", "10.0.0.3", published={"6379/tcp": (PublishedPort("tcp", 7001), PublishedPort("tcp", 7000))}
    )
    starting = provider("redis", "10.0.0.4", published=PUBLISHED, health=Health.STARTING)
    behind = find_behind(source, [starting, one, two, provider("other", "10.0.0.5", published=PUBLISHED)], READY)
    assert behind == ((7000, "10.0.0.2", 6379), (7001, "10.0.0.3", 6379)), "each port once"
    assert find_behind(source, [container(slot("redis"), published=PUBLISHED)], READY) == (), "it has no address"
