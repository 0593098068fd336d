"""How far one container has come, in the words that people are shown."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    MISSING = "missing"
    WAITING = "waiting"  # for what it depends on
    CREATED = "created"
    STARTING = "starting"  # runs, its health check has not passed yet
    READY = "ready"  # runs, and healthy where it can say so
    UNHEALTHY = "unhealthy"
    COMPLETED = "completed"  # a job that ended with 0
    SCHEDULED = "scheduled"  # a job that is not due
    FAILED = "failed"  # ended by itself, will be tried again
    CRASH_LOOP = "crash-loop"  # failed too often: waits for `dom0 up`
    STOPPED = "stopped"  # by a person
    DATA = "data"  # created and never started, as meant: home-volume
