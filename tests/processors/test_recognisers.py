import pytest

from processors.recognisers import RecogniserFailure, Report
from processors.voices import FailureKind


@pytest.mark.parametrize(("detail", "said"), [("", "late"), ("5 s", "late: 5 s")])
def test_a_failure_says_what_it_is(detail: str, said: str) -> None:
    failure = RecogniserFailure(FailureKind.LATE, detail)
    assert (str(failure), failure.kind, failure.detail) == (said, FailureKind.LATE, detail)


def test_a_report_may_say_nothing() -> None:
    report = Report(None)
    assert (report.has_words, report.is_answer, report.words_until_s) == (False, False, None)


def test_any_error_can_be_told_as_a_failure() -> None:
    failure = RecogniserFailure(FailureKind.CLOSED)
    assert RecogniserFailure.of(failure) is failure
    slow = RecogniserFailure.of(TimeoutError())
    assert (slow.kind, slow.detail) == (FailureKind.LATE, "too slow")
    refused = RecogniserFailure.of(OSError("no route"), FailureKind.REFUSED)
    assert (refused.kind, refused.detail) == (FailureKind.REFUSED, "OSError('no route')")
