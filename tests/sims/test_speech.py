"""Speech is real, the same everywhere, and its word times are true."""

import asyncio
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.speech import Speech, SpeechSynthesizer, encode_ulaw

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SENTENCE = "Hello there, it's 10:30 — we have “Tuesday” free. Call 850-687-2085, ok?"


def samples_of(speech: Speech) -> np.ndarray:
    return np.frombuffer(speech.pcm, "<i2").astype(np.float64)


def level_dbfs(samples: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(samples**2)) / 32768 + 1e-9)


def test_words_are_the_tokens_of_the_text_in_order(synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize(SENTENCE, voice="v", rate_hz=8000)
    assert [word.text for word in speech.words] == SENTENCE.split()
    ends = [0.0] + [word.end_s for word in speech.words]
    for word, previous_end_s in zip(speech.words, ends, strict=False):
        assert previous_end_s - 1e-3 <= word.start_s <= word.end_s <= speech.duration_s + 1e-3
    spoken = {word.text: word.end_s - word.start_s for word in speech.words}
    assert spoken["—"] == 0.0
    assert 0.4 < spoken["10:30"] < 1.2
    assert 3.0 < spoken["850-687-2085,"] < 6.0


def test_word_times_follow_the_sound(synthesizer: SpeechSynthesizer) -> None:
    """Between two sentences there is a pause, and it belongs to no word."""
    speech = synthesizer.synthesize("First one. Second one.", voice="v", rate_hz=16000)
    end_s, start_s = speech.words[1].end_s, speech.words[2].start_s
    assert start_s - end_s > 0.15
    samples = samples_of(speech)
    pause = samples[int((end_s + 0.02) * 16000) : int((start_s - 0.02) * 16000)]
    word = samples[int(speech.words[0].start_s * 16000) : int(speech.words[0].end_s * 16000)]
    assert level_dbfs(pause) < -55
    assert level_dbfs(word) > -30


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 24000, 48000])
def test_every_rate_says_the_same_for_the_same_time(synthesizer: SpeechSynthesizer, rate_hz: int) -> None:
    low = synthesizer.synthesize(SENTENCE, voice="v", rate_hz=8000)
    speech = synthesizer.synthesize(SENTENCE, voice="v", rate_hz=rate_hz)
    assert speech.rate_hz == rate_hz
    assert speech.duration_s == pytest.approx(low.duration_s, abs=0.001)
    assert speech.words == low.words


def test_sound_is_speech_at_a_speaking_level(synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize(SENTENCE, voice="v", rate_hz=8000)
    samples = samples_of(speech)
    assert -24 < level_dbfs(samples) < -17
    assert np.abs(samples).max() < 32700
    audible = np.flatnonzero(np.abs(samples) > 400)
    assert audible[0] < 0.05 * 8000
    assert len(samples) - audible[-1] < 0.08 * 8000
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / 8000)
    assert power[(hz > 80) & (hz < 1000)].sum() > 0.6 * power.sum()


def test_every_20_ms_is_unique_as_ulaw(synthesizer: SpeechSynthesizer) -> None:
    frames: list[bytes] = []
    for voice in ("caller-1", "caller-2", "v"):
        ulaw = encode_ulaw(synthesizer.synthesize(SENTENCE, voice=voice, rate_hz=8000).pcm)
        frames += [ulaw[at : at + 160] for at in range(0, len(ulaw) - 159, 160)]
    assert len(set(frames)) == len(frames) > 1000


def test_callers_and_agents_sound_different(synthesizer: SpeechSynthesizer) -> None:
    durations = {
        synthesizer.synthesize(SENTENCE, voice=voice, rate_hz=8000).duration_s
        for voice in ("caller-1", "caller-2", "caller-3", "agent-voice")
    }
    assert len(durations) == 4


def test_bytes_do_not_depend_on_what_was_said_before_or_where(synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize("Good morning.", voice="caller-2", rate_hz=8000)
    script = (
        "import sys; from sims.speech import SpeechSynthesizer\n"
        "s = SpeechSynthesizer(); s.synthesize('Something else.', voice='x', rate_hz=8000)\n"
        "speech = s.synthesize('Good morning.', voice='caller-2', rate_hz=8000)\n"
        "sys.stdout.buffer.write(speech.pcm)"
    )
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)  # noqa: S603 - ours
    assert other.stdout == speech.pcm


@pytest.mark.parametrize("text", ["", "   ", "…", "—", "\0"])
def test_text_without_sound_gives_silence_of_no_length(synthesizer: SpeechSynthesizer, text: str) -> None:
    assert synthesizer.synthesize(text, voice="v", rate_hz=8000).pcm == b""


@given(text=st.text(max_size=40))
@settings(max_examples=30, deadline=None)
def test_any_text_keeps_its_words_in_order(synthesizer: SpeechSynthesizer, text: str) -> None:
    speech = synthesizer.synthesize(text, voice="v", rate_hz=8000)
    assert [word.text for word in speech.words] == text.replace("\0", " ").split()
    times = [time_s for word in speech.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(0 <= time_s <= speech.duration_s + 1e-3 for time_s in times)


@pytest.mark.parametrize("rate_hz", [0, 4000, 96000])
def test_a_rate_out_of_range_is_refused(synthesizer: SpeechSynthesizer, rate_hz: int) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        synthesizer.synthesize("Hi.", voice="v", rate_hz=rate_hz)


def test_memory_is_bounded_and_keeps_the_recently_used() -> None:
    one_s_bytes = 2 * 8000
    synthesizer = SpeechSynthesizer(memory_bytes=4 * one_s_bytes)
    first = synthesizer.synthesize("First.", voice="v", rate_hz=8000)
    for number in range(8):
        synthesizer.synthesize(f"Number {number}.", voice="v", rate_hz=8000)
        assert synthesizer.synthesize("First.", voice="v", rate_hz=8000) is first
        assert synthesizer._recent_bytes == sum(len(s.pcm) for s in synthesizer._recent.values())
        assert synthesizer._recent_bytes <= 4 * one_s_bytes
    synthesizer.close()


def test_folder_gives_the_same_speech_to_the_next_run(tmp_path: Path) -> None:
    first = SpeechSynthesizer(tmp_path)
    speech = first.synthesize(SENTENCE, voice="v", rate_hz=8000)
    first.close()
    (stored,) = tmp_path.iterdir()
    stored_at = stored.stat().st_mtime_ns
    second = SpeechSynthesizer(tmp_path)
    assert second.synthesize(SENTENCE, voice="v", rate_hz=8000) == speech
    assert stored.stat().st_mtime_ns == stored_at
    second.close()


@pytest.mark.parametrize("damage", [b"", b"not json\nxx", b'{"pcm_bytes":9,"words":[]}\nshort', b"[]\n"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    first = SpeechSynthesizer(tmp_path)
    speech = first.synthesize("Hello.", voice="v", rate_hz=8000)
    first.close()
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(damage)
    second = SpeechSynthesizer(tmp_path)
    assert second.synthesize("Hello.", voice="v", rate_hz=8000) == speech
    assert stored.read_bytes() == whole
    second.close()


def test_folder_is_bounded(tmp_path: Path) -> None:
    synthesizer = SpeechSynthesizer(tmp_path, disk_bytes=60_000)
    for number in range(12):
        synthesizer.synthesize(f"Number {number}.", voice="v", rate_hz=8000)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 60_000
    assert any(tmp_path.iterdir())
    synthesizer.close()


@pytest.mark.real_time
async def test_speak_works_off_the_loop_and_leaves_no_thread() -> None:
    synthesizer = SpeechSynthesizer()
    texts = ["One.", "Two.", "One."]
    spoken = await asyncio.gather(*(synthesizer.speak(t, voice="v", rate_hz=8000) for t in texts))
    assert spoken[0] is spoken[2]
    assert spoken[1] == synthesizer.synthesize("Two.", voice="v", rate_hz=8000)
    synthesizer.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("espeak")]
    assert await synthesizer.speak("Two.", voice="v", rate_hz=8000) is spoken[1]


def test_ulaw_is_what_the_standard_library_makes() -> None:
    every_sample = np.arange(65536, dtype="<u2").tobytes()
    assert encode_ulaw(every_sample) == audioop.lin2ulaw(every_sample, 2)
