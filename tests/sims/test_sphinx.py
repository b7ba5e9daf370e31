import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sims.sphinx import (
    AUDIO,
    BEGIN,
    DROP,
    END,
    GUESS,
    GUESS_EVERY_BYTES,
    HEADER,
    RESULT,
    Service,
    Words,
    serve,
)


class EchoRecognizer:
    """Recognises each utterance as the bytes it got; insists on one utterance at a time."""

    def __init__(self) -> None:
        self.heard: bytes | None = None

    def begin(self) -> None:
        assert self.heard is None
        self.heard = b""

    def feed(self, pcm: bytes) -> None:
        assert self.heard is not None
        self.heard += pcm

    def guess(self) -> Words:
        assert self.heard is not None
        return [(self.heard[:8].decode(), 0.0, 1.0)]

    def finish(self) -> Words:
        words, self.heard = self.guess(), None
        return words


def message(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def answers(*messages: bytes) -> list[tuple[bytes, int, Any]]:
    out = io.BytesIO()
    serve(Service(EchoRecognizer(), out), io.BytesIO(b"".join(messages)))
    out.seek(0)
    got: list[tuple[bytes, int, Any]] = []
    while header := out.read(HEADER.size):
        kind, number, length = HEADER.unpack(header)
        got.append((kind, number, json.loads(out.read(length))[0][0]))
    return got


def test_an_utterance_is_answered_when_it_ends() -> None:
    assert answers(message(BEGIN, 7), message(AUDIO, 7, b"one"), message(END, 7)) == [(RESULT, 7, "one")]


def test_a_second_speaker_waits_and_loses_nothing() -> None:
    got = answers(
        message(BEGIN, 1),
        message(BEGIN, 2),
        message(AUDIO, 2, b"two"),
        message(AUDIO, 1, b"one"),
        message(END, 2),
        message(END, 1),
    )
    assert got == [(RESULT, 1, "one"), (RESULT, 2, "two")]


def test_guesses_come_with_the_audio() -> None:
    half = b"x" * GUESS_EVERY_BYTES
    got = answers(message(BEGIN, 1), message(AUDIO, 1, half), message(AUDIO, 1, half), message(END, 1))
    assert [kind for kind, _, _ in got] == [GUESS, GUESS, RESULT]


def test_a_dropped_utterance_makes_room_for_the_next() -> None:
    got = answers(
        message(BEGIN, 1), message(AUDIO, 1, b"one"), message(BEGIN, 2), message(DROP, 1), message(END, 2)
    )
    assert got == [(RESULT, 2, "")]


@given(st.lists(st.tuples(st.sampled_from([BEGIN, AUDIO, END, DROP]), st.integers(1, 3)), max_size=30))
def test_any_order_of_messages_is_survived(order: list[tuple[bytes, int]]) -> None:
    answers(*(message(kind, number, b"pcm" if kind == AUDIO else b"") for kind, number in order))
