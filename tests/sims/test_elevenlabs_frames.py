"""Characters and audio stay together, whatever the text."""

import base64
import warnings
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.elevenlabs_frames import (
    OutputFormat,
    Rendered,
    audio_bodies,
    frame_heads,
    parse_output_format,
    time_chars,
    timestamp_document,
    timestamp_lines,
)
from sims.speech import Speech, Word, encode_ulaw
from sims.voice_vendor import SENTENCE_PAUSE_MS, cut

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Pipecat's own, while it is imported
    from pipecat.services.elevenlabs.tts_base import calculate_word_times


@st.composite
def speeches(draw: st.DrawFn) -> Speech:
    """Any words with any pauses; the sound itself does not matter here."""
    tokens = draw(st.lists(st.text("abc,.é1:-", min_size=1, max_size=9), min_size=1, max_size=8))
    separators = draw(st.lists(st.sampled_from([" ", "  ", "\n"]), min_size=8, max_size=8))
    text, words, at_s = draw(st.sampled_from(["", " "])), [], 0.0
    for token, separator in zip(tokens, separators, strict=False):
        start_s = at_s + draw(st.sampled_from([0.0, 0.02, 0.3]))
        at_s = start_s + draw(st.sampled_from([0.0, 0.05, 0.31, 0.9]))
        words.append(Word(token, round(start_s, 4), round(at_s, 4)))
        text += token + separator
    pcm = np.arange(round((at_s + 0.03) * 8000), dtype="<i2").tobytes()
    return Speech(text, "v", 8000, pcm, tuple(words))


def frames_of(speech: Speech, **how: bool) -> list[dict[str, Any]]:
    how = {"is_joined": False, "is_continued": False} | how
    return [orjson.loads(head.content + "}") for head in frame_heads(speech, OutputFormat(8000), **how)]


@given(speech=speeches())
def test_each_frame_is_filled_by_its_characters(speech: Speech) -> None:
    frames = frames_of(speech)
    clock_ms, pcm, chars = 0, b"", []
    for frame in frames:
        alignment = frame["alignment"]
        starts, durations = alignment["charStartTimesMs"], alignment["charDurationsMs"]
        assert len(alignment["chars"]) == len(starts) == len(durations) > 0
        assert all(duration >= 0 for duration in durations)
        assert starts == sorted(starts)
        chars += alignment["chars"]
        clock_ms += starts[-1] + durations[-1]
        pcm += base64.b64decode(frame["audio"])
        assert clock_ms == pytest.approx(len(pcm) / 16, abs=1)
        assert frame["isFinal"] is None
    assert "".join(chars) == "".join(" " if char.isspace() else char for char in speech.text)
    assert pcm == speech.pcm


@given(speech=speeches(), is_continued=st.booleans())
def test_the_real_client_reads_the_words_with_their_times(speech: Speech, is_continued: bool) -> None:
    """`calculate_word_times` is Pipecat's own, fed as its socket reader feeds it."""
    clock_s, partial, partial_s, heard = 0.0, "", 0.0, []
    for frame in frames_of(speech, is_joined=is_continued, is_continued=is_continued):
        alignment = frame["alignment"]
        words, partial, partial_s = calculate_word_times(alignment, clock_s, partial, partial_s)
        heard += words
        clock_s += (alignment["charStartTimesMs"][-1] + alignment["charDurationsMs"][-1]) / 1000
    heard += [(partial, partial_s)] if partial else []
    assert [word for word, _ in heard] == [word.text for word in speech.words]
    pause_s = SENTENCE_PAUSE_MS / 1000 if is_continued else 0.0
    for (_, at_s), word in zip(heard, speech.words, strict=True):
        assert at_s == pytest.approx(word.start_s + pause_s, abs=0.002)


def test_normalized_alignment_begins_with_a_space_once() -> None:
    speech = Speech("Hi you", "v", 8000, bytes(16000), (Word("Hi", 0.0, 0.3), Word("you", 0.4, 1.0)))
    first, *later = frames_of(speech)
    assert first["normalizedAlignment"]["chars"][0] == " "
    assert first["normalizedAlignment"]["chars"][1:] == first["alignment"]["chars"]
    assert all(frame["normalizedAlignment"] == frame["alignment"] for frame in later)
    continued = frames_of(speech, is_joined=True, is_continued=True)
    assert continued[0]["alignment"]["chars"][0] == " "
    assert continued[0]["normalizedAlignment"] == continued[0]["alignment"]


@given(speech=speeches())
def test_http_lines_run_on_and_agree_with_the_document(speech: Speech) -> None:
    rendered = Rendered(speech, OutputFormat(8000), cut(speech))
    lines = [orjson.loads(body.content) for body in timestamp_lines(rendered)]
    (document,) = [orjson.loads(body.content) for body in timestamp_document(rendered)]
    for key in ("characters", "character_start_times_seconds"):
        joined = [value for line in lines for value in line["alignment"][key]]
        assert joined == document["alignment"][key]
    starts_s = document["alignment"]["character_start_times_seconds"]
    assert starts_s == sorted(starts_s)
    for line in lines:
        assert len(set(map(len, line["alignment"].values()))) == 1
    audio = b"".join(base64.b64decode(line["audio_base64"]) for line in lines)
    assert audio == base64.b64decode(document["audio_base64"]) == speech.pcm
    assert b"".join(body.content for body in audio_bodies(rendered)) == speech.pcm


def test_a_space_lasts_until_the_next_word() -> None:
    speech = Speech("ab c", "v", 8000, bytes(16000), (Word("ab", 0.1, 0.3), Word("c", 0.5, 0.9)))
    timed = time_chars(speech)
    assert timed.chars == ("a", "b", " ", "c")
    assert timed.starts_ms == (100, 200, 300, 500)
    assert timed.end_ms == 1000


@pytest.mark.parametrize(
    ("name", "rate_hz"),
    [
        ("pcm_8000", 8000),
        ("pcm_48000", 48000),
        ("ulaw_8000", 8000),
        ("pcm_8001", None),
        ("mp3_44100_128", None),
    ],
)
def test_output_formats(name: str, rate_hz: int | None) -> None:
    output = parse_output_format(name)
    assert (output.rate_hz if output else None) == rate_hz
    if output:
        pcm = b"\1\2\3\4"
        assert output.encode(pcm) == (encode_ulaw(pcm) if name.startswith("ulaw") else pcm)
