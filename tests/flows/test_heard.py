from datetime import date, timedelta

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat

from flows.heard import day_from_words, email_from_text, number_from_text, phone_from_text
from flows.spoken import say_day, say_email, say_number, say_phone, spell
from flows.spoken_forms import LANGUAGES, home_region

SATURDAY = date(2026, 11, 21)
TAGS = ("en-US", "en-GB", "de-DE", "de-AT", "fr-FR", "es-ES", "es-MX", "it-IT", "nl-NL", "pt-BR", "pt-PT")

SCRAPS = (
    "one two oh double triple twenty five hundred thousand plus + 8 850 at dot . @ - _ dash d as in delta "
    "vingt et un y neunzig arroba and , thanks extension ² ٣ é ß"
)
CONFUSABLE = "dana example two at dot dash oh is my under basso bas minus hundred o y de van"

tags = st.sampled_from(TAGS)
texts = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(SCRAPS.split()),
        max_size=20,
    ).map(" ".join),
)


@pytest.mark.parametrize(
    ("words", "day"),
    [
        ("today", "2026-11-21"),
        ("this afternoon", "2026-11-21"),
        ("tomorrow morning", "2026-11-22"),
        ("the day after tomorrow", "2026-11-23"),
        ("Tuesday", "2026-11-24"),
        ("next Tuesday", "2026-11-24"),
        ("on Saturday", "2026-11-21"),
        ("next Saturday", "2026-11-28"),
        ("November 24th", "2026-11-24"),
        ("Tuesday, November 24", "2026-11-24"),
        ("the third of December", "2026-12-03"),
        ("December twenty-third", "2026-12-23"),
        ("the 24th", "2026-11-24"),
        ("the 2nd", "2026-12-02"),
        ("the twenty first", "2026-11-21"),
        ("12/3", "2026-12-03"),
        ("January fifth", "2027-01-05"),
        ("2026-12-01", "2026-12-01"),
        ("February 29", "2028-02-29"),
    ],
)
def test_days_as_callers_say_them(words: str, day: str) -> None:
    assert day_from_words(words, SATURDAY) == date.fromisoformat(day)


@pytest.mark.parametrize("words", ["", "any day", "soon", "February 30th", "2026-13-01", "the 35th"])
def test_what_names_no_day_is_none(words: str) -> None:
    assert day_from_words(words, SATURDAY) is None


days = st.dates(date(2026, 1, 1), date(2032, 12, 31))


@given(days, st.integers(0, 300))
def test_a_spoken_day_is_understood_as_the_same_day(today: date, ahead: int) -> None:
    day = today + timedelta(days=ahead)
    assert day_from_words(say_day(day), today) == day


@given(st.text(max_size=40), days)
def test_no_words_break_it(words: str, today: date) -> None:
    assert day_from_words(words, today) is None or isinstance(day_from_words(words, today), date)


# Phone numbers


@pytest.mark.parametrize(
    "text",
    [
        "850 687 2085",
        "(850) 687-2085",
        "+1 850-687-2085",
        "18506872085",
        "8506872085",
        "DTMF: 8506872085",
        "\N{FULLWIDTH DIGIT EIGHT}50 687 2085",
        "eight five oh six eight seven two oh eight five",
        "Oh, it's eight five zero, six eight seven, two o eight five.",
        "one 850 six eighty-seven, twenty, eighty five",
        "plus one eight fifty, six eighty seven, twenty eighty-five",
        "area code 850, then 687, uh, 2085, thank you",
        "850 687 2085 extension 12",
    ],
)
def test_numbers_in_any_dress(text: str) -> None:
    assert phone_from_text(text) == "+18506872085"


@pytest.mark.parametrize(
    ("text", "region", "language", "e164"),
    [
        ("double five five, eight five oh, oh one nine nine", "US", "en", None),
        ("eight five oh, triple five, oh one double nine", "US", "en", "+18505550199"),
        ("eight hundred, five five five, oh one nine nine", "US", "en", "+18005550199"),
        ("+49 30 123456", "US", "en", "+4930123456"),
        ("011 49 30 123456", "US", "en", "+4930123456"),
        ("plus forty nine, thirty, one two three four five six", "US", "en", "+4930123456"),
        ("oh two oh, seven nine four six, oh nine five eight", "GB", "en-GB", "+442079460958"),
        ("null drei null zwölf vierunddreißig sechsundfünfzig", "DE", "de", "+4930123456"),
        ("fuenf null drei null", "DE", "de", None),
        ("zéro six douze trente-quatre cinquante-six soixante-dix-huit", "FR", "fr", "+33612345678"),
        ("zero six douze trente quatre cinquante six soixante dix huit", "FR", "fr", "+33612345678"),
        ("onze nove um dois três quatro meia sete oito nove", "BR", "pt", "+5511912346789"),
    ],
)
def test_numbers_of_other_places_and_languages(
    text: str, region: str, language: str, e164: str | None
) -> None:
    assert phone_from_text(text, region, language) == e164


@pytest.mark.parametrize(
    "text",
    [
        "",
        "687 2085",
        "1506872085",
        "850 187 2085",
        "anonymous",
        "85068720851",
        "850 687 2085 or 850 687 2086",
        "8506872085, no, 6 at the end",
        "oh two oh seven nine four six oh nine five eight",
    ],
)
def test_what_is_not_exactly_one_valid_number_is_refused(text: str) -> None:
    assert phone_from_text(text) is None


def test_words_that_can_be_read_as_two_numbers_are_refused() -> None:
    assert phone_from_text("8506872085") is not None
    assert phone_from_text("8568072085") is not None
    assert phone_from_text("eight fifty six eighty seven twenty eighty five") is None


@given(st.integers(0, 10**9 - 1), tags)
def test_a_spoken_number_is_understood_as_the_same_number(tail: int, tag: str) -> None:
    region = home_region(tag)
    example = phonenumbers.example_number(region)
    assert example is not None
    kept = str(example.national_number)[:3]
    length = len(str(example.national_number)) - len(kept)
    number = phonenumbers.PhoneNumber(
        country_code=example.country_code,
        national_number=int(kept + str(tail).zfill(length)[-length:]),
        italian_leading_zero=example.italian_leading_zero,
    )
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    expected = e164 if phonenumbers.is_valid_number(number) else None
    assert phone_from_text(say_phone(e164, tag), region, tag) == expected
    for other in ("en-US", "de-DE"):  # an agent of another country says the country code too
        assert phone_from_text(say_phone(e164, other), home_region(other), other) == expected


@given(texts, tags)
def test_no_text_breaks_a_phone_number(text: str, tag: str) -> None:
    number = phone_from_text(text, home_region(tag), tag)
    assert number is None or phonenumbers.is_valid_number(phonenumbers.parse(number, None))


def test_a_region_that_does_not_exist_knows_numbers_with_their_country_code_only() -> None:
    assert phone_from_text("+18506872085", "XX") == "+18506872085"
    assert phone_from_text("8506872085", "XX") is None


# E-mail addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dana dot w at example dot com", "dana.w@example.com"),
        ("Dana.W@Example.com.", "dana.w@example.com"),
        ("My e-mail is dana at sign example dot com, thanks!", "dana@example.com"),
        ("you can reach me at dana at example.com", None),
        ("reach me at dana at example.com", "dana@example.com"),
        ("it's D-A-N-A at gmail.com", "dana@gmail.com"),
        ("D as in Delta, A as in Alpha, at x-ray dot com", "da@x-ray.com"),
        ("bob underscore smith dash 2 at example dot co dot uk", "bob_smith-2@example.co.uk"),
        ("john smith eighty five at gmail dot com", "johnsmith85@gmail.com"),
        ("double l o at test dot com please", "llo@test.com"),
        ("w plus news at a dot b dot org", "w+news@a.b.org"),
    ],
)
def test_addresses_as_callers_say_them(text: str, address: str | None) -> None:
    assert email_from_text(text) == address


@pytest.mark.parametrize(
    ("text", "language", "address"),
    [
        ("Meine E-Mail ist müller Punkt j ät web Punkt d e, danke", "de", "mueller.j@web.de"),
        ("c'est josé point w arobase orange point f r merci", "fr", "jose.w@orange.fr"),
        ("mi correo es ana guión bajo ruiz arroba example punto es", "es", "ana_ruiz@example.es"),
        ("la mia email è ugo trattino basso b chiocciola example punto it", "it", "ugo_b@example.it"),
        ("jan streepje w apenstaartje example punt nl", "nl", "jan-w@example.nl"),
        ("meu e-mail é dana traço w arroba uol ponto com ponto br", "pt", "dana-w@uol.com.br"),
    ],
)
def test_addresses_in_other_languages(text: str, language: str, address: str) -> None:
    assert email_from_text(text, language) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "at",
        "dana",
        "dana at home",
        "dana at example dot",
        "at example dot com",
        "a@example.com or b@example.com",
        "dana at example dot com no wait dana at example dot org",
        "could you please send that to us at example dot com",
        "dana dot dot at example dot com" * 30,
    ],
)
def test_what_is_not_exactly_one_address_is_refused(text: str) -> None:
    assert email_from_text(text) is None


names = st.from_regex(r"[a-z0-9]{1,12}([._+-][a-z0-9]{1,8}){0,2}", fullmatch=True)
words = st.sampled_from(CONFUSABLE.split())
domains = st.from_regex(r"[a-z0-9]{1,10}(-[a-z0-9]{1,5})?\.(com|org|de|co\.uk|info)", fullmatch=True)


@given(st.one_of(names, words), st.one_of(domains, words.map("{}.com".format)), tags)
def test_a_spoken_address_is_understood_as_the_same_address(local: str, domain: str, tag: str) -> None:
    address = f"{local}@{domain}"
    assert email_from_text(say_email(address, tag), tag) == address


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_spelled_address_is_understood(language: str) -> None:
    spelled = f"{spell('dxz', language)} @ {spell('qw', language)} . com"
    assert email_from_text(spelled, language) == "dxz@qw.com"


@given(texts, tags)
def test_no_text_breaks_an_address(text: str, tag: str) -> None:
    address = email_from_text(text, tag)
    assert address is None or email_from_text(address) == address


# Numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("1,234", 1234),
        ("1.234.567", 1_234_567),
        ("Twenty-one.", 21),
        ("one hundred and five", 105),
        ("two thousand three hundred and five", 2305),
        ("two thousand and five", 2005),
        ("nine hundred ninety nine thousand", 999_000),
        ("four two", None),
        ("hundred", None),
        ("five and", None),
        ("thousand thousand", None),
        ("two million billion", None),
        ("oh", None),
        ("", None),
        ("12,5", None),
    ],
)
def test_numbers(text: str, value: int | None) -> None:
    assert number_from_text(text) == value


@given(st.integers(0, 10**12 - 1))
def test_an_english_number_is_understood_as_the_same_number(value: int) -> None:
    assert number_from_text(say_number(value)) == value


@given(st.integers(0, 99), tags)
def test_a_small_number_of_any_language_is_understood(value: int, tag: str) -> None:
    assert number_from_text(say_number(value, tag), tag) == value


@given(texts, tags)
def test_no_text_breaks_a_number(text: str, tag: str) -> None:
    assert number_from_text(text, tag) is None or number_from_text(text, tag) in range(10**15)
