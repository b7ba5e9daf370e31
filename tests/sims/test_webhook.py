import asyncio
from collections import Counter

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from sims.twiml import Say
from sims.webhook import WebhookClient, noting_kept_connections, sign
from tests.sims.answering import Answering

TOKEN = "0123456789abcdef0123456789abcdef"


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=6))
def test_the_official_validator_accepts_our_signatures(parameters: dict[str, str]) -> None:
    url = "https://first.example/twilio/voice?agent=a%20b"
    assert RequestValidator(TOKEN).validate(url, parameters, sign(TOKEN, url, parameters))


def test_the_official_validator_refuses_another_token() -> None:
    signature = sign("f" * 32, "https://h/voice", {})
    assert not RequestValidator(TOKEN).validate("https://h/voice", {}, signature)


@pytest.mark.real_time
async def test_a_document_is_fetched_with_a_signed_form_blanks_included() -> None:
    stats: Counter[str] = Counter()
    async with (
        Answering(voice="<Response><Say>hi</Say></Response>") as line,
        aiohttp.ClientSession() as session,
    ):
        client = WebhookClient(session, TOKEN, stats)
        url = f"{line.base_url}/voice?agent=a%2Fb"
        fetched = await client.fetch(url, "POST", {"CallSid": "CA1", "FromCity": ""})
        queried = await client.fetch(f"{line.base_url}/voice", "GET", {"CallSid": "CA 2"})

    assert fetched
    assert fetched.document.verbs == (Say("hi"),)
    posted, got = line.received
    validator = RequestValidator(TOKEN)
    assert posted.form == {"CallSid": "CA1", "FromCity": ""}
    assert validator.validate(url, posted.form, posted.signature)
    assert queried
    assert validator.validate(got.url, {}, got.signature)
    assert got.url.endswith("/voice?CallSid=CA+2")


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("path", "code"),
    [("/missing", "11200"), ("/broken", "12100"), ("/slow#tt=100", "11205"), ("relative", "11100")],
)
async def test_a_failed_document_asks_the_fallback_and_says_why(path: str, code: str) -> None:
    stats: Counter[str] = Counter()
    async with (
        Answering(
            broken="<Resp", slow="<Response/>", fallback="<Response><Say>sorry</Say></Response>"
        ) as line,
        aiohttp.ClientSession() as session,
    ):
        line.delays["/slow"] = 0.5
        url = line.base_url + path if path.startswith("/") else path
        client = WebhookClient(session, TOKEN, stats)
        fetched = await client.fetch(
            url, "POST", {"CallSid": "CA1"}, fallback_url=f"{line.base_url}/fallback"
        )
        unsaved = await client.fetch(url, "POST", {}, fallback_url=None)

    assert fetched
    assert fetched.document.verbs == (Say("sorry"),)
    assert unsaved is None
    assert line.forms("/fallback") == [{"CallSid": "CA1", "ErrorCode": code, "ErrorUrl": url}]
    assert stats[f"twiml_error_{code}"] == 2


@pytest.mark.real_time
async def test_a_failed_callback_is_counted_and_not_repeated() -> None:
    stats: Counter[str] = Counter()
    async with Answering() as line, aiohttp.ClientSession() as session:
        await WebhookClient(session, TOKEN, stats).notify(
            f"{line.base_url}/status", "POST", {"CallSid": "CA1"}
        )

    assert len(line.received) == 1
    assert stats["callbacks_failed"] == 1


@pytest.mark.real_time
@pytest.mark.parametrize(("answers", "connections", "is_fetched"), [(1, 2, True), (0, 1, False)])
async def test_only_a_kept_connection_that_is_gone_is_made_anew(
    answers: int, connections: int, is_fetched: bool
) -> None:
    made = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        for _ in range(answers):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n<Response/>")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/voice"
    async with server, aiohttp.ClientSession(trace_configs=[noting_kept_connections()]) as session:
        client = WebhookClient(session, TOKEN, Counter())
        fetched = [await client.fetch(url, "POST", {}) for _ in range(1 + answers)]
    assert (fetched[-1] is not None) is is_fetched
    assert made == connections
