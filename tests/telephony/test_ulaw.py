"""The codec gives the bytes that G.711 and `audioop` give."""

import audioop
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony import ulaw

ALL_SAMPLES = struct.pack("<65536h", *range(-32768, 32768))
ALL_CODES = bytes(range(256))

# ITU-T G.711 table 2a: "character signal" and "decoder output" (14-bit units) at the ends of each segment.
G711_POSITIVE = {
    0xFF: 0, 0xFE: 2, 0xF0: 30, 0xEF: 33, 0xE0: 93, 0xDF: 99, 0xD0: 219, 0xCF: 231, 0xC0: 471,
    0xBF: 495, 0xB0: 975, 0xAF: 1023, 0xA0: 1983, 0x9F: 2079, 0x90: 3999, 0x8F: 4191, 0x80: 8031,
}  # fmt: skip


@pytest.mark.parametrize(("code", "value"), G711_POSITIVE.items())
def test_codes_decode_to_the_values_of_the_standard_with_either_sign(code: int, value: int) -> None:
    assert struct.unpack("<2h", ulaw.decode(bytes([code, code & 0x7F]))) == (value * 4, -value * 4)


def test_all_256_codes_decode_as_audioop_does() -> None:
    assert ulaw.decode(ALL_CODES) == audioop.ulaw2lin(ALL_CODES, 2)


def test_all_65536_samples_encode_as_audioop_does() -> None:
    assert ulaw.encode(ALL_SAMPLES) == audioop.lin2ulaw(ALL_SAMPLES, 2)


def test_every_code_survives_a_round_trip_except_negative_zero() -> None:
    assert ulaw.encode(ulaw.decode(ALL_CODES)) == ALL_CODES.replace(b"\x7f", b"\xff")


def test_silence_decodes_to_zero() -> None:
    assert ulaw.decode(bytes([ulaw.SILENCE]) * 160) == bytes(320)


@given(st.binary(max_size=400))
def test_any_bytes_decode_to_two_bytes_each_as_audioop_does(codes: bytes) -> None:
    assert ulaw.decode(codes) == audioop.ulaw2lin(codes, 2)


@given(st.lists(st.integers(-32768, 32767), max_size=200))
def test_any_pcm_encodes_as_audioop_does(samples: list[int]) -> None:
    pcm = struct.pack(f"<{len(samples)}h", *samples)
    assert ulaw.encode(pcm) == audioop.lin2ulaw(pcm, 2)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="whole 2-byte samples, got 3 bytes"):
        ulaw.encode(b"\0\0\0")
