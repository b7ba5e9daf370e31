"""What a scripted caller is to do, read from YAML and checked before anybody rings.

Pure data. Acting it out is `sims.person`; times are seconds unless the name says otherwise.
"""

import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

SCENARIO_DIR = Path(__file__).parent / "scenarios"


LONGEST_BURST_MS = 5000.0
"""Of a noise that does not go on and on."""
CLEAR = 0.97
"""How sure a recogniser is of what is spoken clearly, 0..1."""


class ScenarioError(Exception):
    """A scenario file that cannot be used; the message names file, line and rule, one fault per line."""


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Regex = Annotated[str, AfterValidator(_check_regex)]
"""Searched without regard to case."""
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9*#]+$")]


class _Part(BaseModel):
    """Common settings of everything in a scenario file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Piece = Annotated[
    Annotated[str, StringConstraints(pattern=r"\w"), Tag("words")]
    | Annotated[float, Field(gt=0.0, le=30.0), Tag("pause")],
    Discriminator(lambda value: "pause" if _is_number(value) else "words"),
]
"""Words, or so many seconds of silence."""


class PausedLine(_Part):
    """A line with pauses in it, exact to the sample; one utterance.

    Each stretch of words is spoken for itself: a comma at its end has the voice go on.
    """

    parts: tuple[Piece, ...] = Field(min_length=1)
    confidence: float = Field(default=CLEAR, ge=0.0, le=1.0)
    """How sure a recogniser shall be of its words: low is mumbled, or a bad line."""

    @model_validator(mode="after")
    def _take_turns(self) -> "PausedLine":
        if len(self.parts) % 2 == 0 or any(
            isinstance(part, str) == bool(place % 2) for place, part in enumerate(self.parts)
        ):
            raise ValueError("words and pauses take turns, words come first and last")
        return self

    @property
    def text(self) -> str:
        """Return what is said, without the pauses."""
        return " ".join(part for part in self.parts if isinstance(part, str))


Line = Annotated[
    Annotated[str, Tag("line")] | Annotated[PausedLine, Tag("paused")],
    Discriminator(lambda value: "paused" if isinstance(value, dict | PausedLine) else "line"),
]
"""Something to say in one breath, or with pauses."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | dict | PausedLine) else value


Lines = Annotated[tuple[Line, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One line, or several of which the seed picks one."""


def text_of(line: Line) -> str:
    """Return the words of a line."""
    return line if isinstance(line, str) else line.text


def confidence_of(line: Line) -> float:
    """Return how sure a recogniser shall be of a line's words, 0..1."""
    return CLEAR if isinstance(line, str) else line.confidence


class Heard(enum.Enum):
    """What an `expect` waits for."""

    STARTS = "starts"
    FINISHES = "finishes"


class EndedBy(enum.Enum):
    """Who has to hang up for the call to have gone well."""

    AGENT = "agent"
    CALLER = "caller"
    EITHER = "either"


class NoiseKind(enum.Enum):
    """Sounds that are not speech."""

    COUGH = "cough"
    CLICK = "click"
    HUM = "hum"
    BREATH = "breath"
    DOOR = "door"
    MUSIC = "music"
    """Of a caller on hold: the same few bars again and again."""
    FAX = "fax"
    """A fax machine that calls."""
    FAX_ANSWER = "fax_answer"
    """A fax machine that was called."""


_LASTING = frozenset({NoiseKind.HUM, NoiseKind.MUSIC, NoiseKind.FAX, NoiseKind.FAX_ANSWER})


class Since(enum.Enum):
    """What `after_ms` counts from."""

    ONSET = "onset"
    """The agent became audible with what it says."""
    LAST = "last"
    """The caller's last sound over it was over; without one as `onset`."""


class Expect(_Part):
    """Wait for the agent; the call fails when it does not happen in time."""

    agent: Heard = Heard.FINISHES
    within_s: PositiveFloat = 10.0
    quiet_s: PositiveFloat = 0.5
    """Silence after which the agent has finished."""
    text_contains: Regex | None = None
    """What it must have said since the caller last spoke; not judged when its words cannot be known."""


class Say(_Part):
    """Speak; by default when the agent has answered the last thing said and is silent."""

    text: Lines
    """In YAML also `parts`, for one line with pauses, and its `confidence`."""
    at_once: bool = False
    within_s: PositiveFloat = 15.0
    quiet_s: PositiveFloat = 0.45

    @model_validator(mode="before")
    @classmethod
    def _read_parts(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "parts" not in value:
            return value
        if "text" in value:
            raise ValueError("what is said is either text or parts")
        line = {name: value[name] for name in ("parts", "confidence") if name in value}
        return {name: of for name, of in value.items() if name not in line} | {"text": line}


class Interrupt(_Part):
    """Speak over the agent, `after_ms` after it became audible, or after it was heard to say `once_heard`."""

    after_ms: NonNegativeFloat
    once_heard: Regex | None = None
    say: Lines
    within_s: PositiveFloat = 15.0


class Noise(_Part):
    """Make a sound at once."""

    kind: NoiseKind
    ms: float = Field(default=300.0, gt=0.0, le=600_000.0)

    @model_validator(mode="after")
    def _is_no_longer_than_it_can_be(self) -> "Noise":
        if self.ms > LONGEST_BURST_MS and self.kind not in _LASTING:
            raise ValueError(f"a {self.kind.value} takes at most {LONGEST_BURST_MS:g} ms, not {self.ms:g}")
        return self


class Echo(_Part):
    """What the agent was heard to say a moment ago comes back through the caller's microphone."""

    delay_ms: float = Field(default=180.0, ge=20.0, le=1000.0)
    gain_db: float = Field(default=-18.0, ge=-40.0, le=0.0)
    ms: float = Field(default=700.0, gt=0.0, le=60_000.0)
    """How long; it is silent while the agent was."""


class Over(_Part):
    """Make a sound while the agent speaks; its first audible sample comes `after_ms` after `from`.

    Several in a row belong to one utterance of the agent. After all but `say` the agent is expected to carry on: the
    next step still waits for the end of what it says, a pause for the sound's sake included.
    """

    after_ms: NonNegativeFloat
    since: Since = Field(default=Since.ONSET, alias="from")
    once_heard: Regex | None = None
    """Count from when the agent was heard to say this."""
    backchannel: Lines | None = None
    noise: Noise | None = None
    echo: Echo | None = None
    say: Lines | None = None
    """A real interruption."""
    within_s: PositiveFloat = 15.0

    @model_validator(mode="after")
    def _is_one_sound(self) -> "Over":
        given = {"backchannel", "noise", "echo", "say"} & self.model_fields_set
        if len(given) != 1:
            raise ValueError(f"over makes exactly one sound, this one has {sorted(given)}")
        if self.once_heard is not None and self.since is Since.LAST:
            raise ValueError("once_heard and from: last are two beginnings")
        return self


class Answer(_Part):
    """What to say when the agent's last words match; named groups of `when` may be used as `{name}`."""

    when: Regex
    say: Lines
    times: PositiveInt = 1
    """How often this answer may be given."""
    last: bool = False
    """The conversation is over with it."""
    interrupt: Interrupt | None = None
    """Speak over what the agent says next."""
    over: Annotated[tuple[Over, ...], BeforeValidator(_listed)] = ()
    """Make sounds over what the agent says next."""


class Converse(_Part):
    """Answer what is asked until an answer marked `last` was given.

    The first matching answer in the list that is not used up is given. When the agent's words cannot be known
    (speech no sim made), the first unused answer is given, so a list in the natural order still works.
    """

    answers: tuple[Answer, ...] = Field(min_length=1)
    wait_on: Regex = r"let me \w+|one moment|just a (second|moment)|bear with me|hold on"
    """A filler: when the agent's last sentence matches, more is to come."""
    quiet_s: PositiveFloat = 0.6
    patience_s: PositiveFloat = 3.0
    """How long to wait for more when nothing matches."""
    within_s: PositiveFloat = 12.0
    """How soon the agent must speak."""
    otherwise: Lines | None = None
    """What to say when nothing matches after all; without it the call fails."""
    max_turns: PositiveInt = 16


class Step(_Part):
    """Exactly one thing to do."""

    expect: Expect | None = None
    say: Annotated[Say | None, BeforeValidator(lambda v: {"text": v} if isinstance(v, str | list) else v)] = (
        None
    )
    wait_s: PositiveFloat | None = None
    interrupt: Interrupt | None = None
    press: Digits | None = None
    over: Over | None = None
    noise: Noise | None = None
    converse: Converse | None = None
    hang_up: bool | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Step":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a step does exactly one thing, this one has {sorted(self.model_fields_set)}")
        return self

    @property
    def kind(self) -> str:
        """Name of the one thing."""
        return next(iter(self.model_fields_set))


class PoorNetwork(_Part):
    """How bad the way from the caller's phone to Twilio is."""

    loss: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of 20 ms packets that never arrive."""
    jitter_ms: float = Field(default=0.0, ge=0.0, le=2000.0)
    """Largest random delay of a packet; order is kept."""


class Scenario(_Part):
    """A whole call from the caller's side."""

    name: str
    about: str = ""
    voice: str = "caller-1"
    caller: str = "+15550100000"
    """The number it rings from."""
    steps: tuple[Step, ...] = Field(min_length=1)
    ended_by: EndedBy = EndedBy.AGENT
    goodbye_within_s: PositiveFloat = 12.0
    """After the last step, how long the agent may take to hang up."""
    gives_up_ringing_s: PositiveFloat | None = None
    """How long it lets the phone ring; None is until the carrier gives up."""
    may_end_from: PositiveInt | None = None
    """From this step on (the first is 1) it is no fault when the agent ends the call before the last one."""
    network: PoorNetwork | None = None
    """Holds where whoever places the call orders none."""
    max_s: PositiveFloat = 120.0
    min_turns: int = 0
    """Caller turns that were answered."""
    min_interruptions: int = 0
    """Interruptions that the agent stopped for; one that it talked through, or went on after, does not count."""
    agent_says: tuple[Regex, ...] = ()
    """Each must be found in what the agent said in the whole call; not judged when its words cannot be known."""

    def missing_sayings(self, agent_text: str) -> list[str]:
        """Return what of `agent_says` is not in `agent_text`; nothing is missing where no words are known."""
        if not agent_text:
            return []
        return [saying for saying in self.agent_says if not re.search(saying, agent_text, re.IGNORECASE)]

    def lines(self) -> Iterator[Line]:
        """Yield everything it may say, where known beforehand."""
        for step in self.steps:
            if step.say:
                yield from step.say.text
            if step.interrupt:
                yield from step.interrupt.say
            if step.converse:
                yield from _converse_lines(step.converse)
        for over in self._overs():
            yield from over.say or over.backchannel or ()

    @property
    def longest_echo_ms(self) -> float:
        """Return the longest delay of an echo, 0 without one."""
        return max((over.echo.delay_ms for over in self._overs() if over.echo), default=0.0)

    def _overs(self) -> Iterator[Over]:
        for step in self.steps:
            if step.over:
                yield step.over
            for answer in step.converse.answers if step.converse else ():
                yield from answer.over


def _converse_lines(converse: Converse) -> Iterator[Line]:
    yield from converse.otherwise or ()
    for answer in converse.answers:
        yield from (line for line in answer.say if "{" not in text_of(line))
        if answer.interrupt:
            yield from answer.interrupt.say


def load_scenario(path: Path) -> Scenario:
    """Read and check one scenario; its name is the file's.

    Raises:
        ScenarioError: If it cannot be read or breaks a rule; all faults at once.
    """
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ScenarioError(f"{path}:1: a scenario is a mapping with `steps`")
    try:
        return Scenario.model_validate({"name": path.stem} | content)
    except ValidationError as error:
        faults = [
            f"{path}:{_line_of(node, fault['loc'])}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ScenarioError("\n".join(faults)) from error


def load_scenarios(folder: Path = SCENARIO_DIR) -> dict[str, Scenario]:
    """Read every scenario of a folder, sorted by name.

    Raises:
        ScenarioError: If one of them is broken.
    """
    return {path.stem: load_scenario(path) for path in sorted(folder.glob("*.yaml"))}


def _line_of(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """Return the line of the innermost part of the document that `loc` leads to, from 1.

    What is no part of the document (the name of a missing key, of one kind among several) is passed over.
    """
    line = node.start_mark.line + 1 if node else 1
    for key in loc:
        child = _child(node, key)
        if child is not None:
            node, line = child, child.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, key: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key]
    return None
