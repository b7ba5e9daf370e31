import pytest

from bot.prices import model_prices, prices


def test_a_listed_model_and_voice_cost_what_is_listed() -> None:
    found = prices(llm="anthropic", model="claude-haiku-4-5", tts="elevenlabs")
    assert found.per_input_token == pytest.approx(1e-6)
    assert found.per_output_token == pytest.approx(5e-6)
    assert found.per_character == pytest.approx(5e-5)


def test_what_is_not_listed_costs_as_much_as_the_dearest() -> None:
    unknown = prices(llm="anthropic", model="claude-next", tts="new-voice")
    dearest = prices(llm="anthropic", model="claude-opus-4-7", tts="elevenlabs")
    assert unknown.per_output_token == dearest.per_output_token
    assert unknown.per_character >= dearest.per_character
    assert prices(llm="nobody", model="x", tts="elevenlabs").per_output_token >= dearest.per_output_token


def test_a_stronger_model_costs_more() -> None:
    light, strong = (model_prices("anthropic", f"claude-{name}") for name in ("haiku-4-5", "sonnet-4-6"))
    assert strong.per_input_token == pytest.approx(3 * light.per_input_token)
    assert (light.per_character, strong.per_character) == (0.0, 0.0)
