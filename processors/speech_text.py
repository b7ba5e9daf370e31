"""What of a model's reply is spoken, and how it begins: between the model and its voice.

Place directly before the voice, behind all that looks at the model's own words. Takes out what cannot be spoken
(`plain_speech`); a reply that begins with a line whose sound is in memory (`openers`) begins with that sound, so that
the caller hears something while the voice works on the rest; a reply that grows too long ends with a sentence
(`ReplyLimit`). Text that is read and not spoken (`skip_tts`) passes untouched. Never waits, reads no disk, asks no
vendor, and never stops the model.
"""

from collections.abc import Callable, Sequence

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EagerEndOfTurnCancelFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartFrame,
    SystemFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.string import SENTENCE_ENDING_PUNCTUATION, match_endofsentence

from processors.audio_cache import CachedSpeech
from processors.frames import CachedSpeechFrame
from processors.openers import OpenerMatcher, ReplyStart
from processors.plain_speech import PlainSpeech

MAX_CLOSING_QUESTION_WORDS = 12
"""A longer question at the end of what is left out is left out too."""
MIN_DICTATED_DIGITS = 5

_SENTENCE_ENDS = SENTENCE_ENDING_PUNCTUATION - {";"}
_CLOSING = frozenset("\"'\u201d\u2019»)]")
_AFTER_OPENER = " \t\n.…"
"""What may follow an opener and means nothing any more: its last full stop, drawn out."""


def _cached_frame(said: str, speech: CachedSpeech) -> CachedSpeechFrame:
    """Return the frame of a rendered line, in the model's own words; without word times it is one word."""
    text = said.strip()
    starts = [word.start_s for word in speech.words]
    words = (
        tuple(zip(text.split(), starts, strict=False)) if len(text.split()) == len(starts) else ((text, 0.0),)
    )
    return CachedSpeechFrame(text=text, pcm=speech.pcm, sample_rate=speech.rate_hz, words=words)


def spoken_words(text: str) -> int:
    """Count words as they are heard: one with `MIN_DICTATED_DIGITS` or more is read digit by digit."""
    words = 0
    for word in text.split():
        digits = sum(char.isdigit() for char in word)
        words += digits if digits >= MIN_DICTATED_DIGITS else any(char.isalnum() for char in word)
    return words


class SentenceReader:
    """Parts a reply into its sentences, character by character."""

    def __init__(self, *, language: str = "en") -> None:
        """Read in a language, for its abbreviations."""
        self._language = language
        self.reset()

    def reset(self) -> None:
        """Begin another reply."""
        self._text = ""
        self._awaits_start = False

    @property
    def rest(self) -> str:
        """The sentence that is going on."""
        return self._text.strip()

    def feed(self, char: str) -> str | None:
        """Take a character; return the sentence that has ended if another begins with it."""
        follows_space = self._text[-1:].isspace()
        self._text += char
        if char in _SENTENCE_ENDS:
            self._awaits_start = True
        elif self._awaits_start and not char.isspace() and char not in _CLOSING:
            self._awaits_start = False
            # "No. 5" and "a.m." end nothing, whatever the sentence rules say.
            may_end = follows_space and not char.isdigit()
            if may_end and (end := self._end_in_front()):
                sentence, self._text = self._text[:end].strip(), self._text[end:].lstrip()
                return sentence
        return None

    def _end_in_front(self) -> int:
        """Where a sentence ends directly in front of the last character, 0 if none does."""
        end = 0
        while step := match_endofsentence(self._text[end:], language=self._language):
            end += step
            if not self._text[end:-1].strip():
                return end
        return 0


class ReplyLimit:
    """Ends a reply with the sentence in which it reaches its last word.

    No sentence begins once `max_words` were said; one that has begun is finished, so neither the first sentence nor a
    number nor a question is ever cut. A short question at the very end is still asked: a caller who is asked nothing
    waits.

    SAYING --a sentence begins behind the last word--> DROPPING
    """

    def __init__(
        self, max_words: int, *, language: str = "en", on_sentence: Callable[[str], None] | None = None
    ) -> None:
        """Create the limit.

        Args:
            max_words: Words after which no sentence begins, > 0.
            language: Of the reply, for its abbreviations.
            on_sentence: Told every whole sentence that is to be said.

        Raises:
            ValueError: If `max_words` is not positive.
        """
        if max_words <= 0:
            raise ValueError(f"max_words must be > 0, got {max_words}")
        self._max_words = max_words
        self._on_sentence = on_sentence
        self._reader = SentenceReader(language=language)
        self.reset()

    def reset(self) -> None:
        """Begin another reply."""
        self._reader.reset()
        self._words = 0
        """Of the sentences before this one."""
        self._is_dropping = False
        self.dropped_words = 0
        """Words left out so far, without those of the sentence that is going on until `flush`."""

    def feed(self, text: str) -> str:
        """Take text; return what of it is to be said."""
        said: list[str] = []
        for char in text:
            if (sentence := self._reader.feed(char)) is not None:
                self._ended(sentence)
            if not self._is_dropping:
                said.append(char)
        return "".join(said)

    def flush(self) -> str:
        """The reply is over: return the question it closes with, if that was left out."""
        sentence = self._reader.rest
        self._reader.reset()
        if not self._is_dropping:
            self._tell(sentence)
            return ""
        words = spoken_words(sentence)
        if sentence.endswith("?") and words <= MAX_CLOSING_QUESTION_WORDS:
            self._tell(sentence)
            return sentence
        self.dropped_words += words
        return ""

    def _ended(self, sentence: str) -> None:
        words = spoken_words(sentence)
        self._words += words
        if self._is_dropping:
            self.dropped_words += words
        else:
            self._tell(sentence)
        self._is_dropping = self._words >= self._max_words

    def _tell(self, sentence: str) -> None:
        if sentence and self._on_sentence is not None:
            self._on_sentence(sentence)


class SpeechTextProcessor(FrameProcessor):
    """Prepares a reply for the voice, token by token.

    Runs in direct mode: what becomes of a token is decided without waiting for anything, so nothing can happen in the
    middle of it, and a queue and two tasks for each call are saved. An interruption, which comes by another task,
    finds either everything of a token pushed or cuts the rest of it off together with the reply.
    """

    def __init__(
        self,
        *,
        max_reply_words: int,
        language: str = "en",
        openers: Callable[[], Sequence[str]] = tuple,
        lookup: Callable[[str], CachedSpeech | None] | None = None,
        on_miss: Callable[[str], None] | None = None,
        on_sentence: Callable[[str], None] | None = None,
        on_cut: Callable[[int], None] | None = None,
        website: str = "our website",
    ) -> None:
        """Create the processor.

        Args:
            max_reply_words: See `ReplyLimit`.
            language: Of the replies, e.g. `en-US`.
            openers: Returns the lines that replies may begin with; asked at the start of each.
            lookup: Returns an opener's sound if it is in memory, at once.
            on_miss: Told an opener whose sound is not, so that it is there next time.
            on_sentence: Told every whole sentence of a reply that is to be said, openers included.
            on_cut: Told how many words of a reply were left out.
            website: Spoken in place of an address.

        Raises:
            ValueError: If `max_reply_words` is not positive.
        """
        super().__init__(enable_direct_mode=True)
        self._max_reply_words = max_reply_words
        self._lookup = lookup
        self._on_miss = on_miss
        self._on_cut = on_cut
        self._plain = PlainSpeech(website=website)
        self._openers = openers if lookup is not None else tuple
        self._known = self._openers()
        self._matcher = OpenerMatcher(self._known)
        self._limit = ReplyLimit(max_reply_words, language=language, on_sentence=on_sentence)
        self._follows_opener = False
        self._has_text = False
        """Whether the voice has been given text of this reply."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Prepare the model's text; pass everything else in its place."""
        await super().process_frame(frame, direction)
        for out in self._outgoing(frame, direction):
            await self.push_frame(out, direction)

    def _outgoing(self, frame: Frame, direction: FrameDirection) -> Sequence[Frame]:
        if direction is FrameDirection.UPSTREAM or isinstance(frame, StartFrame):
            return [frame]
        if isinstance(frame, InterruptionFrame | EagerEndOfTurnCancelFrame | CancelFrame):
            self._begin_reply()
            return [frame]
        if isinstance(frame, SystemFrame):
            return [frame]
        if isinstance(frame, LLMTextFrame) and not frame.skip_tts:
            return self._text(frame)
        if isinstance(frame, LLMFullResponseStartFrame):
            before = self._release()
            self._begin_reply()
            return [*before, frame]
        if isinstance(frame, LLMFullResponseEndFrame):
            before = self._release()
            if question := self._limit.flush():
                before.append(LLMTextFrame(question))
            self._begin_reply()
            return [*before, frame]
        return [*self._release(), frame]

    def _text(self, frame: LLMTextFrame) -> Sequence[Frame]:
        starts = self._matcher.feed(self._plain.feed(frame.text))
        frames = [out for start in starts for out in self._say(start)]
        if len(frames) == 1 and isinstance(frames[0], LLMTextFrame) and frames[0].text == frame.text:
            return [frame]  # an observer that has seen it knows it again
        return frames

    def _release(self) -> list[Frame]:
        """Let go of what is held: something else comes behind it."""
        starts = [*self._matcher.feed(self._plain.flush()), *self._matcher.flush()]
        return [out for start in starts for out in self._say(start)]

    def _say(self, start: ReplyStart) -> list[Frame]:
        frames: list[Frame] = []
        text = start.rest
        if start.opener is not None:
            # Sound would overtake text in front of it, which waits for the end of its sentence.
            speech = self._lookup(start.opener) if self._lookup is not None and not self._has_text else None
            if speech is not None:
                frames.append(_cached_frame(start.said, speech))
                self._limit.feed(start.said + " ")
                self._follows_opener = True
            else:
                text = start.said + start.rest
                if self._on_miss is not None and not self._has_text:
                    self._on_miss(start.opener)
        if self._follows_opener:
            text = text.lstrip(_AFTER_OPENER)
            self._follows_opener = not text
        if text := self._limit.feed(text):
            frames.append(LLMTextFrame(text))
            self._has_text = True
        return frames

    def _begin_reply(self) -> None:
        if dropped := self._limit.dropped_words:
            logger.info("a reply went beyond {} words: {} were not spoken", self._max_reply_words, dropped)
            if self._on_cut is not None:
                self._on_cut(dropped)
        self._plain.reset()
        self._matcher.reset()
        if (known := self._openers()) != self._known:
            self._known = known
            self._matcher.look_for(known)
        self._limit.reset()
        self._follows_opener = self._has_text = False
