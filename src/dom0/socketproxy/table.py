"""Every request that is answered: method, path, parameters, body, and what it becomes. What is not here is refused.

`{container}`, `{exec}` and the like stand for references; of an image it may be several parts of the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from dom0.engine import bodies
from dom0.engine.bodies import Body
from dom0.socketproxy import build, containers, images, inner, networks, requests, system, volumes
from dom0.socketproxy.context import Asked, Handler
from dom0.socketproxy.head import Head
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, NO_BUILDKIT, Refused
from dom0.socketproxy.strict import is_empty

Rule = Callable[[str], str]


def flag(text: str) -> str:
    """Clients write it in six ways, the Engine gets two."""
    known = {"1": "1", "true": "1", "True": "1", "0": "0", "false": "0", "False": "0", "": "0"}
    return known[text]


def number(text: str) -> str:
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,18}", text) else _refuse(text)


def plain(text: str) -> str:
    """Names, times, signals, conditions, formats of `ps`."""
    return text if re.fullmatch(r"[-a-zA-Z0-9 ,.:;/=%_+@^$\\*?|()\[\]]{0,512}", text) else _refuse(text)


def ps_arguments(text: str) -> str:
    return text if re.fullmatch(r"[-a-zA-Z0-9 ,=%_+]{0,256}", text) else _refuse(text)


def document(text: str) -> str:
    return text


def build_version(text: str) -> str:
    return text if text in ("", "1") else _refuse(text)


def nothing(text: str) -> str:
    """Of what clients send with every build, and may not ask for."""
    return "" if text in ("", "0", "null", "[]", "{}") else _refuse(text)


def _refuse(text: str) -> str:
    raise ValueError(text)


MAKING = ("/create", "/start", "/restart", "/unpause", "/update")
LASTING = ("/archive", "/export", "/build")


class ArchiveBody:
    """A body that is passed on while it comes."""


class Operation(msgspec.Struct, frozen=True):
    method: str
    path: str
    handler: Handler
    query: Mapping[str, Rule] = {}
    body: type[Body] | type[ArchiveBody] = bodies.Empty

    @property
    def makes(self) -> bool:
        """Whether there is more after it, or more that runs: not while the scope is stopped."""
        return self.path.endswith(MAKING) and not self.path.startswith(("/exec", "/images"))

    @property
    def lasts(self) -> bool:
        """Whether it runs steps, or keeps the Engine from a container, for as long as the client likes."""
        return self.path.endswith(LASTING)


_ATTACH = dict.fromkeys(("stream", "stdin", "stdout", "stderr", "logs"), flag) | {"detachKeys": plain}
_LOGS = dict.fromkeys(("follow", "stdout", "stderr", "timestamps", "details"), flag)
_LOGS = _LOGS | {"since": plain, "until": plain, "tail": plain}
_COMMIT = dict.fromkeys(("container", "repo", "tag"), plain)
_COMMIT = _COMMIT | dict.fromkeys(("comment", "author", "changes"), document) | {"pause": flag}
_CREATE = dict.fromkeys(("fromImage", "tag", "platform"), plain)
_BUILD = dict.fromkeys(("t", "target", "networkmode", "cgroupparent"), plain) | {"version": build_version}
_BUILD = _BUILD | dict.fromkeys(("buildargs", "cachefrom", "dockerfile", "labels"), document)
_BUILD = _BUILD | dict.fromkeys(("nocache", "rm", "forcerm", "q"), flag)
_BUILD = _BUILD | dict.fromkeys(("cpushares", "cpuquota", "cpuperiod", "memory", "memswap", "shmsize"), number)
_BUILD = _BUILD | dict.fromkeys(("cpusetcpus", "cpusetmems"), plain)
_BUILD = _BUILD | dict.fromkeys(("extrahosts", "outputs", "securityopt", "ulimits"), nothing)
_IMAGES = {"all": flag, "digests": flag, "shared-size": flag, "filters": document}
_LIST = {"all": flag, "limit": number, "size": flag, "filters": document}

TABLE = (
    Operation("GET", "/_ping", system.ping),
    Operation("GET", "/version", system.version),
    Operation("GET", "/info", system.info),
    Operation("GET", "/events", system.events, {"since": plain, "until": plain, "filters": document, "stream": flag}),
    Operation("GET", "/plugins", system.none, {"filters": document}),
    Operation("GET", "/plugins/{plugin}/json", system.no_plugin),
    *(
        Operation("GET", f"/{path}", system.no_swarm, {"filters": document, "status": flag})
        for path in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
    ),
    Operation("GET", "/containers/json", containers.listed, _LIST),
    Operation("POST", "/containers/create", containers.created, {"name": plain, "platform": plain}, requests.Container),
    Operation("POST", "/containers/prune", containers.pruned, {"filters": document}),
    Operation("GET", "/containers/{container}/json", containers.inspected, {"size": flag}),
    Operation("POST", "/containers/{container}/start", containers.passed, {"detachKeys": plain}),
    Operation("POST", "/containers/{container}/stop", containers.passed, {"t": number, "signal": plain}),
    Operation("POST", "/containers/{container}/restart", containers.passed, {"t": number, "signal": plain}),
    Operation("POST", "/containers/{container}/kill", containers.passed, {"signal": plain}),
    Operation("POST", "/containers/{container}/wait", containers.passed, {"condition": plain}),
    Operation("POST", "/containers/{container}/rename", containers.renamed, {"name": plain}),
    Operation("POST", "/containers/{container}/pause", containers.passed),
    Operation("POST", "/containers/{container}/unpause", containers.passed),
    Operation("POST", "/containers/{container}/update", containers.updated, {}, requests.Update),
    Operation("POST", "/containers/{container}/resize", containers.passed, {"h": number, "w": number}),
    Operation("DELETE", "/containers/{container}", containers.removed, {"force": flag, "v": flag}),
    Operation("GET", "/containers/{container}/logs", containers.passed, _LOGS),
    Operation("GET", "/containers/{container}/stats", containers.stats, {"stream": flag, "one-shot": flag}),
    Operation("GET", "/containers/{container}/top", containers.passed, {"ps_args": ps_arguments}),
    Operation("GET", "/containers/{container}/changes", containers.passed),
    Operation("GET", "/containers/{container}/export", containers.passed),
    Operation("GET", "/containers/{container}/archive", containers.passed, {"path": document}),
    Operation(
        "PUT",
        "/containers/{container}/archive",
        containers.passed,
        {"path": document, "noOverwriteDirNonDir": flag, "copyUIDGID": flag},
        ArchiveBody,
    ),
    Operation("POST", "/containers/{container}/attach", containers.attached, _ATTACH),
    Operation("POST", "/containers/{container}/exec", containers.exec_created, {}, requests.Exec),
    Operation("POST", "/exec/{exec}/start", containers.exec_started, {}, requests.ExecStart),
    Operation("GET", "/exec/{exec}/json", containers.exec_passed),
    Operation("POST", "/exec/{exec}/resize", containers.exec_passed, {"h": number, "w": number}),
    Operation("GET", "/networks", networks.listed, {"filters": document}),
    Operation("POST", "/networks/create", networks.created, {}, requests.Network),
    Operation("POST", "/networks/prune", networks.pruned, {"filters": document}),
    Operation("GET", "/networks/{network}", networks.inspected, {"verbose": flag, "scope": plain}),
    Operation("DELETE", "/networks/{network}", networks.removed),
    Operation("POST", "/networks/{network}/connect", networks.connected, {}, requests.Connect),
    Operation("POST", "/networks/{network}/disconnect", networks.disconnected, {}, requests.Disconnect),
    Operation("GET", "/volumes", volumes.listed, {"filters": document}),
    Operation("POST", "/volumes/create", volumes.created, {}, bodies.VolumeBody),
    Operation("POST", "/volumes/prune", volumes.pruned, {"filters": document}),
    Operation("GET", "/volumes/{volume}", volumes.inspected),
    Operation("DELETE", "/volumes/{volume}", volumes.removed, {"force": flag}),
    Operation("GET", "/images/json", images.listed, _IMAGES),
    Operation("GET", "/images/get", images.saved, {"names": plain}),
    Operation("GET", "/images/{image}/get", images.saved),
    Operation("POST", "/images/load", images.loaded, {"quiet": flag}, ArchiveBody),
    Operation("GET", "/images/{image}/json", images.inspected),
    Operation("GET", "/images/{image}/history", images.history),
    Operation("POST", "/images/{image}/tag", images.tagged, {"repo": plain, "tag": plain, "force": flag}),
    Operation("DELETE", "/images/{image}", images.removed, {"force": flag, "noprune": flag}),
    Operation("POST", "/images/create", images.created, _CREATE),
    Operation("POST", "/images/prune", images.pruned, {"filters": document}),
    Operation("POST", "/build", build.built, _BUILD, ArchiveBody),
    Operation("POST", "/build/prune", build.pruned, {"all": flag, "filters": document, "keep-storage": number}),
    Operation("POST", "/commit", images.committed, _COMMIT),
    Operation("PUT", "/dom0/budget", inner.budgeted, {}, requests.Budget),  # of ours, for scopes inside
)

_PATTERNS = {f"{{{name}}}": r"([^/]+)" for name in ("container", "exec", "network", "plugin", "volume")} | {
    "{image}": r"(.+)"
}


def _compiled(path: str) -> tuple[re.Pattern[str], str]:
    name = next((name for name in _PATTERNS if name in path), "")
    before, _, after = path.partition(name) if name else (path, "", "")
    return re.compile(re.escape(before) + _PATTERNS.get(name, "") + re.escape(after)), name.strip("{}")


_COMPILED = tuple((endpoint, *_compiled(endpoint.path)) for endpoint in TABLE)


def find(head: Head) -> tuple[Operation, Asked]:
    """The endpoint, and what is asked of it, without the body. Raises Refused."""
    path = "/" + "/".join(head.path)
    method = "GET" if head.method == "HEAD" and path.endswith(("/_ping", "/archive")) else head.method
    for endpoint, pattern, name in _COMPILED:
        if endpoint.method == method and (match := pattern.fullmatch(path)):
            names = {name: match[1]} if name else {}
            query = _checked_query(endpoint, head.query)
            return endpoint, Asked(
                method=head.method, path=head.path, names=names, query=query, registry_auth=head.registry_auth
            )
    what = NO_BUILDKIT if path in ("/grpc", "/session") else "not through this socket"
    raise Refused(FORBIDDEN, f"{head.method} {path}: {what}")


def _checked_query(endpoint: Operation, query: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for key, value in query.items():
        if key in endpoint.query:
            try:
                checked[key] = endpoint.query[key](value)
            except (KeyError, ValueError) as error:
                raise Refused(BAD_REQUEST, f"{key}={value}: not a value for it", field=key) from error
        elif value not in ("0", "false", "False") and not is_empty(value):  # it asks for something
            raise Refused(FORBIDDEN, f"{key}={value}: not through this socket", field=key)
    return checked
