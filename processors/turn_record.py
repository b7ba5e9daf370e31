"""The record of each turn of a call: who said what, when each stage happened, what the caller heard.

Pure: told events with their times by whoever sees them (transport, aggregators, playout), it reads no clock
and does no I/O. Feeds the log, the metrics, `timeline.json` and the page. Never changes what is said or done.
"""

import enum
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import TypeAdapter

KEPT_TURNS = 500
"""Turns of one call that are kept; older ones are only counted."""
STALE_SOUND_S = 2.0
"""A caller's sound without a word this long ago was a noise: what comes next is not its continuation."""
MAX_TEXT_CHARS = 4_000
"""Per side and turn; a person's turn is a few hundred."""
MAX_TOOLS = 32
"""Tool runs kept per turn."""
MAX_PAUSES = 32
"""Pauses of the agent kept per turn."""
MAX_FILLERS = 32
"""Fillers, and nudges, kept per turn."""


class TurnKind(enum.Enum):
    """Why the agent spoke."""

    GREETING = "greeting"
    ANSWER = "answer"
    REPROMPT = "reprompt"


class Milestone(enum.Enum):
    """What happens between the caller's last sound and the first of the answer, in its usual order."""

    SPEECH_END = "speech_end"
    VAD_STOP = "vad_stop"
    TRANSCRIPT_FINAL = "transcript_final"
    TURN_DECIDED = "turn_decided"
    LLM_REQUEST = "llm_request"
    LLM_FIRST_TOKEN = "llm_first_token"  # noqa: S105 - a model's token, not a secret
    FIRST_SENTENCE = "first_sentence"
    TTS_REQUEST = "tts_request"
    TTS_FIRST_AUDIO = "tts_first_audio"
    SENT = "sent"
    HEARD = "heard"


class SilenceCause(enum.Enum):
    """What the caller waits for while the next word is ours."""

    GREETING = "greeting"
    TURN = "turn"
    """We had not decided that they had finished."""
    MODEL = "model"
    TOOL = "tool"
    VOICE = "voice"
    PLAYOUT = "playout"
    """There was audio, and they did not hear it."""


_SILENCE_ENDS = (
    (SilenceCause.TURN, Milestone.TURN_DECIDED),
    (SilenceCause.MODEL, Milestone.LLM_FIRST_TOKEN),
    (SilenceCause.VOICE, Milestone.TTS_FIRST_AUDIO),
    (SilenceCause.PLAYOUT, Milestone.HEARD),
)


class Stage(enum.Enum):
    """A share of the caller's wait, named for people."""

    PAUSE = "pause"
    """Silence we wait for before we believe the caller stopped."""
    TRANSCRIPT = "transcript"
    DECISION = "decision"
    """Is the turn over, and the hop to the model."""
    MODEL = "model"
    """Request to first token."""
    SENTENCE = "sentence"
    """First token to the first sentence that can be spoken, tools included."""
    VOICE = "voice"
    """Text to the first audio."""
    EAR = "ear"
    """First audio to being heard."""


_STAGE_ENDS = (
    (Stage.PAUSE, (Milestone.VAD_STOP,)),
    (Stage.TRANSCRIPT, (Milestone.TRANSCRIPT_FINAL,)),
    (Stage.DECISION, (Milestone.TURN_DECIDED, Milestone.LLM_REQUEST)),
    (Stage.MODEL, (Milestone.LLM_FIRST_TOKEN,)),
    (Stage.SENTENCE, (Milestone.FIRST_SENTENCE, Milestone.TTS_REQUEST)),
    (Stage.VOICE, (Milestone.TTS_FIRST_AUDIO,)),
    (Stage.EAR, (Milestone.SENT, Milestone.HEARD)),
)


@dataclass(frozen=True)
class ToolRun:
    """One tool call; times in seconds since the call began."""

    name: str
    start: float
    end: float | None = None
    ok: bool | None = None


@dataclass(frozen=True)
class PlaybackPause:
    """The agent was stopped by a sound; times in seconds since the call began. `end` is None when it did not go on."""

    start: float
    end: float | None = None


@dataclass(frozen=True)
class BargeInDecision:
    """What was done about a sound of the caller while the agent was busy; `at` in seconds since the call began."""

    kind: str
    """`pause`, `doubt`, `resume`, `interrupt` or `let go`."""
    reason: str
    at: float


@dataclass(frozen=True)
class FillerRun:
    """A line that only broke a silence; times in seconds since the call began. `end` is None while it is heard."""

    text: str
    start: float
    end: float | None = None


@dataclass(frozen=True)
class Nudge:
    """The caller asked whether anybody is there while they waited; `at` in seconds since the call began."""

    text: str
    at: float


@dataclass(frozen=True)
class TurnRecord:
    """One finished turn. Every time is in seconds since the call began, None when it did not happen.

    The field names are those of the JSON that the page and `timeline.json` carry.
    """

    index: int
    """0 is the greeting; rises by one with each turn, also past forgotten ones."""
    kind: Literal["greeting", "answer", "reprompt"]
    caller_text: str = ""
    agent_text: str = ""
    """As the caller heard it."""
    cut: bool = False
    """The agent was stopped before its end."""
    caller_start: float | None = None
    speech_end: float | None = None
    vad_stop: float | None = None
    transcript_final: float | None = None
    turn_decided: float | None = None
    llm_request: float | None = None
    llm_first_token: float | None = None
    first_sentence: float | None = None
    tts_request: float | None = None
    tts_first_audio: float | None = None
    sent: float | None = None
    heard: float | None = None
    agent_end: float | None = None
    interrupted_at: float | None = None
    tools: tuple[ToolRun, ...] = ()
    pauses: tuple[PlaybackPause, ...] = ()
    barge_in: tuple[BargeInDecision, ...] = ()
    fillers: tuple[FillerRun, ...] = ()
    """Lines heard before the answer, which are no part of it."""
    nudges: tuple[Nudge, ...] = ()
    retries: int = 0
    """How often the answer was asked for again because nothing came of it."""
    speculative: bool = False
    """The answer was begun before the turn was decided."""
    answer_s: float | None = None
    """The caller's wait: `heard - speech_end`; None when either is unknown or they overlap."""

    @property
    def stop_s(self) -> float | None:
        """Seconds from the interruption to the agent being silent, None without one."""
        if self.interrupted_at is None or self.agent_end is None or self.agent_end < self.interrupted_at:
            return None
        return self.agent_end - self.interrupted_at

    def at(self, milestone: Milestone) -> float | None:
        """Return when `milestone` happened."""
        value: float | None = getattr(self, milestone.value)
        return value

    def stages(self) -> tuple[tuple[Stage, float], ...]:
        """Split the wait into stages; their seconds add up to `answer_s` (greeting: to `heard`).

        A stage that overlaps an earlier one counts only from where that ended; an unknown milestone's
        share falls to the next stage that is known. Empty when nothing was heard.
        """
        cursor = 0.0 if self.kind == TurnKind.GREETING.value else self.speech_end
        if cursor is None or self.heard is None:
            return ()
        shares: list[tuple[Stage, float]] = []
        for stage, ends in _STAGE_ENDS:
            times = [min(t, self.heard) for m in ends if (t := self.at(m)) is not None]
            end = max(times, default=cursor)
            if end > cursor:
                shares.append((stage, end - cursor))
                cursor = end
        return tuple(shares)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, times rounded to 0.1 ms."""
        shape: dict[str, Any] = _RECORD.dump_python(self, mode="json")
        for part in ("tools", "pauses", "barge_in", "fillers", "nudges"):
            shape[part] = [{name: _rounded(value) for name, value in one.items()} for one in shape[part]]
        return {name: _rounded(value) for name, value in shape.items()}


_RECORD = TypeAdapter(TurnRecord)


_MADE = (
    Milestone.LLM_FIRST_TOKEN,
    Milestone.FIRST_SENTENCE,
    Milestone.TTS_REQUEST,
    Milestone.TTS_FIRST_AUDIO,
)
"""Happened to an answer that was not heard, and happens again."""


@dataclass(frozen=True)
class Line:
    """One line of the transcript, as heard; `at_s` in seconds since the call began."""

    who: Literal["caller", "agent"]
    text: str
    at_s: float
    cut: bool = False


@dataclass(frozen=True)
class LedgerCounts:
    """Totals over the whole call, forgotten turns included."""

    turns: int = 0
    interruptions: int = 0
    tools: int = 0
    pauses: int = 0
    """Times the agent was stopped by a sound of the caller."""
    resumes: int = 0
    """How many of them meant nothing: it went on."""
    longest_silence_s: float = 0.0
    """The longest the caller heard nothing while the next word was ours to say."""
    longest_silence_cause: str = ""
    """What took most of it: a `SilenceCause`, "" when there was none."""


@dataclass
class _CallerSpeech:
    """What the caller is saying; becomes part of a turn when the turn is decided."""

    start: float | None = None
    speech_end: float | None = None
    vad_stop: float | None = None
    transcript_final: float | None = None
    finals: list[str] = field(default_factory=list)
    interim: str = ""

    @property
    def text(self) -> str:
        return _joined([*self.finals, self.interim])

    @property
    def is_known(self) -> bool:
        """Whether there is anything to make a turn of."""
        return self.start is not None or bool(self.finals) or bool(self.interim)

    def add_transcript(self, text: str, *, final: bool, at: float) -> None:
        if not final:
            self.interim = text[:MAX_TEXT_CHARS]
            return
        self.interim = ""
        self.transcript_final = at
        _append_bounded(self.finals, text)

    def is_stale(self, at: float) -> bool:
        return self.vad_stop is not None and not self.text and at - self.vad_stop > STALE_SOUND_S


@dataclass
class _Ahead:
    """Stages of an answer that is made ahead; they become the turn's when it is decided."""

    times: dict[Milestone, float] = field(default_factory=dict[Milestone, float])
    requested_texts: list[str] = field(default_factory=list[str])


@dataclass
class _OpenTurn:
    """The turn whose answer is being made or heard."""

    index: int
    kind: TurnKind
    caller: _CallerSpeech = field(default_factory=_CallerSpeech)
    times: dict[Milestone, float] = field(default_factory=dict[Milestone, float])
    heard_words: list[str] = field(default_factory=list)
    requested_texts: list[str] = field(default_factory=list)
    tools: list[ToolRun] = field(default_factory=list[ToolRun])
    pauses: list[PlaybackPause] = field(default_factory=list[PlaybackPause])
    barge_in: list[BargeInDecision] = field(default_factory=list[BargeInDecision])
    fillers: list[FillerRun] = field(default_factory=list[FillerRun])
    nudges: list[Nudge] = field(default_factory=list[Nudge])
    retries: int = 0
    is_speculative: bool = False
    agent_end: float | None = None
    interrupted_at: float | None = None
    cut: bool = False

    @property
    def is_heard(self) -> bool:
        return Milestone.HEARD in self.times

    @property
    def is_empty(self) -> bool:
        return not (self.caller.is_known or self.times or self.heard_words or self.tools or self.fillers)

    def silence_cause(self, since: float, until: float) -> SilenceCause:
        """Return what took most of a silence of ours."""
        if self.kind is TurnKind.GREETING:
            return SilenceCause.GREETING
        shares = dict.fromkeys(SilenceCause, 0.0)
        cursor = since
        for cause, milestone in _SILENCE_ENDS:
            end = min(self.times.get(milestone, until), until)
            shares[cause] += max(0.0, end - cursor)
            cursor = max(cursor, end)
        # Some of it was heard before: what is missing is the rest.
        shares[SilenceCause.MODEL if self.tools else SilenceCause.VOICE] += until - cursor
        for tool in self.tools:
            overlap = min(until if tool.end is None else tool.end, until) - max(since, tool.start)
            shares[SilenceCause.TOOL] += max(0.0, overlap)
        shares[SilenceCause.MODEL] -= min(shares[SilenceCause.MODEL], shares[SilenceCause.TOOL])
        return max(shares, key=lambda cause: shares[cause])

    def agent_text(self) -> str:
        if self.heard_words or self.cut or not self.is_heard:
            return _joined(self.heard_words)
        return _joined(self.requested_texts)  # a voice without word times, played to its end

    def record(self) -> TurnRecord:
        at = self.times.get
        heard, speech_end = at(Milestone.HEARD), self.caller.speech_end
        is_wait = heard is not None and speech_end is not None and heard >= speech_end
        return TurnRecord(
            index=self.index,
            kind=self.kind.value,
            caller_text=self.caller.text,
            agent_text=self.agent_text(),
            cut=self.cut,
            caller_start=self.caller.start,
            speech_end=speech_end,
            vad_stop=self.caller.vad_stop,
            transcript_final=self.caller.transcript_final,
            turn_decided=at(Milestone.TURN_DECIDED),
            llm_request=at(Milestone.LLM_REQUEST),
            llm_first_token=at(Milestone.LLM_FIRST_TOKEN),
            first_sentence=at(Milestone.FIRST_SENTENCE),
            tts_request=at(Milestone.TTS_REQUEST),
            tts_first_audio=at(Milestone.TTS_FIRST_AUDIO),
            sent=at(Milestone.SENT),
            heard=heard,
            agent_end=self.agent_end,
            interrupted_at=self.interrupted_at,
            tools=tuple(self.tools),
            pauses=tuple(self.pauses),
            barge_in=tuple(self.barge_in),
            fillers=tuple(self.fillers),
            nudges=tuple(self.nudges),
            retries=self.retries,
            speculative=self.is_speculative,
            answer_s=heard - speech_end if is_wait and heard is not None and speech_end is not None else None,
        )


class TurnLedger:
    """Makes `TurnRecord`s of one call's events.

    Turn 0 is the greeting. What the caller says is collected beside the running turn, so that a cough over
    the agent's answer does not end it, and becomes a turn when the turn is decided (or the model is asked,
    but not with a tool's result): then the turn before is complete. Events may come late, twice, out of
    order or not at all; each carries its own time, and one that is not a finite number is dropped. After
    `ended` nothing changes any more but the end of a tool that still runs.

    Memory is bounded: the last 500 turns, texts and tools capped.
    """

    def __init__(self, *, started_s: float, on_complete: Callable[[TurnRecord], None] | None = None) -> None:
        """Open the ledger when the call begins.

        Args:
            started_s: The call's zero on the clock that all events use, in seconds; `line_up` may move it.
            on_complete: Called at once with each turn when it is complete.
        """
        self._started_s = started_s
        self._on_complete = on_complete
        self._complete: deque[TurnRecord] = deque(maxlen=KEPT_TURNS)
        self._turn = _OpenTurn(0, TurnKind.GREETING)
        self._caller = _CallerSpeech()
        self._ahead: _Ahead | None = None
        """What happened of an answer to a turn that is not decided yet."""
        self._counts = LedgerCounts()
        self._is_caller_speaking = False
        self._is_agent_audible = False
        self._quiet_since: float = 0.0
        self._is_line_up = False
        self._is_ended = False

    def line_up(self, now_s: float) -> None:
        """The caller is connected: from here on, and from the first such moment only, times count.

        Before it the phone rang, and nobody waited for a word of ours.
        """
        at = self._relative(now_s)
        if at is None or self._is_line_up or self._turn.is_heard or self._turn.kind is not TurnKind.GREETING:
            return
        self._is_line_up = True
        self._started_s += at
        times = self._turn.times
        self._turn.times = {milestone: max(0.0, told - at) for milestone, told in times.items()}

    # What the caller does.

    def caller_started(self, now_s: float) -> None:
        """The caller began to sound (VAD onset)."""
        at = self._relative(now_s)
        if at is None:
            return
        if not (self._turn.is_heard or self._is_caller_speaking or self._is_agent_audible):
            self._note_silence(at)
        self._is_caller_speaking = True
        if self._caller.is_stale(at):
            self._caller = _CallerSpeech()
        if self._caller.start is None:
            self._caller.start = at

    def caller_stopped(self, speech_end_s: float, now_s: float) -> None:
        """The VAD says the caller stopped; `speech_end_s` is when their last sound was."""
        at, speech_end = self._relative(now_s), self._relative(speech_end_s)
        if at is None or speech_end is None:
            return
        self._is_caller_speaking = False
        self._quiet_since = max(self._quiet_since, speech_end)
        speech = self._speech_told_of()
        speech.speech_end = speech_end
        speech.vad_stop = at

    def transcript(self, text: str, final: bool, now_s: float) -> None:
        """Words of the caller arrived; an interim one replaces the interim before."""
        at = self._relative(now_s)
        if at is None or not text.strip():
            return
        self._speech_told_of().add_transcript(text, final=final, at=at)

    def nudged(self, text: str, now_s: float) -> None:
        """The caller asked whether anybody is there; that is no turn."""
        at = self._relative(now_s)
        if at is not None and len(self._turn.nudges) < MAX_FILLERS:
            self._turn.nudges.append(Nudge(text[:MAX_TEXT_CHARS], at))

    def turn_decided(self, now_s: float) -> None:
        """The caller's turn is over: it is the agent's."""
        at = self._relative(now_s)
        if at is None:
            return
        ahead, self._ahead = self._ahead, None
        if self._caller.is_known:
            self._begin_answer()
        if self._turn.kind is TurnKind.ANSWER:
            self._turn.times.setdefault(Milestone.TURN_DECIDED, at)
            if ahead is not None:
                self._turn.is_speculative = True
                self._turn.requested_texts += ahead.requested_texts
                for milestone, told in ahead.times.items():
                    self._turn.times.setdefault(milestone, told)

    def speculation_started(self, now_s: float) -> None:
        """An answer is begun though the turn is not decided."""
        if self._relative(now_s) is not None:
            self._ahead = _Ahead()

    def speculation_audio(self, now_s: float) -> None:
        """The first audio of that answer is there, and waits."""
        if self._ahead is not None:
            self._reach(Milestone.TTS_FIRST_AUDIO, now_s)

    def speculation_withdrawn(self, now_s: float) -> None:
        """It answers nothing: the caller goes on."""
        self._ahead = None

    # What the agent does.

    def reprompted(self, now_s: float) -> None:
        """The agent is about to speak because the caller did not."""
        if self._relative(now_s) is not None:
            self._begin(TurnKind.REPROMPT, _CallerSpeech())

    def llm_requested(self, now_s: float) -> None:
        """The model was asked; later requests of the same turn (after a tool) do not move it."""
        at = self._relative(now_s)
        if at is None:
            return
        if self._ahead is not None:
            self._ahead.times.setdefault(Milestone.LLM_REQUEST, at)
            return
        is_after_tool = bool(self._turn.tools) and self._turn.interrupted_at is None
        if self._caller.finals and not is_after_tool:
            self._begin_answer()
        times = self._turn.times
        if Milestone.LLM_REQUEST in times:
            return
        times[Milestone.LLM_REQUEST] = at
        for effect in (Milestone.LLM_FIRST_TOKEN, Milestone.FIRST_SENTENCE):
            if times.get(effect, math.inf) < at:
                del times[effect]  # a late token of the stream before

    def llm_first_token(self, now_s: float) -> None:
        """The first token of a model's answer came."""
        self._reach(Milestone.LLM_FIRST_TOKEN, now_s)

    def first_sentence(self, now_s: float) -> None:
        """The first text that can be spoken is whole."""
        self._reach(Milestone.FIRST_SENTENCE, now_s)

    def tts_requested(self, text: str, now_s: float) -> None:
        """A voice was asked to speak `text`."""
        if self._reach(Milestone.TTS_REQUEST, now_s):
            _append_bounded((self._ahead or self._turn).requested_texts, text)

    def tts_first_audio(self, now_s: float) -> None:
        """The first audio of a voice, or of the cache, came."""
        self._reach(Milestone.TTS_FIRST_AUDIO, now_s)

    def audio_sent(self, now_s: float) -> None:
        """Audio left for the caller."""
        at = self._relative(now_s)
        if at is not None:
            self._turn.times.setdefault(Milestone.SENT, at)

    def heard_started(self, now_s: float) -> None:
        """The caller begins to hear the agent."""
        at = self._relative(now_s)
        if at is None:
            return
        if not (self._is_agent_audible or self._is_caller_speaking or self._turn.kind is TurnKind.REPROMPT):
            self._note_silence(at)
        self._is_agent_audible = True
        self._turn.times.setdefault(Milestone.HEARD, at)

    def heard_word(self, text: str, now_s: float) -> None:
        """The caller heard one more word (or piece of text) of the agent."""
        if self._relative(now_s) is not None:
            _append_bounded(self._turn.heard_words, text)

    def agent_gap(self, began_s: float, now_s: float) -> None:
        """The agent was not heard since `began_s`, in the middle of what it says."""
        began, at = self._relative(began_s), self._relative(now_s)
        if began is not None and at is not None and not self._is_caller_speaking:
            self._quiet_since = max(self._quiet_since, began)
            self._note_silence(at)
            self._quiet_since = at

    def filler_started(self, text: str, now_s: float) -> None:
        """The caller begins to hear a line that only breaks a silence."""
        at = self._relative(now_s)
        if at is None:
            return
        if not (self._is_agent_audible or self._is_caller_speaking):
            self._note_silence(at)
        self._is_agent_audible = True
        if len(self._turn.fillers) < MAX_FILLERS:
            self._turn.fillers.append(FillerRun(text[:MAX_TEXT_CHARS], at))

    def filler_stopped(self, now_s: float) -> None:
        """It was heard to its end, or was stopped."""
        at = self._relative(now_s)
        if at is None or not self._is_agent_audible:
            return
        self._is_agent_audible = False
        self._quiet_since = max(self._quiet_since, at)
        if self._turn.fillers and self._turn.fillers[-1].end is None:
            self._turn.fillers[-1] = replace(self._turn.fillers[-1], end=at)

    def retried(self, now_s: float) -> None:
        """Nothing came of the answer: what was made of it is dropped, and the model is asked again."""
        if self._relative(now_s) is None:
            return
        self._turn.retries += 1
        if not self._turn.is_heard:
            self._turn.requested_texts.clear()
            for made in _MADE:
                self._turn.times.pop(made, None)

    def agent_stopped(self, cut: bool, now_s: float) -> None:
        """The caller heard the last of an utterance; `cut` when it was not its end."""
        at = self._relative(now_s)
        if at is None:
            return
        if self._is_agent_audible:
            self._quiet_since = max(self._quiet_since, at)
        self._is_agent_audible = False
        if not (self._turn.is_heard or cut):
            return
        self._turn.agent_end = max(at, self._turn.agent_end or 0.0)
        self._turn.cut = self._turn.cut or cut

    def barge_in(self, kind: str, reason: str, now_s: float) -> None:
        """Something was decided about a sound of the caller; see `BargeInDecision`."""
        at = self._relative(now_s)
        if at is not None and len(self._turn.barge_in) < MAX_PAUSES * 2:
            self._turn.barge_in.append(BargeInDecision(kind, reason, at))

    def agent_paused(self, now_s: float) -> None:
        """The agent was stopped, for the time being: the caller makes a sound."""
        at = self._relative(now_s)
        if at is not None and len(self._turn.pauses) < MAX_PAUSES:
            self._turn.pauses.append(PlaybackPause(at))
            self._counts = replace(self._counts, pauses=self._counts.pauses + 1)

    def agent_resumed(self, now_s: float) -> None:
        """It goes on: the sound meant nothing."""
        at = self._relative(now_s)
        if at is not None and self._turn.pauses and self._turn.pauses[-1].end is None:
            self._turn.pauses[-1] = replace(self._turn.pauses[-1], end=at)
            self._counts = replace(self._counts, resumes=self._counts.resumes + 1)

    def interrupted(self, now_s: float) -> None:
        """The caller took the turn; ignored unless the agent is speaking, was just cut, or about to speak."""
        at = self._relative(now_s)
        is_thinking = Milestone.LLM_REQUEST in self._turn.times and not self._turn.is_heard
        if at is None or self._turn.interrupted_at is not None:
            return
        if self._is_agent_audible or self._turn.cut or is_thinking:
            self._turn.interrupted_at = at
            self._counts = replace(self._counts, interruptions=self._counts.interruptions + 1)

    def tool_started(self, name: str, now_s: float) -> None:
        """A tool runs."""
        at = self._relative(now_s)
        if at is None:
            return
        self._counts = replace(self._counts, tools=self._counts.tools + 1)
        if len(self._turn.tools) < MAX_TOOLS:
            self._turn.tools.append(ToolRun(name, at))

    def tool_ended(self, name: str, ok: bool, now_s: float) -> None:
        """The latest running tool of that name came back, also when its turn is complete already."""
        at = self._relative(now_s, even_if_ended=True)
        if at is None:
            return
        tools = None if self._is_ended else _with_tool_ended(tuple(self._turn.tools), name, ok=ok, at=at)
        if tools is not None:
            self._turn.tools[:] = tools
            return
        for position in reversed(range(len(self._complete))):
            turn = self._complete[position]
            if (tools := _with_tool_ended(turn.tools, name, ok=ok, at=at)) is not None:
                self._complete[position] = replace(turn, tools=tools)
                return

    def ended(self, now_s: float) -> None:
        """The call is over: complete what is open. What the caller said last is a turn of its own."""
        at = self._relative(now_s)
        if at is None:
            return
        if not (self._turn.is_heard or self._is_caller_speaking):
            self._note_silence(at)
        if self._caller.text:
            self._begin_answer()
        self._finish()
        self._is_ended = True

    # What came of it.

    @property
    def counts(self) -> LedgerCounts:
        """Totals so far."""
        return self._counts

    def turns(self) -> tuple[TurnRecord, ...]:
        """Return the complete turns, oldest first, at most 500."""
        return tuple(self._complete)

    def snapshot(self) -> TurnRecord | None:
        """Return the turn in progress as far as it is known, None when there is none."""
        return None if self._is_ended or self._turn.is_empty else self._turn.record()

    def transcript_lines(self) -> list[Line]:
        """Return who said what, as heard, up to now; the words of an undecided turn come last."""
        current = self.snapshot()
        lines = lines_of([*self._complete, *([current] if current else [])])
        if self._caller.text and not self._is_ended:
            start = self._caller.start if self._caller.start is not None else self._caller.transcript_final
            lines.append(Line("caller", self._caller.text, start or 0.0))
        return lines

    def _relative(self, time_s: float, *, even_if_ended: bool = False) -> float | None:
        relative_s = time_s - self._started_s
        if not math.isfinite(relative_s) or (self._is_ended and not even_if_ended):
            return None
        return max(0.0, relative_s)

    def _speech_told_of(self) -> _CallerSpeech:
        """What a late event is about: the turn just decided, while the caller is quiet and waits for us."""
        is_waiting = self._turn.caller.is_known and not self._turn.is_heard
        return self._turn.caller if is_waiting and not self._caller.is_known else self._caller

    def _reach(self, milestone: Milestone, now_s: float) -> bool:
        at = self._relative(now_s)
        if at is not None:
            (self._ahead or self._turn).times.setdefault(milestone, at)
        return at is not None

    def _begin_answer(self) -> None:
        caller, self._caller = self._caller, _CallerSpeech()
        self._begin(TurnKind.ANSWER, caller)

    def _begin(self, kind: TurnKind, caller: _CallerSpeech) -> None:
        self._finish()
        self._turn = _OpenTurn(self._turn.index + 1, kind, caller)

    def _finish(self) -> None:
        if self._turn.is_empty:
            return  # no greeting was configured, or nothing came of a reprompt
        record = self._turn.record()
        self._complete.append(record)
        self._counts = replace(self._counts, turns=self._counts.turns + 1)
        if self._on_complete is not None:
            self._on_complete(record)

    def _note_silence(self, until: float) -> None:
        silence_s = until - self._quiet_since
        if silence_s > self._counts.longest_silence_s:
            cause = self._turn.silence_cause(self._quiet_since, until)
            self._counts = replace(
                self._counts, longest_silence_s=silence_s, longest_silence_cause=cause.value
            )


def lines_of(turns: Iterable[TurnRecord]) -> list[Line]:
    """Return the transcript of `turns`: for each what the caller said, what came meanwhile, then what they heard."""
    lines: list[Line] = []
    for turn in turns:
        meanwhile = [
            *(Line("agent", filler.text, filler.start) for filler in turn.fillers),
            *(Line("caller", nudge.text, nudge.at) for nudge in turn.nudges),
        ]
        if turn.caller_text:
            start = _first_known(turn.caller_start, turn.speech_end, turn.turn_decided)
            lines.append(Line("caller", turn.caller_text, start))
        lines += sorted(meanwhile, key=lambda line: line.at_s)
        if turn.agent_text:
            # What goes on behind another line, without a pause, has no beginning of its own.
            start = _first_known(turn.heard, turn.sent, turn.turn_decided)
            lines.append(Line("agent", turn.agent_text, start, turn.cut))
    return lines


def _first_known(*times: float | None) -> float:
    return next((time for time in times if time is not None), 0.0)


def _with_tool_ended(
    tools: tuple[ToolRun, ...], name: str, *, ok: bool, at: float
) -> tuple[ToolRun, ...] | None:
    for position, tool in enumerate(tools):
        if tool.name == name and tool.end is None:
            return (*tools[:position], replace(tool, end=max(at, tool.start), ok=ok), *tools[position + 1 :])
    return None


_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[,.;:!?…](?:\s|$))")


def _joined(pieces: list[str]) -> str:
    return _SPACE_BEFORE_MARK.sub("", " ".join(" ".join(pieces).split()))


def _append_bounded(pieces: list[str], text: str) -> None:
    room = MAX_TEXT_CHARS - sum(map(len, pieces))
    if text.strip() and room > 0:
        pieces.append(text[:room])


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
