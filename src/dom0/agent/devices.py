"""Which devices may look at the page over the network, on the disk; and the code by which one becomes one of them.

A code is in memory alone: who ends the agent ends it. Of what a device keeps there is a hash on the disk, written
before the device gets it. Where the file cannot be read nobody is a device.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.device_status import Device, Devices, Invitation
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.store import Damaged, read_json, write_json
from dom0.durable import Unwritable
from dom0.errors import Dom0Error, UsageError

FILE = "web/devices.json"
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # none that looks like another one
CODE_LENGTH = 8  # letters: one guess in 8.5 * 10^11 is right
CODE_LIFE = 300.0  # seconds
MOST_TRIES_EACH = 5  # and the code is dead for that address, so a stranger does not end the code of another
MOST_TRIES = 1000  # and it is dead
DEVICE_LIFE = 400 * 86400.0  # seconds, the longest that browsers keep a cookie
SEEN_EVERY = 86400.0  # seconds between two notes of when one was seen
MOST = 32
SUBJECT = "the page"  # of what is refused: there is nothing in it that a stranger has made up

log = logging.getLogger(__name__)


class StoredDevice(Device, frozen=True, kw_only=True):
    """`proof`: SHA-256 of both halves of what the device has."""

    proof: str


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """What a device gets, once: its cookie, and what its page sends in a header. Neither is worth anything alone."""

    cookie: str
    token: str
    operates: bool


class _IssuedCode(msgspec.Struct, kw_only=True):
    letters: str
    name: str
    operates: bool
    until: float  # by the monotonic clock
    tries: dict[str, int] = {}  # wrong ones by address

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until or sum(self.tries.values()) >= MOST_TRIES

    def refuse(self, given: str, address: str) -> str:
        """Why not; "" where it is the code. A wrong one is a try."""
        tries = self.tries.get(address, 0)
        if tries >= MOST_TRIES_EACH:
            return f"{tries} wrong codes came from there before"
        letters = "".join(letter for letter in given.lower() if letter not in "- ")
        if hmac.compare_digest(letters.encode(errors="replace"), self.letters.encode()):
            return ""
        self.tries[address] = tries + 1
        if self.is_over:
            return f"a wrong code, as {MOST_TRIES - 1} before: the code is dead now"
        if left := MOST_TRIES_EACH - tries - 1:
            return f"a wrong code; after {left} more of them the right one is not taken from there"
        return "a wrong code; the right one is not taken from there any more"


def nowhere() -> tuple[str, str]:
    """Where the page is that is not served."""
    return "", ""


class DeviceRegister:
    def __init__(self, state: Path, journal: Journal, now: Callable[[], float] = time.time) -> None:
        self._file = state / FILE
        self._journal = journal
        self._now = now
        self._kept: tuple[StoredDevice, ...] | None = None  # once they were read
        self._unsaved = set[str]()  # names of those that were revoked, and are still on the disk
        self._code: _IssuedCode | None = None
        self.page: Callable[[], tuple[str, str]] = nowhere  # sets `served`
        self._asking = defaultdict[str, set[asyncio.Task[object]]](set)  # by name of the device

    @property
    def served(self) -> tuple[str, str]:
        """Address and fingerprint of the page, where it is now."""
        return self.page()

    def devices(self) -> tuple[StoredDevice, ...]:
        """Raises Damaged."""
        return tuple(one for one in self._known() if self._now() - one.paired < DEVICE_LIFE)

    def _known(self) -> tuple[StoredDevice, ...]:
        """Also those that are too old: the clock may be wrong. Raises Damaged."""
        if self._kept is None:
            found = read_json(self._file, tuple[StoredDevice, ...])
            self._kept = found or ()
        return self._kept

    def invite(self, name: str, *, operates: bool) -> Invitation:
        """The code for a new device, in place of any other one. Raises UsageError, Damaged."""
        address, fingerprint = self.served
        if not address:
            hint = "let it be: x-dom0.web in compose.yaml, then dom0 up; where it is already: dom0 status"
            raise UsageError("the page is not on the network", hint=hint)
        known = [one.name for one in self.devices()]
        if name in known:
            raise UsageError(
                f"{name}: a device of this name is paired", hint=f"dom0 web revoke {name}; or another name"
            )
        if len(known) >= MOST:
            raise UsageError(
                f"{MOST} devices are paired, and there are no more", hint="dom0 web devices; dom0 web revoke"
            )
        letters = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
        self._code = _IssuedCode(letters=letters, name=name, operates=operates, until=time.monotonic() + CODE_LIFE)
        return Invitation(
            name=name,
            operates=operates,
            address=address,
            fingerprint=fingerprint,
            code=f"{letters[:4]}-{letters[4:]}",
            until=self._now() + CODE_LIFE,
        )

    def pair(self, given: str, address: str) -> Pairing | None:
        """None: it is not the code, or there is none, or no more of one. Raises Damaged, Unwritable."""
        code = self._code
        if code is not None and code.is_over:
            code = self._code = None
        why = "no code is valid now" if code is None else code.refuse(given, address)
        if code is None or why:
            self._journal.note(Kind.DEVICE_REFUSED, SUBJECT, f"a device at {address} was not paired", why)
            return None
        self._code = None  # whatever comes of it
        cookie, token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        device = StoredDevice(
            name=code.name,
            operates=code.operates,
            paired=self._now(),
            seen=self._now(),
            address=address,
            proof=_proof(f"{cookie}.{token}"),
        )
        others = (one for one in self._known() if one.name != device.name)
        by_age = sorted((*others, device), key=lambda one: one.paired)  # those that are too old come first
        self._write(tuple(by_age[-MOST:]))
        may = "look at this machine and operate it" if device.operates else "look at this machine"
        self._journal.note(Kind.DEVICE_PAIRED, device.name, f"{device.name} at {address} may {may}")
        return Pairing(cookie=cookie, token=token, operates=device.operates)

    def find(self, secret: str, address: str) -> Device | None:
        """Whose `secret` it is: both halves, with a dot between. None: nobody's, or not any more."""
        proof, found = _proof(secret), None
        try:
            for one in self.devices():  # all of them, so that it takes as long for each
                found = one if hmac.compare_digest(proof, one.proof) else found
        except Damaged as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
        if found is None:
            self._journal.note(Kind.DEVICE_REFUSED, SUBJECT, f"what asks at {address} is no device of this machine")
        elif self._unsaved or not 0 <= self._now() - found.seen < SEEN_EVERY:
            seen = replace(found, seen=self._now(), address=address)
            try:
                self._write(tuple(seen if one is found else one for one in self._known()))
            except Dom0Error as error:  # the disk is full: the status says it
                log.debug("%s", error.message)
        return found

    def follow(self, device: Device, task: asyncio.Task[object]) -> None:
        """It answers the device, and is cancelled when that is one no more."""
        self._asking[device.name].add(task)
        task.add_done_callback(self._asking[device.name].discard)

    def revoke(self, name: str) -> None:
        """Raises UsageError, Damaged; Unwritable: it is out, and will be in again after the next start, unless what is
        asked next can be written.
        """
        left = tuple(one for one in self._known() if one.name != name)
        if self._code is not None and self._code.name == name:
            self._code = None
        elif len(left) == len(self._known()) and name not in self._unsaved:
            raise UsageError(f"{name}: no device of this name is paired", hint="dom0 web devices")
        self._kept = left
        self._unsaved.add(name)
        for task in self._asking.pop(name, ()):
            task.cancel()
        try:
            self._write(left)
        except Unwritable as error:
            what = f"{name}: is out, and will be in again when dom0 starts anew: {error.message}"
            raise Unwritable(what, hint=f"{error.hint}; then again: dom0 web revoke {name}") from error

    def status(self) -> Devices:
        """Raises Damaged."""
        address, fingerprint = self.served
        devices = tuple(msgspec.convert(one, Device, from_attributes=True) for one in self.devices())
        return Devices(devices=devices, address=address, fingerprint=fingerprint)

    def _write(self, devices: tuple[StoredDevice, ...]) -> None:
        write_json(self._file, devices)
        self._kept = devices
        self._unsaved.clear()


def _proof(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
