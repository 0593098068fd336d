"""Slots, containers and desired states for tests: say only what the test is about."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.engine.bodies import Body, ContainerBody, EndpointSettings, HostConfig, NetworkBody
from dom0.engine.values import Container, Endpoint, Network, State
from dom0.plan import labels
from dom0.plan.actual import Actual
from dom0.plan.desired import Attachment, Desired, Hook, NetworkSpec, Order, Role, Slot
from dom0.plan.hooks import pre_stop_label

PROJECT = "box"
NETWORK = "box_default"
NETWORK_ID = "net0"


def image_id(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def slot_labels(service: str, number: int, hash_: str, role: Role = Role.SERVICE) -> dict[str, str]:
    return {
        labels.PROJECT: PROJECT,
        labels.ROLE: role,
        labels.SERVICE: service,
        labels.NUMBER: str(number),
        labels.HASH: hash_,
    }


def slot(service: str, *, hash: str = "h1", image: str = "app", number: int = 1, **fields: Any) -> Slot:
    defaults: dict[str, Any] = {
        "name": f"{PROJECT}-{service}-{number}",
        "role": Role.SERVICE,
        "image_id": image_id(image),
        "order": Order.START_FIRST,
        "create": ContainerBody(
            image=image,
            cmd=("sleep", "1000"),
            labels=slot_labels(service, number, hash, fields.get("role", Role.SERVICE)),
            host_config=HostConfig(network_mode=NETWORK),
        ),
        "attachments": (Attachment(network=NETWORK, endpoint=EndpointSettings(aliases=(service,))),),
    }
    return Slot(service=service, number=number, hash=hash, image=image, **{**defaults, **fields})


def hooked(of: Slot, *, post_start: str = "", pre_stop: str = "") -> Slot:
    """`of` with shell commands as its hooks."""
    after, before = (((Hook(argv=("sh", "-c", text)),) if text else ()) for text in (post_start, pre_stop))
    written = of.create.labels | {labels.PRE_STOP: pre_stop_label(before)}
    return replace(asking(of, labels=written), post_start=after)


def asking(of: Slot, *, host: dict[str, Any] | None = None, **fields: Any) -> Slot:
    """`of` with other `fields` of its create body, `host` those of its HostConfig."""
    host_config = replace(of.create.host_config, **(host or {}))
    return replace(of, create=replace(of.create, host_config=host_config, **fields))


def as_sent(body: Body) -> Any:
    """`body` as JSON that was read again."""
    return msgspec.json.decode(msgspec.json.encode(body))


def desired(*slots: Slot, **fields: Any) -> Desired:
    return Desired(project=PROJECT, networks=(network_spec(),), slots=slots, **fields)


def network_spec(hash: str = "n1") -> NetworkSpec:
    create = NetworkBody(driver="bridge", labels={labels.PROJECT: PROJECT, labels.HASH: hash})
    return NetworkSpec(key="default", name=NETWORK, hash=hash, create=create)


def container(of: Slot, *, id: str = "", state: State = State.RUNNING, **fields: Any) -> Container:
    """What the Engine would say of `of` once it runs, unless `fields` say otherwise."""
    id = id or hashlib.sha256(f"{of.key}{of.hash}{of.image_id}".encode()).hexdigest()
    defaults: dict[str, Any] = {
        "name": of.name,
        "image_id": of.image_id,
        "image": of.image,
        "labels": slot_labels(of.service, of.number, of.hash, of.role),
        "created": 100.0,
        "started": 101.0 if state is not State.CREATED else 0.0,
        "endpoints": (Endpoint(network=NETWORK, network_id=NETWORK_ID),),
        "ports": of.ports,
        "restart_policy": of.restart_policy,
        "restart_retries": of.restart_retries,
        "resources": of.resources,
        "pid": 1 if state is State.RUNNING else 0,
    }
    return Container(id=id, state=state, **{**defaults, **fields})


def actual(*containers: Container, foreign: dict[str, str] | None = None, **fields: Any) -> Actual:
    network = Network(id=NETWORK_ID, name=NETWORK, driver="bridge", labels={labels.PROJECT: PROJECT, labels.HASH: "n1"})
    names = {c.name: c.id for c in containers} | (foreign or {})
    own = frozenset({NETWORK_ID})
    return Actual(**{"containers": containers, "networks": (network,), "own_networks": own, "names": names, **fields})
