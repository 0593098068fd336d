"""`make bench`: measure, print the table, write docs/benchmarks.md.

Both tools take turns on one Engine, on a host of its own; a line is the median of its rounds.
`--rounds N` and `--only WORD` make it short; then nothing is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

from bench import agent, projects
from bench.report import REPORT, Row, at_most, at_most_more, at_most_ratio, table, write_section
from bench.tools import DOM0, Compose, Dom0, Up, seconds
from dom0.testing import chain, owned
from dom0.testing.hosts import Host

IDLE_WINDOW = 130.0  # seconds; a health check of the root container, every two minutes, falls into it
COMPOSE_UP = "docker compose up -d"


class Bench:
    def __init__(self, host: Host, rounds: int) -> None:
        self.host = host
        self.rounds = rounds
        directory = host.root / "bench"
        self.compose = Compose(host, directory)
        self.dom0 = Dom0(host, directory)

    def sleepers(self, count: int) -> list[Row]:
        """Cold `up`, `up` with nothing to do, one change, `down`: with `count` services."""
        compose, dom0 = Life(self.compose, count), Life(self.dom0, count)
        for number in range(self.rounds):
            for life in (compose, dom0) if number % 2 == 0 else (dom0, compose):
                life.live(number)
        named = f"{count} services"
        return [
            *_compared(f"cold `up`, {named}: the last one", dom0.cold, compose.cold, 1.15 if count <= 10 else 1.05),
            at_most_ratio(f"`up` with nothing to do, {named}", dom0.nothing, compose.nothing, COMPOSE_UP, 0.7),
            *_compared(f"a change of one in {named}: it", dom0.change, compose.change, 1.2),
            Row(f"`down`, {named}", dom0.down, compose.down, "docker compose down"),
            Row(f"`dom0 build` after that change, {named}", dom0.build),
        ]

    def health_chain(self) -> list[Row]:
        """Six services, each waiting for the one before to be healthy; interval 1 s."""
        ups: dict[str, list[Up]] = {self.compose.name: [], self.dom0.name: []}
        for number in range(self.rounds):
            for tool in (self.compose, self.dom0):
                tool.write(projects.health_chain(tool.name, 6, version=str(number)))
                if isinstance(tool, Dom0):
                    tool.build()
                ups[tool.name].append(tool.up(healthy=True))
                tool.down()
        ours, theirs = ups[self.dom0.name], ups[self.compose.name]
        what = "six `service_healthy` in a chain, interval 1 s"
        beside = f"{COMPOSE_UP} --wait"
        running = [up.all_running for up in ours], [up.all_running for up in theirs]
        returned = [up.returned for up in ours], [up.returned for up in theirs]
        return [
            at_most_ratio(f"{what}: the last one runs", *running, beside, 0.3),
            at_most_ratio(f"{what}: the command returns", *returned, beside, 0.3),
        ]

    def small_commands(self) -> list[Row]:
        """On a machine with ten services."""
        self.start_machine(10)
        dev: list[float] = []
        run: list[float] = []
        status: list[float] = []
        back: list[float] = []
        direct: list[float] = []
        for number in range(3 * self.rounds):
            dev.append(seconds(self.host, [DOM0, "dev", projects.IMAGE, "true"]))
            run.append(seconds(self.host, ["docker", "run", "--rm", projects.IMAGE, "true"]))
            status.append(self.dom0.status())
            back.append(agent.removed_to_running(self.host, f"s{number % 10:03}"))
            direct.append(agent.create_and_start(self.host))
        self.dom0.down()
        return [
            at_most_more("`dom0 dev IMAGE true`", dev, run, "docker run --rm IMAGE true", 0.150),
            at_most_more("`docker rm -f` of a service: it runs again after", back, direct, "create + start", 0.100),
            at_most("`dom0 status`, 10 services, wall time", status, 0.150, "ms"),
        ]

    def agent_at_rest(self, count: int) -> list[Row]:
        self.start_machine(count)
        memory, cpu = agent.memory(self.host), agent.idle_cpu(self.host, IDLE_WINDOW)
        self.dom0.down()
        return [
            at_most(f"agent with {count} containers, memory", [memory], 60, "MB"),
            at_most(f"agent with {count} containers, idle, of a core", [cpu], 0.5, "%"),
        ]

    def start_machine(self, count: int) -> None:
        self.dom0.write(projects.sleepers(self.dom0.name, count, version="at rest"))
        self.dom0.up()
        self.dom0.settle()


def _compared(what: str, dom0: list[Up], compose: list[Up], goal: float) -> list[Row]:
    running = [up.all_running for up in dom0], [up.all_running for up in compose]
    returned = [up.returned for up in dom0], [up.returned for up in compose]
    return [
        at_most_ratio(f"{what} runs", *running, COMPOSE_UP, goal),
        at_most_ratio(f"{what} runs and the command has returned", *returned, COMPOSE_UP, goal),
        at_most(f"{what} runs: the command returns after", [up.after for up in dom0], 0.200, "ms"),
    ]


class Life:
    """One tool with `count` services, round after round, and what its commands took."""

    def __init__(self, tool: Compose | Dom0, count: int) -> None:
        self._tool = tool
        self._count = count
        self.cold: list[Up] = []
        self.nothing: list[float] = []
        self.change: list[Up] = []
        self.down: list[float] = []
        self.build: list[float] = []

    def live(self, number: int) -> None:
        """The images are built before the clock of a cold start runs: Compose has none to build."""
        self._write(f"{number} cold")
        if isinstance(self._tool, Dom0):
            self._tool.build()
        self.cold.append(self._tool.up())
        self._tool.settle()
        self.nothing += [self._tool.up().returned for _ in range(3)]
        self._write(f"{number} changed")
        self.change.append(self._tool.up())
        self._tool.settle()
        self.down.append(self._tool.down())
        if isinstance(self._tool, Dom0):
            self._write(f"{number} built")
            self.build.append(self._tool.build())

    def _write(self, version: str) -> None:
        self._tool.write(projects.sleepers(self._tool.name, self._count, version=version))


def main() -> None:
    arguments = _arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # our own commands keep their byte code, as anybody's do
    owned.sweep()
    with Host(name="bench") as host:
        chain.provide(host)
        bench = Bench(host, arguments.rounds)
        parts: dict[str, Callable[[], list[Row]]] = {
            "10 services": lambda: bench.sleepers(10),
            "50 services": lambda: bench.sleepers(50),
            "health chain": bench.health_chain,
            "small commands": bench.small_commands,
            "10 at rest": lambda: bench.agent_at_rest(10),
            "200 at rest": lambda: bench.agent_at_rest(200),
        }
        rows: list[Row] = []
        for name, part in parts.items():
            if arguments.only in name:
                start = time.monotonic()
                rows += part()
                print(f" ok {name} ({time.monotonic() - start:.0f} s)", flush=True)
        facts = _facts(host, arguments.rounds)
    print(table(rows))
    if not arguments.only and arguments.rounds == _ROUNDS:
        write_section(REPORT, "The machine", f"{_HEAD}\n{facts}\n\n{table(rows)}")


def _facts(host: Host, rounds: int) -> str:
    engine = host.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    compose = host.docker("compose", "version", "--short").stdout.strip()
    kernel = platform.release()
    return (
        f"Measured {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, Linux {kernel}, Docker Engine {engine}, "
        f"Compose {compose}, Python {platform.python_version()}; medians of {rounds} rounds."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument("--only", default="", metavar="WORD", help="only the parts with WORD in their names")
    return parser.parse_args()


_ROUNDS = 7
_HEAD = """\
`make bench` writes this part. In one run, on one Docker Engine, dom0 and what a person would take instead take turns
at the same project; every number is a median. The services are `busybox sleep` with `init: true`. A ratio below 1 means
that dom0 is faster.

- **cold `up`**: nothing of the project runs, not even the root container; the images are there. For Compose the agent
  does not exist, so dom0 pays for its start here.
- **the last one runs**: by the Engine's own clock, when the last container of the project was started.
- **the command returns**: `docker compose up -d` returns when the last container was started, `dom0 up` when
  everything is ready. What follows, `x-dom0.rollout.monitor` and a change of the root container, is waited for before
  anything else is measured.
- **a change of one**: `dom0 up` makes a dom0 image with the change, the agent takes the project of that image over and
  replaces the one service; once that is good, a root container of the new image takes the agent's place.
- Where it falls short: before the first service of a cold `up` comes the root container with its agent, before a change
  the start of Python, a Compose that only reads, and the image. `docker compose` alone has none of that. It is the same
  for two services and for two hundred.
- A cold `up` of ten services takes longer, by the Engine's log and a trace: 30 ms until the command asks for the root
  container, 120 until that runs, 90 until its agent is loaded, 25 until that asks for the first container; Compose has
  a network to create before, and asks sooner. The rest of the command is loaded meanwhile, in 0.1 s of processor time,
  and creates the network; what the build has read is read no second time. What comes then are containers that start, as
  with Compose, but for 6 ms of the agent's processor time for each of them. On two cores at most sixteen steps are
  under way at a time, so that many services do not swamp a small machine; Compose has no limit.
- A change takes longer because 100 ms go by until Compose has been started to read the project, 45 until it has, 60
  with the image and what the Engine is asked. More than half of that comes back, because the new container runs before
  the old one is stopped. The command returns after that stop and two renames, 105 ms later.
- **at rest**: memory is the proportional set size of the root container's processes, processor time is that of its
  control group over 130 seconds, with a health check in it.
"""

if __name__ == "__main__":
    main()
