"""What the vendors' models and voices cost, for counting what a call wastes. Data, and a look-up.

List prices in US dollars without discounts, of November 2026; a model that is not listed costs as much as the dearest
of its vendor, so that a budget is kept rather than overdrawn.

Source: the vendors' public price pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from processors.speculation import Prices


@dataclass(frozen=True)
class ModelPrice:
    """Of a language model, in dollars per million tokens."""

    input_usd: float
    output_usd: float


_MODELS: Mapping[str, Mapping[str, ModelPrice]] = {
    "anthropic": {
        "claude-haiku-4-5": ModelPrice(1.0, 5.0),
        "claude-sonnet-4-6": ModelPrice(3.0, 15.0),
        "claude-opus-4-7": ModelPrice(5.0, 25.0),
    },
}
_VOICES_USD_PER_1000_CHARACTERS: Mapping[str, float] = {
    "elevenlabs": 0.05,
    "cartesia": 0.05,
    "deepgram": 0.03,
}
_DEAREST_MODEL = ModelPrice(5.0, 25.0)
_DEAREST_VOICE_USD = 0.10


def model_prices(llm: str, model: str) -> Prices:
    """Return what a token of a model costs.

    Args:
        llm: Vendor as in `agent.yaml`.
        model: Its model.
    """
    known = _MODELS.get(llm, {})
    dearest = max(known.values(), key=lambda price: price.output_usd, default=_DEAREST_MODEL)
    price = known.get(model, dearest)
    return Prices(per_input_token=price.input_usd / 1e6, per_output_token=price.output_usd / 1e6)


def prices(*, llm: str, model: str, tts: str) -> Prices:
    """Return what a token of a model and a character of a voice cost.

    Args:
        llm: Vendor as in `agent.yaml`.
        model: Its model.
        tts: Vendor of the voice.
    """
    per_character = _VOICES_USD_PER_1000_CHARACTERS.get(tts, _DEAREST_VOICE_USD) / 1000
    return replace(model_prices(llm, model), per_character=per_character)
