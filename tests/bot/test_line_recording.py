from typing import Any

from bot.line_recording import LineRecording

RATE = 8000


class Notes:
    """A recorder that keeps where everything was put."""

    def __init__(self) -> None:
        self.caller_at: list[tuple[int, int]] = []
        self.agent_at: list[tuple[int, int]] = []
        self.cuts: list[int] = []

    def caller(self, pcm: bytes, at_samples: int) -> None:
        self.caller_at.append((at_samples, len(pcm) // 2))

    def agent(self, pcm: bytes, at_samples: int) -> None:
        self.agent_at.append((at_samples, len(pcm) // 2))

    def cut_agent(self, at_samples: int) -> None:
        self.cuts.append(at_samples)


def recording() -> tuple[LineRecording, Notes]:
    notes = Notes()
    recorder: Any = notes
    return LineRecording(recorder, rate_hz=RATE), notes


def test_the_caller_s_audio_is_the_clock() -> None:
    line, notes = recording()
    for _ in range(3):
        line.caller_audio(bytes(320))
    assert notes.caller_at == [(0, 160), (160, 160), (320, 160)]
    assert line.now_samples == 480


def test_the_agent_is_where_it_will_be_heard() -> None:
    line, notes = recording()
    line.caller_audio(bytes(2 * RATE))
    line.agent_audio(bytes(1600), ahead_s=0.5)
    assert notes.agent_at == [(RATE + RATE // 2, 800)]


def test_pieces_that_follow_each_other_neither_overlap_nor_crack() -> None:
    line, notes = recording()
    line.agent_audio(bytes(1600), ahead_s=0.0)
    line.caller_audio(bytes(1600))
    line.agent_audio(bytes(1600), ahead_s=0.013)
    line.caller_audio(bytes(1600))
    line.agent_audio(bytes(1600), ahead_s=-0.008)
    assert notes.agent_at == [(0, 800), (800, 800), (1600, 800)]


def test_a_drop_cuts_at_now_and_the_next_words_begin_there() -> None:
    line, notes = recording()
    line.agent_audio(bytes(2 * RATE), ahead_s=0.0)
    line.caller_audio(bytes(1600))
    line.agent_dropped()
    line.agent_audio(bytes(1600), ahead_s=0.0)
    assert notes.cuts == [800]
    assert notes.agent_at[-1] == (800, 800)
