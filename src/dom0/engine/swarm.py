"""Swarm mode of one Engine: the calls that are used, over its HTTP API, and what they answer as frozen values. No
decisions are made here.

Only a manager answers about the Swarm, and only while most managers hear each other; the Engine of any machine says
what that machine is in it. Raises as `protocol.Engine` says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from dom0.engine import parse
from dom0.engine.address import find
from dom0.engine.bodies import Body
from dom0.engine.swarm_bodies import (
    FileBody,
    FileKind,
    InitBody,
    JoinBody,
    MemberBody,
    ServiceBody,
    SwarmNetworkBody,
    SwarmSpec,
)
from dom0.engine.transport import Transport
from dom0.engine.wire import Wire
from dom0.errors import NotFound

LISTEN = "0.0.0.0:2377"
_JOIN_WITHIN = 60.0  # seconds; the Engine itself gives up after 20, and goes on in the background
_WRITE_WITHIN = 60.0  # seconds; without a majority the Engine answers after 20


class SwarmState(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is in Swarm mode. `state`: inactive, pending, active, error, locked. `cluster` and `labels`: the
    Swarm's ID and labels, of a manager that hears most others; a worker does not know them.
    """

    state: str
    node: str = ""  # its ID there
    is_manager: bool = False
    cluster: str = ""
    labels: dict[str, str] = {}
    error: str = ""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the Swarm. `state`: ready, down, unknown, disconnected. `manager`: where it is reached as one."""

    id: str
    version: int
    hostname: str
    labels: dict[str, str]
    name: str = ""
    role: str
    availability: str
    state: str
    manager: str = ""
    is_leader: bool = False
    is_reachable: bool = False  # as a manager, by the leader


class SwarmObject(msgspec.Struct, frozen=True, kw_only=True):
    """A network, config or secret."""

    id: str
    name: str
    labels: dict[str, str]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`images`: of what runs, and of what it would be rolled back to. `update`: as the Engine says
    it: updating, completed, paused, rollback_started, rollback_completed, rollback_paused; `said`: why.
    """

    id: str
    version: int
    name: str
    labels: dict[str, str]
    images: tuple[str, ...]
    files: tuple[str, ...] = ()
    wanted: int = 0  # tasks
    update: str = ""
    said: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    service: str  # ID
    node: str  # ID, "" where none could be found
    state: str
    wanted: str
    said: str = ""


class SwarmMode:
    """Made by `connect`; `close` it at the end."""

    def __init__(self, transport: Transport) -> None:
        self._http = transport

    @classmethod
    async def connect(cls, host: str | None = None) -> SwarmMode:
        """As `DockerEngine.connect`."""
        transport = Transport(find(host, os.environ, Path.home()))
        try:
            await transport.negotiate()
        except BaseException:
            await transport.close()
            raise
        return cls(transport)

    async def close(self) -> None:
        await self._http.close()

    # this machine

    async def place(self) -> SwarmState:
        found = (await self._get("/info", _Info)).swarm or _SwarmInfo()
        cluster, error = found.cluster or _Cluster(), parse.one_line(found.error)
        return SwarmState(
            state=found.local_node_state,
            node=found.node_id,
            is_manager=found.control_available,
            cluster=cluster.id,
            labels=cluster.spec.labels or {},
            error=error,
        )

    async def init(self, address: str, labels: Mapping[str, str]) -> None:
        """Make a Swarm with these labels, whose first manager this machine is; others reach it at `address`."""
        spec = SwarmSpec(labels=dict(labels))
        await self._post("/swarm/init", InitBody(listen_addr=LISTEN, advertise_addr=address, spec=spec))

    async def join(self, address: str, managers: tuple[str, ...], token: str) -> None:
        """`managers`: HOST:PORT of some."""
        body = JoinBody(listen_addr=LISTEN, advertise_addr=address, remote_addrs=managers, join_token=token)
        await self._post("/swarm/join", body, patience=_JOIN_WITHIN)

    async def leave(self) -> None:
        """Of one that does not manage; a manager is refused."""
        await self._http.call("POST", "/swarm/leave", where=_where("/swarm/leave"), patience=_WRITE_WITHIN)

    # the Swarm, of a manager

    async def worker_token(self) -> str:
        """Whoever has it can join as a worker."""
        found: _Swarm = await self._get("/swarm", _Swarm)
        return found.join_tokens.worker

    async def rotate_tokens(self) -> None:
        """Of workers and managers: those before are worth nothing from then on."""
        found = await self._get("/swarm", _Swarm)
        query = {"version": str(found.version.index), "rotateWorkerToken": "true", "rotateManagerToken": "true"}
        await self._post("/swarm/update", found.spec, query)

    async def members(self) -> tuple[Member, ...]:
        found = await self._get("/nodes", list[_Member])
        return tuple(
            Member(
                id=one.id,
                version=one.version.index,
                hostname=one.description.hostname,
                labels=one.spec.labels or {},
                name=one.spec.name,
                role=one.spec.role,
                availability=one.spec.availability,
                state=one.status.state,
                manager=one.manager_status.addr if one.manager_status else "",
                is_leader=bool(one.manager_status and one.manager_status.leader),
                is_reachable=bool(one.manager_status and one.manager_status.reachability == "reachable"),
            )
            for one in found
        )

    async def update_member(self, member: Member, body: MemberBody) -> None:
        """Conflict or EngineError where it has changed since."""
        await self._post(f"/nodes/{_segment(member.id)}/update", body, {"version": str(member.version)})

    async def remove_member(self, member: str) -> None:
        """Also one that is there still; not a manager. Already gone is no error."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", f"/nodes/{_segment(member)}", {"force": "1"})

    async def services(self) -> tuple[Service, ...]:
        found = await self._get("/services", list[_Service], {"status": "true"})
        return tuple(
            Service(
                id=one.id,
                version=one.version.index,
                name=one.spec.name,
                labels=one.spec.labels or {},
                images=tuple(
                    dict.fromkeys(
                        spec.task_template.container_spec.image
                        for spec in (one.spec, one.previous_spec)
                        if spec and spec.task_template.container_spec
                    )
                ),
                files=_files(one),
                wanted=one.service_status.desired_tasks if one.service_status else 0,
                update=one.update_status.state if one.update_status else "",
                said=parse.one_line(one.update_status.message) if one.update_status else "",
            )
            for one in found
        )

    async def create_service(self, body: ServiceBody) -> None:
        await self._post("/services/create", body)

    async def update_service(self, service: Service, body: ServiceBody) -> None:
        """EngineError where it has changed since."""
        await self._post(f"/services/{_segment(service.id)}/update", body, {"version": str(service.version)})

    async def remove_service(self, service: str) -> None:
        """Already gone is no error."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", f"/services/{_segment(service)}")

    async def tasks(self) -> tuple[Task, ...]:
        """Those that are to run, and those that ended."""
        found = await self._get("/tasks", list[_Task])
        return tuple(
            Task(
                service=one.service_id,
                node=one.node_id,
                state=one.status.state,
                wanted=one.desired_state,
                said=parse.one_line(one.status.err or one.status.message),
            )
            for one in found
        )

    async def networks(self) -> tuple[SwarmObject, ...]:
        """Of the whole Swarm."""
        found = await self._get("/networks", list[_Network], {"filters": '{"scope":["swarm"]}'})
        return tuple(SwarmObject(id=one.id, name=one.name, labels=one.labels or {}) for one in found)

    async def create_network(self, body: SwarmNetworkBody) -> None:
        """Conflict: the name is taken."""
        await self._post("/networks/create", body)

    async def remove_network(self, network: str) -> None:
        """Already gone is no error; in use is refused."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", f"/networks/{_segment(network)}")

    async def files(self, kind: FileKind) -> tuple[SwarmObject, ...]:
        found = await self._get(f"/{kind}s", list[_File])
        return tuple(SwarmObject(id=one.id, name=one.spec.name, labels=one.spec.labels or {}) for one in found)

    async def create_file(self, kind: FileKind, body: FileBody) -> None:
        """Conflict: the name is taken."""
        await self._post(f"/{kind}s/create", body)

    async def remove_file(self, kind: FileKind, file: str) -> None:
        """Already gone is no error; in use is refused."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", f"/{kind}s/{_segment(file)}")

    # the API

    async def _get(self, path: str, kind: type[Any], query: Mapping[str, str] | None = None) -> Any:
        return parse.decode(await self._ask("GET", path, query), kind, _where(path))

    async def _post(
        self,
        path: str,
        body: Body | Mapping[str, Any],
        query: Mapping[str, str] | None = None,
        *,
        patience: float = _WRITE_WITHIN,
    ) -> None:
        await self._http.call("POST", path, where=_where(path), query=query, body=body, patience=patience)

    async def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        return await self._http.call(method, path, where=_where(path), query=query, patience=_WRITE_WITHIN)


def _where(path: str) -> str:
    return f"Swarm: {path.strip('/')}"


def _files(service: _Service) -> tuple[str, ...]:
    """Secrets and configs that it may need: also those of what it would go back to, until it has come to an end."""
    is_over = service.update_status is None or service.update_status.state == "completed"
    specs = (service.spec, None if is_over else service.previous_spec)
    containers = (spec.task_template.container_spec for spec in specs if spec)
    return tuple(
        name
        for container in containers
        if container
        for name in (
            *(use.secret_name for use in container.secrets or ()),
            *(use.config_name for use in container.configs or ()),
        )
    )


def _segment(id_: str) -> str:
    return quote(id_, safe="")


class _Version(Wire):
    index: int = 0


class _Spec(Wire):
    """Of what the Swarm keeps; the last two are a node's."""

    name: str = ""
    labels: dict[str, str] | None = None
    role: str = ""
    availability: str = ""


class _Status(Wire):
    """Of a node, an update, a task."""

    state: str = ""
    message: str = ""
    err: str = ""


class _Cluster(Wire):
    id: str = msgspec.field(name="ID", default="")
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _SwarmInfo(Wire):
    local_node_state: str = "inactive"
    node_id: str = msgspec.field(name="NodeID", default="")
    control_available: bool = False
    cluster: _Cluster | None = None
    error: str = ""


class _Info(Wire):
    swarm: _SwarmInfo | None = None


class _JoinTokens(Wire):
    worker: str = ""


class _Swarm(Wire):
    version: _Version
    join_tokens: _JoinTokens
    spec: dict[str, Any]


class _Description(Wire):
    hostname: str = ""


class _ManagerStatus(Wire):
    leader: bool = False
    reachability: str = ""
    addr: str = ""


class _Member(Wire):
    id: str = msgspec.field(name="ID")
    version: _Version
    spec: _Spec
    description: _Description
    status: _Status
    manager_status: _ManagerStatus | None = None


class _SecretUse(Wire):
    secret_name: str = ""


class _ConfigUse(Wire):
    config_name: str = ""


class _ContainerSpec(Wire):
    image: str = ""
    secrets: list[_SecretUse] | None = None
    configs: list[_ConfigUse] | None = None


class _TaskSpec(Wire):
    container_spec: _ContainerSpec | None = None


class _ServiceSpec(Wire):
    name: str
    task_template: _TaskSpec
    labels: dict[str, str] | None = None


class _ServiceStatus(Wire):
    desired_tasks: int = 0


class _Service(Wire):
    id: str = msgspec.field(name="ID")
    version: _Version
    spec: _ServiceSpec
    previous_spec: _ServiceSpec | None = None
    update_status: _Status | None = None
    service_status: _ServiceStatus | None = None


class _Task(Wire, kw_only=True):
    service_id: str = msgspec.field(name="ServiceID", default="")
    node_id: str = msgspec.field(name="NodeID", default="")
    status: _Status
    desired_state: str = ""


class _Network(Wire):
    id: str
    name: str
    labels: dict[str, str] | None = None


class _File(Wire, kw_only=True):
    id: str = msgspec.field(name="ID")
    spec: _Spec
