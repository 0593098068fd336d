"""Whether an image is what its project would be built into now."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dom0.errors import ProjectError
from dom0.images import fingerprint
from dom0.images.recipe import base_inputs
from dom0.plan.labels import BUILDS, IMAGES, IN_PLACE, INPUTS, PROJECT

PARENTS = {"dom0-base": "sha256:base"}
PRESENT = PARENTS | {"box-web": "sha256:web"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text("services: {}")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "Dockerfile").write_text("FROM scratch")
    (tmp_path / ".git").mkdir()
    return tmp_path


def image(project: Path, builds: dict[str, str] | None = None) -> dict[str, str]:
    """The labels of an image built now."""
    return {
        INPUTS: fingerprint.inputs_digest(project, PARENTS, fingerprint.BuildInputs(builds or {})),
        BUILDS: msgspec.json.encode(builds or {}).decode(),
    }


@pytest.mark.parametrize(("builds", "counts"), [({}, False), ({"box-web": "src"}, True), ({"box-web": "."}, True)])
def test_data_of_a_project_that_was_taken_over_counts_where_a_service_is_built_from_it(
    project: Path, builds: dict[str, str], counts: bool
) -> None:
    (project / "src").mkdir()
    made = fingerprint.BuildInputs(builds, writable_binds=("src",))
    before = fingerprint.inputs_digest(project, PARENTS, made)
    (project / "src" / "main.py").write_text("x")
    assert (fingerprint.inputs_digest(project, PARENTS, made) != before) is counts


def test_a_project_that_was_taken_over_has_another_image(project: Path) -> None:
    labels = image(project) | {IN_PLACE: "[]", PROJECT: "box"}
    assert not fingerprint.is_current(project, labels, PRESENT)
    made = fingerprint.BuildInputs({}, project="box", writable_binds=())
    labels[INPUTS] = fingerprint.inputs_digest(project, PARENTS, made)
    assert fingerprint.is_current(project, labels, PRESENT, {"box"})
    assert not fingerprint.is_current(project, labels, PRESENT, {"other"})
    assert not fingerprint.is_current(project, image(project) | {PROJECT: "box"}, PRESENT, {"box"})


def test_an_image_of_the_same_files_is_current(project: Path) -> None:
    assert fingerprint.is_current(project, image(project), PRESENT)


def test_another_file_another_image_below_or_another_dom0_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = image(project)
    assert not fingerprint.is_current(project, labels, PRESENT | {"dom0-base": "sha256:newer"})
    inputs = base_inputs()
    monkeypatch.setattr(fingerprint, "base_inputs", lambda: inputs + "0")
    assert not fingerprint.is_current(project, labels, PRESENT)
    monkeypatch.undo()
    (project / "new").touch()
    assert not fingerprint.is_current(project, labels, PRESENT)


def test_git_and_what_is_ignored_do_not_count(project: Path) -> None:
    (project / ".dockerignore").write_text("*.log\n")
    labels = image(project)
    (project / ".git" / "index").touch()
    (project / "debug.log").touch()
    assert fingerprint.is_current(project, labels, PRESENT)


def test_what_a_service_is_built_from_counts_even_if_the_machine_does_not_get_it(project: Path) -> None:
    (project / ".dockerignore").write_text("web\n")
    labels = image(project, {"box-web": "web"})
    (project / "web" / "Dockerfile").write_text("FROM other")
    assert not fingerprint.is_current(project, labels, PRESENT)


def test_a_neighbour_of_the_directory_a_service_is_built_from_is_not_meant(project: Path) -> None:
    (project / ".dockerignore").write_text("web*\n")
    labels = image(project, {"box-web": "web"})
    (project / "web2").mkdir()
    assert fingerprint.is_current(project, labels, PRESENT)


@pytest.mark.parametrize(("present", "is_current"), [("sha256:web", True), ("sha256:newer", False), ("", False)])
def test_an_image_of_a_service_that_is_gone_or_another_one_is_noticed(
    project: Path, present: str, is_current: bool
) -> None:
    labels = image(project, {"box-web": "web"}) | {IMAGES: '{"box-web": "sha256:web"}'}
    assert fingerprint.references(project, labels) == ("box-web", "dom0-base")
    assert fingerprint.is_current(project, labels, PRESENT | {"box-web": present}) is is_current


@pytest.mark.parametrize("builds", ['{"box-web": ""}', "", "[1]", "{"])
def test_sources_elsewhere_or_unknown_are_never_current(project: Path, builds: str) -> None:
    labels = image(project) | {BUILDS: builds}
    assert not fingerprint.is_current(project, labels, PRESENT)


def test_the_dockerfile_counts_whatever_the_dockerignore_says(project: Path) -> None:
    (project / ".dockerignore").write_text("Dockerfile*\n")
    for name in ("Dockerfile", "Dockerfile.dom0"):
        labels = image(project)
        (project / name).write_text("FROM dom0-base\n")
        assert not fingerprint.is_current(project, labels, PRESENT)


def test_of_a_service_built_from_the_whole_project_git_and_what_is_ignored_do_not_count(project: Path) -> None:
    (project / ".dockerignore").write_text("*.log\n")
    labels = image(project, {"box-web": "."})
    (project / ".git" / "index").touch()
    (project / "debug.log").touch()
    assert fingerprint.is_current(project, labels, PRESENT)
    (project / "page").touch()
    assert not fingerprint.is_current(project, labels, PRESENT)


def test_without_a_dockerfile_the_image_below_is_dom0_base(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM of/a/service\n")
    assert fingerprint.parents_of(project, "") == ("dom0-base",)
    assert fingerprint.parents_of(project, "Dockerfile") == ("of/a/service",)


def test_an_unreadable_dockerignore_is_refused(project: Path) -> None:
    (project / ".dockerignore").write_bytes(b"\xff\xfe")
    with pytest.raises(ProjectError, match=r"\.dockerignore: cannot be read"):
        fingerprint.read_ignore(project)
