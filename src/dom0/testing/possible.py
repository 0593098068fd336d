"""What a machine cannot run is skipped by its tests, but never in CI."""

from __future__ import annotations

import os

import pytest


def require(missing: str, what: str) -> None:
    """Skip, and say why, where something is `missing` for `what`; in CI that is a failure."""
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI must run {what}, and cannot: {missing}")
    if missing:
        pytest.skip(f"no {what} here: {missing}")
