"""`firstring doctor`: try everything a call needs once, through the configured base URLs, and say what to mend.

Keys, models and voices are tried by using them (a word is spoken with each voice, one token is asked of the
model): a key that can list is not a key that can speak. Changes nothing anywhere; each check has a deadline
and never hides another.
"""

import asyncio
import contextlib
import enum
import json
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
from anthropic import APIConnectionError, APIStatusError
from deepgram.core import ApiError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from bot.agent import Agent, AgentConfig
from bot.fallback import fallback_fault
from bot.services import (
    ANTHROPIC_MODEL,
    ASSEMBLYAI_MODEL,
    CARTESIA_MODEL,
    DEEPGRAM_MODEL,
    ELEVENLABS_MODEL,
    FIREWORKS_MODEL,
    FLUX_MODEL,
    GROQ_MODEL,
    OPENAI_MODEL,
    TOGETHER_MODEL,
    Layer,
    Options,
    share_of_plan,
)
from bot.settings import Settings, Vendor, VendorSource
from bot.stores import WRITE_LIMIT_S, spool_folder
from bot.vendor_clients import VendorClients, socket_options, twilio_credentials
from processors.assemblyai_recogniser import failure_of_code
from processors.model_tiers import Tier
from processors.voices import FailureKind
from store.errors import StoreUnavailableError
from store.redis_link import RedisLink, RedisProbe, probe
from store.spool_file import REFUSED_NAME
from telephony.rest import PhoneNumber, TwilioRefusedError, TwilioRest, TwilioRestError

CHECK_TIMEOUT_S = 10.0
CLOCK_TOLERANCE_S = 5.0
"""Appointments are made by this machine's clock."""
REDIS_LIMIT_S = 3.0
CHAT_TOKENS = 16
"""Asked of a model: one that thinks first refuses less."""
CARTESIA_VERSION = "2026-03-01"
"""API version of the HTTP request below. Source: Cartesia's `Cartesia-Version` header."""

_STATUS_OF = {FailureKind.UNAUTHORIZED: 401, FailureKind.QUOTA: 402, FailureKind.RATE_LIMITED: 429}
"""HTTP's word for what a vendor says over its socket."""


class Verdict(enum.Enum):
    """How a check ended."""

    GOOD = "good"
    WARNING = "warning"
    """Calls work, something is not as it should be."""
    FAULT = "fault"
    """Calls will fail."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    subject: str
    verdict: Verdict
    sentence: str
    """What is so, or what to mend."""


Check = Callable[[], Awaitable[list[Finding]]]


async def examine(
    settings: Settings, agents: Mapping[str, Agent], plan: Mapping[Vendor, VendorSource]
) -> list[Finding]:
    """Run every check at once.

    Args:
        settings: With every vendor's key and base URL, those of the sims included.
        agents: The agents to be served.
        plan: Where the vendors come from.

    Returns:
        Findings in a fixed order.
    """
    limit = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
    async with VendorClients(settings) as clients, aiohttp.ClientSession(timeout=limit) as http:
        doctor = _Doctor(settings, agents, clients, http)
        checks: list[tuple[str, Check]] = [
            *doctor.vendor_checks(),
            ("twilio", doctor.twilio),
            ("public URL", doctor.public_url),
            ("database", doctor.database),
            ("redis", doctor.redis),
            ("spool", doctor.spool),
            ("recordings", doctor.recordings),
        ]
        found = await asyncio.gather(*(_bounded(subject, check) for subject, check in checks))
        sims = [v.value for v, source in plan.items() if source is VendorSource.SIM]
        notes = (
            [Finding("sims", Verdict.WARNING, f"{', '.join(sims)}: no key set, played by sims")]
            if sims
            else []
        )
        plans = plan_findings(agents, settings.workers)
        return [*notes, *(finding for findings in found for finding in findings), *plans, doctor.clock()]


def clock_finding(server_dates: Iterable[str], now: datetime) -> Finding:
    """Compare this machine's clock with the `Date` headers that vendors sent."""
    skews_s = [abs((now - parsedate_to_datetime(date)).total_seconds()) for date in server_dates]
    if not skews_s:
        return Finding("clock", Verdict.WARNING, "no vendor told the time; it was not compared")
    # A slow answer makes its date old; the best one counts.
    if min(skews_s) > CLOCK_TOLERANCE_S:
        return Finding("clock", Verdict.FAULT, f"is {min(skews_s):.0f} s off; synchronise it (NTP)")
    return Finding("clock", Verdict.GOOD, "agrees with the vendors'")


def plan_findings(agents: Mapping[str, Agent], workers: int) -> list[Finding]:
    """Say how the vendors' plans are shared by several workers; with one there is nothing to say."""
    chosen = [
        (f"{choice.name} ({layer.value}) concurrency", choice.options)
        for agent in agents.values()
        for layer in Layer
        for choice in agent.config.services.of(layer)
        if workers > 1 and "concurrency" in choice.options
    ]
    return list(dict.fromkeys(_plan_finding(subject, options, workers) for subject, options in chosen))


def redis_finding(found: RedisProbe) -> Finding:
    """Say whether calls can be kept in this Redis."""
    if found.may_evict:
        return Finding(
            "redis",
            Verdict.WARNING,
            f"may drop the state of calls when its memory is full: set maxmemory-policy to noeviction, "
            f"not {found.eviction_policy}",
        )
    if found.took_s > WRITE_LIMIT_S:
        return Finding(
            "redis",
            Verdict.WARNING,
            f"takes {found.took_s:.1f} s for a write; in a call it has {WRITE_LIMIT_S:g} s",
        )
    return Finding("redis", Verdict.GOOD, f"{found.version} can be written")


def number_findings(
    agents: Mapping[str, Agent], owned: Iterable[PhoneNumber], public_url: str | None
) -> list[Finding]:
    """Compare the agents' numbers with what Twilio has for them.

    Args:
        agents: Slug to agent.
        owned: Numbers of the account.
        public_url: Where Twilio should call us; None skips the webhooks.
    """
    by_number = {number.phone_number: number for number in owned}
    findings: list[Finding] = []
    for slug, agent in agents.items():
        for number in agent.config.numbers:
            subject = f"{number} ({slug})"
            record = by_number.get(number)
            if record is None:
                findings.append(Finding(subject, Verdict.FAULT, "is not a number of this Twilio account"))
            elif public_url is not None:
                findings.append(_webhook_finding(subject, record, f"{public_url}/twilio/voice"))
            else:
                findings.append(Finding(subject, Verdict.GOOD, "belongs to the Twilio account"))
    return findings


def _webhook_finding(subject: str, record: PhoneNumber, wanted: str) -> Finding:
    if record.voice_url != wanted:
        return Finding(
            subject, Verdict.FAULT, f"its voice webhook is {record.voice_url or 'none'}; set it to {wanted}"
        )
    fault = fallback_fault(record.voice_fallback_url or "", wanted)
    if fault is not None:
        return Finding(
            subject,
            Verdict.WARNING,
            f"{fault}; make a TwiML Bin of what `firstring doctor --fallback` prints",
        )
    return Finding(subject, Verdict.GOOD, f"calls {wanted}, and {record.voice_fallback_url} when we are down")


class _Doctor:
    """The checks of one run and what they share."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, Agent],
        clients: VendorClients,
        http: aiohttp.ClientSession,
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._clients = clients
        self._http = http
        self._server_dates: list[str] = []

    def vendor_checks(self) -> list[tuple[str, Check]]:
        """Return one check for each different service of the agents."""
        by_layer = {
            (Layer.STT, "deepgram"): self._deepgram,
            (Layer.STT, "flux"): self._flux,
            (Layer.STT, "assemblyai"): self._assemblyai,
            (Layer.LLM, "anthropic"): self._anthropic,
            (Layer.LLM, "openai"): partial(self._chat, Vendor.OPENAI, OPENAI_MODEL),
            (Layer.LLM, "groq"): partial(self._chat, Vendor.GROQ, GROQ_MODEL),
            (Layer.LLM, "fireworks"): partial(self._chat, Vendor.FIREWORKS, FIREWORKS_MODEL),
            (Layer.LLM, "together"): partial(self._chat, Vendor.TOGETHER, TOGETHER_MODEL),
            (Layer.TTS, "elevenlabs"): self._elevenlabs,
            (Layer.TTS, "cartesia"): self._cartesia,
            (Layer.TTS, "deepgram"): self._aura,
        }
        checks: dict[str, Check] = {}
        for agent in self._agents.values():
            for layer, name, given in _services(agent.config):
                voice = agent.config.voices.get(name) if layer is Layer.TTS else None
                options = {**given, "voice": voice}
                subject = " ".join(
                    str(part) for part in (name, options.get("model"), options["voice"]) if part
                )
                check = by_layer[layer, name]
                checks[subject] = lambda check=check, subject=subject, options=options: check(
                    subject, options
                )
        return list(checks.items())

    async def twilio(self) -> list[Finding]:
        """Check the account and its numbers."""
        twilio = self._settings.twilio
        rest = TwilioRest(twilio_credentials(twilio), base_url=twilio.base_url, session=self._http)
        try:
            account = await rest.fetch_account()
            owned = await rest.list_numbers()
        except TwilioRefusedError as error:
            return [_refused("twilio", "the TWILIO_ credentials", error.status, str(error))]
        except TwilioRestError as error:
            return [Finding("twilio", Verdict.FAULT, str(error))]
        if account.status != "active":
            return [Finding("twilio", Verdict.FAULT, f"the account is {account.status}")]
        findings = [Finding("twilio", Verdict.GOOD, "the account is active")]
        return findings + number_findings(self._agents, owned, self._settings.public_url)

    async def public_url(self) -> list[Finding]:
        """Check that Twilio can reach us."""
        url = self._settings.public_url
        if url is None:
            return [
                Finding(
                    "PUBLIC_URL",
                    Verdict.WARNING,
                    "is not set: Twilio cannot reach this machine (browser and test calls can)",
                )
            ]
        if not url.startswith("https://"):
            return [Finding("PUBLIC_URL", Verdict.WARNING, "is not https; Twilio's media sockets need wss")]
        try:
            async with self._http.get(f"{url}/healthz") as response:
                self._note_date(response)
                if response.status == 200:
                    return [Finding("PUBLIC_URL", Verdict.GOOD, f"{url} reaches a server of ours")]
                sentence = f"{url}/healthz answers {response.status}; is `firstring serve` running behind it?"
        except aiohttp.ClientError as error:
            sentence = f"{url}/healthz: {error}; is the tunnel up?"
        return [Finding("PUBLIC_URL", Verdict.WARNING, sentence)]

    async def database(self) -> list[Finding]:
        """Check that the database can be written and is whole."""
        path = self._settings.database_path
        return [await asyncio.to_thread(_database_finding, path)]

    async def redis(self) -> list[Finding]:
        """Check that Redis can be written and forgets nothing before its time."""
        if self._settings.redis_url is None:
            return []
        link = RedisLink(self._settings.redis_url.get_secret_value(), deadline_s=REDIS_LIMIT_S)
        try:
            return [redis_finding(await probe(link))]
        except StoreUnavailableError as error:
            return [Finding("redis", Verdict.FAULT, f"REDIS_URL: {error}")]
        finally:
            await link.close()

    async def spool(self) -> list[Finding]:
        """Check that nothing was given up that was to be written."""
        path = spool_folder(self._settings) / REFUSED_NAME
        if not await asyncio.to_thread(path.exists):
            return []
        return [Finding("spool", Verdict.WARNING, f"{path} holds what a store refused; read and delete it")]

    async def recordings(self) -> list[Finding]:
        """Check that recordings can be written."""
        return [await asyncio.to_thread(_folder_finding, "recordings", self._settings.recordings_url)]

    def clock(self) -> Finding:
        """Compare the clock with the dates that the other checks saw."""
        return clock_finding(self._server_dates, datetime.now(UTC))

    async def _deepgram(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        model = options.get("model", DEEPGRAM_MODEL)
        try:
            async with self._clients.deepgram.connect(
                model=model, encoding="linear16", sample_rate="8000", channels="1"
            ) as socket:
                await socket.send_close_stream()
        except ApiError as error:
            return [_refused(subject, "DEEPGRAM_API_KEY", error.status_code or 0, str(error.body))]
        return [Finding(subject, Verdict.GOOD, "listens")]

    async def _flux(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        base, key = self._settings.deepgram.base_url, self._settings.deepgram.api_key
        model = options.get("model", FLUX_MODEL)
        try:
            async with connect(
                f"{base}/v2/listen?model={model}&encoding=linear16&sample_rate=8000",
                additional_headers={"Authorization": f"Token {key.get_secret_value() if key else ''}"},
                **socket_options(base, self._clients.tls),
            ) as socket:
                await socket.recv()  # it says that it is connected, before it hears anything
        except InvalidStatus as error:
            reason = error.response.headers.get("dg-error", "")
            return [_refused(subject, "DEEPGRAM_API_KEY", error.response.status_code, reason)]
        except WebSocketException as error:
            return [Finding(subject, Verdict.FAULT, f"{error}")]
        return [Finding(subject, Verdict.GOOD, "listens")]

    async def _assemblyai(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        base, model = self._settings.assemblyai.base_url, options.get("model", ASSEMBLYAI_MODEL)
        try:
            async with connect(
                f"{base}/v3/ws?speech_model={model}&encoding=pcm_s16le&sample_rate=8000",
                additional_headers={"Authorization": self._clients.assemblyai_key},
                **socket_options(base, self._clients.tls),
            ) as socket:
                told = json.loads(await socket.recv())  # it says that a session begins, or why none does
                if told.get("type") != "Begin":
                    failure = failure_of_code(told.get("error_code"), str(told.get("error")))
                    status = _STATUS_OF.get(failure.kind, 500)
                    return [_refused(subject, "ASSEMBLYAI_API_KEY", status, failure.detail)]
                await socket.send(json.dumps({"type": "Terminate"}))
        except InvalidStatus as error:
            reason = error.response.body.decode(errors="replace")[:200]
            return [_refused(subject, "ASSEMBLYAI_API_KEY", error.response.status_code, reason)]
        except WebSocketException as error:
            return [Finding(subject, Verdict.FAULT, f"{error}")]
        return [Finding(subject, Verdict.GOOD, "listens")]

    async def _anthropic(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        try:
            await self._clients.anthropic.sdk.messages.create(
                model=options.get("model", ANTHROPIC_MODEL),
                max_tokens=1,
                messages=[{"role": "user", "content": "Hello"}],
            )
        except APIStatusError as error:
            return [_refused(subject, "ANTHROPIC_API_KEY", error.status_code, error.message)]
        except APIConnectionError as error:
            return [Finding(subject, Verdict.FAULT, f"{error.__cause__ or error}")]
        return [Finding(subject, Verdict.GOOD, "answers")]

    async def _chat(
        self, vendor: Vendor, usual_model: str, subject: str, options: Mapping[str, Any]
    ) -> list[Finding]:
        limit = "max_tokens" if vendor in (Vendor.FIREWORKS, Vendor.TOGETHER) else "max_completion_tokens"
        request: dict[str, Any] = {
            "model": options.get("model", usual_model),
            "messages": [{"role": "user", "content": "Hello"}],
            limit: CHAT_TOKENS,
        }
        try:
            await self._clients.chat[vendor].sdk.chat.completions.create(**request)
        except openai.APIStatusError as error:
            return [_refused(subject, f"{vendor.value.upper()}_API_KEY", error.status_code, error.message)]
        except openai.APIConnectionError as error:
            return [Finding(subject, Verdict.FAULT, f"{error.__cause__ or error}")]
        return [Finding(subject, Verdict.GOOD, "answers")]

    async def _elevenlabs(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        base = _http_url(self._settings.elevenlabs.base_url)
        return await self._speak(
            subject,
            "ELEVENLABS_API_KEY",
            f"{base}/v1/text-to-speech/{options['voice']}/stream?output_format=pcm_8000",
            {"xi-api-key": self._clients.elevenlabs_key},
            {"text": "Hello.", "model_id": options.get("model", ELEVENLABS_MODEL)},
        )

    async def _cartesia(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        return await self._speak(
            subject,
            "CARTESIA_API_KEY",
            f"{_http_url(self._settings.cartesia.base_url)}/tts/bytes",
            {"X-API-Key": self._clients.cartesia_key, "Cartesia-Version": CARTESIA_VERSION},
            {
                "model_id": options.get("model", CARTESIA_MODEL),
                "transcript": "Hello.",
                "voice": {"mode": "id", "id": options["voice"]},
                "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 8000},
                "language": "en",
            },
        )

    async def _aura(self, subject: str, options: Mapping[str, Any]) -> list[Finding]:
        deepgram = self._settings.deepgram
        key = deepgram.api_key.get_secret_value() if deepgram.api_key else ""
        query = "encoding=linear16&container=none&sample_rate=8000"
        return await self._speak(
            subject,
            "DEEPGRAM_API_KEY",
            f"{_http_url(deepgram.base_url)}/v1/speak?model={options['voice']}&{query}",
            {"Authorization": f"Token {key}"},
            {"text": "Hello."},
        )

    async def _speak(
        self, subject: str, key: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> list[Finding]:
        async with self._http.post(url, headers=headers, json=body) as response:
            self._note_date(response)
            answer = await response.read()
        if response.status != 200:
            return [_refused(subject, key, response.status, answer[:200].decode(errors="replace"))]
        if not answer:
            return [Finding(subject, Verdict.FAULT, "takes text and answers with no audio")]
        return [Finding(subject, Verdict.GOOD, "speaks")]

    def _note_date(self, response: aiohttp.ClientResponse) -> None:
        if date := response.headers.get("Date"):
            self._server_dates.append(date)


def _plan_finding(subject: str, options: Options, workers: int) -> Finding:
    concurrency = options["concurrency"]
    shared = f"{concurrency}: {share_of_plan(options, workers)} for each of {workers} workers"
    if concurrency < workers:
        advice = f"together they may ask for {workers}: lower WORKERS to {concurrency}"
        return Finding(subject, Verdict.WARNING, f"{shared}; {advice}")
    return Finding(
        subject, Verdict.GOOD, f"{shared}; several machines share a plan by each having its part there"
    )


async def _bounded(subject: str, check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return [Finding(subject, Verdict.FAULT, f"no answer in {CHECK_TIMEOUT_S:g} s")]
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return [Finding(subject, Verdict.FAULT, f"cannot be reached: {error}")]


def _services(config: AgentConfig) -> Iterator[tuple[Layer, str, Options]]:
    """Yield every service of an agent: its layer, its vendor and its options; models of both tiers."""
    for layer in (Layer.STT, Layer.TTS):
        for choice in config.services.of(layer):
            yield layer, choice.name, choice.options
    for tier in Tier:
        for name, options in config.models_of(tier):
            yield Layer.LLM, name, options


def _refused(subject: str, key: str, status: int, detail: str = "") -> Finding:
    reasons = {
        401: f"refuses {key}",
        402: "asks for payment: the account has no credit",
        403: f"refuses this use of {key}",
        404: "does not know this model, voice or account",
        429: "is at its limit of requests or credit",
    }
    sentence = reasons.get(status, f"answers with HTTP {status}")
    return Finding(subject, Verdict.FAULT, f"{sentence}: {detail}" if detail else sentence)


def _database_finding(path: Path) -> Finding:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=2.0)) as database:
            state = database.execute("PRAGMA quick_check").fetchone()[0]
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except (OSError, sqlite3.Error) as error:
        return Finding("database", Verdict.FAULT, f"{path}: {error}")
    if state != "ok":
        return Finding("database", Verdict.FAULT, f"{path} is damaged: {state}")
    return Finding("database", Verdict.GOOD, f"{path} can be written")


def _folder_finding(subject: str, folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(subject, Verdict.FAULT, f"{folder} cannot be written: {error.strerror}")
    return Finding(subject, Verdict.GOOD, f"{folder} can be written")


def _http_url(socket_url: str) -> str:
    """`wss://host` as `https://host`, `ws://host` as `http://host`."""
    return "http" + socket_url.removeprefix("ws")
