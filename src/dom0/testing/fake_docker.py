"""An Engine in memory: what the daemon keeps and does. `fake_engine.FakeEngine` is a client of it, as many as wanted.

Theory of operation. Nothing runs: what a command would do is foretold (`fake_process`), and timers of the event loop
carry it out, so in virtual time hours pass at once. What is imitated was seen on Engine 26.1.5, and the conformance
suite (tests/engine) compares both:

- `docker stop` tells kill, (unpause,) network disconnect, stop, die; `docker kill` kill, disconnect, die;
  `docker rm -f` kill, disconnect, die, destroy. While a container waits for its restart, stop tells only stop, kill
  nothing, rm only destroy. A failed start tells network connect and disconnect and leaves the container created.
- Any `docker kill`, also with HUP, lays the restart policy to rest until the next start.
- A policy changed to `no` during the wait for a restart does not prevent that restart.
- An Engine that restarts forgets its events. It starts again what `always` covers, stopped by hand or not (only never
  what was never started), `on-failure` if it ended with other than 0, and `unless-stopped` unless stopped by hand.
  After a crash of the Engine, it ends the containers that survived as if by hand: `unless-stopped` stays down.
- A stopped container may be connected to a network that does not exist; only its start refuses it. Once started, a
  container remembers the network by ID: its start fails when there is another one of that name.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody, EndpointSettings
from dom0.engine.values import Health, Image, Mount, PublishedPort, State
from dom0.errors import Conflict, EngineError, NotFound
from dom0.plan import labels
from dom0.testing import fake_container, virtual_time
from dom0.testing.fake_container import FakeContainer, FakeEndpoint
from dom0.testing.fake_events import EventLog
from dom0.testing.fake_process import FOREVER, KILLED, Process, Surroundings, foretell
from dom0.testing.fake_stores import PREDEFINED, Images, Networks, Volumes

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
ANONYMOUS = "com.docker.volume.anonymous"  # label of a volume that was made without a name
_SHORTEST_RUN = 0.01  # seconds until the end of what ends at once
_NOT_FOUND = 'exec: "{}": executable file not found in $PATH'


class FakeDocker:
    """Tests set the stage with the methods of the first part; persons at their keyboards are further FakeEngines."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.containers: dict[str, FakeContainer] = {}
        self.processes: dict[str, tuple[str, ...]] = {}  # what `top` tells beside process 1, by container name
        self.answers = True  # False: the Engine is down
        self.stop_before_die = True  # which of the two events comes first; the API promises neither
        self._ids = itertools.count(1)
        self.images = Images(self.events, self.new_id)
        self.networks = Networks(self.events, self.new_id)
        self.volumes = Volumes(self.events)
        self._foreign_ports: set[PublishedPort] = set()
        self._failing_probes: dict[str, float] = {}
        self._refused_starts: dict[str, str] = {}

    # the stage

    def fail_probes(self, key: str, first: float = FOREVER) -> None:
        """Let the health command of `key` (container or service name) fail the `first` times in each container."""
        self._failing_probes[key] = first

    def pass_probes(self, key: str) -> None:
        self._failing_probes.pop(key, None)

    def refuse_start(self, key: str, message: str) -> None:
        self._refused_starts[key] = message

    def allow_start(self, key: str) -> None:
        self._refused_starts.pop(key, None)

    def occupy_port(self, port: int, protocol: str = "tcp") -> None:
        """As a process of the host that is in no container."""
        self._foreign_ports.add(PublishedPort(protocol, port))

    def release_port(self, port: int, protocol: str = "tcp") -> None:
        self._foreign_ports.discard(PublishedPort(protocol, port))

    def exit(self, ref: str, code: int) -> None:
        """The container's process ends by itself."""
        container = self.container(ref)
        assert container.runs
        self.end(container, code)

    def stop_engine(self, *, crash: bool = False) -> None:
        """As `systemctl stop docker`, which stops the containers; or a crash, which leaves them running."""
        self.answers = False
        self.events.end_streams()
        for container in self.containers.values():
            if container.state is State.RESTARTING:
                container.state = State.EXITED
            container.cancel_timers()
            if container.runs and not crash:
                self._finish(container, _code_of_a_stop(container))
        self.events.end_streams()

    def start_engine(self) -> None:
        self.answers = True
        survivors = [container for container in self.containers.values() if container.runs]
        for container in survivors:
            container.by_hand = container.no_restart = container.stopping = True
            self.tell(container, "kill", signal="15")
            self._finish(container, _code_of_a_stop(container))
        self.networks.renew_bridge()
        for container in self.containers.values():
            if container.started and container.wants_restart():
                self._start_by_policy(container)

    def restart_engine(self, *, crash: bool = False) -> None:
        self.stop_engine(crash=crash)
        self.start_engine()

    # looking up

    def new_id(self) -> str:
        return hashlib.sha256(f"fake {next(self._ids)}".encode()).hexdigest()

    def container(self, ref: str) -> FakeContainer:
        """By full ID or exact name."""
        if ref in self.containers:
            return self.containers[ref]
        for container in self.containers.values():
            if container.name == ref:
                return container
        raise NotFound(f"container {ref}: No such container: {ref}")

    def tell(self, container: FakeContainer, action: str, **extra: str) -> None:
        attributes = {**container.labels, "image": container.image, "name": container.name, **extra}
        self.events.tell("container", action, container.id, attributes)

    # containers

    def create(self, name: str, body: ContainerBody) -> FakeContainer:
        where = f"container {name}"
        image = self.images.find(body.image)
        command = [*(body.entrypoint or image.entrypoint), *(body.cmd or image.cmd)]
        if not command:
            raise EngineError(f"{where}: no command specified")
        self.check_name(name)
        container = FakeContainer(
            id=self.new_id(),
            name=name,
            image=body.image,
            image_id=image.id,
            labels=image.labels | body.labels,
            created=virtual_time.now(),
            command=command,
            env=[*image.env, *body.env],
            host=body.host_config,
            mounts=self._mounts(where, body, image),
            endpoints=fake_container.requested_endpoints(body),
            health_check=fake_container.requested_health(body, image),
            stop_grace=10.0 if body.stop_timeout is None else body.stop_timeout,
        )
        self.containers[container.id] = container
        self.tell(container, "create")
        return container

    def check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise EngineError(
                f"container {name}: Invalid container name ({name}), only {_NAME.pattern[:-1]} are allowed"
            )
        for other in self.containers.values():
            if other.name == name:
                raise Conflict(f'container {name}: Conflict. The container name "/{name}" is already in use')

    def start(self, container: FakeContainer) -> None:
        """As the API call: by hand, so earlier stops and restarts are forgotten."""
        if container.state in (State.RUNNING, State.RESTARTING):
            return
        if container.state is State.PAUSED:
            raise Conflict(f"container {container.name}: cannot start a paused container, try unpause instead")
        container.by_hand = container.no_restart = False
        container.restart_count, container.backoff = 0, fake_container.FIRST_BACKOFF
        self._run(container)

    def pause(self, container: FakeContainer) -> None:
        container.state = State.PAUSED
        self.tell(container, "pause")

    def unpause(self, container: FakeContainer) -> None:
        if container.state is not State.PAUSED:
            raise EngineError(f"container {container.name}: Container {container.id} is not paused")
        container.state = State.RUNNING
        self.tell(container, "unpause")

    async def stop(self, container: FakeContainer, grace: float) -> None:
        container_waits = container.state is State.RESTARTING
        if not container.runs and not container_waits:
            return
        container.by_hand = container.no_restart = True
        if container_waits:
            self._forget_restart(container)
            self.tell(container, "stop")
            return
        container.stopping, ended = True, container.ended
        self.signal(container, 15)
        if not await self.wait(container, grace) and not ended.is_set():
            self.signal(container, 9)

    async def wait(self, container: FakeContainer, seconds: float) -> bool:
        """Let `seconds` pass; returns True as soon as the container's process has ended."""
        try:
            async with asyncio.timeout(None if seconds == FOREVER else seconds):
                return await container.ended.wait()
        except TimeoutError:
            return False

    def signal(self, container: FakeContainer, number: int) -> None:
        """As the API's kill."""
        if container.state is State.RESTARTING:
            self._forget_restart(container)
            return
        if not container.runs or container.process is None:
            raise Conflict(f"container {container.name}: cannot kill container: it is not running")
        container.by_hand = container.no_restart = True
        self.tell(container, "kill", signal=str(number))
        if container.state is State.PAUSED and number == 15:
            container.state = State.RUNNING
            self.tell(container, "unpause")
        if number == 9:
            self.end(container, KILLED)
        elif number == 15 and container.process.on_term is not None:
            self.end(container, container.process.on_term)

    def remove(self, container: FakeContainer, *, force: bool, volumes: bool) -> None:
        if container.state is State.RESTARTING and force:
            self._forget_restart(container)
        elif container.runs and force:
            self.signal(container, 9)
        elif container.runs or container.state is State.RESTARTING:
            raise Conflict(f"container {container.name}: cannot remove: container is {container.state}: stop it first")
        del self.containers[container.id]
        if volumes:
            for name in self._anonymous_volumes(container):
                if not self.users_of(name):
                    self.volumes.drop(name)
        self.tell(container, "destroy")

    def end(self, container: FakeContainer, code: int) -> None:
        """Its process is gone; its restart policy decides what comes next."""
        self._finish(container, code)
        if container.no_restart or not container.wants_restart():
            return
        container.state = State.RESTARTING
        container.restart_count += 1
        if container.finished - container.started >= fake_container.RAN_WELL:
            container.backoff = fake_container.FIRST_BACKOFF
        self._later(container, container.backoff, self._start_by_policy)
        container.backoff = min(2 * container.backoff, fake_container.LONGEST_BACKOFF)

    def probe(self, container: FakeContainer) -> Process:
        """Run the health command, for the Engine or for whoever execs it."""
        assert container.health_check is not None
        container.probes += 1
        first = max((self._failing_probes.get(key, 0) for key in _keys(container)), default=0)
        if container.probes <= first:
            return Process(exit_code=1, output="not yet\n")
        found = foretell(list(container.health_check.argv), Surroundings(files=container.files, env=container.env))
        return Process() if found.missing else found  # what we cannot foretell is well

    def tell_exec(self, container: FakeContainer, argv: Sequence[str]) -> None:
        for action in ("exec_create", "exec_start"):
            self.tell(container, f"{action}: {' '.join(argv)}")

    def _run(self, container: FakeContainer) -> None:
        around = Surroundings(files=container.files, env=container.env)
        process = foretell(container.command, around)
        try:
            self._check_start(container, process)
        except EngineError as error:
            container.error = error.message.partition(": ")[2]
            container.exit_code = 127 if process.missing else 128
            raise
        container.process = process
        container.log.append((virtual_time.now(), process.output, process.errors))
        container.state, container.started = State.RUNNING, virtual_time.now()
        container.exit_code, container.error, container.pid = 0, "", next(self._ids)
        container.ended = asyncio.Event()
        container.stopping = False
        for name in container.endpoints:
            self.attach(container, name)
        for volume in _volume_names(container):
            self.events.tell("volume", "mount", volume, {"container": container.id, "driver": "local"})
        self.tell(container, "start")
        if process.runs_for != FOREVER:
            self._later(container, max(process.runs_for, _SHORTEST_RUN), lambda c: self.end(c, process.exit_code))
        if container.health_check is not None:
            container.health, container.probes, container.failed_probes = Health.STARTING, 0, 0
            self._later(container, self._probe_pause(container), self._probe)

    def _check_start(self, container: FakeContainer, process: Process) -> None:
        where, host = f"container {container.name}", container.host
        for key in _keys(container):
            if key in self._refused_starts:
                raise EngineError(f"{where}: {self._refused_starts[key]}")
        for mode, refusal in (
            (host.network_mode, Conflict(f"{where}: cannot join network of a non running container")),
            (host.ipc_mode, EngineError(f"{where}: failed to join IPC namespace: container is not running")),
            (host.pid_mode, EngineError(f"{where}: failed to join PID namespace: container is not running")),
        ):
            kind, _, parent = mode.partition(":")
            if kind == "container" and not self.container(parent).runs:
                raise refusal
        for name, endpoint in container.endpoints.items():
            self.networks.find(endpoint.network_id if name not in PREDEFINED and endpoint.network_id else name)
        self._check_ports(container, where)
        if process.missing:
            raise EngineError(f"{where}: failed to create task for container: {_NOT_FOUND.format(process.missing)}")

    def _check_ports(self, container: FakeContainer, where: str) -> None:
        taken = set(self._foreign_ports)
        for other in self.containers.values():
            if other.runs:
                taken.update(other.ports())
        for port in container.ports():
            for other_port in taken:
                same_place = port.ip == other_port.ip or not port.ip or not other_port.ip
                if same_place and (port.protocol, port.port) == (other_port.protocol, other_port.port):
                    raise EngineError(
                        f"{where}: driver failed programming external connectivity: "
                        f"Bind for {port.ip or '0.0.0.0'}:{port.port} failed: port is already allocated"  # noqa: S104
                    )

    def _finish(self, container: FakeContainer, code: int) -> None:
        container.cancel_timers()
        container.state, container.finished = State.EXITED, virtual_time.now()
        container.exit_code, container.pid, container.process = code, 0, None
        for name, endpoint in container.endpoints.items():
            endpoint.ip_address = ""
            self.networks.tell("disconnect", name, container.id)
        for volume in _volume_names(container):
            self.events.tell("volume", "unmount", volume, {"container": container.id, "driver": "local"})
        if container.stopping and self.stop_before_die:
            self.tell(container, "stop")
        self.tell(container, "die", exitCode=str(code))
        if container.stopping and not self.stop_before_die:
            self.tell(container, "stop")
        container.stopping = False
        container.ended.set()

    def _start_by_policy(self, container: FakeContainer) -> None:
        container.state = State.EXITED
        try:
            self._run(container)
        except EngineError:
            return  # it stays exited and says why

    def _forget_restart(self, container: FakeContainer) -> None:
        container.cancel_timers()
        container.state = State.EXITED
        container.by_hand = container.no_restart = True

    def _later(self, container: FakeContainer, seconds: float, action: Any) -> None:
        container.timers.append(asyncio.get_running_loop().call_later(seconds, action, container))

    def _probe_pause(self, container: FakeContainer) -> float:
        check = container.health_check
        assert check is not None
        in_start = virtual_time.now() - container.started < check.start_period and container.health is Health.STARTING
        return check.start_interval if in_start else check.interval

    def _probe(self, container: FakeContainer) -> None:
        check = container.health_check
        assert check is not None
        result = self.probe(container)
        self.tell_exec(container, check.argv)
        self.tell(container, "exec_die", exitCode=str(result.exit_code))
        container.health_output = result.output
        before = container.health
        if result.exit_code == 0:
            container.failed_probes, container.health = 0, Health.HEALTHY
        elif before is not Health.STARTING or virtual_time.now() - container.started >= check.start_period:
            container.failed_probes += 1
            if container.failed_probes >= check.retries:
                container.health = Health.UNHEALTHY
        if container.health is not before:
            self.tell(container, f"health_status: {container.health}")
        self._later(container, self._probe_pause(container), self._probe)

    # networks

    def attach(self, container: FakeContainer, name: str) -> None:
        """Give the endpoint `name` of a running container its place in the network."""
        number = next(self._ids)
        endpoint = container.endpoints[name]
        endpoint.network_id = self.networks.find(name).id
        endpoint.ip_address = f"172.30.{number // 256 % 256}.{number % 256}"
        self.networks.tell("connect", name, container.id)

    def connect(self, ref: str, container: FakeContainer, endpoint: EndpointSettings) -> None:
        asked = FakeEndpoint(endpoint.aliases)
        if not container.runs:
            container.endpoints[self.networks.name_of(ref)] = asked
            return
        name = self.networks.find(ref).name
        if name in container.endpoints:
            raise Conflict(f"network {name}: endpoint with name {container.name} already exists in network {name}")
        container.endpoints[name] = asked
        self.attach(container, name)

    def disconnect(self, ref: str, container: FakeContainer) -> None:
        name = self.networks.find(ref).name
        if container.endpoints.pop(name, None) is not None and container.runs:
            self.networks.tell("disconnect", name, container.id)

    def network_members(self, ref: str) -> tuple[str, ...]:
        name = self.networks.find(ref).name
        return tuple(c.id for c in self.containers.values() if c.runs and name in c.endpoints)

    def remove_network(self, ref: str) -> None:
        self.networks.drop(self.networks.find(ref), in_use=bool(self.network_members(ref)))

    # volumes

    def users_of(self, volume: str) -> list[FakeContainer]:
        return [container for container in self.containers.values() if volume in _volume_names(container)]

    def _anonymous_volumes(self, container: FakeContainer) -> list[str]:
        return [name for name in _volume_names(container) if ANONYMOUS in self.volumes.all[name].labels]

    def _mounts(self, where: str, body: ContainerBody, image: Image) -> dict[str, Mount]:
        """What is asked for, then the volumes of other containers, then anonymous ones; volumes are made."""
        mounts = fake_container.requested_mounts(body.host_config)
        for source in body.host_config.volumes_from:
            ref, _, mode = source.partition(":")
            try:
                parent = self.container(ref)
            except NotFound:
                raise EngineError(f"{where}: No such container: {ref}") from None
            for target, mount in parent.mounts.items():
                mounts.setdefault(target, replace(mount, writable=mount.writable and mode != "ro"))
        for target in (*body.volumes, *image.volumes):
            mounts.setdefault(target, Mount(type="volume", target=target))
        return {target: self._provided(mount) for target, mount in mounts.items()}

    def _provided(self, mount: Mount) -> Mount:
        if mount.type != "volume":
            return mount
        anonymous = {} if mount.name else {ANONYMOUS: ""}
        volume = self.volumes.make(mount.name or self.new_id(), anonymous)
        return replace(mount, name=volume.name, source=volume.mountpoint)


def _code_of_a_stop(container: FakeContainer) -> int:
    assert container.process is not None
    return KILLED if container.process.on_term is None else container.process.on_term


def _volume_names(container: FakeContainer) -> list[str]:
    return sorted({mount.name for mount in container.mounts.values() if mount.type == "volume"})


def _keys(container: FakeContainer) -> tuple[str, ...]:
    """What a test may call it by: its name, or its service."""
    services = (container.labels.get(label) for label in (labels.SERVICE, labels.COMPOSE_SERVICE))
    return (container.name, *(service for service in services if service))
