"""A service with `x-dom0.orchestrator` → its own socket, and the container beside it that serves it."""

from __future__ import annotations

import json

import pytest

from dom0.engine.bodies import Mount
from dom0.engine.values import Volume
from dom0.errors import ProjectError
from dom0.names import BASE_IMAGE
from dom0.plan.desired import Condition, Dependency, Desired, Order, Role, Slot
from dom0.plan.expand import expand
from dom0.plan.orchestrators import Ending, endings
from dom0.testing.projects import facts, image, project

SOCKET = "/run/dom0/scopes/guest/docker.sock"


def expanded(service: str = "", grants: str = "{}", *, name: str = "guest", groups: str = "/dom0") -> Desired:
    own = f"x-dom0: {{orchestrator: {{grants: {grants}}}}}"
    found = project(f"services: {{{name}: {{{', '.join(part for part in (own, service) if part)}}}}}")
    return expand(found, facts(found, base=image(BASE_IMAGE), scopes=groups))


def slots(service: str = "", grants: str = "{}", *, groups: str = "/dom0") -> tuple[Slot, Slot]:
    """The socket's, the orchestrator's."""
    _, socket, orchestrator = expanded(service, grants, groups=groups).slots
    return socket, orchestrator


def test_it_finds_its_socket_at_the_usual_place_and_waits_for_who_serves_it() -> None:
    socket, orchestrator = slots()
    assert orchestrator.create.host_config.mounts == (
        Mount(type="bind", source=SOCKET, target="/var/run/docker.sock", read_only=True),
    )
    assert orchestrator.depends_on == (Dependency(service="dom0-socket-guest", condition=Condition.HEALTHY),)
    assert orchestrator.order is Order.STOP_FIRST
    assert socket.role is Role.SOCKET
    assert socket.image == BASE_IMAGE
    assert socket.create.cmd == (
        "--scope",
        "guest",
        "--grants",
        "/etc/dom0/grants.json",
        "--holder",
        "/run/dom0/scopes",
    )


def test_what_keeps_the_sockets_is_there_first_and_not_replaced_while_it_runs() -> None:
    holder, socket, _ = expanded().slots
    assert socket.depends_on == (Dependency(service=holder.service, condition=Condition.HEALTHY),)
    assert holder.defer_while == ("dom0.socketproxy.hold",)


def test_logs_of_what_serves_them_are_bounded() -> None:
    for slot in expanded().slots[:2]:
        log = slot.create.host_config.log_config
        assert log is not None
        assert log.config == {"max-size": "5m", "max-file": "2"}


def test_it_is_the_first_of_its_scope() -> None:
    _, orchestrator = slots()
    assert orchestrator.name == "guest.dom0"
    assert orchestrator.create.labels["dom0.scope"] == "/guest"


@pytest.mark.parametrize("source", ["/var/run/docker.sock", "/run/docker.sock"])
def test_where_it_binds_the_engines_socket_it_gets_its_own(source: str) -> None:
    _, orchestrator = slots(f"volumes: [{{type: bind, source: {source}, target: /mnt/engine.sock}}]")
    assert orchestrator.create.host_config.binds == ()
    own = [mount for mount in orchestrator.create.host_config.mounts or () if mount.source == SOCKET]
    assert [mount.target for mount in own] == ["/mnt/engine.sock", "/var/run/docker.sock"]


def test_other_grants_make_another_container_that_serves_it_and_the_orchestrator_stays() -> None:
    socket, orchestrator = slots()
    other, same = slots(grants="{images: {use: ['busybox:*']}}")
    assert json.loads(socket.files[0].content) == {"images": {"use": ["busybox:test"]}}  # its own
    assert json.loads(other.files[0].content) == {"images": {"use": ["busybox:*", "busybox:test"]}}
    assert (other.hash != socket.hash, same.hash == orchestrator.hash) == (True, True)


def test_who_keeps_a_budget_has_the_control_groups_of_the_host() -> None:
    without, _ = slots()
    limited, _ = slots(grants="{memory: 512m}")
    assert set(limited.create.host_config.binds) - set(without.create.host_config.binds) == {
        "/sys/fs/cgroup:/host/sys/fs/cgroup"
    }
    assert not limited.create.host_config.privileged


def test_where_systemd_makes_the_groups_who_keeps_a_budget_reaches_it() -> None:
    without, _ = slots(groups="dom0.slice")
    limited, orchestrator = slots(grants="{memory: 512m}", groups="dom0.slice")
    assert limited.create.host_config.binds == without.create.host_config.binds
    assert [(it.create.host_config.pid_mode, it.create.host_config.privileged) for it in (limited, without)] == [
        ("host", True),
        ("", False),
    ]
    assert not orchestrator.create.host_config.privileged


def test_in_a_scope_who_keeps_a_budget_asks_the_socket_of_that() -> None:
    without, _ = slots(groups="")
    limited, _ = slots(grants="{memory: 512m}", groups="")
    assert limited.create.host_config == without.create.host_config


@pytest.mark.parametrize(
    ("groups", "own"),
    [
        ("/dom0", "/dom0/guest"),
        ("/docker/dom0", "/docker/dom0/guest"),
        ("dom0.slice", "dom0-guest.slice"),
        ("", "/guest"),
    ],
)
def test_with_a_budget_it_is_in_the_group_of_its_scope_itself(groups: str, own: str) -> None:
    _, limited = slots(grants="{pids: 100}", groups=groups)
    assert limited.create.host_config.cgroup_parent == own
    _, without = slots(groups=groups)
    assert without.create.host_config.cgroup_parent == ""


def test_its_own_limits_hold_beside_the_budget() -> None:
    _, limited = slots("mem_limit: 67108864", grants="{memory: 512m}")
    assert (limited.create.host_config.memory, limited.create.host_config.cgroup_parent) == (64 << 20, "/dom0/guest")


def test_another_budget_replaces_no_orchestrator_and_the_first_one_does() -> None:
    _, small = slots(grants="{memory: 512m}")
    _, large = slots(grants="{memory: 1g, pids: 100}", groups="dom0.slice")
    _, without = slots()
    assert small.hash == large.hash
    assert without.hash != small.hash


def test_with_a_budget_it_can_have_no_other_control_group() -> None:
    assert slots("cgroup_parent: /mine")[1].create.host_config.cgroup_parent == "/mine"
    with pytest.raises(ProjectError, match=r"services\.guest\.cgroup_parent"):
        expanded("cgroup_parent: /mine", "{cpus: 1}")


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("privileged: true", "services.guest.privileged"),
        ("pid: host", "services.guest.pid"),
        ("container_name: boss", "services.guest.container_name"),
        ("scale: 2", "runs once"),
        ("volumes: [{type: bind, source: /run, target: /host}]", "services.guest.volumes.0"),
        ("volumes: [{type: bind, source: /, target: /host}]", "services.guest.volumes.0"),
    ],
)
def test_what_makes_limits_worthless_is_refused(service: str, says: str) -> None:
    with pytest.raises(ProjectError, match=says):
        expanded(service)


def test_a_name_that_no_scope_can_have_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"services\.Guest"):
        expanded(name="Guest")


def test_without_what_serves_it_there_is_no_orchestrator() -> None:
    found = project("services: {guest: {x-dom0: {orchestrator: {}}}}")
    with pytest.raises(ProjectError, match="dom0-base"):
        expand(found, facts(found))


def test_a_whole_dom0_keeps_its_state_in_volumes_that_its_containers_may_bind() -> None:
    found = project("services: {guest: {image: 'guest/dom0', x-dom0: {orchestrator: {}}}}")
    dom0 = image("guest/dom0", labels={"dom0.base": "sha256:0"})
    desired = expand(found, facts(found, dom0, base=image(BASE_IMAGE)))
    assert {volume.name for volume in desired.volumes} == {"box_guest-state", "box_guest-run"}
    _, socket, orchestrator = desired.slots
    assert set(orchestrator.volumes) == {"box_guest-run", "box_guest-state"}
    granted = json.loads(socket.files[0].content)["paths"]
    assert granted == ["box_guest-state:/var/lib/dom0", "box_guest-run:/run/dom0"]


def test_a_whole_dom0_does_not_keep_its_own_in_the_hosts() -> None:
    mounts = "volumes: [{type: bind, source: /run/dom0, target: /run/dom0}]"
    found = project(f"services: {{guest: {{image: 'guest/dom0', x-dom0: {{orchestrator: {{}}}}, {mounts}}}}}")
    dom0 = image("guest/dom0", labels={"dom0.base": "sha256:0"})
    with pytest.raises(ProjectError, match=r"services\.guest\.volumes: .* who has"):
        expand(found, facts(found, dom0, base=image(BASE_IMAGE)))


def test_a_whole_dom0_may_have_its_state_elsewhere() -> None:
    mounts = "volumes: [{type: bind, source: /srv/guest, target: /var/lib/dom0}]"
    found = project(f"services: {{guest: {{image: 'guest/dom0', x-dom0: {{orchestrator: {{}}}}, {mounts}}}}}")
    dom0 = image("guest/dom0", labels={"dom0.base": "sha256:0"})
    socket = expand(found, facts(found, dom0, base=image(BASE_IMAGE))).slots[1]
    granted = json.loads(socket.files[0].content)["paths"]
    assert granted == ["/srv/guest:/var/lib/dom0", "box_guest-run:/run/dom0"]


def test_one_that_gets_another_name_leaves_its_data_unless_that_is_mounted_there() -> None:
    dom0 = image("guest/dom0", labels={"dom0.base": "sha256:0"})

    def named(name: str, mounts: str = "") -> Desired:
        found = project(
            f"services: {{{name}: {{image: 'guest/dom0', x-dom0: {{orchestrator: {{}}}}{mounts}}}}}\n"
            "volumes: {guest-state: {name: box_guest-state}}"
        )
        return expand(found, facts(found, dom0, base=image(BASE_IMAGE)))

    def volume(name: str, scope: str = "") -> Volume:
        return Volume(name=name, driver="local", labels={"dom0.scope": scope} if scope else {})

    there = (
        *map(volume, ("box_guest-state", "box_guest-run", "guest.alike", "other")),
        volume("guest.data", "/guest"),
        volume("guest-2.data", "/guest-2"),
        volume("f" * 64, "/guest/team"),
    )
    assert endings(named("guest"), named("guest"), there) == []
    own = ("box_guest-run", "f" * 64, "guest.data")
    (left,) = endings(named("guest"), named("tenant"), there)
    assert left == Ending("guest", tuple(sorted(("box_guest-state", *own))))
    mounts = ", volumes: [{type: volume, source: guest-state, target: /var/lib/dom0}]"
    assert endings(named("guest"), named("tenant", mounts), there) == [Ending("guest", own)]


def test_an_image_that_was_committed_in_a_scope_makes_no_container_of_a_scope() -> None:
    found = project("services: {web: {}}")
    committed = image("busybox:test", labels={"dom0.scope": "/guest", "dom0.orchestrator": "{}"})
    (slot,) = expand(found, facts(found, committed)).slots
    assert (slot.create.labels["dom0.scope"], slot.create.labels["dom0.orchestrator"]) == ("", "")
