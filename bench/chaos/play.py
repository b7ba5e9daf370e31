"""Plays the call of one plan, and collects what both ends have of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import aiohttp

from bench.chaos.evidence import Evidence, Held, read_asked, read_end, read_files, settle
from bench.chaos.faults import Injection
from bench.chaos.plan import Plan
from bench.chaos.stage import Place, Sims
from bench.figures import CallerReport
from bench.load import SimPhone
from bench.special_calls import CALLERS
from sims.scenario import Scenario, load_scenario

RING_S = 1.0
"""From the order of a call to its answer: what is armed after it counts from there."""


def scenario_named(name: str, number: str) -> Scenario:
    """Read what a caller of `bench/callers/chaos` does, who calls from a number."""
    return load_scenario(CALLERS / "chaos" / f"{name}.yaml").model_copy(update={"caller": number})


async def play(place: Place, plan: Plan, *, before: Held, out_dir: Path) -> Evidence:
    """Play one call to its end, with nothing else on the server.

    Args:
        place: Where.
        plan: What.
        before: What the server held when it was idle.
        out_dir: Gets the caller's recording; absolute.

    Raises:
        aiohttp.ClientError: If the sims or the server do not answer what they are asked beside the call.
    """
    await place.sims.clear()
    await asyncio.to_thread(place.server.empty_books)
    hits_before = await _hits(place.sims)
    began_s = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    async with (
        arm_all(place, plan.injections),
        aiohttp.ClientSession(place.sims.urls["twilio"], timeout=timeout) as session,
    ):
        report = await SimPhone(session).call(
            scenario_named(plan.caller, plan.number),
            place.server.voice_url,
            seed=plan.seed,
            called=plan.called,
            out_dir=out_dir,
        )
    place = place.survivor
    end_reason = await read_end(place, report.call_sid)
    # Not before: the carrier's faults hit the hang-up, which the server asks for beside letting go of the rest.
    hits = await _hits(place.sims) - hits_before
    await place.sims.clear()
    timeline = await read_files(place, report.call_sid)
    excess = await settle(place, before)
    bookings, messages = await asyncio.to_thread(_rows, place)
    return Evidence(
        plan=plan,
        report=report,
        timeline=timeline,
        asked=await read_asked(place, began_s),
        bookings=bookings,
        messages=messages,
        end_reason=end_reason,
        excess=excess,
        hits=hits + _done_to_us(plan, report),
    )


@contextlib.asynccontextmanager
async def arm_all(place: Place, injections: Sequence[Injection]) -> AsyncGenerator[None]:
    """Turn faults on, each at its moment of the call that is ordered at the beginning of the block.

    Raises:
        aiohttp.ClientError: If a sim cannot be reached or cannot act its fault out.
    """
    for injection in injections:
        if injection.at_s is None:
            await place.arm(injection)
    arming = asyncio.create_task(_arm_later(place, injections), name="arming")
    try:
        yield
    finally:
        arming.cancel()
        await asyncio.wait({arming})
    if not arming.cancelled():
        arming.result()


async def _arm_later(place: Place, injections: Sequence[Injection]) -> None:
    """Arm what comes in the middle of the call, each at its moment."""
    began_s = time.monotonic()
    later = [(injection.at_s, injection) for injection in injections if injection.at_s is not None]
    for at_s, injection in sorted(later, key=lambda one: one[0]):
        await asyncio.sleep(began_s + RING_S + at_s - time.monotonic())
        await place.arm(injection)


async def _hits(sims: Sims) -> int:
    return sum(count for kinds in (await sims.hits()).values() for count in kinds.values())


def _done_to_us(plan: Plan, report: CallerReport) -> int:
    """Count what was done to our own processes and files, which no sim counts."""
    ours = [one for one in plan.injections if one.cell.is_ours]
    return sum(one.at_s is not None and one.at_s < report.duration_s for one in ours)


def _rows(place: Place) -> tuple[int, int]:
    return place.server.bookings(), place.server.messages()
