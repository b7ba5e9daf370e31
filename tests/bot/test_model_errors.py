"""What each vendor's exceptions mean: as the official clients raise them against the sims."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pipecat.adapters.llm.base_llm_adapter import LLMContextConversionError

from bot.model_errors import NEVER_S, vendor_error
from processors.llm_attempts import Failure
from processors.llm_guard import VendorError
from sims.anthropic import AnthropicSim
from sims.faults import FaultKind, FaultSpec
from sims.openai import OpenAISim
from sims.profiles import PROFILES

pytestmark = pytest.mark.real_time

Sims = dict[str, AnthropicSim | OpenAISim]
MESSAGES: Any = [{"role": "user", "content": "When are you open?"}]


@pytest.fixture
async def sims() -> AsyncIterator[Sims]:
    async with AnthropicSim(PROFILES["instant"]) as first, OpenAISim(PROFILES["instant"]) as second:
        yield {"anthropic": first, "openai": second}


async def ask(
    sims: Sims, vendor: str, *, timeout_s: float = 30.0, key: str = "k", model: str | None = None
) -> None:
    base_url = sims[vendor].base_url
    async with asyncio.timeout(40):
        if vendor == "anthropic":
            options: Any = {"base_url": base_url, "max_retries": 0, "timeout": timeout_s}
            async with AsyncAnthropic(api_key=key, **options) as client:
                stream: Any = await client.messages.create(
                    model=model or "claude-haiku-4-5", max_tokens=99, messages=MESSAGES, stream=True
                )
                async for _ in stream:
                    pass
        else:
            options = {"base_url": f"{base_url}/v1", "max_retries": 0, "timeout": timeout_s}
            async with AsyncOpenAI(api_key=key, **options) as client:
                stream = await client.chat.completions.create(
                    model=model or "gpt-4.1-mini", messages=MESSAGES, stream=True
                )
                async for _ in stream:
                    pass


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (FaultSpec(kind=FaultKind.REFUSE), VendorError(Failure.REFUSED)),
        (FaultSpec(kind=FaultKind.UNAUTHORIZED), VendorError(Failure.UNAUTHORIZED)),
        (FaultSpec(kind=FaultKind.RATE_LIMITED), VendorError(Failure.RATE_LIMITED, 1.0)),
        (FaultSpec(kind=FaultKind.SERVER_ERROR), VendorError(Failure.SERVER_ERROR)),
        (FaultSpec(kind=FaultKind.OVERLOADED), VendorError(Failure.OVERLOADED)),
        (FaultSpec(kind=FaultKind.SERVER_ERROR, after_s=0.1), VendorError(Failure.SERVER_ERROR)),
        (FaultSpec(kind=FaultKind.CLOSE_MID_STREAM), VendorError(Failure.CLOSED)),
        (FaultSpec(kind=FaultKind.GARBAGE), VendorError(Failure.GARBAGE)),
    ],
    ids=lambda value: f"{value.kind.value}-{value.after_s}" if isinstance(value, FaultSpec) else "",
)
async def test_each_fault_of_a_vendor_is_told_from_the_others(
    sims: Sims, vendor: str, fault: FaultSpec, expected: VendorError
) -> None:
    sims[vendor].faults.arm(fault)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        await ask(sims, vendor)
    assert vendor_error(caught.value) == expected


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
async def test_a_client_that_waited_too_long_was_kept_hanging(sims: Sims, vendor: str) -> None:
    sims[vendor].faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
    with pytest.raises((anthropic.APITimeoutError, openai.APITimeoutError)) as caught:
        await ask(sims, vendor, timeout_s=0.2)
    assert vendor_error(caught.value) == VendorError(Failure.HANG)


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
async def test_a_model_that_does_not_exist_will_not_answer(sims: Sims, vendor: str) -> None:
    with pytest.raises((anthropic.NotFoundError, openai.NotFoundError)) as caught:
        await ask(sims, vendor, model="no-such-model")
    assert vendor_error(caught.value).failure is Failure.UNAUTHORIZED


async def test_a_port_where_nobody_listens_refuses(sims: Sims) -> None:
    await sims["anthropic"].stop()
    with pytest.raises(anthropic.APIConnectionError) as caught:
        await ask(sims, "anthropic")
    assert vendor_error(caught.value) == VendorError(Failure.REFUSED)


def refusal(status: int, body: object = None, **headers: str) -> openai.APIStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=named, request=httpx2.Request("POST", "http://127.0.0.1/"))
    return openai.APIStatusError("no", response=response, body=body)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(400), VendorError(Failure.REJECTED)),
        (refusal(418), VendorError(Failure.REJECTED)),
        (refusal(502), VendorError(Failure.SERVER_ERROR)),
        (refusal(429, retry_after="20"), VendorError(Failure.RATE_LIMITED, 20.0)),
        (refusal(429, retry_after_ms="250"), VendorError(Failure.RATE_LIMITED, 0.25)),
        (refusal(529, retry_after="Fri, 31 Dec 2027 23:59:59 GMT"), VendorError(Failure.OVERLOADED, NEVER_S)),
        (refusal(429, {"code": "insufficient_quota"}), VendorError(Failure.UNAUTHORIZED)),
        (
            anthropic.APIStatusError(
                "busy",
                response=httpx2.Response(200, request=httpx2.Request("POST", "http://127.0.0.1/")),
                body={"type": "error", "error": {"type": "overloaded_error"}},
            ),
            VendorError(Failure.OVERLOADED),
        ),
        (TimeoutError(), VendorError(Failure.HANG)),
        (httpx2.ReadError("reset"), VendorError(Failure.CLOSED)),
        (httpx2.ConnectTimeout("slow"), VendorError(Failure.HANG)),
        (LLMContextConversionError(ValueError("no")), VendorError(Failure.REJECTED)),
        (KeyError("choices"), VendorError(Failure.GARBAGE)),
    ],
)
def test_what_no_sim_does(error: Exception, expected: VendorError) -> None:
    assert vendor_error(error) == expected
