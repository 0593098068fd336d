"""How far pulls are, in the words of `dom0 status`, `dom0 up` and `dom0 image pull`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.agent.status import Progress, PullStatus
from dom0.cli import kept_reading
from dom0.cli.bring_up import logins_for
from dom0.cli.pulls import describe
from dom0.cli.status import lines
from dom0.compose.model import Project, Service
from dom0.engine.values import Image
from dom0.images.built import Built
from dom0.testing.builders import image_id
from dom0.testing.fake_agent import EndlessLines, FakeAgent, make_status
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

HALFWAY = PullStatus(image="redis:7", size=2_000_000, have=500_000, rate=1e5, left=15.0, drops=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0, "have": 0}, "asks for it"),
        ({}, "25% of 2MB, 100kB/s, 15s left, 3 drops"),
        ({"waits_for": "connection refused", "waits_until": 112.0}, "25% of 2MB, waits 12s: connection refused"),
        ({"have": 2_000_000}, "100% of 2MB, the Engine takes it"),
        ({"note": "as a whole only"}, "25% of 2MB, 100kB/s, 15s left, 3 drops; as a whole only"),
    ],
)
def test_how_far_a_pull_is_in_words(changes: dict[str, Any], words: str) -> None:
    assert describe(replace(HALFWAY, **changes), 100.0) == f"redis:7: {words}"


def test_status_shows_what_is_pulled_and_escapes_what_a_registry_says() -> None:
    rude = replace(HALFWAY, waits_for="\x1b[2Jno", waits_until=12.0)
    text = lines(replace(make_status(), pulls=(HALFWAY, rude), now=10.0))
    at = text.index("Pulling:")
    assert text[at + 1] == "  redis:7: 25% of 2MB, 100kB/s, 15s left, 3 drops"
    assert text[at + 2] == r"  redis:7: 25% of 2MB, waits 2s: \x1b[2Jno"


@pytest.mark.parametrize("built_before", [False, True])
async def test_the_agent_gets_the_logins_of_what_it_pulls_and_one_that_cannot_be_had_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_before: bool
) -> None:
    for name in ("DOCKER_CONFIG", "DOM0_STATE", "DOM0_RUN"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "generations").mkdir()
    auths = {name: {"auth": b64encode(b"guest:secret").decode()} for name in ("one.example", "other.example")}
    programs = {"two.example": "is-not-installed"}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "credHelpers": programs}))
    services = {name: Service(image=f"{name}.example/app") for name in ("one", "two")}
    box = Project(name="box", services=services)
    kept_reading.keep(Built(Image(id=image_id("dom0"), tags=()), changed=True, project=box))
    said: list[str] = []
    given = None if built_before else box
    logins = await logins_for(FakeEngine(FakeDocker()), image_id("dom0"), given, said.append)
    assert json.loads(bytes(logins)) == {"one.example": {"user": "guest", "password": "secret", "identity_token": ""}}
    (text,) = said
    assert text.startswith("two.example: asked without a login of yours: ")
    assert "secret" not in text


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_ends_a_pull_and_nothing_that_has_begun(
    agent: FakeAgent, environment: dict[str, str], begun: bool
) -> None:
    agent.answers["POST /v1/rollback"] = EndlessLines([Progress(pulls=(HALFWAY,))])
    agent.answers["GET /v1/status"] = agent.answers["POST /v1/abort"] = replace(
        make_status(), pulls=() if begun else (HALFWAY,)
    )
    argv = [sys.executable, "-m", "dom0", "rollback"]
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, env=environment) as watching:
        assert watching.stdout is not None
        assert "redis:7: 25% of 2MB, 100kB/s, 15s left, 3 drops" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        try:
            _, said = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert ("POST /v1/abort" in dict(agent.asked)) is not begun
    assert ("goes on without this command" in said) is begun
    assert ("redis:7: not pulled, and nothing was changed; what has come is kept" in said) is not begun
