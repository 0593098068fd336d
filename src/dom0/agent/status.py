"""Documents of the agent's API on /run/dom0/dom0.sock. Light to import, used by the CLI too.

What is answered with which of them: `api.ROUTES`.

An error is `{"message": …, "hint": …}` with status 400 (asked wrongly), 403 (by a web page), 409 (busy, or changed
meanwhile) or 500.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import msgspec

from dom0.health import Problem
from dom0.plan.phase import Phase as Phase

LARGEST_PROJECT = 16 * 1024 * 1024  # bytes of a project, or of what one says of its files
MOST_LINES = 10_000  # of a log, before what comes
LONGEST_FIND = 1000  # characters
LAST_TIME = 253_402_300_799.0  # seconds: of the year 9999
MOST_PULLS = 1000  # that a command tells of
MOST_NETWORKS = 1000
LONGEST_TRIAL = 7 * 86400.0  # seconds

ImageId = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]
OwnOrImageId = Annotated[str, msgspec.Meta(pattern=r"^(sha256:[0-9a-f]{64})?$(?!\n)")]
NOT_READ = msgspec.Raw(b"null")
NO_LOGINS = msgspec.Raw(b"{}")


class Outcome(StrEnum):
    """Of a generation."""

    PENDING = "pending"
    TRIAL = "trial"  # good, and goes back unless confirmed
    GOOD = "good"
    FAILED = "failed"
    EXPIRED = "expired"  # a trial that nobody confirmed
    ABORTED = "aborted"  # by `dom0 abort`
    REPLACED = "replaced"  # another one came before it was good

    @property
    def is_failure(self) -> bool:
        """The machine went back from it."""
        return self in (Outcome.FAILED, Outcome.EXPIRED, Outcome.ABORTED)


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    number: int
    container: str  # name, "" if there is none
    container_id: str
    image: str
    image_id: str
    phase: Phase
    reason: str = ""  # why it is in this phase, or what it waits for
    health: str = "none"
    started: float = 0.0
    finished: float = 0.0  # 0 while it runs
    next_run: float = 0.0  # of a job that runs by a schedule
    restarts: int = 0
    ports: tuple[str, ...] = ()  # of the host, `8080/tcp`


class GenerationInfo(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    project: str = ""
    created: float
    cause: str  # why it came: "first start", "image changed", "dom0 up", "rollback to 3", …
    dom0_image: str  # ID of the root container's image it was made from
    outcome: Outcome
    reason: str = ""  # of a failure
    back_at: float = 0.0  # when the machine last came back to it
    back_because: str = ""
    said: tuple[str, ...] = ()  # `SERVICE: line`: what the services of a failed one said last
    current: bool = False
    trial_until: float = 0.0
    watched_until: float = 0.0  # when it is good if it stays as well as it is; 0: it is judged, or not well yet
    goes_back_to: int = 0  # number of the generation that follows if it is not kept; 0: none, or it is good
    services: int = 0


class PullStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An image on its way from a registry. Sizes are bytes, of what is still to come and what has come of it."""

    image: str  # as written
    size: int  # 0: not known yet
    have: int
    rate: float  # bytes per second, of the last seconds
    left: float | None  # seconds, null where that cannot be said
    drops: int  # requests that ended too soon
    waits_for: str = ""  # why nothing is asked for now
    waits_until: float = 0.0
    note: str = ""  # what else there is to know, as that the Docker Engine itself pulls it


class SharingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How blobs of images come from other machines and are given to them."""

    peers: tuple[str, ...]  # that are asked before a registry
    served_at: str  # "": they are given to nobody
    allow: tuple[str, ...]  # who may ask there
    mirror: str  # where the Engine of this machine finds one of docker.io; "": nowhere


class MembershipStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine is in its farm, as far as it knows; what it is to become its server says."""

    farm: str
    server: str  # HOST:PORT
    node: str  # name of this machine; "": it waits there until somebody approves it
    role: str
    revision: int  # of that role, which it runs or tries; 0: none yet
    state: str  # of it: `none`, `trying`, `good` or `failed`
    reason: str = ""  # why that failed


class BackupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Of a volume of the project."""

    volume: str  # the Engine's name of it
    key: str = ""  # what the project calls it; "": it is in no backup, and nothing of the following is known
    service: str = ""  # the job that backs it up
    to: str = ""
    last: float = 0.0  # when it was backed up last
    snapshot: str = ""  # that was made then
    size: int = 0  # bytes of all files in it
    complete: bool = True  # all files could be read


class Status(msgspec.Struct, frozen=True, kw_only=True):
    project: str
    version: str  # of the agent
    dom0_image: str
    generation: GenerationInfo | None
    last_good: int | None
    converged: bool  # everything is as desired, or given up, stopped or completed
    services: tuple[ServiceStatus, ...]
    steps: tuple[str, ...]  # under way now
    pulls: tuple[PullStatus, ...] = ()
    sharing: SharingStatus | None = None
    farm: MembershipStatus | None = None
    serves: tuple[str, ...] = ()  # names of farms whose servers run here: agent/served_farms.py
    backups: tuple[BackupStatus, ...] = ()
    problems: tuple[Problem, ...]
    inputs: str = ""  # of the current generation's dom0 image, its label dom0.inputs: what `dom0 build` was given
    now: float = 0.0
    is_guest: bool = False  # in a scope: another machine decides which image it runs from


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    text: str = ""  # one line for people
    service: str = ""
    outcome: Outcome | None = None  # only in the last line
    generation: int = 0
    problems: tuple[Problem, ...] = ()
    watched_until: float = 0.0  # of a generation that is ready: when it is good if it stays so
    goes_back_to: int = 0  # number of the generation that follows if it does not; 0: there is none
    pulls: tuple[PullStatus, ...] | None = None  # what is pulled now; (): nothing any more


class PullEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a command has pulled before it asked, for the journal."""

    image: str  # as written
    text: str  # one line for people
    reason: str = ""  # why it could not be pulled


class UpRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Clears what was stopped, given up and refused, resolves images anew; a new generation if anything differs."""

    force: bool = False  # recreate everything
    adopt: bool = False  # take over what Docker Compose made for a project of this name
    dom0_image: OwnOrImageId = ""  # whose project to take over, on the same dom0-base; "": the running one's
    # Raw values have factories: as defaults they could not be described.
    project: msgspec.Raw = msgspec.field(default_factory=lambda: NOT_READ)  # that one, where it was read: compose/model
    # By registry: registry/credentials.Login; raw, so that no text of ours shows them.
    logins: msgspec.Raw = msgspec.field(default_factory=lambda: NO_LOGINS)
    layer: bytes = b""  # and the layer of that image with its files, a tar, where they are few: images/unpack
    images: dict[str, str] = {}  # by reference: the ID of the image that is meant, which is on this machine
    pulls: Annotated[tuple[PullEvent, ...], msgspec.Meta(max_length=MOST_PULLS)] = ()  # of the command, before
    networks: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_NETWORKS)] = ()  # that it has created, before


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /v1/watch`."""

    repeat: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = math.inf  # seconds; the same status comes again then
    differences: bool = False  # of a status only what is another than in the one before: agent/report.difference


class DifferencesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /v1/generations/N/differences`."""

    before: Annotated[int, msgspec.Meta(ge=1, lt=10**9)] | None = None  # None: the one made before it


class LogsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /v1/logs`."""

    container: str  # name of a service's
    tail: Annotated[int, msgspec.Meta(ge=0, le=MOST_LINES)] = 200  # only the last ones of what is asked for
    follow: bool = False
    find: Annotated[str, msgspec.Meta(max_length=LONGEST_FIND)] = ""  # only lines that have it, in any case
    since: Annotated[float, msgspec.Meta(ge=0.0, le=LAST_TIME)] = 0.0  # seconds since the epoch
    until: Annotated[float, msgspec.Meta(ge=0.0, le=LAST_TIME)] = 0.0  # 0: up to now

    @property
    def searches(self) -> bool:
        """All that was printed, from its beginning on."""
        return bool(self.find or self.since or self.until)


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    time: str  # RFC 3339, UTC
    service: str
    container: str  # name
    text: str
    left_out: int = 0  # of those that were searched for: how many there are before this one, the first that is told


class Verb(StrEnum):
    """What a person does to the containers of a service."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a service that it was done to."""

    service: str
    container: str  # name


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    generation: int | None = None  # None: the last good one before the current one


class CurrentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    generation: int | None = None  # that is meant; None: whichever is current


class DoneRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command: str  # that has changed this machine by itself: `dom0 ssh add`
    text: str  # what it has done, one line


class TryRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dom0_image: ImageId
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=LONGEST_TRIAL)]
