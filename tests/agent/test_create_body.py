"""A create body with what is known only when it is created: parents, volumes that move on, the generation."""

from __future__ import annotations

from typing import Any

from dom0.agent.apply import create_body
from dom0.engine.bodies import ContainerBody, EndpointSettings, HostConfig, Mount, NetworkingConfig
from dom0.plan import labels
from dom0.plan.desired import Attachment, Role, Slot
from dom0.plan.steps import CreateContainer

NOTHING = HostConfig()
ONE, TWO = EndpointSettings(aliases=("x",)), EndpointSettings()


def body(host: HostConfig = NOTHING, *, all_endpoints: bool = True, **step: Any) -> ContainerBody:
    slot = Slot(
        service="web",
        number=1,
        name="box-web-1",
        role=Role.SERVICE,
        hash="h",
        image="app:1",
        image_id="sha256:1",
        create=ContainerBody(image="app:1", labels={"a": "b"}, host_config=host),
        attachments=(Attachment(network="one", endpoint=ONE), Attachment(network="two", endpoint=TWO)),
    )
    made = CreateContainer(lock="", reason="", slot=slot, name=slot.name, **step)
    return create_body(made, made.slot.image_id, generation=7, all_endpoints=all_endpoints)


def test_references_to_services_become_their_containers() -> None:
    host = HostConfig(
        network_mode="service:db",
        pid_mode="service:db",
        ipc_mode="host",
        volumes_from=("service:db", "service:db:ro", "other:ro"),
    )
    found = body(host, parents={"db": "d" * 64}).host_config
    assert found.network_mode == found.pid_mode == f"container:{'d' * 64}"
    assert found.ipc_mode == "host"
    assert found.volumes_from == ("d" * 64, f"{'d' * 64}:ro", "other:ro")


def test_a_nameless_volume_gets_the_name_of_the_one_it_takes_over() -> None:
    own, named = Mount(type="volume", target="/own"), Mount(type="volume", target="/other", source="named")
    host = HostConfig(mounts=(own, named))
    assert body(host, inherit={"/own": "e" * 64, "/of-the-image": "f" * 64}).host_config.mounts == (
        Mount(type="volume", target="/own", source="e" * 64),
        named,
        Mount(type="volume", target="/of-the-image", source="f" * 64),
    )


def test_the_image_is_the_pinned_one_and_labels_tell_generation_and_predecessor() -> None:
    found = body(replaces="c" * 64)
    assert found.image == "sha256:1"
    assert found.labels == {"a": "b", labels.GENERATION: "7", labels.COMPOSE_REPLACE: "c" * 64}


def test_an_older_engine_is_given_the_primary_network_only() -> None:
    assert body().networking_config == NetworkingConfig(endpoints_config={"one": ONE, "two": TWO})
    assert body(all_endpoints=False).networking_config == NetworkingConfig(endpoints_config={"one": ONE})
