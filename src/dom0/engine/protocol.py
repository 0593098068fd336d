"""The Engine calls that dom0 uses. `docker.DockerEngine` is the real one, `testing.fake_engine.FakeEngine` the fake;
one conformance suite runs on both.

Every call raises EngineUnreachable when nobody answers, NotFound (404), Conflict (409) or EngineError (any other
refusal, with the Engine's own words). A reference is a full ID or an exact name, never a prefix.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import IO, Protocol

from dom0.engine.bodies import ContainerBody, EndpointSettings, NetworkBody, UpdateBody, VolumeBody
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
from dom0.errors import NotFound
from dom0.http.client import Readable


class Engine(Protocol):
    async def info(self) -> EngineInfo: ...
    async def close(self) -> None: ...

    async def containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        """All containers, stopped ones too, that carry every label in `labels` (`key` or `key=value`)."""
        ...

    async def container(self, ref: str) -> Container: ...
    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        """Create and return the ID. Conflict: the name is taken."""
        ...

    async def start_container(self, ref: str) -> None:
        """Already running is no error."""
        ...

    async def stop_container(self, ref: str, *, timeout: float | None = None) -> None:
        """`timeout` seconds of grace (None: the container's own). Already stopped is no error."""
        ...

    async def restart_container(self, ref: str, *, timeout: float | None = None) -> None:
        """Stop it as `stop_container`, if it runs, and start it, in one call: who asks may end meanwhile."""
        ...

    async def unpause_container(self, ref: str) -> None:
        """Not paused is refused."""
        ...

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """`volumes` removes its anonymous volumes too. Already gone is no error."""
        ...

    async def rename_container(self, ref: str, name: str) -> None: ...
    async def update_container(self, ref: str, body: UpdateBody) -> None: ...
    async def wait_container(self, ref: str) -> int:
        """Wait until it does not run, return its exit code."""
        ...

    async def logs(self, ref: str, *, tail: int = 100, since: float = 0.0, errors_only: bool = False) -> str:
        """The last `tail` lines, output and error in order, at most 256 KiB. A terminal has no errors apart."""
        ...

    def follow_logs(
        self, ref: str, *, tail: int | None = None, since: float = 0.0, until: float = 0.0, follow: bool = True
    ) -> AsyncGenerator[bytes]:
        """Output and error in order, each line with the Engine's time before it, in pieces as they come.

        `tail` None is everything, `until` 0 no end; with `follow` it ends when the container does.
        """
        ...

    async def top(self, ref: str) -> tuple[str, ...]:
        """The command line of every process in the running container."""
        ...

    async def usage(self, ref: str) -> Usage:
        """Of one that does not run: nothing."""
        ...

    async def put_archive(self, ref: str, path: str, tar: bytes) -> None: ...
    async def get_archive(self, ref: str, path: str, into: IO[bytes]) -> None:
        """Write the tar of `path` to the file `into`, at most 64 GiB. Raises Dom0Error when it cannot be written."""
        ...

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
        """Run `argv` inside and wait. TimeoutError after `timeout` seconds (the process may live on).

        Conflict: the container does not run. A command that does not exist ends with 126 or 127 and says so.
        """
        ...

    def exec_stream(self, ref: str, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Run `argv` inside and yield its standard output in pieces, as it comes, until it ends.

        EngineError if it ends with another code than 0; Conflict: the container does not run. Whoever stops reading
        ends the process with its next output.
        """
        ...

    async def networks(self) -> tuple[Network, ...]: ...
    async def create_network(self, name: str, body: NetworkBody) -> str:
        """Conflict: the name is taken."""
        ...

    async def network_members(self, ref: str) -> tuple[str, ...]:
        """IDs of the containers that run in it, whoever made them."""
        ...

    async def remove_network(self, ref: str) -> None:
        """Already gone is no error; in use is Conflict."""
        ...

    async def connect_network(self, network: str, container: str, endpoint: EndpointSettings) -> None:
        """Already connected is Conflict (only while the container runs; else the Engine takes the new endpoint)."""
        ...

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        """Not connected is no error."""
        ...

    async def volumes(self) -> tuple[Volume, ...]: ...
    async def create_volume(self, name: str, body: VolumeBody) -> Volume:
        """An existing volume of that name is returned as it is (the Engine's own behaviour)."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Already gone is no error; in use is Conflict."""
        ...

    async def images(self, *, labels: Sequence[str] = (), named: str = "") -> tuple[Image, ...]:
        """Summary rows: the fields of the image's config are empty. `named`: those with a name like that pattern."""
        ...

    async def image(self, ref: str) -> Image: ...
    async def tag_image(self, ref: str, tag: str) -> None: ...
    async def build_image(
        self,
        context: IO[bytes],
        *,
        tag: str,
        labels: Mapping[str, str] = {},
        args: Mapping[str, str] = {},
        no_cache: bool = False,
    ) -> str:
        """Build the Dockerfile in the tar `context`, tag the image, return its ID.

        The Dockerfile may use the context and local images only: secrets, SSH and other contexts need a BuildKit
        session, as `docker build` opens one.
        """
        ...

    async def add_layer(
        self, below: str, layer: IO[bytes], *, tag: str, labels: Mapping[str, str] = {}, created: int
    ) -> str:
        """Tag an image that has the tar `layer` on the image `below`, and `labels` besides that one's; return its ID.

        `created` in seconds since the epoch: the same input makes the same image. The Engine only unpacks the layer, in
        a tenth of the time of a build. Not where containerd keeps the images (`EngineInfo.containerd_store`): it alone
        knows the layers of `below` by name.
        """
        ...

    async def load_image(self, archive: Readable, *, name: str) -> None:
        """Load the tar `archive`, of `docker save` or an OCI layout; `name` is what refusals call it.

        A read of the archive that raises OSError ends it: nothing is loaded, and EngineUnreachable is raised from that.
        """
        ...

    async def remove_image(self, ref: str) -> None:
        """Already gone is no error; used by a container is Conflict. By name only that name goes if there are more."""
        ...

    def pull_image(self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}) -> AsyncIterator[PullProgress]:
        """`login`: what the Engine's API calls AuthConfig, as it asks the registry with it. It keeps none.

        Errors inside the progress stream are raised as EngineError; `transient` says whether trying again helps.
        """
        ...

    def events(
        self, *, since: float | None = None, filters: Mapping[str, Sequence[str]] = {}
    ) -> AsyncGenerator[Event, None]:
        """The Engine's events from `since` (its own clock). Ends by EngineUnreachable when the connection breaks.

        The Engine answers nothing until the first event, so give `since` to miss none; it keeps the last 256, and none
        from before its own restart.
        """
        ...

    async def past_events(self, *, since: float, until: float) -> tuple[Event, ...]:
        """What the Engine still knows of that time (it keeps the last 256 events), oldest first.

        Returns at once, but for an `until` in the future, which the Engine waits for.
        """
        ...


async def find_container(engine: Engine, ref: str) -> Container | None:
    """None if it does not exist, or no longer does."""
    try:
        return await engine.container(ref)
    except NotFound:
        return None


async def find_image(engine: Engine, ref: str) -> Image | None:
    """None if there is none, or no longer."""
    try:
        return await engine.image(ref)
    except NotFound:
        return None


async def find_containers(engine: Engine, refs: Iterable[str]) -> tuple[Container, ...]:
    """Those of them that exist."""
    return tuple([found for ref in refs if (found := await find_container(engine, ref))])
