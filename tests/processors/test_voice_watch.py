import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.voice_watch import Pace, VoiceWatch, WatchLimits
from processors.voices import FailureKind

LIMITS = WatchLimits()


def verdict(
    watch: VoiceWatch,
    now_s: float,
    *,
    buffered_s: float | None = 0.0,
    owed_s: float = 2.0,
    silence_s: float = 0.0,
    has_sound: bool = True,
) -> FailureKind | None:
    return watch.verdict(
        now_s, buffered_s=buffered_s, owed_s=owed_s, silence_s=silence_s, has_sound=has_sound
    )


def flowing(*audio: tuple[float, float]) -> VoiceWatch:
    """A watch that was asked at 0 and got audio: (when, how long)."""
    watch = VoiceWatch()
    watch.asked(0.0)
    for at_s, length_s in audio:
        watch.audio(length_s, at_s, is_audible=True)
    return watch


def test_who_was_given_nothing_fails_at_nothing() -> None:
    watch = VoiceWatch()
    assert verdict(watch, 1000.0) is None
    watch = flowing((0.2, 1.0))
    watch.all_made()
    assert (watch.state, verdict(watch, 1000.0)) == (Pace.IDLE, None)


def test_first_audio_has_to_come_in_time() -> None:
    watch = VoiceWatch()
    watch.asked(10.0)
    watch.asked(11.0)  # more text is no more time
    assert verdict(watch, 11.49) is None
    assert verdict(watch, 11.5) is FailureKind.LATE
    assert verdict(watch, 11.5, buffered_s=5.0) is FailureKind.LATE
    watch.audio(0.1, 11.4, is_audible=False)
    assert verdict(watch, 11.5) is FailureKind.LATE, "silence is no audio"
    watch.audio(0.1, 11.5, is_audible=True)
    assert verdict(watch, 11.6) is None


def test_each_text_has_its_own_time_to_begin() -> None:
    watch = flowing((0.2, 1.0))
    watch.next_text(3.0)
    assert watch.state is Pace.WAITING
    assert verdict(watch, 4.4) is None
    assert verdict(watch, 4.5) is FailureKind.LATE


def test_a_voice_that_falls_silent_fails_while_there_is_enough_for_another_to_begin() -> None:
    watch = flowing((0.2, 0.6))
    assert verdict(watch, 0.3, buffered_s=0.5) is None
    assert verdict(watch, 0.39, buffered_s=0.2) is None, "it may be about to send more"
    assert verdict(watch, 0.5, buffered_s=0.4) is None
    assert verdict(watch, 0.55, buffered_s=0.32) is FailureKind.STARVING
    assert verdict(watch, 0.55, buffered_s=0.32, owed_s=0.0) is None, "it has only to say that it is done"


def test_while_nobody_listens_a_voice_may_take_longer() -> None:
    watch = flowing((0.2, 0.6))
    assert verdict(watch, 1.6, buffered_s=None) is None
    assert verdict(watch, 1.7, buffered_s=None) is FailureKind.STARVING


def test_a_voice_that_is_slower_than_speech_fails_before_it_is_heard() -> None:
    # 0.1 s of audio every 0.125 s: it never falls silent for long.
    audio = [(0.2 + n * 0.125, 0.1) for n in range(9)]
    watch = flowing((0.2, 0.5), *audio[1:])
    assert verdict(watch, 1.2, buffered_s=0.4, owed_s=3.0) is None
    assert verdict(watch, 1.2, buffered_s=0.02, owed_s=3.0) is None, "its pace so far will do"
    slow = flowing(*audio)
    assert verdict(slow, 1.2, buffered_s=0.02, owed_s=3.0) is FailureKind.STARVING
    assert verdict(slow, 1.2, buffered_s=0.02, owed_s=0.05) is None, "what is still to come comes in time"


def test_a_voice_that_is_quicker_than_speech_never_fails() -> None:
    audio = [(0.2 + n * 0.04, 0.16) for n in range(50)]
    watch = flowing(*audio)
    assert verdict(watch, 2.2, buffered_s=0.05) is None


@pytest.mark.parametrize(("has_sound", "silence_s"), [(False, 0.8), (True, 2.0)])
def test_silence_for_text_is_no_speech(has_sound: bool, silence_s: float) -> None:
    watch = flowing((0.2, 1.0))
    assert verdict(watch, 0.3, silence_s=silence_s - 0.01, has_sound=has_sound, buffered_s=9.0) is None
    assert verdict(watch, 0.3, silence_s=silence_s, has_sound=has_sound, buffered_s=9.0) is FailureKind.SILENT


@given(
    pace=st.floats(1.3, 20.0),
    chunk_s=st.floats(0.02, 0.25),
    latency_s=st.floats(0.0, 1.2),
    ahead_s=st.floats(0.0, 3.0),
)
def test_a_voice_that_keeps_ahead_is_left_alone(
    pace: float, chunk_s: float, latency_s: float, ahead_s: float
) -> None:
    """Chunks of up to a quarter of a second, steadily quicker than they are played."""
    watch = VoiceWatch()
    watch.asked(0.0)
    total_s = 4.0
    due_s, made_s, now_s = latency_s, 0.0, 0.0
    while made_s < total_s:
        while due_s <= now_s and made_s < total_s:
            watch.audio(chunk_s, due_s, is_audible=True)
            made_s += chunk_s
            due_s += chunk_s / pace
        began_s = max(latency_s, ahead_s)
        played_s = max(0.0, now_s - began_s)
        buffered_s = max(0.0, made_s - played_s) + max(0.0, ahead_s - now_s)
        assert verdict(watch, now_s, buffered_s=buffered_s, owed_s=total_s - made_s) is None
        now_s += 0.04


@given(after_s=st.floats(0.05, 3.0), pace=st.floats(1.0, 10.0))
def test_a_voice_that_dies_is_found_out_before_or_soon_after_the_listener_runs_dry(
    after_s: float, pace: float
) -> None:
    watch = VoiceWatch()
    watch.asked(0.0)
    made_s = now_s = 0.0
    while now_s < 20.0:
        while made_s < after_s and made_s / pace <= now_s:
            watch.audio(0.05, made_s / pace, is_audible=True)
            made_s += 0.05
        if verdict(watch, now_s, buffered_s=max(0.0, made_s - now_s), owed_s=5.0):
            break
        now_s += 0.04
    assert now_s <= made_s + LIMITS.quiet_s + 0.05
