"""PocketSphinx with a front desk's language model, as a process of its own: `python -m sims.sphinx`.

Reads utterances from stdin, writes guesses and results to stdout, and ends when stdin does. `sims.free_speech`
starts it and owns the other ends of the pipes. It opens no socket, and one decoder serves one utterance at a time:
those that come meanwhile wait in memory (the other side bounds them).

Messages both ways: `Header` (kind, utterance, length of what follows), then audio (s16le mono 16 kHz) or JSON.
"""

import json
import os
import re
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from sims.phrases import make_phrases

HEADER = struct.Struct("<cII")
BEGIN, AUDIO, END, DROP, GUESS, RESULT = b"B", b"A", b"E", b"D", b"G", b"R"
RATE_HZ = 16000
GUESS_EVERY_BYTES = RATE_HZ * 2 // 2
"""A guess after each half second of audio."""
_FRAMES_PER_S = 100

Words = list[tuple[str, float, float]]
"""Word, start and end in seconds from the start of the utterance."""

_EXTRA_WORDS = {"toothache": "T UW TH EY K"}
"""Pronunciations the shipped dictionary lacks."""


class Recognizer(Protocol):
    """Turns one utterance after another into words."""

    def begin(self) -> None:
        """Start an utterance."""
        ...

    def feed(self, pcm: bytes) -> None:
        """Take s16le mono 16 kHz."""
        ...

    def guess(self) -> Words:
        """Return the words so far; they may change."""
        ...

    def finish(self) -> Words:
        """End the utterance and return its words."""
        ...


class SphinxRecognizer:
    """PocketSphinx, US English acoustic model, trigrams of `phrases`."""

    def __init__(self) -> None:
        """Build the language model and load the decoder: half a second."""
        # Imported here: only this process needs the extra, the protocol's other end imports this module too.
        from pocketsphinx import Decoder

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            words = _write_language_model(folder / "desk.lm")
            _write_dictionary(folder / "desk.dict", words)
            self._decoder = Decoder(
                lm=str(folder / "desk.lm"), dict=str(folder / "desk.dict"), loglevel="FATAL", lw=9
            )

    def begin(self) -> None:
        """Start an utterance."""
        self._decoder.start_utt()

    def feed(self, pcm: bytes) -> None:
        """Take s16le mono 16 kHz."""
        self._decoder.process_raw(pcm)

    def guess(self) -> Words:
        """Return the words so far; they may change."""
        return self._words()

    def finish(self) -> Words:
        """End the utterance and return its words."""
        self._decoder.end_utt()
        return self._words()

    def _words(self) -> Words:
        words: Words = []
        for segment in self._decoder.seg() or ():
            if segment.word[0] not in "<[+":  # silence and noise
                text = re.sub(r"\(\d+\)$", "", segment.word)
                words.append(
                    (text, segment.start_frame / _FRAMES_PER_S, (segment.end_frame + 1) / _FRAMES_PER_S)
                )
        return words


def _write_language_model(path: Path) -> set[str]:
    from pocketsphinx.lm import ArpaBoLM

    phrases = make_phrases()
    model = ArpaBoLM(text="\n".join(phrases), add_start=True)
    model.compute()
    model.write_file(str(path))
    return {word for phrase in phrases for word in phrase.split()}


def _write_dictionary(path: Path, words: set[str]) -> None:
    """Keep only the pronunciations of `words`: a tenth of the start-up time and memory."""
    from pocketsphinx import get_model_path

    whole = Path(get_model_path()) / "en-us" / "cmudict-en-us.dict"
    with whole.open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as kept:
        kept.writelines(line for line in lines if re.sub(r"\(\d+\)$", "", line.partition(" ")[0]) in words)
        kept.writelines(f"{word} {phones}\n" for word, phones in _EXTRA_WORDS.items())


@dataclass
class _Utterance:
    waiting: bytearray = field(default_factory=bytearray)
    since_guess_bytes: int = 0
    is_ended: bool = False


class Service:
    """Feeds utterances to the recogniser in the order they began."""

    def __init__(self, recognizer: Recognizer, out: BinaryIO) -> None:
        """Serve `recognizer`, answering on `out`."""
        self._recognizer = recognizer
        self._out = out
        self._queue: dict[int, _Utterance] = {}
        self._active: int | None = None

    def take(self, kind: bytes, number: int, payload: bytes) -> None:
        """Obey one message; what is no longer known is ignored."""
        if kind == BEGIN:
            self._queue[number] = _Utterance()
        elif (utterance := self._queue.get(number)) is None:
            return
        elif kind == AUDIO:
            utterance.waiting += payload
        elif kind == END:
            utterance.is_ended = True
        elif kind == DROP:
            del self._queue[number]
            if self._active == number:
                self._recognizer.finish()
                self._active = None
        self._work()

    def _work(self) -> None:
        while self._queue:
            number, utterance = next(iter(self._queue.items()))
            if self._active is None:
                self._active = number
                self._recognizer.begin()
            audio, utterance.waiting = bytes(utterance.waiting), bytearray()
            if audio:
                self._recognizer.feed(audio)
                utterance.since_guess_bytes += len(audio)
            if not utterance.is_ended:
                self._guess(number, utterance)
                return
            del self._queue[number]
            self._active = None
            self._answer(RESULT, number, self._recognizer.finish())

    def _guess(self, number: int, utterance: _Utterance) -> None:
        if utterance.since_guess_bytes >= GUESS_EVERY_BYTES:
            utterance.since_guess_bytes = 0
            self._answer(GUESS, number, self._recognizer.guess())

    def _answer(self, kind: bytes, number: int, words: Words) -> None:
        payload = json.dumps(words).encode()
        self._out.write(HEADER.pack(kind, number, len(payload)) + payload)
        self._out.flush()


def serve(service: Service, source: BinaryIO) -> None:
    """Obey messages until `source` ends."""
    while len(header := source.read(HEADER.size)) == HEADER.size:
        kind, number, length = HEADER.unpack(header)
        service.take(kind, number, source.read(length))


def main() -> None:
    """Run on stdin and stdout."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing a library prints may get between the messages
    serve(Service(SphinxRecognizer(), out), sys.stdin.buffer)


if __name__ == "__main__":
    main()
