"""How the command line begins and ends: help, errors, exit codes, global options."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from dom0.cli.commands import _OF_COMPOSE, cli
from dom0.cli.modules import MODULES
from dom0.run import Output
from dom0.testing.fake_agent import EndlessLines, FakeAgent, make_status

RunCommand = Callable[..., Output]


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that a person can call, with its whole name."""
    ctx = click.Context(cli)
    for name in cli.list_commands(ctx):
        command = cli.get_command(ctx, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", child) for sub, child in command.commands.items())


COMMANDS = dict(all_commands())
GROUPS = [
    name for name, found in COMMANDS.items() if isinstance(found, click.Group) and not found.invoke_without_command
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""
    assert f"$ dom0 {name.split()[0]}" in text or f"| dom0 {name}" in text or f"<(dom0 {name}" in text
    assert text[0].isupper()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    silent = [one.opts for one in COMMANDS[name].params if isinstance(one, click.Option) and not one.help]
    assert silent == []


def test_help_lists_every_command_that_is_not_hidden(dom0: RunCommand) -> None:
    shown = dom0("--help")
    assert shown.code == 0
    hidden = ["agent", "backup-job", "handover", "notify-send", "ps", "web-serve"]
    assert [name for name in MODULES if f"\n  {name} " not in shown.stdout] == hidden


def test_an_unknown_command_ends_with_2_and_names_the_nearest(dom0: RunCommand) -> None:
    refused = dom0("staus")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr == "dom0: staus: unknown command\n      did you mean `dom0 status`?\n"


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_commands_without_cutting_off_what_they_do(dom0: RunCommand, group: str) -> None:
    assert "..." not in dom0(group, "--help").stdout.partition("\nCommands:\n")[2]


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_group_alone_shows_its_help_as_help(dom0: RunCommand, group: str) -> None:
    shown, asked = dom0(*group.split()), dom0(*group.split(), "--help")
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.stdout == asked.stdout


@pytest.mark.parametrize(
    ("word", "leads_to"),
    [
        *[("run", "dom0 exec"), ("pull", "dom0 image fetch"), ("config", "docker compose config"), ("rm", "dom0 up")],
        *[("port", "dom0 status"), ("create", "dom0 up"), ("cp", "docker cp"), ("unpause", "docker unpause")],
        *[("bridge", "docker compose"), ("commit", "docker commit"), ("export", "dom0 image save")],  # of Compose 2.40
        *[("publish", "dom0 image save"), ("volumes", "docker volume ls")],
    ],
)
def test_words_of_compose_that_mean_nothing_here_lead_to_what_does_it(
    dom0: RunCommand, word: str, leads_to: str
) -> None:
    refused = dom0(word)
    assert refused.code == 2
    assert refused.stderr.startswith(f"dom0: {word}: unknown command\n")
    assert leads_to in refused.stderr


def test_every_word_of_compose_is_a_command_or_leads_to_one() -> None:
    said = subprocess.run(["docker", "compose", "--help"], capture_output=True, text=True, check=True).stdout
    words = re.findall(r"^  (\w+) ", said.partition("Commands:")[2], flags=re.MULTILINE)
    assert len(words) > 20
    assert set(words) <= {*MODULES, *_OF_COMPOSE, "version"}


def test_a_number_that_is_none_is_called_that(dom0: RunCommand) -> None:
    assert "'second' is no whole number" in dom0("rollback", "second").stderr


def test_ps_is_status(agent: FakeAgent, dom0: RunCommand) -> None:
    assert dom0("ps").stdout == dom0("status").stdout


def test_down_deletes_no_volume_without_its_name(dom0: RunCommand) -> None:
    refused = dom0("down", "-v")
    assert (refused.code, "needs the name of a volume" in refused.stderr) == (2, True)


def test_an_error_is_a_document_where_json_is_asked_for(dom0: RunCommand) -> None:
    refused = dom0("status", "--json")
    document = json.loads(refused.stderr)
    assert document == {"message": "dom0: does not run here", "hint": "start it: dom0 up", "exit_code": 1}


def test_a_wrong_option_ends_with_2_and_says_where(dom0: RunCommand) -> None:
    refused = dom0("status", "--jsn")
    assert refused.code == 2
    assert refused.stderr.startswith("dom0: status: No such option '--jsn'.")
    assert "`dom0 status --help`" in refused.stderr


def test_where_no_dom0_runs_the_error_says_what_to_do(dom0: RunCommand) -> None:
    refused = dom0("status")
    assert (refused.code, refused.stderr) == (1, "dom0: dom0: does not run here\n      start it: dom0 up\n")


def test_where_no_engine_answers_the_exit_code_is_4(dom0: RunCommand) -> None:
    refused = dom0("tree")
    assert refused.code == 4
    assert refused.stderr.startswith("dom0: ")


def test_the_host_option_is_understood_before_and_after_the_command(dom0: RunCommand) -> None:
    before, after = dom0("--host", "ftp://x", "tree"), dom0("tree", "-H", "ftp://x")
    assert (before.code, after.code) == (4, 4)
    assert before.stderr == after.stderr
    assert "ftp://x" in before.stderr


def test_control_characters_of_arguments_do_not_reach_the_terminal(dom0: RunCommand) -> None:
    refused = dom0("\x1b[31mred")
    assert "\x1b" not in refused.stderr
    assert r"\x1b[31mred" in refused.stderr


def test_nobody_who_reads_the_output_is_no_error(agent: FakeAgent, environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dom0", "status"], stdout=writing, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_ends_with_130_and_without_a_trace(agent: FakeAgent, environment: dict[str, str]) -> None:
    agent.answers["GET /v1/watch"] = EndlessLines([make_status()])
    running = subprocess.Popen(
        [sys.executable, "-m", "dom0", "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert (running.returncode, stderr.strip()) == (130, b"")


INTERRUPTED_WHILE_IT_LOADS = """
import os, signal, sys
from importlib.metadata import entry_points

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "dom0.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
[command] = entry_points(group="console_scripts", name="dom0")
command.load()()
"""


def test_an_interrupt_while_the_command_loads_is_as_quiet() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_WHILE_IT_LOADS], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_completion_of_services_comes_from_the_agent(agent: FakeAgent, dom0: RunCommand) -> None:
    asked = {"_DOM0_COMPLETE": "bash_complete", "COMP_WORDS": "dom0 logs re", "COMP_CWORD": "2"}
    assert dom0(env=asked).stdout == "plain,redis\n"


def test_completion_without_an_agent_is_empty_and_quiet(dom0: RunCommand) -> None:
    asked = {"_DOM0_COMPLETE": "bash_complete", "COMP_WORDS": "dom0 logs ", "COMP_CWORD": "2"}
    completed = dom0(env=asked)
    assert (completed.stdout.strip(), completed.stderr) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_for_the_shell(shell: str, dom0: RunCommand) -> None:
    script = dom0("completion", shell)
    assert script.code == 0
    assert f"_DOM0_COMPLETE={shell}_complete" in script.stdout


def test_starting_a_command_loads_nothing_that_it_does_not_need() -> None:
    script = "import sys; from dom0.cli import commands, up, status, dev, exec, version; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"h11", "rich", "yaml", "asyncio", "dataclasses", "dom0.compose.model"} & set(loaded)


def test_the_agent_starts_without_what_few_starts_need() -> None:
    """`dom0 up` has read the project, and most have no ambassador and no scope."""
    script = "import sys, dom0.cli.agent, dom0.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    needless = {
        "yaml",
        "rich",
        "dom0.compose.load",
        "dom0.images.project",
        "dom0.agent.shortcut",
        "dom0.socketproxy.budget",
        "dom0.images.pull",
    }
    needless |= {name for name in loaded if name.startswith("dom0.registry")}
    assert not needless & set(loaded)


def test_a_node_of_a_farm_starts_without_what_its_server_a_registry_and_swarm_mode_need() -> None:
    script = "import sys; from dom0.farms import base_os, follow, join; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    needless = {f"dom0.farms.{name}" for name in ("directory", "orders", "rollout", "settings", "float_follow")}
    needless |= {"yaml", "ctypes", "email", "dom0.registry.client", "dom0.registry.mirrors", "dom0.engine.swarm"}
    assert not needless & set(loaded)


@pytest.mark.parametrize("in_background", [False, True])
def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path, in_background: bool) -> None:
    """A shell starts what runs in the background with SIGINT ignored."""
    (tmp_path / "compose.yaml").write_text("services: {a: {image: i}}\n")
    with socket.socket(socket.AF_UNIX) as engine:  # takes the question, and never answers
        engine.bind(str(tmp_path / "engine.sock"))
        engine.listen()
        engine.settimeout(60)
        env = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/engine.sock", "DOM0_RUN": str(tmp_path)}
        argv = [sys.executable, "-m", "dom0", "build", str(tmp_path)]
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_background else None
        command = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
        if before is not None:
            signal.signal(signal.SIGINT, before)
        asked, _ = engine.accept()
        with asked:
            asked.settimeout(60)
            assert asked.recv(1)
            command.terminate()
            assert command.communicate(timeout=60)[1] == "\n"
    assert command.returncode == 143


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"), [("--help", 0), ("version", 0), ("status --json", 0), ("nosuch", 2), ("ssh add -", 2)]
)
def test_a_stream_that_the_caller_has_closed_changes_no_exit_code(
    environment: dict[str, str], agent: FakeAgent, stream: str, words: str, code: int
) -> None:
    script = f"exec {sys.executable} -m dom0 {words} {stream}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
