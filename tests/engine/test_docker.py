"""The adapter alone: finding and judging an Engine, and what a broken or hostile one can answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.engine import docker, transport
from dom0.engine.bodies import ContainerBody
from dom0.engine.docker import DockerEngine
from dom0.errors import Conflict, EngineError, EngineUnreachable, EngineUnsuitable, NotFound
from dom0.testing.hosts import Host

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
INFO = {
    "ID": "a",
    "Name": "host",
    "ServerVersion": "26.1",
    "NCPU": 2,
    "MemTotal": 3,
    "Driver": "overlay2",
    "DockerRootDir": "/d",
    "OperatingSystem": "Debian",
}
INSPECT_TTY = {"Config": {"Tty": True}}


def answer(body: Any, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + data


def endless(body: bytes) -> bytes:
    """An answer that goes on until the connection is closed."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


class Impostor:
    """Answers on a socket with the raw bytes that a test wants, by method and path without the API version."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.path = path
        self.answers: dict[str, bytes] = {"GET /_ping": PING}
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if length := re.search(r"(?i)content-length: (\d+)", head):
                await reader.readexactly(int(length[1]))
            elif "transfer-encoding: chunked" in head.lower():  # who closes before all is read takes the answer back
                await reader.readuntil(b"0\r\n\r\n")
            method, target, _ = head.splitlines()[0].split()
            self.asked.append(f"{method} {target}")
            path = re.sub(r"^/v1\.\d+", "", target).partition("?")[0]
            writer.write(self.answers.get(f"{method} {path}", answer({"message": f"no {path}"}, "404 Not Found")))
            await writer.drain()


@pytest.fixture
async def impostor(tmp_path: Path) -> AsyncIterator[Impostor]:
    impostor = Impostor(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(impostor.serve, impostor.path)
    async with server:
        yield impostor


@contextlib.asynccontextmanager
async def connected(impostor: Impostor) -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.connect(impostor.host)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture(autouse=True)
def no_docker_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DOCKER_")]:
        monkeypatch.delenv(name)


# finding and judging


@pytest.mark.parametrize(("offered", "used"), [("1.41", "1.41"), ("1.44", "1.44"), ("1.51", "1.51"), ("1.99", "1.51")])
async def test_the_lower_api_version_is_used(impostor: Impostor, offered: str, used: str) -> None:
    impostor.answers["GET /_ping"] = answer(b"OK", "200 OK", f"Api-Version: {offered}")
    impostor.answers["GET /containers/json"] = answer([])
    async with connected(impostor) as engine:
        await engine.containers()
    assert impostor.asked == ["GET /_ping", f"GET /v{used}/_ping", f"GET /v{used}/containers/json?all=1"]


@pytest.mark.parametrize("offered", ["1.40", "1.9", "0.99"])
async def test_an_engine_that_is_too_old_is_refused(impostor: Impostor, offered: str) -> None:
    impostor.answers["GET /_ping"] = answer(b"OK", "200 OK", f"Api-Version: {offered}")
    with pytest.raises(EngineUnsuitable, match=rf"speaks API {offered}, older than 1\.41") as refusal:
        await DockerEngine.connect(impostor.host)
    assert "20.10" in refusal.value.hint


@pytest.mark.parametrize("offered", ["", "1", "1.", ".45", "1.45.1", "1.x", "-1.45", "\u0661.\u0664", "1." + "4" * 99])
async def test_what_does_not_tell_its_api_version_is_no_engine(impostor: Impostor, offered: str) -> None:
    impostor.answers["GET /_ping"] = answer(b"OK", "200 OK", f"Api-Version: {offered}")
    with pytest.raises(EngineUnsuitable, match="does not say which API"):
        await DockerEngine.connect(impostor.host)


async def test_an_engine_that_is_too_new_is_refused_at_once(impostor: Impostor) -> None:
    words = "client version 1.45 is too old. Minimum supported API version is 1.52, please upgrade your client"
    refusing = answer({"message": words}, "400 Bad Request")

    class TooNew(Impostor):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.asked:
                self.answers["GET /_ping"] = refusing
            await super().serve(reader, writer)

    new = TooNew(impostor.path.with_name("new.sock"))
    async with await asyncio.start_unix_server(new.serve, new.path):
        with pytest.raises(EngineUnsuitable, match=r"Minimum supported API version is 1\.52") as refusal:
            await DockerEngine.connect(new.host)
    assert "newer dom0" in refusal.value.hint


async def test_without_a_socket_the_hint_is_to_start_the_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable, match=r"nothing\.sock: there is no such socket") as refusal:
        await DockerEngine.connect(f"unix://{tmp_path}/nothing.sock")
    assert "systemctl start docker" in refusal.value.hint
    assert refusal.value.transient


@pytest.fixture
def dead_socket(tmp_path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead.sock"))
    return tmp_path / "dead.sock"


async def test_a_socket_that_nobody_listens_on_is_told_apart(dead_socket: Path) -> None:
    with pytest.raises(EngineUnreachable, match="nobody listens"):
        await DockerEngine.connect(f"unix://{dead_socket}")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_without_permission_the_hint_names_the_group(impostor: Impostor) -> None:
    with as_nobody(), pytest.raises(EngineUnreachable, match="no permission") as refusal:
        await DockerEngine.connect(impostor.host)
    assert "usermod -aG docker" in refusal.value.hint


async def test_the_environment_names_the_engine(impostor: Impostor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", impostor.host)
    engine = await DockerEngine.connect()
    await engine.close()
    assert impostor.asked[0] == "GET /_ping"


async def test_an_engine_behind_tcp_is_asked_in_plain_text(impostor: Impostor) -> None:
    impostor.answers["GET /containers/json"] = answer([])
    async with await asyncio.start_server(impostor.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        engine = await DockerEngine.connect(f"tcp://{host}:{port}")
        await engine.containers()
        await engine.close()


async def test_an_engine_behind_tls_is_verified_and_shown_our_certificate(
    impostor: Impostor, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    impostor.answers["GET /containers/json"] = answer([])
    async with await asyncio.start_server(impostor.serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        engine = await DockerEngine.connect(f"tcp://127.0.0.1:{port}")
        await engine.containers()
        await engine.close()
        with pytest.raises(EngineUnreachable, match=r"no trusted connection .*certificate"):
            await DockerEngine.connect(f"tcp://localhost:{port}")  # not what the certificate is for


async def test_an_engine_that_hangs_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_CONNECT", 0.2)
    silence = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await silence.wait()

    async with await asyncio.start_unix_server(hang, tmp_path / "hanging.sock"):
        with pytest.raises(EngineUnreachable, match=r"did not answer within 0\.2 s"):
            await DockerEngine.connect(f"unix://{tmp_path}/hanging.sock")
        silence.set()


# refusals


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("404 Not Found", "No such container: one", NotFound),
        ("409 Conflict", "is not running", Conflict),
        ("403 Forbidden", "network net id 1 has active endpoints", Conflict),
        ("403 Forbidden", "endpoint with name one already exists in network net", Conflict),
        ("403 Forbidden", "bridge is a pre-defined network and cannot be removed", EngineError),
        ("400 Bad Request", "no command specified", EngineError),
        ("500 Internal Server Error", "port is already allocated", EngineError),
    ],
)
async def test_a_refusal_keeps_the_engine_s_words(
    impostor: Impostor, status: str, message: str, kind: type[EngineError]
) -> None:
    impostor.answers["POST /containers/one/start"] = answer({"message": message}, status)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError) as refusal:
            await engine.start_container("one")
    assert type(refusal.value) is kind
    assert refusal.value.message == f"container one: {message}"
    assert not refusal.value.transient


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"message": "red \\u001b[31m, bell \\u0007, \\u202eback"}', "red \\x1b[31m, bell \\x07, \\u202eback"),
        (b'{"message": "two\\r\\nlines"}', "two  lines"),
        (b"plain \x1b[31m text\n", "plain \\x1b[31m text"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "the Engine answered with status 500"),
        (b"[" * 60000, "[" * 1000),
    ],
)
async def test_a_refusal_cannot_play_with_the_terminal(impostor: Impostor, body: bytes, told: str) -> None:
    impostor.answers["GET /networks"] = answer(body, "500 Internal Server Error")
    async with connected(impostor) as engine:
        with pytest.raises(EngineError) as refusal:
            await engine.networks()
    assert refusal.value.message == f"networks: {told}"


async def test_a_redirect_is_not_followed(impostor: Impostor) -> None:
    impostor.answers["GET /networks"] = answer(b"", "301 Moved Permanently", "Location: /v1.45/volumes")
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="status 301"):
            await engine.networks()
    assert not any("volumes" in asked for asked in impostor.asked)


# answers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"{}",
        b'[{"Id": 1, "Name": "n", "Driver": "d"}]',
        b'[{"Name": "n", "Driver": "d"}]',
        b'[{"Id": "i", "Name": "n", "Driver": "d", "Labels": {"a": 1}}]',
        b'[{"Id": "\xff", "Name": "n", "Driver": "d"}]',
        b"[" * 100_000,
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused_with_its_place(impostor: Impostor, body: bytes) -> None:
    impostor.answers["GET /networks"] = answer(body)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match=r"^networks: the Engine's answer makes no sense"):
            await engine.networks()


async def test_an_answer_is_never_unpacked(impostor: Impostor) -> None:
    impostor.answers["GET /networks"] = answer(b"\x1f\x8b\x08\x00", "200 OK", "Content-Encoding: gzip")
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="makes no sense"):
            await engine.networks()


async def test_an_answer_without_end_is_given_up(impostor: Impostor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_ARCHIVE", 100_000)
    impostor.answers["GET /containers/one/archive"] = endless(b"x" * 200_000)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="container one: /x: the Engine's answer is longer than 97 KiB"):
            await engine.get_archive("one", "/x", io.BytesIO())


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"])
async def test_what_does_not_speak_http_is_no_engine(impostor: Impostor, raw: bytes) -> None:
    impostor.answers["GET /networks"] = raw
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="does not speak HTTP"):
            await engine.networks()


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]"])
async def test_a_connection_that_breaks_is_unreachable(impostor: Impostor, raw: bytes) -> None:
    impostor.answers["GET /networks"] = raw
    async with connected(impostor) as engine:
        with pytest.raises(EngineUnreachable, match="networks: the connection to the Docker Engine broke"):
            await engine.networks()


async def test_names_in_requests_are_quoted(impostor: Impostor) -> None:
    async with connected(impostor) as engine:
        for ref in ("a?b", "a b", "a%2fb", "a#b", "ü"):
            with pytest.raises(NotFound):
                await engine.container(ref)
    assert [asked.removeprefix("GET /v1.45/containers/") for asked in impostor.asked[2:]] == [
        "a%3Fb/json",
        "a%20b/json",
        "a%252fb/json",
        "a%23b/json",
        "%C3%BC/json",
    ]


async def test_what_can_be_no_name_is_not_even_asked_for(impostor: Impostor) -> None:
    async with connected(impostor) as engine:
        for ref in ("", ".", "..", "a/b", "a\nb", "a\0"):
            with pytest.raises(NotFound, match="no such name can exist"):
                await engine.start_container(ref)
            await engine.remove_network(ref)
            await engine.remove_volume(ref)
    assert len(impostor.asked) == 2


# streams

START = {"Type": "container", "Action": "start", "Actor": {"ID": "1", "Attributes": {"name": "one"}}, "timeNano": 5}


async def test_events_end_as_unreachable(impostor: Impostor) -> None:
    line = msgspec.json.encode(START)
    impostor.answers["GET /events"] = endless(line + b"\n\n" + line + b"\r\n" + line[:20])
    async with connected(impostor) as engine:
        events = engine.events(since=1.5, filters={"type": ["container"]})
        told = [await anext(events), await anext(events)]
        with pytest.raises(EngineUnreachable, match="ended the stream"):
            await anext(events)
    assert [(event.action, event.time) for event in told] == [("start", 5e-9)] * 2
    assert impostor.asked[-1] == "GET /v1.45/events?since=1.500000000&filters=%7B%22type%22%3A%5B%22container%22%5D%7D"


async def test_an_event_that_is_too_long_is_left_out_and_said_once(
    impostor: Impostor, caplog: pytest.LogCaptureFixture
) -> None:
    line, long = msgspec.json.encode(START), b"x" * (5 << 20)
    impostor.answers["GET /events"] = endless(b"\n".join([line, long, line, long, line, b""]))
    async with connected(impostor) as engine:
        events = engine.events()
        told = [await anext(events) for _ in range(3)]
        with pytest.raises(EngineUnreachable, match="ended the stream"):
            await anext(events)
    assert [event.action for event in told] == ["start"] * 3
    assert [record.message for record in caplog.records if "left out" in record.message] == [
        "Docker Engine: events: one of more than 4 MB was left out"
    ]


@pytest.mark.parametrize("line", [b"nonsense\n", b"{}\n", b'{"Type": 1}\n'])
async def test_an_event_that_makes_no_sense_is_an_error(impostor: Impostor, line: bytes) -> None:
    impostor.answers["GET /events"] = endless(line)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="events: the Engine's answer makes no sense") as refusal:
            async for _ in engine.events():
                pass
    assert not isinstance(refusal.value, EngineUnreachable)


async def exec_of(impostor: Impostor, stream: bytes) -> str:
    impostor.answers["POST /containers/one/exec"] = answer({"Id": "x"}, "201 Created")
    impostor.answers["POST /exec/x/start"] = endless(stream)
    impostor.answers["GET /exec/x/json"] = answer({"Running": False, "ExitCode": 0})
    async with connected(impostor) as engine:
        return (await engine.exec("one", ["true"])).output


async def test_exec_keeps_the_end_of_a_long_output(impostor: Impostor) -> None:
    lines = b"".join(b"%d\n" % number for number in range(50_000))
    output = await exec_of(impostor, frame(1, lines) + frame(2, b"the end\xff"))
    assert len(output.encode(errors="replace")) <= (64 << 10) + 8
    assert output.endswith("49999\nthe end\ufffd")


@pytest.mark.parametrize("stream", [b"\x03\0\0\0\0\0\0\x01x", b"plain text", frame(1, b"a") + b"\x01\x01\0\0\0\0\0\0"])
async def test_exec_output_without_frames_is_refused(impostor: Impostor, stream: bytes) -> None:
    with pytest.raises(EngineError, match="container one: the Engine's answer makes no sense: a frame starts with"):
        await exec_of(impostor, stream)


async def test_logs_of_a_terminal_have_no_frames(impostor: Impostor) -> None:
    impostor.answers["GET /containers/one/json"] = answer(INSPECT_TTY)
    impostor.answers["GET /containers/one/logs"] = endless(b"\x01\0\0\0 as it is\r\n" + b"y" * (600 << 10))
    async with connected(impostor) as engine:
        logs = await engine.logs("one", tail=7)
    assert logs == "y" * (256 << 10)
    assert impostor.asked[-1].endswith("/logs?stdout=1&stderr=1&tail=7&since=0.000000000")


@pytest.mark.parametrize(
    ("status", "body", "transient"),
    [
        ("404 Not Found", {"message": "pull access denied for x, repository does not exist"}, False),
        ("500 Internal Server Error", {"message": "Get https://r/v2/: dial tcp: connection refused"}, True),
        ("500 Internal Server Error", {"message": "toomanyrequests: Too Many Requests"}, True),
        ("500 Internal Server Error", {"message": "unauthorized: incorrect username or password"}, False),
        ("500 Internal Server Error", {"message": "manifest unknown: manifest unknown"}, False),
        ("400 Bad Request", {"message": "invalid reference format"}, False),
        ("200 OK", {"error": "no matching manifest for linux/amd64 in the manifest list entries"}, False),
        ("200 OK", {"error": "dial tcp: lookup registry.example on 192.0.2.1:53: no such host"}, False),
        ("200 OK", {"error": "dial tcp: lookup registry.example on 192.0.2.1:53: server misbehaving"}, True),
        ("200 OK", {"error": "unexpected EOF"}, True),
        ("200 OK", {"errorDetail": {"message": "unexpected EOF"}}, True),
        ("200 OK", {"error": "unexpected EOF", "errorDetail": {"code": 1, "message": "unexpected EOF"}}, True),
        ("200 OK", {"error": "denied: requested access to the resource is denied"}, False),
    ],
)
async def test_a_failed_pull_says_whether_to_try_again(
    impostor: Impostor, status: str, body: dict[str, Any], transient: bool
) -> None:
    impostor.answers["POST /images/create"] = answer(body, status)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError) as refusal:
            async for _ in engine.pull_image("x"):
                pass
    words = body.get("message") or body.get("error") or body["errorDetail"]["message"]
    assert refusal.value.message == f"image x: {words}"
    assert refusal.value.transient is transient
    assert bool(refusal.value.hint) is not transient


@pytest.mark.parametrize("line", [{"error": "no"}, {"errorDetail": {"message": "no"}}])
async def test_a_failed_build_is_no_success(impostor: Impostor, line: dict[str, Any]) -> None:
    impostor.answers["GET /info"] = answer(INFO)
    impostor.answers["POST /build"] = answer(line)
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="image own: the build failed: no"):
            await engine.build_image(io.BytesIO(), tag="own")


async def test_a_layer_that_is_not_taken_is_no_success(impostor: Impostor) -> None:
    below = {"Id": "sha256:1", "Config": {}, "RootFS": {"Layers": ["sha256:2"]}}
    impostor.answers["GET /images/below/json"] = answer(below)
    impostor.answers["POST /images/load"] = answer({"errorDetail": {"message": "invalid diffID"}})
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="image own: the Docker Engine does not take it: invalid diffID"):
            await engine.add_layer("below", io.BytesIO(), tag="own", created=1)


async def test_an_engine_that_copies_nothing_below_a_link_gets_a_way_out(impostor: Impostor) -> None:
    words = "mkdirat var/run: path escapes from parent"
    impostor.answers["PUT /containers/one/archive"] = answer({"message": words}, "500 Internal Server Error")
    async with connected(impostor) as engine:
        with pytest.raises(EngineError, match="path escapes from parent") as refusal:
            await engine.put_archive("one", "/", b"")
    assert "/run/docker.sock for /var/run/docker.sock" in refusal.value.hint


@pytest.mark.parametrize(
    ("ref", "query"),
    [
        ("redis", "fromImage=redis&tag=latest"),
        ("redis:7", "fromImage=redis&tag=7"),
        ("registry:5000/a/b", "fromImage=registry%3A5000%2Fa%2Fb&tag=latest"),
        ("registry:5000/a/b:1", "fromImage=registry%3A5000%2Fa%2Fb&tag=1"),
        ("redis@sha256:ab", "fromImage=redis%40sha256%3Aab&tag="),
        ("redis:7@sha256:ab", "fromImage=redis%3A7%40sha256%3Aab&tag="),
    ],
)
async def test_a_pull_asks_for_one_image_and_tells_its_progress(impostor: Impostor, ref: str, query: str) -> None:
    progress = {"id": "abc", "status": "Downloading \x1b", "progressDetail": {"current": 1, "total": 2}}
    done = {"status": "Status: Downloaded newer image", "progressDetail": {}}
    lines = b"\r\n".join(map(msgspec.json.encode, (progress, done)))
    impostor.answers["POST /images/create"] = endless(lines + b"\r\n")
    async with connected(impostor) as engine:
        told = [step async for step in engine.pull_image(ref, platform="linux/arm64")]
    assert [(step.layer, step.status, step.current, step.total) for step in told] == [
        ("abc", "Downloading \\x1b", 1, 2),
        ("", "Status: Downloaded newer image", 0, 0),
    ]
    assert impostor.asked[-1] == f"POST /v1.45/images/create?{query}&platform=linux%2Farm64"


# a real Engine


@pytest.fixture
async def engine(engine_host: Host) -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.connect(engine_host.docker_host)
    yield engine
    await engine.close()


async def running(engine: DockerEngine, *command: str, tty: bool = False) -> str:
    body = ContainerBody(image="busybox:test", cmd=command or ("sleep", "1000"), tty=tty)
    one = await engine.create_container("one", body)
    await engine.start_container(one)
    return one


async def test_an_exec_is_waited_for_although_it_closed_its_output(engine: DockerEngine) -> None:
    one = await running(engine)
    result = await engine.exec(one, ["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 4"])
    assert (result.exit_code, result.output) == (4, "")


async def test_logs_of_a_real_terminal_are_read(engine: DockerEngine) -> None:
    one = await running(engine, "sh", "-c", "echo one; echo two", tty=True)
    await engine.wait_container(one)
    assert await engine.logs(one) == "one\r\ntwo\r\n"


async def test_more_than_a_hundred_streams_do_not_hold_up_a_call(engine: DockerEngine) -> None:
    one = await running(engine)
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(engine.wait_container(one)) for _ in range(120)]
        async with asyncio.timeout(30):
            await engine.info()
        await engine.stop_container(one, timeout=0)
    assert {wait.result() for wait in waits} == {137}
