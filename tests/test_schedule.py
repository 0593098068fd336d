"""When jobs are due: against crontab(5), the clock's changes, and a search minute by minute."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0 import schedule
from dom0.schedule import Cron, next_run, parse

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def due(text: str, after: float, zone: str = "", times: int = 1) -> list[str]:
    found = []
    for _ in range(times):
        after = next_run(text, zone, after, after)
        found.append(schedule.moment(after, zone)[5:16])
    return found


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("30 3 * * *", "2026-11-27 03:29:59", "11-27 03:30"),
        ("30 3 * * *", "2026-11-27 03:30:00", "11-28 03:30"),
        ("*/20 * * * *", "2026-11-27 23:41:00", "11-28 00:00"),
        ("5-10/5,40 8-9 * * *", "2026-11-27 08:06:00", "11-27 08:10"),
        ("0 0 31 * *", "2026-11-27 00:00:00", "12-31 00:00"),
        ("0 0 29 FEB *", "2026-11-27 00:00:00", "02-29 00:00"),
        ("0 12 * * mon-fri", "2026-11-27 12:00:00", "11-30 12:00"),
        ("0 12 * * 7", "2026-11-27 12:00:00", "11-29 12:00"),
        ("0 12 13 * fri", "2026-11-27 12:00:00", "12-04 12:00"),  # one of both is enough
        ("0 12 */2 * fri", "2026-11-27 12:00:00", "12-11 12:00"),  # a * asks for both
        ("@weekly", "2026-11-27 12:00:00", "11-29 00:00"),
        ("@yearly", "2026-11-27 12:00:00", "01-01 00:00"),
        ("every 1h30m", "2026-11-27 12:10:00", "11-27 13:40"),
    ],
)
def test_the_next_run(text: str, after: str, expected: str) -> None:
    assert due(text, at(after)) == [expected]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no schedule"),
        ("0 3 * *", "is no schedule"),
        ("@reboot", "is no schedule"),
        ("60 * * * *", "minute: '60' is not from 0 to 59"),
        ("* * 0 * *", "day of the month: '0'"),
        ("* * * * sunday", "day of the week: 'sunday'"),
        ("* * * 13 *", "month: '13'"),
        ("\u0661 * * * *", "minute"),
        ("-5 * * * *", "minute: ''"),
        ("20-10 * * * *", "ends before it begins"),
        ("5/10 * * * *", "steps through no range"),
        ("*/0 * * * *", "steps through no range"),
        pytest.param(f"*/{'9' * 5000} * * * *", "steps through no range", id="a long step"),
        ("1,,2 * * * *", "minute: ''"),
        ("0 0 30 2 *", "no month that is meant has such a day"),
        ("every", "is no schedule"),
        ("every 59s", "from one minute"),
        ("every 9000h", "to one year"),
        ("every day", "is no duration"),
        ("every -6h", "from one minute"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(text)


def test_a_time_that_the_clock_skips_comes_later_and_one_that_it_repeats_once() -> None:
    assert due("30 2 * * *", at("2027-03-27 12:00", BERLIN), BERLIN, 2) == ["03-28 03:30", "03-29 02:30"]
    assert due("30 2 * * *", at("2026-10-24 12:00", BERLIN), BERLIN, 2) == ["10-25 02:30", "10-26 02:30"]


def test_every_hour_is_each_of_them_over_a_change_of_the_clock() -> None:
    for day in ("2027-03-28", "2026-10-25"):
        after = at(day, BERLIN)
        for number in range(1, 6):
            assert next_run("0 * * * *", BERLIN, after, at(day, BERLIN) + number * 3600 - 1) == (
                at(day, BERLIN) + number * 3600
            )


def test_what_was_due_while_it_ran_is_left_out() -> None:
    began = at("2026-11-27 12:00")
    assert next_run("0 * * * *", "", began, began + 2.5 * 3600) == began + 3 * 3600
    assert next_run("every 1h", "", began, began + 2.5 * 3600) == began + 3 * 3600


FIELDS = [
    st.sampled_from(["*", "*/7", "0", "59", "3-20/4", "1,30"]),
    st.sampled_from(["*", "*/5", "0", "23", "9-17"]),
    st.sampled_from(["*", "*/10", "1", "29", "10-20", "*/29"]),
    st.sampled_from(["*", "2", "jan,dec", "6-9"]),
    st.sampled_from(["*", "0", "7", "mon-fri", "6"]),
]


@given(st.tuples(*FIELDS), st.integers(1_700_000_000, 1_800_000_000))
def test_nothing_is_left_out_and_nothing_is_early(fields: tuple[str, ...], after: int) -> None:
    cron = parse(" ".join(fields))
    assert isinstance(cron, Cron)
    found = datetime.fromtimestamp(next_run(" ".join(fields), "", after, after), UTC)
    minute = datetime.fromtimestamp(after - after % 60 + 60, UTC)
    while minute.date() != found.date():  # whole days, which are cheap to compare
        assert not (cron.matches(minute.date()) and _later_that_day(cron, minute)), minute
        minute = datetime(minute.year, minute.month, minute.day, tzinfo=UTC) + timedelta(days=1)
    while minute < found:
        assert not (cron.matches(minute.date()) and minute.hour in cron.hours and minute.minute in cron.minutes)
        minute += timedelta(minutes=1)
    assert (cron.matches(found.date()), found.hour in cron.hours, found.minute in cron.minutes) == (True, True, True)


def _later_that_day(cron: Cron, moment: datetime) -> bool:
    return any((hour, minute) >= (moment.hour, moment.minute) for hour in cron.hours for minute in cron.minutes)


def test_a_zone_that_is_unknown_here_is_utc_and_said_to_be() -> None:
    after = at("2026-11-27 12:00")
    assert next_run("0 3 * * *", "Nowhere/City", after, after) == at("2026-11-28 03:00")
    assert schedule.moment(after, "Nowhere/City") == "2026-11-27 12:00:00 UTC"
