"""Images, networks and volumes of the fake Engine."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import msgspec

from dom0.engine.docker import split_tag
from dom0.engine.values import Image, Network, Volume
from dom0.errors import Conflict, EngineError, NotFound
from dom0.testing import virtual_time
from dom0.testing.fake_events import EventLog


class Images:
    """`registry` is what a pull finds, by name with tag: an image, or the error that the Engine would answer."""

    def __init__(self, events: EventLog, new_id: Callable[[], str]) -> None:
        self.all: dict[str, Image] = {}
        self.registry: dict[str, Image | EngineError] = {}
        self._events = events
        self._new_id = new_id

    def new(self, **fields: Any) -> Image:
        """An image that is not loaded, for the registry."""
        return Image(id=f"sha256:{self._new_id()}", tags=(), **fields)

    def add(self, *tags: str, **fields: Any) -> str:
        """Load an image with the fields of values.Image; returns its ID."""
        image = self.new(**fields)
        self.all[image.id] = image
        for tag in tags:
            self.tag(image.id, tag)
        return image.id

    def load(self, archive: IO[bytes]) -> None:
        """One image as `docker save` writes it: its ID is the digest of its config."""
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            described = msgspec.json.decode(_content(tar, "manifest.json"))[0]
            config = _content(tar, described["Config"])
        document = msgspec.json.decode(config)
        image = Image(
            id=f"sha256:{hashlib.sha256(config).hexdigest()}",
            tags=(),
            labels=document["config"].get("Labels") or {},
            layers=tuple(document["rootfs"]["diff_ids"]),
        )
        self.all.setdefault(image.id, image)
        for tag in described["RepoTags"] or ():
            self.tag(image.id, tag)

    def find(self, ref: str) -> Image:
        name = ref if ref.startswith("sha256:") else with_tag(ref)
        for image in self.all.values():
            if image.id == ref or name in image.tags:
                return image
        raise NotFound(f"image {ref}: No such image: {ref}")

    def tag(self, image_id: str, tag: str) -> None:
        """A tag moves here from the image that has it."""
        tag = with_tag(tag)
        for image in tuple(self.all.values()):
            if tag in image.tags:
                self._set_tags(image, set(image.tags) - {tag})
        self._set_tags(self.all[image_id], {*self.all[image_id].tags, tag})

    def remove(self, ref: str, *, in_use: Callable[[str], bool]) -> None:
        """A name alone when there are more; else the image. By ID the Engine refuses an image with several names."""
        image = self.find(ref)
        by_id = ref == image.id
        if not by_id and len(image.tags) > 1:
            self._set_tags(image, set(image.tags) - {with_tag(ref)})
            return
        if in_use(image.id):
            raise Conflict(f"image {ref}: conflict: unable to remove: a container is using its image")
        if by_id and len(image.tags) > 1:
            raise Conflict(f"image {ref}: conflict: unable to delete: image is referenced in multiple repositories")
        del self.all[image.id]
        self._events.tell("image", "delete", image.id, {"name": image.id})

    def pull(self, ref: str) -> Image:
        found = self.registry.get(with_tag(ref))
        if isinstance(found, EngineError):
            raise found
        if found is None:
            raise NotFound(f"image {ref}: pull access denied for {split_tag(ref)[0]}, repository does not exist")
        self.all[found.id] = msgspec.structs.replace(found, tags=())
        self.tag(found.id, with_tag(ref))
        self._events.tell("image", "pull", with_tag(ref), {"name": split_tag(ref)[0]})
        return self.all[found.id]

    def _set_tags(self, image: Image, tags: set[str]) -> None:
        self.all[image.id] = msgspec.structs.replace(image, tags=tuple(sorted(tags)))


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    entry = tar.extractfile(name)
    assert entry is not None, f"{name} is no file"
    return entry.read()


PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}


class Networks:
    def __init__(self, events: EventLog, new_id: Callable[[], str]) -> None:
        self.all: dict[str, Network] = {}
        self._events = events
        self._new_id = new_id
        for name, driver in PREDEFINED.items():
            network = Network(id=new_id(), name=name, driver=driver, labels={})
            self.all[network.id] = network

    def renew_bridge(self) -> None:
        """The Engine makes its default network anew whenever it starts, after it has ended what was left running."""
        for network in tuple(self.all.values()):
            if network.name == "bridge":
                self.all[network.id] = msgspec.structs.replace(network, created=virtual_time.tick())

    def find(self, ref: str) -> Network:
        for network in self.all.values():
            if ref in (network.id, network.name):
                return network
        raise NotFound(f"network {ref}: network {ref} not found")

    def name_of(self, ref: str) -> str:
        """Of a network that need not exist."""
        return self.all[ref].name if ref in self.all else ref

    def make(self, name: str, labels: Mapping[str, str], driver: str = "bridge") -> Network:
        if any(network.name == name for network in self.all.values()):
            raise Conflict(f"network {name}: network with name {name} already exists")
        network = Network(id=self._new_id(), name=name, driver=driver, labels=dict(labels))
        self.all[network.id] = network
        self._events.tell("network", "create", network.id, {"name": name, "type": driver})
        return network

    def drop(self, network: Network, *, in_use: bool) -> None:
        where = f"network {network.name}"
        if network.name in PREDEFINED:
            raise EngineError(f"{where}: {network.name} is a pre-defined network and cannot be removed")
        if in_use:
            raise Conflict(f"{where}: error while removing network: it has active endpoints")
        del self.all[network.id]
        self._events.tell("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    def tell(self, action: str, name: str, container_id: str) -> None:
        for network in self.all.values():
            if network.name == name:
                attributes = {"container": container_id, "name": name, "type": network.driver}
                self._events.tell("network", action, network.id, attributes)


class Volumes:
    def __init__(self, events: EventLog) -> None:
        self.all: dict[str, Volume] = {}
        self._events = events

    def make(self, name: str, labels: Mapping[str, str], driver: str = "local") -> Volume:
        """Return the one that there is, or a new one."""
        if name not in self.all:
            mountpoint = f"/var/lib/docker/volumes/{name}/_data"
            created = float(int(virtual_time.now()))  # the Engine tells whole seconds
            self.all[name] = Volume(
                name=name, driver=driver, labels=dict(labels), mountpoint=mountpoint, created=created
            )
            self._events.tell("volume", "create", name, {"driver": driver})
        return self.all[name]

    def drop(self, name: str) -> None:
        if self.all.pop(name, None) is not None:
            self._events.tell("volume", "destroy", name, {"driver": "local"})


def with_tag(ref: str) -> str:
    return ref if "@" in ref else ":".join(split_tag(ref))
