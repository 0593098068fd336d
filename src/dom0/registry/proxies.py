"""The HTTP proxies that the environment names: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Docker and other programs in Go
read them, but that what is no address of a proxy is refused and not ignored.

Source: golang.org/x/net/http/httpproxy; CONNECT: RFC 9110, 9.3.6.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from dom0.errors import Final, Temporary, UsageError
from dom0.http.channel import Malformed
from dom0.wording import excerpt

Address = IPv4Address | IPv6Address

_PORT = 80  # of a proxy that names none
_LONGEST_HEAD = 16 << 10  # bytes of the answer to a CONNECT
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")


class Proxy(NamedTuple):
    """`authorization` is for it alone, "" where it names no login."""

    host: str
    port: int
    authorization: str
    variable: str  # that names it

    @property
    def netloc(self) -> str:
        return joined(self.host, self.port)

    @property
    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def wants_login(self, where: str) -> Final:
        return Final(
            f"{where}: the proxy {self.netloc} wants a login" + (", and not this one" if self.authorization else ""),
            hint=f"{self.variable}=http://USER:PASSWORD@{self.netloc}",
        )

    async def tunnel(self, address: str, host: str, port: int) -> socket.socket:
        """A connection to `host` by the proxy at `address`. Raises OSError, Malformed, Temporary and Final.

        Read is not one byte more than its answer: what a proxy says behind that is for TLS to refuse.
        """
        loop = asyncio.get_running_loop()
        there = joined(host, port, always=True)
        lines = [f"CONNECT {there} HTTP/1.1", f"Host: {there}", "User-Agent: dom0"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(
                socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            )
            made.setblocking(False)
            await loop.sock_connect(made, (address, self.port))
            await loop.sock_sendall(made, "\r\n".join([*lines, "", ""]).encode("latin-1"))
            head = b""
            while not head.endswith((b"\r\n\r\n", b"\n\n")):
                if not (byte := await loop.sock_recv(made, 1)):
                    raise ConnectionResetError(0, f"closed by the proxy {self.netloc}")
                head += byte
                if len(head) > _LONGEST_HEAD:
                    raise Malformed("the proxy's answer has no end", 0)
            self._check(head, there)
            stack.pop_all()
            return made

    def _check(self, head: bytes, there: str) -> None:
        if (found := _STATUS.match(head)) is None:
            raise Malformed(f"the proxy {self.netloc} does not", 0)
        status, words = int(found[1]), (found[2] or b"").decode("latin-1")
        if status in (401, 407):  # the former is what tinyproxy says to a wrong login
            raise self.wants_login(there)
        if not 200 <= status < 300:
            kind = Temporary if status >= 500 or status in (408, 429) else Final
            what = f"the proxy {self.netloc} answers with status {status}: {excerpt(words[:200])}"
            raise kind(f"{there}: {what}", hint=f"to go past it: NO_PROXY={there}")


class Proxies(msgspec.Struct, frozen=True):
    """By scheme, and which servers are asked without one: `(host, port)`, the address too where the host is one."""

    by_scheme: Mapping[str, Proxy]
    excepted: tuple[Callable[[str, int, Address | None], bool], ...] = ()

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        proxy = self.by_scheme.get(scheme)
        host = host.lower()
        address = _address(host)
        if proxy is None or host == "localhost" or (address and address.is_loopback):
            return None
        return None if any(matches(host, port, address) for matches in self.excepted) else proxy


def read(env: Mapping[str, str]) -> Proxies:
    """Raises UsageError, which says nothing of a password."""
    found: dict[str, Proxy] = {}
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        variable = next((each for each in (name.upper(), name) if env.get(each)), "")
        if variable:
            found[scheme] = _proxy(env[variable], variable)
    words = (env.get("NO_PROXY") or env.get("no_proxy") or "").lower().split(",")
    excepted = [matches for word in words if (matches := _exception(word.strip()))]
    return Proxies(found, tuple(excepted))


def joined(host: str, port: int, *, always: bool = False) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == _PORT and not always else f"{host}:{port}"


def _proxy(text: str, variable: str) -> Proxy:
    """`http://user:password@host:port`; scheme, login and port may be left out."""
    hint = f"{variable}=http://proxy.example:3128"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", _PORT if parts.port is None else parts.port
    except ValueError:
        raise UsageError(f"{variable}: is no address of a proxy", hint=hint) from None
    if parts.scheme != "http":
        raise UsageError(f"{variable}: proxies of {excerpt(parts.scheme[:20])} are not supported, only http", hint=hint)
    if not host or not port or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{variable}: is no address of a proxy", hint=hint)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Proxy(host, port, f"Basic {login}" if parts.username is not None else "", variable)


def _exception(word: str) -> Callable[[str, int, Address | None], bool] | None:
    """What an item of NO_PROXY is; None for one that is nothing, as Go has it."""
    if word == "*":
        return lambda *_: True
    if network := _network(word):
        return lambda _, __, address: address is not None and address in network
    host, port = _split(word)
    if wanted := _address(host):
        return lambda _, own, address: address == wanted and port in ("", str(own))
    host = host.removeprefix("*") if host.startswith("*.") else host
    if not host:
        return None
    suffix, is_whole = (host, False) if host.startswith(".") else (f".{host}", True)
    return lambda name, own, address: (
        address is None and (name.endswith(suffix) or (is_whole and name == host)) and port in ("", str(own))
    )


def _split(word: str) -> tuple[str, str]:
    """Host and port, as Go's net.SplitHostPort; all is the host where that fails."""
    host, colon, port = word.rpartition(":")
    if colon and host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return (host, port) if colon and ":" not in host else (word, "")


def _address(text: str) -> Address | None:
    """One of IPv4 that is written as one of IPv6 is the same."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _network(text: str) -> IPv4Network | IPv6Network | None:
    _, slash, length = text.partition("/")
    if not slash or not length.isdigit():
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
