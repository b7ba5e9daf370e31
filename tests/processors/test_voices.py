from processors.voices import FailureKind, VoiceFailure


def test_what_lasts_is_what_only_a_person_can_mend() -> None:
    lasting = {kind for kind in FailureKind if kind.is_lasting}
    assert lasting == {FailureKind.UNAUTHORIZED, FailureKind.QUOTA, FailureKind.REQUEST}


def test_a_failure_says_what_it_is() -> None:
    assert str(VoiceFailure(FailureKind.LATE)) == "late"
    assert str(VoiceFailure(FailureKind.QUOTA, "no credits")) == "quota: no credits"
