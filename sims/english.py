"""What an English-speaking caller's words mean: days, times, numbers, names, yes and no.

Pure functions over one utterance, spelled out or as a transcriber formats it. For the rule brain only;
nothing here knows a business.
"""

import functools
import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
)
_WORD_VALUES = {
    **{word: value for value, word in enumerate(_UNITS)},
    **{"oh": 0, "o": 0, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19},
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_ZEROS = {"hundred": "00", "thousand": "000"}
_REPEATS = {"double": 2, "triple": 3}
_DIGIT_GAPS = frozenset(_words("and then dash area code um uh is"))

_WEEKDAY = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_MONTH = "january|february|march|april|may|june|july|august|september|october|november|december"
_ORDINAL = (
    r"(?:(?:twenty|thirty) )?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|tenth|eleventh|twelfth"
    r"|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|thirtieth"
)
_DAY_OF_MONTH = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{_ORDINAL})"
_DAYS = re.compile(
    rf"(?P<not>\b(?:not|isn't|except|instead of|rather than|can't do|cannot do|can't make|but not) (?:on )?(?:the )?)?"
    rf"\b(?P<day>day after tomorrow|tomorrow|today|(?:{_MONTH}) (?:the )?{_DAY_OF_MONTH}"
    rf"|{_DAY_OF_MONTH} (?:of )?(?:{_MONTH})|(?:this |next |coming )?(?:{_WEEKDAY})"
    rf"|\d{{1,2}}/\d{{1,2}}|the (?:\d{{1,2}}(?:st|nd|rd|th)|(?:twenty |thirty ){_ORDINAL}))\b"
)
_ANY_DAY = re.compile(
    r"\b(any ?day|any ?time|whenever|as soon as (possible|you can)|asap|soonest|earliest|first available|next available"
    r"|first thing you have|whatever you have|(doesn't|does not) matter|don't (mind|care))\b"
)

_HOUR = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_MINUTE = r"oh five|(?:twenty|thirty|forty|fifty)(?: five)?|ten|fifteen"
_TIME = re.compile(
    rf"\b(?P<at>at |around |about |half past |quarter past |quarter to )?"
    rf"(?:(?P<h>\d{{1,2}})(?::(?P<m>\d\d))?|(?P<hw>{_HOUR})(?: (?P<mw>{_MINUTE}))?)"
    rf"(?P<clock> o'clock)?(?: (?P<half>am|pm|in the morning|in the afternoon))?\b"
)

_YES = re.compile(
    r"\b(yes|yeah|yep|yup|sure|correct|right|perfect|please do|go ahead|sounds good|that works|okay|ok|absolutely"
    r"|exactly|of course|definitely|great|fine|that's it|uh-huh|mm-hmm|do it|book it)\b"
)
_NO = re.compile(r"\b(no|nope|nah|not|wrong|incorrect|don't|neither|none)\b")
_GOODBYE = re.compile(
    r"\b(bye|goodbye|good bye|that's all|that is all|that's it|that'll be all|that will be all|nothing else"
    r"|nothing more|no thanks|no thank you|i'm done|i'm good|all set"
    r"|have a (nice|good|great) (day|one|evening|weekend))\b"
)
_DROP = re.compile(r"\b(never ?mind|forget (it|about it)|forget that|leave it)\b")
_REPEAT = re.compile(
    r"^(i'm )?(sorry|pardon|pardon me|excuse me|what|huh|come again)( what)?$"
    r"|\b(say (that|it) again|repeat|what was that|come again|one more time|what did you say|say again)\b"
    r"|\b(didn't|did not|couldn't|can't) (quite )?(hear|catch|get|understand) (that|you|it|what)\b"
)
_NUDGE = re.compile(
    r"^((hello|hey|hi)( hello)?|are you (still )?there|(hello|hey) are you (still )?there|anybody there)$"
)
_THANKS = re.compile(
    r"^(okay |ok |great |perfect |alright |wonderful )*(thanks|thank you)( so much| very much| a lot)?$"
)
_QUESTION = re.compile(
    r"^(and |but |also |so |okay |oh |um |uh |wait |actually |sorry |hi |hello |quick question |by the way )*"
    r"(what|when|where|how|which|who|do|does|are|is|can|could|will)\b"
)

_NAME_ASKED = re.compile(
    r"^(?:(?:um|uh|er|oh|okay|ok|sure|yes|yeah|well|so|no|sorry|actually|it's|it is|that's|that is|that would be"
    r"|the name is|name is|name's|my name is|my name's|my full name is|i'm|i am|this is|put it under|under|call me"
    r"|just)\W+)*",
    re.IGNORECASE,
)
_NAME_GIVEN = re.compile(
    r"\b(?:(?i:my (?:full )?name is|my name's|the name is|the name's|name should be|under the name(?: of)?|under)"
    r"|(?i:this is|i'm|i am|it's)(?=\s+[A-Z]))\s+(?P<name>[^\W\d_][\w'.-]*(?:\s+[A-Z][\w'-]*){0,3})"
)
_NAME_ENDS = re.compile(
    r"[,;?!]|\.(?=\s|$)|\b(?:and|my|phone|number|please|with|at|not|for|but|thanks|thank)\b|\d", re.IGNORECASE
)
_NOT_A_NAME = frozenset(
    _words(
        "a about an any appointment are book calling can cleaning could do does fine for from good have here "
        "hello help how hours i in is it like looking make me need not of okay on open please sorry sure that the "
        "there they this to tomorrow trying want what when where which why will with would yes you your no yeah "
        "actually wait great thanks perfect morning afternoon number same phone change time think maybe let"
    )
)

_MESSAGE_GIVEN = re.compile(
    r"\b(?:(?:tell|ask) (?:them|him|her|the \w+|(?:dr\.?|doctor) \w+)(?: that| to)?"
    r"|let (?:them|him|her|the \w+) know(?: that)?|(?:the )?message is(?: that)?|say that"
    r"|saying(?: that)?)[,:]?\s+(?P<text>.+)",
    re.IGNORECASE | re.DOTALL,
)
_MESSAGE_LEAD = re.compile(
    r"^(?:(?:um|uh|yes|yeah|okay|ok|sure|well|so|please|just|that)\b[,. ]*)+", re.IGNORECASE
)


@functools.lru_cache(maxsize=4096)  # a brain that replays its conversation asks for the same words again
def plain(text: str) -> str:
    """Lower-case, punctuation gone (but `:`, `/` and apostrophes), greetings of the day gone."""
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    text = re.sub(r"\b([ap]) m\b", r"\1m", text)
    text = re.sub(r"\bmm-?hm+\b|\buh-?huh\b", "yes", text)
    text = re.sub(r"[^a-z0-9:/' ]+", " ", text)
    text = re.sub(r"\bgood (morning|afternoon|evening|day)\b", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def is_yes(text: str) -> bool:
    """Agreement, and nothing against it."""
    words = re.sub(
        r"\bno,? (that's|that is|it's|problem|worries)( right| correct| fine| good)?\b", "yes", plain(text)
    )
    return bool(_YES.search(words)) and not _NO.search(words)


def is_plain_yes(text: str) -> bool:
    """Agreement without a "but" or another change."""
    return is_yes(text) and not re.search(
        r"\b(but|except|actually|instead|change|make it|rather)\b", plain(text)
    )


def is_no(text: str) -> bool:
    """Disagreement."""
    return bool(_NO.search(plain(text))) and not is_yes(text)


def is_goodbye(text: str) -> bool:
    """The caller takes leave, or needs nothing more."""
    return bool(_GOODBYE.search(plain(text)))


def is_dropped(text: str) -> bool:
    """The caller gives up what was going on."""
    return bool(_DROP.search(plain(text)))


def is_repeat(text: str) -> bool:
    """The caller asks to hear the last words again."""
    return bool(_REPEAT.search(plain(text)))


def is_nudge(text: str) -> bool:
    """The caller only checks that somebody is there."""
    return bool(_NUDGE.search(plain(text)))


def is_thanks(text: str) -> bool:
    """Thanks and nothing else."""
    return bool(_THANKS.search(plain(text)))


def is_question(text: str) -> bool:
    """Whether it is put as a question."""
    return text.rstrip().endswith("?") or bool(_QUESTION.search(plain(text)))


def day_phrase(text: str) -> str | None:
    """The day the caller names last and does not reject, in their words; "any" when they do not mind."""
    words = plain(text)
    named = [match["day"] for match in _DAYS.finditer(words) if not match["not"]]
    if named:
        return named[-1]
    return "any" if _ANY_DAY.search(words) else None


def times_in(text: str) -> list[tuple[int, int]]:
    """Clock times as (hour 1 to 12, minute), in order.

    A bare "one" is not a time ("the first one"), nor is a number that belongs to a date.
    """
    words = re.sub(r"\bnoon\b", "twelve pm", plain(text))
    words = _DAYS.sub(" ", words)
    found: list[tuple[int, int]] = []
    for match in _TIME.finditer(words):
        hour = int(match["h"]) if match["h"] else _WORD_VALUES[match["hw"]]
        exact = match["at"] or match["clock"] or match["half"] or match["m"] or match["mw"]
        if not 1 <= hour <= 23 or (hour == 1 and not exact):
            continue
        minute = int(match["m"]) if match["m"] else _small_number(match["mw"])
        lead = (match["at"] or "").strip()
        if lead == "quarter to":
            hour, minute = hour - 1 or 12, 45
        elif lead in ("half past", "quarter past"):
            minute = 30 if lead.startswith("half") else 15
        found.append(((hour - 1) % 12 + 1, minute))
    return found


def digit_runs(text: str) -> list[str]:
    """Runs of spoken or written digits, e.g. "eight five oh, 555 double oh" gives ["85055500"]."""
    runs = [""]
    repeat = 1
    tokens = re.findall(r"[a-z]+|\d+", plain(text).replace("'", ""))
    for index, token in enumerate(tokens):
        if token in _REPEATS:
            repeat = _REPEATS[token]
            continue
        digits = _digits(tokens, index)
        if digits is not None:
            runs[-1] += digits * repeat
        elif token not in _DIGIT_GAPS and runs[-1]:
            runs.append("")
        repeat = 1
    return [run for run in runs if run]


def person_name(text: str, *, asked: bool) -> str | None:
    """The name a caller gives.

    Args:
        text: The utterance, as transcribed.
        asked: Whether the name was asked for; then bare words count as one.
    """
    if match := list(_NAME_GIVEN.finditer(text)):
        return _tidy_name(match[-1]["name"])
    if not asked or day_phrase(text) or times_in(text):
        return None
    return _tidy_name(_NAME_ASKED.sub("", text.strip(), count=1))


def free_text(text: str, *, asked: bool) -> str | None:
    """A message in the caller's words: what follows "tell them", or, when asked for, all of it."""
    if match := _MESSAGE_GIVEN.search(text):
        return match["text"].strip()
    rest = _MESSAGE_LEAD.sub("", text).strip()
    return rest if asked and len(rest.split()) >= 2 else None


def choice(text: str, count: int) -> int | None:
    """Which of `count` things the caller takes by its place ("the second", "the later one"); None if unsaid."""
    words = plain(text)
    if re.search(r"\b(first|earlier|earliest|former|either|whichever|any of)\b", words):
        return 0
    if re.search(r"\b(last|later|latest|latter)\b", words):
        return count - 1
    if re.search(r"\bsecond\b", words) and count >= 2:
        return 1
    return None


@functools.lru_cache(maxsize=1024)
def stems(text: str) -> frozenset[str]:
    """Content words, roughly stemmed."""
    words = re.findall(r"[a-z]+", plain(text).replace("'", ""))
    return frozenset(_stem(word) for word in words if word not in _STOP_WORDS)


_STOP_WORDS = frozenset(
    _words(
        "a about again all also am an and another any anything are as at be because been but by can could day did "
        "do does for from get give go got had has have hello help hi how i id ill im in is it its ive just know "
        "let like may maybe me might more my name need new no not now number of ok okay on one only or our out "
        "please really see she so some something such sure take than thank thanks that the their them then there "
        "they thing this time to too up us use very want was way we week well were what when where which while "
        "who will with would yeah yes you your caller called calling times today tomorrow first last if before after"
    )
)


def _stem(word: str) -> str:
    for suffix in ("ing", "ed", "es", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def _small_number(words: str | None) -> int:
    if not words:
        return 0
    return sum(_TENS.get(word, _WORD_VALUES.get(word, 0)) for word in words.split())


def _digits(tokens: list[str], index: int) -> str | None:
    """Digits that the token at `index` adds, given its neighbours; None when it is not a number."""
    token, before = tokens[index], tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    if token.isdigit():
        return token
    if token in _ZEROS:
        return _ZEROS[token] if before in _WORD_VALUES else None
    if token in _TENS:
        ones_follow = after in _WORD_VALUES and 1 <= _WORD_VALUES[after] <= 9
        return str(_TENS[token] // 10) if ones_follow else str(_TENS[token])
    return str(_WORD_VALUES[token]) if token in _WORD_VALUES else None


def _tidy_name(text: str) -> str | None:
    text = _NAME_ENDS.split(text.strip(), maxsplit=1)[0] if text.strip() else ""
    words = [word.strip(".") for word in text.split() if len(word.strip(".")) > 1]
    if not 1 <= len(words) <= 4 or any(word.lower() in _NOT_A_NAME for word in words):
        return None
    return " ".join(word if word[0].isupper() else word.capitalize() for word in words)
