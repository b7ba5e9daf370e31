"""The caller's mind against a scripted agent: a small simulation of a call in 20 ms ticks, without clock or sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from sims.mulaw import FRAME_SAMPLES, RATE_HZ
from sims.person import HangUp, MakeEcho, MakeNoise, Person, PressKey, Senses, Speak
from sims.report import SoundKind
from sims.scenario import PausedLine
from tests.sims.answering import LEAVES, scenario

SECONDS_PER_WORD = 0.25


@dataclass
class Call:
    """What was done, with the time of each thing."""

    person: Person
    spoken: list[tuple[float, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    noises: int = 0
    sounds: list[tuple[float, float, str]] = field(default_factory=list[tuple[float, float, str]])
    """When ordered, when it is to begin, what."""
    hung_up_s: float | None = None

    @property
    def lines(self) -> list[str]:
        return [text for _, text in self.spoken]


class Conversation:
    """A person's frames, one every 20 ms, against an agent that says one text after the other."""

    def __init__(
        self, person: Person, senses: Senses, *, knows_words: bool, pauses_s: float, obeys: bool
    ) -> None:
        self.call = Call(person)
        self.now_s = 0.0
        self.is_over = False
        self._senses = senses
        self._script = person.act()
        self._knows_words, self._pauses_s, self._obeys = knows_words, pauses_s, obeys
        self._agent_at, self._agent_text, self._words_heard = 0.0, "", 0
        self._mouth_until, self._paused_at = -1.0, -1000.0

    def agent_says(self, text: str, at_s: float) -> None:
        """Have the agent say a text from a moment on, which may be to come."""
        self._agent_at, self._agent_text, self._words_heard = at_s, text, 0

    def hear(self, tick: int) -> bool:
        """Let the person hear a frame; return whether they have just said something to its end."""
        senses, self.now_s = self._senses, tick * 0.02
        if self._paused_at <= self.now_s < self._paused_at + self._pauses_s:
            self._agent_at += 0.02
        elif self._is_agent_speaking():
            position, word = tick * FRAME_SAMPLES, self._agent_word()
            senses.hear(position, position + FRAME_SAMPLES - 1)
            if self._knows_words and word == self._words_heard:
                senses.words.append((position, self._agent_text.split()[word]))
                self._words_heard += 1
        senses.now = (tick + 1) * FRAME_SAMPLES
        was_speaking, senses.is_speaking = senses.is_speaking, self.now_s < self._mouth_until
        return was_speaking and not senses.is_speaking

    def act(self) -> None:
        """Do what the person does next."""
        call = self.call
        match next(self._script, None):
            case Speak(text=text, kind=kind, at=at) if kind is not SoundKind.SPEECH and at is not None:
                self._sound(text, at, len(text.split()) * SECONDS_PER_WORD)
            case MakeEcho(echo=echo, at=at):
                self._sound("echo", at, echo.ms / 1000)
            case MakeNoise(noise=noise, at=at):
                call.noises += 1
                self._sound(noise.kind.value, at, noise.ms / 1000)
            case Speak(text=text):
                call.spoken.append((self.now_s, text))
                self._use_mouth(self.now_s, len(text.split()) * SECONDS_PER_WORD)
                if self._obeys and self._is_agent_speaking():
                    self._agent_text = " ".join(self._agent_text.split()[: self._agent_word()])
            case PressKey(digit=digit):
                call.keys.append(digit)
            case HangUp():
                call.hung_up_s, self.is_over = self.now_s, True
            case None:
                pass

    def _is_agent_speaking(self) -> bool:
        length_s = len(self._agent_text.split()) * SECONDS_PER_WORD
        return self._agent_at <= self.now_s < self._agent_at + length_s

    def _agent_word(self) -> int:
        return int((self.now_s - self._agent_at) / SECONDS_PER_WORD)

    def _sound(self, what: str, at: int | None, length_s: float) -> None:
        start_s = self.now_s if at is None else max(self.now_s, at / RATE_HZ)
        self.call.sounds.append((self.now_s, start_s, what))
        self._use_mouth(start_s, length_s)
        self._paused_at = start_s + 0.1

    def _use_mouth(self, start_s: float, length_s: float) -> None:
        senses, self._mouth_until = self._senses, start_s + length_s
        senses.is_speaking = True
        senses.own_start, senses.own_end = int(start_s * RATE_HZ), int(self._mouth_until * RATE_HZ)


def converse(
    *steps: Mapping[str, object],
    replies: list[str],
    greeting: str = "hello there",
    think_s: float = 0.5,
    knows_words: bool = True,
    pauses_s: float = 0.0,
    obeys: bool = True,
    limit_s: float = 60.0,
    **options: object,
) -> Call:
    """Run a person against an agent that greets at 0.2 s and gives one reply for each thing said.

    It pauses for `pauses_s` when a sound is made over it.
    """
    senses = Senses()
    person = Person(scenario(*steps, **options), senses, seed=3)
    talk = Conversation(person, senses, knows_words=knows_words, pauses_s=pauses_s, obeys=obeys)
    talk.agent_says(greeting, 0.2)
    queue = list(replies)
    for tick in range(int(limit_s * 50)):
        if talk.hear(tick) and queue:
            talk.agent_says(queue.pop(0), talk.now_s + think_s)
        talk.act()
        if talk.is_over:
            break
    return talk.call


def test_who_talks_for_minutes_is_heard_out() -> None:
    story = "word " * 600
    call = converse({"say": story}, {"hang_up": True}, replies=[], limit_s=200.0)
    assert call.person.failures == []
    assert call.hung_up_s is not None
    assert call.hung_up_s > 150


def test_waits_politely_until_the_agent_has_finished() -> None:
    call = converse({"say": "a b"}, {"say": "c"}, {"hang_up": True}, replies=["one two three"])

    greeting_end_s = 0.2 + 2 * SECONDS_PER_WORD
    assert call.spoken[0][0] == pytest.approx(greeting_end_s + 0.45, abs=0.05)
    reply_end_s = call.spoken[0][0] + 2 * SECONDS_PER_WORD + 0.5 + 3 * SECONDS_PER_WORD
    assert call.spoken[1][0] == pytest.approx(reply_end_s + 0.45, abs=0.1)
    assert call.person.failures == []
    assert call.person.is_script_done


def test_speaks_at_once_when_told_to() -> None:
    call = converse({"say": {"text": "now", "at_once": True}}, {"hang_up": True}, replies=[])
    assert call.spoken == [(0.0, "now")]


def test_interrupts_so_long_after_the_agent_became_audible() -> None:
    call = converse(
        {"say": "hi"}, {"interrupt": {"after_ms": 600, "say": "stop please"}}, {"hang_up": True},
        replies=["one two three four five six seven eight nine ten", "yes"],
    )  # fmt: skip
    onset_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5
    assert call.spoken[1][0] == pytest.approx(onset_s + 0.6, abs=0.06)


def test_an_agent_that_does_not_speak_fails_the_call_and_the_caller_hangs_up() -> None:
    call = converse({"say": "hi"}, {"expect": {"within_s": 3}}, replies=[])
    assert call.person.failures == ["step 2 (expect): the agent did not speak within 3 s"]
    assert call.hung_up_s == pytest.approx(call.spoken[0][0] + SECONDS_PER_WORD + 3, abs=0.1)


def test_expect_judges_what_was_said_since() -> None:
    step = {"expect": {"text_contains": "nine"}}
    good = converse({"say": "hours?"}, step, {"hang_up": True}, replies=["we open at nine"])
    bad = converse({"say": "hours?"}, step, {"hang_up": True}, replies=["we are a clinic"], greeting="nine")
    deaf = converse({"say": "hours?"}, step, {"hang_up": True}, replies=["mumble"], knows_words=False)
    assert good.person.failures == []
    assert "'we are a clinic'" in bad.person.failures[0]
    assert deaf.person.failures == []


def test_two_expects_in_a_row_want_two_phrases() -> None:
    call = converse({"expect": {}}, {"expect": {"within_s": 2}}, replies=[])
    assert call.person.failures == ["step 2 (expect): the agent did not speak within 2 s"]


PERSONA = {
    "converse": {
        "answers": [
            {"when": "anything else", "say": "no bye", "last": True},
            {"when": "name", "say": "dana", "times": 2},
            {"when": "(?P<time>ten|two) or", "say": "{time} please"},
            {"when": "day", "say": "tuesday", "interrupt": {"after_ms": 400, "say": "wednesday please"}},
        ],
        "patience_s": 1.0,
        "otherwise": "pardon",
    }
}


def test_answers_what_is_asked_in_whatever_order() -> None:
    replies = [
        "your name please", "what day works", "ok tuesday it is then fine", "two or four", "and the name again",
        "anything else",
    ]  # fmt: skip
    call = converse({"say": "hi"}, PERSONA, {"hang_up": True}, replies=replies)
    assert call.lines == [
        "hi", "dana", "tuesday", "wednesday please", "two please", "dana", "no bye",
    ]  # fmt: skip
    assert call.person.failures == []


def test_waits_for_more_after_a_filler_and_asks_again_when_nothing_fits() -> None:
    call = converse({"say": "hi"}, PERSONA, replies=["let me check that", ""], limit_s=25.0)
    filler_end_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5 + 4 * SECONDS_PER_WORD
    assert call.lines[1] == "pardon"
    assert call.spoken[1][0] == pytest.approx(filler_end_s + 12.0, abs=0.2)

    odd = converse({"say": "hi"}, PERSONA, replies=["purple"], limit_s=10.0)
    assert odd.lines[1] == "pardon"


def test_gives_the_answers_in_order_when_the_words_cannot_be_known() -> None:
    steps = {
        "converse": {"answers": [{"when": "x", "say": "a"}, {"when": "y", "say": "b", "last": True}]},
    }
    mumble = "mumble mumble mumble"
    call = converse({"say": "hi"}, steps, {"hang_up": True}, replies=[mumble] * 3, knows_words=False)
    assert call.lines == ["hi", "a", "b"]


def test_a_scrap_without_a_word_is_no_answer_until_patience_is_over() -> None:
    steps = {"converse": {"answers": [{"when": "x", "say": "a", "last": True}], "patience_s": 5.0}}
    call = converse({"say": "hi"}, steps, {"hang_up": True}, replies=["hm"], knows_words=False)
    assert call.lines == ["hi", "a"]
    scrap_end_s = call.spoken[0][0] + 0.5 + 2 * SECONDS_PER_WORD
    assert call.spoken[1][0] == pytest.approx(scrap_end_s + 0.45 + 5.0, abs=0.2)


def test_a_conversation_is_bounded() -> None:
    persona = {"converse": {"answers": [{"when": "more", "say": "yes", "times": 99}], "max_turns": 4}}
    call = converse({"say": "hi"}, persona, replies=["more"] * 20)
    assert call.lines == ["hi"] + ["yes"] * 4
    assert call.person.failures == ["step 2 (converse): the conversation was not over after 4 turns"]


def test_no_answer_and_nothing_else_to_say_fails() -> None:
    persona = {"converse": {"answers": [{"when": "x", "say": "y"}], "patience_s": 0.5}}
    call = converse({"say": "hi"}, persona, replies=["purple"])
    assert call.person.failures == ["step 2 (converse): no answer to 'purple'"]


def test_keys_noises_and_pauses() -> None:
    call = converse(
        {"noise": {"kind": "cough", "ms": 300}}, {"press": "12#"}, {"wait_s": 1}, {"hang_up": True}, replies=[]
    )  # fmt: skip
    assert (call.noises, call.keys) == (1, ["1", "2", "#"])
    assert call.hung_up_s == pytest.approx(0.3 + 3 * 0.25 + 1.0, abs=0.15)


def test_an_agent_that_has_to_end_the_call_and_does_not_is_a_failure() -> None:
    call = converse({"say": "bye"}, replies=["bye"], goodbye_within_s=4.0)
    assert call.person.is_script_done
    assert "did not hang up within 4 s" in call.person.failures[0]


def test_the_same_seed_picks_the_same_lines() -> None:
    step = {"say": [f"line {n}" for n in range(20)]}
    first, second = (converse(step, {"hang_up": True}, replies=[]) for _ in range(2))
    assert first.lines == second.lines


def test_a_reply_that_begins_while_the_caller_still_speaks_counts() -> None:
    call = converse({"say": "a b c d"}, {"expect": {"within_s": 2}}, {"hang_up": True}, replies=[])
    assert call.person.failures

    senses = Senses()
    person = Person(
        scenario({"say": {"text": "a", "at_once": True}}, {"expect": {"within_s": 2}}), senses, seed=0
    )
    script = person.act()
    assert isinstance(next(script), Speak)
    senses.is_speaking = True
    for tick in range(1, 100):
        senses.now = tick * FRAME_SAMPLES
        if 20 <= tick < 60:
            senses.hear(senses.now, senses.now)
        senses.is_speaking = tick < 40
        next(script, None)
    assert person.failures == []
    assert person.is_script_done
    assert senses.now < 3 * RATE_HZ


def test_interrupts_once_something_was_heard_or_will_not_be_any_more() -> None:
    interrupt = {"interrupt": {"after_ms": 200, "once_heard": "tuesday", "say": "wednesday"}}
    heard = converse(
        {"say": "hi"}, interrupt, LEAVES, replies=["so let me see we have tuesday at ten or at two", "fine"]
    )
    onset_s = heard.spoken[0][0] + SECONDS_PER_WORD + 0.5
    assert heard.spoken[1][0] == pytest.approx(onset_s + 6 * SECONDS_PER_WORD + 0.2, abs=0.3)

    unheard = converse({"say": "hi"}, interrupt, LEAVES, replies=["nothing like it", "fine"])
    end_s = unheard.spoken[0][0] + SECONDS_PER_WORD + 0.5 + 3 * SECONDS_PER_WORD
    assert unheard.spoken[1][0] == pytest.approx(end_s + 2.2, abs=0.1)


def test_a_promise_at_the_end_of_a_reply_means_waiting() -> None:
    answers = [{"when": "name", "say": "dana", "last": True}]
    call = converse(
        {"say": "hi"}, {"converse": {"answers": answers, "patience_s": 1.0, "otherwise": "pardon"}}, LEAVES,
        replies=["Thanks, name. Let me check.", "x"],
    )  # fmt: skip
    assert call.spoken[1][0] > 10.0


# --- Over the agent

LONG = "one two three four five six seven eight nine ten eleven twelve"
COUGHS = {"over": {"after_ms": 600, "noise": {"kind": "cough", "ms": 300}}}
THEN_DONE = ({"say": "done"}, LEAVES)


def test_sounds_over_one_utterance_are_ordered_ahead_and_begin_on_time() -> None:
    call = converse(
        {"say": "hi"},
        COUGHS,
        {"over": {"after_ms": 250, "from": "last", "backchannel": "uh-huh"}},
        {"over": {"after_ms": 2000, "echo": {"ms": 200}}},
        *THEN_DONE,
        replies=[LONG],
        pauses_s=0.5,  # the onset that the caller counts from does not move with it
    )
    onset_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5
    cough_s, uhuh_s, echo_s = (begins_s for _, begins_s, _ in call.sounds)
    assert [what for _, _, what in call.sounds] == ["cough", "uh-huh", "echo"]
    assert cough_s == pytest.approx(onset_s + 0.6, abs=0.03)
    assert uhuh_s == pytest.approx(cough_s + 0.3 + 0.25, abs=0.001)
    assert echo_s == pytest.approx(cough_s + 1.4, abs=0.001)
    assert all(0.09 < begins_s - ordered_s < 0.13 for ordered_s, begins_s, _ in call.sounds)
    assert call.person.failures == []


def test_a_sound_over_the_agent_is_no_turn_and_its_pause_no_end() -> None:
    call = converse({"say": "hi"}, COUGHS, *THEN_DONE, replies=[LONG], pauses_s=1.5)
    end_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5 + 12 * SECONDS_PER_WORD + 1.5
    assert call.lines == ["hi", "done"]
    assert call.spoken[1][0] == pytest.approx(end_s + 0.45, abs=0.06)


def test_an_agent_that_does_not_go_on_is_waited_for_three_seconds() -> None:
    call = converse({"say": "hi"}, COUGHS, *THEN_DONE, replies=[LONG], pauses_s=60.0)
    (_, cough_s, _) = call.sounds[0]
    assert call.spoken[1][0] == pytest.approx(cough_s + 0.1 + 3.0, abs=0.05)


def test_what_was_heard_since_the_callers_words_goes_across_a_sound() -> None:
    expect = {"expect": {"text_contains": "one two.*twelve"}}
    call = converse({"say": "hi"}, COUGHS, expect, LEAVES, replies=[LONG], pauses_s=0.5)
    assert call.person.failures == []


def test_a_sound_waits_for_a_word_and_for_the_next_utterance() -> None:
    over = {"over": {"after_ms": 100, "once_heard": "four", "backchannel": "right"}}
    call = converse({"say": "hi"}, over, *THEN_DONE, replies=[LONG])
    onset_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5
    assert call.sounds[0][1] == pytest.approx(onset_s + 3 * SECONDS_PER_WORD + 0.1, abs=0.05)

    unsaid = converse(
        {"expect": {}}, {"over": {"after_ms": 0, "within_s": 2, "backchannel": "x"}}, replies=[]
    )
    assert unsaid.person.failures == ["step 2 (over): the agent did not speak within 2 s"]


def test_words_over_the_agent_are_a_turn() -> None:
    call = converse({"say": "hi"}, {"over": {"after_ms": 600, "say": "no wait"}}, {"expect": {}}, LEAVES,
                    replies=[LONG, "yes"])  # fmt: skip
    onset_s = call.spoken[0][0] + SECONDS_PER_WORD + 0.5
    assert call.sounds == [
        (pytest.approx(onset_s + 0.5, abs=0.05), pytest.approx(onset_s + 0.6, abs=0.03), "no wait")
    ]
    assert call.person.failures == []


def test_a_line_with_pauses_keeps_them_and_its_blanks_are_filled() -> None:
    say = {"parts": ["it's", 0.7, "{time}"]}
    answers = [{"when": "(?P<time>ten|two) or", "say": say, "last": True}]
    senses = Senses()
    person = Person(scenario({"converse": {"answers": answers}}), senses, seed=0)
    script = person.act()
    spoken: list[Speak] = []
    for tick in range(100):
        senses.now = (tick + 1) * FRAME_SAMPLES
        if tick < 10:
            senses.hear(senses.now - 160, senses.now - 1)
        if tick == 5:
            senses.words += [(senses.now, "two"), (senses.now, "or")]
        if isinstance(action := next(script, None), Speak):
            spoken.append(action)
    (speak,) = spoken
    assert speak.text == "it's two"
    assert speak.line == PausedLine(parts=("it's", 0.7, "two"))
    assert speak.kind is SoundKind.SPEECH


def test_the_call_may_end_well_from_a_step_on() -> None:
    music = {"noise": {"kind": "music", "ms": 30_000}}
    early = converse({"say": "hi"}, music, replies=[], limit_s=8.0)
    assert not early.person.is_script_done
    allowed = converse({"say": "hi"}, music, replies=[], limit_s=8.0, may_end_from=2)
    assert allowed.person.is_script_done


def test_sounds_over_the_reply_to_an_answer() -> None:
    over = [
        {"after_ms": 500, "noise": {"kind": "click", "ms": 40}},
        {"after_ms": 300, "from": "last", "backchannel": "ok"},
    ]
    answers = [{"when": "day", "say": "monday", "over": over}, {"when": "twelve", "say": "bye", "last": True}]
    call = converse(
        {"say": "hi"}, {"converse": {"answers": answers}}, LEAVES, replies=["what day", LONG], pauses_s=0.4
    )
    assert call.lines == ["hi", "monday", "bye"]
    assert [what for _, _, what in call.sounds] == ["click", "ok"]
    assert call.person.failures == []
