"""Proxies of the environment: which are asked for what, and that they are asked right."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dom0.errors import Final, RegistryError, Temporary, UsageError
from dom0.registry.client import Registry
from dom0.registry.credentials import Login
from dom0.registry.proxies import Proxies, read
from dom0.registry.reference import parse
from dom0.registry.web import WebClient
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry
from dom0.testing.forward_proxy import ForwardProxy, proxied
from dom0.testing.web_server import WebServer, reply, served

SECRET = "p@ss word"
QUOTED = "p%40ss%20word"


@pytest.mark.parametrize(
    ("env", "scheme", "expected"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "https", "proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https", "proxy.example:3128"),
        ({"https_proxy": "proxy.example"}, "https", "proxy.example"),
        ({"HTTPS_PROXY": "first.example", "https_proxy": "second.example"}, "https", "first.example"),
        ({"HTTPS_PROXY": "", "https_proxy": "second.example"}, "https", "second.example"),
        ({"HTTPS_PROXY": "http://[::1]:3128/"}, "https", "[::1]:3128"),
        ({"HTTP_PROXY": "proxy.example"}, "https", None),
        ({"HTTP_PROXY": "proxy.example"}, "http", "proxy.example"),
        ({"ALL_PROXY": "proxy.example"}, "https", None),
    ],
)
def test_which_proxy_a_scheme_has(env: dict[str, str], scheme: str, expected: str | None) -> None:
    found = read(env).find(scheme, "registry.example", 443)
    assert (found and found.netloc) == expected


@pytest.mark.parametrize(
    "value", ["http://", "http://proxy:port", "http://[::1", "socks5://proxy", "https://proxy", "a b"]
)
def test_what_is_no_proxy_is_refused_without_its_password(value: str) -> None:
    value = value.replace("://", f"://guest:{QUOTED}@")
    with pytest.raises(UsageError, match=r"^HTTPS_PROXY: ") as refused:
        read({"HTTPS_PROXY": value})
    assert QUOTED not in refused.value.message + refused.value.hint


# As golang.org/x/net/http/httpproxy has them in its proxy_test.go, and some more.
NO_PROXY = [
    ("", "registry.example", 443, True),
    ("", "localhost", 443, False),
    ("", "127.0.0.1", 443, False),
    ("", "127.0.0.2", 443, False),
    ("", "::1", 443, False),
    ("*", "registry.example", 443, False),
    ("other.example, *", "10.1.2.3", 443, False),
    ("example", "registry.example", 443, False),
    (".example", "registry.example", 443, False),
    ("*.example", "registry.example", 443, False),
    ("registry.example", "registry.example", 443, False),
    (".registry.example", "registry.example", 443, True),
    ("*.registry.example", "registry.example", 443, True),
    ("gistry.example", "registry.example", 443, True),
    ("REGISTRY.Example", "registry.EXAMPLE", 443, False),
    (" a.example , registry.example ", "registry.example", 443, False),
    ("registry.example:443", "registry.example", 443, False),
    ("registry.example:5000", "registry.example", 443, True),
    (".example:443", "registry.example", 443, False),
    ("10.1.2.3", "10.1.2.3", 443, False),
    ("10.1.2.3:443", "10.1.2.3", 443, False),
    ("10.1.2.3:80", "10.1.2.3", 443, True),
    ("10.1.0.0/16", "10.1.2.3", 443, False),
    ("10.1.9.9/16", "10.1.2.3", 443, False),
    ("10.1.0.0/255.255.0.0", "10.1.2.3", 443, True),
    ("10.2.0.0/16", "10.1.2.3", 443, True),
    ("10.1.0.0/16", "registry.example", 443, True),
    ("1.2.3", "10.1.2.3", 443, True),
    (".3", "10.1.2.3", 443, True),
    ("2001:db8::1", "2001:db8::1", 443, False),
    ("[2001:db8::1]:443", "2001:db8::1", 443, False),
    ("[2001:db8::1]:80", "2001:db8::1", 443, True),
    ("[2001:db8::1]", "2001:db8::1", 443, True),
    ("2001:db8::/32", "2001:db8::1", 443, False),
    ("::ffff:10.1.2.3", "10.1.2.3", 443, False),
    (":443,,  ,", "registry.example", 443, True),
]


@pytest.mark.parametrize(("excepted", "host", "port", "by_proxy"), NO_PROXY)
def test_what_is_asked_past_the_proxy(excepted: str, host: str, port: int, by_proxy: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        found = read({"HTTPS_PROXY": "proxy.example", name: excepted}).find("https", host, port)
        assert (found is not None) is by_proxy


def proxies_to(proxy: ForwardProxy, login: str = "") -> Proxies:
    address = f"http://{login}127.0.0.1:{proxy.port}"
    return read({"HTTP_PROXY": address, "HTTPS_PROXY": address})


async def said(web: WebClient, url: str, **secret: str) -> bytes:
    try:
        async with web.ask(url, where="here", secret=secret) as answer:
            return await answer.read(1 << 20)
    finally:
        await web.close()


@pytest.fixture
async def server(certificates: Path) -> AsyncIterator[WebServer]:
    """registry.test, with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    async with served(lambda _: reply(200, b"x"), tls=context) as started:
        yield started


@pytest.fixture
def trusted(certificates: Path, tmp_path: Path) -> Path:
    (tmp_path / "certs.d/registry.test").mkdir(parents=True)
    shutil.copy(certificates / "ca.pem", tmp_path / "certs.d/registry.test/ca.crt")
    return tmp_path / "certs.d"


def port_of(server: WebServer) -> int:
    return int(server.netloc.rpartition(":")[2])


async def test_tls_goes_through_a_tunnel_whose_login_nobody_else_sees(server: WebServer, trusted: Path) -> None:
    async with proxied(port_of(server), f"guest:{SECRET}") as proxy:
        web = WebClient(insecure=False, certificates=trusted, proxies=proxies_to(proxy, f"guest:{QUOTED}@"))
        assert await said(web, "https://registry.test/v2/", Authorization="Basic x") == b"x"
    ((method, target, headers),) = proxy.asked
    assert (method, target, headers["host"]) == ("CONNECT", "registry.test:443", "registry.test:443")
    assert "authorization" not in headers
    (asked,) = server.asked
    assert (asked.target, asked.headers["authorization"], asked.headers["host"]) == ("/v2/", "Basic x", "registry.test")
    assert not any(name.startswith("proxy") for name in asked.headers)


async def test_plain_text_is_asked_for_in_absolute_form() -> None:
    async with served(lambda _: reply(200, b"x")) as server, proxied(port_of(server), "guest:") as proxy:
        web = WebClient(insecure=True, proxies=proxies_to(proxy, "guest@"))
        assert await said(web, "http://registry.test:5000/v2/?a=b") == b"x"
    ((method, target, headers),) = proxy.asked
    assert (method, target, headers["host"]) == ("GET", "http://registry.test:5000/v2/?a=b", "registry.test:5000")
    assert not any(name.startswith("proxy") for name in server.asked[0].headers)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_login_says_so(server: WebServer, scheme: str) -> None:
    async with proxied(port_of(server), "guest:right") as proxy:
        for login, words in (("", "wants a login$"), ("guest:wrong@", "wants a login, and not this one$")):
            with pytest.raises(Final, match=f"the proxy 127.0.0.1:{proxy.port} {words}") as refused:
                await said(WebClient(insecure=True, proxies=proxies_to(proxy, login)), f"{scheme}://registry.test/")
            assert f"{scheme.upper()}_PROXY=http://USER:PASSWORD@" in refused.value.hint
            assert "wrong" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"HTTP/1.1 403 Filtered\r\n\r\n", Final, "answers with status 403: Filtered"),
        (b"HTTP/1.0 502 Bad\r\nX: y\r\n\r\n", Temporary, "answers with status 502"),
        (b"SSH-2.0-x\r\n\r\n", Temporary, "does not speak HTTP"),
        (b"HTTP/1.1 503 " + b"x" * 20_000, Temporary, "does not speak HTTP"),
        (b"", Temporary, "by the proxy 127.0.0.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", Temporary, "by the proxy"),
    ],
)
async def test_what_a_proxy_says_that_does_not_lead_there(
    server: WebServer, trusted: Path, answer: bytes, kind: type[RegistryError], words: str
) -> None:
    """The last one puts an answer of its own before that of the server."""
    async with proxied(port_of(server)) as proxy:
        proxy.answer = answer
        web = WebClient(insecure=False, certificates=trusted, proxies=proxies_to(proxy))
        with pytest.raises(kind, match=words):
            await said(web, "https://registry.test/")
    assert server.asked == []


async def test_without_the_proxy_nobody_is_asked() -> None:
    async with proxied(1) as proxy:
        proxies = proxies_to(proxy)
    with pytest.raises(Temporary, match=f"no connection to registry.test by the proxy 127.0.0.1:{proxy.port}"):
        await said(WebClient(insecure=True, proxies=proxies), "https://registry.test/")


async def test_a_registry_behind_a_proxy_gets_its_login_and_gives_its_images(
    debian: Callable[..., DebianRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = debian(login=True)
    top = real.content.image("team/app", "1")
    async with proxied(int(real.host.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        registry = Registry("registry.test:5000", Login(USER, PASSWORD), insecure=True)
        assert (await registry.manifest(parse("registry.test:5000/team/app:1")))[2] == top.digest
        await registry.close()
    assert {asked.method for asked in proxy.asked} == {"CONNECT", "GET"}  # TLS is tried first
    assert not any(QUOTED in str(asked) for asked in proxy.asked)
