"""A registry and its mirrors are asked like one; a mirror is Debian's docker-registry, which gets what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from dom0.errors import Final, RegistryError, Temporary
from dom0.registry.client import Registry
from dom0.registry.manifest import OCI_INDEX, Descriptor, digest_of
from dom0.registry.mirrors import Mirrored
from dom0.registry.reference import parse
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.web_server import Asked, Said, WebServer, reply, served, stretch

Clients = Callable[..., Registry]
CONTENT = bytes(range(256)) * 10
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(CONTENT), len(CONTENT))
REFERENCE = parse("team/app:1")
IMAGE = reply(200, b"{}", Content_Type="application/vnd.oci.image.manifest.v1+json")


async def blob(mirrored: Mirrored) -> bytes:
    async with mirrored.blob("team/app", BLOB) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_mirror_keeps_what_it_got_and_gives_it_when_the_registry_is_gone(
    debian: Callable[..., DebianRegistry], client: Clients
) -> None:
    registry = debian()
    top = registry.content.image("team/app", "1")
    registry.content.blob("team/app", CONTENT)
    mirror = debian(config={"proxy": {"remoteurl": f"http://{registry.host}"}})
    mirrored = Mirrored([client("mirror", base=f"http://{mirror.host}/"), client(registry.host)])
    assert (await mirrored.manifest(REFERENCE))[2] == top.digest
    assert await blob(mirrored) == CONTENT
    mirror.__exit__()
    assert await blob(mirrored) == CONTENT
    assert (await mirrored.manifest(REFERENCE))[2] == top.digest


class Two:
    """Servers whose answer to everything is what they are told to say."""

    def __init__(self, mirror: WebServer, registry: WebServer) -> None:
        self.mirror = mirror
        self.registry = registry

    def say(self, mirror: Said | None, registry: Said | None) -> None:
        """None: the bytes of the blob."""
        for server, said in ((self.mirror, mirror), (self.registry, registry)):
            server.answer = _answer(said)
            server.asked.clear()

    @property
    def asked(self) -> tuple[int, int]:
        """How often each was asked for something."""
        return tuple(sum(a.path != "/v2/" for a in server.asked) for server in (self.mirror, self.registry))  # type: ignore[return-value]


def _answer(said: Said | None) -> Callable[[Asked], Said]:
    return lambda asked: reply(200) if asked.path == "/v2/" else stretch(asked, CONTENT) if said is None else said


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with served(_answer(None)) as mirror, served(_answer(None)) as registry:
        yield Two(mirror, registry)


@pytest.fixture
def mirrored(two: Two, client: Clients) -> Mirrored:
    return Mirrored([client(two.mirror.netloc), client(two.registry.netloc)])


@pytest.mark.parametrize("said", [reply(404), reply(503), b"", reply(200, b"<html>", Content_Type="text/html")])
async def test_where_the_mirror_fails_the_registry_answers_and_is_asked_first_from_then_on(
    two: Two, mirrored: Mirrored, said: bytes
) -> None:
    two.say(said, None)
    assert [await blob(mirrored) for _ in range(2)] == [CONTENT] * 2
    assert two.asked == (1, 2)
    two.say(IMAGE, reply(500))
    assert (await mirrored.manifest(REFERENCE))[0] == b"{}"
    assert two.asked == (1, 1)


@pytest.mark.parametrize("body", [b"{}", b'{"schemaVersion": 2, "con', b"<html>"])
async def test_where_the_mirrors_manifest_makes_no_sense_the_registrys_is_taken(
    two: Two, mirrored: Mirrored, body: bytes
) -> None:
    index = b'{"schemaVersion": 2, "manifests": []}'
    wrong, right = (reply(200, each, Content_Type=OCI_INDEX) for each in (body, index))
    two.say(wrong, right)
    assert (await mirrored.image(REFERENCE)).digest == digest_of(index)
    two.say(wrong, wrong)
    with pytest.raises(Final, match=f"^{REFERENCE}: manifest: "):
        await mirrored.image(REFERENCE)


@pytest.mark.parametrize(
    ("mirror", "registry", "kind", "why"),
    [(500, 404, Final, "status 404"), (404, 500, Temporary, "status 500"), (403, 404, Final, "status 404")],
)
async def test_where_all_fail_the_error_is_the_registrys(
    two: Two, mirrored: Mirrored, mirror: int, registry: int, kind: type[RegistryError], why: str
) -> None:
    two.say(reply(mirror), reply(registry))
    for _ in range(2):
        with pytest.raises(kind, match=why):
            await mirrored.manifest(REFERENCE)
        with pytest.raises(kind, match=why):
            await blob(mirrored)


async def test_a_mirror_that_breaks_off_or_is_given_up_is_not_asked_first_again(two: Two, mirrored: Mirrored) -> None:
    half = reply(206, CONTENT[:99], Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}").replace(
        b"Content-Length: 99", b"Content-Length: %d" % len(CONTENT)
    )
    two.say(half, None)
    with pytest.raises(Temporary, match="broke"):
        await blob(mirrored)
    assert await blob(mirrored) == CONTENT
    assert two.asked == (1, 1)


async def test_a_mirror_that_says_nothing_costs_one_try(two: Two, mirrored: Mirrored) -> None:
    is_asked = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        is_asked.set()
        await asyncio.Event().wait()
        yield b""

    two.say(silent(), None)
    trying = asyncio.create_task(blob(mirrored))
    await is_asked.wait()
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert await blob(mirrored) == CONTENT
    assert two.asked == (1, 1)


async def test_who_sent_wrong_bytes_is_the_last_to_be_asked_for_them(two: Two, mirrored: Mirrored) -> None:
    two.say(reply(200, bytes(len(CONTENT))), None)
    assert await blob(mirrored) == bytes(len(CONTENT))
    mirrored.doubt(BLOB)
    assert await blob(mirrored) == CONTENT
    two.say(None, reply(503))
    assert await blob(mirrored) == CONTENT
    assert two.asked == (1, 1)
