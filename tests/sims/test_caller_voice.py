import pytest

from sims.caller_voice import CallerVoice, tone
from sims.mulaw import FRAME_SAMPLES, audible_range, decode_samples
from sims.scenario import Noise, NoiseKind
from sims.spoken import Encoding, SpokenIndex
from tests.sims.answering import WORD_S, NoiseSynthesizer


async def test_speech_is_whole_frames_whose_words_the_index_knows() -> None:
    index = SpokenIndex()
    voice = CallerVoice(NoiseSynthesizer(), index, "caller-1")
    assert voice.get("one two three") is None
    sound = await voice.prepare("one two three")

    assert voice.get("one two three") is sound
    assert await voice.prepare("one two three") is sound
    assert len(sound.ulaw) % FRAME_SAMPLES == 0
    assert (sound.first, sound.last) == (0, int(3 * WORD_S * 8000) - 1)
    tracker = index.tracker(Encoding.MULAW)
    frames = [sound.ulaw[at : at + FRAME_SAMPLES] for at in range(0, len(sound.ulaw), FRAME_SAMPLES)]
    assert [word.text for frame in frames for word in tracker.feed(frame)] == ["one", "two", "three"]


@pytest.mark.parametrize("kind", NoiseKind)
def test_noises_are_audible_repeatable_and_without_words(kind: NoiseKind) -> None:
    index = SpokenIndex()
    voice = CallerVoice(NoiseSynthesizer(), index, "caller-1")
    noise = Noise(kind=kind, ms=300)
    sound = voice.noise(noise, seed=5)

    assert sound == voice.noise(noise, seed=5)
    assert sound.ulaw != voice.noise(noise, seed=6).ulaw
    assert len(sound.ulaw) == 2400
    assert sound.text == ""
    assert sound.last > sound.first
    tracker = index.tracker(Encoding.MULAW)
    assert [word for at in range(0, 2400, 160) for word in tracker.feed(sound.ulaw[at : at + 160])] == []


def test_a_click_is_short_and_a_hum_is_not() -> None:
    voice = CallerVoice(NoiseSynthesizer(), SpokenIndex(), "caller-1")
    click = voice.noise(Noise(kind=NoiseKind.CLICK, ms=300), seed=1)
    hum = voice.noise(Noise(kind=NoiseKind.HUM, ms=300), seed=1)
    assert click.last - click.first < 80
    assert hum.last - hum.first > 2000


def test_a_tone_has_its_length_and_no_clipping() -> None:
    sound = tone(0.5)
    assert len(sound) == 4000
    assert audible_range(sound)
    assert abs(decode_samples(sound)).max() < 8000
