from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.agent_words import AgentEar, Phrase, PhraseIndex
from sims.echo import EchoMouth, PlayedTail
from sims.mulaw import FRAME_SAMPLES, SILENCE, decode_samples, encode
from sims.scenario import Echo
from sims.speech import Word
from sims.spoken import Encoding, SpokenIndex
from tests.sims.answering import voiced

WORD = 1600
TEXT = "we open at nine in the morning"
PHRASE = Phrase(
    TEXT,
    encode(voiced(0.2 * 7, 5)),
    tuple(Word(word, 0.2 * n, 0.2 * (n + 1)) for n, word in enumerate(TEXT.split())),
)


@dataclass
class Phone:
    """Plays sound to the ear and sends what comes back, 20 ms by 20 ms, as a phone line does."""

    played: bytes
    sent: bytes = b""
    heard: list[str] = field(default_factory=list[str])
    """Words that a speech-to-text sim made of what was sent."""
    index: SpokenIndex = field(default_factory=SpokenIndex)

    def run(self, echo: Echo, begins_at: int) -> EchoMouth:
        ear, tail = AgentEar(PhraseIndex(lambda: [PHRASE])), PlayedTail(echo.delay_ms)
        tracker = self.index.tracker(Encoding.MULAW)
        mouth: EchoMouth | None = None
        self.played += SILENCE * (-len(self.played) % FRAME_SAMPLES)
        for at in range(0, len(self.played), FRAME_SAMPLES):
            if mouth is None and at + 800 > begins_at:  # ordered a little ahead
                mouth = EchoMouth(echo, tail, ear, self.index, position=at, begins_at=begins_at)
            frame = mouth.next_frame() if mouth and mouth.is_open else SILENCE * FRAME_SAMPLES
            assert len(frame) == FRAME_SAMPLES
            self.sent += frame
            self.heard += [word.text for word in tracker.feed(frame)]
            played = self.played[at : at + FRAME_SAMPLES]
            tail.add(played)
            ear.feed(at, played)
        assert mouth
        return mouth


def test_what_comes_back_is_what_was_played_so_long_ago_and_quieter() -> None:
    phone = Phone(SILENCE * 500 + PHRASE.ulaw + SILENCE * 8000)
    mouth = phone.run(Echo(delay_ms=180, gain_db=-12, ms=600), begins_at=3333)
    assert not mouth.is_open
    assert mouth.audible == (pytest.approx(3333, abs=20), pytest.approx(3333 + 4800, abs=20))
    assert phone.sent[:3333].count(SILENCE) == 3333
    assert phone.sent[8133:].count(SILENCE) == len(phone.sent) - 8133
    echo = decode_samples(phone.sent[3333:8133]).astype(float)
    source = decode_samples(phone.played[3333 - 1440 : 8133 - 1440]).astype(float)
    # Half a step of the coarsest mu-law segment in reach, at most.
    assert abs(echo - source * 10 ** (-12 / 20)).max() <= 260


def test_its_whole_words_are_understood() -> None:
    # The echo of the words begins at 500 + 1440, so this one has from 0.87 to 5.87 words.
    phone = Phone(SILENCE * 500 + PHRASE.ulaw + SILENCE * 8000)
    phone.run(Echo(delay_ms=180, ms=1000), begins_at=3333)
    assert phone.heard == ["open", "at", "nine", "in"]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 400),
    st.integers(1600, 6000),
    st.integers(200, 1200),
    st.sampled_from([100, 180, 333, 437]),
)
def test_only_whole_words_are_understood_wherever_it_begins_and_ends(
    lead: int, begins_at: int, ms: int, delay_ms: int
) -> None:
    phone = Phone(SILENCE * lead + PHRASE.ulaw + SILENCE * 8000)
    phone.run(Echo(delay_ms=delay_ms, ms=ms), begins_at=begins_at)
    begin = begins_at - lead - delay_ms * 8  # in samples of the phrase
    end = begin + ms * 8
    whole = [word for n, word in enumerate(TEXT.split()) if begin <= n * WORD and (n + 1) * WORD <= end]
    assert phone.heard == whole


def test_an_agent_that_falls_silent_has_no_echo_and_one_that_goes_on_has_it_again() -> None:
    cut, resumed = 3 * WORD + 500, 3 * WORD
    pause = SILENCE * 2411
    phone = Phone(PHRASE.ulaw[:cut] + pause + PHRASE.ulaw[resumed:] + SILENCE * 8000)
    mouth = phone.run(Echo(delay_ms=180, ms=4000), begins_at=200)
    quiet = phone.sent[cut + 1440 : cut + 1440 + 2411]
    assert quiet == SILENCE * 2411
    # "nine" was cut before its half and comes back whole.
    assert phone.heard == TEXT.split()
    assert mouth.audible
    assert mouth.audible[1] == pytest.approx(len(PHRASE.ulaw) + cut - resumed + 2411 + 1440, abs=20)


def test_unknown_sound_and_silence_come_back_without_words() -> None:
    stranger = Phone(encode(voiced(1.0, 77)) + SILENCE * 4000)
    assert stranger.run(Echo(ms=600), begins_at=2000).audible
    assert (stranger.heard, len(stranger.index)) == ([], 0)
    silent = Phone(SILENCE * 8000)
    assert silent.run(Echo(ms=600), begins_at=2000).audible is None
