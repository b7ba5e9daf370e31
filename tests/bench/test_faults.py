import pytest

from bench.chaos.verdict import Outcome
from bench.fault_rows import FAULTS
from bench.faults import HOW, HOW_HEADING, Heard, page
from bench.figures import CallerReport
from bench.page import section
from bench.servers import Bot


def test_the_page_has_both_side_by_side_and_a_dash_for_what_was_not_played() -> None:
    results = {("nothing fails", Bot.OURS): Heard(1.234, 0, 0, Outcome.SERVED)}
    text = page(results, conditions=["a machine"], how="## Under faults\n\nSo.")
    assert "| nothing fails | 1.2 | 0 | 0 | served | - | - | - | - |" in text
    assert "| Redis is gone | - | - | - | - | - | - | - | has none |" in text
    assert all(f"| {fault.name} |" in text for fault in FAULTS)
    assert "- a machine\n" in text
    assert text.endswith("So.\n")


def test_the_page_tells_how_it_was_made_and_nothing_of_other_pages() -> None:
    how = section(HOW.read_text(), HOW_HEADING)
    assert how.startswith(HOW_HEADING)
    assert how.count("\n## ") == 0
    assert "hangs up" in how
    with pytest.raises(ValueError, match="no section"):
        section("## One\n", "## Two")


def test_what_was_heard_is_read_from_the_callers_report() -> None:
    report = CallerReport(
        scenario="asks",
        outcome="failed",
        reasons=("step 3 (converse): the agent did not speak within 20 s",),
        ended_by="caller",
        duration_s=30.0,
        stream_started_s=0.0,
        agent_audible_s=((1.0, 4.0),),
        lost_words=2,
    )
    assert Heard.of(report) == Heard(26.0, 2, 0, Outcome.LEFT)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("I've passed that on. Goodbye.", Outcome.SERVED),
        ("I've written that down. Goodbye.", Outcome.SERVED),
        ("I can't reach our book. Goodbye.", Outcome.PARTLY),
    ],
)
def test_a_message_that_waits_to_be_put_into_the_book_is_kept_too(said: str, outcome: Outcome) -> None:
    words = tuple((word, 1.0 + number, 1.5 + number) for number, word in enumerate(said.split()))
    report = CallerReport(
        scenario="message",
        outcome="ok",
        reasons=(),
        ended_by="agent",
        duration_s=20.0,
        stream_started_s=0.0,
        agent_words=words,
    )
    assert Heard.of(report, "message").outcome is outcome
