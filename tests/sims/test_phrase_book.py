from pathlib import Path

from sims.phrase_book import MAX_LINES, Line, PhraseBook


def test_lines_survive_a_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "phrases.jsonl"
    book = PhraseBook(path)
    for text in ("Hello.", "Goodbye.", "Hello."):
        book.add(Line(text, "voice-1"))
    assert PhraseBook(path).lines == (Line("Hello.", "voice-1"), Line("Goodbye.", "voice-1"))


def test_a_full_book_keeps_the_first_lines(tmp_path: Path) -> None:
    book = PhraseBook(tmp_path / "book")
    for number in range(MAX_LINES + 5):
        book.add(Line(str(number), "v"))
    assert len(book.lines) == len(PhraseBook(tmp_path / "book").lines) == MAX_LINES


def test_a_bad_file_is_an_empty_book(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_bytes(b'{"text": "half')
    assert PhraseBook(path).lines == ()
    path.write_bytes(b'{"surprise": 1}\n')
    assert PhraseBook(path).lines == ()
