"""How the planner refuses a project: with the key and, where the project knows it, file and line. Pure."""

from __future__ import annotations

from dom0.compose.findings import Finding, KeyPath, refuse
from dom0.compose.model import Project
from dom0.errors import ProjectError


def refusal(project: Project, path: KeyPath, what: str, hint: str = "") -> ProjectError:
    """To be raised. `path` is the key's: `("services", "web", "ports", "0")`."""
    return refuse([Finding(path, what, hint)], project.locations)
