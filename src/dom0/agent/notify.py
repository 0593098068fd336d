"""Tells people what goes wrong with the machine, as `x-dom0.notify` asks: what (`alerts`), where to, until it is there.

What has been told and what waits to be sent is on the disk: no restart of the agent tells it again. What cannot be
delivered is tried again for a day; the journal has it when it begins to fail, and when it is given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0 import secret_file
from dom0.agent import alerts
from dom0.agent.alerts import Known, Message
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.progress import Changes
from dom0.agent.status import Status
from dom0.agent.store import Damaged, read_json, write_json
from dom0.durable import Unwritable
from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.plan.desired import Notify
from dom0.run import CommandFailed, capture, ourselves

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two looks
VARIABLES = "NTFY_TOKEN|WEBHOOK_URL|WEBHOOK_TOKEN|SMTP_USER|SMTP_PASSWORD"
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 3600.0  # seconds until one is sent again, growing
KEPT_FOR = 86400.0  # seconds
MOST_WAITING = 20
SENT_WITHIN = 90.0  # seconds
WARNINGS = ("disk-filling", "data-disk", "data-in-memory")  # that are told, beside all errors
BY_A_PERSON = "dom0 rollback"
FILE = "notify.json"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message for one place."""

    place: str
    message: Message
    tries: int = 0
    again: float = 0.0


class NotifyState(msgspec.Struct, frozen=True, kw_only=True):
    notify: Notify  # those whom it was told
    known: Known = Known()
    waiting: tuple[Letter, ...] = ()


class Notifier:
    """`is_seen`: the machine has been looked at, so it can be said what is wrong with it."""

    def __init__(
        self,
        state: Path,
        journal: Journal,
        changed: Changes,
        *,
        status: Callable[[], Status],
        wanted: Callable[[], Notify | None],
        is_seen: Callable[[], bool],
    ) -> None:
        self._file = state / FILE
        self._journal = journal
        self._changed = changed
        self._status = status
        self._wanted = wanted
        self._is_seen = is_seen
        self._told: NotifyState | None = None
        self._is_unsaved = False

    async def run(self) -> None:
        while True:
            await self._changed.until(lambda: self._wanted() is not None and self._is_seen())
            self._look(time.time())
            await self._send(time.time())
            await asyncio.sleep(EVERY)

    def _look(self, now: float) -> None:
        notify = self._wanted()
        assert notify is not None
        before = told = self._told or self._begin(notify, now)
        status = self._status()
        waiting = list(told.waiting)
        if told.notify != notify or (self._told is None and not self._file.exists()):
            text = f"what goes wrong with {status.project} is told here"
            hello = Message(title=f"{status.project}: dom0 will tell you here", text=text, time=now, is_bad=False)
            left = (letter.message for letter in waiting if letter.message.problems or letter.message.over)
            messages = dict.fromkeys((hello, *left))
            waiting = [Letter(place=place, message=one) for one in messages for place in _places(notify)]
            told = replace(told, notify=notify)
        known, message = alerts.look(told.known, _worth_telling(status), status.project, now)
        if message is not None:
            waiting += (Letter(place=place, message=message) for place in _places(notify))
        for lost in waiting[:-MOST_WAITING]:
            self._give_up(lost, "too many wait")
        told = replace(told, known=known, waiting=tuple(waiting[-MOST_WAITING:]))
        self._keep(told, durable=told.waiting != before.waiting)

    def _begin(self, notify: Notify, now: float) -> NotifyState:
        try:
            kept = read_json(self._file, NotifyState)
        except Damaged as error:
            log.warning("%s", error.message)
            kept = None
        return replace(kept, known=alerts.resumed(kept.known, now)) if kept else NotifyState(notify=notify)

    def _keep(self, told: NotifyState, *, durable: bool) -> None:
        """On the disk when something is told or sent: what stands is seen again. That the disk is full is told too."""
        is_news = self._told is None or durable or self._is_unsaved or told.notify != self._told.notify
        self._told = told
        if is_news:
            try:
                write_json(self._file, told, durable=False)
                self._is_unsaved = False
            except Unwritable as error:
                log.debug("%s", error.message)  # the status says it
                self._is_unsaved = True

    async def _send(self, now: float) -> None:
        """What is due. One that is killed meanwhile is sent again."""
        told = self._told
        assert told is not None
        for letter in told.waiting:
            if letter.again > now and letter.again - now <= LONGEST_PAUSE:
                continue
            try:
                await send(letter, told.notify, self._status().project)
            except Dom0Error as error:
                pause = min(FIRST_PAUSE * 2.0 ** min(letter.tries, 10), LONGEST_PAUSE)
                later = replace(letter, tries=letter.tries + 1, again=time.time() + pause)
                if not 0 <= now - letter.message.time < KEPT_FOR:
                    self._give_up(letter, error.message)
                    self._replace(letter, None)
                    continue
                if not letter.tries:
                    text = f"{letter.message.title}: not sent yet"
                    self._journal.note(Kind.NOTIFY_FAILED, letter.place, text, error.message)
                self._replace(letter, later)
            else:
                text = f"{letter.message.title}: sent by {letter.place}"
                self._journal.note(Kind.NOTIFIED, letter.place, text)
                self._replace(letter, None)

    def _replace(self, letter: Letter, by: Letter | None) -> None:
        assert self._told is not None
        found = (by if one == letter else one for one in self._told.waiting)
        self._keep(replace(self._told, waiting=tuple(one for one in found if one is not None)), durable=True)

    def _give_up(self, letter: Letter, reason: str) -> None:
        self._journal.note(Kind.NOTIFY_FAILED, letter.place, f"{letter.message.title}: never sent", reason)


async def send(letter: Letter, notify: Notify, machine: str) -> None:
    """In a process of its own, with the secrets on its standard input. Raises Dom0Error."""
    secrets = secret_file.variables(notify.env_file, VARIABLES) if notify.env_file else {}
    delivery = {
        "place": letter.place,
        "machine": machine,
        "message": letter.message,
        "notify": notify,
        "secrets": secrets,
    }
    try:
        await capture(ourselves("notify-send"), stdin=msgspec.json.encode(delivery), timeout=SENT_WITHIN)
    except CommandFailed as error:
        said = error.stderr.strip().splitlines()
        raise Dom0Error(said[0].removeprefix("dom0: ") if said else f"{letter.place}: not sent in time") from None
    except OSError as error:  # no process can be started just now
        raise Dom0Error(f"{letter.place}: {error.strerror}") from error


def _places(notify: Notify) -> list[str]:
    """Where something is to be sent. An address that is secret is in the file."""
    found = {"ntfy": bool(notify.ntfy), "webhook": bool(notify.webhook), "mail": bool(notify.mail_to)}
    if notify.env_file and not found["webhook"]:
        try:
            found["webhook"] = "WEBHOOK_URL" in secret_file.variables(notify.env_file, VARIABLES)
        except Dom0Error:
            found["webhook"] = not any(found.values())  # it is said when that is sent
    return [place for place, is_asked in found.items() if is_asked]


def _worth_telling(status: Status) -> Iterator[Problem]:
    yield from (one for one in status.problems if one.severity is Severity.ERROR or one.code in WARNINGS)
    back = status.generation
    if back is not None and back.back_at and back.back_because != BY_A_PERSON:
        title = f"the machine went back to generation {back.number}: {back.back_because}"
        yield Problem(code="generation-failed", subject="dom0", title=title, hint="dom0 history")
