"""`dom0 tree`: whose a container is that came through the socket of a scope."""

from __future__ import annotations

from dom0.cli.tree import TreeNode, arrange, draw
from dom0.engine.values import Container, State
from dom0.plan import labels
from dom0.socketproxy import scope

BY_DOM0 = {labels.PROJECT: "box", labels.CREATE: "{}"}
ROOT = BY_DOM0 | {labels.ROLE: "root"}
SERVICE = BY_DOM0 | {labels.ROLE: "service", labels.SERVICE: "guest"}


def container(name: str, path: str = "", given: str = "", **more: str) -> Container:
    """`path` and `given`: the labels of a scope, and of who was given its socket."""
    own = ({scope.LABEL: path} if path else {}) | ({scope.ORCHESTRATOR: given} if given else {})
    return Container(
        id=name, name=name, image="web", image_id="sha256:0", state=State.RUNNING, created=1.0, labels=more | own
    )


def lines(*containers: Container) -> list[str]:
    return [line.replace("  web 0  ", "  ") for line in draw(arrange(containers), whole_ids=False)]


def test_what_came_through_a_socket_is_below_who_was_given_it_by_the_names_in_there() -> None:
    drawn = lines(
        container("guest.web", "/guest"),
        container("dom0", **ROOT),
        container("guest.dom0", "/guest", given="{}", **SERVICE),
        container("guest.team.web", "/guest/team", **{f"guest/team/{labels.ROLE}": "service"}),
        container("guest.team.dom0", "/guest/team", given="{}", **{f"guest/{labels.ROLE}": "service"}),
    )
    assert drawn == [
        "dom0  root, running, started manually",
        "└── guest.dom0  service, running",
        "    ├── team.dom0  service, running",
        "    │   └── web  service, running",
        "    └── web  container, running",
    ]


def test_a_scope_that_a_person_serves_has_no_container_above_it() -> None:
    drawn = lines(
        container("dom0", **ROOT),
        container("guest.dom0", "/guest", given="", **ROOT),
        container("guest.team.web", "/guest/team"),
    )
    assert drawn == [
        "dom0  root, running, started manually",
        "guest.dom0  root, running, started by scope guest",
        "guest.team.web  container, running, started by scope guest/team",
    ]


def test_the_names_of_the_engine_are_for_programs() -> None:
    (orchestrator,) = arrange([container("guest.dom0", "/guest", given="{}"), container("guest.web", "/guest")])
    assert isinstance(orchestrator, TreeNode)
    (child,) = orchestrator.children
    assert (child.name, child.scope, child.started_by, child.role) == ("guest.web", "/guest", "guest.dom0", "")
