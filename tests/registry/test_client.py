"""The client against Debian's docker-registry, and against what broken and hostile servers say in its place."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dom0.errors import Denied, Final, NoRange, NotThere, RegistryError, Temporary
from dom0.registry.client import Registry
from dom0.registry.credentials import Login
from dom0.registry.manifest import (
    MOST_BYTES,
    OCI_MANIFEST,
    Descriptor,
    ImageManifest,
    Index,
    choose,
    digest_of,
    parse_manifest,
    parse_platform,
)
from dom0.registry.reference import Reference, parse
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry
from dom0.testing.web_server import Answer, Asked, Said, reply, served, stretch

Clients = Callable[..., Registry]
CONTENT = bytes(range(256)) * 1000
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(CONTENT), len(CONTENT))
PAGE = {"Content_Type": "text/html; charset=utf-8"}


def saying(said: Said | Answer) -> Answer:
    """A registry that answers with that to whatever it is asked for."""
    return lambda asked: reply(200) if asked.path == "/v2/" else said(asked) if callable(said) else said


async def got(registry: Registry, start: int = 0, stop: int | None = None, blob: Descriptor = BLOB) -> bytes:
    async with registry.blob("team/app", blob, start, stop) as chunks:
        return b"".join([chunk async for chunk in chunks])


def named(registry: Registry, name: str) -> Reference:
    return parse(f"{registry.host}/{name}")


# a real one


async def test_an_image_of_a_real_registry_comes_whole(debian: Callable[..., DebianRegistry], client: Clients) -> None:
    real = debian(login=True)
    layers = [{"first": b"one"}, {"second": CONTENT}]
    top = real.content.image("team/app", "1", layers, platforms=("linux/amd64", "linux/arm64"))
    registry = client(real.host, Login(USER, PASSWORD))
    raw, media_type, digest = await registry.manifest(named(registry, "team/app:1"))
    assert digest == top.digest
    index = parse_manifest(raw, media_type)
    assert isinstance(index, Index)
    wanted = choose(index, parse_platform("linux/arm64"))
    raw, media_type, digest = await registry.manifest(named(registry, f"team/app@{wanted.digest}"))
    image = parse_manifest(raw, media_type)
    assert isinstance(image, ImageManifest)
    config = json.loads(await got(registry, blob=image.config))
    assert config["architecture"] == "arm64"
    for layer, diff_id in zip(image.layers, config["rootfs"]["diff_ids"], strict=True):
        middle = layer.size // 2
        whole = await got(registry, 0, middle, layer) + await got(registry, middle, None, layer)
        assert digest_of(whole) == layer.digest
        assert digest_of(gzip.decompress(whole)) == diff_id


@pytest.mark.parametrize(
    ("login", "name", "why"),
    [
        (Login(USER, PASSWORD), "team/app:2", "team/app:2: status 404: manifest unknown"),
        (Login(USER, PASSWORD), "team/none:1", "status 404"),
        (Login(USER, "wrong"), "team/app:1", "the login is not taken"),
        (None, "team/app:1", "is not there, or wants a login"),
    ],
)
async def test_what_a_real_registry_refuses_is_final(
    debian: Callable[..., DebianRegistry], client: Clients, login: Login | None, name: str, why: str
) -> None:
    real = debian(login=True)
    real.content.image("team/app", "1")
    registry = client(real.host, login)
    with pytest.raises(Final, match=why) as refused:
        await registry.manifest(named(registry, name))
    assert refused.value.hint


async def test_a_blob_that_a_real_registry_does_not_have_is_final(
    debian: Callable[..., DebianRegistry], client: Clients
) -> None:
    with pytest.raises(Final, match="team/app: status 404: blob unknown"):
        await got(client(debian().host))


# what a blob may be


async def test_stretches_come_on_one_connection(client: Clients) -> None:
    async with served(saying(lambda asked: stretch(asked, CONTENT))) as server:
        server.keeps = True
        registry = client(server.netloc)
        for start, stop in ((0, 1), (0, None), (1000, 200_000), (255_999, 256_000), (7, 7)):
            assert await got(registry, start, stop) == CONTENT[start:stop]
        assert server.connections == 1
        assert {asked.headers["accept-encoding"] for asked in server.asked[1:]} == {"identity"}


async def test_a_server_without_ranges_can_be_asked_from_the_start_only(client: Clients) -> None:
    async with served(saying(reply(200, CONTENT))) as server:
        registry = client(server.netloc)
        assert await got(registry) == CONTENT
        assert await got(registry, 0, 1000) == CONTENT[:1000]
        with pytest.raises(NoRange):
            await got(registry, 1)


async def test_an_empty_blob_is_not_asked_for(client: Clients) -> None:
    assert await got(client("127.0.0.1:1"), blob=Descriptor("", digest_of(b""), 0)) == b""


async def endless(_: Asked) -> AsyncIterator[bytes]:
    yield reply(206, Content_Range=f"bytes 10-99/{len(CONTENT)}", Transfer_Encoding="chunked").replace(
        b"Content-Length: 0\r\n", b""
    )
    while True:
        yield b"10000\r\n" + CONTENT[:0x10000] + b"\r\n"


async def test_an_endless_body_ends_where_the_stretch_does(client: Clients) -> None:
    async with served(saying(endless)) as server:
        assert await got(client(server.netloc), 10, 100) == CONTENT[:90]


def ranged(said: str, body: bytes = CONTENT[10:100], **headers: str) -> bytes:
    return reply(206, body, Content_Range=said, **headers)


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (ranged(f"bytes 11-99/{SIZE}"), Temporary, "another range"),
        (ranged(f"bytes 10-100/{SIZE}"), Temporary, "another range"),
        (ranged(f"bytes 10-99/{SIZE + 1}"), Temporary, "another range"),
        (ranged(f"bytes 10-99/{SIZE}\r\nContent-Range: bytes 0-9/{SIZE}"), Temporary, "another range"),
        (reply(206, CONTENT[10:100]), Temporary, "another range: none"),
        (ranged(f"bytes 10-99/{SIZE}", CONTENT[10:99]), Temporary, "89 bytes instead of 90"),
        (ranged(f"bytes 10-99/{SIZE}", Content_Length="91"), Temporary, "91 bytes instead of 90"),
        (ranged(f"bytes 10-99/{SIZE}", Content_Encoding="gzip"), Final, "as gzip, unasked"),
        (reply(416), Temporary, "status 416"),
        (reply(200, b"<html>", **PAGE), Temporary, "an HTML page"),
        (reply(200, CONTENT), NoRange, "does not support range requests"),
        (reply(204), Final, "status 204"),
        (reply(400, b'{"errors": [{"message": "no \\u001b[31m such"}]}'), Final, r"status 400: no \\x1b\[31m such"),
        (reply(404, b"<html>"), NotThere, "status 404$"),
        (reply(403), Denied, "wants a login"),
        (reply(401), Denied, "wants a login"),
        (reply(401, WWW_Authenticate="Negotiate"), Denied, "wants a login"),
        (reply(408), Temporary, "status 408"),
        (reply(500), Temporary, "status 500"),
        (reply(503, b"x" * 100_000), Temporary, "status 503"),
        (reply(302), Final, "no address"),
        (reply(302, Location="ftp://server.example/x"), Final, "no address"),
        (reply(302, Location="http://user:password@server.example/x"), Final, "no address"),
        (reply(302, Location="http://[::1/x"), Final, "no address"),
        (reply(302, Location="http://server.example:99999/x"), Final, "no address"),
        (reply(302, Location="http://server.example/\xe4"), Final, "no address"),
        (reply(302, Location=f"http://{'a' * 64}.example/"), Final, "no name of a server"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", Temporary, "does not speak HTTP"),
        (b"HTTP/1.1 206 X\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", Temporary, "does not speak HTTP"),
        (b"", Temporary, "broke"),
        (ranged(f"bytes 10-99/{SIZE}")[:-1], Temporary, "broke"),
        (
            b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 10-99/256000\r\n\r\n"
            b"1\r\nx\r\n0\r\n\r\n",
            Temporary,
            "ended before",
        ),
    ],
)
async def test_what_is_not_the_stretch_is_refused(
    client: Clients, said: bytes, kind: type[RegistryError], why: str
) -> None:
    async with served(saying(said)) as server:
        with pytest.raises(kind, match=why) as refused:
            await got(client(server.netloc), 10, 100)
    assert type(refused.value) is kind
    assert refused.value.message.startswith(f"{server.netloc}/team/app: ")
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("120", 120.0),
        ("99999999999999999999", None),
        ("999999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("Fri, 01 Jan 2010 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 3600.0),
    ],
)
async def test_how_long_to_wait_is_told(client: Clients, said: str, expected: float | None) -> None:
    async with served(saying(reply(429, Retry_After=said))) as server:
        with pytest.raises(Temporary) as refused:
            await got(client(server.netloc))
    assert refused.value.retry_after == expected


async def test_a_registry_that_nobody_is_at_may_be_there_later(client: Clients) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Temporary) as refused:
            await got(client(where))
        assert refused.value.message == f"{where}/team/app: no connection to {where}: connection refused"


async def test_what_is_raised_while_bytes_are_used_is_left_as_it_is(client: Clients) -> None:
    async with served(saying(lambda asked: stretch(asked, CONTENT))) as server:
        registry = client(server.netloc)
        with pytest.raises(OSError, match="No space left"):
            async with registry.blob("team/app", BLOB):
                raise OSError(28, "No space left")


# what a manifest may be


@pytest.mark.parametrize(
    ("said", "name", "kind", "why"),
    [
        (reply(200, b"x" * (MOST_BYTES + 1)), "app", Final, "longer than 4096 KiB"),
        (reply(200, b"{", Content_Length=str(10 << 30)), "app", Final, "longer than 4096 KiB"),
        (reply(200, b"<html>", **PAGE), "app", Temporary, "an HTML page"),
        (reply(200, b"{}", Docker_Content_Digest=digest_of(b"")), "app", Temporary, "changed on its way"),
        (reply(200, b"{}"), f"app@{digest_of(b'')}", Final, "another manifest"),
        (reply(200, b"{}", Content_Length="3"), "app", Temporary, "broke"),
        (reply(200, b"{}", Content_Encoding="zstd"), "app", Final, "as zstd, unasked"),
    ],
)
async def test_what_is_not_the_manifest_is_refused(
    client: Clients, said: bytes, name: str, kind: type[RegistryError], why: str
) -> None:
    async with served(saying(said)) as server:
        registry = client(server.netloc)
        with pytest.raises(kind, match=why) as refused:
            await registry.manifest(named(registry, name))
    assert refused.value.message.startswith(f"{server.netloc}/app")


async def test_a_manifest_comes_with_its_type_and_a_digest_that_is_ours(client: Clients) -> None:
    odd = {"Docker_Content_Digest": "sha512:" + "0" * 128, "Content_Type": OCI_MANIFEST}
    async with served(saying(reply(200, b"{}", **odd))) as server:
        registry = client(server.netloc)
        assert await registry.manifest(named(registry, "app:1")) == (b"{}", OCI_MANIFEST, digest_of(b"{}"))
        assert server.asked[-1].target == "/v2/app/manifests/1"
        assert OCI_MANIFEST in server.asked[-1].headers["accept"]


def test_one_that_will_be_shown_a_certificate_is_not_anonymous_before_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "registry.example:5000").mkdir()
    (tmp_path / "registry.example:5000" / "client.cert").touch()
    assert not Registry("registry.example:5000", certificates=tmp_path).is_anonymous
    assert Registry("other.example:5000", certificates=tmp_path).is_anonymous
