"""`firstring warm`: renders every fixed line of every agent before the first call needs it."""

from bot.flow_check import load_checked_agents
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from bot.settings import Settings
from bot.voice_lines import warm


async def warm_all(settings: Settings) -> int:
    """Render every line of every agent, for phones and browsers: `firstring warm`.

    Returns:
        The exit code: 0 if every line could be rendered.
    """
    resources = Resources.open(settings, load_checked_agents(settings.agents_dir))
    try:
        failed = 0
        for one in resources.agents.values():
            for rate_hz in (PHONE_RATE_HZ, BROWSER_RATE_HZ):
                services = resources.services(one.agent, rate_hz)
                failed += await warm(one.agent, services, resources.audio, more=one.events.lines())
    finally:
        await resources.close()
    return 1 if failed else 0
