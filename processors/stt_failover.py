"""The agent's hearing, which is that of one vendor or, when that fails, of the next, in the middle of a sentence.

Stands where a Pipecat recogniser stands and is one. The vendors' Pipecat services are hosted (`HostedRecogniser`) for
what they know of the wire. Pipecat's own way with a lost socket leaves the caller unheard for four seconds and forgets
what was said meanwhile; its `ServiceSwitcher` forgets it too. Here the audio without final words is kept
(`CallerReplay`) and heard again by whoever listens next; whether a recogniser keeps up is the watch's to know
(`HearingWatch`), whether a vendor is in order the process's (`VoiceHealth`).

    DIALLING --connected--> LISTENING: first to what was missed, as fast as it goes, then live
    LISTENING --connection lost--> DIALLING the same, and after that the next
    LISTENING --late | garbage--> DIALLING the next
    LISTENING --speech without any word--> DIALLING the next, for its opinion
    LISTENING to another than the first --nothing owed, the first is well again--> DIALLING the first
    DIALLING --nobody for too long--> `on_recognisers_failed`; it is tried on

While words are late, those who decide by them are told to wait (`WordsDelayedFrame`). Only one recogniser is connected:
most vendors are paid for the time that a connection is open, and dialling takes less than what the replay costs.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextAssistantTurnFrame,
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import STTUsageMetricsData
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.utils.time import time_now_iso8601

from processors.better_recogniser import BetterRecogniser
from processors.caller_replay import CallerReplay
from processors.dial_order import DialOrder
from processors.frames import (
    CallerPausedFrame,
    CallerResumedFrame,
    CallerStoppedFrame,
    TranscriptFlushedFrame,
    WordsDelayedFrame,
)
from processors.hearing_losses import HearingLosses, Loss
from processors.hearing_watch import (
    NEAR_S,
    DeafLimits,
    Deafness,
    Hearing,
    HearingLimits,
    HearingWatch,
)
from processors.recogniser_trial import PIECE_S, dial
from processors.recognisers import Recogniser, RecogniserFailed, RecogniserFailure, Report
from processors.replay_course import ReplayCourse
from processors.shown_words import standing
from processors.stand_in_turns import StandInTurns
from processors.voice_health import VoiceHealth
from processors.voices import FailureKind
from processors.words_delay import WordsDelay

SEND_LIMIT_S = 1.0
CLOSE_LIMIT_S = 1.0
QUIET_S = 1.0
"""Of the caller, before the first vendor is returned to."""
_WAITS_S = (0.0, 0.2, 0.4, 0.8, 1.6)
"""Before each round of dialling, when all have failed; the last for ever."""
_SPEECH_WAIT_S = 0.3
"""The most of it while the caller speaks to nobody."""
MOST_REPLAY_S = 1.0
"""Of speech that is heard again whole; of more, what was shown of it stands."""
_TICK_S = 0.1
_REST_S = 0.05
"""Whoever rests is looked after so often."""
_OWN_STALL_S = 0.1
"""A process that was held up for so long itself must not blame a vendor."""
_LOOK_AGAIN_S = 1.0
_TTFS_S = 0.35


@dataclass(eq=False)
class _Leg:
    """What one connection hears. Places are those of `CallerReplay`."""

    recogniser: Recogniser
    course: ReplayCourse
    """What it is sent."""
    is_live: bool = False
    """Whether audio is sent as it comes."""
    is_caught_up: bool = False
    asked: int = 0
    """Up to where it had been sent the line when it was last asked for the words of speech that had ended."""
    edges: list[tuple[int, Frame]] = field(default_factory=list[tuple[int, Frame]])
    """Of the caller's speech, each with the place up to where it must have heard before it is told."""
    feeding: "asyncio.Task[None] | None" = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def note_asked(self, edge: Frame) -> None:
        """It is about to be told of an edge."""
        if isinstance(edge, VADUserStoppedSpeakingFrame):
            self.asked = self.course.sent


class FailoverSTT(STTService):
    """See the module. Events: `on_recogniser_failed(RecogniserFailed)`, `on_recognisers_failed()`."""

    def __init__(
        self,
        recognisers: Sequence[Recogniser],
        *,
        health: VoiceHealth,
        rate_hz: int,
        limits: HearingLimits | None = None,
        deaf_limits: DeafLimits | None = None,
    ) -> None:
        """Create the recogniser; it connects when the pipeline is set up.

        Args:
            recognisers: The vendors', the one to begin with first.
            health: Of the vendors, shared by all calls of the process.
            rate_hz: Sample rate of the caller's audio.
            limits: When a recogniser has failed.
            deaf_limits: When all have.

        Raises:
            ValueError: If there is no recogniser, or one that proposes turns stands in for one that does not.
        """
        if not recognisers:
            raise ValueError("a call needs a recogniser")
        self.proposes_turns = recognisers[0].proposes_turns
        if not self.proposes_turns and any(other.proposes_turns for other in recognisers):
            raise ValueError("a recogniser that proposes turns must be the first")
        super().__init__(
            sample_rate=rate_hz,
            audio_passthrough=False,  # nobody behind the recogniser wants the caller's audio
            ttfs_p99_latency=_TTFS_S,
            settings=STTSettings(model=None, language=None),
        )
        self.recognisers = tuple(recognisers)
        self._health = health
        self._rate_hz = rate_hz
        self._replay = CallerReplay(rate_hz=rate_hz)
        self._watch = HearingWatch(limits)
        self._deafness = Deafness(deaf_limits)
        self._leg: _Leg | None = None
        self._order = DialOrder(self.recognisers)
        self._losses = HearingLosses()
        self._doubted: Recogniser | None = None
        """Who heard no word where another was asked."""
        self._edge: VADUserStoppedSpeakingFrame | None = None
        """The end of the last speech, while nothing else was said."""
        self._quiet_since_s = 0.0
        self._delay = WordsDelay()
        self._has_given_up = False
        self._better = BetterRecogniser(health, self._replay, rate_hz=rate_hz, tell=self._tell)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._partings: set[asyncio.Task[None]] = set()
        self._turns = StandInTurns()
        self._proposing: asyncio.Task[None] | None = None
        self._is_released = False
        self._register_event_handler("on_recogniser_failed")
        self._register_event_handler("on_recognisers_failed")

    @property
    def supports_ttfs(self) -> bool:
        """Whether the wait for final words means anything: not when turns are proposed with them."""
        return not self.proposes_turns

    @property
    def listening(self) -> Recogniser | None:
        """Who listens now, None if nobody does."""
        return None if self._leg is None else self._leg.recogniser

    # Life

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Begin to dial; does not wait for it: a vendor that hangs must not hold up the call."""
        await super().setup(setup)
        for recogniser in self.recognisers:
            await recogniser.open(setup, self)
        self._tasks.append(self.create_task(self._keep(), "keep_hearing"))
        self._tasks.append(self.create_task(self._look_after(), "watch_hearing"))

    async def stop(self, frame: EndFrame) -> None:
        """Tell what was used, then let go of the vendors."""
        await self._report_usage()
        await super().stop(frame)
        await self._release()

    async def cancel(self, frame: CancelFrame) -> None:
        """Let go of the vendors at once."""
        await self._report_usage()
        await super().cancel(frame)
        await self._release()

    async def cleanup(self) -> None:
        """Let go of the vendors, however the call ends."""
        await super().cleanup()
        await self._release()

    async def _report_usage(self) -> None:
        if not self._is_released:
            for recogniser in self.recognisers:
                await recogniser.report_usage()

    async def _release(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        leg, self._leg = self._leg, None
        tasks, self._tasks = self._tasks, []
        proposing, self._proposing = self._proposing, None
        feeding = leg.feeding if leg is not None else None
        for task in [*tasks, feeding, proposing, *self._partings]:
            if task is not None:
                await self.cancel_task(task)
        closing = [asyncio.ensure_future(recogniser.close()) for recogniser in self.recognisers]
        await asyncio.wait(closing, timeout=CLOSE_LIMIT_S)
        for task in closing:
            task.cancel()

    # The line

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Take the caller's next audio; words come by the recognisers."""
        await self._hear(audio)
        yield None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take the caller's audio and the edges of their speech; pass everything else."""
        if type(frame) is InputAudioRawFrame:  # fifty times a second: nothing else needs to know of it
            await self._hear(frame.audio)
            return
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._speech_began(frame.start_secs)
        elif isinstance(frame, CallerResumedFrame):
            self._speech_began(0.0)
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._speech_ended(frame)
        await super().process_frame(frame, direction)
        if isinstance(
            frame,
            VADUserStartedSpeakingFrame
            | VADUserStoppedSpeakingFrame
            | CallerPausedFrame
            | CallerResumedFrame,
        ):
            await self._tell_edge(frame)
        elif isinstance(frame, LLMContextAssistantTurnFrame):
            for recogniser in self.recognisers:  # whoever takes over knows what was asked
                await self._give(recogniser, frame)

    async def _handle_vad_user_stopped_speaking(self, frame: VADUserStoppedSpeakingFrame) -> None:
        """Measure nothing: the turn records have it."""

    async def _hear(self, pcm: bytes) -> None:
        if not pcm:
            return
        replay, leg = self._replay, self._leg
        replay.add(pcm)
        if leg is None or not leg.is_live:
            return
        if not leg.recogniser.is_writable:  # the task waits for it, and is watched
            self._feed(leg)
            return
        leg.course.sent = replay.end
        try:
            await leg.recogniser.hear(pcm)
        except RecogniserFailure as failure:
            await self._fail(leg, failure)

    def _speech_began(self, ago_s: float) -> None:
        self._edge = None
        self._replay.speech_began(ago_s)
        self._watch.speech_began(self._replay.end_s - ago_s)
        self._deafness.speech_began()
        self._changed.set()

    def _speech_ended(self, frame: VADUserStoppedSpeakingFrame) -> None:
        now_s = self._now_s()
        ago_s = now_s - frame.at_s if isinstance(frame, CallerStoppedFrame) else frame.stop_secs
        self._edge, self._quiet_since_s = frame, now_s
        self._replay.speech_ended(ago_s)
        self._watch.speech_ended(self._replay.end_s - ago_s, now_s)
        self._deafness.speech_ended(now_s - ago_s)
        self._changed.set()

    async def _tell_edge(self, frame: Frame) -> None:
        leg = self._leg
        if leg is not None and leg.is_live:
            leg.note_asked(frame)
            await self._give(leg.recogniser, frame)
        elif leg is not None:
            leg.edges.append((self._replay.end, frame))
        is_stand_in = self.proposes_turns and leg is not None and not leg.recogniser.proposes_turns
        if isinstance(frame, VADUserStoppedSpeakingFrame) and is_stand_in:
            self._propose_later()
        elif isinstance(frame, VADUserStartedSpeakingFrame | CallerResumedFrame):
            await self._stop_proposing()
            if is_stand_in and isinstance(frame, VADUserStartedSpeakingFrame):
                await self.push_frame(ProposedUserStartedSpeakingFrame())

    async def _give(self, recogniser: Recogniser, frame: Frame) -> None:
        try:
            async with asyncio.timeout(SEND_LIMIT_S):
                await recogniser.take(frame)
        except (RecogniserFailure, TimeoutError) as error:
            leg = self._leg
            if leg is not None and leg.recogniser is recogniser:
                await self._fail(leg, RecogniserFailure.of(error))

    # Keeping a recogniser

    async def _keep(self) -> None:
        """Have somebody listen, as long as the call lasts."""
        rounds, failed_in_round = 0, set[str]()
        while True:
            recogniser = self._order.next(
                tried=failed_in_round, is_well=self._health.is_well, doubted=self._doubted
            )
            if recogniser.vendor in failed_in_round:  # all were tried
                rounds, failed_in_round = min(rounds + 1, len(_WAITS_S) - 1), set()
                await self._wait(_WAITS_S[rounds])
                continue
            failure = await dial(recogniser)
            if failure is not None:
                failed_in_round.add(recogniser.vendor)
                self._order.dial_failed(recogniser)
                self._blame(recogniser, failure.kind)
                await self._lose(recogniser, failure, "connect")
                continue
            leg = self._begin(recogniser)
            began_s = self._now_s()
            await self._stay(leg)
            if leg.is_caught_up and self._now_s() - began_s > _LOOK_AGAIN_S:
                rounds = 0
            failed_in_round = set()
            if rounds or self._order.keeps_failing(recogniser.vendor):
                rounds = min(rounds + 1, len(_WAITS_S) - 1)
                await self._wait(_WAITS_S[rounds - 1])

    async def _wait(self, wait_s: float) -> None:
        """Wait before another round; less while the caller speaks to nobody."""
        began_s = now_s = self._now_s()
        until_s = began_s + wait_s
        while now_s < until_s:
            if self._replay.is_pending and now_s - began_s >= _SPEECH_WAIT_S:
                return
            await asyncio.sleep(min(_TICK_S, until_s - now_s))
            now_s = self._now_s()

    def _begin(self, recogniser: Recogniser) -> _Leg:
        """Let a recogniser that is connected hear what was missed, and then the line."""
        replay = self._replay
        owed_s = self._watch.owed_from_s
        owed = None if owed_s is None else replay.place(owed_s)
        place = replay.start() if self._doubted is None else replay.opinion_start(owed)
        leg = _Leg(recogniser, ReplayCourse(replay, place, self._now_s()))
        ended = replay.place(self._watch.ended_s + NEAR_S)
        if self._replay.is_sounding:
            leg.edges.append((place, VADUserStartedSpeakingFrame()))
        elif self._edge is not None and place < ended:
            leg.edges += [(place, VADUserStartedSpeakingFrame()), (min(ended, replay.end), self._edge)]
        self._leg = leg
        self._watch.connected(
            self._now_s(),
            from_s=place / self._rate_hz,
            missed_s=(replay.end - place) / self._rate_hz,
            silence_limit_s=recogniser.silence_limit_s,
            acknowledges=recogniser.acknowledges,
        )
        self._feed(leg)
        self._changed.set()
        return leg

    @property
    def _has_missed(self) -> bool:
        """Whether there may be words that nobody has understood."""
        return self._replay.is_sounding or self._replay.is_pending or self._doubted is not None

    def _feed(self, leg: _Leg) -> None:
        leg.is_live = False
        if leg.feeding is None or leg.feeding.done():
            leg.feeding = self.create_task(self._send_missed(leg), "feed_recogniser")

    async def _send_missed(self, leg: _Leg) -> None:
        """Send what a leg has not heard, then let it hear the line live."""
        recogniser, course, most = leg.recogniser, leg.course, self._replay.place(PIECE_S)
        try:
            while self._leg is leg:
                is_behind = course.is_resting or not leg.is_caught_up
                if not (leg.edges or leg.is_caught_up) and course.rest(self._now_s()):
                    await asyncio.sleep(_REST_S)
                    continue
                if is_behind:
                    self._watch.left_out(course.leave_out_quiet() / self._rate_hz)
                place, edge = leg.edges[0] if leg.edges else (self._replay.end, None)
                async with asyncio.timeout(SEND_LIMIT_S):
                    if edge is not None and course.sent >= place:
                        leg.edges.pop(0)
                        leg.note_asked(edge)
                        await recogniser.take(edge)
                    elif piece := course.piece(min(most, max(1, place - course.sent))):
                        await recogniser.hear(piece)
                    else:
                        break
            leg.is_live = self._leg is leg
            if leg.is_live and not leg.is_caught_up and not self._has_missed:
                await self._catch_up(leg)
        except (RecogniserFailure, TimeoutError) as error:
            await self._fail(leg, RecogniserFailure.of(error))
        self._changed.set()

    async def _stay(self, leg: _Leg) -> None:
        """Wait until a leg is over; meanwhile return to a better recogniser when that is possible."""
        over = asyncio.ensure_future(leg.over.wait())
        try:
            while not over.done():
                is_first = leg.recogniser is self.recognisers[0]
                await asyncio.wait({over}, timeout=None if is_first else _LOOK_AGAIN_S)
                if not over.done() and not is_first and self._may_return(leg):
                    leg = await self._try_to_return(leg, over) or leg
        finally:
            over.cancel()

    async def _try_to_return(self, leg: _Leg, over: "asyncio.Future[Any]") -> _Leg | None:
        """Return to a better recogniser, unless the one that listens is lost meanwhile; then None, too."""
        before = self.recognisers[: self.recognisers.index(leg.recogniser)]
        returning = asyncio.ensure_future(self._better.find(before))
        try:
            await asyncio.wait({returning, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            returning.cancel()
        better = returning.result() if returning.done() and not returning.cancelled() else None
        if better is None:
            return None
        if self._leg is not leg or not self._may_return(leg):
            self._part(better)  # it is known to be well, and is returned to later
            return None
        if leg.feeding is not None:
            leg.feeding.cancel()
        self._part(leg.recogniser)
        new = self._begin(better)
        new.over, new.is_caught_up = leg.over, True
        return new

    def _may_return(self, leg: _Leg) -> bool:
        is_quiet = not self._replay.is_sounding and self._now_s() - self._quiet_since_s >= QUIET_S
        is_settled = leg.is_live and leg.is_caught_up and not self._replay.is_pending
        return is_quiet and is_settled and self._doubted is None and self._watch.state is Hearing.IDLE

    def _part(self, recogniser: Recogniser) -> None:
        """Leave a recogniser that is not needed any more."""
        parting = self.create_task(recogniser.disconnect(), f"leave_{recogniser.vendor}")
        self._partings.add(parting)
        parting.add_done_callback(self._partings.discard)

    # Failure

    async def _fail(self, leg: _Leg, failure: RecogniserFailure) -> None:
        """A leg is over: its recogniser cannot go on."""
        if self._leg is not leg:
            return
        self._leg = None
        now_s, vendor = self._now_s(), leg.recogniser.vendor
        if leg.feeding is not None and leg.feeding is not asyncio.current_task():
            leg.feeding.cancel()
        if failure.kind is not FailureKind.SILENT:
            await self._keep_shown(leg)
        leg.recogniser.cut()
        if self._order.lost(leg.recogniser, failure.kind):
            self._blame(leg.recogniser, failure.kind)
        if failure.kind is FailureKind.SILENT:
            self._doubted = leg.recogniser
        else:
            stage = "speaking" if self._replay.is_pending else "listening"
            self._losses.add(Loss(vendor, failure, stage if leg.is_caught_up else "replay", now_s))
            self._lost_hearing(now_s)
        leg.over.set()
        self._changed.set()
        await self._have_wait(now_s)

    def _blame(self, recogniser: Recogniser, kind: FailureKind) -> None:
        """A recogniser has failed, which is known to other calls, and to this one when it may be returned to."""
        self._health.failed(recogniser.vendor, kind, self._now_s())
        self._better.failed(recogniser.vendor, self._now_s())

    async def _keep_shown(self, leg: _Leg) -> None:
        """Let stand what a leg has shown of words, if hearing all of them again would take long."""
        replay = self._replay
        if not replay.is_pending or replay.end - replay.start() <= replay.place(MOST_REPLAY_S):
            return
        kept, from_s = standing(leg.recogniser.shown())
        if not kept:
            return
        place = leg.course.place_of(replay.place(from_s))
        replay.settle(place, place)
        replay.interim()  # the rest of it
        words = [{"word": word.text, "confidence": word.confidence} for word in kept]
        text = " ".join(word.text for word in kept)
        told = TranscriptionFrame(text, "", time_now_iso8601(), result={"words": words})
        self._turns.told(told)
        await self.push_frame(told)

    async def _lose(self, recogniser: Recogniser, failure: RecogniserFailure, stage: str) -> None:
        """A dial failed."""
        now_s = self._now_s()
        self._lost_hearing(now_s)
        await self._have_wait(now_s)
        if self._losses.knows(recogniser.vendor, stage):
            logger.debug("recogniser failed again: vendor={} {}", recogniser.vendor, failure)
            return
        self._losses.add(Loss(recogniser.vendor, failure, stage, now_s))
        self._changed.set()

    def _lost_hearing(self, now_s: float) -> None:
        """Nobody listens."""
        self._deafness.lost(now_s, spoken_s=self._quiet_since if self._replay.is_pending else None)

    @property
    def _quiet_since(self) -> float | None:
        """When the caller ended the last speech, None while they speak and if they have not spoken."""
        return None if self._edge is None else self._quiet_since_s

    async def _settle(self, action: str, recogniser: Recogniser | None = None) -> None:
        """Tell of the failures since: it is known now what they cost."""
        vendor = None if recogniser is None else recogniser.vendor
        for failed in self._losses.settle(
            action, self._now_s(), quiet_since_s=self._quiet_since, listening=vendor
        ):
            await self._tell(failed)

    async def _tell(self, failed: RecogniserFailed) -> None:
        await self._call_event_handler("on_recogniser_failed", failed)

    async def _look_after(self) -> None:
        """Watch whoever listens, and for how long nobody does."""
        while True:
            self._changed.clear()
            if self._is_busy():
                due_s = self._now_s() + _TICK_S
                await asyncio.sleep(_TICK_S)
                stall_s = self._now_s() - due_s
                if stall_s > _OWN_STALL_S:  # it was us: what the vendors sent meanwhile is read first
                    self._watch.stalled(stall_s, self._now_s())
                    continue
            else:
                await self._changed.wait()
            await self._look(self._now_s())

    def _is_busy(self) -> bool:
        return self._watch.state is not Hearing.IDLE or self._deafness.is_deaf

    async def _look(self, now_s: float) -> None:
        leg = self._leg
        if leg is not None:
            kind = self._watch.verdict(now_s, leg.course.sent / self._rate_hz)
            if kind is FailureKind.SILENT and self._doubted is not None:
                await self._catch_up(leg)  # it heard no words either
            elif kind is not None:
                await self._fail(leg, RecogniserFailure(kind))
        due_s = self._deafness.due_s
        is_hearing = self._leg is not None and self._watch.has_reported  # who does not get on is found out
        is_due = due_s is not None and now_s >= due_s and self._replay.end > 0
        if is_due and not is_hearing and not self._has_given_up:
            self._has_given_up = True
            await self._settle("gave_up")
            await self._call_event_handler("on_recognisers_failed")

    async def _have_wait(self, now_s: float) -> None:
        """Have those who decide by words wait, if any are late."""
        if not (self._replay.is_pending or self._doubted is not None):
            return
        await self.push_frame(WordsDelayedFrame(self._delay.late(now_s)))

    async def _have_wait_on(self) -> None:
        """Have them wait on: whoever hears the words again is getting on with it."""
        until_s = self._delay.shown(self._now_s())
        if until_s is not None:
            await self.push_frame(WordsDelayedFrame(until_s))

    # What recognisers tell

    async def recogniser_frame(self, recogniser: Recogniser, frame: Frame) -> None:
        """Pass on what a recogniser has for the pipeline."""
        if isinstance(frame, MetricsFrame):
            for report in frame.data:
                if isinstance(report, STTUsageMetricsData):
                    report.processor = recogniser.vendor
            await self.push_frame(frame)
            return
        leg = self._leg
        if leg is None or leg.recogniser is not recogniser:
            return
        is_proposal = isinstance(frame, ProposedUserStartedSpeakingFrame | ProposedUserStoppedSpeakingFrame)
        if is_proposal and not self.proposes_turns:
            return
        if isinstance(frame, TranscriptFlushedFrame):
            self._watch.flushed(leg.asked / self._rate_hz)
            ended = self._replay.place(self._watch.ended_s + NEAR_S)
            self._replay.dismiss(min(leg.asked or leg.course.sent, ended))
        self._turns.told(frame)
        await self.push_frame(frame)

    async def recogniser_reported(self, recogniser: Recogniser, report: Report) -> None:
        """Note how far a recogniser has listened."""
        if self._better.reported(recogniser, report):
            return
        leg = self._leg
        if leg is None or leg.recogniser is not recogniser:
            return
        until = None if report.until_s is None else leg.course.place_of(self._replay.place(report.until_s))
        self._watch.reported(
            None if until is None else until / self._rate_hz,
            has_words=report.has_words,
            is_answer=report.is_answer,
        )
        if report.words_until_s is not None:
            words_end = leg.course.place_of(self._replay.place(report.words_until_s))
            self._better.understood(self._replay.settled, words_end)
            self._replay.settle(words_end, words_end if until is None else max(until, words_end))
        elif report.has_words:
            self._replay.interim()
        elif report.is_answer and until is not None:
            self._replay.dismiss(until - self._replay.place(NEAR_S))  # a word may have begun there
        if report.has_words:
            self._settle_doubt(leg, until)
            await self._have_wait_on()
        if report.words_until_s is not None:
            self._understood(leg)
        if not leg.is_caught_up and self._is_caught_up(leg, until, report):
            await self._catch_up(leg)
        self._changed.set()

    def _understood(self, leg: _Leg) -> None:
        """A recogniser has told final words. Others may be no more than what it shows each time before it fails."""
        self._order.understood()
        self._health.succeeded(leg.recogniser.vendor)
        self._deafness.heard()

    def _settle_doubt(self, leg: _Leg, until: int | None) -> None:
        """A recogniser has heard words: where they were, another heard none."""
        doubted, self._doubted = self._doubted, None
        was_there = until is None or until <= leg.course.until + self._replay.place(NEAR_S)
        if doubted is not None and was_there:
            failure = RecogniserFailure(FailureKind.SILENT, "no words where another heard some")
            if doubted is not leg.recogniser:
                self._blame(doubted, failure.kind)
            self._losses.add(Loss(doubted.vendor, failure, "speaking", self._quiet_since_s))

    def _is_caught_up(self, leg: _Leg, until: int | None, report: Report) -> bool:
        """Whether a leg's replay is over: it was listened to, and its words are told if it was the end of speech."""
        if not (leg.is_live or leg.course.is_resting):
            return False
        near = self._replay.place(NEAR_S)
        if self._replay.is_sounding:
            return until is not None and until >= leg.course.until - near
        if not self._has_missed:
            return True
        is_end = until is not None and until >= self._replay.place(self._watch.ended_s) - near
        return report.is_answer and is_end

    async def _catch_up(self, leg: _Leg) -> None:
        leg.is_caught_up = True
        self._deafness.heard()
        if self._doubted is not None:  # it heard no words either
            self._doubted = None
            self._watch.opinion_given()
            noise_end = min(leg.course.until, self._replay.place(self._watch.ended_s))
            self._replay.settle(noise_end, noise_end)
        await self._settle("none", leg.recogniser)
        if self._delay.there():
            await self.push_frame(WordsDelayedFrame(None))

    async def recogniser_lost(self, recogniser: Recogniser, failure: RecogniserFailure) -> None:
        """A recogniser's connection is gone."""
        if self._better.lost(recogniser, failure):
            return
        if self._leg is not None and self._leg.recogniser is recogniser:
            await self._fail(self._leg, failure)

    # Turns, when a recogniser that proposes none stands in for one that does

    def _propose_later(self) -> None:
        if self._proposing is None or self._proposing.done():
            self._turns.asked()
            self._proposing = self.create_task(self._propose(), "propose_turn_end")

    async def _propose(self) -> None:
        if await self._turns.due():
            await self.push_frame(ProposedUserStoppedSpeakingFrame())

    async def _stop_proposing(self) -> None:
        proposing, self._proposing = self._proposing, None
        if proposing is not None:
            await self.cancel_task(proposing)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
