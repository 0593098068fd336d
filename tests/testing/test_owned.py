"""Several workers of one run begin at about the same time, and each sweeps what a killed run left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dom0.testing import owned

SWEEP = "import sys, time; from dom0.testing import owned; time.sleep(float(sys.argv[1])); owned.sweep()"


def test_sweeps_bear_that_another_one_removes_what_they_read(engines_possible: None) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"{owned.PREFIX}{owned.owner_name().split('-')[2]}-{gone.pid}-1"
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        for container in range(300) if (hierarchy / "cgroup.procs").exists() else ():
            (hierarchy / name / "guest" / str(container)).mkdir(parents=True)
    commands = [[sys.executable, "-c", SWEEP, str(number / 30)] for number in range(12)]
    sweeps = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [sweep.communicate()[1] for sweep in sweeps]
    assert said == [""] * len(sweeps)
    assert name not in owned.leftovers()
