"""What `dom0 up` knows of the machine before it starts an agent, and what it says when it is ended then."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from dom0.agent.status import UpRequest
from dom0.cli import bring_up
from dom0.cli.bring_up import what_runs
from dom0.cli.report import Report
from dom0.cli.root_start import RootStart
from dom0.engine.values import Image
from dom0.errors import Interrupted
from dom0.images.built import Built
from dom0.testing.fake_agent import serving
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_whose_files_may_not_be_read_is_asked_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        run.chmod(0o755)
        monkeypatch.setenv("DOM0_RUN", directory)
        monkeypatch.setenv("DOM0_STATE", str(tmp_path))
        tmp_path.chmod(0o700)
        with serving(run / "dom0.sock") as fake:
            (run / "dom0.sock").chmod(0o666)
            assert what_runs(asks=False).project == ""
            os.seteuid(NOBODY)
            try:
                assert what_runs(asks=False).project == "box"
            finally:
                os.seteuid(0)
        assert [what for what, _ in fake.asked] == ["GET /v1/status"]


@pytest.mark.parametrize(("has_started", "ends"), [(True, Interrupted), (False, asyncio.CancelledError)])
async def test_ctrl_c_while_a_login_is_asked_for_says_that_a_start_goes_on_where_one_does(
    monkeypatch: pytest.MonkeyPatch, *, has_started: bool, ends: type[BaseException]
) -> None:
    """`CancelledError` takes the image's mark away, without which an agent does not put names right."""

    async def become(*_: object, **__: object) -> tuple[None, bool, bool]:
        return None, False, has_started

    async def ask(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(bring_up, "_become", become)
    monkeypatch.setattr(bring_up, "logins_for", ask)
    built = Built(Image(id="sha256:1", tags=()), changed=False)
    with pytest.raises(ends):
        await bring_up._take_up(FakeEngine(FakeDocker()), built, None, UpRequest(), RootStart(), Report(), wait=True)
