"""Lets the first piece of a reply end at a clause, so that the voice starts before the first sentence is whole.

Stands in a Pipecat voice (or its `LLMTextProcessor`) in place of the sentence aggregator. Only where a speaker
would pause: a break is taken when the word behind it is known to open a clause, so never inside a number, a date, a
name or an address. Later pieces are whole sentences. Never changes a word, and never waits longer than a sentence
aggregator would. Languages without words of their own here get whole sentences.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from pipecat.utils.text.base_text_aggregator import Aggregation, TextType
from pipecat.utils.text.skip_tags_aggregator import SkipTagsAggregator

MIN_WORDS = 3
MIN_CHARS = 12
"""A first piece has so many words or so many characters; a shorter one is over before the next is there."""
MIN_WORDS_BEFORE_JOINT = 5
"""And so many words when no mark stands at the break."""

_MARK = re.compile(
    r"(?P<mark>[,;:](?=\s)|—|\s[-–](?=\s))\s*(?P<next>[^\s,;:.!?—–]+)\s$"  # noqa: RUF001 - dashes as they are written
)
"""A mark, and the whole word behind it."""
_JOINT = re.compile(r"\s(?P<joint>[^\W\d_]+)\s+(?P<next>[^\s,;:.!?—–]+)\s$")  # noqa: RUF001
"""Two whole words, the first of which may join two clauses."""
_PAIRS = (("(", ")"), ("[", "]"), ("“", "”"), ("«", "»"), ("<", ">"))


@dataclass(frozen=True)
class ClauseWords:
    """What opens a clause in one language, written as in the middle of a sentence."""

    openers: frozenset[str]
    """May follow a comma or a dash; of a contraction, what stands before the apostrophe."""
    joints: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Joins two clauses without a mark, to what must follow for it to be a clause; nothing: whatever follows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ANY = frozenset[str]()

CLAUSE_WORDS: Mapping[str, ClauseWords] = {
    "en": ClauseWords(
        _words(
            "I you we he she it they there here that this what which who whose when where why how if unless until "
            "while because since although though so and but or then as with for from to at in on by across near "
            "behind just not would could can shall should will may do does did is are was were have has let "
            "please"
        ),
        {
            "and": _words("I you we he she it they there then"),
            "so": _words("I you we he she it they there"),
            "but": _ANY,
            "because": _ANY,
        },
    ),
    "de": ClauseWords(
        _words(
            "ich du er sie es wir Sie man dass ob wenn weil da damit obwohl bevor nachdem sobald solange bis und aber "
            "oder denn sondern was wer wie wo wann warum welcher welche welches dann hier dort kann können könnte "
            "könnten möchten soll darf haben hätten ist sind wäre"
        ),
        {"und": _words("ich er sie es wir Sie man dann"), "aber": _ANY, "weil": _ANY},
    ),
    "es": ClauseWords(
        _words(
            "yo usted ustedes nosotros y o pero porque si cuando donde como aunque mientras que qué cuál cuándo dónde "
            "cómo quién para con entonces así también puedo puede podemos quiere tenemos hay está estamos es le se"
        ),
        {"pero": _ANY, "porque": _ANY},
    ),
    "fr": ClauseWords(
        _words(
            "je j vous nous il elle ils elles on c ce ça et ou mais car donc si quand lorsque puisque parce qu que qui "
            "quel quelle quels quelles où comment pourquoi pour avec afin alors puis est êtes avez pouvez voulez"
        ),
        {"et": _words("je j vous nous il elle ils elles on c ça"), "mais": _ANY},
    ),
    "it": ClauseWords(
        _words(
            "io lei noi voi e o ma perché se quando dove come anche mentre che chi quale quali quanto per con allora "
            "così posso può possiamo vuole abbiamo è siamo ci si"
        ),
        {"ma": _ANY, "perché": _ANY},
    ),
    "nl": ClauseWords(
        _words(
            "ik u je jij hij zij ze het we wij en of maar want dus als dat omdat terwijl zodat totdat wat wie waar "
            "wanneer hoe welke welk waarom dan daar hier kan kunt kunnen wilt is zijn hebt hebben met voor"
        ),
        {"en": _words("ik u je hij zij ze het we wij dan"), "maar": _ANY, "want": _ANY},
    ),
    "pt": ClauseWords(
        _words(
            "eu você vocês nós e ou mas porque se quando onde como embora enquanto que qual quais quem quanto para com "
            "então também posso pode podemos quer temos há está estamos é"
        ),
        {"mas": _ANY, "porque": _ANY},
    ),
}
"""By language. No articles and no numbers: behind a comma they continue a date, a number or a list."""


def first_clause_end(text: str, words: ClauseWords) -> int:
    """Say where the first piece of a reply may end.

    Args:
        text: The reply so far; it ends with the white space behind a word.
        words: Of the reply's language.

    Returns:
        Length of the piece, 0 if it may not end between the last two words or three.
    """
    if mark := _MARK.search(text):
        end = mark.end("mark")
        is_clause = _opens_clause(mark, words) and _is_long_enough(text[:end])
    elif joint := _JOINT.search(text):
        end = joint.start()
        followers = words.joints.get(joint["joint"])
        is_clause = (
            followers is not None
            and (not followers or _stem(joint["next"]) in followers)
            and len(text[:end].split()) >= MIN_WORDS_BEFORE_JOINT
        )
    else:
        return 0
    return end if is_clause and _is_closed(text[:end]) else 0


def _opens_clause(mark: re.Match[str], words: ClauseWords) -> bool:
    if mark["mark"] in (";", ":"):
        return not (mark.string[: mark.start()][-1:].isdigit() and mark["next"][0].isdigit())
    return _stem(mark["next"]) in words.openers


def _stem(word: str) -> str:
    """What stands before the apostrophe: "we're" opens a clause as "we" does."""
    return re.split("['\u2019]", word, maxsplit=1)[0]


def _is_long_enough(piece: str) -> bool:
    return len(piece.split()) >= MIN_WORDS or len(piece.strip()) >= MIN_CHARS


def _is_closed(piece: str) -> bool:
    """Whether no bracket and no quotation is open at the end."""
    return piece.count('"') % 2 == 0 and all(
        piece.count(left) <= piece.count(right) for left, right in _PAIRS
    )


class ClauseAggregator(SkipTagsAggregator):
    """Sentences, but the first piece of each reply may be a clause.

    `flush` (the reply has ended) and `handle_interruption` begin another reply.
    """

    def __init__(
        self, *, language: str | None = None, aggregation_type: TextType = TextType.SENTENCE
    ) -> None:
        """Create the aggregator.

        Args:
            language: Of what is spoken, e.g. `en-US`; English when None.
            aggregation_type: In token mode all text passes at once, as ever.
        """
        # Cartesia's own aggregator, which this one replaces, keeps spelled-out text in one piece.
        super().__init__([("<spell>", "</spell>")], aggregation_type=aggregation_type, language=language)
        self._is_first = True

    async def aggregate(self, text: str) -> AsyncIterator[Aggregation]:
        """Take text; yield each piece as soon as its end is certain."""
        taken = 0
        words = CLAUSE_WORDS.get(self.language)
        if words is not None and self._aggregation_type == TextType.SENTENCE:
            while self._is_first and taken < len(text):
                char = text[taken]
                taken += 1
                async for piece in super().aggregate(char):
                    self._is_first = False
                    yield piece
                if self._is_first and char.isspace() and (clause := self._take_clause(words)) is not None:
                    self._is_first = False
                    yield clause
        async for piece in super().aggregate(text[taken:]):
            yield piece

    async def flush(self) -> Aggregation | None:
        """Return what is left of the reply; the next text is another reply's."""
        rest = await super().flush()
        self._is_first = True
        return rest

    async def handle_interruption(self) -> None:
        """Forget the reply."""
        await super().handle_interruption()
        self._is_first = True

    async def reset(self) -> None:
        """Forget the reply."""
        await super().reset()
        self._is_first = True

    def _take_clause(self, words: ClauseWords) -> Aggregation | None:
        end = 0 if self._current_tag else first_clause_end(self._text, words)
        if not end:
            return None
        piece, self._text = self._text[:end].strip(), self._text[end:]
        self._current_tag_index = 0  # an offset into the text that was just cut
        return Aggregation(text=piece, type=TextType.SENTENCE)
