"""When a job is due: the five fields of crontab(5) or `every DURATION`. Pure.

As there a day counts if the day of the month or that of the week matches, where both are restricted. A time that the
clock skips in spring comes as much later, and one that it repeats in autumn comes once, unless every hour is meant.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from dom0 import times
from dom0.durations import seconds

EVERY = "every "
SHORTEST = 60.0  # seconds between two runs
LONGEST = 366 * 86400.0
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_STEP = re.compile(r"\d{1,2}", re.ASCII)
_DAYS_SEARCHED = 41 * 366  # 29 February may be so far away on a given day of the week


class _Field(msgspec.Struct, frozen=True):
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()  # for `first` and the numbers that follow


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


class Cron(msgspec.Struct, frozen=True):
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    any_day: bool  # the day of the month, or that of the week, is not restricted: both have to match

    def matches(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (in_month and in_week if self.any_day else in_month or in_week)


def parse(text: str) -> Cron | float:
    """The fields, or seconds between two runs. Raises ValueError."""
    if text.startswith(EVERY):
        every = seconds(text.removeprefix(EVERY).strip())
        if not SHORTEST <= every <= LONGEST:
            raise ValueError("the time between two runs is from one minute to one year")
        return every
    fields = NICKNAMES.get(text, text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{text!r} is no schedule")
    minutes, hours, days, months, weekdays = map(_numbers, _FIELDS, fields)
    any_day = fields[2].startswith("*") or fields[4].startswith("*")
    cron = Cron(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, frozenset(n % 7 for n in weekdays), any_day)
    leap_year = (date(2024, 1, 1) + timedelta(days=day) for day in range(366))
    if any_day and not any(day.month in months and day.day in days for day in leap_year):
        raise ValueError(f"{text!r}: no month that is meant has such a day")
    return cron


def _numbers(field: _Field, text: str) -> frozenset[int]:
    """`*`, `5`, `1-5`, `mon-fri`, each with `/STEP`, and lists of them."""
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        low, dash, high = span.partition("-")
        first = field.first if span == "*" else _number(field, low)
        last = field.last if span == "*" else _number(field, high) if dash else first
        if slash and not (_STEP.fullmatch(step) and 0 < int(step) <= field.last and (dash or span == "*")):
            raise ValueError(f"{field.name}: {part!r} steps through no range")
        if first > last:
            raise ValueError(f"{field.name}: {part!r} ends before it begins")
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


def _number(field: _Field, text: str) -> int:
    if text in field.words:
        return field.first + field.words.index(text)
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and field.first <= int(text) <= field.last):
        raise ValueError(f"{field.name}: {text!r} is not from {field.first} to {field.last}")
    return int(text)


@lru_cache(maxsize=1024)
def next_run(text: str, zone: str, started: float, ended: float) -> float:
    """When a job of the schedule `text` that was started and ended then is due, in seconds since the epoch.

    What was due while it ran is left out: it runs once at a time.
    """
    schedule = parse(text)
    after = max(started, ended)
    if isinstance(schedule, float):
        return started + schedule * ((after - started) // schedule + 1)
    timezone = _zone(zone)
    day = datetime.fromtimestamp(after, timezone).date()
    folds = (0, 1) if len(schedule.hours) == 24 else (0,)
    for _ in range(_DAYS_SEARCHED):
        if schedule.matches(day):
            found = (
                datetime(day.year, day.month, day.day, hour, minute, tzinfo=timezone, fold=fold).timestamp()
                for hour in schedule.hours
                for minute in schedule.minutes
                for fold in folds
            )
            if due := min((time for time in found if time > after), default=0.0):
                return due
        day += timedelta(days=1)
    raise ValueError(f"{text!r} never comes")  # refused by `parse`


def moment(time: float, zone: str) -> str:
    """For people: `2026-11-23 03:00:00 Europe/Berlin`."""
    timezone = _zone(zone)
    return f"{times.moment(time, timezone)} {timezone}"


def _zone(name: str) -> tzinfo:
    """UTC for one that is not known here any more: it was when the project was read, by another version of tzdata."""
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):
        return UTC
