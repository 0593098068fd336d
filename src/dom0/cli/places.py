"""The two directories that dom0 has on a host, and its socket."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    return Path(os.environ.get("DOM0_STATE") or "/var/lib/dom0")


def run_directory() -> Path:
    return Path(os.environ.get("DOM0_RUN") or "/run/dom0")


def agent_socket() -> Path:
    return run_directory() / "dom0.sock"
