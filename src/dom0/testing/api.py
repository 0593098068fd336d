"""A few blocking Engine calls for fixtures. Independent of the code under test, on purpose."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

GONE_WITHIN = 60.0  # seconds for containers to be removed


class EngineRefused(Exception):
    """The Engine answered with status 400 or above."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def ask(
    path: Path, method: str, target: str, body: Any = None, *, timeout: float = 60.0, is_endless: bool = False
) -> Answer:
    """One call on the socket `path`, whatever comes of it; of an endless answer the first line.

    Raises OSError when nobody answers.
    """
    headers = {"Content-Type": "application/json"}
    payload: bytes | None = None
    if isinstance(body, bytes):
        payload, headers["Content-Type"] = body, "application/x-tar"
    elif body is not None:
        payload = json.dumps(body).encode()
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target, payload, headers)
        response = connection.getresponse()
        read = response.readline() if is_endless else response.read()
        return Answer(response.status, response.getheader("Content-Type", ""), read)
    except http.client.HTTPException as error:
        raise ConnectionError(f"{path}: {error!r}") from error
    finally:
        connection.close()


def request(
    path: Path, method: str, target: str, body: Any = None, *, query: Mapping[str, str] = {}, timeout: float = 60.0
) -> Any:
    """One call on the Engine socket `path`; returns the decoded JSON, or the text where it is none.

    Raises OSError when nobody answers, EngineRefused otherwise.
    """
    answer = ask(path, method, f"{target}?{urlencode(query)}", body, timeout=timeout)
    text = answer.body.decode(errors="replace")
    if answer.status >= http.client.BAD_REQUEST:
        raise EngineRefused(f"{method} {target}: {answer.status} {text.strip()}")
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_answering(path: Path) -> bool:
    try:
        return bool(request(path, "GET", "/_ping", timeout=5.0) == "OK")
    except (OSError, EngineRefused):
        return False


def import_image(path: Path, name: str, layer: bytes) -> None:
    repository, _, tag = name.partition(":")
    request(path, "POST", "/images/create", layer, query={"fromSrc": "-", "repo": repository, "tag": tag})


def images(path: Path) -> dict[str, str]:
    """ID by name; an image without a name counts by its ID."""
    rows = request(path, "GET", "/images/json")
    return {name: row["Id"] for row in rows for name in row["RepoTags"] or [row["Id"]]}


def clean(path: Path, *, keep: dict[str, str]) -> None:
    """Remove every container, network and volume; of images leave `keep` (as `images` gave it), under those names."""
    remove_containers(path)
    request(path, "POST", "/networks/prune")
    for volume in request(path, "GET", "/volumes")["Volumes"] or []:
        request(path, "DELETE", f"/volumes/{quote(volume['Name'])}", query={"force": "1"})
    for name, image in keep.items():
        repository, _, tag = name.rpartition(":")
        if name != image:
            request(path, "POST", f"/images/{image}/tag", query={"repo": repository, "tag": tag})
    while left := images(path).keys() - keep.keys():  # what an image was built on is seen when that has gone
        for name in left:
            request(path, "DELETE", f"/images/{name}", query={"force": "1", "noprune": "1"})


def remove_containers(path: Path) -> None:
    """All of them, until none is left: one may go by itself meanwhile, or be on its way already.

    Raises EngineRefused with what the Engine said last.
    """
    deadline, refusal = time.monotonic() + GONE_WITHIN, EngineRefused("they come back")
    while found := request(path, "GET", "/containers/json", query={"all": "1"}):
        if time.monotonic() > deadline:
            raise EngineRefused(f"containers that stay: {[row['Names'] for row in found]}: {refusal}")
        for container in sorted(found, key=_is_no_agent):
            try:
                request(path, "DELETE", f"/containers/{container['Id']}", query={"force": "1", "v": "1"})
            except EngineRefused as error:
                refusal = error
                time.sleep(0.02)


def _is_no_agent(container: dict[str, Any]) -> bool:
    """Agents go first: they would bring back what is removed."""
    return container["Labels"].get("dom0.role") not in ("root", "handover")
