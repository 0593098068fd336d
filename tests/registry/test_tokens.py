"""Logins and tokens: Debian's docker-registry reads the tokens, and who gets the login is watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dom0.errors import Final, RegistryError, Temporary
from dom0.registry.client import Registry
from dom0.registry.credentials import Login
from dom0.registry.manifest import Descriptor, digest_of
from dom0.registry.reference import parse
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry
from dom0.testing.token_server import IDENTITY, LOGIN, TokenServer
from dom0.testing.web_server import Asked, WebServer, reply, served, stretch

Clients = Callable[..., Registry]
StartsDebian = Callable[..., DebianRegistry]
CONTENT = b"some bytes of a layer"
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(CONTENT), len(CONTENT))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture
def tokens(key: Path) -> TokenServer:
    return TokenServer(key)


@pytest.fixture
async def realm(tokens: TokenServer) -> AsyncIterator[WebServer]:
    async with served(tokens.answer) as server:
        yield server


@pytest.fixture
def real(tokens: TokenServer, realm: WebServer, debian: StartsDebian) -> DebianRegistry:
    """It has team/app, which wants a login, and public/app."""
    started = debian(config=tokens.config(f"http://{realm.netloc}/token?x=1"))
    for repository in ("team/app", "public/app"):
        started.content.image(repository, "1")
        started.content.blob(repository, CONTENT)
    return started


async def manifest(registry: Registry, repository: str) -> str:
    return (await registry.manifest(parse(f"{registry.host}/{repository}:1")))[2]


async def blob(registry: Registry, repository: str) -> bytes:
    async with registry.blob(repository, BLOB) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("login", [Login(USER, PASSWORD), Login(identity_token=IDENTITY)])
async def test_one_token_is_got_for_a_login_and_used_until_it_expires(
    real: DebianRegistry, realm: WebServer, client: Clients, login: Login
) -> None:
    registry = client(real.host, login)
    assert await manifest(registry, "team/app")
    assert await blob(registry, "team/app") == CONTENT
    assert len(realm.asked) == 1
    assert await manifest(registry, "public/app")
    assert len(realm.asked) == 2


async def test_anybody_gets_a_token_for_what_is_public_and_for_nothing_else(
    real: DebianRegistry, realm: WebServer, client: Clients
) -> None:
    registry = client(real.host)
    assert await blob(registry, "public/app") == CONTENT
    assert "authorization" not in realm.asked[0].headers
    with pytest.raises(Final, match="is not there, or wants a login") as refused:
        await manifest(registry, "team/app")
    assert refused.value.hint == f"dom0 image login {real.host}"


async def test_a_login_that_the_token_server_does_not_take_is_final(
    real: DebianRegistry, realm: WebServer, client: Clients
) -> None:
    for wrong in (Login(USER, "wrong"), Login(identity_token="wrong")):
        with pytest.raises(Final, match="the login is not taken") as refused:
            await manifest(client(real.host, wrong), "team/app")
        assert "wrong" not in refused.value.message


async def test_a_token_that_expires_at_once_is_used_once(
    tokens: TokenServer, real: DebianRegistry, realm: WebServer, client: Clients
) -> None:
    tokens.life = 0
    registry = client(real.host, Login(USER, PASSWORD))
    for _ in range(2):
        assert await blob(registry, "team/app") == CONTENT
    assert len(realm.asked) == 2


async def test_one_token_is_got_for_many_who_ask_at_once(
    real: DebianRegistry, realm: WebServer, client: Clients
) -> None:
    registry = client(real.host, Login(USER, PASSWORD))
    assert await asyncio.gather(*(blob(registry, "team/app") for _ in range(5))) == [CONTENT] * 5
    assert len(realm.asked) == 1


class Forgetful:
    """A registry that takes the newest token only."""

    def __init__(self, realm: str) -> None:
        self.realm = realm
        self.number = 0

    def answer(self, asked: Asked) -> bytes:
        if asked.path == "/token":
            self.number += 1
            return reply(200, b'{"token": "t%d", "access_token": "other"}' % self.number)
        if asked.headers.get("authorization") != f"Bearer t{self.number}" or not self.number:
            return reply(401, WWW_Authenticate=f'Bearer realm="{self.realm}",service="a\\"b", scope="push:all"')
        return stretch(asked, CONTENT)


async def test_a_token_that_is_no_longer_taken_is_replaced(client: Clients) -> None:
    forgetful = Forgetful("")
    async with served(forgetful.answer) as server:
        forgetful.realm = f"http://{server.netloc}/token"
        registry = client(server.netloc)
        assert await blob(registry, "team/app") == CONTENT
        forgetful.number += 1
        assert await blob(registry, "team/app") == CONTENT
        told = [asked.target for asked in server.asked if asked.path == "/token"]
        assert told == ["/token?scope=repository%3Ateam%2Fapp%3Apull&service=a%22b"] * 2


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (reply(200, b"<html>", Content_Type="text/html"), Temporary, "what it sends is none"),
        (reply(200, b"{}"), Temporary, "what it sends is none"),
        (reply(200, b'{"token": "a\\r\\nHost: b"}'), Temporary, "what it sends is none"),
        (reply(200, b'{"token": 1}'), Temporary, "what it sends is none"),
        (reply(200, b"[" * 100_000), Temporary, "what it sends is none"),
        (reply(200, b" " * (2 << 20)), Final, "longer than 1024 KiB"),
        (reply(503, Retry_After="7"), Temporary, "status 503"),
        (reply(404), Final, "status 404"),
        (reply(302, Location="/token"), Final, "redirect loop"),
        (reply(302, Location="http://192.0.2.1/"), Final, "redirect loop"),
    ],
)
async def test_what_a_token_server_says_is_doubted(
    client: Clients, answer: bytes, kind: type[RegistryError], why: str
) -> None:
    def said(asked: Asked) -> bytes:
        if asked.path == "/token":
            return answer.replace(b"http://192.0.2.1/", asked.target.encode())
        return reply(401, WWW_Authenticate=f'Bearer realm="http://{server.netloc}/token"')

    async with served(said) as server:
        with pytest.raises(kind, match=why):
            await blob(client(server.netloc, Login(USER, PASSWORD)), "team/app")


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_a_token_server_that_leads_elsewhere_gives_no_login_away(client: Clients, status: int) -> None:
    async with served(lambda _: reply(200, b'{"token": "t"}')) as elsewhere:

        def said(asked: Asked) -> bytes:
            if asked.path == "/token":
                return reply(status, Location=f"http://{elsewhere.netloc}/token")
            if asked.headers.get("authorization") == "Bearer t":
                return stretch(asked, CONTENT)
            return reply(401, WWW_Authenticate=f'Bearer realm="http://{server.netloc}/token"')

        async with served(said) as server:
            assert await blob(client(server.netloc, Login(USER, PASSWORD)), "team/app") == CONTENT
            with pytest.raises(Final, match="sends a login elsewhere"):
                await blob(client(server.netloc, Login(identity_token=IDENTITY)), "team/app")
    assert len(elsewhere.asked) == 1
    assert "authorization" not in elsewhere.asked[0].headers


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
async def test_no_login_goes_where_a_redirect_leads_or_into_a_log(
    client: Clients, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    is_asking = True

    def of_cdn(asked: Asked) -> bytes:  # it asks for the login as well
        return reply(401, WWW_Authenticate='Basic realm="x"') if is_asking else stretch(asked, CONTENT)

    def said(asked: Asked) -> bytes:
        if asked.path == "/token":
            return reply(200, b'{"token": "private-token"}')
        if not asked.headers.get("authorization", "").startswith(scheme):
            realm = f"http://{server.netloc}/token"
            return reply(401, WWW_Authenticate=f'{scheme} realm="{realm}"')
        return reply(307, Location=f"http://{cdn.netloc}/signed?secret=private-address")

    async with served(of_cdn) as cdn, served(said) as server:
        registry = client(server.netloc, Login(USER, PASSWORD))
        with pytest.raises(Temporary, match="status 401") as refused:
            await blob(registry, "team/app")
        is_asking = False
        assert await blob(registry, "team/app") == CONTENT
    assert len(cdn.asked) == 2
    assert all("authorization" not in asked.headers for asked in cdn.asked)
    assert any(asked.headers.get("authorization") == LOGIN for asked in server.asked)
    for secret in (PASSWORD, LOGIN.split()[1], "private-token", "private-address"):
        assert secret not in refused.value.message + refused.value.hint + caplog.text


async def test_a_login_is_checked_without_any_repository(
    real: DebianRegistry, realm: WebServer, client: Clients
) -> None:
    await client(real.host, Login(USER, PASSWORD)).check_login()
    assert [asked.target for asked in realm.asked] == ["/token?x=1&service=registry.test"]
    with pytest.raises(Final, match="the user or the password is wrong"):
        await client(real.host, Login(USER, "wrong")).check_login()


async def test_a_registry_with_passwords_checks_a_login(debian: StartsDebian, client: Clients) -> None:
    started = debian(login=True)
    await client(started.host, Login(USER, PASSWORD)).check_login()
    with pytest.raises(Final, match="the user or the password is wrong"):
        await client(started.host, Login(USER, "wrong")).check_login()


async def test_where_nobody_wants_a_login_none_can_be_checked(debian: StartsDebian, client: Clients) -> None:
    with pytest.raises(Final, match="wants no login"):
        await client(debian().host, Login(USER, PASSWORD)).check_login()
