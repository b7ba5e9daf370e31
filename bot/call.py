"""A call: built while it rings, live on a line, ended once, everything released.

The greeting is heard as soon as there is a line. The pipeline may come later, when many calls come at once and build
theirs in turn; what the caller says before that is kept.

`Call` owns every task of the call, and joins those who do its work: `CallLife` keeps the books of where it is,
`CallPipeline` has its processors, `CallSpeech` says its fixed lines, `CallFlow` steps through the agent's flow,
`CallOpening`, `CallerAbsence`, `Farewell` and `PersonWatch` know what is done when. Whoever wants the call to end says
so with `end`; the first reason counts. It is released within `RELEASE_LIMIT_S` whatever of it hangs: carrier,
pipeline or disk.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from loguru import logger
from pipecat.flows import Flow, FlowError
from pipecat.frames.frames import LLMConfigureOutputFrame, MetricsFrame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.processors.frameworks.rtvi.frames import RTVIServerMessageFrame

from bot.agent import Agent
from bot.call_events import CallEvents
from bot.call_flow import CallFlow
from bot.call_keeper import CallKeeper
from bot.call_life import CallLife, CallState, CallTimes, EndReason
from bot.call_opening import CallOpening
from bot.call_pipeline import CallPipeline
from bot.call_speech import CallSpeech
from bot.caller_absence import CallerAbsence
from bot.caller_intake import CallerIntake
from bot.farewell import Farewell
from bot.flow_events import FlowEvents
from bot.flow_tiers import flow_tiers
from bot.handoff_case import Briefing, briefing_of
from bot.handoff_reasons import CallerPatience, HandoffReason, Patience
from bot.line_files import LineFiles
from bot.lines import fixed_lines
from bot.person_branch import PersonBranch
from bot.person_watch import PersonWatch
from bot.pipeline import CallGraph, GraphParts, build_graph, build_playout
from bot.pipeline_events import PipelineEvents, Reactions
from bot.ready_lines import ReadyLines
from bot.resources import Resources
from bot.saved_context import heard_since_caller, saved_messages, with_unfinished
from bot.usage import count_usage
from flows.business import Business, PersonAnswer
from integrations.callbacks import is_open
from processors.language import load_language
from processors.line_sounds import LineSound
from processors.playout import PlayoutWire
from processors.recognisers import RecogniserFailed
from processors.turn_record import TurnLedger, TurnRecord
from processors.voices import VoiceFailed
from store.calls import CallPhase, SavedCall

LINE_LIMIT_S = 20.0
"""A call whose line has not come by then is let go."""
SILENT_LIMIT_S = 120.0
"""A call in which nobody has said anything for this long is stuck."""
HANG_UP_LIMIT_S: Final = 1.6
"""For the carrier; with the tail below within the release's limit."""
DISK_SHARE_S: Final = 0.1
"""Of the release's limit, kept for the recording's last block when the pipeline takes the rest."""
CARRIER_TAIL_S: Final = 0.3
"""Played at the carrier is not yet heard at the ear."""


class GivesUp(Protocol):
    """Takes a call over that cannot be answered: the seam for a hand-off to a person."""

    async def __call__(self, call: "Call", reason: str) -> None:
        """Take over, or end the call.

        Args:
            call: The call; nothing of the agent's is made or said any more.
            reason: What the caller waited for, e.g. `model`, `voice` or `hearing`.
        """
        ...


class HandsOff(Protocol):
    """Puts a call through to a person, outside of the model's turn."""

    def __call__(self, call: "Call", reason: HandoffReason, *, about: str = "") -> PersonAnswer:
        """Begin, unless it is under way or nobody could come. Returns at once.

        Args:
            call: The call; once somebody is rung nothing of the agent's is said any more.
            reason: Why.
            about: What the caller wants, for the person.
        """
        ...


class Channel(enum.StrEnum):
    """What kind of line the caller is on."""

    PHONE = "phone"
    BROWSER = "browser"
    EVAL = "eval"


@dataclass(frozen=True)
class CallSetup:
    """What is known of a call before it is answered."""

    call_sid: str
    agent: Agent
    flow: Flow
    events: FlowEvents
    """What follows, without asking the model, when nobody speaks."""
    channel: Channel
    rate_hz: int
    caller_number: str = ""
    hang_up: Callable[[], Awaitable[object]] | None = None
    """Ends the call at the carrier; a browser has none."""
    transport_in: tuple[FrameProcessor, ...] = ()
    transport_out: tuple[FrameProcessor, ...] = ()
    rtvi: bool = False
    is_typed: bool = False
    """The caller types and reads: silence on the line means nothing."""
    on_turn: Callable[[TurnRecord], None] | None = None
    on_recogniser_failed: Callable[[RecogniserFailed], None] | None = None
    on_voice_failed: Callable[[VoiceFailed], None] | None = None
    give_up: GivesUp | None = None
    """Who takes the call when the agent cannot answer; None apologises and ends it."""
    hand_off: HandsOff | None = None
    """Who puts the caller through to a person; None if nobody can, on this line."""
    folder: Path | None = None
    """Where its recording goes; None records nothing."""
    resumed: SavedCall | None = None
    """What was saved of it, when this is not its first line."""


class Call:
    """One call. Make it, give `run` a task, then put it on a line."""

    def __init__(self, setup: CallSetup, resources: Resources) -> None:
        """Prepare; nothing is built or connected before `run`."""
        agent, rate_hz, resumed = setup.agent, setup.rate_hz, setup.resumed
        language = agent.config.language
        self.setup = setup
        self._resources = resources
        self.events = CallEvents(
            resources.stores.events, call_sid=setup.call_sid, agent=agent.slug, usage=resources.usage
        )
        """What happens in the call, for the event log."""
        self.life = CallLife()
        self.turns = TurnLedger(started_s=self.life.times.began_s, on_complete=self._on_turn)
        self.files = LineFiles(
            setup.folder, part=1 if resumed is None else len(resumed.resumes) + 1, rate_hz=rate_hz
        )
        playout = build_playout(
            agent.config, rate_hz=rate_hz, turns=self.turns, recording=self.files.recording
        )
        self.pipeline = CallPipeline(playout, resources.builds)
        self.intake = CallerIntake(self.pipeline, rate_hz=rate_hz, recording=self.files.recording)
        """Hears the caller."""
        self.speech = CallSpeech(
            ReadyLines(agent, resources, rate_hz=rate_hz, call_sid=setup.call_sid),
            self.pipeline,
            language=language,
            over=self.life.end_asked,
        )
        self.farewell = Farewell(self.speech, self.pipeline, language=language, end=self.end)
        limits = Patience(failed_turns=agent.config.handoff.after_failed_turns)
        self.persons = PersonWatch(CallerPatience(load_language(language), limits), self._hand_off)
        self.flow = CallFlow(setup.flow, self._business(), resumed=resumed)
        self.branch = PersonBranch(
            setup.events,
            self.pipeline,
            speech=self.speech,
            farewell=self.farewell,
            flow=self.flow,
            is_anybody_there=self._is_anybody_there,
        )
        self.absence = CallerAbsence(
            fixed_lines(language),
            setup.events,
            speech=self.speech,
            farewell=self.farewell,
            flow=self.flow,
            turns=self.turns,
            end=self.end,
        )
        self.keeper: CallKeeper | None = None
        """Writes the call down; None when nobody could go on with it."""
        self.greeted = asyncio.Event()
        """Set in an eval when the flow is in place and the greeting was heard: what comes earlier would be lost."""
        self._has_given_up = False

    @property
    def state(self) -> CallState:
        """Where it is in its life."""
        return self.life.state

    @property
    def end_reason(self) -> EndReason | None:
        """Why it ends; None while nobody has asked for that."""
        return self.life.end_reason

    @property
    def times(self) -> CallTimes:
        """When it got there."""
        return self.life.times

    @property
    def ended(self) -> asyncio.Event:
        """Set when everything is released."""
        return self.life.ended

    @property
    def duration_s(self) -> float:
        """Seconds since the line came up, until now or the end."""
        return self.life.duration_s

    # What others do with it

    def end(self, reason: EndReason) -> None:
        """Ask for the end; only the first reason counts. Returns at once."""
        if self.life.ask_end(reason):
            self.pipeline.stop_watching()

    def keep(self, keeper: CallKeeper) -> None:
        """Have the call written down from now on; before `run`."""
        self.keeper = keeper
        keeper.follow(self._to_save)

    async def put_on(self, wire: PlayoutWire) -> None:
        """The caller's line is up: open the playout and greet, or go on, at once."""
        playout = self.pipeline.playout
        if playout is None or (line_s := self.life.line_came()) is None:
            return
        self.turns.line_up(line_s)
        self._changed()
        self.files.begin(self._resources.disk)
        self.events.began(channel=self.setup.channel)
        playout.connect(wire)
        playout.play_ahead()
        self._watch_silences()
        opening = CallOpening(
            self.setup.agent.config,
            speech=self.speech,
            farewell=self.farewell,
            flow=self.flow,
            pipeline=self.pipeline,
        )
        if self.setup.resumed is None:
            await opening.greet()
        else:
            await opening.go_on(self.setup.resumed)

    async def hear(self, pcm: bytes) -> None:
        """Take the caller's next audio: s16le mono at the call's rate."""
        await self.intake.hear(pcm)

    async def press(self, digit: str) -> None:
        """The caller pressed a key: one of 0-9, *, #, A-D."""
        await self.intake.press(digit)

    def mark_played(self, name: str) -> None:
        """The line says that what was sent before mark `name` was played."""
        if self.pipeline.playout is not None:
            self.pipeline.playout.mark_played(name)

    # For a hand-off

    def briefing(self, about: str = "") -> Briefing:
        """Return what is known of the caller, for a person.

        Args:
            about: What they want, if that is known.
        """
        graph = self.pipeline.graph
        return briefing_of(self.flow.state, [] if graph is None else graph.context.messages, about)

    async def say_last(self, text: str) -> bool:
        """Say a fixed line that nobody can stop, and nothing behind it; wait until it was heard.

        Returns:
            False if its sound is not there: then nothing is said, for the voice may be what has failed.
        """
        return await self.speech.say_last(text)

    def pass_on(self) -> None:
        """From now on the caller is the carrier's: whatever ends this call does not end theirs."""
        self.life.pass_on()

    async def say_trouble_and_end(self) -> None:
        """Say that we have trouble, if that can be said, and end the call."""
        await self.farewell.say_trouble()

    # The owner

    async def run(self) -> None:
        """Live the call from ring to release. Never raises for what happens in the call."""
        with logger.contextualize(call=self.setup.call_sid):
            # Not in the group below, which would wait for a processor that does not let itself be cancelled.
            pipeline = asyncio.create_task(self._run_pipeline(), name="pipeline")
            try:
                async with asyncio.TaskGroup() as tasks:
                    beside = [tasks.create_task(self._watch(), name="watch")]
                    if self.keeper is not None:
                        beside.append(tasks.create_task(self.keeper.run(), name="keeper"))
                    reason = await self.life.until_end_asked()
                    self.life.ending()
                    for task in beside:
                        task.cancel()
                    # Beside each other: a carrier that does not answer must not keep what the call holds.
                    tasks.create_task(self._hang_up(reason), name="hang_up")
                    await self.pipeline.stop(pipeline, self._left_but_for_the_disk_s)
            finally:
                pipeline.cancel()
                await self._finish()

    async def _run_pipeline(self) -> None:
        try:
            await self.pipeline.run(lambda: build_graph(self._parts()), self._listen_to)
        finally:
            self.end(EndReason.FAILED)

    async def _watch(self) -> None:
        """End the call when its line never comes, when it is too long, and when it is stuck."""
        try:
            async with asyncio.timeout(LINE_LIMIT_S):
                await self.life.line_up.wait()
        except TimeoutError:
            self.end(EndReason.LINE_NEVER_CAME)
            return
        longest_s = self.setup.agent.config.limits.max_call_minutes * 60 - self._earlier_s
        while self.duration_s < longest_s:
            await asyncio.sleep(min(1.0, max(0.01, longest_s - self.duration_s)))
            if self.life.silent_s > SILENT_LIMIT_S:
                self.end(EndReason.STUCK)
                return
        await self.pipeline.built()
        goodbye = fixed_lines(self.setup.agent.config.language).max_length_goodbye
        await self.farewell.say(goodbye, EndReason.MAX_LENGTH)

    @property
    def _earlier_s(self) -> float:
        """Seconds of the call's lines before this one."""
        saved = self.setup.resumed
        return 0.0 if saved is None else (self.times.started_at - saved.started_at).total_seconds()

    def _left_but_for_the_disk_s(self) -> float:
        return self.life.release_left_s(but_s=DISK_SHARE_S)

    async def _hang_up(self, reason: EndReason) -> None:
        """Write down that the call is over, before anybody can ask, and end it at the carrier; or neither."""
        tail_s = CARRIER_TAIL_S if reason.follows_a_goodbye else 0.0
        is_ours, _ = await asyncio.gather(self._close_state(reason), asyncio.sleep(tail_s))
        if self.setup.hang_up is None or self.times.line_s is None or not is_ours:
            return
        if reason.leaves_the_carrier:
            return
        try:
            async with asyncio.timeout(min(HANG_UP_LIMIT_S, self._left_but_for_the_disk_s())):
                await self.setup.hang_up()
        except Exception as error:  # noqa: BLE001 - closing the line ends the call too, by the TwiML behind it
            self.events.failed(
                vendor="twilio",
                kind="timeout" if isinstance(error, TimeoutError) else type(error).__name__,
                stage="hang_up",
                action="line_closed",
                cost_s=0.0,
                layer="carrier",
                detail=str(error),
            )

    async def _close_state(self, reason: EndReason) -> bool:
        """Write the call down for the last time; return whether it is ours to end, and over."""
        if self.keeper is None:
            return True
        if reason is EndReason.TAKEN_BY_OTHER_WORKER:
            self.keeper.give_up()
            return False
        if reason.may_go_on:
            await self.keeper.flush()
            return False
        is_left = reason.leaves_the_carrier or self.times.line_s is None
        return await self.keeper.finish(asks_owner=not is_left)

    async def _finish(self) -> None:
        try:
            self.turns.ended(asyncio.get_running_loop().time())
        except Exception as error:  # noqa: BLE001 - whoever holds the line lets go of it when the call has ended
            logger.exception("the last turn was not noted: {}", error)
        await self.files.close(timeout_s=self.life.release_left_s())
        await self.pipeline.let_go()
        self.intake.close()
        self.flow.let_go()
        self.setup = replace(self.setup, transport_in=(), transport_out=())
        self.life.released()
        self._tell_end()

    def _tell_end(self) -> None:
        release_s, counts = self.times.release_s, self.turns.counts
        silence_cause = counts.longest_silence_cause or "none"
        if self.end_reason is not EndReason.TAKEN_BY_OTHER_WORKER:  # which tells how it goes on
            self.events.ended(
                reason=str(self.end_reason),
                duration_s=self.duration_s,
                release_s=release_s,
                longest_silence_s=counts.longest_silence_s,
                silence_cause=silence_cause,
            )
        logger.info(
            "call ended: reason={} duration_s={:.1f} release_s={:.2f} longest_silence_s={:.2f} silence_cause={}",
            self.end_reason,
            self.duration_s,
            release_s,
            counts.longest_silence_s,
            silence_cause,
        )

    # Joining

    def _parts(self) -> GraphParts:
        setup, lines = self.setup, self.speech.lines
        if self.pipeline.playout is None:
            raise RuntimeError(f"call {setup.call_sid} has ended")
        return GraphParts(
            agent=setup.agent,
            services=self._resources.services(setup.agent, setup.rate_hz),
            models=self._resources.models,
            turns=self.turns,
            playout=self.pipeline.playout,
            recording=self.files.recording,
            opener=lines.sound_in_memory,
            opener_missing=lines.render,
            openers=lines.openers,
            on_sentence=lines.note_sentence,
            on_line_sound=self._on_line_sound,
            ask=self.speech.say,
            give_up=self._give_up,
            repair_listener=self.persons,
            model_listener=self.events,
            on_silence=self.events.silence,
            unsaid=self.speech.unsaid,
            tiers=flow_tiers(setup.flow.config),
            on_step=self._changed,
            flow_node=lambda: self.flow.node,
            transport_in=setup.transport_in,
            transport_out=setup.transport_out,
            rtvi=setup.rtvi,
        )

    def _business(self) -> Business:
        books = self._resources.books[self.setup.agent.slug]
        return Business(
            calendar=books.calendar,
            messages=books.messages,
            timezone=books.timezone,
            hours=books.hours,
            call_sid=self.setup.call_sid,
            caller_number=self.setup.caller_number,
            now=lambda: datetime.now(UTC),
            request_end=self.farewell.after_these_words,
            language=self.setup.agent.config.language,
            request_person=self.persons.asked,
            unavailable=self._on_book_unavailable,
        )

    def _on_book_unavailable(self, book: str, stage: str, error: Exception, waited_s: float) -> None:
        self.events.failed(
            vendor=book,
            kind="unavailable",
            stage=stage,
            action="told_so",
            cost_s=waited_s,
            layer="book",
            detail=str(error),
        )

    def _listen_to(self, graph: CallGraph) -> None:
        self.flow.prepare(graph)
        reactions = Reactions(
            started=self._on_started,
            turn_started=self.farewell.take_back,
            turn_stopped=self._on_turn_stopped,
            reply_over=self._on_reply_over,
            caller_silent=lambda action: self.absence.caller_silent(graph, action),
            last_word_heard=lambda: self.end(EndReason.AGENT_ENDED),
            used=self._count_usage,
            voice_failed=self._on_voice_failed,
            voices_failed=self._on_voices_failed,
            recogniser_failed=self._on_recogniser_failed,
            recognisers_failed=self._on_recognisers_failed,
        )
        PipelineEvents(reactions).listen_to(graph)
        self._watch_silences()

    def _watch_silences(self) -> None:
        """Begin to watch for silence, once there are a line and a pipeline."""
        if self.setup.is_typed:
            self.pipeline.stop_watching()
        elif self.times.line_s is not None:
            self.pipeline.watch_silences()

    def _to_save(self) -> Mapping[str, Any]:
        """Return what another process needs to go on: fields of `SavedCall`."""
        phase = CallPhase.RINGING if self.times.line_s is None else CallPhase.LIVE
        phase = CallPhase.HANDING_OVER if self.life.is_passed_on else phase
        graph, place = self.pipeline.graph, self.flow.to_save()
        if graph is None or place is None:
            return {"phase": phase}
        messages = saved_messages(graph.context.messages)
        unfinished = graph.aggregators.assistant_half.aggregation_string()
        heard = heard_since_caller(messages, unfinished)
        return {
            **place,
            "phase": phase,
            "messages": with_unfinished(messages, unfinished),
            "about_to_say": self.speech.unsaid.to_say_again(heard) or "",
            "is_caller_talking": self.speech.unsaid.is_caller_talking,
            "is_ending": self.farewell.is_meant,
        }

    # What happens in the pipeline

    async def _on_started(self) -> None:
        graph = self.pipeline.require()
        if self.setup.is_typed:
            # From the head, so that RTVI knows it too and does not turn the voice back on.
            await graph.worker.queue_frame(LLMConfigureOutputFrame(skip_tts=True))
        try:
            await self.flow.enter(graph.worker)
        except FlowError as error:  # Pipecat would only log it, and the agent would know nothing
            logger.error("the flow did not start: {}", error)
            self.end(EndReason.FAILED)
            return
        await graph.playout.let_through()
        await self.intake.hand_over()
        if self.setup.channel is Channel.EVAL:
            await graph.worker.flush_pipeline()
            self.greeted.set()

    def _on_turn_stopped(self, text: str) -> None:
        self.life.sign()
        self._changed()
        self.persons.turn_over(text)

    def _on_reply_over(self) -> None:
        if self.setup.is_typed:  # what is typed is no turn of speech: its answer shows that somebody is there
            self.life.sign()
        self._changed()

    def _on_turn(self, record: TurnRecord) -> None:
        if self.setup.on_turn is not None:
            self.setup.on_turn(record)
        if self.setup.rtvi and self.pipeline.graph is not None and self.state is CallState.LIVE:
            message = RTVIServerMessageFrame(data={"type": "turn", "turn": record.to_json()})
            worker = self.pipeline.graph.worker
            worker.create_task(worker.queue_frame(message), "turn_message")

    def _on_line_sound(self, sound: LineSound) -> None:
        graph = self.pipeline.graph
        if graph is not None and self.state is CallState.LIVE and not self.setup.is_typed:
            self.absence.no_person(graph, sound)

    def _on_voice_failed(self, failed: VoiceFailed) -> None:
        self.events.voice_failed(failed)
        if self.setup.on_voice_failed is not None:
            self.setup.on_voice_failed(failed)

    async def _on_voices_failed(self) -> None:
        if self.pipeline.graph is not None and self.end_reason is None:
            await self._give_up("voice")

    def _on_recogniser_failed(self, failed: RecogniserFailed) -> None:
        self.events.recogniser_failed(failed)
        if self.setup.on_recogniser_failed is not None:
            self.setup.on_recogniser_failed(failed)

    async def _on_recognisers_failed(self) -> None:
        if self.pipeline.graph is not None and self.end_reason is None and not self.setup.is_typed:
            await self._give_up("hearing")

    async def _give_up(self, reason: str) -> None:
        """The caller waits and nothing helps."""
        if self._has_given_up:
            return
        self._has_given_up = True
        logger.error("the caller cannot be answered: cause={}", reason)
        self.events.gave_up(reason)
        self.pipeline.require().silence.stop()
        if self.setup.give_up is not None:
            await self.setup.give_up(self, reason)
        else:
            await self.farewell.say_trouble()

    def _hand_off(self, reason: HandoffReason, about: str) -> PersonAnswer:
        """Put the caller through to a person, if this line can and anybody could come; or where the flow says."""
        if reason is HandoffReason.ASKED and self.state is CallState.LIVE and self.branch.take():
            return PersonAnswer.ELSEWHERE
        if self.setup.hand_off is None or self.state is not CallState.LIVE:
            return PersonAnswer.NOBODY
        return self.setup.hand_off(self, reason, about=about)

    def _is_anybody_there(self) -> bool:
        books = self._resources.books[self.setup.agent.slug]
        return is_open(books.hours, datetime.now(UTC).astimezone(books.timezone))

    def _count_usage(self, frame: MetricsFrame) -> None:
        services = self.setup.agent.config.services
        if self._resources.usage is not None:
            stt, tts = ([choice.name for choice in of] for of in (services.stt, services.tts))
            count_usage(frame, self._resources.usage, stt=stt, tts=tts)

    def _changed(self) -> None:
        """Something happened that must not be lost with this process."""
        if self.keeper is not None:
            self.keeper.changed()
