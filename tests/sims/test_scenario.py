import re
from pathlib import Path

import pytest

from sims.scenario import (
    CLEAR,
    Echo,
    NoiseKind,
    PausedLine,
    Scenario,
    ScenarioError,
    Since,
    confidence_of,
    load_scenario,
    load_scenarios,
    text_of,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "odd.yaml"
    path.write_text(text)
    return path


def test_the_shipped_scenarios_are_sound() -> None:
    scenarios = load_scenarios()
    assert set(scenarios) == {"booking", "message", "hours", "hangup_early", "silent", "dtmf"}
    booking = scenarios["booking"]
    assert (booking.min_turns, booking.min_interruptions, booking.max_s) == (6, 1, 120)
    assert any("Wednesday" in text_of(line) for line in booking.lines())


def test_faults_name_file_line_and_rule_all_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "voice: caller-1\nsteps:\n  - say: hi\n  - wait_s: -1\n  - press: abc\n  - say: x\n    wait_s: 1\n"
        "  - converse: {answers: [{when: '(', say: y}]}\nsurprise: 1\n",
    )
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    faults = str(caught.value).splitlines()
    assert [fault.split(":")[1] for fault in faults] == ["4", "5", "6", "8", "8", "9"]
    assert "greater than 0" in faults[0]
    assert "exactly one thing" in faults[2]
    assert "regular expression" in faults[3]


@pytest.mark.parametrize("text", ["", "- a\n", "steps: [\n", "steps: []\n"])
def test_what_is_no_scenario_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"odd\.yaml"):
        load_scenario(write(tmp_path, text))


def test_lines_leaves_out_what_depends_on_the_agents_words() -> None:
    answers = [{"when": "(?P<t>ten) or", "say": ["{t}, please.", "Ten, please."]}]
    scenario = Scenario.model_validate(
        {
            "name": "t",
            "steps": [{"say": ["a", "b"]}, {"converse": {"answers": answers, "otherwise": "What?"}}],
        }
    )
    assert list(scenario.lines()) == ["a", "b", "What?", "Ten, please."]


PARTS = """
network: {loss: 0.02, jitter_ms: 40}
steps:
  - say: {parts: ["My number is", 0.7, five five five, 1, oh one four two], at_once: true}
  - interrupt: {after_ms: 300, say: {parts: [no, 0.4, wait]}}
  - converse:
      answers:
        - {when: number, say: [{parts: ["it's", 0.5, "{n}"]}, plain], over: {after_ms: 1, echo: {delay_ms: 250}}}
        - {when: day, say: monday, over: [{after_ms: 1, backchannel: right}, {after_ms: 1, noise: {kind: hum}}]}
  - over: {after_ms: 900, once_heard: tuesday, backchannel: uh-huh}
  - over: {after_ms: 100, from: last, noise: {kind: door}}
  - over: {after_ms: 0, echo: {delay_ms: 240}}
  - over: {after_ms: 50, say: [stop, no wait]}
"""


def test_pauses_and_sounds_over_the_agent_are_read(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, PARTS.replace("[no,", "['no',")))
    say = scenario.steps[0].say
    assert say
    assert say.at_once
    assert say.text == (PausedLine(parts=("My number is", 0.7, "five five five", 1.0, "oh one four two")),)
    assert text_of(say.text[0]) == "My number is five five five oh one four two"
    assert [text_of(line) for line in scenario.lines()] == [
        "My number is five five five oh one four two", "no wait", "plain", "monday", "right", "uh-huh", "stop",
        "no wait",
    ]  # fmt: skip
    overs = [step.over for step in scenario.steps if step.over]
    assert [over.since for over in overs] == [Since.ONSET, Since.LAST, Since.ONSET, Since.ONSET]
    assert overs[1].noise
    assert overs[1].noise.kind is NoiseKind.DOOR
    assert overs[2].echo == Echo(delay_ms=240, gain_db=-18, ms=700)
    assert scenario.longest_echo_ms == 250
    assert scenario.network
    assert (scenario.network.loss, scenario.network.jitter_ms) == (0.02, 40)


def test_a_line_may_be_mumbled(tmp_path: Path) -> None:
    mumbled = "{parts: [could you], confidence: 0.4}"
    steps = f"steps:\n  - say: {mumbled}\n  - interrupt: {{after_ms: 1, say: {mumbled}}}\n  - say: clearly\n"
    scenario = load_scenario(write(tmp_path, steps))
    assert [confidence_of(line) for line in scenario.lines()] == [0.4, 0.4, CLEAR]
    shape = scenario.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert Scenario.model_validate(shape) == scenario


@pytest.mark.parametrize(
    ("step", "line", "rule"),
    [
        ("say: {parts: [a, 0.5, 0.5, b]}", 3, "take turns"),
        ("say: {parts: [a, 0.5]}", 3, "take turns"),
        ("say: {parts: [0.5, a]}", 3, "take turns"),
        ("say: {parts: [a,\n      -1,\n      b]}", 4, "greater than 0"),
        ("say:\n      parts: [a, 0.3,\n        no]", 5, "valid string"),
        ("say: {parts: [a, 0.3, '...']}", 3, "pattern"),
        ("say: {parts: [a], text: b}", 3, "either text or parts"),
        ("say: {parts: [a], confidence: 2}", 3, "less than or equal to 1"),
        ("over: {after_ms: 1}", 3, "exactly one sound"),
        ("over: {after_ms: 1, say: a, backchannel: b}", 3, "exactly one sound"),
        ("over:\n      after_ms: 1\n      echo: {delay_ms: 5}", 5, "greater than or equal to 20"),
        ("over: {after_ms: 1, say: a, once_heard: b, from: last}", 3, "two beginnings"),
        ("over: {say: a}", 3, "after_ms: Field required"),
        ("noise: {kind: sneeze}", 3, "'door'"),
        ("noise: {kind: door, ms: 5001}", 3, "a door takes at most 5000 ms"),
    ],
)
def test_each_fault_is_told_once_with_its_line(step: str, line: int, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(write(tmp_path, f"voice: caller-1\nsteps:\n  - {step}\n  - hang_up: true\n"))
    (fault,) = str(caught.value).splitlines()
    assert fault.split(":")[1] == str(line)
    assert rule in fault


def test_sayings_are_not_judged_without_words() -> None:
    scenario = Scenario.model_validate(
        {"name": "t", "steps": [{"hang_up": True}], "agent_says": ["wednes", "bye$"]}
    )
    assert scenario.missing_sayings("") == []
    assert scenario.missing_sayings("See you on WEDNESDAY.") == ["bye$"]


@pytest.mark.parametrize(
    ("offer", "answers"),
    [
        ("I have Thursday, November 26th at five thirty PM. Would that suit you?", ("Yes, please.",)),
        (
            "I have Thursday, November 26th at five PM or five thirty PM. Which would you like?",
            ("The first one, please.", "The second one, please."),
        ),
    ],
)
def test_who_books_takes_one_time_as_well_as_one_of_two(offer: str, answers: tuple[str, ...]) -> None:
    """Shortly before the office closes there is only one left."""
    (conversation,) = [step.converse for step in load_scenarios()["booking"].steps if step.converse]
    first = next(one for one in conversation.answers if re.search(one.when, offer, re.IGNORECASE))
    assert first.say == answers
