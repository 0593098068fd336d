"""Where a registry leads: redirects, TLS, servers that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.errors import Final, RegistryError, Temporary
from dom0.registry import addresses
from dom0.registry import web as module
from dom0.registry.client import Registry
from dom0.registry.manifest import Descriptor, digest_of
from dom0.registry.web import MOST_REDIRECTS, WebClient, is_loopback
from dom0.run import capture
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.web_server import Asked, reply, served, stretch

Clients = Callable[..., Registry]
CONTENT = bytes(range(256)) * 100
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(CONTENT), len(CONTENT))


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebClient]:
    made = WebClient(insecure=True, certificates=tmp_path)
    yield made
    await made.close()


async def said(web: WebClient, url: str) -> bytes:
    async with web.ask(url, where="here") as answer:
        return await answer.read(1 << 20)


async def test_a_redirect_is_followed_with_the_range_until_its_address_expires(
    debian: Callable[..., DebianRegistry], client: Clients
) -> None:
    """The registry is Debian's, which sends blobs away; each of its addresses is good for one request."""
    used: set[str] = set()

    def of_cdn(asked: Asked) -> bytes:
        path = asked.target
        if path in used and "again" not in path:
            return reply(403, b"expired")
        used.add(path)
        return stretch(asked, CONTENT)

    async with served(of_cdn) as cdn:
        redirect = {"name": "redirect", "options": {"baseurl": f"http://{cdn.netloc}/"}}
        real = debian(config={"middleware": {"storage": [redirect]}})
        real.content.blob("team/app", CONTENT)
        registry = client(real.host)
        async with registry.blob("team/app", BLOB, 100, 200) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == CONTENT[100:200]
        with pytest.raises(Temporary, match=f"{cdn.netloc} answers with status 403"):
            async with registry.blob("team/app", BLOB, 200, 300):
                pass
        assert [asked.headers["range"] for asked in cdn.asked] == ["bytes=100-199", "bytes=200-299"]


async def test_redirects_are_followed_so_far_and_not_further(web: WebClient) -> None:
    def chain(asked: Asked) -> bytes:
        left = int(asked.target.rpartition("/")[2])
        return reply(301, Location=str(left - 1)) if left else reply(200, b"there")

    async with served(chain) as server:
        assert await said(web, f"http://{server.netloc}/{MOST_REDIRECTS}") == b"there"
        with pytest.raises(Final, match="here: more than 5 redirects"):
            await said(web, f"http://{server.netloc}/{MOST_REDIRECTS + 1}")


async def test_a_circle_of_redirects_is_refused(web: WebClient) -> None:
    def circle(asked: Asked) -> bytes:
        return reply(308, Location="/b#x" if asked.path == "/a" else "/a#y")

    async with served(circle) as server:
        with pytest.raises(Final, match=f"here: redirect loop at {server.netloc}"):
            await said(web, f"http://{server.netloc}/a")
        assert len(server.asked) == 2


async def test_what_an_address_has_is_sent_as_it_is(web: WebClient) -> None:
    target = "/a%2Fb/c?sig=x%2By%3D%3D&t=~(1)*'!;z=%20"
    async with served(lambda asked: reply(200, asked.target.encode())) as server:
        assert await said(web, f"http://{server.netloc}{target}") == target.encode()
        assert await said(web, f"http://{server.netloc}") == b"/"


async def test_connections_to_many_servers_are_not_all_kept(web: WebClient) -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(served(lambda _: reply(200, b"x"))) for _ in range(20)]
        async with web.ask(f"http://{servers[0].netloc}/", where="here") as first:
            for server in servers[1:]:
                server.keeps = True
                assert await said(web, f"http://{server.netloc}/") == b"x"
            assert await first.read(1) == b"x"  # its server was forgotten meanwhile
        for server, connections in ((servers[1], 2), (servers[-1], 1)):
            assert await said(web, f"http://{server.netloc}/") == b"x"
            assert server.connections == connections


# TLS


@pytest.fixture
def tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context


async def test_only_a_certificate_that_is_trusted_will_do(
    tls: ssl.SSLContext, certificates: Path, tmp_path: Path
) -> None:
    async with served(lambda _: reply(200, b"x"), tls=tls) as server:
        url = f"https://{server.netloc}/"
        stranger = WebClient(insecure=False, certificates=tmp_path / "none")
        with pytest.raises(Final, match="has no certificate that is trusted") as refused:
            await said(stranger, url)
        assert f"/etc/docker/certs.d/{server.netloc}/ca.crt" in refused.value.hint
        (tmp_path / "certs.d" / server.netloc).mkdir(parents=True)
        shutil.copy(certificates / "ca.pem", tmp_path / "certs.d" / server.netloc / "ca.crt")
        trusting = WebClient(insecure=False, certificates=tmp_path / "certs.d")
        assert await said(trusting, url) == b"x"
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        argv += ["-subj", "/CN=page", "-keyout", str(tmp_path / "other"), "-out", str(tmp_path / "other.pem")]
        await capture(argv)
        tls.load_cert_chain(tmp_path / "other.pem", tmp_path / "other")  # as a login page has one
        with pytest.raises(Temporary, match="has no certificate that is trusted"):
            await said(trusting, url)
        for web in (stranger, trusting):
            await web.close()


async def test_servers_without_certificates_of_their_own_share_what_the_system_trusts(
    web: WebClient, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    real = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(served(lambda _: reply(200, b"x"), tls=tls)) for _ in range(3)]
        (tmp_path / servers[0].netloc).mkdir()
        for server in servers:
            assert await said(web, f"https://{server.netloc}/") == b"x"
        assert len(made) == 2
        await web.close()


async def test_from_tls_nothing_leads_to_plain_text_unless_that_is_allowed(
    tls: ssl.SSLContext, certificates: Path, tmp_path: Path
) -> None:
    async with (
        served(lambda _: reply(200, b"x")) as plain,
        served(lambda _: reply(302, Location=f"http://{plain.netloc}/"), tls=tls) as server,
    ):
        (tmp_path / "certs.d" / server.netloc).mkdir(parents=True)
        shutil.copy(certificates / "ca.pem", tmp_path / "certs.d" / server.netloc / "ca.crt")
        web = WebClient(insecure=False, certificates=tmp_path / "certs.d")
        with pytest.raises(Final, match=f"leads to {plain.netloc} in plain text"):
            await said(web, f"https://{server.netloc}/")
        assert plain.asked == []
        insecure = WebClient(insecure=True, certificates=tmp_path / "none")
        assert await said(insecure, f"https://{server.netloc}/") == b"x"
        await web.close()
        await insecure.close()


async def test_certificates_that_are_none_are_named(certificates: Path, tmp_path: Path) -> None:
    for name in ("ca.crt", "client.cert"):
        directory = tmp_path / name / "registry.example"
        directory.mkdir(parents=True)
        (directory / name).write_text("nothing")
        web = WebClient(insecure=False, certificates=tmp_path / name)
        with pytest.raises(Final, match=f"{name}: no certificate"):
            await said(web, "https://registry.example/")
        await web.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
@pytest.mark.parametrize("is_tls", [True, False])
async def test_an_insecure_registry_is_asked_in_what_it_speaks(
    web: WebClient, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, host: str, is_tls: bool
) -> None:
    """Another address than this machine's is asked with TLS first: here it leads to this machine, too."""
    real = asyncio.open_connection

    async def here(_: str, *args: Any, **options: Any) -> Any:
        return await real("127.0.0.1", *args, **options)

    monkeypatch.setattr(asyncio, "open_connection", here)
    async with served(lambda _: reply(401), tls=tls if is_tls else None) as server:
        netloc = f"{host}:{server.netloc.partition(':')[2]}"
        assert await web.base(netloc, "here") == ("https://" if is_tls else "http://") + netloc


async def test_a_server_that_is_no_registry_is_not_asked_in_plain_text(web: WebClient) -> None:
    async with served(lambda _: reply(400)) as server:
        with pytest.raises(Temporary, match=r"here: the connection to .* broke"):
            await web.base(server.netloc, "here")


async def test_what_a_registry_speaks_is_not_concluded_from_a_line_that_breaks(web: WebClient) -> None:
    async with served(lambda _: b"") as server:
        with pytest.raises(Temporary, match=r"here: the connection to .* broke"):
            await web.base(server.netloc, "here")
        server.answer = lambda _: reply(200)
        assert await web.base(server.netloc, "here") == f"http://{server.netloc}"


async def test_plain_text_is_not_even_tried_where_it_is_not_allowed() -> None:
    web = WebClient(insecure=False)
    assert await web.base("registry.example", "here") == "https://registry.example"
    with pytest.raises(Final, match="in plain text"):
        await said(web, "http://registry.example/")


@pytest.mark.parametrize(("number", "kind"), [(socket.EAI_NONAME, Final), (socket.EAI_AGAIN, Temporary)])
async def test_a_name_that_nobody_has_is_final_and_a_lost_question_is_not(
    web: WebClient, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[RegistryError]
) -> None:
    async def failing(_: str) -> list[str]:
        raise socket.gaierror(number, "No answer")

    monkeypatch.setattr(addresses, "look_up", failing)
    with pytest.raises(kind, match="here: other: no answer"):
        await said(web, "http://other/")


async def test_of_a_server_whose_name_no_directory_can_have_there_are_no_certificates(
    web: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Nobody has it")

    monkeypatch.setattr(addresses, "look_up", failing)
    with pytest.raises(Final, match="nobody has it"):
        await said(web, f"https://{'a.' * 125}b:65535/")


async def test_a_server_is_found_at_whichever_address_answers(web: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first one, the second never answers; what has answered is asked first from then on."""
    monkeypatch.setattr(addresses, "NEXT_ADDRESS", 0.05)
    tried = []
    real = asyncio.open_connection

    async def watched(address: str, *args: Any, **options: Any) -> Any:
        tried.append(address)
        if address == "127.0.0.3":
            await asyncio.Event().wait()
        return await real(address, *args, **options)

    async def three(_: str) -> list[str]:
        return [f"127.0.0.{last}" for last in (2, 3, 1)]

    monkeypatch.setattr(asyncio, "open_connection", watched)
    monkeypatch.setattr(addresses, "look_up", three)
    async with served(lambda _: reply(200, b"x")) as server:
        for _ in range(2):
            assert await said(web, f"http://name:{server.netloc.partition(':')[2]}/") == b"x"
    assert tried == ["127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.1"]


async def test_nobody_waits_for_ever_for_a_connection(web: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Temporary, match=f"here: no connection to 127.0.0.1:{port} within"):
            await said(web, f"https://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost", True),
        ("localhost:5000", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("registry", False),
    ],
)
def test_this_machine_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


RESOLVING = """
import asyncio, socket, subprocess, sys, threading
from pathlib import Path
from dom0.errors import RegistryError
from dom0.registry.client import Registry
from dom0.registry.reference import parse

directory, code = Path(sys.argv[1]), int(sys.argv[2])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
(directory / "resolv.conf").write_text("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", directory / "resolv.conf", "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

def answer():
    while True:
        asked, client = server.recvfrom(512)
        head = asked[:2] + bytes([0x81, 0x80 | code]) + asked[4:6] + bytes(6)
        server.sendto(head + asked[12:], client)

if code >= 0:
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer, daemon=True).start()
try:
    asyncio.run(Registry("registry.example").manifest(parse("registry.example/app:1")))
except RegistryError as error:
    print(type(error).__name__, error.message)
"""


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (3, "Final", "name or service not known"),
        (0, "Final", "no address associated with hostname"),
        (2, "Temporary", "temporary failure in name resolution"),  # SERVFAIL: it does not reach others itself
        (5, "Temporary", "temporary failure in name resolution"),  # REFUSED
        (-1, "Temporary", "temporary failure in name resolution"),  # nobody listens
    ],
)
def test_only_a_resolver_that_says_that_nobody_has_a_name_is_believed(
    engines_possible: None, tmp_path: Path, code: int, kind: str, said: str
) -> None:
    """Whoever has no network waits for it."""
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", RESOLVING, str(tmp_path), str(code)]
    found = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.startswith(f"{kind} registry.example/app:1: registry.example: {said}")
