import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.voice_activity import WINDOW_S, Edge, Voice, VoiceActivity, VoiceActivityParams, windows

VOICED = (0.9, -20.0)
UNVOICED = (0.1, -20.0)
WEAK = (0.5, -20.0)
TOO_SOFT = (0.9, -60.0)
SILENT = (0.0, -100.0)
ANY_SOUND = st.lists(st.sampled_from([VOICED, UNVOICED, WEAK, TOO_SOFT, SILENT]), max_size=200)


def edges(activity: VoiceActivity, *runs: tuple[tuple[float, float], int]) -> list[Edge]:
    made: list[Edge] = []
    for (probability, level_db), count in runs:
        for _ in range(count):
            made += activity.step(probability, level_db)
    return made


def test_speech_starts_after_enough_voice_and_stops_after_enough_quiet() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    assert edges(activity, (VOICED, 5)) == [Edge.ONSET]
    assert edges(activity, (VOICED, 1)) == [Edge.STARTED]
    assert edges(activity, (UNVOICED, 4)) == [Edge.PAUSED]
    assert edges(activity, (UNVOICED, 2)) == [Edge.STOPPED]
    assert activity.state is Voice.QUIET
    assert activity.unvoiced_s == pytest.approx(6 * WINDOW_S)


def test_a_sound_too_short_for_speech_may_be_a_word() -> None:
    heard = edges(VoiceActivity(VoiceActivityParams()), (VOICED, 3), (SILENT, 9), (VOICED, 3), (SILENT, 9))
    assert heard == [Edge.ONSET, Edge.SHORT, Edge.ONSET, Edge.SHORT]


def test_one_weak_window_inside_an_onset_does_not_start_the_count_again() -> None:
    assert edges(VoiceActivity(VoiceActivityParams()), (VOICED, 3), (UNVOICED, 1), (VOICED, 3)) == [
        Edge.ONSET,
        Edge.STARTED,
    ]


def test_an_onset_is_told_in_its_first_window_and_from_a_lower_probability() -> None:
    activity = VoiceActivity(VoiceActivityParams(confidence=0.6, onset_confidence=0.4))
    assert edges(activity, ((0.39, -20.0), 9)) == [Edge.ONSET, Edge.NOISE]
    assert edges(activity, ((0.41, -20.0), 1)) == [Edge.ONSET]
    assert activity.state is Voice.STARTING
    assert edges(activity, (VOICED, 6)) == [Edge.STARTED]


def test_a_click_is_no_onset_and_a_noise_without_voice_is_soon_given_up() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    assert edges(activity, (UNVOICED, 1), (SILENT, 5)) == []
    assert edges(activity, (UNVOICED, 2)) == [Edge.ONSET]
    assert edges(activity, (UNVOICED, 3)) == [Edge.NOISE]


def test_a_word_that_begins_without_voice_is_told_when_it_gets_loud() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    assert edges(activity, (SILENT, 5), (UNVOICED, 2)) == [Edge.ONSET]
    assert edges(activity, (UNVOICED, 1), (VOICED, 6)) == [Edge.STARTED]


def test_noise_that_stays_is_told_once() -> None:
    assert edges(VoiceActivity(VoiceActivityParams()), (UNVOICED, 500)) == [Edge.ONSET, Edge.NOISE]


def test_a_moment_of_voice_is_noise() -> None:
    heard = edges(VoiceActivity(VoiceActivityParams()), (SILENT, 5), (VOICED, 2), (SILENT, 5))
    assert heard == [Edge.ONSET, Edge.NOISE]


def test_an_onset_can_be_asked_to_last() -> None:
    activity = VoiceActivity(VoiceActivityParams(onset_windows=3, rise_windows=99))
    assert edges(activity, (VOICED, 2), (UNVOICED, 1), (VOICED, 2)) == []
    assert edges(activity, (VOICED, 1)) == [Edge.ONSET]


def test_a_sound_that_is_never_voiced_is_given_up() -> None:
    activity = VoiceActivity(VoiceActivityParams())
    assert edges(activity, (WEAK, 3)) == [Edge.ONSET]
    assert edges(activity, (WEAK, 1)) == [Edge.NOISE]


def test_an_onset_that_asks_for_more_than_speech_does_asks_for_the_same() -> None:
    activity = VoiceActivity(VoiceActivityParams(confidence=0.5, onset_confidence=0.95))
    assert edges(activity, (VOICED, 1)) == [Edge.ONSET]


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


@given(ANY_SOUND, st.integers(1, 9), st.sampled_from([0.4, 0.6]))
def test_edges_come_in_order_whatever_is_heard(
    heard: list[tuple[float, float]], onset_windows: int, onset_confidence: float
) -> None:
    activity = VoiceActivity(
        VoiceActivityParams(onset_windows=onset_windows, onset_confidence=onset_confidence)
    )
    allowed = {
        None: {Edge.ONSET},
        Edge.ONSET: {Edge.NOISE, Edge.SHORT, Edge.STARTED},
        Edge.NOISE: {Edge.ONSET},
        Edge.SHORT: {Edge.ONSET},
        Edge.STARTED: {Edge.PAUSED, Edge.STOPPED},
        Edge.PAUSED: {Edge.RESUMED, Edge.STOPPED},
        Edge.RESUMED: {Edge.PAUSED, Edge.STOPPED},
        Edge.STOPPED: {Edge.ONSET},
    }
    last: Edge | None = None
    for probability, level_db in heard:
        for edge in activity.step(probability, level_db):
            assert edge in allowed[last]
            last = edge
        speaking = activity.state in (Voice.SPEAKING, Voice.PAUSING)
        assert speaking == (last in (Edge.STARTED, Edge.PAUSED, Edge.RESUMED))
        assert (activity.state is Voice.STARTING) == (last is Edge.ONSET)


@given(ANY_SOUND, st.integers(1, 9), st.floats(0.0, 1.0), st.integers(1, 9))
def test_what_counts_as_an_onset_changes_nothing_else(
    heard: list[tuple[float, float]], onset_windows: int, onset_confidence: float, rise_windows: int
) -> None:
    plain = VoiceActivity(VoiceActivityParams())
    other = VoiceActivity(
        VoiceActivityParams(
            onset_windows=onset_windows, onset_confidence=onset_confidence, rise_windows=rise_windows
        )
    )
    guesses = (Edge.ONSET, Edge.NOISE, Edge.SHORT)
    for window in heard:
        expected = [edge for edge in plain.step(*window) if edge not in guesses]
        assert [edge for edge in other.step(*window) if edge not in guesses] == expected
        assert plain.unvoiced_s == other.unvoiced_s
