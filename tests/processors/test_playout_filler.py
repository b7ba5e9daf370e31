from processors.playout_filler import PlayoutFiller


def waiting(end: int = 800) -> PlayoutFiller:
    filler = PlayoutFiller()
    filler.said("One moment.", end=end)
    return filler


def test_without_a_filler_no_audio_is_one_and_none_is_over() -> None:
    filler = PlayoutFiller()
    assert filler.text == ""
    assert not filler.has(0)
    assert not filler.is_heard(10**9)
    assert not filler.over()


def test_it_begins_to_be_heard_once_with_its_first_audio() -> None:
    filler = waiting()
    assert [filler.sent() for _ in range(3)] == [True, False, False]


def test_it_is_heard_at_its_end_and_then_it_is_over() -> None:
    filler = waiting(end=800)
    filler.sent()
    assert (filler.has(799), filler.has(800)) == (True, False)
    assert (filler.is_heard(799), filler.is_heard(800)) == (False, True)
    assert filler.over()
    assert filler.text == ""
    assert not filler.is_heard(800)
    assert not filler.over(), "it is told once"


def test_one_that_was_not_sent_ends_untold() -> None:
    assert not waiting().over()


def test_its_audio_is_known_when_it_comes_again_though_it_is_over() -> None:
    filler = waiting(end=800)
    filler.sent()
    filler.over()
    assert filler.has(100), "after a pause it is sent once more"


def test_what_takes_the_place_of_its_rest_is_no_filler() -> None:
    filler = waiting(end=800)
    filler.sent()
    filler.cut(300)
    assert (filler.end, filler.has(299), filler.has(300)) == (300, True, False)
    assert filler.is_heard(300)
    filler.cut(900)
    assert filler.end == 300, "it does not grow"


def test_the_next_one_is_told_anew() -> None:
    filler = waiting(end=800)
    filler.sent()
    filler.over()
    filler.said("Nearly there.", end=1600)
    assert (filler.text, filler.end) == ("Nearly there.", 1600)
    assert filler.sent()
