import random
import statistics

import pytest

from sims.profiles import PROFILES


def test_the_profiles_of_the_contract_exist() -> None:
    assert set(PROFILES) == {"instant", "realistic", "bad-day"}


def test_realistic_is_what_the_published_figures_say() -> None:
    profile = PROFILES["realistic"]
    figures = (
        profile.stt_final_s,
        profile.llm_first_token_s,
        profile.llm_tokens_per_s,
        profile.tts_first_audio_s,
    )
    assert figures == (0.15, 0.30, 80.0, 0.15)
    assert profile.error_rate == 0.0


def test_a_profile_without_a_tail_is_exact() -> None:
    rng = random.Random(1)
    assert {PROFILES["realistic"].delay(0.3, rng) for _ in range(10)} == {0.3}


def test_a_bad_day_has_a_long_tail_around_the_same_median() -> None:
    rng = random.Random(1)
    drawn = sorted(PROFILES["bad-day"].delay(1.0, rng) for _ in range(4001))
    assert statistics.median(drawn) == pytest.approx(1.0, abs=0.1)
    assert drawn[-40] > 3.0
    assert PROFILES["bad-day"].delay(0.0, rng) == 0.0
