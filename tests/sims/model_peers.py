"""Each vendor's official client, and Pipecat's service, at the vendor's sim: for tests of what all of them share."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import anthropic
import httpx2
import openai
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pipecat.services.anthropic.llm import AnthropicLLMService
from pipecat.services.fireworks.llm import FireworksLLMService
from pipecat.services.groq.llm import GroqLLMService
from pipecat.services.llm_service import LLMService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.together.llm import TogetherLLMService

from sims.anthropic import AnthropicSim
from sims.faults import FaultKind
from sims.model_vendor import ModelVendorSim
from sims.openai import FireworksSim, GroqSim, OpenAISim, TogetherSim
from sims.profiles import PROFILES, Profile

INSTANT = PROFILES["instant"]
CLAUDE = "claude-haiku-4-5"
SYSTEM = "You answer the phone.\n- Hours: We're open nine to five.\n"
QUESTION = "When are you open?"
ANSWER = "We're open nine to five."
WEATHER = "Look up the weather in a city."
"""Describes the tool `look_up`."""
PARAMETERS: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "One of: Paris, London. Ask: In which city?"}},
    "required": ["city"],
}
"""Of the tool `look_up`."""
SERVICES: Mapping[type[OpenAISim], type[OpenAILLMService]] = {
    OpenAISim: OpenAILLMService,
    GroqSim: GroqLLMService,
    FireworksSim: FireworksLLMService,
    TogetherSim: TogetherLLMService,
}
CLIENT_LIMIT_S = 5.0


def claude_asking(text: str, **extra: Any) -> Any:
    """Return a request for Anthropic's client."""
    messages = [{"role": "user", "content": text}]
    return {"model": CLAUDE, "max_tokens": 100, "system": SYSTEM, "messages": messages} | extra


def chat_asking(text: str, model: str, **extra: Any) -> Any:
    """Return a request for OpenAI's client."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"model": model, "messages": messages} | extra


class Peer(Protocol):
    """A client at its sim."""

    errors: ClassVar[Mapping[FaultKind, type[Exception]]]
    """What the client raises."""
    cut: ClassVar[tuple[type[Exception], ...]]
    """What it raises when the connection is cut within an answer."""

    @property
    def sim(self) -> ModelVendorSim:
        """The vendor."""
        ...

    async def ask(self) -> str:
        """Ask something, and return the answer in one piece."""
        ...

    async def listen(self, heard: list[str]) -> None:
        """Ask `QUESTION`, and collect the words as they come."""
        ...

    async def leave(self) -> None:
        """Ask it, and go at the first word."""
        ...

    def service(self) -> LLMService[Any]:
        """Return Pipecat's service."""
        ...


@dataclass(frozen=True)
class AnthropicPeer:
    """A `Peer`."""

    sim: AnthropicSim
    client: AsyncAnthropic
    errors: ClassVar[Mapping[FaultKind, type[Exception]]] = {
        FaultKind.UNAUTHORIZED: anthropic.AuthenticationError,
        FaultKind.RATE_LIMITED: anthropic.RateLimitError,
        FaultKind.SERVER_ERROR: anthropic.InternalServerError,
        FaultKind.OVERLOADED: anthropic.APIStatusError,
        FaultKind.REFUSE: anthropic.APIConnectionError,
    }
    cut: ClassVar[tuple[type[Exception], ...]] = (httpx2.RemoteProtocolError,)  # passed on as it is

    async def ask(self) -> str:
        message = await self.client.messages.create(**claude_asking("hi"))
        return "".join(block.text for block in message.content if block.type == "text")

    async def listen(self, heard: list[str]) -> None:
        async with self.client.messages.stream(**claude_asking(QUESTION)) as stream:
            async for text in stream.text_stream:
                heard.append(text)  # noqa: PERF401 - keeps what came before an error

    async def leave(self) -> None:
        async with self.client.messages.stream(**claude_asking(QUESTION)) as stream:
            await anext(aiter(stream.text_stream))

    def service(self) -> LLMService[Any]:
        return AnthropicLLMService(
            api_key="k",
            client=self.client,
            settings=AnthropicLLMService.Settings(
                model=CLAUDE,
                system_instruction=SYSTEM,
                enable_prompt_caching=True,
                extra={"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            ),
        )


@dataclass(frozen=True)
class ChatPeer:
    """A `Peer` over Chat Completions."""

    sim: OpenAISim
    client: AsyncOpenAI
    errors: ClassVar[Mapping[FaultKind, type[Exception]]] = {
        FaultKind.UNAUTHORIZED: openai.AuthenticationError,
        FaultKind.RATE_LIMITED: openai.RateLimitError,
        FaultKind.SERVER_ERROR: openai.InternalServerError,
        FaultKind.OVERLOADED: openai.InternalServerError,
        FaultKind.REFUSE: openai.APIConnectionError,
    }
    cut: ClassVar[tuple[type[Exception], ...]] = (httpx2.RemoteProtocolError, openai.APIConnectionError)

    async def ask(self) -> str:
        answer = await self.client.chat.completions.create(**chat_asking("hi", self.sim.models[0]))
        return answer.choices[0].message.content or ""

    async def listen(self, heard: list[str]) -> None:
        async for chunk in await self._stream():
            heard += [choice.delta.content for choice in chunk.choices if choice.delta.content]

    async def leave(self) -> None:
        async with await self._stream() as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    return

    def service(self) -> LLMService[Any]:
        kind = SERVICES[type(self.sim)]
        llm = kind(api_key="k", settings=kind.Settings(model=self.sim.models[0], system_instruction=SYSTEM))
        llm._client = self.client  # one that is closed at the end
        return llm

    async def _stream(self) -> Any:
        request = chat_asking(QUESTION, self.sim.models[0])
        return await self.client.chat.completions.create(stream=True, **request)


@contextlib.asynccontextmanager
async def open_anthropic(profile: Profile = INSTANT) -> AsyncGenerator[AnthropicPeer]:
    """Run Anthropic's sim and its client until the block ends."""
    async with (
        AnthropicSim(profile, seed=1) as sim,
        AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=0, timeout=CLIENT_LIMIT_S) as client,
    ):
        yield AnthropicPeer(sim, client)


@contextlib.asynccontextmanager
async def open_chat(
    vendor: type[OpenAISim] = OpenAISim, profile: Profile = INSTANT
) -> AsyncGenerator[ChatPeer]:
    """Run the sim of a vendor of Chat Completions and OpenAI's client until the block ends."""
    async with (
        vendor(profile, seed=1) as sim,
        AsyncOpenAI(
            api_key="k", base_url=f"{sim.base_url}{sim.path}", max_retries=0, timeout=CLIENT_LIMIT_S
        ) as client,
    ):
        yield ChatPeer(sim, client)


def open_peer(name: str, profile: Profile = INSTANT) -> AbstractAsyncContextManager[Peer]:
    """Run a vendor's sim and its client, by the vendor's name, until the block ends."""
    return open_anthropic(profile) if name == "anthropic" else open_chat(_CHAT[name], profile)


_CHAT: Mapping[str, type[OpenAISim]] = {vendor.name: vendor for vendor in SERVICES}
PROTOCOLS = ("anthropic", "openai")
"""One vendor of each protocol."""
VENDORS = ("anthropic", *_CHAT)
