"""What conntrack prints and reads, without a kernel."""

from __future__ import annotations

import pytest

from dom0.forward import conntrack
from dom0.forward.dataplane import Flow
from dom0.forward.table import Protocol, Target

TCP = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.3 dst=10.0.0.2 sport=4001 dport=6379 packets=3 bytes=164 "
    "src=10.0.0.4 dst=10.0.0.2 sport=6380 dport=4001 packets=2 bytes=112 [ASSURED] mark=7 use=1 id=1020201728"
)
UDP = (
    "ipv6     10 udp      17 29 src=fd00::3 dst=fd00::2 sport=4002 dport=53 [UNREPLIED] "
    "src=fd00::4 dst=fd00::2 sport=53 dport=4002 mark=8 use=1 id=9"
)
OTHERS = """\
ipv4     2 icmp     1 29 src=10.0.0.3 dst=10.0.0.2 type=8 code=0 id=5 src=10.0.0.2 dst=10.0.0.3 type=0 code=0 id=5 \
mark=7 use=1 id=3
ipv4     2 tcp      6 9 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 \
mark=0 use=1 id=4
"""


def test_a_line_becomes_a_flow() -> None:
    (entry,) = conntrack.entries(TCP)
    assert entry.flow == Flow(
        protocol=Protocol.TCP,
        generation=7,
        client=Target("10.0.0.3", 4001),
        listener=Target("10.0.0.2", 6379),
        near=Target("10.0.0.2", 4001),
        target=Target("10.0.0.4", 6380),
        state="ESTABLISHED",
        sent=164,
        received=112,
        expires=431999,
        number=1020201728,
    )
    assert (entry.replied, entry.assured) == (True, True)


def test_a_line_without_counters_state_or_reply_becomes_a_flow() -> None:
    (entry,) = conntrack.entries(UDP)
    assert (entry.flow.state, entry.flow.sent, entry.replied, entry.assured) == ("", 0, False, False)
    assert entry.flow.target == Target("fd00::4", 53)


def test_an_offloaded_connection_has_no_expiry() -> None:
    offloaded = TCP.replace("431999 ESTABLISHED ", "").replace("[ASSURED]", "[OFFLOAD]")
    (entry,) = conntrack.entries(offloaded)
    assert (entry.flow.expires, entry.flow.state, entry.flow.generation) == (0, "", 7)


def test_what_has_no_mark_or_no_ports_is_none_of_ours() -> None:
    assert conntrack.entries(f"{OTHERS}{TCP}\n", [7])[0].flow.generation == 7
    assert conntrack.entries(OTHERS) == []


def test_generations_are_told_apart() -> None:
    printed = f"{TCP}\n{UDP}\n"
    assert [entry.flow.generation for entry in conntrack.entries(printed, [8])] == [8]
    assert len(conntrack.entries(printed, [7, 8])) == len(conntrack.entries(printed)) == 2
    assert conntrack.list_command([7])[-1] == "--mark=7"
    assert conntrack.list_command([7, 8]) == conntrack.list_command(None)


@pytest.mark.parametrize(
    "line", ["", "garbage", TCP.partition("src=10.0.0.4")[0] + "mark=7", TCP.replace("sport", "port")]
)
def test_a_line_that_cannot_be_read_is_an_error_with_the_line(line: str) -> None:
    with pytest.raises(ValueError, match="conntrack printed"):
        conntrack.entries(f"{line}\n")


def test_the_file_carries_marks_and_translation() -> None:
    assert conntrack.saved(conntrack.entries(f"{TCP}\n{UDP}\n")).splitlines() == [
        "-A -t 431999 -u SEEN_REPLY,ASSURED -s 10.0.0.3 -d 10.0.0.2 -g 10.0.0.4:6380 -n 10.0.0.2:4001"
        " -p tcp --sport 4001 --dport 6379 --reply-port-src 6380 --reply-port-dst 4001 --state ESTABLISHED -m 7",
        "-A -t 29 -u UNSET -s fd00::3 -d fd00::2 -g [fd00::4]:53 -n [fd00::2]:4002"
        " -p udp --sport 4002 --dport 53 --reply-port-src 53 --reply-port-dst 4002 -m 8",
    ]


def test_a_source_that_was_not_translated_is_not_translated_later() -> None:
    direct = TCP.replace("dst=10.0.0.2 sport=6380", "dst=10.0.0.3 sport=6380")
    assert " -g 10.0.0.4:6380 -q 10.0.0.3 " in conntrack.saved(conntrack.entries(direct))


def test_ended_connections_are_not_saved() -> None:
    assert conntrack.saved(conntrack.entries(TCP.replace("ESTABLISHED", "TIME_WAIT"))) == ""
