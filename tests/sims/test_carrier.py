import io
import wave

from sims.carrier import RecordingShelf, new_sid


def test_recordings_are_found_by_sid_and_call_and_the_oldest_go() -> None:
    shelf = RecordingShelf(limit=2)
    first = shelf.add("CA1", b"\xff" * 8000, "RecordVerb")
    second = shelf.add("CA1", b"\xff" * 16000, "RecordVerb", sid="RE2")
    assert shelf.of_call("CA1") == [first, second]
    assert shelf.find("RE2") is second
    assert second.duration_s == 2
    with wave.open(io.BytesIO(first.wav)) as file:
        assert file.getnframes() == 8000
    shelf.add("CA2", b"", "RecordVerb")
    assert shelf.find(first.sid) is None
    assert shelf.of_call("CA1") == [second]


def test_sids_are_twilios_shape_and_never_the_same() -> None:
    sids = {new_sid("CA") for _ in range(100)}
    assert len(sids) == 100
    assert {len(sid) for sid in sids} == {34}
