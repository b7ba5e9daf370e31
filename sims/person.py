"""The scripted caller's mind: given what is heard, what to do next, tick by tick.

Pure: `Person.act` is resumed once per 20 ms of call with `Senses` brought up to date, and yields an action or
None. It owns no clock (time is samples of the call), no socket and no sound.
"""

import random
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from sims.mulaw import RATE_HZ
from sims.report import REACTION_SAMPLES, RESUME_LIMIT_SAMPLES, SoundKind
from sims.scenario import (
    Answer,
    Converse,
    Echo,
    EndedBy,
    Expect,
    Heard,
    Interrupt,
    Line,
    Noise,
    Over,
    Say,
    Scenario,
    Since,
    Step,
    text_of,
)

PHRASE_PAUSE_SAMPLES = int(0.3 * RATE_HZ)
"""Silence after which the agent's next sound is a new beginning."""
FINISHED_S = 2.0
"""Silence after which an agent that was to be interrupted has said all it will."""
SCRAP_SAMPLES = int(0.5 * RATE_HZ)
"""What is shorter and has no word in it is the beginning of something, cut off: nothing to answer."""
KEY_SAMPLES = int(0.25 * RATE_HZ)
"""From one key to the next."""
AHEAD_SAMPLES = int(0.1 * RATE_HZ)
"""How long before its time a sound is ordered that is to begin on a certain sample."""
OWN_SOUND_LIMIT_S = 60.0
"""How much longer than it is the caller's own sound may take."""


@dataclass(frozen=True)
class Speak:
    """Action: start to say `line`; its first audible sample at `at`, if that is still to come."""

    line: Line
    kind: SoundKind = SoundKind.SPEECH
    at: int | None = None

    @property
    def text(self) -> str:
        """Return the words of it."""
        return text_of(self.line)


@dataclass(frozen=True)
class PressKey:
    """Action: press one key."""

    digit: str


@dataclass(frozen=True)
class MakeNoise:
    """Action: make a sound that is no speech; `at` as in `Speak`."""

    noise: Noise
    at: int | None = None


@dataclass(frozen=True)
class MakeEcho:
    """Action: let the agent's sound come back; `at` as in `Speak`."""

    echo: Echo
    at: int | None = None


@dataclass(frozen=True)
class HangUp:
    """Action: put the phone down."""


Action = Speak | PressKey | MakeNoise | MakeEcho | HangUp


@dataclass
class Senses:
    """What the caller hears and does, brought up to date each tick. Positions in samples of the call."""

    now: int = 0
    agent_onset: int | None = None
    """Where the agent's current or latest run of sound began."""
    agent_last: int | None = None
    """The agent's latest audible sample."""
    agent_samples: int = 0
    """How much was heard of the agent in all."""
    is_speaking: bool = False
    """The caller's own sound is not over yet."""
    own_start: int = 0
    own_end: int = 0
    """First sample of the caller's latest sound and the one after its last, known when it begins."""
    words: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Words the agent was heard to say, with the position of each."""

    def hear(self, first: int, last: int) -> None:
        """Take in that the agent was audible from `first` to `last`."""
        if self.agent_last is None or first - self.agent_last > PHRASE_PAUSE_SAMPLES:
            self.agent_onset = first
        self.agent_last = last
        self.agent_samples += last - first + 1

    def text_since(self, mark: int) -> str:
        """Return the agent's words from `mark` on."""
        return " ".join(word for at, word in self.words if at >= mark)


class _Failed(Exception):  # noqa: N818 - unwinds the script, nobody outside sees it
    """The script cannot go on."""


_Steps = Generator[Action | None, None, None]


class Person:
    """Acts a scenario out; `failures` and `is_script_done` are read when the call is over."""

    def __init__(self, scenario: Scenario, senses: Senses, *, seed: int) -> None:
        """Create the caller.

        Args:
            scenario: What to do.
            senses: Brought up to date by the owner before each tick.
            seed: Picks among alternative lines.
        """
        self._scenario = scenario
        self._senses = senses
        self._rng = random.Random(seed)  # noqa: S311 - repeatable choices, not secrets
        self._began_at = 0
        self._spoke_at = 0
        """Where the caller's own last speech began and ended."""
        self._heard_before = 0
        """How much had been heard of the agent by then, samples."""
        self._heard_out: int | None = None
        """Onset of the phrase that an `expect` has waited out: the next one wants another."""
        self._over_onset: int | None = None
        """Onset of what the agent says that `over` steps count from; a pause in it does not move it."""
        self._sounds: list[tuple[int, int]] = []
        """Start and end of what was heard from the caller since their last words."""
        self.failures: list[str] = []
        self.is_script_done = False
        self.current_step = ""

    def act(self) -> _Steps:
        """Yield what to do, once per tick; ends when the caller has hung up."""
        try:
            for number, step in enumerate(self._scenario.steps, 1):
                self.current_step = f"{number} ({step.kind})"
                self.is_script_done = number >= (self._scenario.may_end_from or len(self._scenario.steps) + 1)
                yield from self._do(step)
            self.is_script_done = True
            if self._scenario.ended_by is not EndedBy.CALLER:
                yield from self._wait_for_hang_up()
        except _Failed as failure:
            self.failures.append(f"step {self.current_step}: {failure}")
        yield HangUp()

    def _do(self, step: Step) -> _Steps:
        if step.expect:
            yield from self._expect(step.expect)
        elif step.say:
            yield from self._say(step.say)
        elif step.interrupt:
            yield from self._interrupt(step.interrupt)
        elif step.converse:
            yield from self._converse(step.converse)
        elif step.wait_s:
            yield from self._sleep(int(step.wait_s * RATE_HZ))
        elif step.press:
            for digit in step.press:
                yield PressKey(digit)
                yield from self._sleep(KEY_SAMPLES)
        elif step.noise:
            yield from self._sound(MakeNoise(step.noise))
        elif step.over:
            yield from self._over(step.over)
        elif step.hang_up:
            self.is_script_done = True
            yield HangUp()

    def _expect(self, expect: Expect) -> _Steps:
        yield from self._wait(self._agent_spoke_anew, expect.within_s, "the agent did not speak")
        if expect.agent is Heard.FINISHES:
            yield from self._wait(
                lambda: self._is_agent_quiet(expect.quiet_s), 60.0, "the agent did not stop"
            )
            self._heard_out = self._senses.agent_onset
            self._over_onset = None
        heard = self._reply()
        if expect.text_contains and heard and not _found(expect.text_contains, heard):
            raise _Failed(f"the agent said {heard!r}, expected {expect.text_contains!r}")

    def _say(self, say: Say) -> _Steps:
        if not say.at_once:
            yield from self._wait_for_answer(say.quiet_s, say.within_s)
        yield from self._speak(self._rng.choice(say.text))

    def _interrupt(self, interrupt: Interrupt) -> _Steps:
        yield from self._wait(self._agent_spoke, interrupt.within_s, "the agent did not speak")
        since = self._senses.agent_onset or 0
        if interrupt.once_heard:
            yield from self._wait(
                lambda: self._heard(interrupt.once_heard), interrupt.within_s, "the agent did not say it"
            )
            since = self._senses.now
        yield from self._sleep(since + int(interrupt.after_ms * RATE_HZ / 1000) - self._senses.now)
        yield from self._speak(self._rng.choice(interrupt.say), SoundKind.INTERRUPTION)

    def _over(self, over: Over) -> _Steps:
        since = yield from self._beginning(over)
        at = since + int(over.after_ms * RATE_HZ / 1000)
        yield from self._sleep(at - AHEAD_SAMPLES - self._senses.now)
        if over.say:
            yield from self._speak(self._rng.choice(over.say), SoundKind.INTERRUPTION, at)
        elif over.backchannel:
            line = self._rng.choice(over.backchannel)
            yield from self._sound(Speak(line, SoundKind.BACKCHANNEL, at))
        elif over.noise:
            yield from self._sound(MakeNoise(over.noise, at))
        elif over.echo:
            yield from self._sound(MakeEcho(over.echo, at))

    def _beginning(self, over: Over) -> Generator[Action | None, None, int]:
        """Return the position that `after_ms` counts from, once it is known."""
        if over.since is Since.LAST and self._sounds:
            return self._sounds[-1][1]
        if self._over_onset is None:
            yield from self._wait(self._agent_spoke_anew, over.within_s, "the agent did not speak")
            self._over_onset = self._senses.agent_onset or 0
        if over.once_heard is None:
            return self._over_onset
        yield from self._wait(lambda: self._heard(over.once_heard), over.within_s, "the agent did not say it")
        return self._senses.now

    def _sound(self, action: Speak | MakeNoise | MakeEcho) -> _Steps:
        """Make a sound that takes nobody's turn."""
        yield action
        yield from self._hear_own_out()
        self._sounds.append((self._senses.own_start, self._senses.own_end))

    def _heard(self, wanted: str | None) -> bool:
        """Tell whether the agent has said what is waited for, or will not say it any more."""
        return _found(wanted or "", self._reply()) or self._is_agent_quiet(FINISHED_S)

    def _converse(self, converse: Converse) -> _Steps:
        left = {answer: answer.times for answer in converse.answers}
        for _ in range(converse.max_turns):
            answer, line = yield from self._find_answer(converse, left)
            if answer is not None:
                left[answer] -= 1
            yield from self._speak(line)
            if answer and answer.interrupt:
                yield from self._interrupt(answer.interrupt)
            for over in answer.over if answer else ():
                yield from self._over(over)
            if answer and answer.last:
                return
        raise _Failed(f"the conversation was not over after {converse.max_turns} turns")

    def _find_answer(
        self, converse: Converse, left: Mapping[Answer, int]
    ) -> Generator[Action | None, None, tuple[Answer | None, Line]]:
        """Wait until the agent has asked something; return the answer and its line."""
        yield from self._wait_for_answer(converse.quiet_s, converse.within_s)
        deadline = self._senses.now + int(converse.patience_s * RATE_HZ)
        while True:
            heard = self._reply()
            promises_more = _found(converse.wait_on, _last_sentence(heard))
            if promises_more:  # bounded by the time allowed for an answer
                deadline = max(deadline, (self._senses.agent_last or 0) + int(converse.within_s * RATE_HZ))
            is_over = self._senses.now > deadline
            is_answer = not promises_more and (heard or is_over or not self._is_scrap())
            choice = self._match(converse, left, heard) if is_answer else None
            if choice is not None:
                return choice
            if is_over:
                break
            yield None
            yield from self._wait(
                lambda: self._is_agent_quiet(converse.quiet_s), 60.0, "the agent did not stop"
            )
        if converse.otherwise is None:
            raise _Failed(f"no answer to {heard!r}")
        return None, self._rng.choice(converse.otherwise)

    def _is_scrap(self) -> bool:
        """Tell whether so little was heard of the agent since the caller's words that it can be no answer."""
        return self._senses.agent_samples - self._heard_before < SCRAP_SAMPLES

    def _match(
        self, converse: Converse, left: Mapping[Answer, int], heard: str
    ) -> tuple[Answer, Line] | None:
        """Return the first answer that fits what was heard; any fits words that cannot be known."""
        for answer in converse.answers:
            if not left[answer]:
                continue
            if not heard:
                return answer, _fill(self._rng.choice(answer.say), {})
            found = re.search(answer.when, heard, re.IGNORECASE)
            if found:
                return answer, _fill(self._rng.choice(answer.say), found.groupdict())
        return None

    def _speak(self, line: Line, kind: SoundKind = SoundKind.SPEECH, at: int | None = None) -> _Steps:
        self._began_at = self._senses.now if at is None else max(self._senses.now, at)
        self._over_onset = None
        self._sounds.clear()
        yield Speak(line, kind, at)
        yield from self._hear_own_out()
        self._spoke_at = self._senses.now
        self._heard_before = self._senses.agent_samples

    def _hear_own_out(self) -> _Steps:
        """Wait for the end of the caller's own sound, whose length is known only once it has begun."""
        began = self._senses.now
        while self._senses.is_speaking:
            late = self._senses.now - max(began, self._senses.own_end)
            if late >= OWN_SOUND_LIMIT_S * RATE_HZ:
                raise _Failed(f"own sound did not end within {OWN_SOUND_LIMIT_S:g} s")
            yield None

    def _agent_spoke(self) -> bool:
        """Tell whether the agent has said something since the caller's last words.

        A reply may begin while the caller still speaks; then it must go on after that.
        """
        onset, last = self._senses.agent_onset, self._senses.agent_last
        return onset is not None and onset >= self._began_at and last is not None and last >= self._spoke_at

    def _agent_spoke_anew(self) -> bool:
        return self._agent_spoke() and self._senses.agent_onset != self._heard_out

    def _reply(self) -> str:
        """Return what the agent said since the caller's last words."""
        return self._senses.text_since(min(self._spoke_at, self._senses.agent_onset or 0))

    def _is_agent_quiet(self, quiet_s: float) -> bool:
        last = self._senses.agent_last
        if last is None:
            return True
        quiet = self._senses.now - last
        return quiet >= quiet_s * RATE_HZ and (quiet >= RESUME_LIMIT_SAMPLES or not self._made_pause(last))

    def _made_pause(self, agent_last: int) -> bool:
        """Tell whether the agent fell silent over a sound of the caller's: then it is likely to go on."""
        return any(start < agent_last <= end + REACTION_SAMPLES for start, end in self._sounds)

    def _wait_for_answer(self, quiet_s: float, within_s: float) -> _Steps:
        yield from self._wait(self._agent_spoke, within_s, "the agent did not speak")
        yield from self._wait(lambda: self._is_agent_quiet(quiet_s), 60.0, "the agent did not stop")

    def _wait_for_hang_up(self) -> _Steps:
        """Wait; the owner stops resuming us when the agent hangs up."""
        limit_s = self._scenario.goodbye_within_s
        if self._scenario.ended_by is EndedBy.EITHER:
            yield from self._sleep(int(limit_s * RATE_HZ))
        else:
            yield from self._wait(lambda: False, limit_s, "the agent did not hang up")

    def _sleep(self, samples: int) -> _Steps:
        until = self._senses.now + samples
        while self._senses.now < until:
            yield None

    def _wait(self, is_met: Callable[[], bool], limit_s: float, complaint: str) -> _Steps:
        until = self._senses.now + int(limit_s * RATE_HZ)
        while not is_met():
            if self._senses.now >= until:
                raise _Failed(f"{complaint} within {limit_s:g} s")
            yield None


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _last_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s+", text)[-1]


def _fill(line: Line, groups: Mapping[str, str | None]) -> Line:
    """Return `line` with `{name}` replaced; a name without a value leaves nothing behind."""

    def filled(text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: groups.get(found[1]) or "", text).strip()

    if isinstance(line, str):
        return filled(line)
    parts = tuple(filled(part) if isinstance(part, str) else part for part in line.parts)
    return line.model_copy(update={"parts": parts})
