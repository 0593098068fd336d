"""Codes, devices and what they have: what is on the disk, what is refused, and what is left of it after a kill."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.agent import devices
from dom0.agent.devices import (
    ALPHABET,
    DEVICE_LIFE,
    FILE,
    MOST,
    MOST_TRIES,
    MOST_TRIES_EACH,
    DeviceRegister,
    Pairing,
    nowhere,
)
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.store import Damaged
from dom0.durable import Unwritable
from dom0.errors import UsageError

HERE = "192.168.1.7"


class Kept:
    """A register on a disk; `again` is that of the next agent."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.at = 1_000_000.0
        self.journals = list[Journal]()
        self.again()

    def again(self) -> None:
        self.journal = Journal(self.state, now=lambda: self.at, boot="0" * 8)
        self.journals.append(self.journal)
        self.register = DeviceRegister(self.state, self.journal, lambda: self.at)
        self.register.page = lambda: ("https://192.168.1.5:8443/", "AB:CD")

    def code(self, name: str = "phone", *, operates: bool = False) -> str:
        return self.register.invite(name, operates=operates).code

    def pair(self, name: str = "phone", *, operates: bool = False) -> Pairing:
        found = self.register.pair(self.code(name, operates=operates), HERE)
        assert found is not None
        return found

    def knows(self, pairing: Pairing) -> bool:
        return self.register.find(secret(pairing), HERE) is not None

    def told(self, kind: Kind) -> list[str]:
        return [
            f"{one.text}: {one.reason}".removesuffix(": ") for one in self.journal.read(0, 1000) if one.kind == kind
        ]


def secret(pairing: Pairing) -> str:
    return f"{pairing.cookie}.{pairing.token}"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    for journal in kept.journals:
        journal.close()


def wrong(code: str) -> str:
    """One that is another one in its last letter."""
    return code[:-1] + ALPHABET[(ALPHABET.index(code[-1]) + 1) % len(ALPHABET)]


def test_a_code_pairs_one_device_once_and_the_next_agent_knows_it(kept: Kept) -> None:
    code = kept.code(operates=True)
    pairing = kept.register.pair(code.upper().replace("-", " "), HERE)
    assert pairing is not None
    assert kept.register.pair(code, HERE) is None
    kept.again()
    found = kept.register.find(secret(pairing), HERE)
    assert found is not None
    assert (found.name, found.operates, found.address) == ("phone", True, HERE)
    assert kept.told(Kind.DEVICE_PAIRED) == [f"phone at {HERE} may look at this machine and operate it"]
    assert kept.told(Kind.DEVICE_REFUSED) == [f"a device at {HERE} was not paired: no code is valid now"]


def test_neither_half_of_what_a_device_has_is_on_the_disk(kept: Kept) -> None:
    pairing = kept.pair()
    written = (kept.state / FILE).read_text()
    assert pairing.cookie not in written
    assert pairing.token not in written
    assert (kept.state / FILE).stat().st_mode & 0o777 == 0o600


def test_one_half_alone_or_with_half_of_another_device_is_nobody(kept: Kept) -> None:
    phone, tablet = kept.pair("phone"), kept.pair("tablet", operates=True)
    halves = [*phone_halves(phone), *phone_halves(tablet), ""]
    right = {secret(phone), secret(tablet)}
    for first, second in itertools.product(halves, halves):
        for text in (first, f"{first}.{second}", f"{first}{second}"):
            assert (kept.register.find(text, HERE) is not None) == (text in right)
    assert kept.register.find("é\ud800" * 1000, HERE) is None


def phone_halves(pairing: Pairing) -> tuple[str, str]:
    return pairing.cookie, pairing.token


def test_who_has_sent_a_few_wrong_codes_is_not_paired_by_the_right_one(kept: Kept) -> None:
    code = kept.code()
    for _ in range(MOST_TRIES_EACH):
        assert kept.register.pair(wrong(code), HERE) is None
    assert kept.register.pair(code, HERE) is None
    assert kept.register.devices() == ()
    kept.journal.close()
    assert [one.partition(": ")[2] for one in kept.told(Kind.DEVICE_REFUSED)] == [
        *(f"a wrong code; after {left} more of them the right one is not taken from there" for left in (4, 3, 2, 1)),
        "a wrong code; the right one is not taken from there any more",
        "5 wrong codes came from there before",
    ]
    assert kept.register.pair(kept.code(), HERE) is not None


def test_a_stranger_does_not_end_the_code_of_another(kept: Kept) -> None:
    code = kept.code()
    for number, _ in itertools.product(range(MOST_TRIES // MOST_TRIES_EACH - 1), range(MOST_TRIES_EACH + 1)):
        assert kept.register.pair(wrong(code), f"fd00::{number:x}") is None
    assert kept.register.pair(code, HERE) is not None


def test_a_code_is_dead_after_many_wrong_ones_wherever_they_came_from(kept: Kept) -> None:
    code = kept.code()
    for number in range(MOST_TRIES):
        assert kept.register.pair(wrong(code), f"fd00::{number:x}") is None
    kept.journal.close()
    assert kept.told(Kind.DEVICE_REFUSED)[-1].endswith("the code is dead now")
    assert kept.register.pair(code, HERE) is None
    kept.journal.close()
    assert kept.told(Kind.DEVICE_REFUSED)[-1].endswith("no code is valid now")


@pytest.mark.parametrize("given", ["", "-", "é", "\ud800", "0" * 100_000, "a" * 8])
def test_what_is_no_code_is_a_try(kept: Kept, given: str) -> None:
    code = kept.code()
    assert kept.register.pair(given, HERE) is None
    assert kept.register.pair(code, HERE) is not None


def test_a_code_is_dead_when_its_time_is_over_when_another_is_made_and_when_the_agent_ends(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept.code("first")
    second = kept.code("second")
    assert first != second
    assert kept.register.pair(first, HERE) is None
    kept.again()
    assert kept.register.pair(second, HERE) is None
    with monkeypatch.context() as changed:
        changed.setattr(devices, "CODE_LIFE", 0.0)
        late = kept.code("late")
    assert kept.register.pair(late, HERE) is None
    assert kept.register.devices() == ()


def test_the_code_and_the_device_of_one_machine_are_nothing_to_another(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Kept(tmp_path / "other")
    code = kept.code()
    other.code()
    assert other.register.pair(code, HERE) is None
    pairing = kept.register.pair(code, HERE)
    assert pairing is not None
    assert not other.knows(pairing)


def test_a_revoked_device_is_out_and_its_name_is_free(kept: Kept) -> None:
    phone, tablet = kept.pair("phone"), kept.pair("tablet")
    with pytest.raises(UsageError, match="phone: a device of this name is paired"):
        kept.code("phone")
    kept.register.revoke("phone")
    for _ in range(2):
        assert not kept.knows(phone)
        assert kept.knows(tablet)
        kept.again()
    anew = kept.pair("phone")
    assert kept.knows(anew)
    assert not kept.knows(phone)
    with pytest.raises(UsageError, match="nobody: no device of this name"):
        kept.register.revoke("nobody")


def test_a_code_that_is_not_used_yet_is_revoked_by_its_name(kept: Kept) -> None:
    code = kept.code("phone")
    kept.register.revoke("phone")
    assert kept.register.pair(code, HERE) is None


def test_an_old_device_is_one_no_more(kept: Kept) -> None:
    pairing = kept.pair()
    kept.at += DEVICE_LIFE - 1
    assert kept.knows(pairing)
    kept.at += 1
    assert not kept.knows(pairing)
    anew = kept.pair()
    assert kept.knows(anew)
    kept.at -= 1
    kept.again()
    assert not kept.knows(pairing)


def test_a_clock_that_was_far_ahead_for_a_while_ends_no_pairing(kept: Kept) -> None:
    phone, tablet = kept.pair("phone"), kept.pair("tablet")
    kept.at += 2 * DEVICE_LIFE
    assert not kept.knows(phone)
    late = kept.pair("late")  # which writes
    kept.again()
    kept.at += 2 * 86400
    assert kept.knows(late)  # and so does this
    kept.register.revoke("tablet")
    kept.at -= 2 * DEVICE_LIFE + 2 * 86400
    kept.again()
    assert kept.knows(phone)
    assert not kept.knows(tablet)


def test_devices_that_are_ones_no_more_do_not_fill_the_disk(kept: Kept) -> None:
    for number in range(2 * MOST):
        kept.pair(f"device-{number}")
        kept.at += DEVICE_LIFE
    last = kept.pair("last")
    assert len(json.loads((kept.state / FILE).read_bytes())) == MOST
    assert kept.knows(last)


def test_when_a_device_was_seen_is_noted_by_the_day(kept: Kept) -> None:
    pairing = kept.pair()
    before = (kept.state / FILE).read_bytes()
    kept.at += 3600
    assert kept.knows(pairing)
    assert (kept.state / FILE).read_bytes() == before
    kept.at += 86400
    assert kept.register.find(secret(pairing), "192.168.1.9") is not None
    kept.again()
    (device,) = kept.register.status().devices
    assert (device.seen, device.address) == (kept.at, "192.168.1.9")


def test_there_are_so_many_devices_and_no_more(kept: Kept) -> None:
    for number in range(MOST):
        kept.pair(f"device-{number}")
    with pytest.raises(UsageError, match=f"{MOST} devices are paired"):
        kept.code("one-more")


def test_no_code_is_made_where_there_is_no_page(kept: Kept) -> None:
    kept.register.page = nowhere
    with pytest.raises(UsageError, match="the page is not on the network"):
        kept.code()


@pytest.mark.parametrize("content", ["", "{}", '[{"name": "phone"}]', "[" * 5000])
def test_a_damaged_file_lets_nobody_in_and_stays_as_it_is(kept: Kept, content: str) -> None:
    pairing = kept.pair()
    (kept.state / FILE).write_text(content)
    kept.again()
    assert not kept.knows(pairing)
    for ask in (lambda: kept.code("tablet"), lambda: kept.register.revoke("phone"), kept.register.status):
        with pytest.raises(Damaged):
            ask()
    assert (kept.state / FILE).read_text() == content


@pytest.fixture
def full(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The disk is full from then on."""
    return lambda: monkeypatch.setattr(devices, "write_json", refuse)


def test_on_a_full_disk_nobody_is_paired_and_who_is_revoked_is_out(kept: Kept, full: Callable[[], None]) -> None:
    pairing, code = kept.pair("phone"), kept.code("tablet")
    full()
    with pytest.raises(Unwritable):
        kept.register.pair(code, HERE)
    assert [one.name for one in kept.register.devices()] == ["phone"]
    assert kept.register.pair(code, HERE) is None
    kept.at += 2 * 86400
    assert kept.knows(pairing)
    with pytest.raises(Unwritable):
        kept.register.revoke("phone")
    assert not kept.knows(pairing)


@pytest.mark.parametrize("asks_again", [True, False])
def test_who_was_revoked_on_a_full_disk_is_out_for_ever_as_soon_as_there_is_room(kept: Kept, asks_again: bool) -> None:
    phone, tablet = kept.pair("phone"), kept.pair("tablet")
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(devices, "write_json", refuse)
        for _ in range(2):
            with pytest.raises(Unwritable, match=r"phone: is out, and will be in again when dom0 starts anew: full"):
                kept.register.revoke("phone")
    if asks_again:
        with pytest.raises(UsageError):
            kept.register.revoke("nobody")
        kept.register.revoke("phone")
        with pytest.raises(UsageError):
            kept.register.revoke("phone")
    else:
        assert kept.knows(tablet)
    kept.again()
    assert not kept.knows(phone)
    assert kept.knows(tablet)


def refuse(*_: object) -> None:
    raise Unwritable("full")


def test_what_is_told_of_devices_has_nothing_of_their_secret(kept: Kept) -> None:
    pairing = kept.pair()
    told = json.dumps([msg.__struct_fields__ for msg in kept.register.status().devices])
    assert "proof" not in told
    assert pairing.cookie not in str(kept.register.status())
