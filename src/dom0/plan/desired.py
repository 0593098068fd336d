"""What the machine should be: the frozen input of the planner, made by `expand` from a Project, kept in a generation.

Two desired states are the same if their canonical JSON is. Nothing here does I/O.

Annotations are not postponed, as in `engine/bodies`.
"""

from enum import StrEnum
from functools import cached_property

import msgspec

from dom0.engine.bodies import ContainerBody, EndpointSettings, NetworkBody, VolumeBody
from dom0.engine.values import PublishedPort


class Role(StrEnum):
    SERVICE = "service"  # of the project
    SSHD = "sshd"
    HOLDER = "holder"  # keeps the listening sockets of orchestrators
    SOCKET = "socket"  # serves one
    HOME = "home"  # created, never started: plain `docker run --volumes-from home-volume` works
    ROOT = "root"  # the dom0 container itself
    HANDOVER = "handover"  # short-lived: replaces the dom0 container
    DEV = "dev"  # throw-away, `dom0 dev`
    BACKUP = "backup"  # the job that backs up a volume
    HOME_WORKER = "home-worker"  # throw-away: restic runs in it, for the home and for other volumes


class Condition(StrEnum):
    """The conditions of Compose's `depends_on`."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


class Order(StrEnum):
    """Compose's `deploy.update_config.order`."""

    START_FIRST = "start-first"
    STOP_FIRST = "stop-first"


class Dependency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    service: str
    condition: Condition = Condition.STARTED
    required: bool = True
    restart: bool = False  # restart the dependent when this one was replaced


class HealthTest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The health command as an argv to exec, from the service or its image. Times in seconds."""

    argv: tuple[str, ...]
    timeout: float = 30.0
    start_period: float = 0.0


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network of a container: `network` is the Engine's name of it."""

    network: str
    endpoint: EndpointSettings


class InjectedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A config or secret with inline content, written into the container before every start."""

    path: str
    content: bytes
    mode: int = 0o444
    uid: int = 0
    gid: int = 0


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command to exec in the container. Of `env` a name without `=` takes a variable of the container away."""

    argv: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    workdir: str = ""
    env: tuple[str, ...] = ()


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One container that should exist.

    `create` has no networks yet. Where a namespace or volume set of another service is meant, it holds `service:NAME`
    (HostConfig.NetworkMode, IpcMode, PidMode, VolumesFrom) and `parents` names the service: the container ID is put in
    when it is created. One without an image is never created (`plan/adoption`).
    """

    service: str
    number: int
    name: str
    role: Role
    hash: str
    image: str  # as written
    image_id: str  # pinned
    create: ContainerBody
    platform: str = ""
    attachments: tuple[Attachment, ...] = ()  # the first one is the primary network
    volumes: tuple[str, ...] = ()  # names of the project's volumes it mounts
    anonymous: tuple[str, ...] = ()  # targets of its anonymous volumes: these move on to its replacement
    files: tuple[InjectedFile, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    parents: tuple[str, ...] = ()
    order: Order = Order.STOP_FIRST
    health: HealthTest | None = None  # None: the container has no health check
    health_gate: bool = True  # run the health command at once during start
    restart_policy: str = "no"  # no, always, unless-stopped, on-failure
    restart_retries: int = 0
    stop_grace: float = 10.0  # seconds
    post_start: tuple[Hook, ...] = ()  # it is not ready before they have succeeded
    resources: dict[str, int] = {}  # as Container.resources: what `docker update` could have changed
    ports: tuple[PublishedPort, ...] = ()  # fixed host ports it takes
    runs: bool = True  # False: created, never started
    schedule: str = ""  # it is a job that is started when that says so, see `dom0.schedule`
    timezone: str = ""  # of its schedule
    stops: tuple[str, ...] = ()  # services that are stopped while it runs
    defer_while: tuple[str, ...] = ()  # not replaced while a process of it has one of these in its command line

    @cached_property
    def key(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def path(self) -> tuple[str, ...]:
        """The key of the project that asks for it."""
        return ("services", self.service) if self.role is Role.SERVICE else (f"x-dom0 ({self.service})",)


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    key: str  # in the Compose file
    name: str  # in the Engine
    external: bool = False
    hash: str = ""
    create: NetworkBody = NetworkBody()


class VolumeSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    key: str
    name: str
    external: bool = False
    hash: str = ""
    create: VolumeBody = VolumeBody()


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a new generation is judged, in seconds (`x-dom0.rollout`)."""

    timeout: float = 300.0  # everything healthy by then, or back
    monitor: float = 5.0  # and stays so for this long


class Sharing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How blobs of images come from other machines, and are given to them (`x-dom0.pull`)."""

    peers: tuple[str, ...] = ()  # `HOST:PORT`, asked before a registry
    listen: str = ""  # `ADDRESS:PORT`; "": nothing is given
    allow: tuple[str, ...] = ()  # addresses and networks that may ask there
    rate: int = 0  # bytes a second to all together; 0: no limit
    keep: int = 2 << 30  # bytes that stay here


class Notify(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where people are told what goes wrong (`x-dom0.notify`). `env_file`: absolute, with what is secret of it."""

    env_file: str = ""
    ntfy: str = ""  # URL of a topic
    webhook: str = ""  # URL
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    mail_server: str = ""  # `HOST`, `HOST:PORT`


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machine's numbers are told (`x-dom0.metrics`)."""

    listen: str  # `ADDRESS:PORT`
    allow: tuple[str, ...] = ()  # addresses and networks that may ask there; (): a loopback address, so anybody


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """Where the page is for devices that were paired (`x-dom0.web`)."""

    listen: str  # `ADDRESS:PORT`
    names: tuple[str, ...] = ()  # that lead there, besides addresses


class Desired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    project: str
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    slots: tuple[Slot, ...] = ()
    rollout: Rollout = Rollout()
    sharing: Sharing = Sharing()
    notify: Notify | None = None
    metrics: Metrics | None = None
    web: Web | None = None
    adopted: dict[str, dict[str, str]] = {}  # ID of a container of Compose's -> the labels of ours (plan/adoption)
    shared: tuple[str, ...] = ()  # volumes and directories that containers of others may write too
