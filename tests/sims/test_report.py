import orjson
import pytest

from sims.agent_words import PlayedWord
from sims.playout import DryRun
from sims.report import (
    CallRecord,
    CallReport,
    Span,
    SpanBuilder,
    Utterance,
    count_faulty_words,
    join,
    measure,
)


def s(seconds: float) -> int:
    return round(seconds * 8000)


def span(start_s: float, end_s: float) -> Span:
    return Span(s(start_s), s(end_s))


def said(text: str, start_s: float, end_s: float) -> Utterance:
    return Utterance(text, s(start_s), s(end_s))


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
    assert count_faulty_words(words, []) == expected


def test_words_that_the_caller_talked_over_are_not_lost() -> None:
    words = [word(1.0, "a b c d", 0), word(3.0, "e f", 0)]
    assert count_faulty_words(words, []) == (3, 0)
    assert count_faulty_words(words, [said("stop", 1.1, 2.0)]) == (0, 0)


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
