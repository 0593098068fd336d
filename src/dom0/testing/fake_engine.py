"""The fake of `engine.protocol.Engine`: a client of a `FakeDocker`, with hooks where a test can kill its caller.

    docker = FakeDocker()
    docker.images.add("busybox:test")
    engine = FakeEngine(docker)           # the agent's
    person = FakeEngine(docker)           # somebody at a keyboard: the same Engine, other hooks
    engine.before = kill_at(7)            # raises before, or `after` once the call took effect and its reply is lost

Use it in virtual time (virtual_time.py) unless the test waits for something real as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal as signals
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from msgspec.structs import asdict, replace

from dom0.engine.bodies import ContainerBody, EndpointSettings, NetworkBody, UpdateBody, VolumeBody
from dom0.engine.docker import split_tag
from dom0.engine.values import (
    Container,
    ContainerSummary,
    EngineInfo,
    Event,
    ExecResult,
    Image,
    Network,
    PullProgress,
    State,
    Usage,
    Volume,
)
from dom0.errors import Conflict, EngineError, EngineUnreachable, NotFound
from dom0.http.client import Readable
from dom0.testing import virtual_time
from dom0.testing.fake_container import FakeContainer
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_process import KILLED, Process, Surroundings, foretell

P = ParamSpec("P")
T = TypeVar("T")


class Killed(BaseException):
    """The caller dies here. No `except Exception` of its own can save it."""


@dataclass(frozen=True)
class Call:
    """One call as the hooks see it: `name` is the method's, `what` its first argument ("" if it has none)."""

    name: str
    what: str = ""


Hook = Callable[[Call], None]


def _call(
    method: Callable[Concatenate[FakeEngine, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[FakeEngine, P], Coroutine[Any, Any, T]]:
    async def hooked(self: FakeEngine, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = Call(method.__name__.lstrip("_"), str(args[0]) if args else "")
        self.before(call)
        await asyncio.sleep(self.latency(call))  # others go on meanwhile, as with a real call
        self.reach()
        result = await method(self, *args, **kwargs)
        self.after(call)
        return result

    return hooked


class FakeEngine:
    def __init__(self, docker: FakeDocker) -> None:
        self.docker = docker
        self.before: Hook = lambda call: None
        self.after: Hook = lambda call: None
        self.latency: Callable[[Call], float] = lambda call: 0.0  # seconds until the call takes effect

    def reach(self) -> None:
        if not self.docker.answers:
            raise EngineUnreachable("Docker Engine: the connection to the Docker Engine broke")

    async def close(self) -> None:
        return

    @_call
    async def info(self) -> EngineInfo:
        return EngineInfo(
            id="fake",
            name="fake",
            version="26.1.5",
            api_version="1.45",
            cpus=2,
            memory=4 << 30,
            storage_driver="overlay2",
            root_dir="/var/lib/docker",
            cgroup_version="2",
            operating_system="none",
            machine=os.uname().machine,
        )

    # containers

    @_call
    async def containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        found = (c for c in self.docker.containers.values() if all(_has_label(c.labels, label) for label in labels))
        return tuple(container.summary() for container in found)

    @_call
    async def container(self, ref: str) -> Container:
        return self.docker.container(ref).value()

    @_call
    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        return self.docker.create(name, body).id

    @_call
    async def start_container(self, ref: str) -> None:
        self.docker.start(self.docker.container(ref))

    @_call
    async def stop_container(self, ref: str, *, timeout: float | None = None) -> None:
        container = self.docker.container(ref)
        await self.docker.stop(container, container.stop_grace if timeout is None else timeout)

    @_call
    async def restart_container(self, ref: str, *, timeout: float | None = None) -> None:
        container = self.docker.container(ref)
        await self.docker.stop(container, container.stop_grace if timeout is None else timeout)
        self.docker.start(container)
        self.docker.tell(container, "restart")

    @_call
    async def kill_container(self, ref: str, *, signal: str = "SIGKILL") -> None:
        self.docker.signal(self.docker.container(ref), signals.Signals[signal].value)

    @_call
    async def unpause_container(self, ref: str) -> None:
        self.docker.unpause(self.docker.container(ref))

    @_call
    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        try:
            container = self.docker.container(ref)
        except NotFound:
            return
        self.docker.remove(container, force=force, volumes=volumes)

    @_call
    async def rename_container(self, ref: str, name: str) -> None:
        container = self.docker.container(ref)
        if container.name == name:
            raise EngineError(f"container {ref}: Renaming a container with the same name as its current name")
        self.docker.check_name(name)
        old, container.name = container.name, name
        self.docker.tell(container, "rename", oldName=f"/{old}")

    @_call
    async def update_container(self, ref: str, body: UpdateBody) -> None:
        container = self.docker.container(ref)
        host = container.host
        swap = host.memory_swap or 2 * host.memory
        if body.memory > swap > 0 and not body.memory_swap:
            raise Conflict(
                f"container {ref}: Memory limit should be smaller than already set memoryswap limit, "
                "change both at the same time"
            )
        if host.memory and body.memory:  # swap stays what it was when memory was set
            host = replace(host, memory_swap=swap)
        container.host = replace(host, **{key: value for key, value in asdict(body).items() if value})
        self.docker.tell(container, "update")

    @_call
    async def wait_container(self, ref: str) -> int:
        container = self.docker.container(ref)
        if container.runs or container.state is State.RESTARTING:
            await container.ended.wait()
        return container.exit_code

    @_call
    async def logs(self, ref: str, *, tail: int = 100, since: float = 0.0, errors_only: bool = False) -> str:
        starts = [start for start in self.docker.container(ref).log if start[0] >= since]
        text = "".join(errors if errors_only else output for _, output, errors in starts)
        return "".join(text.splitlines(keepends=True)[-tail:])

    async def follow_logs(
        self, ref: str, *, tail: int | None = None, since: float = 0.0, until: float = 0.0, follow: bool = True
    ) -> AsyncGenerator[bytes]:
        """What there is; nothing of it is followed, and the times are those of the starts."""
        self.before(Call("follow_logs", ref))
        self.reach()
        starts = self.docker.container(ref).log
        lines = [(at, line) for at, output, _ in starts if since <= at <= (until or at) for line in output.splitlines()]
        for at, line in lines if tail is None else lines[-tail:] if tail else []:
            moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            yield f"{moment} {line}\n".encode()

    @_call
    async def top(self, ref: str) -> tuple[str, ...]:
        container = self._running(ref)
        return (" ".join(container.command), *self.docker.processes.get(container.name, ()))

    @_call
    async def usage(self, ref: str) -> Usage:
        container = self.docker.container(ref)
        if container.state is not State.RUNNING:
            return Usage()
        return Usage(read=virtual_time.now(), memory=1 << 20, processor=1.0, received=200, sent=100)

    @_call
    async def put_archive(self, ref: str, path: str, tar: bytes) -> None:
        container = self.docker.container(ref)
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for entry in archive:
                if (content := archive.extractfile(entry)) is not None:
                    container.files[str(PurePosixPath(path) / entry.name)] = content.read()

    @_call
    async def get_archive(self, ref: str, path: str, into: IO[bytes]) -> None:
        files = self.docker.container(ref).files
        if path not in files:
            raise NotFound(f"container {ref}: {path}: Could not find the file {path} in container {ref}")
        with tarfile.open(fileobj=into, mode="w") as archive:
            entry = tarfile.TarInfo(PurePosixPath(path).name)
            entry.size = len(files[path])
            archive.addfile(entry, io.BytesIO(files[path]))

    @_call
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
        container = self._running(ref)
        self.docker.tell_exec(container, argv)
        check = container.health_check
        if check is not None and tuple(argv) == check.argv:
            process = self.docker.probe(container)
        else:
            around = Surroundings(
                files=container.files,
                env=_merged(container.env, env),
                user=user,
                workdir=workdir,
                privileged=privileged,
            )
            process = foretell(list(argv), around)
        if process.missing:
            return ExecResult(exit_code=126, output=f"OCI runtime exec failed: {process.missing}: not found\r\n")
        async with asyncio.timeout(timeout):
            code = await self._exec_code(container, process)
        return ExecResult(exit_code=code, output=process.output)

    async def _exec_code(self, container: FakeContainer, process: Process) -> int:
        ended = container.ended
        await self.docker.wait(container, process.runs_for)
        code = KILLED if ended.is_set() else process.exit_code
        self.docker.tell(container, "exec_die", exitCode=str(code))
        return code

    async def exec_stream(self, ref: str, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        container = await self._begin_exec(ref, argv)
        process = foretell(list(argv), Surroundings(files=container.files, env=container.env))
        if process.output:
            yield process.output.encode()
        code = 126 if process.missing else await self._exec_code(container, process)
        if code:
            raise EngineError(f"container {ref}: {argv[0]} exited with code {code}")

    @_call
    async def _begin_exec(self, ref: str, argv: Sequence[str]) -> FakeContainer:
        container = self._running(ref)
        self.docker.tell_exec(container, argv)
        return container

    def _running(self, ref: str) -> FakeContainer:
        container = self.docker.container(ref)
        if container.state is not State.RUNNING:
            raise Conflict(f"container {ref}: container {container.id} is {container.state}, not running")
        return container

    # networks

    @_call
    async def networks(self) -> tuple[Network, ...]:
        return tuple(self.docker.networks.all.values())

    @_call
    async def create_network(self, name: str, body: NetworkBody) -> str:
        return self.docker.networks.make(name, body.labels, body.driver or "bridge").id

    @_call
    async def network_members(self, ref: str) -> tuple[str, ...]:
        return self.docker.network_members(ref)

    @_call
    async def remove_network(self, ref: str) -> None:
        with contextlib.suppress(NotFound):
            self.docker.remove_network(ref)

    @_call
    async def connect_network(self, network: str, container: str, endpoint: EndpointSettings) -> None:
        self.docker.connect(network, self.docker.container(container), endpoint)

    @_call
    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        self.docker.disconnect(network, self.docker.container(container))

    # volumes

    @_call
    async def volumes(self) -> tuple[Volume, ...]:
        return tuple(self.docker.volumes.all.values())

    @_call
    async def create_volume(self, name: str, body: VolumeBody) -> Volume:
        return self.docker.volumes.make(name, body.labels, body.driver or "local")

    @_call
    async def remove_volume(self, name: str) -> None:
        if users := self.docker.users_of(name):
            raise Conflict(f"volume {name}: remove {name}: volume is in use - [{users[0].id}]")
        self.docker.volumes.drop(name)

    # images

    @_call
    async def images(self, *, labels: Sequence[str] = (), named: str = "") -> tuple[Image, ...]:
        return tuple(
            Image(id=i.id, tags=i.tags, digests=i.digests, labels=i.labels, created=i.created, size=i.size)
            for i in self.docker.images.all.values()
            if all(_has_label(i.labels, label) for label in labels)
            and (not named or any(fnmatchcase(split_tag(tag)[0], named) for tag in i.tags))
        )

    @_call
    async def image(self, ref: str) -> Image:
        return self.docker.images.find(ref)

    @_call
    async def tag_image(self, ref: str, tag: str) -> None:
        self.docker.images.tag(self.docker.images.find(ref).id, tag)

    @_call
    async def build_image(
        self,
        context: IO[bytes],
        *,
        tag: str,
        labels: Mapping[str, str] = {},
        args: Mapping[str, str] = {},
        no_cache: bool = False,
    ) -> str:
        """Of the Dockerfile it understands FROM, and of the rest that it was given the labels."""
        with tarfile.open(fileobj=context) as tar:
            dockerfile = tar.extractfile("Dockerfile")
            assert dockerfile is not None
            base = self.docker.images.find(dockerfile.readline().decode().removeprefix("FROM ").strip())
        return self.docker.images.add(tag, labels={**base.labels, **labels})

    @_call
    async def add_layer(
        self, below: str, layer: IO[bytes], *, tag: str, labels: Mapping[str, str] = {}, created: int
    ) -> str:
        return self.docker.images.add(tag, labels={**self.docker.images.find(below).labels, **labels})

    @_call
    async def load_image(self, archive: Readable, *, name: str) -> None:
        content = io.BytesIO()
        try:
            while piece := archive.read(1 << 16):
                content.write(piece)
        except OSError as error:
            raise EngineUnreachable(f"image {name}: the connection to the Docker Engine broke: {error}") from error
        self.docker.images.load(content)

    @_call
    async def remove_image(self, ref: str) -> None:
        users = {container.image_id for container in self.docker.containers.values()}
        with contextlib.suppress(NotFound):
            self.docker.images.remove(ref, in_use=users.__contains__)

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        image = await self._pull_image(ref)
        yield PullProgress(layer=image.id[7:19], status="Pull complete")

    @_call
    async def _pull_image(self, ref: str) -> Image:
        return self.docker.images.pull(ref)

    # events

    async def events(
        self, *, since: float | None = None, filters: Mapping[str, Sequence[str]] = {}
    ) -> AsyncGenerator[Event, None]:
        self.before(Call("events"))
        self.reach()
        async with contextlib.aclosing(self.docker.events.follow(since, filters)) as stream:
            async for event in stream:
                yield event

    @_call
    async def past_events(self, *, since: float, until: float) -> tuple[Event, ...]:
        if since > until:
            raise EngineError(f"events: `since` time ({since}) cannot be after `until` time ({until})")
        return self.docker.events.between(since, until)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _merged(own: Sequence[str], more: Sequence[str]) -> list[str]:
    """As an exec gets its variables: a name without `=` takes one away."""
    found = {entry.partition("=")[0]: entry for entry in (*own, *more)}
    return [entry for entry in found.values() if "=" in entry]
