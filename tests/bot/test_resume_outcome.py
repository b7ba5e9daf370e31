import pytest

from bot.resume_outcome import ResumeOutcome, event_of


@pytest.mark.parametrize("outcome", list(ResumeOutcome))
def test_each_outcome_has_a_row_that_says_what_it_cost(outcome: ResumeOutcome) -> None:
    event = event_of(outcome, "CA1", 3.2)
    assert event.call_sid == "CA1"
    assert 3200.0 in event.fields.values()
    event.to_json()


def test_a_process_that_stopped_is_a_failure_and_a_call_that_went_on_is_none() -> None:
    stopped = event_of(ResumeOutcome.REDIRECTED, "CA1", 3.0)
    assert (stopped.kind, stopped.fields["vendor"], stopped.fields["action"]) == (
        "failure",
        "process",
        "redirect",
    )
    assert event_of(ResumeOutcome.WENT_ON, "CA1", 0.2).kind == "call_resumed"
