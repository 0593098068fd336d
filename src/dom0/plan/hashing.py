"""What makes another container, network or volume necessary, as one digest. Pure.

The hash is over what the project says, not over the create body: another version of dom0 that spells the body
differently recreates nothing. Left out are the keys that change no container (as Compose's ServiceHash does, and
those that only say how to replace one); put in is what Compose forgets: the contents of configs, secrets, profiles
and bind-mounted project files, and what the project's volumes and networks are really called.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from dom0.compose.model import Deploy, Network, Project, Volume, canonical
from dom0.plan.attachments import networks_by_priority
from dom0.plan.mounts import Mounts, bound_files

BY_COMPOSE = "compose:"  # begins the hash of a container that Docker Compose made
_WITHOUT_EFFECT: dict[str, Any] = {
    "build": None,
    "pull_policy": "",
    "pull_refresh_after": "",
    "scale": None,
    "depends_on": {},
    "profiles": (),
    "attach": None,
    "develop": None,
    "x_dom0": None,
}


def service_hash(project: Project, name: str, mounts: Mounts, *, in_scopes_group: bool = False) -> str:
    """`in_scopes_group`: an orchestrator's that has a budget, however much that is."""
    service = project.services[name]
    # of `deploy` only these reach a container
    deploy = service.deploy and Deploy(resources=service.deploy.resources, restart_policy=service.deploy.restart_policy)
    bare = msgspec.structs.replace(service, **_WITHOUT_EFFECT, deploy=None if deploy == Deploy() else deploy)
    sources = {v.source for v in service.volumes if v.type == "bind"} | set(bound_files(project, name).values())
    outside: dict[str, Any] = {
        "volumes": list(mounts.volumes),
        "networks": [project.networks[key].name for key in networks_by_priority(project, service)],
        "files": {path: project.digests[path] for path in sorted(sources) if path in project.digests},
        "injected": [[file.path, _digest(file.content)] for file in mounts.files],
        "group": "scope" if in_scopes_group else "",
        "profiles": {p: text for p, text in project.contents.items() if any(p in o for o in service.security_opt)},
    }
    outside = {key: value for key, value in outside.items() if value}
    return _digest(canonical({"service": bare, "outside": outside}))


def ground_hash(one: Network | Volume) -> str:
    """The name is not in it: another name is another network or volume."""
    driver = one.driver or ("bridge" if isinstance(one, Network) else "local")
    return _digest(canonical(msgspec.structs.replace(one, name="", driver=driver)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
