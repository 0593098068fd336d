"""Logins by ssh, for the journal: who came in, with which key and from where.

sshd says each in its log, which the Engine keeps. sshd writes line breaks of what it is told as they are, so who is
refused can make it say that somebody was let in (as the reason of a disconnect). Hence a key that is not among those
that are let in is not taken for one, and nothing that can be made up keeps events of a burst apart. What was noted last
is on the disk, so that an agent notes what came while none ran, and nothing twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dom0 import times
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.progress import Changes
from dom0.agent.store import Damaged, read_json, write_json
from dom0.durable import Unwritable
from dom0.engine.log_lines import read_lines
from dom0.engine.protocol import Engine
from dom0.errors import EngineError

log = logging.getLogger(__name__)

FILE = "logins.json"
PAUSE = 1.0  # seconds between two looks at a log that has ended
LATE = 60.0  # seconds after which it is said when a login was
UNKNOWN_KEY = "unknown key"
MADE_UP = "it was taken away since, or who was refused has made this up"
_KEY = re.compile(r"(?:^|\s)(?:ssh|ecdsa|sk)-\S+ (?P<key>AAAA[A-Za-z0-9+/]+=*)(?P<comment> .*)?$")
_ACCEPTED = re.compile(
    rb"Accepted publickey for (?P<user>\S+) from (?P<address>\S+) port \d+ ssh2: (?P<kind>\S+) (?P<key>SHA256:[\w+/]+)"
    rb"(?: ID .* CA \S+ (?P<authority>SHA256:[\w+/]+))?"
)


class SshLogin(msgspec.Struct, frozen=True):
    user: str
    address: str
    kind: str  # of the key, as sshd calls it: ED25519
    key: str  # SHA256:…
    authority: str = ""  # that has signed it; "": it is no certificate


class LastLogin(msgspec.Struct, frozen=True):
    moment: str  # as the Engine writes it: of the last login that was noted, or of our first start


def read_login(line: bytes) -> SshLogin | None:
    """One that sshd let in, by what it says: of others it begins with other words."""
    if (found := _ACCEPTED.match(line)) is None:
        return None
    return SshLogin(**{name: text.decode(errors="replace") for name, text in found.groupdict(b"").items()})


def comments(keys: Iterable[str]) -> dict[str, str]:
    """What the lines of authorized_keys call their keys, by fingerprint."""
    found = {}
    for match in filter(None, map(_KEY.search, keys)):
        with contextlib.suppress(binascii.Error):
            digest = hashlib.sha256(base64.b64decode(match["key"], validate=True)).digest()
            found[f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"] = (match["comment"] or "").strip()
    return found


class Logins:
    """`container`: ID of the one with sshd in it, where there is one; `keys`: lines of those that are let in."""

    def __init__(
        self,
        engine: Engine,
        state: Path,
        journal: Journal,
        changed: Changes,
        *,
        container: Callable[[], str | None],
        keys: Callable[[], Iterable[str]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._file = state / FILE
        self._journal = journal
        self._changed = changed
        self._container = container
        self._keys = keys
        self._now = now
        self._began = now()

    async def run(self) -> None:
        while True:
            await self._changed.until(lambda: bool(self._container()))
            looked = self._changed.count
            try:
                await self._follow(self._container() or "")
            except EngineError as error:
                log.debug("logins: %s", error.message)
            await asyncio.sleep(PAUSE)
            await self._changed.after(looked)

    async def _follow(self, container: str) -> None:
        """Until the container ends. Raises EngineError."""
        seen = self._read()
        pieces = self._engine.follow_logs(container, since=_seconds(seen.moment))
        async with contextlib.aclosing(read_lines(pieces)) as coming:
            async for lines in coming:
                new = [(line.moment.decode(errors="replace"), read_login(line.text)) for line in lines]
                for moment, login in new:
                    if login is not None and moment > seen.moment:
                        self._note(moment, login, comments(self._keys()))
                        self._keep(LastLogin(moment))

    def _note(self, moment: str, login: SshLogin, known: Mapping[str, str]) -> None:
        at = _seconds(moment)
        late = f"at {times.moment(at)}, while no agent ran" if self._now() - at > LATE else ""
        by = f"ssh from {login.address}"
        print_ = f"{login.kind} {login.key}"
        comment = known.get(login.key, known.get(login.authority))
        if comment is None:
            text = f"sshd's log tells of a login of {login.user} {by}, with a key that is not let in: {print_}"
            self._journal.note(Kind.LOGIN, UNKNOWN_KEY, text, f"{late}; {MADE_UP}" if late else MADE_UP, by="ssh")
            return
        text = f"login of {login.user} with the key {f'{comment} ({print_})' if comment else print_}"
        self._journal.note(Kind.LOGIN, login.key, text, late, by=by)

    def _read(self) -> LastLogin:
        """Where there is none, or one of a clock that was put back, that of our start."""
        seen = None
        try:
            seen = read_json(self._file, LastLogin)
        except Damaged as error:
            log.warning("%s", error.message)
        if seen is None or _seconds(seen.moment) > self._now():
            began = min(self._began, self._now())
            seen = LastLogin(datetime.fromtimestamp(began, UTC).isoformat())
            self._keep(seen)
        return seen

    def _keep(self, seen: LastLogin) -> None:
        try:
            write_json(self._file, seen, durable=False)
        except Unwritable as error:
            log.debug("%s", error.message)  # the status says it


def _seconds(moment: str) -> float:
    """Whole ones, since the epoch; 0 for what is no time."""
    try:
        return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()
    except ValueError:
        return 0.0
