"""A mixin for Pipecat's Cartesia voice: the ends of its words, and its errors with their numbers.

Pipecat 1.14 leaves the ends of words out, takes an error without a context for the end of the world, tells of one with
a context only that there was one, and dials again for ever when the vendor closes in good order. This reads those
messages itself while the voice is hosted. Source: `pipecat.services.cartesia.tts.CartesiaTTSService._process_messages`.
"""

import json
from typing import TYPE_CHECKING, Any, cast

from processors.context_words import WatchedSocket
from processors.hosted_voice import HostedVoice, failure_of_status
from processors.voices import FailureKind, TimedWord, VoiceFailure

if TYPE_CHECKING:
    from pipecat.services.cartesia.tts import CartesiaTTSService

_KNOWN = frozenset({"chunk", "done", "flush_done"})
"""What Pipecat reads right."""


class CartesiaWords(HostedVoice):
    """Mix in before `CartesiaTTSService`."""

    idle_limit_s = 0.7
    """The vendor forgets a context 1 s after its last audio."""

    async def _receive_messages(self) -> None:
        if self._listener is None:
            await super()._receive_messages()  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into
        else:
            await cast("CartesiaTTSService", self)._process_messages()

    def _get_websocket(self) -> Any:
        socket = super()._get_websocket()  # pyright: ignore[reportAttributeAccessIssue] - as above
        return socket if self._listener is None else WatchedSocket(socket, self._read)

    async def _read(self, message: str | bytes) -> bool:
        """Take in what Pipecat would not; return whether it may have the message."""
        content = json.loads(message)
        kind, context_id = content.get("type"), content.get("context_id")
        if kind == "error":
            failure = _failure_of(content)
            for one in [context_id] if context_id else list(self._hosted):
                await self._fail(one, failure)
        elif kind == "timestamps" and context_id in self._hosted:
            await self._words(context_id, self._timed(content["word_timestamps"]))
        elif kind not in _KNOWN and kind != "timestamps":
            raise VoiceFailure(FailureKind.GARBAGE, f"message of type {kind!r}")
        return kind in _KNOWN and context_id is not None

    def _timed(self, times: Any) -> list[TimedWord]:
        strip = cast("CartesiaTTSService", self)._strip_cartesia_tags
        words = zip(times["words"], times["start"], times["end"], strict=True)
        return [TimedWord(said, start_s, end_s) for word, start_s, end_s in words if (said := strip(word))]


def _failure_of(error: Any) -> VoiceFailure:
    """Return what an error message means. One about a context that is over is no fault of the vendor's."""
    status = int(error.get("status_code") or 500)
    text = " ".join(str(error[key]) for key in ("error_code", "message") if error.get(key))
    if status == 400 and "context" in text:
        return VoiceFailure(FailureKind.FORGOTTEN, text)
    return failure_of_status(status, text)
