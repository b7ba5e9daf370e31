import audioop

from hypothesis import given
from hypothesis import strategies as st

from sims import mulaw


@given(st.binary(max_size=400))
def test_decodes_like_g711(ulaw: bytes) -> None:
    assert mulaw.decode(ulaw) == audioop.ulaw2lin(ulaw, 2)


@given(st.binary(max_size=200).map(lambda raw: raw * 2))
def test_encodes_within_one_step_of_g711(pcm: bytes) -> None:
    ours = audioop.ulaw2lin(mulaw.encode(pcm), 2)
    reference = audioop.ulaw2lin(audioop.lin2ulaw(pcm, 2), 2)
    for at in range(0, len(pcm), 2):
        a = int.from_bytes(ours[at : at + 2], "little", signed=True)
        b = int.from_bytes(reference[at : at + 2], "little", signed=True)
        assert abs(a - b) <= max(abs(b) // 8, 8)


def test_a_phone_frame_survives_the_way_to_linear_and_back() -> None:
    every = bytes(code for code in range(256) if code != 0x7F)
    assert mulaw.encode(mulaw.decode(every)) == every
    assert mulaw.encode(mulaw.decode(b"\x7f")) == b"\xff"
