"""Data to speech: dates, times, numbers, money, phone numbers, e-mail addresses and letters, in the agent's language.

Pure functions. What is said here is what is booked: every flow reads details back through this module, and
`flows/heard.py` understands what it says. Pipecat's `VoiceFormatter` is not used: it rewrites whatever text passes,
knows English and North American numbers only, and nobody could say which of its words were read back.

Each takes a language tag such as `de-AT`; one that `flows/spoken_forms.py` does not know is spoken to in English.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import phonenumbers
from babel import Locale, UnknownLocaleError
from babel.dates import get_day_names, get_month_names
from babel.numbers import get_currency_name
from num2words import num2words
from phonenumbers import NumberParseException, PhoneNumberFormat

from flows.spoken_forms import (
    digit_table,
    digit_word,
    fold,
    home_region,
    number_words,
    spoken_forms,
    word_tokens,
)
from integrations.calendar import OpeningHours, Span

_LARGEST = 10**12
"""Above it nobody counts: a number is said figure by figure."""
_GROUP_FIGURES = 4
"""Most figures of a phone number said in one breath."""
_SPOKEN_TLDS = frozenset({"com", "org", "net", "info", "biz"})
_VOWELS = frozenset("aeiouy")


def say_number(value: int, language: str = "en") -> str:
    """Spell a whole number: "fifty nine", "one hundred five", "einundzwanzig"."""
    if abs(value) >= _LARGEST:
        return " ".join(number_words(int(figure), language) for figure in str(abs(value)))
    return number_words(value, language)


def say_money(amount: Decimal, currency: str, language: str = "en") -> str:
    """Speak an amount, rounded to hundredths: "forty two dollars and fifty cents".

    Args:
        amount: In units of the currency.
        currency: ISO 4217, e.g. `USD`.
        language: Language tag.
    """
    cents = abs(round(amount * 100))
    whole, rest = divmod(cents, 100)
    units, hundredths = _money_words(whole, rest, currency, language)
    parts = [units] * bool(whole or not hundredths) + [hundredths] * bool(hundredths)
    joined = f" {spoken_forms(language).both} ".join(parts)
    return f"{_minus(language)} {joined}" if amount < 0 and cents else joined


def say_time(moment: datetime, language: str = "en") -> str:
    """Speak a local time: "nine AM", "two thirty PM", "nine oh five AM", "noon"; "vierzehn Uhr dreißig"."""
    return spoken_forms(language).clock(moment.hour, moment.minute).plain


def say_day(day: date) -> str:
    """Speak a date in English: "Tuesday, November 24th"."""
    return say_date(day)


def say_date(day: date, language: str = "en") -> str:
    """Speak a date without its year: "Tuesday, November 24th", "mardi vingt-quatre novembre"."""
    forms = spoken_forms(language)
    locale = _locale(language)
    parts = {
        "E": get_day_names("wide", locale=locale)[day.weekday()],
        "M": get_month_names("wide", locale=locale)[day.month],
        "d": forms.day_of_month(day.day),
    }
    return "".join(parts.get(part[0], part.replace("'", "")) for part in _date_pattern(language))


def say_datetime(moment: datetime, language: str = "en") -> str:
    """Speak date and time: "Tuesday, November 24th at nine AM"."""
    forms = spoken_forms(language)
    comma = "" if forms.language == "en" else ","
    return f"{say_date(moment, language)}{comma} {forms.clock(moment.hour, moment.minute).at}"


def say_hours(hours: OpeningHours, language: str = "en") -> str:
    """Speak the opening hours, equal neighbours together: "Monday to Friday eight AM to six PM; …"."""
    forms = spoken_forms(language)
    names = get_day_names("wide", locale=_locale(language))
    parts: list[str] = []
    first = 0
    for day in range(1, 8):
        if day < 7 and hours.week[day] == hours.week[first]:
            continue
        pattern = forms.days[1] if day - first == 1 else forms.days[0]
        parts.append(
            f"{pattern.format(names[first], names[day - 1])} {_say_spans(hours.week[first], language)}"
        )
        first = day
    return "; ".join(parts)


def say_phone(e164: str, language: str = "en-US") -> str:
    """Speak a phone number digit by digit: "eight five oh, six eight seven, two oh eight five".

    Grouped as its country groups it, no more than four figures at a time; with its country code when that is not
    the language's own country.
    """
    forms = spoken_forms(language)
    groups = _phone_groups(e164, home_region(language))
    spoken = [" ".join(digit_word(figure, language) for figure in group) for group in groups if group != "+"]
    return ", ".join([f"{forms.plus} {spoken[0]}", *spoken[1:]] if "+" in groups else spoken)


def say_email(address: str, language: str = "en") -> str:
    """Speak an e-mail address: "dana dot w at example dot com".

    What can be read as a word is; the rest is spelled, and so is what could be taken for a sign or a figure.
    """
    signs = spoken_forms(language).signs
    said: list[str] = []
    for part in re.findall(r"[^\W\d_]+|\d|[^\w\s]|_", address.lower()):
        if part in signs:
            said.append(signs[part])
        elif part.isdecimal():
            said.append(number_words(unicodedata.digit(part), language))
        elif _reads_as_word(part, language):
            said.append(part)
        else:
            said.append(" ".join(part))
    return " ".join(said)


def spell(text: str, language: str = "en") -> str:
    """Spell letter by letter with the language's alphabet: "D as in Delta, A as in Alpha".

    Figures and signs are said by name; spaces are left out.
    """
    return ", ".join(_spell_one(char, language) for char in text if not char.isspace())


@functools.cache
def reserved_words(language: str) -> frozenset[str]:
    """Return the words that mean a sign, a figure or a lead-in in front of an e-mail address: never read as a name."""
    forms = spoken_forms(language)
    phrases = [*forms.signs.values(), *forms.sign_variants, *forms.repeats, forms.as_in, *forms.lead_ins]
    words = {token for phrase in phrases for token in word_tokens(phrase)}
    words |= {token for tokens in digit_table(language) for token in tokens}
    return frozenset(words | {fold(word, language) for word in words})


# Inside


def _locale(language: str) -> Locale:
    tag = language if spoken_forms(language).language == language.partition("-")[0].lower() else "en"
    try:
        return Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):  # a country that does not speak it
        return Locale.parse(spoken_forms(language).language)


@functools.cache
def _date_pattern(language: str) -> tuple[str, ...]:
    """The locale's full date without its year: fields ("EEEE", "d") and what stands between them."""
    forms = spoken_forms(language)
    # One pattern for all of English, so that what is read back does not depend on the country.
    pattern = _locale("en" if forms.language == "en" else language).date_formats["full"].pattern
    without_year = re.sub(r"(?:[,\s]|'[^']*')*y+[^EMd]*$", "", pattern)
    return tuple(re.findall(r"E+|M+|d+\.?|'[^']*'|[^EMd']+", without_year))


def _say_spans(spans: tuple[Span, ...], language: str) -> str:
    forms = spoken_forms(language)
    if not spans:
        return forms.closed
    said: list[str] = []
    for span in spans:
        opens = forms.clock(*divmod(span.opens_min, 60))
        said.append(f"{opens.since} {forms.clock(*divmod(span.closes_min, 60)).until}")
    return f" {forms.both} ".join(said)


def _phone_groups(e164: str, home: str) -> list[str]:
    """Figures in groups; "+" comes first when the country code is among them."""
    digits = re.sub(r"\D", "", e164)
    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except NumberParseException:
        return _in_breaths(digits)
    is_home = number.country_code == phonenumbers.country_code_for_region(home)
    layout = PhoneNumberFormat.NATIONAL if is_home else PhoneNumberFormat.INTERNATIONAL
    groups = re.findall(r"\d+", phonenumbers.format_number(number, layout))
    if is_home and home == "US":  # a number that no plan knows is not grouped by phonenumbers
        national = "".join(groups)
        groups = [national[:3], national[3:6], national[6:]] if len(national) == 10 else groups
    spoken = [breath for group in groups for breath in _in_breaths(group)]
    return spoken if is_home else ["+", *spoken]


def _in_breaths(figures: str) -> list[str]:
    """Cut a long group into threes, the last one of two to four."""
    breaths: list[str] = []
    while len(figures) > _GROUP_FIGURES:
        size = 3 if len(figures) != 5 else 2
        breaths.append(figures[:size])
        figures = figures[size:]
    return [*breaths, figures]


def _money_words(whole: int, rest: int, currency: str, language: str) -> tuple[str, str]:
    """Units, and hundredths if there are any that have a name of their own."""
    forms = spoken_forms(language)
    if forms.language == "pt":
        return _portuguese_money(whole, rest, currency, language)
    try:
        words: str = num2words(
            Decimal(whole) + Decimal(rest) / 100,
            lang=forms.language,
            to="currency",
            currency=currency,
            separator="|",
        )
    except NotImplementedError:  # a currency that num2words cannot decline in this language
        return _decimal_money(whole, rest, currency, language), ""
    units, _, hundredths = words.partition("|")
    if forms.language == "en":
        units = units.replace("-", " ").replace(",", "").replace(" and ", " ").removesuffix(" sterling")
        hundredths = hundredths.replace("-", " ")
    return units.strip(), hundredths.strip() if rest else ""


def _decimal_money(whole: int, rest: int, currency: str, language: str) -> str:
    decimals = [number_words(int(figure), language) for figure in f"{rest:02}"] if rest else []
    point = [spoken_forms(language).decimal] if rest else []
    name = get_currency_name(currency, 2 if rest else whole, locale=_locale(language))
    return " ".join([number_words(whole, language), *point, *decimals, name])


def _portuguese_money(whole: int, rest: int, currency: str, language: str) -> tuple[str, str]:
    """num2words has one country's hundredths for all, and no gender."""
    names = {
        "USD": ("dólar", "dólares", "centavo"),
        "BRL": ("real", "reais", "centavo"),
        "EUR": ("euro", "euros", "centavo" if home_region(language) == "BR" else "cêntimo"),
    }.get(currency)
    if names is None:
        return _decimal_money(whole, rest, currency, language), ""
    one, many, hundredth = names
    units = f"{number_words(whole, language)} {one if whole == 1 else many}"
    return units, f"{number_words(rest, language)} {hundredth}{'s' if rest > 1 else ''}" if rest else ""


def _minus(language: str) -> str:
    return number_words(-1, language).rpartition(" ")[0]


def _reads_as_word(part: str, language: str) -> bool:
    if part in _SPOKEN_TLDS:
        return True
    if len(part) == 1:
        return True  # a letter is its own name
    if len(part) < 3 or not part.isascii() or part in reserved_words(language):
        return False
    return all(len(run) <= 3 for run in _sound_runs(part)) and not _VOWELS.isdisjoint(part)


def _sound_runs(part: str) -> Iterator[str]:
    """Runs of vowels and runs of consonants."""
    yield from re.findall(r"[aeiouy]+|[^aeiouy]+", part)


def _spell_one(char: str, language: str) -> str:
    forms = spoken_forms(language)
    bare = fold(char.lower(), language)[:1]
    word = forms.alphabet.get(char.lower()) or forms.alphabet.get(bare)
    if word is not None:
        is_letters_own = fold(word[0].lower(), language)[:1] == bare  # else the word is its name: "Eszett"
        return f"{char.upper()} {forms.as_in} {word}" if is_letters_own else word
    if char.isdecimal():
        return number_words(unicodedata.digit(char), language)
    return forms.signs.get(char, char)
