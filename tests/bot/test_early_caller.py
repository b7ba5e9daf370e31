from hypothesis import given
from hypothesis import strategies as st

from bot.early_caller import KEPT_KEYS, KEPT_S, EarlyCaller

RATE = 8000
LIMIT = round(KEPT_S * RATE) * 2


@given(st.lists(st.integers(1, 4000), max_size=200))
def test_the_last_seconds_are_kept_in_their_order(sizes: list[int]) -> None:
    early = EarlyCaller(rate_hz=RATE)
    said = bytearray()
    for number, size in enumerate(sizes):
        piece = bytes([number % 251]) * (2 * size)
        said += piece
        early.hear(piece)
    kept = b"".join(early.take_audio())
    assert len(kept) <= LIMIT
    assert bytes(said).endswith(kept)
    assert len(kept) == len(said) or len(kept) > LIMIT - 8000
    assert list(early.take_audio()) == []


def test_what_comes_while_it_is_taken_is_taken_too() -> None:
    early = EarlyCaller(rate_hz=RATE)
    early.hear(b"12")
    taken = early.take_audio()
    assert next(taken) == b"12"
    early.hear(b"34")
    assert list(taken) == [b"34"]


def test_keys_are_kept_in_their_order_and_bounded() -> None:
    early = EarlyCaller(rate_hz=RATE)
    for number in range(KEPT_KEYS + 3):
        early.press(str(number % 10))
    keys = list(early.take_keys())
    assert len(keys) == KEPT_KEYS
    assert keys[0] == "3"
    assert list(early.take_keys()) == []
