"""What happens to the machine when its root container dies, or the Engine under it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dom0.agent.store import exclusive_lock
from dom0.testing.foreign import Foreign
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      ssh: {}
      home: {}
      rollout: {monitor: 1s, timeout: 60s}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        restart: unless-stopped
      once:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
      job:
        image: busybox:test
        command: ["sh", "-c", "echo ran >> /kept/runs"]
        volumes: ["kept:/kept"]
        depends_on: [web]
    volumes: {kept: {}}
    """
RUNNING = ("dom0-sshd", "box-web-1", "box-once-1")
OURS = (*RUNNING, "box-job-1", "home-volume")


@pytest.fixture(scope="module")
def box(machine: Machine, foreign: Foreign) -> Machine:
    machine.write(COMPOSE)
    machine.up()
    machine.until_good()
    return machine


def ids(machine: Machine) -> dict[str, Any]:
    return {name: machine.container(name)["Id"] for name in OURS}


def runs_of_the_job(machine: Machine) -> int:
    said = machine.docker("run", "--rm", "--volume", "box_kept:/kept", "busybox:test", "cat", "/kept/runs")
    return len(said.stdout.splitlines())


def agents(box: Machine) -> list[int]:
    """The processes that keep the machine, whether the Engine knows them or not; not what they are about to start."""
    lines = box.host.run(["ps", "-eo", "pid,ppid,args"]).stdout.splitlines()
    parents = {line.split()[0]: line.split()[1] for line in lines if line.endswith("/usr/bin/dom0 agent")}
    return [int(pid) for pid, parent in parents.items() if parent not in parents]


def test_a_killed_agent_comes_back_and_nothing_else_has_noticed(box: Machine, foreign: Foreign) -> None:
    services, generation = box.lives(*OURS), box.status()["generation"]
    died = box.container("dom0")["State"]
    box.host.run(["kill", "-9", str(died["Pid"])])
    box.until(lambda: box.container("dom0")["State"]["Pid"] not in (0, died["Pid"]))
    assert box.until_good()["generation"] == generation
    assert box.lives(*OURS) == services
    assert foreign.is_untouched()


def test_services_run_on_while_dom0_is_killed_by_a_person_and_dom0_up_brings_it_back(
    box: Machine, foreign: Foreign
) -> None:
    services, generation = box.lives(*OURS), box.status()["generation"]
    box.docker("kill", "dom0")
    assert box.dom0("status", check=False).stderr == "dom0: dom0: does not run here\n      start it: dom0 up\n"
    assert box.dom0("status", check=False).code == 1
    assert box.lives(*OURS) == services
    box.up()
    assert box.until_good()["generation"] == generation
    assert box.lives(*OURS) == services
    assert foreign.is_untouched()


def test_a_dom0_that_a_person_paused_is_called_that_and_dom0_up_unpauses_it(box: Machine) -> None:
    before = ids(box)
    box.docker("pause", "dom0")
    commands = (["status"], ["history"], ["rollback", "1"], ["abort"], ["plan"])
    with ThreadPoolExecutor() as pool:  # each of them waits some seconds for an answer
        *others, planned = pool.map(lambda command: box.dom0(*command, check=False), commands)
    paused = (1, "dom0: dom0: is paused\n      docker unpause dom0; or dom0 up\n")
    assert [(said.code, said.stderr) for said in others] == [paused] * len(others)
    assert planned.code == 10
    assert "start   container  dom0  it was paused" in planned.stdout.splitlines()
    box.up()
    assert box.container("dom0")["State"]["Status"] == "running"
    assert ids(box) == before


def test_what_broke_while_no_agent_ran_is_mended_by_the_next_one(box: Machine) -> None:
    untouched = box.lives("box-web-1", "dom0-sshd")
    box.docker("stop", "dom0")
    box.docker("rm", "--force", "box-once-1")
    box.docker("start", "dom0")
    box.until_running("box-once-1")
    assert box.lives("box-web-1", "dom0-sshd") == untouched


def test_dom0_up_waits_for_an_agent_that_is_started_again(box: Machine) -> None:
    services, died = box.lives(*OURS), box.container("dom0")
    box.host.run(["kill", "-9", str(died["State"]["Pid"])])
    with exclusive_lock(box.host.state, patience=PATIENCE):  # the next one cannot begin
        up = box.begin("up", str(box.project))
        box.until(lambda: box.container("dom0")["RestartCount"] > died["RestartCount"] + 1)
        assert up.poll() is None
    assert up.wait(PATIENCE) == 0
    box.until_good()
    assert box.lives(*OURS) == services


@pytest.mark.parametrize("death", ["restart", "crash"])
def test_after_the_engine_was_gone_everything_runs_again_and_no_job_a_second_time(
    box: Machine, foreign: Foreign, death: str
) -> None:
    before, generation, runs = ids(box), box.status()["generation"], runs_of_the_job(box)
    if death == "restart":
        box.host.restart_engine()
    else:
        box.host.kill_engine()
        box.host.start_engine()
    for name in ("dom0", *RUNNING):
        box.until_running(name)
    assert box.until_good()["generation"] == generation
    assert ids(box) == before
    assert runs_of_the_job(box) == runs
    box.until(lambda: agents(box) == [box.container("dom0")["State"]["Pid"]])
    assert foreign.has_restarted_only()


def test_dom0_does_not_end_under_an_engine_that_is_still_starting(box: Machine) -> None:
    before, agent = ids(box), box.container("dom0")["State"]["Pid"]
    box.host.kill_engine()
    path = box.host.path("/run/docker.sock")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as starting:
        starting.bind(str(path))
        starting.listen()
        starting.settimeout(PATIENCE)
        for _ in range(2):  # no answer, and it asks again
            starting.accept()[0].close()
    assert agents(box) == [agent]
    box.host.start_engine()
    for name in ("dom0", *RUNNING):
        box.until_running(name)
    box.until_good()
    assert ids(box) == before


def test_a_root_container_removed_by_force_leaves_a_machine_that_dom0_up_takes_over(box: Machine) -> None:
    services, generation = box.lives(*OURS), box.status()["generation"]
    box.docker("rm", "--force", "dom0")
    assert box.lives(*OURS) == services
    box.up()
    assert box.until_good()["generation"] == generation
    assert box.lives(*OURS) == services


def test_an_agent_that_the_engine_has_lost_ends_and_the_next_one_keeps_the_services(box: Machine) -> None:
    services, generation, lost = box.lives(*OURS), box.status()["generation"], box.container("dom0")
    pid = lost["State"]["Pid"]
    box.docker("update", "--restart", "no", "dom0")  # nobody else shall take its place yet
    box.host.run(["kill", "-STOP", str(pid)])
    box.host.lose(lost["Id"], pid)
    box.until(lambda: box.containers()["dom0"] == "exited")
    box.docker("rm", "dom0")
    box.run_by_hand()
    box.until_running("dom0")
    assert pid in agents(box)
    box.host.run(["kill", "-CONT", str(pid)])
    box.up()
    assert box.until_good()["generation"] == generation
    box.until(lambda: agents(box) == [box.container("dom0")["State"]["Pid"]])
    assert box.container("dom0")["RestartCount"] == 0
    assert box.lives(*OURS) == services
