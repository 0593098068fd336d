"""The real Engine: every call of `protocol.Engine` over the Engine's HTTP API. No decisions are made here.

An exact name is meant as such: the Engine would take a short hexadecimal one for the start of an ID too, so that
`stop cafe` could stop somebody else's container once ours of that name is gone. Such a name is looked up first, and
the call goes to the full ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import re
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from dom0.engine import parse, wire
from dom0.engine.address import find
from dom0.engine.bodies import ContainerBody, EndpointSettings, NetworkBody, UpdateBody, VolumeBody
from dom0.engine.frames import Demultiplexer, LineSplitter, Tail
from dom0.engine.layer import pack as pack_layer
from dom0.engine.transport import PATIENCE, Transport, copy_answer, read_lines
from dom0.engine.values import (
    Container,
    ContainerSummary,
    EngineInfo,
    Event,
    ExecResult,
    Image,
    Network,
    PullProgress,
    Usage,
    Volume,
)
from dom0.errors import EngineError, EngineUnreachable, NotFound
from dom0.http.client import Readable

log = logging.getLogger(__name__)

_EXEC_KEPT = 64 << 10
_LOGS_KEPT = 256 << 10
_ARCHIVE = 64 << 30
_LINE = 4 << 20  # of a stream of JSON; an event carries all labels of its container
_BUILDKIT, _CLASSIC_BUILDER = "2", "1"  # as `POST /build` calls them
_CONTEXT_IS_FOUND = (1, 51)  # the oldest API that this was seen with
_EXEC_LOOK = (0.002, 0.5)  # seconds between looks at an exec that closed its output but did not end: first, longest


class DockerEngine:
    """Made by `connect`; `close` it at the end."""

    def __init__(self, transport: Transport, info: EngineInfo | None = None) -> None:
        self._http = transport
        self._info = info

    @classmethod
    async def connect(cls, host: str | None = None, *, info: bytes = b"") -> DockerEngine:
        """Find the Engine (`host`, DOCKER_HOST, docker context, usual socket) and settle on an API version.

        `info`: its answer to `/info`, if it has been asked. Raises EngineUnreachable, EngineUnsuitable, EngineError.
        """
        transport = Transport(find(host, os.environ, Path.home()))
        try:
            await transport.negotiate()
            known = parse.info(info, transport.api_version, "Docker Engine") if info else None
        except BaseException:
            await transport.close()
            raise
        return cls(transport, known)

    async def info(self) -> EngineInfo:
        """Asked once: for each answer the Engine starts `runc --version` and `docker-init --version`."""
        if self._info is None:
            data = await self._http.call("GET", "/info", where="Docker Engine")
            self._info = parse.info(data, self._http.api_version, "Docker Engine")
        return self._info

    async def close(self) -> None:
        await self._http.close()

    # containers

    async def containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        query = {"all": "1"} | _filters({"label": labels})
        return parse.containers(
            await self._http.call("GET", "/containers/json", where="containers", query=query), "containers"
        )

    async def container(self, ref: str) -> Container:
        where = _where("container", ref)
        found = parse.container(await self._http.call("GET", f"{_container(ref)}/json", where=where), where)
        if ref not in (found.id, found.name):
            raise NotFound(f"{where}: no such container")
        return found

    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        where = _where("container", name)
        query = {"name": name} | ({"platform": platform} if platform else {})
        data = await self._http.call("POST", "/containers/create", where=where, query=query, body=body)
        return parse.decode(data, wire.Created, where).id

    async def start_container(self, ref: str) -> None:
        await self._act(ref, "start")

    async def stop_container(self, ref: str, *, timeout: float | None = None) -> None:
        await self._end(ref, "stop", timeout)

    async def restart_container(self, ref: str, *, timeout: float | None = None) -> None:
        await self._end(ref, "restart", timeout)

    async def unpause_container(self, ref: str) -> None:
        await self._act(ref, "unpause")

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        query = {"force": _flag(force), "v": _flag(volumes)}
        with contextlib.suppress(NotFound):
            path = await self._container_path(ref)
            await self._http.call("DELETE", path, where=_where("container", ref), query=query)

    async def rename_container(self, ref: str, name: str) -> None:
        await self._act(ref, "rename", {"name": name})

    async def update_container(self, ref: str, body: UpdateBody) -> None:
        path = f"{await self._container_path(ref)}/update"
        await self._http.call("POST", path, where=_where("container", ref), body=body)

    async def wait_container(self, ref: str) -> int:
        where = _where("container", ref)
        path = f"{await self._container_path(ref)}/wait"
        data = await self._http.call("POST", path, where=where, query={"condition": "not-running"}, patience=None)
        waited = parse.decode(data, wire.Waited, where)
        if waited.error is not None and waited.error.message:
            raise EngineError(f"{where}: {parse.one_line(waited.error.message)}")
        return waited.status_code

    async def logs(self, ref: str, *, tail: int = 100, since: float = 0.0, errors_only: bool = False) -> str:
        query = {"stdout": _flag(not errors_only), "stderr": "1", "tail": str(tail), "since": f"{since:.9f}"}
        kept = Tail(_LOGS_KEPT)
        async with contextlib.aclosing(self._log_pieces(ref, query, PATIENCE)) as pieces:
            async for piece in pieces:
                kept.add(piece)
        return kept.text()

    def follow_logs(
        self, ref: str, *, tail: int | None = None, since: float = 0.0, until: float = 0.0, follow: bool = True
    ) -> AsyncGenerator[bytes]:
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": _flag(follow)}
        query |= {"tail": "all" if tail is None else str(tail), "since": f"{since:.9f}"}
        query |= {"until": f"{until:.9f}"} if until else {}
        return self._log_pieces(ref, query, None)

    async def _log_pieces(
        self, ref: str, query: Mapping[str, str], patience: float | None
    ) -> AsyncGenerator[bytes, None]:
        where = _where("container", ref)
        path = await self._container_path(ref)
        # Before API 1.42 the answer does not say whether it has frames.
        terminal = parse.decode(await self._http.call("GET", f"{path}/json", where=where), wire.Terminal, where)
        frames = None if terminal.config.tty else Demultiplexer()
        async with self._http.stream("GET", f"{path}/logs", where=where, query=query, patience=patience) as answer:
            async for chunk in answer.chunks():
                yield b"".join(frames.feed(chunk)) if frames else chunk  # not line by line: they may be thousands

    async def top(self, ref: str) -> tuple[str, ...]:
        where = _where("container", ref)
        path = f"{await self._container_path(ref)}/top"
        data = await self._http.call("GET", path, where=where, query={"ps_args": "-eo pid,args"})
        return parse.top(data, where)

    async def usage(self, ref: str) -> Usage:
        path, where = f"{await self._container_path(ref)}/stats", _where("container", ref)
        query = {"stream": "0", "one-shot": "1"}
        return parse.usage(await self._http.call("GET", path, where=where, query=query), where)

    async def put_archive(self, ref: str, path: str, tar: bytes) -> None:
        url = f"{await self._container_path(ref)}/archive"
        try:
            await self._http.call("PUT", url, where=_where("container", ref), query={"path": path}, data=tar)
        except EngineError as error:
            if "path escapes from parent" in error.message:  # https://github.com/moby/moby/issues/52653
                error.hint = _MOUNT_BELOW_A_LINK
            raise

    async def get_archive(self, ref: str, path: str, into: IO[bytes]) -> None:
        url = f"{await self._container_path(ref)}/archive"
        where = f"{_where('container', ref)}: {parse.one_line(path)}"
        async with self._http.stream("GET", url, where=where, query={"path": path}, patience=PATIENCE) as answer:
            await copy_answer(answer, into, _ARCHIVE, where)

    async def exec(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Sequence[str] = (),
        workdir: str = "",
        privileged: bool = False,
        timeout: float | None = None,
    ) -> ExecResult:
        where = _where("container", ref)
        body = {
            "AttachStdout": True,
            "AttachStderr": True,
            "Cmd": list(argv),
            "User": user,
            "Env": list(env),
            "WorkingDir": workdir,
            "Privileged": privileged,
        }
        async with asyncio.timeout(timeout):
            exec_id, kept = await self._create_exec(ref, body, where), Tail(_EXEC_KEPT)
            async for piece in self._exec_output(exec_id, where):
                kept.add(piece)
            return ExecResult(exit_code=await self._exec_code(exec_id, where), output=kept.text())

    async def exec_stream(self, ref: str, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        where = _where("container", ref)
        exec_id = await self._create_exec(ref, {"AttachStdout": True, "Cmd": list(argv)}, where)
        async with contextlib.aclosing(self._exec_output(exec_id, where)) as pieces:
            async for piece in pieces:
                yield piece
        if code := await self._exec_code(exec_id, where):
            raise EngineError(f"{where}: {parse.one_line(argv[0])} exited with code {code}")

    async def _create_exec(self, ref: str, body: Mapping[str, Any], where: str) -> str:
        path = f"{await self._container_path(ref)}/exec"
        return parse.decode(await self._http.call("POST", path, where=where, body=body), wire.Created, where).id

    async def _exec_output(self, exec_id: str, where: str) -> AsyncGenerator[bytes, None]:
        frames = Demultiplexer()
        path = f"/exec/{quote(exec_id, safe='')}/start"
        async with self._http.stream("POST", path, where=where, body={"Detach": False, "Tty": False}) as answer:
            async for chunk in answer.chunks():
                for piece in frames.feed(chunk):
                    yield piece

    async def _exec_code(self, exec_id: str, where: str) -> int:
        """A command may close its output long before it ends, and the Engine tells the end of an exec nowhere else."""
        pause, longest = _EXEC_LOOK
        while True:
            data = await self._http.call("GET", f"/exec/{quote(exec_id, safe='')}/json", where=where)
            state = parse.decode(data, wire.ExecState, where)
            if not state.running and state.exit_code is not None:
                return state.exit_code
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _end(self, ref: str, verb: str, timeout: float | None) -> None:
        if timeout is None:  # the container's own grace, unknown here
            await self._act(ref, verb, patience=None)
        else:  # the API takes whole seconds
            await self._act(ref, verb, {"t": str(math.ceil(timeout))}, patience=timeout + PATIENCE)

    async def _act(
        self, ref: str, verb: str, query: Mapping[str, str] | None = None, *, patience: float | None = PATIENCE
    ) -> None:
        path = f"{await self._container_path(ref)}/{verb}"
        await self._http.call("POST", path, where=_where("container", ref), query=query, patience=patience)

    async def _container_path(self, ref: str) -> str:
        if not _ID_START.fullmatch(ref):
            return _container(ref)
        return _container((await self.container(ref)).id)

    # networks

    async def networks(self) -> tuple[Network, ...]:
        return parse.networks(await self._http.call("GET", "/networks", where="networks"), "networks")

    async def create_network(self, name: str, body: NetworkBody) -> str:
        where = _where("network", name)
        # Before API 1.44 an Engine makes a second network of the same name unless told to look.
        asked = replace(body, name=name, check_duplicate=True)
        data = await self._http.call("POST", "/networks/create", where=where, body=asked)
        return parse.decode(data, wire.Created, where).id

    async def network_members(self, ref: str) -> tuple[str, ...]:
        where = _where("network", ref)
        data = await self._http.call("GET", await self._network_path(ref), where=where)
        return tuple(parse.decode(data, wire.Network, where).containers or ())

    async def remove_network(self, ref: str) -> None:
        with contextlib.suppress(NotFound):
            await self._http.call("DELETE", await self._network_path(ref), where=_where("network", ref))

    async def connect_network(self, network: str, container: str, endpoint: EndpointSettings) -> None:
        body = {"Container": await self._container_id(container), "EndpointConfig": endpoint}
        path = f"{await self._network_path(network)}/connect"
        await self._http.call("POST", path, where=_where("network", network), body=body)

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        body = {"Container": await self._container_id(container), "Force": force}
        path = f"{await self._network_path(network)}/disconnect"
        try:
            await self._http.call("POST", path, where=_where("network", network), body=body)
        except EngineError as error:
            if "is not connected to" not in error.message:
                raise

    async def _container_id(self, ref: str) -> str:
        _container(ref)  # refuses what can be no name
        return (await self.container(ref)).id if _ID_START.fullmatch(ref) else ref

    async def _network_path(self, ref: str) -> str:
        where = _where("network", ref)
        path = f"/networks/{_segment(ref, where)}"
        if not _ID_START.fullmatch(ref):
            return path
        found = parse.network(await self._http.call("GET", path, where=where), where)
        if ref not in (found.id, found.name):
            raise NotFound(f"{where}: no such network")
        return f"/networks/{_segment(found.id, where)}"

    # volumes

    async def volumes(self) -> tuple[Volume, ...]:
        return parse.volumes(await self._http.call("GET", "/volumes", where="volumes"), "volumes")

    async def create_volume(self, name: str, body: VolumeBody) -> Volume:
        where = _where("volume", name)
        asked = replace(body, name=name)
        return parse.volume(await self._http.call("POST", "/volumes/create", where=where, body=asked), where)

    async def remove_volume(self, name: str) -> None:
        where = _where("volume", name)
        with contextlib.suppress(NotFound):
            await self._http.call("DELETE", f"/volumes/{_segment(name, where)}", where=where)

    # images

    async def images(self, *, labels: Sequence[str] = (), named: str = "") -> tuple[Image, ...]:
        query = _filters({"label": labels, "reference": [named] if named else []})
        data = await self._http.call("GET", "/images/json", where="images", query=query)
        return parse.images(data, "images")

    async def image(self, ref: str) -> Image:
        where = _where("image", ref)
        found = parse.image(await self._http.call("GET", f"{_image(ref)}/json", where=where), where)
        if _IMAGE_ID_START.fullmatch(ref) and f"{ref}:latest" not in found.tags:
            raise NotFound(f"{where}: no such image")
        return found

    async def tag_image(self, ref: str, tag: str) -> None:
        name, label = split_tag(tag)
        path = f"{_image(await self._image_ref(ref))}/tag"
        await self._http.call("POST", path, where=_where("image", ref), query={"repo": name, "tag": label})

    async def remove_image(self, ref: str) -> None:
        with contextlib.suppress(NotFound):
            await self._http.call("DELETE", _image(await self._image_ref(ref)), where=_where("image", ref))

    async def _image_ref(self, ref: str) -> str:
        """A name that the Engine could take for the start of an ID, with its tag written out."""
        if not _IMAGE_ID_START.fullmatch(ref):
            return ref
        await self.image(ref)
        return f"{ref}:latest"

    async def build_image(
        self,
        context: IO[bytes],
        *,
        tag: str,
        labels: Mapping[str, str] = {},
        args: Mapping[str, str] = {},
        no_cache: bool = False,
    ) -> str:
        where = _where("image", tag)
        # BuildKit, unless an older Engine's images are kept by containerd: there it does not find a context that was
        # sent along, and the classic builder does. https://github.com/moby/moby/issues/47717
        finds_context = self._http.api >= _CONTEXT_IS_FOUND or not (await self.info()).containerd_store
        query = {"version": _BUILDKIT if finds_context else _CLASSIC_BUILDER, "t": tag}
        query |= {"nocache": "1"} if no_cache else {}
        query |= {key: msgspec.json.encode(value).decode() for key, value in (("labels", labels), ("buildargs", args))}
        image_id = ""
        async with self._http.stream("POST", "/build", where=where, query=query, data=context) as answer:
            async for line in read_lines(answer, _LINE):
                image_id = parse.built_image(line, where) or image_id
        if not image_id:
            raise EngineUnreachable(f"{where}: the Docker Engine did not say how the build ended")
        return image_id

    async def add_layer(
        self, below: str, layer: IO[bytes], *, tag: str, labels: Mapping[str, str] = {}, created: int
    ) -> str:
        document = await self._http.call("GET", f"{_image(below)}/json", where=_where("image", below))
        with tempfile.TemporaryFile() as archive:
            pack = functools.partial(pack_layer, tag=tag, labels=labels, created=created)
            image_id = await asyncio.to_thread(pack, document, layer, archive)
            archive.seek(0)
            await self.load_image(archive, name=tag)
        return image_id

    async def load_image(self, archive: Readable, *, name: str) -> None:
        where = _where("image", name)
        loading = self._http.stream("POST", "/images/load", where=where, query={"quiet": "1"}, data=archive)
        async with loading as answer:
            async for line in read_lines(answer, _LINE):
                parse.loaded(line, where)

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        where = _where("image", ref)
        name, tag = (ref, "") if "@" in ref else split_tag(ref)  # without a tag all of them would be pulled
        query = {"fromImage": name, "tag": tag} | ({"platform": platform} if platform else {})
        headers = {"X-Registry-Auth": urlsafe_b64encode(msgspec.json.encode(login)).decode()} if login else {}
        try:
            async with self._http.stream("POST", "/images/create", where=where, query=query, headers=headers) as answer:
                async for line in read_lines(answer, _LINE):
                    yield parse.pull_progress(line, where)
        except EngineUnreachable:
            raise
        except NotFound as error:
            error.hint = error.hint or parse.PULL_HINT
            raise
        except EngineError as error:
            raise parse.pull_refusal(where, error.message.removeprefix(f"{where}: ")) from error

    # events

    async def events(
        self, *, since: float | None = None, filters: Mapping[str, Sequence[str]] = {}
    ) -> AsyncGenerator[Event, None]:
        query = ({} if since is None else {"since": f"{since:.9f}"}) | _filters(filters)
        async with contextlib.aclosing(self._stream_events(query)) as stream:
            async for event in stream:
                yield event
        raise EngineUnreachable(f"{_EVENTS}: the Docker Engine ended the stream", hint="it was restarted or stopped")

    async def past_events(self, *, since: float, until: float) -> tuple[Event, ...]:
        query = {"since": f"{since:.9f}", "until": f"{until:.9f}"}
        return tuple([event async for event in self._stream_events(query)])

    async def _stream_events(self, query: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        async with self._http.stream("GET", "/events", where=_EVENTS, query=query) as answer:
            lines, left_out = LineSplitter(_LINE, skips_long=True), 0
            async for chunk in answer.chunks():
                for line in lines.feed(chunk):
                    yield parse.event(line, _EVENTS)
                if lines.left_out and not left_out:  # of this stream the others are not said
                    log.warning("%s: one of more than %d MB was left out", _EVENTS, _LINE >> 20)
                left_out = lines.left_out


def split_tag(ref: str) -> tuple[str, str]:
    """`registry:5000/name:tag` → (`registry:5000/name`, `tag`); no tag is `latest`."""
    name, colon, tag = ref.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (ref, "latest")


_EVENTS = "Docker Engine: events"
_MOUNT_BELOW_A_LINK = (
    "this Engine copies no file into a container with a mount below a link of its image, as /var/run often is: "
    "write where the link leads, /run/docker.sock for /var/run/docker.sock; or upgrade to Engine 29.5.2"
)
_ID_START = re.compile(r"[0-9a-f]{1,63}")
_IMAGE_ID_START = re.compile(r"[0-9a-f]{1,64}")  # a full one begins with sha256:
_ID = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _where(kind: str, ref: str) -> str:
    if _ID.fullmatch(ref):
        ref = ref[:12]  # as docker shows it
    return f"{kind} {parse.one_line(ref)}" if ref else f"{kind} without a name"


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _filters(filters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    wanted = {key: list(values) for key, values in filters.items() if values}
    return {"filters": msgspec.json.encode(wanted).decode()} if wanted else {}


def _container(ref: str) -> str:
    return f"/containers/{_segment(ref, _where('container', ref))}"


def _image(ref: str) -> str:
    """Names of images have slashes; the Engine redirects what has empty or dotted parts, and we do not follow."""
    where = _where("image", ref)
    if not ref or _CONTROL.search(ref):
        raise NotFound(f"{where}: no such name can exist")
    if ref.startswith("sha256:") and len(ref) != len("sha256:") + 64:
        raise NotFound(f"{where}: is not a full ID")
    return f"/images/{quote(ref, safe='/:@')}"


def _segment(ref: str, where: str) -> str:
    """Quote a name for a URL. Raises NotFound for one that nothing can have, before the Engine sees it."""
    if not ref or ref in (".", "..") or "/" in ref or _CONTROL.search(ref):
        raise NotFound(f"{where}: no such name can exist")
    return quote(ref, safe="")
