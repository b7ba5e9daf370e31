"""What TwiML's verbs do on an answered call: sounds, the media stream, ringing people, recording, keys.

`CallVerbs.perform` acts one verb out and returns what came of it; the call that asks may cancel it at any moment. It
knows nothing of documents but their verbs.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from sims.agent_words import Phrase
from sims.caller import MAX_MESSAGE_BYTES, MediaSocket, Network, PhoneLine
from sims.caller_voice import tone
from sims.carrier import Carrier, Human, PersonLeg, Recording, new_sid
from sims.faults import FaultKind, FaultSpec
from sims.mulaw import RATE_HZ, audible_range, encode
from sims.spoken import Encoding
from sims.twiml import (
    Connect,
    Dial,
    DialTarget,
    Done,
    Effect,
    Fetch,
    Gather,
    Pause,
    Play,
    Record,
    Say,
    Stream,
    run,
)
from sims.webhook import Fetched, sign

CONNECT_LIMIT_S = 5.0
CLOSE_LIMIT_S = 2.0
SAY_VOICE = "twilio-say"
HUMAN_LINE = "Hello, this is the front desk, I have your message. How can I help?"
MACHINE_LINE = "You have reached my voicemail. Please leave a message after the tone."
HUMAN_STAYS_S = 30.0
PRESSES_AFTER_S = 0.5
MAX_LOOPS = 100
MAX_TAKE_BYTES = 3600 * RATE_HZ
"""Longest recording, Twilio's own limit."""
_PICKS_UP = frozenset({Human.ANSWERS, Human.DECLINES, Human.HANGS_UP, Human.MACHINE})
_KEYS = {Human.ANSWERS: "1", Human.DECLINES: "2"}


class CallVerbs:
    """Performs verbs on one line; one at a time."""

    def __init__(
        self,
        call_sid: str,
        line: PhoneLine,
        carrier: Carrier,
        *,
        network: Network,
        parameters: Callable[[], dict[str, str]],
        rng: random.Random,
    ) -> None:
        """Create them for an answered call.

        Args:
            call_sid: `CA…`.
            line: The caller's phone.
            carrier: Shared things.
            network: Loss and jitter of the caller's packets.
            parameters: Returns the standard parameters of a voice request.
            rng: Draws loss and jitter.
        """
        self.line = line
        self.media: list[MediaSocket] = []
        """Every stream of the call, oldest first."""
        self.said: list[str] = []
        """What Twilio's own voice said to the caller."""
        self.socket_failures: Counter[str] = Counter()
        """Twilio's codes for streams that did not start or broke."""
        self._sid = call_sid
        self._carrier = carrier
        self._network = network
        self._parameters = parameters
        self._rng = rng
        self._takes: dict[str, _Take] = {}

    async def perform(self, verb: Effect) -> Done | None:
        """Act out one verb and return what came of it."""
        match verb:
            case Say() | Play() | Pause():
                await self._play_sound(verb)
            case Connect():
                return await self._connect(verb.stream)
            case Dial():
                return await self._dial(verb)
            case Record():
                return await self._record(verb)
            case Gather():
                return await self._gather(verb)
            case _:
                pass
        return None

    def start_recording(self) -> Recording:
        """Record the caller's side until `close`; only then there is sound to fetch."""
        taken = _Take()
        self.line.taps.append(taken.add)
        recording = Recording(new_sid("RE"), self._sid, b"", 0, "StartCallRecordingAPI")
        self._takes[recording.sid] = taken
        return recording

    def close(self) -> None:
        """Put the phone down and shelve the recordings."""
        self.line.close()
        for sid, taken in self._takes.items():
            self._carrier.recordings.add(self._sid, bytes(taken.ulaw), "StartCallRecordingAPI", sid=sid)

    async def _play_sound(self, verb: Say | Play | Pause) -> None:
        if isinstance(verb, Pause):
            await asyncio.sleep(verb.length_s)
            return
        sound = await self._render(verb)
        for _ in range(verb.loop or MAX_LOOPS):
            await self._play_to_end(sound)

    async def _render(self, verb: Say | Play) -> bytes:
        if isinstance(verb, Say):
            self.said.append(verb.text)
            return await self._speech(verb.text)
        if verb.digits:
            return b"".join(tone(0.5 if key in "wW" else 0.2, hz=1000.0) for key in verb.digits)
        return tone(1.0)

    async def _speech(self, text: str) -> bytes:
        speech = await self._carrier.synthesizer.speak(text, voice=SAY_VOICE, rate_hz=RATE_HZ)
        sound = encode(speech.pcm)
        self._carrier.phrases.add(Phrase(text, sound, speech.words))
        return sound

    async def _play_to_end(self, sound: bytes) -> None:
        line = self.line
        try:
            line.playout.push(sound, line.position)
            await asyncio.sleep(line.time_of(line.playout.tail) - asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            line.playout.clear(line.position)
            raise

    async def _connect(self, stream: Stream) -> Done:
        """Open the media socket and stream until it ends; its failure is not the document's."""
        sid = new_sid("MZ")
        socket = await self._open_socket(stream, sid)
        if socket is None:
            return self._broken()
        line = self.line
        media = MediaSocket(
            socket, line, stream_sid=sid, account_sid=self._carrier.account_sid, call_sid=self._sid,
            network=self._network, rng=self._rng,
        )  # fmt: skip
        self.media.append(media)
        self._notify_stream(stream, sid, "stream-started")
        fault = self._carrier.media_faults.take(caller=self._parameters()["From"])
        timer = (
            asyncio.get_running_loop().call_later(fault.after_s, _break_socket, socket, fault)
            if fault
            else None
        )
        try:
            await media.run(stream.parameters)
        finally:
            if timer:
                timer.cancel()
            media.forget_buffered()
            # Beside the call: a server that hangs must not hold up what comes next.
            self._carrier.spawn(media.stop(), f"end of stream {sid}")
            self._notify_stream(stream, sid, "stream-stopped")
        if socket.close_code in (None, 1006):
            self.socket_failures["31903"] += 1
            return self._broken()
        return Done()

    def _broken(self) -> Done:
        """Return what comes of a stream that nobody ended."""
        return Done(skips_action=not self._carrier.asks_action_of_broken())

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
        self.socket_failures[code] += 1
        self._notify_stream(stream, sid, "stream-error", f"{code}: {reason}")
        return None

    async def _dial(self, dial: Dial) -> Done:
        """Ring people; the first target who answers is connected."""
        child_sid = new_sid("CA")
        outcome = "no-answer"
        for target in dial.targets:
            human = self._carrier.humans.get(target.number, Human.ANSWERS)
            leg = PersonLeg(child_sid, self._sid, target.number, human, rang_at=self.line.position)
            self._carrier.legs.append(leg)
            if human in _PICKS_UP:
                await asyncio.sleep(self._carrier.ring_s)
                return await self._bridge(target, leg)
            outcome = human.value
        await asyncio.sleep(dial.timeout_s if outcome == "no-answer" else self._carrier.ring_s)
        return Done({"DialCallStatus": outcome, "DialCallSid": child_sid, "DialBridged": "false"})

    async def _bridge(self, target: DialTarget, leg: PersonLeg) -> Done:
        """Whisper to the human, connect the two unless refused, until one of them leaves."""
        leg.is_bridged = await self._whisper(target, leg) if target.url else leg.human is not Human.HANGS_UP
        answered_s = asyncio.get_running_loop().time()
        if leg.is_bridged:
            self._carrier.stats["bridged"] += 1
            await self._talk(leg)
        duration = str(round(asyncio.get_running_loop().time() - answered_s))
        status = {"DialCallStatus": "completed", "DialCallSid": leg.call_sid, "DialCallDuration": duration}
        return Done(status | {"DialBridged": str(leg.is_bridged).lower()})

    async def _talk(self, leg: PersonLeg) -> None:
        """Let the two hear each other: the person says their line and listens, until they have had enough."""
        tracker = self._carrier.spoken_index.tracker(Encoding.MULAW)

        def hear(frame: bytes) -> None:
            if len(leg.heard) < MAX_TAKE_BYTES:
                leg.heard += frame
            leg.words += [word.text for word in tracker.feed(frame)]

        self.line.taps.append(hear)
        try:
            line = MACHINE_LINE if leg.human is Human.MACHINE else HUMAN_LINE
            leg.said.append(line)
            await self._play_to_end(await self._speech(line))
            await asyncio.sleep(HUMAN_STAYS_S)
        finally:
            self.line.taps.remove(hear)

    async def _whisper(self, target: DialTarget, leg: PersonLeg) -> bool:
        """Run the callee leg's document; True when it ends without anybody hanging up."""
        parameters = self._parameters() | {
            "CallSid": leg.call_sid, "ParentCallSid": self._sid, "To": target.number, "Called": target.number,
            "CallStatus": "in-progress", "Direction": "outbound-dial",
        }  # fmt: skip
        fetched = await self._carrier.webhooks.fetch(target.url, target.method, parameters)
        while fetched is not None:
            step = await self._whisper_document(fetched, leg)
            if isinstance(step, bool):
                return step
            fetched = await self._carrier.webhooks.fetch(step.url, step.method, parameters | dict(step.extra))
        return False

    async def _whisper_document(self, fetched: Fetched, leg: PersonLeg) -> Fetch | bool:
        """Act one document out on the callee's phone; return what to fetch next, or whether to connect."""
        script = run(fetched.document, fetched.url)
        outcome: Done | None = None
        while True:
            try:
                effect = script.send(outcome)
            except StopIteration:
                return (
                    not fetched.document.hangs_up
                )  # a document that ends connects; one that hangs up refuses
            if isinstance(effect, Fetch):
                return effect
            prompts = effect.prompts if isinstance(effect, Gather) else (effect,)
            for prompt in prompts:
                if isinstance(prompt, Say):
                    leg.told.append(prompt.text)
                    await asyncio.sleep(len(await self._speech(prompt.text)) / RATE_HZ)
            if leg.human is Human.HANGS_UP:
                return False
            outcome = await self._press(effect, leg) if isinstance(effect, Gather) else None

    async def _press(self, gather: Gather, leg: PersonLeg) -> Done:
        """Press what the person presses; a machine lets the time pass."""
        key = _KEYS.get(leg.human, "")
        if not key:
            await asyncio.sleep(gather.timeout_s)
            return Done()
        await asyncio.sleep(min(PRESSES_AFTER_S, self._carrier.ring_s))
        leg.pressed += key
        return Done({"Digits": key})

    async def _record(self, record: Record) -> Done:
        """Take a message until silence, a key, the limit or hang-up."""
        line = self.line
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
                self._carrier.spawn(notify, f"action of record {self._sid}")
        return done

    def _keep_recording(self, record: Record, ulaw: bytes, digits: str) -> Done:
        recording = self._carrier.recordings.add(self._sid, ulaw, "RecordVerb")
        account = f"{self._carrier.base_url()}/2010-04-01/Accounts/{self._carrier.account_sid}"
        shared = {
            "RecordingUrl": f"{account}/Recordings/{recording.sid}",
            "RecordingSid": recording.sid,
            "RecordingDuration": str(recording.duration_s),
        }
        if record.recording_status_callback:
            status = {
                "AccountSid": self._carrier.account_sid, "CallSid": self._sid, "RecordingStatus": "completed",
                "RecordingChannels": "1", "RecordingSource": "RecordVerb",
            }  # fmt: skip
            notify = self._carrier.webhooks.notify(record.recording_status_callback, "POST", status | shared)
            self._carrier.spawn(notify, f"recording callback {self._sid}")
        return Done({**shared, "Digits": digits})

    async def _gather(self, gather: Gather) -> Done:
        """Collect keys while the prompts play; the first key silences them."""
        keys = self.line.keys
        digits = ""
        prompting = asyncio.create_task(self._play_all(gather), name=f"prompts {self._sid}")
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

    def _notify_stream(self, stream: Stream, sid: str, event: str, error: str = "") -> None:
        self._carrier.stats[event] += 1
        if not stream.status_callback:
            return
        parameters = {
            "AccountSid": self._carrier.account_sid, "CallSid": self._sid, "StreamSid": sid,
            "StreamName": stream.name or sid, "StreamEvent": event, "Timestamp": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        if error:
            parameters["StreamError"] = error
        notify = self._carrier.webhooks.notify(
            stream.status_callback, stream.status_callback_method, parameters
        )
        self._carrier.spawn(notify, f"stream callback {self._sid}")


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
