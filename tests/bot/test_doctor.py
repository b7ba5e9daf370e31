from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot.agent import read_agent
from bot.doctor import (
    Finding,
    Verdict,
    clock_finding,
    examine,
    number_findings,
    plan_findings,
    redis_finding,
)
from bot.settings import Settings, Vendor, VendorSource, load_settings
from store.redis_link import RedisProbe
from telephony.rest import PhoneNumber
from tests.bot.agent_files import AGENT, write_agent
from tests.fakes.redis_process import redis_process

pytestmark = pytest.mark.real_time

NUMBER = "+18506872085"
PUBLIC = "https://calls.example.com"
WEBHOOK = f"{PUBLIC}/twilio/voice"
PLAN = dict.fromkeys(Vendor, VendorSource.REAL)
SID = "AC" + "0" * 32
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "max_tokens",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}


class Town:
    """Every vendor on one port; `status` turns single ones bad."""

    def __init__(self) -> None:
        self.begins: dict[str, object] = {"type": "Begin"}
        self.status: dict[str, int] = {}
        self.asked: list[str] = []
        self.audio = b"\0" * 160
        self.bodies: dict[str, Any] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> "Town":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def settings(self, folder: Path, **more: Any) -> Settings:
        ws, http = f"ws://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.port}"
        return load_settings(
            _env_file=None,
            deepgram={"api_key": "k", "base_url": ws},
            assemblyai={"api_key": "k", "base_url": ws},
            elevenlabs={"api_key": "k", "base_url": ws},
            cartesia={"api_key": "k", "base_url": ws},
            anthropic={"api_key": "k", "base_url": http},
            openai={"api_key": "k", "base_url": http},
            groq={"api_key": "k", "base_url": http},
            fireworks={"api_key": "k", "base_url": http},
            together={"api_key": "k", "base_url": http},
            twilio={"account_sid": SID, "auth_token": "t", "base_url": http},
            database_url=f"sqlite:///{folder / 'data' / 'first-ring.db'}",
            recordings_url=str(folder / "recordings"),
            **more,
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        vendor = self._vendor(request.path)
        self.asked.append(vendor)
        if (status := self.status.get(vendor, 200)) != 200:
            return web.json_response({"code": 20003, "message": "no"}, status=status)
        if vendor == "assemblyai":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_json(self.begins)
            async for _ in socket:
                pass
            return socket
        if vendor == "deepgram":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for _ in socket:
                pass
            return socket
        if vendor in ("elevenlabs", "cartesia", "aura"):
            return web.Response(body=self.audio)
        if vendor == "anthropic":
            return web.json_response(MESSAGE)
        if vendor in ("openai", "groq", "fireworks"):
            self.bodies[vendor] = await request.json()
            return web.json_response({**CHAT, "choices": []})
        if "IncomingPhoneNumbers" in request.path:
            number = {"sid": "PN1", "phone_number": NUMBER, "voice_url": WEBHOOK, "voice_fallback_url": "x"}
            return web.json_response({"incoming_phone_numbers": [number], "next_page_uri": None})
        return web.json_response({"sid": SID, "status": "active", "friendly_name": "x"})

    @staticmethod
    def _vendor(path: str) -> str:
        by_prefix = {
            "/v1/listen": "deepgram",
            "/v3/ws": "assemblyai",
            "/v1/messages": "anthropic",
            "/v1/chat": "openai",
            "/openai/v1/chat": "groq",
            "/inference/v1/chat": "fireworks",
            "/v1/text-to-speech/voice-1": "elevenlabs",
            "/tts/bytes": "cartesia",
            "/v1/speak": "aura",
            "/2010-04-01": "twilio",
        }
        return next(vendor for prefix, vendor in by_prefix.items() if path.startswith(prefix))


async def findings(
    town: Town, folder: Path, plan: Mapping[Vendor, VendorSource] = PLAN, **more: Any
) -> dict[str, Finding]:
    agent = read_agent(write_agent(folder / "reception"))
    found = await examine(town.settings(folder, **more), {"reception": agent}, plan)
    return {finding.subject: finding for finding in found}


async def test_where_all_is_well_nothing_is_a_fault(tmp_path: Path) -> None:
    async with Town() as town:
        found = await findings(town, tmp_path)
    assert {subject: finding.verdict for subject, finding in found.items()} == {
        "deepgram": Verdict.GOOD,
        "anthropic": Verdict.GOOD,
        "elevenlabs voice-1": Verdict.GOOD,
        "cartesia voice-2": Verdict.GOOD,
        "twilio": Verdict.GOOD,
        f"{NUMBER} (reception)": Verdict.GOOD,
        "PUBLIC_URL": Verdict.WARNING,
        "database": Verdict.GOOD,
        "recordings": Verdict.GOOD,
        "clock": Verdict.GOOD,
    }
    assert set(town.asked) == {"deepgram", "anthropic", "elevenlabs", "cartesia", "twilio"}


@pytest.mark.parametrize(
    ("vendor", "status", "subject", "says"),
    [
        ("deepgram", 401, "deepgram", "refuses DEEPGRAM_API_KEY"),
        ("anthropic", 401, "anthropic", "refuses ANTHROPIC_API_KEY"),
        ("elevenlabs", 404, "elevenlabs voice-1", "does not know this model, voice"),
        ("cartesia", 402, "cartesia voice-2", "asks for payment"),
        ("twilio", 401, "twilio", "refuses the TWILIO_ credentials"),
    ],
)
async def test_a_bad_vendor_is_named_and_hides_no_other(
    tmp_path: Path, vendor: str, status: int, subject: str, says: str
) -> None:
    async with Town() as town:
        town.status[vendor] = status
        found = await findings(town, tmp_path)
    assert found[subject].verdict is Verdict.FAULT
    assert says in found[subject].sentence
    assert [f.subject for f in found.values() if f.verdict is Verdict.FAULT] == [subject]


@pytest.mark.parametrize(
    ("begins", "status", "says"),
    [
        ({"type": "Begin"}, 200, "listens"),
        (
            {"type": "Error", "error_code": 1008, "error": "Unauthorized Connection"},
            200,
            "refuses ASSEMBLYAI_API_KEY",
        ),
        ({"type": "Error", "error_code": 3009, "error": "Too many concurrent sessions"}, 200, "at its limit"),
        ({}, 403, "refuses this use of ASSEMBLYAI_API_KEY"),
    ],
)
async def test_a_recogniser_that_says_over_its_socket_what_is_wrong(
    tmp_path: Path, begins: dict[str, object], status: int, says: str
) -> None:
    folder = write_agent(tmp_path / "reception", agent=AGENT.replace("[deepgram]", "[deepgram, assemblyai]"))
    async with Town() as town:
        town.begins, town.status["assemblyai"] = begins, status
        found = await examine(town.settings(tmp_path), {"reception": read_agent(folder)}, PLAN)
    (finding,) = (finding for finding in found if finding.subject == "assemblyai")
    assert says in finding.sentence
    assert finding.verdict is (Verdict.GOOD if says == "listens" else Verdict.FAULT)


async def test_every_model_that_an_agent_names_is_asked(tmp_path: Path) -> None:
    more = "llm: [anthropic, openai, {name: groq, model: llama-3.3-70b-versatile}, fireworks, together]"
    folder = write_agent(tmp_path / "reception", agent=AGENT.replace("llm: [anthropic]", more))
    async with Town() as town:
        town.status["groq"] = 401
        found = await examine(town.settings(tmp_path), {"reception": read_agent(folder)}, PLAN)
    by_subject = {finding.subject: finding for finding in found}
    good = [name for name in ("anthropic", "openai", "fireworks", "together") if name in by_subject]
    assert [by_subject[name].verdict for name in good] == [Verdict.GOOD] * 4
    assert "refuses GROQ_API_KEY" in by_subject["groq llama-3.3-70b-versatile"].sentence
    assert town.asked.count("openai") == 2  # Together's path is the same
    assert town.bodies["fireworks"]["max_tokens"] == 16


async def test_models_of_both_tiers_are_asked(tmp_path: Path) -> None:
    more = "models: {openai: {light: gpt-4.1-mini, strong: [gpt-4.1, gpt-5.2]}}\nvoices:"
    text = AGENT.replace("llm: [anthropic]", "llm: [openai]").replace("voices:", more)
    folder = write_agent(tmp_path / "reception", agent=text)
    async with Town() as town:
        found = await examine(town.settings(tmp_path), {"reception": read_agent(folder)}, PLAN)
    asked = {finding.subject for finding in found if finding.subject.startswith("openai")}
    assert asked == {"openai gpt-4.1-mini", "openai gpt-4.1", "openai gpt-5.2"}


async def test_a_voice_without_audio_is_a_fault(tmp_path: Path) -> None:
    async with Town() as town:
        town.audio = b""
        found = await findings(town, tmp_path)
    assert found["cartesia voice-2"].sentence == "takes text and answers with no audio"


async def test_nobody_there_is_a_fault_of_each(tmp_path: Path) -> None:
    async with Town() as town:
        pass
    found = await findings(town, tmp_path)
    bad = {subject for subject, finding in found.items() if finding.verdict is Verdict.FAULT}
    assert bad == {"deepgram", "anthropic", "elevenlabs voice-1", "cartesia voice-2", "twilio"}
    assert found["clock"].verdict is Verdict.WARNING


async def test_sims_are_told(tmp_path: Path) -> None:
    async with Town() as town:
        found = await findings(town, tmp_path, {**PLAN, Vendor.CARTESIA: VendorSource.SIM})
    assert found["sims"].sentence.startswith("cartesia: ")


@pytest.mark.parametrize(
    ("workers", "verdict", "said"),
    [
        (2, Verdict.GOOD, "5: 2 for each of 2 workers; several machines"),
        (6, Verdict.WARNING, "5: 1 for each of 6 workers; together they may ask for 6: lower WORKERS to 5"),
    ],
)
def test_how_workers_share_a_plan_is_told(tmp_path: Path, workers: int, verdict: Verdict, said: str) -> None:
    agents = {"agent": read_agent(write_agent(tmp_path / "agent"))}
    assert plan_findings(agents, 1) == []
    [finding] = plan_findings(agents, workers)
    assert (finding.subject, finding.verdict) == ("cartesia (tts) concurrency", verdict)
    assert finding.sentence.startswith(said)


async def test_stores_that_cannot_be_written_are_faults(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    (tmp_path / "recordings").write_text("here too")
    async with Town() as town:
        found = await findings(town, tmp_path)
    assert found["database"].verdict is Verdict.FAULT
    assert found["recordings"].verdict is Verdict.FAULT


async def test_a_damaged_database_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "first-ring.db").write_bytes(b"not a database, but long enough to be read" * 40)
    async with Town() as town:
        found = await findings(town, tmp_path)
    assert "not a database" in found["database"].sentence


async def test_redis_is_written_to_and_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    async with Town() as town:
        with redis_process(tmp_path) as server:
            found = await findings(town, tmp_path, redis_url=server.url)
            assert found["redis"].verdict is Verdict.GOOD
            server.kill()
            server.start("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
            found = await findings(town, tmp_path, redis_url=server.url)
            assert found["redis"].verdict is Verdict.WARNING
            assert "noeviction, not allkeys-lru" in found["redis"].sentence
            server.kill()
            server.start("--requirepass", "secret-word")
            found = await findings(town, tmp_path, redis_url=server.url)
            assert found["redis"].verdict is Verdict.FAULT
            server.kill()
            secret = server.url.replace("127.0.0.1", "user:hunter2@127.0.0.1")
            found = await findings(town, tmp_path, redis_url=secret)
    assert found["redis"].verdict is Verdict.FAULT
    assert "hunter2" not in found["redis"].sentence


async def test_what_a_store_refused_is_told(tmp_path: Path) -> None:
    async with Town() as town:
        folder = tmp_path / "data" / "spool"
        folder.mkdir(parents=True)
        (folder / "refused.jsonl").write_text("{}")
        found = await findings(town, tmp_path)
    assert (found["spool"].verdict, str(folder) in found["spool"].sentence) == (Verdict.WARNING, True)


def test_a_slow_redis_is_told() -> None:
    finding = redis_finding(RedisProbe("7.0.1", 0.5, "noeviction", 0))
    assert (finding.verdict, "in a call it has 0.3 s" in finding.sentence) == (Verdict.WARNING, True)


async def test_plain_http_is_told(tmp_path: Path) -> None:
    async with Town() as town:
        found = await findings(town, tmp_path, public_url="http://127.0.0.1:7860")
    assert "not https" in found["PUBLIC_URL"].sentence


@pytest.mark.parametrize(
    ("record", "public_url", "verdict", "says"),
    [
        ({"voice_url": WEBHOOK, "voice_fallback_url": "x"}, PUBLIC, Verdict.GOOD, WEBHOOK),
        ({"voice_url": WEBHOOK}, PUBLIC, Verdict.WARNING, "fallback"),
        (
            {"voice_url": "https://other/voice"},
            PUBLIC,
            Verdict.FAULT,
            f"is https://other/voice; set it to {WEBHOOK}",
        ),
        ({}, PUBLIC, Verdict.FAULT, "webhook is none"),
        ({}, None, Verdict.GOOD, "belongs to"),
        ({"phone_number": "+15550000000"}, PUBLIC, Verdict.FAULT, "not a number of this"),
    ],
)
def test_numbers_are_compared_with_twilio(
    tmp_path: Path, record: dict[str, str], public_url: str | None, verdict: Verdict, says: str
) -> None:
    agents = {"reception": read_agent(write_agent(tmp_path / "reception"))}
    owned = [PhoneNumber(sid="PN1", **{"phone_number": NUMBER, **record})]
    [finding] = number_findings(agents, owned, public_url)
    assert (finding.subject, finding.verdict) == (f"{NUMBER} (reception)", verdict)
    assert says in finding.sentence


def test_the_best_of_the_clocks_counts() -> None:
    now = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
    late, near = "Sat, 21 Nov 2026 11:00:00 GMT", "Sat, 21 Nov 2026 11:59:58 GMT"
    assert clock_finding([late, near], now).verdict is Verdict.GOOD
    assert clock_finding([late], now).sentence.startswith("is 3600 s off")
    assert clock_finding([], now).verdict is Verdict.WARNING


async def test_a_voice_of_deepgrams_is_asked_to_speak(tmp_path: Path) -> None:
    text = AGENT.replace("    - elevenlabs\n", "    - deepgram\n").replace(
        "elevenlabs: voice-1", "deepgram: aura-2-thalia-en"
    )
    folder = write_agent(tmp_path / "reception", agent=text)
    async with Town() as town:
        town.status["aura"] = 402
        found = await examine(town.settings(tmp_path), {"reception": read_agent(folder)}, PLAN)
    by_subject = {finding.subject: finding for finding in found}
    assert by_subject["deepgram"].verdict is Verdict.GOOD, "the recogniser"
    assert "asks for payment" in by_subject["deepgram aura-2-thalia-en"].sentence
