"""What the agent is saying or about to say, so that it can be said again when the call is put on a new line.

Place `UnsaidTap` directly before the voice, behind all that changes the model's text. It hears replies only: whoever
says a fixed line tells the ledger. What was *heard* the ledger does not know; it is asked with it, and finds
the place by the last words of it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.string import match_endofsentence

from processors.frames import AnswerDroppedFrame, CachedSpeechFrame, SpeculationStartedFrame

MAX_PIECES = 40
"""Of one turn: a reply, its tools' replies and the lines between them."""
MAX_PIECE_CHARS = 4_000
_STEPS = (
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    LLMFullResponseStartFrame,
    LLMFullResponseEndFrame,
)


@dataclass
class _Piece:
    """A reply, or a fixed line, of the present turn."""

    text: str
    is_step: bool
    """Whether it moves the conversation on: what only fills a silence is not said again."""


class UnsaidLedger:
    """Keeps the text of the agent's turn. Pure.

    OWED: the model is asked, runs, or a tool of its runs --reply ended--> WHOLE: all that will be said is known
    WHOLE --caller's turn decided | reply begins | tool runs--> OWED
    any --interrupted--> WHOLE: nothing more comes of it
    """

    def __init__(self, *, language: str = "en-US") -> None:
        """Begin with nothing said and nothing owed; `language` is that of the agent's words."""
        self._language = language.partition("-")[0]
        self._pieces: list[_Piece] = []
        self._ahead: list[_Piece] | None = None
        """Of an answer to a turn that is not decided yet."""
        self._is_ahead_open = False
        self._is_open = False
        self._tools: set[str] = set()
        self.is_caller_talking = False
        """Whether the caller has begun a turn that is not decided: its words are in nobody's memory."""

    @property
    def is_owed(self) -> bool:
        """Whether the model has still to say something."""
        return self._is_open or bool(self._tools)

    def said(self, text: str, *, is_step: bool = False) -> None:
        """A fixed line is said; `is_step` when it is one that the caller is to answer, as a greeting is."""
        self._add(self._pieces, text, is_step=is_step)

    def turn_started(self) -> None:
        """The caller's turn begins."""
        self.is_caller_talking = True

    def turn_decided(self) -> None:
        """The caller's turn is over: what was said before it is answered."""
        self.is_caller_talking = False
        self._pieces = self._ahead or []
        self._is_open = self._is_ahead_open or self._ahead is None
        self._ahead, self._tools = None, set()

    def ahead_started(self) -> None:
        """The reply that follows answers a turn that may not be over."""
        self._ahead, self._is_ahead_open = [], True

    def ahead_withdrawn(self) -> None:
        """It answers nothing."""
        self._ahead = None

    def reply_started(self) -> None:
        """The model begins a reply."""
        if self._ahead is None:
            self._is_open = True
        self._add(self._current, "", is_step=True)

    def reply_text(self, text: str) -> None:
        """A piece of it, with its spaces."""
        pieces = self._current
        if not pieces or not pieces[-1].is_step:
            self._add(pieces, "", is_step=True)
        pieces[-1].text = (pieces[-1].text + text)[:MAX_PIECE_CHARS]

    def reply_ended(self) -> None:
        """It is whole."""
        if self._ahead is None:
            self._is_open = False
        else:
            self._is_ahead_open = False

    def reply_dropped(self, *, asks_again: bool) -> None:
        """What is made of an answer is thrown away; the model may be asked for it again."""
        self._pieces = [piece for piece in self._pieces if not piece.is_step]
        self._is_open = asks_again

    def interrupted(self) -> None:
        """The caller took the turn: nothing more comes of what was being said."""
        self._is_open = False

    def tool_started(self, call_id: str) -> None:
        """A tool runs."""
        self._tools.add(call_id)

    def tool_ended(self, call_id: str, *, is_answered: bool) -> None:
        """It has come back or was cancelled; `is_answered` when the model is asked with its result."""
        self._tools.discard(call_id)
        self._is_open = self._is_open or is_answered

    def to_say_again(self, heard: str) -> str | None:
        """Return what the agent has to say when the line was cut now.

        Args:
            heard: All that the caller has heard since their last turn.

        Returns:
            From the start of the sentence that they did not hear to its end; when they have heard it all, its closing
            question. "" if there is nothing; None if the model has to be asked.
        """
        if self.is_owed:
            return None
        words = [(number, match) for number, piece in enumerate(self._pieces) for match in _words(piece.text)]
        place = _end_of([_plain(match[0]) for _, match in words], [_plain(w[0]) for w in _words(heard)])
        left: list[str] = []
        for number, match in words[place:]:
            if self._pieces[number].is_step:
                text = self._pieces[number].text
                left = [text[self._sentence_at(text, match.start()) :]]
                left += [piece.text for piece in self._pieces[number + 1 :] if piece.is_step]
                break
        return _joined(left) or self._closing()

    @property
    def _current(self) -> list[_Piece]:
        return self._pieces if self._ahead is None else self._ahead

    def _closing(self) -> str:
        """The last question of what was said, and what stands behind it; the last sentence if nothing was asked."""
        steps = [piece.text for piece in self._pieces if piece.is_step and piece.text.strip()]
        if not steps:
            return ""
        text = steps[-1]
        starts = self._starts(text)
        parts = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        asked = [number for number, part in enumerate(parts) if part.rstrip().endswith("?")]
        return _joined(parts[asked[-1] if asked else -1 :])

    def _sentence_at(self, text: str, position: int) -> int:
        return max(start for start in self._starts(text) if start <= position)

    def _starts(self, text: str) -> list[int]:
        """Where the sentences of `text` begin; the first at 0."""
        starts = [0]
        while length := match_endofsentence(text[starts[-1] :], language=self._language):
            end = starts[-1] + length
            end += len(text[end:]) - len(text[end:].lstrip())
            if end >= len(text):
                break
            starts.append(end)
        return starts

    @staticmethod
    def _add(pieces: list[_Piece], text: str, *, is_step: bool) -> None:
        pieces.append(_Piece(text[:MAX_PIECE_CHARS], is_step))
        del pieces[:-MAX_PIECES]


class UnsaidTap(FrameProcessor):
    """Tells a ledger what passes by, in direct mode; never changes, delays or drops a frame."""

    def __init__(self, ledger: UnsaidLedger, *, on_step: Callable[[], None] = lambda: None) -> None:
        """Keep `ledger`.

        Args:
            ledger: Told.
            on_step: Called when a turn begins, when it is answered, when the model begins to speak (of a tool's result
                too, which it has read) and when all that it says is known: whoever goes on with the call must know of
                each.
        """
        super().__init__(enable_direct_mode=True)
        self._ledger = ledger
        self._on_step = on_step

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note what is to be said; forward everything."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self._note(frame)
            if isinstance(frame, _STEPS):
                self._on_step()
        await self.push_frame(frame, direction)

    def _note(self, frame: Frame) -> None:
        ledger = self._ledger
        match frame:
            case LLMTextFrame():
                if not frame.skip_tts:
                    ledger.reply_text(frame.text)
            case CachedSpeechFrame():
                ledger.reply_text(f"{frame.text} ")
            case LLMFullResponseStartFrame():
                ledger.reply_started()
            case LLMFullResponseEndFrame():
                ledger.reply_ended()
            case UserStartedSpeakingFrame():
                ledger.turn_started()
            case UserStoppedSpeakingFrame():
                ledger.turn_decided()
            case SpeculationStartedFrame():
                ledger.ahead_started()
            case EagerEndOfTurnCancelFrame():
                ledger.ahead_withdrawn()
            case AnswerDroppedFrame():
                ledger.reply_dropped(asks_again=frame.asks_again)
            case InterruptionFrame():
                ledger.interrupted()
            case FunctionCallsStartedFrame():
                for call in frame.function_calls:  # told before the reply that calls them ends
                    ledger.tool_started(call.tool_call_id)
            case FunctionCallResultFrame():
                ledger.tool_ended(frame.tool_call_id, is_answered=_is_answered(frame))
            case FunctionCallCancelFrame():
                ledger.tool_ended(frame.tool_call_id, is_answered=frame.run_llm)
            case _:
                pass


def _is_answered(frame: FunctionCallResultFrame) -> bool:
    properties = frame.properties
    if properties is not None and properties.run_llm is not None:
        return properties.run_llm
    if properties is not None and properties.on_context_updated is not None:
        return True  # another node, which decides
    return frame.run_llm is not False


def _words(text: str) -> Iterator[re.Match[str]]:
    return (match for match in re.finditer(r"\S+", text) if any(map(str.isalnum, match[0])))


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold()


def _end_of(planned: list[str], heard: list[str]) -> int:
    """Return how many of the planned words were heard: up to where most of the last words heard stand in a row.

    Where that is not certain, the first such place: rather say a word twice than not at all.
    """
    lengths = [_common_tail(planned[:end], heard) for end in range(len(planned) + 1)]
    return max(range(len(lengths)), key=lambda end: lengths[end])


def _common_tail(one: list[str], other: list[str]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


def _joined(texts: list[str]) -> str:
    return " ".join(" ".join(texts).split())
