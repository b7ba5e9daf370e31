from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
from pipecat.tests.utils import SleepFrame, run_test

from processors.flux_recogniser import LAST_WORD_S, FluxRecogniser, ReportedAudio
from processors.frames import TranscriptFlushedFrame
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex


def test_a_report_answers_the_sound_that_it_covers_once() -> None:
    audio = ReportedAudio(silence_limit_s=3.0)
    audio.send(2.0)
    audio.ask(0.2)
    assert not audio.answer(None)
    assert not audio.answer(1.8 + LAST_WORD_S - 0.01)
    assert audio.answer(1.8 + LAST_WORD_S)
    assert not audio.answer(5.0)


def test_a_new_sound_makes_the_question_void() -> None:
    audio = ReportedAudio(silence_limit_s=3.0)
    audio.send(2.0)
    audio.ask(0.2)
    audio.expect_word()
    assert not audio.answer(5.0)


def test_audio_without_a_report_is_a_dead_socket_where_one_is_due() -> None:
    audio = ReportedAudio(silence_limit_s=3.0)
    audio.send(3.0)
    assert not audio.is_dead(is_due=True)
    audio.answer(None)
    audio.send(3.0)
    assert not audio.is_dead(is_due=True)
    audio.send(0.1)
    assert audio.is_dead(is_due=True)
    assert not audio.is_dead(is_due=False)
    audio.ask(0.2)  # for a sound one is due
    assert audio.is_dead(is_due=False)


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 3))
def test_what_was_asked_is_answered_by_a_report_that_covers_it_and_not_before(
    pieces: list[float], quiet_s: float
) -> None:
    audio = ReportedAudio(silence_limit_s=3.0)
    for piece in pieces:
        audio.send(piece)
    audio.ask(quiet_s)
    sound_end_s = max(sum(pieces) - quiet_s + LAST_WORD_S, 0.0)
    assert not audio.answer(sound_end_s - 0.01)
    assert audio.answer(sound_end_s + 0.01)


class Recogniser(FluxRecogniser):
    """Keeps what it pushes instead of pushing it, and has no socket."""

    def __init__(self) -> None:
        super().__init__(api_key="key", sample_rate=8000, enable_eager_end_of_turn=True)
        self._sample_rate = 8000
        self.pushed: list[type[Frame]] = []

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        self.pushed.append(type(frame))


class Socket:
    """Takes audio; its own transport."""

    def __init__(self) -> None:
        self.is_cut = False
        self.transport = self

    async def send(self, audio: bytes) -> None:
        assert not self.is_cut

    def abort(self) -> None:
        self.is_cut = True


def update(text: str, upto_s: float) -> dict[str, Any]:
    return {
        "type": "TurnInfo",
        "event": "Update",
        "transcript": text,
        "audio_window_end": upto_s,
        "words": [],
    }


@pytest.mark.parametrize(
    ("message", "pushed"),
    [
        (update("", 1.2), [TranscriptFlushedFrame]),
        (update("Yes", 1.2), [InterimTranscriptionFrame, TranscriptFlushedFrame]),
        (update("Yes", 0.5), [InterimTranscriptionFrame]),
        ({"type": "ConfigureSuccess"}, []),
        ({"type": "TurnInfo", "event": "Update", "audio_window_end": "soon"}, []),
    ],
    ids=["a noise", "words", "too early", "about nothing", "nonsense"],
)
async def test_the_sign_comes_behind_the_words_of_the_sound(
    message: dict[str, Any], pushed: list[type[Frame]]
) -> None:
    recogniser = Recogniser()
    recogniser._reported.send(1.2)
    recogniser._reported.ask(0.2)
    await recogniser._handle_message(message)
    assert recogniser.pushed == pushed


# --- Over a socket


def recogniser_of(sim: DeepgramSim, *, silence_limit_s: float = 3.0) -> FluxRecogniser:
    return FluxRecogniser(
        silence_limit_s=silence_limit_s,
        api_key="key",
        url=f"{sim.base_url}/v2/listen",
        sample_rate=8000,
        audio_passthrough=False,
        settings=DeepgramFluxSTTService.Settings(),
    )


def loud(seconds: float, seed: int) -> bytes:
    """Mu-law noise."""
    samples = np.random.default_rng(seed).normal(0, 4000, round(8000 * seconds)).clip(-32000, 32000)
    return encode_ulaw(samples.astype("<i2").tobytes())


COUGH, REQUEST = loud(0.2, 1), loud(0.4, 2)
INDEX = SpokenIndex()
INDEX.add(COUGH, [])
INDEX.add(REQUEST, [Word("A", 0.0, 0.2), Word("cleaning.", 0.2, 0.4)])


def audio(ulaw: bytes) -> list[Frame]:
    """40 ms pieces at real time."""
    frames: list[Frame] = []
    for at in range(0, len(ulaw), 320):
        frames += [InputAudioRawFrame(mulaw.decode(ulaw[at : at + 320]), 8000, 1), SleepFrame(0.04)]
    return frames


def quiet(seconds: float) -> bytes:
    return mulaw.SILENT_FRAME * round(seconds * 50)


@pytest.mark.real_time
async def test_a_cough_is_known_to_have_said_nothing() -> None:
    async with DeepgramSim(PROFILES["realistic"], spoken_index=INDEX) as sim:
        frames = [
            *audio(quiet(0.2)),
            VADUserStartedSpeakingFrame(),
            *audio(COUGH + quiet(0.2)),
            VADUserStoppedSpeakingFrame(stop_secs=0.2),
            *audio(quiet(0.6)),
        ]
        down, _ = await run_test(recogniser_of(sim), frames_to_send=frames)
    kinds = [type(f) for f in down]
    assert kinds.count(TranscriptFlushedFrame) == 1
    assert kinds.index(TranscriptFlushedFrame) > kinds.index(VADUserStoppedSpeakingFrame)
    assert InterimTranscriptionFrame not in kinds


async def test_a_turn_that_goes_on_interrupts_nobody() -> None:
    recogniser = Recogniser()
    for event in ("EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn"):
        await recogniser._handle_message({**update("Uh-huh.", 0.5), "event": event})
    assert recogniser.pushed == [EagerTranscriptionFrame, EagerTranscriptionFrame]


@pytest.mark.parametrize(
    ("told", "is_due"),
    [
        (["Update"], True),
        (["StartOfTurn"], True),
        (["StartOfTurn", "Update"], True),
        (["StartOfTurn", "Update", "EndOfTurn"], False),
        ([], False),
    ],
)
async def test_silence_of_flux_counts_in_a_turn_and_where_it_has_reported_before(
    told: list[str], is_due: bool
) -> None:
    recogniser = Recogniser()
    for event in told:
        await recogniser._handle_message({**update("", 0.1), "event": event})
    socket = Socket()
    recogniser._websocket = socket  # pyright: ignore[reportAttributeAccessIssue] - the part of it that is used
    await recogniser._transport_send_audio(bytes(16000 * 3 + 2))
    assert socket.is_cut is is_due


@pytest.mark.real_time
async def test_a_socket_that_hangs_in_mid_turn_is_dialled_anew_and_its_turn_ended() -> None:
    async with DeepgramSim(PROFILES["instant"], spoken_index=INDEX) as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, count=1, after_s=0.48))
        frames = audio(REQUEST + quiet(0.9) + REQUEST + quiet(0.6))
        down, up = await run_test(recogniser_of(sim, silence_limit_s=0.5), frames_to_send=frames)
        assert sim.stats["streams"] == 2
    texts = [(f.text, f.finalized) for f in down if isinstance(f, TranscriptionFrame)]
    assert texts == [("A cleaning.", False), ("A cleaning.", True)]
    assert not any(isinstance(f, ErrorFrame) for f in up or ())


@pytest.mark.real_time
async def test_a_socket_that_never_confirms_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FluxRecogniser._CONNECTION_TIMEOUT <= 3.0
    monkeypatch.setattr(FluxRecogniser, "_CONNECTION_TIMEOUT", 0.2)
    async with DeepgramSim(PROFILES["instant"], spoken_index=INDEX) as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, count=1, after_s=0.0))
        frames = [*audio(quiet(0.5)), *audio(REQUEST + quiet(0.6))]
        down, _ = await run_test(recogniser_of(sim), frames_to_send=frames)
    assert [f.text for f in down if isinstance(f, TranscriptionFrame)] == ["A cleaning."]
