"""A person in a browser, for real: Chromium with a microphone, the launcher, the sims, the page.

With `BROWSER_SHOTS` set to a folder, the tests leave pictures of the page there, to look at.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from sims.speech import SpeechSynthesizer
from tests.fakes.chromium import MICROPHONE_HZ, browser_flags, browser_path, write_microphone
from tests.fakes.launcher import Launcher, open_launcher

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.browser,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

GREETING = "Northside Dental, how can I help?"
QUESTION = "What are your opening hours?"
PATIENCE_MS = 20_000
DURATION = """audio => new Promise((tell, refuse) => {
  const fail = () => refuse(new Error(audio.error?.message ?? "no metadata"));
  if (audio.error !== null) fail();
  else if (audio.readyState > 0) tell(audio.duration);
  audio.addEventListener("loadedmetadata", () => tell(audio.duration));
  audio.addEventListener("error", fail);
  setTimeout(fail, 10_000);
})"""
"""How long an audio element's sound is, in seconds; an error when it cannot be had."""
NOTE_LEVELS = """meter => {
  window.levels = [Number(meter.getAttribute("aria-valuenow"))];
  new MutationObserver(() => window.levels.push(Number(meter.getAttribute("aria-valuenow"))))
    .observe(meter, { attributeFilter: ["aria-valuenow"] });
}"""
"""From now on, `window.levels` has whatever a meter shows, 0 to 100."""
SPEECH_LEVEL, FALL = 50, 20
"""A voice on a meter, and how far it falls at least when nobody speaks."""
SHOTS = os.environ.get("BROWSER_SHOTS")


def says(*parts: str | float) -> bytes:
    """Return what a microphone hears: texts spoken, numbers as seconds of silence."""
    synthesizer = SpeechSynthesizer()
    pcm = b"".join(
        synthesizer.synthesize(part, voice="caller-2", rate_hz=MICROPHONE_HZ).pcm
        if isinstance(part, str)
        else bytes(2 * round(part * MICROPHONE_HZ))
        for part in parts
    )
    synthesizer.close()
    return pcm


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher"), profile="realistic") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[BrowserContext]:
    microphone = tmp_path_factory.mktemp("mic") / "mic.wav"
    write_microphone(microphone, says(4.0, QUESTION, 30.0))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=browser_path(), args=browser_flags(microphone)
        )
        yield await browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: BrowserContext, launcher: Launcher) -> AsyncGenerator[Page]:
    """A page that may not fail silently: script errors, CSP violations and failed requests fail the test."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((launcher.url, "blob:")) else faults.append(r.url))
    yield page
    await page.close()
    assert faults == []


async def lines(page: Page) -> Sequence[str]:
    return await page.get_by_test_id("transcript").locator("li").all_inner_texts()


def rises(levels: Sequence[float]) -> int:
    """Return how often a meter rose to a voice: at first from nothing, then each time after it had fallen."""
    count, peak, floor = 0, 0.0, 0.0
    is_up = False
    for level in levels:
        peak, floor = max(peak, level), min(floor, level)
        if is_up and level <= peak - FALL:
            is_up, floor = False, level
        elif not is_up and level >= max(SPEECH_LEVEL, floor + FALL):
            is_up, peak, count = True, level, count + 1
    return count


async def times_heard(page: Page, *, at_least: int) -> int:
    """Return how often the agent's meter has risen, when it has done so `at_least` times."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while (times := rises(await page.evaluate("window.levels"))) < at_least:  # noqa: ASYNC110 - the page's
            await asyncio.sleep(0.1)
    return times


async def photograph(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"real-{name}.png", full_page=True)


async def test_the_agent_greets_and_answers_a_question(page: Page, launcher: Launcher) -> None:
    await page.goto(f"{launcher.url}/client")
    await page.get_by_test_id("meter-agent").evaluate(NOTE_LEVELS)
    await page.get_by_test_id("talk").click()
    transcript = page.get_by_test_id("transcript")
    await expect(transcript).to_contain_text(GREETING, timeout=PATIENCE_MS)
    assert await times_heard(page, at_least=1) == 1
    assert [line.split()[0] for line in await lines(page)].count("Agent") == 1, "it was the greeting"
    await expect(transcript).to_contain_text(re.compile("what are your", re.IGNORECASE), timeout=PATIENCE_MS)
    await expect(transcript).to_contain_text(
        re.compile(r"open Monday to Friday .* closed\.", re.DOTALL), timeout=PATIENCE_MS
    )
    await expect(page.get_by_test_id("turn-bar")).to_have_count(2, timeout=PATIENCE_MS)
    said = await lines(page)
    assert [line.split()[0] for line in said] == ["Agent", "You", "Agent"]
    await photograph(page, "talk")
    assert await times_heard(page, at_least=2) >= 2

    await page.get_by_test_id("hangup").click()
    [call] = [call for call in launcher.board.calls() if call.setup.channel == "browser"]
    await launcher.ended(call.setup.call_sid)
    assert call.times.release_s < 2.0
    await expect(page.get_by_test_id("call-row").first).to_contain_text("Ended", timeout=PATIENCE_MS)
    await page.get_by_test_id("call-row").first.click()
    await expect(page.get_by_test_id("stage-title")).to_have_text("Browser call")
    await expect(page.get_by_test_id("recording")).to_be_visible(timeout=PATIENCE_MS)
    recorded_s = await page.get_by_test_id("player").evaluate(DURATION)
    assert recorded_s > 5
    assert recorded_s == pytest.approx(call.duration_s, abs=1.0)


async def test_a_test_call_is_watched_from_ring_to_recording(page: Page, launcher: Launcher) -> None:
    await page.goto(launcher.url)
    await page.get_by_test_id("scenario").select_option("hours")
    await page.get_by_test_id("place-test-call").click()
    await expect(page.get_by_test_id("stage-title")).to_contain_text("Phone call")
    await expect(page.get_by_test_id("transcript")).to_contain_text(GREETING)
    await expect(page.get_by_test_id("turn-bar").nth(1)).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_test_id("stage-state")).to_have_text("Live")
    await expect(page.get_by_test_id("stage-state")).to_have_text("Ended", timeout=40_000)
    await expect(page.get_by_test_id("recording")).to_be_visible(timeout=PATIENCE_MS)
    said = await lines(page)
    assert {line.split()[0] for line in said} == {"Agent", "Caller"}
    assert len(said) >= 5
    assert await page.get_by_test_id("turn-bar").count() >= 3
    await photograph(page, "test-call")
