from bench.burst import CALLER, HOW, HOW_HEADING


def test_its_caller_may_be_told_that_there_is_no_room() -> None:
    assert CALLER.may_end_from == 2


def test_how_it_is_measured_is_explained() -> None:
    assert HOW_HEADING in HOW.read_text()
