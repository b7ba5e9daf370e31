from hypothesis import given
from hypothesis import strategies as st

from processors.playout_intake import VoiceIntake

RATE = 8000
NS = 1_000_000_000
ANCHOR_NS = 5 * NS


def opened(at: int = 800, *, is_protected: bool = False) -> VoiceIntake:
    intake = VoiceIntake(RATE)
    intake.begin("c1", at=at, is_protected=is_protected)
    return intake


def anchored(at: int = 800) -> VoiceIntake:
    intake = opened(at)
    intake.anchor(ANCHOR_NS, at=at)
    return intake


def test_between_utterances_nothing_is_open() -> None:
    intake = VoiceIntake(RATE)
    assert intake.context_id is None
    intake.begin("c1", at=0, is_protected=True)
    assert (intake.context_id, intake.is_protected) == ("c1", True)
    intake.end()
    assert intake.context_id is None
    intake.begin("c2", at=0)
    assert not intake.is_protected


def test_only_the_first_audio_of_each_utterance_is_the_first() -> None:
    intake = opened()
    assert [intake.audio_came() for _ in range(3)] == [True, False, False]
    intake.begin("c2", at=1600)
    assert intake.audio_came()


def test_a_word_stands_where_its_time_says() -> None:
    intake = anchored(at=800)
    assert intake.word_start(ANCHOR_NS) == 800
    assert intake.word_start(ANCHOR_NS + NS // 2) == 800 + RATE // 2


def test_a_word_without_a_time_of_its_own_has_no_place() -> None:
    assert opened().word_start(ANCHOR_NS) is None, "there is no anchor"
    intake = anchored()
    assert intake.word_start(None) is None
    assert intake.word_start(ANCHOR_NS + 1) is not None
    assert intake.word_start(ANCHOR_NS + 1) is None, "it has the time of the word before it"


def test_the_first_word_behind_an_anchor_may_have_the_time_of_the_last_one_before_it() -> None:
    intake = anchored()
    assert intake.word_start(ANCHOR_NS) is not None
    intake.begin("c2", at=1600)
    intake.anchor(ANCHOR_NS, at=1600)
    assert intake.word_start(ANCHOR_NS) == 1600


def test_a_new_utterance_is_not_tied_to_the_anchor_of_the_last_one() -> None:
    intake = anchored()
    intake.begin("c2", at=1600)
    assert intake.word_start(ANCHOR_NS + NS) is None


@given(
    at=st.integers(0, 10**6),
    shifts=st.lists(st.integers(0, 10**5), max_size=5),
    offset_ms=st.integers(0, 60_000),
)
def test_what_is_put_in_between_moves_every_word_behind_it(
    at: int, shifts: list[int], offset_ms: int
) -> None:
    intake = anchored(at)
    for by in shifts:
        intake.shift(by)
    assert intake.start == at + sum(shifts)
    assert intake.word_start(ANCHOR_NS + offset_ms * 1_000_000) == intake.start + offset_ms * RATE // 1000
