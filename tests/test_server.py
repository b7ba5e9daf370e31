"""The launcher's routes on real sockets: what it refuses, what it survives, how it lets go."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from loguru import logger
from pipecat.frames.frames import CancelFrame, Frame
from pipecat.processors.frame_processor import FrameDirection

import server
from bot import pipeline, refused_calls, switchboard
from bot import warm as warm_module
from bot.call_life import RELEASE_LIMIT_S, CallState, EndReason
from processors.turn_taps import TranscriptTap
from sims.faults import FaultKind, FaultSpec
from sims.scenario import Expect, Heard, Scenario, Step
from tests.fakes.launcher import NUMBER, Launcher, eventually, open_launcher
from tests.fakes.media_socket import MediaSocket, dial, live_call, new_call_sid, token_in

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

POLICY_VIOLATION = 1008


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher"), max_calls=60) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def every_call_ends(launcher: Launcher) -> AsyncGenerator[None]:
    yield
    for call in launcher.board.calls():
        if not call.ended.is_set():
            launcher.board.carrier_says_ended(call.setup.call_sid)
            async with asyncio.timeout(5):
                await call.ended.wait()


@pytest.fixture
def warnings() -> Any:
    """Every line logged at WARNING or above."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def listener(seconds: float) -> Scenario:
    """A person who hears the greeting begin, listens on and hangs up."""
    return Scenario(
        name="listener",
        voice="caller-1",
        caller="+15550100031",
        ended_by="caller",  # pyright: ignore[reportArgumentType]
        max_s=20,
        steps=(Step(expect=Expect(agent=Heard.STARTS)), Step(wait_s=seconds), Step(hang_up=True)),
    )


# Who is let in


@pytest.mark.parametrize(
    "path",
    [
        "/twilio/voice",
        "/twilio/after-stream",
        "/twilio/status",
        "/twilio/handoff/whisper?call=CA1&human=0",
        "/twilio/handoff/answered?call=CA1&human=0",
        "/twilio/handoff/dialled?human=0",
        "/twilio/handoff/recorded",
        "/twilio/recording",
    ],
)
async def test_a_webhook_that_twilio_did_not_sign_is_refused(launcher: Launcher, path: str) -> None:
    before = await launcher.metrics()
    fields = {"CallSid": new_call_sid(), "From": "+1555", "To": "+1850", "CallStatus": "completed"}
    url = f"{launcher.url}{path}"
    good = launcher.signature(url, fields)
    for headers in ({}, {"X-Twilio-Signature": "x"}, {"X-Twilio-Signature": good}):
        forged = {**fields, "From": "+1666"}
        async with launcher.http.post(url, data=forged, headers=headers) as answer:
            assert answer.status == 403
    counted = await launcher.metrics() - before
    assert counted["media_faults{kind=signature_missing_header}"] == 1
    assert counted["media_faults{kind=signature_mismatch}"] == 2
    assert launcher.board.live_calls == 0


async def test_what_is_asked_of_hand_offs_that_nobody_knows_ends_the_call(launcher: Launcher) -> None:
    fields = {"CallSid": new_call_sid(), "Digits": "1", "DialCallStatus": "busy", "RecordingSid": "RE1"}
    for path in (
        "/twilio/handoff/whisper?call=CA1&human=0",
        "/twilio/handoff/answered?call=CA1&human=0",
        "/twilio/handoff/dialled?human=0",
        "/twilio/handoff/recorded",
    ):
        async with launcher.webhook(path, fields) as answer:
            assert answer.status == 200
            assert "<Hangup" in await answer.text()
    for path in ("/twilio/handoff/dialled", "/twilio/handoff/dialled?human=x"):
        async with launcher.webhook(path, fields) as answer:
            assert answer.status == 422


async def test_a_webhook_larger_than_any_of_twilios_is_not_read(launcher: Launcher) -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes]:
        nonlocal sent
        for _ in range(1600):
            sent += 1
            yield b"x" * 65536

    with_headers = {"X-Twilio-Signature": "x", "Content-Type": "application/x-www-form-urlencoded"}
    try:
        async with launcher.http.post(launcher.voice_url, data=endless(), headers=with_headers) as answer:
            assert answer.status == 403
    except aiohttp.ClientError:
        pass  # the server closed while we were still sending: as good
    assert sent < 800, "the server took it all in"


async def test_an_upgrade_that_twilio_did_not_sign_is_refused(launcher: Launcher) -> None:
    before = await launcher.metrics()
    for signature in ("", "x"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with dial(launcher, signature=signature):
                pass
        assert refused.value.status == 403
    counted = await launcher.metrics() - before
    assert counted["media_faults{kind=signature_missing_header}"] == 1
    assert counted["media_faults{kind=signature_mismatch}"] == 1


async def test_a_signed_webhook_without_a_call_is_a_bad_request(launcher: Launcher) -> None:
    for fields in ({"To": "+18506872085"}, {"CallSid": "", "To": "+18506872085"}):
        async with launcher.webhook("/twilio/voice", fields) as answer:
            assert answer.status == 400
    assert launcher.board.live_calls == 0


async def closed_for(
    launcher: Launcher, kind: str, talk: Callable[[MediaSocket], Awaitable[None]], call_sid: str | None = None
) -> None:
    before = await launcher.metrics()
    async with dial(launcher, call_sid) as line:
        await talk(line)
        assert await line.read() == "closed"
        assert line.close_code == POLICY_VIOLATION
        assert not line.received
    counted = await launcher.metrics() - before
    assert counted[f"media_faults{{kind={kind}}}"] == 1


async def test_a_media_socket_without_a_good_token_is_closed(launcher: Launcher) -> None:
    token = token_in(await launcher.ring(new_call_sid()))
    for kind, text in (("missing", None), ("malformed", "x"), ("forged", "a.b"), ("wrong_call", token)):

        async def talk(line: MediaSocket, text: str | None = text) -> None:
            await line.connected()
            await line.start(text)

        await closed_for(launcher, f"token_{kind}", talk)


async def test_a_token_lets_in_once(launcher: Launcher) -> None:
    call_sid = new_call_sid()
    token = token_in(await launcher.ring(call_sid))

    async def talk(line: MediaSocket) -> None:
        await line.connected()
        await line.start(token)

    async with dial(launcher, call_sid) as first:
        await talk(first)
        await first.read(until="media")
        await closed_for(launcher, "token_reused", talk, call_sid)  # while the call lives
        await first.read(until="mark")
    await launcher.ended(call_sid)
    await closed_for(launcher, "token_reused", talk, call_sid)  # and when it is over


@pytest.mark.parametrize("says_connected", [False, True])
async def test_a_media_socket_that_starts_nothing_is_closed(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, says_connected: bool
) -> None:
    monkeypatch.setattr(switchboard, "START_LIMIT_S", 0.2)

    async def talk(line: MediaSocket) -> None:
        if says_connected:
            await line.connected()

    await closed_for(launcher, "no_start", talk)


# What a line may say


BAD_MESSAGES: dict[str, tuple[str, ...]] = {
    "malformed_json": ("{", "", '{"event": "media"', "\x00"),
    "not_an_object": ("[]", "1", "null"),
    "unknown_event": ('{"event": "surprise"}', '{"event": 7}', "{}"),
    "second_start": ('{"event": "start", "start": {}}',),
    "out_of_order": ('{"event": "connected"}',),
    "wrong_stream": ('{"event": "mark", "streamSid": "MZother", "mark": {"name": "x"}}',),
    "oversized": (json.dumps({"event": "media", "pad": "x" * 70_000}),),
}


@pytest.mark.parametrize("kind", [*BAD_MESSAGES, "bad_base64", "binary_frame"])
async def test_a_bad_message_is_dropped_counted_and_logged_once(
    launcher: Launcher, warnings: list[str], kind: str
) -> None:
    before = await launcher.metrics()
    async with live_call(launcher) as line:
        await line.read(until="media")
        for text in BAD_MESSAGES.get(kind, ()) * 3:
            await line.raw(text)
        if kind == "bad_base64":
            for payload in ("?", "ab", "äöü"):
                await line.media(payload=payload)
        if kind == "binary_frame":
            for _ in range(3):
                await line.wire.send_bytes(b"\x80\x00")
        await is_heard(launcher, line)
    await launcher.ended(line.call_sid)
    counted = await launcher.metrics() - before
    assert counted[f"media_faults{{kind={kind}}}"] == max(3, 3 * len(BAD_MESSAGES.get(kind, ())))
    assert sum(kind in text for text in warnings) == 1


async def is_heard(launcher: Launcher, line: MediaSocket) -> None:
    """Press a key and see that the call took it: its line still works."""
    call = launcher.board.find(line.call_sid)
    assert call is not None
    assert call.state is CallState.LIVE
    samples = call.files.recording.now_samples if call.files.recording else 0
    await line.media()
    await eventually(lambda: call.files.recording is None or call.files.recording.now_samples > samples)


async def test_media_before_start_is_dropped_and_the_call_goes_on(launcher: Launcher) -> None:
    before = await launcher.metrics()
    call_sid = new_call_sid()
    token = token_in(await launcher.ring(call_sid))
    async with dial(launcher, call_sid) as line:
        await line.media()  # even before connected
        await line.connected()
        await line.media()
        await line.mark("x")
        await line.start(token)
        await line.read(until="media")
        await is_heard(launcher, line)
    await launcher.ended(call_sid)
    counted = await launcher.metrics() - before
    assert counted["media_faults{kind=media_before_start}"] == 2
    assert counted["media_faults{kind=out_of_order}"] == 1


async def test_a_message_of_ten_megabytes_ends_its_own_call_at_most(launcher: Launcher) -> None:
    before = await launcher.metrics()
    async with live_call(launcher) as other, live_call(launcher) as line:
        await other.read(until="media")
        await line.read(until="media")
        with contextlib.suppress(ConnectionError):  # the server closes before it has read it all
            await line.raw("x" * 10_000_000)
        assert await line.read() == "closed"
        call = await launcher.ended(line.call_sid)
        assert call.end_reason is EndReason.LINE_LOST
        await is_heard(launcher, other)
    counted = await launcher.metrics() - before
    assert counted["media_faults{kind=oversized}"] == 1


async def test_a_flood_is_dropped_and_other_calls_are_served(launcher: Launcher, warnings: list[str]) -> None:
    before = await launcher.metrics()
    payload = base64.b64encode(b"\xff" * 160).decode()
    async with live_call(launcher) as line:
        await line.read(until="media")
        media = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload}
        text = json.dumps({"event": "media", "streamSid": "MZ" + "0" * 32, "media": media})

        async def flood() -> None:
            for _ in range(20_000):
                await line.raw(text)

        flooding = asyncio.create_task(flood())
        report = await launcher.world.twilio.place_call(listener(1.0), voice_url=launcher.voice_url)
        await flooding
        assert report.outcome == "ok", report.reasons
        is_closed = False
        async with asyncio.timeout(10):
            while not is_closed:  # right behind a flood even a stop is dropped
                await line.stop()
                with contextlib.suppress(TimeoutError):
                    is_closed = await line.read(limit_s=0.3) == "closed"
    await launcher.ended(line.call_sid)
    counted = await launcher.metrics() - before
    assert counted["media_faults{kind=flood}"] > 15_000
    assert sum("flood" in text for text in warnings) == 1


# How calls begin and end


async def test_a_repeated_webhook_is_one_call(launcher: Launcher) -> None:
    call_sid = new_call_sid()
    first, second = await launcher.ring(call_sid), await launcher.ring(call_sid)
    assert first == second
    assert launcher.board.live_calls == 1


async def test_a_call_beyond_the_last_line_hears_so(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.board._admission, "_max_calls", 1)
    before = await launcher.metrics()
    async with live_call(launcher) as line:
        await line.read(until="media")
        answer = await launcher.ring(new_call_sid())
        assert "<Say" in answer
        assert "busy" in answer
        assert "<Hangup" in answer
        assert "<Connect" not in answer
    counted = await launcher.metrics() - before
    assert counted["calls_refused{reason=full}"] == 1


async def test_the_carriers_word_ends_a_call(launcher: Launcher) -> None:
    async with live_call(launcher) as line:
        await line.read(until="media")
        fields = {"CallSid": line.call_sid, "CallStatus": "in-progress"}
        async with launcher.webhook("/twilio/status", fields) as answer:
            assert answer.status == 204
        await is_heard(launcher, line)
        async with launcher.webhook("/twilio/status", fields | {"CallStatus": "completed"}) as answer:
            assert answer.status == 204
        assert await line.read() == "closed"
    call = await launcher.ended(line.call_sid)
    assert call.end_reason is EndReason.CALLER_HUNG_UP
    assert call.times.release_s < RELEASE_LIMIT_S


@pytest.mark.parametrize("status", ["in-progress", "completed"])
async def test_a_call_whose_stream_never_started_gets_another_while_it_is_not_over(
    launcher: Launcher, status: str
) -> None:
    call_sid = new_call_sid()
    await launcher.ring(call_sid)
    fields = {"CallSid": call_sid, "CallStatus": status}
    async with launcher.webhook("/twilio/after-stream", fields) as answer:
        assert answer.status == 200
        assert ("<Stream" in await answer.text()) == (status == "in-progress")
    await launcher.ended(call_sid)


async def test_a_stream_of_a_call_that_nobody_knows_is_followed_by_a_first_one(launcher: Launcher) -> None:
    fields = {"CallSid": new_call_sid(), "CallStatus": "in-progress"}
    async with launcher.webhook("/twilio/after-stream", fields) as answer:
        assert "<Hangup" in await answer.text(), "for no number"
    async with launcher.webhook("/twilio/after-stream", fields | {"To": NUMBER}) as answer:
        twiml = await answer.text()
    assert "<Stream" in twiml
    assert "resume" not in twiml
    launcher.board.carrier_says_ended(fields["CallSid"])
    await launcher.ended(fields["CallSid"])


async def test_a_carrier_that_does_not_answer_does_not_hold_the_release(launcher: Launcher) -> None:
    loop = asyncio.get_running_loop()
    async with live_call(launcher) as line:
        await line.read(until="media")
        launcher.world.twilio.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
        try:
            call = launcher.board.find(line.call_sid)
            assert call is not None
            began_s = loop.time()
            call.end(EndReason.AGENT_ENDED)
            assert await line.read() == "closed"  # by the TwiML behind it this ends the call, too
            assert loop.time() - began_s < RELEASE_LIMIT_S + 2.0  # asked for an answer it takes far longer
        finally:
            launcher.world.twilio.faults.clear()
    await launcher.ended(line.call_sid)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_processor_that_will_not_stop_is_left_behind(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()

    class Stubborn(TranscriptTap):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, CancelFrame):
                while not let_go.is_set():
                    try:
                        await let_go.wait()
                    except asyncio.CancelledError:
                        continue
            await super().process_frame(frame, direction)

    monkeypatch.setattr(pipeline, "TranscriptTap", Stubborn)
    try:
        async with live_call(launcher) as line:
            await line.read(until="media")
            call = launcher.board.find(line.call_sid)
            assert call is not None
            call.end(EndReason.CALLER_HUNG_UP)
            async with asyncio.timeout(RELEASE_LIMIT_S + 2.0):
                await call.ended.wait()
            assert await line.read() == "closed"
    finally:
        let_go.set()
    del line, call
    await asyncio.sleep(0.1)
    gc.collect()  # what is left of it waits for itself, and would be found in the middle of another test


async def test_a_call_whose_pipeline_cannot_be_built_ends_alone(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no voice today")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "build_voice", broken)
        async with live_call(launcher) as line:
            assert await line.read() == "closed"
    call = await launcher.ended(line.call_sid)
    assert call.end_reason is EndReason.FAILED
    async with live_call(launcher) as line:
        assert await line.read(until="media") == "media"


# Pages and operators


async def test_the_operators_pages(launcher: Launcher) -> None:
    async with launcher.http.get(f"{launcher.url}/healthz") as answer:
        assert await answer.json() == {"status": "ok"}
    async with launcher.http.get(f"{launcher.url}/readyz") as answer:
        ready = {"status": "ready", "calls": 0, "lines_rendered": True}
        assert (answer.status, await answer.json()) == (200, ready)
    for path in ("/", "/client"):
        async with launcher.http.get(f"{launcher.url}{path}") as answer:
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path in ("/docs", "/openapi.json", "/static/../server.py", "/static/%2e%2e/server.py"):
        async with launcher.http.get(f"{launcher.url}{path}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("fault", ["every line fails", "it raises"])
async def test_a_server_whose_voice_is_down_is_ready_all_the_same_and_says_so(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, warnings: list[str], fault: str
) -> None:
    async def warm(*_: Any, **__: Any) -> int:
        if fault == "it raises":
            raise RuntimeError("no voice today")
        return 12

    monkeypatch.setattr(warm_module, "warm", warm)
    app = SimpleNamespace(state=SimpleNamespace(is_ready=False, is_warm=False))
    await server._warm(cast(Any, app), launcher.board._resources)
    assert (app.state.is_ready, app.state.is_warm) == (True, False)
    reason = "no voice today" if fault == "it raises" else "12 lines of reception have no audio"
    assert sum(reason in line for line in warnings) == 2  # for each rate
    monkeypatch.setitem(launcher.app.state._state, "is_warm", False)
    async with launcher.http.get(f"{launcher.url}/readyz") as answer:
        assert (answer.status, (await answer.json())["lines_rendered"]) == (200, False)


async def test_a_standby_voice_that_hangs_does_not_keep_the_server_from_being_ready(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = asyncio.Event()

    async def warm(*_: Any, **__: Any) -> int:
        return 0

    async def measure(*_: Any) -> None:
        await hanging.wait()

    monkeypatch.setattr(warm_module, "warm", warm)
    monkeypatch.setattr(warm_module, "measure_voices", measure)
    monkeypatch.setattr(server, "_STANDBY_LIMIT_S", 0.1)
    app = SimpleNamespace(state=SimpleNamespace(is_ready=False, is_warm=False))
    warming = asyncio.create_task(server._warm(cast(Any, app), launcher.board._resources))
    await eventually(lambda: app.state.is_ready, 5.0)
    assert app.state.is_warm
    assert not warming.done()
    hanging.set()
    await warming


async def test_what_lives_as_long_as_the_server_is_not_looked_at_for_garbage(launcher: Launcher) -> None:
    await eventually(lambda: launcher.app.state.is_ready)
    # Once there is a server, and once there are the lines that it says.
    assert launcher.garbage.asked[:4] == ["collect", "freeze"] * 2


async def test_a_server_that_still_renders_is_not_ready(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(launcher.app.state._state, "is_ready", False)
    async with launcher.http.get(f"{launcher.url}/readyz") as answer:
        assert (answer.status, await answer.json()) == (503, {"status": "warming"})


async def test_a_test_call_from_the_page_is_listed_played_and_kept(launcher: Launcher) -> None:
    async with launcher.http.post(
        f"{launcher.url}/api/test-call", json={"scenario": "hangup_early"}
    ) as answer:
        assert answer.status == 202
        call_sid = (await answer.json())["call_sid"]
    async with launcher.http.get(f"{launcher.url}/api/calls/{call_sid}/audio.wav") as answer:
        assert answer.status == 404  # not before it has ended
    await launcher.ended(call_sid)
    async with launcher.http.get(f"{launcher.url}/api/calls") as answer:
        calls = (await answer.json())["calls"]
    assert calls[0]["call_sid"] == call_sid
    async with launcher.http.get(f"{launcher.url}/api/calls/{call_sid}") as answer:
        view = await answer.json()
    assert (view["state"], view["channel"], view["ended_reason"]) == ("ended", "phone", "caller_hung_up")
    assert [turn["kind"] for turn in view["turns"]] == ["greeting"]
    async with launcher.http.get(f"{launcher.url}/api/calls/{call_sid}/audio.wav") as answer:
        assert (await answer.read())[:4] == b"RIFF"


async def test_what_the_page_asks_wrongly_is_told(launcher: Launcher) -> None:
    async with launcher.http.post(f"{launcher.url}/api/test-call", json={"scenario": "none"}) as answer:
        assert answer.status == 502
        assert "none" in (await answer.json())["error"]
    for path in ("/api/calls/CA0", "/api/calls/CA0/audio.wav"):
        async with launcher.http.get(f"{launcher.url}{path}") as answer:
            assert answer.status == 404
    async with launcher.http.post(f"{launcher.url}/webrtc/offer", json={"sdp": 1}) as answer:
        assert answer.status == 422


# The end of the process


async def test_a_draining_server_lets_calls_end_and_takes_no_more(tmp_path: Path) -> None:
    stopped = asyncio.Event()
    servers_own = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        async with open_launcher(tmp_path) as launcher, live_call(launcher) as line:
            await line.read(until="media")
            os.kill(os.getpid(), signal.SIGTERM)
            await eventually(lambda: launcher.board.is_draining)
            assert "<Pause" in await launcher.ring(new_call_sid())
            assert "<Say" in await launcher.ring(new_call_sid(), moves=refused_calls.MOST_MOVES)
            async with launcher.http.get(f"{launcher.url}/readyz") as answer:
                assert (answer.status, await answer.json()) == (503, {"status": "draining", "calls": 1})
            await is_heard(launcher, line)
            assert not stopped.is_set()
            await line.stop()
            async with asyncio.timeout(RELEASE_LIMIT_S + 1):
                await stopped.wait()  # the last call has ended: now the server's own handler gets the signal
    finally:
        signal.signal(signal.SIGTERM, servers_own)


async def test_a_server_that_is_stopped_ends_its_calls(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher, live_call(launcher) as line:
        await line.read(until="media")
        board = launcher.board
        call = board.find(line.call_sid)
    assert call is not None
    assert call.ended.is_set()
