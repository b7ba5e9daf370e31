"""Orders calls from a telephone sim that runs beside us, over its control surface.

The sim is another process: this is its client, by HTTP only. Used by the page's test call and `firstring call`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

_ORDER_LIMIT_S = 5.0


class SimCallError(Exception):
    """The sim did not place the call, or did not report on it."""


def is_sim(twilio_url: str) -> bool:
    """Tell whether the telephone at this URL is a sim: they are on loopback, and Twilio never is."""
    return urlsplit(twilio_url).hostname in ("127.0.0.1", "localhost", "::1")


async def place_sim_call(
    twilio_url: str,
    *,
    scenario: str,
    voice_url: str,
    called: str | None = None,
    out_dir: Path | None = None,
) -> str:
    """Have a scripted person call us.

    Args:
        twilio_url: Base URL of the telephone sim.
        scenario: What the person does.
        voice_url: Our voice webhook.
        called: The number they call, None for the sim's default.
        out_dir: Where the sim writes its recording of the call.

    Returns:
        The call's SID.

    Raises:
        SimCallError: If the sim refuses or cannot be reached.
    """
    order: dict[str, Any] = {"scenario": scenario, "voice_url": voice_url}
    if called is not None:
        order["to"] = called
    if out_dir is not None:
        order["out_dir"] = str(out_dir)
    answer = await _request("POST", f"{twilio_url}/sim/calls", limit_s=_ORDER_LIMIT_S, body=order)
    return str(answer["call_sid"])


async def list_scenarios(twilio_url: str) -> list[str]:
    """Return the names of what scripted people can do.

    Raises:
        SimCallError: If the sim cannot be reached.
    """
    answer = await _request("GET", f"{twilio_url}/sim/scenarios", limit_s=_ORDER_LIMIT_S)
    return [str(name) for name in answer.get("scenarios", ())]


async def wait_for_report(twilio_url: str, call_sid: str, *, limit_s: float) -> Mapping[str, Any]:
    """Wait until a call has ended and return what its caller measured.

    Raises:
        SimCallError: If the sim does not answer, or the call lasts longer than `limit_s` seconds.
    """
    return await _request("GET", f"{twilio_url}/sim/calls/{call_sid}?wait_s={limit_s}", limit_s=limit_s + 5.0)


async def _request(
    method: str, url: str, *, limit_s: float, body: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    timeout = aiohttp.ClientTimeout(total=limit_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, json=body) as response,
        ):
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SimCallError(f"the telephone sim did not answer: {error or type(error).__name__}") from error
    if response.status >= 400:
        raise SimCallError(str(answer.get("error", f"the telephone sim answered {response.status}")))
    return answer
