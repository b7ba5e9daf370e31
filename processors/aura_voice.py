"""A mixin for Pipecat's Deepgram voice (Aura): contexts on a socket that has none, early audio, and words.

Aura's socket is one stream of text: it says nothing before a `Flush`, answers each with `Flushed` behind the audio,
takes 20 of them in a minute, and a `Clear` drops all there is. Pipecat 1.14 flushes once, at the end of a reply, which
would have the caller wait for the whole of it, takes the first `Flushed` for the end of the reply, gives all audio to
whatever context is open, and knows no words.

Here the contexts stand in line on the socket; audio and `Flushed` belong to the one in front. A text is flushed at once
when nothing is under way, and else with all that came meanwhile when the `Flushed` before it is there: one or two in a
reply. The vendor counts flushes by connection: when three quarters of a minute's are used up the next reply wants a new
one, and the last quarter is kept for the ends of replies. What is dropped is cleared, or passed over while another
context is behind it. Words are placed by `word_estimate`.

Source: `pipecat.services.deepgram.tts.DeepgramTTSService`; developers.deepgram.com/docs/tts-ws-flush and -clear; that
nothing is said without a flush, and that one too many is refused with a `Warning` EXCESSIVE_FLUSH, others measured.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from loguru import logger
from pipecat.frames.frames import Frame, TTSAudioRawFrame, TTSStoppedFrame

from processors.hosted_voice import HostedVoice
from processors.voices import FailureKind, TimedWord, VoiceFailure
from processors.word_estimate import EstimatedWords, Pace

if TYPE_CHECKING:
    from pipecat.services.deepgram.tts import DeepgramTTSService

MOST_FLUSHES = 20
FLUSH_WINDOW_S = 65.0
"""The vendor's 60 s, and what its clock may be behind."""
MOST_EARLY_FLUSHES = 15
"""Of them, before the end of a reply: who ends one must find room."""
REFUSED_FLUSH = "EXCESSIVE_FLUSH"


@dataclass(eq=False)
class _Stretch:
    """What the socket says for one context."""

    context_id: str
    words: EstimatedWords
    unflushed: int = 0
    """Texts that no flush was sent behind."""
    is_over: bool = False
    """Whether no more text comes."""
    is_dropped: bool = False


@dataclass(frozen=True)
class _Flush:
    """A flush that was not answered yet."""

    stretch: _Stretch
    texts: int


class AuraVoice(HostedVoice):
    """Mix in before `DeepgramTTSService`."""

    idle_limit_s = float("inf")
    """A context is ours alone: the vendor has nothing to forget."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the service's arguments; words come with the audio, not with the text."""
        super().__init__(*args, push_text_frames=False, **kwargs)  # pyright: ignore[reportCallIssue] - of the service it is mixed into, as below
        self._pace = Pace()
        self._flushed_s: deque[float] = deque(maxlen=MOST_FLUSHES)
        """When flushes were sent."""
        self._forget_line()

    def _forget_line(self) -> None:
        self._line: dict[str, _Stretch] = {}
        """Contexts in the order in which the socket says them."""
        self._flushes: deque[_Flush] = deque()
        self._clears = 0
        """Those that were not answered yet: until then comes what is not wanted."""
        self._is_spent = False
        """Whether the connection takes no more flushes for a while."""

    @property
    def is_connected(self) -> bool:
        """Whether text can be sent at once, and will be said."""
        return not self._is_spent and super().is_connected

    # What Pipecat and the host ask for

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Give a context its next text."""
        service = self._deepgram
        if self._listener is None and not self.is_connected:  # hosted, whoever keeps it dials
            await service._connect()
        stretch = self._line.get(context_id)
        if stretch is None:
            if not self._line and self._flushes_left(MOST_EARLY_FLUSHES) <= 0:
                raise self._spend()
            words = EstimatedWords(rate_hz=service.sample_rate, pace=self._pace)
            stretch = _Stretch(context_id, words)
            for other in self._line.values():
                if other.unflushed:  # else its end could not be told from this one's beginning
                    await self._flush(other)
            self._line[context_id] = stretch
        stretch.words.add(text)
        stretch.unflushed += 1
        await self._send("Speak", text=text)
        await service.start_tts_usage_metrics(text)
        await self._flush_early()
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        """Take note that a context gets no more text."""
        stretch = self._line.get(context_id or "")
        if stretch is None:
            return
        stretch.is_over = True
        if stretch.unflushed:
            await self._flush(stretch)
        elif not self._is_flushing(stretch):
            await self._end(stretch)

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Stop a context."""
        await self._deepgram.stop_all_metrics()
        stretch = self._line.get(context_id)
        if stretch is None:
            return
        stretch.is_dropped = True
        if not (stretch.unflushed or self._is_flushing(stretch)):
            del self._line[context_id]
        elif len(self._line) == 1:
            self._line.clear()
            self._flushes.clear()
            self._clears += 1
            await self._send("Clear")
        elif stretch.unflushed:
            await self._flush(stretch)

    # What the vendor says

    async def _connect_websocket(self) -> None:
        if not self.is_connected:
            self._forget_line()
            self._flushed_s.clear()
        await super()._connect_websocket()  # pyright: ignore[reportAttributeAccessIssue]

    async def _disconnect_websocket(self) -> None:
        if not super().is_connected:  # nobody is there to be told goodbye
            self._deepgram._websocket = None
        await super()._disconnect_websocket()  # pyright: ignore[reportAttributeAccessIssue]

    async def _receive_messages(self) -> None:
        async for message in self._deepgram._get_websocket():
            if isinstance(message, bytes):
                await self._audio(message)
            else:
                await self._take(json.loads(message))

    async def _audio(self, pcm: bytes) -> None:
        stretch = self._flushes[0].stretch if self._flushes else next(iter(self._line.values()), None)
        if self._clears or stretch is None or stretch.is_dropped:
            return
        rate_hz, context_id = self._deepgram.sample_rate, stretch.context_id
        frame = TTSAudioRawFrame(pcm, rate_hz, 1, context_id=context_id)
        await self.append_to_audio_context(context_id, frame)
        await self._tell_words(stretch, stretch.words.audio(pcm))

    async def _take(self, message: Any) -> None:
        kind = message.get("type")
        code = str(message.get("code") or message.get("warn_code") or "")
        if kind == "Cleared":
            self._clears = max(0, self._clears - 1)
        elif kind == "Flushed":
            await self._flush_answered()
        elif kind == "Warning" and code == REFUSED_FLUSH:
            await self._flush_refused(code)
        elif kind == "Warning":
            logger.warning("{} warns: {}", self.vendor, code)
        elif kind != "Metadata":
            logger.debug("{} says {!r}", self.vendor, kind)

    async def _flush_answered(self) -> None:
        if self._clears or not self._flushes:
            return  # of what was cleared
        flush = self._flushes.popleft()
        stretch = flush.stretch
        await self._tell_words(stretch, stretch.words.over(flush.texts))
        if not (stretch.unflushed or self._is_flushing(stretch)):
            if stretch.is_dropped:
                self._line.pop(stretch.context_id, None)
            elif stretch.is_over:
                await self._end(stretch)
        try:
            await self._flush_early()
        except VoiceFailure as failure:
            await self._fail(stretch.context_id, failure)

    async def _flush_refused(self, code: str) -> None:
        if self._clears or not self._flushes:
            return
        logger.warning("{} refuses a flush: {}", self.vendor, code)
        failure = self._spend()
        for context_id in list(self._line):  # it is not told which flush, and the connection is left anyway
            await self._fail(context_id, failure)

    # Inside

    @property
    def _deepgram(self) -> "DeepgramTTSService":
        return cast("DeepgramTTSService", self)

    def _is_flushing(self, stretch: _Stretch) -> bool:
        return any(flush.stretch is stretch for flush in self._flushes)

    async def _flush_early(self) -> None:
        """Have the next context's text said, when nothing is under way and the vendor's minute allows it."""
        stretch = next((one for one in self._line.values() if one.unflushed), None)
        if stretch is not None and not self._flushes and self._flushes_left(MOST_EARLY_FLUSHES) > 0:
            await self._flush(stretch)

    def _flushes_left(self, most: int) -> int:
        now_s = asyncio.get_running_loop().time()
        while self._flushed_s and now_s - self._flushed_s[0] > FLUSH_WINDOW_S:
            self._flushed_s.popleft()
        return most - len(self._flushed_s)

    async def _flush(self, stretch: _Stretch) -> None:
        if self._flushes_left(MOST_FLUSHES) <= 0:
            raise self._spend()
        self._flushed_s.append(asyncio.get_running_loop().time())
        self._flushes.append(_Flush(stretch, stretch.unflushed))
        stretch.unflushed = 0
        await self._send("Flush")

    def _spend(self) -> VoiceFailure:
        """Want another connection; return what has who speaks ask for it: no failure of the vendor's."""
        self._is_spent = True
        return VoiceFailure(FailureKind.FORGOTTEN, "no more flushes on this connection")

    async def _end(self, stretch: _Stretch) -> None:
        context_id = stretch.context_id
        self._line.pop(context_id, None)
        await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
        await self.remove_audio_context(context_id)

    async def _tell_words(self, stretch: _Stretch, words: Sequence[TimedWord]) -> None:
        if not words or stretch.is_dropped:
            return
        if self._listener is not None:
            await self._words(stretch.context_id, words)
        else:
            await self.add_word_timestamps(list(_starts(words)), stretch.context_id)

    async def _send(self, kind: str, **more: str) -> None:
        await self._deepgram._get_websocket().send(json.dumps({"type": kind, **more}))


def _starts(words: Iterable[TimedWord]) -> Iterable[tuple[str, float]]:
    return ((word.text, word.start_s) for word in words)
