"""What of the Engine's objects dom0 made itself. Pure.

Labels alone cannot tell: `docker commit` writes a container's labels into an image, and every container of that image
inherits them; tools that duplicate a container copy them; a person may type them. So each create writes a mark, the
label `dom0.create`, which only the holder of this machine's key can make. A container is ours if its mark is genuine,
is not its image's, and no other container had it before.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

import msgspec

from dom0.plan.desired import Role
from dom0.plan.labels import CREATE, PROJECT, ROLE, SERVICE

CONTAINERS = (Role.SERVICE, Role.HOLDER, Role.SOCKET, Role.SSHD, Role.HOME, Role.BACKUP)
_NONCE = 16  # bytes


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """`key` (hex) makes the marks; `older`: IDs of containers and networks from before there was this key.

    While `older` is None nobody has looked yet: what carries our labels by itself is taken for ours.
    """

    key: str = ""
    older: frozenset[str] | None = None


def new_mark(seal: Seal) -> str:
    nonce = secrets.token_hex(_NONCE)
    return nonce + _proof(seal, nonce)


def _proof(seal: Seal, nonce: str) -> str:
    return hmac.new(seal.key.encode(), nonce.encode(), "sha256").hexdigest()[:32]


def is_claimed(own_labels: Mapping[str, str], project: str) -> bool:
    """Whether the container says that it is one of `project`'s."""
    return own_labels.get(PROJECT) == project and own_labels.get(ROLE) in CONTAINERS


def is_ours(seal: Seal, object_id: str, own_labels: Mapping[str, str]) -> bool:
    """Of an object that carries our project's label and did not inherit it: whether its mark is genuine."""
    if seal.older is None or object_id in seal.older:
        return True
    mark = own_labels.get(CREATE, "")
    nonce, proof = mark[: 2 * _NONCE], mark[2 * _NONCE :]
    return bool(proof and seal.key) and hmac.compare_digest(proof.encode(), _proof(seal, nonce).encode())


def is_inherited(own_labels: Mapping[str, str], image_labels: Mapping[str, str]) -> bool:
    """Whether the container got its mark from its image. Without a mark: whether it got there what it is for."""
    keys = (CREATE,) if CREATE in own_labels else (PROJECT, ROLE, SERVICE)
    return all(image_labels.get(key) == own_labels.get(key) for key in keys)
