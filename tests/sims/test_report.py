import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.agent_words import AgentEar, Phrase, PhraseIndex, PlayedRun, PlayedWord
from sims.mulaw import SILENCE, audible_range, encode
from sims.playout import DryRun
from sims.report import (
    CallRecord,
    CallReport,
    Join,
    Over,
    PressedKey,
    SoundKind,
    Span,
    SpanBuilder,
    Utterance,
    WordFaults,
    count_faulty_words,
    join,
    measure,
)
from sims.speech import Word
from tests.sims.answering import voiced


def s(seconds: float) -> int:
    return round(seconds * 8000)


def span(start_s: float, end_s: float) -> Span:
    return Span(s(start_s), s(end_s))


def said(text: str, start_s: float, end_s: float) -> Utterance:
    return Utterance(text, s(start_s), s(end_s))


def sound(name: str, start_s: float, end_s: float, kind: SoundKind = SoundKind.NOISE) -> Utterance:
    is_noise = kind is SoundKind.NOISE
    return Utterance("" if is_noise else name, s(start_s), s(end_s), kind, name if is_noise else "")


def run(phrase: str, start_s: float, end_s: float, first: int, following: int) -> PlayedRun:
    """A stretch that played the words `first` to `following`, the latter excluded."""
    is_whole = following == len(phrase.split())
    return PlayedRun(phrase, s(start_s), s(end_s), first, following, is_whole=is_whole)


def word(start_s: float, phrase: str, index: int) -> PlayedWord:
    words = phrase.split()
    return PlayedWord(words[index], s(start_s), s(start_s + 0.2), phrase, index, len(words))


def record(*agent: Span, said: tuple[Utterance, ...] = (), **fields: object) -> CallRecord:
    base = {"stream_started_at": s(0.1), "ended_at": s(20), "agent": agent, "utterances": said}
    return CallRecord(**(base | fields))  # pyright: ignore[reportArgumentType] - fields by name


def test_spans_close_small_holes_only() -> None:
    builder = SpanBuilder()
    for start, end in [(0, 100), (580, 700), (1181, 1300)]:
        builder.add(start, end)
    assert builder.spans == (Span(0, 700), Span(1181, 1300))
    assert SpanBuilder().spans == ()


def test_phrases_join_up_to_but_not_at_the_pause() -> None:
    spans = [span(0, 1), span(1.29, 2), span(2.3, 3)]
    assert join(spans, s(0.3)) == (span(0, 2), span(2.3, 3))


def test_greeting_counts_from_the_start_message() -> None:
    assert measure(record(span(0.35, 2))).greeting_s == 0.25
    assert measure(record()).greeting_s is None
    assert measure(record(span(0.35, 2), stream_started_at=None)).greeting_s is None


def test_answer_is_last_speech_sample_to_first_agent_sample() -> None:
    (turn,) = measure(record(span(0.2, 1), span(3.05, 4), span(4.5, 5), said=(said("hi", 1.5, 2.5),))).turns
    assert turn.answer_s == 0.55
    assert (turn.reply_start_s, turn.reply_end_s) == (3.05, 5.0)
    assert turn.reply_pauses_s == (0.5,)
    assert (turn.interrupts, turn.stop_s) == (False, None)


def test_an_agent_that_cuts_in_has_a_negative_answer() -> None:
    (turn,) = measure(record(span(2.3, 4), said=(said("hi", 1.5, 2.5),))).turns
    assert turn.answer_s == pytest.approx(-0.2)


def test_stop_is_onset_of_the_caller_to_the_last_sample_of_the_phrase() -> None:
    call = record(span(1, 3.06), span(3.2, 3.25), span(5, 6), said=(said("wait", 3.0, 4.0),))
    (turn,) = measure(call).turns
    assert turn.interrupts
    assert turn.pause_s == pytest.approx(0.06)
    assert turn.stop_s == pytest.approx(0.25)
    assert turn.answer_s == pytest.approx(1.0)


def test_speech_that_the_agent_ignores_has_no_answer_of_the_old_phrase() -> None:
    (turn,) = measure(record(span(1, 9), said=(said("wait", 3.0, 4.0),))).turns
    assert turn.stop_s == pytest.approx(6.0)
    assert turn.answer_s is None


def test_a_turn_that_is_followed_by_more_speech_is_not_answered() -> None:
    call = record(span(5, 6), said=(said("I want", 1, 2), said("a cleaning", 3, 4)))
    first, second = measure(call).turns
    assert first.answer_s is None
    assert second.answer_s == 1.0


def test_a_key_tells_how_long_the_agent_spoke_on_and_that_words_were_interrupted() -> None:
    text, other = "what number should they call", "is that right"
    words = (word(1.0, text, 0), word(1.4, text, 1), word(5.0, other, 0))
    keys = (PressedKey("5", s(1.7)), PressedKey("#", s(3.0)))
    measures = measure(record(span(1, 1.75), span(5, 6), words=words, keys=keys))
    assert [(key.digit, key.at_s, key.over_agent, key.stop_s) for key in measures.keys] == [
        ("5", 1.7, True, pytest.approx(0.05)),
        ("#", 3.0, False, None),
    ]
    assert measures.lost_words == 0
    assert measure(record(span(1, 1.75), span(5, 6), words=words)).lost_words == 3


def test_noises_are_no_turns_and_tell_whether_the_agent_stopped() -> None:
    call = record(span(1, 3.1), span(5, 9), said=(said("", 3, 3.3), said("", 6, 6.3), said("", 12, 12.1)))
    measures = measure(call)
    assert measures.turns == ()
    assert [(noise.over_agent, noise.stop_s) for noise in measures.noises] == [
        (True, pytest.approx(0.1)),
        (True, None),
        (False, None),
    ]


def test_gaps_inside_an_utterance_are_told_from_pauses_between_two() -> None:
    text, other = "one two three", "four five"
    words = (word(1.0, text, 0), word(1.3, text, 1), word(1.6, text, 2), word(2.2, other, 0))
    call = record(
        span(1, 1.22), span(1.3, 1.8), span(2.2, 3.0),
        dry_runs=(DryRun(s(1.22), s(1.3)), DryRun(s(1.8), s(2.2))), words=words,
    )  # fmt: skip
    measures = measure(call)
    assert [(gap.length_s, gap.inside) for gap in measures.gaps] == [(0.08, True), (0.4, False)]
    assert measures.max_gap_s == 0.08


def test_gaps_without_words_are_judged_by_their_edges() -> None:
    inside = record(span(1, 1.5), span(1.6, 2), dry_runs=(DryRun(s(1.5), s(1.6)),))
    between = record(span(1, 1.5), span(2, 3), dry_runs=(DryRun(s(1.7), s(1.9)),))
    assert measure(inside).max_gap_s == pytest.approx(0.1)
    assert [gap.inside for gap in measure(between).gaps] == [False]


def test_running_dry_while_the_caller_speaks_or_for_long_is_no_gap() -> None:
    turns = record(span(1, 2), span(2.8, 4), dry_runs=(DryRun(s(2), s(2.8)),), said=(said("hi", 2.1, 2.3),))
    pause = record(span(1, 2), span(3.5, 4), dry_runs=(DryRun(s(2), s(3.5)),))
    assert measure(turns).gaps == ()
    assert measure(pause).gaps == ()


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([0, 1, 2, 3], (0, 0)),
        ([0, 1, 3], (1, 0)),
        ([0, 1, 2, 1, 2, 3], (0, 2)),
        ([0, 1, 2, 3, 0, 1, 2, 3], (0, 0)),
        ([0, 1], (0, 0)),
        ([0, 1, 0, 1, 2, 3], (2, 0)),
    ],
    ids=["whole", "skipped", "repeated", "said twice", "cut at the end", "abandoned and begun again"],
)
def test_lost_and_repeated_words(indexes: list[int], expected: tuple[int, int]) -> None:
    words = [word(n * 0.3, "a b c d", index) for n, index in enumerate(indexes)]
    assert count_faulty_words(words, []) == WordFaults(*expected)


def test_words_that_the_caller_talked_over_are_not_lost() -> None:
    words = [word(1.0, "a b c d", 0), word(3.0, "e f", 0)]
    assert count_faulty_words(words, []) == WordFaults(lost=3)
    assert count_faulty_words(words, [said("stop", 1.1, 2.0)]) == WordFaults()
    # A cough is no reason to drop a sentence.
    assert count_faulty_words(words, [sound("cough", 1.1, 2.0)]) == WordFaults(lost=3)


@pytest.mark.parametrize(
    ("rest", "last", "expected"),
    [
        pytest.param("c d e", 1, WordFaults(), id="from the next word"),
        pytest.param("d e", 1, WordFaults(lost=1), id="a word is missing"),
        pytest.param("b c d e", 1, WordFaults(repeated=1), id="a word is said twice"),
        pytest.param("c d", 1, WordFaults(lost=3), id="another text"),
    ],
)
def test_another_voice_may_say_the_rest_of_a_text(rest: str, last: int, expected: WordFaults) -> None:
    words = [word(n * 0.3, "a b c d e", n) for n in range(last + 1)]
    after = [word(1.0 + n * 0.3, rest, n) for n in range(len(rest.split()))]
    assert count_faulty_words([*words, *after], []) == expected


def test_where_a_voice_takes_over_the_silence_is_measured() -> None:
    words = (word(1.0, "a b c", 0), word(2.0, "b c", 0), word(2.4, "b c", 1))
    measured = measure(record(span(1.0, 1.3), span(2.0, 2.6), words=words))
    assert measured.joins == (Join(2.0, 0.7),)
    assert measured.agent_audible_s == ((1.0, 1.3), (2.0, 2.6))
    assert (measured.lost_words, measured.repeated_words) == (0, 0)
    assert measure(record(span(1.0, 1.3), words=words[:1])).joins == ()


TEXT = "a b c d e f"


def heard(*indexes_at_s: tuple[int, float]) -> tuple[PlayedWord, ...]:
    return tuple(word(at_s, TEXT, index) for index, at_s in indexes_at_s)


@pytest.mark.parametrize(
    ("runs", "words", "sounds", "expected"),
    [
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 2.3, 3.5, 2, 6)),
            heard((1, 1.3), (2, 1.6), (2, 2.3), (3, 2.6)), [sound("cough", 1.65, 1.9)],
            WordFaults(resumed=1), id="the cut word",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 2.3, 3.5, 2, 6)),
            heard((1, 1.3), (2, 1.6), (2, 2.3), (3, 2.6)), [],
            WordFaults(repeated=1), id="without a cause",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 2.3, 3.5, 2, 6)),
            heard((1, 1.3), (2, 1.6), (2, 2.3), (3, 2.6)), [sound("cough", 0.9, 1.1)],
            WordFaults(repeated=1), id="long after the sound",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 2.3, 3.8, 1, 6)),
            heard((1, 1.3), (2, 1.6), (1, 2.3), (2, 2.6), (3, 2.9)), [sound("cough", 1.65, 1.9)],
            WordFaults(repeated=1, resumed=1), id="one word too many",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.89, 0, 3), run(TEXT, 2.3, 3.5, 2, 6)),
            heard((1, 1.3), (2, 1.6), (2, 2.3), (3, 2.6)), [sound("cough", 1.65, 1.9)],
            WordFaults(repeated=1), id="a word that was over",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 1.76, 3.0, 2, 6)),
            heard((1, 1.3), (2, 1.6), (2, 1.76), (3, 2.06)), [sound("cough", 1.65, 1.9)],
            WordFaults(repeated=1), id="no silence",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.12, 0, 1), run(TEXT, 2.0, 3.8, 0, 6)),
            heard((0, 1.0), (0, 2.0), (1, 2.3)), [sound("cough", 1.05, 1.3)],
            WordFaults(resumed=1), id="the first word",
        ),
        pytest.param(
            (run(TEXT, 1.0, 1.75, 0, 3), run(TEXT, 2.3, 3.2, 4, 6)),
            heard((1, 1.3), (2, 1.6), (4, 2.3), (5, 2.6)), [sound("cough", 1.65, 1.9)],
            WordFaults(lost=1), id="a word passed over",
        ),
    ],
)  # fmt: skip
def test_a_word_is_resumed_only_where_a_pause_for_the_callers_sake_cut_it(
    runs: tuple[PlayedRun, ...], words: tuple[PlayedWord, ...], sounds: list[Utterance], expected: WordFaults
) -> None:
    assert count_faulty_words(words, sounds, runs) == expected


def over(made: Utterance, *agent: Span, runs: tuple[PlayedRun, ...] = (), **fields: object) -> Over:
    (only,) = measure(record(*agent, said=(made,), runs=runs, **fields)).overs
    return only


COUGH = sound("cough", 2.0, 2.3)


def test_a_pause_that_is_resumed_has_its_times_and_words() -> None:
    runs = (run(TEXT, 1.0, 2.08, 0, 4), run(TEXT, 2.7, 4.0, 3, 6))
    measured = over(COUGH, span(1, 2.08), span(2.7, 4), runs=runs)
    assert measured == Over(
        "cough", "", 2.0, 2.3, over_agent=True, pause_s=0.08, resumed_s=0.62, pauses=1, resumed_words=1
    )
    skipped = over(COUGH, span(1, 2.08), span(2.7, 4), runs=(runs[0], run(TEXT, 2.7, 4.0, 5, 6)))
    assert (skipped.lost_words, skipped.resumed_words) == (1, 0)


def test_a_long_sound_may_make_it_pause_more_than_once() -> None:
    hum = sound("hum", 2.0, 4.0)
    first, again = run(TEXT, 1.0, 2.1, 0, 2), run(TEXT, 2.4, 2.9, 1, 3)
    spans = (span(1, 2.1), span(2.4, 2.9), span(3.7, 5))
    twice = over(hum, *spans, runs=(first, again, run(TEXT, 3.7, 5.0, 4, 6)))
    assert (twice.pauses, twice.pause_s, twice.resumed_s) == (2, pytest.approx(0.1), pytest.approx(0.8))
    assert (twice.stopped, twice.lost_words, twice.resumed_words) == (False, 1, 1)
    given_up = over(hum, *spans, runs=(first, again, run("x y", 3.7, 5.0, 0, 2)))
    assert (given_up.pauses, given_up.resumed_s, given_up.stopped) == (2, None, True)
    assert (given_up.lost_words, given_up.resumed_words) == (0, 1)


def test_an_agent_that_speaks_on_did_not_pause() -> None:
    assert over(COUGH, span(1, 4)).pause_s is None
    # The pause of a comma lies within one run.
    comma = over(COUGH, span(1, 2.1), span(2.35, 4), runs=(run(TEXT, 1.0, 4.0, 0, 6),))
    assert (comma.over_agent, comma.pause_s, comma.stopped) == (True, None, False)
    # So does the end of a sentence lie between two.
    runs = (run("x y", 1.0, 2.1, 0, 2), run(TEXT, 2.5, 4.0, 0, 6))
    assert over(COUGH, span(1, 2.1), span(2.5, 4), runs=runs).pause_s is None
    # Silence long after the sound has another cause.
    late = (run(TEXT, 1.0, 2.9, 0, 4), run(TEXT, 3.5, 4.0, 3, 6))
    assert over(COUGH, span(1, 2.9), span(3.5, 4), runs=late).pause_s is None


@pytest.mark.parametrize(
    ("agent", "runs"),
    [
        ((span(1, 2.1),), (run(TEXT, 1.0, 2.1, 0, 4),)),
        ((span(1, 2.1), span(5.2, 6)), (run(TEXT, 1.0, 2.1, 0, 4), run(TEXT, 5.2, 6.0, 3, 6))),
        ((span(1, 2.1), span(2.8, 6)), (run(TEXT, 1.0, 2.1, 0, 4), run("x y", 2.8, 6.0, 0, 2))),
        ((span(1, 2.1),), ()),
    ],
    ids=["silent for good", "too late", "says something else", "words unknown"],
)
def test_an_agent_that_does_not_take_it_up_again_stopped(
    agent: tuple[Span, ...], runs: tuple[PlayedRun, ...]
) -> None:
    measured = over(COUGH, *agent, runs=runs)
    assert (measured.pause_s, measured.resumed_s, measured.stopped) == (pytest.approx(0.1), None, True)


def test_where_words_are_unknown_sound_is_enough() -> None:
    measured = over(COUGH, span(1, 2.1), span(2.8, 6))
    assert (measured.resumed_s, measured.stopped, measured.lost_words) == (pytest.approx(0.7), False, 0)


def test_a_silence_already_there_is_a_pause_of_no_length() -> None:
    # The phrase was silent between two words when the cough began, and was cut there.
    runs = (run(TEXT, 1.0, 2.05, 0, 4), run(TEXT, 2.2, 4.0, 4, 6))
    assert over(COUGH, span(1, 1.95), span(2.2, 4), runs=runs).pause_s == 0.0


def test_a_sound_answers_for_what_follows_only_until_the_next_one() -> None:
    click, cough = sound("click", 2.0, 2.02), sound("cough", 2.3, 2.6)
    runs = (run(TEXT, 1.0, 2.4, 0, 4), run(TEXT, 3.0, 4.0, 3, 6))
    measured = measure(record(span(1, 2.4), span(3, 4), said=(click, cough), runs=runs)).overs
    assert [(one.kind, one.pause_s) for one in measured] == [("click", None), ("cough", pytest.approx(0.1))]


def test_backchannels_and_echoes_are_neither_turns_nor_noises() -> None:
    made = (
        sound("uh-huh", 2.0, 2.3, SoundKind.BACKCHANNEL), sound("we open", 3.0, 3.3, SoundKind.ECHO),
        sound("no wait", 6.0, 6.5, SoundKind.INTERRUPTION), said("hello", 9.0, 9.5),
    )  # fmt: skip
    measures = measure(record(span(1, 6.2), said=made))
    assert [turn.text for turn in measures.turns] == ["no wait", "hello"]
    assert measures.noises == ()
    assert [(one.kind, one.text, one.stopped) for one in measures.overs] == [
        ("backchannel", "uh-huh", False), ("echo", "we open", False), ("interruption", "no wait", True),
    ]  # fmt: skip


def test_an_interruption_at_the_end_of_a_sentence_stops_what_would_have_followed() -> None:
    wait = sound("no wait", 2.0, 2.4, SoundKind.INTERRUPTION)
    runs = (run("x y", 1.0, 2.1, 0, 2),)
    assert over(wait, span(1, 2.1), runs=runs).stopped
    went_on = (*runs, run(TEXT, 2.3, 4.0, 0, 6))
    assert not over(wait, span(1, 2.1), span(2.3, 4), runs=went_on).stopped


@pytest.mark.parametrize(
    ("again_s", "first", "stopped"),
    [(3.2, 0, True), (3.2, 1, False), (2.2, 0, False)],
    ids=["said anew", "gone on with", "begun again over the caller"],
)
def test_the_same_words_may_be_the_answer_to_who_interrupted_them(
    again_s: float, first: int, *, stopped: bool
) -> None:
    what = sound("what?", 2.0, 2.4, SoundKind.INTERRUPTION)
    runs = (run(TEXT, 1.0, 2.1, 0, 2), run(TEXT, again_s, 5.0, first, 6))
    assert over(what, span(1, 2.1), span(again_s, 5), runs=runs).stopped is stopped
    cough = sound("cough", 2.0, 2.4)
    assert not over(cough, span(1, 2.1), span(again_s, 5), runs=runs).stopped


SPOKEN = Phrase(
    "we open at nine in the morning",
    encode(voiced(1.4, 3)),
    tuple(Word(f"w{n}", 0.2 * n, 0.2 * n + 0.2) for n in range(7)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1400, 9000),
    st.integers(40, 1200),
    st.integers(800, 8000),
    st.integers(0, 159),
    st.integers(0, 2),
)
def test_whoever_resumes_at_a_word_neither_loses_nor_repeats(
    cut: int, reaction: int, pause: int, lead: int, too_far: int
) -> None:
    word = cut // 1600 - too_far  # the word that was cut, or one or two before it
    played = SILENCE * lead + SPOKEN.ulaw[:cut] + SILENCE * pause + SPOKEN.ulaw[max(word, 0) * 1600 :]
    ear, spans = AgentEar(PhraseIndex(lambda: [SPOKEN])), SpanBuilder()
    words: list[PlayedWord] = []
    played += SILENCE * (-len(played) % 160 + 160)
    for at in range(0, len(played), 160):
        frame = played[at : at + 160]
        words += ear.feed(at, frame)
        if audible := audible_range(frame):
            spans.add(at + audible[0], at + audible[1] + 1)
    cough = Utterance("", lead + cut - reaction, lead + cut - reaction + 400, SoundKind.NOISE, "cough")
    measures = measure(CallRecord(0, len(played), spans.spans, (cough,), words=tuple(words), runs=ear.runs))
    heard_before = (cut + 800) // 1600
    again = max(heard_before - max(word, 0), 0)
    assert (measures.lost_words, measures.repeated_words + measures.resumed_words) == (0, again)
    (made,) = measures.overs
    assert (made.lost_words, made.resumed_words, made.stopped) == (0, again, False)
    assert made.pause_s == pytest.approx(reaction / 8000, abs=0.001)
    assert made.resumed_s == pytest.approx(pause / 8000, abs=0.001)
    was_cut = cut % 1600 >= 800 or cut % 1600 <= 480  # else the last word heard was over long before
    if max(word, 0) > 0:
        assert measures.resumed_words == (1 if again and was_cut else 0)


NUMBER = Utterance("my number is five", s(2.0), s(4.0), pauses=(Span(s(2.5), s(3.2)),))


@pytest.mark.parametrize(
    ("agent", "cut_off"),
    [
        ((span(4.5, 6),), False),
        ((span(3.0, 3.1), span(4.5, 6)), True),
        ((span(3.9, 6),), True),
        ((span(1, 2.2), span(4.5, 6)), False),
        ((span(1, 2.2), span(3.0, 3.1)), True),
    ],
    ids=["waits", "in the pause", "before the end", "spoken over", "spoken over, then in the pause"],
)
def test_who_is_cut_off(agent: tuple[Span, ...], cut_off: bool) -> None:
    (turn,) = measure(record(*agent, said=(NUMBER,))).turns
    assert turn.cut_off is cut_off
    assert turn.inner_pauses_s == ((2.5, 3.2),)


def test_going_on_with_what_was_spoken_over_cuts_nobody_off() -> None:
    agent = (span(1, 2.2), span(3.0, 4.5))
    same = (run(TEXT, 1.0, 2.2, 0, 3), run(TEXT, 3.0, 4.5, 2, 6))
    other = (same[0], run("x y", 3.0, 4.5, 0, 2))
    for runs, cut_off in ((same, False), (other, True)):
        (turn,) = measure(record(*agent, said=(NUMBER,), runs=runs)).turns
        assert turn.cut_off is cut_off


def test_silence_and_waiting() -> None:
    call = record(span(0.2, 1), span(6, 7), said=(said("hi", 2, 2.5), said("bye", 8, 9)), ended_at=s(12))
    measures = measure(call)
    assert measures.longest_silence_s == 3.5
    assert measures.longest_wait_s == 3.5
    assert measures.duration_s == 12.0


def test_the_report_is_one_flat_json_object() -> None:
    report = CallReport(
        "CA1", "booking", "+1", "+2", "completed", "ok", measures=measure(record(span(0.35, 2)))
    )
    content = orjson.loads(report.to_json())
    assert content["greeting_s"] == 0.25
    assert content["turns"] == []
    assert content["outcome"] == "ok"
    assert "measures" not in content
    assert (
        orjson.loads(CallReport("CA1", "b", "+1", "+2", "ringing", "pending").to_json())["state"] == "ringing"
    )
