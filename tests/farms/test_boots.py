"""Which base OS a node gets that starts from the network, on a clock of the test's own."""

from __future__ import annotations

from dom0.farms import boots, rollout
from dom0.farms.boots import TRIES, Boots
from dom0.farms.rollout import RolloutState

GOOD = Boots(good="1.0")


def served(
    state: Boots, times: int, newest: str = "2.0", name: str = "pi1", since: float = 0.0
) -> tuple[Boots, list[str]]:
    """At one second after the other."""
    found = []
    for now in range(times):
        state, which = boots.serve(state, name, "web", newest, ("1.0",), since + now)
        found.append(which)
    return state, found


def test_a_bad_base_os_is_served_three_times_and_then_the_last_good_one() -> None:
    state, found = served(GOOD, 6)
    assert found == ["2.0"] * TRIES + ["1.0"] * 3
    assert state.has_failed("pi1", "2.0")
    assert served(state, 1, name="pi2")[1] == ["2.0"]  # each node counts for itself


def test_a_node_that_comes_up_begins_anew_and_makes_it_the_good_one() -> None:
    state, _ = served(GOOD, TRIES)
    assert boots.hear(state, [("pi1", "2.0", 2.0)]) == state  # it said that before
    assert boots.hear(state, [("pi1", "1.0", 9.0), ("pi2", "2.0", 9.0)]) == state
    assert boots.hear(state, [("pi1", "2.0", 9.0)]) == Boots(good="2.0", before="1.0")


def test_a_node_that_fails_with_what_is_good_on_others_gets_the_one_before() -> None:
    state, _ = served(served(GOOD, 1)[0], TRIES, name="pi2")
    state = boots.hear(state, [("pi1", "2.0", 9.0)])
    assert served(state, 2, name="pi2")[1] == ["1.0"] * 2
    assert (state.instead_of("2.0"), state.instead_of("3.0")) == ("1.0", "2.0")
    again = boots.hear(served(state, 1)[0], [("pi1", "2.0", 9.0)])
    assert again == state  # to come up once more is nothing new


def test_without_a_good_one_that_is_still_there_the_newest_is_tried_for_ever() -> None:
    assert served(Boots(), 5)[1] == ["2.0"] * 5
    assert served(Boots(good="0.9"), 5)[1] == ["2.0"] * 5


def test_another_base_os_is_tried_as_often() -> None:
    state, _ = served(GOOD, 5)
    assert served(state, 5, newest="3.0")[1] == ["3.0"] * TRIES + ["1.0"] * 2


def test_a_person_lets_nodes_try_again() -> None:
    state = RolloutState(boots=served(served(GOOD, 5)[0], 5, name="pi2")[0])
    assert rollout.resume(state, ["store"]).boots == state.boots
    assert rollout.resume(state, ["web"]).boots == GOOD
    assert set(rollout.forget(state, "pi1").boots.tried) == {"pi2"}
