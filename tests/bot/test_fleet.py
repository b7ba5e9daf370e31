import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bot.fleet import RETRY_S, SILENT_LIMIT_S, START_LIMIT_S, Act, Fleet, Order, Sign, Stage

READY, ALIVE, SILENT, DEAD = Sign.READY, Sign.ALIVE, Sign.SILENT, Sign.DEAD


def start(number: int) -> Order:
    return Order(Act.START, number)


@pytest.fixture
def two() -> Fleet:
    """Two workers that serve, at second 1."""
    fleet = Fleet(2)
    assert fleet.begin(0.0) == [start(0), start(1)]
    assert fleet.look({0: ALIVE, 1: SILENT}, 0.5) == []
    assert not fleet.has_served
    assert fleet.look({0: READY, 1: READY}, 1.0) == []
    assert fleet.has_served
    return fleet


def test_one_that_died_is_replaced_at_once_and_again_if_it_dies_old(two: Fleet) -> None:
    assert two.look({0: DEAD, 1: READY}, 100.0) == [start(2)]
    assert two.look({2: READY, 1: READY}, 101.0) == []
    assert two.look({2: DEAD, 1: READY}, 201.0) == [start(3)]


def test_one_that_dies_young_is_replaced_later_each_time(two: Fleet) -> None:
    now_s, waits = 2.0, list[float]()
    number = 0
    for _ in range(9):
        assert two.look({number: DEAD, 1: READY}, now_s) == []
        died_s = now_s
        while not (orders := two.look({1: READY}, now_s)):
            now_s += 0.5
        waits.append(now_s - died_s)
        (number,) = (order.worker for order in orders)
    least_s, longest_s = RETRY_S
    assert waits == [min(least_s * 2**step, longest_s) for step in range(9)]


def test_one_that_hangs_is_killed_and_replaced(two: Fleet) -> None:
    assert two.look({0: SILENT, 1: READY}, 50.0 + SILENT_LIMIT_S) == [Order(Act.KILL, 0), start(2)]


def test_one_that_does_not_come_up_in_time_is_killed() -> None:
    fleet = Fleet(1)
    fleet.begin(0.0)
    assert fleet.look({0: ALIVE}, START_LIMIT_S) == []
    assert fleet.look({0: ALIVE}, START_LIMIT_S + 0.1) == [Order(Act.KILL, 0), start(1)]


def test_a_rolling_restart_replaces_one_after_the_other_and_waits_for_no_call(two: Fleet) -> None:
    two.renew()
    assert two.look({0: READY, 1: READY}, 2.0) == [start(2)]
    assert two.look({0: READY, 1: READY, 2: ALIVE}, 3.0) == []
    two.renew()  # asked again: it is under way
    assert two.look({0: READY, 1: READY, 2: READY}, 4.0) == [Order(Act.RETIRE, 0), start(3)]
    assert two.stage(0) is Stage.RETIRING
    assert two.look({0: ALIVE, 1: READY, 2: READY, 3: READY}, 5.0) == [Order(Act.RETIRE, 1)]
    assert not two.is_renewing
    assert two.look({0: DEAD, 1: DEAD, 2: READY, 3: READY}, 6.0) == [], "who retired is not replaced"


def test_who_is_still_starting_when_a_restart_begins_is_replaced_too(two: Fleet) -> None:
    assert two.look({0: DEAD, 1: READY}, 100.0) == [start(2)]
    two.renew()
    assert two.look({1: READY, 2: ALIVE}, 101.0) == [start(3)]
    assert two.look({1: READY, 2: READY, 3: READY}, 102.0) == [Order(Act.RETIRE, 1), start(4)]
    assert two.look({1: DEAD, 2: READY, 3: READY, 4: READY}, 103.0) == [Order(Act.RETIRE, 2)]
    assert not two.is_renewing


@pytest.mark.parametrize("sign", [DEAD, SILENT])
def test_a_successor_that_does_not_come_up_ends_the_restart_and_the_old_ones_stay(
    two: Fleet, sign: Sign
) -> None:
    two.renew()
    two.look({0: READY, 1: READY}, 2.0)
    orders = two.look({0: READY, 1: READY, 2: sign}, 2.1 + START_LIMIT_S)
    assert orders == ([] if sign is DEAD else [Order(Act.KILL, 2)])
    assert not two.is_renewing
    assert [two.stage(number) for number in (0, 1)] == [Stage.SERVING] * 2
    assert two.look({0: READY, 1: READY}, 200.0) == []


def test_one_that_dies_while_its_successor_starts_is_succeeded_by_it(two: Fleet) -> None:
    two.renew()
    assert two.look({0: READY, 1: READY}, 20.0) == [start(2)]
    assert two.look({0: DEAD, 1: READY, 2: ALIVE}, 21.0) == []
    assert two.look({1: READY, 2: READY}, 22.0) == [start(3)]


def test_when_both_the_old_one_and_its_successor_die_another_is_started(two: Fleet) -> None:
    two.renew()
    two.look({0: READY, 1: READY}, 20.0)
    assert two.look({0: DEAD, 1: READY, 2: DEAD}, 40.0) == [start(3)]


class FleetMachine(RuleBasedStateMachine):
    """Workers that live, hang and die in any order, with restarts in between."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(3)
        self.now_s = 0.0
        self.there: set[int] = set()
        self.retired: set[int] = set()
        self.obey(self.fleet.begin(0.0))

    def obey(self, orders: list[Order]) -> None:
        for order in orders:
            if order.act is Act.START:
                assert order.worker not in self.there
                self.there.add(order.worker)
            elif order.act is Act.KILL:
                self.there.remove(order.worker)
            else:
                assert order.worker in self.there
                self.retired.add(order.worker)

    @rule(data=st.data(), passes_s=st.sampled_from([0.25, 2.0, 12.0, 61.0]))
    def look(self, data: st.DataObject, passes_s: float) -> None:
        self.now_s += passes_s
        signs = {number: data.draw(st.sampled_from(Sign), label=str(number)) for number in sorted(self.there)}
        self.there -= {number for number, sign in signs.items() if sign is DEAD}
        self.obey(self.fleet.look(signs, self.now_s))

    @rule()
    def renew(self) -> None:
        self.fleet.renew()

    @invariant()
    def it_knows_who_is_there(self) -> None:
        assert set(self.fleet._workers) == self.there

    @invariant()
    def there_are_never_too_many_and_never_too_few(self) -> None:
        active = [number for number in self.there if self.fleet.stage(number) is not Stage.RETIRING]
        assert 3 <= len(active) + len(self.fleet._vacancies) <= 4

    def teardown(self) -> None:
        """Left alone, all come back."""
        for _ in range(40):
            self.now_s += 4.0
            self.obey(self.fleet.look(dict.fromkeys(self.there, READY), self.now_s))
        serving = [number for number in self.there if self.fleet.stage(number) is Stage.SERVING]
        assert len(serving) == 3
        assert not self.fleet.is_renewing


test_fleet_machine = FleetMachine.TestCase
test_fleet_machine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(1, 8))
def test_as_many_are_started_as_there_should_be(size: int) -> None:
    assert len(Fleet(size).begin(0.0)) == size
