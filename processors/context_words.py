"""A mixin for Pipecat's ElevenLabs voice: keeps the words of a socket's contexts apart, and hears its errors.

Pipecat 1.14 reads all contexts of a socket with one clock and one unfinished word. What still comes of a reply that
was interrupted, or withdrawn, would run into the first words of the next, and the end of one reply would set the
clock of the next to zero. Nor does it read the vendor's errors: it sees that the socket closes. Source:
`pipecat.services.elevenlabs.tts.ElevenLabsTTSService._receive_messages`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from websockets.asyncio.client import ClientConnection

from processors.hosted_voice import HostedVoice, failure_of_words
from processors.voices import FailureKind, TimedWord

if TYPE_CHECKING:
    from pipecat.services.elevenlabs.tts import ElevenLabsTTSService


@dataclass
class _WordClock:
    """How far the alignment of a context has been read."""

    cumulative_s: float = 0.0
    partial_word: str = ""
    partial_start_s: float = 0.0


class WatchedSocket:
    """A socket whose reader decides which messages it sees."""

    def __init__(self, socket: ClientConnection, accepts: Callable[[str | bytes], Awaitable[bool]]) -> None:
        """Watch a socket.

        Args:
            socket: Pipecat's.
            accepts: Told each message; returns whether Pipecat is to see it.
        """
        self._socket = socket
        self._accepts = accepts

    async def send(self, message: str) -> None:
        """Send a message."""
        await self._socket.send(message)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        async for message in self._socket:
            if await self._accepts(message):
                yield message


class ContextWords(HostedVoice):
    """Give every context its own word clock, and read nothing of a context that is over.

    Mix in before `ElevenLabsTTSService`, whose three attributes of the same names it takes the place of.
    """

    words_follow_audio = True
    _clocks: dict[str | None, _WordClock] | None = None
    _reading: str | None = None
    """Context of the message that is being read."""

    def whole_word(self, context_id: str) -> TimedWord | None:
        """Return the word whose letters have come, with their audio, and the space behind it has not."""
        clock = (self._clocks or {}).get(context_id)
        if clock is None or not clock.partial_word:
            return None
        return TimedWord(clock.partial_word, clock.partial_start_s, clock.cumulative_s)

    def _whole_until_s(self, context_id: str) -> float:
        clock, seconds = (self._clocks or {}).get(context_id), super()._whole_until_s(context_id)
        return min(seconds, clock.partial_start_s) if clock and clock.partial_word else seconds

    def _clear_connection_state(self) -> None:
        super()._clear_connection_state()  # pyright: ignore[reportAttributeAccessIssue] - as below
        self._clocks = None

    def _get_websocket(self) -> WatchedSocket:
        return WatchedSocket(super()._get_websocket(), self._accepts)  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into

    async def _accepts(self, message: str | bytes) -> bool:
        content = json.loads(message)
        context_id: str | None = content.get("contextId")
        self._reading = context_id
        if error := content.get("error"):
            self._fault = failure_of_words(f"{error}: {content.get('message', '')}", FailureKind.SERVER)
        return context_id is None or cast("ElevenLabsTTSService", self).audio_context_available(context_id)

    def _reset_word_clock(self) -> None:
        """Do nothing: a new context has a new clock."""

    def _reset_alignment_state(self, context_id: str) -> None:
        super()._reset_alignment_state(context_id)  # pyright: ignore[reportAttributeAccessIssue] - as above
        (self._clocks or {}).pop(context_id, None)

    @property
    def _clock(self) -> _WordClock:
        if self._clocks is None:
            self._clocks = {}
        return self._clocks.setdefault(self._reading, _WordClock())

    @property
    def _cumulative_time(self) -> float:
        return self._clock.cumulative_s

    @_cumulative_time.setter
    def _cumulative_time(self, value: float) -> None:
        self._clock.cumulative_s = value

    @property
    def _partial_word(self) -> str:
        return self._clock.partial_word

    @_partial_word.setter
    def _partial_word(self, value: str) -> None:
        self._clock.partial_word = value

    @property
    def _partial_word_start_time(self) -> float:
        return self._clock.partial_start_s

    @_partial_word_start_time.setter
    def _partial_word_start_time(self, value: float) -> None:
        self._clock.partial_start_s = value
