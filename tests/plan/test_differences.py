"""What one generation asks for and another one does not, as people are told it."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.engine.bodies import EndpointSettings, LogConfig, VolumeBody
from dom0.plan.desired import (
    Attachment,
    Desired,
    Hook,
    InjectedFile,
    Notify,
    Rollout,
    Sharing,
    Slot,
    VolumeSpec,
)
from dom0.plan.differences import HIDDEN, LONGEST, Difference, compare
from dom0.testing.builders import asking, desired, network_spec, slot


def told(before: tuple[Slot, ...], after: tuple[Slot, ...]) -> list[tuple[str, str, str, str]]:
    return [(one.subject, one.key, one.before, one.after) for one in compare(desired(*before), desired(*after))]


def test_the_same_again_differs_in_nothing() -> None:
    assert told((slot("web"), slot("db")), (slot("db"), slot("web"))) == []


def test_without_one_before_it_all_is_new() -> None:
    new = [
        Difference(subject=subject, key="", before="", after="there") for subject in ("pull", "rollout", "service web")
    ]
    assert [one for one in compare(None, desired(slot("web"))) if not one.subject.startswith("network")] == new


def test_values_are_told_by_the_keys_of_the_engine() -> None:
    small, large = (asking(slot("web"), host={"memory": memory}) for memory in (64 << 20, 128 << 20))
    assert told((small,), (large,)) == [("service web", "HostConfig.Memory", "67108864", "134217728")]
    assert told((slot("web"),), (asking(slot("web"), cmd=("a", "b")),)) == [
        ("service web", "Cmd", '["sleep","1000"]', '["a","b"]')
    ]


def test_who_is_told_differs_and_where_is_not_shown() -> None:
    before = replace(desired(), notify=Notify(webhook="https://x/s3cret", mail_to=("a@x",)))
    after = replace(desired(), notify=Notify(webhook="https://x/other", mail_to=("b@x",)))
    assert [(one.key, one.before, one.after) for one in compare(before, after)] == [
        ("mail_to", '["a@x"]', '["b@x"]'),
        ("webhook", HIDDEN, HIDDEN),
    ]


def test_services_that_come_and_go_and_their_number() -> None:
    assert told((slot("web"), slot("old")), (slot("web"), slot("web", number=2), slot("new"))) == [
        ("service new", "", "", "there"),
        ("service old", "", "there", ""),
        ("service web", "replicas", "1", "2"),
    ]


def test_what_may_be_secret_is_not_told() -> None:
    one = replace(
        asking(slot("web"), env=("A=secret", "B=", "GONE=secret")), files=(InjectedFile(path="/k", content=b"secret"),)
    )
    two = replace(
        asking(slot("web"), env=("A=other secret", "B=", "C")), files=(InjectedFile(path="/k", content=b"secrets"),)
    )
    found = told((one,), (two,))
    assert [(key, before, after) for _, key, before, after in found] == [
        ("Env.A", HIDDEN, HIDDEN),
        ("Env.C", "", HIDDEN),
        ("Env.GONE", HIDDEN, ""),
        ("file /k", HIDDEN, HIDDEN),
    ]
    assert "secret" not in str(found)


def test_what_may_be_secret_is_told_nowhere() -> None:
    def asked(word: str) -> Desired:
        web = asking(slot("web"), env=(f"A={word}",), host={"log_config": LogConfig(type="splunk", config={"t": word})})
        endpoint = EndpointSettings(driver_opts={"key": word})
        web = replace(
            web,
            files=(InjectedFile(path="/k", content=word.encode()),),
            post_start=(Hook(argv=("login", word)),),
            attachments=(Attachment(network="box_default", endpoint=endpoint),),
        )
        create = VolumeBody(driver="local", driver_opts={"o": f"username=u,password={word}"})
        network = replace(network_spec(), create=replace(network_spec().create, options={"key": word}))
        volume = VolumeSpec(key="share", name="box_share", create=create)
        return replace(desired(web), networks=(network,), volumes=(volume,))

    found = compare(asked("hunter2"), asked("hunter3"))
    assert {one.key for one in found} == {
        "Env.A",
        "HostConfig.LogConfig.Config.t",
        "attachments",
        "create.DriverOpts.o",
        "create.Options.key",
        "file /k",
        "post_start",
    }
    assert {(one.before, one.after) for one in found} == {(HIDDEN, HIDDEN)}


def test_labels_of_ours_follow_from_the_rest_and_long_values_are_cut() -> None:
    other = asking(
        slot("web"),
        labels=slot("web").create.labels | {"dom0.hash": "h9", "com.docker.compose.x": "y", "mine": "x" * 999},
    )
    assert told((slot("web"),), (other,)) == [("service web", "Labels.mine", "", "x" * LONGEST)]


def test_where_only_contents_of_files_differ_that_is_told_by_the_hash() -> None:
    assert told((slot("web", hash="h1"),), (slot("web", hash="h2"),)) == [("service web", "hash", "h1", "h2")]
    assert [key for _, key, _, _ in told((slot("web"),), (asking(slot("web", hash="h2"), user="me"),))] == ["User"]


def test_what_is_asked_of_the_machine_is_told_too() -> None:
    before = desired(slot("web"), rollout=Rollout(monitor=1.0))
    after = replace(before, rollout=Rollout(monitor=2.0), sharing=Sharing(peers=("a:1",)))
    assert [(one.subject, one.key, one.before, one.after) for one in compare(before, after)] == [
        ("pull", "peers", "", '["a:1"]'),
        ("rollout", "monitor", "1.0", "2.0"),
    ]


def test_networks_are_told_by_their_names_in_the_project() -> None:
    before = desired(slot("web"))
    after = replace(before, networks=(*before.networks, replace(network_spec(), key="back")))
    assert [(one.subject, one.after) for one in compare(before, after)] == [("network back", "there")]
    inside = replace(network_spec("n2"), create=replace(network_spec("n2").create, internal=True))
    changed = compare(before, replace(before, networks=(inside,)))
    assert [(one.subject, one.key) for one in changed] == [("network default", "create.Internal")]


def test_where_images_are_given_is_told() -> None:
    here = replace(desired(slot("web")), sharing=Sharing(listen="192.0.2.5:5050", allow=("192.0.2.0/24",)))
    found = [(one.subject, one.key, one.before, one.after) for one in compare(desired(slot("web")), here)]
    assert found == [("pull", "allow", "", '["192.0.2.0/24"]'), ("pull", "listen", "", "192.0.2.5:5050")]
