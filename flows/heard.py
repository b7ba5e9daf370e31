"""Speech to data: what callers say, or a model passes on in their words, as days, numbers and addresses.

Pure functions; none raises, whatever text it gets, and each answers None rather than guess: a flow asks again.
Days are understood in English only: in another language the model passes an ISO date (`2026-11-24`), which is.
Everything else is understood in the agent's language (`flows/spoken_forms.py`).
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat

from flows.spoken_forms import digit_table, fold, spoken_forms, word_tokens


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_MAX_CHARS = 400
"""What is longer is no detail of a booking."""
_MAX_FIGURES = 20
_MAX_READINGS = 64
_MAX_PHRASE_TOKENS = 4
_MAX_NAME_WORDS = 4
"""Whole words in front of the "at"; more of them are a sentence."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = _words("january february march april may june july august september october november december")
_ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ORDINAL_VALUES = {
    **{word: value for value, word in enumerate(_ORDINALS, start=1)},
    **{f"twenty {word}": 20 + value for value, word in enumerate(_ORDINALS[:9], start=1)},
    "thirtieth": 30,
    "thirty first": 31,
}
_MONTH_NAMES = "|".join(MONTHS)
_WEEKDAY_NAMES = "|".join(WEEKDAYS)
_DAY_NUMBER = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"

_ZEROS = {"hundred": "00", "thousand": "000"}
_SCALE_VALUES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
_SCALES = tuple(_SCALE_VALUES)
_INTERJECTIONS = frozenset({("oh",), ("o",)})
"""Figures when dictated among others, words when alone."""

_WRITTEN_ADDRESS = re.compile(r"[a-z0-9][a-z0-9._+-]*@[a-z0-9.-]+\.[a-z]{2,24}(?![a-z0-9])")
_ADDRESS = re.compile(
    r"(?=.{6,254}$)(?=[^@]{1,64}@)[a-z0-9]+(?:[._+-]+[a-z0-9]+)*[_+-]*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"
)
_CLOSINGS = frozenset(
    _words("thanks thank you please okay ok yes danke bitte merci gracias grazie bedankt obrigado obrigada")
)


def day_from_words(text: str, today: date) -> date | None:
    """Resolve a day as English-speaking callers say it, relative to `today`; None when no day is named.

    Understands ISO dates, "today", "tomorrow", "the day after tomorrow", weekdays ("Tuesday" and "this
    Tuesday" are the next one, today included; "next Tuesday" is never today), "November 24th",
    "the third of December", "12/3", "the 24th". A date without a year is the next such date.
    """
    words = re.sub(r"[,.!?]|\bof\b|\bthe\b|-(?=[a-z])", " ", text.lower())
    words = re.sub(r"\s+", " ", words).strip()
    return _relative_day(words, today) or _calendar_day(words, today) or _weekday(words, today)


def number_from_text(text: str, language: str = "en") -> int | None:
    """Understand one whole number: figures ("42", "1,234") in any language, or number words.

    Words: up to the billions in English, 0 to 99 in other languages.
    """
    plain = _plain(text).strip(" .,!?")
    if re.fullmatch(r"\d{1,15}|\d{1,3}([,. ]\d{3}){1,4}", plain):
        return int(re.sub(r"\D", "", plain))
    tokens = word_tokens(re.sub(r"[,.!?]", " ", plain))
    if spoken_forms(language).language == "en":
        return _english_number(tokens)
    figures = digit_table(language).get(tokens)
    return None if figures is None else int(figures)


def phone_from_text(text: str, region: str = "US", language: str = "en") -> str | None:
    """Normalise a phone number to E.164; None unless all figures together are one valid number.

    Takes figures in any punctuation and spoken ones ("eight five oh", "double five", "eighty five"), with or
    without the country code.

    Args:
        text: The caller's words; other words in between do not matter.
        region: ISO 3166 country of a number without country code.
        language: Language of the number words.
    """
    plain = _plain(text)
    if len(plain) > _MAX_CHARS:
        return None
    plain = re.split(r"\b(?:extension|ext)\b", plain)[0]
    tokens = word_tokens(re.sub(r"[^\w+,]+", " ", re.sub(r"([+,])", r" \1 ", plain)))
    if tokens[:1] in _INTERJECTIONS and not (len(tokens) > 1 and _figures_at(tokens[1:], language)):
        tokens = tokens[1:]  # "Oh, it's eight five oh …"
    readings = itertools.islice(_readings(tokens, language), _MAX_READINGS)
    numbers = {number for reading in readings if (number := _valid_number(reading, region))}
    return numbers.pop() if len(numbers) == 1 else None


def email_from_text(text: str, language: str = "en") -> str | None:
    """Understand an e-mail address, written or dictated; None unless there is exactly one.

    "dana dot w at example dot com", "at sign", "underscore", "dash", spelled letters ("D A N A",
    "D as in Delta"), figures as words. In lower case; letters with accents are written without.
    """
    plain = _plain(text)
    if len(plain) > _MAX_CHARS:
        return None
    written = set(_WRITTEN_ADDRESS.findall(fold(plain, language)))
    if written:
        return _valid_address(written.pop()) if len(written) == 1 else None
    address = _dictated_address(_address_tokens(plain, language), language)
    return None if address is None else _valid_address(address)


# Numbers


def _plain(text: str) -> str:
    """Lower case; figures and signs of other scripts and widths as ASCII."""
    text = unicodedata.normalize("NFKC", text[: 4 * _MAX_CHARS]).lower()
    return "".join(str(unicodedata.digit(char)) if char.isdecimal() else char for char in text)


def _english_number(words: tuple[str, ...], scales: tuple[str, ...] = _SCALES) -> int | None:
    """Read "two thousand three hundred and five"; `scales` are those that may still come."""
    for place, scale in enumerate(scales):
        if scale in words:
            at = words.index(scale)
            high = _below_thousand(words[:at])
            rest = words[at + 1 :]
            low = _english_number(_without_and(rest), scales[place + 1 :]) if rest else 0
            return None if not high or low is None else high * _SCALE_VALUES[scale] + low
    return _below_thousand(words)


def _below_thousand(words: tuple[str, ...]) -> int | None:
    if "hundred" not in words:
        return _below_hundred(words)
    at = words.index("hundred")
    hundreds = _below_hundred(words[:at])
    rest = words[at + 1 :]
    low = _below_hundred(_without_and(rest)) if rest else 0
    return None if hundreds is None or low is None or not 0 < hundreds < 10 else 100 * hundreds + low


def _below_hundred(words: tuple[str, ...]) -> int | None:
    figures = None if words in _INTERJECTIONS else digit_table("en").get(words)
    return None if figures is None else int(figures)


def _without_and(words: tuple[str, ...]) -> tuple[str, ...]:
    return words[1:] if words[0] == "and" else words


def _readings(
    tokens: tuple[str, ...], language: str, *, times: int = 1, begun: bool = False
) -> Iterator[str]:
    """Yield each way to read the figures in `tokens`, longest phrases first; "+" in front if it was said first.

    "Fifty six" is 56, and 50 and then 6.
    """
    if not tokens:
        yield ""
        return
    forms = spoken_forms(language)
    token, rest = tokens[0], tokens[1:]
    said = _figures_at(tokens, language)
    for size, figures in said:
        for behind in _readings(tokens[size:], language, begun=True):
            yield figures[0] * times + figures[1:] + behind
    if said:
        return
    if not begun and token in ("+", forms.plus):
        yield from (f"+{behind}" for behind in _readings(rest, language, begun=True))
    elif begun and forms.language == "en" and token in _ZEROS:
        yield from (_ZEROS[token] + behind for behind in _readings(rest, language, begun=True))
    else:
        yield from _readings(rest, language, times=forms.repeats.get(token, times), begun=begun)


def _figures_at(tokens: Sequence[str], language: str) -> list[tuple[int, str]]:
    """How many of the first tokens are figures, and which; the longest phrase first."""
    table = digit_table(language)
    sizes = range(min(_MAX_PHRASE_TOKENS, len(tokens)), 0, -1)
    found = [(size, table[tuple(tokens[:size])]) for size in sizes if tuple(tokens[:size]) in table]
    literal = "".join(re.findall(r"[0-9]", tokens[0]))
    return found or ([(1, literal)] if literal else [])


def _valid_number(digits: str, region: str) -> str | None:
    if not digits.strip("+") or len(digits) > _MAX_FIGURES:
        return None
    try:
        number = phonenumbers.parse(digits, region)
    except NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


# E-mail addresses


@functools.cache
def _sign_phrases(language: str) -> dict[tuple[str, ...], str]:
    """Sequences of folded words that are a sign."""
    forms = spoken_forms(language)
    phrases = {sign: sign for sign in forms.signs} | {said: sign for sign, said in forms.signs.items()}
    phrases |= forms.sign_variants
    return {tuple(fold(phrase, language).split()): sign for phrase, sign in phrases.items()}


def _address_tokens(plain: str, language: str) -> list[str]:
    """Words and signs in order; signs inside a word stand by themselves, punctuation behind one is gone."""
    as_in = re.escape(spoken_forms(language).as_in)
    text = re.sub(r"\be-?mail", "email", plain)
    text = re.sub(rf"\b([^\W\d_]) {as_in} \1[\w-]*", r"\1", text)
    text = re.sub(r"\b\w(?:-\w)+\b", lambda match: match[0].replace("-", " "), text)  # spelled: d-a-n-a
    text = re.sub(r"(?<=\w)([._+-])(?=\w)|([@_+])", r" \1\2 ", text)
    words = [word for word in re.split(r"[\s,;:!?()<>\"]+|\.(?=\s|$)(?<!\s\.)", text) if word]
    phrases = _sign_phrases(language)
    tokens: list[str] = []
    while words:
        folded = [fold(word, language) for word in words[:_MAX_PHRASE_TOKENS]]
        size = next((size for size in (3, 2, 1) if tuple(folded[:size]) in phrases), 0)
        tokens.append(phrases[tuple(folded[:size])] if size else words[0])
        words = words[max(1, size) :]
    return tokens


def _dictated_address(tokens: list[str], language: str) -> str | None:
    """Put the address together, or None if there is more than an address and its sentence."""
    if "@" not in tokens:
        return None
    at = len(tokens) - 1 - tokens[::-1].index("@")
    before, behind = tokens[:at], tokens[at + 1 :]
    while "@" in before:  # "reach me at dana at example dot com"
        first = before.index("@")
        if _without_lead_in(before[:first], language):
            return None
        before = before[first + 1 :]
    domain = _without_closing(behind)
    local = _without_lead_in(before, language)
    signs = spoken_forms(language).signs
    words = [token for token in local if len(token) > 1 and not _figures_at([token], language)]
    if domain is None or len(words) > _MAX_NAME_WORDS + sum(token in signs for token in local):
        return None
    return f"{_written(local, language)}@{_written(domain, language)}"


def _without_lead_in(tokens: list[str], language: str) -> list[str]:
    """Drop "my e-mail is"; a single letter goes only with a word behind it, for it may begin the address."""
    lead_ins = spoken_forms(language).lead_ins
    folded = {fold(word, language) for word in lead_ins if len(word) > 1}
    end = 0
    for index, token in enumerate(tokens, start=1):
        if token not in lead_ins and fold(token, language) not in folded:
            break
        if len(token) > 1 or not token.isascii():
            end = index
    return tokens[end:]


def _without_closing(tokens: list[str]) -> list[str] | None:
    """Cut a domain behind its last part; None if something follows that is no "thank you"."""
    if "." not in tokens:
        return None
    last = len(tokens) - tokens[::-1].index(".")
    end = last
    while end < len(tokens) and len(tokens[end]) == 1:
        end += 1
    end = max(end, last + 1)
    return tokens[:end] if set(tokens[end:]) <= _CLOSINGS else None


def _written(tokens: list[str], language: str) -> str:
    """Join words, letters, figures and signs."""
    repeats = spoken_forms(language).repeats
    written: list[str] = []
    times = 1
    index = 0
    while index < len(tokens):
        token = tokens[index]
        said_here = _figures_at(tokens[index:], language)
        size, figures = said_here[0] if said_here else (1, "")
        if len(token) == 1 and size == 1:
            said = fold(token, language)  # a letter, though "o" is a figure elsewhere
        elif figures and not any(char.isdigit() for char in token):
            said = figures
        elif token in repeats:
            times, index = repeats[token], index + 1
            continue
        else:
            said = fold(token, language).replace("'", "")
        written.append(said[:1] * times + said[1:])
        times = 1
        index += size
    return "".join(written)


def _valid_address(address: str) -> str | None:
    return address if _ADDRESS.fullmatch(address) else None


# Days


def _relative_day(words: str, today: date) -> date | None:
    if iso := re.search(r"\b(\d{4})-(\d\d)-(\d\d)\b", words):
        return _date(*(int(part) for part in iso.groups()))
    if "day after tomorrow" in words:
        return today + timedelta(days=2)
    if re.search(r"\btomorrow\b", words):
        return today + timedelta(days=1)
    return today if re.search(r"\b(today|tonight|this (morning|afternoon))\b", words) else None


def _calendar_day(words: str, today: date) -> date | None:
    words = _ordinals_to_digits(words)
    for pattern in (
        rf"\b(?P<month>{_MONTH_NAMES}) {_DAY_NUMBER}\b",
        rf"\b{_DAY_NUMBER} (?P<month>{_MONTH_NAMES})\b",
        rf"\b(?P<number>\d{{1,2}})/{_DAY_NUMBER}\b",
    ):
        if match := re.search(pattern, words):
            named = match.groupdict()
            month = int(named["number"]) if "number" in named else _month(named["month"])
            return _next_date(month, int(named["day"]), today)
    if match := re.search(r"\b(?P<day>\d{1,2})(?:st|nd|rd|th)\b", words):
        return _next_day_of_month(int(match["day"]), today)
    return None


def _weekday(words: str, today: date) -> date | None:
    match = re.search(rf"\b(?P<next>next )?(?P<name>{_WEEKDAY_NAMES})\b", words)
    if match is None:
        return None
    ahead = (_weekday_index(match["name"]) - today.weekday()) % 7
    if match["next"] and ahead == 0:
        ahead = 7
    return today + timedelta(days=ahead)


def _ordinals_to_digits(words: str) -> str:
    for word in sorted(_ORDINAL_VALUES, key=len, reverse=True):
        words = re.sub(rf"\b{word}\b", f"{_ORDINAL_VALUES[word]}th", words)
    return words


def _month(name: str) -> int:
    return MONTHS.index(name) + 1


def _weekday_index(name: str) -> int:
    return WEEKDAYS.index(name)


def _next_date(month: int, day: int, today: date) -> date | None:
    for year in range(today.year, today.year + 9):  # nine years reach the next 29 February
        found = _date(year, month, day)
        if found is not None and found >= today:
            return found
    return None


def _next_day_of_month(day: int, today: date) -> date | None:
    first = today.replace(day=1)
    for _ in range(12):
        found = _date(first.year, first.month, day)
        if found is not None and found >= today:
            return found
        first = (first + timedelta(days=32)).replace(day=1)
    return None


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
