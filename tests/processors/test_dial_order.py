from collections.abc import Collection

import pytest

from processors.dial_order import DialOrder
from processors.recognisers import Recogniser
from processors.voices import FailureKind
from tests.fakes.recognisers import FakeRecogniser, SpokenWords

SPOKEN = SpokenWords()
FIRST, SECOND, THIRD = (FakeRecogniser(name, SPOKEN) for name in ("first", "second", "third"))


def order() -> DialOrder:
    return DialOrder((FIRST, SECOND, THIRD))


def dialled(
    table: DialOrder,
    *,
    tried: Collection[str] = (),
    ill: Collection[str] = (),
    doubted: Recogniser | None = None,
) -> Recogniser:
    return table.next(tried=tried, is_well=lambda vendor: vendor not in ill, doubted=doubted)


def test_the_order_of_failover_counts() -> None:
    assert dialled(order()) is FIRST


def test_who_is_known_to_be_ill_comes_behind_who_is_well() -> None:
    assert dialled(order(), ill={"first"}) is SECOND
    assert dialled(order(), ill={"first", "second", "third"}) is FIRST


def test_who_heard_no_word_comes_behind_who_may() -> None:
    assert dialled(order(), doubted=FIRST) is SECOND
    assert dialled(order(), doubted=FIRST, ill={"second", "third"}) is SECOND, "its own opinion is none"


def test_who_keeps_failing_is_asked_for_no_opinion() -> None:
    table = order()
    for one in (SECOND, THIRD):
        table.dial_failed(one)
        table.dial_failed(one)
    assert dialled(table, doubted=FIRST) is FIRST


def test_who_failed_in_this_round_comes_last() -> None:
    assert dialled(order(), tried={"first"}) is SECOND
    assert dialled(order(), tried={"first", "second"}, ill={"third"}) is THIRD


def test_dials_in_vain_are_counted_until_words_are_understood() -> None:
    table = order()
    table.dial_failed(FIRST)
    assert table.has_failed("first")
    assert not table.keeps_failing("first")
    assert dialled(table) is SECOND
    table.dial_failed(FIRST)
    assert table.keeps_failing("first")
    table.understood()
    assert not table.has_failed("first")
    assert dialled(table) is FIRST


def test_a_connection_that_is_lost_once_is_dialled_again_before_another() -> None:
    table = order()
    assert not table.lost(SECOND, FailureKind.CLOSED), "it happens"
    assert dialled(table) is FIRST, "all have failed as often, so the order counts"
    assert dialled(table, ill={"first"}) is SECOND
    assert table.lost(SECOND, FailureKind.CLOSED)
    assert dialled(table, ill={"first"}) is THIRD


@pytest.mark.parametrize("kind", [FailureKind.LATE, FailureKind.REFUSED, FailureKind.SERVER])
def test_who_hangs_or_sends_garbage_is_to_blame_at_once(kind: FailureKind) -> None:
    table = order()
    assert table.lost(FIRST, kind)
    assert dialled(table) is SECOND


def test_a_silence_is_nobodys_fault() -> None:
    table = order()
    assert not table.lost(FIRST, FailureKind.SILENT)
    assert not table.has_failed("first")
