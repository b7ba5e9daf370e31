from pathlib import Path

import pytest

from bot.agent import load_agents, read_agent
from bot.errors import AgentFilesError
from bot.services import Layer
from bot.settings import Vendor
from processors.model_tiers import Tier
from tests.bot.agent_files import AGENT, write_agent


def faults_of(folder: Path, text: str) -> list[str]:
    write_agent(folder, agent=text)
    with pytest.raises(AgentFilesError) as caught:
        read_agent(folder)
    return [fault.removeprefix(f"{folder}/") for fault in caught.value.faults]


def test_a_right_file_is_read_whole(tmp_path: Path) -> None:
    agent = read_agent(write_agent(tmp_path / "reception"))
    assert agent.slug == "reception"
    assert agent.vendors == {Vendor.DEEPGRAM, Vendor.ANTHROPIC, Vendor.ELEVENLABS, Vendor.CARTESIA}
    first, second = agent.config.services.of(Layer.TTS)
    assert (first.name, dict(first.options)) == ("elevenlabs", {})
    assert (second.name, dict(second.options)) == ("cartesia", {"concurrency": 5})
    assert agent.config.listening.max_pause_ms == 500
    assert agent.config.listening.min_speech_ms == 200, "what is not written has its default"
    assert agent.config.zone.key == "America/Chicago"


def test_the_shipped_agent_is_right() -> None:
    assert read_agent(Path("flows/reception")).config.numbers == ("+18506872085",)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "max_pause_ms: 500",
            "max_pause_ms: 0",
            "agent.yaml:15: listening.max_pause_ms: Input should be greater",
        ),
        (
            "max_pause_ms",
            "max_pasue_ms",
            "agent.yaml:15: listening.max_pasue_ms: unknown key; did you mean max_pause_ms?",
        ),
        (
            "America/Chicago",
            "America/Chicagoo",
            "agent.yaml:4: timezone: 'America/Chicagoo' is not an IANA time zone; did",
        ),
        ('sat: "09:00-13:00"', 'sat: "13:00-09:00"', "agent.yaml:5: hours: "),
        ('sat: "09:00-13:00"', 'fri: "09:00-13:00"', "agent.yaml:5: hours: "),
        ("+18506872085", "850 687 2085", "agent.yaml:2: numbers[0]: String should match pattern"),
        (
            "[deepgram]",
            "[deepgrm]",
            "agent.yaml:7: services.stt[0]: unknown stt vendor 'deepgrm'; did you mean deepgram?",
        ),
        ("[deepgram]", "[deepgram, deepgram]", "agent.yaml:7: services.stt[1]: deepgram is named twice"),
        (
            "[anthropic]",
            "[anthropic, openai, anthropic]",
            "agent.yaml:8: services.llm[2]: anthropic is named twice",
        ),
        (
            "[deepgram]",
            "[deepgram, flux]",
            "agent.yaml:7: services.stt[1]: flux ends turns itself and cannot stand in: name it first",
        ),
        ("[deepgram]", "[]", "agent.yaml:7: services.stt: Tuple should have at least 1 item"),
        (
            "concurrency: 5",
            "concurrency: 0",
            "agent.yaml:11: services.tts[1].concurrency: Input should be greater",
        ),
        (
            "concurrency: 5",
            "text_aggregation: token",
            "agent.yaml:11: services.tts[1].text_aggregation: is the first voice's to say, which is elevenlabs's",
        ),
        (
            "concurrency: 5",
            "sped: 1.1",
            "agent.yaml:11: services.tts[1].sped: unknown option of cartesia",
        ),
        ("{name: cartesia, ", "{", "agent.yaml:11: services.tts[1].name: is missing"),
        (
            ", cartesia: voice-2",
            "",
            "agent.yaml:12: voices.cartesia: is missing: services.tts names cartesia",
        ),
        (
            "cartesia: voice-2",
            "cartesia: v, cartesa: v",
            "agent.yaml:12: voices.cartesa: unknown vendor; did you mean",
        ),
        ('greeting: "', 'greeting: "" #', "agent.yaml:13: greeting: String should have at least 1 character"),
        (
            "language: en-US",
            "language: en-US\nlanguage: en-GB",
            "agent.yaml:4: language: this key stands twice",
        ),
        (
            "language: en-US",
            "language: fi-FI",
            "agent.yaml:3: language: there is no data for it; there is for de",
        ),
        ("name: Northside Dental\n", "", "agent.yaml:1: name: is missing"),
        ("services:", "services: [", "agent.yaml:8: while parsing a flow sequence"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert AGENT.count(old) == 1
    found = faults_of(tmp_path / "reception", AGENT.replace(old, new))
    assert len(found) == 1, found
    assert found[0].startswith(fault)


MODELS_AT = "voices: {elevenlabs"


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        (
            "  anthropc: {strong: m}",
            "agent.yaml:13: models.anthropc: unknown llm vendor; did you mean anthropic?",
        ),
        (
            "  anthropic: {storng: m}",
            "agent.yaml:13: models.anthropic.storng: unknown key; did you mean strong?",
        ),
        ("  anthropic: {strong: []}", "agent.yaml:13: models.anthropic.strong: Value should have at least 1"),
        (
            "  anthropic: {strong: {max_tokens: 9}}",
            "agent.yaml:13: models.anthropic.strong.model: is missing",
        ),
        (
            "  anthropic:\n    strong:\n      - m\n      - m",
            "agent.yaml:16: models.anthropic.strong[1]: m is named twice",
        ),
        (
            "  anthropic:\n    light: {model: m, max_tokns: 9}",
            "agent.yaml:14: models.anthropic.light.max_tokns: unknown option of anthropic; did you mean",
        ),
        (
            "  anthropic:\n    strong: [{model: m, concurrency: 2}]",
            "agent.yaml:14: models.anthropic.strong[0].concurrency: is of the vendor's plan: it stands at",
        ),
    ],
)
def test_each_fault_of_a_tier_has_its_line(tmp_path: Path, models: str, fault: str) -> None:
    found = faults_of(tmp_path / "reception", AGENT.replace(MODELS_AT, f"models:\n{models}\n{MODELS_AT}"))
    assert len(found) == 1, found
    assert found[0].startswith(fault)


def test_models_beside_a_model_of_the_vendors_own_have_no_effect(tmp_path: Path) -> None:
    text = AGENT.replace("[anthropic]", "[{name: anthropic, model: m}]")
    text = text.replace(MODELS_AT, f"models: {{anthropic: {{strong: n}}}}\n{MODELS_AT}")
    [found] = faults_of(tmp_path / "reception", text)
    assert found.startswith("agent.yaml:12: models.anthropic: has no effect: services.llm names the model of")


@pytest.mark.parametrize(
    ("llm", "models", "light", "strong"),
    [
        ("[anthropic]", "{}", ["anthropic"], ["anthropic"]),
        ("[anthropic]", "{anthropic: {strong: s}}", ["anthropic"], ["anthropic s"]),
        ("[anthropic]", "{anthropic: {light: l}}", ["anthropic l"], ["anthropic l"]),
        (
            "[anthropic, openai]",
            "{anthropic: {light: l, strong: [s, t]}, groq: {strong: unused}}",
            ["anthropic l", "openai"],
            ["anthropic s", "anthropic t", "openai"],
        ),
        (
            "[anthropic, {name: anthropic, model: m}, openai]",
            "{anthropic: {strong: s}, openai: {light: a, strong: b}}",
            ["anthropic", "anthropic m", "openai a"],
            ["anthropic s", "anthropic m", "openai b"],
        ),
    ],
)
def test_each_tier_has_its_models_in_the_order_of_the_vendors(
    tmp_path: Path, llm: str, models: str, light: list[str], strong: list[str]
) -> None:
    text = AGENT.replace("[anthropic]", llm).replace(MODELS_AT, f"models: {models}\n{MODELS_AT}")
    config = read_agent(write_agent(tmp_path / "reception", agent=text)).config
    found = [
        [" ".join((name, *filter(None, [options.get("model")]))) for name, options in config.models_of(tier)]
        for tier in Tier
    ]
    assert found == [light, strong]


def test_a_models_own_options_go_before_its_vendors(tmp_path: Path) -> None:
    text = AGENT.replace("[anthropic]", "[{name: anthropic, max_tokens: 100, temperature: 0.2}]")
    text = text.replace(
        MODELS_AT, f"models: {{anthropic: {{strong: {{model: s, max_tokens: 300}}}}}}\n{MODELS_AT}"
    )
    config = read_agent(write_agent(tmp_path / "reception", agent=text)).config
    assert config.models_of(Tier.LIGHT) == (("anthropic", {"max_tokens": 100, "temperature": 0.2}),)
    assert config.models_of(Tier.STRONG) == (
        ("anthropic", {"max_tokens": 300, "temperature": 0.2, "model": "s"}),
    )


def test_all_faults_come_at_once_in_reading_order(tmp_path: Path) -> None:
    text = AGENT.replace("en-US", "english").replace("500", "-1").replace("timezone:", "time_zone:")
    assert [fault.split(":")[2].strip() for fault in faults_of(tmp_path / "reception", text)] == [
        "timezone",
        "language",
        "time_zone",
        "listening.max_pause_ms",
    ]


def test_the_file_is_frozen(tmp_path: Path) -> None:
    agent = read_agent(write_agent(tmp_path / "reception"))
    with pytest.raises(ValueError, match="frozen"):
        agent.config.listening.barge_in = False  # pyright: ignore[reportAttributeAccessIssue] - the point


def test_agents_are_loaded_by_folder(tmp_path: Path) -> None:
    write_agent(tmp_path / "sales", agent=AGENT.replace("+18506872085", "+18506872086"))
    write_agent(tmp_path / "reception")
    (tmp_path / "__pycache__").mkdir()
    assert list(load_agents(tmp_path)) == ["reception", "sales"]


def test_a_number_belongs_to_one_agent(tmp_path: Path) -> None:
    write_agent(tmp_path / "sales")
    write_agent(tmp_path / "reception")
    with pytest.raises(
        AgentFilesError, match=r"sales/agent\.yaml: numbers: \+18506872085 is also a number of reception"
    ):
        load_agents(tmp_path)


def test_faults_of_all_agents_come_at_once(tmp_path: Path) -> None:
    write_agent(tmp_path / "a", agent="name: [")
    write_agent(tmp_path / "b", agent="nam: x")
    with pytest.raises(AgentFilesError) as caught:
        load_agents(tmp_path)
    assert {Path(fault.partition(":")[0]).parent.name for fault in caught.value.faults} == {"a", "b"}


def test_a_folder_without_agents_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(AgentFilesError, match="AGENTS_DIR"):
        load_agents(tmp_path)
