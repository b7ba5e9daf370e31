"""The page in a real browser, against a server that speaks its contract and a real WebRTC peer."""

import asyncio
import random
import re
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from math import pi, sin
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests.fakes.chromium import MICROPHONE_HZ, browser_flags, browser_path, write_microphone
from tests.web.fake_server import PATIENCE_S, WEB_DIR, FakePeer, FakeServer, write_silence

pytestmark = [pytest.mark.real_time, pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# A peer whose connection state a test can turn: real networks take half a minute to be lost.
STEERED_PEER = """
const Real = RTCPeerConnection;
window.RTCPeerConnection = class extends Real {
  constructor(...options) {
    super(...options);
    window.turnTo = (value) => {
      Object.defineProperty(this, "connectionState", { value, configurable: true });
      this.dispatchEvent(new Event("connectionstatechange"));
    };
  }
};
"""
STAGES_OF = """async (turns) => {
  const m = await import("/static/turn_stages.js");
  return turns.map((t) => ({ stages: m.stagesOf(t), wait: m.waitMs(t), words: m.turnInWords(t), axis: m.axisMs([t]) }));
}"""
PLAYED = """() => {
  const { played } = document.getElementById("player");
  return Array.from({ length: played.length }, (_, n) => played.start(n));
}"""
TRANSCRIPT_OF = """async (messages) => {
  const m = await import("/static/live_transcript.js");
  const state = m.newTranscript();
  messages.forEach(([type, data], n) => m.hear(state, { type, data }, n));
  return state.entries.map((entry) => [entry.who, entry.text, entry.interim, entry.cut]);
}"""


def turn(index: int, **changes: object) -> dict[str, Any]:
    base = 10.0 * index
    record: dict[str, Any] = {
        "index": index,
        "kind": "answer",
        "caller_text": f"Question {index}",
        "agent_text": f"Answer {index}",
        "cut": False,
        "speech_end": base,
        "vad_stop": base + 0.200,
        "transcript_final": base + 0.320,
        "turn_decided": base + 0.340,
        "llm_request": base + 0.342,
        "llm_first_token": base + 0.480,
        "first_sentence": base + 0.530,
        "tts_request": base + 0.531,
        "tts_first_audio": base + 0.600,
        "sent": base + 0.605,
        "heard": base + 0.660,
        "agent_end": base + 3.0,
        "interrupted_at": None,
        "tools": [],
        "answer_s": 0.660,
    }
    return record | changes


def greeting() -> dict[str, Any]:
    nothing = dict.fromkeys(["speech_end", "vad_stop", "transcript_final", "turn_decided", "answer_s"])
    models = dict.fromkeys(
        ["llm_request", "llm_first_token", "first_sentence", "tts_request", "tts_first_audio"]
    )
    times = {"sent": 0.06, "heard": 0.084, "agent_end": 2.1, "interrupted_at": None}
    texts = {"caller_text": "", "agent_text": "Northside Dental, how can I help?", "cut": False, "tools": []}
    return {"index": 0, "kind": "greeting", **nothing, **models, **times, **texts}


def call(sid: str, **changes: object) -> dict[str, Any]:
    record: dict[str, Any] = {
        "call_sid": sid,
        "agent": "reception",
        "from": "+15550100000",
        "channel": "phone",
        "state": "live",
        "started_at": "2026-01-05T09:30:00+00:00",
        "duration_s": 12.5,
        "ended_reason": None,
        "turns": [],
        "transcript": [],
    }
    return record | changes


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """One browser for the module: starting it costs more than all it shows."""
    microphone = tmp_path_factory.mktemp("mic") / "mic.wav"
    tone = array("h", [int(9000 * sin(2 * pi * 300 * n / MICROPHONE_HZ)) for n in range(MICROPHONE_HZ)])
    write_microphone(microphone, tone.tobytes())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=browser_path(), args=browser_flags(microphone)
        )
        yield await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: BrowserContext, server: FakeServer) -> AsyncIterator[Page]:
    """A page that may not fail silently: script errors, CSP violations and foreign requests fail the test."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    # A refused request is logged by the browser too; tests that refuse look at what the page says.
    page.on(
        "console",
        lambda m: faults.append(m.text) if m.type == "error" and "Failed to load" not in m.text else None,
    )
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else faults.append(r.url))
    yield page
    await page.close()
    assert faults == []


async def talk(page: Page, server: FakeServer) -> FakePeer:
    await page.goto(f"{server.url}/client")
    await expect(page.get_by_test_id("talk")).to_be_focused()
    await page.keyboard.press("Enter")
    peer = await server.peer()
    await expect(page.get_by_test_id("hangup")).to_be_focused()
    return peer


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - what is watched is another process
            await asyncio.sleep(0.02)


async def until_louder(peer: FakePeer, dbfs: float) -> None:
    async def holds() -> bool:
        return peer.level_dbfs > dbfs

    await until(holds)


async def until_quieter(peer: FakePeer, dbfs: float) -> None:
    async def holds() -> bool:
        return peer.level_dbfs < dbfs

    await until(holds)


async def test_a_conversation_as_heard(page: Page, server: FakeServer) -> None:
    peer = await talk(page, server)
    ready = next(message for message in peer.received if message["type"] == "client-ready")
    assert ready["data"]["version"].startswith("2.")
    assert isinstance(ready["id"], str)

    peer.tell("bot-started-speaking")
    peer.say("Northside Dental, how can I help?")
    agent, caller = page.get_by_test_id("agent-line"), page.get_by_test_id("caller-line")
    await expect(agent).to_contain_text("Northside Dental, how can I help?")
    await expect(page.get_by_test_id("talk-status")).to_have_text("Agent is speaking")
    peer.tell("bot-stopped-speaking")

    peer.tell("user-started-speaking")
    peer.hear("I need a", final=False)
    await expect(page.get_by_test_id("interim")).to_have_text("I need a")
    await expect(page.get_by_test_id("talk-status")).to_have_text("Listening")
    peer.hear("I need a cleaning.", final=True)
    peer.tell("user-stopped-speaking")
    await expect(page.get_by_test_id("interim")).to_have_count(0)
    await expect(caller.locator("p")).to_have_text("I need a cleaning.")
    await expect(page.get_by_test_id("talk-status")).to_have_text("Thinking")

    peer.tell("bot-started-speaking")
    peer.say("Sure, which day would")
    peer.tell("user-started-speaking")
    peer.tell("bot-interrupted")
    await expect(page.get_by_test_id("cut")).to_have_text(" —")
    peer.hear("Wednesday", final=True)
    cut = turn(
        1, caller_text="I need a cleaning.", agent_text="Sure, which day", cut=True, interrupted_at=11.5
    )
    peer.tell("server-message", type="turn", turn=cut)
    await expect(agent.nth(1).locator("p")).to_have_text("Sure, which day — (cut off)")
    await expect(caller).to_have_count(2)
    await expect(page.get_by_test_id("turn-bar")).to_have_count(1)
    await expect(page.get_by_test_id("turn-wait")).to_have_text("660 ms")
    await expect(page.get_by_test_id("interruption")).to_contain_text("840 ms")


async def test_both_sides_are_heard_measured_and_muted(page: Page, server: FakeServer) -> None:
    peer = await talk(page, server)
    await until_louder(peer, -40)
    for meter in ("meter-you", "meter-agent"):
        await expect(page.get_by_test_id(meter)).to_have_attribute("aria-valuenow", re.compile(r"[5-9]\d"))
    assert await page.evaluate("document.getElementById('agent-audio').paused") is False

    await page.get_by_test_id("mute").click()
    await expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "true")
    await until_quieter(peer, -70)
    await page.get_by_test_id("mute").click()
    await until_louder(peer, -40)

    await page.get_by_test_id("hangup").click()
    async with asyncio.timeout(PATIENCE_S):
        await peer.closed.wait()
    await expect(page.get_by_test_id("talk")).to_be_visible()
    await expect(page.get_by_test_id("talk-problem")).to_be_hidden()


async def test_leaving_the_page_hangs_up(page: Page, server: FakeServer) -> None:
    peer = await talk(page, server)
    await page.reload()
    async with asyncio.timeout(PATIENCE_S):
        await peer.closed.wait()


async def test_the_agent_hangs_up(page: Page, server: FakeServer) -> None:
    peer = await talk(page, server)
    peer.tell("bot-started-speaking")
    peer.say("Goodbye.")
    await expect(page.get_by_test_id("agent-line")).to_contain_text("Goodbye.")
    await peer.leave()
    await expect(page.get_by_test_id("talk-status")).to_contain_text("The agent ended the call.")
    await expect(page.get_by_test_id("stage-state")).to_have_text("Ended")
    await page.get_by_test_id("talk").click()
    await server.peer()
    await expect(page.get_by_test_id("agent-line")).to_have_count(0)


async def test_renegotiation_garbage_and_errors_do_not_end_a_call(page: Page, server: FakeServer) -> None:
    peer = await talk(page, server)
    for text in (
        "not json",
        "null",
        "[1]",
        '{"label":"rtvi-ai"}',
        '{"label":"other","type":"error","data":{}}',
    ):
        peer.send_text(text)
    peer.tell("server-message", type="turn")
    peer.tell("error", error="the voice stumbled", fatal=False)
    await expect(page.get_by_test_id("talk-problem")).to_contain_text("the voice stumbled")
    async with page.expect_response("**/webrtc/offer") as response:
        peer.send_text('{"type":"signalling","message":{"type":"renegotiate"}}')
    offer = (await response.value).request.post_data_json
    assert isinstance(offer, dict)
    assert offer["pc_id"] == peer.pc_id
    peer.say("Still here.")
    await expect(page.get_by_test_id("agent-line")).to_contain_text("Still here.")
    peer.tell("error", error="the model is gone", fatal=True)
    await expect(page.get_by_test_id("talk-problem")).to_contain_text("the model is gone")
    await expect(page.get_by_test_id("talk")).to_be_visible()


async def test_a_lost_network_is_told(page: Page, server: FakeServer) -> None:
    await page.add_init_script(STEERED_PEER)
    await talk(page, server)
    await page.evaluate("turnTo('disconnected')")
    await expect(page.get_by_test_id("talk-problem")).to_contain_text("unsteady")
    await page.evaluate("turnTo('connected')")
    await expect(page.get_by_test_id("talk-problem")).to_be_hidden()
    await page.evaluate("turnTo('failed')")
    await expect(page.get_by_test_id("talk-problem")).to_contain_text("network was lost")


async def test_a_missing_microphone_is_explained(page: Page, server: FakeServer) -> None:
    await page.goto(server.url)
    for name, sentence in [("NotAllowedError", "is blocked"), ("NotFoundError", "No microphone was found")]:
        refuse = f"Promise.reject(new DOMException('no', '{name}'))"
        await page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = () => {refuse}; }}")
        await page.get_by_test_id("talk").click()
        await expect(page.get_by_test_id("talk-problem")).to_contain_text(sentence)
        await expect(page.get_by_test_id("talk")).to_be_visible()


async def test_a_refusal_is_shown_in_the_servers_words(page: Page, server: FakeServer) -> None:
    await page.goto(server.url)
    server.refusal = (503, {"error": "All lines are busy: 10 of 10 calls."})
    await page.get_by_test_id("talk").click()
    await expect(page.get_by_test_id("talk-problem")).to_have_text("All lines are busy: 10 of 10 calls.")
    await page.get_by_test_id("place-test-call").click()
    await expect(page.get_by_test_id("test-problem")).to_have_text("All lines are busy: 10 of 10 calls.")
    await expect(page.get_by_test_id("place-test-call")).to_be_enabled()


async def test_a_server_that_is_gone_is_told(page: Page, server: FakeServer) -> None:
    await page.goto(server.url)
    await page.route("**/webrtc/offer", lambda route: route.abort())
    await page.get_by_test_id("talk").click()
    await expect(page.get_by_test_id("talk-problem")).to_contain_text("No answer from the server")
    await page.route("**/api/calls", lambda route: route.abort())
    await page.reload()
    await expect(page.get_by_test_id("server-problem")).to_contain_text("Is it running?")


async def test_a_test_call_from_ring_to_recording(page: Page, server: FakeServer, tmp_path: Path) -> None:
    live = call("CA1", state="ringing", duration_s=0)
    server.calls["CA1"] = live
    await page.goto(server.url)
    await expect(page.get_by_test_id("sims-notice")).to_be_visible()
    await page.get_by_test_id("scenario").select_option("hours")
    await page.get_by_test_id("place-test-call").click()
    await expect(page.get_by_test_id("stage-state")).to_have_text("Ringing")
    assert server.test_calls == [{"scenario": "hours"}]

    tools = [
        {"name": "find_slots", "start": 10.4, "end": 10.445, "ok": True},
        {"name": "book", "start": 10.5, "end": 10.6, "ok": False},
    ]
    live |= {
        "state": "live",
        "turns": [
            greeting(),
            turn(
                1,
                tools=tools,
                fillers=[{"text": "One moment.", "start": 10.2, "end": 10.6}],
                cut=True,
                interrupted_at=11.0,
                llm_first_token=10.1,
            ),
        ],
        "transcript": [
            {"who": "agent", "text": "Northside Dental, how can I help?", "at_s": 0.1, "cut": False},
            {"who": "caller", "text": "When are you open?", "at_s": 8.0, "cut": False},
            {"who": "agent", "text": "Monday to", "at_s": 10.7, "cut": True},
        ],
    }
    await expect(page.get_by_test_id("caller-line")).to_have_count(1)
    await expect(page.get_by_test_id("cut")).to_have_count(1)
    bars = page.get_by_test_id("turn-bar")
    await expect(bars).to_have_count(2)
    await expect(bars.nth(0)).to_have_attribute(
        "aria-label", "Greeting: heard after 84 ms: To the ear 84 ms."
    )
    label = await bars.nth(1).get_attribute("aria-label")
    assert label is not None
    assert "Model" not in label  # its first token came while the turn was still being decided
    assert "Endpointing 200 ms, Transcript 120 ms" in label
    assert "book 100 ms, failed" in label
    assert "Cut off after 340 ms" in label
    assert "Meanwhile “One moment.” after" in label
    await expect(page.get_by_test_id("tool")).to_have_count(2)
    await expect(page.get_by_test_id("filler")).to_contain_text("“One moment.” after")
    await expect(page.get_by_test_id("tiles")).to_contain_text("Greeting84 ms")

    live |= {"state": "ended", "duration_s": 21.0, "ended_reason": "agent_hung_up"}
    await expect(page.get_by_test_id("stage-state")).to_have_text("Ended")
    await expect(page.get_by_test_id("stage-sub")).to_contain_text("ended: agent hung up")
    await expect(page.get_by_test_id("recording")).to_be_hidden()
    server.recordings["CA1"] = write_silence(tmp_path / "CA1.wav", 21.0)
    await expect(page.get_by_test_id("recording")).to_be_visible()
    await page.get_by_role("button", name="Play from 0:08").click()

    async def plays_from_there() -> bool:
        played_s = await page.evaluate(PLAYED)
        return len(played_s) == 1 and played_s[0] == pytest.approx(8.0, abs=0.1)

    await until(plays_from_there)


async def test_a_recent_call_opens_by_keyboard_and_by_address(page: Page, server: FakeServer) -> None:
    server.calls["CA1"] = call("CA1", state="ended", turns=[turn(1)])
    server.calls["CA2"] = call("CA2", state="ended", channel="browser", **{"from": None})
    await page.goto(server.url)
    rows = page.get_by_test_id("call-row")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_contain_text("Browser")
    await rows.nth(1).focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("stage-title")).to_have_text("Phone call from +15550100000")
    await expect(page.get_by_test_id("turn-bar")).to_have_count(1)
    await expect(rows.nth(1)).to_have_attribute("aria-current", "true")
    await page.get_by_text("Details").press("Enter")
    await expect(page.get_by_text("the model's first token")).to_be_visible()
    await page.goto(f"{server.url}/#call=CA404")
    await expect(page.get_by_test_id("stage-title")).to_have_text("Call not found")
    await page.go_back()
    await expect(page.get_by_test_id("stage-title")).to_have_text("Phone call from +15550100000")


async def test_an_hour_long_call_stays_small_and_its_words_are_not_markup(
    page: Page, server: FakeServer
) -> None:
    attack = "<img src=x onerror=alert(1)><b>bold</b>"
    lines: list[dict[str, Any]] = [
        {"who": ("agent", "caller")[n % 2], "text": f"line {n}", "at_s": n, "cut": False} for n in range(1500)
    ]
    lines.append({"who": "caller", "text": attack, "at_s": 1500.0, "cut": False})
    turns = [
        turn(n, caller_text=attack, tools=[{"name": attack, "start": n * 10, "end": None, "ok": True}])
        for n in range(400)
    ]
    server.calls["CA1"] = call(
        "CA1", state="ended", transcript=lines, turns=turns, agent=attack, **{"from": attack}
    )
    await page.goto(f"{server.url}/#call=CA1")
    await expect(page.get_by_test_id("transcript").locator("li").last).to_contain_text(attack)
    assert await page.get_by_test_id("transcript").locator("li").count() == 200
    assert await page.get_by_test_id("turn").count() == 100
    await expect(page.get_by_test_id("transcript-hidden")).to_have_text("1301 earlier lines are not shown.")
    assert await page.locator("main img, main b").count() == 0
    assert await page.evaluate("document.querySelectorAll('*').length") < 5000


@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_is_wider_than_the_screen(page: Page, server: FakeServer, width: int) -> None:
    lines = [{"who": "caller", "text": "Llanfair" * 30, "at_s": 1.0, "cut": False}]
    server.calls["CA1"] = call(
        "CA1", state="ended", transcript=lines, turns=[greeting(), turn(1, caller_text="x" * 300)]
    )
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(f"{server.url}/#call=CA1")
    await expect(page.get_by_test_id("turn-bar")).to_have_count(2)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_stages_cover_the_wait_whatever_the_times(page: Page, server: FakeServer) -> None:
    rng = random.Random(7)
    names = [
        name
        for name in turn(0)
        if name.endswith(("_stop", "_final", "_decided", "_token", "_sentence", "_audio"))
    ]
    turns: list[dict[str, Any]] = []
    for index in range(400):
        record = turn(index, answer_s=None, heard=index * 10 + rng.uniform(0.0, 4.0))
        for name in names:
            record[name] = rng.choice([None, record["speech_end"] + rng.uniform(-1.0, 5.0)])
        turns.append(record)
    await page.goto(server.url)
    results = await page.evaluate(STAGES_OF, turns)
    for result in results:
        cursor = 0.0
        for stage in result["stages"]:
            assert stage["startMs"] == pytest.approx(cursor, abs=1e-6)
            assert stage["ms"] > 0
            cursor += stage["ms"]
        assert cursor == pytest.approx(result["wait"], abs=1e-6)
        assert result["axis"] >= min(result["wait"], 60000)
        assert "NaN" not in result["words"]


async def hear_all(page: Page, messages: list[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
    """The transcript after these messages, as (who, text, interim, cut)."""
    return await page.evaluate(TRANSCRIPT_OF, messages)


async def test_the_transcript_keeps_its_order(page: Page, server: FakeServer) -> None:
    await page.goto(server.url)

    def caller(text: str, *, final: bool) -> tuple[str, dict[str, Any]]:
        return "user-transcription", {"text": text, "final": final}

    def agent(text: str) -> tuple[str, dict[str, Any]]:
        return "tts-raw-text", {"text": text}

    started, stopped, interrupted = (
        ("bot-started-speaking", {}),
        ("bot-stopped-speaking", {}),
        ("bot-interrupted", {}),
    )
    late_final = [
        caller("book", final=False),
        started,
        agent("Sure"),
        caller("Book me in.", final=True),
        agent(", one moment."),
    ]
    assert await hear_all(page, late_final) == [
        ["caller", "Book me in.", "", False],
        ["agent", "Sure, one moment.", "", False],
    ]
    no_cut = [
        started,
        agent("Hello."),
        stopped,
        interrupted,
        caller("Hi", final=True),
        caller("there", final=True),
    ]
    assert await hear_all(page, no_cut) == [["agent", "Hello.", "", False], ["caller", "Hi there", "", False]]
    both_channels = [
        started,
        agent("One"),
        ("bot-tts-text", {"text": "One"}),
        agent("two."),
        ("bot-tts-text", {"text": "two."}),
    ]
    assert await hear_all(page, both_channels) == [["agent", "One two.", "", False]]
    murmur = [
        started,
        agent("We open"),
        ("user-input", {"input_type": "backchannel", "text": "mhm", "final": True}),
        agent("at eight."),
    ]
    assert await hear_all(page, murmur) == [["agent", "We open at eight.", "", False]]
    only_records: list[tuple[str, dict[str, Any]]] = [
        ("server-message", {"type": "turn", "turn": turn(1, cut=True)})
    ]
    assert await hear_all(page, only_records) == [
        ["caller", "Question 1", "", False],
        ["agent", "Answer 1", "", True],
    ]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_colours_keep_their_contrast(theme: str) -> None:
    css = (WEB_DIR / "style.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)", 1)
    pattern = re.compile(r"--([\w-]+): (#[0-9a-f]{6});")
    colours = dict(pattern.findall(light))
    if theme == "dark":
        colours |= dict(pattern.findall(dark))
    text_on = {
        "bg": ["ink", "muted", "accent"],
        "surface": ["ink", "muted", "accent", "interim", "danger", "live"],
        "sunken": ["ink", "muted"],
        "agent-bg": ["ink", "muted", "accent", "interim", "danger"],
        "caller-bg": ["ink", "muted", "accent", "interim"],
        "problem-bg": ["problem-ink"],
        "notice-bg": ["notice-ink"],
        "accent": ["on-accent"],
        "accent-strong": ["on-accent"],
        "danger": ["on-danger"],
    }
    for ground, inks in text_on.items():
        for ink in inks:
            assert contrast(colours[ground], colours[ink]) >= 4.5, f"{ink} on {ground}"
    stages = [name for name in colours if name.startswith("stage-") and name != "stage-ink"]
    assert len(stages) == 7
    for stage in stages:
        assert contrast(colours[stage], colours["stage-ink"]) >= 4.5, f"figures on {stage}"
        assert contrast(colours[stage], colours["sunken"]) >= 3, f"{stage} on its bar"
    assert contrast(colours["control"], colours["surface"]) >= 3


async def test_the_page_is_all_our_own() -> None:
    for path in sorted(WEB_DIR.iterdir()):
        text = path.read_text()
        foreign = [
            url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) if not url.endswith("www.w3.org")
        ]
        assert foreign == [], path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
            path.name
        )
    html = (WEB_DIR / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", html)
