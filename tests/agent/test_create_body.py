"""A create body with what is known only when it is created: parents, volumes that move on, the generation."""

from __future__ import annotations

from typing import Any

from dom0.agent.apply import create_body
from dom0.plan import labels
from dom0.plan.desired import Attachment, Role, Slot
from dom0.plan.steps import CreateContainer


def body(host: dict[str, Any], *, all_endpoints: bool = True, **step: Any) -> dict[str, Any]:
    slot = Slot(
        service="web",
        number=1,
        name="box-web-1",
        role=Role.SERVICE,
        hash="h",
        image="app:1",
        image_id="sha256:1",
        create={"Image": "app:1", "Labels": {"a": "b"}, "HostConfig": host},
        attachments=(Attachment(network="one", endpoint={"Aliases": ["x"]}), Attachment(network="two", endpoint={})),
    )
    made = CreateContainer(lock="", reason="", slot=slot, name=slot.name, **step)
    return dict(create_body(made, made.slot.image_id, generation=7, all_endpoints=all_endpoints))


def test_references_to_services_become_their_containers() -> None:
    host = {
        "NetworkMode": "service:db",
        "PidMode": "service:db",
        "IpcMode": "host",
        "VolumesFrom": ["service:db", "service:db:ro", "other:ro"],
    }
    found = body(host, parents={"db": "d" * 64})["HostConfig"]
    assert found["NetworkMode"] == found["PidMode"] == f"container:{'d' * 64}"
    assert found["IpcMode"] == "host"
    assert found["VolumesFrom"] == ["d" * 64, f"{'d' * 64}:ro", "other:ro"]


def test_a_nameless_volume_gets_the_name_of_the_one_it_takes_over() -> None:
    mounts = [{"Type": "volume", "Target": "/own"}, {"Type": "volume", "Target": "/other", "Source": "named"}]
    found = body({"Mounts": mounts}, inherit={"/own": "e" * 64, "/of-the-image": "f" * 64})["HostConfig"]
    assert found["Mounts"] == [
        {"Type": "volume", "Target": "/own", "Source": "e" * 64},
        {"Type": "volume", "Target": "/other", "Source": "named"},
        {"Type": "volume", "Target": "/of-the-image", "Source": "f" * 64},
    ]
    assert mounts[0] == {"Type": "volume", "Target": "/own"}, "the slot itself stays as it is"


def test_the_image_is_the_pinned_one_and_labels_tell_generation_and_predecessor() -> None:
    found = body({}, replaces="c" * 64)
    assert found["Image"] == "sha256:1"
    assert found["Labels"] == {"a": "b", labels.GENERATION: "7", labels.COMPOSE_REPLACE: "c" * 64}


def test_an_older_engine_is_given_the_primary_network_only() -> None:
    assert body({})["NetworkingConfig"]["EndpointsConfig"] == {"one": {"Aliases": ["x"]}, "two": {}}
    assert body({}, all_endpoints=False)["NetworkingConfig"]["EndpointsConfig"] == {"one": {"Aliases": ["x"]}}
