"""Renders every fixed line of every agent before the first call needs it: at start, and by `firstring warm`."""

import asyncio
from collections.abc import Iterator

from loguru import logger

from bot.agent import Agent
from bot.flow_check import CheckedAgent, load_checked_agents
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from bot.settings import Settings
from bot.voice_lines import MAX_RENDERINGS, measure_voices, warm


async def warm_now(settings: Settings) -> int:
    """Render what is missing: `firstring warm`.

    Returns:
        The exit code: 0 if every line could be rendered.
    """
    resources = Resources.open(settings, load_checked_agents(settings.agents_dir))
    try:
        is_warm = await warm_lines(resources)
        await measure_standbys(resources)
    finally:
        await resources.close()
    return 0 if is_warm else 1


async def warm_lines(resources: Resources) -> bool:
    """Render what is missing in every agent's first voice, for phones and browsers.

    Returns:
        False if any line is missing then, which is logged.
    """
    results = [await _warm_one(one, resources, rate_hz) for one, rate_hz in _voices(resources)]
    return all(results)


async def measure_standbys(resources: Resources) -> None:
    """Find out how loud the voices are that stand in for the first ones, `MAX_RENDERINGS` agents at a time.

    A call does not need it: a voice whose loudness is not known speaks as loud as it is.
    """
    places = asyncio.Semaphore(MAX_RENDERINGS)

    async def measure(agent: Agent, rate_hz: int) -> None:
        async with places:
            await _measure_one(agent, resources, rate_hz)

    async with asyncio.TaskGroup() as group:
        for one, rate_hz in _voices(resources):
            group.create_task(measure(one.agent, rate_hz), name=f"measure {one.agent.slug}")


def _voices(resources: Resources) -> Iterator[tuple[CheckedAgent, int]]:
    for one in resources.agents.values():
        for rate_hz in (PHONE_RATE_HZ, BROWSER_RATE_HZ):
            yield one, rate_hz


async def _warm_one(one: CheckedAgent, resources: Resources, rate_hz: int) -> bool:
    try:
        services = resources.services(one.agent, rate_hz)
        failed = await warm(one.agent, services, resources.audio, more=one.events.lines())
    except Exception as error:  # noqa: BLE001 - one agent's fault is not the others'
        logger.exception("the lines of {} were not rendered at {} Hz: {}", one.agent.slug, rate_hz, error)
        return False
    if failed:
        logger.warning("{} lines of {} have no audio at {} Hz", failed, one.agent.slug, rate_hz)
    return not failed


async def _measure_one(agent: Agent, resources: Resources, rate_hz: int) -> None:
    try:
        await measure_voices(agent, resources.services(agent, rate_hz), resources.audio)
    except Exception as error:  # noqa: BLE001 - one agent's fault is not the others'
        logger.exception("the voices of {} were not measured at {} Hz: {}", agent.slug, rate_hz, error)
