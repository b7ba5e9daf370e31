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

    async def close(self, *, end_samples: int, timeout_s: float) -> None:
        self.closed = (end_samples, timeout_s)


def recording() -> tuple[LineRecording, Notes]:
    notes = Notes()
    recorder: Any = notes
    line = LineRecording(rate_hz=RATE)
    line.begin(recorder)
    return line, notes


async def test_what_comes_before_the_line_is_up_is_not_recorded() -> None:
    line, notes = LineRecording(rate_hz=RATE), Notes()
    line.caller_audio(bytes(320))
    line.agent_audio(bytes(320), ahead_s=0.0)
    line.agent_dropped()
    await line.close(timeout_s=1.0)
    recorder: Any = notes
    line.begin(recorder)
    line.caller_audio(bytes(320))
    assert notes.caller_at == [(0, 160)]
    assert (notes.agent_at, notes.cuts) == ([], [])


async def test_it_ends_where_the_caller_s_audio_ends() -> None:
    line, notes = recording()
    line.caller_audio(bytes(320))
    line.agent_audio(bytes(3200), ahead_s=0.0)
    await line.close(timeout_s=0.5)
    assert notes.closed == (160, 0.5)


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
