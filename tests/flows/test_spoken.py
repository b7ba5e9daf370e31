from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.spoken import (
    reserved_words,
    say_date,
    say_datetime,
    say_day,
    say_email,
    say_hours,
    say_money,
    say_number,
    say_phone,
    say_time,
    spell,
)
from flows.spoken_forms import LANGUAGES
from integrations.calendar import OpeningHours

languages = st.sampled_from([*LANGUAGES, "de-AT", "en-GB", "fr-BE", "pt-PT", "en-DE", "xx", ""])
AFTERNOON = datetime(2026, 12, 1, 14, 30, tzinfo=ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("clock", "spoken"),
    [
        ("00:00", "twelve AM"),
        ("09:00", "nine AM"),
        ("09:05", "nine oh five AM"),
        ("12:00", "noon"),
        ("12:30", "twelve thirty PM"),
        ("14:45", "two forty five PM"),
        ("23:59", "eleven fifty nine PM"),
    ],
)
def test_times(clock: str, spoken: str) -> None:
    hour, minute = (int(part) for part in clock.split(":"))
    assert say_time(datetime(2026, 11, 21, hour, minute, tzinfo=ZoneInfo("America/Chicago"))) == spoken


def test_numbers_and_dates() -> None:
    assert [say_number(value) for value in (0, 13, 20, 21, 59)] == [
        "zero",
        "thirteen",
        "twenty",
        "twenty one",
        "fifty nine",
    ]
    assert [say_day(date(2026, 12, day)).split()[-1] for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st")
    ]


def test_hours() -> None:
    hours = OpeningHours.parse(
        {"mon-thu": "08:00-12:00, 13:00-18:00", "fri": "08:00-12:00", "sat": "09:00-24:00"}
    )
    assert say_hours(hours) == (
        "Monday to Thursday eight AM to noon and one PM to six PM; Friday eight AM to noon; "
        "Saturday nine AM to midnight; Sunday closed"
    )


def test_large_numbers() -> None:
    assert say_number(105) == "one hundred five"
    assert say_number(2_305) == "two thousand three hundred five"
    assert say_number(-5, "fr") == "moins cinq"
    assert say_number(71, "fr-BE") == "septante et un"
    assert say_number(10**12) == "one" + " zero" * 12


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("en-US", "Tuesday, December 1st at two thirty PM"),
        ("en-GB", "Tuesday, December 1st at two thirty PM"),
        ("de", "Dienstag, erster Dezember, um vierzehn Uhr dreißig"),
        ("fr", "mardi premier décembre, à quatorze heures trente"),
        ("es", "martes, primero de diciembre, a las dos y treinta de la tarde"),
        ("it", "martedì primo dicembre, alle quattordici e trenta"),
        ("nl", "dinsdag één december, om veertien uur dertig"),
        ("pt", "terça-feira, primeiro de dezembro, às catorze horas e trinta minutos"),
        ("xx", "Tuesday, December 1st at two thirty PM"),
        ("en-DE", "Tuesday, December 1st at two thirty PM"),
    ],
)
def test_a_moment_in_the_agents_language(language: str, spoken: str) -> None:
    assert say_datetime(AFTERNOON, language) == spoken
    assert spoken.startswith(say_date(AFTERNOON.date(), language))


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("en", ["twelve AM", "one AM", "noon", "nine twenty one PM"]),
        ("de", ["null Uhr", "ein Uhr", "zwölf Uhr", "einundzwanzig Uhr einundzwanzig"]),
        ("fr", ["minuit", "une heure", "midi", "vingt et une heures vingt et une"]),
        (
            "es",
            [
                "las doce de la noche",
                "la una de la madrugada",
                "las doce del mediodía",
                "las nueve y veintiuno de la noche",
            ],
        ),
        ("it", ["mezzanotte", "l'una", "mezzogiorno", "le ventuno e ventuno"]),
        ("nl", ["nul uur", "één uur", "twaalf uur", "eenentwintig uur eenentwintig"]),
        ("pt", ["meia-noite", "uma hora", "meio-dia", "vinte e uma horas e vinte e um minutos"]),
    ],
)
def test_hours_with_a_form_of_their_own(language: str, spoken: list[str]) -> None:
    clocks = [(0, 0), (1, 0), (12, 0), (21, 21)]
    said = [say_time(AFTERNOON.replace(hour=hour, minute=minute), language) for hour, minute in clocks]
    assert said == spoken


@given(st.datetimes(), languages)
def test_every_moment_can_be_said_without_a_figure(moment: datetime, language: str) -> None:
    said = say_time(moment, language)
    assert said
    assert not any(char.isdigit() for char in said)
    if not said.endswith("M") and language[:2] not in ("en", "xx", ""):
        assert not any(char.isdigit() for char in say_date(moment.date(), language))


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("de", "Montag bis Samstag von acht Uhr bis Mitternacht; Sonntag geschlossen"),
        ("fr", "du lundi au samedi de huit heures à minuit; le dimanche fermé"),
        (
            "es",
            "de lunes a sábado de las ocho de la mañana a las doce de la noche; domingo cerrado",
        ),
        ("it", "da lunedì a sabato dalle otto a mezzanotte; domenica chiuso"),
        ("nl", "maandag tot en met zaterdag van acht uur tot middernacht; zondag gesloten"),
        ("pt", "de segunda-feira a sábado das oito horas à meia-noite; domingo fechado"),
    ],
)
def test_opening_hours_in_other_languages(language: str, spoken: str) -> None:
    assert say_hours(OpeningHours.parse({"mon-sat": "08:00-24:00"}), language) == spoken


@pytest.mark.parametrize(
    ("e164", "language", "spoken"),
    [
        ("+18506872085", "en-US", "eight five oh, six eight seven, two oh eight five"),
        ("+15551230000", "en-US", "five five five, one two three, oh oh oh oh"),
        ("+4930123456", "en-US", "plus four nine, three oh, one two three, four five six"),
        ("+4930123456", "de", "null drei null, eins zwei drei, vier fünf sechs"),
        ("+4930123456", "de-AT", "plus vier neun, drei null, eins zwei drei, vier fünf sechs"),
        ("+33612345678", "fr", "zéro six, un deux, trois quatre, cinq six, sept huit"),
        ("+34912345678", "es", "nueve uno dos, tres cuatro, cinco seis, siete ocho"),
        ("+390612345678", "it", "zero sei, uno due tre quattro, cinque sei sette otto"),
        ("+31201234567", "nl", "nul twee nul, één twee drie, vier vijf zes zeven"),
        ("+442079460958", "en-GB", "oh two oh, seven nine four six, oh nine five eight"),
        ("85", "en-US", "eight five"),
    ],
)
def test_phone_numbers_are_grouped_as_their_country_does(e164: str, language: str, spoken: str) -> None:
    assert say_phone(e164, language) == spoken


@given(st.text(max_size=30), languages)
def test_nothing_is_too_odd_to_be_read_as_a_phone_number(text: str, language: str) -> None:
    assert isinstance(say_phone(text, language), str)


@pytest.mark.parametrize(
    ("address", "language", "spoken"),
    [
        ("dana.w@example.com", "en", "dana dot w at example dot com"),
        ("jkl_85@web.de", "en", "j k l underscore eight five at web dot d e"),
        ("two-at@dot.org", "en", "t w o dash a t at d o t dot org"),
        ("dana+x@example.com", "de", "dana plus x at example punkt com"),
        ("dana.w@example.fr", "fr", "dana point w arobase example point f r"),
        ("a_b@uol.com.br", "pt", "a sublinhado b arroba uol ponto com ponto b r"),
    ],
)
def test_addresses_are_read_as_words_where_they_are(address: str, language: str, spoken: str) -> None:
    assert say_email(address, language) == spoken


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("Dana", "en", "D as in Delta, A as in Alpha, N as in November, A as in Alpha"),
        ("Wu 7", "en", "W as in Whiskey, U as in Uniform, seven"),
        ("Öß", "de", "Ö wie Ökonom, Eszett"),
        ("Zoé", "fr", "Z comme Zoé, O comme Oscar, É comme Eugène"),
        ("Ñu", "es", "Ñ de Ñoño, U de Ulises"),
        ("d", "it", "D come Domodossola"),
        ("d", "nl", "D van Dirk"),
        ("d-e", "pt", "D de Dafundo, hífen, E de Évora"),
        ("李", "en", "李"),
    ],
)
def test_spelling(text: str, language: str, spoken: str) -> None:
    assert spell(text, language) == spoken


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_letter_has_a_word(language: str) -> None:
    assert all(" " in said for said in spell("abcdefghijklmnopqrstuvwxyz", language).split(", "))


@given(st.text(max_size=20), languages)
def test_nothing_is_too_odd_to_be_spelled(text: str, language: str) -> None:
    assert isinstance(spell(text, language), str)
    assert isinstance(say_email(text, language), str)


@pytest.mark.parametrize(
    ("amount", "currency", "language", "spoken"),
    [
        ("42.50", "USD", "en", "forty two dollars and fifty cents"),
        ("1234", "USD", "en", "one thousand two hundred thirty four dollars"),
        ("0.01", "USD", "en", "one cent"),
        ("0", "EUR", "en", "zero euro"),
        ("-2.5", "GBP", "en", "minus two pounds and fifty pence"),
        ("5.05", "CHF", "en", "five point zero five Swiss francs"),
        ("1.01", "EUR", "de", "ein Euro und ein Cent"),
        ("42.50", "EUR", "fr", "quarante-deux euros et cinquante centimes"),
        ("21.21", "EUR", "es", "veintiún euros y veintiún céntimos"),
        ("42.50", "EUR", "it", "quarantadue euro e cinquanta centesimi"),
        ("42.50", "EUR", "nl", "tweeënveertig euro en vijftig cent"),
        ("1.50", "BRL", "pt", "um real e cinquenta centavos"),
        ("2.01", "EUR", "pt-PT", "dois euros e um cêntimo"),
    ],
)
def test_money(amount: str, currency: str, language: str, spoken: str) -> None:
    assert say_money(Decimal(amount), currency, language) == spoken


@given(
    st.decimals("-99999", "99999", places=2), st.sampled_from(["USD", "EUR", "GBP", "CHF", "JPY"]), languages
)
def test_every_amount_can_be_said(amount: Decimal, currency: str, language: str) -> None:
    assert not any(char.isdigit() for char in say_money(amount, currency, language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_signs_and_figures_are_reserved(language: str) -> None:
    assert say_number(7, language) in reserved_words(language)
