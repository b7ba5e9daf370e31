"""What each language says for digits, signs, letters, days and times of day: data for `flows/spoken.py` and `heard.py`.

Pure. Seven languages; any other gets English, as an agent's fixed lines do. Names of days and months are babel's,
number words num2words'; what stands here is what neither knows.
"""

import functools
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from num2words import num2words


@dataclass(frozen=True)
class Clock:
    """One time of day in words, as a sentence needs it."""

    plain: str
    """"two PM", "vierzehn Uhr", "las dos de la tarde"."""
    at: str
    """With the word for "at" in front."""
    since: str
    """As the start of a span; `until` follows it."""
    until: str


@dataclass(frozen=True)
class SpokenForms:
    """How one language says what is not a number word."""

    language: str
    region: str
    """Where a number without country code belongs when the agent's language names no country; ISO 3166."""
    zero: str
    """The digit 0 when a number is dictated."""
    plus: str
    repeats: Mapping[str, int]
    """Words that repeat the next digit or letter: "double" is 2."""
    digits: Mapping[str, str]
    """Words for digits besides the language's own number words."""
    signs: Mapping[str, str]
    """Each sign of an e-mail address to how it is said."""
    sign_variants: Mapping[str, str]
    """How callers also say them, to the sign."""
    lead_ins: frozenset[str]
    """Words in front of an e-mail address that belong to the sentence."""
    as_in: str
    """Joins a letter and its word: "D as in Delta"."""
    alphabet: Mapping[str, str]
    """Letter in lower case to its word."""
    day_of_month: Callable[[int], str]
    clock: Callable[[int, int], Clock]
    """Hour 0 to 24 (24:00 is the end of the day) and minute."""
    days: tuple[str, str]
    """How a range of days reads, and one day: "{0} to {1}"."""
    decimal: str
    """Stands in front of decimals: "point"."""
    both: str
    """Joins two spans: "and"."""
    closed: str


def spoken_forms(language: str) -> SpokenForms:
    """Return the forms of a language tag such as `de-AT`; English when there are none."""
    return _FORMS.get(language.partition("-")[0].lower(), _FORMS["en"])


def home_region(language: str) -> str:
    """Return the country (ISO 3166) a language tag stands for: `AT` for `de-AT`, `DE` for `de`."""
    territory = language.partition("-")[2].upper()
    return territory if len(territory) == 2 else spoken_forms(language).region


def number_words(value: int, language: str) -> str:
    """Spell a whole number below 10^12, hyphens gone where a dictating voice has none.

    American English: "one hundred five", not "one hundred and five".
    """
    words: str = num2words(value, lang=_number_language(language))
    if spoken_forms(language).language == "en":
        return words.replace("-", " ").replace(",", "").replace(" and ", " ")
    return words


def word_tokens(text: str) -> tuple[str, ...]:
    """Split number words the way transcripts may write them: lower case, hyphens are spaces."""
    return tuple(text.lower().replace("-", " ").split())


def fold(text: str, language: str) -> str:
    """Write without accents, as an e-mail address does: "josé" is "jose", German "ü" is "ue"."""
    if spoken_forms(language).language == "de":
        text = text.translate({ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue"})
    text = unicodedata.normalize("NFD", text.replace("ß", "ss"))
    return "".join(char for char in text if not unicodedata.combining(char))


@functools.cache
def digit_table(language: str) -> Mapping[tuple[str, ...], str]:
    """Return how 0 to 99 are said, to their figures; the language's other words for digits included."""
    forms = spoken_forms(language)
    table = {word_tokens(number_words(value, language)): str(value) for value in range(100)}
    table |= {word_tokens(word): figure for word, figure in forms.digits.items()}
    for tokens, figure in list(table.items()):
        table.setdefault(tuple(fold(token, language) for token in tokens), figure)
    return table


def digit_word(figure: str, language: str) -> str:
    """Say one of 0 to 9 as it is dictated in a telephone number."""
    return spoken_forms(language).zero if figure == "0" else number_words(int(figure), language)


def _number_language(language: str) -> str:
    forms = spoken_forms(language)
    region = home_region(language)
    return _NUMBER_DIALECTS.get((forms.language, region), forms.language)


_NUMBER_DIALECTS = {("fr", "BE"): "fr_BE", ("fr", "CH"): "fr_CH", ("pt", "BR"): "pt_BR"}
"""Where num2words knows that a country counts differently: "septante", "dezesseis"."""


# Days of the month


def _english_day(day: int) -> str:
    if day in (11, 12, 13):
        return f"{day}th"
    return f"{day}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th') }"


def _german_day(day: int) -> str:
    return f"{num2words(day, lang='de', to='ordinal')}r"


def _cardinal_day(language: str, first: str) -> Callable[[int], str]:
    """Days are counted, but the first has a name of its own."""
    return lambda day: first if day == 1 else number_words(day, language)


# Times of day


def _english_clock(hour: int, minute: int) -> Clock:
    plain = _english_time(hour, minute)
    return Clock(plain, f"at {plain}", plain, f"to {plain}")


def _english_time(hour: int, minute: int) -> str:
    if (hour, minute) == (12, 0):
        return "noon"
    if hour == 24:
        return "midnight"
    spoken = number_words(hour % 12 or 12, "en")
    half = "AM" if hour < 12 else "PM"
    if minute == 0:
        return f"{spoken} {half}"
    minutes = number_words(minute, "en")
    return f"{spoken} oh {minutes} {half}" if minute < 10 else f"{spoken} {minutes} {half}"


def _german_clock(hour: int, minute: int) -> Clock:
    if hour == 24:
        return Clock("Mitternacht", "um Mitternacht", "von Mitternacht", "bis Mitternacht")
    spoken = "ein" if hour == 1 else number_words(hour, "de")
    plain = f"{spoken} Uhr" + (f" {number_words(minute, 'de')}" if minute else "")
    return Clock(plain, f"um {plain}", f"von {plain}", f"bis {plain}")


def _french_clock(hour: int, minute: int) -> Clock:
    minutes = f" {_french_feminine(minute)}" if minute else ""
    if (hour, minute) == (12, 0):
        plain = "midi"
    elif hour % 24 == 0:
        plain = f"minuit{minutes}"
    else:
        plain = f"{_french_feminine(hour)} heure{'s' if hour > 1 else ''}{minutes}"
    return Clock(plain, f"à {plain}", f"de {plain}", f"à {plain}")


def _french_feminine(value: int) -> str:
    words = number_words(value, "fr")
    return f"{words}e" if words == "un" or words.endswith(" et un") else words


def _spanish_clock(hour: int, minute: int) -> Clock:
    hour %= 24
    on_dial = hour % 12 or 12
    spoken = "la una" if on_dial == 1 else f"las {number_words(on_dial, 'es')}"
    minutes = f" y {number_words(minute, 'es')}" if minute else ""
    plain = f"{spoken}{minutes} {_spanish_part(hour)}"
    return Clock(plain, f"a {plain}", f"de {plain}", f"a {plain}")


def _spanish_part(hour: int) -> str:
    if hour == 0 or hour >= 20:
        return "de la noche"
    if hour < 6:
        return "de la madrugada"
    if hour < 12:
        return "de la mañana"
    return "del mediodía" if hour == 12 else "de la tarde"


def _italian_clock(hour: int, minute: int) -> Clock:
    minutes = f" e {number_words(minute, 'it')}" if minute else ""
    if (hour, minute) == (12, 0):
        return Clock("mezzogiorno", "a mezzogiorno", "da mezzogiorno", "a mezzogiorno")
    if hour % 24 == 0:
        plain = f"mezzanotte{minutes}"
        return Clock(plain, f"a {plain}", f"da {plain}", f"a {plain}")
    if hour == 1:
        rest = f"una{minutes}"
        return Clock(f"l'{rest}", f"all'{rest}", f"dall'{rest}", f"all'{rest}")
    rest = f"{number_words(hour, 'it')}{minutes}"
    return Clock(f"le {rest}", f"alle {rest}", f"dalle {rest}", f"alle {rest}")


def _dutch_clock(hour: int, minute: int) -> Clock:
    if hour == 24:
        return Clock("middernacht", "om middernacht", "van middernacht", "tot middernacht")
    plain = f"{number_words(hour, 'nl')} uur" + (f" {number_words(minute, 'nl')}" if minute else "")
    return Clock(plain, f"om {plain}", f"van {plain}", f"tot {plain}")


def _portuguese_clock(hour: int, minute: int) -> Clock:
    if (hour, minute) == (12, 0):
        return Clock("meio-dia", "ao meio-dia", "do meio-dia", "ao meio-dia")
    minutes = f" e {number_words(minute, 'pt')} minuto{'s' if minute > 1 else ''}" if minute else ""
    if hour % 24 == 0:
        plain = f"meia-noite{minutes}"
        return Clock(plain, f"à {plain}", f"da {plain}", f"à {plain}")
    spoken = portuguese_feminine(number_words(hour, "pt"))
    plain = f"{spoken} hora{'s' if hour > 1 else ''}{minutes}"
    article = "s" if hour > 1 else ""
    return Clock(plain, f"à{article} {plain}", f"da{article} {plain}", f"à{article} {plain}")


def portuguese_feminine(words: str) -> str:
    """Turn the last word of a number feminine: "vinte e um" into "vinte e uma"."""
    head, _, last = words.rpartition(" ")
    last = {"um": "uma", "dois": "duas"}.get(last, last)
    return f"{head} {last}".strip()


# Words and alphabets


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _alphabet(words: str) -> dict[str, str]:
    """Words that begin with their letter, whatever accent it bears, in any order."""
    plain = str.maketrans("É", "E")
    return {word[0].translate(plain).lower(): word for word in words.split()}


_ENGLISH = SpokenForms(
    language="en",
    region="US",
    zero="oh",
    plus="plus",
    repeats={"double": 2, "triple": 3},
    digits={"oh": "0", "o": "0", "nought": "0", "naught": "0"},
    signs={"@": "at", ".": "dot", "_": "underscore", "-": "dash", "+": "plus"},
    sign_variants={
        **{"at sign": "@", "point": ".", "period": ".", "under score": "_"},
        **{"hyphen": "-", "minus": "-", "plus sign": "+"},
    },
    lead_ins=_words(
        "my the our email emails mail address is it it's its that that's would be so um uh er well yes yeah okay ok "
        "sure to use reach me send write"
    ),
    as_in="as in",
    alphabet=_alphabet(
        "Alpha Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliet Kilo Lima Mike November Oscar Papa Quebec "
        "Romeo Sierra Tango Uniform Victor Whiskey X-ray Yankee Zulu"
    ),
    day_of_month=_english_day,
    clock=_english_clock,
    days=("{0} to {1}", "{0}"),
    decimal="point",
    both="and",
    closed="closed",
)

_GERMAN = SpokenForms(
    language="de",
    region="DE",
    zero="null",
    plus="plus",
    repeats={"doppel": 2, "doppelt": 2, "zweimal": 2, "dreimal": 3},
    digits={"zwo": "2", "ein": "1", "fuenf": "5"},
    signs={"@": "at", ".": "punkt", "_": "unterstrich", "-": "bindestrich", "+": "plus"},
    sign_variants={"ät": "@", "klammeraffe": "@", "at zeichen": "@", "minus": "-", "strich": "-", "dot": "."},
    lead_ins=_words(
        "meine die email mail adresse mailadresse emailadresse lautet ist das wäre es also äh ähm ja unter an"
    ),
    as_in="wie",
    alphabet={
        **_alphabet(
            "Anton Berta Cäsar Dora Emil Friedrich Gustav Heinrich Ida Julius Kaufmann Ludwig Martha Nordpol Otto "
            "Paula Quelle Richard Samuel Theodor Ulrich Viktor Wilhelm Xanthippe Ypsilon Zacharias Ärger Ökonom Übermut"
        ),
        "ß": "Eszett",
    },
    day_of_month=_german_day,
    clock=_german_clock,
    days=("{0} bis {1}", "{0}"),
    decimal="Komma",
    both="und",
    closed="geschlossen",
)

_FRENCH = SpokenForms(
    language="fr",
    region="FR",
    zero="zéro",
    plus="plus",
    repeats={"double": 2, "triple": 3},
    digits={"une": "1", "quatre vingt": "80"},
    signs={"@": "arobase", ".": "point", "_": "tiret bas", "-": "tiret", "+": "plus"},
    sign_variants={"arrobase": "@", "at": "@", "underscore": "_", "trait d'union": "-", "moins": "-"},
    lead_ins=_words("mon mél email mail e adresse est c'est à l'adresse alors euh oui voici"),
    as_in="comme",
    alphabet=_alphabet(
        "Anatole Berthe Célestin Désiré Eugène François Gaston Henri Irma Joseph Kléber Louis Marcel Nicolas Oscar "
        "Pierre Quintal Raoul Suzanne Thérèse Ursule Victor William Xavier Yvonne Zoé"
    ),
    day_of_month=_cardinal_day("fr", "premier"),
    clock=_french_clock,
    days=("du {0} au {1}", "le {0}"),
    decimal="virgule",
    both="et",
    closed="fermé",
)

_SPANISH = SpokenForms(
    language="es",
    region="ES",
    zero="cero",
    plus="más",
    repeats={"doble": 2, "triple": 3},
    digits={"un": "1", "una": "1"},
    signs={"@": "arroba", ".": "punto", "_": "guion bajo", "-": "guion", "+": "más"},
    sign_variants={"guión bajo": "_", "subrayado": "_", "guión": "-", "menos": "-", "mas": "+"},
    lead_ins=_words("mi el correo email mail electrónico dirección es la pues eh sí a"),
    as_in="de",
    alphabet=_alphabet(
        "Antonio Barcelona Carmen Dolores Enrique Francia Gerona Historia Inés José Kilo Lorenzo Madrid Navarra Ñoño "
        "Oviedo París Querido Ramón Sábado Tarragona Ulises Valencia Washington Xilófono Yegua Zaragoza"
    ),
    day_of_month=_cardinal_day("es", "primero"),
    clock=_spanish_clock,
    days=("de {0} a {1}", "{0}"),
    decimal="coma",
    both="y",
    closed="cerrado",
)

_ITALIAN = SpokenForms(
    language="it",
    region="IT",
    zero="zero",
    plus="più",
    repeats={"doppio": 2, "doppia": 2, "triplo": 3, "tripla": 3},
    digits={"un": "1", "una": "1"},
    signs={"@": "chiocciola", ".": "punto", "_": "trattino basso", "-": "trattino", "+": "più"},
    sign_variants={"at": "@", "underscore": "_", "meno": "-", "piu": "+"},
    lead_ins=_words("la mia il mio email mail indirizzo è allora ehm sì a"),
    as_in="come",
    alphabet=_alphabet(
        "Ancona Bologna Como Domodossola Empoli Firenze Genova Hotel Imola Jesolo Kappa Livorno Milano Napoli Otranto "
        "Palermo Quarto Roma Savona Torino Udine Venezia Washington Xilofono York Zara"
    ),
    day_of_month=_cardinal_day("it", "primo"),
    clock=_italian_clock,
    days=("da {0} a {1}", "{0}"),
    decimal="virgola",
    both="e",
    closed="chiuso",
)

_DUTCH = SpokenForms(
    language="nl",
    region="NL",
    zero="nul",
    plus="plus",
    repeats={"dubbel": 2, "dubbele": 2, "driedubbel": 3},
    digits={"een": "1"},
    signs={"@": "apenstaartje", ".": "punt", "_": "liggend streepje", "-": "streepje", "+": "plus"},
    sign_variants={"at": "@", "underscore": "_", "koppelteken": "-", "min": "-", "dot": "."},
    lead_ins=_words("mijn het email mail e adres mailadres emailadres is dat nou eh ja op naar"),
    as_in="van",
    alphabet=_alphabet(
        "Anton Bernard Cornelis Dirk Eduard Ferdinand Gerard Hendrik Izaak Jan Karel Lodewijk Maria Nico Otto Pieter "
        "Quirinus Rudolf Simon Theodor Utrecht Victor Willem Xantippe Ypsilon Zaandam"
    ),
    day_of_month=lambda day: number_words(day, "nl"),
    clock=_dutch_clock,
    days=("{0} tot en met {1}", "{0}"),
    decimal="komma",
    both="en",
    closed="gesloten",
)

_PORTUGUESE = SpokenForms(
    language="pt",
    region="BR",
    zero="zero",
    plus="mais",
    repeats={"duplo": 2, "dobro": 2, "triplo": 3},
    digits={"meia": "6", "uma": "1", "duas": "2"},
    signs={"@": "arroba", ".": "ponto", "_": "sublinhado", "-": "hífen", "+": "mais"},
    sign_variants={"underline": "_", "underscore": "_", "traço": "-", "hifen": "-", "menos": "-"},
    lead_ins=_words("meu o email mail e endereço é eletrônico correio então hum sim para"),
    as_in="de",
    alphabet=_alphabet(
        "Aveiro Braga Coimbra Dafundo Évora Faro Guarda Horta Itália José Kilograma Lisboa Maria Nazaré Ovar Porto "
        "Queluz Rossio Setúbal Tavira Unidade Vidago Waldemar Xavier York Zulmira"
    ),
    day_of_month=_cardinal_day("pt", "primeiro"),
    clock=_portuguese_clock,
    days=("de {0} a {1}", "{0}"),
    decimal="vírgula",
    both="e",
    closed="fechado",
)

_FORMS: Mapping[str, SpokenForms] = {
    forms.language: forms for forms in (_ENGLISH, _GERMAN, _FRENCH, _SPANISH, _ITALIAN, _DUTCH, _PORTUGUESE)
}

LANGUAGES = tuple(_FORMS)
"""The languages that have forms of their own."""
