from pathlib import Path

import pytest

from bench.agents import ANNOUNCED, ANNOUNCEMENT, FLUX, NUMBERS, RECEPTION, SLOW, write_agents
from bot.flow_check import load_checked_agents


def test_every_agent_is_sound_and_answers_its_number(tmp_path: Path) -> None:
    agents = load_checked_agents(write_agents(tmp_path))
    assert {slug: checked.agent.config.numbers for slug, checked in agents.items()} == {
        slug: (number,) for slug, number in NUMBERS.items()
    }
    announcement = agents[ANNOUNCED].agent.config.announcement
    assert announcement is not None
    assert (announcement.say, announcement.barge_in) == (ANNOUNCEMENT, False)
    assert [agents[slug].agent.config.announcement for slug in (RECEPTION, FLUX, SLOW)] == [None] * 3
    assert [choice.name for choice in agents[FLUX].agent.config.services.stt] == ["flux", "assemblyai"]


@pytest.mark.parametrize("thinks_ahead", [True, False])
def test_agents_think_ahead_or_not(tmp_path: Path, *, thinks_ahead: bool) -> None:
    agents = load_checked_agents(write_agents(tmp_path / "agents", [RECEPTION], thinks_ahead=thinks_ahead))
    assert list(agents) == [RECEPTION]
    assert agents[RECEPTION].agent.config.speculation.enabled is thinks_ahead
