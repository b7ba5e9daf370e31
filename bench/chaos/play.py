"""Plays the call of one plan, and collects what both ends have of it."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import aiohttp

from bench.chaos.books import empty, read_written
from bench.chaos.evidence import (
    VOICEMAIL_LIMIT_S,
    Evidence,
    Held,
    read_asked,
    read_end,
    read_files,
    read_left,
    read_rung,
    settle,
    wait_for_voicemail,
)
from bench.chaos.faults import Injection, ProcessFault, Target
from bench.chaos.plan import Plan
from bench.chaos.stage import Place
from bench.chaos.verdict import leaves_voicemail
from bench.figures import CallerReport
from bench.load import SimPhone
from bench.special_calls import CALLERS
from sims.faults import FaultKind
from sims.scenario import Scenario, load_scenario

Hits = Mapping[str, Mapping[str, int]]
"""By vendor and kind of fault."""
RING_S = 1.0
"""From the order of a call to its answer: what is armed after it counts from there."""
FETCH_S = 4.0
"""For what a caller has left to be fetched, or for that to fail: it begins when they have hung up."""


def scenario_named(name: str, number: str) -> Scenario:
    """Read what a caller of `bench/callers/chaos` does, who calls from a number."""
    return load_scenario(CALLERS / "chaos" / f"{name}.yaml").model_copy(update={"caller": number})


async def play(
    place: Place, plan: Plan, *, before: Held, out_dir: Path, lost_before: Held | None = None
) -> Evidence:
    """Play one call to its end, with nothing else on the server.

    Args:
        place: Where.
        plan: What.
        before: What the server held when it was idle; where there are two, the one that outlives the other.
        out_dir: Gets the caller's recording; absolute.
        lost_before: The same of the one that is lost; None is not known.

    Raises:
        aiohttp.ClientError: If the sims or the server do not answer what they are asked beside the call.
    """
    await place.sims.clear()
    await asyncio.to_thread(empty, place.server.database)
    hits_before = await place.sims.hits()
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
    lost, place = place, place.survivor
    end_reason = await read_end(place, report.call_sid)
    if leaves_voicemail(report):
        await wait_for_voicemail(place, FETCH_S)
    # Not before: the carrier's faults hit the hang-up, which the server asks for beside letting go of the rest.
    hits = _hits(plan, hits_before, await place.sims.hits()) + _done_to_us(plan, report)
    await place.sims.clear()
    await place.mend()
    rung = await read_rung(place, report.call_sid)
    if any(one.cell.target is Target.PERSON for one in plan.injections):
        hits[Target.PERSON] = len(rung)
    if leaves_voicemail(report):
        await wait_for_voicemail(place, VOICEMAIL_LIMIT_S)
    timeline = await read_files(place, report.call_sid)
    excess = await settle(place, before)
    for fault in _done_to_process(plan, report):
        excess += await read_left(lost, fault, lost_before)
    # Behind all that: one that was stopped has gone on by now.
    written = await asyncio.to_thread(read_written, place.server.database)
    return Evidence(
        plan=plan,
        report=report,
        timeline=timeline,
        asked=await read_asked(place, began_s),
        bookings=written.bookings,
        messages=written.messages,
        end_reason=end_reason,
        excess=excess,
        hits=hits.total(),
        hit=frozenset(+hits),
        callbacks=written.callbacks,
        voicemails=written.voicemails,
        rung=rung,
    )


@contextlib.asynccontextmanager
async def arm_all(place: Place, injections: Sequence[Injection]) -> AsyncGenerator[None]:
    """Turn faults on, each at its moment of the call that is ordered at the beginning of the block.

    Raises:
        aiohttp.ClientError: If a sim cannot be reached or cannot act its fault out.
    """
    began_s = time.monotonic()
    first = [one for injection in injections for one in (injection.before, injection) if one is not None]
    for injection in first:
        if injection.at_s is None:
            await place.arm(injection)
    acting = [asyncio.create_task(_act(place, one, began_s), name=str(one)) for one in injections]
    try:
        yield
    finally:
        for task in acting:
            task.cancel()
        await asyncio.gather(*acting, return_exceptions=True)
    for task in acting:
        if not task.cancelled():
            task.result()


async def _act(place: Place, injection: Injection, began_s: float) -> None:
    """Do what comes in the middle of the call, at its moment, and what ends there."""
    at_s = 0.0
    if injection.at_s is not None:
        at_s = RING_S + injection.at_s
        await asyncio.sleep(began_s + at_s - time.monotonic())
        await place.arm(injection)
    if injection.is_mended:
        await asyncio.sleep(began_s + at_s + injection.after_s - time.monotonic())
        await place.mend()


def _hits(plan: Plan, before: Hits, now: Hits) -> Counter[Target]:
    """Count how often the faults of a plan hit between two readings of the sims, by whom they hit."""
    found: Counter[Target] = Counter()
    for cell in (one.cell for one in plan.injections if isinstance(one.cell.kind, FaultKind)):
        # A media socket is the carrier's too.
        name, kind = Target.CARRIER if cell.target is Target.LINE else cell.target, str(cell.kind.value)
        found[cell.target] += now[name].get(kind, 0) - before[name].get(kind, 0)
    return +found


def _done_to_us(plan: Plan, report: CallerReport) -> Counter[Target]:
    """Count what was done to our own processes and files, which no sim counts."""
    ours = [one for one in plan.injections if one.cell.is_ours]
    return Counter(one.cell.target for one in ours if (one.at_s or 0.0) < report.duration_s)


def _done_to_process(plan: Plan, report: CallerReport) -> list[ProcessFault]:
    """Return what happened to the process that had the call."""
    return [
        one.cell.kind
        for one in plan.injections
        if one.cell.target is Target.SERVER
        and isinstance(one.cell.kind, ProcessFault)
        and (one.at_s or 0.0) < report.duration_s
    ]
