"""Which rights a container has, and what is said of those that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.ambassador.capabilities import Rights, effective, problems, rights
from dom0.ambassador.table import Family

DOCKERS = 0xA80425FB  # what the Engine gives without being asked: NET_RAW, not NET_ADMIN
ALL = Rights(net_admin=True, net_raw=True, forwards=frozenset[Family]({"ip", "ip6"}))
BOTH: frozenset[Family] = frozenset({"ip", "ip6"})


def a_proc(path: Path, mask: int, **sysctls: str) -> Path:
    (path / "self").mkdir()
    (path / "self/status").write_text(f"Name:\tpython3\nCapPrm:\tffffffffffffffff\nCapEff:\t{mask:016x}\nSeccomp:\t2\n")
    for name, value in sysctls.items():
        file = path / "sys" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return path


def test_a_plain_container_may_send_raw_and_not_set_rules(tmp_path: Path) -> None:
    found = rights(a_proc(tmp_path, DOCKERS, net__ipv4__ip_forward="1", net__ipv6__conf__all__forwarding="0"))
    assert found == Rights(net_admin=False, net_raw=True, forwards=frozenset[Family]({"ip"}))


def test_net_admin_is_bit_12(tmp_path: Path) -> None:
    assert rights(a_proc(tmp_path, 1 << 12)) == Rights(net_admin=True, net_raw=False, forwards=frozenset())


def test_a_status_without_capabilities_means_none() -> None:
    assert effective("Name:\tpython3\n") == 0


@pytest.mark.parametrize(
    ("without", "subjects"),
    [
        (ALL, []),
        (Rights(net_admin=False, net_raw=False, forwards=frozenset()), ["NET_ADMIN"]),
        (Rights(net_admin=True, net_raw=False, forwards=BOTH), ["NET_RAW"]),
        (
            Rights(net_admin=True, net_raw=True, forwards=frozenset()),
            ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
        ),
    ],
)
def test_what_is_missing_is_named_with_how_to_give_it(without: Rights, subjects: list[str]) -> None:
    found = problems(without, BOTH)
    assert [problem.subject for problem in found] == subjects
    assert all(problem.subject in problem.title and problem.hint.startswith("docker run") for problem in found)


def test_a_family_without_targets_need_not_be_forwarded() -> None:
    only_4 = Rights(net_admin=True, net_raw=True, forwards=frozenset[Family]({"ip"}))
    assert problems(only_4, frozenset[Family]({"ip"})) == ()
