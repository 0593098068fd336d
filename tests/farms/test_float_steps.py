"""What has to be done in a Swarm for what floats, and what is left alone."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.engine.swarm_bodies import ContainerSpec, Mode, ServiceBody, SwarmNetworkBody, TaskSpec
from dom0.farms.float_content import FloatFile, FloatProject, digest_of_body
from dom0.farms.float_steps import FloatAction, FloatObject, FloatStep, Kind, steps

SERVICE = ServiceBody(name="blog_web", task_template=TaskSpec(container_spec=ContainerSpec(image="web")), mode=Mode())
NETWORK = SwarmNetworkBody(name="blog_default", driver="overlay", check_duplicate=True)
SECRET = FloatFile(kind="secret", digest=f"sha256:{'5' * 64}", size=1)
BLOG = FloatProject(name="blog", networks=(NETWORK,), files={"blog_word-5": SECRET}, services=(SERVICE,))
DIGESTS = {
    "blog_default": digest_of_body(NETWORK),
    "blog_word-5": "5",
    "blog_web": digest_of_body(SERVICE),
}


def there(kind: Kind, name: str, **changed: object) -> FloatObject:
    one = FloatObject(
        kind=kind, name=name, id=f"id of {name}", farm="attic", project="blog", digest=DIGESTS.get(name, "")
    )
    return replace(one, **changed)


ALL = (there("network", "blog_default"), there("secret", "blog_word-5"), there("service", "blog_web"))


def found(*actual: FloatObject, tried: dict[str, str] | None = None, **projects: FloatProject) -> list[tuple[str, ...]]:
    made = steps("attic", projects, actual, tried or {})
    return [(one.action.value, one.kind, one.name) for one in made]


def only(*actual: FloatObject, tried: dict[str, str] | None = None) -> FloatStep:
    (step,) = steps("attic", {"blog": BLOG}, actual, tried or {})
    return step


def test_what_a_service_needs_is_made_before_it() -> None:
    assert found(blog=BLOG) == [
        ("create", "network", "blog_default"),
        ("create", "secret", "blog_word-5"),
        ("create", "service", "blog_web"),
    ]


def test_when_all_is_there_nothing_is_to_do() -> None:
    assert found(*ALL, blog=BLOG) == []


def test_a_service_is_removed_before_what_it_uses() -> None:
    assert found(*ALL) == [
        ("remove", "service", "blog_web"),
        ("remove", "secret", "blog_word-5"),
        ("remove", "network", "blog_default"),
    ]


def test_what_others_made_is_neither_changed_nor_removed() -> None:
    others = [replace(one, farm=farm, digest="") for one in ALL for farm in ("", "another")]
    assert found(*others) == []
    step = only(*ALL[:2], there("service", "blog_web", farm="", digest=""))
    assert (step.action, step.is_due) == (FloatAction.STAYS, False)
    assert "did not make" in step.why


def test_a_service_that_changed_is_updated_and_a_network_stays() -> None:
    step = only(*ALL[:2], there("service", "blog_web", digest="old"))
    assert (step.action, step.id, step.digest) == (FloatAction.UPDATE, "id of blog_web", DIGESTS["blog_web"])
    step = only(there("network", "blog_default", digest="old"), *ALL[1:])
    assert step.action is FloatAction.STAYS
    assert "cannot be changed" in step.why


def test_what_swarm_went_back_from_is_not_tried_again_but_another_one_is() -> None:
    back = there("service", "blog_web", digest="old", update="rollback_completed", said="web failed")
    step = only(*ALL[:2], back, tried={"blog_web": DIGESTS["blog_web"]})
    assert step.action is FloatAction.STAYS
    assert "web failed" in step.why
    assert only(*ALL[:2], back, tried={"blog_web": "one before"}).action is FloatAction.UPDATE


def test_a_file_with_another_content_has_another_name_and_the_old_one_goes_when_nothing_needs_it() -> None:
    old = there("secret", "blog_word-old")
    assert found(*ALL, old, blog=BLOG) == [("remove", "secret", "blog_word-old")]
    needing = there("service", "blog_web", files=("blog_word-old", "blog_word-5"))
    assert found(*ALL[:2], needing, old, blog=BLOG) == []
    assert ("remove", "secret", "blog_word-old") in found(*ALL[:2], needing, old)
