"""One call as Twilio runs it: rings, fetches documents, acts them out, tells the status, ends.

Sits between REST (`sims.twilio`), documents (`sims.twiml`) and the phone (`sims.caller`). Every wait has an end: the
scenario's `max_s` bounds the whole call.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, cast

from loguru import logger

from sims.agent_words import AgentEar, PlayedRun
from sims.call_verbs import CallVerbs
from sims.caller import Network, PhoneLine
from sims.caller_voice import CallerVoice
from sims.carrier import ENDED, CallPlan, CallStatus, Carrier, Recording, new_sid
from sims.mulaw import RATE_HZ
from sims.person import Person, Senses
from sims.report import CallRecord, CallReport, Measures, Over, SoundKind, measure
from sims.scenario import EndedBy
from sims.twiml import (
    Connect,
    Dial,
    Document,
    Done,
    Effect,
    Fetch,
    Pause,
    Redirect,
    Reject,
    Script,
    run,
)
from sims.wav import StereoWav
from sims.webhook import Fetched

ENDING_LIMIT_S = 3.0
"""Longest time a media socket may take to say goodbye."""
_EVENT_OF = {
    CallStatus.QUEUED: "initiated",
    CallStatus.RINGING: "ringing",
    CallStatus.IN_PROGRESS: "answered",
}


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
        self._verbs: CallVerbs | None = None
        """None until the call is answered."""
        self._answered: asyncio.Future[PhoneLine] = self._loop.create_future()
        self._order: asyncio.Future[_HangUpOrder | _UpdateOrder] = self._loop.create_future()
        self._current: Effect | None = None
        self._problems: list[str] = []
        self._ended_by: str | None = None
        self._rings_from_s = self._loop.time()
        self._rang_s: float | None = None
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
        if self._verbs is None:
            raise RuntimeError("the call is not answered")
        return self._verbs.start_recording()

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
        self._rings_from_s = self._loop.time()
        if not self.plan.is_inbound:
            if await self._is_canceled_ringing():
                self._set_status(CallStatus.CANCELED)
                self._ended_by = "agent"
                return
            self._answer()
        plan = self.plan
        document = plan.document or Document((Redirect(plan.voice_url, plan.voice_method),))
        await self._run_documents(run(document, ""))

    async def _is_canceled_ringing(self) -> bool:
        """Let an outbound call ring; tell whether it was canceled meanwhile."""
        done, _ = await asyncio.wait({self._order}, timeout=self._carrier.ring_s)
        return bool(done)

    async def _run_documents(self, script: Script | None) -> None:
        """Act out documents until somebody hangs up; an update by REST brings a new script."""
        while script is not None:
            playing = asyncio.create_task(self._play(script), name=f"documents {self.sid}")
            try:
                await self._wait_for_event(playing)
            finally:
                playing.cancel()
                self._ended_at = self._line.position if self._line else 0
                _, late = await asyncio.wait({playing}, timeout=ENDING_LIMIT_S)
                if late:
                    logger.error("sim: the documents of {} did not end", self.sid)
            script = await self._next_script(playing)
        if self.status not in ENDED:
            self._set_status(CallStatus.COMPLETED if self._line else CallStatus.NO_ANSWER)

    async def _wait_for_event(self, playing: "asyncio.Task[None]") -> None:
        """Wait until the documents end, REST orders something, the caller hangs up or time is over."""
        if not self._answered.done():
            limit_s = self.plan.scenario.gives_up_ringing_s
            waiting = {playing, self._order, self._answered}
            done, _ = await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._ended_by = "caller"
            if not self._answered.done():
                return
        line = self._answered.result()
        left_s = self.plan.scenario.max_s - line.position / RATE_HZ
        events: set[asyncio.Future[Any]] = {playing, self._order, line.hung_up}
        done, _ = await asyncio.wait(events, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._ended_by = "carrier"
            self._problems.append(f"the call lasted longer than {self.plan.scenario.max_s:g} s")

    async def _next_script(self, playing: "asyncio.Task[None]") -> Script | None:
        """Decide what follows what has just ended; None ends the call."""
        if playing.done() and not playing.cancelled() and playing.exception():
            raise cast(BaseException, playing.exception())
        if self._line and self._line.hung_up.done():
            self._line.hung_up.result()
            self._ended_by = "caller"
            return None
        if not self._order.done():
            self._ended_by = self._ended_by or "agent"
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
        if self._carrier.asks_replaced_action and isinstance(verb, Dial | Connect) and verb.action:
            notify = self._carrier.webhooks.notify(verb.action, verb.method, self._parameters())
            self._carrier.spawn(notify, f"replaced action {self.sid}")

    def _answer(self) -> CallVerbs:
        """Pick up, once: the line's clock starts."""
        if self._verbs is None:
            self._verbs = self._pick_up()
            self._rang_s = self._loop.time() - self._rings_from_s
            self.started_at = datetime.now(UTC)
            self._set_status(CallStatus.IN_PROGRESS)
            self._verbs.line.answer()
            self._answered.set_result(self._verbs.line)
        return self._verbs

    def _pick_up(self) -> CallVerbs:
        wav = StereoWav(self.plan.out_dir / f"{self.sid}.wav") if self.plan.out_dir else None
        ear = AgentEar(self._carrier.phrases)
        line = PhoneLine(
            self._person, self._senses, self._voice, ear, wav, seed=self.plan.seed,
            longest_echo_ms=self.plan.scenario.longest_echo_ms,
        )  # fmt: skip
        rng = random.Random(self.plan.seed)  # noqa: S311 - repeatable, not secrets
        return CallVerbs(
            self.sid, line, self._carrier, network=self._network(), parameters=self._parameters, rng=rng
        )

    def _network(self) -> Network:
        """Return what was ordered with the call, else what the scenario has."""
        ordered, own = self.plan.network, self.plan.scenario.network
        return Network(own.loss, own.jitter_ms / 1000) if own and ordered == Network() else ordered

    @property
    def _line(self) -> PhoneLine | None:
        return self._verbs.line if self._verbs else None

    def _finish(self) -> None:
        self.ended_at = datetime.now(UTC)
        if self.status not in ENDED:
            self._set_status(CallStatus.COMPLETED if self._line else CallStatus.FAILED)
        if self._verbs:
            self._verbs.close()
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
        if isinstance(effect, Pause) and self._line is None:  # it goes on ringing
            await asyncio.sleep(effect.length_s)
            return None
        return await self._answer().perform(effect)

    async def _fetch(self, fetch: Fetch) -> Fetched | None:
        parameters = {**self._parameters(), **fetch.extra}
        fetched = await self._carrier.webhooks.fetch(
            fetch.url, fetch.method, parameters, fallback_url=self.plan.fallback_url
        )
        if fetched is None:
            self._problems.append(f"no document from {fetch.url}")
            self._ended_by = "carrier"
            return None
        self._problems.extend(f"TwiML: {problem}" for problem in fetched.document.problems)
        return fetched

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

    def _make_report(self) -> CallReport:
        line = self._line
        streams = self._verbs.media if self._verbs else []
        record = CallRecord(
            stream_started_at=streams[0].started_at if streams else None,
            ended_at=self._ended_at,
            agent=line.agent_spans if line else (),
            utterances=tuple(line.utterances) if line else (),
            dry_runs=tuple(line.playout.dry_runs) if line else (),
            words=tuple(line.words) if line else (),
            runs=line.runs if line else (),
            keys=tuple(line.pressed) if line else (),
        )
        measures = measure(record)
        warnings: Counter[str] = Counter(self._verbs.socket_failures if self._verbs else ())
        for media in streams:
            warnings += media.stats.warnings
        stops = _count_stops(measures.overs, record.runs)
        reasons = self._judge(measures, stops, warnings)
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
            streams=len(streams),
            marks_returned=sum(media.stats.marks_returned for media in streams),
            clears=sum(media.stats.clears for media in streams),
            warnings=dict(warnings),
            first_warnings=tuple(text for media in streams for text in media.stats.first_warnings),
            rang_s=None if self._rang_s is None else round(self._rang_s, 4),
            first_sound_s=round(record.agent[0].start / RATE_HZ, 4) if record.agent else None,
            stream_started_s=None if started_at is None else round(started_at / RATE_HZ, 4),
            carrier_said=tuple(self._verbs.said) if self._verbs else (),
            sim_lateness_s=round(line.max_lateness_s, 4) if line else 0.0,
        )

    def _judge(self, measures: Measures, stops: int, warnings: Mapping[str, int]) -> list[str]:
        """Return why the call went wrong; empty when it went well."""
        scenario = self.plan.scenario
        reasons = [*self._problems, *self._person.failures]
        gave_up = self._line is None and self._ended_by == "caller"
        if not (gave_up or self._person.is_script_done or self._person.failures):
            step = self._person.current_step or "before the first step"
            reasons.append(f"the call ended at step {step}")
        if scenario.ended_by is not EndedBy.EITHER and self._ended_by != scenario.ended_by.value:
            reasons.append(f"ended by {self._ended_by}, expected {scenario.ended_by.value}")
        answered = sum(turn.answer_s is not None for turn in measures.turns)
        if answered < scenario.min_turns:
            reasons.append(f"{answered} turns were answered, expected {scenario.min_turns}")
        if stops < scenario.min_interruptions:
            reasons.append(
                f"the agent stopped for {stops} interruptions, expected {scenario.min_interruptions}"
            )
        reasons.extend(
            f"the agent never said {pattern!r}" for pattern in scenario.missing_sayings(measures.agent_text)
        )
        reasons.extend(f"Twilio {code}, {count} times" for code, count in warnings.items())
        return reasons


def _count_stops(overs: Iterable[Over], runs: Sequence[PlayedRun]) -> int:
    """Return for how many interruptions the agent broke off what it was saying.

    One that said its sentence and had no more to say did not stop for anybody; where words are not known, silence
    is all there is to go by.
    """
    stops = [over for over in overs if over.kind == SoundKind.INTERRUPTION.value and over.stopped]
    spoken_over = [
        next((run for run in reversed(runs) if run.start < over.end_s * RATE_HZ), None) for over in stops
    ]
    return sum(run is None or not run.is_whole for run in spoken_over)


_PLACES = ("City", "State", "Zip", "Country")
