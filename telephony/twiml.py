"""The answers we give to Twilio's webhooks.

Pure functions from plain values to XML text, built by the official SDK so that escaping and names are right.
Never decides which answer a call gets.

Source: Twilio, TwiML for Programmable Voice.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from twilio.twiml.voice_response import Connect, Dial, Gather, Number, Stream, VoiceResponse

CONTENT_TYPE: Final = "text/xml"
"""Content type of every answer."""

MAX_PARAMETER_CHARS: Final = 499
"""Name and value of one `<Parameter>` together."""

MAX_RING_S: Final = 600
"""Longest `timeout` of a `<Dial>`."""

SCREEN_LIMIT_S: Final = 6
"""For the key that accepts a call, once everything was said."""

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


@dataclass(frozen=True)
class Spoken:
    """Words for Twilio's own voice."""

    text: str
    """Plain words; markup in it is spoken, not obeyed. Empty: nothing is said."""
    language: str = "en-US"
    """BCP 47 tag."""


def ring_person(
    number: str, *, whisper_url: str, action_url: str, ring_s: int = 20, first: Spoken | None = None
) -> str:
    """Ring somebody, let them hear a document of their own first, and ask `action_url` what came of it.

    The caller hears ringing until the person has accepted, whisper included.

    Args:
        number: E.164.
        whisper_url: Absolute; asked for the document that the person hears before the caller is connected. When it
            ends by itself the two are connected.
        action_url: Absolute; asked once nobody is connected (any more): its answer is what the caller gets next.
        ring_s: How long it may ring, 1 to 600.
        first: Said to the caller before it rings.

    Raises:
        ValueError: If a URL is not absolute or `ring_s` is out of its range.
    """
    _require_url(whisper_url, ("https", "http"))
    _require_url(action_url, ("https", "http"))
    if not 1 <= ring_s <= MAX_RING_S:
        raise ValueError(f"ring_s must be 1 to {MAX_RING_S}, got {ring_s}")
    response = VoiceResponse()
    _say(response, first)
    dial = Dial(action=action_url, method="POST", timeout=ring_s, answer_on_bridge=True)
    dial.append(Number(_xml_text(number), url=whisper_url, method="POST"))
    response.append(dial)
    return str(response)


def screen_person(briefing: Spoken, again: Spoken, *, answer_url: str) -> str:
    """Tell the person who was rung what awaits them, and wait for a key; a machine presses none.

    Whatever was pressed, or nothing, is told to `answer_url`, whose answer connects (`empty`) or refuses (`hangup`).

    Args:
        briefing: Who calls and why, and which key does what.
        again: Which key does what, for a person who has not pressed one.
        answer_url: Absolute, asked by POST; `Digits` is missing when nothing was pressed.

    Raises:
        ValueError: If the URL is not absolute.
    """
    _require_url(answer_url, ("https", "http"))
    response = VoiceResponse()
    for spoken, timeout_s in ((briefing, 2), (again, SCREEN_LIMIT_S)):
        gather = Gather(num_digits=1, timeout=timeout_s, action=answer_url, method="POST")
        gather.say(_xml_text(spoken.text).strip(), language=spoken.language)
        response.append(gather)
    response.redirect(answer_url, method="POST")
    return str(response)


def take_voicemail(
    first: Spoken, *, action_url: str, recording_url: str, max_s: int = 120, silence_s: int = 5
) -> str:
    """Say something, beep, and record what the caller says.

    Args:
        first: Said before the beep.
        action_url: Absolute; asked when the caller has finished, and told when they hung up. Without one Twilio would
            come back to the same document for ever.
        recording_url: Absolute; told when the recording can be fetched.
        max_s: Longest message.
        silence_s: Silence that ends it.

    Raises:
        ValueError: If a URL is not absolute.
    """
    _require_url(action_url, ("https", "http"))
    _require_url(recording_url, ("https", "http"))
    response = VoiceResponse()
    _say(response, first)
    response.record(
        action=action_url,
        method="POST",
        max_length=max_s,
        timeout=silence_s,
        play_beep=True,
        recording_status_callback=recording_url,
        recording_status_callback_method="POST",
        recording_status_callback_event="completed absent",
    )
    return str(response)


def carrier_fallback(number: str | None, *, first: Spoken, thanks: Spoken, ring_s: int = 20) -> str:
    """Return a document that needs no server of ours: it rings somebody, then takes a message. For a TwiML Bin.

    A `<Record>` without an action asks its own document again, which here would ring the person again: the Bin's
    template gives that second request, which has a `RecordingUrl`, the thanks and the end instead. Whoever was
    connected is asked for a message too if the other side hangs up first: the words of `first` must suit both.

    Args:
        number: E.164; None: only the message.
        first: Said before the beep.
        thanks: Said when a message was taken and the caller is still there.
        ring_s: How long it may ring.

    Source: Twilio, How to use templates with TwiML Bins (conditional content); TwiML for `<Record>`.
    """
    response = VoiceResponse()
    response.append("{{#RecordingUrl}}")
    _say(response, thanks)
    response.hangup()
    response.append("{{/RecordingUrl}}{{^RecordingUrl}}")
    if number is not None:
        response.dial(number, timeout=ring_s)
    _say(response, first)
    response.record(max_length=120, timeout=5, play_beep=True)
    response.append("{{/RecordingUrl}}")
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


def wait(seconds: int, url: str) -> str:
    """Keep the call as it is for `seconds` (1 to 600), then hand it to the document at `url`. Unanswered, it rings on.

    Source: Twilio, TwiML Voice: a `<Pause>` that is the first verb delays picking up.

    Raises:
        ValueError: If `url` is not absolute, or `seconds` is out of its range.
    """
    _require_url(url, ("https", "http"))
    if not 1 <= seconds <= 600:
        raise ValueError(f"seconds must be 1 to 600, got {seconds}")
    response = VoiceResponse()
    response.pause(length=seconds)
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


def _say(response: VoiceResponse, spoken: Spoken | None) -> None:
    """Append a `<Say>`; nothing for no words, which Twilio refuses."""
    if spoken is not None and (text := _xml_text(spoken.text).strip()):
        response.say(text, language=spoken.language)


def _require_url(url: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"url must be absolute and {' or '.join(schemes)}, got {url!r}")


def _xml_text(text: str) -> str:
    """Drop the characters that no XML document may hold, however they are escaped."""
    return _NOT_XML.sub("", text)
