import itertools

import pytest

from sims.caller_voice import CallerVoice, Sound, join_speech, tone
from sims.mulaw import FRAME_SAMPLES, SILENCE, audible_range, decode_samples
from sims.report import Span
from sims.scenario import Noise, NoiseKind, PausedLine
from sims.speech import Speech, SpeechSynthesizer
from sims.spoken import Encoding, HeardWord, SpokenIndex
from tests.sims.answering import WORD_S, NoiseSynthesizer, voiced


def new_voice(index: SpokenIndex | None = None) -> CallerVoice:
    return CallerVoice(NoiseSynthesizer(), SpokenIndex() if index is None else index, "caller-1")


def hear(index: SpokenIndex, ulaw: bytes) -> list[HeardWord]:
    tracker = index.tracker(Encoding.MULAW)
    frames = [ulaw[at : at + FRAME_SAMPLES] for at in range(0, len(ulaw), FRAME_SAMPLES)]
    return [word for frame in frames for word in tracker.feed(frame)]


async def test_speech_is_whole_frames_whose_words_the_index_knows() -> None:
    index = SpokenIndex()
    voice = new_voice(index)
    assert voice.get("one two three") is None
    sound = await voice.prepare("one two three")

    assert voice.get("one two three") is sound
    assert await voice.prepare("one two three") is sound
    assert len(sound.ulaw) % FRAME_SAMPLES == 0
    assert (sound.first, sound.last) == (0, int(3 * WORD_S * 8000) - 1)
    assert [word.text for word in hear(index, sound.ulaw)] == ["one", "two", "three"]


@pytest.mark.parametrize("shift", [0, 77])
async def test_what_is_mumbled_is_understood_badly(shift: int) -> None:
    index = SpokenIndex()
    voice = new_voice(index)
    sound = await voice.prepare(PausedLine(parts=("five five",), confidence=0.4))
    assert [word.confidence for word in hear(index, voice.delay(sound, shift).ulaw)] == [0.4, 0.4]


@pytest.mark.parametrize("pause_s", [0.0501, 0.3, 0.7, 1.5])
async def test_pauses_are_exact_to_the_sample_and_words_are_heard_in_their_time(pause_s: float) -> None:
    index = SpokenIndex()
    line = PausedLine(parts=("five five", pause_s, "oh one", 2.0, "five five"))
    sound = await new_voice(index).prepare(line)

    pause, words = round(pause_s * 8000), int(2 * WORD_S * 8000)
    first, second = Span(words, words + pause), Span(2 * words + pause, 2 * words + pause + 16000)
    assert sound.pauses == (first, second)
    for span in sound.pauses:
        assert sound.ulaw[span.start : span.end] == SILENCE * (span.end - span.start)
        assert audible_range(sound.ulaw[span.start - 1 : span.start])
        assert audible_range(sound.ulaw[span.end : span.end + 1])
    assert sound.text == "five five oh one five five"
    assert sound.last == second.end + words - 1
    heard = hear(index, sound.ulaw + SILENCE * 800)
    assert [word.text for word in heard] == sound.text.split()
    begins = [0, words / 2, first.end, first.end + words / 2, second.end, second.end + words / 2]
    assert [word.start_s for word in heard] == pytest.approx([at / 8000 for at in begins], abs=0.02)


async def test_a_real_voice_with_pauses_keeps_its_words_in_order() -> None:
    synthesizer = SpeechSynthesizer()
    index = SpokenIndex()
    line = PausedLine(parts=("My number is,", 0.7, "five five five,", 0.9, "oh one four two."))
    sound = await CallerVoice(synthesizer, index, "caller-2").prepare(line)
    synthesizer.close()
    assert [span.end - span.start for span in sound.pauses] == [5600, 7200]
    heard = hear(index, sound.ulaw + SILENCE * 800)
    assert [word.text for word in heard] == line.text.split()
    for word in heard:
        assert not any(word.start_s < (p.start + p.end) / 16000 < word.end_s for p in sound.pauses)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(heard))


def test_speech_without_sound_leaves_its_pauses() -> None:
    loud = Speech("a", "v", 8000, voiced(0.1), ())
    mute = Speech("", "v", 8000, b"", ())
    ulaw, _, pauses = join_speech([loud, 800, mute, 400, loud])
    assert pauses == (Span(800, 2000),)
    assert len(ulaw) == 800 + 1200 + 800


async def test_a_delayed_sound_begins_on_its_sample_and_is_understood() -> None:
    index = SpokenIndex()
    voice = new_voice(index)
    line = PausedLine(parts=("no", 0.3, "wait"))
    sound = await voice.prepare(line)
    delayed = voice.delay(sound, 333)
    assert (delayed.first, delayed.last) == (sound.first + 333, sound.last + 333)
    assert delayed.pauses == (Span(800 + 333, 800 + 333 + 2400),)
    assert len(delayed.ulaw) % FRAME_SAMPLES == 0
    heard = hear(index, delayed.ulaw)
    assert [(word.text, word.start_s) for word in heard] == [
        ("no", pytest.approx(333 / 8000, abs=0.001)),
        ("wait", pytest.approx((333 + 800 + 2400) / 8000, abs=0.001)),
    ]
    known = len(index)
    voice.delay(sound, 320)  # frames already known
    assert len(index) == known


@pytest.mark.parametrize("kind", NoiseKind)
def test_noises_are_audible_repeatable_and_without_words(kind: NoiseKind) -> None:
    index = SpokenIndex()
    voice = new_voice(index)
    noise = Noise(kind=kind, ms=300)
    sound = voice.noise(noise, seed=5)

    assert sound == voice.noise(noise, seed=5)
    assert len(sound.ulaw) == 2400
    assert sound.text == ""
    assert sound.last > sound.first
    assert hear(index, sound.ulaw) == []


def test_a_long_sound_goes_round_and_is_known_all_the_way() -> None:
    index = SpokenIndex()
    music: Sound = new_voice(index).noise(Noise(kind=NoiseKind.MUSIC, ms=30_000), seed=1)
    assert len(music.ulaw) == 240_000
    assert index._frame_count <= 200  # one round
    tracker = index.tracker(Encoding.MULAW)
    for at in range(0, len(music.ulaw), FRAME_SAMPLES):
        tracker.feed(music.ulaw[at : at + FRAME_SAMPLES])
        assert tracker.unexplained == b""


def test_a_tone_has_its_length_and_no_clipping() -> None:
    sound = tone(0.5)
    assert len(sound) == 4000
    assert audible_range(sound)
    assert abs(decode_samples(sound)).max() < 8000
