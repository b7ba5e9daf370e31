import itertools
import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import mulaw
from sims.speech import SpeechSynthesizer, Word, encode_ulaw
from sims.spoken import FRAME_BYTES, Encoding, HeardWord, SpokenIndex, SpokenTracker

SILENCE = mulaw.SILENT_FRAME


def noise(seconds: float, seed: int) -> bytes:
    """Loud, never-repeating mu-law."""
    samples = np.random.default_rng(seed).normal(0, 4000, round(seconds * 8000))
    return encode_ulaw(samples.clip(-32000, 32000).astype("<i2").tobytes())


def four_words(seed: int) -> tuple[bytes, list[Word]]:
    """One second: four words of 0.2 s with pauses of 50 ms."""
    names = [f"w{seed}-{n}" for n in range(4)]
    return noise(1.0, seed), [Word(name, 0.25 * n, 0.25 * n + 0.2) for n, name in enumerate(names)]


def frames_of(ulaw: bytes) -> list[bytes]:
    return [ulaw[at : at + FRAME_BYTES] for at in range(0, len(ulaw), FRAME_BYTES)]


def heard(tracker: SpokenTracker, chunks: Iterable[bytes]) -> list[HeardWord]:
    return [word for chunk in chunks for word in tracker.feed(chunk)]


def texts(words: Sequence[HeardWord | Word]) -> list[str]:
    return [word.text for word in words]


@pytest.fixture
def spoken() -> tuple[SpokenIndex, bytes, list[Word]]:
    index = SpokenIndex()
    ulaw, words = four_words(1)
    index.add(ulaw, words)
    return index, ulaw, words


Spoken = tuple[SpokenIndex, bytes, list[Word]]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_words_come_with_their_last_frame_and_in_stream_time(spoken: Spoken, encoding: Encoding) -> None:
    index, ulaw, words = spoken
    tracker = index.tracker(encoding)
    before = [SILENCE] * 25
    arrivals: list[tuple[str, float]] = []
    for frame in [*before, *frames_of(ulaw)]:
        audio = frame if encoding is Encoding.MULAW else mulaw.decode(frame)
        for word in tracker.feed(audio):
            arrivals.append((word.text, tracker.audio_s))
            assert word.start_s == pytest.approx(0.5 + words[len(arrivals) - 1].start_s)
            assert word.end_s == pytest.approx(0.5 + words[len(arrivals) - 1].end_s)
    assert [text for text, _ in arrivals] == texts(words)
    assert [at for _, at in arrivals] == pytest.approx([0.7, 0.96, 1.2, 1.46])  # ends rounded up to a frame


def test_real_speech_is_recognised_word_for_word() -> None:
    synthesizer = SpeechSynthesizer()
    speech = synthesizer.synthesize(
        "Could I come on Wednesday at 10:30, please?", voice="caller-2", rate_hz=8000
    )
    synthesizer.close()
    index = SpokenIndex()
    ulaw = encode_ulaw(speech.pcm)
    index.add(ulaw, speech.words)
    words = heard(index.tracker(), map(mulaw.decode, [SILENCE, *frames_of(ulaw), SILENCE, SILENCE]))
    assert texts(words) == ["Could", "I", "come", "on", "Wednesday", "at", "10:30,", "please?"]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 1300), st.integers(0, 3))
def test_grouping_of_frames_does_not_matter(chunk_bytes: int, quiet_frames: int) -> None:
    index = SpokenIndex()
    ulaw, words = four_words(1)
    index.add(ulaw, words)
    stream = mulaw.decode(SILENCE * quiet_frames + ulaw + SILENCE * 2)
    chunks = [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]
    assert texts(heard(index.tracker(), chunks)) == texts(words)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, FRAME_BYTES - 1), st.booleans())
def test_any_phase_is_found(phase: int, loud: bool) -> None:
    index = SpokenIndex()
    ulaw, words = four_words(2)
    index.add(ulaw, words)
    lead = noise(1.0, 99)[:phase] if loud else b"\xff" * phase
    tracker = index.tracker(Encoding.MULAW)
    got = heard(tracker, frames_of(lead + ulaw + SILENCE * 2))
    assert texts(got) == texts(words)
    assert got[-1].end_s == pytest.approx(phase / 8000 + words[-1].end_s, abs=0.021)


@pytest.mark.parametrize("replaced_by_silence", [True, False], ids=["concealed", "removed"])
@pytest.mark.parametrize("seed", range(5))
def test_one_frame_in_ten_lost_loses_no_word(spoken: Spoken, replaced_by_silence: bool, seed: int) -> None:
    index, ulaw, words = spoken
    lost = random.Random(seed)
    frames: list[bytes] = []
    for frame in frames_of(ulaw):
        if lost.random() > 0.1:
            frames.append(frame)
        elif replaced_by_silence:
            frames.append(SILENCE)
    got = heard(index.tracker(Encoding.MULAW), [*frames, *[SILENCE] * 30])
    assert texts(got) == texts(words)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(got))


@pytest.mark.parametrize("replaced_by_silence", [True, False], ids=["concealed", "removed"])
def test_a_word_with_most_frames_lost_is_not_heard(spoken: Spoken, replaced_by_silence: bool) -> None:
    index, ulaw, words = spoken
    frames = frames_of(ulaw)
    gone = range(13, 20)  # seven of the ten frames of the second word
    kept = [SILENCE if n in gone else f for n, f in enumerate(frames) if replaced_by_silence or n not in gone]
    got = heard(index.tracker(Encoding.MULAW), [*kept, *[SILENCE] * 30])
    assert texts(got) == [words[0].text, words[2].text, words[3].text]


def test_a_caller_who_stops_in_the_middle_said_what_was_half_out(spoken: Spoken) -> None:
    index, ulaw, words = spoken
    tracker = index.tracker(Encoding.MULAW)
    cut = frames_of(ulaw)[:19]  # the second word's frames are 12 to 22
    got = heard(tracker, [*cut, *[SILENCE] * 10])
    assert texts(got) == texts(words[:2])
    assert not tracker.is_speaking
    heard(tracker, [SILENCE] * 30)
    assert not tracker.is_following


def test_starting_in_the_middle_gives_the_rest(spoken: Spoken) -> None:
    index, ulaw, words = spoken
    assert texts(heard(index.tracker(Encoding.MULAW), frames_of(ulaw)[22:])) == texts(words[2:])


def test_an_utterance_said_twice_is_heard_twice(spoken: Spoken) -> None:
    index, ulaw, words = spoken
    assert texts(heard(index.tracker(Encoding.MULAW), frames_of(ulaw + ulaw))) == 2 * texts(words)


def test_shared_prefixes_and_sound_in_between() -> None:
    index = SpokenIndex()
    prefix = noise(0.5, 1)
    a, b = prefix + noise(0.5, 2), prefix + noise(0.5, 3)
    index.add(a, [Word("please", 0.1, 0.4), Word("Monday", 0.42, 0.9)])
    index.add(b, [Word("please", 0.1, 0.4), Word("Tuesday", 0.42, 0.9)])
    tracker = index.tracker(Encoding.MULAW)
    assert texts(heard(tracker, frames_of(b))) == ["please", "Tuesday"]
    assert texts(heard(tracker, frames_of(noise(0.7, 9)))) == []
    assert texts(heard(tracker, frames_of(a))) == ["please", "Monday"]


def test_unknown_sound_is_handed_out_and_known_sound_is_not(spoken: Spoken) -> None:
    index, ulaw, _ = spoken
    tracker = index.tracker(Encoding.MULAW)
    foreign = noise(0.1, 77)
    tracker.feed(foreign)
    assert tracker.unexplained == foreign
    tracker.feed(ulaw)
    assert tracker.unexplained == b""
    assert tracker.is_following


def test_a_noise_without_words_is_explained_and_says_nothing() -> None:
    index = SpokenIndex()
    cough = noise(0.4, 5)
    index.add(cough, [])
    tracker = index.tracker(Encoding.MULAW)
    assert tracker.feed(cough) == []
    assert tracker.unexplained == b""
    assert not tracker.is_speaking


def test_speaking_follows_the_words(spoken: Spoken) -> None:
    index, ulaw, _ = spoken
    tracker = index.tracker(Encoding.MULAW)
    speaking: list[bool] = []
    for frame in frames_of(ulaw):
        tracker.feed(frame)
        speaking.append(tracker.is_speaking)
    assert speaking[:9] == [True] * 9  # 0 to 0.18 s lie inside the first word
    assert speaking[10] is False  # between 0.2 and 0.25 s
    assert speaking[49] is False


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    index = SpokenIndex(max_frames=120)
    made = [four_words(seed) for seed in range(1, 5)]
    for ulaw, words in made:
        index.add(ulaw, words)
    assert len(index) == 2
    assert len(index._places) <= 120
    assert texts(heard(index.tracker(Encoding.MULAW), frames_of(made[0][0]))) == []
    assert texts(heard(index.tracker(Encoding.MULAW), frames_of(made[3][0]))) == texts(made[3][1])


def test_the_same_utterance_is_kept_once(spoken: Spoken) -> None:
    index, ulaw, words = spoken
    places = len(index._places)
    index.add(ulaw, words)
    assert (len(index), len(index._places)) == (1, places)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=700), max_size=12), st.sampled_from(Encoding))
def test_any_bytes_are_taken(chunks: list[bytes], encoding: Encoding) -> None:
    index = SpokenIndex()
    ulaw, words = four_words(1)
    index.add(ulaw, words)
    tracker = index.tracker(encoding)
    heard(tracker, chunks)
    total = sum(map(len, chunks)) // (2 if encoding is Encoding.LINEAR16 else 1)
    assert tracker.audio_s == pytest.approx(total / 8000)
