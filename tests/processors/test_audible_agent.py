import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.audible_agent import LEAST_GAP_S, AudibleAgent


def test_in_silence_nothing_is_told() -> None:
    agent = AudibleAgent()
    assert not agent.is_audible
    assert agent.sounds_until_s == float("-inf")
    assert agent.gap_began_s(100.0) is None
    assert not agent.stop()


def test_it_becomes_audible_once() -> None:
    agent = AudibleAgent()
    assert [agent.sent(0.1, 1.0 + 0.1 * number) for number in range(3)] == [True, False, False]
    assert agent.is_audible


def test_a_turn_is_told_once_and_its_end_too() -> None:
    agent = AudibleAgent()
    agent.sent(0.1, 1.0)
    assert not agent.is_turn, "it may be a filler"
    assert [agent.begin_turn(), agent.begin_turn()] == [True, False]
    assert [agent.stop(), agent.stop()] == [True, False]
    assert not agent.is_audible


def test_a_filler_that_stops_was_no_turn() -> None:
    agent = AudibleAgent()
    agent.sent(0.1, 1.0)
    assert not agent.stop()


def test_audio_sent_ahead_is_heard_behind_what_was_sent_before() -> None:
    agent = AudibleAgent()
    agent.sent(0.25, 1.0)
    agent.sent(0.1, 1.05)
    assert agent.sounds_until_s == pytest.approx(1.35)
    agent.sent(0.1, 2.0)
    assert agent.sounds_until_s == pytest.approx(2.1), "it had run dry"


@pytest.mark.parametrize(
    ("is_turn", "silence_s", "is_gap"),
    [
        (True, LEAST_GAP_S + 0.001, True),
        (True, LEAST_GAP_S - 0.001, False),
        (False, 10.0, False),
    ],
)
def test_a_gap_is_a_silence_within_a_turn(is_turn: bool, silence_s: float, is_gap: bool) -> None:
    agent = AudibleAgent()
    agent.sent(0.5, 1.0)
    if is_turn:
        agent.begin_turn()
    assert agent.gap_began_s(1.5 + silence_s) == (pytest.approx(1.5) if is_gap else None)


def test_a_silence_for_the_callers_sake_is_no_gap() -> None:
    agent = AudibleAgent()
    agent.sent(0.5, 1.0)
    agent.begin_turn()
    agent.hush()
    assert agent.gap_began_s(100.0) is None
    assert agent.sounds_until_s == float("-inf")
    agent.sent(0.2, 100.0)
    assert agent.sounds_until_s == pytest.approx(100.2)
    assert agent.is_audible


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.02, 0.5)), max_size=30))
def test_no_more_is_heard_than_was_sent_and_nothing_before_it_was(sent: list[tuple[float, float]]) -> None:
    agent, now_s, total_s = AudibleAgent(), 0.0, 0.0
    for wait_s, length_s in sent:
        now_s += wait_s
        total_s += length_s
        agent.sent(length_s, now_s)
        assert now_s + length_s <= agent.sounds_until_s + 1e-9
        assert agent.sounds_until_s <= now_s + total_s + 1e-9
