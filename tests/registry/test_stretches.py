"""What is asked for next: each byte once, and by all workers to the end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dom0.registry.journal import CHUNK
from dom0.registry.stretches import LONGEST, SHORTEST, RangeRequest, Stretch, next_request


def test_the_first_stretch_without_a_request_comes_first() -> None:
    stretches = [Stretch(0, 0, 5, 100 * CHUNK, LONGEST), Stretch(1, 0, 7, 90 * CHUNK)]
    assert next_request(stretches, 2) == RangeRequest(1, 0, 7, LONGEST)


def test_a_request_ends_with_a_chunk_wherever_it_begins() -> None:
    assert next_request([Stretch(0, 0, 7, 3 * CHUNK)], 2) == RangeRequest(0, 0, 7, CHUNK)
    assert next_request([Stretch(0, CHUNK, 3 * CHUNK, 3 * CHUNK + 9)], 2) == RangeRequest(
        0, CHUNK, 3 * CHUNK, 3 * CHUNK + 9
    )


def test_one_with_nothing_to_do_takes_the_end_of_the_longest_stretch() -> None:
    stretches = [Stretch(0, 0, 0, 20 * CHUNK, LONGEST), Stretch(1, 0, 0, 200 * CHUNK, LONGEST)]
    assert next_request(stretches, 2) == RangeRequest(1, 100 * CHUNK, 100 * CHUNK, 116 * CHUNK)


def test_what_is_asked_for_is_never_taken_away() -> None:
    assert next_request([Stretch(0, 0, 0, 20 * CHUNK, 18 * CHUNK)], 2) == RangeRequest(
        0, 18 * CHUNK, 18 * CHUNK, 19 * CHUNK
    )


def test_too_little_for_another_request_is_left_to_the_one_that_runs() -> None:
    assert next_request([Stretch(0, 0, 0, 20 * CHUNK, 18 * CHUNK + 1)], 2) is None
    assert next_request([], 2) is None


@given(st.integers(1, 1 << 40), st.integers(1, 8))
def test_requests_have_bounds(size: int, workers: int) -> None:
    found = next_request([Stretch(0, 0, 0, size)], workers)
    assert found is not None
    assert min(size, SHORTEST) <= found.stop <= LONGEST


class Workers(RuleBasedStateMachine):
    """Some workers and blobs: any one gets some bytes or all, ends, breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.parts: list[dict[int, int]] = []  # of each blob: where one starts -> its next byte
        self.running: dict[int, RangeRequest] = {}
        self.workers = 1

    @initialize(sizes=st.lists(st.integers(0, 80 * CHUNK), min_size=1, max_size=3), workers=st.integers(1, 4))
    def begin(self, sizes: list[int], workers: int) -> None:
        self.sizes = sizes
        self.parts = [{0: 0} for _ in sizes]
        self.workers = workers

    def stretches(self) -> list[Stretch]:
        asked = {(request.blob, request.start): request.stop for request in self.running.values()}
        return [
            Stretch(
                blob, start, at, min([each for each in parts if each > start], default=size), asked.get((blob, start))
            )
            for blob, (parts, size) in enumerate(zip(self.parts, self.sizes, strict=True))
            for start, at in parts.items()
        ]

    @rule(worker=st.integers(0, 3))
    def ask(self, worker: int) -> None:
        if worker in self.running or worker >= self.workers:
            return
        request = next_request(self.stretches(), self.workers)
        if request is None:
            assert all(each.asked is not None or each.at >= each.stop for each in self.stretches())
            return
        at = self.parts[request.blob].setdefault(request.start, request.start)
        assert request.at == at < request.stop <= self.sizes[request.blob]
        for other in self.running.values():
            if other.blob == request.blob:
                assert request.stop <= other.at or other.stop <= request.at
                assert other.start != request.start
        self.running[worker] = request

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.floats(0, 1), ends=st.booleans())
    def come(self, data: st.DataObject, share: float, ends: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        request = self.running[worker]
        at = self.parts[request.blob][request.start]
        self.parts[request.blob][request.start] = at + int((request.stop - at) * share)
        if ends:
            del self.running[worker]

    @invariant()
    def no_part_grows_into_the_next(self) -> None:
        for stretch in self.stretches():
            assert stretch.at <= stretch.stop

    def teardown(self) -> None:
        """Whatever was, one worker can end it, within a bounded number of requests."""
        self.running.clear()
        for _ in range(1000):
            request = next_request(self.stretches(), 1)
            if request is None:
                break
            self.parts[request.blob].setdefault(request.start, request.start)
            self.parts[request.blob][request.start] = request.stop
        assert all(each.at >= each.stop for each in self.stretches())


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=30, stateful_step_count=30)
