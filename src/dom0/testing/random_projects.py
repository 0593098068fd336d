"""Projects at random and changes of them, what people do to a Compose file. A seed always gives the same."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.compose.model import (
    HealthCheck,
    Hook,
    Network,
    Port,
    Project,
    Service,
    ServiceDependency,
    ServiceNetwork,
    ServiceVolume,
    Volume,
)

NAMES = ("api", "db", "web", "mail", "cron", "cache")
IMAGES = ("app", "app2")
JOB = ("true",)
STAYS = ("sleep", "100000")


def compose_file(project: Project) -> str:
    """As a Compose file. JSON is YAML."""
    services = {name: _service_document(of) for name, of in project.services.items()}
    rest = msgspec.to_builtins({"networks": project.networks, "volumes": project.volumes})
    rollout = {"rollout": {"monitor": "1s", "timeout": "120s"}}
    return msgspec.json.encode({"name": project.name, "x-dom0": rollout, "services": services, **rest}).decode()


def _service_document(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(service)
    return document | {"stop_grace_period": "1s"}


class Projects:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- no secret

    def project(self) -> Project:
        chosen = self.random.sample(NAMES, self.random.randint(1, 5))
        services: dict[str, Service] = {}
        for name in chosen:
            services[name] = self._service(services)
        return self._completed(services, {"default": Network(name="box_default")})

    def changed(self, project: Project) -> Project:
        """With one to three changes."""
        for _ in range(self.random.randint(1, 3)):
            project = self._change(project)
        return project

    def _change(self, project: Project) -> Project:
        services, networks = dict(project.services), dict(project.networks)
        name = self.random.choice(list(services))
        match self.random.choice(("add", "remove", "rename", "edit", "edit", "edit", "network", "volumes", "scale")):
            case "add":
                spare = [other for other in NAMES if other not in services]
                if spare:
                    services[self.random.choice(spare)] = self._service(services)
            case "remove" if others := {k: of for k, of in services.items() if name not in (k, _parent(of))}:
                services = others
            case "rename":
                spare = [other for other in NAMES if other not in services]
                if spare:
                    renamed = {name: self.random.choice(spare)}
                    services = {renamed.get(key, key): _referring(of, renamed) for key, of in services.items()}
            case "network":
                label = {"changed": str(self.random.randint(0, 3))}
                networks["default"] = replace(networks["default"], labels=label)
            case "scale" if not services[name].ports and services[name].command == STAYS:
                services[name] = replace(services[name], scale=self.random.randint(0, 3))
            case _:
                services[name] = self._edited(services[name])
        return self._completed(services, networks)

    def _edited(self, service: Service) -> Service:
        edits: list[dict[str, Any]] = [
            {"environment": {"CHANGED": str(self.random.randint(0, 3))}},
            {"image": self.random.choice(IMAGES)},
            {
                "restart": self.random.choice(
                    ("", "always", "unless-stopped") if service.command == STAYS else ("", "no")
                )
            },
            {"mem_limit": self.random.choice((0, 64 << 20, 128 << 20))},
            {"labels": {"changed": str(self.random.randint(0, 3))}},
            {"volumes": self._volumes()},
        ]
        if service.command == STAYS:
            edits += [{"post_start": self._hooks()}, {"pre_stop": self._hooks()}]
        if not service.network_mode:
            edits.append({"networks": self._networks()})
            edits += [{"ports": self._ports()}] if service.scale == 1 and service.command == STAYS else []
        return replace(service, **self.random.choice(edits))

    def _service(self, others: dict[str, Service]) -> Service:
        alone = [name for name, of in others.items() if of.scale == 1 and not of.network_mode and of.command == STAYS]
        if alone and self.random.random() < 0.15:
            return self._sidecar(self.random.choice(alone))
        job = self.random.random() < 0.2
        healthy = not job and self.random.random() < 0.3
        return Service(
            image=self.random.choice(IMAGES),
            command=JOB if job else STAYS,
            restart="" if job else self.random.choice(("", "always", "unless-stopped")),
            networks=self._networks(),
            volumes=self._volumes(),
            ports=self._ports() if not job else (),
            scale=1,
            healthcheck=HealthCheck(test=("CMD", "true"), interval="1s") if healthy else None,
            depends_on=self._depends_on(others),
            post_start=self._hooks() if not job else (),
            pre_stop=self._hooks() if not job else (),
        )

    def _sidecar(self, of: str) -> Service:
        depends_on = {of: ServiceDependency(condition="service_started", restart=True)}  # as Compose adds it
        mode = f"service:{of}"
        return Service(image="app", command=STAYS, scale=1, restart="always", network_mode=mode, depends_on=depends_on)

    def _networks(self) -> dict[str, ServiceNetwork | None]:
        return dict.fromkeys(("default", *self.random.sample(("back",), self.random.randint(0, 1))))

    def _volumes(self) -> tuple[ServiceVolume, ...]:
        if self.random.random() < 0.6:
            return ()
        return (ServiceVolume(type="volume", source=self.random.choice(("data", "cache")), target="/data"),)

    def _ports(self) -> tuple[Port, ...]:
        if self.random.random() < 0.7:
            return ()
        published = str(self.random.randint(8000, 8999))
        return (Port(mode="ingress", target=80, published=published, protocol="tcp"),)

    def _hooks(self) -> tuple[Hook, ...]:
        if self.random.random() < 0.7:
            return ()
        return tuple(Hook(command=("echo", str(number))) for number in range(self.random.randint(1, 2)))

    def _depends_on(self, others: dict[str, Service]) -> dict[str, ServiceDependency]:
        chosen = self.random.sample(sorted(others), self.random.randint(0, min(2, len(others))))
        return {
            name: ServiceDependency(condition=self._condition(others[name]), restart=self._half()) for name in chosen
        }

    def _condition(self, of: Service) -> str:
        if of.command == JOB:
            return "service_completed_successfully"
        return "service_healthy" if of.healthcheck and self._half() else "service_started"

    def _half(self) -> bool:
        return self.random.random() < 0.5

    def _completed(self, services: dict[str, Service], networks: dict[str, Network]) -> Project:
        """With the networks and volumes that are used, and without dependencies on what is not there."""
        parents = {_parent(of) for of in services.values()}
        there = {name: replace(of, scale=1) if name in parents else of for name, of in services.items()}
        kept = {name: _without_absent(of, there) for name, of in there.items()}
        used = {name for of in kept.values() for name in of.networks}
        volumes = {volume.source for of in kept.values() for volume in of.volumes}
        return Project(
            name="box",
            services=kept,
            networks={name: networks.get(name, Network(name=f"box_{name}")) for name in sorted(used | {"default"})},
            volumes={name: Volume(name=f"box_{name}") for name in sorted(volumes)},
        )


def _parent(service: Service) -> str:
    return service.network_mode.removeprefix("service:")


def _without_absent(service: Service, services: dict[str, Service]) -> Service:
    kept = {name: of for name, of in service.depends_on.items() if name in services and services[name].scale != 0}
    return replace(service, depends_on=kept)


def _referring(service: Service, renamed: dict[str, str]) -> Service:
    depends_on = {renamed.get(name, name): of for name, of in service.depends_on.items()}
    parent = _parent(service)
    mode = f"service:{renamed.get(parent, parent)}" if parent else ""
    return replace(service, depends_on=depends_on, network_mode=mode)
