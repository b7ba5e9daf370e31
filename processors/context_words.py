"""A mixin for Pipecat's ElevenLabs voice: keeps a socket's contexts, and their words, apart, and hears its errors.

Pipecat 1.14 reads all contexts of a socket with one clock and one unfinished word. What still comes of a reply that
was interrupted, or withdrawn, would run into the first words of the next, and the end of one reply would set the
clock of the next to zero. Nor does it read the vendor's errors: it sees that the socket closes. Source:
`pipecat.services.elevenlabs.tts.ElevenLabsTTSService._receive_messages`.

ElevenLabs closes a connection on which a sixth context is opened. A context counts until its end was told, and a caller
who interrupts again and again can be quicker than that. So the next waits for one that ends; what ends too late is left
behind with its connection. Text goes on over a new one then, which is told as `forgotten` and is no failure.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from websockets.asyncio.client import ClientConnection

from processors.context_slots import ContextSlots
from processors.hosted_voice import HostedVoice, failure_of_words
from processors.voices import FailureKind, TimedWord, VoiceFailure

if TYPE_CHECKING:
    from pipecat.services.elevenlabs.tts import ElevenLabsTTSService

MOST_CONTEXTS = 5
"""Of one connection. Source: elevenlabs.io/docs, "Multi-context websocket"; its error `max_active_conversations`."""
KEEPALIVE_CONTEXTS = 1
"""Of them: a keep-alive without a context opens one of its own, which stays."""
ROOM_LIMIT_S = 0.25
"""For a context that was told to close to end; a new connection takes about as long."""


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
    _slots: ContextSlots | None = None
    """Of the connection; None before its first context."""
    _is_spent: bool = False
    """Whether the connection takes no more contexts."""
    _clocks: dict[str | None, _WordClock] | None = None
    _reading: str | None = None
    """Context of the message that is being read."""

    @property
    def is_connected(self) -> bool:
        """Whether text can be sent at once, and will be said."""
        return not self._is_spent and super().is_connected

    async def speak(self, text: str, context_id: str) -> None:
        """Give a context its next text, when there is room for it. See `Voice`."""
        if self._is_spent:
            raise _spent()
        if self.is_connected and context_id not in self._contexts:
            await self._make_room()
            self._contexts.take(context_id)
        await super().speak(text, context_id)

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
        self._clocks, self._slots, self._is_spent = None, None, False

    @property
    def _contexts(self) -> ContextSlots:
        if self._slots is None:
            self._slots = ContextSlots(MOST_CONTEXTS - KEEPALIVE_CONTEXTS)
        return self._slots

    async def _make_room(self) -> None:
        """Wait until the vendor allows one more context on this connection.

        Raises:
            VoiceFailure: If none ends in time: the text is to go over another connection.
        """
        contexts = self._contexts
        if not contexts.is_full:
            return
        for context_id in contexts.left_open(self._hosted):
            await self._close_context(context_id)
        try:
            async with asyncio.timeout(ROOM_LIMIT_S):
                await contexts.wait()
        except TimeoutError:
            self._is_spent = True
            raise _spent() from None

    async def _send_context_init(self, context_id: str) -> None:
        self._contexts.sent(context_id)
        await super()._send_context_init(context_id)  # pyright: ignore[reportAttributeAccessIssue] - as below

    async def _close_context(self, context_id: str) -> None:
        self._contexts.closing(context_id)
        await super()._close_context(context_id)  # pyright: ignore[reportAttributeAccessIssue] - as below

    async def _disconnect_websocket(self) -> None:
        if self._is_spent:  # its goodbye would wait for the contexts that do not end
            self._abort()
            cast("ElevenLabsTTSService", self)._websocket = None
        await super()._disconnect_websocket()  # pyright: ignore[reportAttributeAccessIssue] - as below

    def _get_websocket(self) -> WatchedSocket:
        return WatchedSocket(super()._get_websocket(), self._accepts)  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into

    async def _accepts(self, message: str | bytes) -> bool:
        content = json.loads(message)
        context_id: str | None = content.get("contextId")
        self._reading = context_id
        if content.get("isFinal") is True:
            self._contexts.ended(context_id)
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


def _spent() -> VoiceFailure:
    """Return what has who speaks ask for another connection."""
    return VoiceFailure(FailureKind.FORGOTTEN, "no context ended on this connection")
