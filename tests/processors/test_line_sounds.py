import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from processors.line_sounds import LineSound, LineSounds, LineSoundsParams, LineSoundWatch, normalised
from sims.speech import SpeechSynthesizer

Signal = NDArray[np.float32]
RATE_HZ = 8000
BOTH_RATES = pytest.mark.parametrize("rate_hz", [8000, 16000])
RECORDING = "Thank you for calling the county records office, all lines are busy, please hold."
SHORT = "I want to speak to a person."


def time_axis(duration_s: float, rate_hz: int = RATE_HZ) -> NDArray[np.float64]:
    return np.arange(round(duration_s * rate_hz)) / rate_hz


def tone(duration_s: float, *freqs_hz: float, level: float = 0.1, rate_hz: int = RATE_HZ) -> Signal:
    seconds = time_axis(duration_s, rate_hz)
    waves = [np.sin(2 * np.pi * hz * seconds + index) for index, hz in enumerate(freqs_hz)]
    return (level * np.sum(waves, axis=0)).astype(np.float32)


def silence(duration_s: float, rate_hz: int = RATE_HZ) -> Signal:
    return np.zeros(round(duration_s * rate_hz), np.float32)


def noise(duration_s: float, *, slope: float = 0.0, level: float = 0.05, seed: int = 1) -> Signal:
    """Noise whose power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    count = round(duration_s * RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE_HZ)
    frequencies[0] = frequencies[1]
    made = np.fft.irfft(spectrum / frequencies ** (slope / 2), count)
    return (made * level / np.sqrt(np.mean(made**2))).astype(np.float32)


def music(
    duration_s: float, *, note_s: float = 0.5, seed: int = 0, drums: bool = False, rate_hz: int = RATE_HZ
) -> Signal:
    """Chords of three notes with overtones that fade; with a beat of noise if wanted."""
    random = np.random.default_rng(seed)
    notes: list[NDArray[np.float64]] = []
    for _ in range(math.ceil(duration_s / note_s)):
        seconds = time_axis(note_s, rate_hz)
        note = np.zeros(len(seconds))
        for step in random.choice(12, 3, replace=False):
            for overtone in range(1, 6):
                hz = 220 * 2 ** (step / 12) * overtone
                note += np.sin(2 * np.pi * hz * seconds + random.uniform(0, 6)) / overtone
        note *= np.exp(-seconds / note_s)
        if drums:
            note[:400] += random.normal(0, 3, 400) * np.exp(-np.arange(400) / 100)
        notes.append(note)
    made = np.concatenate(notes)
    return (0.3 * made / np.abs(made).max()).astype(np.float32)[: round(duration_s * rate_hz)]


def calling_fax(
    *, on_s: float = 0.5, off_s: float = 3.0, hz: float = 1100.0, bursts: int = 2, rate_hz: int = RATE_HZ
) -> Signal:
    return np.concatenate([tone(on_s, hz, rate_hz=rate_hz), silence(off_s, rate_hz)] * bursts)


def as_on_the_phone(signal: Signal) -> Signal:
    """µ-law and back."""
    sized = np.clip(signal, -1, 1)
    coded = np.round(np.sign(sized) * np.log1p(255 * np.abs(sized)) / np.log(256) * 127) / 127
    return (np.sign(coded) * (256 ** np.abs(coded) - 1) / 255).astype(np.float32)


def windows(signal: Signal, size: int) -> Iterator[tuple[Signal, float]]:
    for start in range(0, len(signal) - size + 1, size):
        window = signal[start : start + size]
        power = float(np.mean(window**2))
        yield window, 10 * math.log10(power) if power > 1e-10 else -100.0


def heard(
    signal: Signal, *, probability: float = 0.1, rate_hz: int = RATE_HZ, sounds: LineSounds | None = None
) -> list[tuple[LineSound, float]]:
    """What is told of a signal, and when."""
    sounds = sounds or LineSounds(rate_hz)
    told: list[tuple[LineSound, float]] = []
    for index, (window, level_db) in enumerate(windows(as_on_the_phone(signal), sounds.window_samples)):
        now_s = index * 0.032
        if (sound := sounds.window(window, level_db, probability, now_s)) is not None:
            told.append((sound, now_s))
    return told


def names(told: Sequence[tuple[LineSound, float]]) -> list[LineSound]:
    return [sound for sound, _ in told]


# Fax


@BOTH_RATES
def test_a_calling_fax_is_known_after_its_second_burst(rate_hz: int) -> None:
    [(sound, at_s)] = heard(calling_fax(bursts=3, rate_hz=rate_hz), rate_hz=rate_hz)
    assert sound is LineSound.FAX
    assert at_s == pytest.approx(4.0, abs=0.15)


@BOTH_RATES
def test_an_answering_fax_is_known_after_one_and_a_half_seconds(rate_hz: int) -> None:
    signal = np.concatenate([silence(1.0, rate_hz), tone(3.3, 2100.0, rate_hz=rate_hz)])
    [(sound, at_s)] = heard(signal, rate_hz=rate_hz)
    assert sound is LineSound.FAX
    assert at_s == pytest.approx(2.5, abs=0.1)


def test_an_answering_fax_that_turns_its_phase_is_known() -> None:
    parts = [tone(0.45, 2100.0) * sign for sign in (1, -1, 1, -1, 1, -1)]
    assert names(heard(np.concatenate(parts))) == [LineSound.FAX]


@given(
    on_s=st.floats(0.426, 0.574),
    off_s=st.floats(2.56, 3.44),
    hz=st.floats(1066, 1134),
    offset_s=st.floats(0, 0.05),
    level_db=st.floats(-40, -6),
)
@settings(max_examples=60, deadline=None)
def test_any_fax_within_the_standard_is_known(
    on_s: float, off_s: float, hz: float, offset_s: float, level_db: float
) -> None:
    signal = np.concatenate([silence(offset_s), calling_fax(on_s=on_s, off_s=off_s, hz=hz)])
    signal = signal * 10 ** (level_db / 20) * 10
    signal += noise(len(signal) / RATE_HZ, level=0.05 * 10 ** (level_db / 20))[: len(signal)]
    assert names(heard(signal)) == [LineSound.FAX]


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(calling_fax(bursts=1), id="one burst"),
        pytest.param(calling_fax(on_s=0.25), id="too short"),
        pytest.param(calling_fax(on_s=1.0), id="too long"),
        pytest.param(calling_fax(off_s=1.5), id="too soon again"),
        pytest.param(calling_fax(off_s=5.0), id="too late again"),
        pytest.param(calling_fax(hz=1000.0), id="an answering machine's beep"),
        pytest.param(calling_fax(hz=1160.0), id="too high"),
        pytest.param(tone(1.2, 2100.0), id="too short an answer"),
        pytest.param(tone(4.0, 2130.0), id="too high an answer"),
        pytest.param(tone(4.0, 2100.0, level=0.002), id="too soft"),
        pytest.param(
            np.concatenate([calling_fax(on_s=0.5, hz=1100.0, bursts=1), tone(0.2, 1100.0)]), id="click"
        ),
    ],
)
def test_what_only_resembles_a_fax_is_not_told(signal: Signal) -> None:
    assert heard(signal) == []


# Music


@pytest.mark.parametrize(
    "signal",
    [
        music(45),
        music(45, note_s=0.25, seed=1),
        music(45, note_s=1.5, seed=2),
        music(45, drums=True),
        music(45) + noise(45, slope=1, level=0.02),
    ],
    ids=["chords", "fast", "slow", "drums", "on a noisy line"],
)
def test_hold_music_is_told_once_after_twenty_seconds(signal: Signal) -> None:
    [(sound, at_s)] = heard(signal)
    assert sound is LineSound.MUSIC
    assert at_s == pytest.approx(20.0, abs=1.0)


def test_music_is_known_at_a_browsers_rate_too() -> None:
    assert names(heard(music(22, rate_hz=16000), rate_hz=16000)) == [LineSound.MUSIC]


def test_music_is_told_again_only_after_a_long_stretch_without() -> None:
    short = np.concatenate([music(22), silence(5), music(22)])
    long = np.concatenate([music(22), silence(16), music(22)])
    assert names(heard(short)) == [LineSound.MUSIC]
    assert names(heard(long)) == [LineSound.MUSIC] * 2


def test_who_talks_over_music_is_a_person() -> None:
    sounds = LineSounds(RATE_HZ)
    told: list[LineSound | None] = []
    for index, (window, level_db) in enumerate(windows(music(40), sounds.window_samples)):
        if index % 250 == 0:
            told.append(sounds.transcript("can you hear", index * 0.032))
        told.append(sounds.window(window, level_db, 0.1, index * 0.032))
    assert set(told) == {None}


def test_a_call_of_words_is_not_remembered_whole() -> None:
    sounds = LineSounds(RATE_HZ)
    for index in range(1000):
        sounds.transcript(f"yes {index}", index * 2.0)
    assert len(sounds._music._words) <= 11, "those of the last 20 s"


def test_music_with_pauses_is_not_told() -> None:
    assert heard(np.concatenate([music(6), silence(0.6)] * 7), probability=0.5) == []


def test_what_sounds_like_a_voice_all_the_time_is_not_music() -> None:
    assert heard(music(40), probability=0.9) == []


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(
    "make",
    [
        lambda: silence(60),
        lambda: noise(60, level=0.001),
        lambda: noise(60),
        lambda: noise(60, slope=1),
        lambda: noise(60, slope=2, level=0.2),
        lambda: noise(60) * np.repeat(np.linspace(0.3, 2, 60 * 16) % 0.7 + 0.3, RATE_HZ // 16),
        lambda: tone(60, 60, 120, 180, 300),
        lambda: tone(60, 50, 100, 150, 250) + noise(60, slope=1, level=0.01),
        lambda: tone(60, 350, 440),
        lambda: tone(60, 770, 1336),
        lambda: np.concatenate([tone(0.2, 697 + 73 * (n % 4), 1209 + 127 * (n % 3)) for n in range(300)]),
        lambda: np.concatenate([tone(2, 440, 480), silence(4)] * 10),
    ],
    ids=[
        "silence",
        "soft noise",
        "white noise",
        "pink noise",
        "brown noise",
        "gusts",
        "hum of 60 Hz",
        "hum of 50 Hz and noise",
        "dial tone",
        "a key held down",
        "keys without pauses",
        "ringing",
    ],
)
def test_no_false_alarm_within_a_minute(make: Callable[[], Signal], probability: float) -> None:
    assert heard(make(), probability=probability) == []


@pytest.mark.parametrize("probability", [0.1, 0.95])
@pytest.mark.parametrize("voice", ["caller-1", "caller-2", "caller-3", "21m00Tcm4TlvDq8ikWAM"])
def test_no_false_alarm_on_a_minute_of_speech(voice: str, probability: float) -> None:
    synthesizer = SpeechSynthesizer()
    said = synthesizer.synthesize(
        "Good morning, I would like to make an appointment for next Tuesday because my tooth has been hurting "
        "since the weekend and I cannot really sleep. My daughter needs a checkup too, maybe we could come "
        "together in the afternoon after school? What do you have around four?",
        voice=voice,
        rate_hz=RATE_HZ,
    )
    synthesizer.close()
    once = np.frombuffer(said.pcm, np.int16).astype(np.float32) / 32768
    repeated = np.tile(once, math.ceil(60 * RATE_HZ / len(once)))[: 60 * RATE_HZ].astype(np.float32)
    assert heard(repeated, probability=probability) == []


@given(st.lists(st.tuples(st.floats(200, 3400), st.floats(0.02, 0.4), st.floats(0, 0.6)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_whistles_and_beeps_of_any_kind_are_neither_music_nor_fax(
    beeps: list[tuple[float, float, float]],
) -> None:
    parts = [np.concatenate([tone(on_s, hz), silence(off_s)]) for hz, on_s, off_s in beeps]
    assert heard(np.concatenate([silence(0.1), *parts]).astype(np.float32)) == []


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="256 samples, got 160"):
        LineSounds(RATE_HZ).window(np.zeros(160, np.float32), -90.0, 0.0, 0.0)


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="44100"):
        LineSounds(44100)


# Recordings


def told_of(*finals: tuple[str, float]) -> list[LineSound | None]:
    sounds = LineSounds(RATE_HZ)
    return [sounds.transcript(text, now_s) for text, now_s in finals]


@pytest.mark.parametrize(
    ("finals", "last"),
    [
        ([(RECORDING, 0.0), (RECORDING, 20.0), (RECORDING, 51.0)], LineSound.LOOP),
        (
            [
                (RECORDING, 0.0),
                ("no", 5.0),
                (RECORDING.replace("all", "our"), 20.0),
                (RECORDING.upper(), 40.0),
            ],
            LineSound.LOOP,
        ),
        ([(SHORT, 0.0), (SHORT, 30.0), (SHORT, 61.0)], LineSound.LOOP),
        ([(SHORT, 0.0), (SHORT, 8.0), (SHORT, 21.0)], None),
        ([(RECORDING, 0.0), (RECORDING, 20.0)], None),
        ([(RECORDING, 0.0), (RECORDING, 100.0), (RECORDING, 200.0)], None),
        ([("yes please", 0.0), ("yes please", 10.0), ("yes please", 20.0)], None),
        (
            [
                ("I would like to come on Monday", 0.0),
                ("I would like to come on Tuesday morning", 10.0),
                ("I would rather come late on Friday", 20.0),
            ],
            None,
        ),
    ],
    ids=[
        "three times",
        "with mistakes",
        "short, at even intervals",
        "a person who insists",
        "twice",
        "over too long a time",
        "too short",
        "different",
    ],
)
def test_the_same_words_three_times_are_a_recording(
    finals: list[tuple[str, float]], last: LineSound | None
) -> None:
    *before, end = told_of(*finals)
    assert set(before) == {None}
    assert end is last


def test_a_recording_is_told_again_only_after_three_more() -> None:
    told = told_of(*((RECORDING, 20.0 * n) for n in range(6)))
    assert told == [None, None, LineSound.LOOP] * 2


WORDS = [
    f"{first}{second}" for first in "bdfgklm" for second in ("ata", "ebi", "oko", "unu", "ira", "ado", "esu")
]


def monologue(
    words: Sequence[str], *, count: int, per_s: float = 2.5, per_final: int = 7
) -> list[tuple[str, float]]:
    endless = [words[n % len(words)] for n in range(count)]
    starts = range(0, count, per_final)
    return [(" ".join(endless[start : start + per_final]), (start + per_final) / per_s) for start in starts]


def test_a_monologue_that_repeats_itself_is_a_recording() -> None:
    told = [told for told in told_of(*monologue(WORDS[:40], count=190)) if told]
    assert told == [LineSound.LOOP]


def test_who_talks_for_two_minutes_is_a_person() -> None:
    random = np.random.default_rng(3)
    words = [WORDS[index] for index in random.integers(0, len(WORDS), 300)]
    assert set(told_of(*monologue(words, count=300))) == {None}


def test_a_pause_ends_a_monologue() -> None:
    sounds = LineSounds(RATE_HZ, LineSoundsParams(loop_words=99))
    quiet = np.zeros(sounds.window_samples, np.float32)
    told: set[LineSound | None] = set()
    for index, (text, now_s) in enumerate(monologue(WORDS[:40], count=190)):
        told.add(sounds.transcript(text, now_s))
        for _ in range(70 if index == 10 else 0):
            sounds.window(quiet, -90.0, 0.0, now_s)
    assert told == {None}


@given(st.lists(st.tuples(st.text(max_size=60), st.floats(0, 30)), max_size=60))
def test_different_things_said_are_never_a_recording(said: list[tuple[str, float]]) -> None:
    sounds, now_s = LineSounds(RATE_HZ), 0.0
    for index, (text, after_s) in enumerate(said):
        now_s += after_s
        number = " ".join(f"{WORDS[(index * 7 + k * 11 + k * k) % len(WORDS)]}{index}" for k in range(8))
        assert sounds.transcript(f"{number} {text[:20]}", now_s) is None


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalised("  It's 5 o'clock,\nSomewhere!_ ") == "its 5 oclock somewhere"


# The shell


def test_the_watch_tells_of_audio_and_of_final_words() -> None:
    told: list[LineSound] = []
    watch = LineSoundWatch(LineSounds(RATE_HZ), told.append)
    for index, (window, level_db) in enumerate(windows(tone(2.0, 2100.0), 256)):
        watch.caller_window(window, level_db, 0.1, index * 0.032)
    assert told == [LineSound.FAX]
    for now_s in (0.0, 20.0, 30.0, 40.0):
        watch.transcript(RECORDING, now_s != 20.0, now_s)
    assert told == [LineSound.FAX, LineSound.LOOP]
