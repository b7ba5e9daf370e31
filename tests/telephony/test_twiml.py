"""Answers are well-formed TwiML with what was asked for in it, whatever the text holds."""

import re
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


WHISPER_URL = "https://phone.example.com/twilio/handoff/whisper?call=CA1&human=0"
DIALLED_URL = "https://phone.example.com/twilio/handoff/dialled?human=0"


def test_a_person_is_rung_with_a_document_of_their_own_and_told_of() -> None:
    say, dial = parse(
        twiml.ring_person(
            "+15551230000",
            whisper_url=WHISPER_URL,
            action_url=DIALLED_URL,
            ring_s=15,
            first=twiml.Spoken("One moment, please.", "en-GB"),
        )
    )
    assert (say.tag, say.text, say.attrib) == ("Say", "One moment, please.", {"language": "en-GB"})
    assert dial.attrib == {
        "action": DIALLED_URL,
        "method": "POST",
        "timeout": "15",
        "answerOnBridge": "true",
    }
    (number,) = dial
    assert (number.tag, number.text) == ("Number", "+15551230000")
    assert number.attrib == {"url": WHISPER_URL, "method": "POST"}


@pytest.mark.parametrize("ring_s", [0, 601])
def test_nobody_is_rung_for_longer_than_twilio_would(ring_s: int) -> None:
    with pytest.raises(ValueError, match="1 to 600"):
        twiml.ring_person("+15551230000", whisper_url=WHISPER_URL, action_url=DIALLED_URL, ring_s=ring_s)


@given(ANY_TEXT)
def test_a_person_is_briefed_whatever_the_caller_said_and_asked_for_a_key(text: str) -> None:
    first, second, redirect = parse(
        twiml.screen_person(
            twiml.Spoken("<Dial>" + text), twiml.Spoken("Press 1."), answer_url="https://phone.example.com/a"
        )
    )
    assert [gather.attrib["numDigits"] for gather in (first, second)] == ["1", "1"]
    assert [gather[0].tag for gather in (first, second)] == ["Say", "Say"]
    assert (first[0].text or "").startswith("<Dial>")
    assert second[0].text == "Press 1."
    assert (redirect.tag, redirect.text) == ("Redirect", "https://phone.example.com/a")


def test_a_voicemail_never_comes_back_to_its_own_document() -> None:
    say, record = parse(
        twiml.take_voicemail(
            twiml.Spoken("After the tone."),
            action_url="https://phone.example.com/done",
            recording_url="https://phone.example.com/twilio/recording",
            max_s=60,
        )
    )
    assert (say.tag, say.text) == ("Say", "After the tone.")
    assert record.attrib == {
        "action": "https://phone.example.com/done",
        "method": "POST",
        "maxLength": "60",
        "timeout": "5",
        "playBeep": "true",
        "recordingStatusCallback": "https://phone.example.com/twilio/recording",
        "recordingStatusCallbackMethod": "POST",
        "recordingStatusCallbackEvent": "completed absent",
    }


def bin_answer(document: str, parameters: dict[str, str]) -> ElementTree.Element:
    """Render the sections of a TwiML Bin's template, as far as ours has any."""
    for mark, wanted in (("#", True), ("^", False)):
        document = re.sub(
            rf"\{{\{{\{mark}(\w+)}}}}(.*?)\{{\{{/\1}}}}",
            lambda found, wanted=wanted: found[2] if (found[1] in parameters) is wanted else "",
            document,
            flags=re.DOTALL,
        )
    assert "{{" not in document
    return parse(document)


def test_the_carriers_fallback_rings_once_and_takes_one_message() -> None:
    document = twiml.carrier_fallback(
        "+15551230000", first=twiml.Spoken("Leave a message."), thanks=twiml.Spoken("Thank you.")
    )
    assert [verb.tag for verb in bin_answer(document, {"From": "+1555"})] == ["Dial", "Say", "Record"]
    assert [verb.tag for verb in bin_answer(document, {"RecordingUrl": "https://x"})] == ["Say", "Hangup"]
    without = twiml.carrier_fallback(None, first=twiml.Spoken("Leave a message."), thanks=twiml.Spoken(""))
    assert [verb.tag for verb in bin_answer(without, {})] == ["Say", "Record"]
    assert [verb.tag for verb in bin_answer(without, {"RecordingUrl": "https://x"})] == ["Hangup"]


@pytest.mark.parametrize("url", ["/relative", "wss://phone.example.com/x"])
def test_every_address_of_a_handoff_is_absolute(url: str) -> None:
    said = twiml.Spoken("x")
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.ring_person("+15551230000", whisper_url=url, action_url=DIALLED_URL)
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.ring_person("+15551230000", whisper_url=WHISPER_URL, action_url=url)
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.screen_person(said, said, answer_url=url)
    with pytest.raises(ValueError, match="must be absolute"):
        twiml.take_voicemail(said, action_url=url, recording_url=DIALLED_URL)


def test_a_call_can_be_kept_as_it_is_for_a_while() -> None:
    answer = twiml.wait(2, ACTION_URL)
    assert '<Pause length="2"' in answer
    assert answer.index("<Pause") < answer.index(f'<Redirect method="POST">{ACTION_URL}</Redirect>')


@pytest.mark.parametrize("seconds", [0, 601])
def test_a_wait_has_bounds(seconds: int) -> None:
    with pytest.raises(ValueError, match="1 to 600"):
        twiml.wait(seconds, ACTION_URL)
