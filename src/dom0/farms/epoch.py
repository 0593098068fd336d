"""Which of several copies of a farm's directory is its server: the one that was promoted last.

Each promotion has the next number. Nodes keep the highest epoch that they have heard of, take nothing from a copy with
an older one, and tell it: from then on it tells nobody anything. An epoch is signed with the key that all copies have,
so no node can make one up. Two copies that are promoted without knowing of each other have epochs of one number: those
who hear of both trust neither, and one of them has to be promoted once more.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

import msgspec

HEADER = "Dom0-Farm-Epoch"  # of each question of a node, and of each answer
SUPERSEDED = 421  # RFC 9110, 15.5.20: not the one to be asked that
_EPOCH = re.compile(r"(?P<number>[1-9][0-9]{0,8})-(?P<copy>[0-9a-f]{16})-(?P<signature>[0-9a-f]{64})", re.ASCII)


class Epochs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one copy: its `own`, "" before the first promotion, and one that it has `heard` of and that ends its own."""

    own: str = ""
    heard: str = ""

    @property
    def is_superseded(self) -> bool:
        return self.heard != ""


def number_of(epoch: str) -> int:
    """0: before the first promotion, and of what is no epoch."""
    found = _EPOCH.fullmatch(epoch)
    return int(found["number"]) if found else 0


def is_older(epoch: str, known: str) -> bool:
    """Whether it is not the one to go by for whoever knows of `known`: also where both have the same number."""
    return epoch != known and number_of(epoch) <= number_of(known)


def promote(epochs: Epochs, pem: bytes) -> Epochs:
    """`pem`: of the server's key."""
    number, copy = max(number_of(epochs.own), number_of(epochs.heard)) + 1, secrets.token_hex(8)
    return Epochs(own=f"{number}-{copy}-{_signature(pem, number, copy)}")


def hear(epochs: Epochs, epoch: str, pem: bytes) -> Epochs:
    """After a node has named that epoch."""
    found = _EPOCH.fullmatch(epoch)
    if found is None or epochs.is_superseded or not is_older(epochs.own, epoch):
        return epochs
    is_signed = hmac.compare_digest(found["signature"], _signature(pem, int(found["number"]), found["copy"]))
    return msgspec.structs.replace(epochs, heard=epoch) if is_signed else epochs


def _signature(pem: bytes, number: int, copy: str) -> str:
    key = hashlib.sha256(b"epochs of a farm's server\n" + pem).digest()
    return hmac.new(key, f"{number}-{copy}".encode(), "sha256").hexdigest()
