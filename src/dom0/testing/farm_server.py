"""A farm's server for which a node counts as gone after seconds, not minutes: `python -m` this, with dom0's words."""

from __future__ import annotations

from dom0 import cli
from dom0.farms import orders, rollout

SILENT = 10.0  # seconds

if __name__ == "__main__":
    rollout.SILENT = SILENT
    orders.WAIT = SILENT / 5
    cli.main()
