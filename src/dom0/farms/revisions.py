"""What the nodes of each role are to run, as revisions of the farm, and what nodes say of it. No I/O.

A revision never changes and its number is never another one's. Its images are pinned by their digests: the same content
of a role has the same digest in whichever revision it is, and nodes go by that.

Machines of a farm get another dom0 one after the other. So nodes and server pass over fields that they do not know in
what the other one says, and check strictly those that they do; who adds a field gives it a default that means what
happened before there was one. A report leaves out what is so: the dom0 of before refuses fields that it does not know.
RoleContent gets none, as both make a digest of it. The server's own files are read strictly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from dom0.errors import UsageError
from dom0.farms.float_content import FloatProject

Digest = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64})?\Z")]
OsVersion = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+~-]{0,64}\Z")]
MOST_REASON = 500  # characters
MOST_OS_REASON = 200  # a report has both
SLOTS, NETWORK = "slots", "network"  # how a node gets another base OS: on its boot disk, or from the farm's server
MOST_GIVERS = 8  # that a node is told of at once
KEPT = 10  # revisions, beside those that a node needs


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    digest: Digest
    size: Annotated[int, Meta(ge=0)]  # bytes


class FarmImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image, as the Engines of nodes get it. `reference`: what its project calls it.

    An Engine whose images containerd keeps calls it by the digest of its index, where it has one, or its manifest; one
    with a graph driver by that of its config.
    """

    reference: str
    index: Blob | None = None
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (*((self.index,) if self.index else ()), self.manifest, self.config, *self.layers)

    @property
    def ids(self) -> tuple[str, str]:
        """What it is called where containerd keeps it, and elsewhere."""
        return (self.index or self.manifest).digest, self.config.digest


class RoleContent(msgspec.Struct, frozen=True, kw_only=True):
    """`image`: the dom0 image of its project; `images`: of its services; `private`: a tar of the files that no image
    has (`images/private`).
    """

    image: FarmImage
    images: tuple[FarmImage, ...] = ()
    private: Blob | None = None

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(msgspec.json.encode(self)).hexdigest()}"

    @property
    def blobs(self) -> dict[str, int]:
        """Sizes by digest of all that a node of the role may have."""
        found = [blob for image in (self.image, *self.images) for blob in image.blobs]
        return {blob.digest: blob.size for blob in (*found, *((self.private,) if self.private else ()))}


class Floating(msgspec.Struct, frozen=True, kw_only=True):
    """The projects that run on Swarm mode, by the names of their directories, and all their images."""

    projects: dict[str, FloatProject] = {}
    images: tuple[FarmImage, ...] = ()

    @property
    def files(self) -> dict[str, int]:
        """Sizes by digest of what is in configs and secrets."""
        return {file.digest: file.size for project in self.projects.values() for file in project.files.values()}


class BaseOs(msgspec.Struct, frozen=True, kw_only=True):
    """The base OS of all nodes. `file`: what dom0 os update takes; `signature`: of it, as FILE.sig."""

    version: OsVersion
    file: Blob
    signature: Blob | None = None

    @property
    def blobs(self) -> dict[str, int]:
        """Sizes by digest."""
        return {blob.digest: blob.size for blob in (self.file, self.signature) if blob is not None}


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """`made`: seconds since the epoch, by the clock of whoever made it. `os`: None where the farm leaves it alone."""

    number: Annotated[int, Meta(ge=1)]
    made: float
    roles: dict[str, RoleContent]
    floating: Floating = Floating()
    os: BaseOs | None = None

    @property
    def images(self) -> tuple[FarmImage, ...]:
        """Of all roles and floating projects."""
        of_roles = (image for content in self.roles.values() for image in (content.image, *content.images))
        return (*of_roles, *self.floating.images)

    @property
    def blobs(self) -> frozenset[str]:
        """Digests of all that it is made of."""
        of_roles = (digest for content in self.roles.values() for digest in content.blobs)
        of_images = (blob.digest for image in self.floating.images for blob in image.blobs)
        return frozenset((*of_roles, *of_images, *self.floating.files, *(self.os.blobs if self.os else ())))


NOTHING_FLOATS = Floating()


class RoleState(StrEnum):
    NONE = "none"  # it was told of no content yet
    TRYING = "trying"
    GOOD = "good"
    FAILED = "failed"


class NodeReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself. `content`: digest of the one that it runs or tries, as revision number `revision`;
    `reason`: why that failed; `turn`: number of the attempt that it acted on last; `fetched`: digest of the content all
    of which is on the node; `os`: version of its base OS; `since`: when the server heard first that it is so.

    `boots`: how it gets another base OS, "" where that is not for the farm to say; `os_fetched`: digest of the file
    that is on the node; `os_trial`: the one that runs has not proved itself yet; `os_failed`: the turn in which it did
    not come up with the one that it was told, and `os_reason` why.
    """

    content: Digest = ""
    revision: Annotated[int, Meta(ge=0)] = 0
    state: RoleState = RoleState.NONE
    reason: Annotated[str, Meta(max_length=MOST_REASON)] = ""
    turn: Annotated[int, Meta(ge=0)] = 0
    fetched: Digest = ""
    os: OsVersion = ""
    boots: Annotated[str, Meta(pattern=r"^[a-z]{0,16}\Z")] = ""
    os_fetched: Digest = ""
    os_trial: bool = False
    os_failed: Annotated[int, Meta(ge=0)] = 0
    os_reason: Annotated[str, Meta(max_length=MOST_OS_REASON)] = ""
    since: float = 0.0

    def has_os(self, wanted: BaseOs | None) -> bool:
        """Whether it runs that, or is not to."""
        is_ours = self.boots in (SLOTS, NETWORK)
        return wanted is None or not is_ours or (self.os == wanted.version and not self.os_trial)


class Gives(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node gives blobs to others, at the address that the server hears it from (`peers`)."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Giver(Gives, frozen=True, kw_only=True):
    """Another node."""

    address: Annotated[str, Meta(pattern=r"^[0-9a-f:.]{2,45}\Z")]


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """What the server tells a node of others. `passes`: by digest, of what is in the images of its role."""

    passes: dict[str, str] = {}
    nodes: tuple[Giver, ...] = ()


class FollowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`told`: digest of the order that the node has; `gives`: None where it gives nothing."""

    report: NodeReport
    told: Digest = ""
    gives: Gives | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told: what to have on its disk, and what to run, as revision number `revision`; None: stay with
    what it has. What has failed there it tries again in another `turn` only. `floats`: number of the current revision
    where the farm has a Swarm or is to have one, else 0. `calls`: connections to its Engine that are asked for now
    (`calls`). `fetch_os` and `os`: the base OS to have on its disk, and to start when `run` is good; None: as `run`.
    `services`: whether others want to know where services of this node are (`services`). `told`: the digest by the
    server, which may know more fields than the node.
    """

    farm: str
    name: str
    role: str
    revision: int = 0
    turn: int = 0
    floats: int = 0
    fetch: RoleContent | None = None
    run: RoleContent | None = None
    calls: tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")], ...] = ()
    fetch_os: BaseOs | None = None
    os: BaseOs | None = None
    services: bool = False
    told: Digest = ""

    @property
    def digest(self) -> str:
        """Of what stays; a call is told once."""
        gone = {"calls", "told"}
        later = ("fetch_os", "os", "services")
        gone |= {name for name in later if not getattr(self, name)}  # as by who has no such field
        stays = {name: value for name, value in msgspec.structs.asdict(self).items() if name not in gone}
        return self.told or f"sha256:{hashlib.sha256(msgspec.json.encode(stays)).hexdigest()}"


def revise(
    known: Iterable[Revision],
    roles: Mapping[str, RoleContent],
    made: float,
    floating: Floating = NOTHING_FLOATS,
    os: BaseOs | None = None,
) -> Revision:
    """The newest of the known ones that says just this, or the next one."""
    by_number = {revision.number: revision for revision in known}
    said = (roles, floating, os)
    same = [n for n, revision in by_number.items() if (revision.roles, revision.floating, revision.os) == said]
    number = max(same) if same else max(by_number, default=0) + 1
    return by_number.get(number) or Revision(number=number, made=made, roles=dict(roles), floating=floating, os=os)


def find_unneeded(
    known: Iterable[Revision], numbers: Collection[int], reports: Iterable[NodeReport], most: int = KEPT
) -> list[Revision]:
    """Which of the `known` ones may go: all but the last `most`, those with `numbers`, and the newest that says what a
    node has said that it runs, tries or has fetched.
    """
    newest_first = sorted(known, key=lambda revision: -revision.number)
    said = {digest for report in reports for digest in (report.content, report.fetched) if digest}
    unneeded = []
    for place, revision in enumerate(newest_first):
        found = said & {content.digest for content in revision.roles.values()}
        said -= found
        if place >= most and not found and revision.number not in numbers:
            unneeded.append(revision)
    return unneeded


def changed_roles(before: Revision | None, after: Revision) -> dict[str, str]:
    """By role: `new`, `changed` or `removed`."""
    return changed(before.roles if before else {}, after.roles)


def changed(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, str]:
    """By key: `new`, `changed` or `removed`."""
    found = {key: "changed" if key in old else "new" for key in new if new[key] != old.get(key)}
    return dict(sorted({**found, **{key: "removed" for key in old if key not in new}}.items()))


def find_earlier(known: Iterable[Revision], current: int, number: int | None) -> Revision:
    """That with `number`, or the one before the current one. Raises UsageError."""
    by_number = {revision.number: revision for revision in known}
    wanted = max((one for one in by_number if one < current), default=0) if number is None else number
    if wanted not in by_number:
        what = f"revision {number}: there is none" if number is not None else "there is no revision before this one"
        raise UsageError(what, hint="dom0 farm history lists them")
    return by_number[wanted]
