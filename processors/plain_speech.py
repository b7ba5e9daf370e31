"""Takes what cannot be spoken out of a model's text as it streams: markup, links, addresses, emoji, stage directions.

Used by `speech_text`. Text without any of these passes unchanged and at once; a mark is held until it is clear what
it is, a few characters as a rule and never more than a link is long. Never drops a word that could be speech: code
and emphasised words are spoken, a star or an underscore that is content stays.
"""

import re
from typing import NamedTuple

MAX_LABEL_CHARS = 80
MAX_LINK_CHARS = 300
MAX_TAG_CHARS = 60
MAX_DIRECTION_CHARS = 60

_EMOJI = (
    "\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa\U000e0020-\U000e007f\ufe0f\u20e3"
)
"""Pictures, and what only changes how one looks."""
_PLAIN = re.compile(rf"[^\n*_`~<\[hHwW\u200d{_EMOJI}]+")
_IS_EMOJI = re.compile(rf"[{_EMOJI}]")
_LINE_MARK = re.compile(
    r"[ \t]*(?:[-*+•][ \t]+(?=\S)|#{1,6}[ \t]+(?=\S)|>[ \t]?(?=\S)|([-*_])(?:[ \t]*\1){2,}[ \t]*(?=\n))"
)
_MAYBE_LINE_MARK = re.compile(r"[ \t]*(?:[-*+•#>_][-*_# \t]*)?\Z")
_LINK = re.compile(rf"\[([^\[\]\n]{{1,{MAX_LABEL_CHARS}}})\]\([^()\n]{{1,{MAX_LINK_CHARS}}}\)")
_BRACKETS = re.compile(rf"\[([^\[\]\n]{{1,{MAX_LABEL_CHARS}}})\]")
_MAYBE_LINK = re.compile(rf"\[[^\[\]\n]{{0,{MAX_LABEL_CHARS}}}(?:\](?:\([^()\n]{{0,{MAX_LINK_CHARS}}})?)?\Z")
_TAG = re.compile(rf"</?[A-Za-z][^<>\n]{{0,{MAX_TAG_CHARS}}}>")
_MAYBE_TAG = re.compile(rf"</?(?:[A-Za-z][^<>\n]{{0,{MAX_TAG_CHARS}}})?\Z")
_ADDRESS = re.compile(r"(?:https?://|www\.)(?=\S)", re.IGNORECASE)
_ADDRESS_STARTS = ("https://", "http://", "www.")
_ADDRESS_BODY = re.compile(r"[^\s<>\[\]]*")
_ADDRESS_END = re.compile(r"[.,;:!?)'\"*_`]*\Z")
_FIRST_WORD = re.compile(r"[^\W\d_]*")

_DIRECTIONS_TEXT = (
    "smiles smiling laughs laughing chuckles chuckling giggles giggling sighs sighing pauses pausing nods nodding "
    "winks winking whispers whispering coughs coughing clears gasps lächelt lacht seufzt nickt sonríe suspira sourit "
    "soupire sorride sospira glimlacht zucht knikt sorri"
)
_DIRECTIONS = frozenset(_DIRECTIONS_TEXT.split())
"""First words of what an actor is told to do."""


class _Step(NamedTuple):
    """What became of some text."""

    spoken: str
    end: int
    """Where the text goes on."""
    is_gap: bool = False
    """Something was taken out that stood for itself: the space behind it goes too if one stands in front."""


class PlainSpeech:
    """Filters one reply. In how many parts it is fed does not change what comes out."""

    def __init__(self, *, website: str = "our website") -> None:
        """Create the filter.

        Args:
            website: Spoken in place of an address.
        """
        self._website = website
        self.reset()

    def reset(self) -> None:
        """Begin another reply."""
        self._held = ""
        self._before = ""
        """The character in front of what is held, as it came."""
        self._is_line_start = True
        self._is_in_address = False
        self._open: set[str] = set()
        """Marks of emphasis that were opened."""
        self._ends_spaced = True
        """Whether what was spoken so far ends in white space."""
        self._closes_gap = False

    def feed(self, text: str) -> str:
        """Take the next text; return what of it can be spoken and is certain."""
        return self._advance(text, is_last=False)

    def flush(self) -> str:
        """Return what was held back, as nothing comes to complete it."""
        return self._advance("", is_last=True)

    def _advance(self, text: str, *, is_last: bool) -> str:
        text, at = self._held + text, 0
        spoken: list[str] = []
        while at < len(text) and (step := self._step(text, at, is_last)) is not None:
            spoken.append(self._joined(step))
            if step.end > at:
                self._before = text[step.end - 1]
            at = step.end
        self._held = text[at:]
        return "".join(spoken)

    def _joined(self, step: _Step) -> str:
        """Return a step's words without the space that would stand beside another."""
        spoken = step.spoken.lstrip(" ") if self._closes_gap else step.spoken
        if spoken:
            self._closes_gap = False
            self._ends_spaced = spoken[-1].isspace()
        if step.is_gap and self._ends_spaced:
            self._closes_gap = True
        return spoken

    def _step(self, text: str, at: int, is_last: bool) -> _Step | None:
        """Decide about the text from `at` on; None when more of it is needed."""
        if self._is_in_address:
            return self._address_body(text, at, is_last)
        if self._is_line_start:
            if mark := _LINE_MARK.match(text, at):
                self._is_line_start = False
                return _Step("", mark.end(), is_gap=True)
            if _MAYBE_LINE_MARK.match(text, at) and not is_last:
                return None
            self._is_line_start = False
        if plain := _PLAIN.match(text, at):
            return _Step(plain[0], plain.end())
        return self._special(text, at, is_last)

    def _special(self, text: str, at: int, is_last: bool) -> _Step | None:
        char = text[at]
        if char == "\n":
            self._is_line_start = True
            self._open.clear()
            return _Step(char, at + 1)
        if char in "*_~`":
            return self._marks(text, at, is_last)
        if char == "<":
            return self._tag(text, at, is_last)
        if char == "[":
            return self._brackets(text, at, is_last)
        if char in "hHwW":
            return self._address(text, at, is_last)
        if char == "\u200d" and not _IS_EMOJI.match(self._before):  # joins letters too
            return _Step(char, at + 1)
        return _Step("", at + 1, is_gap=True)

    # Emphasis and code

    def _marks(self, text: str, at: int, is_last: bool) -> _Step | None:
        end = at
        while end < len(text) and text[end] == text[at]:
            end += 1
        if end == len(text) and not is_last:
            return None
        marks, before, after = text[at:end], self._before, text[end : end + 1]
        if marks[0] == "`":
            return _Step("", end)
        if marks[0] == "~":
            return _Step("" if len(marks) > 1 else marks, end)
        if marks[0] == "_":
            return _Step("" if self._is_underscore_markup(before, after) else marks, end)
        if before.isdigit() and after.isdigit():
            return _Step(marks, end)  # two times three
        if "*" in self._open and before and not before.isspace():
            self._open.discard("*")
            return _Step("", end)
        if before.isalnum() or not (after.isalpha() or (len(marks) > 1 and after.isdigit())):
            return _Step(marks, end)  # a key of the telephone, a footnote
        if len(marks) == 1 and (direction := self._direction(text, end, is_last)) != 0:
            return _Step("", direction, is_gap=True) if direction is not None else None
        self._open.add("*")
        return _Step("", end)

    def _is_underscore_markup(self, before: str, after: str) -> bool:
        if before.isalnum() and after.isalnum():
            return False
        if after.isalnum():
            self._open.add("_")
            return True
        is_closing = "_" in self._open
        self._open.discard("_")
        return is_closing

    def _direction(self, text: str, start: int, is_last: bool) -> int | None:
        """Find the end of a stage direction that begins behind a star: 0 if it is none, None if that is open."""
        word = _FIRST_WORD.match(text, start)
        if word is None or (word.end() == len(text) and not is_last):
            return None
        if word[0].lower() not in _DIRECTIONS:
            return 0
        line = text[start : start + MAX_DIRECTION_CHARS].split("\n")[0]
        if "*" in line:
            return start + line.index("*") + 1
        is_whole = is_last or len(text) > start + len(line)
        return 0 if is_whole or len(line) == MAX_DIRECTION_CHARS else None

    # What stands in brackets

    def _tag(self, text: str, at: int, is_last: bool) -> _Step | None:
        if tag := _TAG.match(text, at):
            return _Step("", tag.end(), is_gap=True)
        if _MAYBE_TAG.match(text, at) and not is_last:
            return None
        return _Step("<", at + 1)

    def _brackets(self, text: str, at: int, is_last: bool) -> _Step | None:
        if link := _LINK.match(text, at):
            return _Step(re.sub(r"[*_`]", "", link[1]), link.end())
        if _MAYBE_LINK.match(text, at) and not is_last:
            return None
        brackets = _BRACKETS.match(text, at)
        if brackets is not None:
            word = _FIRST_WORD.match(brackets[1])
            if word is not None and word[0].lower() in _DIRECTIONS:
                return _Step("", brackets.end(), is_gap=True)
        return _Step("[", at + 1)

    # Addresses

    def _address(self, text: str, at: int, is_last: bool) -> _Step | None:
        rest = text[at : at + len(_ADDRESS_STARTS[0])].lower()
        if not self._before.isalnum():
            if start := _ADDRESS.match(text, at):
                self._is_in_address = True
                return _Step(self._website, start.end())
            may_come = len(text) == at + len(rest) and any(s.startswith(rest) for s in _ADDRESS_STARTS)
            if may_come and not is_last:
                return None
        return _Step(text[at], at + 1)

    def _address_body(self, text: str, at: int, is_last: bool) -> _Step | None:
        body = _ADDRESS_BODY.match(text, at)
        end = body.end() if body is not None else at
        tail = _ADDRESS_END.search(text[at:end])
        tail_chars = len(tail[0]) if tail is not None else 0
        if end == len(text) and not is_last:  # the address may go on behind its last full stop
            return _Step("", end - tail_chars) if end - tail_chars > at else None
        self._is_in_address = False
        return _Step(text[end - tail_chars : end], end)
