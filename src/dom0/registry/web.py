"""What a registry is asked through: GET over HTTP or TLS, wherever it leads, with failures as our errors.

Knows nothing of images. What belongs to one server only, a login, goes to no other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from socket import EAI_NODATA, EAI_NONAME, gaierror
from time import time
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from dom0.errors import Final, NotThere, Temporary
from dom0.http.channel import READ_AHEAD, Malformed, Streams
from dom0.http.client import Answer, Client
from dom0.registry.addresses import Addresses
from dom0.registry.patience import LONGEST_ASKED
from dom0.registry.proxies import Proxies, Proxy
from dom0.registry.proxies import read as read_proxies
from dom0.wording import excerpt

CERTIFICATES = Path("/etc/docker/certs.d")  # a directory for each host[:port], as dockerd reads it
CONNECT = 30.0  # seconds for the name, TCP and TLS
MOST_REDIRECTS = 5

_MOST_SERVERS = 8  # that connections are kept to
_MOST_REFUSAL = 64 << 10
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 416, 425, 429)  # 416: another answer about the blob's size than before
_FORM = "application/x-www-form-urlencoded"
_QUOTED = "/?:@!$&'()*+,;=%-._~#[]"  # what an address has as it is: RFC 3986
_UNKNOWN_NAME = (EAI_NONAME, EAI_NODATA)
_UNREACHED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
_ANY = ""  # the server whose certificates are only the system's


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Reply:
    """`is_foreign`: another server answers than was asked. `where` begins every message."""

    def __init__(self, answer: Answer, origin: Origin, where: str, *, is_foreign: bool) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.origin = origin
        self.where = where
        self.is_foreign = is_foreign
        self._answer = answer

    @property
    def length(self) -> int | None:
        """Of the body in bytes, None where it is not said."""
        said = self.headers.get("Content-Length")
        return int(said) if said.isdigit() and not self.headers.get("Transfer-Encoding") else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. Raises Temporary."""
        chunks = self._answer.chunks()
        while True:
            with _as_ours(self.origin, self.where):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk

    async def read(self, limit: int) -> bytes:
        """All of the body. Raises Temporary, and Final for one of more than `limit` bytes."""
        body = bytearray()
        too_long = Final(f"{self.where}: the answer is longer than {limit >> 10} KiB")
        if (self.length or 0) > limit:
            raise too_long
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise too_long
        return bytes(body)

    async def skip(self) -> bytes:
        """Read what nobody needs, so that the connection can be used again; returns its beginning. Raises Temporary."""
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) > _MOST_REFUSAL:
                break
        return body


class WebClient:
    """Connections to the servers that a registry consists of. `close` it at the end.

    `insecure`: plain HTTP and certificates of anybody will do; `proxies`: those of the environment if none are said.
    """

    def __init__(self, *, insecure: bool, certificates: Path = CERTIFICATES, proxies: Proxies | None = None) -> None:
        self.insecure = insecure
        self.shows_certificate = False  # of its own, to a server that may want one
        self._proxies = proxies
        self._certificates = certificates
        self._clients: dict[Origin, Client] = {}
        self._tls: dict[str, ssl.SSLContext] = {}
        self._addresses = Addresses()
        self._trusted: set[Origin] = set()  # that there has been a connection to

    @asynccontextmanager
    async def ask(
        self,
        url: str,
        *,
        where: str,
        headers: Mapping[str, str] = {},
        secret: Mapping[str, str] = {},
        form: bytes | None = None,
        plain: bool = False,
    ) -> AsyncIterator[Reply]:
        """The answer to a GET, or to a POST of a `form`, for the time of the block; redirects have been followed.

        `plain`: it may be in plain text, if not with certificates of anybody. `secret` headers go to the server of
        `url` only. Raises Temporary where no answer comes, Final for an address that is not followed, and UsageError
        where the environment names what is no proxy. What is raised in the block is left as it is.
        """
        first, seen = self._address(url, where, plain=plain), set[str]()
        parts = first
        while True:
            origin = _origin(parts)
            is_foreign = origin != _origin(first)
            told = {"Accept-Encoding": "identity", **headers, **({} if is_foreign else secret)}
            async with self._hop(parts, told, where, form, is_foreign=is_foreign) as reply:
                if reply.status not in _REDIRECTS:
                    yield reply
                    return
                await reply.skip()
                target = reply.headers.get("Location")
            seen.add(parts.geturl())
            parts = self._next(parts, target, where, plain=plain)
            if parts.geturl() in seen:
                raise Final(f"{where}: redirect loop at {origin.netloc}")
            if len(seen) > MOST_REDIRECTS:
                raise Final(f"{where}: more than {MOST_REDIRECTS} redirects")
            if form is not None:
                raise Final(f"{where}: {origin.netloc} sends a login elsewhere")

    async def base(self, host: str, where: str) -> str:
        """How a registry is reached: `https://HOST`, or `http://HOST` where that is allowed and what is spoken there.

        Raises Temporary, also where neither can be said for sure, and Final.
        """
        tls, plain = f"https://{host}", f"http://{host}"
        if not self.insecure:
            return tls
        failed: Temporary | None = None
        # This machine's own servers are asked in plain text first: for TLS, some wait for the end of a line.
        for base in (plain, tls) if is_loopback(host) else (tls, plain):
            try:
                async with self.ask(f"{base}/v2/", where=where) as reply:
                    await reply.skip()
                    if base == tls or reply.status in (200, 401):
                        return base
            except Temporary as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def has_certificate(self, netloc: str) -> bool:
        """Whether there is one of our own for that server."""
        with contextlib.suppress(OSError):
            return any(file.suffix == ".cert" for file in (self._certificates / netloc).iterdir())
        return False

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        await self._addresses.close()

    @asynccontextmanager
    async def _hop(
        self, parts: SplitResult, headers: Mapping[str, str], where: str, form: bytes | None, *, is_foreign: bool
    ) -> AsyncIterator[Reply]:
        origin = _origin(parts)
        target = quote(f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", safe=_QUOTED)
        if self._proxies is None:  # nobody who asks nothing is told what is wrong with them
            self._proxies = read_proxies(os.environ)
        proxy = self._proxies.find(*origin)
        if proxy and origin.scheme == "http":
            target, headers = f"http://{origin.netloc}{target}", {**headers, **proxy.headers}
        if origin not in self._clients:
            while len(self._clients) >= _MOST_SERVERS:
                await self._clients.pop(next(iter(self._clients))).close()
            self._clients[origin] = Client(lambda: self._connected(origin, proxy), origin.netloc)
        client = self._clients[origin]
        asked = (
            client.ask("GET", target, headers=headers)
            if form is None
            else client.ask("POST", target, headers={**headers, "Content-Type": _FORM}, body=form)
        )
        async with contextlib.AsyncExitStack() as stack:
            with _as_ours(origin, where, proxy, was_trusted=origin in self._trusted):
                answer = await stack.enter_async_context(asked)
            if proxy and answer.status == 407:
                raise proxy.wants_login(where)
            self._trusted.add(origin)
            yield Reply(answer, origin, where, is_foreign=is_foreign)

    async def _connected(self, origin: Origin, proxy: Proxy | None) -> Streams:
        tls = await self._context(origin) if origin.scheme == "https" else None

        async def to(address: str) -> Streams:
            port, name = (proxy or origin).port, origin.host if tls else None
            if proxy is None or tls is None:
                return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name, limit=READ_AHEAD)
            tunnel = await proxy.tunnel(address, origin.host, origin.port)
            return await asyncio.open_connection(sock=tunnel, ssl=tls, server_hostname=name, limit=READ_AHEAD)

        async with asyncio.timeout(CONNECT):
            return await self._addresses.connect((proxy or origin).host, to)

    async def _context(self, origin: Origin) -> ssl.SSLContext:
        """Each has a mebibyte, so most servers share one."""
        whose, files = _ANY, list[Path]()
        with contextlib.suppress(OSError):  # not ours to read, or too long for a name
            files = sorted((self._certificates / origin.netloc).iterdir())
            whose = origin.netloc
        self.shows_certificate |= self.has_certificate(origin.netloc)
        if whose not in self._tls:
            while len(self._tls) >= _MOST_SERVERS:
                del self._tls[next(iter(self._tls))]
            self._tls[whose] = await asyncio.to_thread(_context, files, insecure=self.insecure)
        return self._tls[whose]

    def _next(self, parts: SplitResult, target: str, where: str, *, plain: bool) -> SplitResult:
        """Where a redirect leads. Raises Final."""
        try:
            url = urljoin(parts.geturl(), target)
        except ValueError:  # a bracket of an IPv6 address is missing
            url = ""
        return self._address(url if target else "", where, plain=plain)

    def _address(self, url: str, where: str, *, plain: bool) -> SplitResult:
        """An address without its fragment. Raises Final, whose message has nothing of it: it may hold a secret."""
        try:
            parts = urlsplit(url)._replace(fragment="")
            host = parts.hostname or "."
            usable = not host.startswith(".") and "@" not in parts.netloc and parts.port != 0 and url.isascii()
        except ValueError:
            usable = False
        if not usable or not url.isprintable() or parts.scheme not in _PORTS:
            raise Final(f"{where}: leads to what is no address of a server")
        if parts.scheme == "http" and not (self.insecure or plain):
            raise Final(f"{where}: leads to {excerpt(parts.netloc)} in plain text, which anybody can read and change")
        return parts


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, which docker needs no TLS for."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def refusal(reply: Reply, words: str = "") -> Temporary | Final:
    """The error that an answer without what was asked for is; `words` are the server's own."""
    said = f": {words}" if words else ""
    who = f"{reply.origin.netloc} answers with " if reply.is_foreign else ""
    message = f"{reply.where}: {who}status {reply.status}{said}"
    if reply.status >= 500 or reply.status in _PASSING:
        return Temporary(message, retry_after=_retry_after(reply.headers.get("Retry-After")))
    if reply.is_foreign:  # its address was good for some minutes
        return Temporary(message)
    return NotThere(message) if reply.status == 404 else Final(message)


def _retry_after(text: str) -> float | None:
    """Seconds, or a date: RFC 9110, 10.2.3. At most as many as a server may ask for."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), LONGEST_ASKED)
    from email.utils import parsedate_to_datetime  # few registries name a date

    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time(), 0.0), LONGEST_ASKED)
    except (ValueError, TypeError, OverflowError):
        return None


def _origin(parts: SplitResult) -> Origin:
    return Origin(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])


def _context(files: Iterable[Path], *, insecure: bool) -> ssl.SSLContext:
    """The system's certificates and those of `files`, as dockerd takes them. Raises Final."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for file in files:
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                context.load_cert_chain(file, file.with_suffix(".key"))
        except OSError as error:  # ssl.SSLError is one
            raise Final(f"{file}: no certificate, or without its key: {_said(error)}") from error
    return context


@contextlib.contextmanager
def _as_ours(origin: Origin, where: str, proxy: Proxy | None = None, *, was_trusted: bool = True) -> Iterator[None]:
    """What can go wrong with a connection. A certificate that was trusted once may be again."""
    asked = proxy or origin
    there = f"{origin.netloc} by the proxy {proxy.netloc}" if proxy else origin.netloc
    try:
        yield
    except Malformed as error:
        raise Temporary(f"{where}: {there} does not speak HTTP: {excerpt(str(error))}") from error
    except ssl.SSLCertVerificationError as error:
        kind = Temporary if was_trusted else Final
        raise kind(
            f"{where}: {origin.netloc} has no certificate that is trusted: {excerpt(error.verify_message)}",
            hint=f"a login page in between? Else put its CA into {CERTIFICATES / origin.netloc}/ca.crt",
        ) from error
    except gaierror as error:
        unknown = Final if error.errno in _UNKNOWN_NAME else Temporary
        raise unknown(f"{where}: {asked.host}: {_said(error)}") from error
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:  # our own
            what = f"no connection to {there} within {CONNECT:g} s"
        elif error.errno in _UNREACHED:
            what = f"no connection to {there}: {_said(error)}"
        else:
            what = f"the connection to {there} broke: {_said(error)}"
        raise Temporary(f"{where}: {what}") from error
    except UnicodeError as error:  # what IDNA says to some names
        raise Final(f"{where}: {excerpt(asked.host[:100])} is no name of a server") from error


def _said(error: OSError) -> str:
    """The system's words where it has some: asyncio's repeat the address."""
    is_systems = error.errno is not None and not isinstance(error, gaierror | ssl.SSLError)
    said = os.strerror(error.errno or 0) if is_systems else error.strerror or str(error)
    return excerpt(said[:1].lower() + said[1:]) or "closed"
