"""A boot told as stages: where each begins, which was slowest, what differs from another boot."""

from __future__ import annotations

from dom0.host.boot import Boot, Difference, analyze, compare
from dom0.host.boot_record import Record, parse

WHOLE = b"""\
-4.30\tfirmware\tACPI FPDT
2.00\tkernel\t
3.00\tinit\t
4.00\tdisk\text4
6.50\tnetwork\teth0
14.00\tengine\t
14.50\timage\tlatest
16.00\tdom0\t
18.00\tservice:redis\t
19.00\thealthy\t
20.00\tservice:visitor\t
20.25\tready\t
"""


def boot(content: bytes) -> Boot:
    marks, unreadable = parse(content)
    return analyze(Record(marks=marks, unreadable=unreadable, number=7))


def took(content: bytes) -> dict[str, tuple[float, float]]:
    return {stage.name: (stage.began, stage.seconds) for stage in boot(content).stages}


def test_a_stage_begins_where_the_one_before_it_ended() -> None:
    found = took(WHOLE)
    assert found["kernel"] == (0.0, 2.0)
    assert found["init"] == (2.0, 1.0)
    assert found["engine"] == (4.0, 10.0)
    assert found["dom0"] == (14.5, 1.5)


def test_what_runs_beside_others_delays_none_of_them() -> None:
    found = took(WHOLE)
    assert found["network"] == (3.0, 3.5)
    assert found["healthy"] == (16.0, 3.0)
    assert found["service:visitor"] == (16.0, 4.0)
    assert {stage.name for stage in boot(WHOLE).stages if stage.beside} == {
        "network",
        "healthy",
        "service:redis",
        "service:visitor",
    }


def test_a_boot_has_its_slowest_stage_and_its_end() -> None:
    whole = boot(WHOLE)
    assert (whole.slowest, whole.firmware, whole.ready) == ("engine", 4.3, 20.25)
    assert (whole.began, whole.ended) == (-4.3, 20.0)
    assert "ready" not in took(WHOLE)


def test_the_firmware_is_the_time_before_the_kernel() -> None:
    assert took(WHOLE)["firmware"] == (-4.3, 4.3)


def test_a_machine_that_does_not_tell_of_its_firmware_begins_with_the_kernel() -> None:
    rest = boot(WHOLE.split(b"\n", 1)[1])
    assert (rest.firmware, rest.began, rest.slowest) == (None, 0.0, "engine")


def test_a_stage_may_come_again() -> None:
    """The launcher left an image that did not become healthy."""
    again = boot(b"10.00\tengine\t\n11.00\tdom0\tlatest\n75.00\timage\tlast good\n76.00\tdom0\tlast good\n")
    assert [(stage.name, stage.seconds) for stage in again.stages][1:] == [
        ("dom0", 1.0),
        ("image", 64.0),
        ("dom0", 1.0),
    ]
    assert again.slowest == "image"


def test_what_comes_again_after_all_was_well_is_a_later_story() -> None:
    later = WHOLE + b"500.00\timage\tlatest\n501.00\tdom0\tlatest\n510.00\tproblem\tdom0 ended\n"
    assert boot(later) == boot(WHOLE)


def test_what_comes_late_for_the_first_time_is_a_part_of_the_boot() -> None:
    """The agent may be done before the launcher has looked."""
    assert took(WHOLE + b"22.00\tblessed\t\n")["blessed"] == (16.0, 6.0)


def test_a_problem_is_no_stage() -> None:
    broken = boot(WHOLE.replace(b"19.00\thealthy\t", b"19.00\tproblem\tdom0 of image 1: ends"))
    assert "problem" not in {stage.name for stage in broken.stages}
    assert [(trouble.at, trouble.text) for trouble in broken.troubles] == [(19.0, "dom0 of image 1: ends")]


def test_a_problem_of_what_is_looked_at_when_all_is_well_is_one_of_the_boot() -> None:
    late = boot(WHOLE + b"95.00\tproblem:slot\tslot a does not read\n99.00\tproblem\tdom0 ended\n")
    assert [(trouble.at, trouble.text) for trouble in late.troubles] == [(95.0, "slot a does not read")]
    assert late.stages == boot(WHOLE).stages


def test_an_unknown_stage_has_its_place_in_the_order_of_time() -> None:
    assert took(b"2.00\tkernel\t\n5.00\tbootlocal\t\n6.00\tengine\t\n") == {
        "kernel": (0.0, 2.0),
        "bootlocal": (2.0, 3.0),
        "engine": (5.0, 1.0),
    }


def test_a_boot_that_came_to_nothing_is_still_told() -> None:
    nothing = boot(b"")
    assert (nothing.stages, nothing.slowest, nothing.ready, nothing.ended) == ((), "", None, 0.0)


def test_two_boots_are_compared_stage_by_stage() -> None:
    slower = WHOLE.replace(b"4.00\tdisk", b"4.75\tdisk").replace(b"20.25", b"21.00")
    slower += b"20.50\tservice:new\t\n"
    rows = {row.name: row for row in compare(boot(WHOLE), boot(slower))}
    assert rows["disk"] == Difference(name="disk", before=1.0, after=1.75)
    assert rows["disk"].more == 0.75
    assert rows["engine"].more == -0.75
    assert rows["kernel"].more == 0.0
    assert rows["service:new"].before is None
    assert rows["ready"] == Difference(name="ready", before=24.55, after=25.3)
    assert list(rows)[-1] == "ready"


def test_repeated_stages_are_compared_together() -> None:
    once, twice = boot(b"1.00\tdom0\t\n"), boot(b"1.00\tdom0\t\n3.00\tdom0\t\n")
    assert compare(once, twice) == (Difference(name="dom0", before=1.0, after=3.0),)
