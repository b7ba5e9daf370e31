from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from store.spool_table import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SpoolBounds,
    SpoolState,
    SpoolTable,
    Write,
)


def numbers(writes: tuple[Write, ...]) -> list[int]:
    return [write.number for write in writes]


def test_a_write_is_tried_at_once_and_one_at_a_time() -> None:
    table = SpoolTable()
    assert table.due(0.0) == ()
    assert table.due_at_s() is None
    first, second = table.take("call", "a", b"1"), table.take("call", "a", b"2")
    assert table.due_at_s() == 0.0
    assert table.due(0.0) == (first,)
    assert table.due(0.0) == ()
    table.done()
    assert table.due(0.0) == (second,)
    table.done()
    assert (len(table), table.size_bytes, table.state) == (0, 0, SpoolState.UP)


def test_a_store_that_fails_is_left_alone_for_longer_each_time() -> None:
    table, now_s = SpoolTable(), 100.0
    table.take("call", "a", b"1")
    pauses: list[float] = []
    for _ in range(6):
        assert len(table.due(now_s)) == 1
        table.failed(now_s)
        assert table.state is SpoolState.DOWN
        due_s = table.due_at_s()
        assert due_s is not None
        pauses.append(due_s - now_s)
        assert table.due(due_s - 0.001) == ()
        now_s = due_s
    assert pauses == [FIRST_PAUSE_S, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_one_write_finds_out_whether_it_is_back_and_the_rest_follows_in_order() -> None:
    table = SpoolTable(several={"event"})
    for index in range(5):
        table.take("event", "a", b"%d" % index)
    table.due(0.0)
    table.failed(0.0)
    assert numbers(table.due(FIRST_PAUSE_S)) == [1]
    assert table.state is SpoolState.REPLAYING
    table.done()
    assert table.state is SpoolState.REPLAYING
    assert numbers(table.due(FIRST_PAUSE_S)) == [2, 3, 4, 5]
    table.done()
    assert table.state is SpoolState.UP
    # It was back: the next failure begins with the short pause again.
    table.take("event", "a", b"x")
    table.due(10.0)
    table.failed(10.0)
    assert table.due_at_s() == 10.0 + FIRST_PAUSE_S


def test_several_at_once_are_of_one_kind_and_not_too_many() -> None:
    table = SpoolTable(several={"event"}, most=2)
    for kind in ("event", "event", "event", "call", "call", "event"):
        table.take(kind, "a", b"1")
    tried: list[list[int]] = []
    while writes := table.due(0.0):
        tried.append(numbers(writes))
        table.done()
    assert tried == [[1, 2], [3], [4], [5], [6]]


def test_a_later_save_makes_an_earlier_one_of_its_key_needless() -> None:
    table = SpoolTable()
    table.take("event", "a", b"first")
    table.take("call", "a", b"old", supersedes=True)
    table.take("call", "b", b"other", supersedes=True)
    table.take("event", "a", b"not needless: it supersedes nothing")
    table.take("call", "a", b"new", supersedes=True)
    assert [write.body for write in table.waiting()][1:] == [
        b"other",
        b"not needless: it supersedes nothing",
        b"new",
    ]


def test_what_is_under_way_is_needless_only_once_it_has_failed() -> None:
    table = SpoolTable()
    table.take("call", "a", b"old", supersedes=True)
    table.due(0.0)
    table.take("call", "a", b"new", supersedes=True)
    assert len(table) == 2
    table.failed(0.0)
    assert [write.body for write in table.waiting()] == [b"new"]


def test_what_is_taken_back_is_tried_no_more() -> None:
    table = SpoolTable()
    first, second = table.take("m", "a", b"1"), table.take("m", "b", b"2")
    assert first is not None
    assert second is not None
    assert table.take_back(second)
    table.due(0.0)
    assert table.take_back(first)  # it may be done all the same, and is not tried again
    table.failed(0.0)
    assert len(table) == 0
    third = table.take("m", "c", b"3")
    assert third is not None
    table.due(9.0)
    table.done()
    assert not table.take_back(third)


def test_there_is_room_for_so_many_and_the_last_quarter_is_for_what_is_vital() -> None:
    table = SpoolTable(SpoolBounds(writes=4, size_bytes=1000))
    assert all(table.take("event", "a", b"1") for _ in range(3))
    assert table.take("event", "a", b"1") is None
    assert table.take("call", "a", b"1", supersedes=True, is_vital=True)
    assert table.take("call", "b", b"1", supersedes=True, is_vital=True) is None
    assert table.take("call", "a", b"2", supersedes=True, is_vital=True)  # in the place of the first


def test_there_is_room_for_so_many_bytes() -> None:
    table = SpoolTable(SpoolBounds(writes=100, size_bytes=100))
    assert table.take("event", "a", b"x" * 75)
    assert table.take("event", "a", b"x") is None
    assert table.take("call", "a", b"x" * 25, supersedes=True, is_vital=True)
    assert table.take("call", "a", b"x" * 26, supersedes=True, is_vital=True) is None
    assert table.take("call", "a", b"x" * 24, supersedes=True, is_vital=True)


def test_of_several_that_are_refused_the_one_that_cannot_be_done_is_found() -> None:
    table = SpoolTable(several={"event"})
    for body in (b"good", b"bad", b"good", b"good"):
        table.take("event", "a", body)
    done: list[bytes] = []
    given_up: list[bytes] = []
    tries: list[int] = []
    while writes := table.due(0.0):
        tries.append(len(writes))
        if any(write.body == b"bad" for write in writes):
            given_up += [write.body for write in table.refused()]
        else:
            done += [write.body for write in writes]
            table.done()
    assert (done, given_up) == ([b"good"] * 3, [b"bad"])
    assert tries == [4, 1, 1, 1, 1]
    assert table.state is SpoolState.UP


@pytest.mark.parametrize(("writes", "size_bytes"), [(0, 1), (1, 0), (-1, 5)])
def test_bounds_that_are_not_positive_are_refused(writes: int, size_bytes: int) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        SpoolBounds(writes, size_bytes)


class SpoolMachine(RuleBasedStateMachine):
    """Writes come, a store fails, hangs, refuses and comes back in any order; a model keeps the truth."""

    bounds = SpoolBounds(writes=8, size_bytes=40)

    @initialize()
    def begin(self) -> None:
        self.table = SpoolTable(self.bounds, several={"event"}, most=3)
        self.now_s = 0.0
        self.under_way: tuple[Write, ...] = ()
        self.taken: list[Write] = []
        self.needless: set[int] = set()
        self.stored: list[Write] = []

    @rule(
        kind=st.sampled_from(["event", "call"]),
        key=st.sampled_from("ab"),
        size=st.integers(1, 12),
        is_vital=st.booleans(),
    )
    def take(self, kind: str, key: str, size: int, is_vital: bool) -> None:
        before = len(self.table)
        write = self.table.take(kind, key, b"x" * size, supersedes=kind == "call", is_vital=is_vital)
        if write is None:
            assert len(self.table) == before
            return
        if kind == "call":
            self.needless |= {old.number for old in self.taken if (old.kind, old.key) == (kind, key)}
        self.taken.append(write)

    @precondition(lambda self: not self.under_way)
    @rule(wait_s=st.floats(0, 6))
    def try_next(self, wait_s: float) -> None:
        self.now_s += wait_s
        self.under_way = self.table.due(self.now_s)

    @precondition(lambda self: self.under_way)
    @rule()
    def succeed(self) -> None:
        self.stored += self.under_way
        self.under_way = ()
        self.table.done()

    @precondition(lambda self: self.under_way)
    @rule(was_done=st.booleans())
    def fail(self, was_done: bool) -> None:
        # Nobody knows what a store did that did not answer.
        self.stored += self.under_way if was_done else ()
        self.under_way = ()
        self.table.failed(self.now_s)

    @invariant()
    def it_is_bounded(self) -> None:
        if hasattr(self, "table"):
            assert len(self.table) <= self.bounds.writes
            assert self.table.size_bytes <= self.bounds.size_bytes
            assert self.table.size_bytes == sum(len(write.body) for write in self.table.waiting())

    @invariant()
    def nothing_is_reordered_within_a_key(self) -> None:
        if not hasattr(self, "table"):
            return
        # Some come twice, which stores must bear: what counts is when each came first.
        by_key: defaultdict[tuple[str, str], dict[int, None]] = defaultdict(dict)
        for write in self.stored:
            by_key[write.kind, write.key][write.number] = None
        for order in by_key.values():
            assert list(order) == sorted(order)

    def teardown(self) -> None:
        """The store is back for good: everything that is not needless gets there, and the latest save of each key."""
        if not hasattr(self, "table"):
            return
        if self.under_way:
            self.succeed()
        for _ in range(100):
            self.now_s += LONGEST_PAUSE_S
            self.under_way = self.table.due(self.now_s)
            if not self.under_way:
                break
            self.succeed()
        self.nothing_is_reordered_within_a_key()
        assert len(self.table) == 0
        assert self.table.state is SpoolState.UP
        wanted = {write.number for write in self.taken} - self.needless
        assert wanted <= {write.number for write in self.stored}


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
