"""The caller's mind against a scripted agent: a small simulation of a call in 20 ms ticks, without clock or sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from sims.mulaw import FRAME_SAMPLES, RATE_HZ
from sims.person import HangUp, MakeNoise, Person, PressKey, Senses, Speak
from tests.sims.answering import LEAVES, scenario

SECONDS_PER_WORD = 0.25


@dataclass
class Call:
    """What was done, with the time of each thing."""

    person: Person
    spoken: list[tuple[float, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    noises: int = 0
    hung_up_s: float | None = None

    @property
    def lines(self) -> list[str]:
        return [text for _, text in self.spoken]


def converse(
    *steps: Mapping[str, object],
    replies: list[str],
    greeting: str = "hello there",
    think_s: float = 0.5,
    knows_words: bool = True,
    obeys: bool = True,
    limit_s: float = 60.0,
    **options: object,
) -> Call:
    """Run a person against an agent that greets at 0.2 s and gives one reply for each thing said."""
    senses = Senses()
    call = Call(Person(scenario(*steps, **options), senses, seed=3))
    script = call.person.act()
    queue = list(replies)
    agent_at, agent_text, words_heard = 0.2, greeting, 0
    mouth_until = -1.0
    for tick in range(int(limit_s * 50)):
        now_s = tick * 0.02
        end_s = agent_at + len(agent_text.split()) * SECONDS_PER_WORD
        if agent_at <= now_s < end_s:
            position = tick * FRAME_SAMPLES
            senses.hear(position, position + FRAME_SAMPLES - 1)
            word = int((now_s - agent_at) / SECONDS_PER_WORD)
            if knows_words and word == words_heard:
                senses.words.append((position, agent_text.split()[word]))
                words_heard += 1
        senses.now = (tick + 1) * FRAME_SAMPLES
        was_speaking, senses.is_speaking = senses.is_speaking, now_s < mouth_until
        if was_speaking and not senses.is_speaking and queue:
            agent_at, agent_text, words_heard = now_s + think_s, queue.pop(0), 0
        match next(script, None):
            case Speak(text=text):
                call.spoken.append((now_s, text))
                mouth_until = now_s + len(text.split()) * SECONDS_PER_WORD
                senses.is_speaking = True
                if obeys and agent_at <= now_s < end_s:
                    agent_text = " ".join(agent_text.split()[: int((now_s - agent_at) / SECONDS_PER_WORD)])
            case PressKey(digit=digit):
                call.keys.append(digit)
            case MakeNoise(noise=noise):
                call.noises += 1
                mouth_until = now_s + noise.ms / 1000
                senses.is_speaking = True
            case HangUp():
                call.hung_up_s = now_s
                return call
            case None:
                pass
    return call


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
    call = converse({"say": "hi"}, steps, {"hang_up": True}, replies=["mumble"] * 3, knows_words=False)
    assert call.lines == ["hi", "a", "b"]


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
