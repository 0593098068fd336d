"""Commands that ask the running dom0, and what they make of its answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from subprocess import PIPE
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dom0.agent.status import (
    BackupStatus,
    GenerationInfo,
    MembershipStatus,
    Outcome,
    Phase,
    Progress,
    SharingStatus,
    Status,
)
from dom0.health import Problem
from dom0.run import Output
from dom0.testing.fake_agent import EndlessLines, FakeAgent, Lines, Turns, make_service, make_status

RunCommand = Callable[..., Output]


def test_status_shows_services_and_problems_with_what_to_do(agent: FakeAgent, dom0: RunCommand) -> None:
    shown = dom0("status")
    assert shown.code == 0
    assert shown.stdout.splitlines() == [
        "box: not as desired; generation 3 (good), dom0 up, 3m ago",
        "SERVICE  CONTAINER    PHASE       FOR  IMAGE      PORTS     REASON",
        "redis    box-redis-1  ready       3m   box-redis  6379/tcp",
        "web      box-web-1    crash-loop       box-web              exited with code 1 five times",
        "",
        "Problems:",
        "  error web: ends again and again  [crash-loop]",
        "      dom0 logs web",
    ]


def test_status_shows_for_how_long_a_container_has_run_or_has_not(agent: FakeAgent, dom0: RunCommand) -> None:
    stopped = make_service("web", Phase.STOPPED, started=1000.0, finished=1170.0)
    agent.answers["GET /v1/status"] = make_status(services=(stopped,), problems=())
    assert dom0("status").stdout.splitlines()[2].split()[2:4] == ["stopped", "10s"]


def test_status_does_not_call_as_desired_what_nobody_can_see(agent: FakeAgent, dom0: RunCommand) -> None:
    blind = Problem(code="engine-unreachable", subject="engine", title="the Docker Engine does not answer")
    agent.answers["GET /v1/status"] = make_status(converged=False, problems=(blind,))
    first = dom0("status").stdout.splitlines()[0]
    assert first.startswith("box: unknown, the Docker Engine does not answer; below is what was seen last; ")


def test_status_says_what_was_backed_up_when_and_what_is_in_no_backup(agent: FakeAgent, dom0: RunCommand) -> None:
    data = BackupStatus(
        volume="box_data", key="data", service="dom0-backup-data", to="/srv/backup", last=1060.0, size=1500
    )
    new = replace(data, volume="box_new", key="new", last=0.0, size=0)
    without = tuple(BackupStatus(volume=name) for name in ("box_more", "home-volume"))
    agent.answers["GET /v1/status"] = make_status(backups=(data, new, *without), problems=())
    assert dom0("status").stdout.splitlines()[-4:] == [
        "Backups:",
        "  box_data  2m ago, 1.5kB, to /srv/backup",
        "  box_new  not yet, to /srv/backup",
        "  in none: box_more, home-volume",
    ]
    assert [line.split()[0] for line in dom0("backup", "ls").stdout.splitlines()] == [
        "VOLUME",
        "data",
        "new",
        "box_more",
        "home-volume",
    ]


def test_status_says_where_images_come_from_and_go_to(agent: FakeAgent, dom0: RunCommand) -> None:
    sharing = SharingStatus(
        peers=("192.0.2.7:5050", "192.0.2.8:5050"),
        served_at="192.0.2.5:5050",
        allow=("192.0.2.0/24",),
        mirror="127.0.0.1:15050",
    )
    agent.answers["GET /v1/status"] = make_status(sharing=sharing, problems=())
    assert dom0("status").stdout.splitlines()[4:] == [
        "",
        "Images:",
        "  asked of 192.0.2.7:5050, 192.0.2.8:5050 before a registry",
        "  served at 192.0.2.5:5050 to 192.0.2.0/24",
        "  docker pull and builds ask dom0 for those of docker.io, at 127.0.0.1:15050",
    ]


def test_status_says_what_the_machine_is_in_its_farm(agent: FakeAgent, dom0: RunCommand) -> None:
    member = MembershipStatus(farm="", server="192.0.2.5:7701", node="", role="", revision=0, state="none")
    tried = replace(member, farm="attic", node="nas", role="web", revision=4, state="failed", reason="no room")
    for farm, said in (
        (member, "waits to be approved by the server 192.0.2.5:7701"),
        (replace(member, farm="attic"), "waits to be approved by the server 192.0.2.5:7701 of the farm attic"),
        (tried, "nas of attic at 192.0.2.5:7701, role web, revision 4 failed: no room"),
        (replace(tried, revision=0, reason=""), "nas of attic at 192.0.2.5:7701, role web, told of no revision yet"),
    ):
        agent.answers["GET /v1/status"] = make_status(farm=farm, problems=())
        assert dom0("status").stdout.splitlines()[4:] == ["", "Farm:", f"  {said}"]
    agent.answers["GET /v1/status"] = make_status(serves=("attic",), problems=())
    assert dom0("status").stdout.splitlines()[4:] == ["", "Farm:", "  the server of attic runs here"]


def generation(**changes: Any) -> GenerationInfo:
    found = make_status().generation
    assert found is not None
    return replace(found, **changes)


def test_status_says_until_when_a_generation_is_watched(agent: FakeAgent, dom0: RunCommand) -> None:
    watched = generation(outcome=Outcome.PENDING, watched_until=1_700_000_000.0, goes_back_to=2)
    agent.answers["GET /v1/status"] = make_status(generation=watched, problems=())
    first = dom0("status", env={"TZ": "UTC"}).stdout.splitlines()[0]
    assert first == "box: as desired; generation 3 (ready, watched until 2023-11-14 22:13:20), dom0 up, 3m ago"


def test_status_says_why_the_machine_went_back(agent: FakeAgent, dom0: RunCommand) -> None:
    back = generation(back_at=1_700_000_000.0, back_because="generation 4 failed: web: exited with code 1")
    agent.answers["GET /v1/status"] = make_status(generation=back)
    first = dom0("status", env={"TZ": "UTC"}).stdout.splitlines()[0]
    assert first.endswith("; back since 2023-11-14 22:13:20: generation 4 failed: web: exited with code 1")


def test_status_as_json_is_the_agents_document(agent: FakeAgent, dom0: RunCommand) -> None:
    assert msgspec.json.decode(dom0("status", "--json").stdout, type=Status) == make_status()


def test_watch_as_json_prints_one_document_a_line(agent: FakeAgent, dom0: RunCommand) -> None:
    later = make_status(converged=False, steps=("start box-web-1",))
    agent.answers["GET /v1/watch"] = Turns([Lines([make_status(), later])])
    lines = dom0("status", "--watch", "--json").stdout.splitlines()
    assert [json.loads(line)["converged"] for line in lines] == [True, False]


def test_watch_goes_on_with_the_next_agent_and_fails_when_there_is_none(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/watch"] = Turns([Lines([make_status()]), Lines([make_status(converged=False)])])
    watched = dom0("status", "--watch", "--json")
    first, second, why = [json.loads(line) for line in (watched.stdout + watched.stderr).splitlines()]
    assert (first["converged"], second["converged"]) == (True, False)
    assert (watched.code, why["exit_code"]) == (1, 1)


def test_watch_without_a_terminal_prints_each_status_without_colours(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/watch"] = Turns([Lines([make_status()])])
    assert dom0("status", "--watch").stdout == dom0("status").stdout + "\n"


def test_control_characters_from_the_machine_are_escaped(agent: FakeAgent, dom0: RunCommand) -> None:
    hostile = make_service("\x1b]0;owned\x07", Phase.FAILED, reason="a\r\nb\u202e")
    agent.answers["GET /v1/status"] = make_status(project="\x1b[2J", services=(hostile,), problems=())
    shown = dom0("status").stdout
    assert not any(char in shown for char in "\x1b\x07\r\u202e")
    assert r"\x1b]0;owned\x07" in shown


def test_an_answer_of_another_version_is_refused_with_a_hint(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/status"] = b'{"project": 7}'
    refused = dom0("status")
    assert refused.code == 1
    assert "is not understood" in refused.stderr
    assert "dom0 up" in refused.stderr


def test_a_field_that_a_newer_agent_adds_is_no_error(agent: FakeAgent, dom0: RunCommand) -> None:
    document = msgspec.to_builtins(make_status()) | {"moon": "full"}
    agent.answers["GET /v1/status"] = json.dumps(document).encode()
    assert dom0("status").code == 0


@pytest.mark.parametrize(("status", "code"), [(400, 2), (409, 6), (500, 1)])
def test_a_refusal_of_the_agent_keeps_its_words_and_gets_its_exit_code(
    agent: FakeAgent, dom0: RunCommand, status: int, code: int
) -> None:
    agent.refusals["POST /v1/rollback"] = (status, {"message": "rollback: no", "hint": "try this"})
    refused = dom0("rollback", "2")
    assert (refused.code, refused.stderr) == (code, "dom0: rollback: no\n      try this\n")


def test_rollback_sends_the_generation_and_shows_progress(agent: FakeAgent, dom0: RunCommand) -> None:
    lines = Lines([Progress(text="start box-web-1", service="web"), Progress(outcome=Outcome.GOOD, generation=2)])
    agent.answers["POST /v1/rollback"] = lines
    shown = dom0("rollback", "2")
    assert shown.code == 0
    assert "web: start box-web-1\n" in shown.stdout
    assert shown.stdout.endswith("generation 2 is good\n")
    assert agent.asked[0] == ("POST /v1/rollback", b'{"generation":2}')


def test_a_generation_that_fails_ends_with_5_and_its_problems(agent: FakeAgent, dom0: RunCommand) -> None:
    failed = Progress(outcome=Outcome.FAILED, generation=4, problems=make_status().problems)
    agent.answers["POST /v1/rollback"] = Lines([failed])
    refused = dom0("rollback")
    assert refused.code == 5
    assert refused.stderr.startswith("dom0: generation 4: failed\n  error web: ends again and again  [crash-loop]\n")
    assert "web: ends again and again" in refused.stderr


@pytest.mark.parametrize(
    ("code", "ends_with"),
    [("project-invalid", 3), ("engine-refused", 4), ("engine-unreachable", 4), ("state-unwritable", 1)],
)
def test_a_refusal_that_began_nothing_is_no_rollback(
    agent: FakeAgent, dom0: RunCommand, code: str, ends_with: int
) -> None:
    refusal = Problem(code=code, subject="dom0", title="box: cannot be", hint="do this")
    agent.answers["POST /v1/rollback"] = Lines([Progress(outcome=Outcome.FAILED, generation=4, problems=(refusal,))])
    refused = dom0("rollback")
    assert refused.code == ends_with
    assert refused.stderr == "dom0: box: cannot be\n      do this\n"


def test_a_stream_that_ends_without_an_outcome_is_an_error(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["POST /v1/rollback"] = Lines([Progress(text="start box-web-1")])
    refused = dom0("rollback")
    assert refused.code == 1
    assert "ended before the generation had an outcome" in refused.stderr


@pytest.mark.parametrize(
    ("changes", "code"), [({}, 1), ({"problems": ()}, 0), ({"problems": (), "converged": False}, 1)]
)
def test_the_exit_code_says_whether_all_is_well(
    agent: FakeAgent, dom0: RunCommand, changes: dict[str, Any], code: int
) -> None:
    agent.answers["GET /v1/status"] = make_status(**changes)
    assert dom0("status", "--exit-code").code == code
    assert dom0("status").code == 0


def test_a_reason_is_said_once(agent: FakeAgent, dom0: RunCommand) -> None:
    of_web = make_status().problems[0]
    why = Problem(code="generation-failed", subject="generation 4", title=of_web.title)
    failed = Progress(outcome=Outcome.FAILED, generation=4, problems=(why, of_web))
    agent.answers["POST /v1/rollback"] = Lines([failed])
    refused = dom0("rollback")
    assert refused.stderr.splitlines()[:3] == [
        "dom0: generation 4: failed: ends again and again",
        "  error web  [crash-loop]",
        "      dom0 logs web",
    ]


@pytest.mark.parametrize("within", ["main()", "asyncio.run(in_a_loop())"])
def test_the_first_interrupt_ends_the_watching_and_says_what_goes_on(
    agent: FakeAgent, environment: dict[str, str], within: str
) -> None:
    agent.answers["POST /v1/rollback"] = EndlessLines([Progress(text="start box-web-1")])
    script = (
        "import asyncio, sys; from dom0.cli import run; main = lambda: sys.exit(run(['rollback']))\n"
        f"async def in_a_loop(): main()\n{within}"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, env=environment) as watching:
        assert watching.stdout is not None
        assert "start box-web-1" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        try:
            _, said = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert "the change of this machine: goes on without this command" in said
    assert "dom0 abort" in said
    assert "Traceback" not in said


def test_abort_shows_what_the_machine_goes_back_to(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["POST /v1/abort"] = make_status()
    assert dom0("abort").stdout.startswith("box: not as desired; generation 3 (good)")


def test_history_says_what_came_back_and_why(agent: FakeAgent, dom0: RunCommand) -> None:
    back = {"back_at": 60.0, "back_because": "generation 3 expired: not confirmed in time"}
    good = GenerationInfo(number=2, created=0.0, cause="dom0 up", dom0_image="", outcome=Outcome.GOOD, current=True)
    tried = msgspec.structs.replace(good, number=3, cause="dom0 try", outcome=Outcome.EXPIRED, current=False)
    agent.answers["GET /v1/history"] = [tried, msgspec.structs.replace(good, project="box", **back)]
    _, first, second = dom0("history").stdout.splitlines()
    assert "expired  dom0 try" in first
    assert second.split()[:3] == ["*", "2", "box"]
    assert second.endswith("back since 1970-01-01 00:01:00: generation 3 expired: not confirmed in time")


def test_history_marks_the_current_generation(agent: FakeAgent, dom0: RunCommand) -> None:
    info = GenerationInfo(
        number=2, project="box", created=0.0, cause="dom0 up", dom0_image="sha256:" + "a" * 64, outcome=Outcome.GOOD
    )
    agent.answers["GET /v1/history"] = [msgspec.structs.replace(info, number=3, current=True), info]
    rows = dom0("history").stdout.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["*", "3"], ["2", "box"]]


def test_confirm_shows_what_is_kept(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["POST /v1/confirm"] = make_status()
    assert dom0("confirm").stdout == "box: not as desired; generation 3 (good), dom0 up, 3m ago\n"


def test_version_tells_of_the_command_and_of_the_agent(agent: FakeAgent, dom0: RunCommand) -> None:
    assert json.loads(dom0("version", "--json").stdout)["agent"] == "0.1.0"
    assert "does not run" in dom0("version", env={"DOM0_RUN": "/nonexistent"}).stdout
