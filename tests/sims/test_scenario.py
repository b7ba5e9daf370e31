from pathlib import Path

import pytest

from sims.scenario import Scenario, ScenarioError, load_scenario, load_scenarios


def write(folder: Path, text: str) -> Path:
    path = folder / "odd.yaml"
    path.write_text(text)
    return path


def test_the_shipped_scenarios_are_sound() -> None:
    scenarios = load_scenarios()
    assert set(scenarios) == {"booking", "message", "hours", "hangup_early", "silent", "dtmf"}
    booking = scenarios["booking"]
    assert booking.min_turns >= 6
    assert any("Wednesday" in line for line in booking.lines())


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


def test_sayings_are_not_judged_without_words() -> None:
    scenario = Scenario.model_validate(
        {"name": "t", "steps": [{"hang_up": True}], "agent_says": ["wednes", "bye$"]}
    )
    assert scenario.missing_sayings("") == []
    assert scenario.missing_sayings("See you on WEDNESDAY.") == ["bye$"]
