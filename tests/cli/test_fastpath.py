"""What is done before click is loaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.cli import unchanged
from dom0.plan import labels
from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent

RunCommand = Callable[..., Output]
HEAVY = ("click", "msgspec", "asyncio", "http.client", "dataclasses", "ssl", "shutil")


@pytest.mark.parametrize(
    "module",
    [
        *("cli.fastpath", "cli.unchanged", "cli.root_start", "engine.address", "engine.answer"),
        *("images.fingerprint", "images.recipe"),  # of an `up` with nothing to do
    ],
)
def test_it_loads_nothing_that_takes_long_to_load(module: str) -> None:
    script = f"import sys, dom0.{module}; print(*sorted(set(sys.modules) & {set(HEAVY)}))"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path[:0] = {sys.path}; {script}"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.split() == []


def test_up_asks_for_the_root_container_before_what_reads_and_plans_is_loaded() -> None:
    first = "dom0.cli.bring_up, dom0.engine.docker, dom0.images.names, dom0.agent.in_place, dom0.agent.handover"
    late = {"dom0.agent.foresee", "dom0.agent.source", "dom0.images.project", "dom0.compose.load"}
    script = f"import sys; sys.path[:0] = {sys.path}; import {first}; print(*set(sys.modules) & {late})"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_agent_waits_for_the_engine_before_anything_else_is_loaded(tmp_path: Path) -> None:
    """As a boot has it: the Engine starts this container, and answers when it has started the others too."""
    path = tmp_path / "docker.sock"
    script = "import sys; sys.modules['click'] = None; from dom0.cli import fastpath; fastpath.answer(['agent'])"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        argv = [sys.executable, "-c", script]
        places = {"DOM0_STATE": str(tmp_path / "state"), "DOM0_RUN": str(tmp_path / "run")}
        environment = os.environ | {"DOCKER_HOST": f"unix://{path}"} | places
        engine.settimeout(60)
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment) as agent:
            loaded = Path(f"/proc/{agent.pid}/maps")
            try:
                with engine.accept()[0] as asking:
                    assert "_asyncio" not in loaded.read_text()
                    assert asking.recv(4096)  # what is closed with something unread is reset, and its answer lost
                    asking.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")
                with engine.accept()[0] as asking:  # what takes the Engine long, while all else is loaded
                    assert asking.recv(4096).startswith(b"GET /info ")
                with engine.accept()[0]:  # the agent, without click; it may end when this is closed
                    assert "_asyncio" in loaded.read_text()
            finally:
                agent.kill()


def test_the_health_check_is_well_while_the_agent_answers(dom0: RunCommand, agent: FakeAgent) -> None:
    assert dom0("agent", "--check") == Output(0, "", "")
    assert agent.asked == [("GET /v1/status", b"")]


def test_the_health_check_says_what_the_agent_refused_with(dom0: RunCommand, agent: FakeAgent) -> None:
    agent.refusals["GET /v1/status"] = (500, {"message": "it broke", "hint": "mend it"})
    assert dom0("agent", "--check") == Output(1, "", "dom0: it broke\n      mend it\n")


def test_the_health_check_without_an_agent_says_so(dom0: RunCommand) -> None:
    assert dom0("agent", "--check").stderr == "dom0: dom0: does not run here\n      start it: dom0 up\n"


@pytest.mark.parametrize("answer", [b"[]", b"no JSON", b'{"generation": 3}', b'{"generation": {"outcome": "good"}}'])
def test_a_status_of_another_version_leaves_it_to_the_command(
    dom0: RunCommand, agent: FakeAgent, tmp_path: Path, answer: bytes
) -> None:
    agent.answers["GET /v1/status"] = answer
    (tmp_path / "compose.yaml").touch()
    refused = dom0("up", str(tmp_path))
    assert refused.code == 4
    assert refused.stderr.startswith("dom0: Docker Engine at unix:")


def test_a_plain_up_does_without_click(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: box\nservices: {a: {image: i}}\n")
    script = f"""
import sys
from dom0 import cli
code = cli.run(["up", {str(tmp_path)!r}])
print(code, "asyncio" in sys.modules, "click" in sys.modules)
"""
    environment = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "4 True False\n", done.stderr


def test_an_image_of_a_dockerfile_that_is_gone_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: box\nservices: {a: {image: i}}\n")
    image = unchanged.ListedImage("sha256:1", {labels.DOCKERFILE: "Dockerfile"})
    assert not unchanged.is_current(tmp_path, "dom0:latest", {"dom0:latest": image})
