"""How a registry lets us in: Basic, or a token that another server gives for the login or to anybody.

Source: distribution's `spec/auth/token.md` and `oauth.md`. Nothing here is logged or said in a message.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from dom0.errors import Denied, Temporary
from dom0.registry.credentials import Login
from dom0.registry.web import WebClient, refusal

_MOST_BYTES = 1 << 20  # of an answer with a token
_USUAL_LIFE = 60  # seconds, where the server does not say it
_LONGEST_LIFE = 3600
_PARAMETER = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_CLIENT = "dom0"


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int | None = None


class Tokens:
    """The Authorization header for each repository of one registry."""

    def __init__(self, web: WebClient, host: str, login: Login | None) -> None:
        self._web = web
        self._host = host
        self._login = login
        self._known: dict[str, tuple[str, float]] = {}  # by repository: the header, and until when it is good
        self._one_at_a_time = asyncio.Lock()

    def header(self, repository: str) -> str:
        """Empty where none is known that is still good."""
        known, until = self._known.get(repository, ("", 0.0))
        return known if time.monotonic() < until else ""

    def wanted(self, repository: str) -> bool:
        """Whether the registry has asked for a login there, or for a token."""
        return repository in self._known

    async def renew(self, challenges: Iterable[str], repository: str, refused: str) -> str:
        """Another header than the `refused` one, got as the registry says in WWW-Authenticate.

        Raises Temporary, Final, and Denied where the login is not taken or there is none.
        """
        async with self._one_at_a_time:
            if (known := self.header(repository)) not in ("", refused):  # somebody else has just got it
                return known
            self._known.pop(repository, None)
            where = self._where(repository)
            for scheme, parameters in map(_challenge, challenges):
                if scheme == "bearer" and parameters.get("realm"):
                    self._known[repository] = await self._bearer(parameters, repository, where)
                    return self._known[repository][0]
                if scheme == "basic" and self._login is not None and self._login.password:
                    self._known[repository] = (_basic(self._login), float("inf"))
                    return self._known[repository][0]
            raise self.denied(repository)

    def denied(self, repository: str) -> Denied:
        hint = f"dom0 image login {self._host}"
        if not repository:
            return Denied(
                f"{self._host}: the login is not taken: the user or the password is wrong",
                hint="where a second factor is on, an access token takes the place of the password",
            )
        if self._login is not None:
            return Denied(f"{self._where(repository)}: the login is not taken, or may not read this", hint=hint)
        return Denied(f"{self._where(repository)}: is not there, or wants a login", hint=hint)

    def _where(self, repository: str) -> str:
        return f"{self._host}/{repository}" if repository else self._host

    async def _bearer(self, parameters: dict[str, str], repository: str, where: str) -> tuple[str, float]:
        """A header with the right to read this repository, whatever scope the registry names; until when it is good.

        Without a repository it only says who we are.
        """
        wanted = {"scope": f"repository:{repository}:pull"} if repository else {}
        if parameters.get("service"):
            wanted["service"] = parameters["service"]
        realm, secret, form = parameters["realm"], {}, None
        if self._login is not None and self._login.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": self._login.identity_token, "client_id": _CLIENT}
            form = urlencode(wanted | grant).encode()
        else:
            realm += (("&" if "?" in realm else "?") + urlencode(wanted)) if wanted else ""
            secret = {"Authorization": _basic(self._login)} if self._login is not None else {}
        asked = time.monotonic()
        async with self._web.ask(realm, where=where, secret=secret, form=form) as reply:
            if reply.status in (400, 401, 403):
                raise self.denied(repository)
            if reply.status != 200:
                raise refusal(reply)
            try:
                found = msgspec.json.decode(await reply.read(_MOST_BYTES), type=_Answer)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                found = _Answer()
            token = found.token or found.access_token
            if not _TOKEN.fullmatch(token):
                raise Temporary(
                    f"{reply.where}: {reply.origin.netloc} has to give a token, and what it sends is none",
                    hint="a login page in between?",
                )
        life = _USUAL_LIFE if found.expires_in is None else found.expires_in
        return f"Bearer {token}", asked + min(max(life, 0), _LONGEST_LIFE)


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme in small letters, and its parameters: RFC 9110, 11.6.1; one challenge a header, as registries do."""
    scheme, _, rest = header.strip().partition(" ")
    found = _PARAMETER.findall(rest)
    return scheme.lower(), {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in found}


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
