"""Where the Docker Engine is: DOCKER_HOST, else the current docker context, else the usual socket.

Reads environment and files of the docker CLI; opens no connection.
"""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dom0.errors import EngineUnreachable
from dom0.printable import printable

if TYPE_CHECKING:
    import ssl

DEFAULT = "unix:///var/run/docker.sock"
_FORMS = "use unix:///path/to/docker.sock, tcp://host:port or ssh://user@host"
_DIAL = ("docker", "system", "dial-stdio")  # how the docker CLI reaches an Engine through ssh


class Address(NamedTuple):
    text: str  # as written, for messages
    base: str  # start of every URL
    socket: str = ""  # path of the unix socket, "" for tcp and ssh
    dial: tuple[str, ...] = ()  # a command whose input and output are one connection: ssh
    certificates: Path | None = None  # directory with ca.pem, cert.pem and key.pem: TLS

    def tls(self) -> ssl.SSLContext | None:
        """The TLS settings of a tcp address, None for plain text. Raises EngineUnreachable for unusable files."""
        if self.certificates is None:
            return None
        import ssl  # it takes longer to load than an answer on a socket takes to come

        try:
            context = ssl.create_default_context(cafile=str(self.certificates / "ca.pem"))
            context.load_cert_chain(self.certificates / "cert.pem", self.certificates / "key.pem")
        except OSError as error:  # ssl.SSLError is one
            raise EngineUnreachable(
                f"{self.certificates}: no usable ca.pem, cert.pem and key.pem: {error}",
                hint="DOCKER_TLS_VERIFY asks for TLS; DOCKER_CERT_PATH names the directory of the three files",
            ) from error
        return context

    def unreachable(self, error: OSError, where: str = "") -> EngineUnreachable:
        """What to do, by the reason why there is no connection; `where` is what was asked for."""
        if self.certificates is not None:
            import ssl  # as in `tls`; its errors have numbers of their own, which mean something else to the system

            if isinstance(error, ssl.SSLError):
                return EngineUnreachable(
                    f"{where or 'Docker Engine'}: no trusted connection to {self.text}: {printable(str(error))}",
                    hint="DOCKER_CERT_PATH must hold the Engine's ca.pem, and a cert.pem and key.pem that it trusts",
                    transient=False,
                )
        start = "start it: systemctl start docker; or set DOCKER_HOST if it is elsewhere"
        match error.errno:
            case errno.EACCES | errno.EPERM:
                why = "no permission"
                hint = "run as root, or join the group: usermod -aG docker $USER, then log in again"
            case errno.ENOENT:
                why, hint = "there is no such socket", f"is a Docker Engine installed and running? {start}"
            case errno.ECONNREFUSED:
                why, hint = "nobody listens", start
            case _ if isinstance(error, TimeoutError) and not self.dial:
                why, hint = "no answer in time", "is it overloaded or hanging? See its log: journalctl -u docker"
            case _:
                why, hint = printable(str(error)), f"try it: {shlex.join(self.dial)}" if self.dial else start
        place = f"Docker Engine at {self.text}"
        return EngineUnreachable(f"{place}: {why}" if where in ("", place) else f"{where}: {place}: {why}", hint=hint)


def find(host: str | None, env: Mapping[str, str], home: Path) -> Address:
    """Return the address to ask; `host` wins over everything. Raises EngineUnreachable for one we cannot use."""
    if host:
        return parse(host, env, home, where=host)
    if env.get("DOCKER_HOST"):
        return parse(env["DOCKER_HOST"], env, home, where="DOCKER_HOST")
    config = Path(env.get("DOCKER_CONFIG") or home / ".docker")
    context = env.get("DOCKER_CONTEXT") or _current_context(config)
    if context in ("", "default"):
        return parse(DEFAULT, env, home, where="DOCKER_HOST")
    return _of_context(context, config, home)


def parse(text: str, env: Mapping[str, str], home: Path, *, where: str) -> Address:
    try:
        parts = urlsplit(text)
    except ValueError:  # a bracket of an IPv6 address is missing
        raise EngineUnreachable(f"{where}: {text!r} is no address of an Engine", hint=_FORMS) from None
    if parts.scheme == "unix":
        path = text.removeprefix("unix://")
        if not path.startswith("/") or "\0" in path:
            raise EngineUnreachable(f"{where}: {text!r} is no absolute path of a socket", hint=_FORMS)
        return Address(text, "http://docker", socket=path)
    if parts.scheme == "tcp":
        return _tcp(text, env, home, where=where)
    if parts.scheme == "ssh":
        return Address(text, "http://docker", dial=_ssh(text, where=where))
    raise EngineUnreachable(f"{where}: {text!r} is no address of an Engine", hint=_FORMS)


def _ssh(text: str, *, where: str) -> tuple[str, ...]:
    """As the docker CLI does it; the path, if any, is that of the Engine's socket over there."""
    parts = urlsplit(text)
    try:
        usable = bool(parts.hostname) and parts.password is None and not parts.query and not parts.fragment
        port = ("-p", str(parts.port)) if parts.port is not None else ()
    except ValueError:  # the port is no number
        usable = False
    if not usable or not text.isprintable() or parts.hostname is None:
        raise EngineUnreachable(f"{where}: {text!r} is not ssh://user@host:port", hint=_FORMS)
    user = ("-l", parts.username) if parts.username else ()
    socket = ("--host", shlex.quote(f"unix://{parts.path}")) if parts.path.strip("/") else ()
    docker, *dial = _DIAL
    return ("ssh", "-o", "ConnectTimeout=30", "-T", *user, *port, "--", parts.hostname, docker, *socket, *dial)


def _tcp(text: str, env: Mapping[str, str], home: Path, *, where: str) -> Address:
    parts = urlsplit(text)
    try:
        plain = bool(parts.hostname) and parts.port is not None and not parts.path.strip("/") and not parts.query
    except ValueError:  # the port is no number
        plain = False
    if not plain or "@" in parts.netloc or not text.isprintable():
        raise EngineUnreachable(f"{where}: {text!r} is not tcp://host:port", hint=_FORMS)
    if not env.get("DOCKER_TLS_VERIFY"):
        return Address(text, f"http://{parts.netloc}")
    certificates = Path(env.get("DOCKER_CERT_PATH") or home / ".docker")
    return Address(text, f"https://{parts.netloc}", certificates=certificates)


def _current_context(config: Path) -> str:
    try:
        document = json.loads((config / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    name = document.get("currentContext") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""


def _of_context(context: str, config: Path, home: Path) -> Address:
    """The docker CLI keeps a context in a directory named by the digest of its name."""
    import hashlib  # takes as long to load as all else here, and few hosts have a context

    digest = hashlib.sha256(context.encode()).hexdigest()
    where = f"docker context {context!r}"
    hint = "set DOCKER_HOST, or choose another one: docker context use default"
    if (config / "contexts" / "tls" / digest).exists():
        raise EngineUnreachable(f"{where}: contexts with TLS files are not supported", hint=hint)
    try:
        document = json.loads((config / "contexts" / "meta" / digest / "meta.json").read_bytes())
        host = document["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnreachable(f"{where}: cannot be read: {error}", hint=hint) from error
    if not isinstance(host, str):
        raise EngineUnreachable(f"{where}: its Host is no text", hint=hint)
    return parse(host, {}, home, where=where)
