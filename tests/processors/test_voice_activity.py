import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.voice_activity import WINDOW_S, Edge, Voice, VoiceActivity, VoiceActivityParams, windows

VOICED = (0.9, -20.0)
UNVOICED = (0.1, -20.0)
TOO_SOFT = (0.9, -60.0)


def edges(activity: VoiceActivity, *runs: tuple[tuple[float, float], int]) -> list[Edge]:
    made: list[Edge] = []
    for (probability, level_db), count in runs:
        for _ in range(count):
            made += activity.step(probability, level_db)
    return made


def test_speech_starts_after_enough_voice_and_stops_after_enough_quiet() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    assert edges(activity, (VOICED, 5)) == []
    assert edges(activity, (VOICED, 1)) == [Edge.STARTED]
    assert edges(activity, (UNVOICED, 4)) == [Edge.PAUSED]
    assert edges(activity, (UNVOICED, 2)) == [Edge.STOPPED]
    assert activity.state is Voice.QUIET
    assert activity.unvoiced_s == pytest.approx(6 * WINDOW_S)


def test_a_click_is_not_speech() -> None:
    assert (
        edges(VoiceActivity(VoiceActivityParams()), (VOICED, 3), (UNVOICED, 9), (VOICED, 3), (UNVOICED, 9))
        == []
    )


def test_one_weak_window_inside_an_onset_does_not_start_the_count_again() -> None:
    assert edges(VoiceActivity(VoiceActivityParams()), (VOICED, 3), (UNVOICED, 1), (VOICED, 3)) == [
        Edge.STARTED
    ]


def test_going_on_after_a_short_pause_is_told_only_when_the_pause_was() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    edges(activity, (VOICED, 6))
    assert edges(activity, (UNVOICED, 2), (VOICED, 2)) == []
    assert edges(activity, (UNVOICED, 4), (VOICED, 2)) == [Edge.PAUSED, Edge.RESUMED]


def test_what_is_too_soft_is_never_voice() -> None:
    activity = VoiceActivity(VoiceActivityParams(min_level_db=-45.0))
    assert edges(activity, (TOO_SOFT, 50)) == []
    assert not activity.wants_probability(-60.0)
    assert activity.wants_probability(-45.0)


@pytest.mark.parametrize(("duration_s", "count"), [(0.0, 1), (0.2, 6), (0.24, 8), (0.128, 4)])
def test_durations_become_the_nearest_windows(duration_s: float, count: int) -> None:
    assert windows(duration_s) == count


@given(st.lists(st.sampled_from([VOICED, UNVOICED, TOO_SOFT]), max_size=200))
def test_edges_come_in_order_whatever_is_heard(heard: list[tuple[float, float]]) -> None:
    activity = VoiceActivity(VoiceActivityParams())
    allowed = {
        None: {Edge.STARTED},
        Edge.STARTED: {Edge.PAUSED, Edge.STOPPED},
        Edge.PAUSED: {Edge.RESUMED, Edge.STOPPED},
        Edge.RESUMED: {Edge.PAUSED, Edge.STOPPED},
        Edge.STOPPED: {Edge.STARTED},
    }
    last: Edge | None = None
    for probability, level_db in heard:
        for edge in activity.step(probability, level_db):
            assert edge in allowed[last]
            last = edge
        speaking = activity.state in (Voice.SPEAKING, Voice.PAUSING)
        assert speaking == (last not in (None, Edge.STOPPED))
