"""What `dom0 up` knows of the machine before it starts an agent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dom0.cli.bring_up import what_runs
from dom0.testing.fake_agent import serving

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
