"""A call's life: built while it rings, live on a line, ended once, everything released.

    RINGING --line up--> LIVE --anything ends it--> ENDING --all released--> ENDED
    RINGING --nobody comes | refused | failed--> ENDING

`run` owns every task of the call. Whoever wants it to end says so with `end`; the first reason counts. The
call is released within `RELEASE_LIMIT_S` whatever of it hangs: carrier, pipeline or disk.
"""

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.flows import Flow, FlowError, FlowManager
from pipecat.frames.frames import (
    ControlFrame,
    Frame,
    InputDTMFFrame,
    InterruptionWorkerFrame,
    LLMConfigureOutputFrame,
    MetricsFrame,
    TTSSpeakFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.processors.frameworks.rtvi.frames import RTVIServerMessageFrame
from pipecat.workers.runner import WorkerRunner

from bot.agent import Agent
from bot.flow_events import Branch, FlowEvent, FlowEvents
from bot.line_recording import LineRecording
from bot.lines import fixed_lines
from bot.pipeline import CallGraph, GraphParts, build_graph
from bot.resources import Resources
from bot.services import HoldsSocket
from bot.usage import count_usage
from bot.voice_lines import line_in_memory, speech_key
from flows.business import Business, prompt_facts
from processors.audio_cache import CachedSpeech
from processors.caller_silence import Ask, CallerSilenceProcessor, SilenceAction
from processors.line_sounds import LineSound
from processors.playout import PlayoutWire, SpokenWord
from processors.recorder import StereoRecorder
from processors.speculation import SpeculationAccount
from processors.turn_record import TurnLedger, TurnRecord

LINE_LIMIT_S = 20.0
"""A call whose line has not come by then is let go."""
SILENT_LIMIT_S = 120.0
"""A call in which nobody has said anything for this long is stuck."""
GOODBYE_LIMIT_S = 12.0
"""Longest time to let last words be heard once the call is to end."""
HANG_UP_LIMIT_S = 1.6
"""With the tail below within the release's limit."""
RELEASE_LIMIT_S = 2.0
"""From the end being asked for until everything is released: carrier, pipeline and recording."""
_DISK_SHARE_S = 0.1
"""Of it, kept for the recording's last block when the pipeline takes the rest."""
_CANCEL_LIMIT_S = 1.2
_CANCEL_ROUNDS = 8
"""Who cleans up waits for what it cancels, step by step: each round of cancelling frees one step."""
_CARRIER_TAIL_S = 0.3
"""Played at the carrier is not yet heard at the ear."""
_KEYS = frozenset(entry.value for entry in KeypadEntry)


class Channel(enum.StrEnum):
    """What kind of line the caller is on."""

    PHONE = "phone"
    BROWSER = "browser"
    EVAL = "eval"


class CallState(enum.StrEnum):
    """Where a call is in its life."""

    RINGING = "ringing"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"


class EndReason(enum.StrEnum):
    """Why a call ended."""

    AGENT_ENDED = "agent_ended"
    CALLER_HUNG_UP = "caller_hung_up"
    NO_SPEECH = "no_speech"
    NO_PERSON = "no_person"
    """A fax, hold music or a recording was on the line."""
    MAX_LENGTH = "max_length"
    STUCK = "stuck"
    LINE_NEVER_CAME = "line_never_came"
    TAKEN_BY_OTHER_WORKER = "taken_by_other_worker"
    """Its line came to another process, where it goes on."""
    SERVER_STOPPING = "server_stopping"
    FAILED = "failed"

    @property
    def is_good(self) -> bool:
        """Whether a caller would call this a normal end."""
        return self in (EndReason.AGENT_ENDED, EndReason.CALLER_HUNG_UP)


_SAID_GOODBYE = (EndReason.AGENT_ENDED, EndReason.NO_SPEECH, EndReason.NO_PERSON, EndReason.MAX_LENGTH)


@dataclass
class LastWordFrame(ControlFrame):
    """Travels behind the agent's last words; when it comes out, they were heard. An interruption drops it."""


@dataclass
class LineSaidFrame(ControlFrame):
    """Travels behind a fixed line; when it comes out, the line was heard, or an interruption has dropped it."""

    said: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Outlive interruptions: whoever waits must know."""
        super().__post_init__()
        self.interruptible = False


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
    folder: Path | None = None
    """Where its recording goes; None records nothing."""


@dataclass
class CallTimes:
    """Moments of a call. Seconds of the event loop's clock."""

    began_s: float
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    line_s: float | None = None
    end_asked_s: float | None = None
    ended_s: float | None = None


class Call:
    """One call. Make it, give `run` a task, then put it on a line."""

    def __init__(self, setup: CallSetup, resources: Resources) -> None:
        """Prepare; nothing is built or connected before `run`."""
        self.setup = setup
        self._resources = resources
        self.state = CallState.RINGING
        self.end_reason: EndReason | None = None
        self._loop = asyncio.get_running_loop()
        self.times = CallTimes(self._loop.time())
        self.turns = TurnLedger(started_s=self.times.began_s, on_complete=self._on_turn)
        self._recording = None if setup.folder is None else LineRecording(rate_hz=setup.rate_hz)
        self._graph: CallGraph | None = None
        self._built = asyncio.Event()
        self._line_up = asyncio.Event()
        self._end_asked = asyncio.Event()
        self.greeted = asyncio.Event()
        """Set in an eval when the flow is in place and the greeting was heard: what comes earlier would be lost."""
        self.ended = asyncio.Event()
        """Set when everything is released."""
        self._flow: FlowManager | None = None
        self._told_no_person = False
        self._wants_end = False
        self._last_sign_s = self.times.began_s
        self.release_s = 0.0
        """Seconds from the end being asked for until everything was released."""
        self._marks_lost = 0
        self.speculation: SpeculationAccount | None = None
        """How thinking ahead went, None until the call has ended or when it never spoke."""

    @property
    def duration_s(self) -> float:
        """Seconds since the line came up, until now or the end."""
        if self.times.line_s is None:
            return 0.0
        return (self.times.ended_s or self._loop.time()) - self.times.line_s

    @property
    def marks_lost(self) -> int:
        """Marks that the line never returned."""
        return self._marks_lost

    # What others do with it

    def end(self, reason: EndReason) -> None:
        """Ask for the end; only the first reason counts. Returns at once."""
        if self.end_reason is None:
            self.end_reason = reason
            self.times.end_asked_s = self._loop.time()
            self._end_asked.set()
            if self._graph is not None:
                self._graph.silence.stop()

    async def put_on(self, wire: PlayoutWire) -> None:
        """The caller's line is up: open the playout and greet, at once."""
        await self._built.wait()
        if self._graph is None or self.state is not CallState.RINGING or self.end_reason is not None:
            return
        self._set_state(CallState.LIVE)
        self._line_up.set()
        self.times.line_s = self._last_sign_s = self._loop.time()
        self.turns.line_up(self.times.line_s)
        self._open_recording()
        self._graph.playout.connect(wire)
        if not self.setup.is_typed:
            self._graph.silence.line_up()
        config = self.setup.agent.config
        by_voice = False
        if config.announcement is not None:
            by_voice = await self.say(config.announcement.say, is_interruptible=config.announcement.barge_in)
        await self.say(config.greeting, by_voice=by_voice)

    async def hear(self, pcm: bytes) -> None:
        """Take the caller's next audio: s16le mono at the call's rate."""
        if self._graph is not None:
            await self._graph.caller.feed(pcm)

    async def press(self, digit: str) -> None:
        """The caller pressed a key: one of 0-9, *, #, A-D (which Pipecat does not know)."""
        if self._graph is not None and digit in _KEYS:
            await self._graph.caller.push_frame(InputDTMFFrame(KeypadEntry(digit)))

    def mark_played(self, name: str) -> None:
        """The line says that what was sent before mark `name` was played."""
        if self._graph is not None:
            self._graph.playout.mark_played(name)

    async def say(self, text: str, *, is_interruptible: bool = True, by_voice: bool = False) -> bool:
        """Speak a fixed line: from the cache at once, else by the voice.

        Args:
            text: The line.
            is_interruptible: Whether the caller may stop it; if not, it plays to its end.
            by_voice: By the voice all the same: it has to come behind a line that the voice is working on.

        Returns:
            Whether it is left to the voice.
        """
        graph = self._require_graph()
        rate_hz = self.setup.rate_hz
        key = speech_key(self.setup.agent, text, rate_hz)
        cached = None if by_voice else await self._resources.audio.get(key)
        if cached is None:
            spoken = TTSSpeakFrame(text)
            spoken.interruptible = is_interruptible
            await graph.worker.queue_frame(spoken)
            services = self._resources.services(self.setup.agent, rate_hz)
            self._resources.renderer.ask(self.setup.agent, text, services)
            return True
        words = [SpokenWord(word.text, word.start_s) for word in cached.words]
        graph.playout.speak(cached.pcm, words or [SpokenWord(text, 0.0)], is_interruptible=is_interruptible)
        return False

    # The owner

    async def run(self) -> None:
        """Live the call from ring to release. Never raises for what happens in the call."""
        with logger.contextualize(call=self.setup.call_sid):
            # Not in the group below, which would wait for a processor that does not let itself be cancelled.
            pipeline = asyncio.create_task(self._run_pipeline(), name="pipeline")
            try:
                async with asyncio.TaskGroup() as tasks:
                    watch = tasks.create_task(self._watch(), name="watch")
                    await self._end_asked.wait()
                    self._set_state(CallState.ENDING)
                    watch.cancel()
                    # Beside each other: a carrier that does not answer must not keep what the call holds.
                    tasks.create_task(self._hang_up(), name="hang_up")
                    await self._release(pipeline)
            finally:
                pipeline.cancel()
                await self._finish()

    async def _run_pipeline(self) -> None:
        try:
            self._graph = graph = build_graph(self._parts())
            self._built.set()
            self._listen_to(graph)
            runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
            await runner.add_workers(graph.worker)
            await runner.run()
        except Exception as error:  # noqa: BLE001 - whatever breaks a pipeline ends this call only
            logger.exception("the pipeline failed: {}", error)
        finally:
            self._built.set()
            self.end(EndReason.FAILED)

    async def _watch(self) -> None:
        """End the call when its line never comes, when it is too long, and when it is stuck."""
        try:
            async with asyncio.timeout(LINE_LIMIT_S):
                await self._line_up.wait()
        except TimeoutError:
            self.end(EndReason.LINE_NEVER_CAME)
            return
        longest_s = self.setup.agent.config.limits.max_call_minutes * 60
        while self.duration_s < longest_s:
            await asyncio.sleep(min(1.0, max(0.01, longest_s - self.duration_s)))
            if self._loop.time() - self._last_sign_s > SILENT_LIMIT_S:
                self.end(EndReason.STUCK)
                return
        await self._say_goodbye(
            fixed_lines(self.setup.agent.config.language).max_length_goodbye, EndReason.MAX_LENGTH
        )

    async def _say_goodbye(self, text: str, reason: EndReason) -> None:
        await self._say_to_its_end(text)
        self.end(reason)

    async def _say_to_its_end(self, text: str) -> None:
        """Speak a fixed line and wait until it was heard, also when the voice must render it first."""
        await self.say(text)
        line = LineSaidFrame()
        await self._require_graph().worker.queue_frame(line)
        # Once the call is over nobody says that it was heard, and the release waits for whoever waits here.
        waits = [asyncio.create_task(event.wait(), name="goodbye") for event in (line.said, self._end_asked)]
        try:
            await asyncio.wait(waits, timeout=GOODBYE_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _hang_up(self) -> None:
        if self.setup.hang_up is None or self.times.line_s is None:
            return
        if self.end_reason is EndReason.CALLER_HUNG_UP:
            return
        if self.end_reason in _SAID_GOODBYE:
            await asyncio.sleep(_CARRIER_TAIL_S)
        try:
            async with asyncio.timeout(HANG_UP_LIMIT_S):
                await self.setup.hang_up()
        except Exception as error:  # noqa: BLE001 - closing the line ends the call too, by the TwiML behind it
            logger.warning("the carrier did not hang up: {}", error)

    async def _release(self, pipeline: "asyncio.Task[None]") -> None:
        """Stop the pipeline: politely, then by escape, then task by task."""
        graph = self._graph
        if graph is not None and not pipeline.done():
            asking = asyncio.ensure_future(graph.worker.cancel())
            await asyncio.wait({pipeline}, timeout=_CANCEL_LIMIT_S)
            if not pipeline.done():
                await self._force(graph.worker, pipeline)
            asking.cancel()
        elif not pipeline.done():
            pipeline.cancel()
        await asyncio.wait({pipeline}, timeout=self._release_left_s(but_s=_DISK_SHARE_S))
        if not pipeline.done():
            logger.error("the pipeline cannot be stopped and is left behind")

    def _release_left_s(self, *, but_s: float = 0.0) -> float:
        """Return the seconds until everything has to be released, less `but_s`; not below 0."""
        asked_s = self.times.end_asked_s
        deadline_s = self._loop.time() if asked_s is None else asked_s + RELEASE_LIMIT_S
        return max(0.0, deadline_s - but_s - self._loop.time())

    async def _force(self, worker: PipelineWorker, pipeline: "asyncio.Task[None]") -> None:
        logger.warning("the pipeline did not stop in {} s: its tasks are cancelled", _CANCEL_LIMIT_S)
        with contextlib.suppress(Exception):  # a pipeline this broken may refuse even this
            await worker.queue_frame(InterruptionWorkerFrame(), FrameDirection.UPSTREAM)
        await asyncio.wait({pipeline}, timeout=0.2)
        for _ in range(_CANCEL_ROUNDS):
            if pipeline.done() or self._release_left_s(but_s=_DISK_SHARE_S) == 0:
                return
            for task in worker.task_manager.current_tasks():
                task.cancel()
            pipeline.cancel()
            await asyncio.wait({pipeline}, timeout=0.05)

    async def _finish(self) -> None:
        self.turns.ended(self._loop.time())
        if self._recording is not None:
            await self._recording.close(timeout_s=self._release_left_s())
        if self._graph is not None:
            self._marks_lost = self._graph.playout.marks_lost
            self.speculation = self._graph.account
            for service in (self._graph.stt, self._graph.tts):
                if isinstance(service, HoldsSocket):
                    service.drop_socket()
        # A call that is kept for the owner's pages keeps no pipeline: a browser's transport knows all of it.
        self._graph = self._flow = None
        self.setup = replace(self.setup, transport_in=(), transport_out=())
        self.times.ended_s = self._loop.time()
        self.release_s = self.times.ended_s - (self.times.end_asked_s or self.times.ended_s)
        self._set_state(CallState.ENDED)
        self.ended.set()
        logger.info(
            "call ended: reason={} duration_s={:.1f} release_s={:.2f}",
            self.end_reason,
            self.duration_s,
            self.release_s,
        )

    # Building

    def _parts(self) -> GraphParts:
        setup = self.setup
        return GraphParts(
            agent=setup.agent,
            services=self._resources.services(setup.agent, setup.rate_hz),
            models=self._resources.models,
            turns=self.turns,
            recording=self._recording,
            opener=self._opener,
            opener_missing=self._opener_missing,
            on_line_sound=self._on_line_sound,
            ask=self.say,
            repair_listener=self,
            flow_node=lambda: self._flow.current_node if self._flow is not None else None,
            transport_in=setup.transport_in,
            transport_out=setup.transport_out,
            rtvi=setup.rtvi,
        )

    def _open_recording(self) -> None:
        """Begin the file, not before there is a line: until then another worker may have the call and its folder."""
        if self._recording is not None and self.setup.folder is not None:
            path = self.setup.folder / "audio.wav"
            self._recording.begin(StereoRecorder(path, rate_hz=self.setup.rate_hz, disk=self._resources.disk))

    def _opener(self, text: str) -> CachedSpeech | None:
        return line_in_memory(self._resources.audio, self.setup.agent, text, self.setup.rate_hz)

    def _opener_missing(self, text: str) -> None:
        agent, rate_hz = self.setup.agent, self.setup.rate_hz
        self._resources.renderer.ask(agent, text, self._resources.services(agent, rate_hz))

    def _listen_to(self, graph: CallGraph) -> None:
        worker = graph.worker
        flow_manager = self._flow = self._flow_manager(graph)
        worker.add_reached_downstream_filter((LastWordFrame, LineSaidFrame, MetricsFrame))

        async def on_started(*_: Any) -> None:
            if self.setup.is_typed:
                # From the head, so that RTVI knows it too and does not turn the voice back on.
                await worker.queue_frame(LLMConfigureOutputFrame(skip_tts=True))
            try:
                await flow_manager.initialize(self.setup.flow.initial_node)
            except FlowError as error:  # Pipecat would only log it, and the agent would know nothing
                logger.error("the flow did not start: {}", error)
                self.end(EndReason.FAILED)
                return
            if self.setup.channel is Channel.EVAL:
                await worker.flush_pipeline()
                self.greeted.set()

        async def on_reached_end(_: PipelineWorker, frame: Frame) -> None:
            if isinstance(frame, LastWordFrame):  # the flow has others reported
                self.end(EndReason.AGENT_ENDED)
            elif isinstance(frame, LineSaidFrame):
                frame.said.set()
            elif isinstance(frame, MetricsFrame):
                self._count_usage(frame)

        async def on_silent(_: CallerSilenceProcessor, action: SilenceAction) -> None:
            await self._on_silence(action)

        async def on_sign(*_: Any) -> None:
            self._last_sign_s = self._loop.time()

        async def on_turn_started(*_: Any) -> None:
            self._wants_end = False  # "wait, one more thing": the model is asked again and may end it again

        worker.add_event_handler("on_pipeline_started", on_started)
        worker.add_event_handler("on_frame_reached_downstream", on_reached_end)
        graph.silence.add_event_handler("on_caller_silent", on_silent)
        graph.aggregators.user_half.add_event_handler("on_user_turn_stopped", on_sign)
        graph.aggregators.user_half.add_event_handler("on_user_turn_started", on_turn_started)
        if self.setup.is_typed:
            graph.silence.stop()
            # What is typed is no turn of speech: its answer shows that somebody is there.
            graph.aggregators.assistant_half.add_event_handler("on_assistant_turn_stopped", on_sign)

    def _flow_manager(self, graph: CallGraph) -> FlowManager:
        manager = FlowManager(
            llm=graph.llm,
            context_aggregator=graph.aggregators,
            worker=graph.worker,
            global_functions=self.setup.flow.global_functions,
        )
        books = self._resources.books[self.setup.agent.slug]
        business = Business(
            calendar=books.calendar,
            messages=books.messages,
            timezone=books.timezone,
            hours=books.hours,
            call_sid=self.setup.call_sid,
            caller_number=self.setup.caller_number,
            now=lambda: datetime.now(UTC),
            request_end=self._request_end,
            language=self.setup.agent.config.language,
        )
        manager.state["business"] = business
        manager.state.update(prompt_facts(business))
        return manager

    # Events

    def failed_turn(self, count: int) -> None:
        """The caller could not be understood, `count` times in a row."""
        logger.info("a turn could not be heard: {} in a row", count)

    def _request_end(self) -> None:
        """A tool wants the call to end: send a marker behind the words that are on their way."""
        graph = self._require_graph()
        self._wants_end = True
        graph.worker.create_task(graph.worker.queue_frame(LastWordFrame()), "last_word")

    async def _on_silence(self, action: SilenceAction) -> None:
        """The caller says nothing: ask again, and in the end take the flow's branch."""
        lines = fixed_lines(self.setup.agent.config.language)
        if self._wants_end:  # the goodbye was cut short, and nobody says anything more
            await self._say_goodbye(lines.closing, EndReason.AGENT_ENDED)
        elif action.ask is Ask.NO_SPEECH:
            is_first = self._require_graph().silence.silence.given_up <= 1
            branch = self.setup.events.branch(FlowEvent.NO_SPEECH)
            if is_first and branch.node is not None:
                await self._go_on_at(branch)
                return
            await self._say_to_its_end(branch.say or lines.no_speech_goodbye)
            if self._graph is not None and self._graph.silence.has_given_up:  # who spoke into it is back
                if is_first and self._graph.caller.is_caller_speaking:  # their first word takes its time
                    self._graph.silence.go_on()
                else:
                    self.end(EndReason.NO_SPEECH)
        else:
            self.turns.reprompted(self._loop.time())
            is_soft = action.ask is Ask.STILL_THERE
            again = lines.still_there[(action.number - 1) % len(lines.still_there)]
            await self.say(lines.hold_on_over if is_soft else again)

    def _on_line_sound(self, sound: LineSound) -> None:
        """There is no person on the line."""
        if self.setup.is_typed or self._graph is None or self.state is not CallState.LIVE:
            return
        logger.info("no person on the line: {}", sound.value)
        if sound is LineSound.FAX:  # nobody listens to a goodbye
            self.end(EndReason.NO_PERSON)
            return
        is_first, self._told_no_person = not self._told_no_person, True
        self._graph.worker.create_task(self._leave_no_person(sound, is_first=is_first), "no_person")

    async def _leave_no_person(self, sound: LineSound, *, is_first: bool) -> None:
        graph, began_s = self._require_graph(), self._loop.time()
        branch = self.setup.events.branch(FlowEvent.LINE_SOUND)
        if is_first and branch.node is not None:
            await self._go_on_at(branch)
            return
        await self._say_to_its_end(
            branch.say or fixed_lines(self.setup.agent.config.language).no_person_goodbye
        )
        words_s = graph.silence.silence.last_words_s
        is_back = words_s is not None and words_s > began_s
        if sound is LineSound.MUSIC and is_back:  # somebody picked up; a recording talks on by itself
            return
        self.end(EndReason.NO_PERSON)

    async def _go_on_at(self, branch: Branch) -> None:
        """Take a branch of the flow that leads to a node."""
        if branch.say:
            await self.say(branch.say)
        self._require_graph().silence.go_on()
        if self._flow is not None and branch.node is not None:
            await self._flow.set_node_from_config(self.setup.flow.node(branch.node))

    def _on_turn(self, record: TurnRecord) -> None:
        if self.setup.on_turn is not None:
            self.setup.on_turn(record)
        if self.setup.rtvi and self._graph is not None and self.state is CallState.LIVE:
            message = RTVIServerMessageFrame(data={"type": "turn", "turn": record.to_json()})
            worker = self._graph.worker
            worker.create_task(worker.queue_frame(message), "turn_message")

    def _count_usage(self, frame: MetricsFrame) -> None:
        services = self.setup.agent.config.services
        if self._resources.usage is not None:
            names = {"stt": services.stt[0].name, "llm": services.llm[0].name, "tts": services.tts[0].name}
            count_usage(frame, self._resources.usage, **names)

    def _require_graph(self) -> CallGraph:
        if self._graph is None:
            raise RuntimeError(f"call {self.setup.call_sid} has no pipeline in state {self.state}")
        return self._graph

    def _set_state(self, state: CallState) -> None:
        logger.debug("call {} -> {}", self.state, state)
        self.state = state
