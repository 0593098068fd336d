"""Containers of a scope, where the Engine does otherwise than it had said a moment before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
import pytest

from dom0.engine.bodies import PortBinding
from dom0.socketproxy import containers, requests
from dom0.socketproxy.context import Asked, Context
from dom0.socketproxy.refusal import CONFLICT, Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Reply
from dom0.testing.escape import bodies, still


class Moved(still.Still):
    """The image's name has moved when the container is made: it has labels of the new one."""

    labels: Mapping[str, str] = {}

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] = {},
        body: msgspec.Struct | bytes | None = None,
        patience: float | None = None,
    ) -> Reply:
        if (method, *path) == ("GET", "containers", still.MADE, "json"):
            return Reply(200, {"Config": {"Labels": {"dom0.scope": "/guest", **self.labels}}})
        return await super().ask(method, *path, query=query, body=body, patience=patience)


def create(engine: Moved) -> None:
    body = requests.Container(image=still.IMAGE, labels={"mine": "1"})
    asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": "web"}, body=body)
    asyncio.run(containers.created(Context(Scope("guest"), still.GRANTS, engine, still.SOCKET), asked))


def is_removed(engine: Moved) -> bool:
    return any((sent.method, *sent.path) == ("DELETE", "containers", still.MADE) for sent in engine.sent)


@pytest.mark.parametrize("key", ["guest/mine", "guest/of-an-image", "dom0.orchestrator"])
def test_a_container_with_labels_of_the_scope_is_made(key: str) -> None:
    engine = Moved()
    engine.labels = {key: ""}
    create(engine)
    assert not is_removed(engine)


@pytest.mark.parametrize("key", ["traefik.enable", "com.docker.compose.project", "dom0.role", "mine"])
def test_a_container_with_labels_that_nobody_has_looked_at_is_removed(key: str) -> None:
    engine = Moved()
    engine.labels = {key: "x"}
    with pytest.raises(Refused, match="has become another image meanwhile") as refused:
        create(engine)
    assert refused.value.status == CONFLICT
    assert is_removed(engine)


class Publishing(still.Still):
    """The scope's container has some ports that the Engine chose."""

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] = {},
        body: msgspec.Struct | bytes | None = None,
        patience: float | None = None,
    ) -> Reply:
        reply = await super().ask(method, *path, query=query, body=body, patience=patience)
        if (method, *path) == ("GET", "containers", bodies.OWN, "json"):
            bound = {"80/tcp": [{"HostIp": "", "HostPort": "0"}] * 3, "81/tcp": [{"HostIp": "", "HostPort": "81"}]}
            reply = Reply(200, {**reply.document, "HostConfig": {"PortBindings": bound}})
        return reply


@pytest.mark.parametrize(("wanted", "may"), [(2, True), (3, False)])
def test_all_containers_have_as_many_ports_that_the_engine_chooses_as_there_may_be_containers(
    wanted: int, may: bool
) -> None:
    bound = {"80/tcp": (PortBinding(),) * wanted, "81/tcp": (PortBinding(host_port="81"),)}
    body = requests.Container(image=still.IMAGE, host_config=requests.HostConfig(port_bindings=bound))
    asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": "web"}, body=body)
    granted = msgspec.structs.replace(still.GRANTS, ports=("0", "81"), containers=5)
    engine = Publishing()
    with contextlib.nullcontext() if may else pytest.raises(Refused, match="5, as many as containers"):
        asyncio.run(containers.created(Context(Scope("guest"), granted, engine, still.SOCKET), asked))
    assert any(sent.path == ("containers", "create") for sent in engine.sent) is may
