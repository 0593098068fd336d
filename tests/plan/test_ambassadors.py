"""A service with `x-dom0.ambassador` → what the Engine is asked for; and services that forward by their image alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dom0.engine.bodies import Mount
from dom0.errors import ProjectError
from dom0.plan import labels
from dom0.plan.desired import Desired, Order, Slot
from dom0.plan.expand import expand
from dom0.testing.projects import facts, image, project

LISTEN = "listen: {'6379': {to: ['10.0.0.4:6379']}}"
OTHER = "listen: {'6379': {to: ['10.0.0.5:6379']}}"

FORWARDING = {
    "net.ipv4.ip_forward": "1",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "net.netfilter.nf_conntrack_acct": "1",
}


def expanded(service: str = "", ambassador: str = LISTEN, *, network: str = "", images: Any = ()) -> Desired:
    own = f"x-dom0: {{ambassador: {{{ambassador}}}}}" if ambassador else ""
    keys = ", ".join(part for part in (own, service) if part)
    found = project(f"{{services: {{redis: {{{keys}}}}}, networks: {{default: {{name: n, {network}}}}}}}")
    return expand(found, facts(found, *images))


def slot(service: str = "", ambassador: str = LISTEN, **more: Any) -> Slot:
    (found,) = expanded(service, ambassador, **more).slots
    return found


def test_the_container_gets_its_settings_and_what_forwarding_takes() -> None:
    create = slot().create
    (variable,) = create.env
    name, _, settings = variable.partition("=")
    assert name == "DOM0_AMBASSADOR"
    assert json.loads(settings) == {"listen": {"6379": {"to": ["10.0.0.4:6379"]}}}
    assert create.host_config.cap_add == ("NET_ADMIN", "NET_RAW")
    assert create.host_config.sysctls == FORWARDING
    assert create.labels[labels.AMBASSADOR] == "true"


def test_forwarding_of_ipv6_is_switched_on_where_a_network_has_it() -> None:
    sysctls = slot(network="enable_ipv6: true").create.host_config.sysctls
    assert sysctls == FORWARDING | {"net.ipv6.conf.all.forwarding": "1"}


def test_what_the_service_says_itself_stands() -> None:
    said = "cap_add: [NET_RAW, SYS_TIME], sysctls: {net.ipv4.ip_forward: '0', net.core.somaxconn: '9'}"
    host = slot(said).create.host_config
    assert host.cap_add == ("NET_RAW", "SYS_TIME", "NET_ADMIN")
    assert host.sysctls == FORWARDING | {"net.ipv4.ip_forward": "0", "net.core.somaxconn": "9"}


def test_its_state_outlives_the_container_and_one_stops_before_the_next_starts() -> None:
    desired = expanded()
    mount = Mount(type="volume", source="box_redis-ambassador", target="/var/lib/dom0-ambassador")
    assert desired.slots[0].create.host_config.mounts == (mount,)
    assert desired.slots[0].volumes == ("box_redis-ambassador",)
    assert [volume.name for volume in desired.volumes] == ["box_redis-ambassador"]
    assert desired.slots[0].order is Order.STOP_FIRST


def test_a_place_of_its_own_for_the_state_is_taken() -> None:
    desired = expanded("volumes: [{type: bind, source: /srv/state, target: /var/lib/dom0-ambassador}]")
    assert desired.volumes == ()
    mount = Mount(type="bind", source="/srv/state", target="/var/lib/dom0-ambassador")
    assert desired.slots[0].create.host_config.mounts == (mount,)


def test_other_settings_need_another_container_and_the_same_ones_do_not() -> None:
    assert slot().hash == slot().hash
    assert slot().hash != slot(ambassador=OTHER).hash


def test_a_service_without_it_is_untouched() -> None:
    assert slot(ambassador="").create == slot("x-dom0: {health_gate: true}", ambassador="").create
    assert labels.AMBASSADOR not in slot(ambassador="").create.labels


def test_the_image_alone_makes_an_ambassador_too() -> None:
    own = image("busybox:test", labels={"dom0.role": "ambassador"})
    found = slot(ambassador="", images=[own])
    assert found.create.labels[labels.AMBASSADOR] == "true"
    assert found.hash == slot(ambassador="").hash


@pytest.mark.parametrize(
    ("service", "refused"),
    [
        ("environment: {DOM0_AMBASSADOR: '{}'}", r"services.redis.environment.DOM0_AMBASSADOR: .* says the same"),
        ("network_mode: host", r"services.redis.network_mode: .* host gives it none"),
        ("network_mode: none", r"services.redis.network_mode: .* none gives it none"),
        ("network_mode: 'container:web'", r"services.redis.network_mode: .* container:web gives it none"),
        ("scale: 2", r"services.redis: an ambassador runs once, not 2 times"),
    ],
)
def test_what_cannot_be_is_refused(service: str, refused: str) -> None:
    with pytest.raises(ProjectError, match=refused):
        expanded(service)
