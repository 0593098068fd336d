"""One registry: manifests whole and verified, blobs by stretches of bytes, whose digest is for the caller to check.

Source: distribution's `spec/api.md`, OCI's distribution-spec. Each answer is one try: who asks tries again after
Temporary, and decides how long an answer may stay silent. Only a connection has a limit of time of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from dom0.errors import Final, NoRange, NotThere, Temporary
from dom0.http.channel import nothing
from dom0.registry.credentials import Login
from dom0.registry.manifest import (
    ACCEPTED,
    MOST_BYTES,
    Descriptor,
    ImageManifest,
    Index,
    digest_of,
    naming,
    parse_manifest,
)
from dom0.registry.reference import DEFAULT_REGISTRY, Reference, digest_flaw
from dom0.registry.tokens import Tokens
from dom0.registry.web import CERTIFICATES, Reply, WebClient, is_loopback, refusal
from dom0.wording import excerpt

_DEFAULT_SERVER = "registry-1.docker.io"  # of the registry that is called docker.io


class _ErrorBody(msgspec.Struct):
    message: str = ""


class _ErrorBodies(msgspec.Struct):
    errors: list[_ErrorBody] = []


class Registry:
    """`host[:port]` as a Reference has it. `close` it at the end.

    `base`: its address, where it is known, as that of a mirror is. `insecure`: plain HTTP and certificates of anybody
    will do, as they always do on this machine's own addresses. `certificates`: directories of CAs and client
    certificates by host.
    """

    def __init__(
        self,
        host: str,
        login: Login | None = None,
        *,
        base: str = "",
        insecure: bool = False,
        certificates: Path = CERTIFICATES,
    ) -> None:
        self.host = host
        insecure = insecure or is_loopback(host) or base.startswith("http:")
        self._web = WebClient(insecure=insecure, certificates=certificates)
        self._tokens = Tokens(self._web, host, login)
        self._base = base.rstrip("/")
        self._server = _DEFAULT_SERVER if host == DEFAULT_REGISTRY else host
        self._has_login = login is not None

    @property
    def is_anonymous(self) -> bool:
        """Whether everybody may have what comes from here, as far as that can be known before it is asked."""
        shows_certificate = self._web.shows_certificate or self._web.has_certificate(self._server)
        return not self._has_login and not shows_certificate

    async def close(self) -> None:
        await self._web.close()

    async def check_login(self) -> None:
        """Raises Final where it is not taken or nobody wants one, and Temporary."""
        async with self._ask("/v2/", "", {}, where=self.host) as reply:
            await reply.skip()
        if not self._tokens.wanted(""):
            raise Final(
                f"{self.host}: wants no login, so this one cannot be checked",
                hint="pull without one; is it the right address?",
            )

    async def manifest(self, reference: Reference) -> tuple[bytes, str, str]:
        """Its bytes, media type as sent, and digest, which is verified where the reference or the registry says it.

        Raises Temporary or Final.
        """
        path = f"/v2/{reference.repository}/manifests/{reference.wanted}"
        accept = {"Accept": ", ".join(ACCEPTED)}
        try:
            async with self._ask(path, reference.repository, accept, where=str(reference)) as reply:
                raw = await reply.read(MOST_BYTES)
        except NotThere as error:
            raise NotThere(error.message, hint="is that its name, and its tag?") from None
        digest = digest_of(raw)
        if reference.digest not in (None, digest):
            raise Final(f"{reference}: the registry sends another manifest, with the digest {digest}")
        told = reply.headers.get("Docker-Content-Digest")
        if reference.digest is None and not digest_flaw(told) and told != digest:
            raise Temporary(f"{reference}: the manifest was changed on its way: it should have the digest {told}")
        return raw, reply.headers.get("Content-Type"), digest

    async def image(self, reference: Reference) -> ImageManifest | Index:
        """Its manifest or index. Raises Temporary or Final."""
        raw, media_type, _ = await self.manifest(reference)
        with naming(reference):
            return parse_manifest(raw, media_type)

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes [start, stop) of a blob while they come, to its end where no `stop` is said.

        All of them, or Temporary. Where a server does not support range requests only `start` 0 is possible: NoRange
        for any other one, and best ask for all of it then. Raises Temporary or Final, also while the bytes come.
        """
        stop = descriptor.size if stop is None else stop
        assert 0 <= start <= stop <= descriptor.size, (start, stop, descriptor)
        if start == stop:
            yield nothing()
            return
        path = f"/v2/{repository}/blobs/{descriptor.digest}"
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        async with self._ask(path, repository, wanted, where=f"{self.host}/{repository}") as reply:
            yield stretch_of(reply, descriptor, start, stop)

    @asynccontextmanager
    async def _ask(self, path: str, repository: str, headers: Mapping[str, str], *, where: str) -> AsyncIterator[Reply]:
        """An answer with something in it. A registry that wants a login gets it once for each question."""
        self._base = self._base or await self._web.base(self._server, where)
        known, has_logged_in = self._tokens.header(repository), False
        while True:
            secret = {"Authorization": known} if known else {}
            async with self._web.ask(self._base + path, where=where, headers=headers, secret=secret) as reply:
                if reply.status != 401 or reply.is_foreign:
                    await self._check(reply, repository)
                    yield reply
                    return
                await reply.skip()
            if has_logged_in:
                raise self._tokens.denied(repository)
            known = await self._tokens.renew(reply.headers.all("WWW-Authenticate"), repository, known)
            has_logged_in = True

    async def _check(self, reply: Reply, repository: str) -> None:
        """Raises Temporary or Final for what is not what was asked for."""
        if reply.status == 403 and not reply.is_foreign:
            raise self._tokens.denied(repository)
        if reply.status not in (200, 206):
            raise refusal(reply, _words(await reply.skip()))
        if reply.status == 200 and reply.headers.get("Content-Type").lower().startswith("text/html"):
            raise Temporary(
                f"{reply.where}: {reply.origin.netloc} answers with an HTML page", hint="a login page in between?"
            )
        if (encoding := reply.headers.get("Content-Encoding").lower()) not in ("", "identity"):
            raise Final(f"{reply.where}: {reply.origin.netloc} sends everything as {excerpt(encoding[:50])}, unasked")


def stretch_of(reply: Reply, descriptor: Descriptor, start: int, stop: int) -> AsyncIterator[bytes]:
    """The bytes [start, stop) that were asked for. Raises NoRange or Temporary, also while they come."""
    length = stop - start
    said = reply.headers.all("Content-Range")
    wanted = f"bytes {start}-{stop - 1}/"
    if reply.status == 200:
        if start > 0:
            raise NoRange(f"{reply.where}: {reply.origin.netloc} does not support range requests")
        length = descriptor.size
    elif said not in ([f"{wanted}{descriptor.size}"], [f"{wanted}*"]):
        found = ", ".join(said) or "none"
        raise Temporary(f"{reply.where}: {reply.origin.netloc} sends another range: {excerpt(found[:100])}")
    if reply.length not in (None, length):
        raise Temporary(f"{reply.where}: {reply.origin.netloc} sends {reply.length} bytes instead of {length}")
    return _stretch(reply, stop - start)


async def _stretch(reply: Reply, length: int) -> AsyncIterator[bytes]:
    """So many bytes of the body, and never one more."""
    missing = length
    async for chunk in reply.chunks():
        if missing:
            yield chunk[:missing]
            missing -= min(missing, len(chunk))
        if not missing and reply.length != length:  # nothing ends this body, or something else comes behind
            return
    if missing:
        raise Temporary(f"{reply.where}: {reply.origin.netloc} ended before all had come")


def _words(body: bytes) -> str:
    """A registry's own ones, "" where it has none."""
    try:
        problems = msgspec.json.decode(body, type=_ErrorBodies).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return excerpt(problems[0].message[:300]) if problems else ""
