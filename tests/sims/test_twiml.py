from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect as SdkConnect
from twilio.twiml.voice_response import Dial as SdkDial
from twilio.twiml.voice_response import VoiceResponse

from sims.twiml import (
    MAX_DOCUMENTS,
    Connect,
    Dial,
    DialTarget,
    Document,
    Done,
    Effect,
    Fetch,
    Gather,
    Pause,
    Play,
    Record,
    Reject,
    Say,
    Stream,
    TwimlError,
    parse,
    resolve,
    run,
)


def read(body: str) -> Document:
    return parse(f"<Response>{body}</Response>".encode())


def effects(
    body: str, answers: Callable[[Effect], Document | Done | None] = lambda _: None, limit: int = 200
) -> list[Effect]:
    """Run a document to its end; `answers` says what comes of each effect."""
    script = run(read(body), "https://b.example/voice")
    seen: list[Effect] = []
    outcome: Document | Done | None = None
    while len(seen) < limit:
        try:
            effect = script.send(outcome)
        except StopIteration:
            return seen
        seen.append(effect)
        outcome = answers(effect)
    raise AssertionError("the document does not end")


def test_reads_what_the_official_sdk_writes() -> None:
    response = VoiceResponse()
    response.say("One moment.", voice="Polly.Joanna")
    connect = SdkConnect(action="https://h/after", method="POST")
    stream = connect.stream(url="wss://h/media", name="s")
    stream.parameter(name="token", value="abc")  # pyright: ignore[reportAttributeAccessIssue] - SDK annotates too widely
    response.append(connect)
    dial = SdkDial(action="/dialled", timeout=12, caller_id="+15551110000")
    dial.number("+15552220000", url="/whisper")
    response.append(dial)
    response.record(max_length=60, timeout=3, action="/rec", play_beep=True)

    document = parse(str(response).encode())

    assert document == Document(
        (
            Say("One moment.", "Polly.Joanna"),
            Connect(Stream("wss://h/media", "s", {"token": "abc"}), "https://h/after"),
            Dial((DialTarget("+15552220000", "/whisper"),), "/dialled", "POST", 12.0, "+15551110000"),
            Record("/rec", "POST", 3.0, 60.0),
        )
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 12100),
        (b" \n<?xml version='1.0'?><Response/>", 12100),
        (b"<Response><Say></Response>", 12100),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><Response/>', 12100),
        (b"<Answer/>", 12200),
        (b"<Response>" + b" " * 65536 + b"</Response>", 11750),
    ],
    ids=["empty", "XML not at byte 0", "broken", "entities", "wrong root", "too large"],
)
def test_documents_that_twilio_would_not_run(text: bytes, code: int) -> None:
    with pytest.raises(TwimlError) as caught:
        parse(text)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<Sing/>", "unknown verb <Sing>"),
        ('<Say volume="3">x</Say>', "unknown attribute Say.volume"),
        ('<Connect><Stream url="https://h/media"/></Connect>', "31923"),
        ('<Connect><Stream url="ws://h.example/media"/></Connect>', "31923"),
        ('<Connect><Stream url="wss://h/media?x=1"/></Connect>', "31920"),
        ('<Connect><Stream url="wss://h/media" track="both_tracks"/></Connect>', "31941"),
        (
            f'<Connect><Stream url="wss://h/m"><Parameter name="t" value="{"v" * 500}"/></Stream></Connect>',
            "500",
        ),
        ("<Connect/>", "exactly one <Stream>"),
        ("<Dial/>", "1 to 10 numbers"),
        ('<Pause length="long"/>', "<Pause>"),
    ],
)
def test_problems_are_named_and_the_rest_of_the_document_runs(body: str, problem: str) -> None:
    document = read(body + "<Say>after</Say>")
    assert any(problem in text for text in document.problems), document.problems
    assert document.verbs[-1] == Say("after")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        parse(text)
    except TwimlError:
        return


def test_falls_through_connect_without_action_and_hangs_up_at_the_end() -> None:
    body = '<Say>a</Say><Connect><Stream url="wss://h/m"/></Connect><Pause length="2"/>'
    assert effects(body) == [Say("a"), Connect(Stream("wss://h/m")), Pause(2.0)]


def test_connect_with_action_asks_it_and_the_verbs_behind_are_dead() -> None:
    body = '<Connect action="after"><Stream url="wss://h/m"/></Connect><Say>dead</Say>'
    next_document = read("<Say>resumed</Say>")

    seen = effects(body, lambda effect: next_document if isinstance(effect, Fetch) else Done())

    assert seen[1:] == [Fetch("https://b.example/after", "POST"), Say("resumed")]


def test_dial_action_gets_what_became_of_it() -> None:
    outcome = Done({"DialCallStatus": "busy"})
    seen = effects(
        '<Dial action="/d">+15550000001</Dial>', lambda e: outcome if isinstance(e, Dial) else None
    )
    assert seen[-1] == Fetch("https://b.example/d", "POST", {"DialCallStatus": "busy"})


def test_verbs_after_redirect_and_hangup_never_run() -> None:
    assert effects('<Redirect method="GET">/next</Redirect><Say>dead</Say>') == [
        Fetch("https://b.example/next", "GET")
    ]
    assert effects("<Hangup/><Say>dead</Say>") == []


def test_reject_is_only_obeyed_as_the_first_verb() -> None:
    assert effects('<Reject reason="busy"/>') == [Reject("busy")]
    assert effects("<Say>a</Say><Reject/><Say>b</Say>") == [Say("a")]


def test_gather_with_keys_asks_its_action_and_without_falls_through() -> None:
    body = '<Gather numDigits="1" action="/g"><Say>Press 1</Say><Play>x</Play></Gather><Say>none</Say>'
    gather = Gather((Say("Press 1"), Play("x")), "https://b.example/g", num_digits=1)

    pressed = effects(body, lambda e: Done({"Digits": "1"}) if isinstance(e, Gather) else None)
    silent = effects(body, lambda _: Done())

    assert pressed == [gather, Fetch("https://b.example/g", "POST", {"Digits": "1"})]
    assert silent == [gather, Say("none")]


def test_record_without_action_comes_back_to_its_own_document() -> None:
    assert effects("<Record/>")[-1] == Fetch("https://b.example/voice", "POST")


def test_every_url_is_made_absolute() -> None:
    document = read(
        '<Dial action="d"><Number url="/w">+15550000001</Number><Number>+15550000002</Number></Dial>'
        '<Record recordingStatusCallback="r"/>'
    )
    dial, record = resolve(document, "https://b.example/a/voice?x=1").verbs
    assert dial == Dial(
        (DialTarget("+15550000001", "https://b.example/w"), DialTarget("+15550000002")),
        "https://b.example/a/d",
    )
    assert isinstance(record, Record)
    assert record.recording_status_callback == "https://b.example/a/r"
    assert record.action == "https://b.example/a/voice?x=1"


def test_a_redirect_loop_ends() -> None:
    loop = read("<Redirect>/voice</Redirect>")
    assert len(effects("<Redirect>/voice</Redirect>", lambda _: loop)) == MAX_DOCUMENTS
