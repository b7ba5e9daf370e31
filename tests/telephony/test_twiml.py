"""Answers are well-formed TwiML with what was asked for in it, whatever the text holds."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony import twiml

STREAM_URL = "wss://phone.example.com/twilio/media"
ACTION_URL = "https://phone.example.com/twilio/after-stream"
ANY_TEXT = st.text(st.characters(codec=None))


def parse(document: str) -> ElementTree.Element:
    """Parse as Twilio does: from byte 0, as UTF-8."""
    assert document.startswith("<?xml")
    return ElementTree.fromstring(document.encode())  # noqa: S314 - our own document


def test_a_call_is_connected_to_the_stream_and_a_verb_stands_behind_it() -> None:
    connect, redirect = parse(
        twiml.connect_stream(STREAM_URL, ACTION_URL, {"token": "a&b", "agent": "reception"})
    )
    assert (connect.tag, connect.attrib) == ("Connect", {"action": ACTION_URL, "method": "POST"})
    (stream,) = connect
    assert (stream.tag, stream.attrib) == ("Stream", {"url": STREAM_URL})
    assert [(parameter.tag, parameter.attrib) for parameter in stream] == [
        ("Parameter", {"name": "token", "value": "a&b"}),
        ("Parameter", {"name": "agent", "value": "reception"}),
    ]
    assert (redirect.tag, redirect.text, redirect.attrib) == ("Redirect", ACTION_URL, {"method": "POST"})


@pytest.mark.parametrize(
    "url",
    ["/twilio/media", "https://phone.example.com/media", "phone.example.com/media", STREAM_URL + "?token=1"],
)
def test_a_stream_url_that_twilio_would_refuse_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must"):
        twiml.connect_stream(url, ACTION_URL, {})


@pytest.mark.parametrize("url", ["/twilio/after-stream", "wss://phone.example.com/after"])
def test_an_action_that_is_not_an_absolute_web_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.connect_stream(STREAM_URL, url, {})
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.redirect(url)


def test_a_parameter_may_hold_499_characters_with_its_name_and_no_more() -> None:
    twiml.connect_stream(STREAM_URL, ACTION_URL, {"token": "x" * 494})
    with pytest.raises(ValueError, match="at most 499") as refusal:
        twiml.connect_stream(STREAM_URL, ACTION_URL, {"token": "x" * 495})
    assert "xxx" not in str(refusal.value)


def test_a_parameter_needs_a_name() -> None:
    with pytest.raises(ValueError, match="must have a name"):
        twiml.connect_stream(STREAM_URL, ACTION_URL, {"": "x"})


@given(ANY_TEXT)
def test_any_text_is_spoken_and_never_becomes_markup(text: str) -> None:
    response = parse(twiml.say_and_hang_up("<Hangup/>" + text, language="en-GB", voice="Polly.Amy"))
    assert [verb.tag for verb in response] == ["Say", "Hangup"]
    assert (response[0].text or "").startswith("<Hangup/>")
    assert response[0].attrib == {"language": "en-GB", "voice": "Polly.Amy"}


@given(ANY_TEXT.filter(lambda value: len(value) < 400))
def test_any_parameter_survives_but_for_characters_xml_cannot_hold(value: str) -> None:
    connect = parse(twiml.connect_stream(STREAM_URL, ACTION_URL, {"note": value}))[0]
    readable = "".join(c for c in value if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff"))
    assert connect[0][0].attrib["value"] == readable.replace("\ufffe", "").replace("\uffff", "")


def test_with_nothing_to_say_the_call_just_ends() -> None:
    assert [verb.tag for verb in parse(twiml.say_and_hang_up(" \x00 "))] == ["Hangup"]


@pytest.mark.parametrize("reason", twiml.RejectReason)
def test_reject_names_its_reason(reason: twiml.RejectReason) -> None:
    (verb,) = parse(twiml.reject(reason))
    assert (verb.tag, verb.attrib) == ("Reject", {"reason": reason.value})


def test_the_short_answers() -> None:
    assert [verb.tag for verb in parse(twiml.hangup())] == ["Hangup"]
    assert list(parse(twiml.empty())) == []
    (verb,) = parse(twiml.redirect(ACTION_URL))
    assert (verb.tag, verb.text, verb.attrib) == ("Redirect", ACTION_URL, {"method": "POST"})
