"""What gives tokens for a registry, as a server of logins does: JSON Web Tokens that Debian's docker-registry reads.

Source: distribution's `spec/auth/jwt.md`.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dom0.testing.debian_registry import PASSWORD, USER
from dom0.testing.web_server import Asked, reply

IDENTITY = "an-identity-token"
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_SERVICE, _ISSUER = "registry.test", "tokens.test"
_END_OF_TIME = 2**31  # seconds; a registry in a test forgets a token when it is told to, not with time


class TokenServer:
    """With a key in `directory`; anybody may read repositories `public/…`.

    `answer` is for `web_server.served`, `config` for the registry.
    """

    def __init__(self, directory: Path) -> None:
        self._key, self._certificate = directory / "token.key", directory / "token.crt"
        if not self._certificate.exists():
            argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2"]
            argv += ["-keyout", str(self._key), "-out", str(self._certificate)]
            subprocess.run(argv, check=True, capture_output=True)
        self.life: int | None = 300  # what it says, in seconds
        self.gives_rubbish = False

    def config(self, realm: str) -> dict[str, Any]:
        settings = {"realm": realm, "service": _SERVICE, "issuer": _ISSUER, "rootcertbundle": str(self._certificate)}
        return {"auth": {"token": settings}}

    def answer(self, asked: Asked) -> bytes:
        wanted = parse_qs(asked.body.decode() or urlsplit(asked.target).query)
        _, repository, actions = wanted.get("scope", ["::"])[0].split(":")
        is_known = asked.headers.get("authorization") == LOGIN or wanted.get("refresh_token") == [IDENTITY]
        is_anonymous = "authorization" not in asked.headers and asked.method == "GET"
        if not is_known and not is_anonymous:
            return reply(401, b"{}")
        may = is_known or repository.startswith("public/")
        access = [{"type": "repository", "name": repository, "actions": [actions]}] if may and repository else []
        key = "access_token" if asked.method == "POST" else "token"
        token = self._token(access) if not self.gives_rubbish else "no\r\ntoken"
        return reply(200, json.dumps({key: token, "expires_in": self.life}).encode())

    def _token(self, access: list[dict[str, Any]]) -> str:
        pem = self._certificate.read_text().split("-----")[2]
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem.split())]}
        claims = {"iss": _ISSUER, "sub": USER, "aud": _SERVICE, "exp": _END_OF_TIME, "nbf": 0, "iat": 0, "jti": "1"}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims | {"access": access}))
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(argv, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_encoded(signature)}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
