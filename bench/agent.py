"""What the agent costs while nothing happens, and how fast it puts back what was removed."""

from __future__ import annotations

import time
from pathlib import Path

from bench import projects
from bench.tools import Dom0, service_containers, timestamp
from dom0.testing import api
from dom0.testing.hosts import Host

ROOT = "dom0"  # the root container
_REPLACED_WITHIN = 30.0  # seconds; longer fails the run


def memory(host: Host) -> float:
    """MB (10^6 bytes) of the root container's processes, shared pages counted in proportion (PSS)."""
    rows = api.request(host.socket, "GET", f"/containers/{ROOT}/top", query={"ps_args": "-o pid"})["Processes"]
    return sum(pss(host.path(f"/proc/{pid}")) for (pid,) in rows)


def pss(process: Path) -> float:
    """MB of the process whose directory in /proc that is."""
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def idle_cpu(host: Host, window: float) -> float:
    """Percent of one core that the root container uses over `window` seconds, its health checks included."""
    before, start = _cpu_seconds(host), time.monotonic()
    time.sleep(window)
    return 100 * (_cpu_seconds(host) - before) / (time.monotonic() - start)


def removed_to_running(host: Host, service: str) -> float:
    """Seconds from the end of `docker rm -f` of a service's container to the start of its replacement."""
    (old,) = service_containers(host, Dom0.name, service)
    api.request(host.socket, "DELETE", f"/containers/{old['Id']}", query={"force": "1"})
    removed = time.time()
    while time.time() < removed + _REPLACED_WITHIN:
        for row in service_containers(host, Dom0.name, service):
            if row["Id"] != old["Id"]:
                state = api.request(host.socket, "GET", f"/containers/{row['Id']}/json")["State"]
                return timestamp(state["StartedAt"]) - removed
        time.sleep(0.02)
    raise TimeoutError(f"{service}: not running {_REPLACED_WITHIN:g} s after it was removed")


def create_and_start(host: Host) -> float:
    """Seconds that the Engine takes for the same container when it is asked directly."""
    body = {"Image": projects.IMAGE, "Cmd": ["sleep", "1000000"], "HostConfig": {"Init": True}}
    start = time.time()
    container = api.request(host.socket, "POST", "/containers/create", body)["Id"]
    api.request(host.socket, "POST", f"/containers/{container}/start")
    state = api.request(host.socket, "GET", f"/containers/{container}/json")["State"]
    api.request(host.socket, "DELETE", f"/containers/{container}", query={"force": "1"})
    return timestamp(state["StartedAt"]) - start


def _cpu_seconds(host: Host) -> float:
    query = {"stream": "0", "one-shot": "1"}
    stats = api.request(host.socket, "GET", f"/containers/{ROOT}/stats", query=query)
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
