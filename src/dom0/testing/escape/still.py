"""An Engine that stands still: it answers questions about objects of a scope and of others, and only writes down what
it is asked to do. A request runs from its first byte to what the Engine would get, a thousand times in a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec

from dom0.socketproxy import head, strict, table
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import OK, EngineAnswer, Upstream
from dom0.testing.escape.bodies import OWN, VICTIM
from dom0.testing.escape.reach import Reach, Sent

SOCKET = "/run/dom0/scopes/guest/docker.sock"
IMAGE = "busybox:test"
CANARY = "canary-of-another"  # in everything that is not the scope's
MADE = "9" * 64  # whatever the Engine is asked to make
OWN_NETWORK, FOREIGN_NETWORK = "c" * 64, "d" * 64
OWN_EXEC, FOREIGN_EXEC = "e" * 64, "f" * 64
REACH = Reach(
    prefix="guest.",
    label="/guest",
    socket=SOCKET,
    containers=frozenset({OWN, "guest.db"}),
    ids=frozenset({OWN, OWN_NETWORK, OWN_EXEC, MADE, "sha256:" + "1" * 64}),
    images=frozenset({IMAGE, "sha256:" + "1" * 64}),
    capabilities=frozenset({"NET_ADMIN", "NET_RAW"}),
    ports=range(8080, 8091),
    writable=frozenset({"/srv/guest", "/srv/lib"}),
    readable=frozenset({"/srv/media"}),
)
GRANTS = Grants(
    images=Images(use=("busybox",)),
    capabilities=("NET_ADMIN", "NET_RAW"),
    ports=("8080-8090",),
    paths=("/srv/guest", "/srv/lib:/var/lib/guest", "/srv/media:ro"),
)


def _container(id_: str, name: str, labels: dict[str, str], network: str) -> dict[str, Any]:
    endpoint = {"Aliases": None, "Links": None, "IPAMConfig": None, "NetworkID": network}
    return {
        "Id": id_,
        "Name": f"/{name}",
        "Names": [f"/{name}"],
        "State": {"Running": True, "Status": "running"},
        "Image": IMAGE,
        "Labels": labels,
        "Config": {"Labels": labels, "Env": [], "Image": IMAGE},
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {"Networks": {network: endpoint}},
        "Mounts": [],
    }


def _objects() -> dict[tuple[str, ...], Any]:
    """Documents by the path that asks for them."""
    mine, others = {"dom0.scope": "/guest"}, {"dom0.scope": "/other", "secret": CANARY}
    containers = [
        _container(OWN, "guest.db", mine, "guest.front"),
        _container(VICTIM, "victim", {"secret": CANARY}, "other.front"),
        _container("b1" * 32, "guest.forged", others, "other.front"),
    ]
    networks: list[dict[str, Any]] = [
        {"Id": OWN_NETWORK, "Name": "guest.front", "Labels": mine, "Containers": {}},
        {"Id": FOREIGN_NETWORK, "Name": "other.front", "Labels": others, "Containers": {}},
    ]
    volumes: list[dict[str, Any]] = [
        {"Name": "guest.data", "Labels": mine, "Driver": "local", "Mountpoint": "/v"},
        {"Name": "treasure", "Labels": others, "Driver": "local", "Mountpoint": f"/v/{CANARY}"},
    ]
    images: list[dict[str, Any]] = [
        {"Id": "sha256:" + "1" * 64, "RepoTags": [IMAGE], "RepoDigests": []},
        {"Id": "sha256:" + "2" * 64, "RepoTags": ["private/secret:1"], "RepoDigests": [], "Labels": {"s": CANARY}},
    ]
    found: dict[tuple[str, ...], Any] = {
        ("containers", "json"): containers,
        ("networks",): networks,
        ("volumes",): {"Volumes": volumes},
        ("images", "json"): images,
        ("version",): {"ApiVersion": "1.45"},
        ("info",): {"ID": "x", "NCPU": 2, "MemTotal": 1, "Name": CANARY},
        ("exec", OWN_EXEC, "json"): {"ID": OWN_EXEC, "ContainerID": OWN},
        ("exec", FOREIGN_EXEC, "json"): {"ID": FOREIGN_EXEC, "ContainerID": VICTIM, "Secret": CANARY},
    }
    for one in containers:
        found |= {("containers", key, "json"): one for key in (one["Id"], one["Id"][:12], one["Name"][1:])}
    for one in networks:
        found |= {("networks", key): one for key in (one["Id"], one["Id"][:12], one["Name"])}
    found |= {("volumes", one["Name"]): one for one in volumes}
    for one in images:
        found |= {("images", key, "json"): one for key in (one["Id"], one["Id"][7:], *one["RepoTags"])}
    return found


OBJECTS = _objects()


class Still(Upstream):
    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.sent: list[Sent] = []
        self.made: dict[str, Any] = {}  # the last container, by its ID and its name

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] = {},
        body: msgspec.Struct | bytes | None = None,
        patience: float | None = None,
        shape: Any = Any,
    ) -> EngineAnswer:
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        self.sent.append(Sent(method, path, query, raw, is_answered=False))
        reply = await self.answer(self.sent[-1])
        if reply.status != OK or shape is Any:
            return reply
        return EngineAnswer(reply.status, msgspec.json.decode(msgspec.json.encode(reply.document), type=shape))

    async def answer(self, sent: Sent) -> EngineAnswer:
        method, path, query, raw = sent.method, sent.path, sent.query, sent.body
        if (method, *path) in [("GET", "containers", name, "json") for name in self.made]:
            return EngineAnswer(200, self.made[path[1]])
        if method == "GET":
            return (
                EngineAnswer(200, OBJECTS[path]) if path in OBJECTS else EngineAnswer(404, {"message": "no such thing"})
            )
        if path[-1] == "create":
            asked = json.loads(raw)
            if path[0] == "containers":
                image = OBJECTS.get(("images", asked["Image"], "json"), {})
                made = {"Id": MADE, "Name": f"/{query['name']}", "Image": image.get("Id"), "Config": asked}
                self.made = {one: made | {"State": {"Status": "created"}} for one in (MADE, str(query["name"]))}
            told = {"Name": asked.get("Name", ""), "Labels": asked.get("Labels"), "Options": asked.get("DriverOpts")}
            return EngineAnswer(201, told | {"Id": MADE})
        return EngineAnswer(204, None)


class Outcome(NamedTuple):
    sent: list[Sent]
    answer: Document | None  # of the socket's own


def outcome(data: bytes) -> Outcome:
    """What comes of the first request in `data`. Raises Refused, h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    if not isinstance(request, h11.Request):
        raise h11.RemoteProtocolError("no whole head")
    engine = Still()
    context = Context(Scope("guest"), GRANTS, engine, SOCKET)
    endpoint, asked = table.find(head.read(request, engine.api))
    if endpoint.body is not table.ArchiveBody:
        raw = bytearray()
        while isinstance(event := connection.next_event(), h11.Data):
            raw += event.data
        if not isinstance(event, h11.EndOfMessage):
            raise h11.RemoteProtocolError("no whole body")
        assert issubclass(endpoint.body, msgspec.Struct)
        asked = msgspec.structs.replace(asked, body=strict.read(bytes(raw), endpoint.body))
    return _answered(context, endpoint, asked, engine)


def _answered(context: Context, endpoint: table.Operation, asked: Asked, engine: Still) -> Outcome:
    answer = _at_once(endpoint.handler(context, asked))
    if isinstance(answer, Document):
        return Outcome(engine.sent, answer)
    body = b"" if answer.body is None else msgspec.json.encode(answer.body)
    last = Sent(answer.method, answer.path, answer.query, body, is_answered=answer.line is None)
    return Outcome([*engine.sent, last], None)


def _at_once(work: Awaitable[Document | Call]) -> Document | Call:
    """Run what never waits: nothing here does."""
    try:
        next(work.__await__())
    except StopIteration as ended:
        answer: Document | Call = ended.value
        return answer
    raise AssertionError("it waits")


def escapes(found: Outcome) -> list[str]:
    """What was got that is not the scope's, in words."""
    got = [what for sent in found.sent for what in REACH.request(sent)]
    got += [f"a target that is read otherwise: {sent}" for sent in found.sent if not _is_read_as_meant(sent)]
    if found.answer is not None and CANARY.encode() in msgspec.json.encode(found.answer.value):
        got.append("an answer says what is another's")
    return got


def _is_read_as_meant(sent: Sent) -> bool:
    """Whether the target has one line and the Engine finds the same path and query in it."""
    target = Upstream("/nowhere").target(sent.path, sent.query)
    read = urlsplit(target)
    path = tuple(unquote(part) for part in read.path.split("/")[2:])
    meant = [(key, one) for key, said in sent.query.items() for one in ([said] if isinstance(said, str) else said)]
    query = parse_qsl(read.query, keep_blank_values=True)
    return re.fullmatch(r"[!-~]+", target) is not None and (path, query) == (sent.path, meant)
