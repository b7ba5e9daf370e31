"""The media socket: what travels, checked byte by byte, and with Pipecat's own Twilio transport at the other end."""

import asyncio
import socket
import wave
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Response, WebSocket
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from sims.agent_words import Phrase
from sims.caller import Network
from sims.faults import FaultKind, FaultSpec
from sims.mulaw import audible_range, decode, encode
from sims.report import CallReport
from sims.scenario import Scenario
from sims.speech import Word
from sims.spoken import Encoding
from sims.twilio import TwilioSim
from tests.sims.answering import (
    HEARS,
    LEAVES,
    WORD_S,
    Agent,
    Answering,
    Media,
    agent_sound,
    make_sim,
    says,
    scenario,
    voiced,
)

pytestmark = pytest.mark.real_time

TALK = (HEARS, says("one two three"), HEARS, LEAVES)


async def call(agent: Agent, script: Scenario, **options: object) -> tuple[CallReport, Answering]:
    """Run one call against `agent`."""
    async with make_sim() as sim, Answering(agent) as line:
        line.documents["/voice"] = line.stream(inner='<Parameter name="token" value="t&amp;1"/>')
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice", **options)  # pyright: ignore[reportArgumentType] - passed on
    return report, line


async def test_what_travels_is_what_twilio_sends() -> None:
    async def agent(media: Media) -> None:
        await media.play(agent_sound(0.3))
        await media.mark("hello")
        first = await media.until("media")
        assert first == {
            "event": "media",
            "sequenceNumber": "2",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": "/" * 213 + "w=="},
            "streamSid": media.stream_sid,
        }
        third = (await media.until("media"), await media.until("media"))[1]
        assert third["media"] == {**first["media"], "chunk": "3", "timestamp": "40"}  # pyright: ignore[reportGeneralTypeIssues] - JSON
        await media.drain()

    report, line = await call(agent, scenario(HEARS, {"press": "5#"}, LEAVES, ended_by="caller"))

    assert report.outcome == "ok", report.reasons
    media = line.media[0]
    start = media.start
    assert start["sequenceNumber"] == "1"
    assert start["start"] == {
        "accountSid": start["start"]["accountSid"],  # pyright: ignore[reportIndexIssue] - JSON
        "streamSid": media.stream_sid,
        "callSid": report.call_sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t&1"},
    }
    events = [message["event"] for message in media.seen]
    assert events == ["mark", "dtmf", "dtmf", "stop"]
    assert media.seen[0]["mark"] == {"name": "hello"}
    assert media.seen[1]["dtmf"] == {"track": "inbound_track", "digit": "5"}
    assert report.measures
    assert [(key.digit, key.over_agent) for key in report.measures.keys] == [("5", False), ("#", False)]
    assert media.seen[3]["stop"] == {"accountSid": start["start"]["accountSid"], "callSid": report.call_sid}  # pyright: ignore[reportIndexIssue] - JSON
    sequence = [int(str(message["sequenceNumber"])) for message in media.seen]
    assert sequence == sorted(sequence)
    assert sequence[-1] == 1 + len(media.frames) + len(media.seen)
    assert {len(frame) for frame in media.frames} == {160}
    assert line.upgrades[0].form["User-Agent"] == "Twilio.TmeWs/1.0"
    assert "Sec-WebSocket-Extensions" not in line.upgrades[0].form


async def test_the_callers_words_arrive_bit_for_bit_and_the_wav_has_both_sides_on_one_line(
    tmp_path: Path,
) -> None:
    greeting, answer = agent_sound(0.4, 1), agent_sound(0.5, 2)

    async def agent(media: Media) -> None:
        await media.play(greeting)
        await media.hear(1.0)
        await media.play(answer)
        await media.drain()

    report, line = await call(agent, scenario(*TALK, ended_by="caller"), out_dir=tmp_path)

    assert report.outcome == "ok", report.reasons
    assert report.wav
    heard = b"".join(line.media[0].frames)
    with wave.open(report.wav) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = both[:, 0].tobytes(), both[:, 1].tobytes()
    spoken = decode(heard).strip(b"\0")
    assert len(spoken) > 2.9 * WORD_S * 16000
    assert spoken in left
    assert decode(greeting) in right
    assert decode(answer) in right
    measures = report.measures
    assert measures
    (turn,) = measures.turns
    # The same figures, read off the WAV.
    loud = np.abs(both.astype(np.int32)) >= 184
    caller_end = np.flatnonzero(loud[:, 0])[-1] + 1
    agent_onset = np.flatnonzero(loud[caller_end:, 1])[0]
    assert turn.answer_s == pytest.approx(agent_onset / 8000, abs=1e-4)
    assert report.stream_started_s is not None
    first_agent = np.flatnonzero(loud[:, 1])[0] / 8000
    assert measures.greeting_s == pytest.approx(first_agent - report.stream_started_s, abs=2e-4)


async def test_marks_come_back_when_played_and_at_once_on_clear() -> None:
    at_s: dict[str, float] = {}

    async def agent(media: Media) -> None:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        await media.mark("empty")
        await media.until("mark")
        at_s["empty"] = clock() - began_s
        for name in ("short", "long"):
            await media.play(agent_sound(0.25))
            await media.mark(name)
        await media.until("mark")
        at_s["short"] = clock() - began_s
        await media.play(agent_sound(5.0))
        await media.mark("dropped")
        await media.clear()
        await media.until("mark")
        await media.until("mark")
        at_s["cleared"] = clock() - began_s
        await media.drain()

    report, line = await call(agent, scenario({"wait_s": 0.8}, LEAVES, ended_by="caller"))

    marks = [message["mark"] for message in line.media[0].seen if message["event"] == "mark"]
    assert marks == [{"name": name} for name in ("empty", "short", "long", "dropped")]
    # Never early; late only as far as a busy machine makes it.
    assert at_s["empty"] < at_s["short"]
    assert at_s["short"] >= 0.249
    assert at_s["cleared"] < 2.0
    assert report.clears == 1
    assert report.marks_returned == 4


async def test_every_bad_message_is_counted_and_the_stream_goes_on() -> None:
    async def agent(media: Media) -> None:
        sid = media.stream_sid
        await media.socket.send_bytes(b"audio")
        await media.socket.send_str("nonsense")
        for message in [
            {"event": "media", "streamSid": "MZother", "media": {"payload": ""}},
            {"event": "media", "streamSid": sid, "media": {"payload": "***"}},
            {"event": "media", "streamSid": sid, "media": {"payload": "", "track": "outbound"}},
            {"event": "media", "streamSid": sid},
            {"event": "mark", "streamSid": sid, "mark": {"name": 5}},
            {"event": "clear", "streamSid": sid, "extra": 1},
            {"event": "hangup", "streamSid": sid},
            {"event": "media", "streamSid": sid, "media": "x"},
        ]:
            await media.send(message)
        await media.play(agent_sound(0.3))
        await media.drain()

    report, _ = await call(agent, scenario(HEARS, LEAVES, ended_by="caller"))

    assert report.warnings == {"31950": 1, "31951": 9}
    assert report.outcome == "failed"
    assert "Twilio 31951, 9 times" in report.reasons
    assert report.measures
    assert report.measures.greeting_s is not None


async def test_loss_leaves_packets_out_and_jitter_keeps_their_order() -> None:
    async def agent(media: Media) -> None:
        stamps: list[int] = []
        media.seen.append({"event": "stamps", "stamps": stamps})
        try:
            while True:
                message = await media.until("media")
                stamps.append(int(message["media"]["timestamp"]))  # pyright: ignore[reportIndexIssue] - JSON
        except ConnectionError:
            return

    script = scenario({"wait_s": 1.2}, LEAVES, ended_by="caller")
    report, line = await call(agent, script, network=Network(loss=0.3, jitter_s=0.1))

    stamps = next(m["stamps"] for m in line.media[0].seen if m["event"] == "stamps")
    assert isinstance(stamps, list)
    assert stamps == sorted(set(stamps))
    lost = 1 - len(stamps) / (stamps[-1] / 20 + 1)
    assert 0.1 < lost < 0.5
    assert report.outcome == "ok", report.reasons


async def test_a_server_that_does_not_read_does_not_hold_up_the_line() -> None:
    async def agent(media: Media) -> None:
        media.socket._req.transport.pause_reading()  # pyright: ignore[reportOptionalMemberAccess]
        await media.play(agent_sound(0.3))
        await asyncio.sleep(2.0)

    report, _ = await call(agent, scenario(HEARS, LEAVES, ended_by="caller"))
    assert report.outcome == "ok", report.reasons


async def test_a_socket_cut_in_mid_stream_falls_through_to_the_next_verb() -> None:
    async def agent(media: Media) -> None:
        await media.play(agent_sound(5.0))
        await media.drain()

    async with make_sim() as sim, Answering(agent) as line:
        sim.media_faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=0.3))
        line.documents["/voice"] = line.stream(after="<Say>we lost you</Say>")
        script = scenario(HEARS, HEARS, goodbye_within_s=5.0)
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")

    assert report.warnings == {"31903": 1}
    assert report.ended_by == "agent"
    assert report.measures
    assert report.measures.duration_s < 4.0


@pytest.mark.parametrize("is_theirs", [True, False])
async def test_a_socket_is_cut_for_the_caller_it_is_meant_for(is_theirs: bool) -> None:
    async def agent(media: Media) -> None:
        await media.play(agent_sound(1.0))
        await media.drain()

    script = scenario(HEARS, LEAVES, ended_by="caller")
    async with make_sim() as sim, Answering(agent) as line:
        whose = script.caller if is_theirs else "+15550199999"
        sim.media_faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_s=0.1, caller=whose))
        line.documents["/voice"] = line.stream()
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")

    assert report.warnings == ({"31903": 1} if is_theirs else {})


# --- Over the agent

SAYING = "we have tuesday at ten or wednesday at two which would you like best"
SAID = Phrase(
    SAYING,
    agent_sound(0.2 * 14, 9),
    tuple(Word(word, 0.2 * n, 0.2 * (n + 1)) for n, word in enumerate(SAYING.split())),
)
WORD_SAMPLES = 1600


async def call_over(
    agent: Agent, *overs: Mapping[str, object], stays_s: float = 1.0, **options: object
) -> tuple[CallReport, Answering, TwilioSim]:
    """Run one call in which sounds are made over what the agent says first."""
    steps = [{"over": over} for over in overs]
    script = scenario(*steps, {"wait_s": stays_s}, LEAVES, ended_by="caller", **options)
    fresh = [SAID]
    making = make_sim(new_phrases=lambda: [fresh.pop() for _ in range(len(fresh))])
    async with making as sim, Answering(agent) as line:
        line.documents["/voice"] = line.stream()
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
    return report, line, sim


async def until_audible(media: Media) -> int:
    """Read until the caller is audible; return how many samples the caller has sent."""
    while True:
        await media.until("media")
        if audible_range(media.frames[-1]):
            return len(media.frames) * 160


async def test_a_sound_over_the_agent_that_pauses_and_goes_on_is_measured() -> None:
    async def agent(media: Media) -> None:
        await media.play(SAID.ulaw)
        sent = await until_audible(media)
        await media.clear()
        await media.hear(0.3)
        await media.play(SAID.ulaw[sent // WORD_SAMPLES * WORD_SAMPLES :])
        await media.drain()

    cough = {"after_ms": 730, "noise": {"kind": "cough", "ms": 200}}
    report, _, _ = await call_over(agent, cough, stays_s=3.5)

    assert report.outcome == "ok", report.reasons
    measures = report.measures
    assert measures
    (over,) = measures.overs
    agent_onset_s = measures.agent_words[0][1]
    assert over.start_s == pytest.approx(agent_onset_s + 0.73, abs=2e-3)  # a cough's first samples are faint
    assert (over.kind, over.over_agent, over.stopped, over.lost_words) == ("cough", True, False, 0)
    assert over.pause_s is not None
    assert 0 <= over.pause_s < 1.0
    assert over.resumed_s is not None
    assert 0.25 < over.resumed_s < 1.5
    assert measures.agent_text.split()[-1] == "best"
    assert measures.turns == ()
    assert [noise.over_agent for noise in measures.noises] == [True]
    assert measures.lost_words == 0


async def test_the_agents_own_sound_comes_back_and_its_words_are_known() -> None:
    async def agent(media: Media) -> None:
        await media.play(SAID.ulaw)
        await media.drain()

    echo = {"after_ms": 450, "echo": {"delay_ms": 200, "gain_db": -12, "ms": 1000}}
    report, line, sim = await call_over(agent, echo)

    assert report.measures
    (over,) = report.measures.overs
    assert (over.kind, over.pause_s, over.stopped) == ("echo", None, False)
    assert over.end_s - over.start_s == pytest.approx(1.0, abs=0.01)
    # It begins 0.25 s into the phrase and ends 1.25 s into it.
    assert over.text == "tuesday at ten or"
    tracker = sim._spoken_index.tracker(Encoding.MULAW)
    assert {len(frame) for frame in line.media[0].frames} == {160}
    understood = [word.text for frame in line.media[0].frames for word in tracker.feed(frame)]
    assert understood == ["tuesday", "at", "ten", "or"]


async def test_several_sounds_over_one_utterance_and_a_lossy_line_of_the_scenarios_own() -> None:
    async def agent(media: Media) -> None:
        await media.play(SAID.ulaw)
        await media.drain()

    report, line, _ = await call_over(
        agent,
        {"after_ms": 400, "backchannel": "uh-huh"},
        {"after_ms": 300, "from": "last", "noise": {"kind": "click"}},
        {"after_ms": 1600, "say": "no wait"},
        network={"loss": 0.3, "jitter_ms": 30},
    )

    assert report.measures
    measured = report.measures.overs
    assert [(over.kind, over.text, over.over_agent) for over in measured] == [
        ("backchannel", "uh-huh", True), ("click", "", True), ("interruption", "no wait", True),
    ]  # fmt: skip
    onset_s = report.measures.agent_words[0][1]
    starts_s = [over.start_s - onset_s for over in measured]
    assert starts_s == pytest.approx([0.4, 0.4 + WORD_S + 0.3, 1.6], abs=2e-3)
    assert [turn.text for turn in report.measures.turns] == ["no wait"]
    sent = report.measures.duration_s * 50
    assert len(line.media[0].frames) < 0.85 * sent


# --- Pipecat at the other end


class Greeter(FrameProcessor):
    """Says one thing when the first caller audio comes, and keeps what it hears."""

    def __init__(self, greeting: bytes) -> None:
        super().__init__()
        self.heard = bytearray()
        self._greeting: bytes | None = greeting

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += frame.audio
            greeting, self._greeting = self._greeting, None
            if greeting:
                await self.push_frame(OutputAudioRawFrame(greeting, 8000, 1))
        else:
            await self.push_frame(frame, direction)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[str]:
    """Serve an app on a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", ws="websockets-sansio", lifespan="off")
        server = uvicorn.Server(config)
        serving_task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.wait({serving_task}, timeout=5.0)


async def test_pipecats_own_transport_and_serializer_talk_with_it() -> None:
    greeting = voiced(0.8, seed=5)
    greeter = Greeter(greeting)
    app = FastAPI()
    address: list[str] = []

    @app.post("/voice")
    def answer() -> Response:
        text = f'<Response><Connect><Stream url="ws://{address[0]}/media"/></Connect></Response>'
        return Response(text, media_type="text/xml")

    @app.websocket("/media")
    async def media(websocket: WebSocket) -> None:
        await websocket.accept()
        kind, data = await parse_telephony_websocket(websocket)
        assert kind == "twilio"
        serializer = TwilioFrameSerializer(
            stream_sid=data["stream_id"],
            call_sid=data["call_id"],
            params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
        )
        transport = FastAPIWebsocketTransport(
            websocket=websocket,
            params=FastAPIWebsocketParams(
                audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
            ),
        )
        params = PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000)
        worker = PipelineWorker(
            Pipeline([transport.input(), greeter, transport.output()]), params=params, enable_rtvi=False
        )

        @transport.event_handler("on_client_disconnected")
        async def gone(_transport: object, _client: object) -> None:
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    script = scenario(HEARS, says("one two three"), {"wait_s": 0.2}, LEAVES, ended_by="caller")
    async with make_sim() as sim, serving(app) as host:
        address.append(host)
        report = await sim.place_call(script, voice_url=f"http://{host}/voice")

    assert report.outcome == "ok", report.reasons
    measures = report.measures
    assert measures
    assert measures.greeting_s is not None
    # All of the greeting was heard: its length at the caller's end, pauses of a busy machine apart.
    (turn,) = measures.turns
    assert turn.start_s > measures.greeting_s + 0.8
    spoken = bytes(greeter.heard).strip(b"\0")
    assert encode(spoken)[:1600] == encode(spoken[:3200])
    assert len(spoken) == pytest.approx(3 * WORD_S * 16000, abs=32)
