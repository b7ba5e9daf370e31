"""The people of `bench.turns`: seeded calls full of pauses, noises and interruptions, made for the reception agent.

Pure: the same seed gives the same calls, byte for byte, and every share is dealt from a shuffled deck, so that it does
not depend on luck. Which of the agent's answers may be long enough for a sound is known from the length of its facts.
Acting the calls out is the sims' business.
"""

import enum
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

from sims.scenario import Scenario

Part = str | float
"""Words, or so many seconds of silence."""
Shape = dict[str, Any]
"""A piece of a scenario as its file would have it."""
Dealt = TypeVar("Dealt")


class Form(enum.Enum):
    """How a line is put."""

    PLAIN = "in one breath"
    COMMA = "pause at a comma or after a trailing word"
    OPEN = "pause without a sign of more to come"
    HESITATION = "pause after um or uh"
    SENTENCES = "pause between sentences"
    DICTATED = "number in groups"
    INTERRUPTION = "over the agent"


PAUSES_S: Mapping[Form, tuple[float, float]] = {
    Form.COMMA: (0.25, 1.0),
    Form.OPEN: (0.25, 1.0),
    Form.HESITATION: (0.3, 0.9),
    Form.SENTENCES: (0.25, 0.45),
    Form.DICTATED: (0.4, 1.2),
}


class Cut(enum.Enum):
    """When an interruption begins."""

    OVERLAP = "as the agent begins"
    EARLY = "in the first second"
    MIDDLE = "in the middle"
    LAST_WORD = "over the last word"
    RESUMED = "as the agent goes on after a sound"


HARMLESS = ("cough", "click", "breath", "door", "hum", "backchannel", "echo")
"""Sounds that take nobody's turn, as a report names them."""


@dataclass(frozen=True)
class Size:
    """How much is played."""

    calls: int
    turns: int
    """Of the caller in each call, the greeting's interruption and the goodbye included."""
    order: str = "QBMQB"
    """Which kind of call follows which: questions, booking, message."""


FULL = Size(calls=20, turns=11)
QUICK = Size(calls=4, turns=4, order="QBQB")


@dataclass(frozen=True)
class CorpusCall:
    """One call, and what is in it."""

    name: str
    seed: int
    scenario: Scenario
    forms: tuple[Form, ...]
    """Of each turn, in order."""
    cuts: tuple[Cut, ...]
    """Of each interruption."""
    sounds: tuple[str, ...]
    """Harmless ones over the agent."""


def build(seed: int, size: Size = FULL) -> list[CorpusCall]:
    """Return the calls of a corpus, the longest kinds spread evenly."""
    decks = _Decks(random.Random(f"turns/{seed}"))
    return [_Writer(decks, size, number).write() for number in range(size.calls)]


def shares(calls: Sequence[CorpusCall]) -> list[tuple[str, int]]:
    """Return what a corpus is made of: how many turns of each form, cuts and sounds of each kind."""
    forms = Counter(form for call in calls for form in call.forms)
    cuts = Counter(cut for call in calls for cut in call.cuts)
    sounds = Counter(sound for call in calls for sound in call.sounds)
    return [
        ("calls", len(calls)),
        ("caller turns", sum(forms.values())),
        *((form.value, forms[form]) for form in Form),
        *((cut.value, cuts[cut]) for cut in Cut),
        *((kind, sounds[kind]) for kind in HARMLESS),
        ("calls with packet loss and jitter", sum(call.scenario.network is not None for call in calls)),
    ]


class _Deck(Generic[Dealt]):
    """Deals everything once before anything comes again."""

    def __init__(self, cards: Sequence[Dealt], dice: random.Random) -> None:
        self._cards = list(cards)
        self._dice = dice
        self._left: list[Dealt] = []

    def deal(self) -> Dealt:
        if not self._left:
            self._left = self._cards[:]
            self._dice.shuffle(self._left)
        return self._left.pop()

    def take_back(self, card: Dealt) -> None:
        """Put a card that was not used where it is dealt next."""
        self._left.append(card)


@dataclass(frozen=True)
class _Line:
    """What a caller may say; ` / ` is a pause. `reply_s` is how long the answer takes, less what is asked after it."""

    form: Form
    text: str
    reply_s: float
    tells: str | None = None
    """What the agent is heard to say when it has looked something up or written it down; None when it does not."""

    def parts(self, dice: random.Random) -> tuple[Part, ...]:
        first, *rest = self.text.split(" / ")
        low, high = PAUSES_S.get(self.form, (0.3, 0.3))
        return (first, *chain.from_iterable((round(dice.uniform(low, high), 2), piece) for piece in rest))


_HOURS, _ADDRESS, _PARKING, _INSURANCE, _PRICE, _PATIENTS = 5.4, 4.6, 2.2, 4.8, 5.2, 3.6
_UNCLEAR = 1.6
"""Sorry, I didn't catch that."""


def _lines(form: Form, *texts: tuple[str, float]) -> tuple[_Line, ...]:
    return tuple(_Line(form, text, reply_s) for text, reply_s in texts)


_QUESTIONS = (
    *_lines(
        Form.PLAIN,
        ("What are your hours on Saturday?", _HOURS),
        ("Where are you located?", _ADDRESS),
        ("Is there any parking?", _PARKING),
        ("Do you take dental insurance?", _INSURANCE),
        ("How much does a cleaning cost?", _PRICE),
        ("Are you accepting new patients?", _PATIENTS),
        ("And what's your address?", _ADDRESS),
        ("When do you close on Friday?", _HOURS),
        ("I'd like to know a bit more about the office.", _UNCLEAR),
    ),
    *_lines(
        Form.COMMA,
        ("What are your hours, / on Saturday?", _HOURS),
        ("What's your address, and / how do I get there?", _ADDRESS),
        ("It's my first visit, / how much would that cost?", _PRICE),
        ("Do you have parking, or / is it on the street?", _PARKING),
        ("I'm new in town, and / I wonder, are you accepting new patients?", _PATIENTS),
        ("If I pay with my insurance, / do you take that?", _INSURANCE),
    ),
    *_lines(
        Form.OPEN,
        ("What time do you / open on Saturday?", _HOURS),
        ("Do you take / dental insurance?", _INSURANCE),
        ("How much is / a regular cleaning?", _PRICE),
        ("Is there parking / near the building?", _PARKING),
        ("Can you tell me / your address?", _ADDRESS),
        ("Are you taking / new patients?", _PATIENTS),
    ),
    *_lines(
        Form.HESITATION,
        ("I'd like, um, / to ask about parking, is there any?", _PARKING),
        ("So, uh, / what are your hours?", _HOURS),
        ("Um, / where are you located?", _ADDRESS),
        ("Do you, um, / take insurance?", _INSURANCE),
        ("What's, uh, / what's the price of a cleaning?", _PRICE),
        ("Well, um, / do you see new patients?", _PATIENTS),
    ),
    *_lines(
        Form.SENTENCES,
        ("Hi there. / Are you open on Saturday?", _HOURS),
        ("I'm new in town. / Where are you located?", _ADDRESS),
        ("I'll come by car. / Is there any parking?", _PARKING),
        ("It's for my mother. / How much does a visit cost?", _PRICE),
        ("I have dental insurance. / Do you take it?", _INSURANCE),
        ("I'm not a patient yet. / Do you take new patients?", _PATIENTS),
    ),
)
_BY_FORM = {form: tuple(line for line in _QUESTIONS if line.form is form) for form in Form}
_FORMS = (
    *[Form.PLAIN] * 4,
    *[Form.COMMA] * 3,
    *[Form.OPEN] * 3,
    *[Form.HESITATION] * 3,
    *[Form.SENTENCES] * 2,
)

_SHORT_CUTS = (
    ("What?", None),
    ("Sorry?", None),
    ("Stop.", _UNCLEAR),
    ("Wait.", _UNCLEAR),
    ("Hold on.", _UNCLEAR),
    ("Hang on.", _UNCLEAR),
    ("Stop, please.", _UNCLEAR),
    ("Excuse me?", None),
)
"""None: what was said is said again."""
_LONG_CUTS = (
    ("Sorry, where are you located?", _ADDRESS),
    ("Wait, do you take insurance?", _INSURANCE),
    ("Okay, but is there parking?", _PARKING),
    ("Actually, what are your hours?", _HOURS),
    ("No, wait, how much is a cleaning?", _PRICE),
    ("Hold on, are you taking new patients?", _PATIENTS),
    ("Sorry, can I ask something else first, is there any parking?", _PARKING),
)
_BOOKING_CUTS = ("No, wait.", "No, no.", "No wait.")
"""Only while a day is asked for: a no to "anything else?" ends the call."""
_DAY_CUTS = (
    "Actually, Wednesday.",
    "Actually, could we make it Thursday?",
    "No, Friday.",
)
_OFFERS, _OFFER_S = r"\bI have\b", 5.0

_CUTS = (
    *[Cut.OVERLAP] * 2,
    *[Cut.EARLY] * 6,
    *[Cut.MIDDLE] * 8,
    *[Cut.LAST_WORD] * 2,
    *[Cut.RESUMED] * 2,
)
_CUT_MS: Mapping[Cut, tuple[float, float]] = {
    Cut.OVERLAP: (40.0, 250.0),
    Cut.EARLY: (300.0, 800.0),
    Cut.MIDDLE: (800.0, 2200.0),
    Cut.LAST_WORD: (0.0, 60.0),
    Cut.RESUMED: (500.0, 1100.0),
}
_LAST_WORD = r"\?$"
"""The agent asks something after all it says, and this is true when half of the last word was heard."""

_NOISE_MS: Mapping[str, tuple[float, float]] = {
    "cough": (250.0, 500.0),
    "click": (100.0, 200.0),
    "breath": (400.0, 900.0),
    "door": (200.0, 400.0),
    "hum": (600.0, 1500.0),
}
_SOUNDS = (
    *["cough"] * 5,
    *["click"] * 3,
    *["breath"] * 3,
    *["door"] * 3,
    *["hum"] * 2,
    *["backchannel"] * 8,
    *["echo"] * 6,
)
_BACKCHANNELS = ("Uh-huh.", "Mm-hm.", "Okay.", "Right.")
_BACKCHANNEL_MS = 450.0
_ECHO_MS, _ECHO_DELAY_MS, _ECHO_GAIN_DB = (400.0, 1200.0), (120.0, 250.0), (-24.0, -12.0)

_OPENINGS: Mapping[str, tuple[_Line, ...]] = {
    "B": (
        _Line(Form.PLAIN, "Hi, I'd like to book a dental cleaning, please.", 0.6),
        _Line(Form.COMMA, "Hello, / I'd like to book a cleaning, please.", 0.6),
        _Line(Form.HESITATION, "Hi, um, / I'd like to book a cleaning.", 0.6),
    ),
    "M": (
        _Line(Form.PLAIN, "Hello, I'd like to leave a message for the doctor, please.", 2.0),
        _Line(Form.HESITATION, "Hi, I'd like, uh, / to leave a message for the doctor.", 2.0),
    ),
}
_MESSAGES = (
    _Line(
        Form.COMMA, "Please tell her that my crown came loose, / and I will bring it along on Friday.", 1.4
    ),
    _Line(Form.OPEN, "Please tell her that my tooth / still hurts at night.", 1.4),
    _Line(Form.COMMA, "Please tell her that I lost my retainer, and / I need a new one.", 1.4),
)
_NAMES = (
    _Line(Form.HESITATION, "It's, um, / Martin Reyes.", 2.2),
    _Line(Form.OPEN, "My name is / Dana Whitfield.", 2.2),
    _Line(Form.PLAIN, "This is Martin Reyes.", 2.2),
)
_READS_BACK = r"\bmessage from\b"
_NUMBERS = (
    _Line(Form.DICTATED, "It's eight five oh, / five five five, / oh one four two.", 10.0, _READS_BACK),
    _Line(Form.DICTATED, "Eight five oh / five five five / oh one seven seven.", 10.0, _READS_BACK),
    _Line(Form.DICTATED, "Eight five oh, / five five / five oh / one six three.", 10.0, _READS_BACK),
    _Line(
        Form.DICTATED, "My number is / eight five oh, five five five, / oh one nine one.", 10.0, _READS_BACK
    ),
)
_CORRECTIONS = (
    "No, sorry, eight five oh, / five five five, / oh one five five.",
    "No, wait, eight five oh / five five five / oh one six six.",
)
_CONFIRMED = _Line(Form.PLAIN, "Yes, that's right.", 4.0, r"\bpassed that on\b")
_GOODBYES = (
    _Line(Form.PLAIN, "No, that's all, thanks. Goodbye.", 1.6),
    _Line(Form.COMMA, "Great, thanks, / that's all, goodbye.", 1.6),
)
_GREETING_S = 2.2
_ASKED_S: Mapping[str, float] = {"Q": 1.2, "B": 1.8, "M": 1.2}
"""How long what is asked after an answer takes, by kind of call."""
_LEFT_S = 1.6
"""What the agent has still to say after the last harmless sound: an "okay" later on may answer its question."""
_SPOKEN_TWICE_S = 1.6
"""Silence after which an agent that looks something up has said all it will."""


class _Decks:
    """What is dealt across all calls."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.forms = _Deck(_FORMS, dice)
        self.lines = {form: _Deck(lines, dice) for form, lines in _BY_FORM.items() if lines}
        self.openings = {kind: _Deck(lines, dice) for kind, lines in _OPENINGS.items()}
        self.messages, self.names = _Deck(_MESSAGES, dice), _Deck(_NAMES, dice)
        self.numbers, self.corrections = _Deck(_NUMBERS, dice), _Deck(_CORRECTIONS, dice)
        self.goodbyes = _Deck(_GOODBYES, dice)
        self.interrupts = _Deck([True] * 7 + [False] * 3, dice)
        self.greetings = _Deck(["cut", "sound", "", "cut", ""], dice)
        self.is_long_cut = _Deck([True, False, False, False, True], dice)
        self.is_no = _Deck([True, False], dice)
        self.short_cuts, self.long_cuts = _Deck(_SHORT_CUTS, dice), _Deck(_LONG_CUTS, dice)
        self.booking_cuts, self.day_cuts = _Deck(_BOOKING_CUTS, dice), _Deck(_DAY_CUTS, dice)
        self.cuts = _Deck(_CUTS, dice)
        self.sounds = _Deck(_SOUNDS, dice)
        self.backchannels = _Deck(_BACKCHANNELS, dice)
        self.has_sounds = _Deck([2, 2, 2, 2, 0], dice)


@dataclass
class _Writer:
    """Writes one call, turn by turn."""

    decks: _Decks
    size: Size
    number: int
    steps: list[Shape] = field(default_factory=list[Shape])
    forms: list[Form] = field(default_factory=list[Form])
    cuts: list[Cut] = field(default_factory=list[Cut])
    sounds: list[str] = field(default_factory=list[str])
    reply_s: float = _GREETING_S
    """How long what the agent says next takes."""
    tells: str | None = None
    """Set when it speaks twice: what it is heard to say the second time."""

    @property
    def kind(self) -> str:
        return self.size.order[self.number % len(self.size.order)]

    def write(self) -> CorpusCall:
        dice = self.decks.dice
        self._greeting()
        self._opening()
        while len(self.forms) < self.size.turns - 1:
            self._turn()
        self._make_sounds(2)
        self._wait_and_say(self.decks.goodbyes.deal())
        name = f"t{self.number:02d}"
        shape: Shape = {
            "name": name,
            "voice": f"caller-{self.number % 3 + 1}",
            "caller": f"+1555010{self.number:04d}",
            "ended_by": "either",
            "goodbye_within_s": 8.0,
            "max_s": 240.0,
            "steps": self.steps,
        }
        if self.number % 3 == 2:
            shape["network"] = {
                "loss": round(dice.uniform(0.0, 0.03), 3),
                "jitter_ms": round(dice.uniform(0.0, 40.0)),
            }
        return CorpusCall(
            name,
            dice.randrange(1 << 31),
            Scenario.model_validate(shape),
            tuple(self.forms),
            tuple(self.cuts),
            tuple(self.sounds),
        )

    # Turns

    def _greeting(self) -> None:
        """Let the agent greet; it is cut short, or heard over a sound, in some calls."""
        what = self.decks.greetings.deal()
        if what == "cut" and self.kind == "Q":
            low, high = _CUT_MS[Cut.EARLY]
            self._cut(Cut.EARLY, {"after_ms": round(self.decks.dice.uniform(low, high))})
            return
        if what == "sound":
            self._make_sounds(1)
        self.steps.append({"expect": {"agent": "finishes", "within_s": 8.0}})
        self.reply_s = 0.0

    def _opening(self) -> None:
        """Say what the call is about; who leaves a message corrects the number that is read back."""
        decks = self.decks
        if self.kind == "B":
            self._wait_and_say(decks.openings["B"].deal())
        if self.kind != "M":
            return
        for told in (decks.openings["M"], decks.messages, decks.names, decks.numbers):
            self._wait_and_say(told.deal())
        correction = _Line(Form.DICTATED, decks.corrections.deal(), 10.0, _READS_BACK)
        when: Shape = {"after_ms": round(decks.dice.uniform(600.0, 2500.0)), "once_heard": _READS_BACK}
        self.steps.append({"over": {**when, "say": _said(correction.parts(decks.dice))}})
        self.cuts.append(Cut.MIDDLE)
        self._spoken(correction.form, correction.reply_s, correction.tells)
        self._make_sounds(2)
        self._wait_and_say(_CONFIRMED)

    def _turn(self) -> None:
        """The caller interrupts what the agent says, or hears it to its end and asks something else."""
        cut = self.decks.cuts.deal() if self._can_be_cut() and self.decks.interrupts.deal() else None
        if cut is None:
            self._make_sounds(self.decks.has_sounds.deal())
            self._wait_and_say(self.decks.lines[self.decks.forms.deal()].deal())
            return
        low, high = _CUT_MS[cut]
        shape: Shape = {"after_ms": round(self.decks.dice.uniform(low, min(high, 1000 * self.reply_s - 300)))}
        if cut is Cut.LAST_WORD:
            shape["once_heard"] = _LAST_WORD
        elif cut is Cut.RESUMED and self._make_sounds(1):
            shape["from"] = "last"
        self._cut(cut, shape)

    def _can_be_cut(self) -> bool:
        return bool(self.forms) and self.tells is None and self.reply_s >= 2.2

    def _cut(self, cut: Cut, when: Shape) -> None:
        decks, asked_s = self.decks, _ASKED_S[self.kind]
        tells: str | None = None
        if decks.is_long_cut.deal():
            text, reply_s = decks.long_cuts.deal()
            reply_s += asked_s
        elif self.kind == "B" and len(self.forms) >= self.size.turns - 3:
            text, reply_s, tells = (
                decks.day_cuts.deal(),
                _OFFER_S,
                _OFFERS,
            )  # late: every answer is longer then
        elif self.kind == "B" and decks.is_no.deal():
            text, reply_s = decks.booking_cuts.deal(), asked_s
        else:
            text, said_s = decks.short_cuts.deal()
            reply_s = self.reply_s if said_s is None else said_s + asked_s
        self.steps.append({"over": {**when, "say": text}})
        self.cuts.append(cut)
        self._spoken(Form.INTERRUPTION, reply_s, tells)

    def _wait_and_say(self, line: _Line) -> None:
        quiet_s = _SPOKEN_TWICE_S if self.tells else 0.5
        said = _said(line.parts(self.decks.dice))
        self.steps.append(
            {"say": {**(said if isinstance(said, dict) else {"text": said}), "quiet_s": quiet_s}}
        )
        self._spoken(line.form, line.reply_s + _ASKED_S[self.kind], line.tells)

    def _spoken(self, form: Form, reply_s: float, tells: str | None) -> None:
        self.forms.append(form)
        self.reply_s, self.tells = reply_s, tells

    # Sounds

    def _make_sounds(self, most: int) -> int:
        """Add harmless sounds over what the agent says next, as many as it is long enough for."""
        dice, made, since_s = self.decks.dice, 0, 0.0
        while made < most:
            wait_ms = round(dice.uniform(500.0, 1300.0) if not made else dice.uniform(700.0, 1300.0))
            kind = self.decks.sounds.deal()
            shape, length_s = self._sound(kind)
            since_s += wait_ms / 1000 + length_s
            if since_s > self.reply_s - (_LEFT_S if kind == "backchannel" else 0.5):
                self.decks.sounds.take_back(kind)
                break
            over: Shape = {"after_ms": wait_ms, **shape}
            if made:
                over["from"] = "last"
            elif self.tells:
                over["once_heard"] = self.tells
            self.steps.append({"over": over})
            self.sounds.append(kind)
            made += 1
        return made

    def _sound(self, kind: str) -> tuple[Shape, float]:
        """Return a sound and its length in seconds."""
        dice = self.decks.dice
        if kind == "backchannel":
            return {"backchannel": self.decks.backchannels.deal()}, _BACKCHANNEL_MS / 1000
        if kind == "echo":
            ms = round(dice.uniform(*_ECHO_MS))
            echo = {
                "ms": ms,
                "delay_ms": round(dice.uniform(*_ECHO_DELAY_MS)),
                "gain_db": round(dice.uniform(*_ECHO_GAIN_DB), 1),
            }
            return {"echo": echo}, ms / 1000
        ms = round(dice.uniform(*_NOISE_MS[kind]))
        return {"noise": {"kind": kind, "ms": ms}}, ms / 1000


def _said(parts: tuple[Part, ...]) -> Any:
    return parts[0] if len(parts) == 1 else {"parts": list(parts)}
