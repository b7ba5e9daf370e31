import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.caller_replay import CallerReplay
from processors.hearing_watch import LISTENS
from processors.replay_course import QUIET_SENT_S, ReplayCourse

RATE = 8000
PIECE = RATE // 4


def line(*, quiet_s: float, spoken_s: float, after_s: float) -> CallerReplay:
    """Return a line with one speech."""
    made = CallerReplay(rate_hz=RATE)
    add(made, quiet_s)
    made.speech_began(0.0)
    add(made, spoken_s)
    made.speech_ended(0.0)
    add(made, after_s)
    return made


def add(made: CallerReplay, length_s: float) -> None:
    for _ in range(round(length_s / 0.02)):
        made.add(bytes(2 * round(0.02 * RATE)))


def send(course: ReplayCourse) -> float:
    """Send all there is; return its seconds."""
    sent = 0
    while piece := course.piece(PIECE):
        sent += len(piece) // 2
    return sent / RATE


def test_quiet_in_front_of_speech_is_left_out_but_for_its_end() -> None:
    course = ReplayCourse(line(quiet_s=5.0, spoken_s=1.0, after_s=0.1), 0, 0.0)
    assert course.leave_out_quiet() == 0  # a recogniser hears speech better with some quiet in front of it
    course.piece(round(QUIET_SENT_S * RATE))
    assert course.leave_out_quiet() / RATE == pytest.approx(5.0 - 2 * QUIET_SENT_S)
    assert course.sent / RATE == pytest.approx(5.0 - QUIET_SENT_S)


def test_nothing_of_speech_is_left_out() -> None:
    course = ReplayCourse(line(quiet_s=1.0, spoken_s=2.0, after_s=3.0), RATE, 0.0)
    for _ in range(8):
        assert course.leave_out_quiet() == 0
        course.piece(PIECE)
    assert course.sent / RATE == pytest.approx(3.0)


def test_places_behind_what_was_left_out_are_those_of_the_line() -> None:
    course = ReplayCourse(line(quiet_s=1.0, spoken_s=1.0, after_s=4.0), RATE, 0.0)
    course.piece(round((1.0 + QUIET_SENT_S) * RATE))
    left_out = course.leave_out_quiet()
    assert left_out / RATE == pytest.approx(4.0 - 2 * QUIET_SENT_S)
    assert course.place_of(RATE // 2) == RATE + RATE // 2
    assert course.place_of(2 * RATE) == RATE + 2 * RATE + left_out


def test_who_was_sent_all_speech_rests_until_it_may_have_listened_to_it() -> None:
    made = line(quiet_s=1.0, spoken_s=3.0, after_s=0.5)
    course = ReplayCourse(made, RATE, 10.0)
    assert not course.rest(10.0)  # speech comes next
    sent_s = send(course)
    assert course.rest(10.1)
    assert course.is_resting
    assert course.rest(10.0 + sent_s / LISTENS - 0.01)
    assert not course.rest(10.0 + sent_s / LISTENS + 0.01)


def test_who_rests_goes_on_when_the_caller_speaks() -> None:
    made = line(quiet_s=1.0, spoken_s=3.0, after_s=0.5)
    course = ReplayCourse(made, RATE, 10.0)
    send(course)
    assert course.rest(10.1)
    add(made, 1.0)
    made.speech_began(0.2)
    assert not course.rest(11.1)
    course.leave_out_quiet()
    assert course.sent / RATE == pytest.approx(5.3 - QUIET_SENT_S)


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=6),
    st.integers(400, 4000),
    st.lists(st.booleans(), min_size=1),
)
def test_all_speech_is_sent_once_and_each_sample_has_its_place(
    spoken: list[tuple[int, int]], most: int, leave_out: list[bool]
) -> None:
    """Whenever quiet is left out, in whatever pieces the rest goes."""
    made = CallerReplay(rate_hz=RATE)
    speech: set[int] = set()
    for quiet, words in spoken:
        add(made, 0.02 * quiet)
        made.speech_began(0.0)
        speech |= set(range(made.end, made.end + 160 * words, 160))
        add(made, 0.02 * words)
        made.speech_ended(0.0)
    course = ReplayCourse(made, made.first, 0.0)
    places: list[int] = []
    heard = turn = 0
    while course.sent < made.end:
        if leave_out[turn % len(leave_out)]:
            course.leave_out_quiet()
        turn += 1
        begin = course.sent
        count = len(course.piece(most)) // 2
        assert course.place_of(heard + 1) == begin + 1
        places += range(begin, begin + count)
        heard += count
    assert len(set(places)) == len(places)
    assert {place for place in speech if place >= made.first} <= set(places)
