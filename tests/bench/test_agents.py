from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.agents import (
    ALWAYS_OPEN,
    ANNOUNCED,
    ANNOUNCEMENT,
    FLUX,
    NEVER_OPEN,
    NUMBERS,
    RECEPTION,
    SLOW,
    write_agents,
)
from bot.flow_check import load_checked_agents
from integrations.calendar import OpeningHours
from integrations.callbacks import is_open


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


@pytest.mark.parametrize(("copies", "opens"), [(ALWAYS_OPEN, True), (NEVER_OPEN, False)])
def test_some_are_open_at_any_hour_or_never_and_tell_the_shipped_hours(
    tmp_path: Path, copies: dict[str, str], *, opens: bool
) -> None:
    agents = load_checked_agents(write_agents(tmp_path / "agents", [RECEPTION, *copies]))
    shipped = agents[RECEPTION].agent.config
    for slug, original in copies.items():
        config = agents[slug].agent.config
        hours = OpeningHours.parse(config.hours)
        week = (
            datetime(2026, 11, 23, hour, 59, tzinfo=UTC) + timedelta(days=day)
            for day in range(7)
            for hour in range(24)
        )
        assert {is_open(hours, moment) for moment in week} == {opens}
        flow = (tmp_path / "agents" / slug / "flow.yaml").read_text()
        assert "We're open Monday to Friday eight AM to six PM; Saturday nine AM to one PM" in flow
        assert (config.services == shipped.services) == (original == RECEPTION)


@pytest.mark.parametrize("thinks_ahead", [True, False])
def test_agents_think_ahead_or_not(tmp_path: Path, *, thinks_ahead: bool) -> None:
    agents = load_checked_agents(write_agents(tmp_path / "agents", [RECEPTION], thinks_ahead=thinks_ahead))
    assert list(agents) == [RECEPTION]
    assert agents[RECEPTION].agent.config.speculation.enabled is thinks_ahead
