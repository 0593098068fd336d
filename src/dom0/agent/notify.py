"""Sends people messages about problems, as `x-dom0.notify` asks, and retries until they are delivered. `alerts` decides
which.

What was sent and what waits to be sent is on the disk: no restart of the agent sends it again. A failed delivery is
retried for a day; the journal says when it begins to fail and when it is given up, and the status as long as it waits.
The server of a farm reports problems of its nodes by the same `Notifier`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0 import secret_file
from dom0.agent import alerts
from dom0.agent.alerts import KnownAlerts, Message
from dom0.agent.events import Kind
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
    failed: str = ""  # why it was not sent; "": not tried yet


class NotifyState(msgspec.Struct, frozen=True, kw_only=True):
    notify: Notify | None = None  # those whom it was told
    known: KnownAlerts = KnownAlerts()
    waiting: tuple[Letter, ...] = ()


async def tell(
    notifier: Notifier,
    changed: Changes,
    *,
    status: Callable[[], Status],
    wanted: Callable[[], Notify | None],
    is_seen: Callable[[], bool],
) -> None:
    """What goes wrong with the machine, until it is cancelled. `is_seen`: that can be said, it has been looked at."""
    while True:
        await changed.until(lambda: wanted() is not None and is_seen())
        notify, found, before = wanted(), status(), notifier.unsent()
        assert notify is not None
        await notifier.turn(notify, found.project, _worth_telling(found))
        if notifier.unsent() != before:
            changed.tell()
        await asyncio.sleep(EVERY)


class Notifier:
    """`note` is called as the journal's, with NOTIFIED or NOTIFY_FAILED."""

    def __init__(self, state: Path, note: Callable[[Kind, str, str, str], None]) -> None:
        self._file = state / FILE
        self._note = note
        self._told: NotifyState | None = None
        self._is_unsaved = False

    async def turn(self, notify: Notify, machine: str, problems: Iterable[Problem]) -> None:
        """One look at the `problems` that there are of what is called `machine`; then all that is due is sent."""
        self._look(notify, machine, problems, time.time())
        await self._send(notify, machine, time.time())

    def told(self, code: str) -> dict[str, Problem]:
        """The problems of that code, by subject, that people know of, until they are told that these are over."""
        standing = self._state().known.standing.values()
        return {one.problem.subject: one.problem for one in standing if one.is_told and one.problem.code == code}

    def unsent(self) -> tuple[Problem, ...]:
        """Where people are not told just now what goes wrong: a problem for each place, of the oldest that waits."""
        failed: Mapping[str, Letter] = {one.place: one for one in reversed(self._state().waiting) if one.failed}
        return tuple(
            Problem(
                code="notify-unsent",
                subject="notify",
                title=f"nobody is told: {letter.failed}",
                severity=Severity.WARNING,
                hint="it is tried again; mend x-dom0.notify or its env_file, and run dom0 up",
                since=letter.message.time,
            )
            for _, letter in sorted(failed.items())
        )

    def _state(self) -> NotifyState:
        if self._told is None:
            try:
                kept = read_json(self._file, NotifyState) or NotifyState()
            except Damaged as error:
                log.warning("%s", error.message)
                kept = NotifyState()
            self._told = replace(kept, known=alerts.resumed(kept.known, time.time()))
        return self._told

    def _look(self, notify: Notify, machine: str, problems: Iterable[Problem], now: float) -> None:
        before = told = self._state()
        waiting = list(told.waiting)
        if told.notify != notify:
            text = f"what goes wrong with {machine} is told here"
            hello = Message(title=f"{machine}: dom0 will tell you here", text=text, time=now, is_bad=False)
            left = (letter.message for letter in waiting if letter.message.problems or letter.message.over)
            messages = dict.fromkeys((hello, *left))
            waiting = [Letter(place=place, message=one) for one in messages for place in _places(notify)]
        known, message = alerts.look(told.known, problems, machine, now)
        if message is not None:
            waiting += (Letter(place=place, message=message) for place in _places(notify))
        for lost in waiting[:-MOST_WAITING]:
            self._give_up(lost, "too many wait")
        told = NotifyState(notify=notify, known=known, waiting=tuple(waiting[-MOST_WAITING:]))
        self._keep(told, is_news=(told.notify, told.waiting) != (before.notify, before.waiting))

    def _keep(self, told: NotifyState, *, is_news: bool) -> None:
        """On the disk when something is told or sent: what stands is seen again. That the disk is full is told too."""
        self._told = told
        if is_news or self._is_unsaved:
            try:
                write_json(self._file, told, durable=False)
                self._is_unsaved = False
            except Unwritable as error:
                log.debug("%s", error.message)  # the status says it
                self._is_unsaved = True

    async def _send(self, notify: Notify, machine: str, now: float) -> None:
        """What is due. One that is killed meanwhile is sent again."""
        for letter in self._state().waiting:
            if letter.again > now and letter.again - now <= LONGEST_PAUSE:
                continue
            try:
                await send(letter, notify, machine)
            except Dom0Error as error:
                pause = min(FIRST_PAUSE * 2.0 ** min(letter.tries, 10), LONGEST_PAUSE)
                later = replace(letter, tries=letter.tries + 1, again=time.time() + pause, failed=error.message)
                if not 0 <= now - letter.message.time < KEPT_FOR:
                    self._give_up(letter, error.message)
                    self._replace(letter, None)
                    continue
                if not letter.tries:
                    text = f"{letter.message.title}: not sent yet"
                    self._note(Kind.NOTIFY_FAILED, letter.place, text, error.message)
                self._replace(letter, later)
            else:
                text = f"{letter.message.title}: sent by {letter.place}"
                self._note(Kind.NOTIFIED, letter.place, text, "")
                self._replace(letter, None)

    def _replace(self, letter: Letter, by: Letter | None) -> None:
        told = self._state()
        found = (by if one == letter else one for one in told.waiting)
        self._keep(replace(told, waiting=tuple(one for one in found if one is not None)), is_news=True)

    def _give_up(self, letter: Letter, reason: str) -> None:
        self._note(Kind.NOTIFY_FAILED, letter.place, f"{letter.message.title}: never sent", reason)


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
        yield Problem(code="generation-failed", subject="dom0", title=title, hint="dom0 history", since=back.back_at)
