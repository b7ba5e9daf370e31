"""An agent as its owner writes it: the folder `flows/<agent>/` with `agent.yaml`.

Says what may stand in `agent.yaml` and explains what is wrong with file and line. Reads files, builds
nothing; the flow beside it is checked by `bot/flow_check.py`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from bot.errors import AgentFilesError
from bot.services import VENDORS, Layer, option_faults
from bot.settings import Vendor
from bot.yaml_source import Fault, YamlSource, YamlSyntaxError, suggestion
from integrations.calendar import OpeningHours
from processors.language import has_language, known_languages
from processors.model_tiers import Tier

AGENT_FILE = "agent.yaml"
MAX_RUNG = 5
"""People rung one after the other by a caller who waits meanwhile."""


def _timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is not an IANA time zone{suggestion(name, available_timezones())}")
    return name


def _hours(hours: dict[str, str]) -> dict[str, str]:
    OpeningHours.parse(hours)
    return hours


E164 = Annotated[str, Field(pattern=r"^\+[1-9]\d{6,14}$", description="E.164, e.g. +18506872085")]
Line = Annotated[str, Field(min_length=1, max_length=300)]
"""Something the agent says word for word."""


class _Section(BaseModel, frozen=True, extra="forbid"):
    """A part of `agent.yaml`; a key it does not know is a fault."""


class ServiceChoice(_Section, frozen=True):
    """A vendor of one layer: its name, or a mapping with its name and its options."""

    name: str
    options: dict[str, Any] = {}


def _service_choice(value: object) -> object:
    """Turn `deepgram` and `{name: deepgram, keyterm: […]}` into a `ServiceChoice`'s input."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict):
        return {
            **({"name": value["name"]} if "name" in value else {}),
            "options": {key: option for key, option in value.items() if key != "name"},
        }
    return value


Choices = Annotated[
    tuple[Annotated[ServiceChoice, BeforeValidator(_service_choice)], ...], Field(min_length=1)
]


class Services(_Section, frozen=True):
    """Vendors of each layer; their order is the order of failover."""

    stt: Choices
    llm: Choices
    tts: Choices

    def of(self, layer: Layer) -> tuple[ServiceChoice, ...]:
        """Return the vendors of one layer."""
        return getattr(self, layer.value)


class ModelChoice(_Section, frozen=True):
    """A model of a tier: its name, or a mapping with `model` and what else it is to be asked with."""

    model: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = {}


def _model_choice(value: object) -> object:
    """Turn `claude-haiku-4-5` and `{model: …, max_tokens: …}` into a `ModelChoice`'s input."""
    if isinstance(value, str):
        return {"model": value}
    if isinstance(value, dict):
        return {
            **({"model": value["model"]} if "model" in value else {}),
            "options": {key: option for key, option in value.items() if key != "model"},
        }
    return value


def _as_list(value: object) -> object:
    """Turn one model into a list of one."""
    return value if isinstance(value, list | tuple) else [value]


TierOfModels = Annotated[
    tuple[Annotated[ModelChoice, BeforeValidator(_model_choice)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
]


class VendorModels(_Section, frozen=True):
    """A vendor's models by tier; of several in a tier the next stands in for the one before."""

    light: TierOfModels | None = None
    """For routine turns; None is the vendor's quick one."""
    strong: TierOfModels | None = None
    """For nodes, tools and turns that are marked or hard; None is `light`."""

    def of(self, tier: Tier) -> tuple[ModelChoice, ...]:
        """Return the models of a tier; none where the vendor's own default is meant."""
        strong = self.strong if tier is Tier.STRONG else None
        return strong or self.light or ()


class Pauses(_Section, frozen=True):
    """Pauses while a node of the flow is on; what is left out is as for the whole agent."""

    max_pause_ms: PositiveInt | None = None
    utterance_end_ms: PositiveInt | None = None


class Listening(_Section, frozen=True):
    """How the agent hears."""

    min_speech_ms: PositiveInt = 200
    """Sound shorter than this is not speech."""
    max_pause_ms: PositiveInt = 500
    """A pause this long ends the caller's turn when nothing says otherwise."""
    utterance_end_ms: PositiveInt = 1000
    noise_gate_db: Annotated[float, Field(ge=-90, le=0)] = -42
    """Sound below this level (dBFS) is silence."""
    barge_in: bool = True
    tts_gate_ms: NonNegativeInt = 60
    """A reply starts only when the caller has been quiet for this long."""
    clear_confidence: Annotated[float, Field(ge=0, le=1)] = 0.75
    """What the recogniser is so sure of is taken as said."""
    doubt_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """What it is less sure of is asked again; in between it is read back before anything is done with it."""
    states: dict[str, Pauses] = {}
    """Node of the flow to its own pauses: who reads a number out needs longer ones than who says yes."""

    @model_validator(mode="after")
    def _is_in_order(self) -> "Listening":
        if self.doubt_confidence > self.clear_confidence:
            raise ValueError(
                "doubt_confidence must be <= clear_confidence, "
                f"got {self.doubt_confidence} and {self.clear_confidence}"
            )
        for name, pauses in {"": Pauses(), **self.states}.items():
            pause_ms, end_ms = self.pauses_ms(pauses)
            if pause_ms > end_ms:
                where = f"states.{name}: " if name else ""
                raise ValueError(
                    f"{where}max_pause_ms must be <= utterance_end_ms, got {pause_ms} and {end_ms}"
                )
        return self

    def pauses_ms(self, pauses: Pauses) -> tuple[int, int]:
        """Return `max_pause_ms` and `utterance_end_ms` as they hold with `pauses`."""
        return pauses.max_pause_ms or self.max_pause_ms, pauses.utterance_end_ms or self.utterance_end_ms


class Announcement(_Section, frozen=True):
    """Said before the greeting: what the law or the owner wants every caller to hear."""

    say: Line
    barge_in: bool = False
    """Whether the caller may stop it."""


class Speculation(_Section, frozen=True):
    """Answering before the caller's turn is known to be over."""

    enabled: bool = True
    max_waste_usd: NonNegativeFloat = 0.05
    """What may be paid in one call for answers that were not needed; beyond it none is begun early."""


class Patience(_Section, frozen=True):
    """What the agent does about silence."""

    stall_after_s: PositiveFloat = 2.0
    """Silence of the agent's own, from the caller's last sound, after which it says one of `stall_lines`."""
    stall_lines: tuple[Line, ...] = ("Let me check on that.",)
    """Said in turn; with fewer than two, the language's are said too."""
    no_speech_after_s: PositiveFloat = 7
    reprompts: NonNegativeInt = 2


class Handoff(_Section, frozen=True):
    """Who takes over."""

    humans: Annotated[tuple[E164, ...], Field(max_length=MAX_RUNG)] = ()
    """Rung one after the other during `hours`."""
    ring_s: Annotated[int, Field(ge=5, le=60)] = 20
    """How long each of them is rung."""
    after_failed_turns: PositiveInt = 2
    """Turns in a row that could not be understood after which a person takes over."""
    voicemail: bool = True
    """Whether a message is recorded when nobody answers, or nobody is there at that hour."""
    voicemail_s: Annotated[int, Field(ge=10, le=600)] = 120
    """Longest message."""
    callback_within_min: PositiveInt = 60
    """Opening time until whoever left a message is promised to have been called back."""


class Overflow(_Section, frozen=True):
    """What a caller gets for whom there is no room: people are rung, else a message is taken, else a line said."""

    ring: Annotated[tuple[E164, ...], Field(max_length=MAX_RUNG)] = ()
    """Rung one after the other during `hours`."""
    ring_s: Annotated[int, Field(ge=5, le=60)] = 20
    """How long each of them is rung."""
    voicemail: bool = False
    """Whether a message is taken when nobody answers."""
    say: Line | None = None
    """The line; None is the language's own."""

    @model_validator(mode="after")
    def _is_heard(self) -> "Overflow":
        if self.voicemail and self.say is not None:
            raise ValueError("say is never heard beside voicemail: true; leave one of them out")
        return self


class Limits(_Section, frozen=True):
    """Where a call ends."""

    max_call_minutes: PositiveFloat = 15
    max_reply_words: PositiveInt = 40
    max_cost_usd: NonNegativeFloat = 1.0


class AgentConfig(_Section, frozen=True):
    """`agent.yaml`."""

    name: Annotated[str, Field(min_length=1)]
    """The business, as it is spoken."""
    numbers: tuple[E164, ...] = ()
    """Numbers whose calls this agent answers."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] = "en-US"
    timezone: Annotated[str, AfterValidator(_timezone)]
    hours: Annotated[dict[str, str], AfterValidator(_hours)]
    """Day or range of days to its spans: `{mon-fri: "08:00-12:00, 13:00-18:00"}`; days left out are closed."""
    services: Services
    models: dict[str, VendorModels] = {}
    """LLM vendor to its models by tier; they hold for its entry of `services.llm` that names no model itself."""
    voices: dict[str, Annotated[str, Field(min_length=1)]]
    """TTS vendor to its voice id."""
    greeting: Line
    announcement: Announcement | None = None
    listening: Listening = Listening()
    speculation: Speculation = Speculation()
    patience: Patience = Patience()
    handoff: Handoff = Handoff()
    overflow: Overflow = Overflow()
    limits: Limits = Limits()

    def models_of(self, tier: Tier) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return the models of a tier in the order in which they are asked: vendor and options of each."""
        chosen: list[tuple[str, dict[str, Any]]] = []
        for entry in self.services.llm:
            own = self.models[entry.name].of(tier) if entry.name in self.models else ()
            if "model" in entry.options or not own:
                chosen.append((entry.name, entry.options))
            else:
                chosen += [(entry.name, {**entry.options, "model": one.model, **one.options}) for one in own]
        return tuple(chosen)

    @property
    def phone_digits(self) -> int:
        """Digits of a whole telephone number where the business is, without country code."""
        region = "US"
        if self.numbers:
            region = phonenumbers.region_code_for_number(phonenumbers.parse(self.numbers[0])) or region
        example = phonenumbers.example_number(region)
        return len(phonenumbers.national_significant_number(example)) if example else 10

    @property
    def zone(self) -> ZoneInfo:
        """The business's time zone."""
        return ZoneInfo(self.timezone)


@dataclass(frozen=True)
class Agent:
    """One agent of this installation."""

    slug: str
    """Name of its folder, e.g. `reception`."""
    folder: Path
    config: AgentConfig

    @property
    def vendors(self) -> frozenset[Vendor]:
        """The vendors its services need."""
        chosen = ((layer, choice.name) for layer in Layer for choice in self.config.services.of(layer))
        return frozenset(VENDORS[layer][name].vendor for layer, name in chosen)


def read_agent(folder: Path) -> Agent:
    """Read and check `agent.yaml` of one folder.

    Raises:
        AgentFilesError: All faults at once, each with file and line.
    """
    path = folder / AGENT_FILE
    try:
        source = YamlSource.read(path)
    except YamlSyntaxError as error:
        raise AgentFilesError([error.fault]) from None
    faults = list(source.duplicate_keys())
    try:
        config = AgentConfig.model_validate(source.data)
    except ValidationError as error:
        raise AgentFilesError(
            sorted_faults([*faults, *source.validation_faults(error, AgentConfig)])
        ) from None
    faults += [*_service_faults(source, config), *_model_faults(source, config)]
    faults += _voice_faults(source, config)
    if not has_language(config.language):
        message = f"there is no data for it; there is for {', '.join(known_languages())}"
        faults.append(source.fault(("language",), message))
    if faults:
        raise AgentFilesError(sorted_faults(faults))
    return Agent(folder.name, folder, config)


def agent_folders(agents_dir: Path) -> list[Path]:
    """Return the folders below `agents_dir` that hold an agent, by name.

    Raises:
        AgentFilesError: If there is none.
    """
    folders = sorted(path.parent for path in agents_dir.glob(f"*/{AGENT_FILE}"))
    if not folders:
        raise AgentFilesError([f"{agents_dir}: no folder with an {AGENT_FILE} in it (AGENTS_DIR)"])
    return folders


def listening_state_faults(folder: Path, config: AgentConfig, nodes: Collection[str]) -> list[Fault]:
    """Return a fault for each of `listening.states` that is no node of the agent's flow."""
    source = YamlSource.read(folder / AGENT_FILE)
    return [
        source.fault(("listening", "states", name), f"the flow has no such node{suggestion(name, nodes)}")
        for name in config.listening.states
        if name not in nodes
    ]


def load_agents(agents_dir: Path) -> dict[str, Agent]:
    """Read every agent's `agent.yaml`.

    Returns:
        Slug to agent, in order of the slugs.

    Raises:
        AgentFilesError: All faults of all agents at once.
    """
    agents: dict[str, Agent] = {}
    faults: list[str] = []
    for folder in agent_folders(agents_dir):
        try:
            agents[folder.name] = read_agent(folder)
        except AgentFilesError as error:
            faults += error.faults
    faults += shared_numbers(agents)
    if faults:
        raise AgentFilesError(faults)
    return agents


def shared_numbers(agents: Mapping[str, Agent]) -> list[str]:
    """Return a sentence for each phone number that two agents claim."""
    owners: dict[str, str] = {}
    faults: list[str] = []
    for slug, agent in agents.items():
        for number in agent.config.numbers:
            if other := owners.get(number):
                faults.append(f"{agent.folder / AGENT_FILE}: numbers: {number} is also a number of {other}")
            owners[number] = slug
    return faults


def sorted_faults(faults: list[Fault]) -> list[Fault]:
    """Return the faults in reading order, each once."""
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.line or 0, fault.where))


def _service_faults(source: YamlSource, config: AgentConfig) -> list[Fault]:
    faults: list[Fault] = []
    for layer in Layer:
        named: set[tuple[str, object]] = set()
        for index, choice in enumerate(config.services.of(layer)):
            here = ("services", layer.value, index)
            # Two models of one vendor stand in for each other; two recognisers or voices of one do not.
            key = choice.name, choice.options.get("model") if layer is Layer.LLM else None
            if key in named:
                faults.append(source.fault(here, f"{choice.name} is named twice"))
            named.add(key)
            if layer is Layer.STT and index and choice.name == "flux":
                faults.append(source.fault(here, "flux ends turns itself and cannot stand in: name it first"))
            if layer is Layer.TTS and index and "text_aggregation" in choice.options:
                message = f"is the first voice's to say, which is {config.services.tts[0].name}'s"
                faults.append(source.fault((*here, "text_aggregation"), message))
            for option, message in option_faults(layer, choice.name, choice.options):
                faults.append(source.fault((*here, option) if option else here, message))
    return faults


def _model_faults(source: YamlSource, config: AgentConfig) -> list[Fault]:
    faults: list[Fault] = []
    for vendor, models in config.models.items():
        here = ("models", vendor)
        if vendor not in VENDORS[Layer.LLM]:
            message = f"unknown llm vendor{suggestion(vendor, VENDORS[Layer.LLM])}"
            faults.append(source.fault(here, message))
            continue
        entries = [entry for entry in config.services.llm if entry.name == vendor]
        if entries and all("model" in entry.options for entry in entries):
            message = f"has no effect: services.llm names the model of {vendor} itself"
            faults.append(source.fault(here, message))
        for tier in Tier:
            chosen = getattr(models, tier.value) or ()
            for index, one in enumerate(chosen):
                place = (*here, tier.value, index)
                if one.model in [other.model for other in chosen[:index]]:
                    faults.append(source.fault(place, f"{one.model} is named twice"))
                faults += [
                    source.fault((*place, option) if option else place, message)
                    for option, message in _model_option_faults(vendor, one)
                ]
    return faults


def _model_option_faults(vendor: str, one: ModelChoice) -> list[tuple[str | None, str]]:
    if "concurrency" in one.options:
        return [("concurrency", f"is of the vendor's plan: it stands at {vendor} in services.llm")]
    return option_faults(Layer.LLM, vendor, {"model": one.model, **one.options})


def _voice_faults(source: YamlSource, config: AgentConfig) -> list[Fault]:
    speaking = [choice.name for choice in config.services.tts]
    faults = [
        source.fault(("voices", vendor), f"is missing: services.tts names {vendor}")
        for vendor in speaking
        if vendor in VENDORS[Layer.TTS] and vendor not in config.voices
    ]
    faults += [
        source.fault(("voices", vendor), f"unknown vendor{suggestion(vendor, known)}")
        for known in [tuple(VENDORS[Layer.TTS])]
        for vendor in config.voices
        if vendor not in known
    ]
    return faults
