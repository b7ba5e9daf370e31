import asyncio
import itertools
import json
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from multidict import MultiDict
from pydantic import ValidationError

from sims import deepgram as deepgram_sim
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.flux import FluxQuery
from sims.flux_turns import Thresholds
from sims.profiles import Profile
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex

with warnings.catch_warnings():
    # deepgram-sdk imports deprecated names of websockets, here and (see the mark below) at first use.
    warnings.simplefilter("ignore", DeprecationWarning)
    from deepgram import AsyncDeepgramClient
    from deepgram.core import ApiError
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v2.socket_client import AsyncV2SocketClient
    from deepgram.listen.v2.types import (
        ListenV2ConfigureFailure,
        ListenV2ConfigureSuccess,
        ListenV2Connected,
        ListenV2TurnInfo,
        ListenV2Warning,
    )
    from pipecat.frames.frames import (
        EagerEndOfTurnCancelFrame,
        EagerTranscriptionFrame,
        ErrorFrame,
        Frame,
        InputAudioRawFrame,
        InterimTranscriptionFrame,
        ProposedUserStartedSpeakingFrame,
        ProposedUserStoppedSpeakingFrame,
        STTUpdateSettingsFrame,
        TranscriptionFrame,
    )
    from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
    from pipecat.tests.utils import SleepFrame, run_test

real_time = pytest.mark.real_time
pytestmark = pytest.mark.filterwarnings("ignore:websockets.:DeprecationWarning")

KEY = "dg-key"
QUERY: dict[str, Any] = {"model": "flux-general-en", "encoding": "linear16", "sample_rate": 8000}
FAST = Profile("fast", 0.02, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)


def utterance(*texts: str, seed: int = 1) -> tuple[bytes, list[Word]]:
    """Loud noise that says `texts`, a fifth of a second each, without gaps."""
    samples = np.random.default_rng(seed).normal(0, 4000, 1600 * len(texts)).clip(-32000, 32000)
    words = [Word(text, 0.2 * n, 0.2 * (n + 1)) for n, text in enumerate(texts)]
    return encode_ulaw(samples.astype("<i2").tobytes()), words


GREETING, GREETING_WORDS = utterance("Good", "morning.")
REQUEST, REQUEST_WORDS = utterance("A", "cleaning.", seed=2)


def quiet(seconds: float) -> bytes:
    return mulaw.SILENT_FRAME * round(seconds * 50)


@asynccontextmanager
async def serving(profile: Profile = FAST, **options: Any) -> AsyncGenerator[DeepgramSim]:
    index = SpokenIndex()
    index.add(GREETING, GREETING_WORDS)
    index.add(REQUEST, REQUEST_WORDS)
    async with DeepgramSim(profile, spoken_index=index, **options) as sim:
        yield sim


# --- The official SDK


def client_of(sim: DeepgramSim, key: str = KEY) -> AsyncDeepgramClient:
    environment = DeepgramClientEnvironment(
        base=sim.control_url, production=sim.base_url, agent=sim.base_url, agent_rest=sim.control_url
    )
    return AsyncDeepgramClient(api_key=key, environment=environment)


class SdkSession:
    """An open socket of the official SDK and what came over it."""

    def __init__(self, connection: AsyncV2SocketClient) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.errors: list[Exception] = []
        self.is_over = False

    @property
    def infos(self) -> list[ListenV2TurnInfo]:
        return [m for m in self.messages if isinstance(m, ListenV2TurnInfo)]

    @property
    def outline(self) -> list[tuple[str, str]]:
        return [(info.event, info.transcript) for info in self.infos if info.event != "Update"]

    def of(self, kind: type[Any]) -> list[Any]:
        return [m for m in self.messages if isinstance(m, kind)]

    async def play(self, *ulaws: bytes, speed: float = 4.0) -> None:
        """Send mu-law as linear 80 ms pieces, faster than life."""
        ulaw = b"".join(ulaws)
        for at in range(0, len(ulaw), 640):
            await self.connection.send_media(mulaw.decode(ulaw[at : at + 640]))
            await asyncio.sleep(0.08 / speed)

    async def until(self, condition: Callable[[], Any], limit_s: float = 3.0) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - the SDK calls back, it sets nothing
                await asyncio.sleep(0.005)

    def end(self, _: object) -> None:
        self.is_over = True


@asynccontextmanager
async def sdk_session(sim: DeepgramSim, **query: Any) -> AsyncGenerator[SdkSession]:
    async with client_of(sim).listen.v2.connect(**{**QUERY, **query}) as connection:
        session = SdkSession(connection)
        connection.on(EventType.MESSAGE, session.messages.append)
        connection.on(EventType.ERROR, session.errors.append)
        connection.on(EventType.CLOSE, session.end)
        listening = asyncio.create_task(connection.start_listening())
        try:
            yield session
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@real_time
async def test_sdk_follows_a_turn_that_is_predicted_resumed_and_ended() -> None:
    async with serving() as sim, sdk_session(sim, eager_eot_threshold=0.5) as session:
        await session.play(quiet(0.5), GREETING, quiet(0.22), REQUEST, quiet(0.8))
        await session.until(lambda: any(info.event == "EndOfTurn" for info in session.infos))
        await session.connection.send_close_stream()
        await session.until(lambda: session.is_over)
        both = "Good morning. A cleaning."
        assert session.outline == [
            ("StartOfTurn", "Good"),
            ("EagerEndOfTurn", "Good morning."),
            ("TurnResumed", "Good morning."),
            ("EagerEndOfTurn", both),
            ("EndOfTurn", both),
        ]
        assert isinstance(session.messages[0], ListenV2Connected)
        assert [m.sequence_id for m in session.messages] == list(range(len(session.messages)))
        assert len({m.request_id for m in session.messages}) == 1
        ended = next(info for info in session.infos if info.event == "EndOfTurn")
        assert (ended.turn_index, ended.trigger, ended.languages) == (0, "model", None)
        assert ended.words[0].word == "Good"
        assert ended.words[0].start == pytest.approx(0.5, abs=0.001)
        assert ended.words[-1].end == pytest.approx(1.52, abs=0.001)
        assert ended.end_of_turn_confidence >= 0.7
        ends = [info.audio_window_end for info in session.infos if info.event == "Update"]
        assert max(b - a for a, b in itertools.pairwise(ends)) <= 0.41  # every 80 ms, but for changes
        assert session.errors == []
        assert sim.stats["EndOfTurn"] == 1


@real_time
async def test_without_a_threshold_nothing_is_predicted_and_the_delay_is_the_profiles() -> None:
    slow = Profile("slow", 0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0)
    async with serving(slow) as sim, sdk_session(sim) as session:
        await session.play(REQUEST, quiet(0.4))
        told_s = asyncio.get_running_loop().time()
        assert session.outline == [("StartOfTurn", "A")] or session.outline == []
        await session.until(lambda: ("EndOfTurn", "A cleaning.") in session.outline)
        assert asyncio.get_running_loop().time() - told_s > 0.3
        assert [event for event, _ in session.outline] == ["StartOfTurn", "EndOfTurn"]


@real_time
async def test_the_client_can_end_a_turn_itself() -> None:
    async with serving() as sim, sdk_session(sim, eot_threshold=1.0) as session:
        await session.connection.send_force_end_turn()
        await session.until(lambda: session.of(ListenV2Warning))
        await session.play(REQUEST, quiet(0.4))
        await session.connection.send_force_end_turn()
        await session.until(lambda: ("EndOfTurn", "A cleaning.") in session.outline)
        assert session.infos[-1].trigger == "manual"
        [warning] = session.of(ListenV2Warning)
        assert warning.code == "FORCE_END_TURN_NO_ACTIVE_TURN"


@real_time
async def test_options_change_in_mid_stream() -> None:
    async with serving() as sim, sdk_session(sim, eot_threshold=1.0) as session:
        await session.play(REQUEST, quiet(0.4))
        assert [event for event, _ in session.outline] == ["StartOfTurn"]
        await session.connection.send_configure(
            {"type": "Configure", "thresholds": {"eot_threshold": 0.6}, "keyterms": ["Northside"]}
        )
        await session.play(quiet(0.3))
        await session.until(lambda: ("EndOfTurn", "A cleaning.") in session.outline)
        [success] = session.of(ListenV2ConfigureSuccess)
        assert success.thresholds.eot_threshold == 0.6
        assert (success.thresholds.eot_timeout_ms, success.keyterms) == (5000, ["Northside"])
        await session.connection.send_configure(
            {"type": "Configure", "thresholds": {"eager_eot_threshold": 0.8}}
        )
        await session.until(lambda: session.of(ListenV2ConfigureFailure))
        [failure] = session.of(ListenV2ConfigureFailure)
        assert "eager_eot_threshold" in failure.description
        await session.play(GREETING, quiet(0.5))  # the stream goes on as it was
        await session.until(lambda: ("EndOfTurn", "Good morning.") in session.outline)


@real_time
async def test_closing_ends_no_turn_and_has_no_code() -> None:
    async with serving() as sim, raw_socket(sim) as socket:
        await socket.send_bytes(mulaw.decode(REQUEST))
        await socket.send_str('{"type":"CloseStream"}')
        messages, code = await rest_of(socket)
        assert (messages[-1]["event"], messages[-1]["transcript"]) == ("Update", "A cleaning.")
        assert "EndOfTurn" not in {message.get("event") for message in messages}
        assert code == 0  # none on the wire, which is 1005 for most clients


@real_time
async def test_several_languages_are_told_on_request() -> None:
    async with (
        serving() as sim,
        sdk_session(sim, model="flux-general-multi", language_hint=["en", "de"]) as session,
    ):
        await session.play(REQUEST, quiet(0.5))
        await session.until(lambda: ("EndOfTurn", "A cleaning.") in session.outline)
        ended = next(info for info in session.infos if info.event == "EndOfTurn")
        assert (ended.languages, ended.languages_hinted) == (["en"], ["en", "de"])


@real_time
async def test_garbage_breaks_the_sdk_listener() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1, after_s=0.1))
        async with sdk_session(sim) as session:
            await session.play(REQUEST)
            await session.until(lambda: session.errors)
            assert isinstance(session.errors[0], json.JSONDecodeError)


@real_time
async def test_a_stream_that_hears_no_words_ends_turns_without_text() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
        async with sdk_session(sim, eager_eot_threshold=0.5) as session:
            await session.play(REQUEST, quiet(1.2))
            await session.until(lambda: ("EndOfTurn", "") in session.outline)
            assert session.outline == [("StartOfTurn", ""), ("EndOfTurn", "")]


@real_time
async def test_a_hung_stream_says_nothing_more() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, count=1, after_s=0.3))
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, count=1, after_s=0.0))
        async with sdk_session(sim) as dumb, sdk_session(sim) as dead:
            await dumb.play(REQUEST, quiet(0.3))
            await dead.play(REQUEST, quiet(0.3))
            assert isinstance(dumb.messages[0], ListenV2Connected)
            assert ("EndOfTurn", "A cleaning.") not in dumb.outline
            assert dead.messages == []  # not even connected
            assert dumb.errors == dead.errors == []


@real_time
@pytest.mark.parametrize(("kind", "status"), [("401", 401), ("429", 429), ("500", 500)])
async def test_refusing_faults_answer_with_their_status(kind: str, status: int) -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind(kind), count=1))
        with pytest.raises(ApiError) as refused:
            async with sdk_session(sim):
                pass
        assert refused.value.status_code == status


# --- The query


@pytest.mark.parametrize(
    ("query", "thresholds"),
    [
        ({}, Thresholds(0.7, None, 5.0)),
        (
            {"eager_eot_threshold": "0.4", "eot_threshold": "0.4"} | {"eot_threshold": "0.5"},
            Thresholds(0.5, 0.4, 5.0),
        ),
        ({"eot_timeout_ms": "60000", "eot_threshold": "1"}, Thresholds(1.0, None, 60.0)),
        ({"no_such_option": "x"}, Thresholds()),
    ],
)
def test_the_query_says_when_turns_end(query: dict[str, str], thresholds: Thresholds) -> None:
    assert FluxQuery.read(MultiDict({**QUERY, **query})).thresholds == thresholds


def test_lists_repeat_their_key() -> None:
    query = FluxQuery.read(MultiDict([*QUERY.items(), ("keyterm", "a b"), ("keyterm", "c")]))
    assert query.keyterm == ("a b", "c")


def test_a_configure_replaces_lists_and_leaves_the_rest() -> None:
    query = FluxQuery.read(
        MultiDict([*QUERY.items(), ("keyterm", "a"), ("keyterm", "b"), ("eager_eot_threshold", "0.4")])
    )
    kept = query.configured({"thresholds": {"eot_threshold": 0.9}, "keyterms": None})
    assert (kept.keyterm, kept.thresholds) == (("a", "b"), Thresholds(0.9, 0.4, 5.0))
    changed = query.configured({"thresholds": {"eager_eot_threshold": None}, "keyterms": []})
    assert (changed.keyterm, changed.thresholds) == ((), Thresholds())
    with pytest.raises(ValidationError):
        query.configured({"thresholds": {"eot_timeout_ms": 1}})
    with pytest.raises((TypeError, ValueError)):
        query.configured({"thresholds": "low"})


@asynccontextmanager
async def raw_socket(sim: DeepgramSim, **query: Any) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Token {KEY}"}) as http,
        http.ws_connect(f"{sim.control_url}/v2/listen", params={**QUERY, **query}) as socket,
    ):
        yield socket


async def rest_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int | None]:
    """Read to the end; return the messages and the close code."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(3):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            messages.append(message.json())
    return messages, message.data


@real_time
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eot_threshold": "0.49"}, "Invalid 'eot_threshold' value of '0.49'."),
        ({"eager_eot_threshold": "0.95"}, "Invalid 'eager_eot_threshold' value of '0.95'."),
        ({"eager_eot_threshold": "0.8"}, "eager_eot_threshold must be less than or equal to eot_threshold."),
        ({"eot_timeout_ms": "499"}, "Invalid 'eot_timeout_ms' value of '499'."),
        ({"model": "nova-3"}, "Invalid 'model' value of 'nova-3'."),
    ],
)
async def test_bad_queries_are_400_with_the_reason(wrong: dict[str, str], message: str) -> None:
    async with (
        serving() as sim,
        aiohttp.ClientSession(headers={"Authorization": f"Token {KEY}"}) as http,
        http.get(f"{sim.control_url}/v2/listen", params={**QUERY, **wrong}) as answer,
    ):
        assert answer.status == 400
        assert answer.headers["dg-error"] == message
        assert (await answer.json())["err_msg"] == message


@real_time
@pytest.mark.parametrize("text", ['{"type":"KeepAlive"}', '{"type":"Finalize"}', "{nonsense", "[]"])
async def test_an_unknown_text_is_fatal(text: str) -> None:
    async with serving() as sim, raw_socket(sim) as socket:
        await socket.send_str(text)
        messages, code = await rest_of(socket)
        assert [message["type"] for message in messages] == ["Connected", "Error"]
        assert messages[-1]["code"] == "UNPARSABLE_CLIENT_MESSAGE"
        assert messages[-1]["description"].startswith(
            "Could not deserialize last text message: unknown variant"
        )
        assert "request_id" not in messages[-1]
        assert messages[-1]["sequence_id"] == 1
        assert code == 0  # none on the wire, which is 1005 for most clients


@real_time
async def test_who_sends_nothing_is_told_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_sim, "_IDLE_LIMIT_S", 0.2)
    async with serving() as sim, raw_socket(sim) as socket:
        messages, code = await rest_of(socket)
        assert (messages[-1]["type"], messages[-1]["code"], code) == ("Error", "INACTIVE_CLIENT", 1011)


# --- Pipecat's service


def pipecat_service(sim: DeepgramSim, *, is_eager: bool = True, **settings: Any) -> DeepgramFluxSTTService:
    return DeepgramFluxSTTService(
        api_key=KEY,
        url=f"{sim.base_url}/v2/listen",
        sample_rate=8000,
        audio_passthrough=False,
        enable_eager_end_of_turn=is_eager,
        settings=DeepgramFluxSTTService.Settings(**settings),
    )


def audio(*ulaws: bytes, piece_s: float = 0.04) -> list[Frame]:
    """Audio frames of `piece_s` at real time."""
    ulaw, size = b"".join(ulaws), round(piece_s * 8000)
    frames: list[Frame] = []
    for at in range(0, len(ulaw), size):
        pcm = mulaw.decode(ulaw[at : at + size])
        frames += [InputAudioRawFrame(pcm, 8000, 1), SleepFrame(piece_s)]
    return frames


ABOUT_TURNS = (
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    EagerTranscriptionFrame,
    EagerEndOfTurnCancelFrame,
    TranscriptionFrame,
)


def outline(frames: Any) -> list[tuple[str, str]]:
    """What was said about turns, without interims."""
    return [(type(f).__name__, getattr(f, "text", "")) for f in frames if isinstance(f, ABOUT_TURNS)]


@real_time
async def test_pipecat_gets_the_turn_with_its_prediction_and_withdrawal() -> None:
    async with serving() as sim:
        frames = audio(quiet(0.2), GREETING, quiet(0.22), REQUEST, quiet(0.8))
        down, up = await run_test(pipecat_service(sim), frames_to_send=frames)
    both = "Good morning. A cleaning."
    assert outline(down) == [
        ("ProposedUserStartedSpeakingFrame", ""),
        ("EagerTranscriptionFrame", "Good morning."),
        ("EagerEndOfTurnCancelFrame", ""),
        ("EagerTranscriptionFrame", both),
        ("TranscriptionFrame", both),
        ("ProposedUserStoppedSpeakingFrame", ""),
    ]
    assert outline(up) == [
        ("ProposedUserStartedSpeakingFrame", ""),
        ("ProposedUserStoppedSpeakingFrame", ""),
    ]
    [final] = [f for f in down if isinstance(f, TranscriptionFrame)]
    assert final.finalized
    interims = [f.text for f in down if isinstance(f, InterimTranscriptionFrame)]
    assert "Good morning. A" in interims
    assert not any(isinstance(f, (ErrorFrame, InputAudioRawFrame)) for f in [*down, *(up or ())])


@real_time
async def test_pipecat_sends_silence_itself_when_the_audio_stops_in_mid_turn() -> None:
    async with serving() as sim:
        frames = [*audio(REQUEST), SleepFrame(1.2)]
        down, _ = await run_test(pipecat_service(sim, is_eager=False), frames_to_send=frames)
    assert sim.stats["audio_ms"] == 400 + 500
    assert ("TranscriptionFrame", "A cleaning.") in outline(down)


@real_time
async def test_pipecat_changes_thresholds_in_mid_stream() -> None:
    change = STTUpdateSettingsFrame(delta=DeepgramFluxSTTService.Settings(eot_threshold=0.6))
    async with serving() as sim:
        frames = [*audio(REQUEST, quiet(0.4)), change, *audio(quiet(0.4))]
        service = pipecat_service(sim, is_eager=False, eot_threshold=1.0)
        down, up = await run_test(service, frames_to_send=frames)
    assert ("TranscriptionFrame", "A cleaning.") in outline(down)
    assert not any(isinstance(f, ErrorFrame) for f in [*down, *(up or ())])


@real_time
async def test_pipecat_gives_up_on_a_wrong_key_with_deepgrams_reason() -> None:
    async with serving(api_key="right") as sim:
        down, up = await run_test(pipecat_service(sim), frames_to_send=[SleepFrame(0.2)])
    errors = [f.error for f in [*down, *(up or ())] if isinstance(f, ErrorFrame)]
    assert any("HTTP 401): Invalid credentials." in error for error in errors)


@real_time
async def test_pipecat_ends_a_turn_that_is_cut_off_with_the_text_so_far() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=0.5))
        frames = audio(GREETING, quiet(0.3), REQUEST, quiet(0.6))
        service = pipecat_service(sim, is_eager=False, eot_threshold=0.9)
        down, _ = await run_test(service, frames_to_send=frames)
    cut, whole = [f for f in down if isinstance(f, TranscriptionFrame)]
    assert (cut.text, cut.finalized) == ("Good morning.", False)
    assert (whole.text, whole.finalized) == ("A cleaning.", True)  # the next socket is there by then
