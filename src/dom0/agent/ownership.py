"""Remembers which containers were found to be ours, so that the Engine is asked about an image only in doubt.

What decides is in plan/ownership. The file `ownership.json` is written once: when its key is new, the first look at the
Engine tells what was there before. Without the file (an older dom0, a disk that was mended) labels and images decide.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from dom0.agent.store import Damaged, Unreadable, read_json, write_json
from dom0.durable import writing
from dom0.engine.protocol import Engine
from dom0.engine.values import Container, Network
from dom0.errors import Dom0Error, EngineError, EngineUnreachable
from dom0.plan.labels import CREATE, PROJECT
from dom0.plan.ownership import Seal, is_claimed, is_inherited, is_ours, new_mark

log = logging.getLogger(__name__)

FILE = "ownership.json"  # in the state directory


def read_seal(state: Path) -> Seal:
    """An empty one where there is none, or a damaged one. Raises Unreadable: a new key is not to be written over it."""
    try:
        return read_json(state / FILE, Seal) or Seal()
    except Unreadable:
        raise
    except Damaged as error:
        log.warning("%s", error.message)
        return Seal()


def write_seal(state: Path, seal: Seal) -> None:
    """A damaged one is kept beside it. Raises Unwritable."""
    path = state / FILE
    try:
        read_json(path, Seal)
    except Damaged:
        with writing(path):
            path.replace(f"{path}.damaged")
    write_json(path, seal)


class Ownership:
    """`known`: mark of a container that was found to be ours (its ID where it has none) -> its ID.

    `save` is called with the seal that the first look at the Engine completes; it raises Unwritable.
    """

    def __init__(self, seal: Seal, save: Callable[[Seal], None]) -> None:
        self._project = ""
        self._seal = seal if seal.key else Seal(key=secrets.token_hex(32))
        self._save = save
        self._known: dict[str, str] = {}
        self._minted: set[str] = set()  # marks that no image can carry yet
        self._image_labels: dict[str, Mapping[str, str]] = {}

    @property
    def known(self) -> dict[str, str]:
        return dict(self._known)

    def take_up(self, project: str, known: Mapping[str, str] = {}) -> None:
        """Of the containers of `project` from now on, of which some are `known` already."""
        self._project = project
        self._known |= known

    def mint(self) -> str:
        """A mark for one create."""
        mark = new_mark(self._seal)
        self._minted.add(mark)
        return mark

    def is_claimed(self, own_labels: Mapping[str, str]) -> bool:
        """Whether it says that it is a container of ours."""
        return is_claimed(own_labels, self._project)

    def end_look(
        self,
        claimed: Mapping[str, Mapping[str, str]],
        containers: Iterable[Container],
        networks: Iterable[Network],
    ) -> None:
        """Forget marks that no container carries; `claimed`: labels by ID of those that say they are ours.

        From the first look on, what carries our labels is ours only if it is marked, or was here.
        """
        marks = {own_labels.get(CREATE, id_) for id_, own_labels in claimed.items()}
        self._known = {mark: id_ for mark, id_ in self._known.items() if mark in marks}
        if self._seal.older is None:
            older = {c.id for c in containers} | {n.id for n in networks if n.labels.get(PROJECT) == self._project}
            seal = replace(self._seal, older=frozenset(older))
            try:
                self._save(seal)
                self._seal = seal
            except Dom0Error as error:
                log.warning("%s", error.message)

    async def owns(self, container: Container, engine: Engine) -> bool:
        """Ask for older containers first: a copy comes after what it is one of. Raises EngineUnreachable."""
        if not self.is_claimed(container.labels):
            return False
        mark = container.labels.get(CREATE, container.id)
        if mark in self._known:
            return self._known[mark] == container.id
        if mark not in self._minted:
            if not is_ours(self._seal, container.id, container.labels):
                return False
            if is_inherited(container.labels, await self._labels_of(container.image_id, engine)):
                return False
        self._known[mark] = container.id
        return True

    def owns_network(self, network: Network) -> bool:
        return network.labels.get(PROJECT) == self._project and is_ours(self._seal, network.id, network.labels)

    async def _labels_of(self, image_id: str, engine: Engine) -> Mapping[str, str]:
        """None where its image was removed under it (`docker rmi --force`)."""
        if image_id not in self._image_labels:
            try:
                self._image_labels[image_id] = (await engine.image(image_id)).labels
            except EngineUnreachable:
                raise
            except EngineError:
                self._image_labels[image_id] = {}
        return self._image_labels[image_id]
