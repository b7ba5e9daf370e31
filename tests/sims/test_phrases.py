from pathlib import Path

import pocketsphinx

from sims.phrases import make_phrases
from sims.sphinx import _EXTRA_WORDS


def test_every_word_can_be_pronounced() -> None:
    dictionary = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    known = {line.partition(" ")[0] for line in dictionary.read_text(encoding="utf-8").splitlines()}
    words = {word for phrase in make_phrases() for word in phrase.split()}
    assert words - known == set(_EXTRA_WORDS)


def test_blanks_are_filled_and_the_text_is_the_same_every_time() -> None:
    phrases = make_phrases()
    assert phrases == make_phrases()
    assert not any("{" in phrase or "|" in phrase for phrase in phrases)
    assert "monday" in phrases
