import audioop

from hypothesis import given
from hypothesis import strategies as st

from sims import mulaw
from sims.speech import encode_ulaw


@given(st.binary(max_size=400))
def test_decodes_like_g711(ulaw: bytes) -> None:
    assert mulaw.decode(ulaw) == audioop.ulaw2lin(ulaw, 2)


def test_a_phone_frame_survives_the_way_to_linear_and_back() -> None:
    every = bytes(code for code in range(256) if code != 0x7F)
    assert encode_ulaw(mulaw.decode(every)) == every
    assert encode_ulaw(mulaw.decode(b"\x7f")) == mulaw.SILENCE  # -0 becomes +0


def test_the_audible_range_leaves_out_what_is_too_quiet() -> None:
    quiet, loud = encode_ulaw((100).to_bytes(2, "little")), encode_ulaw((2000).to_bytes(2, "little"))
    assert mulaw.audible_range(quiet * 5 + loud + quiet + loud + mulaw.SILENCE) == (5, 7)
    assert mulaw.audible_range(quiet * 9) is None


def test_padding_fills_the_last_frame() -> None:
    assert mulaw.pad_to_frames(b"\x00" * 161) == b"\x00" * 161 + mulaw.SILENCE * 159
    assert mulaw.pad_to_frames(mulaw.SILENT_FRAME) == mulaw.SILENT_FRAME
