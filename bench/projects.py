"""The projects that are measured. dom0 and Compose get the same text; only the name differs."""

from __future__ import annotations

from pathlib import Path

IMAGE = "busybox:test"
_SLEEP = f"    image: {IMAGE}\n    command: sleep 1000000\n    init: true\n"  # with init, so that it ends when told to


def sleepers(name: str, count: int, *, version: str) -> str:
    """`count` services that sleep; another `version` is a change of the first one."""
    services = "".join(f"  s{number:03}:\n{_SLEEP}" for number in range(count))
    return _project(name, services, version)


def health_chain(name: str, length: int, *, version: str) -> str:
    """Services of which each waits for the one before to be healthy."""
    check = "    healthcheck: {test: [CMD, 'true'], interval: 1s, timeout: 5s, retries: 5}\n"
    services = ""
    for number in range(length):
        services += f"  s{number:03}:\n{_SLEEP}{check}"
        if number:
            services += f"    depends_on: {{s{number - 1:03}: {{condition: service_healthy}}}}\n"
    return _project(name, services, version)


def write(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "compose.yaml").write_text(text)
    return directory


def _project(name: str, services: str, version: str) -> str:
    first = services.replace(_SLEEP, f"{_SLEEP}    environment: {{VERSION: '{version}'}}\n", 1)
    return f"name: {name}\nservices:\n{first}x-dom0: {{}}\n"
