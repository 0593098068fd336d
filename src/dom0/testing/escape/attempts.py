"""Ways out of a scoped socket, by the numbers of docs/socketproxy.md. Each is one attempt that has to come to nothing.

Most are a container that would have power: made, started, and looked at. The others are requests as they are sent.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dom0.names import ROOT
from dom0.testing import busybox
from dom0.testing.escape import budget_attempts, image_attempts, label_attempts
from dom0.testing.escape.case import Attempt, Case, body, run
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import (
    FOREIGN_IMAGE,
    GRANTED,
    MOUNTED,
    PRIVATE,
    READABLE,
    SHARED,
    TREASURE,
    VICTIM,
    World,
)

_TAR = {"Content-Type": "application/x-tar"}
RACES = 6  # starts while a directory and a link change places


def cases() -> list[Case]:
    return [
        *_json(),
        *_http(),
        *_references(),
        *_sockets(),
        *_create(),
        *_orchestrator(),
        *_granted(),
        *_joined(),
        *_objects(),
        *image_attempts.cases(),
        *label_attempts.cases(),
        *budget_attempts.cases(),
        *_daemon(),
    ]


def _with(**more: Any) -> Attempt:
    return lambda client, world: run(client, body(world, **more))


def _host(**more: Any) -> Attempt:
    return _with(HostConfig=more)


def _text(template: str) -> Attempt:
    """The body as text, because no JSON library would write it. `IMAGE` and `VICTIM` are put in."""

    def attempt(client: Client, world: World) -> list[Answer]:
        text = template.replace("IMAGE", json.dumps(world.image)).replace("VICTIM", world.victim_id)
        return run(client, text.encode())

    return attempt


def _ask(method: str, target: str, content: Any = None, **headers: str) -> Attempt:
    """`{victim}` is the foreign container's ID, `{short}` its first 12 digits."""

    def attempt(client: Client, world: World) -> list[Answer]:
        places = {"victim": world.victim_id, "short": world.victim_id[:12], "image": world.image}
        return [client.ask(method, target.format(**places), content, headers=headers)]

    return attempt


def _sent(data: bytes) -> Attempt:
    """As it is; `VICTIM` is put in."""
    return lambda client, world: [client.send(data.replace(b"VICTIM", world.victim_id.encode()))]


def _created(query: str = "", then: Sequence[tuple[str, str, Any]] = (), **more: Any) -> Attempt:
    """Run a container, then ask more. `{victim}` and `{short}` in `query` as in `_ask`."""

    def attempt(client: Client, world: World) -> list[Answer]:
        places = {"victim": world.victim_id, "short": world.victim_id[:12]}
        answers = run(client, body(world, **more), query=query.format(**places))
        return answers + [client.ask(method, target, content) for method, target, content in then]

    return attempt


def _asked(*steps: tuple[str, str, Any]) -> Attempt:
    return lambda client, world: [client.ask(method, target, content) for method, target, content in steps]


def _json() -> Iterator[Case]:
    """1 to 4: the Engine's JSON is read otherwise than most."""
    for key in ("hostconfig", "HOSTCONFIG", "hostConfig", "Ho\u017ftConfig"):
        yield Case(1, f"the key {key!a}", _with(**{key: {"Privileged": True}}))
    for key in ("privileged", "PRIVILEGED", "Privi\u006ceged"):
        yield Case(1, f"the key {key!a} of HostConfig", _host(**{key: True}))
    yield Case(1, "Kelvin's sign for a k", _host(NetworkMode="none", NetworKMode="host"))
    yield Case(1, "long s in Binds", _host(Bindſ=["/var/lib/escape:/h"]))
    yield Case(
        2, "HostConfig twice", _text('{"Image":IMAGE,"HostConfig":{"Privileged":true},"HostConfig":{"Memory":9999999}}')
    )
    yield Case(
        2,
        "HostConfig twice, once in small letters",
        _text('{"Image":IMAGE,"HostConfig":{},"hostconfig":{"Privileged":true}}'),
    )
    yield Case(2, "Privileged twice", _text('{"Image":IMAGE,"HostConfig":{"Privileged":false,"Privileged":true}}'))
    yield Case(3, "an escaped letter in a key", _text('{"Image":IMAGE,"HostConfig":{"\\u0050rivileged":true}}'))
    yield Case(
        3, "null resets what was before", _text('{"Image":IMAGE,"HostConfig":null,"HostConfig":{"Privileged":true}}')
    )
    yield Case(4, "CapAdd as a text", _host(CapAdd="SYS_ADMIN"))
    yield Case(4, "Privileged as a text", _host(Privileged="true"))
    yield Case(4, "Privileged as a number", _host(Privileged=1))
    yield Case(4, "Binds as a text", _host(Binds="/var/lib/escape:/h"))
    yield Case(4, "HostConfig as a list", _with(HostConfig=[{"Privileged": True}]))
    yield Case(
        4,
        "a body in UTF-16",
        lambda client, world: run(client, json.dumps(body(world, HostConfig={"Privileged": True})).encode("utf-16")),
    )
    yield Case(
        4,
        "a byte order mark",
        lambda client, world: run(
            client, b"\xef\xbb\xbf" + json.dumps(body(world, HostConfig={"Privileged": True})).encode()
        ),
    )
    yield Case(4, "two documents", _text('{"Image":IMAGE}{"Image":IMAGE,"HostConfig":{"Privileged":true}}'))
    yield Case(
        4, "half of a surrogate pair", _text('{"Image":IMAGE,"Env":["A=\\ud800"],"HostConfig":{"Privileged":true}}')
    )
    yield Case(4, "deep nesting", _text('{"Image":IMAGE,"Labels":' + '{"a":' * 20000 + "1" + "}" * 20000 + "}"))
    yield Case(4, "a comment", _text('{"Image":IMAGE,/*"*/"HostConfig":{"Privileged":true}/*"*/}'))


def _http() -> Iterator[Case]:
    """5 to 10: requests that two readers read differently."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    yield Case(
        5, "a form prunes volumes", _ask("POST", "/volumes/prune", b"filters=%7B%22all%22%3A%5B%221%22%5D%7D", **form)
    )
    yield Case(5, "a form renames", _ask("POST", "/containers/{victim}/rename?name=x", b"name=taken", **form))
    yield Case(5, "a form tags", _ask("POST", "/images/{image}/tag?repo=own", b"repo=private/secret&tag=2", **form))
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    parts = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nvictim2\r\n--b--\r\n'
    yield Case(5, "a form in parts", _ask("POST", "/containers/{victim}/rename", parts, **multipart))
    yield Case(6, "a parameter twice", _created("?name=victim&name=mine"))
    yield Case(
        6,
        "filters twice",
        _ask("GET", "/containers/json?all=1&filters={{}}&filters=%7B%22name%22%3A%5B%22victim%22%5D%7D"),
    )
    yield Case(
        6,
        "filters with a key twice",
        _ask("GET", "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%22%5D%2C%22label%22%3A%5B%5D%7D"),
    )
    for prefix in ("/v01.45", "/v1.45.0", "/v1.99", "/V1.45", "/v1.45/v1.45", "//v1.45", "/v1.12"):
        yield Case(7, f"the version {prefix}", _ask("GET", prefix + "/containers/{victim}/json"))
        yield Case(
            7,
            f"the version {prefix}: create",
            _ask("POST", f"{prefix}/containers/create", {"Image": busybox.IMAGE, "HostConfig": {"Privileged": True}}),
        )
    spellings = (
        "/containers/%7Bvictim%7D/json",
        "/containers//{victim}/json",
        "/containers/./{victim}/json",
        "/containers/x/../{victim}/json",
        "/containers/%2e%2e/containers/{victim}/json",
        "/containers/{victim}/%6Ason",
        "/containers%2F{victim}%2Fjson",
        "/containers/{victim}%2Fjson",
        "/containers/{victim}%252Fjson",
        "/containers/{victim}/json/",
        "/containers/{victim}/json;a",
        "/containers/{victim}/json%00",
        "/containers/{victim}/json%20",
        "/containers/{victim}/json#a",
        "/images/{image}/../../containers/{victim}/json",
        "/images/x%2F..%2F..%2Fcontainers/{victim}/json",
        "/_ping/../containers/{victim}/json",
        "/containers/json/../{victim}/json",
        "\\containers\\{victim}\\json",
    )
    for spelling in spellings:
        yield Case(8, f"the path {spelling}", _ask("GET", spelling))
        yield Case(8, f"the path {spelling}, to stop it", _ask("POST", spelling.replace("json", "stop")))
    yield Case(9, "an absolute form", _ask("GET", "http://docker/containers/{victim}/json"))
    yield Case(9, "authority form", _ask("CONNECT", "docker:80"))
    for name, data in _smuggled().items():
        yield Case(9, name, _sent(data))
    yield Case(10, "a request behind an exec that is not there", _sent(_upgraded(f"/exec/{'0' * 64}/start")))
    yield Case(10, "a request behind a detached exec", _behind_exec)
    yield Case(10, "a request behind an upgrade of _ping", _sent(_upgraded("/_ping", method="GET")))
    yield Case(
        10,
        "h2c",
        _ask(
            "GET",
            "/containers/json",
            **{"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"},
        ),
    )
    yield Case(
        10,
        "HTTP/2 by prior knowledge",
        lambda c, w: [c.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")],
    )
    for path in ("/grpc", "/session"):
        yield Case(10, path, _ask("POST", path, Upgrade="h2c", Connection="Upgrade"))


_BEHIND = b"GET /containers/VICTIM/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"


def _smuggled() -> dict[str, bytes]:
    n = str(len(_BEHIND)).encode()
    post = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n"
    return {
        "two lengths": b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nContent-Length: "
        + n
        + b"\r\n\r\n"
        + _BEHIND,
        "a length and chunks": post
        + b"Content-Length: "
        + n
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + _BEHIND,
        "chunks, oddly written": post + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _BEHIND,
        "chunks under another name": post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + _BEHIND,
        "chunks twice": post + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + _BEHIND,
        "a negative length": post + b"Content-Length: -1\r\n\r\n" + _BEHIND,
        "a length with a sign": post + b"Content-Length: +2\r\n\r\n{}" + _BEHIND,
        "a line break in the path": b"GET /_ping HTTP/1.1\nX: y\r\n\r\n" + _BEHIND,
        "bare line feeds": b"GET /containers/VICTIM/json HTTP/1.1\nHost: d\nConnection: close\n\n",
        "a folded header": b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n" + _BEHIND,
        "a null in a header": b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\0b\r\n\r\n" + _BEHIND,
        "a body on GET": b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: " + n + b"\r\n\r\n" + _BEHIND,
        "HTTP/0.9": b"GET /containers/VICTIM/json\r\n",
        "another method's name": b"GET  /containers/VICTIM/json HTTP/1.1\r\nHost: d\r\n\r\n",
        "a method override": b"POST /_ping HTTP/1.1\r\nHost: d\r\nX-HTTP-Method-Override: GET\r\n\r\n" + _BEHIND,
        "a chunk with an extension": post + b"Transfer-Encoding: chunked\r\n\r\n2;a=\r\n{}\r\n0\r\n\r\n" + _BEHIND,
        "one request behind another": b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" + _BEHIND,
    }


def _upgraded(path: str, method: str = "POST") -> bytes:
    start = b'{"Detach":true}'
    head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(start)}\r\n\r\n"
    return head.encode() + start + _BEHIND


def _behind_exec(client: Client, world: World) -> list[Answer]:
    answers = run(client, body(world), query="?name=execs")
    made = client.ask("POST", "/containers/execs/exec", {"Cmd": ["true"], "AttachStdout": True})
    exec_id = made.document.get("Id", "0" * 64) if isinstance(made.document, dict) else "0" * 64
    return [*answers, made, *_sent(_upgraded(f"/exec/{exec_id}/start"))(client, world)]


def _references() -> Iterator[Case]:
    """11: what a name means. 25 to 28: what may be done with what it means."""
    yield Case(
        11,
        "a container with the short ID of another for its name",
        _created("?name={short}"),
    )
    yield Case(11, "the whole ID of another for its name", _created("?name={victim}"))
    yield Case(11, "the name of a foreign container", _created(f"?name=/{VICTIM}"))
    yield Case(11, "a name with a slash", _created("?name=a/b"))
    for ref in ("{victim}", "{short}", VICTIM, f"%2F{VICTIM}", "{victim}a", VICTIM.upper()):
        for method, rest in _ON_CONTAINERS:
            yield Case(
                25,
                f"{method} {rest} of {ref}",
                _ask(method, f"/containers/{ref}{rest}", _BODIES.get(rest.partition("?")[0])),
            )
    yield Case(25, "an archive of a container that was never started", _archive_of_created)
    yield Case(25, "a compressed archive, which the Engine's programs unpack, in chunks", _compressed)
    yield Case(26, "an exec of somebody else's container", _foreign_exec)
    for extra in ({"Privileged": True}, {"privileged": True}, {"PRIVILEGED": True}):
        yield Case(26, f"an exec with {extra}", _exec_with(extra))
    yield Case(
        27,
        "start from a checkpoint",
        _created("?name=cp", [("POST", "/containers/cp/start?checkpoint=x&checkpoint-dir=/var/lib/escape", None)]),
    )
    yield Case(
        27,
        "ps with arguments of its own",
        _created("?name=top", [("GET", "/containers/top/top?ps_args=-eo+pid,args;+cat+/var/lib/escape/canary", None)]),
    )
    for kind in ("containers", "images", "networks", "volumes"):
        yield Case(
            28,
            f"prune {kind}",
            _ask(
                "POST", f"/{kind}/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%2C%22dangling%22%3A%5B%22false%22%5D%7D"
            ),
        )
        yield Case(28, f"prune {kind}, plainly", _ask("POST", f"/{kind}/prune"))
    yield Case(28, "prune the build cache", _ask("POST", "/build/prune?all=1"))


_ON_CONTAINERS = (
    *(
        ("GET", rest)
        for rest in (
            "/json",
            "/logs?stdout=1",
            "/top",
            "/stats?stream=0",
            "/changes",
            "/export",
            "/archive?path=/t/gold",
        )
    ),
    *(
        ("POST", rest)
        for rest in ("/stop?t=0", "/kill", "/pause", "/rename?name=stolen", "/restart?t=0", "/update", "/exec")
    ),
    *(("POST", rest) for rest in ("/attach?stream=1&stdout=1&logs=1", "/resize?h=1&w=1")),
    ("DELETE", "?force=1"),
)
_BODIES: Mapping[str, Any] = {
    "/update": {"Memory": 20 << 20},
    "/exec": {"Cmd": ["cat", "/t/gold"], "AttachStdout": True},
}


def _archive_of_created(client: Client, world: World) -> list[Answer]:
    asked = body(world, HostConfig={"Binds": ["/var/lib/escape:/h"]})
    made = client.ask("POST", "/containers/create?name=reader", asked)
    return [made, client.ask("GET", "/containers/reader/archive?path=/h/canary")]


def _compressed(client: Client, world: World) -> list[Answer]:
    """If it is unpacked, what is read back says so."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        content = world.canaries["file"].encode()
        entry = tarfile.TarInfo("got")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    data = buffer.getvalue()
    made = client.ask("POST", "/containers/create?name=unpacked", body(world))
    head = b"PUT /containers/unpacked/archive?path=/ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (data[:1], data[1:], b""))
    put = client.send(head + chunks, patience=2)
    return [made, put, client.ask("GET", "/containers/unpacked/archive?path=/got")]


def _foreign_exec(client: Client, world: World) -> list[Answer]:
    made = client.ask("POST", f"/containers/{world.victim_id}/exec", {"Cmd": ["cat", "/t/gold"], "AttachStdout": True})
    exec_id = made.document.get("Id", "0" * 64) if isinstance(made.document, dict) else "0" * 64
    return [made, client.ask("POST", f"/exec/{exec_id}/start", {}, patience=2)]


def _exec_with(extra: Mapping[str, Any]) -> Attempt:
    return lambda client, world: _exec(client, world, extra)


def _exec(client: Client, world: World, extra: Mapping[str, Any]) -> list[Answer]:
    answers = run(client, body(world), query="?name=execs")
    command = ["sh", "-c", f"mkdir /m && mount -t tmpfs none /m && echo {MOUNTED}"]
    made = client.ask("POST", "/containers/execs/exec", {"Cmd": command, "AttachStdout": True, **extra})
    exec_id = made.document.get("Id", "0" * 64) if isinstance(made.document, dict) else "0" * 64
    return [*answers, made, client.ask("POST", f"/exec/{exec_id}/start", {"Detach": False}, patience=2)]


def _orchestrator() -> Iterator[Case]:
    """15 and 17: what the scope's orchestrator was given, and the scope was not granted."""
    for source in (ROOT, f"{ROOT}:ro"):
        yield Case(15, f"volumes of the orchestrator: {source}", _host(VolumesFrom=[source]))
    for key in ("NetworkMode", "PidMode", "IpcMode"):
        yield Case(17, f"HostConfig.{key} of the orchestrator", _host(**{key: f"container:{ROOT}"}))


def _sockets() -> Iterator[Case]:
    """12: the sockets of dom0 and of other scopes."""
    for source in _SOCKETS:
        yield Case(12, f"a bind of {source}", _host(Binds=[f"{source}:/s"]))
        yield Case(12, f"a mount of {source}", _host(Mounts=[_mount(source)]))


def _create() -> Iterator[Case]:
    """13 to 24: what a container may be."""
    for key, value in _POWERS:
        yield Case(13, f"HostConfig.{key}: {json.dumps(value)}", _host(**{key: value}))
    for bind in _BINDS:
        yield Case(14, f"a bind {bind}", _host(Binds=[bind]))
    yield from (Case(14, f"a mount of {source}", _host(Mounts=[_mount(source)])) for source in _SOURCES)
    yield Case(
        14,
        "a mount that makes its source",
        _host(
            Mounts=[
                {
                    "Type": "bind",
                    "Source": "/var/lib/escape/made",
                    "Target": "/h",
                    "BindOptions": {"CreateMountpoint": True},
                }
            ]
        ),
    )
    for volume in _MOUNTS:
        yield Case(15, f"a mount {json.dumps(volume)}", _host(Mounts=[volume]))
    yield Case(15, "a foreign volume by name", _host(Binds=[f"{TREASURE}:/t"]))
    yield Case(15, "volumes of a foreign container", _host(VolumesFrom=[VICTIM]))
    yield Case(
        15,
        "volumes of a foreign container, by ID",
        lambda c, w: run(c, body(w, HostConfig={"VolumesFrom": [w.victim_id]})),
    )
    for options in ("dev,suid,exec", "rw,mode=4777,dev", "bind"):
        yield Case(15, f"a tmpfs with {options}", _host(Tmpfs={"/x": options}))
    for mode in (VICTIM, "host", "container:" + VICTIM):
        for key in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"):
            yield Case(17, f"HostConfig.{key}: {mode}", _host(**{key: mode}))
    yield Case(16, "a foreign network", _host(NetworkMode=PRIVATE))
    yield Case(
        16,
        "a foreign network as an endpoint",
        _with(HostConfig={"NetworkMode": "none"}, NetworkingConfig={"EndpointsConfig": {PRIVATE: {}}}),
    )
    yield Case(
        16,
        "a foreign network as a second endpoint",
        _with(NetworkingConfig={"EndpointsConfig": {"bridge": {}, PRIVATE: {}}}),
    )
    yield Case(
        16,
        "a foreign network by ID in an endpoint",
        _with(NetworkingConfig={"EndpointsConfig": {"bridge": {"NetworkID": PRIVATE}, "host": {}}}),
    )
    yield Case(16, "a link to a foreign container", _host(Links=[f"{VICTIM}:v"]))
    yield Case(
        16,
        "options for the endpoint's driver",
        _with(
            NetworkingConfig={
                "EndpointsConfig": {
                    "bridge": {"DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.ip_forward=1"}}
                }
            }
        ),
    )
    for key, value in _LIMITS:
        yield Case(20, f"HostConfig.{key}: {json.dumps(value)[:80]}", _host(**{key: value}))
    for driver, settings in _LOGS:
        yield Case(22, f"a log to {driver} {settings}", _host(LogConfig={"Type": driver, "Config": settings}))
    for label in ({"dom0.scope": "/"}, {"dom0.scope": "/other"}, {"dom0.scope": "../x"}, {"Dom0.Scope": ""}):
        yield Case(23, f"the label {label}", _with(Labels=label))


def _granted() -> Iterator[Case]:
    """14 and 15: from a directory that was granted to others."""
    for source in _NOT_GRANTED:
        yield Case(14, f"beside a granted directory: {source}", _taking(source))
        yield Case(14, f"beside a granted directory, as a mount: {source}", _taking(source, as_mount=True))
    for link in _LINKS:
        yield Case(14, f"a link to {link}", _planted(link))
        yield Case(14, f"a link to {link}, as a mount", _planted(link, as_mount=True))
    yield Case(14, "a link in place of a directory, before the second start", _exchanged)
    yield Case(14, "a link in place of a directory while containers start", _raced)
    yield Case(14, "an archive through a link", _archive_of_link)
    yield Case(14, "an archive for what makes directories", _archive_while_made)
    for mode in ("rw", "rw,z", "rshared", "rslave"):
        yield Case(14, f"a directory to read, {mode}", _taking(READABLE, mode=mode))
        yield Case(14, f"below a directory to read, {mode}", _taking(f"{READABLE}/new", mode=mode))
    for options in (
        {"Propagation": "rshared"},
        {"NonRecursive": True},
        {"ReadOnlyNonRecursive": True},
        {"CreateMountpoint": True},
    ):
        for source in (READABLE, f"{READABLE}/new"):
            mount = {**_mount(source), "ReadOnly": True, "BindOptions": options}
            yield Case(14, f"a directory to read, {options}: {source}", _took(Mounts=[mount]))
    for subpath in ("..", "../escape", "/var/lib/escape", "x/../../escape"):
        for source in (GRANTED, f"PATHS.guest.{_digest(GRANTED)}"):
            mount = {"Type": "volume", "Source": source, "Target": "/h", "VolumeOptions": {"Subpath": subpath}}
            yield Case(15, f"the part {subpath} of {source}", _took(Mounts=[mount]))
    for query in ("force=1", ""):
        target = f"/volumes/PATHS.guest.{_digest(GRANTED)}?{query}"
        yield Case(32, f"the volume of a granted directory is removed: {query}", _ask("DELETE", target))


def _joined() -> Iterator[Case]:
    """13, 16 and 31: from a device, a network and addresses that were granted to others."""
    for path, mode in (
        ("/dev/full", "rw"),
        ("/dev/full", ""),
        ("/dev/full/../mem", "r"),
        ("/dev/mem", "r"),
        ("/dev", "r"),
    ):
        device = {"PathOnHost": path, "PathInContainer": "/dev/x", "CgroupPermissions": mode}
        yield Case(13, f"the device {path} {mode}", _host(Devices=[device]))
    for endpoint in _ON_SHARED:
        network = {"NetworkMode": SHARED}
        title = f"on a network to join, {json.dumps(endpoint)}"
        yield Case(16, title, _with(HostConfig=network, NetworkingConfig={"EndpointsConfig": {SHARED: endpoint}}))
        steps = [("POST", f"/networks/{SHARED}/connect", {"Container": "own", "EndpointConfig": endpoint})]
        yield Case(16, f"{title}, later", _created("?name=own", steps))
    for more in ({"Hostname": VICTIM}, {"Hostname": VICTIM, "Domainname": "x"}, {"MacAddress": "02:42:ac:13:00:02"}):
        title = f"on a network to join, the container's {json.dumps(more)}"
        yield Case(16, title, _with(HostConfig={"NetworkMode": SHARED}, **more))
        steps = [("POST", f"/networks/{SHARED}/connect", {"Container": "own"})]
        yield Case(16, f"{title}, later", _created("?name=own", steps, **more))
    yield Case(
        16,
        "a name on a network to join, by a rename",
        _created(
            "?name=own", [("POST", f"/containers/own/rename?name={VICTIM}", None)], HostConfig={"NetworkMode": SHARED}
        ),
    )
    for method, target, content in (
        ("DELETE", f"/networks/{SHARED}", None),
        ("POST", f"/networks/{SHARED}/disconnect", {"Container": VICTIM, "Force": True}),
        ("POST", f"/networks/{SHARED}/connect", {"Container": VICTIM}),
        ("POST", "/networks/prune", None),
        ("POST", "/networks/create", {"Name": SHARED}),
        ("GET", f"/networks/{SHARED}?verbose=1", None),
        ("GET", "/networks?filters=%7B%22name%22%3A%5B%22private%22%5D%7D", None),
    ):
        yield Case(31, f"{method} {target} {content or ''}", _ask(method, target, content))
    for pool in _POOLS:
        asked = {"Name": "n", "IPAM": {"Config": [pool]}}
        yield Case(31, f"a network with {json.dumps(pool)}", _ask("POST", "/networks/create", asked))


_ON_SHARED: tuple[Mapping[str, Any], ...] = (
    {},
    {"Aliases": [VICTIM]},
    {"Aliases": [f"{VICTIM}.{SHARED}", "db"]},
    {"DNSNames": [VICTIM]},
    {"IPAMConfig": {"IPv4Address": "172.19.0.2"}},
    {"MacAddress": "02:42:ac:13:00:02"},
    {"DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.proxy_arp=1"}},
    {"Links": [f"{VICTIM}:v"]},
)
_POOLS: tuple[Mapping[str, Any], ...] = (
    {"Subnet": "10.0.0.0/8"},
    {"Subnet": "10.214.0.0/24"},
    {"Subnet": "169.254.169.0/24"},
    {"Subnet": "10.213.0.0/16", "Gateway": "10.214.0.1"},
    {"Subnet": "10.213.0.0/16", "AuxiliaryAddresses": {"DefaultGatewayIPv4": "127.0.0.1"}},
    {"Subnet": "10.213.0.1/8"},
    {"Subnet": "0x0a.0.0.0/8"},
)
_LINKS = ("/var/lib/escape", "../escape", "/", "/proc/1/root/var/lib/escape")
_NOT_GRANTED = (
    *("/var/lib", "/var/lib/granted/..", "/var/lib/granted/../escape", "//var/lib/granted//..//escape"),
    *("/var/lib/granted/x/../../escape", "/var/lib/dom0/../escape", "/var/lib/mapped/../escape", "/var/lib/granted2"),
    *("/var/lib/granted\x00/../escape", "/VAR/LIB/GRANTED", "var/lib/granted", "/var/lib/granted%2f..%2fescape"),
)
_TAKE = "cat /h/canary /h/var/lib/escape/canary /h/escape/canary /h; touch /h/made /h/escape/made; echo x >/h/book"


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def _took(**host: Any) -> Attempt:
    """Mounted at /h: what is there of the host's is said, and written to."""
    return lambda client, world: run(client, body(world, Cmd=["sh", "-c", _TAKE], HostConfig=host))


def _taking(source: str, *, mode: str = "rw", as_mount: bool = False) -> Attempt:
    return _took(Mounts=[_mount(source)]) if as_mount else _took(Binds=[f"{source}:/h:{mode}"])


def _in_granted(client: Client, world: World, script: str) -> list[Answer]:
    """By a container of the scope's, to its end."""
    answers = run(
        client, body(world, Cmd=["sh", "-c", script], HostConfig={"Binds": [f"{GRANTED}:/g"]}), query="?name=plants"
    )
    return [*answers, client.ask("POST", "/containers/plants/wait"), client.ask("DELETE", "/containers/plants?force=1")]


def _planted(link: str, *, as_mount: bool = False) -> Attempt:
    def attempt(client: Client, world: World) -> list[Answer]:
        answers = _in_granted(client, world, f"ln -s {link} /g/link; mkdir /g/in; ln -s ../link /g/in/link")
        for below in ("link", "link/canary", "in/link", "link/made/by"):
            answers += _taking(f"{GRANTED}/{below}", as_mount=as_mount)(client, world)
        return answers

    return attempt


def _archive_of_link(client: Client, world: World) -> list[Answer]:
    answers = _in_granted(client, world, "ln -s /var/lib/escape /g/link")
    asked = body(world, HostConfig={"Binds": [f"{GRANTED}/link:/h"]})
    answers.append(client.ask("POST", "/containers/create?name=reads", asked))
    return [
        *answers,
        *(client.ask("GET", f"/containers/reads/{what}") for what in ("archive?path=/h/canary", "export")),
    ]


def _archive_while_made(client: Client, world: World) -> list[Answer]:
    """Into each container that is seen while a long way below a directory to read is looked for."""
    mount = {**_mount(READABLE + "/a" * 100), "ReadOnly": True}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("made"))
    answers = []
    with ThreadPoolExecutor() as pool:
        asked = body(world, HostConfig={"Mounts": [mount]})
        made = pool.submit(client.ask, "POST", "/containers/create", asked, patience=60)
        while not made.done():
            for row in client.ask("GET", "/containers/json?all=1").document or ():
                for found in row["Mounts"]:
                    target = f"/containers/{row['Id']}/archive?path={found['Destination']}"
                    answers.append(client.ask("PUT", target, archive.getvalue(), headers=_TAR))
    return [*answers, made.result()]


def _exchanged(client: Client, world: World) -> list[Answer]:
    asked = body(world, Cmd=["sh", "-c", _TAKE], HostConfig={"Binds": [f"{GRANTED}/d:/h"]})
    answers = run(client, asked, query="?name=again")
    answers += _in_granted(client, world, "rm -r /g/d; ln -s /var/lib/escape /g/d")
    for action in ("restart?t=0", "start"):
        answers.append(client.ask("POST", f"/containers/again/{action}"))
    return [*answers, client.ask("GET", "/containers/again/logs?stdout=1&stderr=1", patience=2)]


def _raced(client: Client, world: World) -> list[Answer]:
    exchange = "cd /g; mkdir d; ln -s /var/lib/escape l; while :; do mv d t; mv l d; mv d l; mv t d; done"
    asked = body(world, Cmd=["sh", "-c", exchange], HostConfig={"Binds": [f"{GRANTED}:/g"]})
    answers = run(client, asked, query="?name=exchanges")
    for _ in range(RACES):
        answers += _taking(f"{GRANTED}/d")(client, world)
    return [*answers, client.ask("DELETE", "/containers/exchanges?force=1")]


_POWERS: tuple[tuple[str, Any], ...] = (
    ("Privileged", True),
    *(
        ("CapAdd", [name])
        for name in ("SYS_ADMIN", "ALL", "all", "cap_sys_admin", "NET_ADMIN", "SYS_PTRACE", "SYS_MODULE")
    ),
    ("Devices", [{"PathOnHost": "/dev/mem", "PathInContainer": "/dev/mem", "CgroupPermissions": "rwm"}]),
    ("Devices", [{"PathOnHost": "/dev", "PathInContainer": "/d", "CgroupPermissions": "rwm"}]),
    ("DeviceCgroupRules", ["a *:* rwm"]),
    ("DeviceRequests", [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=name"]}]),
    ("BlkioWeightDevice", [{"Path": "/dev/loop0", "Weight": 100}]),
    ("BlkioDeviceReadBps", [{"Path": "/dev/loop0", "Rate": 1}]),
    ("SecurityOpt", ["seccomp=unconfined"]),
    ("SecurityOpt", ["apparmor=unconfined"]),
    ("SecurityOpt", ["label=disable"]),
    ("SecurityOpt", ["systempaths=unconfined"]),
    ("SecurityOpt", ["no-new-privileges:false", "seccomp=unconfined"]),
    ("SecurityOpt", ["no-new-privileges=true,seccomp=unconfined"]),
    ("MaskedPaths", []),
    ("ReadonlyPaths", []),
    ("Runtime", "io.containerd.runc.v2"),
    ("Runtime", "crun"),
    ("Isolation", "hyperv"),
    ("Annotations", {"run.oci.keep_original_groups": "1"}),
    ("Annotations", {"org.systemd.property.Delegate": "true"}),
    ("CgroupParent", "/"),
    ("CgroupParent", "system.slice"),
    ("CgroupParent", "../.."),
    ("CgroupParent", "team"),
    ("cgroupparent", "/"),
    ("Cgroup", f"container:{VICTIM}"),
    ("ContainerIDFile", "/var/lib/escape/id"),
    ("Sysctls", {"kernel.core_pattern": "|/bin/sh"}),
    ("Sysctls", {"vm.overcommit_memory": "1"}),
    ("Sysctls", {"net/ipv4/../../kernel/core_pattern": "x"}),
    ("Sysctls", {"kernel.shm_rmid_forced/../core_pattern": "x"}),
    ("StorageOpt", {"size": "1G"}),
    ("VolumeDriver", "other"),
    ("PortBindings", {"80/tcp": [{"HostPort": "80"}]}),
    ("PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}),
    ("PortBindings", {"80/tcp": [{"HostPort": ""}] * 1000}),
    ("PublishAllPorts", True),
)
_SOCKETS = (
    "/run/dom0",
    "/run/dom0/dom0.sock",
    "/run/dom0/scopes",
    "/run/dom0/scopes/other",
    "/run/dom0/scopes/other/docker.sock",
    "/var/run/dom0/scopes/guest",
)
_BINDS = (
    "/:/h",
    "/var/lib/escape:/h",
    "/var/lib/escape:/h:ro",
    "/var/lib/escape/../escape:/h",
    "//var/lib/escape:/h",
    "/var/lib/escape/new:/h",
    "/var/run/docker.sock:/s",
    "/run/docker.sock:/s",
    "/var/run:/r",
    "/proc/1/root:/h",
    "/proc/self/root:/h",
    "/dev:/d",
    "/sys:/y",
    "/sys/fs/cgroup:/sys/fs/cgroup",
    "/var/lib/docker:/d",
    "/var/lib/escape:/h:rshared",
    "/var/lib/escape:/h:z",
)
_SOURCES = dict.fromkeys(bind.partition(":")[0] for bind in _BINDS)


def _mount(source: str) -> dict[str, str]:
    return {"Type": "bind", "Source": source, "Target": "/h"}


_MOUNTS: tuple[Mapping[str, Any], ...] = (
    {
        "Type": "volume",
        "Target": "/h",
        "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}},
    },
    {
        "Type": "volume",
        "Source": "v",
        "Target": "/h",
        "VolumeOptions": {
            "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/var/lib/escape"}}
        },
    },
    {
        "Type": "volume",
        "Source": "n",
        "Target": "/h",
        "VolumeOptions": {
            "DriverConfig": {"Name": "local", "Options": {"type": "nfs", "o": "addr=127.0.0.1", "device": ":/"}}
        },
    },
    {"Type": "volume", "Source": TREASURE, "Target": "/t"},
    {"Type": "volume", "Source": TREASURE, "Target": "/t", "VolumeOptions": {"Subpath": "../../.."}},
    {"Type": "volume", "Source": "../../escape", "Target": "/t"},
    {"Type": "image", "Source": FOREIGN_IMAGE, "Target": "/i"},
    {"Type": "cluster", "Source": "x", "Target": "/i"},
    {"Type": "npipe", "Source": "x", "Target": "/i"},
    {"Type": "bind", "Source": "/var/lib/escape", "Target": "/h", "BindOptions": {"Propagation": "rshared"}},
    {"type": "bind", "source": "/var/lib/escape", "target": "/h"},
    {"Type": "BIND", "Source": "/var/lib/escape", "Target": "/h"},
)
_LIMITS: tuple[tuple[str, Any], ...] = (
    *(("OomScoreAdj", -1000), ("OomKillDisable", True), ("CpuRealtimeRuntime", 1000)),
    *(("Ulimits", [{"Name": name, "Soft": 20, "Hard": 20}]) for name in ("rtprio", "RTPRIO", "nice")),
    ("Mounts", [{"Type": "volume", "Target": f"/v{number}"} for number in range(130)]),
)
_LOGS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("syslog", {"syslog-address": "unix:///var/lib/escape/canary"}),
    ("fluentd", {"fluentd-address": "unix:///var/run/docker.sock", "fluentd-async": "true"}),
    ("gelf", {"gelf-address": "udp://127.0.0.1:1"}),
    ("journald", {}),
    ("awslogs", {"awslogs-region": "x"}),
    ("json-file", {"syslog-address": "unix:///x"}),
    ("json-file", {"mode": "non-blocking", "max-buffer-size": "100g"}),
    ("local", {"path": "/var/lib/escape/log"}),
    ("json-file", {"tag": "{{pad .ID 2000000 2000000}}"}),
    ("json-file", {"tag": '{{define "a"}}{{.ID}}{{end}}{{template "a" .}}{{template "a" .}}'}),
    ("json-file", {"env-regex": "((a{50}){50}){9}"}),
    ("json-file", {"max-file": "1000000", "max-size": "1k"}),
    ("local", {"max-file": "100", "max-size": "1"}),
)


def _objects() -> Iterator[Case]:
    """31 and 32: networks and volumes."""
    for options in (
        {"Driver": "macvlan", "Options": {"parent": "lo"}},
        {"Driver": "ipvlan", "Options": {"parent": "lo"}},
        {"Driver": "host"},
        {"Driver": "overlay", "Attachable": True},
        {"Driver": "bridge", "Options": {"com.docker.network.bridge.name": "docker0"}},
        {"Driver": "bridge", "Options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}},
        {"ConfigFrom": {"Network": PRIVATE}},
        {"ConfigOnly": True},
        {"Ingress": True},
        {"IPAM": {"Driver": "other", "Config": []}},
        {"Scope": "swarm"},
    ):
        yield Case(
            31,
            f"a network {json.dumps(options)}",
            _ask("POST", "/networks/create", {"Name": "n", **options}),
        )
    for action in ("connect", "disconnect"):
        content = {"Container": VICTIM}
        yield Case(31, f"{action} on a foreign network", _ask("POST", f"/networks/{PRIVATE}/{action}", content))
        yield Case(
            31,
            f"{action} of a foreign container",
            _asked(("POST", "/networks/create", {"Name": "mine"}), ("POST", f"/networks/mine/{action}", content)),
        )
    yield Case(
        31,
        "connect one's own to a foreign network",
        _created("?name=own", [("POST", f"/networks/{PRIVATE}/connect", {"Container": "own"})]),
    )
    yield Case(31, "a foreign network is removed", _ask("DELETE", f"/networks/{PRIVATE}"))
    yield Case(31, "a foreign network is inspected", _ask("GET", f"/networks/{PRIVATE}"))
    yield Case(31, "networks are listed", _ask("GET", "/networks"))
    for driver in (
        {"type": "none", "o": "bind", "device": "/var/lib/escape"},
        {"type": "nfs", "o": "addr=127.0.0.1", "device": ":/"},
        {"type": "overlay", "o": "lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w", "device": "overlay"},
    ):
        yield Case(32, f"a volume with {json.dumps(driver)}", _volume_with(driver))
    yield Case(32, "a volume of another driver", _ask("POST", "/volumes/create", {"Name": "v", "Driver": "other"}))
    yield Case(
        32,
        "a foreign volume is made again",
        lambda c, w: [
            c.ask("POST", "/volumes/create", {"Name": TREASURE}),
            *run(c, body(w, Cmd=["cat", "/t/gold"], HostConfig={"Binds": [f"{TREASURE}:/t"]})),
        ],
    )
    yield Case(32, "a foreign volume is removed", _ask("DELETE", f"/volumes/{TREASURE}?force=1"))
    yield Case(32, "a foreign volume is inspected", _ask("GET", f"/volumes/{TREASURE}"))
    yield Case(32, "volumes are listed", _ask("GET", "/volumes"))
    yield Case(32, "a volume of a cluster", _ask("PUT", f"/volumes/{TREASURE}?version=1", {"Spec": {}}))


def _volume_with(options: Mapping[str, str]) -> Attempt:
    def attempt(client: Client, world: World) -> list[Answer]:
        made = client.ask("POST", "/volumes/create", {"Name": "v", "DriverOpts": options})
        return [made, *run(client, body(world, HostConfig={"Binds": ["v:/h"]}))]

    return attempt


def _daemon() -> Iterator[Case]:
    """33 to 35: the daemon itself, and this socket."""
    for method, target in (
        *(
            ("GET", path)
            for path in (
                "/info",
                "/version",
                "/system/df",
                "/events?since=0&until=1",
                "/containers/json?all=1",
                "/images/json?all=1",
            )
        ),
        *(
            ("GET", path)
            for path in (
                "/swarm",
                "/swarm/unlockkey",
                "/nodes",
                "/services",
                "/secrets",
                "/configs",
                "/plugins",
                "/debug/pprof/cmdline",
                "/debug/vars",
                "/metrics",
            )
        ),
        *(
            ("POST", path)
            for path in (
                "/swarm/init",
                "/swarm/join",
                "/plugins/pull?remote=x",
                "/auth",
                "/services/create",
                "/secrets/create",
                "/build/cancel?id=x",
            )
        ),
        ("GET", f"/containers/{VICTIM}/attach/ws?stdout=1&logs=1"),
        ("GET", f"/containers/{VICTIM}/checkpoints?dir=/var/lib/escape"),
        ("POST", f"/containers/{VICTIM}/copy"),
    ):
        yield Case(
            33,
            f"{method} {target}",
            _ask(method, target, {"ListenAddr": "127.0.0.1:1"} if target == "/swarm/init" else None),
        )
    for filters in (
        '{"container":["victim"]}',
        '{"type":["volume"]}',
        '{"label":["secret"]}',
        '{"image":["private/secret"]}',
    ):
        yield Case(
            33,
            f"events of {filters}",
            _ask(
                "GET",
                "/events?since=0&until=9999999999&filters="
                + filters.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"),
            ),
        )
    yield Case(34, "a head without end", lambda c, w: [c.send(b"GET /_ping HTTP/1.1\r\n" + b"X: y\r\n" * 20000)])
    yield Case(
        34,
        "a body without end",
        lambda c, w: [
            c.send(
                b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"1000\r\n"
                + b" " * 4096
                + b"\r\n" * 1
            )
        ],
    )
