"""The boot contract, as the base OS has read it: what whoever started this machine wants of it. docs/os.md."""

from __future__ import annotations

from pathlib import Path


def get(run: Path, key: str) -> str:
    """The value of `key`, "" if it has none or this host does not run the base OS. `run`: dom0's run directory."""
    try:
        lines = (run / "os" / "contract").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{key}=")), "")
