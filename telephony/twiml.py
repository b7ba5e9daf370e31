"""The answers we give to Twilio's webhooks.

Pure functions from plain values to XML text, built by the official SDK so that escaping and names are right.
Never decides which answer a call gets.

Source: Twilio, TwiML for Programmable Voice.
"""

import enum
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from twilio.twiml.voice_response import Connect, Stream, VoiceResponse

CONTENT_TYPE: Final = "text/xml"
"""Content type of every answer."""

MAX_PARAMETER_CHARS: Final = 499
"""Name and value of one `<Parameter>` together."""

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class RejectReason(enum.StrEnum):
    """What the caller hears when a call is refused without being answered (or billed)."""

    BUSY = "busy"
    REJECTED = "rejected"
    """The "not in service" announcement."""


def connect_stream(stream_url: str, action_url: str, parameters: Mapping[str, str]) -> str:
    """Connect the call to our media socket; ask `action_url` what comes next when the stream has ended.

    A redirect to the same URL stands behind `</Connect>`, for the ways a stream can end in which Twilio does
    not ask the action.

    Args:
        stream_url: Absolute wss URL (ws on loopback), without query: Twilio refuses one.
        action_url: Absolute http(s) URL, asked by POST.
        parameters: Arrive in the `start` message; here is where a token goes.

    Raises:
        ValueError: If a URL or parameter is one that Twilio would refuse.
    """
    _require_url(stream_url, ("wss", "ws"))
    if urlsplit(stream_url).query:
        raise ValueError("stream_url must not have a query: put it into parameters")
    _require_url(action_url, ("https", "http"))
    response = VoiceResponse()
    stream = Stream(url=stream_url)
    for name, value in parameters.items():
        if not name or len(name) + len(value) > MAX_PARAMETER_CHARS:
            raise ValueError(
                f"parameter {name!r} must have a name and at most {MAX_PARAMETER_CHARS} characters"
            )
        stream.parameter(name=_xml_text(name), value=_xml_text(value))
    response.append(Connect(action=action_url, method="POST").append(stream))
    response.redirect(action_url, method="POST")
    return str(response)


def say_and_hang_up(text: str, *, language: str = "en-US", voice: str | None = None) -> str:
    """Speak `text` with Twilio's own voice, then end the call.

    Args:
        text: Plain words; markup in it is spoken, not obeyed. Nothing to say: the call just ends.
        language: BCP 47 tag.
        voice: A Twilio voice name, or None for the account's default.
    """
    response = VoiceResponse()
    if spoken := _xml_text(text).strip():
        response.say(spoken, language=language, voice=voice)
    response.hangup()
    return str(response)


def reject(reason: RejectReason) -> str:
    """Refuse a call that is still ringing."""
    response = VoiceResponse()
    response.reject(reason=reason.value)
    return str(response)


def redirect(url: str) -> str:
    """Hand the call to the document at `url` (absolute, asked by POST).

    Raises:
        ValueError: If `url` is not absolute.
    """
    _require_url(url, ("https", "http"))
    response = VoiceResponse()
    response.redirect(url, method="POST")
    return str(response)


def hangup() -> str:
    """End the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def empty() -> str:
    """Do nothing: bridges a screened call, acknowledges a callback, ends a call that has no verb left."""
    return str(VoiceResponse())


def _require_url(url: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"url must be absolute and {' or '.join(schemes)}, got {url!r}")


def _xml_text(text: str) -> str:
    """Drop the characters that no XML document may hold, however they are escaped."""
    return _NOT_XML.sub("", text)
