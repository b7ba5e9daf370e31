from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import language as language_module
from processors.language import (
    Language,
    LanguageDataError,
    Phrases,
    UnknownLanguageError,
    has_language,
    known_languages,
    load_language,
    normalise,
    sentences,
)

LANGUAGES = ["de", "en", "es", "fr", "it", "nl", "pt"]


@pytest.fixture
def en() -> Language:
    return load_language("en-US")


def test_each_language_is_there_and_read_once() -> None:
    assert known_languages() == LANGUAGES
    assert load_language("en-US") is load_language("en_GB") is load_language("EN")


def test_an_unknown_language_is_named_with_those_that_are_known() -> None:
    assert has_language("pt-BR")
    assert not has_language("ja-JP")
    with pytest.raises(UnknownLanguageError, match=r"'ja-JP'; there is: de, en, es, fr, it, nl, pt"):
        load_language("ja-JP")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("backchannels: [[yes]]", "backchannels"),
        ("a: [", "xx.yaml"),
        ("hold_on: ['(']", "no regular expression"),
    ],
)
def test_a_faulty_file_is_named(
    content: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xx.yaml").write_text(content)
    monkeypatch.setattr(language_module, "_FOLDER", tmp_path)
    with pytest.raises(LanguageDataError, match=fault):
        load_language("xx")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Uh-huh.", "uh huh"),
        ("Mm—HMM!", "mm hmm"),
        ("hmmmmm", "hmm"),
        ("That\u2019s 'right'?", "that's right"),
        ("1111 11", "1111 11"),
        ("D'accord, c'est-à-dire…", "d'accord c'est à dire"),
        ("STRASSE", "strasse"),
        ("...", ""),
    ],
)
def test_texts_that_sound_the_same_are_compared_the_same(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_sentences_keep_their_punctuation() -> None:
    assert sentences(" Good. Shall I? Yes… well") == ["Good.", "Shall I?", "Yes…", "well"]
    assert sentences("  ") == []


def test_phrases_cover_words_in_the_one_way_that_fits() -> None:
    phrases = Phrases.of(["all", "all right", "right then"])
    assert phrases.cover(["all", "right", "then"])
    assert not phrases.cover(["right"])
    assert not phrases.cover([])
    assert phrases.cover(["all", "right"], may_go_on=True)
    assert phrases.cover(["all", "all", "right", "right"], may_go_on=True)
    assert not phrases.cover(["then", "right"], may_go_on=True)


# Backchannels


@pytest.mark.parametrize("text", ["Uh-huh.", "mm-hmm", "Mhm, mhm", "Ah.", "Um...", "hmmmm", "Oh, aha"])
def test_a_backchannel_never_is_an_answer(en: Language, text: str) -> None:
    assert en.is_backchannel(text, is_answer_possible=True)
    assert en.is_backchannel(text, is_answer_possible=False)


@pytest.mark.parametrize(
    "text", ["Okay.", "Yeah, right.", "Got it", "I see. Uh-huh.", "Yes", "that's right", "all right"]
)
def test_an_acknowledgement_is_a_backchannel_unless_something_is_asked(en: Language, text: str) -> None:
    assert not en.is_backchannel(text, is_answer_possible=True)
    assert en.is_backchannel(text, is_answer_possible=False)


@pytest.mark.parametrize(
    ("text", "is_filled"),
    [
        ("Well, uh,", True),
        ("Okay, um...", True),
        ("um", True),
        ("uh-huh", False),
        ("Okay.", False),
        ("", False),
    ],
)
def test_who_ends_in_a_filled_pause_goes_on(en: Language, text: str, *, is_filled: bool) -> None:
    assert en.ends_filled(text) == is_filled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "no wait",
        "stop",
        "what?",
        "actually Wednesday",
        "okay but",
        "yes I do",
        "right now",
        "hello?",
    ],
)
def test_words_that_mean_something_are_no_backchannel(en: Language, text: str) -> None:
    assert not en.is_backchannel(text, is_answer_possible=False)


@pytest.mark.parametrize(
    ("text", "is_one"), [("I", True), ("sounds", True), ("okay got", True), ("I want", False), ("no", False)]
)
def test_the_beginning_of_an_acknowledgement_counts_while_it_may_go_on(
    en: Language, text: str, is_one: bool
) -> None:
    assert en.is_backchannel(text, is_answer_possible=False, is_final=False) == is_one
    assert not en.is_backchannel(text, is_answer_possible=False)


INTERRUPTIONS = {
    "de": ["Nein, warten Sie", "Stopp", "Lieber Mittwoch", "Was?"],
    "en": ["No, wait", "Stop", "Actually Wednesday", "What?"],
    "es": ["No, espere", "Pare", "Mejor el miércoles", "¿Qué?"],
    "fr": ["Non, attendez", "Stop", "Plutôt mercredi", "Quoi ?"],
    "it": ["No, aspetti", "Basta", "Meglio mercoledì", "Cosa?"],
    "nl": ["Nee, wacht", "Stop", "Liever woensdag", "Wat?"],
    "pt": ["Não, espere", "Pare", "Melhor quarta-feira", "O quê?"],
}
BACKCHANNELS = {
    "de": ["Mhm", "Ja, genau", "Alles klar", "Ach so"],
    "en": ["Mhm", "Yeah, exactly", "All right", "I see"],
    "es": ["Ajá", "Sí, claro", "Vale", "Ya veo"],
    "fr": ["Mm-hm", "Oui, voilà", "D'accord", "Je vois"],
    "it": ["Mhm", "Sì, certo", "Va bene", "Ho capito"],
    "nl": ["Mhm", "Ja, precies", "Oké", "Ik snap het"],
    "pt": ["Aham", "Sim, claro", "Tá bom", "Entendi"],
}


@pytest.mark.parametrize("tag", LANGUAGES)
def test_each_language_knows_its_backchannels_and_lets_interruptions_through(tag: str) -> None:
    language = load_language(tag)
    for text in BACKCHANNELS[tag]:
        assert language.is_backchannel(text, is_answer_possible=False), text
    for text in INTERRUPTIONS[tag]:
        assert not language.is_backchannel(text, is_answer_possible=False), text


# Half sentences


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("Tuesday and", True),
        ("I want to", True),
        ("My number is.", True),
        ("so um", True),
        ("Tuesday,", True),
        ("the 5th —", True),
        ("well…", True),
        ("I think so.", False),
        ("What is it for?", False),
        ("That's what I was looking for.", False),
        ("okay", False),
        ("Tuesday", False),
        ("", False),
    ],
)
def test_words_that_promise_more(en: Language, text: str, is_open: bool) -> None:
    assert en.ends_open(text) == is_open


@pytest.mark.parametrize(
    ("tag", "open_text", "whole_text"),
    [
        ("de", "Am Dienstag oder", "Am Dienstag."),
        ("es", "El martes y", "El martes."),
        ("fr", "Mardi parce que", "Mardi."),
        ("it", "Martedì oppure", "Martedì."),
        ("nl", "Dinsdag omdat", "Dinsdag."),
        ("pt", "Terça mas", "Terça."),
    ],
)
def test_each_language_knows_what_promises_more(tag: str, open_text: str, whole_text: str) -> None:
    language = load_language(tag)
    assert language.ends_open(open_text)
    assert not language.ends_open(whole_text)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("de", "noch nicht"),
        ("de", "weil ich krank bin"),
        ("en", "yes I do"),
        ("en", "I'd rather not"),
        ("es", "creo que sí"),
        ("fr", "oui c'est ça"),
        ("it", "sì ci sono"),
        ("nl", "dat kan"),
        ("pt", "acho que é"),
    ],
)
def test_a_short_answer_is_whole_even_without_a_full_stop(tag: str, text: str) -> None:
    assert not load_language(tag).ends_open(text)


# Digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("eight five oh, six eight seven", "850687"),
        ("double five one two", "5512"),
        ("triple oh 44", "00044"),
        ("It's 850-687 two zero eight five.", "8506872085"),
        ("twenty-one oh five", "2105"),
        ("Oh, I see. One moment", ""),
        ("double trouble five", "5"),
        ("Tuesday", ""),
    ],
)
def test_digits_are_found_in_words_and_figures(en: Language, text: str, digits: str) -> None:
    assert en.spoken_digits(text) == digits


@pytest.mark.parametrize(
    ("tag", "text", "digits"),
    [
        ("de", "null eins sieben, einundzwanzig zwo", "017212"),
        ("es", "seis uno dos treinta y cuatro", "61234"),
        ("fr", "zéro six douze quatre-vingt-dix-huit", "061298"),
        ("it", "tre tre otto ventuno", "33821"),
        ("nl", "nul zes eenentwintig dubbel vier", "062144"),
        ("pt", "meia um nove vinte e um", "61921"),
    ],
)
def test_digits_of_each_language(tag: str, text: str, digits: str) -> None:
    assert load_language(tag).spoken_digits(text) == digits


@given(st.text("0123456789", max_size=12))
def test_figures_are_all_found(figures: str) -> None:
    assert load_language("en").spoken_digits("-".join(figures)) == figures


# The caller wants time, or wonders


@pytest.mark.parametrize(
    "text",
    [
        "Hold on.",
        "hold on a second",
        "Just a second, please.",
        "One moment",
        "okay give me a minute",
        "let me look at my calendar",
        "um, wait a second",
        "Just a second, I need to find my card.",
    ],
)
def test_who_asks_for_time_gets_it(en: Language, text: str) -> None:
    assert en.wants_time(text)


@pytest.mark.parametrize(
    "text", ["Hold on, that's not right", "no wait", "second of May", "I look forward to it", ""]
)
def test_who_says_something_else_does_not(en: Language, text: str) -> None:
    assert not en.wants_time(text)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("de", "Einen Moment bitte"),
        ("es", "Un momento, por favor"),
        ("fr", "Attendez une seconde"),
        ("it", "Un attimo solo"),
        ("nl", "Momentje, ik kijk even"),
        ("pt", "Só um minutinho"),
    ],
)
def test_each_language_knows_who_asks_for_time(tag: str, text: str) -> None:
    assert load_language(tag).wants_time(text)


@pytest.mark.parametrize(
    ("text", "is_nudge"),
    [
        ("Hello?", True),
        ("Hello? Are you there?", True),
        ("yes, hello", True),
        ("hello I want to book", False),
        ("okay", False),
    ],
)
def test_a_nudge_says_nothing_else(en: Language, text: str, is_nudge: bool) -> None:
    assert en.is_nudge(text) == is_nudge


# What the agent asks


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Thanks. What's the best number to reach you at?", True),
        ("I just need your date of birth, please.", True),
        ("Could I have your phone number? Take your time.", True),
        ("Your confirmation number is 4711.", False),
        ("What is your phone number? Great. Which day? Which time?", False),
        ("How can I help?", False),
    ],
)
def test_what_asks_for_digits(en: Language, text: str, asks: bool) -> None:
    assert en.asks_number(text) == asks


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Tuesday at nine. Is that right?", True),
        ("Shall I book it?", True),
        ("So that's Tuesday, correct?", True),
        ("Does that work for you?", True),
        ("Would you like Tuesday or Wednesday?", False),
        ("Which day suits you?", False),
        ("Is it? Good.", False),
        ("", False),
    ],
)
def test_what_is_answered_by_yes_or_no(en: Language, text: str, asks: bool) -> None:
    assert en.asks_yes_no(text) == asks


@pytest.mark.parametrize(
    ("tag", "yes_no", "choice", "number"),
    [
        ("de", "Passt das?", "Möchten Sie Dienstag oder Mittwoch?", "Wie ist Ihre Telefonnummer?"),
        ("es", "¿Le parece bien?", "¿Prefiere el martes o el jueves?", "¿Cuál es su número de teléfono?"),
        (
            "fr",
            "Est-ce que ça vous convient ?",
            "Vous préférez mardi ou jeudi ?",
            "Quel est votre numéro de téléphone ?",
        ),
        ("it", "Le va bene?", "Preferisce martedì o giovedì?", "Qual è il suo numero di telefono?"),
        ("nl", "Klopt dat?", "Wilt u dinsdag of woensdag?", "Wat is uw telefoonnummer?"),
        ("pt", "Está certo?", "Prefere terça ou quinta?", "Qual é o seu telefone?"),
    ],
)
def test_questions_of_each_language(tag: str, yes_no: str, choice: str, number: str) -> None:
    language = load_language(tag)
    assert language.asks_yes_no(yes_no)
    assert not language.asks_yes_no(choice)
    assert language.asks_number(number)
    assert not language.asks_number(yes_no)


def test_any_question_is_something(en: Language) -> None:
    assert en.asks_something("Good. Which day?")
    assert en.asks_something('"Really?"')
    assert not en.asks_something("Which day? Never mind.")
    assert not en.asks_something("")


def test_what_may_become_a_nudge(en: Language) -> None:
    assert not en.is_nudge("Hello? Are you")
    assert en.is_nudge("Hello? Are you", is_final=False)
    assert not en.is_nudge("Hello? I wanted", is_final=False)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("How can I help you?", True),
        ("Sorry, I didn't catch that. How can I help you?", True),
        ("And what's the best number for you?", True),
        ("Which day would suit you?", True),
        ("For when would that be?", True),
        ("How about nine?", False),
        ("What about Tuesday at eight?", False),
        ("What do you think?", False),
        ("How does that sound?", False),
        ("How is that?", False),
        ("Is nine all right?", False),
        ("Is there anything else?", False),
        ("Shall I book it?", False),
        ("How you get here is easy.", False),
    ],
)
def test_an_open_question_is_told_from_a_proposal(text: str, is_open: bool) -> None:
    assert load_language("en").asks_openly(text) == is_open


@pytest.mark.parametrize(
    ("tag", "openly", "proposal"),
    [
        ("de", "Und für wann möchten Sie einen Termin?", "Wie wäre es mit neun Uhr?"),
        ("es", "¿Cómo puedo ayudarle?", "¿Qué le parece a las nueve?"),
        ("fr", "Comment puis-je vous aider ?", "Que diriez-vous de neuf heures ?"),
        ("it", "Come posso aiutarla?", "Che ne dice delle nove?"),
        ("nl", "Waarmee kan ik u helpen?", "Wat vindt u van negen uur?"),
        ("pt", "Como posso ajudar?", "Que tal às nove?"),
    ],
)
def test_an_open_question_is_told_from_a_proposal_in_every_language(
    tag: str, openly: str, proposal: str
) -> None:
    language = load_language(tag)
    assert language.asks_openly(openly)
    assert not language.asks_openly(proposal)
