"""One call as Twilio runs it: rings, fetches documents, acts them out, tells the status, ends.

Sits between REST (`sims.twilio`), documents (`sims.twiml`) and the phone (`sims.caller`). Every wait has an end: the
scenario's `max_s` bounds the whole call.
"""

import asyncio
import enum
import random
import uuid
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
from loguru import logger

from sims.agent_words import AgentEar, PhraseIndex
from sims.caller import MAX_MESSAGE_BYTES, MediaSocket, Network, PhoneLine
from sims.caller_voice import CallerVoice, Synthesizer, tone
from sims.faults import FaultBoard, FaultKind, FaultSpec
from sims.mulaw import RATE_HZ, audible_range, encode
from sims.person import Person, Senses
from sims.report import CallRecord, CallReport, measure
from sims.scenario import EndedBy, Scenario
from sims.spoken import SpokenIndex
from sims.twiml import (
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
    Script,
    Stream,
    run,
)
from sims.wav import StereoWav, mono_wav
from sims.webhook import Fetched, WebhookClient, sign

CONNECT_LIMIT_S = 5.0
CLOSE_LIMIT_S = 2.0
SAY_VOICE = "twilio-say"
HUMAN_LINE = "Hello, this is the front desk, I have your message. How can I help?"
HUMAN_STAYS_S = 30.0
MAX_LOOPS = 100
MAX_TAKE_BYTES = 3600 * RATE_HZ
"""Longest recording, Twilio's own limit."""


class CallStatus(enum.Enum):
    """Twilio's call status."""

    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"


ENDED = frozenset(
    {CallStatus.COMPLETED, CallStatus.BUSY, CallStatus.NO_ANSWER, CallStatus.FAILED, CallStatus.CANCELED}
)
_EVENT_OF = {
    CallStatus.QUEUED: "initiated",
    CallStatus.RINGING: "ringing",
    CallStatus.IN_PROGRESS: "answered",
}


class Human(enum.Enum):
    """What a person who is rung by `<Dial>` does."""

    ANSWERS = "answers"
    """Takes the call and presses 1 when asked."""
    DECLINES = "declines"
    """Takes the call, hears the whisper and puts the phone down."""
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"


@dataclass(frozen=True)
class CallPlan:
    """Everything known about a call before it rings."""

    scenario: Scenario
    caller: str
    called: str
    is_inbound: bool = True
    voice_url: str = ""
    voice_method: str = "POST"
    document: Document | None = None
    """Inline TwiML, instead of a URL."""
    fallback_url: str | None = None
    status_url: str | None = None
    status_method: str = "POST"
    status_events: frozenset[str] = frozenset({"completed"})
    out_dir: Path | None = None
    network: Network = field(default_factory=Network)
    ring_s: float = 0.0
    """How long an outbound call rings."""
    seed: int = 0


@dataclass(frozen=True)
class Carrier:
    """What all calls of one sim share."""

    account_sid: str
    auth_token: str
    session: aiohttp.ClientSession
    webhooks: WebhookClient
    synthesizer: Synthesizer
    spoken_index: SpokenIndex
    phrases: PhraseIndex
    media_faults: FaultBoard
    stats: Counter[str]
    humans: Mapping[str, Human]
    recordings: "RecordingShelf"
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    """Runs something beside the call; the sim owns the task."""
    has_disorder: Callable[[], bool]
    """Whether status callbacks arrive out of order and twice."""


@dataclass(frozen=True)
class Recording:
    """One recording, mono WAV."""

    sid: str
    call_sid: str
    wav: bytes
    duration_s: int
    source: str


class RecordingShelf:
    """The newest recordings, bounded."""

    def __init__(self, limit: int = 200) -> None:
        """Keep at most `limit`."""
        self._recordings: deque[Recording] = deque(maxlen=limit)

    def add(self, call_sid: str, ulaw: bytes, source: str, *, sid: str | None = None) -> Recording:
        """Store sound as a new recording."""
        length_s = round(len(ulaw) / RATE_HZ)
        recording = Recording(sid or new_sid("RE"), call_sid, mono_wav(ulaw), length_s, source)
        self._recordings.append(recording)
        return recording

    def find(self, sid: str) -> Recording | None:
        """Return the recording `sid`."""
        return next((recording for recording in self._recordings if recording.sid == sid), None)

    def of_call(self, call_sid: str) -> list[Recording]:
        """Return a call's recordings, oldest first."""
        return [recording for recording in self._recordings if recording.call_sid == call_sid]


def new_sid(prefix: str) -> str:
    """Return a fresh Twilio identifier; never the same in two runs, as callers' stores keep them."""
    return prefix + uuid.uuid4().hex


@dataclass(frozen=True)
class _HangUpOrder:
    """REST: end the call."""


@dataclass(frozen=True)
class _UpdateOrder:
    """REST: run another document."""

    document: Document | None
    url: str = ""
    method: str = "POST"


class PhoneCall:
    """One call, from queued to its report.

    QUEUED -> RINGING -> IN_PROGRESS -> COMPLETED; from QUEUED and RINGING also BUSY, NO_ANSWER, FAILED, CANCELED.
    """

    def __init__(self, plan: CallPlan, carrier: Carrier) -> None:
        """Create a call that waits to be run.

        Args:
            plan: Who calls whom, and what they do.
            carrier: Shared things.
        """
        self.sid = new_sid("CA")
        self.plan = plan
        self.status = CallStatus.QUEUED
        self.created_at = datetime.now(UTC)
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.finished = asyncio.Event()
        self.report = CallReport(
            self.sid, plan.scenario.name, plan.caller, plan.called, self.status.value, "pending"
        )
        self._carrier = carrier
        self._rng = random.Random(plan.seed)  # noqa: S311 - repeatable, not secrets
        self._loop = asyncio.get_running_loop()
        self._voice = CallerVoice(carrier.synthesizer, carrier.spoken_index, plan.scenario.voice)
        self._senses = Senses()
        self._person = Person(plan.scenario, self._senses, seed=plan.seed)
        self._line: PhoneLine | None = None
        self._media: list[MediaSocket] = []
        self._takes: dict[str, _Take] = {}
        self._socket_failures: Counter[str] = Counter()
        self._order: asyncio.Future[_HangUpOrder | _UpdateOrder] = self._loop.create_future()
        self._current: Effect | None = None
        self._problems: list[str] = []
        self._ended_by: str | None = None
        self._ended_at = 0
        """Position of the line at which the last script ended."""
        self._sequence = 0
        self._callbacks = asyncio.Lock()

    # --- Orders by REST

    def hang_up(self) -> None:
        """End the call, whatever it is doing."""
        if not self._order.done():
            self._order.set_result(_HangUpOrder())

    def update(self, document: Document | None, url: str = "", method: str = "POST") -> None:
        """Replace the running document by `document` or by what `url` answers."""
        if not self._order.done():
            self._order.set_result(_UpdateOrder(document, url, method))

    def start_recording(self) -> Recording:
        """Record the caller's side until the call ends; it can be fetched then.

        Raises:
            RuntimeError: If the call is not answered.
        """
        taken = _Take()
        self._the_line().taps.append(taken.add)
        recording = Recording(new_sid("RE"), self.sid, b"", 0, "StartCallRecordingAPI")
        self._takes[recording.sid] = taken
        return recording

    # --- Life

    async def run(self) -> None:
        """Do the whole call; always ends with a report."""
        try:
            async with asyncio.timeout(self.plan.scenario.max_s + 60.0):
                for line in self.plan.scenario.lines():
                    await self._voice.prepare(line)
                await self._ring()
        except TimeoutError:
            self._problems.append("the call did not end")
        except Exception as error:  # noqa: BLE001 - one broken call must not take the sim down
            logger.opt(exception=error).error("sim: call {} broke", self.sid)
            self._problems.append(f"the sim broke: {error!r}")
        finally:
            self._finish()

    async def _ring(self) -> None:
        """Ring, answer, talk. An inbound call asks what to do before it is answered."""
        if not self.plan.is_inbound:
            self._notify_status()
        self._set_status(CallStatus.RINGING)
        ordered = await self._ring_out() if not self.plan.is_inbound else None
        if ordered is not None:
            self._set_status(CallStatus.CANCELED)
            self._ended_by = "agent"
            return
        if not self.plan.is_inbound:
            self._answer()
        fetched = await self._first_document()
        if fetched is None:
            self._problems.append("no document could be had")
            self._ended_by = "carrier"
            self._set_status(CallStatus.COMPLETED)
            return
        await self._run_documents(run(fetched.document, fetched.url))

    async def _ring_out(self) -> object | None:
        """Let an outbound call ring; return the order that came meanwhile."""
        done, _ = await asyncio.wait({self._order}, timeout=self.plan.ring_s)
        return self._order.result() if done else None

    async def _first_document(self) -> Fetched | None:
        if self.plan.document is not None:
            return Fetched(self.plan.document, "")
        return await self._fetch(Fetch(self.plan.voice_url, self.plan.voice_method))

    async def _run_documents(self, script: Script | None) -> None:
        """Act out documents until somebody hangs up; an update by REST brings a new script."""
        while script is not None:
            playing = asyncio.create_task(self._play(script), name=f"documents {self.sid}")
            try:
                await self._wait_for_event(playing)
            finally:
                playing.cancel()
                self._ended_at = self._line.position if self._line else 0
                await asyncio.wait({playing}, timeout=CLOSE_LIMIT_S + 1.0)
            script = await self._next_script(playing)
        if self.status not in ENDED:
            self._set_status(CallStatus.COMPLETED)

    async def _wait_for_event(self, playing: "asyncio.Task[None]") -> None:
        """Wait until the documents end, REST orders something, the caller hangs up or time is over."""
        left_s = self.plan.scenario.max_s - (self._line.position / RATE_HZ if self._line else 0.0)
        waiting: set[asyncio.Future[Any]] = {playing, self._order}
        while True:
            hung_up = self._line.hung_up if self._line else None
            events = waiting | ({hung_up} if hung_up else set())
            # Until the call is answered there is no line: look again soon.
            timeout = left_s if self._line else 0.02
            done, _ = await asyncio.wait(events, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            left_s -= timeout
            if left_s <= 0:
                self._problems.append(f"the call lasted longer than {self.plan.scenario.max_s:g} s")
                return

    async def _next_script(self, playing: "asyncio.Task[None]") -> Script | None:
        """Decide what follows what has just ended; None ends the call."""
        if playing.done() and not playing.cancelled() and playing.exception():
            raise cast(BaseException, playing.exception())
        if self._line and self._line.hung_up.done():
            self._line.hung_up.result()
            self._ended_by = "caller"
            return None
        if not self._order.done():
            self._ended_by = "agent" if playing.done() and not playing.cancelled() else "carrier"
            return None
        order = self._order.result()
        self._order = self._loop.create_future()
        if isinstance(order, _HangUpOrder):
            self._ended_by = "agent"
            return None
        self._ask_replaced_action()
        if order.document is not None:
            return run(order.document, "")
        fetched = await self._fetch(Fetch(order.url, order.method))
        return run(fetched.document, fetched.url) if fetched else None

    def _ask_replaced_action(self) -> None:
        """Request the replaced verb's `action`; its answer is thrown away.

        Source: Twilio changelog of 2021-05-24 for <Dial>; assumed alike for <Connect>.
        """
        verb = self._current
        if isinstance(verb, Dial | Connect) and verb.action:
            notify = self._carrier.webhooks.notify(verb.action, verb.method, self._parameters())
            self._carrier.spawn(notify, f"replaced action {self.sid}")

    def _answer(self) -> None:
        """Pick up: the line's clock starts."""
        if self._line is not None:
            return
        wav = StereoWav(self.plan.out_dir / f"{self.sid}.wav") if self.plan.out_dir else None
        ear = AgentEar(self._carrier.phrases)
        self._line = PhoneLine(self._person, self._senses, self._voice, ear, wav, seed=self.plan.seed)
        self.started_at = datetime.now(UTC)
        self._set_status(CallStatus.IN_PROGRESS)
        self._line.answer()

    def _finish(self) -> None:
        self.ended_at = datetime.now(UTC)
        if self.status not in ENDED:
            self._set_status(CallStatus.COMPLETED if self._line else CallStatus.FAILED)
        if self._line:
            self._line.close()
        for sid, taken in self._takes.items():
            self._carrier.recordings.add(self.sid, bytes(taken.ulaw), "StartCallRecordingAPI", sid=sid)
        self.report = self._make_report()
        self._carrier.stats[f"calls_{self.report.outcome}"] += 1
        self.finished.set()

    # --- Acting out documents

    async def _play(self, script: Script) -> None:
        outcome: Document | Done | None = None
        while True:
            try:
                effect = script.send(outcome)
            except StopIteration:
                return
            self._current = effect
            outcome = await self._act_out(effect)
            if isinstance(effect, Reject):
                return

    async def _act_out(self, effect: Effect) -> Document | Done | None:
        if isinstance(effect, Fetch):
            fetched = await self._fetch(effect)
            return fetched.document if fetched else None
        if isinstance(effect, Reject) and self._line is None:
            busy = effect.reason == "busy"
            self._set_status(CallStatus.BUSY if busy else CallStatus.NO_ANSWER)
            return None
        self._answer()
        match effect:
            case Say() | Play() | Pause():
                await self._play_sound(effect)
            case Connect():
                return await self._connect(effect.stream)
            case Dial():
                return await self._dial(effect)
            case Record():
                return await self._record(effect)
            case Gather():
                return await self._gather(effect)
            case _:
                pass
        return None

    async def _fetch(self, fetch: Fetch) -> Fetched | None:
        parameters = {**self._parameters(), **fetch.extra}
        fetched = await self._carrier.webhooks.fetch(
            fetch.url, fetch.method, parameters, fallback_url=self.plan.fallback_url
        )
        if fetched:
            self._problems.extend(f"TwiML: {problem}" for problem in fetched.document.problems)
        return fetched

    async def _play_sound(self, verb: Say | Play | Pause) -> None:
        if isinstance(verb, Pause):
            await asyncio.sleep(verb.length_s)
            return
        sound = await self._render(verb)
        for _ in range(verb.loop or MAX_LOOPS):
            await self._play_to_end(sound)

    async def _render(self, verb: Say | Play) -> bytes:
        if isinstance(verb, Say):
            return await self._speech(verb.text)
        if verb.digits:
            return b"".join(tone(0.5 if key in "wW" else 0.2, hz=1000.0) for key in verb.digits)
        return tone(1.0)

    async def _speech(self, text: str) -> bytes:
        speech = await self._carrier.synthesizer.speak(text, voice=SAY_VOICE, rate_hz=RATE_HZ)
        return encode(speech.pcm)

    async def _play_to_end(self, sound: bytes) -> None:
        line = self._the_line()
        try:
            line.playout.push(sound, line.position)
            await asyncio.sleep(line.time_of(line.playout.tail) - self._loop.time())
        except asyncio.CancelledError:
            line.playout.clear(line.position)
            raise

    async def _connect(self, stream: Stream) -> Done:
        """Open the media socket and stream until it ends; its failure is not the document's."""
        sid = new_sid("MZ")
        socket = await self._open_socket(stream, sid)
        if socket is None:
            return Done()
        line = self._the_line()
        media = MediaSocket(
            socket, line, stream_sid=sid, account_sid=self._carrier.account_sid, call_sid=self.sid,
            network=self.plan.network, rng=self._rng,
        )  # fmt: skip
        self._media.append(media)
        self._notify_stream(stream, sid, "stream-started")
        fault = self._carrier.media_faults.take()
        timer = self._loop.call_later(fault.after_s, _break_socket, socket, fault) if fault else None
        try:
            await media.run(stream.parameters)
        finally:
            if timer:
                timer.cancel()
            media.forget_buffered()
            await media.stop()
            self._notify_stream(stream, sid, "stream-stopped")
        if socket.close_code in (None, 1006):
            self._socket_failures["31903"] += 1
        return Done()

    async def _open_socket(self, stream: Stream, sid: str) -> aiohttp.ClientWebSocketResponse | None:
        headers = {
            "X-Twilio-Signature": sign(self._carrier.auth_token, stream.url, {}),
            "User-Agent": "Twilio.TmeWs/1.0",
        }
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                return await self._carrier.session.ws_connect(
                    stream.url,
                    headers=headers,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_LIMIT_S),  # pyright: ignore[reportCallIssue] - attrs class
                    max_msg_size=MAX_MESSAGE_BYTES,
                )
        except TimeoutError:
            code, reason = "31901", "timeout"
        except aiohttp.WSServerHandshakeError as error:
            code, reason = "31920", f"HTTP {error.status}"
        except aiohttp.ClientError as error:
            code, reason = "31902", repr(error)
        self._socket_failures[code] += 1
        self._notify_stream(stream, sid, "stream-error", f"{code}: {reason}")
        return None

    async def _dial(self, dial: Dial) -> Done:
        """Ring people; the first target who answers is connected."""
        child_sid = new_sid("CA")
        outcome = "no-answer"
        for target in dial.targets:
            human = self._carrier.humans.get(target.number, Human.ANSWERS)
            if human in (Human.ANSWERS, Human.DECLINES):
                await asyncio.sleep(1.0)
                return await self._bridge(target, human, child_sid)
            outcome = human.value
        await asyncio.sleep(dial.timeout_s if outcome == "no-answer" else 1.0)
        return Done({"DialCallStatus": outcome, "DialCallSid": child_sid, "DialBridged": "false"})

    async def _bridge(self, target: DialTarget, human: Human, child_sid: str) -> Done:
        """Whisper to the human, connect the two unless refused, until one of them leaves."""
        accepted = human is Human.ANSWERS
        if target.url:
            accepted = await self._whisper(target, human, child_sid)
        answered_s = self._loop.time()
        if accepted:
            self._carrier.stats["bridged"] += 1
            await self._play_to_end(await self._speech(HUMAN_LINE))
            await asyncio.sleep(HUMAN_STAYS_S)
        duration = str(round(self._loop.time() - answered_s))
        status = {"DialCallStatus": "completed", "DialCallSid": child_sid, "DialCallDuration": duration}
        return Done(status | {"DialBridged": str(accepted).lower()})

    async def _whisper(self, target: DialTarget, human: Human, child_sid: str) -> bool:
        """Run the callee leg's document; True when it ends without hanging up."""
        leg = self._parameters() | {
            "CallSid": child_sid, "ParentCallSid": self.sid, "To": target.number, "Called": target.number,
            "CallStatus": "in-progress", "Direction": "outbound-dial",
        }  # fmt: skip
        fetched = await self._carrier.webhooks.fetch(target.url, target.method, leg)
        while fetched is not None:
            step = await self._whisper_document(fetched, human)
            if isinstance(step, bool):
                return step
            fetched = await self._carrier.webhooks.fetch(step.url, step.method, leg | dict(step.extra))
        return False

    async def _whisper_document(self, fetched: Fetched, human: Human) -> Fetch | bool:
        """Act one document out on the callee's phone; return what to fetch next, or whether to connect."""
        script = run(fetched.document, fetched.url)
        outcome: Done | None = None
        while True:
            try:
                effect = script.send(outcome)
            except StopIteration:
                # A document that ends connects; one that hangs up refuses.
                return not fetched.document.hangs_up
            if isinstance(effect, Fetch):
                return effect
            prompts = effect.prompts if isinstance(effect, Gather) else (effect,)
            for prompt in prompts:
                if isinstance(prompt, Say):
                    await asyncio.sleep(len(await self._speech(prompt.text)) / RATE_HZ)
            outcome = None
            if isinstance(effect, Gather):
                if human is Human.DECLINES:
                    return False
                await asyncio.sleep(0.5)
                outcome = Done({"Digits": "1"})

    async def _record(self, record: Record) -> Done:
        """Take a message until silence, a key, the limit or hang-up."""
        line = self._the_line()
        if record.play_beep:
            await self._play_to_end(tone(0.5, hz=1000.0))
        taken = _Take()
        line.taps.append(taken.add)
        digits = "hangup"
        try:
            digits = await taken.wait(record, line.keys)
        finally:
            line.taps.remove(taken.add)
            done = self._keep_recording(record, bytes(taken.ulaw), digits)
            if digits == "hangup" and record.action:
                parameters = {**self._parameters(), **done.parameters}
                notify = self._carrier.webhooks.notify(record.action, record.method, parameters)
                self._carrier.spawn(notify, f"action of record {self.sid}")
        return done

    def _keep_recording(self, record: Record, ulaw: bytes, digits: str) -> Done:
        recording = self._carrier.recordings.add(self.sid, ulaw, "RecordVerb")
        path = f"/2010-04-01/Accounts/{self._carrier.account_sid}/Recordings/{recording.sid}"
        shared = {
            "RecordingUrl": path,
            "RecordingSid": recording.sid,
            "RecordingDuration": str(recording.duration_s),
        }
        if record.recording_status_callback:
            status = {
                "AccountSid": self._carrier.account_sid, "CallSid": self.sid, "RecordingStatus": "completed",
                "RecordingChannels": "1", "RecordingSource": "RecordVerb",
            }  # fmt: skip
            notify = self._carrier.webhooks.notify(record.recording_status_callback, "POST", status | shared)
            self._carrier.spawn(notify, f"recording callback {self.sid}")
        return Done({**shared, "Digits": digits})

    async def _gather(self, gather: Gather) -> Done:
        """Collect keys while the prompts play; the first key silences them."""
        keys = self._the_line().keys
        digits = ""
        prompting = asyncio.create_task(self._play_all(gather), name=f"prompts {self.sid}")
        try:
            while gather.num_digits is None or len(digits) < gather.num_digits:
                key = await _next_key(keys, prompting, gather.timeout_s)
                if key is None or key == gather.finish_on_key:
                    break
                prompting.cancel()
                digits += key
        finally:
            prompting.cancel()
        return Done({"Digits": digits} if digits else {})

    async def _play_all(self, gather: Gather) -> None:
        for prompt in gather.prompts:
            await self._play_sound(prompt)

    def _the_line(self) -> PhoneLine:
        """Return the line.

        Raises:
            RuntimeError: If the call is not answered.
        """
        if self._line is None:
            raise RuntimeError("the call is not answered")
        return self._line

    # --- Telling

    def _parameters(self) -> dict[str, str]:
        """Return the standard parameters of every voice request; empty ones travel too."""
        plan = self.plan
        places = {f"{who}{what}": "" for who in ("From", "To", "Caller", "Called") for what in _PLACES}
        return places | {
            "CallSid": self.sid,
            "AccountSid": self._carrier.account_sid,
            "From": plan.caller,
            "To": plan.called,
            "Caller": plan.caller,
            "Called": plan.called,
            "CallStatus": self.status.value,
            "ApiVersion": "2010-04-01",
            "Direction": self.direction,
        }

    @property
    def direction(self) -> str:
        """Twilio's name of the call's direction."""
        return "inbound" if self.plan.is_inbound else "outbound-api"

    @property
    def duration_s(self) -> int | None:
        """Seconds from answer to end, once ended."""
        if self.ended_at is None:
            return None
        return round((self.ended_at - self.started_at).total_seconds()) if self.started_at else 0

    def _set_status(self, status: CallStatus) -> None:
        logger.debug("sim call {} {} -> {}", self.sid, self.status.value, status.value)
        self.status = status
        if status in ENDED:
            self.ended_at = self.ended_at or datetime.now(UTC)
        self.report = replace(self.report, state=status.value)
        self._notify_status()

    def _notify_status(self) -> None:
        plan = self.plan
        event = _EVENT_OF.get(self.status, "completed")
        if not plan.status_url or event not in plan.status_events:
            return
        parameters = self._parameters() | {
            "Timestamp": format_datetime(datetime.now(UTC)),
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._sequence),
        }
        if self.status is CallStatus.QUEUED:
            parameters["CallStatus"] = "initiated"
        if self.status in ENDED:
            seconds = self.duration_s or 0
            parameters |= {"CallDuration": str(seconds), "Duration": str(-(-seconds // 60))}
        self._sequence += 1
        copies = 1
        delay_s = 0.0
        if self._carrier.has_disorder():
            delay_s, copies = self._rng.random() * 0.5, 1 + (self._rng.random() < 0.2)
        for _ in range(copies):
            callback = self._call_back(plan.status_url, parameters, delay_s)
            self._carrier.spawn(callback, f"status callback {self.sid}")

    async def _call_back(self, url: str, parameters: Mapping[str, str], delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
            await self._carrier.webhooks.notify(url, self.plan.status_method, parameters)
            return
        async with self._callbacks:  # a lock is fair: in order
            await self._carrier.webhooks.notify(url, self.plan.status_method, parameters)

    def _notify_stream(self, stream: Stream, sid: str, event: str, error: str = "") -> None:
        self._carrier.stats[event] += 1
        if not stream.status_callback:
            return
        parameters = {
            "AccountSid": self._carrier.account_sid, "CallSid": self.sid, "StreamSid": sid,
            "StreamName": stream.name or sid, "StreamEvent": event, "Timestamp": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        if error:
            parameters["StreamError"] = error
        notify = self._carrier.webhooks.notify(
            stream.status_callback, stream.status_callback_method, parameters
        )
        self._carrier.spawn(notify, f"stream callback {self.sid}")

    def _make_report(self) -> CallReport:
        line = self._line
        record = CallRecord(
            stream_started_at=self._media[0].started_at if self._media else None,
            ended_at=self._ended_at,
            agent=line.agent_spans if line else (),
            utterances=tuple(line.utterances) if line else (),
            dry_runs=tuple(line.playout.dry_runs) if line else (),
            words=tuple(line.words) if line else (),
        )
        measures = measure(record)
        warnings: Counter[str] = Counter(self._socket_failures)
        for media in self._media:
            warnings += media.stats.warnings
        answered = sum(turn.answer_s is not None for turn in measures.turns)
        reasons = self._judge(answered, measures.agent_text, warnings)
        started_at = record.stream_started_at
        return CallReport(
            call_sid=self.sid,
            scenario=self.plan.scenario.name,
            caller=self.plan.caller,
            called=self.plan.called,
            state=self.status.value,
            outcome="failed" if reasons else "ok",
            reasons=tuple(reasons),
            ended_by=self._ended_by,
            measures=measures,
            wav=str(self.plan.out_dir / f"{self.sid}.wav") if self.plan.out_dir and line else None,
            streams=len(self._media),
            marks_returned=sum(media.stats.marks_returned for media in self._media),
            clears=sum(media.stats.clears for media in self._media),
            warnings=dict(warnings),
            first_warnings=tuple(text for media in self._media for text in media.stats.first_warnings),
            stream_started_s=None if started_at is None else round(started_at / RATE_HZ, 4),
            sim_lateness_s=round(line.max_lateness_s, 4) if line else 0.0,
        )

    def _judge(self, answered: int, agent_text: str, warnings: Mapping[str, int]) -> list[str]:
        """Return why the call went wrong; empty when it went well."""
        scenario = self.plan.scenario
        reasons = [*self._problems, *self._person.failures]
        if not self._person.is_script_done and not self._person.failures:
            step = self._person.current_step or "before the first step"
            reasons.append(f"the call ended at step {step}")
        if scenario.ended_by is not EndedBy.EITHER and self._ended_by != scenario.ended_by.value:
            reasons.append(f"ended by {self._ended_by}, expected {scenario.ended_by.value}")
        if answered < scenario.min_turns:
            reasons.append(f"{answered} turns were answered, expected {scenario.min_turns}")
        reasons.extend(
            f"the agent never said {pattern!r}" for pattern in scenario.missing_sayings(agent_text)
        )
        reasons.extend(f"Twilio {code}, {count} times" for code, count in warnings.items())
        return reasons


_PLACES = ("City", "State", "Zip", "Country")


@dataclass
class _Take:
    """Sound being recorded, and how long it has been silent."""

    ulaw: bytearray = field(default_factory=bytearray)
    silent_samples: int = 0

    def add(self, frame: bytes) -> None:
        if len(self.ulaw) >= MAX_TAKE_BYTES:
            return
        self.ulaw += frame
        self.silent_samples = 0 if audible_range(frame) else self.silent_samples + len(frame)

    async def wait(self, record: Record, keys: "asyncio.Queue[str]") -> str:
        """Wait for the end of the message; return the key that ended it."""
        limit = int(record.max_length_s * RATE_HZ)
        while len(self.ulaw) < limit:
            if record.timeout_s and self.silent_samples >= record.timeout_s * RATE_HZ:
                return ""
            while not keys.empty():
                key = keys.get_nowait()
                if key in record.finish_on_key:
                    return key
            await asyncio.sleep(0.1)
        return ""


async def _next_key(
    keys: "asyncio.Queue[str]", prompting: "asyncio.Task[None]", timeout_s: float
) -> str | None:
    """Return the next key, None when none comes within `timeout_s` of the prompts' end."""
    getting = asyncio.create_task(keys.get(), name="next key")
    try:
        await asyncio.wait({prompting, getting}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({getting}, timeout=timeout_s)
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


def _break_socket(socket: aiohttp.ClientWebSocketResponse, fault: FaultSpec) -> None:
    """Act out a fault of the media socket."""
    writer = socket._writer
    if fault.kind is FaultKind.CLOSE_MID_STREAM:
        writer.transport.abort()
        return
    for junk in _JUNK:
        sending = socket.send_frame(junk, aiohttp.WSMsgType.TEXT)
        try:
            sending.send(None)
        except StopIteration:
            continue


_JUNK = (
    b"not json",
    b"[]",
    b"{}",
    b'{"event":"media"}',
    b'{"event":"media","media":{"payload":"****"}}',
    b'{"event":"media","media":{"payload":17,"track":null}}',
    b'{"event":"surprise","streamSid":"MZ0"}',
    b'{"event":"dtmf","dtmf":{}}',
    b'{"event":"mark"}',
)
