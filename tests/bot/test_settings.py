import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import SettingsError
from bot.settings import (
    Settings,
    SimsMode,
    Vendor,
    VendorSource,
    load_settings,
    load_settings_with,
    missing_settings,
    misspelt_names,
    plan_vendors,
    setting_names,
)

SECRET = "sk-not-to-be-seen"
TWILIO = {"account_sid": "AC" + "0" * 32, "auth_token": SECRET}


def settings(**values: Any) -> Settings:
    return load_settings(_env_file=None, **values)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_nothing_set_is_a_whole_configuration() -> None:
    defaults = settings()
    assert (defaults.host, defaults.port, defaults.sims) == ("127.0.0.1", 7860, SimsMode.AUTO)
    assert defaults.database_path == Path("data/first-ring.db")
    assert set(plan_vendors(defaults, Vendor).values()) == {VendorSource.SIM}


def test_environment_wins_over_env_file(empty_environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        "PORT=1111\nHOST=0.0.0.0\nDEEPGRAM_API_KEY=from-file\nDEEPGRAM_BASE_URL=ws://127.0.0.1:9001/\nCARTESIA_API_KEY=\n"
    )
    empty_environment.setenv("PORT", "2222")
    loaded = load_settings()
    assert (loaded.host, loaded.port) == ("0.0.0.0", 2222)
    assert loaded.deepgram.base_url == "ws://127.0.0.1:9001"
    assert loaded.deepgram.api_key is not None
    assert loaded.deepgram.api_key.get_secret_value() == "from-file"
    assert loaded.cartesia.api_key is None, "an empty line in .env.example's style is not a key"


def test_the_env_example_given_to_a_container_is_a_whole_configuration() -> None:
    example = dotenv_values(Path(__file__).parents[2] / ".env.example")  # as Docker does: with the empty ones
    assert example["PROMETHEUS_MULTIPROC_DIR"] == ""
    script = (
        "from bot.settings import load_settings; loaded = load_settings(_env_file=None)\n"
        "from bot.metrics import Metrics; Metrics.create(loaded.prometheus_multiproc_dir)"
    )
    environment = os.environ | {name: value or "" for name, value in example.items()}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=50)  # noqa: S603 - our own


def test_all_faults_come_at_once_and_none_shows_a_secret(empty_environment: pytest.MonkeyPatch) -> None:
    wrong = {
        "SIMS": "maybe",
        "PORT": "99999",
        "WORKERS": "0",
        "PUBLIC_URL": f"https://user:{SECRET}@example.com",
        "DATABASE_URL": f"postgresql://user:{SECRET}@db/first",
        "REDIS_URL": f"http://user:{SECRET}@redis",
        "RECORDINGS_URL": "s3://bucket",
        "LOG_LEVEL": "loud",
        "DEEPGRAM_BASE_URL": "http://127.0.0.1:9001",
        "ANTHROPIC_BASE_URL": "ws://127.0.0.1:9002",
        "TWILIO_ACCOUNT_SID": f"AC{SECRET}",
        "CARTESIA_APIKEY": SECRET,
    }
    for name, value in wrong.items():
        empty_environment.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert sorted(fault.partition(":")[0] for fault in caught.value.faults) == sorted(wrong)
    assert SECRET not in str(caught.value)
    assert "CARTESIA_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("deepgram", {"base_url": "wss://"}, "scheme and host"),
        ("deepgram", {"base_url": "wss://host/v1/listen"}, "without a path"),
        ("deepgram", {"base_url": "api.deepgram.com"}, "wss or ws"),
        ("anthropic", {"base_url": "https://host?x=1"}, "without a path"),
        ("public_url", "ftp://host", "https or http"),
        ("public_url", "https://host:port", "[Pp]ort"),
        ("database_url", "sqlite:///", "name a file"),
        ("database_url", "sqlite://data.db", "three slashes"),
        ("database_url", "mysql://host/db", "must be sqlite"),
        ("redis_url", "127.0.0.1:6379", "must be redis or rediss"),
        ("redis_url", "redis://", "name a host"),
        ("redis_url", "redis://host/first", "database's number"),
        ("redis_url", "redis://host:port", "[Pp]ort"),
        ("recordings_url", "gs://bucket", "local folder"),
        ("twilio", {"api_key": "SK" + "0" * 32}, "belong together"),
    ],
)
def test_wrong_values_are_explained(field: str, value: object, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        settings(**{field: value})


def test_a_section_given_whole_is_explained_without_its_value(empty_environment: pytest.MonkeyPatch) -> None:
    empty_environment.setenv("TWILIO", SECRET)
    with pytest.raises(SettingsError, match="twilio") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


def test_settings_are_frozen_and_hide_secrets() -> None:
    loaded = settings(deepgram={"api_key": SECRET}, twilio=TWILIO)
    with pytest.raises(ValueError, match="frozen"):
        loaded.port = 1  # pyright: ignore[reportAttributeAccessIssue] - the point
    assert SECRET not in repr(loaded)
    assert SECRET not in loaded.model_dump_json()


def test_file_urls_name_a_folder() -> None:
    assert settings(recordings_url="file:///var/calls").recordings_url == Path("/var/calls")


def test_a_vendor_with_a_key_is_real_and_the_rest_stay_sims() -> None:
    loaded = settings(deepgram={"api_key": SECRET, "base_url": "ws://127.0.0.1:1"})
    plan = plan_vendors(loaded, Vendor)
    assert plan.pop(Vendor.DEEPGRAM) is VendorSource.REAL
    assert set(plan.values()) == {VendorSource.SIM}


def test_sims_on_ignores_keys() -> None:
    loaded = settings(sims="on", deepgram={"api_key": SECRET}, twilio=TWILIO)
    assert set(plan_vendors(loaded, Vendor).values()) == {VendorSource.SIM}


def test_sims_off_lists_every_missing_key_at_once() -> None:
    loaded = settings(sims="off", anthropic={"api_key": SECRET})
    missing = missing_settings(loaded, plan_vendors(loaded, Vendor))
    assert [sentence.partition(":")[0] for sentence in missing] == [
        "DEEPGRAM_API_KEY",
        "ASSEMBLYAI_API_KEY",
        "OPENAI_API_KEY",
        "GROQ_API_KEY",
        "FIREWORKS_API_KEY",
        "TOGETHER_API_KEY",
        "ELEVENLABS_API_KEY",
        "CARTESIA_API_KEY",
        "TWILIO_ACCOUNT_SID",
        "TWILIO_AUTH_TOKEN",
    ]


def test_only_the_vendors_that_are_needed_need_a_key() -> None:
    loaded = settings(sims="off", anthropic={"api_key": SECRET})
    plan = plan_vendors(loaded, [Vendor.ANTHROPIC, Vendor.GROQ])
    assert [sentence.partition(":")[0] for sentence in missing_settings(loaded, plan)] == ["GROQ_API_KEY"]


@pytest.mark.parametrize(
    ("vendor", "path"),
    [("openai", "/v1"), ("groq", "/openai/v1/"), ("fireworks", "/inference/v1"), ("together", "")],
)
def test_a_base_url_may_end_in_the_path_that_other_programs_want(vendor: str, path: str) -> None:
    loaded: Any = settings(**{vendor: {"base_url": f"http://127.0.0.1:9{path}"}})
    assert getattr(loaded, vendor).base_url == "http://127.0.0.1:9"
    with pytest.raises(SettingsError, match="scheme and host only"):
        settings(**{vendor: {"base_url": "http://127.0.0.1:9/v2"}})


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"deepgram": {"base_url": "ws://127.0.0.1:1"}}, "DEEPGRAM_API_KEY"),
        ({"twilio": {"account_sid": TWILIO["account_sid"]}}, "TWILIO_AUTH_TOKEN"),
        ({"twilio": {"api_key": "SK" + "0" * 32, "api_secret": SECRET}}, "TWILIO_AUTH_TOKEN"),
    ],
    ids=["base URL alone", "half of Twilio", "API key pair alone"],
)
def test_a_half_configured_vendor_is_not_silently_a_sim(values: dict[str, Any], missing: str) -> None:
    loaded = settings(**values)
    sentences = missing_settings(loaded, plan_vendors(loaded, Vendor))
    assert missing in [sentence.partition(":")[0] for sentence in sentences]


def test_what_the_sims_print_makes_every_vendor_real(empty_environment: pytest.MonkeyPatch) -> None:
    printed = {"SIMS": "auto", "DEEPGRAM_BASE_URL": "ws://127.0.0.1:1", "DEEPGRAM_API_KEY": "sim"}
    for name in printed:  # so that monkeypatch restores them
        empty_environment.setenv(name, "")
    loaded = load_settings_with(printed)
    assert plan_vendors(loaded, [Vendor.DEEPGRAM]) == {Vendor.DEEPGRAM: VendorSource.REAL}


def test_unrelated_variables_of_a_vendor_are_left_alone() -> None:
    assert misspelt_names(["TWILIO_PHONE_NUMBER", "ANTHROPIC_MODEL", "PATH", "PORTS"]) == []


@given(st.sampled_from(setting_names()), st.booleans())
def test_a_known_name_is_never_misspelt(name: str, is_lower: bool) -> None:
    assert misspelt_names([name.lower() if is_lower else name]) == []


@given(
    mode=st.sampled_from(SimsMode),
    keys=st.sets(st.sampled_from([v for v in Vendor if v is not Vendor.TWILIO])),
    needed=st.sets(st.sampled_from(Vendor)),
)
def test_the_plan_covers_what_is_needed(mode: SimsMode, keys: set[Vendor], needed: set[Vendor]) -> None:
    loaded = Settings(_env_file=None, sims=mode, **{v.value: {"api_key": SECRET} for v in keys})  # pyright: ignore[reportCallIssue]
    plan = plan_vendors(loaded, needed)
    assert set(plan) == needed
    assert (VendorSource.SIM in plan.values()) <= (mode is not SimsMode.OFF)
    assert bool(missing_settings(loaded, plan)) == (VendorSource.MISSING in plan.values())
