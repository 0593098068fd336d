"""Commands that ask or change a real Engine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest

from dom0.cli.checks import mirror
from dom0.engine.values import EngineInfo
from dom0.run import Output
from dom0.testing import busybox
from dom0.testing.hosts import Host

RunCommand = Callable[..., Output]
HOME_DEFAULTS = {"dom0.dev.image": busybox.IMAGE, "dom0.dev.command": '["echo", "by default"]'}


@pytest.fixture
def on_host(dom0: RunCommand, engine_host: Host) -> RunCommand:
    """`dom0` with the Engine of `engine_host`."""
    return partial(dom0, env={"DOCKER_HOST": engine_host.docker_host})


def labels(**given: str) -> list[str]:
    return [word for key, value in given.items() for word in ("--label", f"dom0.{key}={value}")]


def start(
    host: Host, name: str, script: str, *, project: str = "box", number: int = 1, hook: str = "", grace: int = 1
) -> str:
    """A service's container, as the agent would label it; returns its ID. `grace`: seconds that it has to stop."""
    marks = labels(project=project, role="service", service=name, number=str(number), generation="7")
    options = [
        "--name",
        f"{project}-{name}-{number}",
        "--stop-timeout",
        str(grace),
        "--label",
        f"dom0.pre-stop={hook}",
        *marks,
    ]
    return host.docker("run", "-d", *options, busybox.IMAGE, "sh", "-c", script).stdout.strip()


def make_home(host: Host, marks: Mapping[str, str] = HOME_DEFAULTS) -> None:
    options = [word for key, value in marks.items() for word in ("--label", f"{key}={value}")]
    options += labels(project="box", role="home", service="home-volume", number="1")
    options += ["--user", "1000:1000", "--volume", "home-volume:/home/me"]
    host.docker("create", "--name", "home-volume", *options, busybox.IMAGE, "true")


# dev


def test_dev_has_the_home_its_user_its_directory_and_the_label_that_keeps_the_agent_off(
    on_host: RunCommand, engine_host: Host
) -> None:
    make_home(engine_host)
    script = "id -u; pwd; echo $HOME; cat /proc/1/cmdline | tr '\\0' ' '; test -t 0 || echo no terminal"
    shown = on_host("dev", busybox.IMAGE, "sh", "-c", script)
    assert shown.stdout.splitlines()[:3] == ["1000", "/home/me", "/home/me"]
    assert shown.stdout.endswith("no terminal\n")
    assert engine_host.docker("ps", "-aq", "--filter", "label=dom0.role=dev").stdout == ""


def test_dev_without_an_image_runs_what_the_project_says(on_host: RunCommand, engine_host: Host) -> None:
    make_home(engine_host)
    assert on_host("dev").stdout == "by default\n"
    assert on_host("dev", "--", "echo", "--", "mine").stdout == "-- mine\n"


def test_dev_takes_dashes_between_image_and_command_as_their_separator_and_hands_on_all_others(
    on_host: RunCommand, engine_host: Host
) -> None:
    assert on_host("dev", busybox.IMAGE, "--", "echo", "-n", "--", "mine").stdout == "-- mine"
    assert on_host("dev", busybox.IMAGE, "echo", "--", "mine").stdout == "-- mine\n"
    assert on_host("dev", "-e", "A=1", busybox.IMAGE, "sh", "-c", 'echo "$A $1"', "sh", "--").stdout == "1 --\n"
    assert "\0" not in on_host("dev", "--name", "--", busybox.IMAGE, "true").stderr


def test_dev_ends_with_the_exit_code_of_the_command_and_passes_its_input_on(
    on_host: RunCommand, engine_host: Host
) -> None:
    make_home(engine_host)
    done = on_host("dev", "--", "sh", "-c", "cat; exit 42", stdin="through")
    assert (done.code, done.stdout) == (42, "through")


def test_what_the_caller_gives_wins_over_what_dev_sets(on_host: RunCommand, engine_host: Host) -> None:
    make_home(engine_host)
    given = ["-u", "0", "-w", "/etc", "-e", "HOME=/root", "-e", "A=b c"]
    shown = on_host("dev", *given, "--", "sh", "-c", 'id -u; pwd; echo "$HOME $A"')
    assert shown.stdout.splitlines() == ["0", "/etc", "/root b c"]


def test_dev_works_without_a_home_if_an_image_is_named(on_host: RunCommand, engine_host: Host) -> None:
    assert on_host("dev", busybox.IMAGE, "echo", "here").stdout == "here\n"
    refused = on_host("dev")
    assert (refused.code, "no IMAGE given" in refused.stderr) == (2, True)


# exec


def test_exec_runs_in_the_first_running_container_of_the_service(on_host: RunCommand, engine_host: Host) -> None:
    stopped = start(engine_host, "web", "true", number=1)
    engine_host.docker("wait", stopped)
    start(engine_host, "web", "sleep 600", number=2)
    start(engine_host, "web", "sleep 600", number=3)
    first = on_host("exec", "web", "hostname")
    third = on_host("exec", "--index", "3", "-T", "-e", "A=1", "web", "sh", "-c", "echo $A; exit 7")
    named = engine_host.docker("inspect", "--format", "{{.Config.Hostname}}", "box-web-2").stdout
    assert (first.code, first.stdout) == (0, named)
    assert (third.code, third.stdout) == (7, "1\n")


def test_exec_says_what_does_not_run(on_host: RunCommand, engine_host: Host) -> None:
    start(engine_host, "web", "sleep 600")
    refused = on_host("exec", "db", "sh")
    assert (refused.code, refused.stderr.splitlines()[0]) == (4, "dom0: db: no container of it runs")
    assert "these run: web" in refused.stderr
    refused = on_host("exec", "--index", "2", "web", "sh")
    assert "no container 2 of it runs" in refused.stderr


def test_a_service_of_two_projects_is_not_guessed(on_host: RunCommand, engine_host: Host) -> None:
    start(engine_host, "web", "sleep 600")
    start(engine_host, "web", "sleep 600", project="other")
    assert "is a service of several projects: box, other" in on_host("exec", "web", "sh").stderr


# logs


def test_logs_of_all_containers_come_in_the_order_of_time(on_host: RunCommand, engine_host: Host) -> None:
    for index in range(3):
        name = f"s{index % 2}"
        engine_host.docker("wait", start(engine_host, name, f"echo line {index}; echo err >&2", number=index + 1))
    shown = on_host("logs")
    lines = [line for line in shown.stdout.splitlines() if not line.endswith("err")]
    assert lines == ["s0-1  | line 0", "s1-2  | line 1", "s0-3  | line 2"]
    assert shown.stdout.count("err") == 3
    assert on_host("logs", "--tail", "1", "--no-log-prefix", "s1").stdout in ("line 1\n", "err\n")


def test_a_last_line_without_its_end_is_shown(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker("wait", start(engine_host, "web", "printf unfinished"))
    assert on_host("logs", "web").stdout == "web-1  | unfinished\n"


def test_logs_of_an_unknown_service_name_the_known_ones(on_host: RunCommand, engine_host: Host) -> None:
    start(engine_host, "web", "sleep 600")
    refused = on_host("logs", "wbe")
    assert (refused.code, "services that have: web" in refused.stderr) == (2, True)


def test_following_shows_what_comes_from_containers_that_start_later(
    environment: dict[str, str], engine_host: Host
) -> None:
    start(engine_host, "web", "echo first; sleep 600")
    following = subprocess.Popen(
        [sys.executable, "-m", "dom0", "logs", "-f", "web"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"DOCKER_HOST": engine_host.docker_host},
    )
    assert following.stdout is not None
    deadline = threading.Timer(180, following.kill)
    deadline.start()
    try:
        assert following.stdout.readline() == "web-1  | first\n"
        start(engine_host, "web", "echo second; sleep 600", number=2)
        assert following.stdout.readline() == "web-2  | second\n"
        engine_host.docker("restart", "box-web-1")
        assert following.stdout.readline() == "web-1  | first\n"
    finally:
        deadline.cancel()
        following.kill()
        following.communicate()


def test_logs_between_two_times(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker("wait", start(engine_host, "web", "echo first"))
    assert on_host("logs", "--since", "1h", "--no-log-prefix").stdout == "first\n"
    assert on_host("logs", "--until", "1h").stdout == on_host("logs", "--since", "2100-01-01").stdout == ""
    assert on_host("logs", "--since", "yesterday").code == 2


def test_stop_start_and_restart_are_dockers(on_host: RunCommand, engine_host: Host) -> None:
    start(engine_host, "web", "sleep 600")

    def state() -> str:
        return engine_host.docker("inspect", "--format", "{{.State.Status}}", "box-web-1").stdout.strip()

    assert (on_host("stop", "web").stdout, state()) == ("box-web-1\n", "exited")
    assert (on_host("start", "web").code, state()) == (0, "running")
    assert on_host("restart", "web").code == 0
    refused = on_host("stop", "nosuch")
    assert (refused.code, "services that have: web" in refused.stderr) == (2, True)


def test_stop_runs_the_hooks_of_a_container_and_none_that_an_image_brings(
    on_host: RunCommand, engine_host: Host
) -> None:
    def hook(word: str) -> str:
        return json.dumps([{"argv": ["sh", "-c", f"echo {word} >/proc/1/fd/1"]}])

    script = "trap 'exit 0' TERM; sleep 600 & wait"
    own = start(engine_host, "web", script, hook=hook("mine"), grace=60)
    marks = {"project": "box", "role": "service", "service": "sly", "pre-stop": hook("sly")}
    changes = [word for key, value in marks.items() for word in ("--change", f"LABEL dom0.{key}={json.dumps(value)}")]
    engine_host.docker("commit", *changes, own, "sly:test")
    brought = engine_host.docker("run", "-d", "--stop-timeout", "60", "--name", "sly", "sly:test", "sh", "-c", script)
    assert on_host("stop", "web", "sly").stdout == "box-web-1\nsly\n"
    said = [engine_host.docker("logs", one).stdout for one in (own, brought.stdout.strip())]
    assert said == ["mine\n", ""]


def test_programs_get_the_containers_that_docker_stopped_and_the_lines_that_they_printed(
    on_host: RunCommand, engine_host: Host
) -> None:
    start(engine_host, "web", "echo here; sleep 600", number=1)
    engine_host.docker("wait", start(engine_host, "web", "printf '\\377\\n'", number=2))
    both = [{"service": "web", "container": "box-web-1"}, {"service": "web", "container": "box-web-2"}]
    for verb in ("stop", "start", "restart"):
        assert json.loads(on_host(verb, "web", "--json").stdout) == both
    line = json.loads(on_host("logs", "--json", "--tail", "1", "web").stdout.splitlines()[0])
    assert (line["service"], line["container"].startswith("box-web-")) == ("web", True)
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    texts = {json.loads(line)["text"] for line in on_host("logs", "--json").stdout.splitlines()}
    assert texts == {"here", "\ufffd"}
    refused = on_host("stop", "nosuch", "--json")
    assert json.loads(refused.stderr)["exit_code"] == refused.code == 2


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_logs_end_without_a_word_when_nobody_reads_any_more(
    environment: dict[str, str], engine_host: Host, options: list[str]
) -> None:
    script = "seq 20000; while sleep 0.1; do echo more; done"
    start(engine_host, "web", script)
    start(engine_host, "other", script)
    argv = [sys.executable, "-m", "dom0", "logs", *options]
    variables = environment | {"DOCKER_HOST": engine_host.docker_host}
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, env=variables) as printing:
        assert printing.stdout is not None
        assert printing.stderr is not None
        assert printing.stdout.readline().endswith("  | 1\n")
        printing.stdout.close()
        try:
            assert (printing.wait(60), printing.stderr.read()) == (141, "")
        finally:
            printing.kill()


# tree, down, doctor


def test_the_tree_says_who_started_whom_from_which_image(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker(
        "run", "-d", "--name", "dom0", *labels(project="box", role="root"), busybox.IMAGE, "sleep", "600"
    )
    start(engine_host, "web", "sleep 600")
    make_home(engine_host)
    engine_host.docker("run", "-d", "--name", "foreign", busybox.IMAGE, "sleep", "600")
    engine_host.docker("run", "-d", "--name", "mine", *labels(project="", role="dev"), busybox.IMAGE, "sleep", "600")
    nodes = json.loads(on_host("tree", "--json").stdout)
    image = engine_host.docker("image", "inspect", "--format", "{{.Id}}", busybox.IMAGE).stdout.strip()
    assert [(node["name"], node["started_by"]) for node in nodes] == [("dom0", "a person"), ("mine", "a person")]
    children = [(child["name"], child["generation"], child["image_id"]) for child in nodes[0]["children"]]
    assert children == [("home-volume", 0, image), ("box-web-1", 7, image)]
    drawn = on_host("tree").stdout.splitlines()
    assert drawn[0].endswith("running, started manually")
    assert drawn[0].startswith("dom0  busybox:test ")
    assert drawn[2].startswith("└── box-web-1  busybox:test ")


def test_down_removes_the_machine_and_keeps_volumes_and_what_is_not_its_own(
    on_host: RunCommand, engine_host: Host
) -> None:
    engine_host.docker("network", "create", *labels(project="box"), "box_default")
    engine_host.docker("volume", "create", *labels(project="box"), "box_data")
    engine_host.docker(
        "run", "-d", "--init", "--name", "dom0", *labels(project="box", role="root"), busybox.IMAGE, "sleep", "600"
    )
    start(engine_host, "web", "sleep 600")
    make_home(engine_host)
    engine_host.docker("run", "-d", "--name", "foreign", busybox.IMAGE, "sleep", "600")
    done = on_host("down")
    assert (done.code, done.stderr) == (0, "")
    assert engine_host.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["foreign"]
    assert "box_default" not in engine_host.docker("network", "ls", "--format", "{{.Name}}").stdout
    assert sorted(engine_host.docker("volume", "ls", "-q").stdout.split()) == ["box_data", "home-volume"]
    assert done.stdout.splitlines()[-1] == "volumes that stay: box_data"
    assert on_host("down").stdout == "nothing of dom0 is here\n"


def test_a_volume_is_deleted_only_if_it_is_named_and_ours(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker("volume", "create", *labels(project="box"), "box_data")
    engine_host.docker("volume", "create", "foreign")
    start(engine_host, "web", "sleep 600")
    refused = on_host("down", "--volumes", "box_data", "--volumes", "foreign")
    assert (refused.code, "dom0 did not make it" in refused.stderr) == (2, True)
    assert engine_host.docker("ps", "-q").stdout != ""
    removed = json.loads(on_host("down", "--volumes", "box_data", "--json").stdout)
    assert [(one["action"], one["kind"], one["name"]) for one in removed] == [
        ("remove", "container", "box-web-1"),
        ("remove", "volume", "box_data"),
    ]
    assert engine_host.docker("volume", "ls", "-q").stdout.split() == ["foreign"]
    assert on_host("down", "--json").stdout == "[]\n"


def test_where_nothing_is_each_command_says_what_starts_it(on_host: RunCommand, engine_host: Host) -> None:
    for command in ("tree", "logs"):
        shown = on_host(command)
        assert (shown.code, shown.stdout, shown.stderr) == (0, "", "nothing of dom0 is here; start it: dom0 up\n")
        assert on_host(command, "--quiet").stderr == ""
    for command in ("logs web", "logs dom0", "stop web", "start web", "restart web"):
        assert "none; dom0 up makes them" in on_host(*command.split()).stderr, command
    for command in ("exec web true", "status", "history", "rollback", "files", "confirm", "disk ls", "os status"):
        assert "start it: dom0 up" in on_host(*command.split()).stderr, command
    for command in ("ambassador ls", "home ls", "dev"):
        assert "dom0 up" in on_host(*command.split()).stderr, command


def test_down_does_not_guess_between_two_projects(on_host: RunCommand, engine_host: Host) -> None:
    start(engine_host, "web", "sleep 600")
    start(engine_host, "web", "sleep 600", project="other")
    assert on_host("down").code == 2
    assert on_host("down", "--project", "other").code == 0
    assert engine_host.docker("ps", "--format", "{{.Names}}").stdout.split() == ["box-web-1"]


@pytest.mark.parametrize("command", [("tree",), ("exec", "web", "true"), ("stop", "web")])
def test_an_engine_that_is_not_there_is_told_in_the_same_words_by_all(
    dom0: RunCommand, tmp_path: Path, command: tuple[str, ...]
) -> None:
    where = f"unix://{tmp_path}/none.sock"
    said = dom0(*command, env={"DOCKER_HOST": where})
    assert (said.code, said.stderr.splitlines()[0]) == (4, f"dom0: Docker Engine at {where}: there is no such socket")


def test_doctor_finds_the_engine(on_host: RunCommand) -> None:
    examined = on_host("doctor", "--json")
    found = {finding["check"]: finding for finding in json.loads(examined.stdout)}
    assert examined.code == 0
    assert found["Docker Engine"]["verdict"] == found["pip"]["verdict"] == "ok"
    assert set(found["Docker Engine"]) == {"check", "verdict", "found", "hint"}
    assert '"registry-mirrors": ["http://127.0.0.1:15050"]' in found["mirror"]["hint"]


def test_doctor_sees_whether_the_mirror_of_this_machine_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        info = EngineInfo(
            id="x",
            name="x",
            version="26.1",
            api_version="1.45",
            operating_system="Linux",
            machine="x86_64",
            memory=1,
            cpus=1,
            storage_driver="overlay2",
            root_dir="/",
            cgroup_version="2",
            mirrors=("https://mirror.example", url),
        )
        assert mirror(info).verdict == "ok"
        assert mirror(info).found == url
    assert mirror(info).verdict == "warning"
    assert "Connection refused" in mirror(info).found


def test_doctor_names_what_is_missing_and_how_to_mend_it(dom0: RunCommand) -> None:
    examined = dom0("doctor", env={"PATH": "/nonexistent"})
    assert examined.code == 1
    lines = examined.stdout.splitlines()
    docker = lines.index("missing  docker: not on PATH")
    assert lines[docker + 1].strip() == "apt-get install docker-cli"
    assert any(line.startswith("missing  Docker Engine: ") for line in lines)


WITHOUT_PIP = """
import sys
sys.modules.update(pip=None, ensurepip=None)
from dom0.cli import main
sys.argv = ["dom0", "doctor"]
main()
"""


def test_doctor_sees_that_pip_was_left_out(environment: dict[str, str]) -> None:
    """As `uv tool install dom0` does."""
    argv = [sys.executable, "-c", WITHOUT_PIP]
    examined = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = examined.stdout.splitlines()
    (pip,) = (number for number, line in enumerate(lines) if line.startswith("warning  pip: not beside this dom0"))
    assert "uv tool install --with pip dom0" in lines[pip + 1]


def test_an_old_plugin_is_named_with_the_version_it_should_have(dom0: RunCommand, tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho Docker Compose version 2.3.4\n")
    program.chmod(0o755)
    examined = dom0("doctor", env={"PATH": str(tmp_path)})
    assert "missing  docker compose: Docker Compose version 2.3.4, older than 2.24" in examined.stdout


@pytest.mark.parametrize(
    ("compose", "buildx", "finding"),
    [
        ("2.26.1-4", "0.13.1+ds1", "ok       docker buildx: github.com/docker/buildx 0.13.1+ds1"),
        ("2.26.1-4", "0.10.4", "missing  docker buildx: github.com/docker/buildx 0.10.4, older than 0.11"),
        ("2.40.3", "0.13.1", "missing  docker buildx: github.com/docker/buildx 0.13.1, older than 0.17"),
        ("v5.0.0", "v0.16.2", "missing  docker buildx: github.com/docker/buildx v0.16.2, older than 0.17"),
        ("v2.40.3", "v0.17.0", "ok       docker buildx: github.com/docker/buildx v0.17.0"),
    ],
)
def test_buildx_is_as_new_as_the_compose_that_calls_it_wants(
    dom0: RunCommand, tmp_path: Path, compose: str, buildx: str, finding: str
) -> None:
    program = tmp_path / "docker"
    program.write_text(
        f"#!/bin/sh\n"
        f"case $1 in buildx) echo github.com/docker/buildx {buildx};; *) echo Docker Compose version {compose};; esac\n"
    )
    program.chmod(0o755)
    assert finding in dom0("doctor", env={"PATH": str(tmp_path)}).stdout.splitlines()


# status


def test_a_dom0_without_a_socket_has_just_started(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker("run", "-d", "--name", "dom0", busybox.IMAGE, "sleep", "1000")
    refused = on_host("status")
    assert refused.code == 1
    assert refused.stderr.startswith("dom0: dom0: runs, and does not answer yet\n      ask again in a moment")
